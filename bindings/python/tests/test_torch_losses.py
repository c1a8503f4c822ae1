# SPDX-License-Identifier: Apache-2.0
"""negcos.torch against PyTorch's own computation and negcos.evaluate: losses, gradients, memory and mistakes."""

import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch_cases import DTYPES, assert_near, drawn, gradients, reference, tensors  # noqa: E402

import negcos  # noqa: E402
from negcos._library import library  # noqa: E402
from negcos._options import OPTIONS  # noqa: E402
from negcos.torch import NegativeCosineLoss, negative_cosine_loss  # noqa: E402

# Against PyTorch's own computation


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sampling", ["shuffle", "cyclic", "uniform", "groups"])
def test_cross_entropy_of_the_same_negatives(dtype, sampling):
    inputs = tensors((40, 24), (40, 24), (80, 24), dtype=dtype)
    scale = torch.tensor(15.0, dtype=torch.float64 if dtype == torch.float64 else torch.float32, requires_grad=True)
    queries, documents, hard = inputs
    key = {"sampling": sampling, "seed": 3, "step": 8}
    loss = negative_cosine_loss(queries, documents, hard_negatives=hard, rounds=6, scale=scale, **key)
    assert loss.shape == () and loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    found = gradients(loss, [*inputs, scale])
    exact = [tensor.detach().double().requires_grad_() for tensor in (*inputs, scale)]
    expected = reference(*exact[:2], drawn(40, 6, **key), exact[2], exact[3])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12 if dtype == torch.float64 else 1e-5)
    assert_near(found, gradients(expected, exact), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cross_entropy_of_the_whole_batch(dtype):
    """sampling="all" with more documents than queries, weights and both smoothing and log-probability."""
    queries, documents = inputs = tensors((30, 24), (50, 24), dtype=dtype)
    weights = torch.linspace(0.5, 2, 30, dtype=torch.float64)
    log_probability = torch.linspace(-9, -1, 50, dtype=torch.float64)
    arguments = {"sampling": "all", "weights": weights, "log_probability": log_probability}
    loss = negative_cosine_loss(queries, documents, **arguments, label_smoothing=0.1)
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    logits = 20 * F.normalize(exact[0], dim=1) @ F.normalize(exact[1], dim=1).T - log_probability
    each = F.cross_entropy(logits, torch.arange(30), reduction="none", label_smoothing=0.1)
    expected = (weights * each).sum() / weights.sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12 if dtype == torch.float64 else 1e-5)
    assert_near(gradients(loss, inputs), gradients(expected, exact), dtype)


def test_sigmoid_with_learnt_scale_and_bias():
    """SigLIP's loss, parametrised by the logarithm of the scale."""
    queries, documents = tensors((20, 12), (20, 12), dtype=torch.float64)
    log_scale, bias = (torch.tensor(value, requires_grad=True) for value in (2.3, -10.0))
    inputs = [queries, documents, log_scale, bias]
    loss = NegativeCosineLoss(sampling="all", objective="sigmoid")(
        queries, documents, scale=log_scale.exp(), bias=bias.reshape(1, 1)
    )
    logits = log_scale.exp() * F.normalize(queries, dim=1) @ F.normalize(documents, dim=1).T + bias
    expected = F.softplus(-(2 * torch.eye(20) - 1) * logits).sum() / 20
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)  # exp() of a float32
    assert_near(gradients(loss, inputs), gradients(expected, inputs), torch.float32)


