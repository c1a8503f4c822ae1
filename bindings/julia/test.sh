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

# The main README's line, in a copy, by a user who has a registry: the package needs none, but Pkg would get one.
develop() {
    unset JULIA_LOAD_PATH
    export PATH="$work/bin:$PATH" JULIA_DEPOT_PATH="$work/user"
    line=$("$source/tests/install_line.sh" "$source" 'Julia, in the clone') || return 1
    rm -rf "$work/user" "$work/clone" && mkdir -p "$work/bin" "$work/clone/bindings" "$work/user/registries/None" &&
        ln -sf "$julia" "$work/bin/julia" && cp -R "$source/bindings/julia" "$work/clone/bindings" &&
        printf '%s\n' 'name = "None"' 'uuid = "7d52cbbd-4d68-4d11-9b73-0a42a0a0c3d4"' 'repo = ""' '[packages]' \
            > "$work/user/registries/None/Registry.toml" && cd "$work/clone" && sh -c "$line" && cd "$work" &&
        julia -e 'using Negcos; println(pathof(Negcos), " ", Negcos.library_version())'
}
if command -v curl > /dev/null || command -v wget > /dev/null; then
    (develop) > "$work/develop" 2>&1 || {
        cat "$work/develop"
        exit 1
    }
    tail -n 1 "$work/develop"
else
    echo "SKIP: julia: the main README's line: Pkg of Julia 1.5 does nothing without curl or wget"
fi

exec "$julia" --startup-file=no --color=no --project="$source/bindings/julia/Negcos" "$source/bindings/julia/Negcos/test/runtests.jl"
