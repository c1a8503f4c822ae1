// SPDX-License-Identifier: Apache-2.0
//
// The queries' side of the gather for the plain softmax: the candidates of each query gathered row by row, nothing
// copied. Forward and the queries' gradient are one pass, the second reading of each row while it is still in the
// caches.
#ifndef NEGCOS_KERNEL_GATHER_PLAIN_HPP
#define NEGCOS_KERNEL_GATHER_PLAIN_HPP

#include "kernel/gather_lists.hpp"
#include "kernel/gradients.hpp"
#include "kernel/plain_softmax.hpp"
#include "work.hpp"

namespace {

// Whether sixteen queries go through each pass side by side, a lane each: no sum is taken across lanes, and what every
// query needs once is done once for all. Where rows are longer, they would not stay in the caches. The order of a row's
// sum depends on it, so it is a matter of the shape alone.
template <class T>
bool side_by_side(int64_t dim, int64_t slots) {
    return slots * dim * static_cast<int64_t>(sizeof(T)) <= 8 << 10;
}

template <class E>
int64_t plain_gather_scratch(const negcos::Gather<E>& t) {
    using T = Working<E>;
    const int64_t slots = t.candidates.slots(), list = list_size<T>(slots);
    return 2 * pad_lanes<T>(t.dim) + list + 2 * (side_by_side<T>(t.dim, slots) ? kListed : 1) * list +
           2 * kListed * list;
}

// A task's queries, of the plain softmax.
template <class E>
class QueryWalk {
    using T = Working<E>;

public:
    QueryWalk(const negcos::Gather<E>& work, T* scratch)
        : t_(work),
          queries_(work.prefixes[0].queries),
          documents_(work.prefixes[0].documents),
          softmax_(work.terms),
          writer_(work.outputs),
          side_by_side_(!work.positives && side_by_side<T>(work.dim, work.candidates.slots())),
          list_(list_size<T>(work.candidates.slots())),
          query_(scratch),
          total_(query_ + pad_lanes<T>(work.dim)),
          dots_(total_ + pad_lanes<T>(work.dim)),
          slope_(dots_ + list_),
          inverse_(slope_ + (side_by_side_ ? kListed : 1) * list_),
          lists_(work.candidates, work.terms,
                 reinterpret_cast<int32_t*>(inverse_ + (side_by_side_ ? kListed : 1) * list_), list_) {}

    negcos::Totals run(Range range) {
        for (int64_t i = range.begin; i < range.end; i += kListed) {
            const Range some{i, range.end - i < kListed ? range.end : i + kListed};
            lists_.read(some);
            if (side_by_side_)
                gather_side_by_side(some);
            else
                for (int64_t g = 0; g < some.count(); ++g) gather_one(i + g, lists_[g]);
        }
        writer_.flush(totals_);
        return totals_;
    }

private:
    void find_dots_of(int64_t i, const CandidateList& list) {
        load_query(queries_, i, t_.dim, query_);
        find_dots(documents_, t_.dim, list.document, list.count, static_cast<const T*>(query_), dots_);
        each_arc(t_, i, list, 1, [](int64_t, const auto* arc) { __builtin_prefetch(arc, 1); });
    }

    // coefficients: kStep apart, as in ListedEdges.
    template <int64_t kStep>
    void write_arcs(int64_t i, const CandidateList& list, const T* coefficients) {
        each_arc(t_, i, list, 1, [=](int64_t k, negcos::Arc<T>* arc) {
            arc->source = static_cast<int32_t>(i);
            arc->coefficient = coefficients[k * kStep];
        });
    }

    template <int64_t kStep>
    void write_similarities(int64_t i, const CandidateList& list, const T* similarity) {
        if (t_.positives) t_.positives[i] = similarity[0];
        if (!t_.outputs.logits.data) return;
        E* out = t_.outputs.logits.data + i * t_.outputs.logits.stride;
        for (int64_t k = 0; k < t_.candidates.slots(); ++k) out[k] = to_element<E>(kAbsent<T>);
        for (int64_t k = 0; k < list.count; ++k)
            out[list.slot[k]] = to_element<E>(softmax_.factor * similarity[k * kStep]);
    }

