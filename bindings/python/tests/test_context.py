# SPDX-License-Identifier: Apache-2.0
"""Contexts: threads, the interpreter's lock, fork, callbacks, ends."""

import copy
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import negcos

RANDOM = np.random.default_rng(3)
QUERIES = RANDOM.standard_normal((2048, 64), np.float32)
DOCUMENTS = RANDOM.standard_normal((2048, 64), np.float32)
ALL = {"sampling": "all"}


def digest(context=None, **options):
    result = negcos.evaluate(QUERIES, DOCUMENTS, context=context, **{**ALL, **options})
    return result.loss, result.grad_queries.tobytes(), result.grad_documents.tobytes()


EXPECTED = digest(negcos.Context(threading="serial"))


def test_what_is_in_force():
    for isa in negcos.isas():
        with negcos.Context(threads=3, isa=isa) as context:
            assert (context.isa, context.threads) == (isa, 3)
            assert digest(context) == EXPECTED
    assert negcos.Context(threading="serial").threads == 1


@pytest.mark.parametrize("threading_name", ["default", "serial", "tbb", "openmp"])
def test_threading(threading_name):
    try:
        context = negcos.Context(threads=2, threading=threading_name)
    except negcos.UnsupportedError as failure:
        assert threading_name in ("tbb", "openmp") and failure.name == "unsupported"
    else:
        assert digest(context) == EXPECTED


@pytest.mark.parametrize(
    "arguments, exception, sentence",
    [
        ({"threads": -1}, ValueError, "threads is -1"),
        ({"threads": 2**40}, ValueError, "threads is 1099511627776"),
        ({"threads": "2"}, TypeError, "threads is a str"),
        ({"threading": "fibers"}, ValueError, "threading is 'fibers', expected one of default"),
        ({"threading": "callback"}, ValueError, "parallel_for is NULL"),
        ({"threading": "serial", "parallel_for": print}, NotImplementedError, "exclude each other"),
        ({"parallel_for": 3}, TypeError, "parallel_for is a int"),
        ({"isa": "mmx"}, NotImplementedError, "mmx"),
        ({"isa": "scalar\0"}, ValueError, "no null character"),
        ({"isa": 3}, TypeError, "isa is a int"),
        ({"workspace_limit": -1}, ValueError, "workspace_limit is -1"),
    ],
)
def test_wrong(arguments, exception, sentence):
    with pytest.raises(exception, match=sentence) as raised:
        negcos.Context(**arguments)
    assert isinstance(raised.value, negcos.Error)


def test_environment(monkeypatch):
    monkeypatch.setenv("NEGCOS_THREADS", "1")
    monkeypatch.setenv("NEGCOS_ISA", "scalar")
    context = negcos.Context()
    assert (context.isa, context.threads) == ("scalar", 1)


def test_ends():
    with negcos.Context() as context:
        assert "isa=" in repr(context)
        digest(context)
    assert repr(context) == "<negcos.Context closed>"
    context.close()
    for call in (lambda: digest(context), lambda: negcos.sample(3, context=context)):
        with pytest.raises(ValueError, match="context is closed"):
            call()
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="neither copied nor pickled"):
            way(negcos.Context(threads=1))


def test_the_lock_of_the_interpreter_is_free():
    """Another Python thread counts on during a long call."""
    count, over = 0, False

    def work():
        nonlocal count
        while not over:
            count += 1

    thread = threading.Thread(target=work)
    context = negcos.Context(threading="serial", isa="scalar")
    thread.start()
    try:
        negcos.evaluate(QUERIES, DOCUMENTS, context=context, rounds=0)  # what comes before the call is warm
        before = count
        negcos.evaluate(QUERIES, DOCUMENTS, context=context, outputs=("grad_queries",), **ALL)
        during = count - before
    finally:
        over = True
        thread.join()
    # Python changes threads every 5 ms at the most; one such turn counts less than this.
    started, turns = time.perf_counter(), 0
    while time.perf_counter() - started < 0.005:
        turns += 1
    assert during > 20 * turns


def test_a_context_for_each_thread():
    barrier = threading.Barrier(4)

    def work(_):
        with negcos.Context(threads=2) as context:
            barrier.wait(60)
            return [digest(context) == EXPECTED for _ in range(3)]

    with ThreadPoolExecutor(4) as pool:
        assert all(all(same) for same in pool.map(work, range(4)))


def test_default_contexts():
    """A thread has one of its own and keeps it; it goes when the thread goes."""
    local = negcos._context._local
    digest()
    mine = local.context
    digest()
    assert local.context is mine
    others = []

    def work():
        assert digest() == EXPECTED
        others.append(local.context._finalizer)
        assert local.context is not mine

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(others) == 1 and not others[0].alive


def test_one_context_for_all_threads():
    """They wait for each other."""
    context = negcos.Context(threads=2)
    with ThreadPoolExecutor(6) as pool:
        assert all(found == EXPECTED for found in pool.map(lambda _: digest(context), range(12)))
    context.close()


