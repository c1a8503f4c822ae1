#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The format of all sources, what shellcheck knows to be wrong in all scripts, and what clang-tidy (.clang-tidy) and
# cppcheck (.cppcheck) know to be wrong.
#   lint.sh BUILD [FOLDER...]      these two of the sources in these folders alone
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
for tool in clang-format clang-tidy cppcheck shellcheck; do
    command -v $tool > /dev/null || { echo "SKIP: lint: no $tool here"; exit 77; }
done
mkdir -p "$1/lint" && folder=$(cd "$1/lint" && pwd) || exit 2
cd "$root" || exit 2
[ -n "$(git ls-files 2> /dev/null)" ] || { echo "SKIP: lint: no git that lists the sources here"; exit 77; }
shift
[ $# -gt 0 ] || set -- src capi examples bench tests fuzz
log=$folder/log
failed=0
# shellcheck disable=SC2046
clang-format --dry-run --Werror $(git ls-files '*.c' '*.h' '*.cpp' '*.hpp') || failed=1
# shellcheck disable=SC2046
shellcheck dev .ci/run $(git ls-files '*.sh') || failed=1
bench=true
pkg-config --exists benchmark || bench=false
if [ -f "$folder/build.ninja" ]; then again=--reconfigure; else again=; fi
# shellcheck disable=SC2086
meson setup $again "$folder" -Dtests=true -Dbench="$bench" > "$log" 2>&1 || { cat "$log"; exit 1; }

within() { grep -E "^($(echo "$*" | tr ' ' '|'))/"; }
# The fuzzers, which gcc cannot build, have no commands there.
sed -n 's|^ *"file": ".*\.\./\(.*\)",*$|\1|p' "$folder/compile_commands.json" | sort -u | within "$@" | grep -v '^tests/has_avx2\.c$' |
    xargs -P "$(nproc)" -n 1 clang-tidy --quiet -p "$folder" > "$log" 2> /dev/null || failed=1
for file in $(git ls-files 'fuzz/*.cpp' | within "$@"); do
    clang-tidy --quiet "$file" -- -std=c++20 -Iinclude -Isrc >> "$log" 2> /dev/null || failed=1
done

# cppcheck 2.10 cannot read templates of variables, which the kernels are full of, nor doctest's macros.
# shellcheck disable=SC2046
cppcheck --quiet --std=c++20 --enable=warning,performance,portability --suppressions-list=.cppcheck --error-exitcode=1 \
    -I include -I src -I "$folder" \
    $(git ls-files '*.c' '*.cpp' | within "$@" | grep -vE '^src/kernels.cpp$|^tests/') >> "$log" 2>&1 || failed=1
grep -E '(error|warning|performance|portability|style): ' "$log" | sort -u
[ $failed = 0 ] || { echo "FAILED: lint; what clang-tidy and cppcheck say stands in $log"; exit 1; }
echo "lint: nothing to complain about in $*"
