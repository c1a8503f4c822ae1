#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The README's C program, pasted into a file, compiles as C99 and prints a loss.
#   readme.sh README INCLUDE_FOLDER SHARED_LIBRARY
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
awk '/^```c$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$1" > "$folder/example.c"
[ -s "$folder/example.c" ]
${CC:-cc} -std=c99 -Wall -Wextra -Werror -I "$2" "$folder/example.c" "$3" -Wl,-rpath,"$(dirname "$3")" -o "$folder/example"
"$folder/example" | tee "$folder/out"
grep -Eq '^loss [0-9]+\.[0-9]{4}, computed with [a-z0-9]+$' "$folder/out"
