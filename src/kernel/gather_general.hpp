// SPDX-License-Identifier: Apache-2.0
//
// The queries' side of the gather for the general loss: hard negatives at the end of each query's list, and nested
// prefixes.
#ifndef NEGCOS_KERNEL_GATHER_GENERAL_HPP
#define NEGCOS_KERNEL_GATHER_GENERAL_HPP

#include "kernel/gather_lists.hpp"
#include "kernel/general_loss.hpp"
#include "kernel/gradients.hpp"
#include "work.hpp"

namespace {

constexpr int64_t kMostTogether = 8;

// Queries taken together: as many as have their rows in half of a small first-level cache. Each pass over one query is
// a chain of latencies (horizontal sums, exp, a division) that the next query's work can hide.
template <class E>
int64_t queries_together(int64_t dim, int64_t slots) {
    const int64_t together = (16 << 10) / static_cast<int64_t>(sizeof(E)) / (dim > 0 ? dim : 1) / slots;
    return together < 1 ? 1 : together > kMostTogether ? kMostTogether : together;
}

// A task's queries.
template <class E>
class GeneralQueryWalk {
    using T = Working<E>;

    // A query's edges: the documents of its list, then its hard negatives. Of each prefix a list of similarities, of
    // slopes, and of the ratios of both rows' norms to those of the prefix before.
    struct Edges {
        CandidateList list;
        int64_t count;  // with the hard negatives
        T *similarity, *slope, *ratio, *correction;
        double* moment;  // of each prefix: sum of slopes times similarities
    };

public:
    // Elements of scratch of one query.
    static int64_t edges_size(const negcos::Gather<E>& t) {
        return (3 * t.prefix_count + 1) * list_of(t) + pad_lanes<T>(2 * t.prefix_count);
    }
    static int64_t scratch_size(const negcos::Gather<E>& t) {
        return 2 * padded_columns(t.prefixes, t.prefix_count) + (2 + 2 * kListed) * list_of(t) +
               together_of(t) * edges_size(t);
    }

    GeneralQueryWalk(const negcos::Gather<E>& work, T* scratch)
        : t_(work),
          levels_(work.terms),
          writer_(work.outputs),
          hard_(work.terms.hard),
          record_(negcos::edge_record(work.prefix_count)),
          list_(list_of(work)),
          together_(together_of(work)),
          query_(scratch),
          total_(query_ + padded_columns(work.prefixes, work.prefix_count)),
          buffer_(total_ + padded_columns(work.prefixes, work.prefix_count)),
          hard_rows_(reinterpret_cast<int32_t*>(buffer_ + list_)),
          lists_(work.candidates, work.terms, hard_rows_ + list_, list_) {
        T* at = buffer_ + (2 + 2 * kListed) * list_;
        for (int64_t g = 0; g < together_; ++g, at += edges_size(t_)) {
            Edges& e = edges_[g];
            e.similarity = at;
            e.slope = e.similarity + t_.prefix_count * list_;
            e.ratio = e.slope + t_.prefix_count * list_;
            e.correction = e.ratio + t_.prefix_count * list_;
            e.moment = reinterpret_cast<double*>(e.correction + list_);
        }
    }

    negcos::Totals run(Range range) {
        for (int64_t i = range.begin; i < range.end; i += kListed) {
            const Range some{i, range.end - i < kListed ? range.end : i + kListed};
            lists_.read(some);
            for (int64_t g = 0; g < some.count(); g += together_)
                walk({g, some.count() - g < together_ ? some.count() : g + together_}, i);
        }
        writer_.flush(totals_);
        return totals_;
    }

private:
    static int64_t slots_of(const negcos::Gather<E>& t) { return t.candidates.slots() + t.terms.hard; }
    static int64_t list_of(const negcos::Gather<E>& t) { return list_size<T>(slots_of(t)); }
    static int64_t together_of(const negcos::Gather<E>& t) { return queries_together<E>(t.dim, slots_of(t)); }

    // Some of those listed, the first of which is `begin`.
    void walk(Range listed, int64_t begin) {
        const bool linked = t_.arcs || t_.hard_slopes || t_.outputs.grad_queries.data;
        for (int64_t g = listed.begin; g < listed.end; ++g) {
            Edges& e = edges_[g - listed.begin];
            e.list = lists_[g];
            e.count = e.list.count + hard_;
            find_similarities(begin + g, e);
        }
        for (int64_t g = listed.begin; g < listed.end; ++g) find_slopes(begin + g, edges_[g - listed.begin]);
        if (!linked) return;
        for (int64_t g = listed.begin; g < listed.end; ++g) link_slopes(begin + g, edges_[g - listed.begin]);
        if (!t_.outputs.grad_queries.data) return;
        for (int64_t g = listed.begin; g < listed.end; ++g) find_gradient(begin + g, edges_[g - listed.begin]);
    }

