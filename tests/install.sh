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

line() { "$source/tests/install_line.sh" "$source" "$@"; }
# Somewhere else than configured: what is installed may be moved.
stage=$folder/stage
ln -s "$build" "$folder/build"
(cd "$folder" && DESTDIR=$stage sh -c "$(line 'header, libraries, command, manual page')") > "$folder/log" 2>&1 ||
    { cat "$folder/log"; exit 1; }
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
mkdir "$folder/work" && cd "$folder/work" && cp "$source/examples/minimal.c" example.c || exit 1
# pkg-config of one folder alone, as the machine may have another negcos.
by_line() {
    command=$(line "$1") && echo "$command" && rm -f a.out &&
        PKG_CONFIG_LIBDIR=$libraries/pkgconfig CPATH=$by_hand/include LIBRARY_PATH=$by_hand/lib sh -c "$command" && run ./a.out
}
by_hand=
check "pkg-config" by_line "C, C++ by pkg-config"
static() { by_line "… the static library" && ! readelf -d a.out | grep libnegcos; }
check "the static library" static
contained() {
    command=$(line "… the static library") && PKG_CONFIG_LIBDIR=$libraries/pkgconfig sh -c "$command -shared -fPIC -o plugin.so" &&
        nm -D --defined-only plugin.so | tee /dev/stderr | grep -qw main && ! nm -D --defined-only plugin.so | grep negcos_
}
check "a shared object that contains the static library shows none of its functions" contained
static_needs() {
    line "… the static library" | sed 's/.*libnegcos.a//; s/ /\n/g' | grep . > "$folder/line" &&
        PKG_CONFIG_LIBDIR=$libraries/pkgconfig pkg-config --static --libs-only-l negcos | tr ' ' '\n' | grep . > "$folder/pc" &&
        grep -v negcos "$folder/pc" | diff - "$folder/line"
}
if nm -u "$libraries/libnegcos.a" 2> /dev/null | grep -q tbb && nm -u "$libraries/libnegcos.a" | grep -q GOMP; then
    check "pkg-config --static knows what it needs" static_needs
fi
mkdir -p "$folder/usr" && ln -s "$prefix/include" "$folder/usr/include" && ln -s "$libraries" "$folder/usr/lib"
by_hand=$folder/usr
check "C99, by hand" by_line "… by hand"
strict() {
    ${CC:-cc} -std=c99 -pedantic -Wall -Wextra -Werror example.c -I"$prefix/include" -L"$libraries" -lnegcos && run ./a.out
}
check "C99 without a warning" strict

by_cmake() {
    find=$(line CMake) && link=$(line CMake 2) && static=$(line CMake 3) &&
        cat > CMakeLists.txt << END
cmake_minimum_required(VERSION 3.13)
project(example C)
$find
add_executable(example example.c)
$link
add_executable(example_static example.c)
target_link_libraries(example_static $static)
END
    cmake -G Ninja -B cmake -DCMAKE_PREFIX_PATH="$prefix" && cmake --build cmake && run cmake/example && run cmake/example_static
}
cmake_refuses() {
    mkdir refused && sed "s/negcos REQUIRED/negcos $((major + 1)).0 REQUIRED/" CMakeLists.txt > refused/CMakeLists.txt &&
        ! cmake -G Ninja -S refused -B refused/build -DCMAKE_PREFIX_PATH="$prefix" > "$folder/refusal" 2>&1 || return 1
    tr -s ' \n' ' ' < "$folder/refusal" | tee /dev/stderr | grep -q 'compatible with requested version'
}
if command -v cmake > /dev/null; then
    check "find_package, shared and static" by_cmake
    check "find_package refuses another major version" cmake_refuses
else
    echo "SKIP: find_package: no cmake here"
fi

by_meson() {
    executable=$(line 'meson, a clone in subprojects/') &&
        printf '%s\n' "project('example', 'c', default_options: 'c_std=c99')" "$executable" > meson.build &&
        mkdir subprojects && ln -s "$source" subprojects/negcos &&
        CXXFLAGS=-O1 meson setup meson --force-fallback-for=negcos -Dnegcos:static_exports=true -Dnegcos:avx512=false && ninja -C meson &&
        meson/example | cmp - "$folder/expected"
}
check "meson subproject" by_meson
shown() { readelf -sW meson/subprojects/negcos/libnegcos.a | grep ' DEFAULT .* negcos_version$'; }
check "its functions shown, by static_exports" shown
cat "$folder/expected"

# The manual page has every option of the command, and no other.
options() { grep -oE -- '--[a-z][a-z-]*' | grep -vE '^--(help|version)$' | sort -u; }
"$prefix/bin/negcos" loss --help | options > "$folder/help"
sed 's/\\-/-/g' "$prefix/share/man/man1/negcos.1" | options > "$folder/page"
cd / || exit 1
check "the manual page has the command's options" diff "$folder/help" "$folder/page"
if command -v groff > /dev/null; then
    warnings() { groff -man -Tutf8 -ww "$prefix/share/man/man1/negcos.1" 2>&1 > /dev/null | { ! grep .; }; }
    check "the manual page is formatted without a warning" warnings
else
    echo "SKIP: format of the manual page: no groff here"
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
