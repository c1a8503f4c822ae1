#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What clang-tidy (.clang-tidy) and cppcheck (.cppcheck) know to be wrong.
#   lint.sh BUILD
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
for tool in clang-tidy cppcheck; do
    command -v $tool > /dev/null || { echo "SKIP: lint: no $tool here"; exit 77; }
done
mkdir -p "$1/lint" && folder=$(cd "$1/lint" && pwd) || exit 2
cd "$root" || exit 2
log=$folder/log
if [ -f "$folder/build.ninja" ]; then again=--reconfigure; else again=; fi
# shellcheck disable=SC2086
meson setup $again "$folder" -Dtests=true -Dbench=true > "$log" 2>&1 || { cat "$log"; exit 1; }

# A kernel is read once an instruction set, the fuzzers as clang would build them.
failed=0
sed -n 's/^ *"file": "\(.*\)",*$/\1/p' "$folder/compile_commands.json" | sort -u | grep -v '/has_avx2\.c$' |
    (cd "$folder" && xargs -P "$(nproc)" -n 1 clang-tidy --quiet -p .) > "$log" 2> /dev/null || failed=1
clang-tidy --quiet fuzz/*.cpp -- -std=c++20 -Iinclude -Isrc >> "$log" 2> /dev/null || failed=1

# cppcheck 2.10 cannot read templates of variables, which the kernels are full of.
# shellcheck disable=SC2046
cppcheck --quiet --std=c++20 --enable=warning,performance,portability --suppressions-list=.cppcheck --error-exitcode=1 \
    -I include -I src -I "$folder" \
    $(ls src/*.cpp src/cli/*.cpp capi/*.cpp examples/*.c examples/*/*.cpp bench/*.cpp fuzz/*.cpp | grep -v '^src/kernels.cpp$') \
    >> "$log" 2>&1 || failed=1
grep -E '(error|warning|performance|portability|style): ' "$log" | sort -u
[ $failed = 0 ] || { echo "FAILED: lint; all of it stands in $log"; exit 1; }
echo "lint: nothing to complain about"
