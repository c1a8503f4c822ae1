#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Tests of the Python binding, over the library installed in PREFIX; those of `wheel` over
# the package as pip builds and installs it.
#   test.sh PREFIX SOURCE_ROOT WORK_FOLDER package|wheel|torch|tensorflow|jax
# PYTHON names another interpreter. What lacks is told of, with exit status 77.
set -u
[ $# = 4 ] || { sed -n 's/^#   /usage: /p' "$0"; exit 2; }
prefix=$(cd "$1" && pwd) && root=$(cd "$2" && pwd) && mkdir -p "$3" && work=$(cd "$3" && pwd) || exit 2
suite=$4
skip() {
    echo "SKIP: python $suite: $*"
    exit 77
}
library=$(find "$prefix" -name 'libnegcos.so' | head -n 1)
[ -n "$library" ] || skip "no libnegcos.so in $prefix"
export PYTHONDONTWRITEBYTECODE=1 SOURCE_ROOT="$root" TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=0
tests=$root/bindings/python/tests
cd "$work" || exit 2

# choose MODULES PYTHON...: the first that has them.
choose() {
    modules=$1
    shift
    for python in "$@"; do
        ! "$python" -c "import numpy, pytest$modules" > "$work/log" 2>&1 || return 0
    done
    return 1
}
pip_install() {
    "$python" -m pip --disable-pip-version-check install -q "$@"
}
cases() {
    "$python" -m pytest -q -p no:cacheprovider "$@"
}
line() {
    "$root/tests/install_line.sh" "$root" "$1"
}
installed_library() {
    export NEGCOS_LIBRARY="$library" PYTHONPATH="$root/bindings/python"
}
python=${PYTHON:-/usr/bin/python3}

case $suite in
    package)
        choose "" "$python" || skip "$(tail -n 1 log)"
        installed_library
        cases "$tests" --ignore-glob="$tests/test_t*" --ignore="$tests/test_jax.py"
        ;;
    wheel)
        choose "" "$python" || skip "$(tail -n 1 log)"
        rm -rf source dist venv && mkdir source
        # From a copy, committed, as a source archive is made from a commit; pip installs from that archive.
        { "$python" -m venv --system-site-packages venv && venv/bin/pip --disable-pip-version-check install -q \
            'meson-python>=0.18' build ninja; } > log 2>&1 || skip "no venv, or no meson-python: $(tail -n 1 log)"
        (cd "$root" && git ls-files -z -co --exclude-standard | tar -c --null -T - --ignore-failed-read 2> "$work/log") |
            tar -x -C source
        PATH=$work/venv/bin:$PATH
        (
            cd source && git init -q . && git add -A &&
                git -c user.name=test -c user.email=test@localhost commit -q -m test &&
                python -m build --sdist --no-isolation --outdir ../dist && cd ../dist && tar -xzf negcos-*.tar.gz &&
                cd negcos-*/ && sh -c "$(line "Python, in the clone")"
        ) > log 2>&1 || { tail -n 30 log && exit 1; }
        python=$work/venv/bin/python
        "$python" "$tests/check_package.py" dist/*.tar.gz "$root" || exit 1
        cases "$tests/test_layout.py" "$tests/test_bits.py" "$tests/test_frequency.py" "$tests/test_readme.py"
        ;;
    torch)
        choose ", torch" "$python" python3 "$root/build-peers/bin/python" ||
            skip "no Python that has numpy, pytest and torch (Debian: python3-pytest, python3-torch)"
        installed_library
        "$python" -c "$(line "… PyTorch")" || exit 1
        cases "$tests"/test_torch_*.py
        ;;
    tensorflow | jax)
        # Debian has neither: from PyPI, kept for the next time (tensorflow: 1.6 GB, jax: 0.6 GB, no GPU packages).
        if ! choose ", $suite" "$root/build-peers/bin/python" "$work/venv/bin/python"; then
            packages=$suite
            [ "$suite" = jax ] || packages=tensorflow-cpu
            if ! { "${PYTHON:-/usr/bin/python3}" -m venv venv && pip_install numpy pytest "$packages"; } > log 2>&1 ||
                ! choose ", $suite" "$python"; then
                skip "not to be had from PyPI: $(tail -n 1 log)"
            fi
            # tf_keras: Keras 2, of the same version; it asks for the package with GPUs, which is left out.
            [ "$suite" = jax ] || pip_install --no-deps "tf_keras==$("$python" -c '
from importlib.metadata import version
print(".".join(version("tensorflow-cpu").split(".")[:2]) + ".*")')"
        fi
        installed_library
        [ "$suite" = jax ] && way=JAX || way="TensorFlow, Keras"
        "$python" -c "$(line "… $way")" || exit 1
        cases "$tests/test_$suite.py"
        status=$?
        if [ "$suite" = tensorflow ]; then # tf.keras as it was up to TensorFlow 2.15
            if "$python" -c 'import tf_keras' > log 2>&1; then
                TF_USE_LEGACY_KERAS=1 cases "$tests/test_tensorflow.py" -k layer || status=1
            else
                echo "SKIP: python tensorflow with Keras 2: no tf_keras here"
            fi
        fi
        exit $status
        ;;
    *)
        sed -n 's/^#   /usage: /p' "$0"
        exit 2
        ;;
esac
