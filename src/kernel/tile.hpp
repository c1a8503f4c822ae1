// SPDX-License-Identifier: Apache-2.0
//
// The inner loops of tiles for the plain softmax: all documents as candidates, or dense samples of them. Scores and
// both gradients are the same product (product.hpp), whose chains over queries are cut at each block.
#ifndef NEGCOS_KERNEL_TILE_HPP
#define NEGCOS_KERNEL_TILE_HPP

#include "kernel/gradients.hpp"
#include "kernel/objective.hpp"
#include "kernel/product.hpp"
#include "work.hpp"

namespace {

using negcos::pad_lanes;

template <class E>
void multiply_scores(const negcos::Tiles<E>& t, int64_t first, int64_t rows, int64_t document, int64_t vectors,
                     Working<E>* scores, int64_t stride) {
    multiply_units(static_cast<const Working<E>*>(t.query_units) + first * t.stride, t.stride,
                   static_cast<const Working<E>*>(t.panels) + document * t.width, t.width, t.dim, rows, vectors, scores,
                   stride, false);
}

// A block's scores against one chunk.
template <class E>
Working<E>* scores_of(const negcos::Tiles<E>& t, int64_t chunk) {
    return t.scores + chunk * t.block * t.score_stride;
}

// The positives' similarities ahead of everything else, by the same chains as in the tiles.
template <class E>
void tile_positives(const negcos::Tiles<E>& t, Range range, Working<E>* scratch) noexcept {
    using T = Working<E>;
    for (int64_t first = range.begin; first < range.end; first += kLanes<T>) {
        const int64_t rows = range.end - first < kLanes<T> ? range.end - first : kLanes<T>;
        multiply_scores(t, first, rows, first, 1, scratch, kLanes<T>);
        for (int64_t r = 0; r < rows; ++r) t.positives[first + r] = scratch[r * kLanes<T> + r];
    }
}

// How often each document is a negative of queries of a block.
template <class E>
void tile_counts(const negcos::Tiles<E>& t, int64_t first, Range range) noexcept {
    using T = Working<E>;
    const uint32_t chunk = static_cast<uint32_t>(t.chunk);
    for (int64_t r = range.begin; r < range.end; ++r) {
        T* row = t.counts + r * t.score_stride;
        for (int64_t c = 0; c < t.chunks; ++c)
            memset(row + c * t.block * t.score_stride, 0, sizeof(T) * static_cast<size_t>(t.chunk));
        const int32_t* negatives = t.candidates.negatives + (first + r) * t.candidates.row_stride;
        for (int64_t k = 0; k < t.candidates.rounds; ++k) {
            const int32_t j = negatives[k * t.candidates.round_stride];
            if (j < 0) continue;
            const uint32_t document = static_cast<uint32_t>(j);
            row[document / chunk * t.block * t.score_stride + document % chunk] += 1;
        }
    }
}

// The logits of one query's candidates that lie in the chunk [begin, begin + n), each in its slot.
template <class E>
void tile_logits(const negcos::Tiles<E>& t, int64_t query, const Working<E>* scores, int64_t begin, int64_t n,
                 Working<E> factor) {
    using T = Working<E>;
    E* out = t.outputs.logits.data + query * t.outputs.logits.stride;
    const int32_t* negatives = t.candidates.negatives + query * t.candidates.row_stride;
    if (begin == 0) out[0] = to_element<E>(factor * t.positives[query]);
    for (int64_t k = 0; k < t.candidates.rounds; ++k) {
        const int64_t at = negatives[k * t.candidates.round_stride] - begin;
        if (at >= 0 && at < n)
            out[1 + k] = to_element<E>(factor * scores[at]);
        else if (at + begin < 0 && begin == 0)
            out[1 + k] = to_element<E>(kAbsent<T>);
    }
}

// Row r of a block against the chunk of documents [begin, begin + n): scores of no negatives out of the way, and the
// largest of the others.
template <class E>
void tile_top(const negcos::Tiles<E>& t, int64_t first, int64_t r, int64_t chunk, int64_t begin, int64_t n,
              const PlainSoftmax<Working<E>>& softmax) {
    using T = Working<E>;
    T* scores = scores_of(t, chunk) + r * t.score_stride;
    const T absent = softmax.sign * kAbsent<T>;
    if (t.outputs.logits.data) tile_logits(t, first + r, static_cast<const T*>(scores), begin, n, softmax.factor);
    if (t.counts) {
        const T* counts = t.counts + (scores - t.scores);
        for (int64_t k = 0; k < n; k += kLanes<T>)
            store(scores + k, select_less(load(counts + k), broadcast(T(1)), broadcast(absent),
                                          load(static_cast<const T*>(scores) + k)));
    } else if (const int64_t positive_at = first + r - begin; positive_at >= 0 && positive_at < n) {
        scores[positive_at] = absent;
    }
    t.chunk_top[r * t.chunks + chunk] = softmax.top(static_cast<const T*>(scores), n, kAbsent<T>);
}

// Its exps relative to that, in place, and their sums.
template <class E>
void tile_exp(const negcos::Tiles<E>& t, int64_t first, int64_t r, int64_t chunk, int64_t begin, int64_t n,
              const PlainSoftmax<Working<E>>& softmax) {
    using T = Working<E>;
    T* scores = scores_of(t, chunk) + r * t.score_stride;
    const int64_t at = r * t.chunks + chunk, positive_at = first + r - begin;
    const T top = t.chunk_top[at], shift = top == kAbsent<T> ? T(0) : top, positive = t.positives[first + r];
    Sums sums;
    if (t.counts) {
        const T* counts = t.counts + (scores - t.scores);
        sums = softmax.template sum<true>(static_cast<const T*>(scores), n, shift, positive, scores, counts);
        // Drawn as its own negative, the positive counts in the sums but outranks nobody.
        if (positive_at >= 0 && positive_at < n) sums.rank -= static_cast<double>(counts[positive_at]);
    } else {
        sums = softmax.sum(static_cast<const T*>(scores), n, shift, positive, scores);
        // The positive's own place is absent, which is below any number, but not below NaN.
        if (positive_at >= 0 && positive_at < n)
            sums.rank -= softmax.factor * softmax.sign * kAbsent<T> < softmax.factor * positive ? 0 : 1;
    }
    t.chunk_sums[at] = sums;
}

constexpr int64_t kSoftmaxRows = 16;

// The scores of a block of queries against one chunk of documents, turned into exp relative to the chunk's own top; and
// while they are in the cache, the chunk's part of the queries' gradient, still without the rows' shares.
template <class E>
void tile_scores(const negcos::Tiles<E>& t, Range block, int64_t chunk) noexcept {
    const int64_t first = block.begin, count = block.count();
    using T = Working<E>;
    const PlainSoftmax<T> softmax(t.terms);
    const int64_t begin = chunk * t.chunk;
    const int64_t n = t.documents.count - begin < t.chunk ? t.documents.count - begin : t.chunk;
    multiply_scores(t, first, count, begin, pad_lanes<T>(n) / kLanes<T>, scores_of(t, chunk), t.score_stride);
    // A few rows at a time, first their tops, then their exps: so that no exp waits for the top just before it, and the
    // rows are still in the first-level cache.
    for (int64_t r = 0; r < count; r += kSoftmaxRows) {
        const int64_t last = count - r < kSoftmaxRows ? count : r + kSoftmaxRows;
        for (int64_t k = r; k < last; ++k) tile_top(t, first, k, chunk, begin, n, softmax);
        for (int64_t k = r; k < last; ++k) tile_exp(t, first, k, chunk, begin, n, softmax);
    }
    if (t.outputs.grad_queries.data)
        multiply<Left::kStepsTogether>(Product<T>{
            scores_of(t, chunk), t.score_stride, t.document_units + begin * t.stride, kLanes<T>, t.stride,
            t.partial + chunk * t.block * t.stride, t.stride, kLanes<T>, count, t.width / kLanes<T>, n, false});
}

// The chunks of each query put together: its loss, and each chunk's share in the gradients.
template <class E>
negcos::Totals tile_combine(const negcos::Tiles<E>& t, Range block, Working<E>* scratch) noexcept {
    const int64_t first = block.begin, count = block.count();
    using T = Working<E>;
    const PlainSoftmax<T> softmax(t.terms);
    negcos::Totals totals;
    LossWriter<E, PlainRow> writer(t.outputs);
    for (int64_t r = 0; r < count; ++r) {
        const int64_t at = r * t.chunks;
        const T positive = t.positives[first + r];
        T top = softmax.sign * positive;
        for (int64_t c = 0; c < t.chunks; ++c) top = top < t.chunk_top[at + c] ? t.chunk_top[at + c] : top;
        for (int64_t c = 0; c < t.chunks; c += kLanes<T>) {
            const int64_t n = t.chunks - c < kLanes<T> ? t.chunks - c : kLanes<T>;
            const Lanes<T> chunk_top = load_first(static_cast<const T*>(t.chunk_top) + at + c, static_cast<int>(n));
            store(scratch + c, exp_nonpositive((chunk_top - broadcast(top)) * broadcast(softmax.size)));
        }
        Sums negatives;
        for (int64_t c = 0; c < t.chunks; ++c) {
            softmax.join(negatives, top, t.chunk_sums[at + c], t.chunk_top[at + c], scratch[c]);
            if (t.chunk_sums[at + c].sum == 0) scratch[c] = 0;
        }
        const int64_t rank = static_cast<int64_t>(negatives.rank);
        const auto closed = softmax.close(positive, top, negatives, t.terms.row_weight);
        totals.grad_scale.add(closed.grad_scale);
        totals.rank_zero += rank == 0;
        totals.reciprocal_rank.add(1.0 / (1.0 + static_cast<double>(rank)));
        writer.add(first + r, 1, closed.row, totals);
        if (t.gradients) {
            for (int64_t c = 0; c < t.chunks; ++c)
                t.chunk_share[at + c] = static_cast<T>(static_cast<double>(scratch[c]) * closed.share);
            t.positive_slope[r] = static_cast<T>(closed.positive_slope);
        }
    }
    writer.flush(totals);
    return totals;
}

// What a block of queries adds to the gradient of one chunk of documents.
template <class E>
void tile_documents(const negcos::Tiles<E>& t, Range block, int64_t chunk, Working<E>* scratch) noexcept {
    const int64_t first = block.begin, count = block.count();
    using T = Working<E>;
    const int64_t begin = chunk * t.chunk;
    const int64_t n = t.documents.count - begin < t.chunk ? t.documents.count - begin : t.chunk;
    const int64_t vectors = t.width / kLanes<T>;
    for (int64_t r = 0; r < count; ++r) {
        const Lanes<T> w = broadcast(t.chunk_share[r * t.chunks + chunk]);
        const T* unit = t.query_units + (first + r) * t.stride;
        for (int64_t c = 0; c < t.width; c += kLanes<T>) store(scratch + r * t.stride + c, load(unit + c) * w);
    }
    multiply<Left::kRowsTogether>(Product<T>{scores_of(t, chunk), t.score_stride, scratch, kLanes<T>, t.stride,
                                             t.document_sums + begin * t.stride, t.stride, kLanes<T>, n, vectors, count,
                                             first > 0});
    for (int64_t r = 0; r < count; ++r) {
        const int64_t positive_at = first + r;
        if (positive_at < begin || positive_at >= begin + n) continue;
        const Lanes<T> w = broadcast(t.positive_slope[r]);
        const T* unit = t.query_units + positive_at * t.stride;
        T* total = t.document_sums + positive_at * t.stride;
        for (int64_t c = 0; c < t.width; c += kLanes<T>)
            store(total + c, multiply_add(w, load(unit + c), load(static_cast<const T*>(total) + c)));
    }
}

// Rows of a block: their parts from all chunks in order, then the positive, then the norm's derivative.
template <class E>
void tile_finish_queries(const negcos::Tiles<E>& t, int64_t first, Range range, Working<E>* scratch) noexcept {
    using T = Working<E>;
    const T factor = static_cast<T>(t.terms.factor);
    for (int64_t r = range.begin; r < range.end; ++r) {
        const int64_t i = first + r;
        const Lanes<T> positive = broadcast(t.positive_slope[r]);
        for (int64_t c = 0; c < t.width; c += kLanes<T>) {
            Lanes<T> total = broadcast(T(0));
            for (int64_t k = 0; k < t.chunks; ++k)
                total = multiply_add(broadcast(t.chunk_share[r * t.chunks + k]),
                                     load(static_cast<const T*>(t.partial) + (k * t.block + r) * t.stride + c), total);
            store(scratch + c, multiply_add(positive, load(t.document_units + i * t.stride + c), total));
        }
        finish_gradient(static_cast<const T*>(scratch), t.query_units + i * t.stride, T(1),
                        static_cast<double>(t.queries.above_floor[i]), t.queries.inverse[i], factor,
                        t.queries.rescale[i], t.dim, t.outputs.grad_queries.data + i * t.outputs.grad_queries.stride);
    }
}

template <class E>
void tile_finish_documents(const negcos::Tiles<E>& t, Range range) noexcept {
    using T = Working<E>;
    const T factor = static_cast<T>(t.terms.factor);
    for (int64_t j = range.begin; j < range.end; ++j)
        finish_gradient(static_cast<const T*>(t.document_sums) + j * t.stride, t.document_units + j * t.stride, T(1),
                        static_cast<double>(t.documents.above_floor[j]), t.documents.inverse[j], factor,
                        t.documents.rescale[j], t.dim,
                        t.outputs.grad_documents.data + j * t.outputs.grad_documents.stride);
}

template <class T>
int64_t tile_scratch(int64_t stride, int64_t block, int64_t chunks) noexcept {
    int64_t most = block * stride;
    if (most < kLanes<T> * kLanes<T>) most = kLanes<T> * kLanes<T>;
    return most < pad_lanes<T>(chunks) ? pad_lanes<T>(chunks) : most;
}

}  // namespace

#endif
