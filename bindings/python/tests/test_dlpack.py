# SPDX-License-Identifier: Apache-2.0
"""Zero copies, in and out: NumPy, a DLPack producer of our own, and the frameworks' that are installed."""

import functools
import gc
import resource
import subprocess
import sys

import numpy as np
import pytest
from producer import Producer, from_bfloat16, to_bfloat16

import negcos

RANDOM = np.random.default_rng(2)
QUERIES = RANDOM.integers(-20, 20, (7, 12)).astype(np.float32) / 16
DOCUMENTS = RANDOM.integers(-20, 20, (7, 12)).astype(np.float32) / 16


@pytest.mark.parametrize("versioned", [True, False])
def test_capsules(versioned):
    """Read in place, with strides, let go once each, written in place."""
    wide = np.zeros((7, 20), np.float32)
    wide[:, :12] = QUERIES
    queries, documents = Producer(wide[:, :12], versioned=versioned), Producer(DOCUMENTS, versioned=versioned)
    gradient = np.full((7, 15), 5, np.float32)
    out = Producer(gradient[:, :12], versioned=versioned)
    result = negcos.evaluate(queries, documents, outputs=(), out={"grad_queries": out})
    expected = negcos.evaluate(QUERIES, DOCUMENTS)
    assert result.loss == expected.loss and result.grad_queries is out
    np.testing.assert_array_equal(gradient[:, :12], expected.grad_queries)
    assert np.all(gradient[:, 12:] == 5)
    gc.collect()
    for producer in (queries, documents, out):
        assert producer.exported == producer.deleted == 1


def test_capsules_are_let_go_on_failure():
    queries, documents = Producer(QUERIES), Producer(DOCUMENTS[:, :5])
    for _ in range(3):
        with pytest.raises(ValueError, match="columns"):
            negcos.evaluate(queries, documents)
    gc.collect()
    assert queries.exported == queries.deleted == documents.deleted == 3


def test_compact_capsule_without_strides():
    result = negcos.evaluate(Producer(QUERIES, compact=True), Producer(DOCUMENTS, compact=True))
    assert result.loss == negcos.evaluate(QUERIES, DOCUMENTS).loss


def test_read_only_input():
    frozen = QUERIES.copy()
    frozen.flags.writeable = False
    expected = negcos.evaluate(QUERIES, DOCUMENTS).loss
    assert negcos.evaluate(frozen, DOCUMENTS).loss == expected
    assert negcos.evaluate(Producer(frozen, flags=1), DOCUMENTS).loss == expected


def test_index_arrays_by_dlpack():
    positives = np.arange(7)[::-1].copy()
    expected = negcos.evaluate(QUERIES, DOCUMENTS, positives=positives).loss
    assert negcos.evaluate(QUERIES, DOCUMENTS, positives=Producer(positives)).loss == expected
    strided = np.stack([positives, positives], axis=1)[:, 0]
    assert negcos.evaluate(QUERIES, DOCUMENTS, positives=Producer(strided)).loss == expected


def test_no_capsule():
    class Liar:
        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self, **_):
            return 5

    with pytest.raises(TypeError, match="documents: its __dlpack__.. returned no DLPack capsule"):
        negcos.evaluate(QUERIES, Liar())

    class Unwilling(Liar):
        def __dlpack__(self, **_):
            raise BufferError("not today")

    with pytest.raises(TypeError, match="documents cannot be passed as it is: not today"):
        negcos.evaluate(QUERIES, Unwilling())


def test_bfloat16():
    expected = negcos.evaluate(QUERIES, DOCUMENTS)
    bits = [to_bfloat16(array) for array in (QUERIES, DOCUMENTS)]
    gradient = np.zeros((7, 12), np.uint16)
    producers = [Producer(array, "bfloat16") for array in bits]
    result = negcos.evaluate(*producers, outputs=(), out={"grad_queries": Producer(gradient, "bfloat16")})
    assert result.loss == expected.loss
    np.testing.assert_allclose(from_bfloat16(gradient), expected.grad_queries, rtol=2**-8)
    try:
        import ml_dtypes
    except ImportError:
        with pytest.raises(TypeError, match="need the package ml_dtypes"):
            negcos.evaluate(*producers)
    else:
        typed = negcos.evaluate(*(array.view(ml_dtypes.bfloat16) for array in bits))
        assert typed.grad_queries.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(typed.grad_queries.view(np.uint16), gradient)