@pytest.mark.parametrize("objective", ["softmax", "batch-softmax", "sigmoid", "decoupled"])
def test_gradcheck(objective):
    queries, documents, hard = tensors((7, 5), (9, 5), (14, 5), dtype=torch.float64)
    scale, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (3.0, -1.5))
    options = {"objective": objective, "sampling": "uniform", "seed": 5, "reduction": "sum"}
    inputs = [queries, documents, scale]
    if objective != "batch-softmax":
        inputs.append(hard)
    if objective == "sigmoid":
        inputs.append(bias)

    def loss(queries, documents, scale, hard_negatives=None, bias=0.0):
        return negative_cosine_loss(
            queries, documents, scale=scale, hard_negatives=hard_negatives, bias=bias, **options
        )

    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_training_as_with_cross_entropy(dtype):
    """Two towers, the same seeds and negatives: the same curve and the same recall as with PyTorch's own loss.

    The two losses differ by roundings, which every step of Adam passes on. Training draws towards one minimum rather
    than apart: measured over these steps, losses agree to 5 (float32: 6) units in the last place, allowed are 100 times
    as many. In float32 such a difference may exchange a few documents of equal rank: allowed are 2 of 500 queries.
    """

    def train(loss_function):
        torch.manual_seed(1)
        topics = torch.randn(1500, 12, dtype=dtype)
        sides = [topics @ torch.randn(12, 40, dtype=dtype) + 2 * torch.randn(1500, 40, dtype=dtype) for _ in range(2)]
        towers = [torch.nn.Linear(40, 16).to(dtype) for _ in range(2)]
        optimizer = torch.optim.Adam([parameter for tower in towers for parameter in tower.parameters()], lr=3e-3)

        def recall(k=10):
            with torch.no_grad():
                embedded = [F.normalize(tower(side[1000:]), dim=1) for tower, side in zip(towers, sides)]
            similarity = embedded[0] @ embedded[1].T
            return float(((similarity > similarity.diagonal()[:, None]).sum(dim=1) < k).double().mean())

        before, curve = recall(), []
        for step in range(150):
            rows = torch.randint(1000, (128,))
            loss = loss_function(*(tower(side[rows]) for tower, side in zip(towers, sides)), step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        return before, recall(), np.array(curve)

    module = NegativeCosineLoss(rounds=8, seed=4)
    before, after, curve = train(lambda queries, documents, step: module(queries, documents))
    _, torch_after, torch_curve = train(
        lambda queries, documents, step: reference(queries, documents, drawn(128, 8, seed=4, step=step))
    )
    assert before < 0.06 and after > 0.3 and curve[-10:].mean() < 0.7 * curve[:10].mean()
    np.testing.assert_allclose(curve, torch_curve, rtol=500 * torch.finfo(dtype).eps)
    assert abs(after - torch_after) <= (0 if dtype == torch.float64 else 0.0041)


# Against negcos.evaluate

B, M, D = 12, 15, 10
NEGATIVES = np.random.default_rng(5).integers(-1, M, (B, 3)).astype(np.int32)
# For each option of the library a call in which it matters, and how it is spelt to negcos.evaluate.
CALLS = {
    "objective": {"objective": "decoupled"},
    "similarity": {"similarity": "dot"},
    "sampling": {"sampling": "all"},
    "rounds": {"rounds": 7},
    "reduction": {"reduction": "sum"},
    "direction": {"direction": "both", "sampling": "all", "square": True},
    "exclude": {"exclude": "same-document-id", "sampling": "all", "document_ids": np.arange(M) % 4},
    "exclude_both": {
        "exclude": ["same-document-id", "same-query-id"],
        "sampling": "all",
        "document_ids": torch.arange(M) // 2,
        "query_ids": list(range(B // 2)) * 2,
    },
    "seed": {"seed": 2**64 - 1},
    "step": {"step": 9},
    "scale": {"scale": 3.5},
    "temperature": {"temperature": 0.7},
    "bias": {"bias": -2.0, "objective": "sigmoid"},
    "norm_floor": {"norm_floor": 5.0},
    "margin": {"margin": 0.2},
    "label_smoothing": {"label_smoothing": 0.15},
    "hardness": {"hardness": 4.0},
    "false_negative_margin": {"false_negative_margin": -0.1},
    "correction": {
        "correction": "negatives-only",
        "log_probability": torch.linspace(-5, -1, M, dtype=torch.float64),
        "sampling": "uniform",
    },
    "prefix_dims": {"prefix_dims": (4, 10)},
    "prefix_weights": {"prefix_dims": (4, 10), "prefix_weights": (0.5, 2.0)},
    "positives": {"positives": torch.arange(B).flip(0), "sampling": "uniform"},
    "positives_int32": {"positives": torch.arange(B, dtype=torch.int32)[::2].repeat(2)},
    "negatives": {"negatives": torch.from_numpy(NEGATIVES), "sampling": "given", "rounds": 3},
    "weights": {"weights": torch.linspace(0, 3, B, dtype=torch.float64)},
    "log_probability": {"log_probability": np.linspace(-5, -1, M), "sampling": "all"},
    "hard_negatives": {"hard": 2},
}


def test_calls_cover_every_option():
    assert set(OPTIONS) <= set(CALLS)
    evaluate, module = (set(inspect.signature(f).parameters) for f in (negcos.evaluate, NegativeCosineLoss))
    functional, forward = (
        set(inspect.signature(f).parameters) for f in (negative_cosine_loss, NegativeCosineLoss.forward)
    )
    assert functional == evaluate - {"outputs", "out"}
    assert (module | forward) - {"self"} == evaluate - {"out"}
    made = NegativeCosineLoss()
    for name, (_, default, meaning) in OPTIONS.items():
        assert getattr(made, name) == default
        for function in (NegativeCosineLoss, negative_cosine_loss):
            if name in inspect.signature(function).parameters:
                assert inspect.signature(function).parameters[name].default == default
                assert f"\n    {name}: {meaning}" in function.__doc__


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_bits_as_evaluate(name, dtype):
    call = dict(CALLS[name])
    queries, documents = tensors((B, D), (B if call.pop("square", False) else M, D), dtype=dtype, seed=1)
    inputs = {"queries": queries, "documents": documents}
    if "hard" in call:
        (inputs["hard_negatives"],) = tensors((B * call.pop("hard"), D), dtype=dtype, seed=2)

    out = {f"grad_{key}": torch.empty_like(value, requires_grad=False) for key, value in inputs.items()}
    given = {key: value.detach() for key, value in inputs.items()}
    expected = negcos.evaluate(given.pop("queries"), given.pop("documents"), **given, **call, outputs=(), out=out)
    if name in OPTIONS and name not in ("scale", "bias"):  # the call is one in which the option matters
        without = {key: value for key, value in call.items() if key != name and not key.endswith("_ids")}
        without = {key: value for key, value in without.items() if name != "prefix_dims" or key != "prefix_weights"}
        plain = negcos.evaluate(queries.detach(), documents.detach(), **without, outputs=())
        assert plain.loss != expected.loss

    def check(loss):
        assert loss.item() == torch.tensor(expected.loss, dtype=loss.dtype).item()
        for gradient, (key, value) in zip(torch.autograd.grad(loss, list(inputs.values())), inputs.items()):
            assert gradient.dtype == dtype and gradient.shape == value.shape
            assert bool((gradient == out[f"grad_{key}"]).all()), key

    check(negative_cosine_loss(**inputs, **call))
    options = {key: value for key, value in call.items() if key in OPTIONS}
    step = options.pop("step", 0)
    module = NegativeCosineLoss(**options)
    module.step.fill_(step)
    check(module(**inputs, **{key: value for key, value in call.items() if key not in OPTIONS}))
    assert module.result.loss == expected.loss
    for number in ("grad_scale", "grad_bias", "accuracy", "mean_reciprocal_rank", "excluded", "zero_rows"):
        found = getattr(module.result, number)
        assert found == getattr(expected, number) or (found != found and number in ("accuracy", "mean_reciprocal_rank"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_outputs(dtype):
    names = ("losses", "hit_probability", "logits", "negatives")
    queries, documents, hard = tensors((B, D), (B, D), (2 * B, D), dtype=dtype)
    module = NegativeCosineLoss(rounds=3, outputs=names)
    assert module.result is None
    module(queries, documents, hard_negatives=hard)
    result = module.result
    assert [tuple(getattr(result, name).shape) for name in names] == [(B,), (B,), (B, 6), (B, 3)]
    assert bool((result.negatives == torch.from_numpy(negcos.sample(B, 3))).all())
    exact = [tensor.detach().double() for tensor in (queries, documents, hard)]
    expected = reference(exact[0], exact[1], drawn(B, 3), exact[2], reduction="none")
    assert_near([result.losses.double()], [expected], dtype)
    assert not result.losses.requires_grad and result.losses.dtype == result.logits.dtype == dtype
    assert result.grad_queries is result.grad_documents is result.grad_hard_negatives is None
    assert 0 < result.accuracy < 1 and result.accuracy <= result.mean_reciprocal_rank
    with pytest.raises(ValueError, match="'grad_queries' is no output"):
        NegativeCosineLoss(outputs="grad_queries")(queries, documents)


# Memory


def spied(monkeypatch):
    """The structs of each call from now on."""
    calls, real = [], library.negcos_evaluate

    def spy(context, options, batch, result):
        calls.append((batch._obj, result._obj))
        return real(context, options, batch, result)

    monkeypatch.setattr(library, "negcos_evaluate", spy)
    return calls


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_copies(monkeypatch, dtype):
    calls = spied(monkeypatch)
    (wide,) = tensors((60, 40), dtype=dtype)
    matrices = {"queries": wide[:8, 1:9], "documents": wide[8:24:2, 3:11], "hard_negatives": wide[24:40, :8]}
    arrays = {
        "positives": torch.arange(8),
        "document_ids": torch.arange(8),
        "query_ids": torch.arange(8),
        "log_probability": torch.zeros(8, dtype=torch.float64),
        "weights": torch.ones(8, dtype=torch.float64),
        "negatives": torch.zeros(8, 2, dtype=torch.int32),
    }
    exclude = ("same-document-id", "same-query-id")
    negative_cosine_loss(**matrices, **arrays, sampling="given", rounds=2, exclude=exclude)
    ((batch, _),) = calls
    for name, tensor in matrices.items():
        assert (getattr(batch, name).data, getattr(batch, name).row_stride) == (tensor.data_ptr(), tensor.stride(0))
    for name, tensor in arrays.items():
        assert getattr(batch, name) == tensor.data_ptr()


def test_rows_that_are_not_contiguous_are_copied():
    (base,) = tensors((10, 12))
    for queries in (base.T, base[:, ::2][:10].T.contiguous().T, base[:1].expand(12, 12)):
        (documents,) = tensors((len(queries), queries.shape[1]), seed=4)
        found = negative_cosine_loss(queries, documents)
        expected = negative_cosine_loss(queries.contiguous(), documents)
        assert found.item() == expected.item()
        for ours, theirs in zip(*(torch.autograd.grad(loss, (base, documents)) for loss in (found, expected))):
            assert bool((ours == theirs).all())


def test_gradients_only_where_required(monkeypatch):
    calls = spied(monkeypatch)
    queries, documents, hard = tensors((6, 4), (6, 4), (6, 4))
    names = ("grad_queries", "grad_documents", "grad_hard_negatives")

    def computed(*frozen, scale=20.0):
        inputs = [
            tensor.detach() if name in frozen else tensor for name, tensor in zip("qdh", (queries, documents, hard))
        ]
        loss = negative_cosine_loss(inputs[0], inputs[1], hard_negatives=inputs[2], scale=scale)
        return loss, [bool(getattr(calls[-1][1], name).data) for name in names]

    assert computed()[1] == [True, True, True]
    loss, wanted = computed("d")
    assert wanted == [True, False, True]
    loss.backward()
    assert queries.grad is not None and documents.grad is None
    loss, wanted = computed("q", "d", "h", scale=torch.tensor(20.0, requires_grad=True))
    assert wanted == [False, False, False] and loss.requires_grad
    loss, wanted = computed("q", "d", "h")
    assert wanted == [False, False, False] and not loss.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            loss, wanted = computed()
        assert wanted == [False, False, False] and not loss.requires_grad
    assert len(calls) == 6  # one a loss; backward() makes none


# Autograd


def test_backward_again_and_again():
    queries, documents = inputs = tensors((9, 5), (9, 5))
    expected = torch.autograd.grad(negative_cosine_loss(queries, documents), inputs)
    loss = negative_cosine_loss(queries, documents)
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    for gradient in first:
        gradient.zero_()  # its owner may
    for factor in (1.0, -2.5):
        again = torch.autograd.grad(loss * factor, inputs, retain_graph=True)
        for ours, theirs in zip(again, expected):
            assert bool((ours == factor * theirs).all())
    loss.backward(retain_graph=True)
    loss.backward(retain_graph=True)
    queries.grad.mul_(1)  # in place, as an optimizer or clipping would
    loss.backward()
    torch.testing.assert_close(queries.grad, 3 * expected[0])
    torch.testing.assert_close(documents.grad, 3 * expected[1])
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_accumulation_and_shared_inputs():
    """Two losses add up; one tensor as queries and documents gets both gradients."""
    (views,) = tensors((10, 6), dtype=torch.float64)
    module = NegativeCosineLoss(rounds=3)
    for _ in range(2):
        module(views, views).backward()
    expected = [reference(views, views, drawn(10, 3, step=step)) for step in range(2)]
    (gradient,) = torch.autograd.grad(sum(expected), views)
    torch.testing.assert_close(views.grad, gradient)


def test_no_second_derivative():
    queries, documents = tensors((6, 4), (6, 4), dtype=torch.float64)
    loss = negative_cosine_loss(queries, documents)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(loss, queries, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.gradgradcheck(lambda given: negative_cosine_loss(given, documents), queries)


def test_no_forward_mode():
    """An error, never a derivative of 0."""
    queries, documents = tensors((6, 4), (6, 4), requires_grad=False)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(queries, torch.ones_like(queries))
        with pytest.raises(negcos.UnsupportedError, match="jvp"):
            negative_cosine_loss(dual, documents)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_loss_scaling(dtype):
    """The factor 2^17 of a gradient scaler, which float16 cannot hold; the sum of losses beyond float16's range."""
    queries, documents = inputs = tensors((64, 16), (64, 16), dtype=dtype)
    expected = torch.autograd.grad(negative_cosine_loss(queries, documents), inputs)
    scaled = torch.autograd.grad(negative_cosine_loss(queries, documents) * 2**17, inputs)
    for ours, theirs in zip(scaled, expected):
        exact = theirs.float() * 2**17
        assert bool((ours == exact.to(dtype)).all())
    total = negative_cosine_loss(queries, documents, scale=4000.0, reduction="sum")
    assert 65504 < total.item() < float("inf")


def test_sum_keeps_small_float16_gradients():
    """What README says: the mean's gradients vanish in float16 for large batches, the sum's do not."""
    queries, documents = inputs = tensors((4096, 8), (4096, 8), dtype=torch.float16)
    exact = [tensor.detach().float().requires_grad_() for tensor in inputs]
    arguments = {"rounds": 1, "scale": 0.05}
    (true,) = torch.autograd.grad(negative_cosine_loss(*exact, **arguments), exact[0])
    (mean,) = torch.autograd.grad(negative_cosine_loss(queries, documents, **arguments) * 2**12, queries)
    (total,) = torch.autograd.grad(
        negative_cosine_loss(queries, documents, **arguments, reduction="sum") / 4096 * 2**12, queries
    )

    def error(found):
        return float((found.float() / 2**12 - true).norm() / true.norm())

    assert error(total) < 1e-3 < 1e-2 < error(mean)


# Bad arguments

Q, P = tensors((4, 3), (4, 3), requires_grad=False)
LEARNT = torch.ones(4, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    "arguments, kind, sentence",
    [
        ({"queries": Q.numpy()}, TypeError, "queries is a ndarray, expected a torch.Tensor"),
        ({"documents": None}, TypeError, "documents is a NoneType, expected a torch.Tensor"),
        ({"hard_negatives": [1.0]}, TypeError, "hard_negatives is a list, expected a torch.Tensor"),
        ({"queries": Q.to("meta")}, TypeError, "queries is on meta, expected the CPU"),
        ({"documents": P.to("meta")}, TypeError, "documents is on meta, expected the CPU"),
        ({"hard_negatives": P.to("meta")}, TypeError, "hard_negatives is on meta, expected the CPU"),
        ({"weights": LEARNT.to("meta")}, TypeError, "weights is on meta, expected the CPU"),
        ({"positives": torch.arange(4, device="meta")}, TypeError, "positives is on meta, expected the CPU"),
        ({"scale": torch.ones((), device="meta")}, TypeError, "scale is on meta, expected the CPU"),
        ({"queries": Q.to_sparse()}, TypeError, "queries is of torch.sparse_coo, expected torch.strided"),
        ({"queries": Q.long()}, TypeError, "queries is of int64, expected one of float32"),
        ({"queries": Q[0]}, ValueError, r"queries is \[3\], expected \[rows, columns\]"),
        ({"queries": Q[0, 0]}, ValueError, r"queries is \[\], expected \[rows, columns\]"),
        ({"documents": P.double()}, TypeError, "documents is of float64, expected the queries' float32"),
        ({"documents": P[:3]}, ValueError, "documents has 3 rows"),
        ({"documents": P[:, :2]}, ValueError, "documents has 2 columns"),
        ({"hard_negatives": P[:3]}, ValueError, "hard_negatives"),
        ({"positives": torch.arange(3)}, ValueError, r"positives is \[3\], expected \[4\]"),
        ({"positives": torch.ones(4)}, TypeError, "positives is of float32, expected int64"),
        ({"positives": torch.arange(4) + 1}, ValueError, "positives"),
        ({"negatives": torch.zeros(4, 4, dtype=torch.int32)}, ValueError, "negatives is given"),
        ({"document_ids": torch.arange(4)}, ValueError, "document_ids is given"),
        ({"weights": LEARNT}, NotImplementedError, "weights requires a gradient, which only queries"),
        ({"log_probability": LEARNT}, NotImplementedError, "log_probability requires a gradient"),
        ({"temperature": LEARNT[0]}, NotImplementedError, "temperature requires a gradient"),
        ({"margin": LEARNT[0]}, NotImplementedError, "margin requires a gradient"),
        ({"scale": torch.ones(2)}, ValueError, r"scale is \(2,\) of torch.float32, expected one real number"),
        ({"scale": torch.ones((), dtype=torch.int64)}, ValueError, "expected one real number"),
        ({"scale": torch.tensor(float("nan"))}, ValueError, "scale"),
        ({"scale": "20"}, TypeError, "scale is '20', expected a number"),
        ({"bias": torch.zeros(())}, NotImplementedError, "bias is a tensor, which takes objective='sigmoid'"),
        ({"reduction": "none"}, ValueError, "reduction is 'none', expected 'mean' or 'sum'"),
        ({"objective": "hinge"}, ValueError, "objective is 'hinge', expected one of softmax"),
        ({"rounds": -1}, ValueError, "rounds"),
        ({"rounds": 2.5}, TypeError, "rounds is a float, expected an integer"),
        ({"step": -1}, ValueError, "step is -1"),
        ({"step": 1.0}, TypeError, "step is a float, expected an integer"),
        ({"step": torch.ones(())}, ValueError, r"step is \(\) of torch.float32, expected one integer"),
        ({"step": torch.arange(2)}, ValueError, r"step is \(2,\) of torch.int64, expected one integer"),
        ({"step": torch.tensor(-1)}, ValueError, "step is -1"),
        ({"seed": 2**64}, ValueError, "seed is 18446744073709551616"),
        ({"label_smoothing": 1.0}, ValueError, "label_smoothing"),
        ({"context": 3}, TypeError, "context is a int"),
        ({"prefix_dims": (9,)}, ValueError, "prefix_dims"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_arguments(arguments, kind, sentence):
    with pytest.raises(kind, match=sentence) as raised:
        negative_cosine_loss(**{"queries": Q, "documents": P, **arguments})
    assert isinstance(raised.value, negcos.Error)


@pytest.mark.parametrize(
    "arguments, kind, sentence",
    [
        ({"objective": "hinge"}, ValueError, "objective is 'hinge'"),
        ({"reduction": "none"}, ValueError, "reduction is 'none'"),
        ({"scale": torch.ones(())}, TypeError, "scale is a tensor, expected a number or an nn.Parameter"),
        ({"bias": torch.nn.Parameter(torch.zeros(()))}, NotImplementedError, "bias is a tensor, which takes"),
        ({"exclude": "same-word"}, ValueError, "exclude is 'same-word'"),
        ({"temperature": LEARNT[0]}, NotImplementedError, "temperature requires a gradient"),
        ({"step": 3}, TypeError, "step"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_options_fail_in_the_constructor(arguments, kind, sentence):
    with pytest.raises(kind, match=sentence):
        NegativeCosineLoss(**arguments)


def test_edges():
    """No queries, no rounds, a row of zeros, a negated view, NaN in one query."""
    queries, documents = tensors((0, 5), (3, 5))
    loss = negative_cosine_loss(queries, documents, sampling="uniform")
    loss.backward()
    assert loss.item() == 0 and queries.grad.shape == (0, 5) and bool((documents.grad == 0).all())
    queries, documents = tensors((6, 5), (6, 5), requires_grad=False)
    assert negative_cosine_loss(queries, documents, rounds=0).item() == 0
    queries[2] = 0
    queries.requires_grad_()
    module = NegativeCosineLoss(rounds=2)
    module(queries, documents).backward()
    assert module.result.zero_rows == 1 and bool((queries.grad[2] == 0).all()) and bool(queries.grad[3].abs().max() > 0)
    column = documents[:, :1]
    negated = torch.complex(column, column).conj().imag  # torch negates when it reads
    assert negated.is_neg() and negated.stride() == (2, 2)
    found, expected = (
        negative_cosine_loss(queries[:, :1], given, similarity="dot").item() for given in (negated, -column)
    )
    assert found == expected
    with torch.no_grad():
        queries[1] = float("nan")
    loss = NegativeCosineLoss(rounds=2, reduction="sum")(queries, documents)
    (gradient,) = torch.autograd.grad(loss, queries)
    assert [bool(row.isnan().any()) for row in gradient] == [False, True, False, False, False, False]
