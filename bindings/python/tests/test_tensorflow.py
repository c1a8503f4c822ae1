# SPDX-License-Identifier: Apache-2.0
"""negcos.tensorflow: the bits of negcos.evaluate, TensorFlow's own losses and gradients, graphs, Keras, training."""

import inspect
import math
import re

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from framework_cases import (  # noqa: E402
    CASES,
    DTYPES,
    MASKED,
    Task,
    batch,
    check_masks,
    expected,
    hard_negatives,
    masked_arguments,
    readme_blocks,
    run,
)

import negcos  # noqa: E402
import negcos.tensorflow  # noqa: E402
from negcos.tensorflow import NegativeCosineLayer, negative_cosine_loss  # noqa: E402

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

KERAS_2 = not hasattr(tf.keras, "config")
MODES = {"eager": lambda function: function, "graph": tf.function}


def loss_and_gradients(queries, documents, arguments, mode="eager", **more):
    """As tensors: the loss and its gradients with respect to queries, documents, scale, bias, hard_negatives."""
    sources = [
        tf.constant(queries),
        tf.constant(documents),
        tf.constant(arguments.get("scale", 20), tf.float64),
        tf.constant(arguments.get("bias", 0), tf.float64),
    ]
    sources += [tf.constant(hard) for hard in hard_negatives(arguments)]

    def differentiate(*sources):
        given = dict(zip(("scale", "bias", "hard_negatives"), sources[2:]))
        with tf.GradientTape() as tape:
            tape.watch(sources)
            loss = negative_cosine_loss(*sources[:2], **{**arguments, **given, **more})
        return loss, tape.gradient(loss, sources)

    return MODES[mode](differentiate)(*sources)


@pytest.fixture
def evaluations(monkeypatch):
    """What each evaluation was asked to output."""
    seen = []

    def spy(*arguments, **named):
        seen.append(sorted(named["out"]))
        return negcos.evaluate(*arguments, **named)

    monkeypatch.setattr(negcos.tensorflow, "evaluate", spy)
    return seen


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_bits(name, dtype, mode):
    queries, documents, arguments = batch(name, dtype)
    want = expected(queries, documents, arguments)
    loss, (grad_queries, grad_documents, grad_scale, grad_bias, *hard) = loss_and_gradients(
        queries, documents, arguments, mode
    )
    assert loss.shape == () and loss.dtype == (tf.float64 if dtype == "float64" else tf.float32)
    assert loss.numpy() == loss.dtype.as_numpy_dtype(want.loss)
    assert (grad_scale.numpy(), grad_bias.numpy()) == (want.grad_scale, want.grad_bias)
    assert grad_queries.dtype == dtype and grad_queries.numpy().tobytes() == want.grad_queries.tobytes()
    assert grad_documents.dtype == dtype and grad_documents.numpy().tobytes() == want.grad_documents.tobytes()
    if hard:
        assert hard[0].numpy().tobytes() == want.grad_hard_negatives.tobytes()


def cosines(queries, documents, spec):
    return tf.einsum(spec, tf.math.l2_normalize(queries, axis=-1), tf.math.l2_normalize(documents, axis=-1))


def own_loss(name, queries, documents, arguments, rows):
    """TensorFlow's own computation of a case; rows [B, 1 + rounds] of documents, the positive first."""
    z = arguments.get("scale", 20.0) / arguments.get("temperature", 1.0)
    labels = tf.range(len(rows))
    if name in ("defaults", "shuffle"):
        logits = z * cosines(queries, tf.gather(documents, rows), "bd,bkd->bk")
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(tf.zeros_like(labels), logits))
    if name == "sigmoid":
        targets = tf.eye(len(rows), documents.shape[0], dtype=queries.dtype)
        logits = z * cosines(queries, documents, "bd,md->bm") + arguments["bias"]
        return tf.reduce_mean(tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), 1))
    if name == "as-published":  # the positive's column of logits, normalised over the batch
        logits = z * cosines(queries, tf.gather(documents, rows), "bd,bkd->bk")
        return -tf.reduce_mean(tf.nn.log_softmax(logits, axis=0)[:, 0])
    if name == "hard":
        lists = tf.concat(
            [tf.gather(documents, rows), tf.reshape(arguments["hard_negatives"], (len(rows), -1, queries.shape[1]))], 1
        )
        cos = cosines(queries, lists, "bd,bkd->bk")
        logits = z * cos + arguments["hardness"] * tf.stop_gradient(
            tf.concat([tf.zeros_like(cos[:, :1]), cos[:, 1:]], 1)
        )
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(tf.zeros_like(labels), logits))
    raise KeyError(name)