def test_the_library_gets_the_arrays_themselves(monkeypatch):
    """Addresses and strides in the structs are those of the arrays, half precision and views included."""
    seen = {}
    real = negcos._evaluate.library.negcos_evaluate

    def spy(context, options, batch, result):
        seen["batch"], seen["result"] = batch._obj, result._obj
        return real(context, options, batch, result)

    monkeypatch.setattr(negcos._evaluate.library, "negcos_evaluate", spy)
    for dtype in (np.float16, np.float32, np.float64):
        wide = np.ones((9, 30), dtype)
        queries, documents, hard = wide[1:4, 2:10], wide[4:8, 2:10], wide[1:7, 11:19]
        arrays = {
            "positives": np.arange(3),
            "negatives": np.zeros((3, 2), np.int32),
            "document_ids": np.arange(4),
            "query_ids": np.arange(3),
            "log_probability": np.zeros(4),
            "weights": np.ones(3),
        }
        out = {"grad_queries": np.zeros((3, 11), dtype)[:, 1:9], "losses": np.zeros((3, 2), dtype)[:, 1]}
        negcos.evaluate(
            queries,
            documents,
            hard_negatives=hard,
            sampling="given",
            rounds=2,
            exclude=("same-document-id", "same-query-id"),
            out=out,
            **arrays,
        )
        batch, result = seen["batch"], seen["result"]
        for struct, array in (
            (batch.queries, queries),
            (batch.documents, documents),
            (batch.hard_negatives, hard),
            (result.grad_queries, out["grad_queries"]),
            (result.losses, out["losses"]),
        ):
            assert (struct.data, struct.row_stride) == (array.ctypes.data, array.strides[0] // array.itemsize)
        for name, array in arrays.items():
            assert getattr(batch, name) == array.ctypes.data, name


def test_memory_of_a_call():
    """A call with 256 MB of embeddings and gradients by the caller takes less than one of its arrays."""
    code = """if True:
        import resource, numpy as np, negcos
        arrays = [np.ones((65536, 256), np.float32) for _ in range(4)]
        queries, documents, grad_queries, grad_documents = arrays
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        out = {"grad_queries": grad_queries, "grad_documents": grad_documents}
        negcos.evaluate(queries, documents, rounds=2, outputs=(), out=out)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kilobytes = int(said.stdout) / (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 32 * 1024


def test_nothing_piles_up():
    queries = np.ones((64, 64), np.float32)

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for _ in range(200):
        negcos.evaluate(Producer(queries), queries, positives=list(range(64)))
    before = peak()
    for _ in range(2000):
        negcos.evaluate(queries, queries, weights=np.ones(64))
        negcos.Context(threads=1).close()
    assert peak() - before < 8 * 1024


def test_torch():
    torch = pytest.importorskip("torch")
    expected = negcos.evaluate(QUERIES[:, :10], DOCUMENTS[:, :10], positives=np.arange(7)).loss
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        queries, documents = (torch.from_numpy(array).to(dtype) for array in (QUERIES, DOCUMENTS))
        gradient = torch.full((7, 20), 5, dtype=dtype)
        result = negcos.evaluate(
            queries[:, :10],
            documents[:, :10],
            positives=torch.arange(7),
            outputs=(),
            out={"grad_queries": gradient[:, :10]},
        )
        assert result.loss == pytest.approx(expected, rel=1e-6 if dtype == torch.float64 else 0, abs=0)
        assert gradient[:, :10].abs().max() > 0 and bool((gradient[:, 10:] == 5).all())
    weights = np.arange(7) % 2
    expected = negcos.evaluate(QUERIES, DOCUMENTS, weights=weights).loss
    for dtype in (torch.bool, torch.bfloat16, torch.float16, torch.uint8):
        assert negcos.evaluate(QUERIES, DOCUMENTS, weights=torch.tensor(weights).to(dtype)).loss == expected
    with pytest.raises(TypeError, match="positives is of bool"):
        negcos.evaluate(QUERIES, DOCUMENTS, positives=torch.ones(7, dtype=torch.bool))
    with pytest.raises(TypeError, match="queries cannot be passed as it is: .*detach"):
        negcos.evaluate(queries.requires_grad_(), documents)
    with pytest.raises(TypeError, match="queries"):
        negcos.evaluate(torch.empty(7, 12, device="meta"), documents)


def test_torch_vectors():
    """negcos.torch takes the vectors that negcos.evaluate takes, and refuses masks, which torch.as_tensor drops."""
    torch = pytest.importorskip("torch")
    from negcos.torch import NegativeCosineLoss, negative_cosine_loss

    queries, documents = torch.from_numpy(QUERIES), torch.from_numpy(DOCUMENTS)
    weights = np.arange(7) % 2
    expected = np.float32(negcos.evaluate(QUERIES, DOCUMENTS, rounds=3, weights=weights).loss)
    losses = (NegativeCosineLoss(rounds=3), functools.partial(negative_cosine_loss, rounds=3))
    hidden = np.ma.array(weights, mask=weights == 0)
    for loss in losses:
        for dtype in (torch.bool, torch.bfloat16):
            assert loss(queries, documents, weights=torch.tensor(weights).to(dtype)).item() == expected
        assert loss(queries, documents, weights=weights.astype(bool)).item() == expected
        for name in ("weights", "positives"):
            with pytest.raises(negcos.Error, match=f"^{name} has masked elements, expected none"):
                loss(queries, documents, **{name: hidden})


def test_jax():
    jax = pytest.importorskip("jax")
    for dtype in (jax.numpy.float32, jax.numpy.float16, jax.numpy.bfloat16):
        queries, documents = jax.numpy.asarray(QUERIES, dtype), jax.numpy.asarray(DOCUMENTS, dtype)
        assert negcos.evaluate(queries, documents, outputs=()).loss == negcos.evaluate(QUERIES, DOCUMENTS).loss
    with pytest.raises(ValueError, match="read-only"):
        negcos.evaluate(queries, documents, out={"grad_queries": queries})
