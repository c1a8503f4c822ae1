# SPDX-License-Identifier: Apache-2.0
"""The loss in TensorFlow, eagerly and in tf.function, and as a Keras layer.

    loss = negcos.tensorflow.negative_cosine_loss(queries, documents, rounds=20, step=step)
    loss = negcos.tensorflow.NegativeCosineLayer(NEG=20, t=1.0)([query_embedding, doc_embedding])

On the CPU embeddings are read where they lie, and gradients are handed over as they are; tensors on another device are
copied to the CPU and back. XLA (jit_compile=True) cannot compile calls of Python, hence not these; and a SavedModel
that holds one runs it in this process only: save models as .keras or weights, export the towers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]
from tensorflow.python.saved_model import save_context  # type: ignore[import-untyped]

from ._arrays import as_numpy, refuse_masks
from ._context import Context, integer, number
from ._errors import error
from ._evaluate import MATRICES, VECTORS, evaluate
from ._framework import checked, loss_dtype, refuse_masks_of, shared_context
from ._options import OPTIONS, FixedOptions, shows_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["NegativeCosineLayer", "negative_cosine_loss"]


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
@shows_options(FixedOptions)
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
    rounds: int = 4,
    scale: Any = 20.0,
    bias: Any = 0.0,
    seed: Any = 0,
    step: Any = 0,
    training: bool = True,
    context: Optional[Context] = None,
    **options: Unpack[FixedOptions],
) -> Any:
    """The loss of a batch: a scalar tensor, float64 for float64 and float32 for float32, float16 and bfloat16.

    queries [B, d], documents [M, d], hard_negatives [B * H, d], all of one of these dtypes; batch sizes may be unknown
    when a graph is made. Gradients reach them, and scale and bias, which may be tensors or variables. The rest are
    constants to the gradient and have the shapes that negcos.evaluate states; int32 and float32 do as well.
    seed, step: numbers, or tensors or variables of integers. In tf.function a Python number is part of the graph, so
        pass a step that counts as a tf.Variable, and advance it after the gradient: what is computed again before
        (tf.recompute_grad) then draws the same negatives.
    training: False computes the loss alone; gradients that are asked for all the same are then a second evaluation.
        Otherwise one evaluation computes both, and the gradients are kept for the backward pass.
    context: default: one that all calls share, one at a time.
    rounds, options: as those of negcos.evaluate.

    Raises negcos.Error, with the argument in a sentence, eagerly and for names and types of options; the rest of
    mistakes in a graph come when it runs, as tf.errors.InvalidArgumentError (or .UnimplementedError,
    .ResourceExhaustedError) with the same sentence. There are no second derivatives: asking for them is an error.
    """
    given = locals()
    refuse_masks_of(given)
    fixed = checked({"rounds": rounds, **options})
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
    the shapes that negcos.evaluate states.
    step: with `seed`, the key of the draws; a weight that is saved with the model. It counts the steps trained: the
        backward pass of a call, in whatever loop, sets it to one more than the step that the call drew for, and never
        twice. Until then all calls draw the same negatives, so a forward pass that is computed again (by
        tf.recompute_grad, of this call alone) draws what it drew. A call with training=False computes no gradients
        and does not count.
        layer(..., step=k) draws for step k, and neither reads nor changes the weight: for closures that are evaluated
        more than once a step, and for recomputed ones where a step has several calls.
        In Keras 3's stateless_call with training=True, the forward pass counts, in the state that it returns.
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
        keras = {name: options.pop(name) for name in list(options) if name not in OPTIONS}
        if not _KERAS_2 and tf.keras.config.backend() != "tensorflow":
            raise error("unsupported", "Keras runs on another backend than TensorFlow")
        super().__init__(**{**keras, "autocast": False})
        self.supports_jit = False  # or Keras would have XLA compile it
        for name, reason in {"rounds": "NEG", "temperature": "t", "step": "an argument of the call"}.items():
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
        step: Any = None,
        training: Any = None,
    ) -> Any:
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            raise error("value", f"inputs is a {type(inputs).__name__}, expected [queries, documents]")
        config = self._config
        learns = training is None or tf.is_tensor(training) or bool(training)
        drawn = tf.convert_to_tensor(self.step) if step is None else step
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
            step=drawn,
            training=learns,
            context=self._context,
            **objective,
            **self._options,
        )
        if learns and step is None:
            variable = self.step if _KERAS_2 else self.step.value
            if not isinstance(variable, tf.Tensor):
                loss = self._counted(loss, variable, drawn, training if tf.is_tensor(training) else True)
            elif training is not None:  # stateless_call: the step comes in, and goes out with the forward pass
                self.step.assign(drawn + tf.cast(training, tf.int64))
        return tf.reshape(loss, [1])

    def _counted(self, loss: Any, variable: Any, drawn: Any, training: Any) -> Any:
        """loss, whose backward pass counts the step, if none of the same step has. A forward pass must not: what runs
        twice would draw anew."""
        # As this graph knows it: in the gradient of a loop's or a branch's body the variable itself is unknown.
        handle = None if tf.executing_eagerly() else drawn.op.inputs[0]

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def counted(loss: Any) -> Any:
            def gradient(upstream: Any) -> Any:
                if save_context.in_save_context():  # which traces gradients outside of the handle's graph
                    return tf.identity(upstream)
                step = variable if handle is None else tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.int64)
                more = tf.cast(tf.equal(step, drawn) & training, tf.int64)
                if handle is None:
                    variable.assign_add(more)
                    return tf.identity(upstream)
                with tf.control_dependencies([tf.raw_ops.AssignAddVariableOp(resource=handle, value=more)]):
                    return tf.identity(upstream)

            return tf.identity(loss), gradient

        return counted(loss)

    def compute_output_shape(self, *_: Any, **__: Any) -> tuple[int]:
        return (1,)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._config, **self._options}
