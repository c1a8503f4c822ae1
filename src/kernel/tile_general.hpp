// SPDX-License-Identifier: Apache-2.0
//
// The inner loops of tiles for the general loss: nested prefixes, hard negatives beside the documents, and softmaxes
// over columns for both directions. Slopes need a row's share, so all sums come first: similarities are kept, and
// slopes found from them again in their place.
#ifndef NEGCOS_KERNEL_TILE_GENERAL_HPP
#define NEGCOS_KERNEL_TILE_GENERAL_HPP

#include "kernel/general_loss.hpp"
#include "kernel/gradients.hpp"
#include "kernel/tile.hpp"

namespace {

using negcos::kColumnFields;
using negcos::kStripsPerTask;
using negcos::RowEnd;

// A loss's weight in the total: half for each direction of two.
template <class E>
double weight_of(const Tiles<E>& t, int64_t p, int64_t i) {
    const double weight = t.terms.weights ? t.terms.weights[i] : 1.0;
    return (t.both ? 0.5 : 1.0) * t.prefixes[p].weight * weight / t.terms.total_weight;
}

// A weight of 0 takes a query out of the total and the gradients, whatever it has met.
template <class E>
bool takes_no_part(const Tiles<E>& t, int64_t i) {
    return t.terms.weights && t.terms.weights[i] == 0;
}

// What is no negative of query i among rows [begin, begin + n), out of the way: of a lane of a strip. Returns how many
// an exclusion took.
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
        const int64_t at = (*next - begin) * kLanes<T>;
        if (scores[at] == kAbsent<T>) continue;
        scores[at] = kAbsent<T>;
        taken += counts ? static_cast<double>(counts[at]) : 1;
    }
    return taken;
}

// What is known of a strip of queries at one prefix, a lane each: as in General, and their sums, relative to `top`.
// That starts at the positive's logit where this is part of the softmax, and rises as the shift of PlainStrip does.
template <class T>
struct GeneralStrip {
    alignas(64) T similarity[kLanes<T>], positive[kLanes<T>], least[kLanes<T>], limit[kLanes<T>], top[kLanes<T>];
    alignas(64) double moment[kLanes<T>];  // of several prefixes: of slopes times similarities
    Sums sums[kLanes<T>];
};

// Scalars of General, in all lanes.
template <class T>
struct EdgeLevels {
    Lanes<T> factor, size, most, bias, similarity, positive, least, limit;

    // Of a strip's queries.
    EdgeLevels(const Levels<T>& levels, const LossTerms<T>& t, const GeneralStrip<T>& e)
        : factor(broadcast(levels.factor)),
          size(broadcast(levels.size)),
          most(broadcast(levels.largest)),
          bias(broadcast(static_cast<T>(t.bias))),
          similarity(load(static_cast<const T*>(e.similarity))),
          positive(load(static_cast<const T*>(e.positive))),
          least(load(static_cast<const T*>(e.least))),
          limit(load(static_cast<const T*>(e.limit))) {}
    // Of one row, such as a document's.
    explicit EdgeLevels(const General<T>& row)
        : factor(broadcast(row.levels.factor)),
          size(broadcast(row.levels.size)),
          most(broadcast(row.levels.largest)),
          bias(broadcast(row.bias)),
          similarity(broadcast(row.similarity)),
          positive(broadcast(row.positive)),
          least(broadcast(row.least)),
          limit(broadcast(row.limit)) {}

    template <EdgeKind kKind>
    Lanes<T> of(const Lanes<T>& s, const Lanes<T>& correction) const {
        return negative_level<kKind>(s, factor, correction, limit, most);
    }
    template <EdgeKind kKind, bool kRank>
    void add_to(EdgeLanes<kKind, kRank, T>& lanes, const Lanes<T>& s, const Lanes<T>& u, const Lanes<T>& count,
                const Lanes<T>& shift) const {
        lanes.add(s, u, count, shift, size, bias, similarity, positive, least, limit);
    }
    Lanes<T> exp_between(const Lanes<T>& level, const Lanes<T>& top) const {
        return exp_nonpositive((level - top) * size);
    }
};

