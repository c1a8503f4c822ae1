// SPDX-License-Identifier: Apache-2.0
//
// Every loss of the family but the plain softmax: how edges become sums and slopes, and rows of them.
#ifndef NEGCOS_KERNEL_GENERAL_LOSS_HPP
#define NEGCOS_KERNEL_GENERAL_LOSS_HPP

#include "kernel/objective.hpp"

namespace {

// Of a query over all its prefixes and directions.
template <class T>
struct GeneralRow {
    double loss = 0;

    static void finish(const GeneralRow (&rows)[kRowsOfWriter], double* loss, double* hit) {
        alignas(64) double power[kRowsOfWriter];
        for (int r = 0; r < kRowsOfWriter; ++r) loss[r] = rows[r].loss;
        if (!hit) return;
        for (int r = 0; r < kRowsOfWriter; ++r) power[r] = loss[r] > 0 ? -loss[r] : loss[r];
        store(static_cast<double*>(power), exp_nonpositive(load(static_cast<const double*>(power))));
        for (int r = 0; r < kRowsOfWriter; ++r) {
            // Only DECOUPLED has losses below 0; what is beyond the working type stays at its largest number.
            hit[r] = loss[r] < 0 ? 1 / power[r] : power[r];
            if (hit[r] > kLargestNumber<T>) hit[r] = kLargestNumber<T>;
        }
    }
};

// Logits of dot products are held where sums of 2^31 are still finite. (Those of cosines are checked to be.)
template <class T>
inline constexpr T kLargestLogit = static_cast<T>(sizeof(T) == 4 ? 0x1p93 : 0x1p963);

// How edges become sums and slopes. `unmasked` is a softmax in which every edge counts and logits rise with
// similarities: it is spared what the others need.
enum class EdgeKind { unmasked, softmax, smoothed, sigmoid };

template <class T>
EdgeKind kind_of(const LossTerms<T>& t) {
    if (t.objective == Objective::sigmoid) return EdgeKind::sigmoid;
    if (t.smoothing != 0) return EdgeKind::smoothed;
    const bool unmasked =
        t.bounded && static_cast<T>(t.factor + t.hardness) > 0 && t.false_negative_margin > kLargestNumber<double>;
    return unmasked ? EdgeKind::unmasked : EdgeKind::softmax;
}

// body(a constant of the kind).
template <class Body>
auto with_kind(EdgeKind kind, Body&& body) {
    switch (kind) {
        case EdgeKind::sigmoid:
            return body(Constant<EdgeKind::sigmoid>());
        case EdgeKind::smoothed:
            return body(Constant<EdgeKind::smoothed>());
        case EdgeKind::softmax:
            return body(Constant<EdgeKind::softmax>());
        case EdgeKind::unmasked:
            break;
    }
    return body(Constant<EdgeKind::unmasked>());
}

// A logit is size * level, level = factor * similarity + correction. Without corrections a level is the similarity with
// the factor's sign, so that shifting levels costs no digits, as in PlainSoftmax; else it is the logit itself.
template <class T>
struct Levels {
    T factor, size, largest;
    double exact_factor, exact_size;  // of the positive's level

    explicit Levels(const LossTerms<T>& t) {
        const double f = t.factor + t.hardness, magnitude = f < 0 ? -f : f;
        const bool similarities = !t.correction && t.objective != Objective::sigmoid && magnitude > 0x1p-60;
        exact_size = similarities ? magnitude : 1;
        exact_factor = t.factor / exact_size;
        factor = similarities ? (f < 0 ? T(-1) : T(1)) : static_cast<T>(f);
        size = static_cast<T>(exact_size);
        const double most = static_cast<double>(kLargestLogit<T>) / exact_size;
        largest = most < kLargestNumber<T> ? static_cast<T>(most) : static_cast<T>(kLargestNumber<T>);
    }
};

// -Inf for what is absent or dropped; NaN stays NaN. most: `largest` of Levels.
template <EdgeKind kKind, class T>
Lanes<T> negative_level(const Lanes<T>& similarity, const Lanes<T>& factor, const Lanes<T>& correction,
                        const Lanes<T>& limit, const Lanes<T>& most) {
    Lanes<T> u = multiply_add(factor, similarity, correction);
    if constexpr (kKind == EdgeKind::unmasked) return u;
    const Lanes<T> absent = broadcast(kAbsent<T>), least = broadcast(T(0)) - most;
    u = select_less(most, u, most, select_less(u, least, least, u));
    return select_less_equal(similarity, absent, absent, select_less(limit, similarity, absent, u));
}

// correction: nullptr = none.
template <class T>
Lanes<T> load_or_zero(const T* correction, int64_t k) {
    return correction ? load(correction + k) : broadcast(T(0));
}

// What edges add to each of the sums, a lane each.
template <EdgeKind kKind, bool kRank, class T>
struct EdgeLanes {
    Lanes<T> sum, sigma, moment, spread, reach, kept, rank, dropped;

