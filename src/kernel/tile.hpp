// SPDX-License-Identifier: Apache-2.0
//
// Engine 2's inner loops: all documents as candidates. One micro-kernel multiplies a small tile kept in registers; the
// scores and both gradients are that same product of a scalar from one side and a vector of lanes from the other. Each
// output element is one chain of FMAs in the order of the inner index, so tile shapes cannot change the bits; chains
// over long rows are cut and added up, those over queries at each block.
#ifndef NEGCOS_KERNEL_TILE_HPP
#define NEGCOS_KERNEL_TILE_HPP

#include "kernel/gradients.hpp"
#include "kernel/softmax.hpp"
#include "kernels.hpp"

namespace {

using negcos::pad_lanes;

// Rows and vectors of a register tile: as many accumulators as the registers hold beside their operands.
#if NEGCOS_KERNEL_AVX512
constexpr int kTileRows = 12, kTileVectors = 2;
#elif NEGCOS_KERNEL_SCALAR
constexpr int kTileRows = 2, kTileVectors = 1;
#else
constexpr int kTileRows = 6, kTileVectors = 1;
#endif

// c[m][v] (+)= sum_k a[m][k] * b[k][v], v a vector of lanes. Side by side in a are either the steps, rows being
// a_stride apart, or the rows, steps being a_stride apart: constant offsets from few pointers, so that next to nothing
// competes with the FMAs.
enum class Left { kStepsTogether, kRowsTogether };
template <class T>
struct Product {
    const T* a;
    int64_t a_stride;
    const T* b;
    int64_t b_vector, b_step;
    T* c;
    int64_t c_row, c_vector;
    int64_t rows, vectors, steps;
    bool add;
};

template <int kRows, int kVectors, class T>
using Tile = Lanes<T>[kRows][kVectors];

// One step for the whole tile; left(m) is the scalar of row m.
template <int kRows, int kVectors, class T, class LeftOf>
[[gnu::always_inline]] inline void multiply_step(Tile<kRows, kVectors, T>& acc, const T* b, int64_t b_vector,
                                                 LeftOf&& left) {
    Lanes<T> right[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) right[v] = load(b + v * b_vector);
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
        const Lanes<T> x = broadcast(left(m));
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) acc[m][v] = multiply_add(x, right[v], acc[m][v]);
    }
}

template <Left kLeft, int kRows, int kVectors, class T>
void multiply_tile(const Product<T>& p, const T* a, const T* b, T* c) {
    Tile<kRows, kVectors, T> acc;
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) acc[m][v] = broadcast(T(0));
    const int64_t stride = p.a_stride, b_step = p.b_step, b_vector = p.b_vector;
    if constexpr (kLeft == Left::kRowsTogether) {
        for (int64_t k = p.steps; k > 0; --k) {
            multiply_step<kRows, kVectors>(acc, b, b_vector, [&](int m) { return a[m]; });
            __builtin_prefetch(a + 12 * stride);  // each step a line of its own, in strides that hardware follows late
            a += stride;
            b += b_step;
        }
    } else {
        // One pointer for three rows: base, base + stride and base + 2 * stride are addresses that cost nothing. The
        // empty asm keeps the compiler from making a pointer of each row, for which there are not enough registers.
        constexpr int kPointers = (kRows + 2) / 3;
        const T* left[kPointers];
#pragma GCC unroll 16
        for (int g = 0; g < kPointers; ++g) left[g] = a + 3 * g * stride;
        for (int64_t k = p.steps; k > 0; --k) {
            multiply_step<kRows, kVectors>(acc, b, b_vector, [&](int m) { return left[m / 3][m % 3 * stride]; });
            b += b_step;
#pragma GCC unroll 16
            for (int g = 0; g < kPointers; ++g) {
                ++left[g];
                asm("" : "+r"(left[g]));
            }
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) {
            T* out = c + m * p.c_row + v * p.c_vector;
            store(out, p.add ? load(static_cast<const T*>(out)) + acc[m][v] : acc[m][v]);
        }
}

