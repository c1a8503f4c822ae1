# SPDX-License-Identifier: Apache-2.0
"""The loss in TensorFlow, eagerly and in tf.function, and as a Keras layer.

    loss = negcos.tensorflow.negative_cosine_loss(queries, documents, rounds=20, step=step)
    loss = negcos.tensorflow.NegativeCosineLayer(NEG=20, t=1.0)([query_embedding, doc_embedding])

On the CPU embeddings are read where they lie, and gradients are handed over as they are; tensors on another device are
copied to the CPU and back. XLA (jit_compile=True) cannot compile calls of Python, hence not these; and a SavedModel
cannot hold them: save models as .keras or weights, export the towers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]

from ._arrays import as_numpy, refuse_masks
from ._context import Context, integer, number
from ._errors import error
from ._evaluate import evaluate
from ._framework import MATRICES, VECTORS, Options, checked, loss_dtype, refuse_masks_of, shared_context

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["NegativeCosineLayer", "negative_cosine_loss"]


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def negative_cosine_loss(
    queries: Any,
    documents: Any,
    *,
    hard_negatives: Any = None,
    positives: Any = None,
    negatives: Any = None,
    document_ids: Any = None,
    query_ids: Any = None,
    log_probability: Any = None,
    weights: Any = None,
    scale: Any = 20.0,
    bias: Any = 0.0,
    seed: Any = 0,
    step: Any = 0,
    training: bool = True,
    context: Optional[Context] = None,
    **options: Unpack[Options],
) -> Any:
    """The loss of a batch: a scalar tensor, float64 for float64 and float32 for float32, float16 and bfloat16.

    queries [B, d], documents [M, d], hard_negatives [B * H, d], all of one of these dtypes; batch sizes may be unknown
    when a graph is made. Gradients reach them, and scale and bias, which may be tensors or variables. The rest are
    constants to the gradient and have the shapes that negcos.evaluate states; int32 and float32 do as well.
    seed, step: numbers, or tensors or variables of integers. In tf.function a Python number is part of the graph, so
        pass a step that counts as a tf.Variable.
    training: False computes the loss alone; gradients that are asked for all the same are then a second evaluation.
        Otherwise one evaluation computes both, and the gradients are kept for the backward pass.
    context: default: one that all calls share, one at a time.
    options: as those of negcos.evaluate.

    Raises negcos.Error, with the argument in a sentence, eagerly and for names and types of options; the rest of
    mistakes in a graph come when it runs, as tf.errors.InvalidArgumentError (or .UnimplementedError,
    .ResourceExhaustedError) with the same sentence. There are no second derivatives: asking for them is an error.
    """
    given = locals()
    refuse_masks_of(given)
    fixed = checked(options)
    inputs = {}
    for name in MATRICES:
        value = given[name]
        if value is not None or name != "hard_negatives":
            # In graphs TensorFlow takes the bytes of another order as they are.
            inputs[name] = tf.convert_to_tensor(as_numpy(name, value) if isinstance(value, np.ndarray) else value)
    inputs.update({name: _number(name, given[name]) for name in ("scale", "bias")})
    constants = {name: _integer(name, given[name]) for name in ("seed", "step")}
    for name in VECTORS:
        if given[name] is not None:
            value = given[name] if _is_tensor(given[name]) else as_numpy(name, given[name])
            constants[name] = tf.convert_to_tensor(value)

    def run(tensors: tuple[Any, ...], gradients: bool) -> list[Any]:
        arguments = {**dict(zip(inputs, tensors)), **constants}

        def call(*arrays: Any) -> list[Any]:
            return _fused({**dict(zip(arguments, arrays)), **fixed}, [*inputs] if gradients else [], context)

        if tf.executing_eagerly():
            return [_shared(array) for array in call(*map(np.asarray, arguments.values()))]
        types = [loss_dtype(tensors[0].dtype.as_numpy_dtype), *(tensor.dtype for tensor in tensors if gradients)]
        made: list[Any] = tf.nest.flatten(tf.numpy_function(call, list(arguments.values()), types))
        for tensor, shape in zip(made, [(), *(tensor.shape for tensor in tensors)]):
            tensor.set_shape(shape)
        return made

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def loss(*tensors: Any) -> Any:
        total, *kept = run(tensors, training)

        def gradient(upstream: Any) -> Any:
            return _scaled(upstream, kept or run(tensors, True)[1:], tensors)

        return total, gradient

    return loss(*inputs.values())


def _fused(arguments: dict[str, Any], gradients: list[str], context: Optional[Context]) -> list[Any]:
    """The loss, and its gradients with respect to the arguments named, in one evaluation."""
    out = {f"grad_{name}": _aligned(arguments[name]) for name in gradients if name not in ("scale", "bias")}
    result = evaluate(**arguments, outputs=(), out=out, context=context or shared_context())
    loss = np.asarray(result.loss, loss_dtype(arguments["queries"].dtype))
    return [loss, *(np.asarray(getattr(result, f"grad_{name}")) for name in gradients)]


def _aligned(like: Any) -> Any:
    """An array as TensorFlow takes it over without a copy: its first element on a boundary of 64 bytes."""
    memory = np.empty(like.nbytes + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + like.nbytes].view(like.dtype).reshape(like.shape)


def _scaled(upstream: Any, gradients: list[Any], inputs: tuple[Any, ...]) -> Any:
    """upstream * gradients, rounded once. To a second differentiation the gradients would look like constants: it is
    refused, and `inputs` is what makes it come here."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def scaled(upstream: Any, *_: Any) -> Any:
        def second(*_: Any) -> Any:
            raise error("unsupported", "negcos.tensorflow has no second derivatives")

        products = [upstream * tf.cast(gradient, upstream.dtype) for gradient in gradients[:-2]]
        products += [tf.cast(upstream, tf.float64) * gradient for gradient in gradients[-2:]]
        return [tf.cast(product, gradient.dtype) for product, gradient in zip(products, gradients)], second

    return scaled(upstream, *inputs)