    EdgeLanes() { sum = sigma = moment = spread = reach = kept = rank = dropped = broadcast(T(0)); }

    // s: similarities, u: their levels, c: how often each counts; shift: the level that exp is relative to; size to
    // limit: as in General.
    void add(const Lanes<T>& s, const Lanes<T>& u, const Lanes<T>& c, const Lanes<T>& shift, const Lanes<T>& size,
             const Lanes<T>& bias, const Lanes<T>& similarity, const Lanes<T>& positive, const Lanes<T>& least,
             const Lanes<T>& limit) {
        const Lanes<T> zero = broadcast(T(0)), one = broadcast(T(1)), absent = broadcast(kAbsent<T>);
        if constexpr (kRank) rank = rank + zero_where_less(u, least, c);
        if constexpr (kKind == EdgeKind::unmasked) {
            const Lanes<T> e =
                c * exp_nonpositive((u - shift) * size);  // 0 where absent: all that it needs is a finite factor
            sum = sum + e;
            moment = multiply_add(e, larger(s, broadcast(static_cast<T>(-kLargestNumber<T>))) - similarity, moment);
            return;
        }
        const Lanes<T> here = select_less_equal(u, absent, zero, c);
        const Lanes<T> from_positive = select_less_equal(u, absent, zero, s - similarity);
        if constexpr (kKind == EdgeKind::sigmoid) {
            const Lanes<T> x = select_less_equal(u, absent, zero, u + bias);
            const Lanes<T> e = exp_nonpositive(zero - larger(x, zero - x));
            const Lanes<T> slope = here * (select_less(x, zero, e, one) / (one + e));
            sum = multiply_add(here, larger(x, zero) + log1p_unit(e), sum);
            sigma = sigma + slope;
            moment = multiply_add(slope, from_positive, moment);
        } else {
            const Lanes<T> e = here * exp_nonpositive((u - shift) * size);
            sum = sum + e;
            moment = multiply_add(e, from_positive, moment);
        }
        if constexpr (kKind == EdgeKind::smoothed) {
            spread = multiply_add(here, select_less_equal(u, absent, zero, (positive - u) * size), spread);
            reach = multiply_add(here, from_positive, reach);
            kept = kept + here;
        }
        dropped = dropped + select_less(limit, s, c, zero);
    }
};

// Slope of an edge: exp of its logit relative to the level `top`, times share, less smooth; or share * sigma(z + bias).
template <class T>
struct EdgeShare {
    T top = 0, share = 0, smooth = 0;
};

template <EdgeKind kKind, class T>
Lanes<T> edge_slope(const Lanes<T>& u, const Lanes<T>& size, const Lanes<T>& bias, const Lanes<T>& top,
                    const Lanes<T>& share, const Lanes<T>& smooth) {
    const Lanes<T> zero = broadcast(T(0)), one = broadcast(T(1)), absent = broadcast(kAbsent<T>);
    if constexpr (kKind == EdgeKind::sigmoid) {
        const Lanes<T> x = select_less_equal(u, absent, zero, u + bias);
        const Lanes<T> e = exp_nonpositive(zero - larger(x, zero - x));
        return select_less_equal(u, absent, zero, select_less(x, zero, e, one) / (one + e) * share);
    } else {
        const Lanes<T> w = exp_nonpositive((u - top) * size) * share;
        // Also 0 where a NaN among the others has made their share NaN.
        return select_less_equal(u, absent, zero, kKind == EdgeKind::smoothed ? w - smooth : w);
    }
}

// One row of the general loss: a query's, or for both directions a document's. Levels are one FMA away from
// similarities and are never stored; tops are levels.
template <class T>
class General {
public:
    const Levels<T>& levels;
    EdgeKind kind;
    T bias;
    T limit;       // similarities above it are dropped
    T similarity;  // the positive's
    T positive;    // and its level
    T least;       // negatives whose levels are not below it outrank the positive: all that are there, where it is NaN

    // shared: of `t`, as all rows have the same.
    General(const LossTerms<T>& t, const Levels<T>& shared, T positive_similarity, T correction)
        : levels(shared),
          kind(kind_of(t)),
          bias(static_cast<T>(t.bias)),
          limit(positive_similarity + static_cast<T>(t.false_negative_margin)),
          similarity(positive_similarity),
          positive(
              multiply_add_one(static_cast<T>(levels.exact_factor), similarity - static_cast<T>(t.margin), correction)),
          terms_(t) {
        if (positive > levels.largest) positive = levels.largest;
        if (positive < -levels.largest) positive = -levels.largest;
        least = positive == positive ? positive : static_cast<T>(-kLargestNumber<T>);
    }

