// SPDX-License-Identifier: Apache-2.0
//
// The gather's inner loops for the general loss: hard negatives at the end of each query's list, and nested prefixes.
#ifndef NEGCOS_KERNEL_GATHER_GENERAL_HPP
#define NEGCOS_KERNEL_GATHER_GENERAL_HPP

#include "kernel/gather.hpp"
#include "kernel/objective.hpp"

namespace {

using negcos::LossTerms;
using negcos::Prefix;

constexpr int64_t kMostTogether = 8;
constexpr int64_t kIncomingArcs = 256;  // arcs of one document taken at a time

// Queries taken together: as many as have their rows in half of a small first-level cache. Each pass over one query is
// a chain of latencies (horizontal sums, exp, a division) that the next query's work can hide.
template <class E>
int64_t queries_together(int64_t dim, int64_t slots) {
    const int64_t together = (16 << 10) / static_cast<int64_t>(sizeof(E)) / (dim > 0 ? dim : 1) / slots;
    return together < 1 ? 1 : together > kMostTogether ? kMostTogether : together;
}

// One query and its candidates: the positive, the negatives that are left, the hard negatives. A list for each prefix
// of similarities and slopes.
template <class T>
struct GeneralQuery {
    T* similarity;
    T* slope;
    T* ratio;  // both rows' ratios to the prefix before; of several prefixes alone
    T* coefficient;
    T* correction;
    double* moment;  // of each prefix: sum of slopes times similarities
    int32_t* row;    // of documents, then of hard negatives
    int32_t* slot;
    int64_t stride, documents = 0, count = 0, dropped = 0;

    static int64_t list(int64_t slots) { return pad_lanes<T>(slots + kLanes<T>); }
    static int64_t size(int64_t slots, int64_t prefixes) {
        return (3 * prefixes + 4) * list(slots) + pad_lanes<T>(2 * prefixes);
    }
    GeneralQuery() = default;
    GeneralQuery(T* lists, int64_t slots, int64_t prefixes)
        : similarity(lists),
          slope(similarity + prefixes * list(slots)),
          ratio(slope + prefixes * list(slots)),
          coefficient(ratio + prefixes * list(slots)),
          correction(coefficient + list(slots)),
          moment(reinterpret_cast<double*>(correction + 3 * list(slots))),
          row(reinterpret_cast<int32_t*>(correction + list(slots))),
          slot(reinterpret_cast<int32_t*>(correction + 2 * list(slots))),
          stride(list(slots)) {}
};

// Whether document j is in query i's group.
inline bool is_excluded(const negcos::Exclusion& exclusion, int64_t i, int32_t j) {
    if (!exclusion.group) return false;
    const int32_t g = exclusion.group[i];
    if (exclusion.group_of_document) return exclusion.group_of_document[j] == g;
    int64_t low = exclusion.start[g], high = exclusion.start[g + 1];
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (exclusion.document[middle] < j)
            low = middle + 1;
        else
            high = middle;
    }
    return low < exclusion.start[g + 1] && exclusion.document[low] == j;
}

template <class E, class T>
void list_general_candidates(const negcos::GeneralGather<E>& t, int64_t i, GeneralQuery<T>& e) {
    const negcos::Candidates& candidates = t.candidates;
    const LossTerms<T>& terms = t.terms;
    e.row[0] = static_cast<int32_t>(candidates.positive(i));
    e.slot[0] = 0;
    e.dropped = 0;
    int64_t n = 1;
    const int32_t* negatives = candidates.negatives + i * candidates.row_stride;
    for (int64_t r = 0; r < candidates.rounds; ++r) {
        const int32_t j = negatives[r * candidates.round_stride];
        if (j < 0) continue;
        if (is_excluded(terms.same_document, i, j) || is_excluded(terms.same_query, i, j)) {
            ++e.dropped;
            continue;
        }
        e.row[n] = j;
        e.slot[n++] = static_cast<int32_t>(1 + r);
    }
    e.documents = n;
    for (int64_t h = 0; h < terms.hard; ++h) {
        e.row[n] = static_cast<int32_t>(i * terms.hard + h);
        e.slot[n++] = static_cast<int32_t>(candidates.slots() + h);
    }
    e.count = n;
    if (terms.correction) {
        e.correction[0] = terms.correct_positive ? terms.correction[e.row[0]] : T(0);
        for (int64_t k = 1; k < e.documents; ++k) e.correction[k] = terms.correction[e.row[k]];
        for (int64_t k = e.documents; k < 1 + pad_lanes<T>(n - 1); ++k) e.correction[k] = 0;
    }
}

