# SPDX-License-Identifier: Apache-2.0
"""The losses of other systems, written from their definitions, and the options of negcos that reproduce them.

Each function under @row is one row of README's table "Coming from another library". It gets a random generator, a
number of queries and a number of columns, and returns

    inputs      arrays that the system differentiates with respect to
    system      inputs -> the system's loss, in NumPy
    ours        negcos (the Python package), inputs -> our loss and our gradient of each input
    in_torch    optional: the system's loss from PyTorch's own functions

Gradients of `system` are taken by complex steps, which are exact to rounding. It must therefore be analytic: no abs and
no max; `.real` is stop-gradient, and whatever decides (masks, ranks, shifts) looks at `.real` alone.
"""
import numpy as np

ROWS = {}
GRADIENTS = ("grad_queries", "grad_documents")


def row(name):
    def register(function):
        assert name not in ROWS
        ROWS[name] = function
        return function

    return register


def normalize(x):
    return x / np.sqrt((x * x).sum(axis=1, keepdims=True))


def cos_sim(a, b):
    return normalize(a) @ normalize(b).T


def logsumexp(z):
    shift = z.real.max(axis=1, keepdims=True)
    return np.log(np.exp(z - shift).sum(axis=1)) + shift[:, 0]


def cross_entropy(logits, labels):
    """Of each row."""
    return logsumexp(logits) - logits[np.arange(len(logits)), labels]


def drop(logits, mask):
    """Mask as PyTorch code does it."""
    return np.where(mask, -np.inf, logits)


def eye(*shape):
    return np.eye(*shape, dtype=bool)


def pairs(rng, b, d, columns=1):
    """Queries, and columns of documents that resemble them less and less."""
    queries = rng.normal(size=(b, d))
    return [queries] + [queries * 0.7 / (1 + c) + rng.normal(size=(b, d)) for c in range(columns)]


# sentence-transformers 6.2. cos_sim is of rows divided by max(norm, 1e-12): our norm_floor.


@row("sentence-transformers `MultipleNegativesRankingLoss`")
def multiple_negatives_ranking(rng, b, d):
    def system(anchors, positives):
        return cross_entropy(cos_sim(anchors, positives) * 20, np.arange(b)).mean()

    def ours(negcos, anchors, positives):
        r = negcos.evaluate(anchors, positives, sampling="all")
        return r.loss, r.grad_queries, r.grad_documents

    def in_torch(anchors, positives):
        import torch.nn.functional as F
        from torch import arange

        return F.cross_entropy(F.normalize(anchors) @ F.normalize(positives).T * 20, arange(b))

    return pairs(rng, b, d), system, ours, in_torch


@row("… with columns of hard negatives")
def multiple_negatives_ranking_hard(rng, b, d):
    def system(anchors, positives, column1, column2):
        documents = np.concatenate([positives, column1, column2])
        return cross_entropy(cos_sim(anchors, documents) * 20, np.arange(b)).mean()

    def ours(negcos, anchors, *columns):
        r = negcos.evaluate(anchors, np.concatenate(columns), sampling="all")
        return r.loss, r.grad_queries, *np.split(r.grad_documents, len(columns))

    return pairs(rng, b, d, 3), system, ours


@row("`CachedMultipleNegativesRankingLoss`")
def cached_multiple_negatives_ranking(rng, b, d):
    mini_batch = 4

    def system(anchors, positives):
        total = 0
        for begin in range(0, b, mini_batch):
            rows = np.arange(begin, min(begin + mini_batch, b))
            total += cross_entropy(cos_sim(anchors[rows], positives) * 20, rows).mean() * len(rows) / b
        return total

    def ours(negcos, anchors, positives):
        r = negcos.evaluate(anchors, positives, sampling="all")
        return r.loss, r.grad_queries, r.grad_documents

    return pairs(rng, b, d), system, ours