template <Left kLeft, int kRows, int kVectors, class T>
void multiply_last_rows(const Product<T>& p, int64_t rows, const T* a, const T* b, T* c) {
    if (rows == kRows)
        multiply_tile<kLeft, kRows, kVectors>(p, a, b, c);
    else if constexpr (kRows > 1)
        multiply_last_rows<kLeft, kRows - 1, kVectors>(p, rows, a, b, c);
}

template <Left kLeft, int kVectors, class T>
void multiply_rows(const Product<T>& p, int64_t vector) {
    const int64_t a_row = kLeft == Left::kRowsTogether ? 1 : p.a_stride;
    const T* b = p.b + vector * p.b_vector;
    T* c = p.c + vector * p.c_vector;
    int64_t m = 0;
    for (; m + kTileRows <= p.rows; m += kTileRows)
        multiply_tile<kLeft, kTileRows, kVectors>(p, p.a + m * a_row, b, c + m * p.c_row);
    if constexpr (kTileRows > 1)
        if (m < p.rows)
            multiply_last_rows<kLeft, kTileRows - 1, kVectors>(p, p.rows - m, p.a + m * a_row, b, c + m * p.c_row);
}

template <Left kLeft, class T>
void multiply(const Product<T>& p) {
    int64_t v = 0;
    for (; v + kTileVectors <= p.vectors; v += kTileVectors) multiply_rows<kLeft, kTileVectors>(p, v);
    for (; v < p.vectors; ++v) multiply_rows<kLeft, 1>(p, v);
}

// Rows over their norms, padded to whole lanes, and for documents (panels != nullptr) the same transposed in groups of
// kLanes rows: panels[(group * width + column) * kLanes + row]. begin is a multiple of kLanes.
template <class E>
void tile_pack(const negcos::Rows<E>& rows, int64_t dim, Working<E>* units, Working<E>* panels, int64_t begin,
               int64_t end) noexcept {
    using T = Working<E>;
    const int64_t width = pad_lanes<T>(dim), stride = negcos::odd_lines<T>(dim);
    for (int64_t i = begin; i < end; ++i) {
        const E* row = rows.data + i * rows.stride;
        const Lanes<T> s = broadcast(rows.rescale[i]), inverse = broadcast(rows.inverse[i]);
        T* unit = units + i * stride;
        int64_t c = 0;
        for (; c + kLanes<T> <= dim; c += kLanes<T>) store(unit + c, load(row + c) * s * inverse);
        if (c < dim) {
            const Lanes<T> x = load_first(row + c, static_cast<int>(dim - c)) * s * inverse;
            store(unit + c, select_less(lane_indices<T>(), broadcast(static_cast<T>(dim - c)), x, broadcast(T(0))));
        }
    }
    if (!panels) return;
    for (int64_t first = begin; first < end; first += kLanes<T>) {
        T* panel = panels + first * width;
        const int64_t count = end - first < kLanes<T> ? end - first : kLanes<T>;
        for (int64_t l = 0; l < kLanes<T>; ++l)
            for (int64_t c = 0; c < width; ++c)
                panel[c * kLanes<T> + l] = l < count ? units[(first + l) * stride + c] : T(0);
    }
}

