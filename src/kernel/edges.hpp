// SPDX-License-Identifier: Apache-2.0
//
// Edges of the general loss: from the similarities of one query's negatives to logits, their sums, and their weights in
// the gradient. Both engines call these: for a gathered list, and for a row of a tile. Arrays are padded to whole
// lanes; a similarity of -Inf stands where there is no edge. Logits are one FMA away from similarities and are never
// stored.
#ifndef NEGCOS_KERNEL_EDGES_HPP
#define NEGCOS_KERNEL_EDGES_HPP

#include "kernel/softmax.hpp"
#include "kernels.hpp"

namespace {

using negcos::EdgeSums;
using negcos::LossTerms;

template <class T>
inline constexpr double kLargestNumber = sizeof(T) == 4 ? static_cast<double>(__FLT_MAX__) : __DBL_MAX__;

inline float multiply_add_one(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}
inline double multiply_add_one(double a, double b, double c) {
    return __builtin_fma(a, b, c);
}

template <class T>
inline constexpr T kNan = static_cast<T>(__builtin_nanf(""));

// Logits of dot products are held where sums of 2^31 are still finite. (Those of cosines are checked to be.)
template <class T>
inline constexpr T kLargestLogit = static_cast<T>(sizeof(T) == 4 ? 0x1p93 : 0x1p963);

template <auto kValue>
struct Constant {
    static constexpr auto value = kValue;
};

template <class T>
bool is_sigmoid(const LossTerms<T>& t) {
    return t.objective == LossTerms<T>::Objective::sigmoid;
}

// What one query's logits have in common.
template <class T>
struct EdgeLogits {
    T factor, bias;
    T limit = 0;     // similarities above it are dropped
    T own = 0;       // the positive's similarity
    T positive = 0;  // and logit
    T least = 0;  // negatives whose logits are not below it outrank the positive: all that are there, where it is NaN

    explicit EdgeLogits(const LossTerms<T>& t)
        : factor(static_cast<T>(t.factor + t.hardness)), bias(static_cast<T>(t.bias)) {}
    EdgeLogits(const LossTerms<T>& t, T similarity, T correction) : EdgeLogits(t) {
        limit = similarity + static_cast<T>(t.false_negative_margin);
        own = similarity;
        positive = multiply_add_one(static_cast<T>(t.factor), similarity - static_cast<T>(t.margin), correction);
        if (positive > kLargestLogit<T>) positive = kLargestLogit<T>;
        if (positive < -kLargestLogit<T>) positive = -kLargestLogit<T>;
        least = positive == positive ? positive : static_cast<T>(-kLargestNumber<T>);
    }
};

// How edges become sums and weights. `open` is a softmax in which every edge counts and logits rise with similarities:
// it is spared what the others need.
enum class EdgeKind { open, softmax, smoothed, sigmoid };

template <class T>
EdgeKind kind_of(const LossTerms<T>& t) {
    if (is_sigmoid(t)) return EdgeKind::sigmoid;
    if (t.smoothing != 0) return EdgeKind::smoothed;
    const bool open =
        t.bounded && static_cast<T>(t.factor + t.hardness) > 0 && t.false_negative_margin > kLargestNumber<double>;
    return open ? EdgeKind::open : EdgeKind::softmax;
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
        default:
            return body(Constant<EdgeKind::open>());
    }
}

// -Inf for what is absent or dropped; NaN stays NaN.
template <EdgeKind kKind, class T>
Lanes<T> negative_logit(const Lanes<T>& similarity, const Lanes<T>& factor, const Lanes<T>& correction,
                        const Lanes<T>& limit) {
    Lanes<T> z = multiply_add(factor, similarity, correction);
    if constexpr (kKind == EdgeKind::open) return z;
    const Lanes<T> absent = broadcast(kAbsent<T>), most = broadcast(kLargestLogit<T>),
                   least = broadcast(-kLargestLogit<T>);
    z = select_less(most, z, most, select_less(z, least, least, z));
    return select_less_equal(similarity, absent, absent, select_less(limit, similarity, absent, z));
}

// correction: nullptr = none.
template <class T>
Lanes<T> load_or_zero(const T* correction, int64_t k) {
    return correction ? load(correction + k) : broadcast(T(0));
}

template <class T>
T logit_one(T similarity, T correction, const EdgeLogits<T>& l) {
    alignas(64) T lanes[kLanes<T>];
    store(static_cast<T*>(lanes), negative_logit<EdgeKind::softmax>(broadcast(similarity), broadcast(l.factor),
                                                                    broadcast(correction), broadcast(l.limit)));
    return lanes[0];
}

