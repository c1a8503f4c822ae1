# SPDX-License-Identifier: Apache-2.0
"""negcos.jax: the bits of negcos.evaluate, JAX's own losses and gradients, jit, vmap, scan, training."""

import functools
import inspect
import re
import subprocess
import sys

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from framework_cases import (  # noqa: E402
    CASES,
    DTYPES,
    MASKED,
    Task,
    batch,
    check_masks,
    expected,
    hard_negatives,
    readme_blocks,
    run,
)
from jax.test_util import check_grads  # noqa: E402

import negcos  # noqa: E402
import negcos.jax  # noqa: E402
from negcos import _xla  # noqa: E402
from negcos.jax import negative_cosine_loss  # noqa: E402

MODES = {"eager": lambda function: function, "jit": jax.jit}


@pytest.fixture
def x64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(params=DTYPES)
def dtype(request):
    jax.config.update("jax_enable_x64", request.param == "float64")
    yield request.param
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def evaluations(monkeypatch):
    """What each evaluation was asked to output; those that only check shapes are not among them."""
    seen = []

    def spy(*arguments, **named):
        if "out" in named:
            seen.append(sorted(named["out"]))
        return negcos.evaluate(*arguments, **named)

    monkeypatch.setattr(negcos.jax, "evaluate", spy)
    return seen


def loss_and_gradients(queries, documents, arguments, mode="eager"):
    """The loss and its gradients with respect to queries, documents and hard_negatives."""
    sources = [jnp.asarray(source) for source in (queries, documents, *hard_negatives(arguments))]

    def function(*sources):
        given = dict(zip(["hard_negatives"], sources[2:]))
        return negative_cosine_loss(*sources[:2], **{**arguments, **given})

    return MODES[mode](jax.value_and_grad(function, range(len(sources))))(*sources)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_bits(name, dtype, mode):
    queries, documents, arguments = batch(name, dtype)
    want = expected(queries, documents, arguments)
    loss, (grad_queries, grad_documents, *hard) = loss_and_gradients(queries, documents, arguments, mode)
    assert loss.shape == () and loss.dtype == ("float64" if dtype == "float64" else "float32")
    assert loss == loss.dtype.type(want.loss)
    assert grad_queries.dtype == dtype and np.asarray(grad_queries).tobytes() == want.grad_queries.tobytes()
    assert grad_documents.dtype == dtype and np.asarray(grad_documents).tobytes() == want.grad_documents.tobytes()
    if hard:
        assert np.asarray(hard[0]).tobytes() == want.grad_hard_negatives.tobytes()


@pytest.mark.parametrize("mode", MODES)
def test_scale_and_bias(mode, x64):
    queries, documents, arguments = batch("sigmoid", "float64")
    scale, bias = arguments.pop("scale"), arguments.pop("bias")
    function = MODES[mode](
        jax.value_and_grad(lambda s, b: negative_cosine_loss(queries, documents, scale=s, bias=b, **arguments), (0, 1))
    )
    want = expected(queries, documents, arguments, scale=scale, bias=bias)
    loss, gradients = function(float(scale), bias)
    assert loss == want.loss and gradients == (want.grad_scale, want.grad_bias)
    # of another type than the queries
    gradients = function(jnp.bfloat16(scale), jnp.float32(bias))[1]
    assert [gradient.dtype for gradient in gradients] == ["bfloat16", "float32"]
    assert gradients[1] == np.float32(want.grad_bias)


def cosines(queries, documents, spec):
    def normalised(matrix):
        return matrix / jnp.linalg.norm(matrix, axis=-1, keepdims=True)

    return jnp.einsum(spec, normalised(queries), normalised(documents), precision="highest")


def cross_entropy(logits):
    return -jnp.mean(jax.nn.log_softmax(logits, axis=1)[:, 0])


