#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds the library and its tests for aarch64 with Debian's cross compiler; its programs run under tests/emulated.sh.
# There is no oneTBB for it here: threads are OpenMP's.
#   cross.sh BUILD
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
build=$(cd "$1" && pwd)

# What is headers alone is the same for every processor; the compiler must not see the rest of /usr/include.
headers=$build/host/include
mkdir -p "$headers" "$build/host/lib/pkgconfig"
includes=$(pkg-config --variable=includedir xsimd)
ln -sfn "$includes/xsimd" "$headers/xsimd"
ln -sfn /usr/include/doctest "$headers/doctest"
cat > "$build/host/lib/pkgconfig/xsimd.pc" << END
Name: xsimd
Description: the host's headers
Version: $(pkg-config --modversion xsimd)
Cflags: -I$headers
END
cat > "$build/host/aarch64.ini" << END
[binaries]
c = 'aarch64-linux-gnu-gcc'
cpp = 'aarch64-linux-gnu-g++'
ar = 'aarch64-linux-gnu-ar'
strip = 'aarch64-linux-gnu-strip'
pkgconfig = 'pkg-config'
exe_wrapper = '$root/tests/emulated.sh'
[properties]
pkg_config_libdir = '$build/host/lib/pkgconfig'
[built-in options]
cpp_args = ['-isystem', '$headers', '-Wno-psabi']
[host_machine]
system = 'linux'
cpu_family = 'aarch64'
cpu = 'aarch64'
endian = 'little'
END

export NEGCOS_EMULATOR="${NEGCOS_EMULATOR:-qemu-aarch64 -L /usr/aarch64-linux-gnu}"
again=
[ ! -f "$build/build.ninja" ] || again=--reconfigure
# shellcheck disable=SC2086
meson setup $again "$build" "$root" --cross-file "$build/host/aarch64.ini" -Dcommand=false -Dexamples=false -Dtbb=disabled \
    -Dopenmp=enabled -Dwerror="${NEGCOS_WERROR:-false}" > "$build/setup.log" 2>&1 || { cat "$build/setup.log" >&2; exit 1; }
ninja -C "$build" --quiet