// similarity[k] = that of the prefix before times the ratios + query . row * inverses.
template <bool kRescaled, class E, class T>
void prefix_similarities(const negcos::Rows<E>& rows, const negcos::Rows<E>& queries, int64_t i, int64_t dim,
                         const T* query, const int32_t* index, int64_t n, const T* before, T* ratios, T* dots,
                         T* similarity) {
    for (int64_t k = 0; k < n; k += 4) {
        const E* four[4];
        T rescale[4] = {1, 1, 1, 1};
        for (int64_t r = 0; r < 4; ++r) {
            const int64_t j = index[k + r < n ? k + r : n - 1];
            four[r] = rows.data + j * rows.stride;
            if constexpr (kRescaled) rescale[r] = rows.rescale[j];
        }
        dot_four<kRescaled>(query, four, rescale, dim, dots + k);
    }
    const T query_inverse = queries.inverse[i];
    for (int64_t k = 0; k < n; ++k) similarity[k] = dots[k] * query_inverse * rows.inverse[index[k]];
    if (!before) return;
    const T ratio = queries.norm_ratio[i];
    for (int64_t k = 0; k < n; ++k) ratios[k] = ratio * rows.norm_ratio[index[k]];
    for (int64_t k = 0; k < n; ++k) similarity[k] += before[k] * ratios[k];
}

template <bool kRescaled, class E, class T>
void find_general_similarities(const negcos::GeneralGather<E>& t, int64_t i, T* query, GeneralQuery<T>& e) {
    list_general_candidates(t, i, e);
    for (int64_t p = 0; p < t.prefix_count; ++p) {
        const Prefix<E>& prefix = t.prefixes[p];
        T* similarity = e.similarity + p * e.stride;
        const T* before = p > 0 ? similarity - e.stride : nullptr;
        load_query<kRescaled>(prefix.queries, i, prefix.dim, query);
        T* ratio = e.ratio + p * e.stride;
        prefix_similarities<kRescaled>(prefix.documents, prefix.queries, i, prefix.dim, static_cast<const T*>(query),
                                       e.row, e.documents, before, ratio, e.coefficient, similarity);
        if (const int64_t d = e.documents; e.count > d)
            prefix_similarities<kRescaled>(prefix.hard, prefix.queries, i, prefix.dim, static_cast<const T*>(query),
                                           e.row + d, e.count - d, before ? before + d : nullptr, ratio + d,
                                           e.coefficient, similarity + d);
    }
    // Whole lanes from the first negative on.
    for (int64_t p = 0; p < t.prefix_count; ++p)
        for (int64_t k = e.count; k < 1 + pad_lanes<T>(e.count - 1); ++k) e.similarity[p * e.stride + k] = kAbsent<T>;
}

template <class E, class T>
void write_logits(const negcos::GeneralGather<E>& t, int64_t i, const General<T>& row, const T* similarity,
                  const GeneralQuery<T>& e) {
    const int64_t slots = t.candidates.slots() + t.terms.hard;
    E* out = t.outputs.logits.data + i * t.outputs.logits.stride;
    for (int64_t k = 0; k < slots; ++k) out[k] = to_element<E>(kAbsent<T>);
    out[0] = to_element<E>(row.positive);
    for (int64_t k = 1; k < e.count; ++k)
        out[e.slot[k]] = to_element<E>(row.logit(similarity[k], t.terms.correction ? e.correction[k] : T(0)));
}