def own_loss(name, arguments, rows, queries, documents, hard=None):
    """JAX's own computation of a case; rows [B, 1 + rounds] of documents, the positive first."""
    z = arguments.get("scale", 20.0) / arguments.get("temperature", 1.0)
    if name == "sigmoid":
        logits = z * cosines(queries, documents, "bd,md->bm") + arguments["bias"]
        signs = 2 * jnp.eye(*logits.shape) - 1
        return -jnp.mean(jnp.sum(jax.nn.log_sigmoid(signs * logits), 1))
    lists = documents[rows]
    if hard is not None:
        lists = jnp.concatenate([lists, hard.reshape(len(rows), -1, queries.shape[1])], 1)
    cos = cosines(queries, lists, "bd,bkd->bk")
    if name == "as-published":  # the positive's column of logits, normalised over the batch
        return -jnp.mean(jax.nn.log_softmax(z * cos, axis=0)[:, 0])
    harder = arguments.get("hardness", 0) * jax.lax.stop_gradient(cos.at[:, 0].set(0))
    return cross_entropy(z * cos + harder)


TOLERANCE = {"float32": 2e-5, "float64": 1e-12, "float16": 2e-3, "bfloat16": 1.6e-2}


@pytest.mark.parametrize("name", ["defaults", "shuffle", "sigmoid", "hard", "as-published"])
def test_own(name, dtype):
    queries, documents, arguments = batch(name, dtype)
    rows = np.arange(len(queries))[:, None]
    if name != "sigmoid":
        draws = {key: arguments.get(key, 0) for key in ("seed", "step")}
        rows = np.concatenate([rows, negcos.sample(len(queries), arguments.get("rounds", 4), **draws)], axis=1)
    working = jnp.float64 if dtype == "float64" else jnp.float32
    sources = [jnp.asarray(source, working) for source in (queries, documents, *hard_negatives(arguments))]
    own = functools.partial(own_loss, name, arguments, rows)
    want, want_gradients = jax.value_and_grad(own, range(len(sources)))(*sources)
    loss, gradients = loss_and_gradients(queries, documents, arguments)
    np.testing.assert_allclose(loss, want, rtol=TOLERANCE["float32" if dtype in ("float16", "bfloat16") else dtype])
    for got, wanted in zip(gradients, want_gradients):
        largest = float(jnp.abs(wanted).max())
        np.testing.assert_allclose(got.astype(working), wanted, rtol=0, atol=TOLERANCE[dtype] * largest)


@pytest.mark.parametrize("name", ["shuffle", "uniform", "given", "all", "all-both", "sigmoid", "cyclic-decoupled"])
def test_gradients(name, x64):
    queries, documents, arguments = batch(name, "float64")
    numbers = {
        key: jnp.float64(arguments.pop(key, 20)) for key in ("scale", "bias") if key == "scale" or name == "sigmoid"
    }

    def function(queries, documents, numbers):
        return negative_cosine_loss(queries, documents, **numbers, **arguments)

    check_grads(function, (queries, documents, numbers), order=1, modes=["rev"], eps=1e-6, atol=1e-6, rtol=1e-6)


def test_upstream():
    queries, documents, _ = batch("defaults", "float16")
    got = jax.grad(lambda q: 65536 * negative_cosine_loss(q, documents))(queries)  # beyond float16
    once = expected(queries, documents, {}).grad_queries
    np.testing.assert_array_equal(got, (once.astype(np.float32) * 65536).astype(np.float16))


def test_one_evaluation(evaluations):
    queries, documents, _ = batch("defaults", "float32")
    for mode in MODES.values():
        mode(negative_cosine_loss)(queries, documents).block_until_ready()
        assert evaluations == [[]]
        evaluations.clear()
        jax.block_until_ready(mode(jax.value_and_grad(negative_cosine_loss, (0, 1)))(queries, documents))
        assert evaluations == [["grad_documents", "grad_queries"]]
        evaluations.clear()


