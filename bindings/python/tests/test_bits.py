# SPDX-License-Identifier: Apache-2.0
"""The calls of tests/golden/calls.txt give the bits recorded there, in every type."""

import struct

import numpy as np
from producer import Producer, to_bfloat16

import negcos

NUMBERS = ("loss", "grad_scale", "grad_bias", "accuracy", "mean_reciprocal_rank")
TYPES = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": np.uint16}
INTEGERS = ("rounds", "seed", "step")
FLOATS = (
    "scale",
    "temperature",
    "bias",
    "norm_floor",
    "margin",
    "label_smoothing",
    "hardness",
    "false_negative_margin",
)
NAMES = ("objective", "similarity", "sampling", "reduction", "direction", "correction")


def fnv1a(array):
    digest = 0xCBF29CE484222325
    for byte in np.ascontiguousarray(array).tobytes():
        digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"


def padded(rows, cols, padding, dtype):
    """[rows, cols] in memory whose rows are `padding` further apart."""
    return np.full((rows, cols + padding), 77, dtype)[:, :cols]


def values(rows, dim, salt, padding, dtype):
    i, j = np.arange(rows)[:, None], np.arange(dim)[None, :]
    exact = ((i * 31 + j * 17 + salt + i * j * 3) % 41 - 20) / 16
    array = padded(rows, dim, padding, dtype)
    array[:] = to_bfloat16(exact) if dtype is np.uint16 else exact
    return array


def test_bits(golden_call):
    call = dict(golden_call)
    call.pop("name")
    dtype_name = call.pop("dtype")
    dtype = TYPES[dtype_name]
    queries, documents, dim = (int(call.pop(name)) for name in ("queries", "documents", "dim"))
    padding, hard, exclude = (int(call.pop(name, 0)) for name in ("row_padding", "hard", "exclude"))
    rounds = int(call.get("rounds", 4))

    def passed(array):
        return Producer(array, "bfloat16") if dtype_name == "bf16" else array

    inputs = {
        "queries": values(queries, dim, 7, padding, dtype),
        "documents": values(documents, dim, 14, padding, dtype),
    }
    if hard:
        inputs["hard_negatives"] = values(queries * hard, dim, 21, padding, dtype)
    given = {name: passed(array) for name, array in inputs.items()}
    if exclude:
        given["exclude"] = [name for bit, name in ((1, "same-document-id"), (2, "same-query-id")) if exclude & bit]
        if exclude & 1:
            given["document_ids"] = np.arange(documents) % 5
        if exclude & 2:
            given["query_ids"] = np.arange(queries) % 7
    shapes = {
        "losses": (queries,),
        "hit_probability": (queries,),
        "logits": (queries, 1 + rounds + hard),
        "grad_queries": (queries, dim),
        "grad_documents": (documents, dim),
        "grad_hard_negatives": (queries * hard, dim),
        "negatives": (queries, rounds),
    }
    expected_numbers, expected_arrays, out = {}, {}, {}
    for name, text in call.items():
        if name in NUMBERS:
            expected_numbers[name] = text
        elif name in ("excluded", "zero_rows"):
            expected_numbers[name] = int(text)
        elif name in shapes:
            expected_arrays[name] = text
            if name == "negatives":
                out[name] = np.empty(shapes[name], np.int32)
            elif len(shapes[name]) == 1:
                out[name] = padded(queries, 1, padding, dtype)[:, 0]
            else:
                out[name] = padded(*shapes[name], padding, dtype)
        elif name in INTEGERS:
            given[name] = int(text)
        elif name in FLOATS:
            given[name] = float(text)
        else:
            assert name in NAMES, f"calls.txt has a key that this test does not know: {name}"
            given[name] = text
    result = negcos.evaluate(
        given.pop("queries"),
        given.pop("documents"),
        outputs=(),
        out={name: array if name == "negatives" else passed(array) for name, array in out.items()},
        **given,
    )
    for name, expected in expected_numbers.items():
        found = getattr(result, name)
        assert (found if isinstance(expected, int) else struct.pack(">d", found).hex()) == expected, name
    assert {name: fnv1a(array) for name, array in out.items()} == expected_arrays
    for array in (*inputs.values(), *out.values()):
        gap = array.base if array.base is not None and array.ndim == 2 else None
        assert gap is None or np.all(gap[:, array.shape[1] :] == 77)  # not one byte between the rows
