#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Prints the code, the N-th where there are several, of one way in README's install table; fails where there is none.
#   install_line.sh SOURCE_ROOT WAY [N]
# shellcheck disable=SC2016
sed -n '/^## Install/,/^## The/{ s/\[\([^]]*\)\]([^)]*)/\1/; p; }' "$1/README.md" | grep "^| $2 |" |
    grep -o '`[^`]*`' | tr -d '`' | sed -n "${3:-1}p" | grep .
