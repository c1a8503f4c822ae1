#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The tests with every access to memory or every race watched. Prints what was seen, and ends with a line that counts.
#   sanitized.sh BUILD WHAT      WHAT: address,undefined; thread; memory (by clang) or valgrind
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
what=$2
# A folder for each compiler; a comma in its name would part options of the linker.
mkdir -p "$1" && folder=$(cd "$1" && pwd)/$(echo "$what" | tr , -)${CXX:+-$(basename "$CXX")} || exit 2
common='-Dcommand=false -Dexamples=false -Db_lundef=false -Doptimization=1 -Db_ndebug=false'
# Lines are all that a report needs.
lines=-g1
# Kernels that this machine cannot run would only take their time to build.
isas='avx512 avx2 scalar'
if ! grep -qsw avx512bw /proc/cpuinfo; then
    common="$common -Davx512=false"
    isas='avx2 scalar'
fi
[ "$(uname -m)" = x86_64 ] || isas='neon scalar'

# set_up OPTION...: a build folder with these options.
set_up() {
    if [ -f "$folder/build.ninja" ]; then again=--reconfigure; else again=; fi
    mkdir -p "$folder"
    # shellcheck disable=SC2086
    meson setup $again "$folder" "$root" $common -Dc_args=$lines -Dcpp_args="$lines $flags" "$@" > "$folder.log" 2>&1 || {
        cat "$folder.log"
        exit 1
    }
}
: > "$folder.told"
logs='' wrapper='' flags=''
# run NAME TEST...: builds their programs, and runs them.
run() {
    name=$1
    shift
    echo "== $name"
    programs=
    for test in "$@"; do
        case $test in
            calls) programs="$programs tests/$test" ;;
            cli | outputs) programs="$programs tests/cli/test_$test src/cli/negcos" ;;
            npy_bytes) programs="$programs tests/cli/test_npy" ;;
            npy) programs="$programs tests/cli/npy_describe" ;;
            files) programs="$programs tests/cli/test_files" ;;
            *) programs="$programs tests/test_$test" ;;
        esac
    done
    # shellcheck disable=SC2086
    ninja -C "$folder" --quiet $programs || exit 1
    rm -f "$folder/meson-logs/$name"*.json
    meson test -C "$folder" --no-rebuild --print-errorlogs --logbase "$name" --timeout-multiplier 10 \
        ${wrapper:+--wrapper "$wrapper"} "$@"
    logs="$logs $(echo "$folder/meson-logs/$name"*.json)"
}

# Reports end a program with a failure; a stack is told, as what is inlined says little.
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:allocator_may_return_null=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1 MSAN_OPTIONS=halt_on_error=1
export NEGCOS_TEST_STEP=15
case $what in
    address,undefined)
        # Checks of addresses are calls: in line they take compilers several times as long.
        threshold=asan-instrumentation-with-call-threshold=0
        case ${CXX:-} in
            *clang*) flags="-mllvm -$threshold" ;;
            *) flags="--param $threshold" ;;
        esac
        set_up -Db_sanitize=address,undefined -Dcommand=true
        run address oracle finite_differences published sampling errors edges half frequency frequency_file variants variant_edges \
            variant_errors kernels simd dispatch pairs footprint properties calls cli outputs npy npy_bytes
        # What the dynamic loader keeps of oneTBB's allocator is no leak; whole stacks tell it.
        echo 'leak:_dl_open' > "$folder/suppressions"
        export LSAN_OPTIONS="suppressions=$folder/suppressions:print_suppressions=0" ASAN_OPTIONS="$ASAN_OPTIONS:fast_unwind_on_malloc=0"
        # clang's sanitizer is linked into the program, where what lets memory fail would be in its way: fuzz/abi.cpp does it.
        case ${CXX:-} in
            *clang*) echo "SKIP: fault files: clang's address sanitizer has their place" >> "$folder.told" ;;
            *) run address-fault fault files ;;
        esac
        ;;
    thread)
        # Without oneTBB and OpenMP, whose own synchronisation is not seen: threads are the tests' pools.
        set_up -Db_sanitize=thread -Dtbb=disabled -Dopenmp=disabled
        run thread threads stress calls
        ;;
    memory)
        # Of C programs alone, as the C++ library here is not watched and what it writes looks unwritten.
        echo 'int main(void) { return 0; }' | clang -x c -fsanitize=memory - -o /dev/null 2> /dev/null ||
            { echo "SKIP: memory: no clang with a memory sanitizer here"; exit 77; }
        # At -O0, as clang takes minutes for more, and few calls are made.
        flags=-O0
        CC=clang CXX=clang++ set_up -Db_sanitize=memory -Dtbb=disabled -Dopenmp=disabled
        for isa in $isas; do NEGCOS_ISA=$isa run "memory-$isa" calls; done
        ;;
    valgrind)
        command -v valgrind > /dev/null || { echo "SKIP: valgrind: not installed"; exit 77; }
        set_up
        wrapper='valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite'
        run valgrind errors edges variant_errors frequency frequency_file sampling calls
        ;;
    *)
        sed -n 's/^#   /usage: /p' "$0"
        exit 2
        ;;
esac
# shellcheck disable=SC2086
exec "$root/tests/summary.py" --told "$folder.told" $logs
