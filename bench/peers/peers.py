#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same loss with its gradients in negcos, PyTorch, JAX and TensorFlow, in turn in one process, and their ratios.

    bench/peers/peers.py [--install] [--threads N] [--repeats N] [--only WORD] [--json FILE]

Uses whichever of the three is installed. --install gets them from PyPI into build-peers/ and runs there. Before timing,
the losses and gradients are compared on the same negatives. The TensorFlow row is the layer as published (normalised
over the batch, NEG + 1 copies of it), written again from its description. Beside GROUPS stands what PyTorch does for
the same groups, and SHUFFLE with as many rounds; beside the losses of all documents their three products alone, by
NumPy's BLAS (OpenBLAS, where NumPy is from PyPI).
"""
import argparse
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCALE = 20.0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="PyTorch, JAX and TensorFlow into build-peers/")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each, interleaved")
    parser.add_argument("--only", default="", help="shapes whose name contains this")
    parser.add_argument("--library", default=str(ROOT / "build/libnegcos.so"))
    parser.add_argument("--json", help="write every timing to this file")
    return parser.parse_args()


def install():
    python = ROOT / "build-peers/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", ROOT / "build-peers"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "torch", "jax", "tensorflow-cpu"], check=True)
    os.execv(python, [str(python), *[a for a in sys.argv if a != "--install"]])


def negcos_row(negcos, context, q, d, **options):
    """A function that evaluates once and returns (loss, dq, dd); the arrays are written over."""
    dq, dd = aligned(q.shape), aligned(d.shape)
    steps = itertools.count()

    def call():
        result = negcos.evaluate(q, d, context=context, outputs=(), out={"grad_queries": dq, "grad_documents": dd},
                                 step=next(steps), **options)
        return result.loss, dq, dd
    return call


def aligned(shape):
    """f32 on a border of cache lines, as the frameworks' own tensors are."""
    size = int(np.prod(shape))
    block = np.zeros(size + 16, dtype=np.float32)
    start = (-block.ctypes.data % 64) // 4
    return block[start:start + size].reshape(shape)


def products(q, d):
    """A function that multiplies as often as a loss over all documents and its gradients, and does nothing else."""
    similarities, dq, dd = np.empty((len(q), len(d)), np.float32), aligned(q.shape), aligned(d.shape)

    def call():
        np.matmul(q, d.T, out=similarities)
        np.matmul(similarities, d, out=dq)
        np.matmul(similarities.T, q, out=dd)
    return call


def deal_of(negatives):
    """The queries group by group, from the negatives that GROUPS gave them; the batch must divide."""
    groups = np.sort(np.column_stack([np.arange(len(negatives)), negatives]), axis=1)
    return np.unique(groups, axis=0).ravel()


# Each maker returns {label: (with_indices(indices) -> (loss, dq, dd), timed() -> None)}. indices: of "shuffle" the
# negatives, of "groups" the deal, of "all" None.
def torch_rows(q, d, sampling, rounds, threads):
    import torch
    import torch.nn.functional as F
    torch.set_num_threads(threads)
    tq, td = (torch.from_numpy(np.array(a)).requires_grad_() for a in (q, d))
    batch = len(q)
    own = torch.arange(batch)[:, None]
    target = {"all": own[:, 0], "shuffle": torch.zeros(batch, dtype=torch.int64),
              "groups": torch.arange(batch) % (rounds + 1)}[sampling]

    def gather_bmm(q, d, negatives):
        candidates = F.normalize(d)[torch.cat([own, negatives], 1)]
        return F.cross_entropy(SCALE * torch.bmm(candidates, F.normalize(q)[:, :, None])[:, :, 0], target)

    def matmul_gather(q, d, negatives):
        return F.cross_entropy(SCALE * (F.normalize(q) @ F.normalize(d).T).gather(1, torch.cat([own, negatives], 1)),
                               target)

    def matmul(q, d, negatives):
        return F.cross_entropy(SCALE * (F.normalize(q) @ F.normalize(d).T), target)

    def groups_bmm(q, d, deal):
        q, d = (F.normalize(x.index_select(0, deal)).view(-1, rounds + 1, x.shape[1]) for x in (q, d))
        return F.cross_entropy(SCALE * torch.bmm(q, d.transpose(1, 2)).flatten(0, 1), target)

    def draw():
        if sampling == "shuffle":
            return torch.stack([torch.randperm(batch) for _ in range(rounds)], 1)
        return torch.randperm(batch) if sampling == "groups" else None

    def row(function):
        def with_indices(indices):
            tq.grad = td.grad = None
            loss = function(tq, td, None if indices is None else torch.from_numpy(indices).long())
            loss.backward()
            return loss.item(), tq.grad.numpy(), td.grad.numpy()

        def timed():
            tq.grad = td.grad = None
            function(tq, td, draw()).backward()
        return with_indices, timed

    functions = {"all": [matmul], "shuffle": [gather_bmm, matmul_gather], "groups": [groups_bmm]}
    rows = {}
    for function in functions[sampling]:
        name = function.__name__.replace("_", " + ")
        rows[f"PyTorch, {name}"] = row(function)
        rows[f"PyTorch compiled, {name}"] = row(torch.compile(function))
    return rows, f"PyTorch {torch.__version__}"


