#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What Python adds to a small call: the C function, negcos.evaluate and the PyTorch module, in turns, µs.

    bench/calls.py [--threads N] [--repeats N] [--library build/libnegcos.so]

B 32, d 64, 4 rounds, f32, loss and both gradients, arrays and context by the caller. What PyTorch's autograd costs by
itself is shown by a Function that returns what it saved, and by a dot product. The tenth percentile is what a quiet
machine gives.
"""
import argparse
import ctypes
import os
import pathlib
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
B, D, ROUNDS = 32, 64, 4

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--repeats", type=int, default=2000, help="timed calls of each, in runs of 20")
parser.add_argument("--library", default=str(ROOT / "build/libnegcos.so"))
asked = parser.parse_args()
os.environ.setdefault("NEGCOS_LIBRARY", asked.library)
sys.path.insert(0, str(ROOT / "bindings/python"))

import numpy as np  # noqa: E402

import negcos  # noqa: E402
from negcos._arrays import put_matrix, view  # noqa: E402
from negcos._library import initialised, library  # noqa: E402

context = negcos.Context(threads=asked.threads)
queries, documents, grad_queries, grad_documents = np.random.default_rng(0).random((4, B, D), np.float32)
out = {"grad_queries": grad_queries, "grad_documents": grad_documents}


def c_call():
    structs = [initialised(f"negcos_{name}") for name in ("options", "batch", "result")]
    options, batch, result = structs
    options.rounds = ROUNDS
    for struct, name, array in ((batch, "queries", queries), (batch, "documents", documents),
                                (result, "grad_queries", grad_queries), (result, "grad_documents", grad_documents)):
        put_matrix(struct, getattr(type(struct), name).offset, name, view(name, array))
    arguments = [context._handle, *map(ctypes.byref, structs)]
    return lambda: library.negcos_evaluate(*arguments)


def evaluation():
    return lambda: negcos.evaluate(queries, documents, context=context, outputs=(), out=out, rounds=ROUNDS)


def torch_calls():
    try:
        import torch
    except ImportError:
        return {}
    import negcos.torch
    torch.set_num_threads(1)
    q, d = (torch.tensor(array, requires_grad=True) for array in (queries, documents))
    module = negcos.torch.NegativeCosineLoss(rounds=ROUNDS, context=context)

    def passes(loss):
        def call():
            q.grad = d.grad = None
            loss(q, d).backward()
        return call
    gradients = torch.rand(2, B, D).unbind()

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, d):
            ctx.save_for_backward(*gradients)
            return torch.full((), 1.0)

        @staticmethod
        def backward(ctx, grad_output):
            return ctx.saved_tensors
    return {"negcos.torch, forward": lambda: module(q, d), "negcos.torch, forward and backward": passes(module),
            "PyTorch's part: a Function that returns saved gradients": passes(Nothing.apply),
            "PyTorch's dot product, forward and backward": passes(lambda q, d: torch.dot(q.view(-1), d.view(-1)))}


calls = {"C": c_call(), "negcos.evaluate": evaluation(), **torch_calls()}
times = {name: [] for name in calls}
for _ in range(asked.repeats // 20):
    for name, call in calls.items():
        call()
        for _ in range(20):
            start = time.perf_counter_ns()
            call()
            times[name].append((time.perf_counter_ns() - start) / 1e3)
print("| µs a call | median | tenth percentile |\n|---|---:|---:|")
for name, each in times.items():
    print(f"| {name} | {statistics.median(each):.1f} | {statistics.quantiles(each, n=10)[0]:.1f} |")