// The general loss of the strips of a task.
template <class E>
class GeneralTileTask : TileTask<E> {
    using Task = TileTask<E>;
    using Task::counts_of, Task::in_wave, Task::place_, Task::query_of, Task::rows_of, Task::scores_of, Task::strips_,
        Task::t_;
    using typename Task::T;
    using Strip = GeneralStrip<T>;

public:
    static int64_t state_size(int64_t prefix_count, int64_t chunk) {
        return prefix_count * kStripsPerTask * static_cast<int64_t>(sizeof(Strip) / sizeof(T)) + 2 * chunk * kLanes<T>;
    }

    // scratch: tile_scratch() elements.
    GeneralTileTask(const Tiles<E>& t, int64_t place, int64_t first, Range strips, T* scratch)
        : Task(t, place, first, strips),
          terms_(t.terms),
          levels_(t.terms),
          kind_(kind_of(t.terms)),
          common_top_(t.both ? common_top(t.terms) : T(0)),
          state_(reinterpret_cast<Strip*>(scratch)),
          columns_(scratch + state_size(t.prefix_count, 0)),
          scratch_(scratch + state_size(t.prefix_count, t.chunk)) {
        each([&](int64_t p, int64_t s) { start(p, s); });
    }

    void sums() {
        for (int64_t chunk = 0; chunk < t_.chunks; ++chunk) {
            similarities(chunk, true);
            for (int64_t p = 0; p < t_.prefix_count; ++p) {
                if (common_top_ > 0) {
                    sum_both(p, chunk);
                    continue;
                }
                for (int64_t s = strips_.begin; s < strips_.end; ++s) {
                    const T* const correction = terms_.correction ? terms_.correction + chunk * t_.chunk : nullptr;
                    sum_edges(strip(p, s), scores_of(p, chunk, s), t_.documents_in(chunk), correction,
                              counts_of(chunk, s));
                    spare_positives(p, chunk, s);
                }
                if (t_.both) with_kind(kind_, [&](auto kind) { sum_columns<decltype(kind)::value>(p, chunk); });
            }
            if (t_.outputs.logits.data) logits(chunk);
        }
        for (int64_t s = strips_.begin; s < strips_.end; ++s)
            for (int64_t l = 0; l < rows_of(s); ++l) close(s, l);
    }

    // `again`: similarities are those of other queries by now.
    void slopes(bool again) {
        each([&](int64_t p, int64_t s) {
            for (double& moment : strip(p, s).moment) moment = 0;
            if (t_.outputs.grad_documents.data) this->share_units(p, s, [](int64_t) { return T(1); });
        });
        for (int64_t chunk = 0; chunk < t_.chunks; ++chunk) {
            if (again) similarities(chunk, false);
            for (int64_t p = 0; p < t_.prefix_count; ++p) {
                if (t_.prefix_count > 1) memset(columns_, 0, sizeof(T) * static_cast<size_t>(t_.chunk * kLanes<T>));
                for (int64_t s = strips_.begin; s < strips_.end; ++s) slopes(p, chunk, s);
                if (t_.tiles[p].document_moment) store_moments(p, chunk);
            }
            for (int64_t p = t_.prefix_count - 1; p >= 0; --p) {
                if (p + 1 < t_.prefix_count)
                    for (int64_t s = strips_.begin; s < strips_.end; ++s) add_longer_prefix(p, chunk, s);
                for (int64_t c = 0; t_.outputs.grad_queries.data && c < t_.prefixes[p].dim; c += kChainColumns)
                    for_each_strips(strips_.begin, strips_.end, [&](int64_t s, auto together) {
                        this->multiply_gradient(together, p, chunk, s, c, nullptr);
                    });
            }
        }
        for (int64_t s = strips_.begin; s < strips_.end && t_.outputs.grad_queries.data; ++s) finish(s);
    }

private:
    template <class Body>
    void each(Body&& body) {
        for (int64_t p = 0; p < t_.prefix_count; ++p)
            for (int64_t s = strips_.begin; s < strips_.end; ++s) body(p, s);
    }
    Strip& strip(int64_t p, int64_t s) { return state_[p * kStripsPerTask + s - strips_.begin]; }
    T* part_of(int64_t p, int64_t field) {
        const int64_t task = place_ * t_.tasks() + strips_.begin / kStripsPerTask;
        return t_.tiles[p].column_parts + (task * kColumnFields + field) * t_.document_count();
    }
    T correction_of_positive(int64_t i) const {
        return terms_.correct_positive ? terms_.correction[t_.candidates.positive(i)] : T(0);
    }
    General<T> row_of(int64_t p, int64_t i) const {
        return General<T>(terms_, levels_, t_.tiles[p].positives[i], correction_of_positive(i));
    }

