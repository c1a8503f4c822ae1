// SPDX-License-Identifier: Apache-2.0
//
// The softmax of BATCH_SOFTMAX, between the gather of the positives' similarities and that of the gradients.
#ifndef NEGCOS_KERNEL_BATCH_SOFTMAX_HPP
#define NEGCOS_KERNEL_BATCH_SOFTMAX_HPP

#include "kernel/plain_softmax.hpp"
#include "work.hpp"

namespace {

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