@pytest.mark.parametrize("mode", MODES)
def test_shares_memory(mode, dtype, monkeypatch):
    addresses = []
    evaluate = _xla._function

    def spy(text, inputs, outputs):
        addresses.append([array.ctypes.data for array in inputs[:2]])
        evaluate(text, inputs, outputs)

    monkeypatch.setattr(_xla, "_function", spy)
    queries, documents = (jax.random.normal(jax.random.key(k), (512, 64)).astype(dtype) for k in range(2))
    function = MODES[mode](jax.value_and_grad(negative_cosine_loss, (0, 1)))
    jax.block_until_ready(function(queries, documents))
    assert addresses == [[array.unsafe_buffer_pointer() for array in (queries, documents)]]


def test_draws():
    """seed and step, as numbers and as arrays of any integer type, traced or not."""
    queries, documents, _ = batch("defaults", "float32")
    function = jax.jit(lambda seed, step: negative_cosine_loss(queries, documents, seed=seed, step=step))
    for seed, step in ((0, 0), (5, 2), (2**31 - 1, 7)):
        want = np.float32(negcos.evaluate(queries, documents, seed=seed, step=step).loss)
        for kind in (int, np.uint64, np.int16 if seed < 2**15 else np.int32, jnp.int32, jnp.uint32):
            assert negative_cosine_loss(queries, documents, seed=kind(seed), step=kind(step)) == want
        assert function(seed, step) == function(jnp.uint32(seed), jnp.int32(step)) == want
    want = negcos.evaluate(queries, documents, seed=2**64 - 1, step=2**40).loss
    assert negative_cosine_loss(queries, documents, seed=2**64 - 1, step=2**40) == np.float32(want)


@pytest.mark.parametrize("name", MASKED)
def test_masks(name):
    check_masks(negative_cosine_loss, name)


@pytest.mark.parametrize("mode", MODES)
def test_vectors_of_other_types(mode):
    """As of negcos.evaluate: NumPy's of another byte order, and arrays of bool and of half precision."""
    queries, documents, _ = batch("defaults", "float32")
    mask = np.arange(len(queries)) % 3 > 0
    want = negcos.evaluate(queries, documents, weights=mask).loss
    swapped = queries.astype(">f4")  # which the framework copies
    assert MODES[mode](lambda: negative_cosine_loss(swapped, documents, weights=mask))() == np.float32(want)
    for weights in (
        *(mask, mask.astype(">f8"), mask.astype(">f4"), mask.astype(">i2"), [*mask.astype(">f8")]),
        *(jnp.asarray(mask), jnp.asarray(mask, jnp.bfloat16), jnp.asarray(mask, jnp.float16)),
    ):
        assert MODES[mode](lambda: negative_cosine_loss(queries, documents, weights=weights))() == np.float32(want)
    ids = np.arange(len(documents)) % 5 - 2**40
    options = dict(sampling="all", exclude="same-document-id")
    want = negcos.evaluate(queries, documents, document_ids=ids, **options).loss
    for same in (ids, ids.astype(">i8")):
        got = MODES[mode](lambda: negative_cosine_loss(queries, documents, document_ids=same, **options))()
        assert got == np.float32(want)


@pytest.mark.parametrize("mode", MODES)
def test_recomputed(mode, evaluations):
    """jax.checkpoint computes the loss again for the backward pass: with the negatives of the step that it is given."""
    queries, documents, _ = batch("defaults", "float32")
    function = jax.checkpoint(lambda queries, step: negative_cosine_loss(queries, documents, step=step) ** 2)
    function = MODES[mode](jax.value_and_grad(function))
    for step in range(3):
        want = negcos.evaluate(queries, documents, step=step)
        loss, gradient = jax.block_until_ready(function(queries, jnp.int32(step)))
        np.testing.assert_allclose(loss, want.loss**2, rtol=1e-6)
        np.testing.assert_allclose(gradient, 2 * want.loss * want.grad_queries, rtol=1e-5, atol=1e-7)


