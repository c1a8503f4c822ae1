# SPDX-License-Identifier: Apache-2.0
"""What negcos.tensorflow and negcos.jax share: the options that are fixed when a graph is made, and a context."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np

from ._arrays import refuse_masks
from ._context import Context
from ._evaluate import MATRICES, VECTORS
from ._options import make_options


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as plain values, which serialise, once their names and types are right."""
    plain = {name: _plain(name, value) for name, value in options.items()}
    make_options(plain)
    return plain


def _plain(name: str, value: Any) -> Any:
    refuse_masks(name, value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(name, item) for item in value]
    return value


def refuse_masks_of(arguments: Mapping[str, Any]) -> None:
    """Before a framework makes tensors of them, and drops the masks."""
    for name in (*MATRICES, *VECTORS):
        refuse_masks(name, arguments[name])


# A framework calls from threads of its own, which come and go: they take turns in one context.
_context: Optional[Context] = None
_making = threading.Lock()


def shared_context() -> Context:
    global _context
    with _making:
        if _context is None:
            _context = Context()
        return _context


def loss_dtype(dtype: Any) -> Any:
    """Losses of float16 and bfloat16 are float32: they are computed so, and float16 may not hold a sum."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)