TOLERANCE = {"float32": 2e-5, "float64": 1e-12, "float16": 2e-3, "bfloat16": 1.6e-2}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["defaults", "shuffle", "sigmoid", "hard", "as-published"])
def test_own(name, dtype):
    queries, documents, arguments = batch(name, dtype)
    given = {key: value for key, value in arguments.items() if key != "hard_negatives"}
    rows = np.arange(len(queries))[:, None]
    if name != "sigmoid":
        draws = {key: given.get(key, 0) for key in ("seed", "step")}
        rows = np.concatenate([rows, negcos.sample(len(queries), given.get("rounds", 4), **draws)], axis=1)
    working = tf.float64 if dtype == "float64" else tf.float32
    matrices = [queries, documents] + hard_negatives(arguments)
    sources = [tf.cast(tf.constant(matrix), working) for matrix in matrices]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        known = {**given, **({"hard_negatives": sources[2]} if len(sources) > 2 else {})}
        want = own_loss(name, *sources[:2], known, rows)
    want_gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(want, sources)]
    loss, (grad_queries, grad_documents, _, _, *hard) = loss_and_gradients(queries, documents, arguments)
    exact = TOLERANCE["float32" if dtype in ("float16", "bfloat16") else dtype]
    np.testing.assert_allclose(loss, want, rtol=exact)
    for got, wanted in zip((grad_queries, grad_documents, *hard), want_gradients):
        largest = float(tf.reduce_max(tf.abs(wanted)))
        np.testing.assert_allclose(tf.cast(got, tf.float64), wanted, rtol=0, atol=TOLERANCE[dtype] * largest)


@pytest.mark.parametrize("name", ["shuffle", "uniform", "given", "all", "all-both", "sigmoid", "cyclic-decoupled"])
def test_gradients(name):
    queries, documents, arguments = batch(name, "float64")
    scale, bias = (np.float64(arguments.pop(key, default)) for key, default in (("scale", 20), ("bias", 0)))
    numbers = [scale, bias] if name == "sigmoid" else [scale]

    def function(queries, documents, *numbers):
        return negative_cosine_loss(queries, documents, **dict(zip(("scale", "bias"), numbers)), **arguments)

    theory, numeric = tf.test.compute_gradient(function, [queries, documents, *numbers], delta=1e-6)
    for exact, difference in zip(theory, numeric):
        np.testing.assert_allclose(exact, difference, rtol=0, atol=1e-6 * max(np.abs(difference).max(), 1))


def test_upstream():
    queries, documents, _ = batch("defaults", "float16")
    queries, documents = tf.constant(queries), tf.constant(documents)
    with tf.GradientTape() as tape:
        tape.watch(queries)
        loss = 65536 * negative_cosine_loss(queries, documents)  # a loss scale that float16 cannot hold
    once = expected(queries.numpy(), documents.numpy(), {}).grad_queries
    want = (once.astype(np.float32) * 65536).astype(np.float16)
    np.testing.assert_array_equal(tape.gradient(loss, queries), want)


def test_one_evaluation(evaluations):
    queries, documents, _ = batch("defaults", "float32")
    both = ["grad_documents", "grad_queries"]
    for mode in MODES:
        for training, asked in ((True, [both]), (False, [[], both])):
            loss_and_gradients(queries, documents, {}, mode, training=training)
            assert evaluations == asked
            evaluations.clear()
        MODES[mode](lambda: negative_cosine_loss(queries, documents, training=False))()
        assert evaluations == [[]]
        evaluations.clear()


