# SPDX-License-Identifier: Apache-2.0
"""Batches and options that the tests of negcos.tensorflow and negcos.jax share, and a task to train on."""

import re
import subprocess
import sys

import numpy as np
import pytest

import negcos

DTYPES = ("float32", "float64", "float16", "bfloat16")
B, M, D, H = 12, 15, 16, 2
_random = np.random.default_rng(7)
IDS = dict(document_ids=np.arange(M) % 4 + 2**40, query_ids=np.arange(B) % 6 - 2**50)

# name: what is passed to the loss. More documents than queries where the sampling has a use for them.
CASES = {
    "defaults": dict(),
    "shuffle": dict(rounds=5, seed=2**63 + 1, step=2**40, scale=1 / 0.07, temperature=0.5),
    "derangement-sum": dict(sampling="derangement", rounds=3, reduction="sum", weights=_random.random(B)),
    "uniform": dict(sampling="uniform", rounds=6, margin=0.2, label_smoothing=0.1),
    "log-uniform-dot": dict(sampling="log-uniform", similarity="dot", scale=0.5),
    "cyclic-decoupled": dict(sampling="cyclic", objective="decoupled", rounds=4),
    "groups": dict(sampling="groups", rounds=6),
    "given": dict(
        sampling="given", rounds=3, negatives=_random.integers(-1, M, (B, 3)), positives=_random.integers(0, M, B)
    ),
    "all": dict(sampling="all", log_probability=np.log(_random.random(M)), correction="negatives-only"),
    "all-both": dict(sampling="all", direction="both", prefix_dims=[4, 16], prefix_weights=(0.5, 1)),
    "all-excluded": dict(
        sampling="all", exclude=("same-document-id", "same-query-id"), false_negative_margin=0.5, **IDS
    ),
    "sigmoid": dict(sampling="all", objective="sigmoid", scale=10, bias=-10.25),
    "hard": dict(hardness=0.5, norm_floor=1e-6, hard_negatives=True),
    "as-published": dict(objective="batch-softmax"),
}


def batch(name, dtype):
    """queries, documents, and the further arguments, matrices in the dtype."""
    arguments = dict(CASES[name])
    sampling = arguments.get("sampling", "shuffle")
    spare = sampling in ("given", "all", "uniform", "log-uniform") and arguments.get("direction") != "both"
    if dtype == "bfloat16":
        import ml_dtypes

        dtype = ml_dtypes.bfloat16
    random = np.random.default_rng(3)
    queries, documents, hard = (
        random.standard_normal(shape).astype(dtype) for shape in ((B, D), (M if spare else B, D), (B * H, D))
    )
    if "hard_negatives" in arguments:
        arguments["hard_negatives"] = hard
    return queries, documents, arguments


def hard_negatives(arguments):
    """None or one."""
    return [value for name, value in arguments.items() if name == "hard_negatives"]


MASKED = {
    "queries": dict(),
    "documents": dict(),
    "hard_negatives": dict(),
    "positives": dict(),
    "negatives": dict(sampling="given"),
    "document_ids": dict(exclude="same-document-id"),
    "query_ids": dict(exclude="same-query-id"),
    "log_probability": dict(sampling="all"),
    "weights": dict(),
    "margin": dict(),
    "prefix_dims": dict(sampling="all"),
}


def masked_arguments(name, masked=True):
    """The argument as a masked array, with what else it takes; each is right but for the mask."""
    array = {
        "queries": np.ma.zeros((B, D), "float32"),
        "documents": np.ma.zeros((B, D), "float32"),
        "hard_negatives": np.ma.zeros((B * H, D), "float32"),
        "negatives": np.ma.zeros((B, 4), "int32"),
        "margin": np.ma.array(0.5),
        "prefix_dims": np.ma.array([2, 4]),
    }.get(name, np.ma.zeros(B, "int32"))
    if masked:
        array[(-1,) * array.ndim] = np.ma.masked
    return {name: array, **MASKED[name]}


def expected(queries, documents, arguments, **more):
    """negcos.evaluate's own result."""
    wanted = ["grad_queries", "grad_documents"] + ["grad_hard_negatives"] * len(hard_negatives(arguments))
    return negcos.evaluate(queries, documents, **{"outputs": wanted, **arguments, **more})


class Task:
    """Queries and documents that are noisy views of the same hidden topics, in feature spaces of their own."""

    TRAIN, TEST, FEATURES, BATCH = 4000, 1000, 48, 128

    def __init__(self):
        self.random = np.random.default_rng(0)
        topics = self.random.standard_normal((self.TRAIN + self.TEST, 16))
        self.queries, self.documents = (self._features(topics) for _ in range(2))

    def _features(self, topics):
        mixed = topics @ self.random.standard_normal((topics.shape[1], self.FEATURES)) / 4
        return (mixed + self.random.standard_normal(mixed.shape)).astype(np.float32)

    def batches(self, count):
        for _ in range(count):
            rows = self.random.choice(self.TRAIN, self.BATCH, replace=False)
            yield self.queries[rows], self.documents[rows]

    def recall(self, query_tower, document_tower, k=10):
        """How often a held-out query finds its own document among the k most similar of all held-out ones."""
        sides = [
            np.asarray(tower(side[self.TRAIN :]))
            for tower, side in ((query_tower, self.queries), (document_tower, self.documents))
        ]
        sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
        similarity = sides[0] @ sides[1].T
        return ((similarity > np.diag(similarity)[:, None]).sum(axis=1) < k).mean()


def run(script):
    said = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    return said.stdout


def readme_blocks(source_root, framework):
    """The README's code for a framework, one block after the other."""
    text = (source_root / "bindings/python/README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.S | re.M)
    return "\n".join(block for block in blocks if re.search(rf"^import {framework}\b", block, re.M))


def check_masks(negative_cosine_loss, name):
    """Masked elements of argument `name` are refused; a masked array that masks nothing is its data."""
    queries, documents, _ = batch("defaults", "float32")
    arguments = {"queries": queries, "documents": documents, **masked_arguments(name)}
    with pytest.raises(ValueError, match=f"^{name} has masked elements, expected none"):
        negative_cosine_loss(**arguments)
    masks_nothing = masked_arguments(name, masked=False)
    plain = {key: value.data if isinstance(value, np.ma.MaskedArray) else value for key, value in masks_nothing.items()}
    losses = [negative_cosine_loss(**{**arguments, **more}) for more in (masks_nothing, plain)]
    assert losses[0] == losses[1]
