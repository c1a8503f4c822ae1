#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Unpacks xsimd, headers alone, as another Debian suite has it, from the mirror that this machine's own apt uses.
#   newer_xsimd.sh SUITE FOLDER       prints the version; leaves FOLDER/lib/pkgconfig/xsimd.pc and what it names
# Where that cannot be had, one line on standard error says why, and the exit status is 1.
set -u
suite=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)

give_up() {
    echo "$1" >&2
    exit 1
}
for tool in apt-get dpkg-deb; do
    command -v $tool > /dev/null || give_up "no $tool here"
done
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    sed -n 's/^Debian Debian //p' | head -n 1)
[ -n "$mirror" ] || give_up "apt here has no mirror of Debian's"

# An apt of its own: one source, its lists and its cache in the folder; nothing of the machine's is changed.
mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keys" ] || give_up "no keys of Debian's here ($keys)"
echo "deb [signed-by=$keys] $mirror $suite main" > "$folder/apt/sources.list"
own_apt() {
    apt-get -qq -o "Dir::Etc::SourceList=$folder/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State::Lists=$folder/apt/lists" -o "Dir::Cache=$folder/apt/cache" \
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o APT::Update::Error-Mode=any "$@"
}
own_apt update > "$folder/apt/log" 2>&1 || give_up "apt's mirror here has no $suite: $(tail -n 1 "$folder/apt/log" | cut -c1-120)"
(cd "$folder/apt" && rm -f ./*.deb && own_apt download "libxsimd-dev/$suite" > log 2>&1) ||
    give_up "no libxsimd-dev in $suite: $(tail -n 1 "$folder/apt/log" | cut -c1-120)"
dpkg-deb -x "$folder"/apt/libxsimd-dev_*.deb "$folder" || give_up "libxsimd-dev of $suite could not be unpacked"

pc=$(find "$folder/usr" -name xsimd.pc | head -n 1)
[ -n "$pc" ] || give_up "libxsimd-dev of $suite has no xsimd.pc"
mkdir -p "$folder/lib/pkgconfig"
sed "s|=/usr|=$folder/usr|" "$pc" > "$folder/lib/pkgconfig/xsimd.pc"
sed -n 's/^Version: *//p' "$pc"
