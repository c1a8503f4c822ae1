# SPDX-License-Identifier: Apache-2.0
"""Every argument in every wrong way: an exception that Python users would catch and that names it; nothing written."""

import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from producer import Producer

import negcos

B, M, D, H, ROUNDS = 6, 9, 5, 2, 3
RANDOM = np.random.default_rng(1)
QUERIES, DOCUMENTS = RANDOM.standard_normal((B, D)), RANDOM.standard_normal((M, D))
HARD = RANDOM.standard_normal((B * H, D))
READ_ONLY = np.zeros((B, D))
READ_ONLY.flags.writeable = False
GIVEN = {"sampling": "given", "rounds": ROUNDS, "negatives": np.zeros((B, ROUNDS), np.int32)}
STRIDED = np.zeros((B, 2 * ROUNDS), np.int32)[:, ::2]


def swapped(array):
    return array.astype(array.dtype.newbyteorder())


def misaligned(array):
    made = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


WRONG = [
    # argument, value, exception, status, a part of the sentence
    ("queries", [[1.0, 2.0]], TypeError, "dtype", "queries is a list"),
    ("queries", None, TypeError, "dtype", "queries is a NoneType"),
    ("queries", QUERIES.astype(np.int32), TypeError, "dtype", "queries is of int32"),
    ("queries", QUERIES.astype(complex), TypeError, "dtype", "queries is of complex128"),
    (
        "queries",
        QUERIES.astype(np.float32),
        TypeError,
        "dtype",
        "documents is of float64, expected the queries' float32",
    ),
    ("queries", swapped(QUERIES), TypeError, "dtype", "queries is of >f8, expected this machine's byte order"),
    ("queries", QUERIES[0], ValueError, "shape", "queries is [5], expected [rows, columns]"),
    ("queries", QUERIES[None], ValueError, "shape", "queries is [1, 6, 5]"),
    ("queries", QUERIES[:, ::2], ValueError, "shape", "queries has 2 elements from column to column"),
    ("queries", np.asfortranarray(QUERIES), ValueError, "shape", "queries has 6 elements from column to column"),
    ("queries", QUERIES[::-1], ValueError, "shape", "queries has -5 elements from row to row"),
    ("queries", np.broadcast_to(QUERIES[0], (B, D)), ValueError, "shape", "queries has 0 elements from row to row"),
    ("queries", np.zeros((M + 1, D)), ValueError, "shape", "documents has 9 rows"),
    ("queries", misaligned(QUERIES), ValueError, "value", "queries.data is not aligned"),
    ("queries", np.zeros(B, [("a", "f8", D), ("b", "u1")])["a"], ValueError, "shape", "queries has strides of (41, 8)"),
    ("queries", Producer(QUERIES, device=2), TypeError, "dtype", "queries is on a device (DLPack type 2)"),
    ("queries", Producer(QUERIES, lanes=2), TypeError, "dtype", "queries has elements of 2 lanes"),
    ("queries", Producer(QUERIES, major=2), TypeError, "dtype", "queries speaks DLPack 2.0"),
    ("queries", Producer(np.zeros((B, D), np.int64)), TypeError, "dtype", "queries is of int64"),
    ("documents", "text", TypeError, "dtype", "documents is a str"),
    ("documents", DOCUMENTS[:, :4], ValueError, "shape", "documents has 4 columns"),
    ("documents", DOCUMENTS[0], ValueError, "shape", "documents is [5]"),
    ("hard_negatives", HARD[:, :4], ValueError, "shape", "hard_negatives has 4 columns"),
    ("hard_negatives", HARD[1:], ValueError, "shape", "hard_negatives has 11 rows"),
    ("hard_negatives", HARD.astype(np.float32), TypeError, "dtype", "hard_negatives is of float32"),
    ("hard_negatives", HARD.reshape(B, H, D), ValueError, "shape", "hard_negatives is [6, 2, 5]"),
    ("positives", np.arange(B - 1), ValueError, "shape", "positives is [5], expected [6]"),
    ("positives", np.arange(B)[:, None], ValueError, "shape", "positives is [6, 1]"),
    ("positives", np.full(B, M), ValueError, "value", "positives[0] is 9"),
    ("positives", np.zeros(B), TypeError, "dtype", "positives is of float64"),
    ("positives", np.full(B, 2**63, np.uint64), ValueError, "value", "positives has numbers outside int64"),
    ("positives", [10**30] * B, TypeError, "dtype", "positives is a list that makes no array of numbers"),
    ("positives", np.zeros(B, "V0"), TypeError, "dtype", "positives is of void"),
    ("positives", np.zeros(B, bool), TypeError, "dtype", "positives is of bool"),
    ("positives", [[1], [2, 3]], TypeError, "dtype", "positives is a list that makes no array of numbers"),
    ("positives", Producer(np.zeros(B, np.uint16), "bfloat16"), TypeError, "dtype", "positives is of bfloat16"),
    (
        "negatives",
        np.zeros((B, ROUNDS), np.int32),
        ValueError,
        "value",
        "negatives is given, expected sampling=",
    ),
    ("document_ids", np.arange(M), ValueError, "value", "document_ids is given, expected exclude="),
    ("query_ids", np.arange(B), ValueError, "value", "query_ids is given, expected exclude="),
    ("log_probability", np.zeros(B), ValueError, "shape", "log_probability is [6], expected [9]"),
    ("log_probability", np.full(M, np.nan), ValueError, "value", "log_probability[0] is nan"),
    ("log_probability", np.zeros(M, complex), TypeError, "dtype", "log_probability is of complex128"),
    ("weights", np.ones(M), ValueError, "shape", "weights is [9], expected [6]"),
    ("weights", -np.ones(B), ValueError, "value", "weights[0] is -1"),
    ("weights", ["a"] * B, TypeError, "dtype", "weights is of str"),
    ("context", "scalar", TypeError, "dtype", "context is a str"),
    ("outputs", "grads", ValueError, "value", "'grads' is no output"),
    ("outputs", 3, TypeError, "dtype", "outputs is a int"),
    ("outputs", ("grad_hard_negatives",), ValueError, "null-argument", "hard_negatives is absent"),
    ("out", [QUERIES], TypeError, "dtype", "out is a list"),
    ("out", {"gradients": QUERIES}, ValueError, "value", "'gradients' is no output"),
    ("out", {"grad_queries": READ_ONLY}, ValueError, "value", "out['grad_queries'] is read-only"),
    ("out", {"grad_queries": Producer(np.zeros((B, D)), flags=1)}, ValueError, "value", "is read-only"),
    ("out", {"grad_queries": Producer(np.zeros((B, D)), flags=2)}, ValueError, "value", "is read-only"),
    ("out", {"grad_queries": np.zeros((B, D), np.float32)}, TypeError, "dtype", "out['grad_queries'] is of float32"),
    (
        "out",
        {"grad_queries": np.zeros((B, D + 1))},
        ValueError,
        "shape",
        "['grad_queries'] is [6, 6], expected [6, 5]",
    ),
    (
        "out",
        {"grad_queries": np.zeros((D, B)).T},
        ValueError,
        "shape",
        "['grad_queries'] has 6 elements from column",
    ),
    ("out", {"grad_documents": QUERIES}, ValueError, "shape", "out['grad_documents'] is [6, 5], expected [9, 5]"),
    ("out", {"grad_queries": QUERIES}, ValueError, "overlap", "grad_queries overlaps batch.queries"),
    ("out", {"losses": np.zeros((B, 1))}, ValueError, "shape", "out['losses'] is [6, 1], expected [6]"),
    ("out", {"negatives": np.zeros((B, 4), np.int64)}, TypeError, "dtype", "out['negatives'] is of int64"),
    ("out", {"negatives": np.zeros((4, B), np.int32).T}, ValueError, "shape", "out['negatives'] has strides"),
    ("objective", "soft", ValueError, "value", "objective is 'soft', expected one of softmax, batch-softmax"),
    ("similarity", 1, ValueError, "value", "similarity is 1, expected one of cosine, dot"),
    ("sampling", None, ValueError, "value", "sampling is None"),
    ("reduction", "none", ValueError, "value", "reduction is 'none'"),
    ("direction", "back", ValueError, "value", "direction is 'back'"),
    ("direction", "both", NotImplementedError, "unsupported", "direction BOTH and any options.sampling but ALL"),
    ("correction", "off", ValueError, "value", "correction is 'off'"),
    ("exclude", "id", ValueError, "value", "exclude is 'id', expected one of same-document-id, same-query-id"),
    ("exclude", 1, TypeError, "dtype", "exclude is a int"),
    ("exclude", "same-document-id", ValueError, "null-argument", "document_ids is NULL"),
    ("rounds", -1, ValueError, "value", "rounds is -1"),
    ("rounds", 2**31, ValueError, "value", "rounds is 2147483648"),
    ("rounds", 4.0, TypeError, "dtype", "rounds is a float"),
    ("seed", -1, ValueError, "value", "seed is -1"),
    ("step", 2**64, ValueError, "value", "step is 18446744073709551616"),
    ("scale", "20", TypeError, "dtype", "scale is '20', expected a number"),
    ("scale", np.inf, ValueError, "value", "scale is inf"),
    ("temperature", 0, ValueError, "value", "temperature is 0"),
    ("bias", 1.0, NotImplementedError, "unsupported", "options.bias"),
    ("norm_floor", -1.0, ValueError, "value", "norm_floor is -1"),
    ("margin", np.nan, ValueError, "value", "margin is nan"),
    ("label_smoothing", 1.0, ValueError, "value", "label_smoothing is 1"),
    ("hardness", None, TypeError, "dtype", "hardness is None"),
    ("false_negative_margin", -np.inf, ValueError, "value", "false_negative_margin is -inf"),
    ("prefix_dims", (2, 6), ValueError, "value", "prefix_dims[1] is 6"),
    ("prefix_dims", (2.0,), TypeError, "dtype", "prefix_dims[0] is a float"),
    ("prefix_dims", 3, TypeError, "dtype", "prefix_dims is a int"),
    ("prefix_weights", (1.0,), ValueError, "shape", "prefix_weights has 1, prefix_dims 0"),
]