// Similarities of `rows` queries with `vectors` groups of documents: scores[row][document], on top of what is there
// when `add`. An element is a chain of its own, not one of kLanes: so its chains are shorter than in a gather's blocks.
constexpr int64_t kScoreSteps = 256;
template <class T>
void multiply_units(const T* queries, int64_t query_stride, const T* panels, int64_t width, int64_t dim, int64_t rows,
                    int64_t vectors, T* scores, int64_t stride, bool add) {
    Product<T> p{queries, query_stride, panels, kLanes<T> * width, kLanes<T>, scores,
                 stride,  kLanes<T>,    rows,   vectors,           dim,       add};
    for (int64_t c = 0; c == 0 || c < dim; c += kScoreSteps) {
        p.steps = dim - c < kScoreSteps ? dim - c : kScoreSteps;
        multiply<Left::kStepsTogether>(p);
        p.a += kScoreSteps;
        p.b += kScoreSteps * p.b_step;
        p.add = true;
    }
}

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
void tile_positives(const negcos::Tiles<E>& t, int64_t begin, int64_t end, Working<E>* scratch) noexcept {
    using T = Working<E>;
    for (int64_t first = begin; first < end; first += kLanes<T>) {
        const int64_t rows = end - first < kLanes<T> ? end - first : kLanes<T>;
        multiply_scores(t, first, rows, first, 1, scratch, kLanes<T>);
        for (int64_t r = 0; r < rows; ++r) t.positives[first + r] = scratch[r * kLanes<T> + r];
    }
}