@row('`MultipleNegativesSymmetricRankingLoss`: `"query_to_doc"` and `"doc_to_query"`, `"per_direction"`')
def multiple_negatives_symmetric_ranking(rng, b, d):
    def system(anchors, positives):
        scores = cos_sim(anchors, positives) * 20
        return (-np.diag(scores) + (logsumexp(scores) + logsumexp(scores.T)) / 2).mean()

    def ours(negcos, anchors, positives):
        r = negcos.evaluate(anchors, positives, sampling="all", direction="both")
        return r.loss, r.grad_queries, r.grad_documents

    return pairs(rng, b, d), system, ours


@row("… with columns of hard negatives, which are documents of the forward direction alone")
def multiple_negatives_symmetric_ranking_hard(rng, b, d):
    def system(anchors, positives, column):
        forward = cos_sim(anchors, np.concatenate([positives, column])) * 20
        backward = cos_sim(positives, anchors) * 20
        return (-np.diag(forward) + (logsumexp(forward) + logsumexp(backward)) / 2).mean()

    def ours(negcos, anchors, positives, column):
        forward = negcos.evaluate(anchors, np.concatenate([positives, column]), sampling="all")
        backward = negcos.evaluate(positives, anchors, sampling="all")
        return (
            (forward.loss + backward.loss) / 2,
            (forward.grad_queries + backward.grad_documents) / 2,
            (forward.grad_documents[:b] + backward.grad_queries) / 2,
            forward.grad_documents[b:] / 2,
        )

    return pairs(rng, b, d, 2), system, ours


@row('`directions=("query_to_doc", "query_to_query")`')
def query_to_query(rng, b, d):
    def system(anchors, positives):
        forward = cos_sim(anchors, positives) * 20
        scores = np.concatenate([forward, drop(cos_sim(anchors, anchors) * 20, eye(b))], axis=1)
        return (logsumexp(scores) - np.diag(forward)).mean()

    def ours(negcos, anchors, positives):
        # The anchor itself has its positive's id, and is dropped.
        r = negcos.evaluate(anchors, np.concatenate([positives, anchors]), sampling="all", exclude="same-document-id",
                            document_ids=np.tile(np.arange(b), 2))  # fmt: skip
        return r.loss, r.grad_queries + r.grad_documents[b:], r.grad_documents[:b]

    return pairs(rng, b, d), system, ours


@row('`hardness_mode="in_batch_negatives"`, pairs; LLaVE')
def hardness_in_batch(rng, b, d):
    strength = 9

    def system(anchors, positives):
        cos = cos_sim(anchors, positives)
        scores = cos * 20 + strength * np.where(eye(b), 0, cos.real)
        return cross_entropy(scores, np.arange(b)).mean()

    def ours(negcos, anchors, positives):
        r = negcos.evaluate(anchors, positives, sampling="all", hardness=strength)
        return r.loss, r.grad_queries, r.grad_documents

    def in_torch(anchors, positives):
        import torch.nn.functional as F
        from torch import arange, eye

        cos = F.normalize(anchors) @ F.normalize(positives).T
        penalty = (strength * cos.detach()).masked_fill(eye(b, dtype=bool), 0)
        return F.cross_entropy(cos * 20 + penalty, arange(b))

    return pairs(rng, b, d), system, ours, in_torch


@row('`hardness_mode="all_negatives"`')
def hardness_all(rng, b, d):
    strength = 5

    def system(anchors, positives, column):
        cos = cos_sim(anchors, np.concatenate([positives, column]))
        scores = cos * 20 + strength * np.where(eye(b, 2 * b), 0, cos.real)
        return cross_entropy(scores, np.arange(b)).mean()

    def ours(negcos, anchors, positives, column):
        r = negcos.evaluate(anchors, np.concatenate([positives, column]), sampling="all", hardness=strength)
        return r.loss, r.grad_queries, *np.split(r.grad_documents, 2)

    return pairs(rng, b, d, 2), system, ours


