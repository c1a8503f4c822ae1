# SPDX-License-Identifier: Apache-2.0
"""The C ABI of negcos.h through ctypes: layouts, enumerators, functions. ctypes frees the GIL during every call."""

from __future__ import annotations

import ctypes
import functools
import math
import os
import sys
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any, Optional

from ._errors import STATUS, error

# Every enumeration of negcos.h: NEGCOS_<GROUP>_<NAME> is ENUMERATORS["GROUP"]["name"].
ENUMERATORS: dict[str, dict[str, int]] = {
    "STATUS": STATUS,
    "DTYPE": {"f32": 0, "f64": 1, "f16": 2, "bf16": 3},
    "THREADING": {"default": 0, "serial": 1, "tbb": 2, "openmp": 3, "callback": 4},
    "OBJECTIVE": {"softmax": 0, "batch-softmax": 1, "sigmoid": 2, "decoupled": 3},
    "SIMILARITY": {"cosine": 0, "dot": 1},
    "SAMPLING": {
        "shuffle": 0,
        "derangement": 1,
        "cyclic": 2,
        "uniform": 3,
        "log-uniform": 4,
        "given": 5,
        "all": 6,
        "groups": 8,
    },
    "REDUCTION": {"mean": 0, "sum": 1},
    "DIRECTION": {"query-to-document": 0, "both": 1},
    "CORRECTION": {"all-candidates": 0, "negatives-only": 1},
    "EXCLUDE": {"same-document-id": 1, "same-query-id": 2},
    "FREQUENCY": {"streaming": 0, "count-min": 1},
}

Body = ctypes.CFUNCTYPE(None, c_void_p, c_int64)
ParallelFor = ctypes.CFUNCTYPE(c_int32, c_void_p, c_int64, Body, c_void_p)


class Matrix(ctypes.Structure):
    """negcos_matrix, and negcos_const_matrix: the same layout."""

    _fields_ = [
        ("data", c_void_p),
        ("rows", c_int64),
        ("cols", c_int64),
        ("row_stride", c_int64),
        ("dtype", c_int32),
        ("reserved", c_int32),
    ]


class ContextOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("threads", c_int32),
        ("threading", c_int32),
        ("reserved", c_int32),
        ("isa", c_char_p),
        ("parallel_for", ParallelFor),
        ("parallel_for_data", c_void_p),
        ("workspace_limit", c_uint64),
    ]


class Options(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("objective", c_int32),
        ("similarity", c_int32),
        ("sampling", c_int32),
        ("rounds", c_int32),
        ("reduction", c_int32),
        ("direction", c_int32),
        ("exclude", c_int32),
        ("seed", c_uint64),
        ("step", c_uint64),
        ("scale", c_double),
        ("temperature", c_double),
        ("bias", c_double),
        ("norm_floor", c_double),
        ("margin", c_double),
        ("label_smoothing", c_double),
        ("hardness", c_double),
        ("false_negative_margin", c_double),
        ("correction", c_int32),
        ("prefix_count", c_int32),
        ("prefix_dims", POINTER(c_int32)),
        ("prefix_weights", POINTER(c_double)),
    ]


class Batch(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("queries", Matrix),
        ("documents", Matrix),
        ("hard_negatives", Matrix),
        ("positives", c_void_p),
        ("negatives", c_void_p),
        ("document_ids", c_void_p),
        ("query_ids", c_void_p),
        ("log_probability", c_void_p),
        ("weights", c_void_p),
    ]


class Result(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("loss", c_double),
        ("grad_scale", c_double),
        ("grad_bias", c_double),
        ("accuracy", c_double),
        ("mean_reciprocal_rank", c_double),
        ("excluded", c_int64),
        ("zero_rows", c_int64),
        ("losses", Matrix),
        ("hit_probability", Matrix),
        ("logits", Matrix),
        ("grad_queries", Matrix),
        ("grad_documents", Matrix),
        ("grad_hard_negatives", Matrix),
        ("negatives", c_void_p),
    ]


class FrequencyOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("method", c_int32),
        ("hashes", c_int32),
        ("reserved", c_int32),
        ("buckets", c_int64),
        ("learning_rate", c_double),
        ("initial_gap", c_double),
        ("seed", c_uint64),
    ]


STRUCTS: dict[str, Any] = {
    "negcos_const_matrix": Matrix,
    "negcos_matrix": Matrix,
    "negcos_context_options": ContextOptions,
    "negcos_options": Options,
    "negcos_batch": Batch,
    "negcos_result": Result,
    "negcos_frequency_options": FrequencyOptions,
}