def _shared(array: Any) -> Any:
    """A tensor over the array's memory: DLPack shares it, where convert_to_tensor copies."""
    if array.ndim == 0:
        return tf.convert_to_tensor(array)
    if array.dtype.name == "bfloat16":  # which NumPy cannot export
        return tf.bitcast(tf.experimental.dlpack.from_dlpack(array.view(np.uint16).__dlpack__()), tf.bfloat16)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _is_tensor(value: Any) -> bool:
    return tf.is_tensor(value) or hasattr(value, "__tf_tensor__") or isinstance(value, tf.Variable)


def _number(name: str, value: Any) -> Any:
    if not _is_tensor(value):
        return tf.constant(number(name, value), tf.float64)  # by way of float32 it would lose digits
    return tf.cast(_scalar(name, tf.convert_to_tensor(value)), tf.float64)


def _integer(name: str, value: Any) -> Any:
    if not _is_tensor(value):
        return tf.constant(integer(name, value, 64, signed=False), tf.uint64)
    tensor = _scalar(name, tf.convert_to_tensor(value))
    if not tensor.dtype.is_integer:
        raise error("dtype", f"{name} is of {tensor.dtype.name}, expected integers")
    return tensor


def _scalar(name: str, tensor: Any) -> Any:
    if tensor.shape.rank not in (0, None):
        raise error("shape", f"{name} is {tensor.shape}, expected a number")
    return tensor


_KERAS_2 = not hasattr(tf.keras, "config")
# Under tf.distribute each replica runs the layer; the step goes up by one.
_ONCE: Any = tf.VariableAggregation.ONLY_FIRST_REPLICA if _KERAS_2 else "only_first_replica"


