# SPDX-License-Identifier: Apache-2.0
"""Arrays of any library as an address, a shape and strides, without a copy: NumPy's own, and others by DLPack.

DLPack capsules are read here rather than by numpy.from_dlpack, which knows no bfloat16.
"""

from __future__ import annotations

import ctypes
import functools
import math
import struct
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from ._errors import Error, error

# Element types that the library computes in: NEGCOS_DTYPE_ and bytes.
FLOATS = {"float32": (0, 4), "float64": (1, 8), "float16": (2, 2), "bfloat16": (3, 2)}


class _Tensor(ctypes.Structure):  # DLTensor
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Versioned(ctypes.Structure):  # DLManagedTensorVersioned
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_READ_ONLY, _IS_COPIED = 1, 2  # flags
# Their arrays never change, which a capsule from before DLPack 1.0 cannot say.
_IMMUTABLE = ("jax", "jaxlib", "tensorflow")
_CPU, _CUDA_HOST = 1, 3  # memory that the processor reads: plain, and pinned for a GPU
_CODES = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}

# An address for arrays without elements, whose own may be NULL, which is "absent" to the library.
_nothing = ctypes.c_double()
_NOWHERE = ctypes.addressof(_nothing)

# Prototypes of our own: those of ctypes.pythonapi's attributes are everybody's.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class View(NamedTuple):
    """Memory of somebody else's, valid while `owner` lives."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements
    dtype: str  # NumPy's name, or "bfloat16"
    writable: bool
    owner: Any

    @property
    def contiguous(self) -> bool:
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides)):
            if size > 1 and stride != expected:
                return 0 in self.shape
            expected *= size
        return True


def view(name: str, array: Any) -> View:
    """name: of the argument, for errors."""
    reader = READERS.get(type(array))
    given = _view(name, array) if reader is None else reader(name, array)
    return given._replace(address=_NOWHERE) if 0 in given.shape else given


def _view(name: str, array: Any) -> View:
    refuse_masks(name, array)
    if isinstance(array, np.ndarray):
        return _view_numpy(name, array)
    if hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
        return view_dlpack(name, array)
    raise error("dtype", f"{name} is a {type(array).__name__}, expected a NumPy array or one with __dlpack__")


def refuse_masks(name: str, values: Any) -> None:
    """NumPy drops masks when it makes an array, of a list of masked arrays as well."""
    try:
        masked = _is_masked(values)
    except RecursionError:  # a list in itself makes no array
        masked = False
    if masked:
        raise error("value", f"{name} has masked elements, expected none: fill them or leave them out")


def _is_masked(values: Any) -> bool:
    if isinstance(values, (list, tuple)):
        return any(map(_is_masked, values))
    if not isinstance(values, np.ma.MaskedArray) or values.dtype.names:  # records are no numbers, masked or not
        return False
    return bool(np.any(np.ma.getmaskarray(values)))


def _view_numpy(name: str, array: np.ndarray[Any, Any]) -> View:
    dtype, strides = _layout(array.dtype, array.strides)
    if dtype is None:
        raise error("dtype", f"{name} is of {array.dtype.str}, expected this machine's byte order")
    if strides is None:
        raise error("shape", f"{name} has strides of {array.strides} bytes, expected multiples of its elements")
    flags = array.flags
    writable = flags.writeable
    try:  # the sooner way to the address, for what has a buffer
        address = _address(_buffer(array)) if writable and flags.c_contiguous else array.ctypes.data
    except ValueError:  # no elements, or some of bfloat16
        address = array.ctypes.data
    return View(address, array.shape, strides, dtype, writable, array)


_address = ctypes.addressof
_buffer: Any = ctypes.c_char.from_buffer


@functools.lru_cache(maxsize=256)  # NumPy puts the name together each time
def _layout(dtype: np.dtype[Any], strides: tuple[int, ...]) -> tuple[Optional[str], Optional[tuple[int, ...]]]:
    """The dtype's name and the strides in elements; None where there is none."""
    size = dtype.itemsize or 1
    whole = not any(stride % size for stride in strides)
    return dtype.name if dtype.isnative else None, tuple(stride // size for stride in strides) if whole else None


# By the very type, for what needs no more questions. negcos.torch adds its own.
READERS: dict[type, Callable[[str, Any], View]] = {np.ndarray: _view_numpy, View: lambda name, given: given}


def view_dlpack(name: str, array: Any) -> View:
    try:
        device = int(array.__dlpack_device__()[0])
        if device not in (_CPU, _CUDA_HOST):
            raise error("dtype", f"{name} is on a device (DLPack type {device}), expected the CPU")
        try:
            capsule = array.__dlpack__(max_version=(1, 0), copy=False)
        except TypeError:  # a producer from before DLPack 1.0
            capsule = array.__dlpack__()
    except (BufferError, NotImplementedError, RuntimeError, TypeError, ValueError) as failure:
        if isinstance(failure, Error):
            raise
        raise error("dtype", f"{name} cannot be passed as it is: {failure}") from failure
    # The capsule is borrowed, never taken: it keeps its name, so that its own destructor calls the deleter.
    flags = 0
    if _is_valid(capsule, b"dltensor_versioned"):
        managed = _Versioned.from_address(_get_pointer(capsule, b"dltensor_versioned"))
        if managed.major != 1:
            raise error("dtype", f"{name} speaks DLPack {managed.major}.{managed.minor}, expected 1")
        tensor, flags = managed.tensor, managed.flags
    elif _is_valid(capsule, b"dltensor"):
        tensor = _Tensor.from_address(_get_pointer(capsule, b"dltensor"))
    else:
        raise error("dtype", f"{name}: its __dlpack__() returned no DLPack capsule")
    kind = _CODES.get(tensor.code, f"DLPack type {tensor.code} of ")
    if tensor.lanes != 1:
        raise error("dtype", f"{name} has elements of {tensor.lanes} lanes, expected 1")
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.strides:
        strides = tuple(tensor.strides[: tensor.ndim])
    else:  # compact
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(tensor.ndim))
    dtype = "bool" if kind == "bool" else f"{kind}{tensor.bits}"
    writable = not flags & (_READ_ONLY | _IS_COPIED) and type(array).__module__.split(".")[0] not in _IMMUTABLE
    return View((tensor.data or 0) + tensor.byte_offset, shape, strides, dtype, writable, (array, capsule))


