#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The README's programs, pasted into files: those of C99 and C++20 compile, and all print the same loss.
#   readme.sh README INCLUDE_FOLDER SHARED_LIBRARY PYTHON
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
block() {  # block LANGUAGE FILE
    awk -v begin="^\`\`\`$1\$" '$0 ~ begin { inside = 1; next } /^```$/ { inside = 0 } inside' "$readme" > "$folder/$2"
    [ -s "$folder/$2" ]
}
readme=$1
block c example.c
${CC:-cc} -std=c99 -Wall -Wextra -Werror -I "$2" "$folder/example.c" "$3" -Wl,-rpath,"$(dirname "$3")" -o "$folder/c"
"$folder/c" | tee "$folder/out"
grep -Eq '^loss [0-9]+\.[0-9]{4}, computed with [a-z0-9]+$' "$folder/out"
loss=$(cut -d , -f 1 "$folder/out")
block cpp example.cpp
${CXX:-c++} -std=c++20 -Wall -Wextra -Werror -I "$2" "$folder/example.cpp" "$3" -Wl,-rpath,"$(dirname "$3")" -o "$folder/cpp"
"$folder/cpp" | tee "$folder/out-cpp"
cmp "$folder/out" "$folder/out-cpp"
block python example.py
if ! "$4" -c 'import numpy' 2> /dev/null; then
    echo "SKIP: readme: python: no NumPy here"
    exit 0
fi
PYTHONPATH=$(dirname "$1")/bindings/python NEGCOS_LIBRARY=$3 PYTHONDONTWRITEBYTECODE=1 "$4" "$folder/example.py" | tee "$folder/out-python"
grep -qx "$loss, gradient (4, 2)" "$folder/out-python"