def in_child(work):
    """work() in a forked child: what it returned."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: sender.send(work()))
    child.start()
    try:
        assert receiver.poll(60), "the child hangs or died"
        return receiver.recv()
    finally:
        child.kill()
        child.join()


def test_fork():
    """The parent's default context, an explicit one, new ones and threads all work in a child, with the same bits."""
    explicit = negcos.Context(threads=2)
    assert digest() == EXPECTED and digest(explicit) == EXPECTED
    idle = ThreadPoolExecutor(1)  # a thread with a default context that is not there in the child
    assert idle.submit(digest).result() == EXPECTED

    def work():
        new = negcos.Context()
        found = [digest(), digest(explicit), digest(new)]
        with ThreadPoolExecutor(2) as pool:
            found += pool.map(lambda _: digest(), range(2))
        explicit.close()
        new.close()
        return [one == EXPECTED for one in found], new.threads

    assert in_child(work) == ([True] * 5, 1)
    assert digest() == EXPECTED and digest(explicit) == EXPECTED
    assert idle.submit(digest).result() == EXPECTED


def test_fork_during_a_call():
    """A context that another thread was in is closed in the child, rather than waited for without end."""
    entered, leave = threading.Event(), threading.Event()

    def hold(count, body):
        for index in range(count):
            body(index)
        entered.set()
        leave.wait(60)

    busy = negcos.Context(threads=2, parallel_for=hold)
    thread = threading.Thread(target=digest, args=(busy,))
    thread.start()
    try:
        assert entered.wait(60)

        def work():
            try:
                digest(busy)
            except ValueError as failure:
                return str(failure), digest() == EXPECTED

        assert in_child(work) == ("context is closed", True)
    finally:
        leave.set()
        thread.join()
    assert digest(busy) == EXPECTED


def pool_of(threads):
    pool = ThreadPoolExecutor(threads)

    def parallel_for(count, body):
        for done in [pool.submit(body, index) for index in range(count)]:
            done.result()

    return parallel_for


@pytest.mark.parametrize(
    "parallel_for",
    [
        pool_of(3),
        lambda count, body: [body(index) for index in reversed(range(count))],
    ],
)
def test_parallel_for(parallel_for):
    calls = []

    def counted(count, body):
        calls.append(count)
        parallel_for(count, body)

    with negcos.Context(threads=4, parallel_for=counted) as context:
        for _ in range(3):
            assert digest(context) == EXPECTED
    assert max(calls) == 4


def test_parallel_for_that_fails():
    """What it raises comes out of the call, and the context goes on."""
    raising = [KeyError("mine"), KeyboardInterrupt()]

    def parallel_for(count, body):
        if raising:
            raise raising[0]
        for index in range(count):
            body(index)

    context = negcos.Context(threads=2, parallel_for=parallel_for)
    while raising:
        with pytest.raises(type(raising[0])) as raised:
            digest(context)
        assert raised.value is raising.pop(0)
    assert digest(context) == EXPECTED


@pytest.mark.parametrize(
    "parallel_for, exception, sentence",
    [
        (lambda count, body: None, RuntimeError, "before body had run for each of its 2"),
        (lambda count, body: [body(0), body(0)], IndexError, "each of 0 to 1 once"),
        (lambda count, body: body(count), IndexError, "each of 0 to 1 once"),
        (lambda count, body: body(-1), IndexError, "each of 0 to 1 once"),
        (lambda count, body: body("0"), TypeError, "body"),
        (lambda count: None, TypeError, "argument"),
    ],
)
def test_parallel_for_that_breaks_its_promise(parallel_for, exception, sentence):
    """Memory is safe whatever it does."""
    with pytest.raises(exception, match=sentence):
        digest(negcos.Context(threads=2, parallel_for=parallel_for))


def test_parallel_for_that_returns_early():
    """Bodies that still run are waited for; those that come late are refused."""
    late, kept = [], []

    def parallel_for(count, body):
        kept.append(body)
        threads = [threading.Thread(target=body, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        late.extend(threads)
        while len(body._called) < count:  # all have begun
            time.sleep(0.0001)

    assert digest(negcos.Context(threads=2, parallel_for=parallel_for)) == EXPECTED
    for thread in late:
        thread.join()
    with pytest.raises(RuntimeError, match="after parallel_for had returned"):
        kept[0](0)


def test_a_context_and_its_owner_go_together():
    class Owner:
        def __init__(self):
            self.context = negcos.Context(threads=2, parallel_for=self.parallel_for)

        def parallel_for(self, count, body):
            for index in range(count):
                body(index)

    owner = Owner()
    assert digest(owner.context) == EXPECTED
    finalizer = owner.context._finalizer
    del owner
    gc.collect()
    assert not finalizer.alive


def test_interrupted_while_bodies_run():
    """Ctrl-C in parallel_for: the call ends when its bodies have, and the context goes on."""
    threads, interrupts = [], [True]

    def parallel_for(count, body):
        threads[:] = [threading.Thread(target=body, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        if interrupts:
            interrupts.clear()
            signal.raise_signal(signal.SIGINT)
        for thread in threads:
            thread.join()

    context = negcos.Context(threads=2, parallel_for=parallel_for)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            digest(context)
    finally:
        signal.signal(signal.SIGINT, before)
    for thread in threads:
        thread.join()
    assert digest(context) == EXPECTED


def test_a_call_within_a_call():
    def parallel_for(count, body):
        negcos.sample(4, context=context)

    context = negcos.Context(threads=2, parallel_for=parallel_for)
    with pytest.raises(negcos.Error, match="in a call of this very thread already") as raised:
        digest(context)
    assert raised.value.name == "threads"


def test_exit_with_calls_in_daemon_threads():
    code = """if True:
        import threading, time, numpy as np, negcos
        queries = np.ones((4096, 64), np.float32)
        def work():
            while True:
                negcos.evaluate(queries, queries, sampling="all")
        for _ in range(3):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(0.3)
    """
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ)
    assert (said.returncode, said.stderr) == (0, "")
