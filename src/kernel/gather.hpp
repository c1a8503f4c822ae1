// SPDX-License-Identifier: Apache-2.0
//
// The inner loops of the gather: the candidates of each query gathered row by row, nothing copied. Forward and the
// queries' gradient are one pass, the second reading of each row while it is still in the first-level cache.
#ifndef NEGCOS_KERNEL_GATHER_HPP
#define NEGCOS_KERNEL_GATHER_HPP

#include "kernel/dots.hpp"
#include "kernel/gradients.hpp"
#include "kernel/objective.hpp"
#include "work.hpp"

namespace {

using negcos::pad_lanes;
using negcos::Range;

constexpr int64_t kMostTogether = 8;
constexpr int64_t kIncomingEdges = 256;  // edges of one document taken at a time

// A query's candidates, absent ones left out: documents, and each one's slot when any is missing.
inline int64_t list_candidates(const negcos::Candidates& candidates, int64_t query, int32_t* document, int32_t* slot) {
    document[0] = static_cast<int32_t>(candidates.positive(query));
    const int32_t* negatives = candidates.negatives + query * candidates.row_stride;
    if (candidates.complete) {
        for (int64_t r = 0; r < candidates.rounds; ++r) document[1 + r] = negatives[r * candidates.round_stride];
        return candidates.slots();
    }
    int64_t n = 1;
    slot[0] = 0;
    for (int64_t r = 0; r < candidates.rounds; ++r) {
        const int32_t j = negatives[r * candidates.round_stride];
        document[n] = j;
        slot[n] = static_cast<int32_t>(1 + r);
        n += j >= 0;
    }
    return n;
}

// What is known of one query between the passes over it.
template <class T>
struct QueryEdges {
    T* similarity;
    T* slope;    // exps, then d loss / d z, in the order of the list
    T* inverse;  // of the candidates' norms
    int32_t* document;
    int32_t* slot;
    int64_t count;
    T top;