// The losses of query i, and d loss / d z of its edges.
template <class E, class T>
void find_general_slopes(const negcos::GeneralGather<E>& t, int64_t i, GeneralQuery<T>& e,
                         LossWriter<E, GeneralRow<T>>& writer, negcos::Totals& totals) {
    const LossTerms<T>& terms = t.terms;
    const double query_weight = terms.weights ? terms.weights[i] : 1.0;
    const int64_t n = e.count, negatives = n - 1;
    const T* correction = terms.correction ? e.correction + 1 : nullptr;
    double loss = 0;
    for (int64_t p = 0; p < t.prefix_count; ++p) {
        const Prefix<E>& prefix = t.prefixes[p];
        const T* similarity = e.similarity + p * e.stride;
        T* slope = e.slope + p * e.stride;
        const General<T> row(terms, similarity[0], terms.correction ? e.correction[0] : T(0));
        const T top = row.row_top(row.top(similarity + 1, correction, negatives));
        const Sums sums = row.sum(similarity + 1, correction, nullptr, negatives, top);
        const auto closed = row.close(top, sums, prefix.weight * query_weight / terms.total_weight);
        row.slopes(similarity + 1, correction, nullptr, negatives, closed.share, slope + 1);
        slope[0] = static_cast<T>(closed.positive_slope);
        e.moment[p] = closed.moment;
        loss += prefix.weight * closed.loss;
        if (query_weight != 0) totals.grad_scale.add(closed.grad_scale);
        if (query_weight != 0) totals.grad_bias.add(closed.total);
        if (p + 1 == t.prefix_count) {
            // Drawn as its own negative, the positive outranks nobody.
            int64_t rank = static_cast<int64_t>(sums.rank);
            for (int64_t k = 1; k < e.documents; ++k)
                if (e.row[k] == e.row[0])
                    rank -= row.outranked_by(similarity[k], correction ? correction[k - 1] : T(0));
            totals.rank_zero += rank == 0;
            totals.reciprocal_rank.add(1.0 / (1.0 + static_cast<double>(rank)));
            totals.excluded += e.dropped + static_cast<int64_t>(sums.dropped);
            if (t.outputs.logits.data) write_logits(t, i, row, similarity, e);
        }
    }
    writer.add(i, query_weight, {loss}, totals);
    if (query_weight == 0)  // also where it met NaN
        for (int64_t p = 0; p < t.prefix_count; ++p)
            memset(e.slope + p * e.stride, 0, sizeof(T) * static_cast<size_t>(n));
}

// From the slopes in each prefix's loss, in place, to those in the gradient of each prefix's columns; and the records
// of the edges for the other side's gradients.
template <class E, class T>
void link_slopes(const negcos::GeneralGather<E>& t, int64_t i, GeneralQuery<T>& e) {
    const int64_t prefixes = t.prefix_count, record = negcos::edge_record(prefixes);
    const int32_t source = static_cast<int32_t>(i);
    const auto arc = [&](int64_t slot, int64_t document) { return t.arcs + t.lists.place(i, slot, document) * record; };
    T* const hard_slopes = t.hard_slopes ? t.hard_slopes + i * t.terms.hard * record : nullptr;
    const int32_t* negatives = t.candidates.negatives + i * t.candidates.row_stride;
    for (int64_t r = 0; t.arcs && e.dropped > 0 && r < t.candidates.rounds; ++r)
        if (const int32_t j = negatives[r * t.candidates.round_stride]; j >= 0)
            for (int64_t p = 0; p < record; ++p) arc(1 + r, j)[p] = {source, 0};
    for (int64_t p = prefixes - 1; p >= 0; --p) {
        const T *similarity = e.similarity + p * e.stride, *ratio = e.ratio + (p + 1) * e.stride;
        T* slope = e.slope + p * e.stride;
        if (prefixes > 1) {
            for (int64_t k = 0; t.arcs && k < e.documents; ++k)
                arc(e.slot[k], e.row[k])[prefixes + p] = {source, slope[k] == 0 ? 0 : slope[k] * similarity[k]};
            for (int64_t k = e.documents; hard_slopes && k < e.count; ++k)
                hard_slopes[(k - e.documents) * record + prefixes + p] = slope[k] == 0 ? 0 : slope[k] * similarity[k];
        }
        if (prefixes > 1 && t.prefixes[p].has_zero_rows) {
            const T nonzero = t.prefixes[p].queries.nonzero[i];
            for (int64_t k = 0; k < e.documents; ++k) slope[k] *= nonzero * t.prefixes[p].documents.nonzero[e.row[k]];
            for (int64_t k = e.documents; k < e.count; ++k) slope[k] *= nonzero * t.prefixes[p].hard.nonzero[e.row[k]];
        }
        if (p + 1 < prefixes)
            for (int64_t k = 0; k < e.count; ++k) slope[k] += slope[e.stride + k] * ratio[k];
        const T inverse = t.prefixes[p].queries.inverse[i];
        for (int64_t k = 0; t.arcs && k < e.documents; ++k)
            arc(e.slot[k], e.row[k])[p] = {source, slope[k] == 0 ? 0 : slope[k] * inverse};
        for (int64_t k = e.documents; hard_slopes && k < e.count; ++k)
            hard_slopes[(k - e.documents) * record + p] = slope[k];
    }
}

