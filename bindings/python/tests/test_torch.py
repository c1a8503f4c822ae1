# SPDX-License-Identifier: Apache-2.0
"""negcos.torch against PyTorch's own computation and negcos.evaluate, and as part of PyTorch programs."""

import copy
import inspect
import pickle
import re
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

import negcos  # noqa: E402
import negcos.torch  # noqa: E402
from negcos._library import library  # noqa: E402
from negcos._options import OPTIONS  # noqa: E402
from negcos.torch import NegativeCosineLoss, negative_cosine_loss  # noqa: E402

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# Relative error of one rounding, and what the sums of these tests may lose.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


def tensors(*shapes, dtype=torch.float32, seed=0, requires_grad=True):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return [tensor.requires_grad_(requires_grad) for tensor in made]


def reference(queries, documents, candidates, hard=None, scale=20.0, reduction="mean"):
    """Cross entropy of explicitly gathered cosines; candidates [B, 1 + N]: rows of documents, the positive first."""
    queries, documents = F.normalize(queries, dim=1), F.normalize(documents, dim=1)
    cosines = (queries[:, None] * documents[candidates]).sum(dim=2)
    if hard is not None:
        own = F.normalize(hard, dim=1).reshape(len(queries), -1, queries.shape[1])
        cosines = torch.cat([cosines, (queries[:, None] * own).sum(dim=2)], dim=1)
    return F.cross_entropy(scale * cosines, torch.zeros(len(queries), dtype=torch.int64), reduction=reduction)


def drawn(batch, rounds, **key):
    """Candidates as the library draws them."""
    negatives = torch.from_numpy(negcos.sample(batch, rounds, **key)).long()
    return torch.cat([torch.arange(batch)[:, None], negatives], dim=1)


def gradients(loss, inputs):
    return [gradient.double() for gradient in torch.autograd.grad(loss, inputs)]


def assert_near(found, expected, dtype):
    """To TOLERANCE of the largest element: what is small beside it comes from sums that cancel."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        assert ours.shape == theirs.shape and float(theirs.abs().max()) > 0
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < TOLERANCE[dtype]


# Against PyTorch's own computation


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sampling", ["shuffle", "cyclic", "uniform"])
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


# The module


def test_step():
    queries, documents = tensors((16, 6), (16, 6))
    module = NegativeCosineLoss(rounds=2, seed=1)
    assert module.training and dict(module.named_parameters()) == {}

    def at(step):
        return negative_cosine_loss(queries, documents, rounds=2, seed=1, step=step).item()

    def step_of(loss, *, backward=True):
        found = [step for step in range(9) if at(step) == loss.item()]
        if backward:
            loss.backward(retain_graph=True)
        return *found, int(module.step)

    assert [step_of(module(queries, documents)) for _ in range(3)] == [(0, 1), (1, 2), (2, 3)]
    losses = [module(queries, documents) for _ in range(3)]  # of one step, which ends once
    assert [step_of(loss) for loss in losses * 2] == [(3, 4)] * 6
    (sum(module(queries, documents) for _ in range(2)) * 2).backward()
    assert int(module.step) == 5
    torch.autograd.grad(module(queries, documents), documents)
    assert int(module.step) == 6
    module.eval()
    assert [step_of(module(queries, documents)) for _ in range(2)] == [(6, 6)] * 2
    module.train()
    with torch.no_grad():
        assert step_of(module(queries, documents), backward=False) == (6, 6)
    assert step_of(module(queries, documents.detach()), backward=False) == (6, 6)
    with pytest.raises(ValueError, match="columns"):
        module(queries, documents[:, :3])
    with pytest.raises(NotImplementedError, match="second derivative"):
        torch.autograd.grad(module(queries, documents), queries, create_graph=True)
    assert step_of(module(queries, documents)) == (6, 7)  # a call that failed was no step
    for given in (2, torch.tensor(2), torch.tensor([2], dtype=torch.int32), np.int64(2)):
        assert step_of(module(queries, documents, step=given)) == (2, 7)
    loss = module(queries, documents)
    module.step.fill_(1)  # whoever sets it between knows better
    assert step_of(loss) == (7, 1) and step_of(module(queries, documents)) == (1, 2)


def test_step_is_saved():
    """With the state, in the middle of a step, and whatever is done to the module's weights."""
    queries, documents = tensors((16, 6), (16, 6))
    module = NegativeCosineLoss(rounds=2)
    module(queries, documents).backward()
    loss = module(queries, documents)
    state = copy.deepcopy(module.state_dict())
    assert list(state) == ["step"] and int(state["step"]) == 1
    loss.backward()
    resumed = NegativeCosineLoss(rounds=2)
    resumed.load_state_dict(state)
    assert resumed(queries, documents).item() == loss.item()
    assert int(resumed.step) == 1 and int(module.half().step) == 2 and module.step.dtype == torch.int64