    // visit(rows, their list, the first one's edge, their number): the documents, then the hard negatives.
    template <class Visit>
    void each_part(int64_t i, const Edges& e, const Prefix<E>& prefix, const Visit& visit) {
        visit(prefix.documents, e.list.document, int64_t{0}, e.list.count);
        if (hard_ == 0) return;
        for (int64_t h = 0; h < hard_ + kBehind; ++h)
            hard_rows_[h] = static_cast<int32_t>(i * hard_ + (h < hard_ ? h : 0));
        visit(prefix.hard, static_cast<const int32_t*>(hard_rows_), e.list.count, hard_);
    }

    // Of each prefix: those of the prefix before times both ratios, plus dot products over both norms.
    void find_similarities(int64_t i, Edges& e) {
        for (int64_t p = 0; p < t_.prefix_count; ++p) {
            const Prefix<E>& prefix = t_.prefixes[p];
            T *const similarity = e.similarity + p * list_, *const ratio = e.ratio + p * list_;
            const T* const before = similarity - list_;
            load_query(prefix.queries, i, prefix.dim, query_);
            const T inverse = prefix.queries.inverse[i];
            each_part(i, e, prefix, [&](const negcos::Rows<E>& rows, const int32_t* row, int64_t at, int64_t n) {
                T* const dots = buffer_;
                find_dots(rows, prefix.dim, row, n, static_cast<const T*>(query_), dots);
                for (int64_t k = 0; k < n; ++k) similarity[at + k] = dots[k] * inverse * rows.inverse[row[k]];
                if (p == 0) return;
                const T own = prefix.queries.norm_ratio[i];
                for (int64_t k = 0; k < n; ++k) ratio[at + k] = own * rows.norm_ratio[row[k]];
                for (int64_t k = at; k < at + n; ++k) similarity[k] += before[k] * ratio[k];
            });
            // Whole lanes from the first negative on.
            for (int64_t k = e.count; k < 1 + pad_lanes<T>(e.count - 1); ++k) similarity[k] = kAbsent<T>;
        }
        each_arc(t_, i, e.list, record_, [](int64_t, const auto* arc) { __builtin_prefetch(arc, 1); });
        if (!t_.terms.correction) return;
        const T* const correction = t_.terms.correction;
        e.correction[0] = t_.terms.correct_positive ? correction[e.list.document[0]] : T(0);
        for (int64_t k = 1; k < e.list.count; ++k) e.correction[k] = correction[e.list.document[k]];
        for (int64_t k = e.list.count; k < 1 + pad_lanes<T>(e.count - 1); ++k) e.correction[k] = 0;
    }

    void write_logits(int64_t i, const General<T>& row, const T* similarity, const Edges& e) {
        E* out = t_.outputs.logits.data + i * t_.outputs.logits.stride;
        const int64_t slots = t_.candidates.slots();
        const auto logit = [&](int64_t k) {
            return to_element<E>(row.logit(similarity[k], t_.terms.correction ? e.correction[k] : T(0)));
        };
        for (int64_t k = 0; k < slots; ++k) out[k] = to_element<E>(kAbsent<T>);
        out[0] = to_element<E>(row.logit_of_positive());
        for (int64_t k = 1; k < e.list.count; ++k) out[e.list.slot[k]] = logit(k);
        for (int64_t h = 0; h < hard_; ++h) out[slots + h] = logit(e.list.count + h);
    }

    // The losses of query i, and d loss / d z of its edges.
    void find_slopes(int64_t i, Edges& e) {
        const negcos::LossTerms<T>& terms = t_.terms;
        const double query_weight = terms.weights ? terms.weights[i] : 1.0;
        const int64_t negatives = e.count - 1;
        const T* correction = terms.correction ? e.correction + 1 : nullptr;
        double loss = 0;
        for (int64_t p = 0; p < t_.prefix_count; ++p) {
            const Prefix<E>& prefix = t_.prefixes[p];
            const T* similarity = e.similarity + p * list_;
            T* slope = e.slope + p * list_;
            const General<T> row(terms, levels_, similarity[0], terms.correction ? e.correction[0] : T(0));
            const T top = row.row_top(row.top(similarity + 1, correction, negatives));
            const Sums sums = row.sum(similarity + 1, correction, nullptr, negatives, top);
            const auto closed = row.close(top, sums, prefix.weight * query_weight / terms.total_weight);
            row.slopes(similarity + 1, correction, nullptr, negatives, closed.share, slope + 1);
            slope[0] = static_cast<T>(closed.positive_slope);
            e.moment[p] = closed.moment;
            loss += prefix.weight * closed.loss;
            if (query_weight != 0) totals_.grad_scale.add(closed.grad_scale);
            if (query_weight != 0) totals_.grad_bias.add(closed.total);
            if (p + 1 == t_.prefix_count) {
                // Drawn as its own negative, the positive outranks nobody.
                int64_t rank = static_cast<int64_t>(sums.rank);
                for (int64_t k = 1; k < e.list.count; ++k)
                    if (e.list.document[k] == e.list.document[0])
                        rank -= row.outranked_by(similarity[k], correction ? correction[k - 1] : T(0));
                totals_.rank_zero += rank == 0;
                totals_.reciprocal_rank.add(1.0 / (1.0 + static_cast<double>(rank)));
                totals_.excluded += e.list.excluded + static_cast<int64_t>(sums.dropped);
                if (t_.outputs.logits.data) write_logits(i, row, similarity, e);
            }
        }
        writer_.add(i, query_weight, {loss}, totals_);
        if (query_weight == 0)  // also where it met NaN
            for (int64_t p = 0; p < t_.prefix_count; ++p)
                memset(e.slope + p * list_, 0, sizeof(T) * static_cast<size_t>(e.count));
    }

