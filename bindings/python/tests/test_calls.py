# SPDX-License-Identifier: Apache-2.0
"""What a call keeps for the next one never stands in for what has changed since."""

import threading

import numpy as np
import pytest

import negcos
from negcos._library import ENUMERATORS, initialised
from negcos._options import OPTIONS, make_options

RANDOM = np.random.default_rng(9)


def arrays(rows=6, columns=4, dtype=np.float32):
    return [RANDOM.standard_normal((rows, columns)).astype(dtype) for _ in range(2)]


def expected(queries, documents, **options):
    """By copies of their own, in a context of its own."""
    with negcos.Context(threads=1) as context:
        return negcos.evaluate(queries.copy(), documents.copy(), context=context, **options)


def assert_same(one, other):
    assert one.loss == other.loss
    np.testing.assert_array_equal(one.grad_queries, other.grad_queries)
    np.testing.assert_array_equal(one.grad_documents, other.grad_documents)


def test_defaults_are_the_library_s():
    """So that an option given as its default may be left alone."""
    made = initialised("negcos_options")
    for name, option in OPTIONS.items():
        options = make_options({name: np.array(option.default)[()] if option.type in (int, float) else option.default})
        assert bytes(options) == bytes(made), name
        if option.type is str:
            assert getattr(made, name) == ENUMERATORS[name.upper()][option.default], name


def test_defaults_are_not_shared():
    one = initialised("negcos_options")
    one.rounds = 77
    assert initialised("negcos_options").rounds == 4


def test_changed_shapes_dtypes_and_strides():
    with negcos.Context(threads=1) as context:
        for _ in range(2):
            for rows, columns in ((6, 4), (4, 6), (1, 4), (6, 5)):
                for dtype in (np.float32, np.float64, np.float16):
                    for base in (1, 2):
                        wide = [np.repeat(array, base, axis=1) for array in arrays(rows, columns, dtype)]
                        given = [array[:, :columns] for array in wide]
                        found = negcos.evaluate(*given, context=context)
                        assert found.grad_queries.dtype == dtype and found.grad_queries.shape == (rows, columns)
                        assert_same(found, expected(*given))


def test_one_array_changed_in_place():
    """Shape, strides, dtype and flags of the same object, read anew each time."""
    queries, documents = arrays(6, 8)
    assert_same(negcos.evaluate(queries, documents), expected(queries, documents))
    queries.shape = documents.shape = (8, 6)
    assert_same(negcos.evaluate(queries, documents), expected(queries, documents))
    queries.dtype = np.int32
    with pytest.raises(TypeError, match="queries is of int32"):
        negcos.evaluate(queries, documents)
    queries.dtype = np.dtype(np.float32).newbyteorder()
    with pytest.raises(TypeError, match="queries is of >f4|queries is of <f4"):
        negcos.evaluate(queries, documents)
    queries.dtype = np.float32
    out = {"grad_queries": np.zeros_like(queries)}
    negcos.evaluate(queries, documents, out=out)
    out["grad_queries"].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        negcos.evaluate(queries, documents, out=out)


def test_another_array_at_its_address():
    memory = np.zeros(6 * 4 * 8, np.uint8)
    documents = {np.float32: arrays()[0], np.float64: arrays(dtype=np.float64)[0]}
    for dtype in (np.float32, np.float64, np.float32):
        queries = memory.view(dtype)[:24].reshape(6, 4)
        queries[...] = RANDOM.standard_normal((6, 4))
        assert_same(negcos.evaluate(queries, documents[dtype]), expected(queries, documents[dtype]))
        del queries
    with pytest.raises(TypeError, match="queries is of uint8"):
        negcos.evaluate(memory[:24].reshape(6, 4), documents[np.float32])


def test_options_changed_in_place():
    queries, documents = arrays()
    dims, weights = [2, 4], np.array([1.0, 0.5])
    options = {"prefix_dims": dims, "prefix_weights": weights, "rounds": 2}
    first = negcos.evaluate(queries, documents, **options).loss
    weights[1] = 2
    second = negcos.evaluate(queries, documents, **options).loss
    dims[0], options["rounds"] = 3, 3
    third = negcos.evaluate(queries, documents, **options).loss
    assert len({first, second, third}) == 3
    assert third == expected(queries, documents, prefix_dims=(3, 4), prefix_weights=(1, 2), rounds=3).loss
    weights[1] = np.nan
    with pytest.raises(ValueError, match="prefix_weights"):
        negcos.evaluate(queries, documents, **options)


@pytest.mark.parametrize("name, right, wrong", [("rounds", 4, 4.0), ("scale", 20.0, "20"), ("seed", 0, "0")])
def test_equals_are_not_the_same(name, right, wrong):
    queries, documents = arrays()
    negcos.evaluate(queries, documents, **{name: right})
    with pytest.raises(TypeError, match=f"^{name} is "):
        negcos.evaluate(queries, documents, **{name: wrong})


