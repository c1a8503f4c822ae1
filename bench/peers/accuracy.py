#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The errors of negcos and of PyTorch on the same inputs, against quadruple precision, as tables of Markdown.

    bench/peers/accuracy.py [--install] [--program build/tests/test_accuracy]

Runs the program, which writes its cases, its results and the exact ones. Errors are in units of eps of the type: the
loss's relative to the loss, a gradient's normwise, |g - exact| / |exact|, the larger of the two gradients'; each the
worst of the case's shapes. "inputs moved" is how far the exact result goes when each input number moves by half a unit
of its last place, up or down at random: what no method can know better than. Where the exact gradient is below the range
of the type there is nothing to compare.

Needs NumPy and PyTorch; --install gets them from PyPI into build-peers/ and runs there.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
EPS = {"f32": 2.0**-23, "f64": 2.0**-52, "f16": 2.0**-10, "bf16": 2.0**-7}
LEAST = {"f32": 2.0**-126, "f64": 2.0**-1022, "f16": 2.0**-14, "bf16": 2.0**-126}


def install():
    python = ROOT / "build-peers/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", ROOT / "build-peers"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "torch"], check=True)
    os.execv(python, [str(python), *[a for a in sys.argv if a != "--install"]])


def widen(raw, dtype):
    """Elements as doubles."""
    if dtype == "bf16":
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.frombuffer(raw, {"f32": np.float32, "f64": np.float64, "f16": np.float16}[dtype]).astype(np.float64)


def cases(path):
    with open(path, "rb") as file:
        while line := file.readline():
            case = json.loads(line)
            batch, dim, rounds, dtype = case["batch"], case["dim"], max(case["rounds"], 0), case["dtype"]
            size = batch * dim
            element = {"f32": 4, "f64": 8}.get(dtype, 2)
            rows = lambda: widen(file.read(size * element), dtype).reshape(batch, dim)
            quads = lambda n: np.frombuffer(file.read(16 * n)).reshape(2, n)
            case["queries"], case["documents"] = rows(), rows()
            case["negatives"] = np.frombuffer(file.read(4 * batch * rounds), np.int32).reshape(batch, rounds)
            case["got"] = (np.frombuffer(file.read(8)), rows().ravel(), rows().ravel())
            case["exact"] = (quads(1), quads(size), quads(size))
            yield case


def in_torch(case, queries, documents, dtype):
    """Loss and gradients, every step in `dtype`."""
    q, d = (torch.tensor(x, dtype=torch.float64).to(dtype).requires_grad_() for x in (queries, documents))
    own = torch.arange(len(q))
    if case["rounds"] < 0:
        z, target = case["scale"] * (F.normalize(q) @ F.normalize(d).T), own
    else:
        negatives = torch.tensor(case["negatives"].astype(np.int64))
        candidates = F.normalize(d)[torch.cat([own[:, None], negatives], 1)]
        z = case["scale"] * torch.bmm(candidates, F.normalize(q)[:, :, None])[:, :, 0]
        target = torch.zeros(len(q), dtype=torch.int64)
    loss = F.cross_entropy(z, target)
    loss.backward()
    return [x.detach().double().numpy().ravel() for x in (loss, q.grad, d.grad)]


def error(got, exact):
    return float(np.linalg.norm((got - exact[0]) - exact[1]) / np.linalg.norm(exact[0]))


def errors(case, got):
    """Loss, gradient; None for what is below the range of the type that it is computed or stored in."""
    gradients = [error(got[k], case["exact"][k]) for k in (1, 2)
                 if np.abs(case["exact"][k][0]).max() > 16 * LEAST[case["dtype"]]]
    computed = LEAST["f64" if case["dtype"] == "f64" else "f32"]
    loss = error(got[0], case["exact"][0]) if case["exact"][0][0, 0] > 16 * computed else None
    return loss, max(gradients) if gradients else None


def in_f64(case, queries, documents):
    """Loss and gradients by NumPy in f64, with nothing lost where the positive wins by far."""
    batch = len(queries)
    negatives = case["negatives"]
    if case["rounds"] < 0:
        negatives = np.array([[j for j in range(batch) if j != i] for i in range(batch)])
    candidates = np.concatenate([np.arange(batch)[:, None], negatives], 1)
    q_norm, d_norm = (np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, documents))
    q, d = queries / q_norm, documents / d_norm
    cosines = np.einsum("bd,bkd->bk", q, d[candidates])
    z = case["scale"] * cosines
    top = z.max(axis=1, keepdims=True)
    e = np.exp(z - top)
    others = e[:, 1:].sum(axis=1)
    with np.errstate(divide="ignore"):
        losses = np.where(z[:, 0] == top[:, 0], np.log1p(others), top[:, 0] - z[:, 0] + np.log(e.sum(axis=1)))
    g = case["scale"] / batch / e.sum(axis=1, keepdims=True) * np.concatenate([-others[:, None], e[:, 1:]], 1)
    dq = (np.einsum("bk,bkd->bd", g, d[candidates]) - (g * cosines).sum(axis=1, keepdims=True) * q) / q_norm
    dd = np.zeros_like(d)
    np.add.at(dd, candidates, g[:, :, None] * (q[:, None, :] - cosines[:, :, None] * d[candidates]))
    return losses.mean(keepdims=True), dq.ravel(), (dd / d_norm).ravel()


def moved(case):
    """The exact result's own change: in f64, which is exact enough for a change of 2^-24 but not for one of 2^-53."""
    if case["dtype"] == "f64":
        return None, None
    random = np.random.default_rng(1)
    shake = lambda x: x * (1 + EPS[case["dtype"]] / 2 * random.choice([-1.0, 1.0], x.shape))
    return errors(case, in_f64(case, shake(case["queries"]), shake(case["documents"])))


def cell(values, eps):
    values = [v for v in values if v is not None]
    return f"{max(values) / eps:.3g}" if values else "–"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="NumPy and PyTorch into build-peers/")
    parser.add_argument("--program", default=str(ROOT / "build/tests/test_accuracy"))
    options = parser.parse_args()
    if options.install:
        install()
    global np, torch, F
    try:
        import numpy as np
        import torch
        import torch.nn.functional as F
    except ImportError as problem:
        sys.exit(f"accuracy: {problem}; --install gets NumPy and PyTorch")

    types = {"f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "cases")
        subprocess.run([options.program, "--test-suite=accuracy"], check=True, stdout=subprocess.DEVNULL,
                       env=dict(os.environ, NEGCOS_ACCURACY_OUT=path))
        table = {}
        for case in cases(path):
            row = table.setdefault((case["dtype"], case["inputs"], case["scale"]), ([], [], []))
            row[0].append(errors(case, case["got"]))
            row[1].append(errors(case, in_torch(case, case["queries"], case["documents"], types[case["dtype"]])))
            row[2].append(moved(case))
    print(f"PyTorch {torch.__version__}")
    for dtype, eps in EPS.items():
        print(f"\n{dtype}, eps = 2^{int(np.log2(eps))}\n")
        print("| inputs | scale | loss: negcos | PyTorch | inputs moved | gradients: negcos | PyTorch | inputs moved |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        for (of, inputs, scale), row in table.items():
            if of == dtype:
                columns = [cell([e[k] for e in who], eps) for k in (0, 1) for who in row]
                print(f"| {inputs} | {scale:g} | " + " | ".join(columns) + " |")


main()
