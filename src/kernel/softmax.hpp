// SPDX-License-Identifier: Apache-2.0
//
// One query's softmax over its candidates, always shifted by the largest logit. The shift is taken between the
// similarities, before the factor multiplies them, so that it costs no digits.
#ifndef NEGCOS_KERNEL_SOFTMAX_HPP
#define NEGCOS_KERNEL_SOFTMAX_HPP

#include "kernel/exp_log.hpp"
#include "kernel/simd.hpp"
#include "kernels.hpp"

namespace {

// z = factor * similarity in the working type. The exponents are size * (a - top), a = sign * similarity: size is
// |factor|, but never 0, so that an absent candidate at -Inf still has exp 0.
template <class T>
struct Logits {
    T factor, sign, size;
    double exact_size;
    explicit Logits(double f)
        : factor(static_cast<T>(f)),
          sign(f < 0 ? T(-1) : T(1)),
          size(f == 0 ? T(0x1p-60) : static_cast<T>(f < 0 ? -f : f)),
          exact_size(f == 0 ? 0x1p-60 : (f < 0 ? -f : f)) {}
};

template <class T>
inline constexpr T kAbsent = -static_cast<T>(__builtin_inff());

// What the negatives of one query, or a part of them, sum up to, relative to their own `top`.
struct NegativeSums {
    double sum = 0;     // sum of exp
    double moment = 0;  // sum of exp * (a - top)
    double rank = 0;    // number of logits that are not below the positive's: NaN on either side counts
};

// The largest a of n similarities, -Inf for none; NaN is passed over here and met again in the sums.
template <class T>
T largest_signed(const T* similarity, int64_t n, const Logits<T>& logits, T at_least) {
    const Lanes<T> sign = broadcast(logits.sign);
    Lanes<T> top = broadcast(at_least);
    int64_t k = 0;
    for (; k + kLanes<T> <= n; k += kLanes<T>) top = larger(top, load(similarity + k) * sign);
    if (k < n) {
        const Lanes<T> inside = broadcast(static_cast<T>(n - k));
        const Lanes<T> a = load_first(similarity + k, static_cast<int>(n - k)) * sign;
        top = larger(top, select_less(lane_indices<T>(), inside, a, top));
    }
    return largest(top);
}

// exp of n negatives into `weights` (may be `similarity` itself; padded to whole lanes), and their sums. In f32 the
// lanes' sums go over to double every 512 candidates. With kCounted, candidate k counts `counts[k]` times.
template <bool kCounted = false, class T>
NegativeSums exp_negatives(const T* similarity, int64_t n, const Logits<T>& logits, T top, T positive, T* weights,
                           const T* counts = nullptr) {
    const Lanes<T> sign = broadcast(logits.sign), size = broadcast(logits.size), factor = broadcast(logits.factor);
    const Lanes<T> shift = broadcast(top), threshold = broadcast(logits.factor * positive);
    const Lanes<T> zero = broadcast(T(0)), one = broadcast(T(1));
    NegativeSums sums;
    for (int64_t from = 0; from < n; from += 512) {
        const int64_t to = n - from < 512 ? n : from + 512;
        Lanes<T> total = zero, moment = zero, rank = zero;
        for (int64_t k = from; k < to; k += kLanes<T>) {
            Lanes<T> s =
                k + kLanes<T> <= to ? load(similarity + k) : load_first(similarity + k, static_cast<int>(to - k));
            Lanes<T> held;
            Lanes<T> e = exp_nonpositive((s * sign - shift) * size, held);
            Lanes<T> beats = select_less(s * factor, threshold, zero, one);
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
            store(weights + k, e);
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
    sums.moment /= logits.exact_size;
    return sums;
}

// Losses of up to eight queries at a time, the log of all of them at once.
template <class E>
class RowLosses {
public:
    RowLosses(negcos::Output<E> losses, negcos::Output<E> hit_probability) : losses_(losses), hits_(hit_probability) {}

    // gap = top - z of the positive >= 0; own = exp(-gap); others = sum over the negatives of exp(z - top).
    void add(int64_t query, double gap, double own, double others, negcos::Totals& totals) {
        query_[count_] = query;
        gap_[count_] = gap;
        own_[count_] = own;
        others_[count_] = others;
        if (++count_ == kRows) flush(totals);
    }

    void flush(negcos::Totals& totals) {
        for (int r = count_; r < kRows; ++r) own_[r] = 1, others_[r] = 0;
        alignas(64) double log[kRows];
        store(static_cast<double*>(log),
              log_of_sum(load(static_cast<const double*>(own_)), load(static_cast<const double*>(others_))));
        for (int r = 0; r < count_; ++r) {
            const double loss = gap_[r] + log[r];
            totals.loss.add(loss);
            if (losses_.data) losses_.data[query_[r] * losses_.stride] = to_element<E>(loss);
            if (hits_.data) hits_.data[query_[r] * hits_.stride] = to_element<E>(own_[r] / (own_[r] + others_[r]));
        }
        count_ = 0;
    }

private:
    static constexpr int kRows = 8;
    negcos::Output<E> losses_, hits_;
    int count_ = 0;
    int64_t query_[kRows] = {};
    alignas(64) double gap_[kRows] = {}, own_[kRows] = {}, others_[kRows] = {};
};

template <class T>
T exp_one(T x) {
    alignas(64) T lanes[kLanes<T>];
    store(static_cast<T*>(lanes), exp_nonpositive(broadcast(x)));
    return lanes[0];
}

}  // namespace

#endif