// How often each document is a negative of queries [begin, end) of a block.
template <class E>
void tile_counts(const negcos::Tiles<E>& t, int64_t first, int64_t begin, int64_t end) noexcept {
    using T = Working<E>;
    const uint32_t chunk = static_cast<uint32_t>(t.chunk);
    for (int64_t r = begin; r < end; ++r) {
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
              const Logits<Working<E>>& logits) {
    using T = Working<E>;
    T* scores = scores_of(t, chunk) + r * t.score_stride;
    const T absent = logits.sign * kAbsent<T>;
    if (t.outputs.logits.data) tile_logits(t, first + r, static_cast<const T*>(scores), begin, n, logits.factor);
    if (t.counts) {
        const T* counts = t.counts + (scores - t.scores);
        for (int64_t k = 0; k < n; k += kLanes<T>)
            store(scores + k, select_less(load(counts + k), broadcast(T(1)), broadcast(absent),
                                          load(static_cast<const T*>(scores) + k)));
    } else if (const int64_t own = first + r - begin; own >= 0 && own < n) {
        scores[own] = absent;
    }
    t.chunk_top[r * t.chunks + chunk] = largest_signed(static_cast<const T*>(scores), n, logits, kAbsent<T>);
}

// Its exps relative to that, in place, and their sums.
template <class E>
void tile_exp(const negcos::Tiles<E>& t, int64_t first, int64_t r, int64_t chunk, int64_t begin, int64_t n,
              const Logits<Working<E>>& logits) {
    using T = Working<E>;
    T* scores = scores_of(t, chunk) + r * t.score_stride;
    const int64_t at = r * t.chunks + chunk, own = first + r - begin;
    const T top = t.chunk_top[at], shift = top == kAbsent<T> ? T(0) : top, positive = t.positives[first + r];
    NegativeSums sums;
    if (t.counts) {
        const T* counts = t.counts + (scores - t.scores);
        sums = exp_negatives<true>(static_cast<const T*>(scores), n, logits, shift, positive, scores, counts);
        // Drawn as its own negative, the positive counts in the sums but outranks nobody.
        if (own >= 0 && own < n) sums.rank -= static_cast<double>(counts[own]);
    } else {
        sums = exp_negatives(static_cast<const T*>(scores), n, logits, shift, positive, scores);
        // The positive's own place is absent, which is below any number, but not below NaN.
        if (own >= 0 && own < n)
            sums.rank -= logits.factor * logits.sign * kAbsent<T> < logits.factor * positive ? 0 : 1;
    }
    t.chunk_sum[at] = sums.sum;
    t.chunk_moment[at] = sums.moment;
    t.chunk_rank[at] = static_cast<int64_t>(sums.rank);
}

constexpr int64_t kSoftmaxRows = 16;

// The scores of a block of queries against one chunk of documents, turned into exp relative to the chunk's own top; and
// while they are in the cache, the chunk's part of the queries' gradient, still without the rows' weights.
template <class E>
void tile_scores(const negcos::Tiles<E>& t, int64_t first, int64_t count, int64_t chunk, Working<E>*) noexcept {
    using T = Working<E>;
    const Logits<T> logits(t.terms.factor);
    const int64_t begin = chunk * t.chunk;
    const int64_t n = t.documents.count - begin < t.chunk ? t.documents.count - begin : t.chunk;
    multiply_scores(t, first, count, begin, pad_lanes<T>(n) / kLanes<T>, scores_of(t, chunk), t.score_stride);
    // A few rows at a time, first their tops, then their exps: so that no exp waits for the top just before it, and the
    // rows are still in the first-level cache.
    for (int64_t r = 0; r < count; r += kSoftmaxRows) {
        const int64_t last = count - r < kSoftmaxRows ? count : r + kSoftmaxRows;
        for (int64_t k = r; k < last; ++k) tile_top(t, first, k, chunk, begin, n, logits);
        for (int64_t k = r; k < last; ++k) tile_exp(t, first, k, chunk, begin, n, logits);
    }
    if (t.outputs.grad_queries.data)
        multiply<Left::kStepsTogether>(Product<T>{
            scores_of(t, chunk), t.score_stride, t.document_units + begin * t.stride, kLanes<T>, t.stride,
            t.partial + chunk * t.block * t.stride, t.stride, kLanes<T>, count, t.width / kLanes<T>, n, false});
}

// The chunks of each query put together: its loss, and each chunk's weight in the gradients.
template <class E>
negcos::Totals tile_combine(const negcos::Tiles<E>& t, int64_t first, int64_t count, Working<E>* scratch) noexcept {
    using T = Working<E>;
    const Logits<T> logits(t.terms.factor);
    negcos::Totals totals;
    RowLosses<E> row_losses(t.outputs.losses, t.outputs.hit_probability);
    for (int64_t r = 0; r < count; ++r) {
        const int64_t at = r * t.chunks;
        const T own = logits.sign * t.positives[first + r];
        T top = own;
        for (int64_t c = 0; c < t.chunks; ++c) top = top < t.chunk_top[at + c] ? t.chunk_top[at + c] : top;
        for (int64_t c = 0; c < t.chunks; c += kLanes<T>) {
            const int64_t n = t.chunks - c < kLanes<T> ? t.chunks - c : kLanes<T>;
            const Lanes<T> chunk_top = load_first(static_cast<const T*>(t.chunk_top) + at + c, static_cast<int>(n));
            store(scratch + c, exp_nonpositive((chunk_top - broadcast(top)) * broadcast(logits.size)));
        }
        NegativeSums negatives;
        for (int64_t c = 0; c < t.chunks; ++c) {
            const double sum = t.chunk_sum[at + c];
            if (sum == 0) {  // no negative here but the positive itself, or none that counts
                scratch[c] = 0;
                continue;
            }
            // A top of -Inf with a sum: all NaN, which goes on from here.
            const bool nothing = t.chunk_top[at + c] == kAbsent<T>;
            const double e = nothing ? sum : static_cast<double>(scratch[c]);
            const double below = nothing ? 0 : static_cast<double>(t.chunk_top[at + c]) - static_cast<double>(top);
            negatives.sum += e * sum;
            negatives.moment += e * (t.chunk_moment[at + c] + sum * below);
        }
        int64_t rank = 0;
        for (int64_t c = 0; c < t.chunks; ++c) rank += t.chunk_rank[at + c];

        const double gap = static_cast<double>(top) - static_cast<double>(own);
        const double own_exp = static_cast<double>(exp_one((own - top) * logits.size));
        const double share = t.terms.row_weight / (own_exp + negatives.sum);
        totals.grad_scale.add(static_cast<double>(logits.sign) * share * (negatives.moment + negatives.sum * gap));
        totals.rank_zero += rank == 0;
        totals.reciprocal_rank.add(1.0 / (1.0 + static_cast<double>(rank)));
        row_losses.add(first + r, gap * logits.exact_size, own_exp, negatives.sum, totals);
        if (t.gradients) {
            for (int64_t c = 0; c < t.chunks; ++c)
                t.chunk_weight[at + c] = static_cast<T>(static_cast<double>(scratch[c]) * share);
            t.positive_weight[r] = static_cast<T>(-share * negatives.sum);
        }
    }
    row_losses.flush(totals);
    return totals;
}

// What a block of queries adds to the gradient of one chunk of documents.
template <class E>
void tile_documents(const negcos::Tiles<E>& t, int64_t first, int64_t count, int64_t chunk,
                    Working<E>* scratch) noexcept {
    using T = Working<E>;
    const int64_t begin = chunk * t.chunk;
    const int64_t n = t.documents.count - begin < t.chunk ? t.documents.count - begin : t.chunk;
    const int64_t vectors = t.width / kLanes<T>;
    for (int64_t r = 0; r < count; ++r) {
        const Lanes<T> w = broadcast(t.chunk_weight[r * t.chunks + chunk]);
        const T* unit = t.query_units + (first + r) * t.stride;
        for (int64_t c = 0; c < t.width; c += kLanes<T>) store(scratch + r * t.stride + c, load(unit + c) * w);
    }
    multiply<Left::kRowsTogether>(Product<T>{scores_of(t, chunk), t.score_stride, scratch, kLanes<T>, t.stride,
                                             t.document_sums + begin * t.stride, t.stride, kLanes<T>, n, vectors, count,
                                             first > 0});
    for (int64_t r = 0; r < count; ++r) {
        const int64_t own = first + r;
        if (own < begin || own >= begin + n) continue;
        const Lanes<T> w = broadcast(t.positive_weight[r]);
        const T* unit = t.query_units + own * t.stride;
        T* total = t.document_sums + own * t.stride;
        for (int64_t c = 0; c < t.width; c += kLanes<T>)
            store(total + c, multiply_add(w, load(unit + c), load(static_cast<const T*>(total) + c)));
    }
}

// Rows [begin, end) of a block: their parts from all chunks in order, then the positive, then the norm's derivative.
template <class E>
void tile_finish_queries(const negcos::Tiles<E>& t, int64_t first, int64_t begin, int64_t end,
                         Working<E>* scratch) noexcept {
    using T = Working<E>;
    const T factor = static_cast<T>(t.terms.factor);
    for (int64_t r = begin; r < end; ++r) {
        const int64_t i = first + r;
        const Lanes<T> positive = broadcast(t.positive_weight[r]);
        for (int64_t c = 0; c < t.width; c += kLanes<T>) {
            Lanes<T> total = broadcast(T(0));
            for (int64_t k = 0; k < t.chunks; ++k)
                total = multiply_add(broadcast(t.chunk_weight[r * t.chunks + k]),
                                     load(static_cast<const T*>(t.partial) + (k * t.block + r) * t.stride + c), total);
            store(scratch + c, multiply_add(positive, load(t.document_units + i * t.stride + c), total));
        }
        finish_gradient(static_cast<const T*>(scratch), t.query_units + i * t.stride, T(1),
                        static_cast<double>(t.queries.project[i]), t.queries.inverse[i], factor, t.queries.rescale[i],
                        t.dim, t.outputs.grad_queries.data + i * t.outputs.grad_queries.stride);
    }
}

template <class E>
void tile_finish_documents(const negcos::Tiles<E>& t, int64_t begin, int64_t end) noexcept {
    using T = Working<E>;
    const T factor = static_cast<T>(t.terms.factor);
    for (int64_t j = begin; j < end; ++j)
        finish_gradient(static_cast<const T*>(t.document_sums) + j * t.stride, t.document_units + j * t.stride, T(1),
                        static_cast<double>(t.documents.project[j]), t.documents.inverse[j], factor,
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
