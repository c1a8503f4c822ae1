# SPDX-License-Identifier: Apache-2.0
"""Trains a small two-tower model with Keras, its loss a NegativeCosineLayer.

Queries and documents are two noisy views of the same hidden topics, in feature spaces of their own. Each tower is a
small network; it learns to send a query near its document. Prints Recall@10 on pairs that were not trained on.
"""

import numpy as np
import tensorflow as tf

from negcos.tensorflow import NegativeCosineLayer

TRAIN, TEST, TOPICS, FEATURES, DIM, BATCH, EPOCHS = 8000, 2000, 24, 96, 32, 256, 12
tf.keras.utils.set_random_seed(0)


def features(topics):
    """What one side sees of the topics: mixed, and with noise."""
    mixed = topics @ np.random.standard_normal((TOPICS, FEATURES)) / np.sqrt(TOPICS)
    return (mixed + 1.5 * np.random.standard_normal(mixed.shape)).astype(np.float32)


topics = np.random.standard_normal((TRAIN + TEST, TOPICS))
queries, documents = features(topics), features(topics)

query_input, document_input = tf.keras.Input((FEATURES,)), tf.keras.Input((FEATURES,))
query_tower, document_tower = (
    tf.keras.Sequential([tf.keras.Input((FEATURES,)), tf.keras.layers.Dense(DIM)]) for _ in "qd"
)
loss = NegativeCosineLayer(NEG=20, t=1.0)([query_tower(query_input), document_tower(document_input)])
model = tf.keras.Model([query_input, document_input], loss)
model.compile(tf.keras.optimizers.Adam(3e-3), loss=lambda _, output: output)


def recall(k=10):
    """How often a held-out query finds its own document among the k most similar of all held-out ones."""
    sides = [tower(side[TRAIN:]).numpy() for tower, side in ((query_tower, queries), (document_tower, documents))]
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    similarity = sides[0] @ sides[1].T
    rank = (similarity > np.diag(similarity)[:, None]).sum(axis=1)
    return float((rank < k).mean())


print(f"Recall@10 before {recall():.3f}")
unused = np.zeros(TRAIN)  # Keras wants a target for each output
model.fit([queries[:TRAIN], documents[:TRAIN]], unused, batch_size=BATCH, epochs=EPOCHS, verbose=2)
print(f"Recall@10 after {recall():.3f}")