    T logit_of_positive() const { return levels.size * positive; }
    T logit(T negative, T correction) const { return levels.size * level(negative, correction); }
    bool outranked_by(T negative, T correction) const { return !(level(negative, correction) < least); }
    // exp of the logits' difference of two levels, the first of which is not above the second.
    T exp_between(T level, T top) const { return exp_one((level - top) * levels.size); }

    // NaN is passed over here and met again in the sums. SIGMOID needs no top: 0.
    T top(const T* negatives, const T* correction, int64_t n) const {
        if (kind == EdgeKind::sigmoid) return T(0);
        return with_kind(kind, [&](auto constant) {
            const Lanes<T> factors = broadcast(levels.factor), limits = broadcast(limit);
            const Lanes<T> most = broadcast(levels.largest);
            Lanes<T> top = broadcast(kAbsent<T>);
            for (int64_t k = 0; k < n; k += kLanes<T>)
                top = larger(top, negative_level<decltype(constant)::value>(load(negatives + k), factors,
                                                                            load_or_zero(correction, k), limits, most));
            return largest(top);
        });
    }
    // What a row's sums of exp are relative to, from its negatives' top.
    T row_top(T of_negatives) const {
        return terms_.objective == Objective::softmax && of_negatives < positive ? positive : of_negatives;
    }

    // Moments are of similarities less the positive's. counts: how often each edge counts; nullptr = once.
    Sums sum(const T* negatives, const T* correction, const T* counts, int64_t n, T top) const {
        return with_kind(kind, [&](auto constant) {
            constexpr EdgeKind kKind = decltype(constant)::value;
            return counts ? sum_of<kKind, true>(negatives, correction, counts, n, top)
                          : sum_of<kKind, false>(negatives, correction, counts, n, top);
        });
    }

    // scale: exp of the difference of the tops.
    void join(Sums& row, T, const Sums& part, T part_top, T scale) const {
        // A top of -Inf: nothing there, or NaN alone, which goes on from here.
        row.add(part, kind == EdgeKind::sigmoid || part_top == kAbsent<T> ? 1 : static_cast<double>(scale));
    }

    struct Closed {
        double loss = 0;
        EdgeShare<T> share;         // what the negatives' slopes come from
        double positive_slope = 0;  // d loss / d z of the positive
        double total = 0;           // of all slopes: d loss / d bias
        double moment = 0;          // of slopes times similarities
        double grad_scale = 0;      // d loss / d (scale / temperature)
    };
    // weight: of this row's loss in the total. Sums have moments relative to the positive's similarity: where all
    // slopes add up to 0, as a softmax's do, those are the moments; else total times that similarity is added.
    Closed close(T top, const Sums& sums, double weight) const {
        Closed row;
        row.share.top = top == kAbsent<T> ? T(0) : top;
        switch (terms_.objective) {
            case Objective::softmax:
                close_softmax(row, top, sums, weight);
                break;
            case Objective::sigmoid:
                close_sigmoid(row, sums, weight);
                break;
            case Objective::decoupled:
                close_decoupled(row, top, sums, weight);
                break;
            case Objective::batch_softmax:  // a walk of its own
                break;
        }
        row.grad_scale = row.moment - row.positive_slope * terms_.margin;
        return row;
    }

    // Of n edges into `out` (may be `negatives` itself).
    void slopes(const T* negatives, const T* correction, const T* counts, int64_t n, const EdgeShare<T>& w,
                T* out) const {
        const auto find = [&](auto constant, auto counted) {
            constexpr EdgeKind kKind = decltype(constant)::value;
            const Lanes<T> factors = broadcast(levels.factor), limits = broadcast(limit), biases = broadcast(bias);
            const Lanes<T> most = broadcast(levels.largest), sizes = broadcast(levels.size);
            const Lanes<T> top = broadcast(w.top), share = broadcast(w.share), smooth = broadcast(w.smooth);
            for (int64_t k = 0; k < n; k += kLanes<T>) {
                const Lanes<T> u =
                    negative_level<kKind>(load(negatives + k), factors, load_or_zero(correction, k), limits, most);
                Lanes<T> slope = edge_slope<kKind>(u, sizes, biases, top, share, smooth);
                if constexpr (decltype(counted)::value) slope = slope * load(counts + k);
                store(out + k, slope);
            }
        };
        with_kind(kind, [&](auto constant) {
            counts ? find(constant, Constant<true>()) : find(constant, Constant<false>());
        });
    }

private:
    T level(T negative, T correction) const {
        alignas(64) T lanes[kLanes<T>];
        store(static_cast<T*>(lanes),
              negative_level<EdgeKind::softmax>(broadcast(negative), broadcast(levels.factor), broadcast(correction),
                                                broadcast(limit), broadcast(levels.largest)));
        return lanes[0];
    }
    // Of a level's logit.
    double above_positive(T top) const {
        return (static_cast<double>(top) - static_cast<double>(positive)) * levels.exact_size;
    }

