#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The library over other standard libraries than the compiler's own, with a few tests. Prints what was seen, and ends
# with a line that counts.
#   libraries.sh BUILD WHICH      WHICH: libc++ (clang, with Debian's), or musl (zig from PyPI, with the command)
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
which=$2
mkdir -p "$1" && folder=$(cd "$1" && pwd)/$which && mkdir -p "$folder" || exit 2
build=$folder/build told=$folder/told log=$folder/log
: > "$told"
skip() {
    echo "SKIP: $which: $*"
    exit 77
}
check() {  # check WHAT COMMAND...
    what=$1
    shift
    if "$@" > "$log" 2>&1; then
        echo "1 passed, 0 failed" >> "$told"
    else
        cat "$log"
        echo "FAILED: $which: $what" >> "$told"
    fi
}
# build_and_test OPTION... -- TARGET... -- TEST...: compiled quickly, as their speed is not what is tested.
build_and_test() {
    options='' targets=''
    for list in options targets; do
        while [ "$1" != -- ]; do
            eval "$list=\"\$$list \$1\""
            shift
        done
        shift
    done
    again=
    [ ! -f "$build/build.ninja" ] || again=--reconfigure
    # shellcheck disable=SC2086
    { meson setup $again "$build" "$root" -Dexamples=false -Doptimization=1 -Db_lundef=false $options &&
        ninja -C "$build" $targets; } > "$log" 2>&1 || { cat "$log"; exit 1; }
    rm -f "$build/meson-logs/testlog"*.json
    meson test -C "$build" --no-rebuild --print-errorlogs "$@"
}

case $which in
    libc++)
        export CC=clang CXX=clang++ CXXFLAGS=-stdlib=libc++
        echo '#include <version>' | clang++ -stdlib=libc++ -x c++ -c - -o /dev/null 2> "$log" || skip "no clang++ with libc++ here"
        # Kernels that this machine cannot run would only take their time to build.
        avx512=true
        grep -qsw avx512bw /proc/cpuinfo || avx512=false
        build_and_test -Dcommand=false -Davx512=$avx512 -- \
            libnegcos.a tests/calls tests/test_oracle tests/test_threads tests/test_frequency_file tests/test_pairs -- \
            calls oracle threads frequency_file pairs
        rm -rf "$folder/stage" && DESTDIR=$folder/stage meson install -C "$build" --no-rebuild --quiet || exit 1
        prefix=$(dirname "$(dirname "$(dirname "$(find "$folder/stage" -name negcos.h)")")")
        cd "$folder" && cp "$root/examples/minimal.c" example.c || exit 1
        # What runs, and has this library for C++ alone. oneTBB's own is another.
        runs() { readelf -d "$1" | grep -F '[libc++.so' && ! readelf -d "$1" | grep -F -e '[libstdc++' -e '[libnegcos' && "$1"; }
        by_pkg_config() {
            config="env PKG_CONFIG_LIBDIR=$(dirname "$(find "$prefix" -name negcos.pc)") pkg-config"
            # shellcheck disable=SC2046
            clang example.c $($config --cflags negcos) "$($config --variable=libdir negcos)/libnegcos.a" \
                $($config --static --libs-only-l negcos | sed 's/-lnegcos//') -o by_pkg_config && runs ./by_pkg_config
        }
        by_cmake() {
            printf '%s\n' 'cmake_minimum_required(VERSION 3.13)' 'project(example C)' 'find_package(negcos REQUIRED)' \
                'add_executable(example example.c)' 'target_link_libraries(example negcos::static)' > CMakeLists.txt &&
                rm -rf cmake && cmake -G Ninja -B cmake -DCMAKE_PREFIX_PATH="$prefix" && cmake --build cmake && runs cmake/example
        }
        check "pkg-config --static" by_pkg_config
        if command -v cmake > /dev/null; then check negcos::static by_cmake; fi
        ;;
    musl)
        # Its programs run by musl's own loader.
        [ -e "/lib/ld-musl-$(uname -m).so.1" ] || skip "no musl here"
        # Kept for the next time: 80 MB.
        zig=$folder/venv/bin/python
        if ! "$zig" -m ziglang version > /dev/null 2>&1; then
            { python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" --disable-pip-version-check install -q \
                'ziglang==0.17.1'; } > "$log" 2>&1 || skip "no venv, or no ziglang: $(tail -n 1 "$log")"
        fi
        # The host's headers that are the same for every C library; the compiler must not see the rest of /usr/include.
        # Of libcrypto that is all there is: a stand-in has its place.
        mkdir -p "$folder/include/openssl" "$folder/pkgconfig"
        for header in doctest CLI nlohmann; do ln -sfn "/usr/include/$header" "$folder/include/$header"; done
        ln -sfn "$(pkg-config --variable=includedir xsimd)/xsimd" "$folder/include/xsimd"
        for header in /usr/include/openssl/* /usr/include/"$(uname -m)"-linux-gnu/openssl/*; do
            ln -sf "$header" "$folder/include/openssl/"
        done
        # meson asks a compiler for its linker, and does not know zig's; zig would compile checks into what is not -O2.
        for tool in cc c++; do
            printf '%s\n' '#!/bin/sh' 'case $* in *-Wl,--version) exec echo "LLD (compatible with GNU linkers)" ;; esac' \
                "exec $zig -m ziglang $tool -target $(uname -m)-linux-musl -fno-sanitize=undefined \"\$@\"" > "$folder/$tool"
            chmod +x "$folder/$tool"
        done
        "$folder/cc" -I"$folder/include" -c "$root/tests/stand_in_crypto.c" -o "$folder/crypto.o" || exit 1
        for package in xsimd CLI11 nlohmann_json libcrypto; do
            version=$(pkg-config --modversion "$package") || skip "no $package here"
            libraries=
            [ "$package" != libcrypto ] || libraries=$folder/crypto.o
            printf '%s\n' "Name: $package" "Description: the headers of this machine's" "Version: $version" \
                "Cflags: -isystem $folder/include" "Libs: $libraries" > "$folder/pkgconfig/$package.pc"
        done
        export CC="$folder/cc" CXX="$folder/c++" AR="$zig -m ziglang ar" PKG_CONFIG_LIBDIR="$folder/pkgconfig"
        echo "SKIP: musl: avx512, avx2: zig's runtime library finds no instruction set" >> "$told"
        build_and_test -Dtbb=disabled -Dopenmp=disabled -- \
            libnegcos.a tests/calls tests/test_threads src/cli/negcos tests/cli/test_outputs -- calls threads outputs
        ;;
    *)
        sed -n 's/^#   /usage: /p' "$0"
        exit 2
        ;;
esac
exec "$root/tests/summary.py" --told "$told" "$build/meson-logs/testlog.json"