    void start(int64_t p, int64_t s) {
        Strip& e = strip(p, s);
        e = Strip();
        for (int64_t l = 0; l < kLanes<T>; ++l) {
            const int64_t i = query_of(s) + l;
            const General<T> row = l < rows_of(s) ? row_of(p, i) : General<T>(terms_, levels_, T(0), T(0));
            e.similarity[l] = row.similarity;
            e.positive[l] = row.positive;
            e.least[l] = row.least;
            e.limit[l] = row.limit;
            const bool of_softmax = terms_.objective == Objective::softmax && row.positive == row.positive;
            e.top[l] = common_top_ > 0 ? common_top_ : of_softmax ? row.positive : static_cast<T>(-kLargestNumber<T>);
        }
    }

    // Of all prefixes with one chunk; -Inf where there is no edge.
    void similarities(int64_t chunk, bool count_dropped) {
        const int64_t n = t_.documents_in(chunk);
        for (int64_t p = 0; p < t_.prefix_count; ++p) {
            const Prefix<E>& prefix = t_.prefixes[p];
            for (int64_t s = strips_.begin; s < strips_.end && p > 0; ++s) {
                const T* const before = scores_of(p - 1, chunk, s);
                T* const scores = scores_of(p, chunk, s);
                const Lanes<T> ratio =
                    load_first(prefix.queries.norm_ratio + query_of(s), static_cast<int>(rows_of(s)));
                const T* const ratios = prefix.documents.norm_ratio + chunk * t_.chunk;
                for (int64_t r = 0; r < n; ++r)
                    store(scores + r * kLanes<T>, load(before + r * kLanes<T>) * (ratio * broadcast(ratios[r])));
            }
            for (int64_t c = 0; c == 0 || c < prefix.dim; c += kChainColumns)
                for_each_strips(strips_.begin, strips_.end, [&](int64_t s, auto together) {
                    this->multiply_scores(together, p, chunk, s, c, {0, n}, p > 0);
                });
        }
        each([&](int64_t p, int64_t s) { mask(p, chunk, s, count_dropped); });
    }

    void mask(int64_t p, int64_t chunk, int64_t s, bool count_dropped) {
        const int64_t n = t_.documents_in(chunk), begin = chunk * t_.chunk;
        const T* const counts = counts_of(chunk, s);
        T* const scores = scores_of(p, chunk, s);
        const auto fill = [&](int64_t l, T value) {
            for (int64_t r = 0; r < n; ++r) scores[r * kLanes<T> + l] = value;
        };
        for (int64_t l = 0; l < rows_of(s); ++l)
            if (t_.tiles[p].nonfinite[query_of(s) + l] != 0) fill(l, kNan<T>);
        for (int64_t l = rows_of(s); l < kLanes<T>; ++l) fill(l, kAbsent<T>);
        if (counts) {
            for (int64_t k = 0; k < n * kLanes<T>; k += kLanes<T>)
                store(scores + k, select_less(load(counts + k), broadcast(T(1)), broadcast(kAbsent<T>),
                                              load(static_cast<const T*>(scores) + k)));
        } else {
            this->for_each_positive(chunk, s, {0, n},
                                    [&](int64_t l, int64_t row) { scores[row * kLanes<T> + l] = kAbsent<T>; });
        }
        if (!terms_.same_document.group && !terms_.same_query.group) return;
        for (int64_t l = 0; l < rows_of(s); ++l) {
            const int64_t i = query_of(s) + l;
            const T* const lane_counts = counts ? counts + l : nullptr;
            const double dropped = exclude_from(terms_.same_document, i, begin, n, lane_counts, scores + l) +
                                   exclude_from(terms_.same_query, i, begin, n, lane_counts, scores + l);
            // Exclusions by id are alike in both directions.
            if (count_dropped) strip(p, s).sums[l].dropped += t_.both ? 2 * dropped : dropped;
        }
    }