    // Sums in the working type go over to double every 512 edges.
    template <EdgeKind kKind, bool kCounted>
    Sums sum_of(const T* negatives, const T* correction, const T* counts, int64_t n, T top) const {
        const Lanes<T> factors = broadcast(levels.factor), limits = broadcast(limit), positives = broadcast(positive);
        const Lanes<T> most = broadcast(levels.largest), sizes = broadcast(levels.size);
        const Lanes<T> shift = broadcast(top == kAbsent<T> ? T(0) : top), biases = broadcast(bias);
        const Lanes<T> similarities = broadcast(similarity), leasts = broadcast(least), one = broadcast(T(1));
        Sums sums;
        for (int64_t from = 0; from < n; from += 512) {
            const int64_t to = n - from < 512 ? n : from + 512;
            EdgeLanes<kKind, true, T> lanes;
            for (int64_t k = from; k < to; k += kLanes<T>) {
                const Lanes<T> s = load(negatives + k), c = kCounted ? load(counts + k) : one;
                const Lanes<T> u = negative_level<kKind>(s, factors, load_or_zero(correction, k), limits, most);
                lanes.add(s, u, c, shift, sizes, biases, similarities, positives, leasts, limits);
            }
            T four[4];
            sum_four(lanes.sum, lanes.moment, lanes.rank, lanes.dropped, static_cast<T*>(four));
            sums.sum += static_cast<double>(four[0]);
            sums.moment += static_cast<double>(four[1]);
            sums.rank += static_cast<double>(four[2]);
            sums.dropped += static_cast<double>(four[3]);
            if constexpr (kKind == EdgeKind::unmasked || kKind == EdgeKind::softmax) continue;
            sum_four(lanes.sigma, lanes.spread, lanes.reach, lanes.kept, static_cast<T*>(four));
            sums.sigma += static_cast<double>(four[0]);
            sums.spread += static_cast<double>(four[1]);
            sums.reach += static_cast<double>(four[2]);
            sums.kept += static_cast<double>(four[3]);
        }
        return sums;
    }

    void close_softmax(Closed& row, T top, const Sums& sums, double weight) const {
        const double gap = above_positive(top);
        const double positive_exp = static_cast<double>(exp_between(positive, top));
        const double share = weight / (positive_exp + sums.sum), part = terms_.smoothing / (1 + sums.kept);
        // Relative to a common top, both may be small, or rounding puts the positive above it.
        const bool common = positive > top || (positive_exp < 1 && positive_exp + sums.sum < 1);
        row.loss = common ? log_of_ratio(positive_exp, sums.sum, positive_exp) : gap + log_one(positive_exp, sums.sum);
        row.loss += part * sums.spread;
        row.share.share = static_cast<T>(share);
        row.share.smooth = static_cast<T>(weight * part);
        row.positive_slope = weight * part * sums.kept - share * sums.sum;
        row.moment = share * sums.moment - weight * part * sums.reach;
    }
    void close_sigmoid(Closed& row, const Sums& sums, double weight) const {
        const double x = static_cast<double>(positive) + terms_.bias, e = exp_one(x < 0 ? x : -x);
        row.loss = softplus_one(-x) + sums.sum;
        row.share.share = static_cast<T>(weight);
        row.positive_slope = -weight * (x < 0 ? 1 : e) / (1 + e);
        row.total = row.positive_slope + weight * sums.sigma;
        row.moment = weight * sums.moment + row.total * static_cast<double>(similarity);
    }
    void close_decoupled(Closed& row, T top, const Sums& sums, double weight) const {
        if (sums.sum == 0) return;  // no negative is left
        const double gap = above_positive(top), share = weight / sums.sum;
        row.loss = sums.sum < 1 ? gap + log_of_ratio(sums.sum, 0, 1) : gap + log_one(1, sums.sum - 1);
        row.share.share = static_cast<T>(share);
        row.positive_slope = positive == positive ? -weight : static_cast<double>(positive);
        row.moment = share * sums.moment;
    }

    const LossTerms<T>& terms_;
};

// For both directions of bounded similarities, a level that none is above and so few are far below that exp relative to
// it serves rows and columns alike; 0 where there is none.
template <class T>
T common_top(const LossTerms<T>& t) {
    const double margin = t.factor * (t.margin < 0 ? -t.margin : t.margin);
    const double most = t.factor + (t.hardness > 0 ? t.hardness : 0) + margin;
    const bool fits = t.factor > 0 && 2 * most + margin <= (sizeof(T) == 4 ? 70 : 600);
    return t.weights_at_most_one && kind_of(t) == EdgeKind::unmasked && fits
               ? static_cast<T>(most / Levels<T>(t).exact_size)
               : T(0);
}

}  // namespace

#endif
