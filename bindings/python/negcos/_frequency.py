# SPDX-License-Identifier: Apache-2.0
"""How often an item is a candidate: an estimator of Q, for evaluate(log_probability=...)."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from typing import Any, Optional, Union

import numpy as np

from ._arrays import contiguous_output, vector
from ._context import encoded, enumerator, integer, number
from ._library import check, initialised, library

_Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]


class Frequency:
    """Item ids in, one batch a training step; log-probabilities out. Memory: hashes * buckets * 16 bytes (count-min 8).

    method: "streaming" (the probability that a batch has the item; follows changes) or "count-min" (the item's share
    of all ids so far). learning_rate and initial_gap are streaming's alone. docs/frequency.md has the algorithms.

    Any threads may use it: one call at a time runs, others wait.
    """

    def __init__(
        self,
        method: str = "streaming",
        *,
        hashes: int = 4,
        buckets: int = 1 << 20,
        learning_rate: float = 0.01,
        initial_gap: float = 0.0,
        seed: int = 0,
    ) -> None:
        options = initialised("negcos_frequency_options")
        options.method = enumerator("method", method, "FREQUENCY")
        options.hashes = integer("hashes", hashes, 32)
        options.buckets = integer("buckets", buckets, 64)
        options.learning_rate = number("learning_rate", learning_rate)
        options.initial_gap = number("initial_gap", initial_gap)
        options.seed = integer("seed", seed, 64, signed=False)
        handle = ctypes.c_void_p()
        check(library.negcos_frequency_create(ctypes.byref(options), ctypes.byref(handle)))
        self._own(handle)

    @classmethod
    def load(cls, path: _Path) -> Frequency:
        """What save() saved; it goes on as the saved one would have."""
        handle = ctypes.c_void_p()
        check(library.negcos_frequency_load(encoded("path", os.fsencode(path)), ctypes.byref(handle)))
        loaded = cls.__new__(cls)
        loaded._own(handle)
        return loaded

    def _own(self, handle: ctypes.c_void_p) -> None:
        self._handle: Optional[int] = handle.value
        self._lock = threading.Lock()
        weakref.finalize(self, library.negcos_frequency_destroy, handle.value).atexit = False

    def update(self, ids: Any) -> None:
        """Count a batch: ids [n] of int64 (or what converts without loss), in any order. One call is one step."""
        given = vector("ids", ids, "int64", None)
        with self._lock:
            check(library.negcos_frequency_update(self._handle, given.address, given.shape[0]))

    def log_probability(self, ids: Any, out: Any = None) -> Any:
        """The natural log of the estimate for each of ids [n]: float64 [n], or `out` filled in place."""
        given = vector("ids", ids, "int64", None)
        array = np.empty(given.shape, np.float64) if out is None else out
        target = contiguous_output("out", array, "float64", given.shape)
        with self._lock:
            check(library.negcos_frequency_log_probability(self._handle, given.address, given.shape[0], target.address))
        return array

    def save(self, path: _Path) -> None:
        """Save everything, for any machine; whatever interrupts it, at `path` is the old file or the new one."""
        with self._lock:
            check(library.negcos_frequency_save(self._handle, encoded("path", os.fsencode(path))))

    def __reduce__(self) -> Any:
        raise TypeError("a negcos.Frequency can be neither copied nor pickled: save() and load() it")