def test_threads_with_shapes_of_their_own():
    """In one context, in turns, and each in its own."""
    failures = []

    def work(rows, context):
        try:
            for step in range(50):
                given = arrays(rows, rows + 2) if step % 10 == 0 else given
                found = negcos.evaluate(*given, context=context, step=step)
                if step % 10 == 0:
                    assert_same(found, expected(*given, step=step))
                assert found.grad_queries.shape == (rows, rows + 2)
        except BaseException as failure:
            failures.append(failure)

    with negcos.Context(threads=1) as shared:
        threads = [threading.Thread(target=work, args=(rows, context)) for rows in (3, 8) for context in (shared, None)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def said(view):
    """Strides that address nothing do not matter."""
    strides = [stride for size, stride in zip(view.shape, view.strides) if size > 1 and 0 not in view.shape]
    return view._replace(strides=strides, owner=None)


def test_tensors_with_and_without_dlpack():
    torch = pytest.importorskip("torch")
    import negcos.torch  # which reads tensors itself

    read, by_dlpack = negcos._arrays.READERS[torch.Tensor], negcos._arrays.view_dlpack
    base = torch.arange(48.0).reshape(6, 8)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        for view in (base, base[:, 1:5], base[::2], base.T, base[3], base[:0], base[None]):
            tensor = view.to(dtype) if dtype != torch.float32 else view
            assert said(read("x", tensor)) == said(by_dlpack("x", tensor))
    for wrong in (base.clone().requires_grad_(), torch.empty(6, 8, device="meta"), base.to_sparse(), base.long()):
        try:
            other = said(by_dlpack("x", wrong))
        except negcos.Error as failure:
            with pytest.raises(type(failure)) as raised:
                read("x", wrong)
            assert str(raised.value) == str(failure)
        else:
            assert said(read("x", wrong)) == other


def test_tensors_and_options_changed_between_calls():
    """Of the PyTorch module, whose second call of a kind goes by what the first one left."""
    torch = pytest.importorskip("torch")
    import negcos.torch

    module = negcos.torch.NegativeCosineLoss(rounds=2)

    def assert_right(matrices, learnt, step=0, **options):
        given = {name: matrix.detach().requires_grad_(name in learnt) for name, matrix in matrices.items()}
        loss = module(**given, step=step)
        alone = negcos.evaluate(
            **{name: matrix.numpy().copy() for name, matrix in matrices.items()},
            outputs=[f"grad_{name}" for name in learnt],
            step=step,
            **options,
        )
        for name in ("loss", "accuracy", "mean_reciprocal_rank", "zero_rows"):
            assert getattr(module.result, name) == getattr(alone, name)
        assert loss.requires_grad == bool(learnt)
        if learnt:
            loss.backward()
        for name, tensor in given.items():
            assert (tensor.grad is not None) == (name in learnt)
            if name in learnt:
                np.testing.assert_array_equal(tensor.grad.numpy(), getattr(alone, f"grad_{name}"))

    for step in range(3):
        for dtype in (torch.float32, torch.float64, torch.float16):
            for rows, columns in ((6, 4), (4, 6), (1, 4), (6, 1)):
                wide = [torch.from_numpy(array).to(dtype) for array in arrays(rows, columns + 2)]
                for cut in (lambda x: x[:, :columns].clone(), lambda x: x[:, :columns], lambda x: x.T.clone().T):
                    q, d = map(cut, wide)
                    for learnt in (("queries", "documents"), ("documents",), ()):
                        assert_right({"queries": q, "documents": d}, learnt, step, rounds=2)
                    three = {"queries": q, "documents": d, "hard_negatives": d.flip(0)}
                    assert_right(three, ("queries", "hard_negatives"), step, rounds=2)
    q, d = (torch.from_numpy(array) for array in arrays())
    changes = {"rounds": (3, 2), "scale": (5.0, 5, 20.0), "seed": (1, 0), "sampling": ("all", "cyclic")}
    for name, values in changes.items():
        for value in values:
            setattr(module, name, value)
            for _ in range(2):
                options = {name: getattr(module, name) for name in changes}
                assert_right({"queries": q, "documents": d}, ("queries",), **options)
    q.requires_grad_()
    for grad in (False, True, False):
        with torch.set_grad_enabled(grad):
            assert module(q, d).requires_grad == grad
    for name, wrong in {"rounds": 2.0, "seed": 0.0, "sampling": "none"}.items():
        right = getattr(module, name)
        setattr(module, name, wrong)
        with pytest.raises((TypeError, ValueError), match=f"^{name} is "):
            module(q, d)
        setattr(module, name, right)
    for wrong, message in ((d[:, :3], "documents has 3 columns"), (d.double(), "documents is of float64")):
        for _ in range(2):
            with pytest.raises((TypeError, ValueError), match=message):
                module(q, wrong)
