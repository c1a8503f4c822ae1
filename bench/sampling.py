#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the demo learns by SHUFFLE, GROUPS and ALL, what a step takes, and the variance of the gradient, as tables.

    bench/sampling.py [--seeds N] [--draws N] [--rounds N] [--batch N] [--epochs N] [--library build/libnegcos.so]
                      [--program build/examples/package_search] [OPTION OF THE DEMO...]

Each seed divides the entries anew, and all three samplings train on its division. "Against SHUFFLE" is the mean
difference of the same seed; ± is the standard deviation over the seeds. Times are of the processor, one thread, which
others on the machine disturb least: of a step what two epochs more take, by the least of three runs; of the loss the
least of 50 calls.

Variance is that over the draws of negatives for one batch, relative to the square of the mean gradient: of rows, and of
a linear layer that makes the rows, where queries of one group that pull the same way would show. ± is over ten parts of
the draws. Needs NumPy.
"""
import argparse
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
SAMPLINGS = ["shuffle", "groups", "all"]
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--seeds", type=int, default=5)
parser.add_argument("--draws", type=int, default=500, help="steps whose gradients are compared")
parser.add_argument("--rounds", type=int, default=63)
parser.add_argument("--batch", type=int, default=1024)
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--library", default=str(ROOT / "build/libnegcos.so"))
parser.add_argument("--program", default=str(ROOT / "build/examples/package_search"))
asked, of_demo = parser.parse_known_args()
if asked.seeds < 2 or asked.draws < 20:
    parser.error("a spread needs two seeds and twenty draws")
os.environ.setdefault("NEGCOS_LIBRARY", asked.library)
sys.path.insert(0, str(ROOT / "bindings/python"))

import numpy as np  # noqa: E402

import negcos  # noqa: E402

context = negcos.Context(threads=1)


def demo(folder, sampling, seed, epochs):
    options = {"out": folder, "sampling": sampling, "seed": seed, "epochs": epochs, "rounds": asked.rounds,
               "batch": asked.batch, "threads": 1}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    return subprocess.run([asked.program, *words, *of_demo], check=True, stdout=subprocess.PIPE, text=True).stdout


def trained(folder, sampling, seed):
    """Recall@1 and Recall@10."""
    recalls = re.search(r"after training +(\S+) +(\S+)", demo(folder, sampling, seed, asked.epochs))
    return float(recalls[1]), float(recalls[2])


def step_time(folder, sampling):
    """Milliseconds a step, without what comes before and after training."""
    seconds, steps = {1: [], 3: []}, {}
    for _ in range(3):
        for epochs, each in seconds.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            steps[epochs] = int(re.search(r"step (\d+)/\1 ", demo(folder, sampling, 1, epochs))[1])
            each.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    return (min(seconds[3]) - min(seconds[1])) / (steps[3] - steps[1]) * 1e3


def loss_times(queries, documents):
    """The least milliseconds of a call of each sampling, in turns."""
    out = {"grad_queries": np.empty_like(queries), "grad_documents": np.empty_like(documents)}
    times = {sampling: [] for sampling in SAMPLINGS}
    for step in range(50):
        for sampling in SAMPLINGS:
            start = time.process_time()
            negcos.evaluate(queries, documents, context=context, outputs=(), out=out, sampling=sampling,
                            rounds=asked.rounds, step=step)
            times[sampling].append((time.process_time() - start) * 1e3)
    return {sampling: min(each) for sampling, each in times.items()}


def spread(values, sign="-"):
    return f"{np.mean(values):{sign}.3f} ± {np.std(values, ddof=1):.3f}"


def relative_variance(gradients):
    mean = np.mean(gradients, axis=0)
    variance = np.var(gradients, axis=0, ddof=1)
    return variance.sum() / ((mean**2).sum() - variance.sum() / len(gradients))


def variances(queries, documents, sampling):
    """Ten values each, of rows and of the layer."""
    rows, layer = [], []
    part = asked.draws // 10
    for first in range(0, 10 * part, part):
        of_rows, of_layer = [], []
        for step in range(first, first + part):
            result = negcos.evaluate(queries, documents, context=context, outputs=("grad_queries", "grad_documents"),
                                     sampling=sampling, rounds=asked.rounds, step=step)
            of_rows.append(np.concatenate([result.grad_queries, result.grad_documents]))
            of_layer.append(np.stack([result.grad_queries.T @ queries, result.grad_documents.T @ documents]))
        rows.append(relative_variance(of_rows))
        layer.append(relative_variance(of_layer))
    return rows, layer


def made_up(clusters):
    """Documents that lean towards their queries, and queries that lie around some centres or anywhere."""
    random = np.random.default_rng(1)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    queries = unit(random.normal(size=(asked.batch, 64)))
    if clusters:
        centres = unit(random.normal(size=(clusters, 64)))
        queries = unit(centres[random.integers(clusters, size=asked.batch)] + 0.7 * queries)
    documents = 0.6 * queries + 0.8 * unit(random.normal(size=queries.shape))
    return queries.astype(np.float32), documents.astype(np.float32)


with tempfile.TemporaryDirectory() as folder:
    runs = {sampling: [] for sampling in SAMPLINGS}
    for seed in range(1, asked.seeds + 1):
        for sampling in SAMPLINGS:
            runs[sampling].append(trained(folder, sampling, seed))
            if seed == 1 and sampling == "shuffle":
                learned = [np.load(f"{folder}/{name}.npy")[:asked.batch] for name in ("queries", "documents")]
    step_times = {sampling: step_time(folder, sampling) for sampling in SAMPLINGS}
times = loss_times(*learned)
print("| | Recall@1 | against SHUFFLE | Recall@10 | against SHUFFLE | a step, ms | of it the loss, ms |")
print("|---|---:|---:|---:|---:|---:|---:|")
base = np.array(runs["shuffle"])
for sampling, each in runs.items():
    each = np.array(each)
    cells = [sampling.upper()]
    for k in (0, 1):
        cells += [spread(each[:, k]), spread(each[:, k] - base[:, k], "+") if sampling != "shuffle" else ""]
    print("| " + " | ".join([*cells, f"{step_times[sampling]:.1f}", f"{times[sampling]:.2f}"]) + " |")

print("\n| variance of the gradient, GROUPS / SHUFFLE | rows | linear layer |\n|---|---:|---:|")
for name, data in (("normal", made_up(0)), ("32 clusters of queries", made_up(32)), ("the demo's, trained", learned)):
    of = {sampling: variances(*data, sampling) for sampling in ("shuffle", "groups")}
    print(f"| {name} | " + " | ".join(spread(np.divide(g, s)) for g, s in zip(of["groups"], of["shuffle"])) + " |")
