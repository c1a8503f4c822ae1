#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What libabigail sees of the library, types and symbols, against what was recorded: a change of the ABI is a change of
# the record, to be reviewed as one.
#   abidiff.sh LIBRARY INCLUDE_FOLDER RECORD [--update]       LIBRARY: with debug information
set -u
library=$1 include=$2 record=$3
if ! command -v abidw > /dev/null; then
    echo "SKIP: abidiff: no libabigail here"
    exit 77
fi
# What exported functions reach, apart from where and with what the library was built.
if [ "${4:-}" = --update ]; then
    # The licence behind the root's tag: libabigail reads nothing that begins otherwise.
    abidw --exported-interfaces-only --headers-dir "$include" --drop-private-types --no-show-locs --no-corpus-path \
        --no-comp-dir-path --no-elf-needed --no-architecture "$library" |
        sed "1a <!-- SPDX-License-Identifier: Apache-2.0 -->" > "$record"
    exit
fi
grep -q 'function-decl name=.negcos_evaluate' "$record" || { echo "abidiff: nothing is recorded in $record"; exit 1; }
abidiff --exported-interfaces-only --headers-dir2 "$include" --drop-private-types --no-architecture "$record" "$library"
status=$?
[ $status != 0 ] || echo "abidiff: as recorded"
exit $status