def test_shares_memory(monkeypatch):
    addresses, kept = [], []
    fused, scaled = negcos.tensorflow._fused, negcos.tensorflow._scaled

    def address(array):
        return np.asarray(array).ctypes.data

    def spy(arguments, *more):
        made = fused(arguments, *more)
        addresses.append([address(array) for array in (arguments["queries"], arguments["documents"], *made[1:3])])
        return made

    def spy_kept(upstream, gradients, inputs):
        if tf.executing_eagerly():
            kept.append([address(array) for array in gradients[:2]])
        return scaled(upstream, gradients, inputs)

    monkeypatch.setattr(negcos.tensorflow, "_fused", spy)
    monkeypatch.setattr(negcos.tensorflow, "_scaled", spy_kept)
    for dtype in DTYPES:
        sources = [tf.cast(tf.random.normal((64, 32)), dtype) for _ in range(2)]
        for mode in MODES:
            addresses.clear()
            kept.clear()

            def function(*sources):
                with tf.GradientTape() as tape:
                    tape.watch(sources)
                    loss = negative_cosine_loss(*sources)
                return tape.gradient(loss, sources)

            MODES[mode](function)(*sources)
            assert len(addresses) == 1 and addresses[0][:2] == [address(source) for source in sources]
            assert kept == ([addresses[0][2:]] if mode == "eager" else [])


def test_no_retracing():
    traces = []

    @tf.function(input_signature=[tf.TensorSpec((None, 8)), tf.TensorSpec((None, None)), tf.TensorSpec((), tf.int64)])
    def step(queries, documents, count):
        traces.append(queries.shape)
        with tf.GradientTape() as tape:
            tape.watch([queries, documents])
            loss = negative_cosine_loss(queries, documents, step=count)
        gradients = tape.gradient(loss, [queries, documents])
        assert loss.shape == () and [gradient.shape.as_list() for gradient in gradients] == [[None, 8], [None, None]]
        return loss, *gradients

    random = np.random.default_rng(1)
    for count, size in enumerate((4, 9, 9, 0)):
        queries, documents = random.standard_normal((2, size, 8)).astype(np.float32)
        want = negcos.evaluate(queries, documents, step=count)
        loss, grad_queries, _ = step(queries, documents, count)
        assert loss.numpy() == np.float32(want.loss) and (grad_queries.numpy() == want.grad_queries).all()
    assert len(traces) == 1


def test_variables():
    queries, documents, _ = batch("defaults", "float32")
    tower, scale, step = tf.Variable(queries), tf.Variable(14.0), tf.Variable(0, dtype=tf.int64)

    @tf.function
    def train():
        with tf.GradientTape() as tape:
            loss = negative_cosine_loss(tower, documents, scale=scale, step=step, seed=5)
        step.assign_add(1)
        return loss, tape.gradient(loss, [tower, scale])

    for count in range(3):
        want = negcos.evaluate(queries, documents, scale=14, step=count, seed=5)
        loss, (grad_tower, grad_scale) = train()
        assert loss.numpy() == np.float32(want.loss) and (grad_tower.numpy() == want.grad_queries).all()
        assert grad_scale.numpy() == np.float32(want.grad_scale)


def test_context():
    queries, documents, _ = batch("defaults", "float32")
    with negcos.Context(threads=1, isa="scalar") as context:
        loss = negative_cosine_loss(queries, documents, context=context)
    assert loss.numpy() == np.float32(negcos.evaluate(queries, documents).loss)
    with pytest.raises(negcos.Error, match="context is closed"):
        negative_cosine_loss(queries, documents, context=context)


def test_second_derivatives():
    queries, documents, _ = batch("defaults", "float32")
    queries = tf.constant(queries)
    with tf.GradientTape() as outer:
        outer.watch(queries)
        with tf.GradientTape() as tape:
            tape.watch(queries)
            loss = negative_cosine_loss(queries, documents)
        gradient = tf.reduce_sum(tape.gradient(loss, queries) ** 2)
    with pytest.raises(negcos.UnsupportedError, match="no second derivatives"):
        outer.gradient(gradient, queries)