// Columns [from, dim): those past the last prefix, or all of a row that takes no part.
template <class E>
void clear_rest(E* gradient, int64_t from, int64_t dim) {
    for (int64_t c = from; c < dim; ++c) gradient[c] = to_element<E>(Working<E>(0));
}

// The gradient of one row from the totals of all prefixes, prefix after prefix at `total` (each padded to whole lanes),
// and with prefixes each prefix's sum of slopes times similarities.
template <class E, class T>
void finish_prefixes(const Prefix<E>* prefixes, int64_t prefix_count, negcos::Rows<E> Prefix<E>::*side, int64_t i,
                     int64_t dim, const T* total, const double* moment, T factor, E* gradient) {
    int64_t column = 0, at = 0;
    for (int64_t p = 0; p < prefix_count; ++p) column += prefixes[p].dim, at += pad_lanes<T>(prefixes[p].dim);
    clear_rest(gradient, column, dim);
    double along = 0;
    for (int64_t p = prefix_count - 1; p >= 0; --p) {
        const negcos::Rows<E>& rows = prefixes[p].*side;
        const E* row = rows.data + i * rows.stride;
        const T inverse = rows.inverse[i], rescale = rows.rescale[i];
        const double inv = static_cast<double>(inverse), above_floor = static_cast<double>(rows.above_floor[i]);
        column -= prefixes[p].dim;
        at -= pad_lanes<T>(prefixes[p].dim);
        if (prefix_count == 1) {
            finish_gradient(total, row, rescale, inv * inv * above_floor, inverse, factor, rescale, prefixes[p].dim,
                            gradient);
            return;
        }
        along += moment[p] * above_floor;
        store_gradient(total + at, row, rescale, static_cast<T>(-along * inv), inverse, factor, rescale,
                       prefixes[p].dim, gradient + column);
        const double ratio = static_cast<double>(rows.norm_ratio[i]);
        along *= ratio * ratio;
    }
}

template <class E>
int64_t padded_columns(const Prefix<E>* prefixes, int64_t prefix_count) {
    int64_t columns = 0;
    for (int64_t p = 0; p < prefix_count; ++p) columns += pad_lanes<Working<E>>(prefixes[p].dim);
    return columns;
}

template <bool kRescaled, class E, class T>
void general_query_gradient(const negcos::GeneralGather<E>& t, int64_t i, GeneralQuery<T>& e, T* total) {
    if (t.terms.weights && t.terms.weights[i] == 0)
        return clear_rest(t.outputs.grad_queries.data + i * t.outputs.grad_queries.stride, 0, t.dim);
    memset(total, 0, sizeof(T) * static_cast<size_t>(padded_columns(t.prefixes, t.prefix_count)));
    const int64_t hard = e.count - e.documents;
    int64_t at = padded_columns(t.prefixes, t.prefix_count);
    for (int64_t p = t.prefix_count - 1; p >= 0; --p) {
        const Prefix<E>& prefix = t.prefixes[p];
        const T* slope = e.slope + p * e.stride;
        at -= pad_lanes<T>(prefix.dim);
        for (int64_t k = 0; k < e.documents; ++k) e.coefficient[k] = slope[k] * prefix.documents.inverse[e.row[k]];
        for (int64_t k = e.documents; k < e.count; ++k) e.coefficient[k] = slope[k] * prefix.hard.inverse[e.row[k]];
        accumulate<kRescaled>(total + at, prefix.documents, prefix.dim, e.row, e.coefficient, e.documents);
        if (hard > 0)
            accumulate<kRescaled>(total + at, prefix.hard, prefix.dim, e.row + e.documents, e.coefficient + e.documents,
                                  hard);
    }
    finish_prefixes(t.prefixes, t.prefix_count, &Prefix<E>::queries, i, t.dim, static_cast<const T*>(total), e.moment,
                    static_cast<T>(t.terms.factor), t.outputs.grad_queries.data + i * t.outputs.grad_queries.stride);
}