@row("`GISTEmbedLoss(guide=model, temperature=t, margin=m, contrast_positives=False)`")
def gist_embed(rng, b, d):
    temperature, margin = 0.1, 0.05

    def system(anchors, positives):
        forward, among = cos_sim(anchors, positives), cos_sim(anchors, anchors)
        threshold = np.diag(forward).real[:, None] - margin
        mask = np.concatenate([(forward.real > threshold) & ~eye(b), among.real > threshold], axis=1)
        scores = np.concatenate([forward, among], axis=1) / temperature
        return cross_entropy(drop(scores, mask), np.arange(b)).mean()

    def ours(negcos, anchors, positives):
        # The anchor itself, of cosine 1, goes by its id: the margin alone would leave it where the positive is as near.
        r = negcos.evaluate(anchors, np.concatenate([positives, anchors]), sampling="all", scale=1,
                            temperature=temperature, false_negative_margin=-margin,
                            exclude="same-document-id", document_ids=np.tile(np.arange(b), 2))  # fmt: skip
        assert b < r.excluded < 2 * b * b - b
        return r.loss, r.grad_queries + r.grad_documents[b:], r.grad_documents[:b]

    def in_torch(anchors, positives):
        import torch
        from torch import nn

        similarity = nn.CosineSimilarity(dim=-1)
        forward = similarity(anchors.unsqueeze(1), positives.unsqueeze(0))
        among = similarity(anchors.unsqueeze(1), anchors.unsqueeze(0))
        threshold = forward.detach().diagonal().view(-1, 1) - margin
        forward = forward.masked_fill((forward > threshold) & ~torch.eye(b, dtype=bool), -torch.inf)
        among = among.masked_fill(among > threshold, -torch.inf)
        return nn.CrossEntropyLoss()(torch.cat([forward, among], dim=1) / temperature, torch.arange(b))

    return pairs(rng, b, d), system, ours, in_torch


@row("`MatryoshkaLoss` around `MultipleNegativesRankingLoss`")
def matryoshka(rng, b, d):
    dims, weights = [d, d - 1, 2], [1, 0.5, 0.25]

    def system(anchors, positives):
        total = 0
        for dim, weight in zip(dims, weights):
            # It truncates what it truncated and normalised before.
            anchors, positives = normalize(anchors[:, :dim]), normalize(positives[:, :dim])
            total += weight * cross_entropy(cos_sim(anchors, positives) * 20, np.arange(b)).mean()
        return total

    def ours(negcos, anchors, positives):
        r = negcos.evaluate(anchors, positives, sampling="all", prefix_dims=dims[::-1], prefix_weights=weights[::-1])
        return r.loss, r.grad_queries, r.grad_documents

    return pairs(rng, b, d), system, ours


# TensorFlow Recommenders 0.7.7.


def retrieval(queries, candidates, temperature=None, sample_weight=1, probability=None, ids=None, hardest=None):
    scores = queries @ candidates.T
    labels = np.arange(len(queries))
    if temperature is not None:
        scores = scores / temperature
    if probability is not None:
        scores = scores - np.log(np.clip(probability, 1e-6, 1))
    if ids is not None:
        # It adds a large negative number where we drop: exp is 0 either way.
        hits = (ids[: len(queries), None] == ids[None, :]) & ~eye(*scores.shape)
        scores = scores + hits * (np.finfo(np.float32).min / 100.0)
    if hardest is not None:
        first = np.where(eye(*scores.shape), np.inf, scores.real)
        scores = np.take_along_axis(scores, np.argsort(-first, axis=1)[:, : hardest + 1], axis=1)
        labels = np.zeros_like(labels)
    return (sample_weight * cross_entropy(scores, labels)).sum()


RETRIEVAL = {"similarity": "dot", "scale": 1, "reduction": "sum", "sampling": "all"}


