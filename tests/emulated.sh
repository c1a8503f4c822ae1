#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs a test's program on the machine that $NEGCOS_EMULATOR stands for, e.g. "qemu-x86_64 -cpu Haswell". A script is run
# here: what it runs of ours, it hands to the emulator itself.
set -eu
case $1 in
    *.sh | *.py | */sh) exec "$@" ;;
esac
# shellcheck disable=SC2086
exec $NEGCOS_EMULATOR "$@"
