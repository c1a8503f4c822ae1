#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Losses and gradients of other systems, recomputed in NumPy and, where it is installed, in PyTorch, against negcos.

    test_parity.py LIBRARY README

Every row of README's table "Coming from another library" has its function in systems.py, and the other way round.
Exit status 77 where NumPy is missing.
"""
import os
import pathlib
import re
import sys

try:
    import numpy as np
except ImportError:
    print("SKIP: parity: NumPy is not installed")
    sys.exit(77)
try:
    import torch

    no_torch = None
except ImportError:
    no_torch = "PyTorch is not installed"

import systems

SHAPES = [(5, 4), (9, 7), (12, 8)]  # queries, columns
# Of the largest entry: rounding, through logits up to 100 times a cosine.
TOLERANCE = {np.float64: 1e-13, np.float32: 1e-5}


def rows_of_table(readme):
    section = re.search(r"^## Coming from another library$(.*?)^## ", readme, re.MULTILINE | re.DOTALL)
    lines = [line for line in section[1].splitlines() if line.startswith("|")] if section else []
    return [line.split("|")[1].strip() for line in lines[2:]]  # after the heading and its rule


def with_gradients(system, inputs):
    """The loss, and its gradient of each input by a complex step in each of its entries."""
    found = [system(*inputs).real]
    for k, value in enumerate(inputs):
        gradient = np.empty(np.shape(value))
        for entry in np.ndindex(gradient.shape):
            step = np.zeros(gradient.shape, complex)
            step[entry] = 1e-30j
            gradient[entry] = system(*inputs[:k], value + step, *inputs[k + 1 :]).imag / 1e-30
        found.append(gradient)
    return found


def with_torch(system, inputs):
    tensors = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in inputs]
    loss = system(*tensors)
    loss.backward()
    return [loss.item()] + [tensor.grad.numpy() for tensor in tensors]


def compare(name, dtype, got, expected):
    """What is wrong, in sentences."""
    assert len(got) == len(expected)
    for k, (ours, theirs) in enumerate(zip(got, expected)):
        what = "loss" if k == 0 else f"gradient {k}"
        size = np.abs(theirs).max()
        error = np.abs(ours - theirs).max() / max(size, 1 if k == 0 else 0)
        if size < 1e-4:
            yield f"{name}: the {what} is {size:.3g} everywhere: that shows nothing"
        elif np.shape(ours) != np.shape(theirs) or not error <= TOLERANCE[dtype]:
            yield f"{name}: the {what} differs by {error:.3g} of its largest entry, {size:.3g}"


def run(negcos, function):
    for b, d in SHAPES:
        inputs, system, ours, *in_torch = function(np.random.default_rng(b), b, d)
        for dtype in TOLERANCE:
            given = [np.asarray(value, dtype) for value in inputs]
            got = ours(negcos, *given)
            exact = [value.astype(np.float64) for value in given]
            where = f"{b} x {d}, {np.dtype(dtype)}"
            yield from compare(f"{where}, NumPy", dtype, got, with_gradients(system, exact))
            if in_torch and not no_torch:
                yield from compare(f"{where}, PyTorch", dtype, got, with_torch(in_torch[0], exact))
    if in_torch and no_torch:
        yield f"SKIP: parity: {function.__name__} in PyTorch: {no_torch}"


def main():
    library, readme = sys.argv[1:]
    table = rows_of_table(pathlib.Path(readme).read_text(encoding="utf-8"))
    failed = 0
    for name in sorted({*table} ^ {*systems.ROWS}):
        print(f"{name}: {'no function in systems.py' if name in table else 'no row in README'}")
        failed += 1
    os.environ["NEGCOS_LIBRARY"] = library
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bindings/python"))
    import negcos

    for name, function in systems.ROWS.items():
        try:
            told = list(run(negcos, function))
        except Exception as error:  # a call that was refused, or an assertion
            told = [f"{type(error).__name__}: {error}"]
        wrong = [line for line in told if not line.startswith("SKIP: ")]
        print("FAILED" if wrong else "ok    ", name)
        for line in told:
            print(line if line.startswith("SKIP: ") else f"    {line}")
        failed += bool(wrong)
    print(f"parity: {len(table)} rows in README, {len(systems.ROWS)} compared, {failed} failed")
    return 1 if failed or not table else 0


sys.exit(main())
