# SPDX-License-Identifier: Apache-2.0
"""The loss for PyTorch, on the CPU, with gradients.

    loss = negcos.torch.NegativeCosineLoss(rounds=20)
    loss(queries, documents).backward()
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union, cast

import torch
import torch.fx._symbolic_trace
from torch import Tensor, nn

from ._arrays import READERS, View, view_dlpack
from ._context import Context, integer, items
from ._errors import error
from ._evaluate import MATRICES, VECTORS, Result, evaluate
from ._options import OPTIONS, FixedOptions, make_options, refuse_unknown, shows_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["NegativeCosineLoss", "negative_cosine_loss"]

Number = Union[float, Tensor]
F = TypeVar("F", bound=Callable[..., Any])

_DIFFERENTIABLE = ("queries", "documents", "hard_negatives", "scale", "bias")
_HALF = (torch.float16, torch.bfloat16)


_APART = "trace, compile or transform the towers alone, and call the loss on what they return"
_is_compiling = getattr(getattr(torch, "compiler", None), "is_compiling", bool)  # bool: from before torch.export
_is_fx_tracing = getattr(torch.fx._symbolic_trace, "is_fx_symbolic_tracing", torch.fx._symbolic_trace.is_fx_tracing)


def _outside_graphs(function: F) -> F:
    """For what calls the library, which is no operation of PyTorch.

    Whoever records or transforms operations would keep the first loss for ever: an error says so. torch.compile, from
    2.1 on, breaks its graph around the call.
    """

    @functools.wraps(function)
    def refused_where_recorded(*args: Any, **kwargs: Any) -> Any:
        made = torch.empty(0, device="cpu")
        for is_active, what in (
            (torch._C._get_tracing_state() is not None, "torch.jit.trace"),
            (_is_compiling(), "torch.export"),
            (_is_fx_tracing(), "torch.fx, make_fx or the like"),
            (torch._C._are_functorch_transforms_active(), "torch.func"),
            (_is_opaque(made), f"a mode that makes a {type(made).__name__} of every tensor"),
        ):
            if is_active:
                raise error("unsupported", f"the loss is called inside {what}, which cannot see into it: {_APART}")
        return function(*args, **kwargs)

    disable: Any = getattr(getattr(torch, "compiler", None), "disable", None)
    if disable is None:
        return cast(F, refused_where_recorded)
    try:  # fullgraph=True ends with the reason, where PyTorch takes one
        return cast(F, disable(refused_where_recorded, reason=f"negcos has no graph: {_APART}, or leave out fullgraph"))
    except TypeError:
        return cast(F, disable(refused_where_recorded))


def _is_opaque(value: Tensor) -> bool:
    """A tensor whose class computes it in its own way, from no memory (FakeTensor), or from other tensors (DTensor)."""
    return type(value).__torch_dispatch__ is not Tensor.__torch_dispatch__


_NAMES = {torch.float32: "float32", torch.float64: "float64", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def _view(name: str, tensor: Tensor) -> View:
    """What DLPack would say, sooner, where it would say no more than this."""
    dtype = _NAMES.get(tensor.dtype)
    plain = tensor.is_cpu and tensor.layout is torch.strided and not tensor.requires_grad and not tensor.is_neg()
    if plain and dtype is not None:
        try:
            return View(tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), dtype, True, tensor)
        except RuntimeError:  # without memory of its own
            pass
    return view_dlpack(name, tensor)


READERS[Tensor] = _view


def _is_in_backward() -> bool:
    if hasattr(torch._C, "_current_graph_task_id"):
        return bool(torch._C._current_graph_task_id() != -1)
    frame: Optional[FrameType] = sys._getframe()  # of PyTorch 1, where the engine answers with a slow exception
    while frame is not None and frame.f_globals.get("__name__") not in ("torch.autograd", "torch.autograd.function"):
        frame = frame.f_back
    return frame is not None


@shows_options(FixedOptions)
class NegativeCosineLoss(nn.Module):
    """The loss of a batch of queries and documents, a scalar to call backward() on.

    Arguments are the options of negcos.evaluate, with the same names and defaults; as attributes they may be set anew
    at any time.
        scale, and with objective="sigmoid" bias: numbers, or nn.Parameter of one element, which learn.
        outputs: arrays wanted in `result`: "losses", "hit_probability", "logits", "negatives".
        context: the negcos.Context to compute in; default: one of each calling thread. A module that has one can be
            neither copied nor pickled.

    step: a buffer, so saved by state_dict(): how many training steps are complete. A step ends with the first backward
        pass (backward() or torch.autograd.grad()) through a loss of it that was computed in training mode. So all
        losses before that backward pass draw the same negatives, and one that it computes again
        (torch.utils.checkpoint) draws them once more. Losses in evaluation mode, without a gradient, or with `step`
        given in the call leave the counter where it is. Made on the CPU, whatever the default device is.
    result: the negcos.Result of the last forward pass: accuracy, mean_reciprocal_rank, loss (float64), excluded,
        zero_rows and outputs, as tensors without gradient. None before it.
    """

    step: Tensor
    result: Optional[Result]
    _last_step: Optional[int] = None  # of the last forward pass outside of a backward pass

    def __init__(
        self,
        rounds: int = 4,
        *,
        scale: Union[float, nn.Parameter] = 20.0,
        bias: Union[float, nn.Parameter] = 0.0,
        seed: int = 0,
        outputs: Iterable[str] = (),
        context: Optional[Context] = None,
        **options: Unpack[FixedOptions],
    ) -> None:
        super().__init__()
        if "step" in options:
            raise TypeError("unexpected option 'step', expected it in forward(), or none: the module counts its steps")
        self.register_buffer("step", torch.zeros((), dtype=torch.int64, device="cpu"))
        given = {name: option.default for name, option in OPTIONS.items() if name != "step"}
        given.update({"rounds": rounds, "scale": scale, "bias": bias, "seed": seed, **options})
        for name in ("exclude", "prefix_dims"):
            given[name] = items(name, given[name])
        for name, value in given.items():
            if name in _DIFFERENTIABLE and isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                raise error("dtype", f"{name} is a tensor, expected a number or an nn.Parameter, or it in forward()")
            setattr(self, name, value)
        self.outputs = items("outputs", outputs)
        self.context = context
        self.result = None
        plain = _without_tensors(given)
        make_options(plain)  # what is wrong fails here, not in the first forward()
        self._initial = {name: plain.get(name) for name in ("scale", "bias")}

    def reset_parameters(self) -> None:
        """Starts anew, after to_empty() for one: step is 0, a learnt scale or bias the number that it was made with."""
        learnt = [name for name in self._initial if isinstance(getattr(self, name), nn.Parameter)]
        for name in learnt:
            if self._initial[name] is None:
                raise error("value", f"{name} was made on meta, without a number: load_state_dict() gives it one")
        with torch.no_grad():
            self.step.zero_()
            for name in learnt:
                getattr(self, name).fill_(self._initial[name])

    @_outside_graphs
    def forward(
        self,
        queries: Tensor,
        documents: Tensor,
        *,
        hard_negatives: Optional[Tensor] = None,
        positives: Any = None,
        negatives: Any = None,
        document_ids: Any = None,
        query_ids: Any = None,
        log_probability: Any = None,
        weights: Any = None,
        scale: Optional[Number] = None,
        bias: Optional[Number] = None,
        step: Union[int, Tensor, None] = None,
    ) -> Tensor:
        """As negative_cosine_loss(); scale, bias, step: in place of the module's own in this call.

        step: for those who count themselves. A closure that an optimizer calls several times a step (LBFGS, line
        searches) needs it, to have the same negatives each time. The module's own step is neither read nor moved.
        """
        arguments = locals()
        counts = step is None
        is_again = counts and _is_in_backward()
        if counts:  # what a backward pass computes again, it does for the last loss outside of one
            step = self._last_step if is_again and self._last_step is not None else self.step
        # A module that was pickled before there was such an option has its default.
        options = {name: getattr(self, name, option.default) for name, option in OPTIONS.items() if name != "step"}
        given = {"scale": scale, "bias": bias, "step": step}
        options.update({name: value for name, value in given.items() if value is not None})
        options["step"] = _whole("step", options["step"])
        counter = self.step if counts and self.training else None
        loss, self.result = _compute(arguments, options, self.outputs, self.context, counter)
        if counts and not is_again:
            self._last_step = options["step"]
        return loss

    def extra_repr(self) -> str:
        shown = []
        for name in sorted(OPTIONS, key=lambda name: OPTIONS[name].type is not str):  # words first
            value = getattr(self, name, OPTIONS[name].default)
            named = name in ("objective", "sampling", "rounds", "scale")
            if not isinstance(value, Tensor) and (named or value != OPTIONS[name].default):
                shown.append(f"{name}={value!r}")
        return ", ".join(shown)


@_outside_graphs
@shows_options(FixedOptions)
def negative_cosine_loss(
    queries: Tensor,
    documents: Tensor,
    *,
    hard_negatives: Optional[Tensor] = None,
    positives: Any = None,
    negatives: Any = None,
    document_ids: Any = None,
    query_ids: Any = None,
    log_probability: Any = None,
    weights: Any = None,
    rounds: int = 4,
    scale: Number = 20.0,
    bias: Number = 0.0,
    seed: int = 0,
    step: Union[int, Tensor] = 0,
    context: Optional[Context] = None,
    **options: Unpack[FixedOptions],
) -> Tensor:
    """The loss of B queries [B, d] and M documents [M, d]: a scalar, float64 for float64 and else float32.

    queries, documents, hard_negatives [B * H, d]: tensors on the CPU, all float32, float64, float16 or bfloat16, read
        where they lie; only one whose rows are not contiguous (a transposed one) is copied.
    The other arrays and the options are those of negcos.evaluate; step: count it up, so that each training step draws
        new negatives (NegativeCosineLoss does). Where the loss is computed again (torch.utils.checkpoint, closures of
        an optimizer), it takes the same step.

    Gradients of queries, documents, hard_negatives, scale and bias: those that are required are computed in the same
    call, in the dtype of their tensor; backward() only multiplies them. There is no second derivative, and no graph:
    what records operations (torch.jit.trace, torch.export, make_fx, torch.func) is an error.

    Raises negcos.Error, with the argument in a sentence.
    """
    arguments = locals()
    varying = {"rounds": rounds, "scale": scale, "bias": bias, "seed": seed, "step": _whole("step", step)}
    loss, _ = _compute(arguments, {**varying, **options}, (), context)
    return loss


class _Loss(torch.autograd.Function):
    """The loss as a node of the graph, with the gradients that were computed along with it."""

    @staticmethod
    def forward(
        ctx: Any,
        loss: float,
        dtype: torch.dtype,
        gradients: list[Optional[Tensor]],
        step: int,
        counter: Optional[Tensor],
        *inputs: Any,
    ) -> Tensor:
        """counter: that of the module, where it is to move on from `step`."""
        ctx.step, ctx.counter = step, counter
        # The step, too: what checkpoint computes again is what is there in backward().
        ctx.save_for_backward(*gradients, torch.full((), step % 2**63, dtype=torch.int64, device="cpu"))
        return torch.full((), loss, dtype=dtype, device="cpu")

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        if torch.is_grad_enabled():  # once_differentiable would leave these gradients out of a second derivative
            raise error("unsupported", "the loss has no second derivative: create_graph is True, expected False")
        *saved, step = ctx.saved_tensors
        if int(step) != ctx.step % 2**63:
            drawn = f"step is {int(step)} where the loss is computed again for its gradients"
            raise error("value", f"{drawn}, expected {ctx.step} as in its forward pass: pass the batch's own step")
        if ctx.counter is not None and int(ctx.counter) == ctx.step:
            ctx.counter.fill_(ctx.step + 1)
        gradients = [None if gradient is None else _scaled(gradient, grad_output) for gradient in saved]
        return None, None, None, None, None, *gradients

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise error("unsupported", "the loss has no jvp, the derivative in forward mode")


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """gradient * factor in a tensor of its own: the saved one is needed again where the graph is retained."""
    # float16 holds no factor such as loss scaling's 2^16
    product = gradient.float() * factor if gradient.dtype in _HALF else gradient * factor
    return product.to(gradient.dtype)


def _compute(
    arguments: dict[str, Any],
    options: dict[str, Any],
    outputs: Iterable[str],
    context: Optional[Context],
    counter: Optional[Tensor] = None,
) -> tuple[Tensor, Result]:
    refuse_unknown(options)
    matrices = {name: arguments[name] for name in MATRICES}
    arrays = {name: arguments[name] for name in VECTORS if arguments[name] is not None}
    for name, value in matrices.items():
        if not isinstance(value, Tensor) and not (value is None and name == "hard_negatives"):
            raise error("dtype", f"{name} is a {type(value).__name__}, expected a torch.Tensor")
    inputs = {**matrices, "scale": options["scale"], "bias": options["bias"]}
    inputs = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    for name, value in {**inputs, **arrays}.items():
        if isinstance(value, Tensor):
            if not value.is_cpu and value.device.type != "cpu":
                raise error("dtype", f"{name} is on {value.device}, expected the CPU")
            if value.layout != torch.strided:
                raise error("dtype", f"{name} is of {value.layout}, expected torch.strided")
            if _is_opaque(value):
                raise error("unsupported", f"{name} is a {type(value).__name__}, expected a tensor with its own memory")
            if name in arrays:
                _refuse_gradient(name, value)

    wanted = [name for name, value in inputs.items() if value.requires_grad] if torch.is_grad_enabled() else []
    matrices = {name: value for name, value in matrices.items() if value is not None}
    queries = matrices["queries"]
    out = {
        # with the queries' columns, so that what is said of other ones is of the matrix and not of its gradient
        f"grad_{name}": torch.empty(value.shape[:1] + queries.shape[1:], dtype=value.dtype, device="cpu")
        for name, value in matrices.items()
        if name in wanted
    }
    call: dict[str, Any] = {name: _with_contiguous_rows(value.detach()) for name, value in matrices.items()}
    result = evaluate(
        **{**call, **arrays, **_without_tensors(options)},
        outputs=(),
        out={**out, **_empty_outputs(matrices, options, outputs)},
        context=context,
    )
    for name in out:
        vars(result).pop(name)  # the graph's own
    for name in ("scale", "bias"):
        if name in wanted:
            out[f"grad_{name}"] = torch.full_like(inputs[name], getattr(result, f"grad_{name}"), requires_grad=False)
    dtype = torch.promote_types(queries.dtype, torch.float32)  # of half precision a sum may overflow
    gradients = [out.get(f"grad_{name}") for name in inputs]
    loss: Tensor = _Loss.apply(result.loss, dtype, gradients, options["step"], counter, *inputs.values())
    return loss, result


def _with_contiguous_rows(matrix: Tensor) -> Tensor:
    """As it is where the library can read it: each row contiguous, any distance apart."""
    if matrix.dim() == 2:
        (rows, cols), (row_stride, col_stride) = matrix.shape, matrix.stride()
        if (cols > 1 and col_stride != 1) or (rows > 1 and row_stride < cols):
            return matrix.contiguous()
    return matrix.resolve_neg()


def _empty_outputs(matrices: dict[str, Tensor], options: dict[str, Any], outputs: Iterable[str]) -> dict[str, Tensor]:
    outputs = items("outputs", outputs)
    if not outputs:
        return {}
    queries = matrices["queries"]
    n_queries = queries.shape[0] if queries.dim() else 0
    n_hard = matrices["hard_negatives"].shape[0] // n_queries if "hard_negatives" in matrices and n_queries else 0
    rounds = max(integer("rounds", options["rounds"], 32), 0)
    shapes: dict[str, tuple[int, ...]] = {
        "losses": (n_queries,),
        "hit_probability": (n_queries,),
        "logits": (n_queries, 1 + rounds + n_hard),
        "negatives": (n_queries, rounds),
    }
    for name in outputs:
        if name not in shapes:
            raise error("value", f"{name!r} is no output, expected some of {', '.join(shapes)}")
    return {
        name: torch.empty(shapes[name], dtype=torch.int32 if name == "negatives" else queries.dtype, device="cpu")
        for name in outputs
    }


def _whole(name: str, value: Any) -> int:
    """A number of unsigned 64 bits, or a tensor of one."""
    if isinstance(value, Tensor):
        if value.is_meta or _is_opaque(value):
            where = "on meta" if value.is_meta else f"a {type(value).__name__}"
            raise error("dtype", f"{name} is {where}, without a value (a module's own: load_state_dict(assign=True))")
        if value.numel() != 1 or value.dtype not in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
            raise error("shape", f"{name} is {tuple(value.shape)} of {value.dtype}, expected one integer")
        value = value.item()
    return integer(name, value, 64, signed=False)


def _refuse_gradient(name: str, value: Tensor) -> None:
    if value.requires_grad and torch.is_grad_enabled():
        raise error("unsupported", f"{name} requires a gradient, which only {', '.join(_DIFFERENTIABLE)} have")


def _without_tensors(options: dict[str, Any]) -> dict[str, Any]:
    """The options as negcos.evaluate takes them."""
    plain = dict(options)
    for name, value in options.items():
        if not isinstance(value, Tensor):
            continue
        if name not in _DIFFERENTIABLE:
            _refuse_gradient(name, value)
            continue
        if value.numel() != 1 or not value.is_floating_point():
            raise error("shape", f"{name} is {tuple(value.shape)} of {value.dtype}, expected one real number")
        if name == "bias" and options.get("objective") != "sigmoid":
            raise error("unsupported", "bias is a tensor, which takes objective='sigmoid'")
        if value.is_meta or _is_opaque(value):  # in the constructor; a call has refused it
            del plain[name]
        else:
            plain[name] = float(value.detach())
    if options.get("reduction") == "none":
        raise error("value", "reduction is 'none', expected 'mean' or 'sum' (outputs=['losses'] are in module.result)")
    return plain