_pack = struct.Struct("Pqqqii").pack_into
put_address = struct.Struct("P").pack_into  # (made, offset, address): into the matrix there, which is else complete


def put_matrix(made: Any, offset: int, name: str, given: View) -> None:
    """A two-dimensional view, or a one-dimensional one as a column, into the struct's negcos_matrix at that offset."""
    # Sooner done than a ctypes struct is made and assigned.
    _pack(made, offset, given.address, *_matrix(name, given.shape, given.strides, given.dtype))


@functools.lru_cache(maxsize=256)
def _matrix(name: str, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str) -> tuple[int, int, int, int, int]:
    """All of a negcos_matrix but the address."""
    if dtype not in FLOATS:
        raise error("dtype", f"{name} is of {dtype}, expected one of {', '.join(FLOATS)}")
    if len(shape) == 1:
        (rows,), (row_stride,) = shape, strides
        cols, col_stride = 1, 1
    else:
        (rows, cols), (row_stride, col_stride) = shape, strides
    if rows <= 1 or cols == 0:  # strides that address nothing
        row_stride = cols
    if rows == 0:
        col_stride = 1
    if cols > 1 and col_stride != 1:
        raise error("shape", f"{name} has {col_stride} elements from column to column, expected contiguous rows")
    if row_stride < cols:
        raise error("shape", f"{name} has {row_stride} elements from row to row, expected at least its {cols} columns")
    return rows, cols, row_stride, FLOATS[dtype][0], 0


