#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The tests of a binding, against the library as it is installed.
#   binding.sh BUILD SOURCE_ROOT NAME        NAME: rust, julia or python-SUITE
set -eu
build=$1 source=$2 name=$3
work=$build/bindings/$name
rm -rf "$work/stage"
mkdir -p "$work"
meson install -C "$build" --no-rebuild --quiet --destdir "$work/stage" > "$work/install.log" 2>&1 || {
    cat "$work/install.log"
    exit 1
}
prefix=$(dirname "$(dirname "$(dirname "$(find "$work/stage" -name negcos.h)")")")
# What builds the library from source is tested, not its speed.
export CXXFLAGS="${CXXFLAGS:--O1}"
case $name in
    rust | julia) exec "$source/bindings/$name/test.sh" "$prefix" "$source" "$work" ;;
    *) exec "$source/bindings/python/test.sh" "$prefix" "$source" "$work" "${name#python-}" ;;
esac
