# SPDX-License-Identifier: Apache-2.0
"""A producer of DLPack capsules over NumPy memory: the protocol as its specification tells it, both versions of it."""

import ctypes

import numpy as np

from negcos._arrays import _Tensor, _Versioned

DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
DESTRUCTOR = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)


class Managed(ctypes.Structure):  # DLManagedTensor
    _fields_ = [("tensor", _Tensor), ("manager_ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


def _api(restype, name, *argtypes):
    return ctypes.PYFUNCTYPE(restype, *argtypes)((name, ctypes.pythonapi))


new_capsule = _api(ctypes.py_object, "PyCapsule_New", ctypes.c_void_p, ctypes.c_char_p, DESTRUCTOR)
is_valid = _api(ctypes.c_int, "PyCapsule_IsValid", ctypes.c_void_p, ctypes.c_char_p)
TYPES = {
    "float32": (2, 32),
    "float64": (2, 64),
    "float16": (2, 16),
    "bfloat16": (4, 16),
    "int64": (0, 64),
    "bool": (6, 8),
}


class Producer:
    """array: NumPy memory, for bfloat16 uint16. deleted counts the capsules that were let go."""

    def __init__(self, array, dtype=None, *, versioned=True, flags=0, device=1, compact=False, lanes=1, major=1):
        self.array, self.dtype = array, dtype or array.dtype.name
        self.versioned, self.flags, self.device, self.compact = versioned, flags, device, compact
        self.lanes, self.major = lanes, major
        self.exported = self.deleted = 0
        self._alive = []

    def __dlpack_device__(self):
        return (self.device, 0)

    def __dlpack__(self, **asked):
        if not self.versioned and asked:
            raise TypeError("unexpected keyword")  # as producers do that are older than DLPack 1.0
        array = self.array
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        strides = (ctypes.c_int64 * array.ndim)(*(stride // array.itemsize for stride in array.strides))
        code, bits = TYPES[self.dtype]
        tensor = _Tensor(array.ctypes.data - 8, self.device, 0, array.ndim, code, bits, self.lanes, shape, strides, 8)
        if self.compact:
            tensor.strides = None
        if self.versioned:
            managed = _Versioned(self.major, 0, None, None, self.flags, tensor)
            name = b"dltensor_versioned"
        else:
            managed, name = Managed(tensor, None, None), b"dltensor"

        @DELETER
        def delete(_):
            self.deleted += 1

        @DESTRUCTOR
        def destroy(capsule):
            if is_valid(capsule, name):  # nobody took it
                delete(ctypes.addressof(managed))

        self._alive.append((shape, strides, managed, delete, destroy, name))
        self.exported += 1
        return new_capsule(ctypes.addressof(managed), name, destroy)


def to_bfloat16(values):
    """The upper halves of float32, exact where the lower ones are 0."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    assert not np.any(bits & 0xFFFF)
    return (bits >> 16).astype(np.uint16)


def from_bfloat16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)