def describe(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def expect_shape(name: str, given: View, expected: tuple[int, ...], meaning: str) -> None:
    if given.shape != expected:
        raise error("shape", f"{name} is {describe(given.shape)}, expected {describe(expected)}: {meaning}")


def vector(name: str, values: Any, dtype: str, shape: tuple[int, ...] | None, meaning: str = "") -> View:
    """Contiguous elements of `dtype`: as they are, or else a copy when no value changes (int32 to int64, lists, another
    byte order).
    shape: None = one-dimensional of any length."""
    by_dlpack = not isinstance(values, np.ndarray) and hasattr(values, "__dlpack__")
    if by_dlpack and str(getattr(values, "dtype", None)) == "torch.bool":  # which PyTorch 1.13 does not export
        by_dlpack = False
    given = view(name, values if by_dlpack else as_numpy(name, values))
    if shape is not None:
        expect_shape(name, given, shape, meaning)
    elif len(given.shape) != 1:
        raise error("shape", f"{name} is {describe(given.shape)}, expected one dimension")
    if given.dtype == dtype and given.contiguous:
        return given
    return view(name, _converted(name, given, dtype))


def output(name: str, array: Any, dtype: str, shape: tuple[int, ...]) -> View:
    """An array that the library will write to."""
    given = view(name, array)
    if given.dtype != dtype:
        raise error("dtype", f"{name} is of {given.dtype}, expected {dtype}")
    if not given.writable:
        raise error("value", f"{name} is read-only, expected a writable array")
    expect_shape(name, given, shape, "the shape of this output")
    return given


def contiguous_output(name: str, array: Any, dtype: str, shape: tuple[int, ...]) -> View:
    given = output(name, array, dtype, shape)
    if not given.contiguous:
        raise error("shape", f"{name} has strides of {describe(given.strides)} elements, expected contiguous ones")
    return given


def as_numpy(name: str, values: Any) -> np.ndarray[Any, Any]:
    """Numbers without a mask, aligned, in this machine's byte order: the array itself where it is so, else a copy."""
    if type(values) is np.ndarray:
        flags, dtype = values.flags, values.dtype
        if flags.c_contiguous and flags.aligned and dtype.isnative and dtype.kind != "O":
            return values
    refuse_masks(name, values)
    try:
        array = np.asanyarray(values)
    except (ValueError, TypeError, OverflowError):
        array = np.asarray(None)
    if array.dtype.kind == "O":
        raise error("dtype", f"{name} is a {type(values).__name__} that makes no array of numbers")
    refuse_masks(name, array)  # made by its own __array__
    return np.require(np.asarray(array), array.dtype.newbyteorder("="), ("C", "A"))


def _converted(name: str, given: View, dtype: str) -> np.ndarray[Any, Any]:
    source = _borrowed(given)
    target = np.dtype(dtype)
    # A bool is a number among weights; among rows it may be meant as a mask.
    kinds = ("i", "u", "f", "b") if target.kind == "f" else ("i", "u", "f")
    if source.dtype.kind in kinds and np.can_cast(source.dtype, target, "safe"):
        return source.astype(target, order="C")
    if source.dtype.kind in ("i", "u") and target.kind == "i":
        limits = np.iinfo(target)
        if source.size == 0 or (int(source.min()) >= limits.min and int(source.max()) <= limits.max):
            return source.astype(target, order="C")
        raise error("value", f"{name} has numbers outside {dtype}")
    raise error("dtype", f"{name} is of {given.dtype}, expected {dtype}, or what converts to it without loss")


def _borrowed(given: View) -> np.ndarray[Any, Any]:
    """A NumPy array over the view's memory, which must outlive it; of bfloat16, which NumPy lacks, a float32 copy."""
    half = given.dtype == "bfloat16"
    if isinstance(given.owner, np.ndarray) and not half:
        return given.owner
    try:
        dtype = np.dtype("uint16" if half else given.dtype)
    except TypeError:
        return np.empty(given.shape, "V1")  # refused as no number
    interface = {
        "version": 3,
        "data": (given.address, True),
        "shape": given.shape,
        "typestr": dtype.str,
        "strides": tuple(stride * dtype.itemsize for stride in given.strides),
    }
    array = np.asarray(type("Borrowed", (), {"__array_interface__": interface})())
    return (array.astype(np.uint32) << 16).view(np.float32) if half else array


def bfloat16() -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError:
        raise error(
            "dtype", "outputs of bfloat16 need the package ml_dtypes, or arrays of the caller's by out="
        ) from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype
