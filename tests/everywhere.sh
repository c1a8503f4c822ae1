#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Every test, on this machine and on those that it can stand in for: NEON under qemu, older x86 processors under qemu,
# and newer xsimd. The last line counts all of them.
#   everywhere.sh BUILD [--slow]       --slow: the suite `slow` too
set -u
build=$1
slow=${2:-}
root=$(cd "$(dirname "$0")/.." && pwd)
told=$(mktemp)

# suites NAME BUILD ARGUMENT...: runs them and keeps their log as NAME.
logs=
suites() {
    name=$1 folder=$2
    shift 2
    echo "== $name"
    rm -f "$folder/meson-logs/$name"*.json
    ended=0
    meson test -C "$folder" --no-rebuild --print-errorlogs --logbase "$name" "$@" || ended=$?
    log=$(echo "$folder/meson-logs/$name"*.json)  # a wrapper's name is put behind ours
    if [ ! -s "$log" ]; then
        fail "$name: meson test left no log"
        return
    fi
    logs="$logs $log"
    # What failed stands in the log, or it was meson itself.
    [ $ended = 0 ] || grep -qE '"result": "(FAIL|TIMEOUT|ERROR|UNEXPECTEDPASS|INTERRUPT)"' "$log" ||
        fail "$name: meson test ended with $ended"
}
skip() {
    echo "SKIP: $1" >> "$told"
}
fail() {
    echo "FAILED: $1" >> "$told"
}

# An emulated machine is slow: digests are taken on one thread (or `threads`), exp and log of fewer numbers, and of long
# lists of cases every `step`-th.
threads='' step=9
emulated_suites() {
    name=$1 folder=$2
    shift 2
    NEGCOS_DIGESTS_THREADS=$threads NEGCOS_ELEMENTARY_STEP=10007 NEGCOS_TEST_STEP=$step \
        suites "$name" "$folder" --timeout-multiplier 4 "$@"
}

# stress_long wants no processor of its own. Of the guards' shapes each is left to one of the four types.
if [ -n "$slow" ]; then
    NEGCOS_GUARD_STEP=4 suites here "$build" --no-suite quick --num-processes $(($(nproc) + 1))
else
    suites here "$build" --no-suite slow
fi

machine=$(uname -m)
if [ "$machine" = aarch64 ]; then
    skip "neon under qemu: this machine runs it natively"
elif ! command -v aarch64-linux-gnu-g++ > /dev/null || ! command -v qemu-aarch64 > /dev/null; then
    skip "neon under qemu: no aarch64-linux-gnu-g++ or no qemu-aarch64 here"
else
    export NEGCOS_EMULATOR='qemu-aarch64 -L /usr/aarch64-linux-gnu'
    if "$root/tests/cross.sh" "$build/neon"; then
        emulated_suites neon "$build/neon" --suite unit --suite accuracy
        if [ -z "$slow" ]; then
            emulated_suites neon-bits "$build/neon" calls threads digests_f32 digests_f64
        else
            emulated_suites neon-bits "$build/neon" calls threads digests_f64 digests_f16
            threads=3
            emulated_suites neon-threads "$build/neon" digests_f32 digests_bf16
            threads=
        fi
    else
        fail "neon: the build"
    fi
    unset NEGCOS_EMULATOR
fi

# emulated PROCESSOR ISA TEST...: the same programs on an older processor, where ISA is the best that runs: the suite
# unit, and these tests. What ISA computes is tested above where this machine has it; here, that no other instruction
# is executed.
emulated() {
    processor=$1 isa=$2
    shift 2
    if [ "$machine" != x86_64 ] || ! command -v qemu-x86_64 > /dev/null; then
        skip "$processor under qemu: no qemu-x86_64 on an x86-64 machine here"
        return
    fi
    # Older qemus know no AVX2: asked by a program that is not ours.
    if [ "$isa" = avx2 ] && ! qemu-x86_64 -cpu "$processor" "$build/tests/has_avx2" 2> /dev/null; then
        skip "$processor under qemu: this qemu has no AVX2"
        return
    fi
    export NEGCOS_EMULATOR="qemu-x86_64 -cpu $processor" NEGCOS_EXPECTED_ISA="$isa"
    emulated_suites "$processor" "$build" --wrapper "$root/tests/emulated.sh" --suite unit
    [ $# = 0 ] || emulated_suites "$processor-tests" "$build" --wrapper "$root/tests/emulated.sh" "$@"
    unset NEGCOS_EMULATOR NEGCOS_EXPECTED_ISA
}
bits=
"$build/tests/has_avx2" 2> /dev/null || bits='threads accuracy elementary digests_f32 digests_f16'
step=25
# shellcheck disable=SC2086
emulated Haswell avx2 ${slow:+calls $bits}
[ -z "$slow" ] || emulated Nehalem scalar calls

# newer_xsimd SUITE: as xsimd is in that suite of Debian's, digests of every third call. Compiled quickly.
newer_xsimd() {
    folder=$build/xsimd-$1
    if ! version=$("$root/tests/newer_xsimd.sh" "$1" "$folder/debian" 2> "$told.why"); then
        skip "xsimd of Debian $1: $(cat "$told.why")"
        return
    fi
    again=
    [ ! -f "$folder/build/build.ninja" ] || again=--wipe
    # shellcheck disable=SC2086
    if PKG_CONFIG_PATH=$(cd "$folder/debian/lib/pkgconfig" && pwd) meson setup $again "$folder/build" "$root" \
        -Dcommand=false -Dexamples=false -Doptimization=1 -Dwerror="${NEGCOS_WERROR:-false}" > "$folder/log" 2>&1 &&
        grep -q "xsimd found: YES $version" "$folder/log" && ninja -C "$folder/build" --quiet tests/test_digests; then
        NEGCOS_DIGESTS_THREADS='' NEGCOS_TEST_STEP=3 suites "xsimd-$version" "$folder/build" digests_f32 digests_f64 digests_f16 digests_bf16
    else
        cat "$folder/log"
        fail "xsimd $version: the build"
    fi
}
if [ -n "$slow" ]; then
    newer_xsimd trixie
    newer_xsimd forky
fi

# also NAME COMMAND...: what counts for itself, with a line as ours at its end, or is one test.
also() {
    name=$1
    shift
    echo "== $name"
    ended=0
    "$@" > "$told.log" 2>&1 || ended=$?
    sed -n "s/^SKIP: .*/& ($name)/p" "$told.log" >> "$told"
    counted=$(tail -n 1 "$told.log" | sed -nE 's/^([0-9]+ passed, [0-9]+ failed), [0-9]+ skipped$/\1/p')
    case $ended in
        0) echo "${counted:-1 passed, 0 failed}" >> "$told" ;;
        77) ;;
        *)
            cat "$told.log"
            fail "$name"
            ;;
    esac
    tail -n 1 "$told.log"
}
if [ -n "$slow" ]; then
    mkdir -p "$build/sanitize"
    for what in address,undefined thread memory valgrind; do
        also "$what" "$root/tests/sanitized.sh" "$build/sanitize" "$what"
    done
    for which in libc++ musl; do
        also "$which" "$root/tests/libraries.sh" "$build/libraries" "$which"
    done
    also coverage "$root/tests/coverage.sh" "$build"
    also lint "$root/tests/lint.sh" "$build" src capi
    also fuzz "$root/fuzz/fuzz.sh" "$build" --seconds 30
fi

# shellcheck disable=SC2086
"$root/tests/summary.py" --told "$told" $logs
status=$?
rm -f "$told" "$told.why" "$told.log"
exit $status