def checkpoints():
    """name: function(f, x), the value of f(x), which is computed again in the backward pass."""
    from torch.utils import checkpoint

    def of(use_reentrant):
        return lambda f, *given: checkpoint.checkpoint(f, *given, use_reentrant=use_reentrant)

    def whole(f, *given):  # computes all of f again, also what no gradient needs
        with checkpoint.set_checkpoint_early_stop(False):
            return of(False)(f, *given)

    ways = {"reentrant": of(True), "saved-tensors": of(False)}
    if hasattr(checkpoint, "set_checkpoint_early_stop"):
        ways["saved-tensors-without-early-stop"] = whole
    return ways


@pytest.mark.parametrize("way", checkpoints())
def test_checkpoint(way):
    """A loss that is computed again draws as before: losses, gradients and weights as without checkpoints."""
    checkpoint = checkpoints()[way]
    (given, other) = tensors((12, 8), (12, 8))

    def plain(f, *given):
        return f(*given)

    def train(wrap, form):
        torch.manual_seed(3)
        towers = torch.nn.ModuleList(torch.nn.Linear(8, 6) for _ in range(2))
        module = NegativeCosineLoss(rounds=3, scale=torch.nn.Parameter(torch.tensor(20.0)))
        optimizer = torch.optim.SGD([*towers.parameters(), *module.parameters()], lr=0.1)
        curve = []

        def loss(x):
            return module(towers[0](x), towers[1](x))

        for _ in range(4):
            optimizer.zero_grad()
            if form == "loss":
                total = wrap(loss, given)
                total.backward()
            elif form == "two-of-a-step":
                total = wrap(loss, given) * 2 + wrap(loss, other)
                total.backward()
            elif form == "nested":
                total = wrap(lambda x: wrap(loss, x) + wrap(loss, other), given)
                total.backward()
            elif form == "accumulated":
                for total in (wrap(loss, x) for x in (given, other)):
                    total.backward()
            elif form == "weighted":  # by what saves tensors after the loss
                total = wrap(lambda x: loss(x) * x.mean().exp(), given)
                total.backward()
            elif form == "evaluated":  # between the two passes
                total = wrap(loss, given)
                with torch.no_grad():
                    module.eval()(given, other)
                module.train()
                total.backward()
            else:
                total = wrap(lambda x: module(towers[0](x), towers[1](x), step=2**63 + len(curve)), given)
                total.backward()
            optimizer.step()
            curve.append(total.item())
        weights = [parameter.detach() for parameter in (*towers.parameters(), module.scale)]
        return curve, weights, int(module.step)

    for form in ("loss", "two-of-a-step", "nested", "accumulated", "weighted", "evaluated", "counted"):
        (curve, weights, step), (expected, expected_weights, _) = train(checkpoint, form), train(plain, form)
        assert curve == expected and len(set(curve)) == 4, form
        for ours, theirs in zip(weights, expected_weights):
            assert torch.equal(ours, theirs), form
        assert step == {"accumulated": 8, "counted": 0}.get(form, 4), form


def test_other_step_of_a_checkpoint():
    """Gradients of other negatives than the loss's are an error: with a counter of one's own, and batches in flight."""
    queries, documents = tensors((12, 6), (12, 6))
    checkpoint = checkpoints()["saved-tensors"]
    counter = [3]
    loss = checkpoint(lambda q: negative_cosine_loss(q.sin(), documents, step=counter[0]), queries)
    counter[0] = 2**40
    with pytest.raises(ValueError, match=f"step is {2**40} where the loss is computed again .*, expected 3"):
        loss.backward()

    module = NegativeCosineLoss()
    first, second = (checkpoint(lambda q: module(q.sin(), documents), queries) for _ in range(2))
    first.backward()
    module(queries, documents)
    with pytest.raises(ValueError, match="step is 1 where the loss is computed again .*, expected 0"):
        second.backward()