@pytest.mark.parametrize(
    "argument, value, exception, name, sentence", WRONG, ids=[f"{w[0]}-{n}" for n, w in enumerate(WRONG)]
)
def test_wrong(argument, value, exception, name, sentence):
    arguments = {"queries": QUERIES, "documents": DOCUMENTS, argument: value}
    if argument == "queries" and not isinstance(value, (np.ndarray, Producer)):
        arguments["documents"] = DOCUMENTS.copy()
    untouched = np.full((M, D), 7.0)
    out = arguments.get("out", {})
    if isinstance(out, dict) and "grad_documents" not in out:
        arguments["out"] = {**out, "grad_documents": untouched}
    with pytest.raises(exception, match=re.escape(sentence)) as raised:
        if argument == "out":
            arguments["sampling"] = "uniform"
        negcos.evaluate(arguments.pop("queries"), arguments.pop("documents"), **arguments)
    assert isinstance(raised.value, negcos.Error)
    assert (raised.value.name, raised.value.status) == (name, negcos._errors.STATUS[name])
    assert np.all(untouched == 7)


def test_every_argument_is_tried_wrong():
    import inspect

    assert {wrong[0] for wrong in WRONG} == set(inspect.signature(negcos.evaluate).parameters)


@pytest.mark.parametrize(
    "negatives, sentence",
    [
        (np.zeros((B, ROUNDS + 1), np.int32), "negatives is [6, 4], expected [6, 3]"),
        (np.full((B, ROUNDS), M, np.int32), "negatives[0, 0] is 9"),
        (np.full((B, ROUNDS), 2**40), "negatives has numbers outside int32"),
        (None, "negatives is NULL"),
    ],
)
def test_wrong_negatives(negatives, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        negcos.evaluate(QUERIES, DOCUMENTS, **{**GIVEN, "negatives": negatives})


@pytest.mark.parametrize("output", ["logits", "negatives"])
def test_all_has_no_list_of_candidates(output):
    with pytest.raises(negcos.Error, match=f"{output} cannot be had with sampling ALL"):
        negcos.evaluate(QUERIES, DOCUMENTS, sampling="all", outputs=output)


def test_what_converts_without_loss():
    """Index arrays of other integer types, strided ones, lists, narrower floats: the same results."""
    expected = negcos.evaluate(QUERIES, DOCUMENTS, positives=np.arange(B) + 1, weights=np.arange(B) / 4.0)
    for positives in (
        (np.arange(B) + 1).astype(np.int16),
        np.arange(1, B + 1).tolist(),
        np.arange(2, 2 * B + 2)[::2] // 2,
    ):
        for weights in ((np.arange(B) / 4).astype(np.float16), [0, 0.25, 0.5, 0.75, 1, 1.25], np.arange(B)[::1] / 4):
            found = negcos.evaluate(QUERIES, DOCUMENTS, positives=positives, weights=weights)
            assert found.loss == expected.loss
            np.testing.assert_array_equal(found.grad_queries, expected.grad_queries)
    drawn = negcos.evaluate(QUERIES, DOCUMENTS, sampling="uniform", rounds=ROUNDS, outputs="negatives").negatives
    for negatives in (drawn, drawn.astype(np.int64), drawn.astype(np.uint8), drawn.tolist(), np.asfortranarray(drawn)):
        found = negcos.evaluate(QUERIES, DOCUMENTS, sampling="given", rounds=ROUNDS, negatives=negatives)
        assert found.loss == negcos.evaluate(QUERIES, DOCUMENTS, sampling="uniform", rounds=ROUNDS).loss


def test_what_copies_alike():
    """Other byte orders, odd addresses, fields of records, bool and bfloat16 weights: vectors that a copy makes right."""
    ids = {"positives": np.arange(B) + 1, "document_ids": np.arange(M) % 4 - 2**40, "query_ids": np.arange(B) // 2}
    floats = {"weights": np.arange(B) / 4.0, "log_probability": -np.arange(M) / 8.0}
    arguments = {**GIVEN, "negatives": np.arange(B * ROUNDS).reshape(B, ROUNDS) % M - 1, **ids, **floats}
    arguments["exclude"] = ("same-document-id", "same-query-id")
    expected = negcos.evaluate(QUERIES, DOCUMENTS, **arguments)

    def alike(**changed):
        found = negcos.evaluate(QUERIES, DOCUMENTS, **{**arguments, **changed})
        assert found.loss == expected.loss
        np.testing.assert_array_equal(found.grad_queries, expected.grad_queries)

    for name in ("negatives", *ids, *floats):
        array = arguments[name]
        records = np.zeros(array.shape, [("flag", "u1"), ("value", array.dtype)])
        records["value"] = array
        for other in (swapped(array), misaligned(array), records["value"], [*swapped(array)]):
            alike(**{name: other})
    bits = {name: (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for name, array in floats.items()}
    alike(**{name: Producer(array, "bfloat16") for name, array in bits.items()})
    alike(**{name: Producer(np.repeat(array, 2)[::2], "bfloat16") for name, array in bits.items()})
    alike(**{name: swapped(array.astype(np.float16)) for name, array in floats.items()})
    try:
        import ml_dtypes
    except ImportError:
        pass
    else:
        alike(**{name: array.astype(ml_dtypes.bfloat16) for name, array in floats.items()})
    mask = np.arange(B) % 2 == 0
    expected = negcos.evaluate(QUERIES, DOCUMENTS, **{**arguments, "weights": mask.astype(float)})
    for weights in (mask, mask.tolist(), np.repeat(mask, 3)[::3], Producer(mask)):
        alike(weights=weights)


def masked(array):
    return np.ma.array(array, mask=np.arange(array.size).reshape(array.shape) == 3)


VECTORS = {
    "positives": np.arange(B),
    "negatives": np.zeros((B, ROUNDS), np.int32),
    "document_ids": np.arange(M),
    "query_ids": np.arange(B),
    "log_probability": np.zeros(M),
    "weights": np.ones(B),
}


@pytest.mark.parametrize("name", ["queries", "documents", "hard_negatives", *VECTORS, "out", "prefix_weights", "scale"])
def test_masks(name):
    """The numbers under a mask are not meant. An array that masks nothing is one like any other."""
    arguments = {"queries": QUERIES, "documents": DOCUMENTS, "hard_negatives": HARD, **VECTORS, "prefix_dims": (2, 4)}
    arguments.update(prefix_weights=np.ones(2), scale=np.array(20.0), sampling="given", rounds=ROUNDS)
    arguments["exclude"] = ("same-document-id", "same-query-id")
    expected = negcos.evaluate(**arguments).loss
    array = np.zeros((B, D)) if name == "out" else arguments[name]
    hidden = np.ma.array(array, mask=np.arange(array.size).reshape(array.shape) == array.size - 1)
    variants = [(array, hidden)]
    if name in VECTORS:
        variants += [([*np.ma.array(array)], [*hidden]), ((array[0], *array[1:]), (*array[:-1], hidden[-1]))]
    says = re.escape({"out": "out['grad_queries']", "prefix_weights": "prefix_weights[1]"}.get(name, name))
    for plain, wrong in variants:
        if name == "out":
            plain, wrong = {"grad_queries": plain}, {"grad_queries": wrong}
        with pytest.raises(ValueError, match=f"^{says} has masked elements, expected none"):
            negcos.evaluate(**{**arguments, name: wrong})
        assert negcos.evaluate(**{**arguments, name: plain}).loss == expected
    if name not in ("out", "prefix_weights", "scale"):
        assert negcos.evaluate(**{**arguments, name: np.ma.array(array, mask=False)}).loss == expected


def test_masked_numbers():
    with pytest.raises(ValueError, match="^step has masked elements"):
        negcos.evaluate(QUERIES, DOCUMENTS, step=masked(np.arange(9))[3])
    with pytest.raises(ValueError, match=r"^prefix_dims\[3\] has masked elements"):
        negcos.evaluate(QUERIES, DOCUMENTS, prefix_dims=masked(np.arange(1, 6)))
    with pytest.raises(ValueError, match="^batch has masked elements"):
        negcos.sample(masked(np.arange(9))[3])


@pytest.mark.parametrize("name", ["update", "log_probability", "out"])
def test_masks_of_frequencies(name):
    frequency, ids = negcos.Frequency(buckets=1 << 10), np.arange(5)
    frequency.update([1, 2, 3])
    before = frequency.log_probability(ids)
    with pytest.raises(ValueError, match=f"^{'out' if name == 'out' else 'ids'} has masked elements"):
        if name == "out":
            frequency.log_probability(ids, out=masked(np.zeros(5)))
        else:
            getattr(frequency, name)(masked(ids))
    np.testing.assert_array_equal(frequency.log_probability(np.ma.array(ids)), before)


def test_masks_of_other_objects():
    class Variable:  # as netCDF4's
        def __array__(self, *_, **__):
            return masked(np.arange(B))

    itself = [0]
    itself.append(itself)
    for array in (Variable(), np.array([*range(B - 1), None]), itself):
        with pytest.raises(negcos.Error, match="^positives (has masked elements|.* makes no array of numbers)"):
            negcos.evaluate(QUERIES, DOCUMENTS, positives=array)
    records = np.ma.zeros((B, D), [("row", int), ("at", float)])
    records[0] = np.ma.masked
    for name, array in (("positives", records[:, 0]), ("queries", records)):
        with pytest.raises(negcos.Error, match=f"^{name} is of void"):
            negcos.evaluate(**{"queries": QUERIES, "documents": DOCUMENTS, name: array})


def test_names_with_dashes_or_underscores():
    one = negcos.evaluate(QUERIES, DOCUMENTS, sampling="log-uniform", objective="DECOUPLED")
    other = negcos.evaluate(QUERIES, DOCUMENTS, sampling="log_uniform", objective="decoupled")
    assert one.loss == other.loss


def test_single_rows_columns_and_nothing():
    """Strides that address nothing do not matter."""
    assert negcos.evaluate(QUERIES[:1, :][::-1], DOCUMENTS).grad_queries.shape == (1, D)
    assert negcos.evaluate(QUERIES[:, :1], DOCUMENTS[:, ::5]).grad_documents.shape == (M, 1)
    nothing = np.empty((0, D), np.float32)
    empty = negcos.evaluate(
        nothing, nothing, hard_negatives=nothing, weights=np.empty(0), outputs=negcos._evaluate.OUTPUTS
    )
    assert empty.loss == 0 and empty.logits.shape == (0, 5) and empty.negatives.shape == (0, 4)
    assert negcos.evaluate(np.empty((3, 0)), np.empty((3, 0))).grad_queries.shape == (3, 0)


def test_result():
    result = negcos.evaluate(QUERIES, DOCUMENTS, sampling="all", outputs=())
    assert result.grad_queries is None and result.losses is None
    assert 0 <= result.accuracy <= 1 and result.zero_rows == 0
    with pytest.raises(AttributeError):
        result.loss = 0
    kept = negcos.evaluate(QUERIES, DOCUMENTS, outputs="losses").losses
    assert kept.shape == (B,) and kept.mean() == pytest.approx(negcos.evaluate(QUERIES, DOCUMENTS).loss)


def test_the_formula():
    """loss and gradients against NumPy, with given negatives."""
    drawn = negcos.evaluate(QUERIES, DOCUMENTS, sampling="uniform", rounds=ROUNDS, outputs="negatives").negatives
    candidates = np.concatenate([np.arange(B)[:, None], drawn], axis=1)

    def loss(queries, documents):
        queries, documents = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, documents))
        z = 20 * np.einsum("id,ikd->ik", queries, documents[candidates])
        return np.mean(np.log(np.exp(z - z[:, :1]).sum(axis=1)))

    def difference(which, at):
        values = []
        for step in (1e-6, -1e-6):
            moved = [QUERIES.copy(), DOCUMENTS.copy()]
            moved[which][at] += step
            values.append(loss(*moved))
        return (values[0] - values[1]) / 2e-6

    result = negcos.evaluate(QUERIES, DOCUMENTS, sampling="given", rounds=ROUNDS, negatives=drawn)
    assert result.loss == pytest.approx(loss(QUERIES, DOCUMENTS), rel=1e-12)
    for which, gradient in enumerate((result.grad_queries, result.grad_documents)):
        for at in np.ndindex(gradient.shape):
            assert gradient[at] == pytest.approx(difference(which, at), rel=1e-5, abs=1e-7)


def test_sample():
    for sampling in ("shuffle", "derangement", "cyclic", "uniform", "log-uniform", "groups"):
        drawn = negcos.sample(B, ROUNDS, documents=M, sampling=sampling, seed=3, step=2**63)
        assert drawn.dtype == np.int32 and drawn.shape == (B, ROUNDS)
        asked = negcos.evaluate(
            QUERIES, DOCUMENTS, rounds=ROUNDS, sampling=sampling, seed=3, step=2**63, outputs="negatives"
        )
        np.testing.assert_array_equal(drawn, asked.negatives)
    assert negcos.sample(0).shape == (0, 4) and negcos.sample(3, 0).shape == (3, 0)
    for wrong, sentence in (
        ({"batch": -1}, "batch"),
        ({"batch": 4, "documents": 3}, "documents"),
        ({"batch": 4, "rounds": -2}, "rounds"),
        ({"batch": 4, "sampling": "all"}, "sampling"),
        ({"batch": 4, "seed": -1}, "seed"),
        ({"batch": 1, "sampling": "cyclic"}, "CYCLIC"),
        ({"batch": 4, "sampling": "groups"}, "GROUPS needs more queries than options.rounds"),
    ):
        with pytest.raises(ValueError, match=sentence):
            negcos.sample(**wrong)
    with pytest.raises(TypeError, match="batch is a float"):
        negcos.sample(4.0)


def test_errors():
    assert issubclass(negcos.FileError, OSError) and issubclass(negcos.ResourceError, MemoryError)
    with pytest.raises(negcos.Error) as raised:
        negcos.evaluate(QUERIES, DOCUMENTS, rounds=-1)
    again = pickle.loads(pickle.dumps(raised.value))
    assert (type(again), str(again), again.status) == (negcos.ArgumentError, str(raised.value), 13)
    file_error = pickle.loads(pickle.dumps(negcos.FileError("no such file", 40)))
    assert (str(file_error), file_error.name) == ("no such file", "io")
    assert str(negcos.Error("x", 12345).name) == "unknown-status"
    with pytest.raises(MemoryError, match="workspace_limit"):
        negcos.evaluate(QUERIES, DOCUMENTS, context=negcos.Context(workspace_limit=1))


def test_information():
    assert len(negcos.version()) == 3 and negcos.__version__ == ".".join(map(str, negcos.version()))
    assert negcos.isas()[-1] == "scalar"


@pytest.mark.parametrize(
    "library, sentence",
    [
        ("/nowhere/libnegcos.so", "cannot be loaded"),
        ("libc.so.6", "is no negcos library"),
    ],
)
def test_import_without_the_library(library, sentence, monkeypatch):
    monkeypatch.setenv("NEGCOS_LIBRARY", library)
    code = "try:\n    import negcos\nexcept ImportError as failure:\n    print(failure)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert sentence in said.stdout and said.stderr == ""