MISTAKES = [  # arguments, error, what it says
    (dict(queries=np.ones(4, np.float32)), "InvalidArgument", r"queries is \[4\], expected \[rows, columns\]"),
    (dict(documents=np.ones((12, 3), np.float32)), "InvalidArgument", "documents"),
    (dict(documents=np.ones((12, 16))), "InvalidArgument", "documents is of float64, expected the queries' float32"),
    (dict(queries=np.ones((12, 16), np.int32)), "InvalidArgument", "queries is of int32, expected one of"),
    (dict(hard_negatives=np.ones((7, 16), np.float32)), "InvalidArgument", "hard_negatives"),
    (dict(weights=np.ones(3)), "InvalidArgument", r"weights is \[3\], expected \[12\]"),
    (dict(positives=np.full(12, 99)), "InvalidArgument", r"positives\[0\] is 99"),
    (dict(positives=np.ones(12)), "InvalidArgument", "positives is of float64, expected int64"),
    (dict(document_ids=np.arange(12)), "InvalidArgument", "document_ids is given, expected exclude"),
    (dict(log_probability=np.full(12, math.nan)), "InvalidArgument", r"log_probability\[0\]"),
    (dict(rounds=-1), "InvalidArgument", "rounds is -1"),
    (dict(temperature=0), "InvalidArgument", "temperature is 0"),
    (dict(step=tf.constant(-1)), "InvalidArgument", "step is -1"),
    (dict(direction="both"), "Unimplemented", "direction BOTH"),
]
AT_ONCE = [
    (dict(objective="nope"), ValueError, "objective is 'nope', expected one of softmax, "),
    (dict(rounds=1.5), TypeError, "rounds is a float, expected an integer"),
    (dict(margin="x"), TypeError, "margin is 'x', expected a number"),
    (dict(temprature=1), TypeError, "unexpected option 'temprature', expected some of objective, "),
    (dict(seed=-1), ValueError, "seed is -1, expected 0 to 18446744073709551615"),
    (dict(step=tf.constant(1.0)), TypeError, "step is of float32, expected integers"),
    (dict(scale=tf.ones(3)), ValueError, r"scale is \(3,\), expected a number"),
    (dict(context="x"), TypeError, "context is a str"),
]


@pytest.mark.parametrize("mistake", range(len(MISTAKES)))
def test_mistakes(mistake):
    arguments, kind, says = MISTAKES[mistake]
    queries, documents, _ = batch("defaults", "float32")
    arguments = {"queries": queries, "documents": documents, **arguments}
    with pytest.raises(negcos.Error, match=says):
        negative_cosine_loss(**arguments)
    with pytest.raises(getattr(tf.errors, f"{kind}Error"), match=says):
        tf.function(lambda: negative_cosine_loss(**arguments))()


@pytest.mark.parametrize("name", MASKED)
def test_masks(name):
    check_masks(negative_cosine_loss, name)


@pytest.mark.parametrize("name", MASKED)
def test_layer_masks(name):
    queries, documents, _ = batch("defaults", "float32")
    arguments = {"queries": queries, "documents": documents, **masked_arguments(name)}
    options = {key: arguments.pop(key) for key in ("exclude", "sampling", "margin", "prefix_dims") if key in arguments}
    with pytest.raises(ValueError, match=f"^{name} has masked elements, expected none"):
        NegativeCosineLayer(4, 1.0, **options)([arguments.pop("queries"), arguments.pop("documents")], **arguments)


@pytest.mark.parametrize("mode", MODES)
def test_vectors_of_other_types(mode):
    """As of negcos.evaluate: NumPy's of another byte order, and tensors of bool and of half precision."""
    queries, documents, _ = batch("defaults", "float32")
    mask = np.arange(len(queries)) % 3 > 0
    want = negcos.evaluate(queries, documents, weights=mask).loss
    swapped = queries.astype(">f4")  # which the framework copies
    assert MODES[mode](lambda: negative_cosine_loss(swapped, documents, weights=mask))() == np.float32(want)
    for weights in (mask, mask.astype(">f8"), mask.astype(">f2"), tf.constant(mask), tf.cast(mask, tf.bfloat16)):
        assert MODES[mode](lambda: negative_cosine_loss(queries, documents, weights=weights))() == np.float32(want)
    ids = np.arange(len(documents)) % 5 - 2**40
    options = dict(sampling="all", exclude="same-document-id")
    want = negcos.evaluate(queries, documents, document_ids=ids, **options).loss
    got = MODES[mode](lambda: negative_cosine_loss(queries, documents, document_ids=ids.astype(">i8"), **options))()
    assert got == np.float32(want)


@pytest.mark.parametrize("mistake", range(len(AT_ONCE)))
def test_mistakes_at_once(mistake):
    arguments, kind, says = AT_ONCE[mistake]
    queries, documents, _ = batch("defaults", "float32")
    with pytest.raises(kind, match=says):
        negative_cosine_loss(queries, documents, **arguments)


