# SPDX-License-Identifier: Apache-2.0
"""The loss in JAX, for grad, jit and vmap.

    loss, gradients = jax.value_and_grad(negcos.jax.negative_cosine_loss, (0, 1))(queries, documents, step=step)

On the CPU, where XLA calls the library by its foreign function interface: embeddings are read and gradients written
where XLA keeps them, without a copy. (jax.pure_callback copies both, and on a machine with one core waits for ever for
the copy of a large array.) Needs JAX 0.5 or later.
"""

from __future__ import annotations

import functools
import json
import uuid
from typing import TYPE_CHECKING, Any, Optional

import jax
import jax.numpy as jnp
import numpy as np

from . import _xla
from ._arrays import as_numpy
from ._context import Context, integer, number
from ._errors import ResourceError, error
from ._evaluate import MATRICES, VECTORS, evaluate
from ._framework import checked, loss_dtype, refuse_masks_of, shared_context
from ._options import FixedOptions, shows_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["negative_cosine_loss"]


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
    context: Optional[Context] = None,
    **options: Unpack[FixedOptions],
) -> jax.Array:
    """The loss of a batch: a scalar, float64 for float64 and float32 for float32, float16 and bfloat16.

    queries [B, d], documents [M, d], hard_negatives [B * H, d], all of one of these dtypes. Gradients reach them, and
    scale and bias where these are JAX arrays. The rest are constants to the gradient and have the shapes that
    negcos.evaluate states; int32 and float32 do as well. NumPy arrays and Python numbers arrive with all 64 bits.
    JAX arrays do not while jax_enable_x64 is off, AND THE ARGUMENTS OF A JITTED FUNCTION ARE JAX ARRAYS: JAX cuts int64
    ids to 32 bits, silently and before they come here, so that two items may become one. Number them within the batch:
    numpy.unique(ids, return_inverse=True)[1].
    seed, step: numbers or arrays of one integer. Traced ones keep jit from compiling anew at each step.
    context: default: one that all calls share, one at a time. One that is given here lives as long as the process.
    rounds, options: as those of negcos.evaluate; fixed when traced.

    Under a gradient one evaluation computes the loss and its gradients, which are kept for the backward pass; without
    it, the loss alone. vmap evaluates one batch after the other. There are no second derivatives and no forward mode
    (jvp): JAX says so.

    Raises negcos.Error, with the argument in a sentence, when it is traced. What depends on the numbers in an array (an
    index out of range) comes when it runs, as JAX's own error with the same sentence.
    """
    given = locals()
    refuse_masks_of(given)
    fixed = checked({"rounds": rounds, **options})
    differentiable = {}
    for name in MATRICES:
        value = given[name]
        if value is not None:
            if isinstance(value, np.ndarray):
                value = as_numpy(name, value)
            # asarray would copy a traced array
            differentiable[name] = value if isinstance(value, jax.Array) else jnp.asarray(value)
    for name in ("scale", "bias"):
        if isinstance(given[name], jax.Array):
            value = _scalar(name, given[name])
            differentiable[name] = value.astype(jnp.promote_types(value.dtype, jnp.float32))
        else:
            fixed[name] = number(name, given[name])
    constants: dict[str, Any] = {}
    for name in ("seed", "step"):
        value = given[name]
        if not isinstance(value, jax.Array):
            value = np.asarray(integer(name, value, 64, signed=False), np.uint64)
        elif not jnp.issubdtype(value.dtype, jnp.integer):
            raise error("dtype", f"{name} is of {value.dtype}, expected integers")
        constants[name] = _scalar(name, value)
    for name in VECTORS:
        if given[name] is not None:
            constants[name] = given[name] if isinstance(given[name], jax.Array) else as_numpy(name, given[name])
    wide = {}
    for name, value in constants.items():
        if isinstance(value, np.ndarray) and value.dtype in (np.int64, np.uint64, np.float64):
            wide[name] = value.dtype.str
            constants[name] = np.array(value, order="C")[..., None].view(np.uint32)
    call = {"names": [*differentiable, *constants], "wide": wide, "options": fixed, "context": _token(context)}
    # One text for what is fixed: equal ones are one and the same to jit, in a cache on disk as well.
    text = json.dumps(call, sort_keys=True)
    arrays = (*differentiable.values(), *constants.values())
    _check(text, tuple((array.shape, np.dtype(array.dtype)) for array in arrays))
    loss: jax.Array = _loss(text, tuple(differentiable.values()), tuple(constants.values()))
    return loss


def _scalar(name: str, value: Any) -> Any:
    if value.shape != ():
        raise error("shape", f"{name} is {list(value.shape)}, expected a number")
    return value


_contexts: dict[str, Context] = {}


def _token(context: Optional[Context]) -> Optional[str]:
    if context is None:
        return None
    if not isinstance(context, Context):
        raise error("dtype", f"context is a {type(context).__name__}, expected a negcos.Context or None")
    for token, known in _contexts.items():
        if known is context:
            return token
    token = uuid.uuid4().hex  # no other process knows it
    _contexts[token] = context
    return token


@functools.lru_cache(maxsize=None)
def _parsed(text: str) -> Any:
    return json.loads(text)


def _arguments(text: str, arrays: list[Any]) -> dict[str, Any]:
    call = _parsed(text)
    arguments = dict(zip(call["names"], arrays))
    for name, dtype in call["wide"].items():
        arguments[name] = arguments[name].view(dtype)[..., 0]
    return {**arguments, **call["options"]}


@functools.lru_cache(maxsize=256)
def _check(text: str, arrays: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]) -> None:
    """Raise now, rather than when it runs, what shapes, dtypes and options give away: by the call itself on zeros, in a
    context that has no memory to go on when all is well."""
    with Context(threads=1, workspace_limit=1) as context:
        try:
            zeros = [np.zeros(shape, dtype) for shape, dtype in arrays]
            evaluate(**_arguments(text, zeros), outputs=(), context=context)
        except ResourceError:
            pass


def _run(text: str, differentiable: tuple[Any, ...], constants: tuple[Any, ...], gradients: bool) -> Any:
    struct: Any = jax.ShapeDtypeStruct
    made = [struct((), loss_dtype(differentiable[0].dtype))]
    made += [struct(array.shape, array.dtype) for array in differentiable if gradients]
    return _xla.call(text, made, *differentiable, *constants)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(text: str, differentiable: tuple[Any, ...], constants: tuple[Any, ...]) -> Any:
    return _run(text, differentiable, constants, False)[0]


def _forward(text: str, differentiable: tuple[Any, ...], constants: tuple[Any, ...]) -> Any:
    loss, *gradients = _run(text, differentiable, constants, True)
    return loss, gradients


def _backward(text: str, gradients: list[Any], upstream: Any) -> Any:
    # Rounded once. None: constants have no gradient.
    return tuple((upstream * array).astype(array.dtype) for array in gradients), None


_loss.defvjp(_forward, _backward)


def _evaluate(text: str, inputs: list[Any], outputs: list[Any]) -> None:
    call = _parsed(text)
    loss, *gradients = outputs
    made = dict(zip(call["names"], gradients))
    numbers = {name: made.pop(name) for name in ("scale", "bias") if name in made}
    result = evaluate(
        **_arguments(text, inputs),
        outputs=(),
        out={f"grad_{name}": array for name, array in made.items()},
        context=shared_context() if call["context"] is None else _contexts[call["context"]],
    )
    loss[()] = result.loss
    for name, array in numbers.items():
        array[()] = getattr(result, f"grad_{name}")


_xla.register(_evaluate)