def test_closures():
    """An optimizer that evaluates several times a step: the same negatives by step=."""
    torch.manual_seed(2)
    towers = torch.nn.ModuleList(torch.nn.Linear(8, 6) for _ in range(2))
    (given,) = tensors((12, 8), requires_grad=False)
    module = NegativeCosineLoss(rounds=3, outputs="negatives")
    optimizer = torch.optim.LBFGS(towers.parameters(), max_iter=4, line_search_fn="strong_wolfe")
    for step in range(3):
        drawn = []

        def closure():
            optimizer.zero_grad()
            loss = module(towers[0](given), towers[1](given), step=step)
            loss.backward()
            drawn.append(module.result.negatives.numpy())
            return loss

        optimizer.step(closure)
        assert len(drawn) > 2 and int(module.step) == 0
        for negatives in drawn:
            np.testing.assert_array_equal(negatives, negcos.sample(12, 3, step=step))


def test_parameters():
    """scale and bias as nn.Parameter are in state_dict(), learn, and keep their dtype."""
    scale, bias = torch.nn.Parameter(torch.tensor([10.0])), torch.nn.Parameter(torch.tensor(-10.0, dtype=torch.float64))
    module = NegativeCosineLoss(objective="sigmoid", sampling="all", scale=scale, bias=bias)
    assert set(module.state_dict()) == {"scale", "bias", "step"} and len(list(module.parameters())) == 2
    queries, documents = tensors((16, 6), (16, 6))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = module(queries, documents)
    before.backward()
    assert scale.grad.shape == (1,) and scale.grad.dtype == torch.float32 and bias.grad.dtype == torch.float64
    assert scale.grad.item() == pytest.approx(module.result.grad_scale, rel=1e-6)
    assert bias.grad.item() == module.result.grad_bias
    optimizer.step()
    assert scale.item() != 10 and bias.item() != -10
    assert module(queries, documents).item() < before.item()


def test_copies():
    queries, documents = tensors((16, 6), (16, 6))
    module = NegativeCosineLoss(
        rounds=3, exclude=(name for name in ("same-document-id",)), scale=torch.nn.Parameter(torch.tensor(9.0))
    )
    ids = torch.arange(16) % 5
    module(queries, documents, document_ids=ids).backward()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert twin.scale is not module.scale and twin.step is not module.step and int(twin.step) == 1
        loss, expected = (one(queries, documents, document_ids=ids) for one in (twin, module))
        assert loss.item() == expected.item()
        loss.backward()
        assert int(twin.step) == 2 and int(module.step) == 1
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        copy.deepcopy(NegativeCosineLoss(context=negcos.Context(threads=1)))


def test_repr_and_attributes():
    shown = "NegativeCosineLoss(objective='softmax', sampling='shuffle', rounds=4, scale=20.0)"
    assert repr(NegativeCosineLoss()) == shown
    learns = torch.nn.Parameter(torch.ones(()))  # which the state shows
    module = NegativeCosineLoss(sampling="all", direction="both", exclude="same-query-id", scale=learns)
    shown = "objective='softmax', sampling='all', direction='both', rounds=4, exclude=('same-query-id',)"
    assert repr(module) == f"NegativeCosineLoss({shown})"
    module = NegativeCosineLoss(7, temperature=0.5, prefix_dims=[3, 6])
    shown = "objective='softmax', sampling='shuffle', rounds=7, scale=20.0, temperature=0.5, prefix_dims=(3, 6)"
    assert repr(module) == f"NegativeCosineLoss({shown})"
    queries, documents = tensors((8, 6), (8, 6))
    module.temperature, module.prefix_dims = 2.0, ()  # a schedule
    assert (
        module(queries, documents).item() == negative_cosine_loss(queries, documents, rounds=7, temperature=2.0).item()
    )


def test_context():
    queries, documents = tensors((8, 6), (8, 6))
    with negcos.Context(threads=1, isa="scalar") as context:
        found = [
            negative_cosine_loss(queries, documents, context=context),
            NegativeCosineLoss(context=context)(queries, documents),
        ]
    expected = negative_cosine_loss(queries, documents).item()
    assert [loss.item() for loss in found] == [expected, expected]
    with pytest.raises(ValueError, match="context is closed"):
        negative_cosine_loss(queries, documents, context=context)


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


# In PyTorch programs


