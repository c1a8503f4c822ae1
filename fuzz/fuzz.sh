#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds the fuzzers and runs them on what their corpora hold, with the address and undefined-behaviour sanitizers.
#   fuzz.sh BUILD [--seconds N | --runs N] [abi|npy|command ...]
# Without N the corpora alone are run again. What is found is kept in BUILD/fuzz as crash-..., and is an error.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
    clang++ -x c++ -fsanitize=fuzzer,address,undefined - -o /dev/null 2> /dev/null ||
    { echo "SKIP: fuzz: no clang++ with libFuzzer here"; exit 77; }
mkdir -p "$1/fuzz" && folder=$(cd "$1/fuzz" && pwd) || exit 2
shift
limit=-runs=0
case ${1:-} in
    --seconds) limit=-max_total_time=$2 && shift 2 ;;
    --runs) limit=-runs=$2 && shift 2 ;;
esac
[ $# -gt 0 ] || set -- abi npy command

# Kernels that this machine cannot run would only take their time to build.
avx512=true
grep -qsw avx512bw /proc/cpuinfo || avx512=false
# Comparisons are not traced: that takes two fifths of the time, and values come from the fuzzers' own tables.
if [ -f "$folder/build.ninja" ]; then again=--reconfigure; else again=; fi
# shellcheck disable=SC2086
CC=clang CXX=clang++ meson setup $again "$folder" "$root" -Dfuzz=true -Davx512=$avx512 -Dtests=false -Dcommand=false -Dexamples=false \
    -Dtbb=disabled -Dopenmp=disabled -Doptimization=1 -Ddebug=true -Db_ndebug=false -Db_sanitize=address,undefined -Db_lundef=false \
    -Dcpp_args='-fsanitize=fuzzer-no-link -fno-sanitize-coverage=trace-cmp -fno-sanitize-recover=all' > "$folder.log" 2>&1 || { cat "$folder.log"; exit 1; }
ninja -C "$folder" --quiet || exit 1

# All at once. The entropic schedule takes two thirds of the time for its own books.
cd "$folder" || exit 1
for target in "$@"; do
    found=$folder/corpus-$target
    mkdir -p "$found"
    length=512
    [ "$target" = abi ] && length=4096
    (
        ./fuzz/fuzz_"$target" -max_len=$length -rss_limit_mb=4096 -timeout=20 -entropic=0 -reload=0 "$limit" \
            "$found" "$root/fuzz/corpus/$target" > "$target.log" 2>&1
        echo $? > "$target.ended"
    ) &
done
wait
passed=0 failed=0
for target in "$@"; do
    if [ "$(cat "$target.ended")" = 0 ]; then
        passed=$((passed + 1))
        echo "fuzz_$target: $(grep -E '^Done' "$target.log")"
    else
        failed=$((failed + 1))
        tail -n 60 "$target.log"
        echo "FAILED: fuzz_$target"
    fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
