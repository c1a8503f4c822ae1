#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The tests of a binding, against the library as it is installed.
#   binding.sh BUILD SOURCE_ROOT NAME        NAME: rust, julia, python, torch, tensorflow or jax
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
case $name in
    torch) exec "$source/bindings/python/test_torch.sh" "$prefix" "$source" "$work" ;;
    tensorflow | jax) exec "$source/bindings/python/test_framework.sh" "$name" "$prefix" "$source" "$work" ;;
    *) exec "$source/bindings/$name/test.sh" "$prefix" "$source" "$work" ;;
esac