def test_autocast():
    """The towers' bfloat16 goes in as it is; a mixture is an error that names the tensor."""
    towers = [torch.nn.Linear(8, 6) for _ in range(2)]
    (given,) = tensors((12, 8), requires_grad=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        queries, documents = (tower(given) for tower in towers)
        assert queries.dtype == torch.bfloat16
        loss = negative_cosine_loss(queries, documents)
        with pytest.raises(TypeError, match="documents is of float32, expected the queries' bfloat16"):
            negative_cosine_loss(queries, documents.float())
    loss.backward()
    assert loss.dtype == torch.float32
    for tower in towers:
        assert tower.weight.grad.dtype == torch.float32 and bool(tower.weight.grad.abs().max() > 0)


def test_threads():
    """A thread each, losses and gradients as from one thread."""
    inputs = [tensors((64, 16), (64, 16), seed=seed) for seed in range(4)]
    expected = [torch.autograd.grad(negative_cosine_loss(*pair, step=step), pair) for step, pair in enumerate(inputs)]
    found = {}

    def work(step):
        for _ in range(20):
            found[step] = torch.autograd.grad(negative_cosine_loss(*inputs[step], step=step), inputs[step])

    threads = [threading.Thread(target=work, args=(step,)) for step in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for step, gradients_ in enumerate(expected):
        for ours, theirs in zip(found[step], gradients_):
            assert bool((ours == theirs).all())


class Losses(torch.utils.data.Dataset):
    """Items that a worker computes with the library."""

    def __len__(self):
        return 8

    def __getitem__(self, step):
        queries, documents = tensors((300, 16), (300, 16), seed=step, requires_grad=False)
        return negative_cosine_loss(queries, documents, step=step, rounds=20)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_loader_workers(start):
    """Before, in and after workers: the parent's threads are not theirs."""
    expected = torch.stack([Losses()[step] for step in range(8)])
    loader = torch.utils.data.DataLoader(
        Losses(), batch_size=4, num_workers=2, multiprocessing_context=start, timeout=60
    )
    for _ in range(2 if start == "fork" else 1):
        assert bool((torch.cat(list(loader)) == expected).all())
    assert bool((torch.stack([Losses()[step] for step in range(8)]) == expected).all())


@pytest.mark.skipif(not hasattr(getattr(torch, "compiler", None), "disable"), reason="no torch.compiler.disable")
def test_compile():
    """One break of the graph: the towers before it and what follows are compiled, each once."""
    from torch._dynamo.testing import CompileCounter

    towers = [torch.nn.Linear(8, 6) for _ in range(2)]
    (given,) = tensors((12, 8), requires_grad=False)
    module = NegativeCosineLoss(rounds=3)
    for loss in (lambda q, d, step: module(q, d), lambda q, d, step: negative_cosine_loss(q, d, rounds=3, step=step)):
        counter = CompileCounter()

        def program(given, step):
            return loss(*(tower(given).relu() for tower in towers), step) * 2

        torch._dynamo.reset()
        compiled = torch.compile(program, backend=counter)

        def steps(program):
            module.step.zero_()
            for step in range(4):
                loss = program(given, torch.tensor(step).item())
                yield loss.item(), *torch.autograd.grad(loss, towers[0].weight)

        found, expected = list(steps(compiled)), list(steps(program))
        assert len({loss for loss, _ in found}) == 4
        for (loss, gradient), (expected_loss, expected_gradient) in zip(found, expected):
            assert loss == expected_loss and torch.equal(gradient, expected_gradient)
        assert counter.frame_count <= 4
    torch._dynamo.reset()
    queries, documents = tensors((12, 6), (12, 6))
    whole = torch.compile(NegativeCosineLoss(), backend="eager")
    assert whole(queries, documents).item() == negative_cosine_loss(queries, documents).item()


# What records or transforms operations


class Programs(torch.nn.Module):
    """The loss of a tower's output, and of tensors that are no inputs, by the module and by the function."""

    def __init__(self, *which):
        super().__init__()
        self.tower, self.loss, self.which = torch.nn.Linear(6, 6), NegativeCosineLoss(), which
        self.queries, self.documents = tensors((8, 6), (8, 6), requires_grad=False)

    def forward(self, given):
        if self.which == ("module",):
            return self.loss(self.tower(given), self.documents)
        if self.which == ("function",):
            return negative_cosine_loss(given, self.documents)
        return given.sum() * negative_cosine_loss(self.queries, self.documents)


def recorders():
    """name: what calls program(given)."""
    from torch.fx.experimental.proxy_tensor import make_fx

    func = torch.func if hasattr(torch, "func") else pytest.importorskip("functorch")
    found = {
        "jit.trace": lambda program, given: torch.jit.trace(program, given),
        "jit.trace_module": lambda program, given: torch.jit.trace_module(program, {"forward": given}),
        "symbolic_trace": lambda program, given: torch.fx.symbolic_trace(program),
        "make_fx": lambda program, given: make_fx(program)(given),
        "grad": lambda program, given: func.grad(program)(given),
        "vjp": lambda program, given: func.vjp(program, given),
        "jvp": lambda program, given: func.jvp(program, (given,), (given,)),
        "vmap": lambda program, given: func.vmap(program)(given.expand(2, 8, 6)),
        "functionalize": lambda program, given: func.functionalize(program)(given),
        "hessian": lambda program, given: func.hessian(program)(given),
    }
    if hasattr(func, "linearize"):
        found["linearize"] = lambda program, given: func.linearize(program, given)
        found["make_fx-before-dispatch"] = lambda program, given: make_fx(program, pre_dispatch=True)(given)
    if hasattr(torch, "export"):
        found["export"] = lambda program, given: torch.export.export(program, (given,), strict=False)
    return found


@pytest.mark.parametrize("which", ["module", "function", "constant"])
@pytest.mark.parametrize("name", recorders())
def test_recorders_are_refused(name, which):
    """What would keep the first loss for ever, or lose its gradients, is an error that says what to do instead."""
    program = Programs(which)
    given = program.queries.clone()
    with pytest.raises(negcos.UnsupportedError, match="the loss is called inside torch.*, which cannot see into it"):
        recorders()[name](program, given)
    assert int(program.loss.step) == 0
    program(given)  # nothing is left behind


def test_tensors_without_memory_are_refused():
    from torch._subclasses import FakeTensorMode

    queries, documents = tensors((8, 6), (8, 6), requires_grad=False)
    mode = FakeTensorMode()
    with mode:
        module = NegativeCosineLoss(scale=torch.nn.Parameter(torch.ones(())))
        fake = torch.ones(8, 6)
        with pytest.raises(negcos.UnsupportedError, match="inside a mode that makes a FakeTensor of every tensor"):
            negative_cosine_loss(fake, fake)
    for name in ("queries", "documents", "weights", "scale"):
        given = {"queries": queries, "documents": documents, name: fake}
        with pytest.raises(negcos.UnsupportedError, match=f"{name} is a FakeTensor, expected a tensor with its own"):
            negative_cosine_loss(**given)
    with pytest.raises(negcos.DtypeError, match="step is a FakeTensor, without a value"):
        module(queries, documents)


def test_modes_that_only_watch():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            return function(*args, **(kwargs or {}))

    class Embedding(torch.Tensor):
        pass

    queries, documents = tensors((8, 6), (8, 6))
    expected = negative_cosine_loss(queries, documents).item()
    with Watch():
        assert negative_cosine_loss(queries, documents).item() == expected
    assert negative_cosine_loss(queries.as_subclass(Embedding), documents).item() == expected
    if hasattr(torch, "func"):
        found = torch.func.functional_call(NegativeCosineLoss(), {"step": torch.tensor(4)}, (queries, documents))
        assert found.item() == negative_cosine_loss(queries, documents, step=4).item()


@pytest.mark.skipif(not hasattr(getattr(torch, "compiler", None), "disable"), reason="no torch.compiler.disable")
def test_whole_graphs_are_refused():
    """By torch.compile itself, which calls nothing; it says why where it can."""
    program, reason = Programs("module"), ""
    if "reason" in inspect.signature(torch.compiler.disable).parameters:
        reason = "negcos has no graph: trace, compile or transform the towers alone"
    for record in (
        lambda: torch.compile(program, fullgraph=True, backend="eager")(program.queries),
        lambda: torch.export.export(program, (program.queries,), strict=True),
    ):
        with pytest.raises(torch._dynamo.exc.Unsupported, match=reason):
            record()
    torch._dynamo.reset()


# Default devices and dtypes, and modules without memory


class EmptyWeights:
    """What accelerate.init_empty_weights(include_buffers=True) does to modules that are made meanwhile."""

    def __enter__(self):
        self.saved = torch.nn.Module.register_parameter, torch.nn.Module.register_buffer
        register_parameter, register_buffer = self.saved

        def parameter(module, name, value):
            register_parameter(module, name, value)
            if value is not None:
                module._parameters[name] = torch.nn.Parameter(value.to("meta"), requires_grad=value.requires_grad)

        def buffer(module, name, value, persistent=True):
            register_buffer(module, name, value, persistent)
            if value is not None:
                module._buffers[name] = value.to("meta")

        torch.nn.Module.register_parameter, torch.nn.Module.register_buffer = parameter, buffer

    def __exit__(self, *failure):
        torch.nn.Module.register_parameter, torch.nn.Module.register_buffer = self.saved


def test_module_without_memory():
    """Made by init_empty_weights, it has a text but no loss, until it has memory and values."""
    queries, documents = tensors((8, 6), (8, 6))
    with EmptyWeights():
        module = NegativeCosineLoss(rounds=3, scale=torch.nn.Parameter(torch.tensor(7.0)))
    assert module.step.is_meta and module.scale.is_meta and "rounds=3" in repr(module)
    with pytest.raises(negcos.DtypeError, match="step is on meta, without a value"):
        module(queries, documents)
    with pytest.raises(negcos.DtypeError, match="scale is on meta, expected the CPU"):
        module(queries, documents, step=0)
    with pytest.raises(negcos.DtypeError, match="step is on meta, without a value"):
        negative_cosine_loss(queries, documents, step=module.step)
    expected = [negative_cosine_loss(queries, documents, rounds=3, scale=7.0, step=step).item() for step in (0, 5)]
    if "assign" in inspect.signature(module.load_state_dict).parameters:
        twin = copy.deepcopy(module)
        twin.load_state_dict({"step": torch.tensor(5), "scale": torch.tensor(7.0)}, assign=True)
        assert twin(queries, documents).item() == expected[1]
    module.to_empty(device="cpu")
    with torch.no_grad():
        module.scale.fill_(float("nan"))
        module.step.fill_(-1)
    with pytest.raises(ValueError, match="step is -1"):
        module(queries, documents)
    module.reset_parameters()
    loss = module(queries, documents)
    loss.backward()
    assert loss.item() == expected[0] and int(module.step) == 1 and module.scale.grad is not None


@pytest.mark.skipif(not hasattr(torch, "set_default_device"), reason="no torch.set_default_device")
def test_default_device_and_dtype():
    """step is a count, on the CPU; a learnt scale is where it was made."""
    queries, documents = tensors((8, 6), (8, 6), dtype=torch.float16)
    expected = [negative_cosine_loss(queries, documents, step=step).item() for step in range(2)]
    try:
        torch.set_default_dtype(torch.float16)
        for device in ("meta", "cuda"):
            torch.set_default_device(device)
            module = NegativeCosineLoss(outputs=("losses", "negatives"))
            found = []
            for _ in range(2):
                loss = module(queries, documents)
                loss.backward()
                found.append(loss.item())
            assert found == expected and module.step.device.type == "cpu"
        torch.set_default_device("meta")
        module = NegativeCosineLoss(scale=torch.nn.Parameter(torch.tensor(7.0)))
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    with pytest.raises(negcos.DtypeError, match="scale is on meta, expected the CPU"):
        module(queries, documents)
    module.to_empty(device="cpu")
    with pytest.raises(ValueError, match="scale was made on meta, without a number"):
        module.reset_parameters()
    module.load_state_dict({"step": torch.tensor(0), "scale": torch.tensor(20.0)})
    assert module(queries, documents).item() == expected[0]


# README and example


def run(*arguments):
    said = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    return said.stdout


def test_readme(source_root, tmp_path):
    text = "".join(path.read_text() for path in sorted((source_root / "bindings/python").glob("README*.md")))
    found = [textwrap.dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```$", text, re.S | re.M)]
    blocks = [block for block in found if "import torch" in block]
    assert len(blocks) == 2
    script = tmp_path / "readme_torch.py"
    script.write_text("\n".join(blocks))
    losses = [float(loss) for loss in re.findall(r"^loss ([0-9.]+), accuracy [0-9.]+$", run(str(script)), re.M)]
    assert len(losses) == 3 and losses[2] < losses[0]


def test_example(source_root):
    said = run(str(source_root / "bindings/python/examples/two_tower_torch.py"))
    before, after = (float(re.search(rf"^Recall@10 {when} ([0-9.]+)$", said, re.M)[1]) for when in ("before", "after"))
    assert before < 0.02 and after > 0.4
