# SPDX-License-Identifier: Apache-2.0
"""The loss of a batch, and the negatives alone."""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import numpy.typing as npt

from ._arrays import View, bfloat16, contiguous_output, describe, output, put_matrix, vector, view
from ._context import Context, context_or_default, integer, items
from ._errors import error
from ._library import ENUMERATORS, STRUCTS, initialised, library
from ._options import Options, make_options, shows_options

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True, eq=False)
class Result:
    """Numbers, and the arrays asked for (None where not): NumPy's, or the caller's own given as `out`."""

    loss: float
    grad_scale: float
    grad_bias: float
    accuracy: float
    mean_reciprocal_rank: float
    excluded: int
    zero_rows: int
    losses: Any = None
    hit_probability: Any = None
    logits: Any = None
    grad_queries: Any = None
    grad_documents: Any = None
    grad_hard_negatives: Any = None
    negatives: Any = None


_NUMBERS = ("loss", "grad_scale", "grad_bias", "accuracy", "mean_reciprocal_rank", "excluded", "zero_rows")
_AT_NUMBERS = STRUCTS["negcos_result"].loss.offset
_unpack_numbers = struct.Struct("5d2q").unpack_from  # sooner done than seven fields are read
# With how messages call them, and where they are in negcos_result.
OUTPUTS = {
    name: (f"out[{name!r}]", getattr(STRUCTS["negcos_result"], name).offset)
    for name in (
        "losses", "hit_probability", "logits", "grad_queries", "grad_documents", "grad_hard_negatives", "negatives"
    )
}
# Arguments of evaluate() that hold embeddings, and where they are in negcos_batch.
MATRICES = {
    name: getattr(STRUCTS["negcos_batch"], name).offset for name in ("queries", "documents", "hard_negatives")
}
# And numbers: of which dtype, and for what.
_OF_QUERIES, _OF_DOCUMENTS = "one for each query", "one for each document"
VECTORS = {
    "positives": ("int64", _OF_QUERIES),
    "negatives": ("int32", "rounds for each query"),
    "document_ids": ("int64", _OF_DOCUMENTS),
    "query_ids": ("int64", _OF_QUERIES),
    "log_probability": ("float64", _OF_DOCUMENTS),
    "weights": ("float64", _OF_QUERIES),
}


@shows_options(Options)
def evaluate(
    queries: Any,
    documents: Any,
    *,
    context: Optional[Context] = None,
    hard_negatives: Any = None,
    positives: Any = None,
    negatives: Any = None,
    document_ids: Any = None,
    query_ids: Any = None,
    log_probability: Any = None,
    weights: Any = None,
    outputs: Iterable[str] = ("grad_queries", "grad_documents"),
    out: Optional[Mapping[str, Any]] = None,
    **options: Unpack[Options],
) -> Result:
    """The loss of a batch of B queries and M documents, its gradients and metrics, in one call without the GIL.

    Matrices, all of one dtype (float32, float64, float16, bfloat16), rows contiguous and any distance apart, on the
    CPU; NumPy arrays or any with __dlpack__ (PyTorch, JAX, ...), never copied:
        queries [B, d], documents [M, d]; hard_negatives [B * H, d]: rows i * H to i * H + H - 1 are query i's.
    Index and number arrays, as they are when contiguous and of the dtype named, else converted when no value changes:
        positives [B] int64, rows of documents (default: row i is query i's); negatives [B, rows] int32 with
        sampling="given", -1 = absent; document_ids [M], query_ids [B] int64 with exclude; log_probability [M] float64;
        weights [B] float64.
    outputs: names of the arrays wanted, in the queries' dtype:
        losses, hit_probability [B]; logits [B, 1 + rounds + H]; grad_queries [B, d]; grad_documents [M, d];
        grad_hard_negatives [B * H, d]; negatives [B, rounds] int32.
    np.ma arrays, anywhere, with masked elements are an error.
    out: a mapping from such names to writable arrays of the caller's, filled in place; they are wanted too.
    context: default: one of this thread's own.
    options: the fields of negcos_options in negcos.h, enumerators as their names in lower case with dashes or
    underscores.

    Raises negcos.Error, with the argument in a sentence; no output was written then.
    """
    made = make_options(options)
    batch: Any = initialised("negcos_batch")
    result: Any = initialised("negcos_result")
    query_view = _input_matrix(batch, "queries", queries)
    dtype = query_view.dtype
    document_view = _input_matrix(batch, "documents", documents, dtype)
    alive = [query_view, document_view]  # what the structs point into
    (n_queries, dim), n_documents, n_hard = query_view.shape, document_view.shape[0], 0
    if hard_negatives is not None:
        alive.append(_input_matrix(batch, "hard_negatives", hard_negatives, dtype))
        n_hard = alive[-1].shape[0]
    rounds = made.rounds
    # What the library would not read is refused first.
    if negatives is not None and made.sampling != ENUMERATORS["SAMPLING"]["given"]:
        raise error("value", "negatives is given, expected sampling='given' with it")
    if document_ids is not None and not made.exclude & ENUMERATORS["EXCLUDE"]["same-document-id"]:
        raise error("value", "document_ids is given, expected exclude='same-document-id' with it")
    if query_ids is not None and not made.exclude & ENUMERATORS["EXCLUDE"]["same-query-id"]:
        raise error("value", "query_ids is given, expected exclude='same-query-id' with it")
    for name, values in zip(VECTORS, (positives, negatives, document_ids, query_ids, log_probability, weights)):
        if values is not None:
            kind, meaning = VECTORS[name]
            shape = (n_documents if meaning == _OF_DOCUMENTS else n_queries,)
            given = vector(name, values, kind, (n_queries, rounds) if name == "negatives" else shape, meaning)
            setattr(batch, name, given.address)
            alive.append(given)

    shapes = _output_shapes(n_queries, n_documents, dim, n_hard, max(rounds, 0))  # the library refuses less
    if out is not None and not isinstance(out, Mapping):
        raise error("dtype", f"out is a {type(out).__name__}, expected a mapping from names of outputs to arrays")
    arrays: dict[str, Any] = {**dict.fromkeys(items("outputs", outputs)), **(out or {})}
    for name, array in arrays.items():
        if name not in shapes:
            raise error("value", f"{name!r} is no output, expected some of {', '.join(OUTPUTS)}")
        kind = "int32" if name == "negatives" else dtype
        if array is None:
            arrays[name] = array = np.empty(shapes[name], bfloat16() if kind == "bfloat16" else kind)
        label, offset = OUTPUTS[name]
        if name == "negatives":
            given = contiguous_output(label, array, kind, shapes[name])
            result.negatives = given.address
        else:
            given = output(label, array, kind, shapes[name])
            put_matrix(result, offset, label, given)
        alive.append(given)

    return run(context, made, batch, result, arrays)


