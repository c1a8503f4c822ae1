# SPDX-License-Identifier: Apache-2.0
"""Trains a small two-tower model with NumPy and negcos alone.

Queries and documents are two noisy views of the same hidden topics, in feature spaces of their own. Each tower is a
matrix; it learns to send a query near its document. Prints Recall@10 on pairs that were not trained on.
"""

import numpy as np

import negcos

TRAIN, TEST, TOPICS, FEATURES, DIM, BATCH, STEPS = 8000, 2000, 24, 96, 32, 256, 400
random = np.random.default_rng(0)


def features(topics):
    """What one side sees of the topics: mixed, and with noise."""
    mixed = topics @ random.standard_normal((TOPICS, FEATURES)) / np.sqrt(TOPICS)
    return (mixed + 1.5 * random.standard_normal(mixed.shape)).astype(np.float32)


topics = random.standard_normal((TRAIN + TEST, TOPICS))
queries, documents = features(topics), features(topics)
# parameters, and Adam's moments of each
towers = [(random.standard_normal((FEATURES, DIM)) / np.sqrt(FEATURES)).astype(np.float32) for _ in range(2)]
moments = [(np.zeros_like(tower), np.zeros_like(tower)) for tower in towers]


def recall(k=10):
    """How often a held-out query finds its own document among the k most similar of all held-out ones."""
    sides = [side[TRAIN:] @ tower for side, tower in zip((queries, documents), towers)]
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    similarity = sides[0] @ sides[1].T
    rank = (similarity > np.diag(similarity)[:, None]).sum(axis=1)
    return float((rank < k).mean())


def adam(tower, gradient, moment, step, rate=3e-3):
    first, second = moment
    first += 0.1 * (gradient - first)
    second += 0.001 * (gradient**2 - second)
    tower -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)


print(f"Recall@10 before {recall():.3f}")
for step in range(1, STEPS + 1):
    rows = random.choice(TRAIN, BATCH, replace=False)
    inputs = queries[rows], documents[rows]
    result = negcos.evaluate(inputs[0] @ towers[0], inputs[1] @ towers[1], rounds=20, step=step)
    for tower, side, gradient, moment in zip(towers, inputs, (result.grad_queries, result.grad_documents), moments):
        adam(tower, side.T @ gradient, moment, step)
    if step % 100 == 0:
        print(f"step {step}: loss {result.loss:.4f}, accuracy {result.accuracy:.3f}")
print(f"Recall@10 after {recall():.3f}")