    // n edges of each lane. correction: of each row, nullptr = none; counts: how often each counts, nullptr = once.
    void sum_edges(Strip& e, const T* scores, int64_t n, const T* correction, const T* counts) {
        with_kind(kind_, [&](auto kind) {
            constexpr EdgeKind kKind = decltype(kind)::value;
            if constexpr (kKind != EdgeKind::sigmoid) raise_top<kKind>(e, scores, n, correction);
            counts ? sum_edges_of<kKind, true>(e, scores, n, correction, counts)
                   : sum_edges_of<kKind, false>(e, scores, n, correction, counts);
        });
    }

    template <EdgeKind kKind>
    void raise_top(Strip& e, const T* scores, int64_t n, const T* correction) {
        if (common_top_ > 0) return;
        const EdgeLevels<T> levels(levels_, terms_, e);
        Lanes<T> top = broadcast(kAbsent<T>);
        for (int64_t r = 0; r < n; ++r)
            top = larger(top, levels.template of<kKind>(load(scores + r * kLanes<T>),
                                                        broadcast(correction ? correction[r] : T(0))));
        const Lanes<T> before = load(static_cast<const T*>(e.top)), most = broadcast(kMostAbove<T>);
        const Lanes<T> now = select_less(most, (top - before) * levels.size, top, before);
        alignas(64) T scale[kLanes<T>];
        store(static_cast<T*>(scale), levels.exp_between(before, now));
        store(static_cast<T*>(e.top), now);
        for (int64_t l = 0; l < kLanes<T>; ++l)
            if (scale[l] != 1) e.sums[l].rescale(static_cast<double>(scale[l]));
    }

    template <EdgeKind kKind, bool kCounted>
    void sum_edges_of(Strip& e, const T* scores, int64_t n, const T* correction, const T* counts) {
        const EdgeLevels<T> levels(levels_, terms_, e);
        const Lanes<T> shift = load(static_cast<const T*>(e.top)), one = broadcast(T(1));
        EdgeLanes<kKind, true, T> lanes;
        for (int64_t r = 0; r < n; ++r) {
            const Lanes<T> s = load(scores + r * kLanes<T>);
            const Lanes<T> u = levels.template of<kKind>(s, broadcast(correction ? correction[r] : T(0)));
            levels.add_to(lanes, s, u, kCounted ? load(counts + r * kLanes<T>) : one, shift);
        }
        const auto add = [&](const Lanes<T>& sum, double Sums::*field) {
            alignas(64) T lane[kLanes<T>];
            store(static_cast<T*>(lane), sum);
            for (int64_t l = 0; l < kLanes<T>; ++l) e.sums[l].*field += static_cast<double>(lane[l]);
        };
        add(lanes.sum, &Sums::sum);
        add(lanes.moment, &Sums::moment);
        add(lanes.rank, &Sums::rank);
        if constexpr (kKind == EdgeKind::unmasked) return;
        add(lanes.dropped, &Sums::dropped);
        if constexpr (kKind == EdgeKind::sigmoid) add(lanes.sigma, &Sums::sigma);
        if constexpr (kKind != EdgeKind::smoothed) return;
        add(lanes.spread, &Sums::spread);
        add(lanes.reach, &Sums::reach);
        add(lanes.kept, &Sums::kept);
    }

    // Drawn as its own negative, the positive outranks nobody.
    void spare_positives(int64_t p, int64_t chunk, int64_t s) {
        const T* const counts = counts_of(chunk, s);
        if (!counts) return;
        const T* const scores = scores_of(p, chunk, s);
        this->for_each_positive(chunk, s, {0, t_.documents_in(chunk)}, [&](int64_t l, int64_t row) {
            const int64_t at = row * kLanes<T> + l;
            const T correction = terms_.correction ? terms_.correction[chunk * t_.chunk + row] : T(0);
            if (counts[at] > 0 && row_of(p, query_of(s) + l).outranked_by(scores[at], correction))
                strip(p, s).sums[l].rank -= static_cast<double>(counts[at]);
        });
    }

