# SPDX-License-Identifier: Apache-2.0
"""The loss for PyTorch, on the CPU, with gradients.

    loss = negcos.torch.NegativeCosineLoss(rounds=20)
    loss(queries, documents).backward()
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, TypeVar, Union, cast

import torch
import torch.fx._symbolic_trace
from torch import Tensor, nn

from ._arrays import READERS, View, put_address, put_matrix, view_dlpack
from ._context import Context, integer, items
from ._errors import error
from ._evaluate import MATRICES, OUTPUTS, VECTORS, Result, evaluate, run
from ._library import initialised, library
from ._options import OPTIONS, FixedOptions, make_options, refuse_unknown, shows_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["NegativeCosineLoss", "negative_cosine_loss"]

Number = Union[float, Tensor]
F = TypeVar("F", bound=Callable[..., Any])

_DIFFERENTIABLE = ("queries", "documents", "hard_negatives", "scale", "bias")
_HALF = (torch.float16, torch.bfloat16)
_CPU = torch.device("cpu")  # read from a string, it takes longer than some tensors
# Attributes of the module, and what they are where a module was pickled before there was such an option.
_ATTRIBUTES = [(name, option.default) for name, option in OPTIONS.items() if name != "step"]


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
        recorder = _recorder()
        if recorder is not None:
            raise error("unsupported", f"the loss is called inside {recorder}, which cannot see into it: {_APART}")
        return function(*args, **kwargs)

    disable: Any = getattr(getattr(torch, "compiler", None), "disable", None)
    if disable is None:
        return cast(F, refused_where_recorded)
    try:  # fullgraph=True ends with the reason, where PyTorch takes one
        return cast(F, disable(refused_where_recorded, reason=f"negcos has no graph: {_APART}, or leave out fullgraph"))
    except TypeError:
        return cast(F, disable(refused_where_recorded))


def _recorder() -> Optional[str]:
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace"
    if _is_compiling():
        return "torch.export"
    if _is_fx_tracing():
        return "torch.fx, make_fx or the like"
    if torch._C._are_functorch_transforms_active():
        return "torch.func"
    made = torch.empty(0, device=_CPU)
    return f"a mode that makes a {type(made).__name__} of every tensor" if _is_opaque(made) else None


def _is_opaque(value: Tensor) -> bool:
    """A tensor whose class computes it in its own way, from no memory (FakeTensor), or from other tensors (DTensor)."""
    return type(value).__torch_dispatch__ is not Tensor.__torch_dispatch__


_NAMES = {torch.float32: "float32", torch.float64: "float64", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def _plain_view(tensor: Tensor) -> Optional[View]:
    """What DLPack would say of the memory, sooner, where it would say no more than this."""
    dtype = _NAMES.get(tensor.dtype)
    if dtype is not None and tensor.is_cpu and tensor.layout is torch.strided and not tensor.is_neg():
        try:
            return View(tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), dtype, True, tensor)
        except RuntimeError:  # without memory of its own
            pass
    return None


def _view(name: str, tensor: Tensor) -> View:
    given = None if tensor.requires_grad else _plain_view(tensor)
    return view_dlpack(name, tensor) if given is None else given


READERS[Tensor] = _view


_graph_task_id = getattr(torch._C, "_current_graph_task_id", None)


def _is_in_backward() -> bool:
    if _graph_task_id is not None:
        return bool(_graph_task_id() != -1)
    frame: Optional[FrameType] = sys._getframe()  # of PyTorch 1, where the engine answers with a slow exception
    while frame is not None and frame.f_globals.get("__name__") not in ("torch.autograd", "torch.autograd.function"):
        frame = frame.f_back
    return frame is not None


def _shares_openmp() -> bool:
    """Whether PyTorch and the library have the same OpenMP runtime."""
    try:
        loaded = (library, ctypes.CDLL(torch._C.__file__))
        ours, theirs = (ctypes.cast(each.GOMP_parallel, ctypes.c_void_p).value for each in loaded)
    except (AttributeError, OSError):  # it is in none of them
        return False
    return ours == theirs


_own = threading.local()


def _own_context() -> Context:
    """This thread's. Where PyTorch has threads, they wait awake for some milliseconds after each operation, and others
    would fight them for the processors: so it computes on the same, and on no more of them."""
    theirs = torch.get_num_threads()
    if getattr(_own, "theirs", None) != theirs:
        made = Context()  # of one thread in the child of a fork, where those of a pool do not live on
        if theirs > 1 and _shares_openmp():
            made = Context(made.threads if "NEGCOS_THREADS" in os.environ else min(made.threads, theirs), "openmp")
        _own.context, _own.theirs = made, theirs
    context: Context = _own.context
    return context


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
        # What is as by default needs no second look.
        options = {
            name: value for name, default in _ATTRIBUTES if (value := getattr(self, name, default)) is not default
        }
        if scale is not None:
            options["scale"] = scale
        if bias is not None:
            options["bias"] = bias
        counter, counts, is_again = None, step is None, False
        if counts:  # what a backward pass computes again, it does for the last loss outside of one
            own = self.step
            is_again = _is_in_backward()
            step = self._last_step if is_again and self._last_step is not None else own
            counter = own if self.training else None
        step = _whole("step", step)
        loss, result = _compute(arguments, options, step, self.outputs, self.context, counter)
        kept = vars(self)  # nn.Module's own way to set attributes is slow
        kept["result"] = result
        if counts and not is_again:
            kept["_last_step"] = step
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
    refuse_unknown(options)
    varying = {"rounds": rounds, "scale": scale, "bias": bias, "seed": seed}
    loss, _ = _compute(arguments, {**varying, **options}, _whole("step", step), (), context)
    return loss


class _Call(NamedTuple):
    """What a call of the library leaves to the graph; one argument, as each costs autograd time."""

    loss: float
    dtype: torch.dtype
    gradients: list[Optional[Tensor]]
    step: int
    counter: Optional[Tensor]  # that of the module, where it is to move on from `step`


class _Loss(torch.autograd.Function):
    """The loss as a node of the graph, with the gradients that were computed along with it."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *inputs: Any) -> Tensor:
        ctx.step, ctx.counter = call.step, call.counter
        # The step, too: what checkpoint computes again is what is there in backward().
        ctx.save_for_backward(*call.gradients, torch.full((), call.step % 2**63, dtype=torch.int64, device=_CPU))
        return torch.full((), call.loss, dtype=call.dtype, device=_CPU)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        if torch.is_grad_enabled():  # once_differentiable would leave these gradients out of a second derivative
            raise error("unsupported", "the loss has no second derivative: create_graph is True, expected False")
        *saved, saved_step = ctx.saved_tensors
        step, counter = ctx.step, ctx.counter
        if saved_step.item() != step % 2**63:
            drawn = f"step is {saved_step.item()} where the loss is computed again for its gradients"
            raise error("value", f"{drawn}, expected {step} as in its forward pass: pass the batch's own step")
        if counter is not None and counter.item() == step:
            counter.fill_(step + 1)
        return None, *[None if gradient is None else _scaled(gradient, grad_output) for gradient in saved]

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise error("unsupported", "the loss has no jvp, the derivative in forward mode")


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """gradient * factor in a tensor of its own: the saved one is needed again where the graph is retained."""
    # float16 holds no factor such as loss scaling's 2^16
    product = gradient.float() * factor if gradient.dtype in _HALF else gradient * factor
    return product if product.dtype is gradient.dtype else product.to(gradient.dtype)


