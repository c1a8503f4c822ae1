# SPDX-License-Identifier: Apache-2.0
"""Contexts: threads, kernels and a workspace."""

from __future__ import annotations

import ctypes
import os
import threading as _threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Optional

from ._arrays import refuse_masks
from ._errors import error
from ._library import ENUMERATORS, ParallelFor, check, initialised, library

_PARALLEL_FOR = Callable[[int, Callable[[int], None]], None]

_contexts: weakref.WeakSet[Context] = weakref.WeakSet()
_forked = False


def enumerator(name: str, value: Any, group: str) -> int:
    known = ENUMERATORS[group]
    number = known.get(value) if type(value) is str else None
    if number is None and isinstance(value, str):
        number = known.get(value.lower().replace("_", "-"))
    if number is None:
        raise error("value", f"{name} is {value!r}, expected one of {', '.join(known)}")
    return number


def integer(name: str, value: Any, bits: int, signed: bool = True) -> int:
    """value as an int that a C integer can hold: ctypes itself would cut it off."""
    if type(value) is int:
        number = value
    else:
        refuse_masks(name, value)
        try:
            number = int(value.__index__())
        except (AttributeError, TypeError):  # TypeError: a tensor of other numbers
            raise error("dtype", f"{name} is a {type(value).__name__}, expected an integer") from None
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not least <= number <= most:
        raise error("value", f"{name} is {number}, expected {least} to {most}")
    return number


def number(name: str, value: Any) -> float:
    """value as a float, and -0.0 as 0.0: numbers that are equal are the same."""
    if type(value) is float:
        return value + 0.0
    refuse_masks(name, value)
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value) + 0.0
    except (TypeError, ValueError, OverflowError):
        raise error("dtype", f"{name} is {value!r}, expected a number") from None


def items(name: str, value: Any) -> Iterable[Any]:
    """The members of a sequence; a string is one."""
    if isinstance(value, str):
        return (value,)
    try:
        return tuple(value)
    except TypeError:
        raise error("dtype", f"{name} is a {type(value).__name__}, expected a sequence") from None


def encoded(name: str, text: Any) -> bytes:
    if not isinstance(text, (str, bytes)):
        raise error("dtype", f"{name} is a {type(text).__name__}, expected a string")
    data = text.encode() if isinstance(text, str) else text
    if b"\0" in data:  # where C would end it
        raise error("value", f"{name} is {text!r}, expected no null character")
    return data


class _Body:
    """What a caller's parallel_for calls: checks that each index runs once and that none runs late."""

    def __init__(self, count: int, body: Any, task: Any) -> None:
        self._count, self._body, self._task = count, body, task
        self._changed = _threading.Condition()
        self._called: set[int] = set()
        self._running = 0
        self._over = False

    def __call__(self, index: int) -> None:
        index = integer("the index of body", index, 64)
        with self._changed:
            if self._over:
                raise RuntimeError("parallel_for: the body was called after parallel_for had returned")
            if not 0 <= index < self._count or index in self._called:
                raise IndexError(f"parallel_for: body({index}), expected each of 0 to {self._count - 1} once")
            self._called.add(index)
            self._running += 1
        try:
            self._body(self._task, index)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def finish(self) -> None:
        """Returns, or raises what interrupted it, only when no body runs any more: the task ends with the call."""
        interrupt: Optional[BaseException] = None
        while self._running or not self._over:
            try:
                with self._changed:
                    self._over = True
                    self._changed.wait_for(lambda: self._running == 0)
            except BaseException as failure:
                interrupt = failure
        if interrupt is not None:
            raise interrupt

    @property
    def complete(self) -> bool:
        return len(self._called) == self._count