    // Sums of the rows and the columns at once, where one exp serves both.
    void sum_both(int64_t p, int64_t chunk) {
        const int64_t n = t_.documents_in(chunk), begin = chunk * t_.chunk;
        T *const sums = columns_, *const moments = columns_ + t_.chunk * kLanes<T>;
        memset(columns_, 0, sizeof(T) * static_cast<size_t>(2 * t_.chunk * kLanes<T>));
        const T* const positives = t_.tiles[p].positives + begin;
        const Lanes<T> zero = broadcast(T(0)), one = broadcast(T(1)), shift = broadcast(common_top_);
        const Lanes<T> lowest = broadcast(static_cast<T>(-kLargestNumber<T>));
        for (int64_t s = strips_.begin; s < strips_.end; ++s) {
            const T* const scores = scores_of(p, chunk, s);
            Strip& e = strip(p, s);
            const EdgeLevels<T> levels(levels_, terms_, e);
            Lanes<T> sum = zero, moment = zero, rank = zero;
            for (int64_t r = 0; r < n; ++r) {
                const int64_t k = r * kLanes<T>;
                const Lanes<T> similarity = load(scores + k),
                               u = levels.template of<EdgeKind::unmasked>(similarity, zero);
                const Lanes<T> exps = levels.exp_between(u, shift), finite = larger(similarity, lowest);
                sum = sum + exps;
                moment = multiply_add(exps, finite - levels.similarity, moment);
                rank = rank + zero_where_less(u, levels.least, one);
                store(sums + k, load(static_cast<const T*>(sums) + k) + exps);
                store(moments + k,
                      multiply_add(exps, finite - broadcast(positives[r]), load(static_cast<const T*>(moments) + k)));
            }
            alignas(64) T lane[3][kLanes<T>];
            store(static_cast<T*>(lane[0]), sum);
            store(static_cast<T*>(lane[1]), moment);
            store(static_cast<T*>(lane[2]), rank);
            for (int64_t l = 0; l < kLanes<T>; ++l) {
                e.sums[l].sum += static_cast<double>(lane[0][l]);
                e.sums[l].moment += static_cast<double>(lane[1][l]);
                e.sums[l].rank += static_cast<double>(lane[2][l]);
            }
        }
        for (int64_t r = 0; r < n; ++r) {
            T four[4];
            sum_four(load(static_cast<const T*>(sums) + r * kLanes<T>),
                     load(static_cast<const T*>(moments) + r * kLanes<T>), zero, zero, static_cast<T*>(four));
            part_of(p, 0)[begin + r] = common_top_;
            part_of(p, 1)[begin + r] = four[0];
            part_of(p, 2)[begin + r] = four[1];
            for (int64_t field = 3; field < kColumnFields; ++field) part_of(p, field)[begin + r] = 0;
        }
    }

    // Sums of the columns over the task's queries, relative to their own tops.
    template <EdgeKind kKind>
    void sum_columns(int64_t p, int64_t chunk) {
        const int64_t n = t_.documents_in(chunk), begin = chunk * t_.chunk;
        const Lanes<T> zero = broadcast(T(0)), one = broadcast(T(1));
        for (int64_t r = 0; r < n; ++r) {
            const int64_t j = begin + r;
            const EdgeLevels<T> levels(General<T>(terms_, levels_, t_.tiles[p].positives[j], T(0)));
            const auto similarities = [&](int64_t s) {
                return load(static_cast<const T*>(scores_of(p, chunk, s)) + r * kLanes<T>);
            };
            Lanes<T> tops = broadcast(kAbsent<T>);
            for (int64_t s = strips_.begin; s < strips_.end; ++s)
                tops = larger(tops, levels.template of<kKind>(similarities(s), zero));
            const T top = largest(tops);
            const Lanes<T> shift = broadcast(top == kAbsent<T> ? T(0) : top);
            EdgeLanes<kKind, false, T> lanes;
            for (int64_t s = strips_.begin; s < strips_.end; ++s)
                levels.add_to(lanes, similarities(s), levels.template of<kKind>(similarities(s), zero), one, shift);
            T sums[8];
            sum_four(lanes.sum, lanes.moment, lanes.spread, lanes.reach, static_cast<T*>(sums));
            sum_four(lanes.kept, lanes.dropped, zero, zero, sums + 4);
            part_of(p, 0)[j] = top;
            for (int64_t field = 1; field < kColumnFields; ++field) part_of(p, field)[j] = sums[field - 1];
        }
    }