    static constexpr int64_t kLists = 5;
    QueryEdges() = default;
    QueryEdges(T* lists, int64_t list)
        : similarity(lists),
          slope(lists + list),
          inverse(lists + 2 * list),
          document(reinterpret_cast<int32_t*>(lists + 3 * list)),
          slot(reinterpret_cast<int32_t*>(lists + 4 * list)) {}
};

// Query i in the working type, padded with zeros to whole lanes.
template <bool kRescaled, class E, class T>
void load_query(const negcos::Rows<E>& queries, int64_t i, int64_t dim, T* query) {
    const E* row = queries.data + i * queries.stride;
    const Lanes<T> s = broadcast(kRescaled ? queries.rescale[i] : T(1));
    int64_t c = 0;
    for (; c + kLanes<T> <= dim; c += kLanes<T>) store(query + c, load_row<kRescaled>(row + c, s));
    if (c < dim) store(query + c, load_row_first<kRescaled>(row + c, s, static_cast<int>(dim - c)));
}

// The similarities of query i with its candidates, and the largest of them.
template <bool kRescaled, class E, class T>
void find_similarities(const negcos::GatherQueries<E>& t, const PlainSoftmax<T>& softmax, int64_t i, T* query,
                       QueryEdges<T>& e) {
    const int64_t dim = t.dim, slots = t.candidates.slots();
    const int64_t n = e.count = list_candidates(t.candidates, i, e.document, e.slot);
    load_query<kRescaled>(t.queries, i, dim, query);
    for (int64_t k = 0; k < n; k += 4) {
        const E* rows[4];
        T rescale[4] = {1, 1, 1, 1};
        for (int64_t r = 0; r < 4; ++r) {
            const int64_t j = e.document[k + r < n ? k + r : n - 1];
            rows[r] = t.documents.data + j * t.documents.stride;
            if constexpr (kRescaled) rescale[r] = t.documents.rescale[j];
        }
        dot_four<kRescaled>(static_cast<const T*>(query), rows, rescale, dim, e.similarity + k);
    }
    const T query_inverse = t.queries.inverse[i];
    for (int64_t k = 0; k < n; ++k) e.inverse[k] = t.documents.inverse[e.document[k]];
    for (int64_t k = 0; k < n; ++k) e.similarity[k] = e.similarity[k] * query_inverse * e.inverse[k];
    if (t.positives) t.positives[i] = e.similarity[0];
    if (t.outputs.logits.data) {
        E* out = t.outputs.logits.data + i * t.outputs.logits.stride;
        if (n != slots)
            for (int64_t k = 0; k < slots; ++k) out[k] = to_element<E>(kAbsent<T>);
        for (int64_t k = 0; k < n; ++k) out[e.slot[k]] = to_element<E>(softmax.factor * e.similarity[k]);
    }
    if (t.softmax) e.top = softmax.top(static_cast<const T*>(e.similarity) + 1, n - 1, softmax.sign * e.similarity[0]);
}

// Query i's softmax: its loss and metrics, and d loss / d z of its edges.
template <class E, class T>
void find_slopes(const negcos::GatherQueries<E>& t, const PlainSoftmax<T>& softmax, int64_t i, const QueryEdges<T>& e,
                 LossWriter<E, PlainRow>& writer, negcos::Totals& totals) {
    const int64_t n = e.count;
    const T positive = e.similarity[0];
    const Sums negatives = softmax.sum(static_cast<const T*>(e.similarity) + 1, n - 1, e.top, positive, e.slope + 1);
    const auto closed = softmax.close(positive, e.top, negatives, t.terms.row_weight);
    totals.grad_scale.add(closed.grad_scale);
    writer.add(i, 1, closed.row, totals);
    // Drawn as its own negative, the positive counts in the sums but outranks nobody.
    int32_t self_hits = -1;
    for (int64_t k = 0; k < n; ++k) self_hits += e.document[k] == e.document[0];
    const int64_t rank = static_cast<int64_t>(negatives.rank) - self_hits;
    totals.rank_zero += rank == 0;
    totals.reciprocal_rank.add(1.0 / (1.0 + static_cast<double>(rank)));

    const T share = static_cast<T>(closed.share);
    e.slope[0] = static_cast<T>(closed.positive_slope);
    for (int64_t k = 1; k < n; ++k) e.slope[k] *= share;
    if (t.slopes) {
        T* slopes = t.slopes + i * t.candidates.slots();
        for (int64_t k = 0; k < n; ++k) slopes[e.slot[k]] = e.slope[k];
    }
}

template <bool kRescaled, class E, class T>
void query_gradient(const negcos::GatherQueries<E>& t, const PlainSoftmax<T>& softmax, int64_t i,
                    const QueryEdges<T>& e, T* total) {
    for (int64_t k = 0; k < e.count; ++k) e.slope[k] *= e.inverse[k];
    memset(total, 0, sizeof(T) * static_cast<size_t>(pad_lanes<T>(t.dim)));
    accumulate<kRescaled>(total, t.documents, t.dim, e.document, e.slope, e.count);
    const double inverse = static_cast<double>(t.queries.inverse[i]);
    finish_gradient(static_cast<const T*>(total), t.queries.data + i * t.queries.stride, t.queries.rescale[i],
                    inverse * inverse * static_cast<double>(t.queries.above_floor[i]), t.queries.inverse[i],
                    softmax.factor, t.queries.rescale[i], t.dim,
                    t.outputs.grad_queries.data + i * t.outputs.grad_queries.stride);
}

// Queries taken together: as many as have their rows in half of a small first-level cache. Each pass over one query is
// a chain of latencies (horizontal sums, exp, a division) that the next query's work can hide.
template <class E>
int64_t queries_together(int64_t dim, int64_t slots) {
    const int64_t together = (16 << 10) / static_cast<int64_t>(sizeof(E)) / (dim > 0 ? dim : 1) / slots;
    return together < 1 ? 1 : together > kMostTogether ? kMostTogether : together;
}

template <class E>
int64_t gather_scratch(int64_t dim, int64_t slots) noexcept {
    using T = Working<E>;
    const int64_t width = pad_lanes<T>(dim), list = pad_lanes<T>(slots + kLanes<T>);
    const int64_t forward = 2 * width + queries_together<E>(dim, slots) * QueryEdges<T>::kLists * list;
    const int64_t backward = width + 4 * kIncomingEdges;
    return forward > backward ? forward : backward;
}

template <bool kRescaled, class E>
negcos::Totals gather_queries_of(const negcos::GatherQueries<E>& t, Range range, Working<E>* scratch) {
    using T = Working<E>;
    const int64_t slots = t.candidates.slots(), together = queries_together<E>(t.dim, slots);
    const int64_t width = pad_lanes<T>(t.dim), list = pad_lanes<T>(slots + kLanes<T>);
    T *query = scratch, *total = query + width;
    QueryEdges<T> edges[kMostTogether];
    for (int64_t g = 0; g < together; ++g) {
        edges[g] = QueryEdges<T>(total + width + g * QueryEdges<T>::kLists * list, list);
        for (int64_t k = 0; k < slots; ++k) edges[g].slot[k] = static_cast<int32_t>(k);
    }
    const PlainSoftmax<T> softmax(t.terms);
    negcos::Totals totals;
    LossWriter<E, PlainRow> writer(t.outputs);
    memset(query, 0, sizeof(T) * static_cast<size_t>(width));
    for (int64_t i = range.begin; i < range.end; i += together) {
        const int64_t count = range.end - i < together ? range.end - i : together;
        for (int64_t g = 0; g < count; ++g) find_similarities<kRescaled>(t, softmax, i + g, query, edges[g]);
        if (!t.softmax) continue;
        for (int64_t g = 0; g < count; ++g) find_slopes(t, softmax, i + g, edges[g], writer, totals);
        if (!t.outputs.grad_queries.data) continue;
        for (int64_t g = 0; g < count; ++g) query_gradient<kRescaled>(t, softmax, i + g, edges[g], total);
    }
    writer.flush(totals);
    return totals;
}

template <class E>
negcos::Totals gather_queries(const negcos::GatherQueries<E>& t, Range range, Working<E>* scratch) noexcept {
    return t.queries.rescaled || t.documents.rescaled ? gather_queries_of<true>(t, range, scratch)
                                                      : gather_queries_of<false>(t, range, scratch);
}

// Walks the edges that reach one target, a few at a time, in their fixed order.
class IncomingWalk {
public:
    IncomingWalk(const negcos::Incoming& incoming, int64_t target) : in_(incoming), target_(target) {
        if (in_.start) {
            next_ = in_.start[target];
            end_ = in_.start[target + 1];
        } else {
            next_ = 0;
            end_ = target < in_.direct ? 1 + in_.rounds : 0;
        }
    }

