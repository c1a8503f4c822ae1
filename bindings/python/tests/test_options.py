# SPDX-License-Identifier: Apache-2.0
"""The list of options: what help() and inspect show of it, and names that are not in it."""

import inspect
import subprocess
import sys
import typing

import numpy as np
import pytest

import negcos
from negcos._options import OPTIONS

QUERIES, DOCUMENTS = np.random.default_rng(5).standard_normal((2, 6, 4), dtype=np.float32)


def test_signature_and_help():
    parameters = inspect.signature(negcos.evaluate).parameters
    hints = typing.get_type_hints(negcos.evaluate)
    assert set(hints) == {*parameters, "return"}
    for name, (kind, default, meaning) in OPTIONS.items():
        assert parameters[name].kind == inspect.Parameter.KEYWORD_ONLY
        assert (parameters[name].default, hints[name]) == (default, kind)
        assert f"\n    {name}: {meaning}" in negcos.evaluate.__doc__
    assert "(softmax, batch-softmax, sigmoid, decoupled)" in negcos.evaluate.__doc__


def test_help_without_docstrings():
    code = "import negcos; print(negcos.evaluate.__doc__)"
    assert subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, check=True).stdout == b"None\n"


def test_defaults_given():
    """An option that is given its default is as good as none."""
    expected = negcos.evaluate(QUERIES, DOCUMENTS)
    given = {name: option.default for name, option in OPTIONS.items()}
    assert negcos.evaluate(QUERIES, DOCUMENTS, **given).loss == expected.loss


def test_order_given():
    one = {"sampling": "all", "prefix_dims": (2, 4), "prefix_weights": (1, 0.5)}
    losses = {negcos.evaluate(QUERIES, DOCUMENTS, **dict(pairs)).loss for pairs in (one.items(), reversed(one.items()))}
    assert len(losses) == 1


@pytest.mark.parametrize("name", ["temprature", "prefix_count", "struct_size"])
def test_unknown(name):
    with pytest.raises(
        TypeError, match=f"^unexpected option '{name}', expected some of objective, .*, prefix_weights$"
    ):
        negcos.evaluate(QUERIES, DOCUMENTS, **{name: 1})