    void logits(int64_t chunk) {
        const int64_t last = t_.prefix_count - 1, hard = terms_.hard;
        for (int64_t s = strips_.begin; s < strips_.end; ++s)
            for (int64_t l = 0; l < rows_of(s); ++l) {
                const int64_t i = query_of(s) + l;
                const General<T> row = row_of(last, i);
                tile_logits(t_, i, chunk, static_cast<const T*>(scores_of(last, chunk, s)) + l,
                            [&](T similarity, int64_t j) {
                                return row.logit(similarity, terms_.correction ? terms_.correction[j] : T(0));
                            });
                if (chunk > 0) continue;
                E* const out = t_.outputs.logits.data + i * t_.outputs.logits.stride;
                out[0] = to_element<E>(row.logit_of_positive());
                for (int64_t h = 0; h < hard; ++h)
                    out[t_.candidates.slots() + h] =
                        to_element<E>(row.logit(hard_of(last, s)[h * kLanes<T> + l], T(0)));
            }
    }

    // Similarities of a strip and its hard negatives: [hard negative][query].
    const T* hard_of(int64_t p, int64_t s) const {
        return t_.hard_similarities + (p * t_.padded_batch() + query_of(s)) * terms_.hard;
    }

    // A query's loss of all prefixes, and what its slopes come from.
    void close(int64_t s, int64_t l) {
        const int64_t i = query_of(s) + l, hard = terms_.hard, record = negcos::edge_record(t_.prefix_count);
        RowEnd end;
        for (int64_t p = 0; p < t_.prefix_count; ++p) {
            Strip& e = strip(p, s);
            if (l == 0 && hard > 0) sum_edges(e, hard_of(p, s), hard, nullptr, nullptr);
            const General<T> row = row_of(p, i);
            auto closed = row.close(e.top[l], e.sums[l], weight_of(t_, p, i));
            if (takes_no_part(t_, i)) {
                const double loss = closed.loss;
                closed = {};
                closed.loss = loss;
            }
            const TilePrefix<E>& tile = t_.tiles[p];
            tile.query_top[i] = closed.share.top;
            tile.query_share[i] = closed.share.share;
            tile.query_smooth[i] = closed.share.smooth;
            tile.positive_slope[i] = static_cast<T>(closed.positive_slope);
            end.loss += (t_.both ? 0.5 : 1.0) * t_.prefixes[p].weight * closed.loss;
            end.grad_scale += closed.grad_scale;
            end.grad_bias += closed.total;
            end.rank = static_cast<int64_t>(e.sums[l].rank);
            end.excluded = static_cast<int64_t>(e.sums[l].dropped);
            if (hard == 0) continue;

            T* const list = scratch_;
            for (int64_t h = 0; h < hard; ++h) list[h] = hard_of(p, s)[h * kLanes<T> + l];
            for (int64_t h = hard; h < pad_lanes<T>(hard); ++h) list[h] = kAbsent<T>;
            row.slopes(static_cast<const T*>(list), nullptr, nullptr, hard, closed.share, list);
            if (takes_no_part(t_, i)) memset(list, 0, sizeof(T) * static_cast<size_t>(hard));
            for (int64_t h = 0; h < hard; ++h) {
                T* const out = t_.hard_slopes + (i * hard + h) * record;
                out[p] = list[h];
                if (t_.prefix_count == 1) continue;
                out[t_.prefix_count + p] = list[h] == 0 ? 0 : list[h] * hard_of(p, s)[h * kLanes<T> + l];
                out[p] *= t_.prefixes[p].queries.nonzero[i] * t_.prefixes[p].hard.nonzero[i * hard + h];
            }
        }
        t_.queries[i] = end;
        // From the slopes in each prefix's loss to those in the gradient of each prefix's columns.
        for (int64_t p = t_.prefix_count - 2; p >= 0; --p)
            for (int64_t row = i * hard; row < (i + 1) * hard; ++row) {
                const Prefix<E>& next = t_.prefixes[p + 1];
                T* const out = t_.hard_slopes + row * record + p;
                out[0] += out[1] * (next.queries.norm_ratio[i] * next.hard.norm_ratio[row]);
            }
    }

