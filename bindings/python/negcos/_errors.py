# SPDX-License-Identifier: Apache-2.0
"""Statuses as exceptions that derive from what a Python user would catch."""

from __future__ import annotations

from typing import Any

STATUS = {
    "ok": 0,
    "null-argument": 10,
    "shape": 11,
    "dtype": 12,
    "value": 13,
    "overlap": 14,
    "struct-size": 15,
    "out-of-memory": 20,
    "workspace-limit": 21,
    "threads": 22,
    "unsupported-isa": 30,
    "unsupported": 31,
    "io": 40,
    "internal": 90,
}
_NAMES = {number: name for name, number in STATUS.items()}


class Error(Exception):
    """A call that failed. str() is a sentence: which argument, what it was, what was expected.

    status: the number of the C ABI's NEGCOS_STATUS_; name: the same in words, e.g. "shape".
    """

    status: int
    name: str

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status
        self.name = _NAMES.get(status, "unknown-status")

    def __reduce__(self) -> tuple[Any, ...]:  # so that it crosses from one process to another
        return type(self), (str(self), self.status)


class ArgumentError(Error, ValueError):
    """null-argument, shape, value, overlap."""


class DtypeError(Error, TypeError):
    """dtype: an element type, or what is no array at all."""


class ResourceError(Error, MemoryError):
    """out-of-memory, workspace-limit."""


class UnsupportedError(Error, NotImplementedError):
    """unsupported (two options that exclude each other, or threads not built in), unsupported-isa."""


class FileError(Error, OSError):
    """io: a file cannot be read or written, or is not what it should be."""


_CLASSES = {
    "null-argument": ArgumentError,
    "shape": ArgumentError,
    "value": ArgumentError,
    "overlap": ArgumentError,
    "dtype": DtypeError,
    "out-of-memory": ResourceError,
    "workspace-limit": ResourceError,
    "unsupported-isa": UnsupportedError,
    "unsupported": UnsupportedError,
    "io": FileError,
}


def error(status: int | str, sentence: str) -> Error:
    """The exception for a status, given by number or name."""
    number = STATUS[status] if isinstance(status, str) else status
    return _CLASSES.get(_NAMES.get(number, ""), Error)(sentence, number)
