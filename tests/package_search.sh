#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The example on made-up texts: it learns, does so the same way each time, answers from its model, and names what is
# wrong with its input.
#   package_search.sh PROGRAM
set -u
program=$1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

check() {  # check WHAT CONDITION...
    what=$1
    shift
    if "$@"; then echo "ok: $what"; else echo "FAILED: $what"; failures=$((failures + 1)); fi
}
contains() { grep -qF -- "$2" "$1"; }

# Queries and documents share no letter: whatever is found has been learned. Each word of a query has a counterpart.
awk 'BEGIN {
    for (i = 0; i < 4000; ++i) {
        seed = (seed * 1103515245 + 12345) % 2147483648; a = int(seed / 65536) % 60
        seed = (seed * 1103515245 + 12345) % 2147483648; b = int(seed / 65536) % 60
        printf "%c%c%c %c%c%c\t%c%c%c %c%c%c\n", 97 + a % 8, 97 + a / 8, 97 + a % 5, 97 + b % 8, 97 + b / 8, 97 + b % 7,
            110 + a % 8, 110 + a / 8, 110 + a % 5, 110 + b % 8, 110 + b / 8, 110 + b % 7
    }
}' > pairs.tsv

run_on() { timeout 120 "$program" --batch 256 --pairs "$@" > out 2> err; }
run() { run_on pairs.tsv "$@"; }
check "trains" run --out one --threads 1
recall() { awk -v when="$1" '$1 == when { print $4 }' out; }
before=$(recall before) after=$(recall after)
check "Recall@10 rises from $before to $after" awk "BEGIN { exit !($before < 0.1 && $after > 0.5) }"
check "says nothing on standard error" [ ! -s err ]
check "trains with two threads" run --out two --threads 2
for file in model.bin queries.npy documents.npy loss.tsv; do
    check "$file is the same for one thread and two" cmp -s one/$file two/$file
done
check "answers from the model" run --out two --out one "abc"
check "without training" contains out "one/model.bin"
check "trains anew when the data are not those of the model" timeout 120 "$program" --pairs pairs.tsv --out one --batch 128 "abc" > out
check "and says so" contains out "Training:"

# The same pairs as two columns of four, with ends of lines from elsewhere and lines that hold nothing.
awk -F '\t' '{ printf "%d\t%s\t%s\tmore\r\n\r\n", NR, $2, $1 }' pairs.tsv > columns.tsv
check "trains on the columns that are named" run_on columns.tsv --columns 3,2 --out three
check "model.bin is the same for the same pairs" cmp -s two/model.bin three/model.bin

for sampling in groups all; do
    check "trains with the sampling $sampling" run --out two --threads 2 --sampling $sampling abc
    check "anew, as the model is of another" contains out "Training:"
    after=$(recall after)
    check "Recall@10 rises to $after" awk "BEGIN { exit !($after > 0.5) }"
done

wrong() {  # wrong NAMED ARGUMENTS...
    named=$1
    shift
    timeout 60 "$program" "$@" > out 2> err
    check "status 2: $*" [ $? = 2 ]
    check "one line that names $named" [ "$(wc -l < err)" = 1 ]
    check "  $(cat err)" contains err "$named"
}
: > empty
printf 'a\tb\nc\n' > no-tab.tsv
printf 'a\tb\n\tc\n' > no-query.tsv
printf 'a\tb\n' > few.tsv
printf 'a\tb\n\na\tb\tc\n' > three.tsv
printf 'a\tb\tc\n1\t2\t \n' > no-document.tsv
printf 'a\tb\n' | tr '\t' ' ' > blank.tsv
printf 'Package: a\nVersion: 1\n\n' > no-description
wrong missing.tsv --pairs missing.tsv
wrong "no-tab.tsv:2: 1 column, expected query TAB document" --pairs no-tab.tsv
wrong "blank.tsv:1: 1 column, expected" --pairs blank.tsv
wrong "no-query.tsv:2: column 1 is empty" --pairs no-query.tsv
wrong "three.tsv:3: 3 columns, expected query TAB document; --columns A,B" --pairs three.tsv
wrong "three.tsv:1: 2 columns, and --columns takes column 3" --pairs three.tsv --columns 3,1
wrong "no-document.tsv:2: column 3 is empty" --pairs no-document.tsv --columns 1,3
for columns in 0,1 1 1,2,3 a,b 1,1 -1,2 ''; do
    wrong --columns --pairs pairs.tsv --columns "$columns"
done
wrong --pairs --columns 1,2
wrong few.tsv --pairs few.tsv
wrong empty --pairs empty
wrong empty --catalogue empty
wrong no-description --catalogue no-description
wrong --epochs --pairs pairs.tsv --epochs 0
wrong --sampling --pairs pairs.tsv --sampling given
wrong --nix --nix
wrong pairs.tsv/folder --pairs pairs.tsv --out pairs.tsv/folder

[ "$failures" = 0 ]