    // rank: negatives whose logit is not below the positive's. Drawn as its own negative, the positive is among them
    // but outranks nobody.
    void add_numbers(int64_t i, const PlainRow& row, double grad_scale, double rank, int32_t self_hits) {
        writer_.add(i, 1, row, totals_);
        totals_.grad_scale.add(grad_scale);
        totals_.rank_zero += rank == self_hits;
        totals_.reciprocal_rank.add(1.0 / (1.0 + (rank - self_hits)));
    }

    template <int64_t kStep>
    void write_gradient(int64_t i, const CandidateList& list, const T* coefficients) {
        if (!t_.outputs.grad_queries.data) return;
        accumulate(total_, false, documents_, t_.dim, ListedEdges<T, kStep>{list.document, coefficients}, list.count);
        finish_row(t_.prefixes, 1, &Prefix<E>::queries, i, t_.dim, static_cast<const T*>(total_), nullptr,
                   softmax_.factor, t_.outputs.grad_queries.data + i * t_.outputs.grad_queries.stride);
    }

    void gather_one(int64_t i, const CandidateList& list) {
        const int32_t* const document = list.document;
        const T* const inverses = documents_.inverse;
        T *const similarity = dots_, *const slope = slope_, *const inverse = inverse_;
        const int64_t n = list.count;
        find_dots_of(i, list);
        const T query_inverse = queries_.inverse[i];
        for (int64_t k = 0; k < n; ++k) inverse[k] = inverses[document[k]];
        for (int64_t k = 0; k < n; ++k) similarity[k] = similarity[k] * query_inverse * inverse[k];
        write_similarities<1>(i, list, similarity);
        if (t_.positives) return;

        const T positive = similarity[0];
        const T top = softmax_.top(static_cast<const T*>(similarity) + 1, n - 1, softmax_.sign * positive);
        const Sums negatives = softmax_.sum(static_cast<const T*>(similarity) + 1, n - 1, top, positive, slope + 1);
        const auto closed = softmax_.close(positive, top, negatives, t_.terms.row_weight);
        int32_t self_hits = -1;
        for (int64_t k = 0; k < n; ++k) self_hits += document[k] == document[0];
        add_numbers(i, closed.row, closed.grad_scale, negatives.rank, self_hits);

        const T share = static_cast<T>(closed.share);
        slope[0] = static_cast<T>(closed.positive_slope);
        for (int64_t k = 1; k < n; ++k) slope[k] *= share;
        T* const coefficient = similarity;
        for (int64_t k = 0; k < n; ++k) coefficient[k] = slope[k] * query_inverse;
        write_arcs<1>(i, list, coefficient);
        for (int64_t k = 0; k < n; ++k) coefficient[k] = slope[k] * inverse[k];
        write_gradient<1>(i, list, coefficient);
    }

    // Numbers of sixteen queries: slot k of query g at k * kListed + g.
    void gather_side_by_side(Range range) {
        alignas(64) T slots[kListed] = {}, query_inverse[kListed] = {};
        int32_t self_hits[kListed] = {};
        int64_t most = 0;
        for (int64_t g = 0; g < range.count(); ++g) most = most < lists_[g].count ? lists_[g].count : most;
        for (int64_t g = 0; g < kListed; ++g) {
            T *const similarity = slope_ + g, *const inverse = inverse_ + g;
            int64_t n = 0;
            if (g < range.count()) {
                const int64_t i = range.begin + g;
                const CandidateList list = lists_[g];
                const int32_t* const document = list.document;
                const T *const inverses = documents_.inverse, *const dots = dots_;
                find_dots_of(i, list);
                const T own = query_inverse[g] = queries_.inverse[i];
                int32_t hits = -1;
                n = list.count;
#pragma GCC unroll 4
                for (int64_t k = 0; k < n; ++k) {
                    const T x = inverses[document[k]];
                    hits += document[k] == document[0];
                    inverse[k * kListed] = x;
                    similarity[k * kListed] = dots[k] * own * x;
                }
                slots[g] = static_cast<T>(n);
                self_hits[g] = hits;
                write_similarities<kListed>(i, list, similarity);
            }
            for (int64_t k = n; k < most; ++k) {
                similarity[k * kListed] = softmax_.sign * kAbsent<T>;
                inverse[k * kListed] = 0;
            }
        }
        find_slopes(range, most, slots, query_inverse, self_hits);
        for (int64_t g = 0; g < range.count(); ++g) {
            write_arcs<kListed>(range.begin + g, lists_[g], slope_ + g);
            write_gradient<kListed>(range.begin + g, lists_[g], inverse_ + g);
        }
    }