// The largest of n logits, -Inf for none; NaN is passed over here and met again in the sums.
template <class T>
T largest_logit(EdgeKind kind, const T* similarity, const T* correction, int64_t n, const EdgeLogits<T>& l) {
    return with_kind(kind, [&](auto constant) {
        const Lanes<T> factor = broadcast(l.factor), limit = broadcast(l.limit);
        Lanes<T> top = broadcast(kAbsent<T>);
        for (int64_t k = 0; k < n; k += kLanes<T>)
            top = larger(top, negative_logit<decltype(constant)::value>(load(similarity + k), factor,
                                                                        load_or_zero(correction, k), limit));
        return largest(top);
    });
}

// What edges add to each of the sums, a lane each.
template <EdgeKind kKind, bool kRank, class T>
struct EdgeLanes {
    Lanes<T> sum, slope, moment, spread, reach, kept, rank, dropped;

    EdgeLanes() { sum = slope = moment = spread = reach = kept = rank = dropped = broadcast(T(0)); }

    // s: similarities, z: their logits, c: how often each counts; shift: what exp is relative to; own, positive, least:
    // as in EdgeLogits.
    void add(const Lanes<T>& s, const Lanes<T>& z, const Lanes<T>& c, const Lanes<T>& shift, const Lanes<T>& bias,
             const Lanes<T>& own, const Lanes<T>& positive, const Lanes<T>& least, const Lanes<T>& limit) {
        const Lanes<T> zero = broadcast(T(0)), one = broadcast(T(1)), absent = broadcast(kAbsent<T>);
        if constexpr (kRank) rank = rank + select_less(z, least, zero, c);
        if constexpr (kKind == EdgeKind::open) {
            const Lanes<T> e = c * exp_nonpositive(z - shift);  // 0 where absent: all that it needs is a finite factor
            sum = sum + e;
            moment = multiply_add(e, larger(s, broadcast(static_cast<T>(-kLargestNumber<T>))) - own, moment);
            return;
        }
        const Lanes<T> here = select_less_equal(z, absent, zero, c);
        const Lanes<T> from_own = select_less_equal(z, absent, zero, s - own);
        if constexpr (kKind == EdgeKind::sigmoid) {
            const Lanes<T> x = select_less_equal(z, absent, zero, z + bias);
            const Lanes<T> e = exp_nonpositive(zero - larger(x, zero - x));
            const Lanes<T> sigma = here * (select_less(x, zero, e, one) / (one + e));
            sum = multiply_add(here, larger(x, zero) + log1p_unit(e), sum);
            slope = slope + sigma;
            moment = multiply_add(sigma, from_own, moment);
        } else {
            const Lanes<T> e = here * exp_nonpositive(z - shift);
            sum = sum + e;
            moment = multiply_add(e, from_own, moment);
        }
        if constexpr (kKind == EdgeKind::smoothed) {
            spread = multiply_add(here, select_less_equal(z, absent, zero, positive - z), spread);
            reach = multiply_add(here, from_own, reach);
            kept = kept + here;
        }
        dropped = dropped + select_less(limit, s, c, zero);
    }
};

// Sums in the working type go over to double every 512 edges. With kCounted, edge k counts counts[k] times.
template <EdgeKind kKind, bool kCounted, class T>
EdgeSums sum_edges_of(const T* similarity, const T* correction, const T* counts, int64_t n, const EdgeLogits<T>& l,
                      T top) {
    const Lanes<T> factor = broadcast(l.factor), limit = broadcast(l.limit), positive = broadcast(l.positive);
    const Lanes<T> shift = broadcast(top == kAbsent<T> ? T(0) : top), bias = broadcast(l.bias);
    const Lanes<T> own = broadcast(l.own), least = broadcast(l.least), one = broadcast(T(1));
    EdgeSums sums;
    for (int64_t from = 0; from < n; from += 512) {
        const int64_t to = n - from < 512 ? n : from + 512;
        EdgeLanes<kKind, true, T> lanes;
        for (int64_t k = from; k < to; k += kLanes<T>) {
            const Lanes<T> s = load(similarity + k), c = kCounted ? load(counts + k) : one;
            const Lanes<T> z = negative_logit<kKind>(s, factor, load_or_zero(correction, k), limit);
            lanes.add(s, z, c, shift, bias, own, positive, least, limit);
        }
        T four[4];
        sum_four(lanes.sum, lanes.moment, lanes.rank, lanes.dropped, static_cast<T*>(four));
        sums.sum += static_cast<double>(four[0]);
        sums.moment += static_cast<double>(four[1]);
        sums.rank += static_cast<double>(four[2]);
        sums.dropped += static_cast<double>(four[3]);
        if constexpr (kKind == EdgeKind::open || kKind == EdgeKind::softmax) continue;
        sum_four(lanes.slope, lanes.spread, lanes.reach, lanes.kept, static_cast<T*>(four));
        sums.slope += static_cast<double>(four[0]);
        sums.spread += static_cast<double>(four[1]);
        sums.reach += static_cast<double>(four[2]);
        sums.kept += static_cast<double>(four[3]);
    }
    return sums;
}

