# SPDX-License-Identifier: Apache-2.0
"""The options of a loss, listed once, for evaluate() and the frameworks.

Type checkers and editors read the keywords of **options: Unpack[...] from the list; shows_options() shows them to
inspect and help(), with their defaults and what they are. How a value is checked follows from its type and from its
field in the C struct: an option that is a str, a float or an int takes that field in _library.py and a line here.
"""

from __future__ import annotations

import ctypes
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Callable, NamedTuple, Optional, TypedDict, TypeVar, Union, get_type_hints

from ._context import enumerator, integer, items, number
from ._errors import error
from ._library import ENUMERATORS, STRUCTS, initialised

T = TypeVar("T", bound=Callable[..., Any])


class FixedOptions(TypedDict, total=False):
    """Those that mean the same everywhere and are fixed when a graph is made: Annotated[type, default, what it is]."""

    objective: Annotated[str, "softmax", "what a query's logits make its loss"]
    similarity: Annotated[str, "cosine", "of a query and a document"]
    sampling: Annotated[str, "shuffle", "where the negatives come from"]
    reduction: Annotated[str, "mean", "of the losses, each times its query's weight"]
    direction: Annotated[str, "query-to-document", "who ranks whom; both takes sampling='all'"]
    exclude: Annotated[Union[str, Iterable[str]], (), "negatives to drop: 'same-document-id', 'same-query-id' or both"]
    temperature: Annotated[float, 1.0, "logits are scale / temperature * similarity"]
    norm_floor: Annotated[float, 1e-12, "norms below it count as it"]
    margin: Annotated[float, 0.0, "taken from the similarity of the positive"]
    label_smoothing: Annotated[float, 0.0, "part of the target that all candidates share, in [0, 1)"]
    hardness: Annotated[float, 0.0, "of negatives: hardness * similarity is added to their logits, without a gradient"]
    false_negative_margin: Annotated[float, math.inf, "negatives that beat the positive by more than this are dropped"]
    correction: Annotated[str, "all-candidates", "which logits log_probability corrects"]
    prefix_dims: Annotated[Sequence[int], (), "columns of nested prefixes, each with its own loss (Matryoshka)"]
    prefix_weights: Annotated[Optional[Sequence[float]], None, "of the losses of prefixes; None: 1 each"]


class Options(FixedOptions, total=False):
    """All, as evaluate() takes them. A framework has other types for these, hence parameters of its own."""

    rounds: Annotated[int, 4, "negatives of each query; without effect where sampling is 'all'"]
    seed: Annotated[int, 0, "with step, the key of the draws"]
    step: Annotated[int, 0, "the training step: each draws other negatives"]
    scale: Annotated[float, 20.0, "logits are scale / temperature * similarity"]
    bias: Annotated[float, 0.0, "added to every logit, with objective='sigmoid'"]


class Option(NamedTuple):
    type: Any
    default: Any
    meaning: str


_FIELDS: dict[str, Any] = dict(STRUCTS["negcos_options"]._fields_)
_HINTS = get_type_hints(Options, include_extras=True)
# In the order of negcos_options.
OPTIONS = {
    name: Option(_HINTS[name].__origin__, *_HINTS[name].__metadata__)
    for name in sorted(_HINTS, key=list(_FIELDS).index)
}
_ORDER = {name: at for at, name in enumerate(OPTIONS)}
# Bits, and whether they are signed.
_INTEGERS = {
    name: (8 * ctypes.sizeof(_FIELDS[name]), _FIELDS[name] is ctypes.c_int32)
    for name, option in OPTIONS.items()
    if option.type is int
}


def shows_options(kind: Any) -> Callable[[T], T]:
    """For what takes **options: Unpack[kind], a function or a class: inspect.signature() shows each of them, with its
    default, and help() what it is."""

    def show(taker: T) -> T:
        function: Any = taker.__init__ if isinstance(taker, type) else taker  # type: ignore[misc]
        signature = inspect.signature(function)
        parameters = {name: parameter for name, parameter in signature.parameters.items() if name != "options"}
        del function.__annotations__["options"]
        for name, (hint, default, _) in OPTIONS.items():
            if name in kind.__annotations__:
                parameters[name] = inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint
                )
                function.__annotations__[name] = hint
        function.__signature__ = signature.replace(parameters=list(parameters.values()))
        if taker.__doc__:  # python -OO has none
            lines = [f"    {name}: {_explained(name)}" for name in OPTIONS if name in parameters]
            taker.__doc__ = "\n".join([inspect.cleandoc(taker.__doc__), "", "Options:", *lines])
        return taker

    return show


def _explained(name: str) -> str:
    option = OPTIONS[name]
    words = f" ({', '.join(ENUMERATORS[name.upper()])})" if option.type is str else ""
    return f"{option.meaning}{words}"


def refuse_unknown(names: Iterable[str]) -> None:
    for name in names:
        if name not in OPTIONS:
            raise TypeError(f"unexpected option {name!r}, expected some of {', '.join(OPTIONS)}")


def make_options(given: Mapping[str, Any]) -> Any:
    """negcos_options of what is given, once names and types are right, and of the library's defaults for the rest."""
    refuse_unknown(given)
    options = initialised("negcos_options")
    for name in sorted(given, key=_ORDER.__getitem__):
        option = OPTIONS[name]
        if given[name] is not option.default:
            _set(options, name, option.type, given[name])
    return options


def _set(options: Any, name: str, kind: Any, value: Any) -> None:
    if kind is str:
        setattr(options, name, enumerator(name, value, name.upper()))
    elif kind is float:
        setattr(options, name, number(name, value))
    elif kind is int:
        setattr(options, name, integer(name, value, *_INTEGERS[name]))
    elif name == "exclude":
        for bit in items(name, value):
            options.exclude |= enumerator(name, bit, "EXCLUDE")
    elif name == "prefix_dims":
        dims = [integer(f"prefix_dims[{p}]", columns, 32) for p, columns in enumerate(items(name, value))]
        if dims:
            options.prefix_count = len(dims)
            options.prefix_dims = (ctypes.c_int32 * len(dims))(*dims)
    elif name == "prefix_weights":
        if value is not None:
            weights = [number(f"prefix_weights[{p}]", weight) for p, weight in enumerate(items(name, value))]
            if len(weights) != options.prefix_count:
                raise error("shape", f"prefix_weights has {len(weights)}, prefix_dims {options.prefix_count}")
            options.prefix_weights = (ctypes.c_double * len(weights))(*weights)