def test_ids_as_arguments_of_jit():
    """JAX halves what jit is called with before negcos sees it, and says nothing: what the README does instead."""
    queries, documents, _ = batch("defaults", "float32")
    ids = np.arange(len(documents)) % 5 * 2**32 + 7
    options = dict(sampling="all", exclude="same-document-id")
    want = np.float32(negcos.evaluate(queries, documents, document_ids=ids, **options).loss)
    function = jax.jit(lambda ids: negative_cosine_loss(queries, documents, document_ids=ids, **options))
    assert function(ids) != want  # all ids are one
    assert function(np.unique(ids, return_inverse=True)[1]) == want
    jax.config.update("jax_enable_x64", True)
    try:
        assert function(ids) == want
    finally:
        jax.config.update("jax_enable_x64", False)


def test_no_recompiling():
    queries, documents, _ = batch("defaults", "float32")
    traces = []

    @jax.jit
    def train(queries, scale, seed, step):
        traces.append(step)
        return jax.value_and_grad(negative_cosine_loss)(queries, documents, scale=scale, seed=seed, step=step)

    for step in range(5):
        loss, gradient = train(queries, 14.0 + step, 3 * step, step)
        want = negcos.evaluate(queries, documents, scale=14 + step, seed=3 * step, step=step)
        assert loss == np.float32(want.loss) and (gradient == want.grad_queries).all()
    assert len(traces) == 1 and train._cache_size() == 1


def test_integers_have_no_gradient():
    queries, documents, _ = batch("given", "float32")
    positives, weights = jnp.arange(len(queries)), jnp.ones(len(queries))
    gradients = jax.grad(
        lambda q, p, s, w: negative_cosine_loss(q, documents, positives=p, step=s, weights=w),
        range(4),
        allow_int=True,
    )(queries, positives, jnp.int32(3), weights)
    assert [gradient.dtype for gradient in gradients] == ["float32", jax.dtypes.float0, jax.dtypes.float0, "float32"]
    assert [gradient.shape for gradient in gradients[1:]] == [positives.shape, (), weights.shape]
    assert not gradients[3].any()  # a constant


def test_vmap():
    random = np.random.default_rng(2)
    queries, documents = random.standard_normal((2, 3, 8, 4)).astype(np.float32)
    steps = jnp.arange(3)
    wants = [negcos.evaluate(q, d, step=step) for step, (q, d) in enumerate(zip(queries, documents))]
    function = jax.vmap(jax.value_and_grad(lambda q, d, s: negative_cosine_loss(q, d, step=s)))
    for mode in MODES.values():
        losses, gradients = mode(function)(queries, documents, steps)
        assert (losses == np.float32([want.loss for want in wants])).all()
        assert (gradients == np.stack([want.grad_queries for want in wants])).all()
    shared = jax.vmap(lambda s: negative_cosine_loss(queries[0], documents[0], step=s))(steps)
    assert (shared == np.float32([negcos.evaluate(queries[0], documents[0], step=s).loss for s in range(3)])).all()


def test_scan():
    queries, documents, _ = batch("defaults", "float32")

    @jax.jit
    def train(queries):
        def step(queries, count):
            loss, gradient = jax.value_and_grad(negative_cosine_loss)(queries, documents, step=count)
            return queries - 0.5 * gradient, loss

        return jax.lax.scan(step, queries, jnp.arange(20))[1]

    losses = train(queries)
    assert losses[0] == np.float32(negcos.evaluate(queries, documents).loss) and losses[-1] < losses[0]


def test_empty_batch():
    empty = np.zeros((0, 4), np.float32)
    loss, gradients = jax.value_and_grad(negative_cosine_loss, (0, 1))(empty, empty)
    assert loss == 0 and [gradient.shape for gradient in gradients] == [(0, 4), (0, 4)]