template <class T>
EdgeSums sum_edges(EdgeKind kind, const T* similarity, const T* correction, const T* counts, int64_t n,
                   const EdgeLogits<T>& l, T top) {
    return with_kind(kind, [&](auto constant) {
        constexpr EdgeKind kKind = decltype(constant)::value;
        return counts ? sum_edges_of<kKind, true>(similarity, correction, counts, n, l, top)
                      : sum_edges_of<kKind, false>(similarity, correction, counts, n, l, top);
    });
}

// d loss / d z of an edge: exp(z - top) * share - smooth, or share * sigma(z + bias).
template <class T>
struct EdgeShare {
    T top = 0, share = 0, smooth = 0;
};

template <EdgeKind kKind, class T>
Lanes<T> edge_weight(const Lanes<T>& z, const Lanes<T>& bias, const Lanes<T>& top, const Lanes<T>& share,
                     const Lanes<T>& smooth) {
    const Lanes<T> zero = broadcast(T(0)), one = broadcast(T(1)), absent = broadcast(kAbsent<T>);
    if constexpr (kKind == EdgeKind::sigmoid) {
        const Lanes<T> x = select_less_equal(z, absent, zero, z + bias);
        const Lanes<T> e = exp_nonpositive(zero - larger(x, zero - x));
        return select_less_equal(z, absent, zero, select_less(x, zero, e, one) / (one + e) * share);
    } else {
        const Lanes<T> w = exp_nonpositive(z - top) * share;
        // Also 0 where a NaN among the others has made their share NaN.
        return select_less_equal(z, absent, zero, kKind == EdgeKind::smoothed ? w - smooth : w);
    }
}

// Weights of n edges into `weights` (may be `similarity` itself).
template <class T>
void weigh_edges(EdgeKind kind, const T* similarity, const T* correction, const T* counts, int64_t n,
                 const EdgeLogits<T>& l, const EdgeShare<T>& w, T* weights) {
    const auto weigh = [&](auto constant, auto counted) {
        constexpr EdgeKind kKind = decltype(constant)::value;
        const Lanes<T> factor = broadcast(l.factor), limit = broadcast(l.limit), bias = broadcast(l.bias);
        const Lanes<T> top = broadcast(w.top), share = broadcast(w.share), smooth = broadcast(w.smooth);
        for (int64_t k = 0; k < n; k += kLanes<T>) {
            const Lanes<T> z = negative_logit<kKind>(load(similarity + k), factor, load_or_zero(correction, k), limit);
            Lanes<T> weight = edge_weight<kKind>(z, bias, top, share, smooth);
            if constexpr (decltype(counted)::value) weight = weight * load(counts + k);
            store(weights + k, weight);
        }
    };
    with_kind(kind,
              [&](auto constant) { counts ? weigh(constant, Constant<true>()) : weigh(constant, Constant<false>()); });
}

inline double log_one(double a, double b) {
    alignas(64) double lanes[kLanes<double>];
    store(static_cast<double*>(lanes), log_of_sum(broadcast(a), broadcast(b)));
    return lanes[0];
}
inline double softplus_one(double x) {
    alignas(64) double lanes[kLanes<double>];
    const double size = x < 0 ? -x : x;
    store(static_cast<double*>(lanes), log1p_unit(broadcast(exp_one(-size))));
    return (x > 0 ? x : 0) + (x == x ? lanes[0] : x);
}

// The loss of one softmax (a query's, or for both directions a document's) and what its edges' weights come from.
template <class T>
struct ClosedRow {
    double loss = 0;
    EdgeShare<T> edges;
    double positive = 0;    // d loss / d z of the positive
    double total = 0;       // of all weights
    double moment = 0;      // of weights times similarities
    double grad_scale = 0;  // d loss / d (scale / temperature)
};

// For both directions of bounded similarities, one number that no logit is above and so few are far below that exp
// relative to it serves rows and columns alike; 0 where there is none.
template <class T>
T common_top(const LossTerms<T>& t) {
    const double margin = t.factor * (t.margin < 0 ? -t.margin : t.margin);
    const double most = t.factor + (t.hardness > 0 ? t.hardness : 0) + margin;
    const bool fits = t.factor > 0 && 2 * most + margin <= (sizeof(T) == 4 ? 70 : 600);
    return t.light && kind_of(t) == EdgeKind::open && fits ? static_cast<T>(most) : T(0);
}