@row("TensorFlow Recommenders `Retrieval()`")
def retrieval_defaults(rng, b, d):
    def ours(negcos, queries, candidates):
        r = negcos.evaluate(queries, candidates, **RETRIEVAL)
        return r.loss, r.grad_queries, r.grad_documents

    return pairs(rng, b, d), retrieval, ours


@row("`temperature=t`, `sample_weight=w`, more candidates than queries")
def retrieval_weights(rng, b, d):
    weights = rng.uniform(0, 2, b)

    def system(queries, candidates, more):
        return retrieval(queries, np.concatenate([candidates, more]), temperature=0.3, sample_weight=weights)

    def ours(negcos, queries, candidates, more):
        options = dict(RETRIEVAL, temperature=0.3, weights=weights)
        r = negcos.evaluate(queries, np.concatenate([candidates, more]), **options)
        return r.loss, r.grad_queries, *np.split(r.grad_documents, [b])

    return pairs(rng, b, d) + [rng.normal(size=(3, d))], system, ours


@row("`candidate_sampling_probability=p`")
def retrieval_probability(rng, b, d):
    probability = 10.0 ** rng.uniform(-8, 0, b)
    probability[:2] = 1e-9, 1e-7  # below what it clips to

    def system(queries, candidates):
        return retrieval(queries, candidates, probability=probability)

    def ours(negcos, queries, candidates):
        log_probability = np.log(np.clip(probability, 1e-6, 1))
        r = negcos.evaluate(queries, candidates, log_probability=log_probability, **RETRIEVAL)
        return r.loss, r.grad_queries, r.grad_documents

    return pairs(rng, b, d), system, ours


