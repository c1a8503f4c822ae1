# SPDX-License-Identifier: Apache-2.0
"""Trains a small two-tower model with JAX, its loss negcos.jax.negative_cosine_loss.

Queries and documents are two noisy views of the same hidden topics, in feature spaces of their own. Each tower is a
matrix; it learns to send a query near its document. Prints Recall@10 on pairs that were not trained on.
"""

import jax
import jax.numpy as jnp
import numpy as np

from negcos.jax import negative_cosine_loss

TRAIN, TEST, TOPICS, FEATURES, DIM, BATCH, STEPS = 8000, 2000, 24, 96, 32, 256, 400
random = np.random.default_rng(0)


def features(topics):
    """What one side sees of the topics: mixed, and with noise."""
    mixed = topics @ random.standard_normal((TOPICS, FEATURES)) / np.sqrt(TOPICS)
    return (mixed + 1.5 * random.standard_normal(mixed.shape)).astype(np.float32)


topics = random.standard_normal((TRAIN + TEST, TOPICS))
sides = {"query": features(topics), "document": features(topics)}
towers = {
    side: jax.random.normal(jax.random.key(k), (FEATURES, DIM)) / np.sqrt(FEATURES) for k, side in enumerate(sides)
}
moments = jax.tree.map(jnp.zeros_like, (towers, towers))  # Adam's


def loss_of(towers, inputs, step):
    embeddings = {side: inputs[side] @ towers[side] for side in inputs}
    return negative_cosine_loss(embeddings["query"], embeddings["document"], rounds=20, step=step)


@jax.jit
def train(towers, moments, inputs, step, rate=3e-3):
    loss, gradients = jax.value_and_grad(loss_of)(towers, inputs, step)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradients)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, moments[1], gradients)
    rate = rate * jnp.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    towers = jax.tree.map(lambda tower, m, v: tower - rate * m / (jnp.sqrt(v) + 1e-8), towers, first, second)
    return towers, (first, second), loss


def recall(k=10):
    """How often a held-out query finds its own document among the k most similar of all held-out ones."""
    held_out = [sides[side][TRAIN:] @ np.asarray(towers[side]) for side in sides]
    held_out = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in held_out]
    similarity = held_out[0] @ held_out[1].T
    rank = (similarity > np.diag(similarity)[:, None]).sum(axis=1)
    return float((rank < k).mean())


print(f"Recall@10 before {recall():.3f}")
for step in range(1, STEPS + 1):
    rows = random.choice(TRAIN, BATCH, replace=False)
    inputs = {side: sides[side][rows] for side in sides}
    towers, moments, loss = train(towers, moments, inputs, step)
    if step % 100 == 0:
        print(f"step {step}: loss {loss:.4f}")
print(f"Recall@10 after {recall():.3f}")