    // A strip's slopes in place of its similarities, and of several prefixes their sums with these.
    void slopes(int64_t p, int64_t chunk, int64_t s) {
        const TilePrefix<E>& tile = t_.tiles[p];
        const Prefix<E>& prefix = t_.prefixes[p];
        const int64_t n = t_.documents_in(chunk), begin = chunk * t_.chunk, first = query_of(s);
        const bool prefixes = t_.prefix_count > 1;
        T* const scores = scores_of(p, chunk, s);
        Strip& e = strip(p, s);
        const Lanes<T> zero = broadcast(T(0)), one = broadcast(T(1)), absent = broadcast(kAbsent<T>);
        alignas(64) T part[kLanes<T>];
        for (int64_t l = 0; l < kLanes<T>; ++l)
            part[l] = l < rows_of(s) && (t_.both || !takes_no_part(t_, first + l)) ? T(1) : T(0);
        const Lanes<T> takes_part = load(static_cast<const T*>(part));
        const Lanes<T> nonzero =
            prefixes ? load_first(prefix.queries.nonzero + first, static_cast<int>(rows_of(s))) : one;
        Lanes<T> moment = zero;
        const auto put = [&](int64_t r, const Lanes<T>& similarity, const Lanes<T>& edge) {
            Lanes<T> slope = select_less(zero, takes_part, edge, zero);
            if (prefixes) {
                const Lanes<T> there = select_less_equal(similarity, absent, zero, similarity);
                const Lanes<T> product = select_less(zero, takes_part, slope * there, zero);
                moment = moment + product;
                T* const column = columns_ + r * kLanes<T>;
                store(column, load(static_cast<const T*>(column)) + product);
                slope = select_less_equal(similarity, absent, zero,
                                          slope * nonzero * broadcast(prefix.documents.nonzero[begin + r]));
            }
            store(scores + r * kLanes<T>, slope);
        };
        const EdgeLevels<T> levels(levels_, terms_, e);
        const Lanes<T> top = load(static_cast<const T*>(tile.query_top) + first),
                       share = load(static_cast<const T*>(tile.query_share) + first),
                       smooth = load(static_cast<const T*>(tile.query_smooth) + first);
        const auto similarity_of = [&](int64_t r) { return load(static_cast<const T*>(scores) + r * kLanes<T>); };
        if (common_top_ > 0) {
            for (int64_t r = 0; r < n; ++r) {
                const Lanes<T> similarity = similarity_of(r),
                               u = levels.template of<EdgeKind::unmasked>(similarity, zero);
                const Lanes<T> slope =
                    levels.exp_between(u, broadcast(common_top_)) * (share + broadcast(tile.document_share[begin + r]));
                put(r, similarity, select_less_equal(similarity, absent, zero, slope));
            }
        } else {
            with_kind(kind_, [&](auto kind) {
                constexpr EdgeKind kKind = decltype(kind)::value;
                const T* const correction = terms_.correction ? terms_.correction + begin : nullptr;
                const T* const counts = counts_of(chunk, s);
                for (int64_t r = 0; r < n; ++r) {
                    const Lanes<T> similarity = similarity_of(r);
                    const Lanes<T> u =
                        levels.template of<kKind>(similarity, broadcast(correction ? correction[r] : T(0)));
                    Lanes<T> slope = edge_slope<kKind>(u, levels.size, levels.bias, top, share, smooth);
                    if (counts) slope = slope * load(counts + r * kLanes<T>);
                    if (t_.both) {
                        const int64_t j = begin + r;
                        const EdgeLevels<T> column(General<T>(terms_, levels_, tile.positives[j], T(0)));
                        slope = slope + edge_slope<kKind>(column.template of<kKind>(similarity, zero), column.size,
                                                          zero, broadcast(tile.document_top[j]),
                                                          broadcast(tile.document_share[j]),
                                                          broadcast(tile.document_smooth[j]));
                    }
                    put(r, similarity, slope);
                }
            });
        }
        alignas(64) T moments[kLanes<T>];
        store(static_cast<T*>(moments), moment);
        for (int64_t l = 0; l < kLanes<T>; ++l) e.moment[l] += static_cast<double>(moments[l]);
        this->for_each_positive(chunk, s, {0, n}, [&](int64_t l, int64_t row) {
            const int64_t i = first + l;
            if (part[l] == 0) return;
            T slope = tile.positive_slope[i];
            if (prefixes) {
                const T product = slope * tile.positives[i];
                e.moment[l] += static_cast<double>(product);
                columns_[row * kLanes<T> + l] += product;
                slope *= prefix.queries.nonzero[i] * prefix.documents.nonzero[begin + row];
            }
            scores[row * kLanes<T> + l] += slope;
        });
    }