@row("`remove_accidental_hits=True`, `candidate_ids=ids`")
def retrieval_accidental_hits(rng, b, d):
    ids = rng.permutation(np.arange(b) // 2)

    def system(queries, candidates):
        return retrieval(queries, candidates, ids=ids)

    def ours(negcos, queries, candidates):
        r = negcos.evaluate(queries, candidates, exclude="same-document-id", document_ids=ids, **RETRIEVAL)
        assert r.excluded == b // 2 * 2
        return r.loss, r.grad_queries, r.grad_documents

    return pairs(rng, b, d), system, ours


@row("`num_hard_negatives=k`")
def retrieval_hard_negatives(rng, b, d):
    def system(queries, candidates):
        return retrieval(queries, candidates, hardest=3)

    def ours(negcos, queries, candidates):
        scores = np.where(eye(b), -np.inf, queries @ candidates.T)
        hardest = np.argsort(-scores, axis=1)[:, :3]
        r = negcos.evaluate(queries, candidates, **dict(RETRIEVAL, sampling="given", rounds=3, negatives=hardest))
        return r.loss, r.grad_queries, r.grad_documents

    return pairs(rng, b, d), system, ours


# OpenCLIP 3.3. Features are normalised by the model; logit_scale and logit_bias are parameters, the scale as its log.


@row("OpenCLIP `ClipLoss`")
def open_clip(rng, b, d):
    def system(images, texts, logit_scale):
        scores = np.exp(logit_scale) * cos_sim(images, texts)
        labels = np.arange(b)
        return (cross_entropy(scores, labels).mean() + cross_entropy(scores.T, labels).mean()) / 2

    def ours(negcos, images, texts, logit_scale):
        scale = np.exp(float(logit_scale))
        r = negcos.evaluate(images, texts, sampling="all", direction="both", scale=scale)
        return r.loss, r.grad_queries, r.grad_documents, r.grad_scale * scale

    def in_torch(images, texts, logit_scale):
        import torch.nn.functional as F
        from torch import arange

        scores = logit_scale.exp() * F.normalize(images) @ F.normalize(texts).T
        return (F.cross_entropy(scores, arange(b)) + F.cross_entropy(scores.T, arange(b))) / 2

    return pairs(rng, b, d) + [np.log(1 / 0.07)], system, ours, in_torch


@row("OpenCLIP `SigLipLoss`")
def sig_lip(rng, b, d):
    def system(images, texts, logit_scale, logit_bias):
        scores = np.exp(logit_scale) * cos_sim(images, texts) + logit_bias
        signed = (2 * np.eye(b) - 1) * scores
        return logsumexp(np.stack([np.zeros(b * b), -signed.ravel()], axis=1)).sum() / b

    def ours(negcos, images, texts, logit_scale, logit_bias):
        scale = np.exp(float(logit_scale))
        r = negcos.evaluate(images, texts, objective="sigmoid", sampling="all", scale=scale, bias=float(logit_bias))
        return r.loss, r.grad_queries, r.grad_documents, r.grad_scale * scale, r.grad_bias

    def in_torch(images, texts, logit_scale, logit_bias):
        import torch.nn.functional as F
        from torch import eye

        scores = logit_scale.exp() * F.normalize(images) @ F.normalize(texts).T + logit_bias
        return -F.logsigmoid((2 * eye(b) - 1) * scores).sum() / b

    return pairs(rng, b, d) + [np.log(10), -10.0], system, ours, in_torch


# Two views of the same images.


def both_views(negcos, view1, view2, **options):
    """Each view's rows against the other view and, but for the row itself, their own."""
    b = len(view1)
    r = negcos.evaluate(np.concatenate([view1, view2]), np.concatenate([view2, view1]), sampling="all", scale=1,
                        exclude="same-document-id", document_ids=np.tile(np.arange(b), 2), **options)  # fmt: skip
    assert r.excluded == 2 * b
    return r.loss, r.grad_queries[:b] + r.grad_documents[b:], r.grad_queries[b:] + r.grad_documents[:b]


@row("SimCLR NT-Xent, as published")
def nt_xent(rng, b, d):
    def system(view1, view2):
        z = np.concatenate([view1, view2])
        scores = drop(cos_sim(z, z) / 0.1, eye(2 * b))
        return cross_entropy(scores, (np.arange(2 * b) + b) % (2 * b)).mean()

    def ours(negcos, view1, view2):
        return both_views(negcos, view1, view2, temperature=0.1)

    return pairs(rng, b, d), system, ours


@row("SimCLR NT-Xent, as its code adds up")
def nt_xent_code(rng, b, d):
    def system(view1, view2):
        def one_way(a, c):
            # It takes 1e9 off where we drop: exp is 0 either way.
            scores = np.concatenate([cos_sim(a, c) / 0.1, cos_sim(a, a) / 0.1 - np.eye(b) * 1e9], axis=1)
            return cross_entropy(scores, np.arange(b)).mean()

        return one_way(view1, view2) + one_way(view2, view1)

    def ours(negcos, view1, view2):
        return [2 * x for x in both_views(negcos, view1, view2, temperature=0.1)]

    return pairs(rng, b, d), system, ours


@row("PyTorch Metric Learning `SelfSupervisedLoss(NTXentLoss())`")
def nt_xent_metric_learning(rng, b, d):
    def system(view1, view2):
        z = np.concatenate([view1, view2])
        similarity = cos_sim(z, z) / 0.07
        losses = []
        for i in range(2 * b):
            positive = similarity[i, (i + b) % (2 * b)]
            negatives = similarity[i, np.arange(2 * b) % b != i % b]
            # It adds the smallest normal number to the probability, against log 0.
            losses.append(-np.log(1 / (1 + np.exp(negatives - positive).sum()) + np.finfo(np.float32).tiny))
        return sum(losses) / len(losses)

    def ours(negcos, view1, view2):
        return both_views(negcos, view1, view2, temperature=0.07)

    return pairs(rng, b, d), system, ours


@row("DCL (decoupled contrastive learning)")
def decoupled(rng, b, d):
    def system(view1, view2):
        def one_way(a, c):
            a, c = normalize(a), normalize(c)
            # It adds log 1e-45 where we drop.
            mask = np.tile(np.eye(b), 2) * np.log(1e-45)
            negatives = np.concatenate([a @ a.T, a @ c.T], axis=1) / 0.1 + mask
            return (-(a * c).sum(axis=1) / 0.1 + logsumexp(negatives)).mean()

        return one_way(view1, view2) + one_way(view2, view1)

    def ours(negcos, view1, view2):
        return [2 * x for x in both_views(negcos, view1, view2, objective="decoupled", temperature=0.1)]

    return pairs(rng, b, d), system, ours


# FlagEmbedding 1.4: groups of passages, the positive first. normalize_embeddings is on in its trainer.


@row("FlagEmbedding embedder")
def flag_embedding(rng, b, d):
    group = 3

    def system(queries, passages):
        return cross_entropy(cos_sim(queries, passages) / 0.02, np.arange(b) * group).mean()

    def ours(negcos, queries, passages):
        r = negcos.evaluate(queries, passages, sampling="all", scale=1, temperature=0.02,
                            positives=np.arange(b) * group)  # fmt: skip
        return r.loss, r.grad_queries, r.grad_documents

    queries, *columns = pairs(rng, b, d, group)
    return [queries, np.stack(columns, axis=1).reshape(-1, d)], system, ours


@row("… without in-batch negatives")
def flag_embedding_local(rng, b, d):
    group = 4

    def system(queries, passages):
        own = normalize(passages).reshape(b, group, d)
        scores = (normalize(queries)[:, None, :] * own).sum(axis=2) / 0.02
        return cross_entropy(scores, np.zeros(b, int)).mean()

    def ours(negcos, queries, passages):
        groups = passages.reshape(b, group, d)
        r = negcos.evaluate(queries, groups[:, 0], hard_negatives=groups[:, 1:].reshape(-1, d), rounds=0, scale=1,
                            temperature=0.02, outputs=GRADIENTS + ("grad_hard_negatives",))  # fmt: skip
        hard = r.grad_hard_negatives.reshape(b, group - 1, d)
        return r.loss, r.grad_queries, np.concatenate([r.grad_documents[:, None], hard], axis=1).reshape(-1, d)

    queries, *columns = pairs(rng, b, d, group)
    return [queries, np.stack(columns, axis=1).reshape(-1, d)], system, ours


# The layer that negcos began with: documents shuffled NEG times, 20 times the cosine.


@row("`NegativeCosineLayer(NEG, t)`, as described")
def negative_cosine_layer(rng, b, d):
    rounds, t = 6, 0.8
    drawn = {}

    def system(queries, documents):
        repeated = np.concatenate([documents] + [documents[shuffled] for shuffled in drawn["negatives"].T])
        cos = (np.tile(normalize(queries), (rounds + 1, 1)) * normalize(repeated)).sum(axis=1)
        scores = 20 * cos.reshape(rounds + 1, b).T / t
        return cross_entropy(scores, np.zeros(b, int)).mean()

    def ours(negcos, queries, documents):
        outputs = GRADIENTS + ("negatives",)
        r = negcos.evaluate(queries, documents, rounds=rounds, temperature=t, seed=7, outputs=outputs)
        assert (np.sort(r.negatives, axis=0) == np.arange(b)[:, None]).all()
        drawn["negatives"] = r.negatives
        return r.loss, r.grad_queries, r.grad_documents

    return pairs(rng, b, d), system, ours


@row("`NegativeCosineLayer(NEG, t)`, as published")
def negative_cosine_layer_published(rng, b, d):
    rounds, t = 6, 0.8
    shuffles = [rng.permutation(b) for _ in range(rounds)]

    def system(queries, documents):
        repeated = np.concatenate([documents] + [documents[shuffled] for shuffled in shuffles])
        cos = (np.tile(normalize(queries), (rounds + 1, 1)) * normalize(repeated)).sum(axis=1)
        # exp(z) to the power 1 / t over its column's sum: t, and what stands in other columns, cancel.
        scores = 20 * cos.reshape(rounds + 1, b).T
        return -np.log(np.exp(scores) / np.exp(scores).sum(axis=0))[:, 0].mean()

    def ours(negcos, queries, documents):
        r = negcos.evaluate(queries, documents, objective="batch-softmax", rounds=rounds, temperature=t)
        return r.loss, r.grad_queries, r.grad_documents

    return pairs(rng, b, d), system, ours


# Margins, and PyTorch's cross entropy.


@row("AM-Softmax, CosFace")
def am_softmax(rng, b, d):
    classes = 4
    labels = rng.integers(0, classes, b)

    def system(features, class_weights):
        cos = cos_sim(features, class_weights)
        return cross_entropy(30 * (cos - 0.35 * np.eye(classes)[labels]), labels).mean()

    def ours(negcos, features, class_weights):
        r = negcos.evaluate(features, class_weights, sampling="all", positives=labels, scale=30, margin=0.35)
        return r.loss, r.grad_queries, r.grad_documents

    return [rng.normal(size=(b, d)), rng.normal(size=(classes, d))], system, ours


@row("LaBSE, bidirectional additive margin softmax")
def labse(rng, b, d):
    scale = 10

    def system(sources, targets):
        def one_way(scores):
            positives = np.exp(np.diag(scores))
            others = (np.exp(scores) * (1 - np.eye(b))).sum(axis=1)
            return -np.log(positives / (positives + others)).mean()

        scores = scale * (cos_sim(sources, targets) - 0.3 * np.eye(b))
        return one_way(scores) + one_way(scores.T)

    def ours(negcos, sources, targets):
        r = negcos.evaluate(sources, targets, sampling="all", direction="both", scale=scale, margin=0.3)
        return 2 * r.loss, 2 * r.grad_queries, 2 * r.grad_documents

    return pairs(rng, b, d), system, ours


@row("PyTorch `cross_entropy(scale * cos, arange(B), label_smoothing=ε)`")
def label_smoothing(rng, b, d):
    smoothing = 0.1

    def system(queries, documents):
        scores = 20 * cos_sim(queries, documents)
        targets = (1 - smoothing) * np.eye(b) + smoothing / b
        return -(targets * (scores - logsumexp(scores)[:, None])).sum(axis=1).mean()

    def ours(negcos, queries, documents):
        r = negcos.evaluate(queries, documents, sampling="all", label_smoothing=smoothing)
        return r.loss, r.grad_queries, r.grad_documents

    def in_torch(queries, documents):
        import torch.nn.functional as F
        from torch import arange

        scores = 20 * F.normalize(queries) @ F.normalize(documents).T
        return F.cross_entropy(scores, arange(b), label_smoothing=smoothing)

    return pairs(rng, b, d), system, ours, in_torch


@row("PyTorch `cross_entropy(scale * cos, arange(B), weight=w)`")
def class_weights(rng, b, d):
    weights = rng.uniform(0, 2, b)
    weights[0] = 0

    def system(queries, documents):
        losses = cross_entropy(20 * cos_sim(queries, documents), np.arange(b))
        return (weights * losses).sum() / weights.sum()

    def ours(negcos, queries, documents):
        r = negcos.evaluate(queries, documents, sampling="all", weights=weights)
        return r.loss, r.grad_queries, r.grad_documents

    def in_torch(queries, documents):
        import torch.nn.functional as F
        from torch import arange, from_numpy

        scores = 20 * F.normalize(queries) @ F.normalize(documents).T
        return F.cross_entropy(scores, arange(b), weight=from_numpy(weights).to(scores.dtype))

    return pairs(rng, b, d), system, ours, in_torch