template <class E>
int64_t general_gather_scratch(const Prefix<E>* prefixes, int64_t prefix_count, int64_t dim, int64_t slots) noexcept {
    using T = Working<E>;
    const int64_t columns = padded_columns(prefixes, prefix_count);
    const int64_t forward = 2 * columns + queries_together<E>(dim, slots) * GeneralQuery<T>::size(slots, prefix_count);
    const int64_t backward =
        columns + (negcos::edge_record(prefix_count) + 1) * kIncomingArcs + pad_lanes<T>(2 * prefix_count);
    return forward > backward ? forward : backward;
}

template <class E>
bool any_rescaled(const Prefix<E>* prefixes, int64_t prefix_count) {
    for (int64_t p = 0; p < prefix_count; ++p)
        if (prefixes[p].queries.rescaled || prefixes[p].documents.rescaled || prefixes[p].hard.rescaled) return true;
    return false;
}

template <bool kRescaled, class E>
negcos::Totals general_gather_queries_of(const negcos::GeneralGather<E>& t, Range range, Working<E>* scratch) {
    using T = Working<E>;
    const int64_t slots = t.candidates.slots() + t.terms.hard, together = queries_together<E>(t.dim, slots);
    const int64_t columns = padded_columns(t.prefixes, t.prefix_count);
    T *query = scratch, *total = query + columns, *lists = total + columns;
    GeneralQuery<T> edges[kMostTogether];
    for (int64_t g = 0; g < together; ++g)
        edges[g] = GeneralQuery<T>(lists + g * GeneralQuery<T>::size(slots, t.prefix_count), slots, t.prefix_count);
    negcos::Totals totals;
    LossWriter<E, GeneralRow<T>> writer(t.outputs);
    for (int64_t i = range.begin; i < range.end; i += together) {
        const int64_t count = range.end - i < together ? range.end - i : together;
        for (int64_t g = 0; g < count; ++g) find_general_similarities<kRescaled>(t, i + g, query, edges[g]);
        for (int64_t g = 0; g < count; ++g) find_general_slopes(t, i + g, edges[g], writer, totals);
        if (t.arcs || t.hard_slopes || t.outputs.grad_queries.data)
            for (int64_t g = 0; g < count; ++g) link_slopes(t, i + g, edges[g]);
        if (!t.outputs.grad_queries.data) continue;
        for (int64_t g = 0; g < count; ++g) general_query_gradient<kRescaled>(t, i + g, edges[g], total);
    }
    writer.flush(totals);
    return totals;
}

template <class E>
negcos::Totals general_gather_queries(const negcos::GeneralGather<E>& t, Range range, Working<E>* scratch) noexcept {
    return any_rescaled(t.prefixes, t.prefix_count) ? general_gather_queries_of<true>(t, range, scratch)
                                                    : general_gather_queries_of<false>(t, range, scratch);
}

// What was dropped has slope 0, and must not meet a NaN in its query. Returns the edges that are left.
template <class T>
int64_t without_dropped(int32_t* source, T* coefficient, int64_t n, int64_t record) {
    int64_t kept = 0;
    for (int64_t k = 0; k < n; ++k) {
        bool any = false;
        for (int64_t p = 0; p < record; ++p) {
            const T x = coefficient[p * kIncomingArcs + k];
            coefficient[p * kIncomingArcs + kept] = x;
            any = any || !(x == 0);
        }
        source[kept] = source[k];
        kept += any;
    }
    return kept;
}

