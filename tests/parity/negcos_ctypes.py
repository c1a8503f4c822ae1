# SPDX-License-Identifier: Apache-2.0
"""negcos_evaluate through ctypes: NumPy arrays in, loss and gradients out. The layouts are those of negcos.h."""
import ctypes
from ctypes import POINTER, byref, c_double, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from types import SimpleNamespace

import numpy as np

DTYPES = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}
NAMES = {
    "objective": ("SOFTMAX", "BATCH_SOFTMAX", "SIGMOID", "DECOUPLED"),
    "similarity": ("COSINE", "DOT"),
    "sampling": ("SHUFFLE", "DERANGEMENT", "CYCLIC", "UNIFORM", "LOG_UNIFORM", "GIVEN", "ALL"),
    "reduction": ("MEAN", "SUM"),
    "direction": ("QUERY_TO_DOCUMENT", "BOTH"),
    "correction": ("ALL_CANDIDATES", "NEGATIVES_ONLY"),
}
SAME_DOCUMENT_ID, SAME_QUERY_ID = 1, 2  # bits of `exclude`


class Matrix(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("rows", c_int64), ("cols", c_int64), ("row_stride", c_int64), ("dtype", c_int32),
                ("reserved", c_int32)]  # fmt: skip


def _struct(name, *fields):
    return type(name, (ctypes.Structure,), {"_fields_": [("struct_size", c_uint32), *fields]})


Options = _struct(
    "Options",
    *[(name, c_int32) for name in "objective similarity sampling rounds reduction direction exclude".split()],
    *[(name, c_uint64) for name in ("seed", "step")],
    *[(name, c_double) for name in "scale temperature bias norm_floor margin label_smoothing hardness "
      "false_negative_margin".split()],
    ("correction", c_int32),
    ("prefix_count", c_int32),
    ("prefix_dims", POINTER(c_int32)),
    ("prefix_weights", POINTER(c_double)),
)  # fmt: skip
Batch = _struct(
    "Batch",
    ("reserved", c_uint32),
    *[(name, Matrix) for name in ("queries", "documents", "hard_negatives")],
    ("positives", POINTER(c_int64)),
    ("negatives", POINTER(c_int32)),
    ("document_ids", POINTER(c_int64)),
    ("query_ids", POINTER(c_int64)),
    ("log_probability", POINTER(c_double)),
    ("weights", POINTER(c_double)),
)
Result = _struct(
    "Result",
    ("reserved", c_uint32),
    *[(name, c_double) for name in "loss grad_scale grad_bias accuracy mean_reciprocal_rank".split()],
    *[(name, c_int64) for name in ("excluded", "zero_rows")],
    *[(name, Matrix) for name in "losses hit_probability logits grad_queries grad_documents "
      "grad_hard_negatives".split()],
    ("negatives", POINTER(c_int32)),
)


class Library:
    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        self.library.negcos_last_error.restype = ctypes.c_char_p
        for name in ("negcos_options_init", "negcos_batch_init", "negcos_result_init"):
            getattr(self.library, name).argtypes = [c_void_p, ctypes.c_size_t]
            getattr(self.library, name).restype = None
        self.library.negcos_evaluate.argtypes = [c_void_p] * 4
        self.context = c_void_p()
        self._check(self.library.negcos_context_create(None, byref(self.context)))

    def _check(self, status):
        if status != 0:
            raise RuntimeError(self.library.negcos_last_error().decode())

    def _init(self, kind):
        struct = kind()
        getattr(self.library, f"negcos_{kind.__name__.lower()}_init")(byref(struct), ctypes.sizeof(struct))
        return struct

    def evaluate(self, queries, documents, hard_negatives=None, **given):
        """given: fields of negcos_options, enumerators as names, and arrays of negcos_batch."""
        options, batch, result = self._init(Options), self._init(Batch), self._init(Result)
        alive = []  # what the structs point into

        def array(values, dtype):
            alive.append(np.ascontiguousarray(values, dtype))
            return alive[-1]

        def pointer(values, field_type):
            return array(values, np.dtype(field_type._type_)).ctypes.data_as(field_type)

        def matrix(values):
            values = array(values, queries.dtype)
            rows, cols = values.shape
            return Matrix(values.ctypes.data, rows, cols, cols, DTYPES[values.dtype], 0)

        if "prefix_dims" in given:
            options.prefix_count = len(given["prefix_dims"])
        fields = {name: (struct, kind) for struct in (options, batch) for name, kind in struct._fields_}
        for name, value in given.items():
            struct, kind = fields[name]
            if name in NAMES:
                value = NAMES[name].index(value)
            setattr(struct, name, pointer(value, kind) if hasattr(kind, "contents") else value)

        inputs = {"queries": queries, "documents": documents, "hard_negatives": hard_negatives}
        inputs = {name: values for name, values in inputs.items() if values is not None}
        gradients = {f"grad_{name}": np.full(values.shape, np.nan, queries.dtype) for name, values in inputs.items()}
        negatives = None
        for name, values in inputs.items():
            setattr(batch, name, matrix(values))
            setattr(result, f"grad_{name}", matrix(gradients[f"grad_{name}"]))
        if NAMES["sampling"][options.sampling] not in ("GIVEN", "ALL"):
            negatives = np.empty((len(queries), options.rounds), np.int32)
            result.negatives = pointer(negatives, POINTER(c_int32))
        self._check(self.library.negcos_evaluate(self.context, byref(options), byref(batch), byref(result)))
        numbers = {name: getattr(result, name) for name in ("loss", "grad_scale", "grad_bias", "excluded")}
        return SimpleNamespace(**numbers, **gradients, negatives=negatives)