    void store_moments(int64_t p, int64_t chunk) {
        T* const part = part_of(p, 0) + chunk * t_.chunk;
        for (int64_t r = 0; r < t_.documents_in(chunk); ++r)
            part[r] = sum(load(static_cast<const T*>(columns_) + r * kLanes<T>));
    }

    void add_longer_prefix(int64_t p, int64_t chunk, int64_t s) {
        const Prefix<E>& next = t_.prefixes[p + 1];
        T* const scores = scores_of(p, chunk, s);
        const T* const above = scores_of(p + 1, chunk, s);
        const Lanes<T> ratio = load_first(next.queries.norm_ratio + query_of(s), static_cast<int>(rows_of(s)));
        for (int64_t r = 0; r < t_.documents_in(chunk); ++r) {
            const int64_t k = r * kLanes<T>;
            store(scores + k,
                  multiply_add(load(above + k), ratio * broadcast(next.documents.norm_ratio[chunk * t_.chunk + r]),
                               load(static_cast<const T*>(scores) + k)));
        }
    }

    // The queries' gradient: the products, then the hard negatives, then the norms' derivatives.
    void finish(int64_t s) {
        const int64_t columns = padded_columns(t_.prefixes, t_.prefix_count), hard = terms_.hard;
        const int64_t prefixes = t_.prefix_count, record = negcos::edge_record(prefixes);
        T *const rows = scratch_, *const coefficient = rows + kLanes<T> * columns;
        double* const moment = reinterpret_cast<double*>(coefficient + pad_lanes<T>(hard));
        int32_t* const row = reinterpret_cast<int32_t*>(moment + pad_lanes<double>(prefixes));
        for (int64_t p = 0, at = 0; p < prefixes; at += t_.tiles[p++].width)
            unpack_strip(static_cast<const T*>(t_.tiles[p].query_sums) + in_wave(s) * t_.tiles[p].width,
                         t_.tiles[p].width, rows + at, columns);
        for (int64_t l = 0; l < rows_of(s); ++l) {
            const int64_t i = query_of(s) + l;
            E* const gradient = t_.outputs.grad_queries.data + i * t_.outputs.grad_queries.stride;
            if (!t_.both && takes_no_part(t_, i)) {
                clear_rest(gradient, 0, t_.dim);
                continue;
            }
            for (int64_t h = 0; h < hard; ++h) row[h] = static_cast<int32_t>(i * hard + h);
            T* const total = rows + l * columns;
            for (int64_t p = 0, at = 0; p < prefixes; at += t_.tiles[p++].width) {
                const Prefix<E>& prefix = t_.prefixes[p];
                moment[p] = strip(p, s).moment[l];
                for (int64_t h = 0; h < hard; ++h) {
                    const T* edge = t_.hard_slopes + (i * hard + h) * record;
                    coefficient[h] = edge[p] * prefix.hard.inverse[row[h]];
                    if (prefixes > 1) moment[p] += static_cast<double>(edge[prefixes + p]);
                }
                if (hard > 0)
                    accumulate(total + at, true, prefix.hard, prefix.dim, ListedEdges<T, 1>{row, coefficient}, hard);
            }
            finish_row(t_.prefixes, prefixes, &Prefix<E>::queries, i, t_.dim, static_cast<const T*>(total), moment,
                       static_cast<T>(terms_.factor), gradient);
        }
    }

    const LossTerms<T>& terms_;
    const Levels<T> levels_;
    EdgeKind kind_;
    T common_top_;  // for both directions; 0 = none
    Strip* state_;
    T *columns_, *scratch_;
};

}  // namespace

#endif
