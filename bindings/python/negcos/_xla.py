# SPDX-License-Identifier: Apache-2.0
"""Python functions that XLA calls on the CPU by its foreign function interface, in XLA's own memory, through ctypes."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any, Optional

import jax.numpy as jnp
import numpy as np
from jax import ffi

from ._errors import Error

_NAME = "negcos_loss"
_Function = Callable[[str, list[Any], list[Any]], None]
_function: _Function


def register(function: _Function) -> None:
    """function(text, inputs, outputs) fills the outputs in; the arrays are XLA's and end with the call."""
    global _function
    _function = function
    ffi.register_ffi_target(_NAME, ffi.pycapsule(ctypes.cast(_handler, ctypes.c_void_p).value), platform="cpu")


def call(text: str, results: Any, *arrays: Any) -> Any:
    """Where a JAX program calls the registered function. results: their shapes and dtypes."""
    return ffi.ffi_call(_NAME, results, vmap_method="sequential")(*arrays, text=text)


# The parts of xla/ffi/api/c_api.h that a handler of one attribute sees. Structs begin with their size and extensions.
_BASE: list[Any] = [("struct_size", ctypes.c_size_t), ("extension", ctypes.c_void_p)]


class _Buffer(ctypes.Structure):
    _fields_ = [
        *_BASE,
        ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
    ]


class _Span(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class _Buffers(ctypes.Structure):
    _fields_ = [
        *_BASE,
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("items", ctypes.POINTER(ctypes.POINTER(_Buffer))),
    ]


class _Attributes(ctypes.Structure):
    _fields_ = [
        *_BASE,
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("names", ctypes.c_void_p),
        ("items", ctypes.POINTER(ctypes.POINTER(_Span))),
    ]


class _Version(ctypes.Structure):
    _fields_ = [*_BASE, ("major", ctypes.c_int), ("minor", ctypes.c_int)]


class _Failure(ctypes.Structure):
    _fields_ = [*_BASE, ("message", ctypes.c_char_p), ("code", ctypes.c_int)]


class _Api(ctypes.Structure):
    _fields_ = [
        *_BASE,
        ("version", _Version),
        ("internal", ctypes.c_void_p),
        ("create_error", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Failure))),
    ]


class _Frame(ctypes.Structure):
    _fields_ = [
        *_BASE,
        ("api", ctypes.POINTER(_Api)),
        ("execution", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("inputs", _Buffers),
        ("outputs", _Buffers),
        ("attributes", _Attributes),
    ]


class _Metadata(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("version", _Version)]


class _Extension(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("metadata", ctypes.POINTER(_Metadata)),  # of type _METADATA
    ]


_METADATA = 1
_DTYPES = {
    1: np.bool_,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    6: np.uint8,
    7: np.uint16,
    8: np.uint32,
    9: np.uint64,
    10: np.float16,
    11: np.float32,
    12: np.float64,
    16: jnp.bfloat16,
}
_CODES = {"null-argument": 3, "shape": 3, "dtype": 3, "value": 3, "overlap": 3, "unsupported": 12, "out-of-memory": 8}
_UNKNOWN = 2


def _arrays(buffers: _Buffers) -> list[Any]:
    """Over XLA's memory."""
    arrays = []
    for item in buffers.items[: buffers.size]:
        buffer = item.contents
        shape, dtype = tuple(buffer.dims[: buffer.rank]), np.dtype(_DTYPES[buffer.dtype])
        size = math.prod(shape) * dtype.itemsize
        memory: Any = (ctypes.c_uint8 * size).from_address(buffer.data) if size else bytearray()
        arrays.append(np.frombuffer(memory, np.uint8).view(dtype).reshape(shape))
    return arrays


@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Frame))  # type: ignore[untyped-decorator]
def _handler(pointer: Any) -> Optional[int]:
    frame = pointer.contents
    try:
        if frame.extension:  # registration: which version of the interface?
            extension = _Extension.from_address(frame.extension)
            if extension.type == _METADATA:
                offered, version = frame.api.contents.version, extension.metadata.contents.version
                # Minor versions add fields at the end of structs; of another major one XLA refuses this.
                version.major, version.minor = 0, offered.minor if offered.major == 0 else 0
                return None
        attribute = frame.attributes.items[0].contents
        text = ctypes.string_at(attribute.data, attribute.size).decode()
        _function(text, _arrays(frame.inputs), _arrays(frame.outputs))
        return None
    except BaseException as failure:  # none may cross XLA
        sentence = str(failure) if isinstance(failure, Error) else repr(failure)
        code = _CODES.get(failure.name, _UNKNOWN) if isinstance(failure, Error) else _UNKNOWN
        made = _Failure(ctypes.sizeof(_Failure), None, f"negcos: {sentence}".encode(), code)
        return int(frame.api.contents.create_error(ctypes.byref(made)))