    // number(k) of all edges, as number `at` of their records.
    template <class Number>
    void record(int64_t i, const Edges& e, int64_t at, bool over_norm, const Number& number) {
        const T inverse = over_norm ? t_.prefixes[at].queries.inverse[i] : T(1);
        each_arc(t_, i, e.list, record_, [&](int64_t k, negcos::Arc<T>* arc) {
            const T x = number(k);
            arc[at] = {static_cast<int32_t>(i), x == 0 ? 0 : x * inverse};
        });
        for (int64_t h = 0; t_.hard_slopes && h < hard_; ++h)
            t_.hard_slopes[(i * hard_ + h) * record_ + at] = number(e.list.count + h);
    }

    // From the slopes in each prefix's loss, in place, to those in the gradient of each prefix's columns; and the
    // records of the edges for the other side's gradients.
    void link_slopes(int64_t i, Edges& e) {
        const int64_t prefixes = t_.prefix_count;
        if (t_.arcs && e.list.excluded > 0) clear_arcs(i);
        for (int64_t p = prefixes - 1; p >= 0; --p) {
            const T *const similarity = e.similarity + p * list_, *const ratio = e.ratio + (p + 1) * list_;
            T* const slope = e.slope + p * list_;
            if (prefixes > 1)
                record(i, e, prefixes + p, false,
                       [&](int64_t k) { return slope[k] == 0 ? T(0) : slope[k] * similarity[k]; });
            if (prefixes > 1 && t_.prefixes[p].has_zero_rows) {
                const T nonzero = t_.prefixes[p].queries.nonzero[i];
                each_part(i, e, t_.prefixes[p],
                          [&](const negcos::Rows<E>& rows, const int32_t* row, int64_t at, int64_t n) {
                              for (int64_t k = 0; k < n; ++k) slope[at + k] *= nonzero * rows.nonzero[row[k]];
                          });
            }
            if (p + 1 < prefixes)
                for (int64_t k = 0; k < e.count; ++k) slope[k] += slope[list_ + k] * ratio[k];
            record(i, e, p, true, [&](int64_t k) { return slope[k]; });
        }
    }

    // Of all negatives, as those that are excluded have places too.
    void clear_arcs(int64_t i) {
        const int32_t* negatives = t_.candidates.negatives + i * t_.candidates.row_stride;
        for (int64_t r = 0; r < t_.candidates.rounds; ++r)
            if (const int32_t j = negatives[r * t_.candidates.round_stride]; j >= 0) {
                negcos::Arc<T>* arc = t_.arcs + t_.lists.place(i, 1 + r, j) * record_;
                for (int64_t p = 0; p < record_; ++p) arc[p] = {static_cast<int32_t>(i), 0};
            }
    }

    void find_gradient(int64_t i, Edges& e) {
        E* const gradient = t_.outputs.grad_queries.data + i * t_.outputs.grad_queries.stride;
        if (t_.terms.weights && t_.terms.weights[i] == 0) return clear_rest(gradient, 0, t_.dim);
        for (int64_t p = 0, column = 0; p < t_.prefix_count; column += pad_lanes<T>(t_.prefixes[p++].dim)) {
            const Prefix<E>& prefix = t_.prefixes[p];
            const T* slope = e.slope + p * list_;
            each_part(i, e, prefix, [&](const negcos::Rows<E>& rows, const int32_t* row, int64_t at, int64_t n) {
                T* const coefficient = buffer_;
                for (int64_t k = 0; k < n; ++k) coefficient[k] = slope[at + k] * rows.inverse[row[k]];
                accumulate(total_ + column, at > 0, rows, prefix.dim, ListedEdges<T, 1>{row, coefficient}, n);
            });
        }
        finish_row(t_.prefixes, t_.prefix_count, &Prefix<E>::queries, i, t_.dim, static_cast<const T*>(total_),
                   e.moment, static_cast<T>(t_.terms.factor), gradient);
    }

    const negcos::Gather<E>& t_;
    const Levels<T> levels_;
    LossWriter<E, GeneralRow<T>> writer_;
    negcos::Totals totals_;
    const int64_t hard_, record_, list_, together_;
    T *const query_, *const total_, *const buffer_;
    int32_t* const hard_rows_;
    CandidateLists lists_;
    Edges edges_[kMostTogether];
};

template <class E>
int64_t general_gather_scratch(const negcos::Gather<E>& t) {
    return GeneralQueryWalk<E>::scratch_size(t);
}

}  // namespace

#endif
