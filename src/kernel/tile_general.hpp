// SPDX-License-Identifier: Apache-2.0
//
// The inner loops of tiles for the general loss: nested prefixes, hard negatives beside the documents, and softmaxes
// over columns for both directions.
#ifndef NEGCOS_KERNEL_TILE_GENERAL_HPP
#define NEGCOS_KERNEL_TILE_GENERAL_HPP

#include "kernel/gather_general.hpp"
#include "kernel/strided_product.hpp"
#include "kernel/tile.hpp"

namespace {

using negcos::GeneralTilePrefix;
using negcos::GeneralTiles;
using negcos::RowEnd;

template <class E>
Working<E>* scores_of(const GeneralTiles<E>& t, const GeneralTilePrefix<E>& tile, int64_t chunk) {
    return tile.scores + chunk * t.block * t.score_stride;
}

template <class E>
int64_t documents_in(const GeneralTiles<E>& t, int64_t chunk) {
    const int64_t left = t.document_count() - chunk * t.chunk;
    return left < t.chunk ? left : t.chunk;
}

// How often each document is a negative of queries of a block.
template <class E>
void general_tile_counts(const GeneralTiles<E>& t, int64_t first, Range range) noexcept {
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

template <class E>
Working<E> positive_correction(const GeneralTiles<E>& t, int64_t i) {
    return t.terms.correct_positive ? t.terms.correction[t.candidates.positive(i)] : Working<E>(0);
}

// nonfinite: set where a row is cleared; nullptr = not asked for.
template <class T>
void zero_nonfinite_rows(T* units, int64_t stride, int64_t width, T* nonfinite, Range range) noexcept {
    for (int64_t i = range.begin; i < range.end; ++i) {
        T* row = units + i * stride;
        Lanes<T> zeros = broadcast(T(0));
        for (int64_t c = 0; c < width; c += kLanes<T>) {
            const Lanes<T> x = load(static_cast<const T*>(row) + c);
            zeros = zeros + (x - x);
        }
        if (sum(zeros) == 0) continue;
        memset(row, 0, sizeof(T) * static_cast<size_t>(width));
        if (nonfinite) nonfinite[i] = 1;
    }
}

// Similarities of queries with their positives and with their hard negatives, by the same chains as in the
// tiles: equal rows are equally similar.
template <class E>
void general_tile_positives(const GeneralTiles<E>& t, Range range, Working<E>* scratch) noexcept {
    using T = Working<E>;
    const int64_t hard = t.terms.hard, padded = pad_lanes<T>(hard);
    T *const scores = scratch, *const units = scores + kLanes<T> + padded;
    for (int64_t i = range.begin; i < range.end; ++i) {
        const int64_t positive_at = t.candidates.positive(i), group = positive_at / kLanes<T> * kLanes<T>;
        for (int64_t p = 0; p < t.prefix_count; ++p) {
            const GeneralTilePrefix<E>& tile = t.tiles[p];
            const Prefix<E>& prefix = t.prefixes[p];
            const T* query = tile.query_units + i * tile.stride;
            if (p > 0) {
                const T before = t.tiles[p - 1].positives[i];
                store(scores,
                      broadcast(before * (prefix.queries.norm_ratio[i] * prefix.documents.norm_ratio[positive_at])));
            }
            multiply_units(query, tile.stride, static_cast<const T*>(tile.panels) + group * tile.width, tile.width,
                           prefix.dim, 1, 1, scores, kLanes<T>, p > 0);
            const bool nonfinite = tile.nonfinite[i] != 0;
            tile.positives[i] = nonfinite ? kNan<T> : scores[positive_at - group];
            if (hard == 0) continue;

            negcos::Rows<E> rows = prefix.hard;
            rows.data += i * hard * rows.stride;
            rows.inverse += i * hard;
            rows.rescale += i * hard;
            T *const panels = units + hard * tile.stride, *const row = scores + kLanes<T>;
            tile_pack(rows, prefix.dim, units, panels, {0, hard});
            T* similarity = t.hard_similarities + (p * t.batch() + i) * hard;
            for (int64_t h = 0; h < hard && p > 0; ++h)
                row[h] = similarity[h - t.batch() * hard] *
                         (prefix.queries.norm_ratio[i] * prefix.hard.norm_ratio[i * hard + h]);
            multiply_units(query, tile.stride, static_cast<const T*>(panels), tile.width, prefix.dim, 1,
                           padded / kLanes<T>, row, padded, p > 0);
            for (int64_t h = 0; h < hard; ++h) similarity[h] = nonfinite ? kNan<T> : row[h];
        }
    }
}

// What is no negative of query i in the chunk of documents from `begin` on, out of the way. Returns how many an
// exclusion took.
template <class T>
double exclude_from(const negcos::Exclusion& exclusion, int64_t i, int64_t begin, int64_t n, const T* counts,
                    T* scores) {
    if (!exclusion.group) return 0;
    const int32_t g = exclusion.group[i];
    const int32_t* const last = exclusion.document + exclusion.start[g + 1];
    const int32_t* next = exclusion.document + exclusion.start[g];
    for (int64_t left = last - next; left > 0;) {  // the first one in the chunk
        const int64_t half = left / 2;
        if (next[half] < begin)
            next += half + 1, left -= half + 1;
        else
            left = half;
    }
    double taken = 0;
    for (; next < last && *next < begin + n; ++next) {
        const int64_t at = *next - begin;
        if (scores[at] == kAbsent<T>) continue;
        scores[at] = kAbsent<T>;
        taken += counts ? static_cast<double>(counts[at]) : 1;
    }
    return taken;
}

template <class E>
double mask_row(const GeneralTiles<E>& t, int64_t i, int64_t begin, int64_t n, const Working<E>* counts,
                Working<E>* scores) {
    using T = Working<E>;
    const Lanes<T> absent = broadcast(kAbsent<T>);
    for (int64_t k = n; k < pad_lanes<T>(n); ++k) scores[k] = kAbsent<T>;
    if (counts) {
        for (int64_t k = 0; k < n; k += kLanes<T>)
            store(scores + k,
                  select_less(load(counts + k), broadcast(T(1)), absent, load(static_cast<const T*>(scores) + k)));
    } else if (const int64_t positive_at = t.candidates.positive(i) - begin; positive_at >= 0 && positive_at < n) {
        scores[positive_at] = kAbsent<T>;
    }
    return exclude_from(t.terms.same_document, i, begin, n, counts, scores) +
           exclude_from(t.terms.same_query, i, begin, n, counts, scores);
}

// The logits of one query's candidates in the chunk, each in its slot.
template <class E>
void general_tile_logits(const GeneralTiles<E>& t, int64_t i, const General<Working<E>>& row, int64_t begin, int64_t n,
                         const Working<E>* scores) {
    using T = Working<E>;
    E* out = t.outputs.logits.data + i * t.outputs.logits.stride;
    const int32_t* negatives = t.candidates.negatives + i * t.candidates.row_stride;
    if (begin == 0) out[0] = to_element<E>(row.positive);
    for (int64_t r = 0; r < t.candidates.rounds; ++r) {
        const int64_t j = negatives[r * t.candidates.round_stride], at = j - begin;
        if (j >= 0 && at >= 0 && at < n)
            out[1 + r] = to_element<E>(row.logit(scores[at], t.terms.correction ? t.terms.correction[j] : T(0)));
        else if (j < 0 && begin == 0)
            out[1 + r] = to_element<E>(kAbsent<T>);
    }
    if (begin > 0 || t.terms.hard == 0) return;
    const T* hard = t.hard_similarities + ((t.prefix_count - 1) * t.batch() + i) * t.terms.hard;
    for (int64_t h = 0; h < t.terms.hard; ++h) out[t.candidates.slots() + h] = to_element<E>(row.logit(hard[h], T(0)));
}

// Sums of row r of a block against one chunk.
template <class E>
void sum_row(const GeneralTiles<E>& t, int64_t p, int64_t i, int64_t r, int64_t chunk, double dropped) {
    using T = Working<E>;
    const GeneralTilePrefix<E>& tile = t.tiles[p];
    const int64_t begin = chunk * t.chunk, n = documents_in(t, chunk), at = r * t.chunks + chunk;
    const T* scores = scores_of(t, tile, chunk) + r * t.score_stride;
    const T* counts = t.counts ? t.counts + (scores - tile.scores) : nullptr;
    const T* correction = t.terms.correction ? t.terms.correction + begin : nullptr;
    const General<T> row(t.terms, tile.positives[i], positive_correction(t, i));
    const T top = row.top(scores, correction, n);
    Sums sums = row.sum(scores, correction, counts, n, top);
    sums.dropped += t.both ? 2 * dropped : dropped;  // exclusions by id are alike in both directions
    // Drawn as its own negative, the positive outranks nobody.
    if (const int64_t positive_at = t.candidates.positive(i) - begin;
        counts && positive_at >= 0 && positive_at < n && counts[positive_at] > 0 &&
        row.outranked_by(scores[positive_at], correction ? correction[positive_at] : T(0)))
        sums.rank -= static_cast<double>(counts[positive_at]);
    tile.chunk_top[at] = top;
    tile.chunk_sums[at] = sums;
    if (t.outputs.logits.data && p + 1 == t.prefix_count) general_tile_logits(t, i, row, begin, n, scores);
}

// Logits of documents' softmaxes: those of a vector of columns.
template <class T>
struct ColumnLogits {
    Lanes<T> factor, similarity, positive, limit;
    ColumnLogits(const LossTerms<T>& t, const T* positives)
        : factor(broadcast(static_cast<T>(t.factor + t.hardness))),
          similarity(load(positives)),
          positive(multiply_add(broadcast(static_cast<T>(t.factor)), similarity - broadcast(static_cast<T>(t.margin)),
                                broadcast(T(0)))),
          limit(similarity + broadcast(static_cast<T>(t.false_negative_margin))) {}
    template <EdgeKind kKind>
    Lanes<T> of(const Lanes<T>& s) const {
        return negative_logit<kKind>(s, factor, broadcast(T(0)), limit);
    }
};

// Sums of the columns of a chunk over a block of queries, on top of those of the blocks before.
template <EdgeKind kKind, class E>
void sum_columns(const GeneralTiles<E>& t, int64_t p, Range block, int64_t chunk) {
    const int64_t first = block.begin, count = block.count();
    using T = Working<E>;
    const GeneralTilePrefix<E>& tile = t.tiles[p];
    const int64_t begin = chunk * t.chunk, n = documents_in(t, chunk);
    const T* scores = scores_of(t, tile, chunk);
    const Lanes<T> zero = broadcast(T(0)), one = broadcast(T(1)), absent = broadcast(kAbsent<T>);
    for (int64_t v = 0; v < n; v += kLanes<T>) {
        const ColumnLogits<T> l(t.terms, tile.positives + begin + v);
        const Lanes<T> before = first > 0 ? load(static_cast<const T*>(tile.document_top) + begin + v) : absent;
        Lanes<T> top = before;
        for (int64_t r = 0; r < count; ++r)
            top = larger(top, l.template of<kKind>(load(scores + r * t.score_stride + v)));
        const Lanes<T> shift = select_less_equal(top, absent, zero, top);
        EdgeLanes<kKind, false, T> lanes;
        for (int64_t r = 0; r < count; ++r) {
            const Lanes<T> s = load(scores + r * t.score_stride + v);
            lanes.add(s, l.template of<kKind>(s), one, shift, zero, l.similarity, l.positive, zero, l.limit);
        }
        alignas(64) T scale[kLanes<T>], sum[kLanes<T>], moment[kLanes<T>], spread[kLanes<T>], reach[kLanes<T>],
            kept[kLanes<T>], dropped[kLanes<T>];
        store(static_cast<T*>(scale), exp_nonpositive(before - shift));
        store(static_cast<T*>(sum), lanes.sum);
        store(static_cast<T*>(moment), lanes.moment);
        store(static_cast<T*>(spread), lanes.spread);
        store(static_cast<T*>(reach), lanes.reach);
        store(static_cast<T*>(kept), lanes.kept);
        store(static_cast<T*>(dropped), lanes.dropped);
        store(tile.document_top + begin + v, top);
        for (int64_t k = 0; k < kLanes<T> && v + k < n; ++k) {
            Sums& sums = tile.document_sums[begin + v + k];
            if (first == 0)
                sums = Sums();
            else
                sums.rescale(static_cast<double>(scale[k]));
            Sums part;
            part.sum = static_cast<double>(sum[k]);
            part.moment = static_cast<double>(moment[k]);
            part.spread = static_cast<double>(spread[k]);
            part.reach = static_cast<double>(reach[k]);
            part.kept = static_cast<double>(kept[k]);
            part.dropped = static_cast<double>(dropped[k]);
            sums.add(part, 1);
        }
    }
}

// Sums of the rows and the columns of a block against one chunk at once, where one exp serves both.
template <class E>
void sum_both(const GeneralTiles<E>& t, int64_t p, Range block, int64_t chunk, Working<E> top, Working<E>* scratch) {
    const int64_t first = block.begin, count = block.count();
    using T = Working<E>;
    const GeneralTilePrefix<E>& tile = t.tiles[p];
    const int64_t begin = chunk * t.chunk, n = documents_in(t, chunk), padded = pad_lanes<T>(n);
    T *const sums = scratch, *const moments = sums + t.chunk;
    memset(scratch, 0, sizeof(T) * static_cast<size_t>(2 * t.chunk));
    const Lanes<T> zero = broadcast(T(0)), one = broadcast(T(1)), shift = broadcast(top);
    const Lanes<T> lowest = broadcast(static_cast<T>(-kLargestNumber<T>));
    for (int64_t r = 0; r < count; ++r) {
        const int64_t i = first + r, at = r * t.chunks + chunk;
        T* scores = scores_of(t, tile, chunk) + r * t.score_stride;
        const double dropped = mask_row(t, i, begin, n, static_cast<const T*>(nullptr), scores);
        const General<T> query(t.terms, tile.positives[i], T(0));
        const Lanes<T> factor = broadcast(query.factor), similarity = broadcast(query.similarity),
                       least = broadcast(query.least);
        Lanes<T> sum = zero, moment = zero, rank = zero;
        for (int64_t k = 0; k < padded; k += kLanes<T>) {
            const Lanes<T> s = load(static_cast<const T*>(scores) + k), z = multiply_add(factor, s, zero);
            const Lanes<T> e = exp_nonpositive(z - shift), finite = larger(s, lowest);
            sum = sum + e;
            moment = multiply_add(e, finite - similarity, moment);
            rank = rank + zero_where_less(z, least, one);
            store(sums + k, load(static_cast<const T*>(sums) + k) + e);
            store(moments + k, multiply_add(e, finite - load(static_cast<const T*>(tile.positives) + begin + k),
                                            load(static_cast<const T*>(moments) + k)));
        }
        T four[4];
        sum_four(sum, moment, rank, zero, static_cast<T*>(four));
        Sums row;
        row.sum = static_cast<double>(four[0]);
        row.moment = static_cast<double>(four[1]);
        row.rank = static_cast<double>(four[2]);
        row.dropped = 2 * dropped;  // exclusions by id are alike in both directions
        tile.chunk_top[at] = top;
        tile.chunk_sums[at] = row;
    }
    for (int64_t k = 0; k < n; ++k) {
        Sums& column = tile.document_sums[begin + k];
        if (first == 0) column = Sums();
        column.sum += static_cast<double>(sums[k]);
        column.moment += static_cast<double>(moments[k]);
        tile.document_top[begin + k] = top;
    }
}

// The similarities of a block of queries and one chunk of documents, at all prefixes; -Inf where there is no edge. And
// what they sum up to, unless that is known from a first walk.
template <class E>
void general_tile_scores(const GeneralTiles<E>& t, Range block, int64_t chunk, bool sums,
                         Working<E>* scratch) noexcept {
    const int64_t first = block.begin, count = block.count();
    using T = Working<E>;
    const int64_t begin = chunk * t.chunk, n = documents_in(t, chunk), padded = pad_lanes<T>(n);
    for (int64_t p = 0; p < t.prefix_count; ++p) {
        const GeneralTilePrefix<E>& tile = t.tiles[p];
        const Prefix<E>& prefix = t.prefixes[p];
        T* scores = scores_of(t, tile, chunk);
        if (p > 0) {
            const T* before = scores_of(t, t.tiles[p - 1], chunk);
            for (int64_t r = 0; r < count; ++r) {
                const Lanes<T> ratio = broadcast(prefix.queries.norm_ratio[first + r]);
                for (int64_t k = 0; k < padded; k += kLanes<T>)
                    store(scores + r * t.score_stride + k,
                          load(before + r * t.score_stride + k) *
                              (ratio * load(static_cast<const T*>(prefix.documents.norm_ratio) + begin + k)));
            }
        }
        multiply_units<T>(tile.query_units + first * tile.stride, tile.stride, tile.panels + begin * tile.width,
                          tile.width, prefix.dim, count, padded / kLanes<T>, scores, t.score_stride, p > 0);
    }
    for (int64_t p = 0; p < t.prefix_count; ++p)
        for (int64_t r = 0; r < count; ++r)
            if (t.tiles[p].nonfinite[first + r] != 0)
                for (int64_t k = 0; k < n; ++k) scores_of(t, t.tiles[p], chunk)[r * t.score_stride + k] = kNan<T>;
    const T top = t.both ? common_top(t.terms) : T(0);
    for (int64_t p = 0; p < t.prefix_count; ++p) {
        if (sums && top > 0) {
            sum_both(t, p, block, chunk, top, scratch);
            continue;
        }
        const GeneralTilePrefix<E>& tile = t.tiles[p];
        T* scores = scores_of(t, tile, chunk);
        const T* counts = t.counts ? t.counts + (scores - tile.scores) : nullptr;
        for (int64_t r = 0; r < count; ++r) {
            const double dropped = mask_row(t, first + r, begin, n, counts ? counts + r * t.score_stride : nullptr,
                                            scores + r * t.score_stride);
            if (sums) sum_row(t, p, first + r, r, chunk, dropped);
        }
        if (sums && t.both)
            with_kind(kind_of(t.terms),
                      [&](auto constant) { sum_columns<decltype(constant)::value>(t, p, block, chunk); });
    }
}

// A loss's weight in the total: half for each direction of two.
template <class E>
double weight_of(const GeneralTiles<E>& t, int64_t p, int64_t i) {
    const double weight = t.terms.weights ? t.terms.weights[i] : 1.0;
    return (t.both ? 0.5 : 1.0) * t.prefixes[p].weight * weight / t.terms.total_weight;
}

// A weight of 0 takes a query out of the total and the gradients, whatever it has met.
template <class E>
bool takes_no_part(const GeneralTiles<E>& t, int64_t i) {
    return t.terms.weights && t.terms.weights[i] == 0;
}

// Query i's sums, of all chunks and its hard negatives, put together and closed.
template <class E>
void close_query(const GeneralTiles<E>& t, int64_t p, int64_t i, int64_t r, Working<E>* scratch, RowEnd& end) {
    using T = Working<E>;
    const LossTerms<T>& terms = t.terms;
    const GeneralTilePrefix<E>& tile = t.tiles[p];
    const int64_t at = r * t.chunks, hard = terms.hard, edge = (p * t.batch() + i) * hard;
    const bool last = p + 1 == t.prefix_count;
    T *scale = scratch, *list = scale + pad_lanes<T>(t.chunks + kLanes<T>);
    const General<T> row(terms, tile.positives[i], positive_correction(t, i));
    for (int64_t h = 0; h < hard; ++h) list[h] = t.hard_similarities[edge + h];
    for (int64_t h = hard; h < pad_lanes<T>(hard); ++h) list[h] = kAbsent<T>;

    const T* const similarity = list;
    T top = row.top(similarity, nullptr, hard);
    for (int64_t c = 0; c < t.chunks; ++c) top = top < tile.chunk_top[at + c] ? tile.chunk_top[at + c] : top;
    top = row.row_top(top);
    if (const T common = t.both ? common_top(terms) : T(0); common > 0) top = common;
    Sums sums = row.sum(similarity, nullptr, nullptr, hard, top);
    for (int64_t c = 0; c < t.chunks; c += kLanes<T>) {
        const int64_t n = t.chunks - c < kLanes<T> ? t.chunks - c : kLanes<T>;
        const Lanes<T> chunk_top = load_first(static_cast<const T*>(tile.chunk_top) + at + c, static_cast<int>(n));
        store(scale + c, exp_nonpositive(chunk_top - broadcast(top)));
    }
    for (int64_t c = 0; c < t.chunks; ++c)
        row.join(sums, top, tile.chunk_sums[at + c], tile.chunk_top[at + c], scale[c]);
    auto closed = row.close(top, sums, weight_of(t, p, i));
    if (takes_no_part(t, i)) {
        const double loss = closed.loss;
        closed = {};
        closed.loss = loss;
    }
    tile.query_top[i] = closed.share.top;
    tile.query_share[i] = closed.share.share;
    tile.query_smooth[i] = closed.share.smooth;
    tile.positive_slope[i] = static_cast<T>(closed.positive_slope);
    end.loss += (t.both ? 0.5 : 1.0) * t.prefixes[p].weight * closed.loss;
    end.grad_scale += closed.grad_scale;
    end.grad_bias += closed.total;
    if (last) {
        end.rank = static_cast<int64_t>(sums.rank);
        end.excluded = static_cast<int64_t>(sums.dropped);
    }
    if (hard == 0) return;
    row.slopes(similarity, nullptr, nullptr, hard, closed.share, list);
    if (takes_no_part(t, i)) memset(list, 0, sizeof(T) * static_cast<size_t>(hard));
    const int64_t prefixes = t.prefix_count, record = negcos::edge_record(prefixes);
    for (int64_t h = 0; h < hard; ++h) {
        T* out = t.hard_slopes + (i * hard + h) * record;
        out[p] = list[h];
        if (prefixes == 1) continue;
        out[prefixes + p] = list[h] == 0 ? 0 : list[h] * t.hard_similarities[edge + h];
        out[p] *= t.prefixes[p].queries.nonzero[i] * t.prefixes[p].hard.nonzero[i * hard + h];
    }
}

// From the slopes in each prefix's loss to those in the gradient of each prefix's columns.
template <class E>
void link_hard_edges(const GeneralTiles<E>& t, int64_t i) {
    const int64_t record = negcos::edge_record(t.prefix_count);
    for (int64_t p = t.prefix_count - 2; p >= 0; --p) {
        const Prefix<E>& next = t.prefixes[p + 1];
        for (int64_t row = i * t.terms.hard; row < (i + 1) * t.terms.hard; ++row) {
            Working<E>* out = t.hard_slopes + row * record + p;
            out[0] += out[1] * (next.queries.norm_ratio[i] * next.hard.norm_ratio[row]);
        }
    }
}

template <class E>
void general_close_queries(const GeneralTiles<E>& t, int64_t first, Range range, Working<E>* scratch) noexcept {
    for (int64_t r = range.begin; r < range.end; ++r) {
        RowEnd sum;
        for (int64_t p = 0; p < t.prefix_count; ++p) close_query(t, p, first + r, r, scratch, sum);
        link_hard_edges(t, first + r);
        t.queries[first + r] = sum;
    }
}

template <class E>
void general_close_documents(const GeneralTiles<E>& t, Range range) noexcept {
    using T = Working<E>;
    for (int64_t j = range.begin; j < range.end; ++j) {
        RowEnd sum;
        for (int64_t p = 0; p < t.prefix_count; ++p) {
            const GeneralTilePrefix<E>& tile = t.tiles[p];
            const Sums& sums = tile.document_sums[j];
            const General<T> row(t.terms, tile.positives[j], T(0));
            const T negatives = tile.document_top[j], common = common_top(t.terms);
            const T top = common > 0 ? common : row.row_top(negatives);
            Sums shifted = sums;
            if (negatives != kAbsent<T> && top != negatives)
                shifted.rescale(static_cast<double>(exp_one(negatives - top)));
            const auto closed = row.close(top, shifted, weight_of(t, p, j));
            tile.document_top[j] = closed.share.top;
            tile.document_share[j] = closed.share.share;
            tile.document_smooth[j] = closed.share.smooth;
            tile.positive_slope[j] += static_cast<T>(closed.positive_slope);
            sum.loss += 0.5 * t.prefixes[p].weight * closed.loss;
            sum.grad_scale += closed.grad_scale;
            if (p + 1 == t.prefix_count) sum.excluded = static_cast<int64_t>(sums.dropped);
        }
        t.documents[j] = sum;
    }
}

// Row r's slopes in place of its scores.
template <class E>
void slopes_of_row(const GeneralTiles<E>& t, int64_t p, int64_t i, int64_t r, int64_t chunk) {
    using T = Working<E>;
    const GeneralTilePrefix<E>& tile = t.tiles[p];
    const int64_t begin = chunk * t.chunk, n = documents_in(t, chunk);
    T* scores = scores_of(t, tile, chunk) + r * t.score_stride;
    const T* counts = t.counts ? t.counts + (scores - tile.scores) : nullptr;
    const General<T> query(t.terms, tile.positives[i], positive_correction(t, i));
    const EdgeShare<T> w{tile.query_top[i], tile.query_share[i], tile.query_smooth[i]};
    if (!t.both) {
        query.slopes(scores, t.terms.correction ? t.terms.correction + begin : nullptr, counts, n, w, scores);
        return;
    }
    if (const T common = common_top(t.terms); common > 0) {
        const Lanes<T> factor = broadcast(query.factor), top = broadcast(common), share = broadcast(w.share);
        const Lanes<T> zero = broadcast(T(0)), absent = broadcast(kAbsent<T>);
        const T* const shares = tile.document_share + begin;
        for (int64_t k = 0; k < n; k += kLanes<T>) {
            const Lanes<T> s = load(static_cast<const T*>(scores) + k), z = multiply_add(factor, s, zero);
            const Lanes<T> slope = exp_nonpositive(z - top) * (share + load(shares + k));
            store(scores + k, select_less_equal(s, absent, zero, slope));
        }
        return;
    }
    with_kind(query.kind, [&](auto constant) {
        constexpr EdgeKind kKind = decltype(constant)::value;
        const Lanes<T> factor = broadcast(query.factor), limit = broadcast(query.limit), zero = broadcast(T(0));
        const Lanes<T> top = broadcast(w.top), share = broadcast(w.share), smooth = broadcast(w.smooth);
        const T *const tops = tile.document_top + begin, *const shares = tile.document_share + begin;
        const T *const smooths = tile.document_smooth + begin, *const positives = tile.positives + begin;
        for (int64_t k = 0; k < n; k += kLanes<T>) {
            const Lanes<T> s = load(static_cast<const T*>(scores) + k);
            const Lanes<T> of_query =
                edge_slope<kKind>(negative_logit<kKind>(s, factor, zero, limit), zero, top, share, smooth);
            const Lanes<T> z = ColumnLogits<T>(t.terms, positives + k).template of<kKind>(s);
            const Lanes<T> of_document =
                edge_slope<kKind>(z, zero, load(tops + k), load(shares + k), load(smooths + k));
            store(scores + k, of_query + of_document);
        }
    });
}

// Slopes of a block of queries and one chunk of documents in place of the scores, and what they add to both gradients.
template <class E>
void general_tile_slopes(const GeneralTiles<E>& t, Range block, int64_t chunk, Working<E>* scratch) noexcept {
    const int64_t first = block.begin, count = block.count();
    using T = Working<E>;
    const int64_t begin = chunk * t.chunk, n = documents_in(t, chunk), padded = pad_lanes<T>(n);
    for (int64_t p = 0; p < t.prefix_count; ++p) {
        const GeneralTilePrefix<E>& tile = t.tiles[p];
        const Prefix<E>& prefix = t.prefixes[p];
        T *const panel = scores_of(t, tile, chunk), *const columns = scratch, *const before = columns + t.chunk;
        for (int64_t k = 0; k < padded && t.prefix_count > 1; ++k) columns[k] = 0;
        for (int64_t r = 0; r < count; ++r) {
            const int64_t i = first + r, positive_at = t.candidates.positive(i) - begin;
            T* row = panel + r * t.score_stride;
            if (!t.both && takes_no_part(t, i)) {
                memset(row, 0, sizeof(T) * static_cast<size_t>(padded));
                if (t.prefix_count > 1) tile.chunk_moment[r * t.chunks + chunk] = 0;
                continue;
            }
            if (t.prefix_count > 1) memcpy(before, row, sizeof(T) * static_cast<size_t>(padded));
            slopes_of_row(t, p, i, r, chunk);
            if (positive_at >= 0 && positive_at < n) row[positive_at] += tile.positive_slope[i];
            if (t.prefix_count == 1) continue;
            if (positive_at >= 0 && positive_at < n) before[positive_at] = tile.positives[i];
            const Lanes<T> zero = broadcast(T(0)), absent = broadcast(kAbsent<T>),
                           nonzero = broadcast(prefix.queries.nonzero[i]);
            Lanes<T> moment = zero;
            for (int64_t k = 0; k < padded; k += kLanes<T>) {
                const Lanes<T> s = load(static_cast<const T*>(before) + k), w = load(static_cast<const T*>(row) + k);
                const Lanes<T> part = w * select_less_equal(s, absent, zero, s);
                moment = moment + part;
                store(columns + k, load(static_cast<const T*>(columns) + k) + part);
                // Beyond the last document `nonzero` is not known, and slopes are 0.
                const Lanes<T> column_nonzero = load(static_cast<const T*>(prefix.documents.nonzero) + begin + k);
                store(row + k, select_less_equal(s, absent, zero, w * nonzero * column_nonzero));
            }
            tile.chunk_moment[r * t.chunks + chunk] = static_cast<double>(sum(moment));
        }
        for (int64_t k = 0; k < n && t.prefix_count > 1; ++k) {
            double& sum = tile.document_moment[begin + k];
            sum = (first > 0 ? sum : 0) + static_cast<double>(columns[k]);
        }
    }
    for (int64_t p = t.prefix_count - 1; p >= 0; --p) {
        const GeneralTilePrefix<E>& tile = t.tiles[p];
        T* const panel = scores_of(t, tile, chunk);
        if (p + 1 < t.prefix_count) {
            const Prefix<E>& next = t.prefixes[p + 1];
            const T* const above = scores_of(t, t.tiles[p + 1], chunk);
            for (int64_t r = 0; r < count; ++r) {
                const Lanes<T> ratio = broadcast(next.queries.norm_ratio[first + r]);
                for (int64_t k = 0; k < padded; k += kLanes<T>) {
                    const int64_t at = r * t.score_stride + k;
                    store(panel + at,
                          multiply_add(load(above + at),
                                       ratio * load(static_cast<const T*>(next.documents.norm_ratio) + begin + k),
                                       load(static_cast<const T*>(panel) + at)));
                }
            }
        }
        const int64_t vectors = tile.width / kLanes<T>;
        if (t.outputs.grad_queries.data)
            multiply<Left::kStepsTogether>(StridedProduct<T>{
                panel, t.score_stride, tile.document_units + begin * tile.stride, kLanes<T>, tile.stride,
                tile.partial + chunk * t.block * tile.stride, tile.stride, kLanes<T>, count, vectors, n, false});
        if (t.outputs.grad_documents.data)
            multiply<Left::kRowsTogether>(StridedProduct<T>{
                panel, t.score_stride, tile.query_units + first * tile.stride, kLanes<T>, tile.stride,
                tile.gradient_sums + begin * tile.stride, tile.stride, kLanes<T>, n, vectors, count, first > 0});
    }
}

// Rows of a block: their parts from all chunks in order, then the hard negatives, then the norms'
// derivatives.
template <class E>
void general_finish_queries(const GeneralTiles<E>& t, int64_t first, Range range, Working<E>* scratch) noexcept {
    using T = Working<E>;
    const int64_t columns = padded_columns(t.prefixes, t.prefix_count), hard = t.terms.hard;
    const int64_t prefixes = t.prefix_count, record = negcos::edge_record(prefixes);
    T *total = scratch, *coefficient = total + columns;
    int32_t* row = reinterpret_cast<int32_t*>(coefficient + pad_lanes<T>(hard));
    double* moment = reinterpret_cast<double*>(row + pad_lanes<float>(hard));
    for (int64_t r = range.begin; r < range.end; ++r) {
        const int64_t i = first + r;
        if (!t.both && takes_no_part(t, i)) {
            clear_rest(t.outputs.grad_queries.data + i * t.outputs.grad_queries.stride, 0, t.dim);
            continue;
        }
        for (int64_t h = 0; h < hard; ++h) row[h] = static_cast<int32_t>(i * hard + h);
        int64_t at = columns;
        for (int64_t p = t.prefix_count - 1; p >= 0; --p) {
            const GeneralTilePrefix<E>& tile = t.tiles[p];
            const Prefix<E>& prefix = t.prefixes[p];
            at -= pad_lanes<T>(prefix.dim);
            for (int64_t c = 0; c < tile.width; c += kLanes<T>) {
                Lanes<T> sum = broadcast(T(0));
                for (int64_t k = 0; k < t.chunks; ++k)
                    sum = sum + load(static_cast<const T*>(tile.partial) + (k * t.block + r) * tile.stride + c);
                store(total + at + c, sum);
            }
            double sum = 0;
            for (int64_t k = 0; k < t.chunks && prefixes > 1; ++k) sum += tile.chunk_moment[r * t.chunks + k];
            for (int64_t h = 0; h < hard; ++h) {
                const T* edge = t.hard_slopes + (i * hard + h) * record;
                coefficient[h] = edge[p] * prefix.hard.inverse[row[h]];
                if (prefixes > 1) sum += static_cast<double>(edge[prefixes + p]);
            }
            moment[p] = sum;
            if (hard > 0) accumulate<true>(total + at, prefix.hard, prefix.dim, row, coefficient, hard);
        }
        finish_prefixes(t.prefixes, t.prefix_count, &Prefix<E>::queries, i, t.dim, static_cast<const T*>(total), moment,
                        static_cast<T>(t.terms.factor),
                        t.outputs.grad_queries.data + i * t.outputs.grad_queries.stride);
    }
}

template <class E>
void general_finish_documents(const GeneralTiles<E>& t, Range range, Working<E>* scratch) noexcept {
    using T = Working<E>;
    const int64_t columns = padded_columns(t.prefixes, t.prefix_count);
    T* total = scratch;
    double* moment = reinterpret_cast<double*>(total + columns);
    for (int64_t j = range.begin; j < range.end; ++j) {
        for (int64_t p = 0, at = 0; p < t.prefix_count; at += t.tiles[p++].width) {
            const GeneralTilePrefix<E>& tile = t.tiles[p];
            memcpy(total + at, tile.gradient_sums + j * tile.stride, sizeof(T) * static_cast<size_t>(tile.width));
            moment[p] = t.prefix_count > 1 ? tile.document_moment[j] : 0;
        }
        finish_prefixes(t.prefixes, t.prefix_count, &Prefix<E>::documents, j, t.dim, static_cast<const T*>(total),
                        moment, static_cast<T>(t.terms.factor),
                        t.outputs.grad_documents.data + j * t.outputs.grad_documents.stride);
    }
}

// All queries in order.
template <class E>
negcos::Totals general_totals(const GeneralTiles<E>& t) noexcept {
    negcos::Totals totals;
    LossWriter<E, GeneralRow<Working<E>>> writer(t.outputs);
    for (int64_t i = 0; i < t.batch(); ++i) {
        RowEnd end = t.queries[i];
        if (t.both) {
            end.loss += t.documents[i].loss;
            end.grad_scale += t.documents[i].grad_scale;
            end.excluded += t.documents[i].excluded;
        }
        const double weight = t.terms.weights ? t.terms.weights[i] : 1.0;
        totals.grad_scale.add(end.grad_scale);
        totals.grad_bias.add(end.grad_bias);
        totals.rank_zero += end.rank == 0;
        totals.reciprocal_rank.add(1.0 / (1.0 + static_cast<double>(end.rank)));
        totals.excluded += end.excluded;
        writer.add(i, weight, {end.loss}, totals);
    }
    writer.flush(totals);
    return totals;
}

template <class E>
int64_t general_tile_scratch(const Prefix<E>* prefixes, int64_t prefix_count, int64_t chunk, int64_t chunks,
                             int64_t hard) noexcept {
    using T = Working<E>;
    const int64_t rows =
        padded_columns(prefixes, prefix_count) + 4 * pad_lanes<T>(hard + kLanes<T>) + pad_lanes<T>(2 * prefix_count);
    const int64_t close = pad_lanes<T>(chunks + kLanes<T>) + pad_lanes<T>(hard + kLanes<T>);
    int64_t most = 2 * chunk;
    for (int64_t p = 0; p < prefix_count; ++p) {
        const int64_t packed =
            hard * negcos::odd_lines<T>(prefixes[p].dim) + pad_lanes<T>(hard) * pad_lanes<T>(prefixes[p].dim);
        if (most < packed + kLanes<T> + pad_lanes<T>(hard)) most = packed + kLanes<T> + pad_lanes<T>(hard);
    }
    if (most < rows) most = rows;
    return most < close ? close : most;
}

}  // namespace

#endif