def test_large_batch_on_one_core():
    """Where a copy of the arguments would wait for the one thread that waits for it."""
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import jax, negcos.jax\n"
        "q, d = (jax.random.normal(jax.random.key(k), (4096, 256)) for k in range(2))\n"
        "step = jax.jit(jax.grad(lambda q, d: negcos.jax.negative_cosine_loss(q, d)))\n"
        "for _ in range(5): q = q - step(q, d)\n"
        "print(q.block_until_ready().shape)\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert said.stdout == "(4096, 256)\n", said.stderr


def test_context():
    queries, documents, _ = batch("defaults", "float32")
    want = np.float32(negcos.evaluate(queries, documents).loss)
    with negcos.Context(threads=1, isa="scalar") as context:
        function = jax.jit(lambda q: negative_cosine_loss(q, documents, context=context))
        assert function(queries) == want and negative_cosine_loss(queries, documents, context=context) == want
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="context is closed"):
        function(queries).block_until_ready()


MISTAKES = [
    (dict(queries=np.ones(4, np.float32)), ValueError, r"queries is \[4\], expected \[rows, columns\]"),
    (dict(documents=np.ones((12, 3), np.float32)), ValueError, "documents"),
    (
        dict(documents=np.ones((12, 16), np.float16)),
        TypeError,
        "documents is of float16, expected the queries' float32",
    ),
    (dict(queries=np.ones((12, 16), np.int32)), TypeError, "queries is of int32, expected one of"),
    (dict(hard_negatives=np.ones((7, 16), np.float32)), ValueError, "hard_negatives"),
    (dict(weights=np.ones(3)), ValueError, r"weights is \[3\], expected \[12\]"),
    (dict(positives=np.ones(12)), TypeError, "positives is of float64, expected int64"),
    (dict(document_ids=np.arange(12)), ValueError, "document_ids is given, expected exclude"),
    (dict(objective="nope"), ValueError, "objective is 'nope', expected one of softmax, "),
    (dict(rounds=-1), ValueError, "rounds is -1"),
    (dict(rounds=1.5), TypeError, "rounds is a float, expected an integer"),
    (dict(margin="x"), TypeError, "margin is 'x', expected a number"),
    (dict(temperature=0), ValueError, "temperature is 0"),
    (dict(temprature=1), TypeError, "unexpected option 'temprature', expected some of objective, "),
    (dict(seed=-1), ValueError, "seed is -1, expected 0 to 18446744073709551615"),
    (dict(step=jnp.ones(())), TypeError, "step is of float32, expected integers"),
    (dict(step=jnp.arange(2)), ValueError, r"step is \[2\], expected a number"),
    (dict(scale=jnp.ones(3)), ValueError, r"scale is \[3\], expected a number"),
    (dict(scale="x"), TypeError, "scale is 'x', expected a number"),
    (dict(direction="both"), NotImplementedError, "direction BOTH"),
    (dict(context="x"), TypeError, "context is a str"),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mistake", range(len(MISTAKES)))
def test_mistakes(mistake, mode):
    arguments, kind, says = MISTAKES[mistake]
    queries, documents, _ = batch("defaults", "float32")
    arguments = {"queries": queries, "documents": documents, **arguments}
    with pytest.raises(kind, match=says):
        MODES[mode](lambda: negative_cosine_loss(**arguments))()


def test_traced_option():
    queries, documents, _ = batch("defaults", "float32")
    with pytest.raises(TypeError, match="temperature is .*expected a number"):
        jax.jit(lambda t: negative_cosine_loss(queries, documents, temperature=t))(1.0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "arguments, says",
    [
        (dict(positives=np.full(12, 99)), r"INVALID_ARGUMENT: negcos: .*positives\[0\] is 99"),
        (dict(log_probability=np.full(12, np.nan)), r"INVALID_ARGUMENT: negcos: .*log_probability\[0\]"),
        (dict(scale=jnp.float32(np.inf)), "INVALID_ARGUMENT: negcos: .*scale is inf"),
        (dict(step=jnp.int32(-1)), "INVALID_ARGUMENT: negcos: step is -1"),
    ],
)
def test_mistakes_in_values(arguments, says, mode):
    queries, documents, _ = batch("defaults", "float32")
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=says):
        MODES[mode](lambda: negative_cosine_loss(queries, documents, **arguments))().block_until_ready()


