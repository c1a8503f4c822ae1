// SPDX-License-Identifier: Apache-2.0
//
// An objective is what lies between the similarities of one row of the graph and the slopes of its edges, d loss / d z.
// There are two: PlainSoftmax, and General for the rest of the family. Walks hand them the negatives of a row, in whole
// or part by part, and call
//   top()    what exp of a part is relative to: the largest of its logits, -Inf where there is none
//   sum()    the Sums of a part
//   join()   a part's sums, relative to the part's top, on to those of the row, relative to the row's
//   close()  from the row's sums its loss, the positive's slope, and what all other slopes come from
// PlainSoftmax keeps each exp in its edge's place, so that slopes are products of those with the row's share. General
// keeps the similarities, from which its slopes() are found again: edges may be masked, and in two directions each has
// two slopes.
// What a new objective takes: docs/design.md, "An objective".
//
// Today's walks are written for one of the two each, and hand over what that one needs.
//
// Arrays are padded to whole lanes; a similarity of -Inf stands where there is no edge.
#ifndef NEGCOS_KERNEL_OBJECTIVE_HPP
#define NEGCOS_KERNEL_OBJECTIVE_HPP

#include "kernel/exp_log.hpp"
#include "kernel/lanes.hpp"
#include "work.hpp"

namespace {

using negcos::LossTerms;
using negcos::Objective;
using negcos::Sums;

template <class T>
inline constexpr T kAbsent = -static_cast<T>(__builtin_inff());
template <class T>
inline constexpr T kNan = static_cast<T>(__builtin_nanf(""));
template <class T>
inline constexpr double kLargestNumber = sizeof(T) == 4 ? static_cast<double>(__FLT_MAX__) : __DBL_MAX__;

// ---- One number at a time, by the same arithmetic as lanes

inline float multiply_add_one(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}
inline double multiply_add_one(double a, double b, double c) {
    return __builtin_fma(a, b, c);
}
template <class T>
T exp_one(T x) {
    alignas(64) T lanes[kLanes<T>];
    store(static_cast<T*>(lanes), exp_nonpositive(broadcast(x)));
    return lanes[0];
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
// log((a + b) / c) for positive numbers of any size; without loss when b is small beside a = c.
inline double log_of_ratio(double a, double b, double c) {
    if (b <= a && a == c) return log_one(1, b / a);
    int exponent;
    const double fraction = frexp((a + b) / c, &exponent);
    return static_cast<double>(exponent - 1) * 0.69314718055994530942 + log_one(1, 2 * fraction - 1);
}

// ---- Losses ---------------------------------------------------------------------------------------------------------

constexpr int kRowsOfWriter = kLanes<double>;

// Losses and hit probabilities of rows, the logs or exps of eight at a time; and the sum of the losses, each times the
// row's weight. Row: of PlainSoftmax or General, what a loss comes from; its finish() takes nullptr where no hit
// probability is asked for.
template <class E, class Row>
class LossWriter {
public:
    explicit LossWriter(const negcos::Outputs<E>& outputs) : losses_(outputs.losses), hits_(outputs.hit_probability) {}

    void add(int64_t query, double weight, const Row& row, negcos::Totals& totals) {
        query_[count_] = query;
        weight_[count_] = weight;
        row_[count_] = row;
        if (++count_ == kRows) flush(totals);
    }

    void flush(negcos::Totals& totals) {
        alignas(64) double loss[kRows], hit[kRows];
        for (int r = count_; r < kRows; ++r) row_[r] = Row();
        Row::finish(row_, static_cast<double*>(loss), hits_.data ? static_cast<double*>(hit) : nullptr);
        for (int r = 0; r < count_; ++r) {
            totals.loss.add(weight_[r] == 0 ? 0 : weight_[r] * loss[r]);
            if (losses_.data) losses_.data[query_[r] * losses_.stride] = to_element<E>(loss[r]);
            if (hits_.data) hits_.data[query_[r] * hits_.stride] = to_element<E>(hit[r]);
        }
        count_ = 0;
    }

private:
    static constexpr int kRows = kRowsOfWriter;
    negcos::Output<E> losses_, hits_;
    int count_ = 0;
    int64_t query_[kRows] = {};
    double weight_[kRows] = {};
    Row row_[kRows];
};

// ---- The plain softmax ----------------------------------------------------------------------------------------------

// A softmax of a query's loss: gap = top - z of the positive >= 0; positive_exp = exp(-gap); others = sum over the
// negatives of exp(z - top).
struct PlainRow {
    double gap = 0, positive_exp = 1, others = 0;

    static void finish(const PlainRow (&rows)[kRowsOfWriter], double* loss, double* hit) {
        alignas(64) double positive[kRowsOfWriter], others[kRowsOfWriter];
        for (int r = 0; r < kRowsOfWriter; ++r) positive[r] = rows[r].positive_exp, others[r] = rows[r].others;
        const Lanes<double> p = load(static_cast<const double*>(positive)),
                            o = load(static_cast<const double*>(others));
        store(loss, log_of_sum(p, o));
        for (int r = 0; r < kRowsOfWriter; ++r) loss[r] = rows[r].gap + loss[r];
        if (hit) store(hit, p / (p + o));
    }
};

// The softmax over a query's candidates, z = factor * similarity, always shifted by the largest logit. The shift is
// taken between the similarities, before the factor multiplies them, so that it costs no digits: exponents are
// size * (a - top), a = sign * similarity. Tops are of a. Size is |factor|, but never 0, so that an absent candidate at
// -Inf still has exp 0.
template <class T>
struct PlainSoftmax {
    T factor, sign, size;
    double exact_size;

    explicit PlainSoftmax(const LossTerms<T>& terms) : PlainSoftmax(terms.factor) {}

    // At least `least`; NaN is passed over here and met again in the sums.
    T top(const T* similarity, int64_t n, T least) const {
        const Lanes<T> signs = broadcast(sign);
        Lanes<T> top = broadcast(least);
        int64_t k = 0;
        for (; k + kLanes<T> <= n; k += kLanes<T>) top = larger(top, load(similarity + k) * signs);
        if (k < n) {
            const Lanes<T> inside = broadcast(static_cast<T>(n - k));
            const Lanes<T> a = load_first(similarity + k, static_cast<int>(n - k)) * signs;
            top = larger(top, select_less(lane_indices<T>(), inside, a, top));
        }
        return largest(top);
    }

    // exp of n negatives into `exps` (may be `similarity` itself; padded to whole lanes), and their sums; moments are
    // of a - top. In f32 the lanes' sums go over to double every 512 candidates. With kCounted, candidate k counts
    // `counts[k]` times.
    template <bool kCounted = false>
    Sums sum(const T* similarity, int64_t n, T top, T positive, T* exps, const T* counts = nullptr) const {
        const Lanes<T> signs = broadcast(sign), sizes = broadcast(size), factors = broadcast(factor);
        const Lanes<T> shift = broadcast(top), threshold = broadcast(factor * positive);
        const Lanes<T> zero = broadcast(T(0)), one = broadcast(T(1));
        Sums sums;
        for (int64_t from = 0; from < n; from += 512) {
            const int64_t to = n - from < 512 ? n : from + 512;
            Lanes<T> total = zero, moment = zero, rank = zero;
            for (int64_t k = from; k < to; k += kLanes<T>) {
                Lanes<T> s =
                    k + kLanes<T> <= to ? load(similarity + k) : load_first(similarity + k, static_cast<int>(to - k));
                Lanes<T> held;
                Lanes<T> e = exp_nonpositive((s * signs - shift) * sizes, held);
                Lanes<T> beats = zero_where_less(s * factors, threshold, one);
                if (to - k < kLanes<T>) {
                    const Lanes<T> inside = broadcast(static_cast<T>(to - k)), lane = lane_indices<T>();
                    e = select_less(lane, inside, e, zero);
                    held = select_less(lane, inside, held, zero);
                    beats = select_less(lane, inside, beats, zero);
                }
                if constexpr (kCounted) {
                    const Lanes<T> count =
                        load_first(counts + k, to - k < kLanes<T> ? static_cast<int>(to - k) : kLanes<T>);
                    e = e * count;
                    beats = beats * count;
                }
                store(exps + k, e);
                total = total + e;
                moment = multiply_add(e, held, moment);
                rank = rank + beats;
            }
            T lanes[4];
            sum_four(total, moment, rank, zero, static_cast<T*>(lanes));
            sums.sum += static_cast<double>(lanes[0]);
            sums.moment += static_cast<double>(lanes[1]);
            sums.rank += static_cast<double>(lanes[2]);
        }
        sums.moment /= exact_size;
        return sums;
    }

    // scale: exp of the difference of the tops.
    void join(Sums& row, T top, const Sums& part, T part_top, T scale) const {
        row.rank += part.rank;
        if (part.sum == 0) return;  // no negative here but the positive itself, or none that counts
        // A top of -Inf with a sum: all NaN, which goes on from here.
        const bool nothing = part_top == kAbsent<T>;
        const double e = nothing ? part.sum : static_cast<double>(scale);
        const double below = nothing ? 0 : static_cast<double>(part_top) - static_cast<double>(top);
        row.sum += e * part.sum;
        row.moment += e * (part.moment + part.sum * below);
    }

    struct Closed {
        PlainRow row;
        double share, positive_slope, grad_scale;  // slopes of negatives: share times their exps
    };
    // positive: its similarity; top: not below its a; positive_exp: of a.
    Closed close(T positive, T top, const Sums& negatives, double row_weight) const {
        return close(positive, top, negatives, row_weight,
                     static_cast<double>(exp_one((sign * positive - top) * size)));
    }
    Closed close(T positive, T top, const Sums& negatives, double row_weight, double positive_exp) const {
        const double gap = static_cast<double>(top) - static_cast<double>(sign * positive);
        const double share = row_weight / (positive_exp + negatives.sum);
        // Of all slopes times similarities, the positive's part as minus the sum of the others'.
        const double grad_scale = static_cast<double>(sign) * share * (negatives.moment + negatives.sum * gap);
        return {{gap * exact_size, positive_exp, negatives.sum}, share, -share * negatives.sum, grad_scale};
    }

private:
    explicit PlainSoftmax(double f)
        : factor(static_cast<T>(f)),
          sign(f < 0 ? T(-1) : T(1)),
          size(f == 0 ? T(0x1p-60) : static_cast<T>(f < 0 ? -f : f)),
          exact_size(f == 0 ? 0x1p-60 : (f < 0 ? -f : f)) {}
};

// A shift, relative to which tiles sum exps, rises where a logit is more than this above it.
template <class T>
inline constexpr T kMostAbove = 20;

// The same for a strip of queries, a lane each, whose candidates come part by part and chunk by chunk. What exp is
// relative to, the shift, is not the largest signed similarity but follows it: it starts at the positive's and rises
// only where a logit is more than kMostAbove above it, so that hardly any part has to be scaled again.
template <class T>
class PlainStrip {
public:
    // positives: the similarities of kLanes queries; rows: of how many queries the strip is.
    void start(const PlainSoftmax<T>& softmax, const T* positives, int64_t rows) {
        *this = PlainStrip();
        positives_ = positives;
        rows_ = rows;
        const Lanes<T> a = load(positives) * broadcast(softmax.sign);
        // Where it is not finite, below whatever comes.
        const Lanes<T> least = broadcast(static_cast<T>(-kLargestNumber<T>));
        store(static_cast<T*>(shift), select_less_equal(a - a, broadcast(T(0)), a, least));
    }

    void begin_chunk() {
        moved = false;
        store(static_cast<T*>(chunk_sum_), broadcast(T(0)));
        store(static_cast<T*>(chunk_moment_), broadcast(T(0)));
    }
    void end_chunk() {
        for (int l = 0; l < kLanes<T>; ++l) sum[l] += static_cast<double>(chunk_sum_[l]);
        for (int l = 0; l < kLanes<T>; ++l) moment[l] += static_cast<double>(chunk_moment_[l]);
    }

    // Similarities of candidates [from, from + n) of the chunk, [candidate][query], become exps in place: 0 where they
    // are absent. counts: how often each counts.
    template <bool kCounted>
    void add(const PlainSoftmax<T>& softmax, T* chunk, int64_t from, int64_t n, const T* counts) {
        T* const part = chunk + from * kLanes<T>;
        const int64_t size = n * kLanes<T>;
        follow(softmax, chunk, part, size);
        const Lanes<T> one = broadcast(T(1)), factors = broadcast(softmax.factor);
        const Lanes<T> signed_size = broadcast(softmax.sign * softmax.size);
        const Lanes<T> similarity_shift = load(static_cast<const T*>(shift)) * broadcast(softmax.sign);
        const Lanes<T> threshold = factors * load(positives_);
        Lanes<T> total = broadcast(T(0)), chunk_moment = total, beats = total;
        for (int64_t k = 0; k < size; k += kLanes<T>) {
            const Lanes<T> s = load(static_cast<const T*>(part) + k);
            Lanes<T> held;
            Lanes<T> e = exp_nonpositive((s - similarity_shift) * signed_size, held);
            Lanes<T> outranks = one;
            if constexpr (kCounted) {
                outranks = load(counts + from * kLanes<T> + k);
                e = e * outranks;
            }
            beats = beats + zero_where_less(s * factors, threshold, outranks);
            store(part + k, e);
            total = total + e;
            chunk_moment = multiply_add(e, held, chunk_moment);
        }
        store(static_cast<T*>(chunk_sum_), load(static_cast<const T*>(chunk_sum_)) + total);
        store(static_cast<T*>(chunk_moment_), load(static_cast<const T*>(chunk_moment_)) + chunk_moment);
        alignas(64) T lanes[kLanes<T>];
        store(static_cast<T*>(lanes), beats);
        for (int l = 0; l < kLanes<T>; ++l) rank[l] += static_cast<double>(lanes[l]);
        // Products of these with NaN in a document would spread to the others.
        for (int64_t l = rows_; l < kLanes<T>; ++l)
            for (int64_t k = l; k < size; k += kLanes<T>) part[k] = 0;
    }

    // As of PlainSoftmax::sum(), relative to the shift.
    Sums sums(const PlainSoftmax<T>& softmax, int l) const {
        Sums s;
        s.sum = sum[l];
        s.moment = moment[l] / softmax.exact_size;
        s.rank = rank[l];
        return s;
    }

    alignas(64) T shift[kLanes<T>] = {};   // a signed similarity
    alignas(64) T factor[kLanes<T>] = {};  // of exps before this chunk, if the shift has moved in it
    alignas(64) double sum[kLanes<T>] = {}, moment[kLanes<T>] = {}, rank[kLanes<T>] = {};
    bool moved = false;  // in this chunk

private:
    // The shift of a part to come; what was summed before is scaled where it rises.
    void follow(const PlainSoftmax<T>& softmax, T* chunk, T* part, int64_t size) {
        const Lanes<T> sign = broadcast(softmax.sign), sizes = broadcast(softmax.size), one = broadcast(T(1));
        Lanes<T> top = broadcast(kAbsent<T>), odd = top;
        int64_t k = 0;
        for (; k + 2 * kLanes<T> <= size; k += 2 * kLanes<T>) {
            top = larger(top, load(static_cast<const T*>(part) + k) * sign);
            odd = larger(odd, load(static_cast<const T*>(part) + k + kLanes<T>) * sign);
        }
        if (k < size) top = larger(top, load(static_cast<const T*>(part) + k) * sign);
        top = larger(top, odd);
        const Lanes<T> before = load(static_cast<const T*>(shift)), most = broadcast(kMostAbove<T>);
        const Lanes<T> above = (top - before) * sizes;
        if (!(largest(select_less(most, above, one, broadcast(T(0)))) > 0)) return;
        const Lanes<T> now = select_less(most, above, top, before);
        Lanes<T> back;
        const Lanes<T> scale = exp_nonpositive((before - now) * sizes, back);
        store(static_cast<T*>(shift), now);
        store(static_cast<T*>(factor), moved ? load(static_cast<const T*>(factor)) * scale : scale);
        moved = true;
        for (T* x = chunk; x < part; x += kLanes<T>) store(x, load(static_cast<const T*>(x)) * scale);
        const Lanes<T> chunk_sum = load(static_cast<const T*>(chunk_sum_));
        store(static_cast<T*>(chunk_moment_),
              scale * multiply_add(chunk_sum, back, load(static_cast<const T*>(chunk_moment_))));
        store(static_cast<T*>(chunk_sum_), chunk_sum * scale);
        alignas(64) T by[kLanes<T>], scales[kLanes<T>];
        store(static_cast<T*>(by), back);
        store(static_cast<T*>(scales), scale);
        for (int l = 0; l < kLanes<T>; ++l) {
            if (sum[l] == 0) continue;
            moment[l] = static_cast<double>(scales[l]) * (moment[l] + sum[l] * static_cast<double>(by[l]));
            sum[l] *= static_cast<double>(scales[l]);
        }
    }

    const T* positives_ = nullptr;
    int64_t rows_ = 0;
    alignas(64) T chunk_sum_[kLanes<T>] = {}, chunk_moment_[kLanes<T>] = {};
};

// ---- The general loss -----------------------------------------------------------------------------------------------

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