    // Sources, and where each edge's coefficient is.
    int64_t take(int32_t* source, int64_t* edge, int64_t most) {
        int64_t n = 0;
        for (; n < most && next_ < end_; ++n, ++next_) {
            int64_t slot = next_;
            if (in_.start) {
                source[n] = in_.edge[next_].query;
                slot = in_.edge[next_].slot;
            } else {
                source[n] = slot == 0 ? static_cast<int32_t>(target_) : in_.inverse[(slot - 1) * in_.stride + target_];
            }
            edge[n] = source[n] * in_.slots + slot;
        }
        return n;
    }

private:
    const negcos::Incoming& in_;
    int64_t target_, next_, end_;
};

template <bool kRescaled, class E>
void gather_gradient_of(const negcos::GatherGradient<E>& t, Range range, Working<E>* scratch) {
    using T = Working<E>;
    const int64_t width = pad_lanes<T>(t.dim);
    T* total = scratch;
    T* coefficient = total + width;
    int64_t* edge = reinterpret_cast<int64_t*>(coefficient + kIncomingEdges);
    int32_t* source = reinterpret_cast<int32_t*>(edge + kIncomingEdges);
    for (int64_t j = range.begin; j < range.end; ++j) {
        memset(total, 0, sizeof(T) * static_cast<size_t>(width));
        IncomingWalk walk(t.incoming, j);
        while (const int64_t n = walk.take(source, edge, kIncomingEdges)) {
            for (int64_t k = 0; k < n; ++k) coefficient[k] = t.slopes[edge[k]] * t.sources.inverse[source[k]];
            accumulate<kRescaled>(total, t.sources, t.dim, source, coefficient, n);
        }
        const T inverse = t.targets.inverse[j];
        const double inv = static_cast<double>(inverse);
        finish_gradient(static_cast<const T*>(total), t.targets.data + j * t.targets.stride, t.targets.rescale[j],
                        inv * inv * static_cast<double>(t.targets.above_floor[j]), inverse, static_cast<T>(t.factor),
                        t.targets.rescale[j], t.dim, t.gradient.data + j * t.gradient.stride);
    }
}

template <class E>
void gather_gradient(const negcos::GatherGradient<E>& t, Range range, Working<E>* scratch) noexcept {
    if (t.targets.rescaled || t.sources.rescaled)
        gather_gradient_of<true>(t, range, scratch);
    else
        gather_gradient_of<false>(t, range, scratch);
}

// loss_i = -z_i + log sum_i' exp z_i' over the positives' logits; with weights w_i that add up to W,
// d sum_i w_i loss_i / d z_i = W p_i - w_i.
template <class E>
negcos::Totals batch_softmax(const negcos::BatchSoftmax<E>& t) noexcept {
    using T = Working<E>;
    negcos::Totals totals;
    if (t.batch == 0) return totals;
    const PlainSoftmax<T> softmax(t.terms);
    const T top = softmax.top(t.similarity, t.batch, kAbsent<T>);
    const double batch = static_cast<double>(t.batch);
    const Sums all = softmax.sum(t.similarity, t.batch, top, t.similarity[0], t.scratch);
    alignas(64) double lanes[8] = {all.sum - 1, 0, 0, 0, 0, 0, 0, 0}, ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    store(static_cast<double*>(lanes),
          log_of_sum(load(static_cast<const double*>(ones)), load(static_cast<const double*>(lanes))));
    double weights = 0;
    for (int64_t i = 0; t.terms.weights && i < t.batch; ++i) weights += t.terms.weights[i];
    for (int64_t i = 0; i < t.batch; ++i) {
        const double p = static_cast<double>(t.scratch[i]) / all.sum;
        const double gap = (static_cast<double>(top) - static_cast<double>(softmax.sign * t.similarity[i]));
        const double loss = gap * softmax.exact_size + lanes[0];
        const double weight = t.terms.weights ? t.terms.weights[i] : 1.0;
        const double slope =
            t.terms.weights ? (weights * p - weight) / t.terms.total_weight : t.terms.row_weight * (batch * p - 1.0);
        totals.loss.add(weight == 0 ? 0 : weight * loss);
        totals.grad_scale.add(slope * static_cast<double>(t.similarity[i]));
        if (t.outputs.losses.data) t.outputs.losses.data[i * t.outputs.losses.stride] = to_element<E>(loss);
        if (t.outputs.hit_probability.data)
            t.outputs.hit_probability.data[i * t.outputs.hit_probability.stride] = to_element<E>(p);
        if (t.slopes) t.slopes[i] = static_cast<T>(slope);
    }
    return totals;
}

}  // namespace

#endif