class Context:
    """A thread pool, a set of kernels and a workspace, reused from call to call.

    threads: 0 = as many as the CPUs that the calling thread may use, capped by NEGCOS_THREADS in the environment or,
        without it, by the container's quota and OMP_NUM_THREADS.
    threading: "default" (oneTBB where the library has it, else OpenMP; in the child of a fork, where the threads of
        either do not live on, "serial"), "serial", "tbb", "openmp"; with parallel_for "callback".
    isa: None = the best one (NEGCOS_ISA caps that), or one of negcos.isas().
    workspace_limit: bytes that a call may use beyond inputs and outputs, 0 = no limit.
    parallel_for: the caller's own threads: parallel_for(count, body) calls body(index) once for every index in
        [0, count), in any order, on any threads, and returns when all are done. What it raises is raised again by the
        call that it was made for.

    One call at a time runs in a context: another thread waits for its turn. A context per thread lets them run at once.
    Use it in `with`, or close() it; what is left of it goes with the object.
    """

    def __init__(
        self,
        threads: int = 0,
        threading: str = "default",
        isa: Optional[str] = None,
        workspace_limit: int = 0,
        parallel_for: Optional[_PARALLEL_FOR] = None,
    ) -> None:
        options = initialised("negcos_context_options")
        options.threads = integer("threads", threads, 32)
        options.threading = enumerator("threading", threading, "THREADING")
        default = options.threading == ENUMERATORS["THREADING"]["default"]
        if parallel_for is not None:
            if not default and options.threading != ENUMERATORS["THREADING"]["callback"]:
                raise error("unsupported", f"threading {threading!r} and parallel_for exclude each other")
            if not callable(parallel_for):
                raise error("dtype", f"parallel_for is a {type(parallel_for).__name__}, expected a function")
            options.threading = ENUMERATORS["THREADING"]["callback"]
        elif default and _forked:
            options.threading = ENUMERATORS["THREADING"]["serial"]
        if isa is not None:
            options.isa = encoded("isa", isa)
        options.workspace_limit = integer("workspace_limit", workspace_limit, 64, signed=False)

        self._raised: Optional[BaseException] = None
        self._lock = _threading.Lock()
        self._thread = 0  # that holds the lock
        self._handle: Optional[int] = None
        if parallel_for is not None:
            self._callback = options.parallel_for = _trampoline(weakref.ref(self), parallel_for)
        handle = ctypes.c_void_p()
        check(library.negcos_context_create(ctypes.byref(options), ctypes.byref(handle)))
        self._handle = handle.value
        self._finalizer = weakref.finalize(self, library.negcos_context_destroy, self._handle)
        self._finalizer.atexit = False  # a daemon thread may still be in a call then
        self._isa = str(library.negcos_context_isa(handle).decode())
        self._threads = int(library.negcos_context_threads(handle))
        _contexts.add(self)

    @property
    def isa(self) -> str:
        """The instruction set in force."""
        return self._isa

    @property
    def threads(self) -> int:
        """The number of threads that a call may use."""
        return self._threads

    def close(self) -> None:
        """Give everything back, once a call in another thread is over. Calls after it fail; closing twice is fine."""
        self._refuse_nesting()
        with self._lock:
            self._handle = None
            self._finalizer()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._handle is None else f"isa={self._isa!r}, threads={self._threads}"
        return f"<negcos.Context {state}>"

    def __reduce__(self) -> Any:
        raise TypeError("a negcos.Context can be neither copied nor pickled")

    def _refuse_nesting(self) -> None:
        if self._thread == _threading.get_ident():
            raise error("threads", "context is in a call of this very thread already (a parallel_for that uses it?)")

    def _call(self, function: Callable[..., int], *arguments: Any) -> None:
        """function(handle, *arguments), one at a time, with failures raised."""
        self._refuse_nesting()
        with self._lock:
            if self._handle is None:
                raise error("value", "context is closed")
            self._thread = _threading.get_ident()
            try:
                status = function(self._handle, *arguments)
                raised, self._raised = self._raised, None
                if raised is not None:
                    raise raised
                check(status)
            finally:
                self._thread = 0


def _trampoline(context: weakref.ref[Context], parallel_for: _PARALLEL_FOR) -> Any:
    def run(_: Any, count: int, body: Any, task: Any) -> int:
        bodies = _Body(count, body, task)
        try:
            try:
                parallel_for(count, bodies)
            finally:
                bodies.finish()
            if not bodies.complete:
                raise RuntimeError(f"parallel_for returned before body had run for each of its {count} indices")
            return 0
        except BaseException as failure:  # none may cross the C code
            running = context()
            if running is not None:
                running._raised = failure
            return 1

    return ParallelFor(run)


_local = _threading.local()


def context_or_default(given: Optional[Context]) -> Context:
    """The caller's, or this thread's own, made at its first call."""
    if given is None:
        given = getattr(_local, "context", None)
        if given is None:
            given = _local.context = Context()
    if not isinstance(given, Context):
        raise error("dtype", f"context is a {type(given).__name__}, expected a negcos.Context or None")
    return given


def _after_fork() -> None:
    """In the child: a call that another thread was in will never end here."""
    global _forked
    _forked = True
    for context in list(_contexts):
        if context._lock.locked():
            context._lock = _threading.Lock()
            context._thread = 0
            context._handle = None
            context._finalizer.detach()


os.register_at_fork(after_in_child=_after_fork)
