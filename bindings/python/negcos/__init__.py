# SPDX-License-Identifier: Apache-2.0
"""The in-batch negative-sampling losses of two-tower retrieval models, on CPUs.

    result = negcos.evaluate(queries, documents, rounds=4, step=step)
    result.loss, result.grad_queries, result.grad_documents

NumPy arrays, or any that speak DLPack, go in and out without a copy, and the GIL is free during a call. The loss of a
deep-learning framework, with its gradients, is in negcos.torch, negcos.tensorflow and negcos.jax.
"""

from ._context import Context
from ._errors import ArgumentError, DtypeError, Error, FileError, ResourceError, UnsupportedError
from ._evaluate import Result, evaluate, sample
from ._frequency import Frequency
from ._library import isas, version

__all__ = [
    "ArgumentError",
    "Context",
    "DtypeError",
    "Error",
    "FileError",
    "Frequency",
    "ResourceError",
    "Result",
    "UnsupportedError",
    "evaluate",
    "isas",
    "sample",
    "version",
]
__version__ = ".".join(map(str, version()))
