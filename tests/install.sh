#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs into a scratch folder, and builds and runs one C program against it in every way that README names.
#   install.sh BUILD SOURCE_ROOT ABI_MAJOR
set -u
build=$1 source=$2 major=$3
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
passed=0 failed=0

check() {  # check WHAT COMMAND...
    what=$1
    shift
    if "$@" > "$folder/log" 2>&1; then
        passed=$((passed + 1))
        echo "ok: $what"
    else
        failed=$((failed + 1))
        echo "FAILED: $what"
        cat "$folder/log"
    fi
}

# Somewhere else than configured: what is installed may be moved.
stage=$folder/stage
meson install -C "$build" --no-rebuild --quiet --destdir "$stage" > "$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
prefix=$stage$(meson introspect "$build" --buildoptions |
    sed -n 's/.*"name": "prefix", "value": "\([^"]*\)".*/\1/p')
libraries=$(dirname "$(find "$prefix" -name libnegcos.a)")
for file in include/negcos/negcos.h include/negcos/negcos.hpp bin/negcos share/man/man1/negcos.1; do
    check "$file" test -s "$prefix/$file"
done
for file in libnegcos.a libnegcos.so "libnegcos.so.$major" pkgconfig/negcos.pc cmake/negcos/negcosConfig.cmake \
    cmake/negcos/negcosConfigVersion.cmake; do
    check "$file" test -s "$libraries/$file"
done
soname() { readelf -d "$libraries/libnegcos.so" | grep -q "SONAME.*\[libnegcos.so.$major\]"; }
check "the SONAME has the ABI's major version" soname
check "the command runs where it was installed" "$prefix/bin/negcos" --version

# The same program: what it prints is what the first of them printed.
run() {
    LD_LIBRARY_PATH=$libraries "$1" > "$folder/printed" || return 1
    [ -s "$folder/expected" ] || cp "$folder/printed" "$folder/expected"
    cmp "$folder/printed" "$folder/expected"
}
program=$source/examples/minimal.c
cc=${CC:-cc}
# pkg-config of one folder alone, as the machine may have another negcos.
negcos_pc() { PKG_CONFIG_LIBDIR=$libraries/pkgconfig pkg-config "$@" negcos; }

plain() {
    $cc -std=c99 -pedantic -Wall -Wextra -Werror "$program" -I"$prefix/include" -L"$libraries" -lnegcos -o "$folder/plain" &&
        run "$folder/plain"
}
by_pkg_config() {
    # shellcheck disable=SC2046
    $cc "$program" $(negcos_pc --cflags --libs) -o "$folder/by_pkg_config" && run "$folder/by_pkg_config"
}
static_by_pkg_config() {
    # shellcheck disable=SC2046
    $cc "$program" $(negcos_pc --cflags) "$(negcos_pc --variable=libdir)/libnegcos.a" \
        $(negcos_pc --static --libs | sed 's/-lnegcos//') -o "$folder/static" &&
        ! readelf -d "$folder/static" | grep libnegcos && run "$folder/static"
}
by_cmake() {
    mkdir -p "$folder/cmake" && cat > "$folder/cmake/CMakeLists.txt" << END
cmake_minimum_required(VERSION 3.13)
project(minimal C)
find_package(negcos 0.1 REQUIRED CONFIG)
add_executable(shared $program)
target_link_libraries(shared negcos::negcos)
add_executable(static $program)
target_link_libraries(static negcos::static)
END
    cmake -S "$folder/cmake" -B "$folder/cmake/build" -DCMAKE_PREFIX_PATH="$prefix" &&
        cmake --build "$folder/cmake/build" && run "$folder/cmake/build/shared" && run "$folder/cmake/build/static"
}
refused_by_cmake() {
    sed "s/negcos 0.1/negcos $((major + 1)).0/" "$folder/cmake/CMakeLists.txt" > "$folder/log.txt" &&
        mkdir -p "$folder/refused" && mv "$folder/log.txt" "$folder/refused/CMakeLists.txt" &&
        ! cmake -S "$folder/refused" -B "$folder/refused/build" -DCMAKE_PREFIX_PATH="$prefix"
}
by_meson() {
    mkdir -p "$folder/meson/subprojects" && ln -s "$source" "$folder/meson/subprojects/negcos" &&
        cp "$program" "$folder/meson/" && cat > "$folder/meson/meson.build" << 'END'
project('minimal', 'c', default_options: 'c_std=c99')
executable('minimal', 'minimal.c', dependencies: dependency('negcos'))
END
    PKG_CONFIG_LIBDIR=$(pkg-config --variable pc_path pkg-config) \
        meson setup "$folder/meson/build" "$folder/meson" --force-fallback-for=negcos &&
        ninja -C "$folder/meson/build" && "$folder/meson/build/minimal" | cmp - "$folder/expected"
}
check "C99, by hand" plain
check "pkg-config" by_pkg_config
check "pkg-config, the static library" static_by_pkg_config
if command -v cmake > /dev/null; then
    check "find_package, shared and static" by_cmake
    check "find_package refuses another major version" refused_by_cmake
else
    echo "SKIP: find_package: no cmake here"
fi
check "meson subproject" by_meson
cat "$folder/expected"

# The manual page has every option of the command, and no other.
options() { grep -oE -- '--[a-z][a-z-]*' | grep -vE '^--(help|version)$' | sort -u; }
"$prefix/bin/negcos" loss --help | options > "$folder/help"
sed 's/\\-/-/g' "$prefix/share/man/man1/negcos.1" | options > "$folder/page"
check "the manual page has the command's options" diff "$folder/help" "$folder/page"
if command -v groff > /dev/null; then
    warnings() { groff -man -Tutf8 -ww "$prefix/share/man/man1/negcos.1" 2>&1 > /dev/null | { ! grep .; }; }
    check "the manual page is formatted without a warning" warnings
else
    echo "SKIP: format of the manual page: no groff here"
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