    // PlainSoftmax in lanes of queries. Similarities become slopes over the queries' norms, and inverse norms of
    // documents slopes times these. Chains of a lane are as long as there: over to double every 32 negatives.
    void find_slopes(Range range, int64_t most, const T* slots, const T* query_inverse, const int32_t* self_hits) {
        const Lanes<T> sign = broadcast(softmax_.sign), size = broadcast(softmax_.size),
                       factor = broadcast(softmax_.factor), zero = broadcast(T(0)), one = broadcast(T(1));
        alignas(64) T tops[kListed], positive_exp[kListed], share[kListed], positive_slope[kListed], lanes[3][kListed];
        alignas(64) double sum[kListed] = {}, moment[kListed] = {}, rank[kListed] = {};
        alignas(64) double gap[kListed], grad_scale[kListed];
        for (int64_t g = 0; g < kListed; g += kLanes<T>) {
            T* const column = slope_ + g;
            const auto similarity = [=](int64_t k) { return load(static_cast<const T*>(column) + k * kListed); };
            const Lanes<T> positive = similarity(0), a = positive * sign, threshold = positive * factor;
            Lanes<T> top = a;
            for (int64_t k = 1; k < most; ++k) top = larger(top, similarity(k) * sign);
            store(tops + g, top);
            store(positive_exp + g, exp_nonpositive((a - top) * size));
            for (int64_t from = 1; from < most; from += 32) {
                const int64_t to = most - from < 32 ? most : from + 32;
                Lanes<T> exps = zero, moments = zero, ranks = zero;
                for (int64_t k = from; k < to; ++k) {
                    const Lanes<T> s = similarity(k);
                    Lanes<T> held;
                    const Lanes<T> e = exp_nonpositive((s * sign - top) * size, held);
                    const Lanes<T> beats = select_less(s * factor, threshold, zero, one);
                    store(column + k * kListed, e);
                    exps = exps + e;
                    moments = multiply_add(e, held, moments);
                    ranks = ranks + select_less(broadcast(static_cast<T>(k)), load(slots + g), beats, zero);
                }
                store(lanes[0] + g, exps);
                store(lanes[1] + g, moments);
                store(lanes[2] + g, ranks);
                for (int64_t l = g; l < g + kLanes<T>; ++l) {
                    sum[l] += static_cast<double>(lanes[0][l]);
                    moment[l] += static_cast<double>(lanes[1][l]);
                    rank[l] += static_cast<double>(lanes[2][l]);
                }
            }
        }
        const double exact_size = softmax_.exact_size;
        for (int64_t g = 0; g < kListed; ++g) {
            gap[g] = static_cast<double>(tops[g]) - static_cast<double>(softmax_.sign * slope_[g]);
            const double each = t_.terms.row_weight / (static_cast<double>(positive_exp[g]) + sum[g]);
            grad_scale[g] = static_cast<double>(softmax_.sign) * each * (moment[g] / exact_size + sum[g] * gap[g]);
            share[g] = static_cast<T>(each);
            positive_slope[g] = static_cast<T>(-each * sum[g]);
        }
        for (int64_t g = 0; g < range.count(); ++g)
            add_numbers(range.begin + g, {gap[g] * exact_size, static_cast<double>(positive_exp[g]), sum[g]},
                        grad_scale[g], rank[g], self_hits[g]);
        for (int64_t g = 0; g < kListed; g += kLanes<T>) {
            T *const column = slope_ + g, *const inverse = inverse_ + g;
            const Lanes<T> shares = load(static_cast<const T*>(share) + g), own = load(query_inverse + g);
            Lanes<T> slope = load(static_cast<const T*>(positive_slope) + g);
            for (int64_t k = 0;;) {
                store(column + k * kListed, slope * own);
                store(inverse + k * kListed, slope * load(static_cast<const T*>(inverse) + k * kListed));
                if (++k == most) break;
                slope = load(static_cast<const T*>(column) + k * kListed) * shares;
            }
        }
    }

    const negcos::Gather<E>& t_;
    const negcos::Rows<E>&queries_, &documents_;
    const PlainSoftmax<T> softmax_;
    LossWriter<E, PlainRow> writer_;
    negcos::Totals totals_;
    const bool side_by_side_;
    const int64_t list_;
    T *const query_, *const total_, *const dots_, *const slope_, *const inverse_;
    CandidateLists lists_;
};

}  // namespace

#endif
