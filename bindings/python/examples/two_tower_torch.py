# SPDX-License-Identifier: Apache-2.0
"""Trains a small two-tower model with PyTorch and negcos.

A query is a bag of words, a document a vector of features; both come from a hidden topic. Each tower learns to send its
side near the other. Prints Recall@10 on pairs that were not trained on.
"""

import torch
from torch import nn

from negcos.torch import NegativeCosineLoss

TRAIN, TEST, TOPICS, WORDS, LENGTH, FEATURES, DIM, BATCH, STEPS = 8000, 2000, 16, 1000, 12, 64, 32, 256, 400
torch.manual_seed(0)

topics = torch.randn(TRAIN + TEST, TOPICS)
words = torch.multinomial(torch.softmax(topics @ torch.randn(TOPICS, WORDS), dim=1), LENGTH, replacement=True)
features = topics @ torch.randn(TOPICS, FEATURES) / TOPICS**0.5 + torch.randn(TRAIN + TEST, FEATURES)

query_tower = nn.Sequential(nn.EmbeddingBag(WORDS, 64), nn.Linear(64, DIM))
document_tower = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, DIM))
loss_function = NegativeCosineLoss(rounds=20, scale=nn.Parameter(torch.tensor(20.0)))  # the scale learns, too
modules = nn.ModuleList([query_tower, document_tower, loss_function])
optimizer = torch.optim.Adam(modules.parameters(), lr=3e-3)


@torch.no_grad()
def recall(k=10):
    """How often a held-out query finds its own document among the k most similar of all held-out ones."""
    queries = nn.functional.normalize(query_tower(words[TRAIN:]))
    documents = nn.functional.normalize(document_tower(features[TRAIN:]))
    similarity = queries @ documents.T
    rank = (similarity > similarity.diagonal()[:, None]).sum(dim=1)
    return (rank < k).float().mean().item()


print(f"Recall@10 before {recall():.3f}")
for step in range(1, STEPS + 1):
    rows = torch.randint(TRAIN, (BATCH,))
    loss = loss_function(query_tower(words[rows]), document_tower(features[rows]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        result, scale = loss_function.result, loss_function.scale.item()
        print(f"step {step}: loss {loss.item():.4f}, accuracy {result.accuracy:.3f}, scale {scale:.2f}")
print(f"Recall@10 after {recall():.3f}")
