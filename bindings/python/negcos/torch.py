# SPDX-License-Identifier: Apache-2.0
"""The loss for PyTorch, on the CPU, with gradients.

    loss = negcos.torch.NegativeCosineLoss(rounds=20)
    loss(queries, documents).backward()
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Iterable, Sequence
from typing import Any, Callable, Optional, TypeVar, Union, cast

import torch
from torch import Tensor, nn

from ._context import Context, integer, items
from ._errors import error
from ._evaluate import _OPTIONS, Result, _make_options, evaluate

__all__ = ["NegativeCosineLoss", "negative_cosine_loss"]

Number = Union[float, Tensor]
F = TypeVar("F", bound=Callable[..., Any])

_DIFFERENTIABLE = ("queries", "documents", "hard_negatives", "scale", "bias")
_HALF = (torch.float16, torch.bfloat16)

# What tells tensors that compute in Python (fake ones), and a call under torch.func or functorch; and the dispatch modes
# of make_fx and torch.export.
_PYTHON = torch._C._dispatch_key_parse("Python")
_TRANSFORMS = torch._C._dispatch_key_parse("FuncTorchDynamicLayerFrontMode")
_RECORDERS = ("ProxyTorchDispatchMode", "FunctionalTensorMode", "FakeTensorMode")
_CANNOT_RECORD = "what is recorded would hold the loss of this one batch for ever; leave the loss out of it"


def _outside_graphs(function: F) -> F:
    """torch.compile, from 2.1 on, does not look into it and breaks its graph around the call. What records operations,
    to repeat or transform them, gets an error in place of a constant."""

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        _refuse_recording()
        return function(*arguments, **options)

    disable = getattr(getattr(torch, "compiler", None), "disable", None)
    if disable is None:
        return cast(F, called)
    if "reason" in inspect.signature(disable).parameters:
        return cast(F, disable(called, reason=f"negcos computes outside of graphs, and {_CANNOT_RECORD}"))
    return cast(F, disable(called))


def _refuse_recording() -> None:
    recorder = None
    if torch.jit.is_tracing():
        recorder = "torch.jit.trace"
    elif torch._C._dispatch_tls_local_include_set().has(_TRANSFORMS):
        recorder = "a transform of torch.func"
    else:
        modes = (torch._C._get_dispatch_stack_at(k) for k in range(torch._C._len_torch_dispatch_stack()))
        names = [type(mode).__name__ for mode in modes]
        recorder = next((name for name in names if name in _RECORDERS), None)
    if recorder is not None:
        raise error("unsupported", f"the loss is called under {recorder}, but {_CANNOT_RECORD}")


def _in_backward() -> bool:
    """Whether a backward pass is running in this thread: only there does PyTorch take a callback for its end."""
    try:
        torch.autograd.Variable._execution_engine.queue_callback(_nothing)
    except RuntimeError:
        return False
    return True


def _nothing() -> None:
    pass


class NegativeCosineLoss(nn.Module):
    """The loss of a batch of queries and documents, a scalar to call backward() on.

    Arguments are the options of negcos.evaluate, with the same names and defaults; as attributes they may be set anew
    at any time.
        rounds: negatives for each query.
        scale, and with objective="sigmoid" bias: numbers, or nn.Parameter of one element, which learn.
        reduction: "mean" or "sum".
        seed: with `step`, the key of the draws.
        outputs: arrays wanted in `result`: "losses", "hit_probability", "logits", "negatives".
        context: the negcos.Context to compute in; default: one of each calling thread. A module that has one can be
            neither copied nor pickled.

    step: a buffer on the CPU, so saved by state_dict(): the number of training steps so far, and with `seed` the key of
        the draws. The first backward pass through a loss of training mode counts it up. Until then it stays, and so do
        the draws: in evaluation mode, without gradients, of several losses before one backward pass, and where
        torch.utils.checkpoint computes a loss again. forward(..., step=...) leaves it alone.
    result: the negcos.Result of the last forward pass: accuracy, mean_reciprocal_rank, loss (float64), excluded,
        zero_rows and outputs, as tensors without gradient. None before it.
    """

    step: Tensor
    result: Optional[Result]

    def __init__(
        self,
        rounds: int = 4,
        *,
        sampling: str = "shuffle",
        objective: str = "softmax",
        similarity: str = "cosine",
        scale: Union[float, nn.Parameter] = 20.0,
        temperature: float = 1.0,
        bias: Union[float, nn.Parameter] = 0.0,
        direction: str = "query-to-document",
        reduction: str = "mean",
        exclude: Union[str, Iterable[str]] = (),
        margin: float = 0.0,
        label_smoothing: float = 0.0,
        hardness: float = 0.0,
        false_negative_margin: float = math.inf,
        correction: str = "all-candidates",
        prefix_dims: Sequence[int] = (),
        prefix_weights: Optional[Sequence[float]] = None,
        norm_floor: float = 1e-12,
        seed: int = 0,
        outputs: Iterable[str] = (),
        context: Optional[Context] = None,
    ) -> None:
        arguments = locals()
        super().__init__()
        for name in _OPTIONS:
            if name == "step":
                # A count, which no initialisation of weights makes: also under torch.device("meta").
                self.register_buffer("step", torch.zeros((), dtype=torch.int64, device="cpu"))
                continue
            value = arguments[name]
            if name in _DIFFERENTIABLE and isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                raise error("dtype", f"{name} is a tensor, expected a number or an nn.Parameter, or it in forward()")
            setattr(self, name, items(name, value) if name in ("exclude", "prefix_dims") else value)
        self.outputs = items("outputs", outputs)
        self.context = context
        self.result = None
        self._computed_step = 0  # of the last forward pass outside of a backward pass
        # What is wrong fails here, not in the first forward(). Parameters may have no numbers yet.
        _make_options(_without_tensors({**self._options(), "step": 0}, allow_meta=True))

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _OPTIONS}

    def _next_step(self) -> int:
        if self.step.is_meta:
            raise error("dtype", "step is on meta, expected the CPU: to_empty(), and a state_dict or 0")
        # What is computed again, in a backward pass, is what was computed before it.
        if not _in_backward():
            self._computed_step = int(self.step)
        return self._computed_step

    def _complete(self, step: int) -> None:
        if int(self.step) == step:  # and not by another loss of this step
            self.step += 1

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
        step: Optional[int] = None,
    ) -> Tensor:
        """As negative_cosine_loss(); scale, bias, step: in place of the module's own in this call. Pass step where a
        step computes several losses and gradients that belong together: closures of LBFGS, line searches."""
        options = self._options()
        options.update({name: value for name, value in (("scale", scale), ("bias", bias)) if value is not None})
        completed: Optional[Callable[[], None]] = None
        options["step"] = step
        if step is None:
            options["step"] = self._next_step()
            if self.training:
                completed = functools.partial(self._complete, options["step"])
        loss, self.result = _compute(
            {"queries": queries, "documents": documents, "hard_negatives": hard_negatives},
            {
                "positives": positives,
                "negatives": negatives,
                "document_ids": document_ids,
                "query_ids": query_ids,
                "log_probability": log_probability,
                "weights": weights,
            },
            options,
            self.outputs,
            self.context,
            completed,
        )
        return loss

    def extra_repr(self) -> str:
        defaults: dict[str, Any] = evaluate.__kwdefaults__ or {}
        return ", ".join(
            f"{name}={value!r}"
            for name, value in self._options().items()
            if name in ("objective", "sampling", "rounds", "scale") or (name != "step" and value != defaults[name])
            if not isinstance(value, Tensor)
        )


@_outside_graphs
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
    sampling: str = "shuffle",
    objective: str = "softmax",
    similarity: str = "cosine",
    scale: Number = 20.0,
    temperature: float = 1.0,
    bias: Number = 0.0,
    direction: str = "query-to-document",
    reduction: str = "mean",
    exclude: Union[str, Iterable[str]] = (),
    margin: float = 0.0,
    label_smoothing: float = 0.0,
    hardness: float = 0.0,
    false_negative_margin: float = math.inf,
    correction: str = "all-candidates",
    prefix_dims: Sequence[int] = (),
    prefix_weights: Optional[Sequence[float]] = None,
    norm_floor: float = 1e-12,
    seed: int = 0,
    step: int = 0,
    context: Optional[Context] = None,
) -> Tensor:
    """The loss of B queries [B, d] and M documents [M, d]: a scalar, float64 for float64 and else float32.

    queries, documents, hard_negatives [B * H, d]: tensors on the CPU, all float32, float64, float16 or bfloat16, read
        where they lie; only one whose rows are not contiguous (a transposed one) is copied.
    The other arrays and the options are those of negcos.evaluate; step: count it up, so that each training step draws
        new negatives (NegativeCosineLoss does).

    Gradients of queries, documents, hard_negatives, scale and bias: those that are required are computed in the same
    call, in the dtype of their tensor; backward() only multiplies them. There is no second derivative.

    Raises negcos.Error, with the argument in a sentence.
    """
    arguments = locals()
    loss, _ = _compute(
        {name: arguments[name] for name in ("queries", "documents", "hard_negatives")},
        {
            "positives": positives,
            "negatives": negatives,
            "document_ids": document_ids,
            "query_ids": query_ids,
            "log_probability": log_probability,
            "weights": weights,
        },
        {name: arguments[name] for name in _OPTIONS},
        (),
        context,
    )
    return loss


class _Loss(torch.autograd.Function):
    """The loss as a node of the graph, with the gradients that were computed along with it."""

    @staticmethod
    def forward(
        ctx: Any,
        loss: float,
        dtype: torch.dtype,
        gradients: list[Optional[Tensor]],
        completed: Optional[Callable[[], None]],
        *inputs: Any,
    ) -> Tensor:
        ctx.save_for_backward(*gradients)
        ctx.completed = completed
        return torch.tensor(loss, dtype=dtype, device="cpu")

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        if torch.is_grad_enabled():  # once_differentiable would leave these gradients out of a second derivative
            raise error("unsupported", "the loss has no second derivative: create_graph is True, expected False")
        gradients = [None if gradient is None else _scaled(gradient, grad_output) for gradient in ctx.saved_tensors]
        if ctx.completed is not None:
            ctx.completed()
        return None, None, None, None, *gradients


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """gradient * factor in a tensor of its own: the saved one is needed again where the graph is retained."""
    # float16 holds no factor such as loss scaling's 2^16
    product = gradient.float() * factor if gradient.dtype in _HALF else gradient * factor
    return product.to(gradient.dtype)


def _compute(
    matrices: dict[str, Any],
    arrays: dict[str, Any],
    options: dict[str, Any],
    outputs: Iterable[str],
    context: Optional[Context],
    completed: Optional[Callable[[], None]] = None,
) -> tuple[Tensor, Result]:
    """completed: called by each backward pass through the loss."""
    for name, value in matrices.items():
        if not isinstance(value, Tensor) and not (value is None and name == "hard_negatives"):
            raise error("dtype", f"{name} is a {type(value).__name__}, expected a torch.Tensor")
    inputs = {**matrices, "scale": options["scale"], "bias": options["bias"]}
    for name, value in {**inputs, **arrays}.items():
        if isinstance(value, Tensor):
            if value.device.type != "cpu":
                raise error("dtype", f"{name} is on {value.device}, expected the CPU")
            if torch._C._dispatch_keys(value).has(_PYTHON):
                kind = type(value).__name__
                raise error("dtype", f"{name} is a {kind}, expected a torch.Tensor with numbers of its own")
            if value.layout != torch.strided:
                raise error("dtype", f"{name} is of {value.layout}, expected torch.strided")
            if name in arrays:
                _refuse_gradient(name, value)

    def is_wanted(value: Any) -> bool:
        return isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled()

    matrices = {name: value for name, value in matrices.items() if value is not None}
    queries = matrices["queries"]
    out = {
        # with the queries' columns, so that what is said of other ones is of the matrix and not of its gradient
        f"grad_{name}": torch.empty(value.shape[:1] + queries.shape[1:], dtype=value.dtype, device="cpu")
        for name, value in matrices.items()
        if is_wanted(value)
    }
    call: dict[str, Any] = {name: _with_contiguous_rows(value.detach()) for name, value in matrices.items()}
    result = evaluate(
        **{**call, **arrays, **_without_tensors(options)},
        outputs=(),
        out={**out, **_empty_outputs(matrices, options, outputs)},
        context=context,
    )
    for name in ("scale", "bias"):
        if is_wanted(inputs[name]):
            out[f"grad_{name}"] = torch.full_like(inputs[name], getattr(result, f"grad_{name}"), requires_grad=False)
    dtype = torch.promote_types(queries.dtype, torch.float32)  # of half precision a sum may overflow
    gradients = [out.get(f"grad_{name}") for name in inputs]
    loss: Tensor = _Loss.apply(result.loss, dtype, gradients, completed, *inputs.values())
    return loss, dataclasses.replace(result, grad_queries=None, grad_documents=None, grad_hard_negatives=None)


def _with_contiguous_rows(matrix: Tensor) -> Tensor:
    """As it is where the library can read it: each row contiguous, any distance apart."""
    if matrix.dim() == 2:
        (rows, cols), (row_stride, col_stride) = matrix.shape, matrix.stride()
        if (cols > 1 and col_stride != 1) or (rows > 1 and row_stride < cols):
            return matrix.contiguous()
    return matrix.resolve_neg()


def _empty_outputs(matrices: dict[str, Tensor], options: dict[str, Any], outputs: Iterable[str]) -> dict[str, Tensor]:
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
    for name in items("outputs", outputs):
        if name not in shapes:
            raise error("value", f"{name!r} is no output, expected some of {', '.join(shapes)}")
    return {
        name: torch.empty(shapes[name], dtype=torch.int32 if name == "negatives" else queries.dtype, device="cpu")
        for name in items("outputs", outputs)
    }


def _refuse_gradient(name: str, value: Any) -> None:
    if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
        raise error("unsupported", f"{name} requires a gradient, which only {', '.join(_DIFFERENTIABLE)} have")


def _without_tensors(options: dict[str, Any], allow_meta: bool = False) -> dict[str, Any]:
    """The options as negcos.evaluate takes them. A tensor on meta counts as 1 where that is allowed."""
    plain = dict(options)
    for name, value in options.items():
        if name not in _DIFFERENTIABLE:
            _refuse_gradient(name, value)
        elif isinstance(value, Tensor):
            if value.numel() != 1 or not value.is_floating_point():
                raise error("shape", f"{name} is {tuple(value.shape)} of {value.dtype}, expected one real number")
            if name == "bias" and options["objective"] != "sigmoid":
                raise error("unsupported", "bias is a tensor, which takes objective='sigmoid'")
            plain[name] = 1.0 if allow_meta and value.is_meta else float(value.detach())
    if options["reduction"] == "none":
        raise error("value", "reduction is 'none', expected 'mean' or 'sum' (outputs=['losses'] are in module.result)")
    return plain
