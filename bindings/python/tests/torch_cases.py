# SPDX-License-Identifier: Apache-2.0
"""Tensors for the tests of negcos.torch, and PyTorch's own loss of the same negatives."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

import negcos  # noqa: E402

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# Relative error of one rounding, and what the sums of these tests may lose.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


def tensors(*shapes, dtype=torch.float32, seed=0, requires_grad=True):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return [tensor.requires_grad_(requires_grad) for tensor in made]


def reference(queries, documents, candidates, hard=None, scale=20.0, reduction="mean"):
    """Cross entropy of explicitly gathered cosines; candidates [B, 1 + N]: rows of documents, the positive first."""
    queries, documents = F.normalize(queries, dim=1), F.normalize(documents, dim=1)
    cosines = (queries[:, None] * documents[candidates]).sum(dim=2)
    if hard is not None:
        own = F.normalize(hard, dim=1).reshape(len(queries), -1, queries.shape[1])
        cosines = torch.cat([cosines, (queries[:, None] * own).sum(dim=2)], dim=1)
    return F.cross_entropy(scale * cosines, torch.zeros(len(queries), dtype=torch.int64), reduction=reduction)


def drawn(batch, rounds, **key):
    """Candidates as the library draws them."""
    negatives = torch.from_numpy(negcos.sample(batch, rounds, **key)).long()
    return torch.cat([torch.arange(batch)[:, None], negatives], dim=1)


def gradients(loss, inputs):
    return [gradient.double() for gradient in torch.autograd.grad(loss, inputs)]


def assert_near(found, expected, dtype):
    """To TOLERANCE of the largest element: what is small beside it comes from sums that cancel."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        assert ours.shape == theirs.shape and float(theirs.abs().max()) > 0
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < TOLERANCE[dtype]
