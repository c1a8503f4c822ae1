#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Prints the path of a Julia >= 1.5.
#   julia.sh WORK_FOLDER
# The one on PATH, where there is one. Otherwise Debian 11's, which runs on later Debians too: julia and what it depends
# on, from the mirror that this machine's own apt uses, unpacked in WORK_FOLDER/julia, and kept there for the next time.
# Where neither can be had, one line on standard error says why, and the exit status is 1.
set -u
give_up() {
    echo "$1" >&2
    exit 1
}

# Usable: it starts, and is not older than 1.5.
usable() {
    "$1" --startup-file=no -e 'exit(VERSION >= v"1.5" ? 0 : 1)' > /dev/null 2>&1
}

on_path=$(command -v julia)
if [ -n "$on_path" ] && usable "$on_path"; then
    echo "$on_path"
    exit 0
fi

suite=bullseye
[ $# = 1 ] || give_up "usage: julia.sh WORK_FOLDER"
mkdir -p "$1/julia" || give_up "no folder $1/julia"
folder=$(cd "$1/julia" && pwd)
julia=$folder/julia
if [ -x "$julia" ] && usable "$julia"; then
    echo "$julia"
    exit 0
fi

for tool in apt-get dpkg-deb dpkg; do
    command -v $tool > /dev/null || give_up "no julia >= 1.5 on PATH, and no $tool to get Debian's"
done
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    sed -n 's/^Debian Debian //p' | head -n 1)
[ -n "$mirror" ] || give_up "no julia >= 1.5 on PATH, and apt here has no mirror of Debian's"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keys" ] || give_up "no julia >= 1.5 on PATH, and no keys of Debian's here ($keys)"

# An apt of its own: one source, its lists, its cache and its (empty) state in the folder; nothing of the machine's is
# changed, and what is downloaded does not depend on what the machine has.
mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial"
echo "deb [signed-by=$keys] $mirror $suite main" > "$folder/apt/sources.list"
: > "$folder/apt/status"
own_apt() {
    apt-get -qq -o "Dir::Etc::SourceList=$folder/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State=$folder/apt" -o "Dir::State::Lists=$folder/apt/lists" -o "Dir::State::status=$folder/apt/status" \
        -o "Dir::Cache=$folder/apt/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Acquire::Languages=none \
        -o APT::Update::Error-Mode=any "$@" > "$folder/apt/log" 2>&1
}
reason() {
    tail -n 1 "$folder/apt/log" | cut -c1-120
}
own_apt update || give_up "no julia >= 1.5 on PATH, and apt's mirror here has no $suite: $(reason)"
own_apt install --yes --no-install-recommends --download-only julia ||
    give_up "no julia >= 1.5 on PATH, and none in $suite: $(reason)"

# The machine's own C and C++ run-time libraries are newer, and serve; two C libraries in one process would not.
for package in "$folder"/apt/cache/archives/*.deb; do
    case ${package##*/} in
    libc6_* | libgcc-s1_* | libstdc++6_*) continue ;;
    esac
    dpkg-deb -x "$package" "$folder/root" || give_up "${package##*/} cannot be unpacked"
done
rm -rf "$folder/apt"

libraries=$(dirname "$(find "$folder/root/usr/lib" -name libjulia.so.1 | head -n 1)")
cat > "$julia" << END
#!/bin/sh
export LD_LIBRARY_PATH="$libraries:$libraries/julia:$folder/root/lib/${libraries##*/}\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
exec "$folder/root/usr/bin/julia" "\$@"
END
chmod +x "$julia"
usable "$julia" || give_up "no julia >= 1.5 on PATH, and that of $suite does not run here"
echo "$julia"
