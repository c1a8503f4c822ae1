#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A call between other work, as in a training loop, for each threading back end, in turns, ms.

    bench/loop.py [--threads N] [--repeats N] [--only WORD] [--library build/libnegcos.so]

B 1024, d 64, f32, loss and both gradients. Only the call is timed, and what comes before it varies: another call, a
sleep, memory read until the caches hold nothing of the call, and one step of two small towers in PyTorch, with its own
threads. With one thread nothing is left but the caches.
"""
import argparse
import os
import pathlib
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
B, D = 1024, 64
LENGTH = 10  # calls of each loop, of which the first is not timed

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
parser.add_argument("--repeats", type=int, default=20, help=f"loops of {LENGTH} calls, of each")
parser.add_argument("--only", default="", help="rows whose name contains this")
parser.add_argument("--library", default=str(ROOT / "build/libnegcos.so"))
asked = parser.parse_args()
os.environ.setdefault("NEGCOS_LIBRARY", asked.library)
sys.path.insert(0, str(ROOT / "bindings/python"))

import numpy as np  # noqa: E402

import negcos  # noqa: E402


def call_of(context, **options):
    queries, documents, grad_queries, grad_documents = np.random.default_rng(0).random((4, B, D), np.float32)
    out = {"grad_queries": grad_queries, "grad_documents": grad_documents}
    return lambda: negcos.evaluate(queries, documents, context=context, outputs=(), out=out, **options)


def torch_steps():
    try:
        import torch
    except ImportError:
        return {}

    def step(threads):
        towers = [torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, D))
                  for _ in range(2)]
        features = torch.rand(B, 256)

        def run():
            torch.set_num_threads(threads)
            sum(tower(features).sum() for tower in towers).backward()
        return run
    return {"after PyTorch, 1 thread": step(1), f"after PyTorch, {asked.threads} threads": step(asked.threads)}


memory = np.zeros(1 << 24)  # 128 MiB
betweens = {
    "back to back": lambda: None,
    "after 1 ms of sleep": lambda: time.sleep(0.001),
    "after 5 ms of sleep": lambda: time.sleep(0.005),
    "caches cold": memory.sum,
    **torch_steps(),
}
contexts = {"1 thread": negcos.Context(threads=1)}
for threading in ("tbb", "openmp"):
    try:
        contexts[f"{threading}, {asked.threads} threads"] = negcos.Context(threads=asked.threads, threading=threading)
    except negcos.UnsupportedError:
        pass
losses = {"50 rounds": {"rounds": 50}, "ALL": {"sampling": "all"}}
loops = {
    (f"{loss}, {threads}", between): (work, call_of(context, **options))
    for loss, options in losses.items()
    for threads, context in contexts.items()
    for between, work in betweens.items()
    if asked.only in f"{loss}, {threads}, {between}"
}
times = {name: [] for name in loops}
for _ in range(asked.repeats):
    for name, (work, call) in loops.items():
        time.sleep(0.02)  # until the threads of the loop before have stopped spinning
        for turn in range(LENGTH):
            work()
            start = time.perf_counter_ns()
            call()
            if turn:
                times[name].append((time.perf_counter_ns() - start) / 1e6)
print("| ms a call | | tenth percentile | median | to back to back |\n|---|---|---:|---:|---:|")
for (row, between), each in times.items():
    median = statistics.median(each)
    alone = times.get((row, "back to back"))
    ratio = f"{median / statistics.median(alone):.2f}" if alone else ""
    print(f"| {row} | {between} | {statistics.quantiles(each, n=10)[0]:.2f} | {median:.2f} | {ratio} |")
