#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The tests of negcos.torch, over the library installed in PREFIX.
#   test_torch.sh PREFIX SOURCE_ROOT WORK_FOLDER
# With the first of /usr/bin/python3, python3 and SOURCE_ROOT/build-peers/bin/python that has PyTorch and pytest; PYTHON
# names another. Ends with a line that counts; exit status 77: skipped, a line says why.
set -u
[ $# = 3 ] || { sed -n 's/^#   /usage: /p' "$0"; exit 2; }
prefix=$(cd "$1" && pwd) && root=$(cd "$2" && pwd) && mkdir -p "$3" && work=$(cd "$3" && pwd) || exit 2
skip() {
    echo "SKIP: torch: $*"
    exit 77
}
python=
for candidate in ${PYTHON:-/usr/bin/python3 python3 "$root/build-peers/bin/python"}; do
    if "$candidate" -c 'import numpy, pytest, torch' 2> /dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || skip "no Python that has numpy, pytest and torch (Debian's python3-pytest and python3-torch)"
library=$(find "$prefix" -name 'libnegcos.so' | head -n 1)
[ -n "$library" ] || skip "no libnegcos.so in $prefix"

export PYTHONDONTWRITEBYTECODE=1 SOURCE_ROOT="$root" NEGCOS_LIBRARY="$library" PYTHONPATH="$root/bindings/python"
report="$work/torch.xml"
rm -f "$report"
"$python" -c 'import sys, torch; print(f"PyTorch {torch.__version__}, {sys.executable}")'
(cd "$work" && "$python" -m pytest -q -rs -p no:cacheprovider --junitxml="$report" "$root"/bindings/python/tests/test_torch*.py)
status=$?
"$python" - "$report" "$status" << 'END'
import sys, xml.etree.ElementTree

try:
    suite = xml.etree.ElementTree.parse(sys.argv[1]).getroot().find("testsuite")
    tests, failures, errors, skipped = (int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped"))
except Exception:
    tests, failures, errors, skipped = 1, 1, 0, 0
passed, failed = tests - failures - errors - skipped, failures + errors
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0 or passed == 0 or sys.argv[2] != "0")
END