def jax_rows(q, d, sampling, rounds, threads):
    import jax
    import jax.numpy as jnp
    batch = len(q)
    jq, jd = jnp.asarray(q), jnp.asarray(d)
    normalise = lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    def of_logits(z):
        return jnp.mean(jax.nn.logsumexp(z, axis=1) - z[:, 0])

    def gather(q, d, negatives):
        candidates = normalise(d)[jnp.concatenate([jnp.arange(batch)[:, None], negatives], 1)]
        return of_logits(SCALE * jnp.einsum("bd,bkd->bk", normalise(q), candidates))

    def matmul_gather(q, d, negatives):
        similarity = normalise(q) @ normalise(d).T
        return of_logits(SCALE * jnp.take_along_axis(
            similarity, jnp.concatenate([jnp.arange(batch)[:, None], negatives], 1), 1))

    def matmul(q, d, negatives):
        z = SCALE * normalise(q) @ normalise(d).T
        return jnp.mean(jax.nn.logsumexp(z, axis=1) - jnp.diagonal(z))

    def row(function):
        compiled = jax.jit(jax.value_and_grad(function, (0, 1)))

        @jax.jit
        def drawn(q, d, key):
            draw = lambda k: jax.random.permutation(k, batch)
            negatives = None if sampling == "all" else jax.vmap(draw)(jax.random.split(key, rounds)).T
            return jax.value_and_grad(function, (0, 1))(q, d, negatives)

        step = [0]

        def timed():
            step[0] += 1
            jax.block_until_ready(drawn(jq, jd, jax.random.PRNGKey(step[0])))

        def with_indices(indices):
            loss, (dq, dd) = compiled(jq, jd, indices)
            return float(loss), np.asarray(dq), np.asarray(dd)
        return with_indices, timed

    functions = {"all": [matmul], "shuffle": [gather, matmul_gather], "groups": []}[sampling]
    return {f"JAX jit, {f.__name__.replace('_', ' + ')}": row(f) for f in functions}, f"JAX {jax.__version__}"


def tensorflow_rows(q, d, sampling, rounds, threads):
    import tensorflow as tf
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        pass  # set before, in this process
    if sampling != "shuffle":
        return {}, f"TensorFlow {tf.__version__}"
    tq, td = tf.constant(q), tf.constant(d)
    batch = len(q)

    def published(q, d):
        many = tf.tile(q, [rounds + 1, 1])
        candidates = tf.concat([d] + [tf.random.shuffle(d) for _ in range(rounds)], 0)
        dots = tf.reduce_sum(many * candidates, 1)
        cosines = dots / (tf.norm(many, axis=1) * tf.norm(candidates, axis=1))
        z = SCALE * tf.transpose(tf.reshape(cosines, [rounds + 1, batch]))
        hit = tf.nn.softmax(z, axis=0)[:, 0]  # over the batch: the layer's defect
        return -tf.reduce_mean(tf.math.log(hit))

    def row(function):
        def timed():
            with tf.GradientTape() as tape:
                tape.watch([tq, td])
                loss = function(tq, td)
            return loss, tape.gradient(loss, [tq, td])

        def with_indices(indices):
            loss, (dq, dd) = timed()
            return float(loss), dq.numpy(), tf.convert_to_tensor(dd).numpy()
        return with_indices, timed

    return {"TensorFlow, as published": row(published),
            "TensorFlow, as published, tf.function": row(tf.function(published))}, f"TensorFlow {tf.__version__}"