# name: (restype, argtypes). Structs go by byref(), handles and arrays as addresses.
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "negcos_version": (c_uint32, []),
    "negcos_status_string": (c_char_p, [c_int32]),
    "negcos_last_error": (c_char_p, []),
    "negcos_isa_count": (c_int32, []),
    "negcos_isa_name": (c_char_p, [c_int32]),
    "negcos_isa_available": (c_int32, [c_char_p]),
    "negcos_context_options_init": (None, [POINTER(ContextOptions), c_size_t]),
    "negcos_options_init": (None, [POINTER(Options), c_size_t]),
    "negcos_batch_init": (None, [POINTER(Batch), c_size_t]),
    "negcos_result_init": (None, [POINTER(Result), c_size_t]),
    "negcos_frequency_options_init": (None, [POINTER(FrequencyOptions), c_size_t]),
    "negcos_context_create": (c_int32, [POINTER(ContextOptions), POINTER(c_void_p)]),
    "negcos_context_destroy": (None, [c_void_p]),
    "negcos_context_isa": (c_char_p, [c_void_p]),
    "negcos_context_threads": (c_int32, [c_void_p]),
    "negcos_evaluate": (c_int32, [c_void_p, POINTER(Options), POINTER(Batch), POINTER(Result)]),
    "negcos_sample": (c_int32, [c_void_p, POINTER(Options), c_int64, c_int64, c_void_p]),
    "negcos_frequency_create": (c_int32, [POINTER(FrequencyOptions), POINTER(c_void_p)]),
    "negcos_frequency_update": (c_int32, [c_void_p, c_void_p, c_int64]),
    "negcos_frequency_log_probability": (c_int32, [c_void_p, c_void_p, c_int64, c_void_p]),
    "negcos_frequency_save": (c_int32, [c_void_p, c_char_p]),
    "negcos_frequency_load": (c_int32, [c_char_p, POINTER(c_void_p)]),
    "negcos_frequency_destroy": (None, [c_void_p]),
}

# The first version with all of the above; later ones of the same major are compatible.
_NEEDS = (0, 1, 0)


def _installed() -> Optional[str]:
    """The library of the wheel, in the folder that meson-python makes for it beside the package (on systems that keep
    pure and other packages apart: in the other's)."""
    for folder in (Path(__file__).parent.parent, *map(Path, sys.path)):
        for path in folder.glob(".negcos.mesonpy.libs/libnegcos*"):
            return str(path)
    return None


def _load() -> ctypes.CDLL:
    path = os.environ.get("NEGCOS_LIBRARY") or _installed()
    if path is None:
        raise ImportError("negcos: no shared library is installed with the package; NEGCOS_LIBRARY may name one")
    try:
        loaded = ctypes.CDLL(path)
    except OSError as failure:
        raise ImportError(f"negcos: the shared library cannot be loaded: {failure}", path=path) from failure
    try:
        for function, (restype, argtypes) in FUNCTIONS.items():
            symbol = getattr(loaded, function)
            symbol.restype, symbol.argtypes = restype, argtypes
    except AttributeError as failure:
        raise ImportError(f"negcos: {path} is no negcos library for this package: {failure}", path=path) from None
    return loaded


def version() -> tuple[int, int, int]:
    """The library's version: (major, minor, patch)."""
    packed = int(library.negcos_version())
    return packed >> 16, packed >> 8 & 255, packed & 255


def isas() -> list[str]:
    """The instruction sets that this machine can run, best first."""
    names = [library.negcos_isa_name(index) for index in range(library.negcos_isa_count())]
    return [name.decode() for name in names if library.negcos_isa_available(name)]


def _check_compatible() -> None:
    found = version()
    if found[0] != _NEEDS[0] or found < _NEEDS:
        raise ImportError(f"negcos: the library is version {found}, expected {_NEEDS} or a later one of that major")
    # Defaults where they are expected: the two layouts agree.
    options, frequency = initialised("negcos_options"), initialised("negcos_frequency_options")
    batch, result = initialised("negcos_batch"), initialised("negcos_result")
    if (
        (options.rounds, options.scale, options.temperature, options.norm_floor) != (4, 20, 1, 1e-12)
        or options.false_negative_margin != math.inf
        or any(struct.struct_size != ctypes.sizeof(struct) for struct in (options, batch, result, frequency))
        or (frequency.hashes, frequency.buckets, frequency.learning_rate) != (4, 1 << 20, 0.01)
    ):
        raise ImportError("negcos: the library's structs are not laid out as this package knows them")


@functools.lru_cache(maxsize=None)
def _defaults(name: str) -> bytes:
    made = STRUCTS[name]()
    getattr(library, f"{name}_init")(ctypes.byref(made), ctypes.sizeof(made))
    return bytes(made)


def initialised(name: str) -> Any:
    """A struct with the library's defaults."""
    return STRUCTS[name].from_buffer_copy(_defaults(name))


def check(status: int) -> None:
    if status != 0:
        raise error(status, library.negcos_last_error().decode("utf-8", "replace"))


library = _load()
_check_compatible()
