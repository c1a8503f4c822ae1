// SPDX-License-Identifier: Apache-2.0
//
// Norms: once per row, not once per sampled copy of it.
#ifndef NEGCOS_KERNEL_NORMS_HPP
#define NEGCOS_KERNEL_NORMS_HPP

#include "kernel/dots.hpp"
#include "kernel/lanes.hpp"
#include "work.hpp"

namespace {

using negcos::Range;

// Squared norms inside these bounds need no rescaling: products of two norms, and their parts down to the last bit that
// matters, stay far from overflow and from subnormals.
template <class T>
struct NormBounds;
template <>
struct NormBounds<float> {
    static constexpr float kLow = 0x1p-64f, kHigh = 0x1p64f;
    static constexpr int kLargestShift = 126;
};
template <>
struct NormBounds<double> {
    static constexpr double kLow = 0x1p-512, kHigh = 0x1p512;
    static constexpr int kLargestShift = 1022;
};

template <class E, class T>
T squared_norm(const E* row, int64_t dim, T rescale) {
    const Lanes<T> s = broadcast(rescale);
    return sum(sum_blocks<T>(dim, [&](int64_t c, int64_t end) {
        Lanes<T> total = broadcast(T(0));
        for (; c + kLanes<T> <= end; c += kLanes<T>) {
            const Lanes<T> x = load(row + c) * s;
            total = multiply_add(x, x, total);
        }
        if (c < end) {
            const Lanes<T> x = load_first(row + c, static_cast<int>(end - c)) * s;
            total = multiply_add(x, x, total);
        }
        return total;
    }));
}

// The largest magnitude in a row, NaN left out.
template <class E>
Working<E> largest_magnitude(const E* row, int64_t dim) {
    using T = Working<E>;
    Lanes<T> top = broadcast(T(0));
    for (int64_t c = 0; c < dim; c += kLanes<T>) {
        const Lanes<T> x = load_first(row + c, dim - c < kLanes<T> ? static_cast<int>(dim - c) : kLanes<T>);
        top = larger(top, larger(x, broadcast(T(0)) - x));
    }
    return largest(top);
}

template <class E>
negcos::NormCounts norms(const negcos::Rows<E>& rows, int64_t dim, double floor, Range range) noexcept {
    using T = Working<E>;
    using Bounds = NormBounds<T>;
    negcos::NormCounts counts;
    for (int64_t i = range.begin; i < range.end; ++i) {
        const E* row = rows.data + i * rows.stride;
        T rescale = 1, squared = squared_norm(row, dim, T(1));
        if (!(squared >= Bounds::kLow && squared <= Bounds::kHigh)) {
            const T largest = largest_magnitude(row, dim);
            if (largest == 0 && squared == 0) {
                ++counts.zero;
                rows.inverse[i] = 0;
                rows.above_floor[i] = 0;
                rows.rescale[i] = 1;
                continue;
            }
            // NaN and Inf stay as they are: the norm is then NaN or Inf and the similarities NaN.
            if (squared == squared && largest - largest == 0) {
                int exponent;
                frexp(static_cast<double>(largest), &exponent);
                int shift = -exponent;
                if (shift > Bounds::kLargestShift) shift = Bounds::kLargestShift;
                if (shift < -Bounds::kLargestShift) shift = -Bounds::kLargestShift;
                rescale = static_cast<T>(ldexp(1.0, shift));
                squared = squared_norm(row, dim, rescale);
                ++counts.rescaled;
            } else {
                ++counts.nonfinite;
            }
        }
        const double norm = __builtin_sqrt(static_cast<double>(squared));
        const double least = floor * static_cast<double>(rescale);
        const bool below = norm < least;
        rows.inverse[i] = static_cast<T>(1.0 / (below ? least : norm));
        rows.above_floor[i] = below ? T(0) : T(1);
        rows.rescale[i] = rescale;
    }
    return counts;
}

}  // namespace

#endif