def test_no_second_derivatives():
    queries, documents, _ = batch("defaults", "float32")
    gradient = jax.grad(negative_cosine_loss)
    with pytest.raises((ValueError, TypeError), match="differentiated|forward-mode"):
        jax.grad(lambda q: gradient(q, documents).sum())(queries)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda q: negative_cosine_loss(q, documents), (queries,), (queries,))


def test_everything():
    """Each argument of negcos.evaluate but for what makes outputs is one of the loss, with the same default."""
    known, own = (
        {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
        for function in (negcos.evaluate, negative_cosine_loss)
    )
    del known["outputs"], known["out"]
    assert own == known


def train(loss, steps=250):
    """Recall@10 before and after."""
    task = Task()
    towers = [jax.random.normal(jax.random.key(k), (task.FEATURES, 16)) * 0.15 for k in range(2)]
    moments = [[jnp.zeros_like(tower)] * 2 for tower in towers]

    @jax.jit
    def update(towers, moments, sides, step):
        gradients = jax.grad(lambda towers: loss(*(s @ t for s, t in zip(sides, towers)), step))(towers)
        moments = [[0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2] for (m, v), g in zip(moments, gradients)]
        count = step + 1.0
        return [
            tower - 3e-3 * (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)
            for tower, (m, v) in zip(towers, moments)
        ], moments

    recalls = [task.recall(*(lambda side, t=t: side @ t for t in towers))]
    for step, sides in enumerate(task.batches(steps)):
        towers, moments = update(towers, moments, sides, step)
    return [*recalls, task.recall(*(lambda side, t=t: side @ t for t in towers))]


def test_trains_as_well_as_own():
    def own(queries, documents, step):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(9), step), 10)
        rows = jax.vmap(lambda key: jax.random.permutation(key, len(queries)))(keys).T
        rows = jnp.concatenate([jnp.arange(len(queries))[:, None], rows], 1)
        return cross_entropy(20 * cosines(queries, documents[rows], "bd,bkd->bk"))

    before, ours = train(lambda q, d, step: negative_cosine_loss(q, d, rounds=10, step=step))
    _, theirs = train(own)
    assert before < 0.05 and ours > 0.6 and abs(ours - theirs) < 0.03, (before, ours, theirs)


def test_example(source_root):
    said = run(source_root / "bindings/python/examples/two_tower_jax.py")
    before, after = (float(re.search(rf"^Recall@10 {when} ([0-9.]+)$", said, re.M)[1]) for when in ("before", "after"))
    assert before < 0.05 and after > 0.6


def test_readme(source_root, tmp_path):
    script = tmp_path / "readme.py"
    script.write_text(readme_blocks(source_root, "jax"))
    said = run(script)
    losses = [float(loss) for loss in re.findall(r"\bloss:? ([0-9.]+)", said)]
    assert len(losses) >= 2 and losses[-1] < losses[0]
    queries, documents = np.random.default_rng(0).standard_normal((2, 4, 8), dtype=np.float32)
    exact, halved = (  # of ids of 64 bits, and of what jit makes of them
        negcos.evaluate(queries, documents, sampling="all", exclude="same-document-id", document_ids=ids).loss
        for ids in (np.array([1, 2, 1, 3]) << 32, np.zeros(4, int))
    )
    got = float(re.search(r"^with ids ([0-9.]+)$", said, re.M)[1])
    assert got == pytest.approx(exact, rel=1e-5) and exact != pytest.approx(halved, rel=0.1)