def _compute(
    arguments: dict[str, Any],
    options: dict[str, Any],  # but step
    step: int,
    outputs: Iterable[str],
    context: Optional[Context],
    counter: Optional[Tensor] = None,
) -> tuple[Tensor, Result]:
    matrices = {name: arguments[name] for name in MATRICES}
    if matrices["hard_negatives"] is None:
        del matrices["hard_negatives"]
    for name, value in matrices.items():
        if not isinstance(value, Tensor):
            raise error("dtype", f"{name} is a {type(value).__name__}, expected a torch.Tensor")
    if context is None:
        context = _own_context()
    key = None if outputs else _key(matrices, arguments, options)
    plan = None if key is None else _plans.get(key)
    if plan is not None:
        made = plan.run(matrices.values(), step, context)
        if made is not None:
            result, gradients = made
            call = _Call(result.loss, plan.dtype, gradients, step, counter)
            return _Loss.apply(call, *matrices.values()), result
    inputs = dict(matrices)
    for name in ("scale", "bias"):
        if isinstance(options.get(name), Tensor):
            inputs[name] = options[name]
    for name, value in inputs.items():
        _refuse_elsewhere(name, value)
    arrays = {name: arguments[name] for name in VECTORS if arguments[name] is not None}
    for name, value in arrays.items():
        if isinstance(value, Tensor):
            _refuse_elsewhere(name, value)
            _refuse_gradient(name, value)

    wanted = [name for name, value in inputs.items() if value.requires_grad] if torch.is_grad_enabled() else []
    # with the queries' columns, so that what is said of other ones is of the matrix and not of its gradient
    columns = matrices["queries"].shape[1:]
    out = {
        f"grad_{name}": torch.empty(value.shape[:1] + columns, dtype=value.dtype, device=_CPU)
        for name, value in matrices.items()
        if name in wanted
    }
    given: dict[str, Any] = {name: _with_contiguous_rows(value) for name, value in matrices.items()}
    result = evaluate(
        **given,
        **arrays,
        **_without_tensors(options),
        step=step,
        outputs=(),
        out={**out, **_empty_outputs(matrices, options, outputs)},
        context=context,
    )
    for name in out:
        vars(result).pop(name)  # the graph's own
    for name in ("scale", "bias"):
        if name in wanted:
            out[f"grad_{name}"] = torch.full_like(inputs[name], getattr(result, f"grad_{name}"), requires_grad=False)
    # of half precision a sum may overflow
    dtype = torch.float64 if matrices["queries"].dtype is torch.float64 else torch.float32
    call = _Call(result.loss, dtype, [out.get(f"grad_{name}") for name in inputs], step, counter)
    loss: Tensor = _Loss.apply(call, *inputs.values())
    if key is not None and all(isinstance(view, View) and 0 not in view.shape for view in given.values()):
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        _plans[key] = _Plan.of(given, out, options, dtype)
    return loss, result