@tf.keras.utils.register_keras_serializable(package="negcos")  # type: ignore[untyped-decorator, unused-ignore]
class NegativeCosineLayer(tf.keras.layers.Layer):  # type: ignore[misc]
    """layer([queries, documents]) is the loss of the batch, of shape [1].

    NEG: negatives of each query (`rounds`). t: the smoothing factor (`temperature`): logits are 20 * cosine / t.
    as_published=False: a softmax over each query's own candidates, as the original layer was described. True: what its
        code computes, a softmax of the positives over the batch, on which NEG and t have no influence; only to repeat
        old runs.
    Other options are those of negcos.evaluate (sampling="all", direction="both", margin=0.1, ...); scale and bias are
    numbers here. name, dtype, ...: as of any Keras layer; inputs are never cast.

    Calls take hard_negatives, positives, negatives, document_ids, query_ids, log_probability and weights by name, with
    the shapes that negcos.evaluate states. `step`, a weight that is saved with the model, counts calls with
    training=True, as fit() makes them: each draws new negatives. Without it the negatives stay the same, those of the
    next training step; with training=False no gradients are computed.
    context is no part of the config: a layer that is loaded uses the one that all share.
    """

    def __init__(
        self,
        NEG: int,
        t: float,
        *,
        as_published: bool = False,
        seed: int = 0,
        scale: float = 20.0,
        bias: float = 0.0,
        context: Optional[Context] = None,
        **options: Any,
    ) -> None:
        keras = {name: options.pop(name) for name in list(options) if name not in Options.__annotations__}
        if not _KERAS_2 and tf.keras.config.backend() != "tensorflow":
            raise error("unsupported", "Keras runs on another backend than TensorFlow")
        super().__init__(**{**keras, "autocast": False})
        self.supports_jit = False  # or Keras would have XLA compile it
        for name, reason in {"rounds": "NEG", "temperature": "t"}.items():
            if name in options:
                raise error("value", f"{name} is given, expected it as {reason}")
        if as_published and "objective" in options:
            raise error("unsupported", "as_published and objective exclude each other")
        self._options = checked(options)
        self._config = {
            "NEG": integer("NEG", NEG, 32),
            "t": number("t", t),
            "as_published": bool(as_published),
            "seed": integer("seed", seed, 64, signed=False),
            "scale": number("scale", scale),
            "bias": number("bias", bias),
        }
        self._context = context
        self.step = self.add_weight(
            name="step", shape=(), dtype="int64", initializer="zeros", trainable=False, aggregation=_ONCE
        )

    def __call__(self, inputs: Any, *more: Any, **named: Any) -> Any:
        """Keras makes tensors of arrays, without their masks, before it runs call()."""
        matrices = zip(MATRICES, inputs) if isinstance(inputs, (list, tuple)) else ()
        for name, value in (*matrices, *zip(("hard_negatives", *VECTORS), more), *named.items()):
            refuse_masks(name, value)
        return super().__call__(inputs, *more, **named)

    def call(
        self,
        inputs: Any,
        hard_negatives: Any = None,
        positives: Any = None,
        negatives: Any = None,
        document_ids: Any = None,
        query_ids: Any = None,
        log_probability: Any = None,
        weights: Any = None,
        training: Any = None,
    ) -> Any:
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            raise error("value", f"inputs is a {type(inputs).__name__}, expected [queries, documents]")
        config = self._config
        objective = {"objective": "batch-softmax"} if config["as_published"] else {"temperature": config["t"]}
        loss = negative_cosine_loss(
            *inputs,
            hard_negatives=hard_negatives,
            positives=positives,
            negatives=negatives,
            document_ids=document_ids,
            query_ids=query_ids,
            log_probability=log_probability,
            weights=weights,
            rounds=config["NEG"],
            scale=config["scale"],
            bias=config["bias"],
            seed=config["seed"],
            step=tf.identity(self.step),
            training=training is None or tf.is_tensor(training) or bool(training),
            context=self._context,
            **objective,
            **self._options,
        )
        if training is not None and (tf.is_tensor(training) or training):
            self.step.assign_add(tf.cast(training, tf.int64))
        return tf.reshape(loss, [1])

    def compute_output_shape(self, *_: Any, **__: Any) -> tuple[int]:
        return (1,)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._config, **self._options}