def run(context: Optional[Context], options: Any, batch: Any, result: Any, arrays: Mapping[str, Any]) -> Result:
    """The call itself; arrays: those that the result shows."""
    context_or_default(context)._call(
        library.negcos_evaluate, ctypes.byref(options), ctypes.byref(batch), ctypes.byref(result)
    )
    # A frozen dataclass's constructor sets its fields one by one, slowly; those that are missing are None by default.
    answer = Result.__new__(Result)
    vars(answer).update(zip(_NUMBERS, _unpack_numbers(result, _AT_NUMBERS)), **arrays)
    return answer


def _input_matrix(batch: Any, name: str, array: Any, dtype: Optional[str] = None) -> View:
    """dtype: the queries', of any other."""
    given = view(name, array)
    if len(given.shape) != 2:
        raise error("shape", f"{name} is {describe(given.shape)}, expected [rows, columns]")
    put_matrix(batch, MATRICES[name], name, given)
    if dtype is not None and given.dtype != dtype:
        raise error("dtype", f"{name} is of {given.dtype}, expected the queries' {dtype}")
    return given


def sample(
    batch: int,
    rounds: int = 4,
    *,
    documents: Optional[int] = None,
    sampling: str = "shuffle",
    seed: int = 0,
    step: int = 0,
    context: Optional[Context] = None,
) -> npt.NDArray[np.int32]:
    """The negatives that evaluate() draws for a batch of so many queries and documents (default: as many) without
    `positives`: rows of documents, [batch, rounds]."""
    options = make_options({"sampling": sampling, "rounds": rounds, "seed": seed, "step": step})
    batch = integer("batch", batch, 64)
    n_documents = batch if documents is None else integer("documents", documents, 64)
    drawn = np.empty((max(batch, 0), max(options.rounds, 0)), np.int32)
    context_or_default(context)._call(
        library.negcos_sample, ctypes.byref(options), batch, n_documents, drawn.ctypes.data
    )
    return drawn


@functools.lru_cache(maxsize=256)
def _output_shapes(
    n_queries: int, n_documents: int, dim: int, n_hard: int, rounds: int
) -> Mapping[str, tuple[int, ...]]:
    return {
        "losses": (n_queries,),
        "hit_probability": (n_queries,),
        "logits": (n_queries, 1 + rounds + (n_hard // n_queries if n_queries else 0)),
        "grad_queries": (n_queries, dim),
        "grad_documents": (n_documents, dim),
        "grad_hard_negatives": (n_hard, dim),
        "negatives": (n_queries, rounds),
    }
