#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The tests of the Python binding: those of the package, by this machine's Python over the library installed in PREFIX;
# then the wheel: built once from a copy of the sources, looked into, installed and tried, and its source archive made.
#   test.sh PREFIX SOURCE_ROOT WORK_FOLDER
# PYTHON names another interpreter. Ends with a line that counts; exit status 77: skipped, a line says why.
set -u
[ $# = 3 ] || { sed -n 's/^#   /usage: /p' "$0"; exit 2; }
prefix=$(cd "$1" && pwd) && root=$(cd "$2" && pwd) && mkdir -p "$3" && work=$(cd "$3" && pwd) || exit 2
python=${PYTHON:-/usr/bin/python3}
skip() {
    echo "SKIP: python: $*"
    exit 77
}
"$python" -c 'import numpy, pytest' 2> /dev/null || skip "$python has no numpy or no pytest"
library=$(find "$prefix" -name 'libnegcos.so' | head -n 1)
[ -n "$library" ] || skip "no libnegcos.so in $prefix"

passed=0 failed=0
verdict() {  # verdict NAME STATUS
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
        echo "ok: $1"
    else
        failed=$((failed + 1))
        echo "FAILED: $1"
    fi
}

# suite NAME PYTHON FOLDER: pytest there, its cases counted from its own report.
suite() {
    report="$work/$1.xml"
    rm -f "$report"
    (cd "$3" && "$2" -m pytest -q -rs -p no:cacheprovider --junitxml="$report" "$root/bindings/python/tests") || true
    counts=$("$2" - "$report" << 'END'
import sys, xml.etree.ElementTree
try:
    suite = xml.etree.ElementTree.parse(sys.argv[1]).getroot().find("testsuite")
    tests, bad, skipped = (int(suite.get(key)) for key in ("tests", "failures", "skipped"))
    bad += int(suite.get("errors"))
    print(tests - bad - skipped, bad)
except Exception:
    print(0, 1)
END
    )
    passed=$((passed + ${counts% *})) failed=$((failed + ${counts#* }))
}

export PYTHONDONTWRITEBYTECODE=1 SOURCE_ROOT="$root"
export NEGCOS_LIBRARY="$library" PYTHONPATH="$root/bindings/python"
suite core "$python" "$work"
unset NEGCOS_LIBRARY PYTHONPATH

finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
    exit
}

# The wheel. pip brings meson-python: Debian 12's own makes no py3-none wheels.
build="$work/wheel"
rm -rf "$build" && mkdir -p "$build/source"
if ! { "$python" -m venv "$build/tools" && "$build/tools/bin/pip" --disable-pip-version-check install -q \
    'meson-python>=0.18' build ninja; } > "$build/log" 2>&1; then
    echo "SKIP: python: the wheel: no venv, or no meson-python to be had: $(tail -n 1 "$build/log")"
    finish
fi
# From a copy, committed, as a source archive is made from a commit; the wheel is made from that archive.
(cd "$root" && git ls-files -z -co --exclude-standard | tar -c --null -T - --ignore-failed-read 2> /dev/null) |
    tar -x -C "$build/source"
(
    PATH="$build/tools/bin:$PATH" && cd "$build/source" && git init -q . && git add -A &&
        git -c user.name=test -c user.email=test@localhost commit -q -m test &&
        python -m build --no-isolation --outdir "$build/dist"
) >> "$build/log" 2>&1 || tail -n 30 "$build/log"
"$python" "$root/bindings/python/tests/check_wheel.py" "$build/dist" "$root"
verdict "the wheel and the source archive, and what is in them" $?
cd "$build" || exit 1
"$python" -m venv --system-site-packages venv &&
    venv/bin/pip --disable-pip-version-check install -q --no-index dist/*.whl &&
    venv/bin/python -c "import negcos; assert negcos.__file__.startswith('$build/venv/'), negcos.__file__"
verdict "the wheel, installed" $?
suite wheel "$build/venv/bin/python" "$build"
finish