def test_everything():
    """Each argument of negcos.evaluate but for what makes outputs is one of the loss, with the same default."""
    known, own = (
        {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
        for function in (negcos.evaluate, negative_cosine_loss)
    )
    del known["outputs"], known["out"], own["training"]
    assert own == known


# Keras


def towers(seed=0, features=Task.FEATURES):
    return [
        tf.keras.layers.Dense(
            16,
            use_bias=False,
            kernel_initializer=tf.keras.initializers.RandomNormal(0, 0.15, seed + k),
            name=f"tower{k}",
        )
        for k in range(2)
    ]


def identity_loss(_, output):
    return output


def output_model(layer):
    """As the layer was used: its output is the loss."""
    inputs = [tf.keras.Input((Task.FEATURES,)) for _ in range(2)]
    sides = [tower(side) for tower, side in zip(towers(), inputs)]
    model = tf.keras.Model(inputs, layer(sides))
    model.compile(tf.keras.optimizers.Adam(3e-3), loss=identity_loss)
    return model


def test_layer_shape():
    queries, documents, _ = batch("defaults", "float64")
    loss = NegativeCosineLayer(5, 0.5, seed=3)([queries, documents])
    assert loss.shape == (1,) and loss.dtype == tf.float64  # nothing was cast
    assert float(loss[0]) == negcos.evaluate(queries, documents, rounds=5, temperature=0.5, seed=3).loss


def test_layer_weights():
    layer = NegativeCosineLayer(5, 0.5)
    layer([*batch("defaults", "float32")[:2]])
    assert not layer.trainable_weights and len(layer.weights) == 1


def gradient_of(function, *sources):
    with tf.GradientTape() as tape:
        tape.watch(sources)
        loss = function(*sources)
    return loss, tape.gradient(loss, sources)


def plain(function):
    return function


def in_a_branch(call):
    return lambda q, d: tf.cond(q[0, 0] < 99, lambda: call(q, d), lambda: 0 * q[0, :1])


STEPS = {  # of a call, and of the gradient of that
    "eager": (plain, plain),
    "graph": (plain, tf.function),
    "nested": (tf.function, plain),
    "in a branch": (in_a_branch, tf.function),
    "recomputed": (tf.recompute_grad, plain),
    "recomputed in a graph": (tf.recompute_grad, tf.function),
    "recomputed, nested": (lambda call: tf.function(tf.recompute_grad(call)), plain),
}


def loss_and_gradient(call, mode):
    inner, outer = STEPS[mode]
    return outer(lambda *sources: gradient_of(inner(call), *sources))


@pytest.mark.parametrize("mode", STEPS)
def test_layer_steps(mode):
    """The backward pass counts the step; the gradients are those of the loss's own negatives."""
    queries, documents, _ = batch("defaults", "float32")
    sources = tf.constant(queries), tf.constant(documents)
    layer = NegativeCosineLayer(5, 1.0, seed=3)
    step = loss_and_gradient(lambda *sources: layer([*sources], training=True), mode)
    for count in range(3):
        want = negcos.evaluate(queries, documents, rounds=5, seed=3, step=count)
        loss, (grad_queries, grad_documents) = step(*sources)
        assert loss[0].numpy() == np.float32(want.loss)
        assert (grad_queries.numpy() == want.grad_queries).all() and (
            grad_documents == want.grad_documents
        ).numpy().all()
        assert int(layer.step.numpy()) == count + 1


@pytest.mark.parametrize("mode", STEPS)
def test_layer_step_of_callers(mode):
    """One that is given is drawn for, and counts nothing."""
    queries, documents, _ = batch("defaults", "float32")
    sources = tf.constant(queries), tf.constant(documents)
    layer = NegativeCosineLayer(5, 1.0)
    count = tf.Variable(7, dtype=tf.int64)
    two = loss_and_gradient(lambda *sources: layer([*sources], step=count) + layer([*sources], step=2), mode)
    wants = [negcos.evaluate(queries, documents, rounds=5, step=step) for step in (7, 2)]
    for _ in range(2):
        loss, (gradient, _) = two(*sources)
        assert loss[0].numpy() == sum(np.float32(want.loss) for want in wants)
        np.testing.assert_allclose(gradient, sum(want.grad_queries for want in wants), rtol=0, atol=1e-7)
    assert int(layer.step.numpy()) == 0


def test_layer_step_without_training():
    """Only a gradient counts, once for each step, and none of evaluation."""
    queries, documents, _ = batch("defaults", "float32")
    sources = tf.constant(queries), tf.constant(documents)
    layer = NegativeCosineLayer(5, 1.0)
    losses = [np.float32(negcos.evaluate(queries, documents, rounds=5, step=step).loss) for step in range(3)]

    def call(training):
        return lambda *sources: layer([*sources], training=training)

    for training in (True, None, False):
        assert call(training)(*sources)[0].numpy() == losses[0]
        assert tf.function(call(training))(*sources)[0].numpy() == losses[0]
    assert gradient_of(call(False), *sources)[0][0].numpy() == losses[0] and int(layer.step.numpy()) == 0
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(sources)
        loss = call(None)(*sources) + call(True)(*sources)
    assert loss[0].numpy() == 2 * losses[0]
    first, second = (tape.gradient(loss, sources)[0].numpy() for _ in range(2))
    assert (first == second).all() and int(layer.step.numpy()) == 1
    assert call(False)(*sources)[0].numpy() == call(True)(*sources)[0].numpy() == losses[1]
    for count in (2, 3):  # each part of an accumulated gradient has negatives of its own
        gradient_of(call(True), *sources)
        assert int(layer.step.numpy()) == count
    layer.step.assign(0)
    assert tape.gradient(loss, sources) and int(layer.step.numpy()) == 1


def test_layer_in_loops():
    queries, documents, _ = batch("defaults", "float32")
    sources = tf.constant(queries), tf.constant(documents)
    layer = NegativeCosineLayer(5, 1.0)

    @tf.function
    def summed(*sources):  # one backward pass, one step
        total = 0.0
        for _ in tf.range(3):
            total += layer([*sources])[0]
        return total

    @tf.function
    def one_by_one():
        for _ in tf.range(3):
            gradient_of(lambda *s: layer([*s]), *sources)

    wants = [negcos.evaluate(queries, documents, rounds=5, step=step) for step in range(2)]
    for step, want in enumerate(wants):
        loss, (gradient, _) = tf.function(gradient_of)(summed, *sources)
        np.testing.assert_allclose(loss, 3 * want.loss, rtol=1e-6)
        np.testing.assert_allclose(gradient, 3 * want.grad_queries, rtol=0, atol=1e-6)
        assert int(layer.step.numpy()) == step + 1
    one_by_one()
    assert int(layer.step.numpy()) == 5


@pytest.mark.parametrize("mode", MODES)
def check_layer_without_state(mode):
    """stateless_call hands the step in and out: there the forward pass counts."""
    queries, documents, _ = batch("defaults", "float32")
    sources = tf.constant(queries), tf.constant(documents)
    layer = NegativeCosineLayer(5, 1.0)
    layer(sources)  # Keras demands it
    for training, counted in ((True, 1), (tf.constant(True), 1), (None, 0), (False, 0), (tf.constant(False), 0)):

        @MODES[mode]
        def call(step, queries, documents):
            with tf.GradientTape() as tape:
                tape.watch(queries)
                loss, (after,) = layer.stateless_call([], [step], [queries, documents], training=training)
            return loss, tape.gradient(loss, queries), after

        for step in (0, 4):
            want = negcos.evaluate(queries, documents, rounds=5, step=step)
            loss, gradient, after = call(tf.constant(step, tf.int64), *sources)
            assert loss[0].numpy() == np.float32(want.loss) and (gradient.numpy() == want.grad_queries).all()
            assert int(after) == step + counted and int(layer.step.numpy()) == 0


if not KERAS_2:  # which has no such call
    test_layer_without_state = check_layer_without_state


SAVES = {
    "saved_model": tf.saved_model.save,
    "keras": lambda model, folder: model.save(folder) if KERAS_2 else model.export(folder, verbose=False),
}


@pytest.mark.parametrize("save", SAVES)
def test_layer_in_a_saved_model(save, tmp_path):
    """It runs in this process only, but what else the model has is saved with it, and training goes on."""
    layer = NegativeCosineLayer(5, 1.0)
    model = output_model(layer)
    task = Task()
    pairs = [task.queries[:32], task.documents[:32]]
    for count in (1, 2):
        model.fit(pairs, np.zeros(32), verbose=0)
        assert int(layer.step.numpy()) == count
        SAVES[save](model, str(tmp_path))
        assert (tmp_path / "saved_model.pb").exists() and tf.saved_model.load(str(tmp_path)).signatures


def test_layer_on_replicas():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        layer = NegativeCosineLayer(10, 1.0)
        model = output_model(layer)
    task = Task()
    pairs = [task.queries[:512], task.documents[:512]]
    history = model.fit(pairs, np.zeros(512), batch_size=128, epochs=2, verbose=0).history["loss"]
    assert history[1] < history[0] and int(layer.step.numpy()) == 8


def test_layer_as_published():
    queries, documents, _ = batch("defaults", "float32")
    published = NegativeCosineLayer(5, 0.5, as_published=True)([queries, documents])
    assert published.numpy()[0] == np.float32(negcos.evaluate(queries, documents, objective="batch-softmax").loss)
    # z = 20 cos; the layer's code: exp(z / t) over its sum in each of NEG + 1 columns, to the power of t
    z = 20 * cosines(queries, documents, "bd,bd->b")
    np.testing.assert_allclose(published[0], -tf.reduce_mean(tf.nn.log_softmax(z)), rtol=1e-5)


def test_layer_evaluates_once(evaluations):
    sources = [tf.random.normal((8, 4)) for _ in range(2)]
    layer = NegativeCosineLayer(2, 1.0)
    for training, asked in ((True, 1), (None, 1), (False, 2)):
        with tf.GradientTape() as tape:
            tape.watch(sources)
            loss = layer(sources, training=training)
        assert all(gradient is not None for gradient in tape.gradient(loss, sources))
        assert len(evaluations) == asked
        evaluations.clear()
    layer(sources, training=False)
    assert evaluations == [[]]


def test_layer_options_and_config():
    queries, documents, arguments = batch("all-excluded", "float32")
    ids = {name: arguments.pop(name) for name in ("document_ids", "query_ids")}
    layer = NegativeCosineLayer(4, 2.0, scale=10, name="nce", dtype="float32", **arguments)
    config = layer.get_config()
    again = NegativeCosineLayer.from_config(config)
    assert again.get_config() == config and again.name == "nce" and config["NEG"] == 4 and config["t"] == 2
    assert config["exclude"] == ["same-document-id", "same-query-id"]
    want = negcos.evaluate(queries, documents, scale=10, temperature=2, **arguments, **ids).loss
    for made in (layer, again):
        assert made([queries, documents], **ids).numpy()[0] == np.float32(want)


@pytest.mark.parametrize(
    "arguments, kind, says",
    [
        (dict(NEG="x"), TypeError, "NEG is a str, expected an integer"),
        (dict(t="x"), TypeError, "t is 'x', expected a number"),
        (dict(rounds=3), ValueError, "rounds is given, expected it as NEG"),
        (dict(temperature=3), ValueError, "temperature is given, expected it as t"),
        (dict(step=3), ValueError, "step is given, expected it as an argument of the call"),
        (dict(objective="nope"), ValueError, "objective is 'nope'"),
        (dict(as_published=True, objective="softmax"), NotImplementedError, "as_published and objective"),
        (dict(temprature=1), (TypeError, ValueError), "temprature"),  # Keras's own
    ],
)
def test_layer_mistakes(arguments, kind, says):
    with pytest.raises(kind, match=says):
        NegativeCosineLayer(**{"NEG": 4, "t": 1.0, **arguments})


def test_layer_mistakes_in_calls():
    queries, documents, _ = batch("defaults", "float32")
    keras_own = (ValueError, RuntimeError)  # which Keras 3 makes of exceptions that it cannot make again
    with pytest.raises(keras_own, match="inputs is a list, expected .queries, documents."):
        NegativeCosineLayer(4, 1.0)([queries])
    with pytest.raises(keras_own, match="rounds is -1, expected 0 or more"):
        NegativeCosineLayer(-1, 1.0)([queries, documents])


def test_layer_fits_as_output(tmp_path):
    task = Task()
    layer = NegativeCosineLayer(10, 1.0, name="loss")
    model = output_model(layer)
    pairs = [task.queries[:1100], task.documents[:1100]]
    history = model.fit(pairs, np.zeros(1100), batch_size=128, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert history[2] < 0.8 * history[0]
    assert int(layer.step.numpy()) == 27  # 9 batches, the last one smaller
    evaluated = [model.evaluate(pairs, np.zeros(1100), batch_size=128, verbose=0) for _ in range(2)]
    assert evaluated[0] == evaluated[1] and int(layer.step.numpy()) == 27

    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras", custom_objects={"identity_loss": identity_loss})
    assert int(loaded.get_layer("loss").step.numpy()) == 27
    assert loaded.evaluate(pairs, np.zeros(1100), batch_size=128, verbose=0) == evaluated[0]
    for each in (model, loaded):  # training goes on as it would have
        each.fit(pairs, np.zeros(1100), batch_size=128, shuffle=False, verbose=0)
    for ours, theirs in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(ours, theirs)


class TwoTower(tf.keras.Model):
    """Its loss by add_loss: negcos's layer, or TensorFlow's own with negatives of its own."""

    def __init__(self, layer=None):
        super().__init__()
        self.sides = towers()
        self.layer = layer

    def call(self, inputs, training=None):
        queries, documents = (tower(side) for tower, side in zip(self.sides, inputs))
        if self.layer is not None:
            self.add_loss(self.layer([queries, documents]))
        else:
            rows = tf.range(tf.shape(documents)[0])
            rows = tf.stack([rows] + [tf.random.shuffle(rows) for _ in range(10)], 1)
            logits = 20 * cosines(queries, tf.gather(documents, rows), "bd,bkd->bk")
            self.add_loss(
                tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(tf.zeros_like(rows[:, 0]), logits))
            )
        return queries

    def recall(self, task):
        return task.recall(*self.sides)


def test_layer_trains_as_well_as_own():
    tf.random.set_seed(1)
    task = Task()
    recalls = []
    for layer in (NegativeCosineLayer(10, 1.0), None):
        model = TwoTower(layer)
        model.compile(tf.keras.optimizers.Adam(3e-3))
        pairs = [task.queries[: task.TRAIN], task.documents[: task.TRAIN]]
        model([side[:2] for side in pairs])
        before = model.recall(task)
        model.fit(pairs, batch_size=128, epochs=8, verbose=0)
        recalls.append(model.recall(task))
        assert before < 0.05 and recalls[-1] > 0.6
    assert abs(recalls[0] - recalls[1]) < 0.03, recalls


def test_layer_mixed_precision():
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = output_model(NegativeCosineLayer(10, 1.0))
        task = Task()
        pairs = [task.queries[:512], task.documents[:512]]
        history = model.fit(pairs, np.zeros(512), batch_size=64, epochs=3, verbose=0).history["loss"]
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert history[2] < history[0]


def test_layer_hard_negatives_in_a_model():
    inputs = [tf.keras.Input((6,)) for _ in range(3)]
    loss = NegativeCosineLayer(2, 1.0)(inputs[:2], hard_negatives=inputs[2])
    model = tf.keras.Model(inputs, loss)
    arrays = [np.random.default_rng(k).standard_normal((8, 6)).astype(np.float32) for k in range(3)]
    want = negcos.evaluate(*arrays[:2], rounds=2, hard_negatives=arrays[2]).loss
    assert model(arrays).numpy()[0] == np.float32(want)


def test_example(source_root):
    said = run(source_root / "bindings/python/examples/two_tower_tensorflow.py")
    before, after = (float(re.search(rf"^Recall@10 {when} ([0-9.]+)$", said, re.M)[1]) for when in ("before", "after"))
    assert before < 0.05 and after > 0.6


def test_readme(source_root, tmp_path):
    script = tmp_path / "readme.py"
    checks = """
for ids in ([0, 1, 0, 2], numbered, hashed):
    result = negcos.evaluate(queries, documents, **{**options, "document_ids": ids, "log_probability": None})
    print(result.loss, result.excluded)
"""
    script.write_text(readme_blocks(source_root, "tensorflow") + checks)
    said = run(script)
    losses = [float(loss) for loss in re.findall(r"\bloss: ([0-9.]+)", said)]
    assert len(losses) == 5 and losses[4] < losses[0]
    with_ids, _, *results = said.splitlines()[-5:]
    assert results == [results[0]] * 3 and results[0].endswith(" 2")
    assert float(with_ids) == pytest.approx(float(results[0][:-2]), rel=1e-6)