class _Plan(NamedTuple):
    """What a call leaves for those with the same options and layouts: all but the addresses and the step."""

    options: Any  # the structs of negcos.h
    batch: Any
    result: Any
    inputs: list[int]  # where their addresses are in `batch`
    gradients: list[Optional[tuple[int, torch.Size, torch.dtype]]]  # and in `result`
    dtype: torch.dtype  # of the loss

    @classmethod
    def of(
        cls, given: dict[str, View], out: dict[str, Tensor], options: dict[str, Any], dtype: torch.dtype
    ) -> _Plan:
        batch, result = initialised("negcos_batch"), initialised("negcos_result")
        for name, view in given.items():
            put_matrix(batch, MATRICES[name], name, view)
        gradients: list[Optional[tuple[int, torch.Size, torch.dtype]]] = []
        for name in given:
            gradient = out.get(f"grad_{name}")
            if gradient is None:
                gradients.append(None)
            else:
                _, offset = OUTPUTS[f"grad_{name}"]
                put_matrix(result, offset, name, _view(name, gradient))
                gradients.append((offset, gradient.shape, gradient.dtype))
        return cls(make_options(options), batch, result, [MATRICES[name] for name in given], gradients, dtype)

    def run(
        self, inputs: Iterable[Tensor], step: int, context: Optional[Context]
    ) -> Optional[tuple[Result, list[Optional[Tensor]]]]:
        """None where one has no memory of its own, for which its layout does not tell."""
        options, batch, result = (type(made).from_buffer_copy(made) for made in self[:3])
        options.step = step
        try:
            for offset, tensor in zip(self.inputs, inputs):
                put_address(batch, offset, tensor.data_ptr())
        except RuntimeError:
            return None
        gradients: list[Optional[Tensor]] = []
        for gradient in self.gradients:
            if gradient is None:
                gradients.append(None)
            else:
                offset, shape, dtype = gradient
                gradients.append(made := torch.empty(shape, dtype=dtype, device=_CPU))
                put_address(result, offset, made.data_ptr())
        return run(context, options, batch, result, {}), gradients


_plans: dict[Any, _Plan] = {}
_MOST_PLANS = 256
# Types of options whose values never change.
_FIXED = {int, float, str, type(None)}


def _key(matrices: dict[str, Tensor], arguments: dict[str, Any], options: dict[str, Any]) -> Any:
    """Of a plan: all that the checks of a call look at; None where there is none."""
    kinds = tuple(map(type, options.values()))  # 1, 1.0 and True are equal, and not the same
    if not _FIXED.issuperset(kinds) or any([arguments[name] is not None for name in VECTORS]):
        return None
    key = [torch.is_grad_enabled(), *options, *options.values(), *kinds]
    for matrix in matrices.values():
        if not matrix.is_cpu or matrix.layout is not torch.strided or matrix.is_neg():
            return None
        key += type(matrix), matrix.dtype, matrix.shape, matrix.stride(), matrix.requires_grad
    return tuple(key)


def _refuse_elsewhere(name: str, value: Tensor) -> None:
    """What has no plain memory on the CPU."""
    if not value.is_cpu and value.device.type != "cpu":
        raise error("dtype", f"{name} is on {value.device}, expected the CPU")
    if value.layout is not torch.strided:
        raise error("dtype", f"{name} is of {value.layout}, expected torch.strided")
    if _is_opaque(value):
        raise error("unsupported", f"{name} is a {type(value).__name__}, expected a tensor with its own memory")


def _with_contiguous_rows(matrix: Tensor) -> Union[View, Tensor]:
    """As it is where the library can read it: each row contiguous, any distance apart."""
    if matrix.dim() == 2:
        (rows, cols), (row_stride, col_stride) = matrix.shape, matrix.stride()
        if (cols > 1 and col_stride != 1) or (rows > 1 and row_stride < cols):
            return matrix.detach().contiguous()
    given = _plain_view(matrix)
    return matrix.detach().resolve_neg() if given is None else given


def _empty_outputs(matrices: dict[str, Tensor], options: dict[str, Any], outputs: Iterable[str]) -> dict[str, Tensor]:
    outputs = items("outputs", outputs)
    if not outputs:
        return {}
    queries = matrices["queries"]
    n_queries = queries.shape[0] if queries.dim() else 0
    n_hard = matrices["hard_negatives"].shape[0] // n_queries if "hard_negatives" in matrices and n_queries else 0
    rounds = max(integer("rounds", options.get("rounds", OPTIONS["rounds"].default), 32), 0)
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
    if type(value) is Tensor and value.dtype is torch.int64 and value.is_cpu and value.numel() == 1:
        value = value.item()
    elif isinstance(value, Tensor):
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