// log((a + b) / c) for positive numbers of any size; without loss when b is small beside a = c.
inline double log_of_ratio(double a, double b, double c) {
    if (b <= a && a == c) return log_one(1, b / a);
    int exponent;
    const double fraction = frexp((a + b) / c, &exponent);
    return static_cast<double>(exponent - 1) * 0.69314718055994530942 + log_one(1, 2 * fraction - 1);
}

// What the sums of exp are relative to.
template <class T>
T top_of(const LossTerms<T>& t, T positive, T negatives) {
    return t.objective == LossTerms<T>::Objective::softmax && negatives < positive ? positive : negatives;
}

// sums: relative to `top`. weight: of this row's loss in the total.
template <class T>
ClosedRow<T> close_row(const LossTerms<T>& t, const EdgeLogits<T>& l, T top, const EdgeSums& sums, double weight) {
    using Objective = typename LossTerms<T>::Objective;
    const T positive = l.positive;
    ClosedRow<T> row;
    row.edges.top = top == kAbsent<T> ? T(0) : top;
    const double gap = static_cast<double>(top) - static_cast<double>(positive);
    if (t.objective == Objective::sigmoid) {
        const double x = static_cast<double>(positive) + t.bias, e = exp_one(x < 0 ? x : -x);
        row.loss = softplus_one(-x) + sums.sum;
        row.edges.share = static_cast<T>(weight);
        row.positive = -weight * (x < 0 ? 1 : e) / (1 + e);
        row.total = row.positive + weight * sums.slope;
        row.moment = weight * sums.moment + row.total * static_cast<double>(l.own);
    } else if (t.objective == Objective::decoupled) {
        if (sums.sum == 0) return row;  // no negative is left
        const double share = weight / sums.sum;
        row.loss = sums.sum < 1 ? gap + log_of_ratio(sums.sum, 0, 1) : gap + log_one(1, sums.sum - 1);
        row.edges.share = static_cast<T>(share);
        row.positive = positive == positive ? -weight : static_cast<double>(positive);
        row.moment = share * sums.moment;
    } else {
        const double own = static_cast<double>(exp_one(positive - top)), share = weight / (own + sums.sum);
        const double part = t.smoothing / (1 + sums.kept);
        // Relative to a common top, both may be small, or rounding puts the positive above it.
        const bool common = positive > top || (own < 1 && own + sums.sum < 1);
        row.loss = common ? log_of_ratio(own, sums.sum, own) : gap + log_one(own, sums.sum);
        row.loss += part * sums.spread;
        row.edges.share = static_cast<T>(share);
        row.edges.smooth = static_cast<T>(weight * part);
        row.positive = weight * part * sums.kept - share * sums.sum;
        row.moment = share * sums.moment - weight * part * sums.reach;
    }
    // A softmax's weights add up to 0, so that its moments can be taken from the positive's similarity.
    row.grad_scale = row.moment - row.positive * t.margin;
    return row;
}

// Losses and hit probabilities, eight exps at a time.
template <class E>
class LossWriter {
public:
    LossWriter(negcos::Output<E> losses, negcos::Output<E> hit_probability) : losses_(losses), hits_(hit_probability) {}

    void add(int64_t query, double loss) {
        if (losses_.data) losses_.data[query * losses_.stride] = to_element<E>(loss);
        if (!hits_.data) return;
        query_[count_] = query;
        loss_[count_] = loss;
        if (++count_ == kRows) flush();
    }

    void flush() {
        alignas(64) double power[kRows];
        for (int r = 0; r < kRows; ++r) power[r] = loss_[r] > 0 ? -loss_[r] : loss_[r];
        store(static_cast<double*>(power), exp_nonpositive(load(static_cast<const double*>(power))));
        for (int r = 0; r < count_; ++r) {
            // Only DECOUPLED has losses below 0; what is beyond the working type stays at its largest number.
            constexpr double most = kLargestNumber<Working<E>>;
            double hit = loss_[r] < 0 ? 1 / power[r] : power[r];
            if (hit > most) hit = most;
            hits_.data[query_[r] * hits_.stride] = to_element<E>(hit);
        }
        count_ = 0;
    }

private:
    static constexpr int kRows = 8;
    negcos::Output<E> losses_, hits_;
    int count_ = 0;
    int64_t query_[kRows] = {};
    alignas(64) double loss_[kRows] = {};
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

}  // namespace

#endif
