#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Rules that no compiler checks: who may include what, one licence line a file, and which symbols the library shows.
#   rules.sh SOURCE_ROOT SHARED_LIBRARY KERNEL_LIBRARY...
set -u
root=$1 library=$2 folder=$PWD
shift 2

# Says each line of its input and remembers that there was one.
none() {
    while IFS= read -r line; do
        echo "$1: $line"
        touch "$marker"
    done
}
marker=$(mktemp -u)
cd "$root" || exit 1

includes() { grep -nE '^ *# *include' "$@" /dev/null; }

includes src/*.?pp capi/*.cpp include/negcos/* | grep -E 'xsimd|immintrin|arm_neon' |
    none "xsimd and intrinsics belong in src/kernel"
includes src/kernel/*.hpp | grep -vE '<(math|stdint|stddef|string)\.h>|"kernel/|"(element|work|kernels).hpp"|NEGCOS_KERNEL_REGISTER$' |
    none "src/kernel includes C headers, its siblings and the registers that the build chose"
includes src/kernel/register/*.hpp | grep -vE '<(xsimd/xsimd\.hpp|(math|stdint|immintrin|arm_neon)\.h)>|"kernel/(half|register/[a-z0-9]*)\.hpp"' |
    none "src/kernel/register includes xsimd, intrinsics, C headers and its siblings alone"
grep -nE '^ *# *(el)?if(def)? .*(NEGCOS_KERNEL_|__(AVX|SSE|FMA|F16C|ARM|aarch64|x86_64))' src/kernel/*.hpp src/kernel/register/*.hpp |
    none "what instruction sets differ in is for src/kernel/register to say, without #if"
for file in src/kernel/*.hpp src/kernel/register/*.hpp; do
    grep -q '^namespace {$' "$file" || echo "$file" | none "a kernel header keeps to an anonymous namespace"
done
grep -rnE '^ *# *include.*(tbb/|omp\.h)' src capi include | grep -v '^src/parallel.cpp:' |
    none "oneTBB and OpenMP belong in src/parallel.cpp"
includes include/negcos/negcos.h | grep -vE '<(stddef|stdint).h>' | none "negcos.h includes the C library alone"
internal=$(basename -s .hpp src/*.hpp src/kernel | paste -sd '|')
grep -rnE --include='*.[ch]pp' "^ *# *include *\"(\.\./|(.*/)?($internal)[./])" \
    src/cli examples bindings bench 2> /dev/null | grep -vE 'examples/.*"parallel.hpp"|^bench/kernels.cpp:|^src/cli/files.cpp:.*"../replace_file.hpp"$' | none "the command, examples and bindings see negcos.h and negcos.hpp alone"

# Links (mode 120000) are the files that they point to.
git ls-files -s 2>/dev/null | grep -v ^120000 | cut -f 2 | grep -vE '\.md$|^LICENSE$|Cargo\.lock$|^fuzz/corpus/|^\.clang-format$|^\.gitignore$|\.wrap$|\.svg$' | while IFS= read -r file; do
    [ "$(head -n 3 "$file" | grep -c 'SPDX-License-Identifier: Apache-2.0')" = 1 ] || echo "$file"
done | none "no SPDX line in its first three"

# A comment before each function, or before the functions just above it.
awk '/^NEGCOS_API/ && !documented { print } { documented = /\*\/$/ || /^NEGCOS_API/ || (documented && /^ +[^ ]/) }' include/negcos/negcos.h |
    none "a function without a comment"

declared=$(sed -nE 's/^NEGCOS_API [^(]*(negcos_[a-z0-9_]*)\(.*/\1/p' include/negcos/negcos.h | sort)
exported=$(nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort)
[ -n "$declared" ] || echo "none found in negcos.h" | none "declared functions"
if [ "$declared" != "$exported" ]; then
    printf '%s\n---\n%s\n' "$declared" "$exported" | none "declared in negcos.h, then exported"
fi

version=$(sed -nE 's/^#define NEGCOS_VERSION_(MAJOR|MINOR|PATCH) //p' include/negcos/negcos.h | paste -sd .)
for file in bindings/rust/negcos/Cargo.toml bindings/rust/negcos-sys/Cargo.toml bindings/julia/Negcos/Project.toml; do
    grep -qx "version = \"$version\"" $file || echo $file | none "another version than negcos.h's, $version"
done
grep -qx "const VERSION_OF_HEADER = v\"${version%.*}\"" bindings/julia/Negcos/src/abi.jl ||
    echo bindings/julia/Negcos/src/abi.jl | none "another version than negcos.h's, $version"

# Nothing that ends or interrupts the caller's process, prints, or changes what all of it shares; and no work before it
# begins.
nm -D --undefined-only "$library" | awk '{ sub(/@.*/, "", $NF); print $NF }' |
    grep -E '^(abort|_?_?exit|_Exit|quick_exit|at_?quick_exit|atexit|__assert.*|raise|kill|signal|sigaction|.*longjmp.*|(__)?v?[fd]?printf(_chk)?|puts|fputs|putc|fputc|putchar|fwrite|perror|v?syslog|v?(err|warn)x?|error|setlocale|setenv|putenv|s?rand|alarm|umask|f?chdir|t?g?kill|pthread_(exit|kill|cancel|sigmask)|sigprocmask|_ZSt9terminatev|__clang_call_terminate|_ZNSo.*|_ZSt4(cout|cerr))$' |
    none "the library uses"
# What the compiler itself puts there is known by name, in a library that has its names.
command -v objdump > /dev/null || echo "it is not here" | none objdump
begins=$(objdump -h -j .init_array "$library" 2> /dev/null | awk '$2 == ".init_array" { print $3 }')
known=$(nm "$library" | grep -cE ' (frame_dummy|__cpu_indicator_init|init_have_lse_atomics)$')
[ $((0x${begins:-0} / 8)) -le "$known" ] ||
    echo "$((0x$begins / 8)) functions, $known of them the compiler's" | none "the library works before main()"

# An inline function that a kernel unit emits could stand in for the same one elsewhere, with instructions that the
# machine may lack. (xsimd 8 leaves some over NEON, which every 64-bit Arm has.)
for kernels in "$@"; do
    case $kernels in *neon*) left='|^_ZN5xsimd6kernel4wrap' ;; *) left= ;; esac
    symbols=$(cd "$folder" && nm --defined-only "$kernels") || echo "$kernels" | none "nm cannot read"
    echo "$symbols" | awk '$2 ~ /^[A-Zuvw]$/ && $3 !~ /(kernels|operations)_[a-z0-9]+E?$'"$left"'/ { print $3 }' |
        none "$kernels: symbols besides its table"
done

if [ -e "$marker" ]; then
    rm -f "$marker"
    exit 1
fi
echo "rules: all kept"
