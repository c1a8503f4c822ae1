// SPDX-License-Identifier: Apache-2.0
//
// The plain softmax, row by row and for strips of queries.
#ifndef NEGCOS_KERNEL_PLAIN_SOFTMAX_HPP
#define NEGCOS_KERNEL_PLAIN_SOFTMAX_HPP

#include "kernel/objective.hpp"

namespace {

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

}  // namespace

#endif
