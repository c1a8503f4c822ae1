// SPDX-License-Identifier: Apache-2.0
//
// An objective is what lies between the similarities of one row of the graph and the slopes of its edges, d loss / d z.
// There are two: PlainSoftmax (plain_softmax.hpp), and General (general_loss.hpp) for the rest of the family; here is
// what they share. Walks hand them the negatives of a row, in whole or part by part, and call
//   top()    what exp of a part is relative to: the largest of its logits, -Inf where there is none
//   sum()    the Sums of a part
//   join()   a part's sums, relative to the part's top, on to those of the row, relative to the row's
//   close()  from the row's sums its loss, the positive's slope, and what all other slopes come from
// PlainSoftmax keeps each exp in its edge's place, so that slopes are products of those with the row's share. General
// keeps the similarities, from which its slopes() are found again: edges may be masked, and in two directions each has
// two slopes.
// What a new objective takes: docs/design.md, "An objective".
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

// A shift, relative to which tiles sum exps, rises where a logit is more than this above it.
template <class T>
inline constexpr T kMostAbove = 20;

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

}  // namespace

#endif
