#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The tests of the Julia binding, with the library that is installed in PREFIX.
#   test.sh PREFIX SOURCE_ROOT WORK_FOLDER
# The last line counts passed and failed test cases. Exit status 77: there is no Julia here. Nothing is written into the
# source tree, and nothing is asked of Julia's registries.
set -u
prefix=$1 source=$2
mkdir -p "$3"
work=$(cd "$3" && pwd)

julia=$(sh "$source/tests/julia.sh" "$work" 2> "$work/julia.reason") || {
    echo "SKIP: julia: $(cat "$work/julia.reason")"
    exit 77
}
library=$(find "$prefix" -name 'libnegcos.so' -o -name 'libnegcos.dylib' | head -n 1)
[ -n "$library" ] || {
    echo "no libnegcos in $prefix" >&2
    exit 1
}

export NEGCOS_LIBRARY="$library" JULIA_DEPOT_PATH="$work/depot" JULIA_LOAD_PATH=@:@stdlib JULIA_NUM_THREADS=4 JULIA_PKG_OFFLINE=true
unset JULIA_PROJECT NEGCOS_ISA NEGCOS_THREADS
"$julia" --version
exec "$julia" --startup-file=no --color=no --project="$source/bindings/julia/Negcos" "$source/bindings/julia/Negcos/test/runtests.jl"
