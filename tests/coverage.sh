#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The branches that the tests take, line by line in BUILD/coverage.txt. Of capi/, where the caller's structs are read,
# every one must be taken.
#   coverage.sh BUILD
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$1/coverage
report=$1/coverage.txt
export NEGCOS_TEST_STEP=5
flags=''

# run NAME OPTION... -- TEST...: of a build with these options.
run() {
    build=$folder/$1
    shift
    options=
    # Kernels that this machine cannot run would only take their time to build.
    grep -qsw avx512bw /proc/cpuinfo || options=-Davx512=false
    while [ "$1" != -- ]; do options="$options $1" && shift; done
    shift
    programs=
    for test in "$@"; do programs="$programs tests/test_$test"; done
    if [ -f "$build/build.ninja" ]; then again=--reconfigure; else again=; fi
    mkdir -p "$build"
    find "$build" -name '*.gcda' -delete
    # shellcheck disable=SC2086
    if ! { meson setup $again "$build" "$root" -Dexamples=false -Dcommand=false -Dbuildtype=debug -Db_coverage=true \
        -Dcpp_args="-fprofile-update=atomic $flags" $options && ninja -C "$build" --quiet $programs &&
        meson test -C "$build" --no-rebuild --print-errorlogs --timeout-multiplier 10 "$@"; } > "$build.log" 2>&1; then
        cat "$build.log"
        exit 1
    fi
}
run whole -- oracle sampling errors edges half frequency frequency_file variants variant_edges variant_errors threads dispatch pairs fault
# The kernels' own branches are not looked at here.
flags=-O0
run serial -Dtbb=disabled -Dopenmp=disabled -- errors

"$root/tests/branches.py" "$root" capi/ "$folder/whole" "$folder/serial" > "$report"
status=$?
cat "$report"
exit $status