def compare(label, got, expected):
    loss, dq, dd = got
    worst = [abs(loss - expected[0]) / max(abs(expected[0]), 1)]
    worst += [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in ((dq, expected[1]), (dd, expected[2]))]
    agrees = max(worst) < 1e-4
    print(f"  {'agrees ' if agrees else 'DIFFERS'}  {label:42s} loss {worst[0]:.1e}  dQ {worst[1]:.1e}  dD {worst[2]:.1e}")
    return agrees


def main():
    options = arguments()
    if options.install:
        install()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if options.threads > 1 else 'false'}"
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:options.threads])
    global np
    import numpy as np

    if not os.path.exists(options.library):
        sys.exit(f"peers: {options.library} is not there; run ./dev build")
    os.environ["NEGCOS_LIBRARY"] = options.library
    sys.path.insert(0, str(ROOT / "bindings/python"))
    import negcos

    context = negcos.Context(threads=options.threads)
    random = np.random.default_rng(1)
    shapes = [(4096, 128, "shuffle", 50), (4096, 128, "all", 0), (2048, 768, "all", 0), (1024, 64, "all", 0),
              (4096, 64, "groups", 63), (4096, 128, "groups", 63), (4096, 256, "groups", 63)]
    timings, good = [], True
    for batch, dim, sampling, rounds in shapes:
        candidates = {"shuffle": f"{rounds} rounds", "all": "all documents", "groups": f"groups of {rounds + 1}"}
        name = f"B {batch}, d {dim}, {candidates[sampling]}"
        if options.only not in name:
            continue
        q, d = aligned((batch, dim)), aligned((batch, dim))
        q[:], d[:] = random.normal(size=q.shape), random.normal(size=q.shape)
        d += 0.3 * q
        rows, versions = {}, [f"negcos {negcos.__version__} ({context.isa})"]
        for maker in (torch_rows, jax_rows, tensorflow_rows):
            try:
                more, version = maker(q, d, sampling, rounds, options.threads)
            except ImportError as error:
                print(f"SKIP: {maker.__name__.split('_')[0]}: {error}")
                continue
            rows.update(more)
            versions.append(version)

        print(f"\n{name}, f32, {options.threads} threads, loss and both gradients; {', '.join(versions)}")
        indices, drawn = None, {"sampling": sampling, "rounds": rounds}
        given = drawn
        if sampling == "shuffle":
            indices = np.stack([random.permutation(batch) for _ in range(rounds)], 1).astype(np.int32)
            given = {"sampling": "given", "rounds": rounds, "negatives": indices}
        elif sampling == "groups":
            indices = deal_of(negcos.sample(batch, **drawn))
        own = negcos_row(negcos, context, q, d, **given)()
        published = negcos_row(negcos, context, q, d, objective="batch-softmax")()
        for label, (with_indices, _) in rows.items():
            good &= compare(label, with_indices(indices), published if "published" in label else own)

        calls = {"negcos": negcos_row(negcos, context, q, d, **drawn)}
        calls.update({label: timed for label, (_, timed) in rows.items()})
        if sampling == "all":
            calls["NumPy's BLAS, the three products alone"] = products(q, d)
        elif sampling == "groups":
            calls["negcos, SHUFFLE"] = negcos_row(negcos, context, q, d, rounds=rounds)
        seconds = {label: [] for label in calls}
        for call in calls.values():
            call()
        for _ in range(options.repeats):
            for label, call in calls.items():
                time.sleep(0.05)  # until the threads of the one before have stopped spinning
                call()  # and what this one keeps is back in the caches, as it is while training
                start = time.perf_counter()
                call()
                seconds[label].append(time.perf_counter() - start)
        medians = {label: statistics.median(s) for label, s in seconds.items()}
        for label, median in medians.items():
            print(f"  {median * 1e3:10.3f} ms  {median / medians['negcos']:8.1f} x  {label}")
        timings.append({"batch": batch, "dim": dim, "sampling": sampling, "rounds": rounds,
                        "threads": options.threads,
                        "versions": versions, "seconds": seconds})
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(timings, indent=1), encoding="utf-8")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
