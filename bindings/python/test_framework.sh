#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The tests of negcos.tensorflow or negcos.jax over the library installed in PREFIX.
#   test_framework.sh NAME PREFIX SOURCE_ROOT WORK_FOLDER      NAME: tensorflow or jax
# By SOURCE_ROOT/build-peers/bin/python where that has the framework and pytest; otherwise from PyPI, in a virtual
# environment beside WORK_FOLDER that is kept for the next time (tensorflow: 1.6 GB, jax: 0.6 GB, no GPU packages).
# Ends with a line that counts; exit status 77: skipped, a line says why.
set -u
[ $# = 4 ] || { sed -n 's/^#   /usage: /p' "$0"; exit 2; }
name=$1
prefix=$(cd "$2" && pwd) && root=$(cd "$3" && pwd) && mkdir -p "$4" && work=$(cd "$4" && pwd) || exit 2
skip() {
    echo "SKIP: $name: $*"
    exit 77
}
case $name in
    tensorflow) packages=tensorflow-cpu ;;
    jax) packages=jax ;;
    *) echo "$name: expected tensorflow or jax" && exit 2 ;;
esac
library=$(find "$prefix" -name 'libnegcos.so' | head -n 1)
[ -n "$library" ] || skip "no libnegcos.so in $prefix"
export PYTHONDONTWRITEBYTECODE=1 TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=0

has() {
    [ -x "$1" ] && "$1" -c "import $name, pytest" > "$work/$name.log" 2>&1
}
install() {
    "$python" -m pip --disable-pip-version-check install -q "$@"
}
python="$root/build-peers/bin/python"
if ! has "$python"; then
    environment="$(dirname "$work")/frameworks-$name"
    python="$environment/bin/python"
    if ! has "$python"; then
        # tf_keras: Keras 2, of the same version; it asks for the package with GPUs, which is left out.
        { /usr/bin/python3 -m venv "$environment" && install numpy pytest "$packages" &&
            { [ "$name" != tensorflow ] || install --no-deps "tf_keras==$("$python" -c '
from importlib.metadata import version
print(".".join(version("tensorflow-cpu").split(".")[:2]) + ".*")')"; } } > "$work/$name.log" 2>&1 ||
            skip "not to be had from PyPI: $(tail -n 1 "$work/$name.log")"
        has "$python" || skip "installed, but: $(tail -n 1 "$work/$name.log")"
    fi
fi

export SOURCE_ROOT="$root" NEGCOS_LIBRARY="$library" PYTHONPATH="$root/bindings/python"
passed=0 failed=0
# suite LABEL [pytest's options]: its cases counted from its own report
suite() {
    report="$work/$name-$1.xml"
    rm -f "$report"
    shift
    (cd "$work" && "$python" -m pytest -q -rs -p no:cacheprovider --junitxml="$report" "$@" \
        "$root/bindings/python/tests/test_$name.py") || true
    counts=$("$python" - "$report" << 'END'
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
suite all
if [ "$name" = tensorflow ]; then  # tf.keras as it was up to TensorFlow 2.15
    if "$python" -c 'import tf_keras' > /dev/null 2>&1; then
        TF_USE_LEGACY_KERAS=1 suite keras2 -k layer
    else
        echo "without Keras 2: $python has no tf_keras"
    fi
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