template <bool kRescaled, class E>
void general_gather_documents_of(const negcos::GeneralGather<E>& t, Range range, Working<E>* scratch) {
    using T = Working<E>;
    const int64_t prefixes = t.prefix_count, columns = padded_columns(t.prefixes, prefixes);
    const int64_t record = negcos::edge_record(prefixes);
    const bool drops = t.terms.same_document.group || t.terms.same_query.group || t.terms.weights ||
                       t.terms.false_negative_margin <= kLargestNumber<double>;
    T *total = scratch, *coefficient = total + columns;
    int32_t* source = reinterpret_cast<int32_t*>(coefficient + record * kIncomingArcs);
    double* moment = reinterpret_cast<double*>(coefficient + (record + 1) * kIncomingArcs);
    for (int64_t j = range.begin; j < range.end; ++j) {
        memset(total, 0, sizeof(T) * static_cast<size_t>(columns));
        for (int64_t p = 0; p < prefixes; ++p) moment[p] = 0;
        for (int64_t next = t.lists.begin(j), end = t.lists.begin(j + 1); next < end;) {
            const int64_t n = end - next < kIncomingArcs ? end - next : kIncomingArcs;
            const negcos::Arc<T>* arc = t.arcs + next * record;
            next += n;
            for (int64_t k = 0; k < n; ++k, arc += record) {
                source[k] = arc->source;
                for (int64_t p = 0; p < record; ++p) coefficient[p * kIncomingArcs + k] = arc[p].coefficient;
            }
            const int64_t kept = drops ? without_dropped(source, coefficient, n, record) : n;
            for (int64_t p = prefixes; p < record; ++p) {
                T* products = coefficient + p * kIncomingArcs;
                for (int64_t k = kept; k < pad_lanes<T>(kept); ++k) products[k] = 0;
                Lanes<T> total = broadcast(T(0));
                for (int64_t k = 0; k < kept; k += kLanes<T>) total = total + load(static_cast<const T*>(products) + k);
                moment[p - prefixes] += static_cast<double>(sum(total));
            }
            for (int64_t p = 0, at = 0; p < prefixes; at += pad_lanes<T>(t.prefixes[p++].dim))
                accumulate<kRescaled>(total + at, t.prefixes[p].queries, t.prefixes[p].dim, source,
                                      coefficient + p * kIncomingArcs, kept);
        }
        finish_prefixes(t.prefixes, prefixes, &Prefix<E>::documents, j, t.dim, static_cast<const T*>(total), moment,
                        static_cast<T>(t.terms.factor),
                        t.outputs.grad_documents.data + j * t.outputs.grad_documents.stride);
    }
}

template <class E>
void general_gather_documents(const negcos::GeneralGather<E>& t, Range range, Working<E>* scratch) noexcept {
    if (any_rescaled(t.prefixes, t.prefix_count))
        general_gather_documents_of<true>(t, range, scratch);
    else
        general_gather_documents_of<false>(t, range, scratch);
}

// The gradient of the hard negatives of queries: each has one edge.
template <class E>
void hard_gradient(const negcos::HardNegatives<E>& t, Range range, Working<E>* total) noexcept {
    using T = Working<E>;
    const int64_t columns = padded_columns(t.prefixes, t.prefix_count);
    double* moment = reinterpret_cast<double*>(total + columns);
    const int64_t record = negcos::edge_record(t.prefix_count);
    for (int64_t row = range.begin * t.hard; row < range.end * t.hard; ++row) {
        const int64_t i = row / t.hard;
        const T* edge = t.slopes + row * record;
        bool any = false;
        for (int64_t p = 0; p < record; ++p) any = any || !(edge[p] == 0);
        if (!any) {  // dropped
            clear_rest(t.gradient.data + row * t.gradient.stride, 0, t.dim);
            continue;
        }
        for (int64_t p = 0, at = 0; p < t.prefix_count; at += pad_lanes<T>(t.prefixes[p++].dim)) {
            const Prefix<E>& prefix = t.prefixes[p];
            load_query<true>(prefix.queries, i, prefix.dim, total + at);
            const Lanes<T> w = broadcast(edge[p] * prefix.queries.inverse[i]);
            for (int64_t c = 0; c < prefix.dim; c += kLanes<T>)
                store(total + at + c, load(static_cast<const T*>(total) + at + c) * w);
            moment[p] = t.prefix_count > 1 ? static_cast<double>(edge[t.prefix_count + p]) : 0;
        }
        finish_prefixes(t.prefixes, t.prefix_count, &Prefix<E>::hard, row, t.dim, static_cast<const T*>(total), moment,
                        static_cast<T>(t.factor), t.gradient.data + row * t.gradient.stride);
    }
}

}  // namespace

#endif
