// SPDX-License-Identifier: Apache-2.0
//
// The gradient of one row: a weighted sum of the rows that its edges lead to, then the derivative of its own norm.
#ifndef NEGCOS_KERNEL_GRADIENTS_HPP
#define NEGCOS_KERNEL_GRADIENTS_HPP

#include "kernel/dots.hpp"
#include "kernel/lanes.hpp"
#include "work.hpp"

namespace {

// total[0 .. columns) += sum_k coefficient[k] * row index[k], in the order of k. kColumns vectors of lanes stay in
// registers while the rows go by; `rest` < kLanes further elements are a last, shorter vector.
template <int kColumns, bool kRescaled, class T, class E>
void accumulate_columns(T* total, const negcos::Rows<E>& rows, int64_t column, const int32_t* index,
                        const T* coefficient, int64_t count, int rest) {
    Lanes<T> acc[kColumns];
#pragma GCC unroll 16
    for (int v = 0; v < kColumns; ++v) acc[v] = load(total + v * kLanes<T>);
    for (int64_t k = 0; k < count; ++k) {
        const E* row = rows.data + index[k] * rows.stride + column;
        const Lanes<T> w = broadcast(coefficient[k]);
        const Lanes<T> s = kRescaled ? broadcast(rows.rescale[index[k]]) : w;
#pragma GCC unroll 16
        for (int v = 0; v < kColumns - 1; ++v)
            acc[v] = multiply_add(w, load_row<kRescaled>(row + v * kLanes<T>, s), acc[v]);
        const E* last = row + (kColumns - 1) * kLanes<T>;
        const Lanes<T> x = rest == kLanes<T> ? load_row<kRescaled>(last, s) : load_row_first<kRescaled>(last, s, rest);
        acc[kColumns - 1] = multiply_add(w, x, acc[kColumns - 1]);
    }
#pragma GCC unroll 16
    for (int v = 0; v < kColumns; ++v) store(total + v * kLanes<T>, acc[v]);
}

template <bool kRescaled, class T, class E>
void accumulate(T* total, const negcos::Rows<E>& rows, int64_t dim, const int32_t* index, const T* coefficient,
                int64_t count) {
    constexpr int kMost = kParts<T> == 1 ? 8 : 4;
    int64_t c = 0;
    for (; c + kMost * kLanes<T> <= dim; c += kMost * kLanes<T>)
        accumulate_columns<kMost, kRescaled>(total + c, rows, c, index, coefficient, count, kLanes<T>);
    for (; c + 2 * kLanes<T> <= dim; c += 2 * kLanes<T>)
        accumulate_columns<2, kRescaled>(total + c, rows, c, index, coefficient, count, kLanes<T>);
    for (; c < dim; c += kLanes<T>) {
        const int64_t rest = dim - c;
        accumulate_columns<1, kRescaled>(total + c, rows, c, index, coefficient, count,
                                         rest < kLanes<T> ? static_cast<int>(rest) : kLanes<T>);
    }
}

// gradient = (total + along * x) * inverse * factor * rescale, with x = row * row_scale.
template <class T, class Row, class E>
void store_gradient(const T* total, const Row* row, T row_scale, T along, T inverse, T factor, T rescale, int64_t dim,
                    E* gradient) {
    const Lanes<T> s = broadcast(row_scale), minus = broadcast(along);
    const Lanes<T> i = broadcast(inverse), f = broadcast(factor), r = broadcast(rescale);
    int64_t c = 0;
    for (; c + kLanes<T> <= dim; c += kLanes<T>)
        store(gradient + c, one_nan(multiply_add(minus, load(row + c) * s, load(total + c)) * i * f * r));
    if (c < dim) {
        const int rest = static_cast<int>(dim - c);
        const Lanes<T> x = load_first(row + c, rest) * s;
        store_first(gradient + c, one_nan(multiply_add(minus, x, load_first(total + c, rest)) * i * f * r), rest);
    }
}

// gradient = (total - projection * (total . x) x) * inverse * factor * rescale, with x = row * row_scale. For rows as
// given, projection = inverse^2 where the norm is above its floor; for rows already over their norms, 1; else 0.
template <class T, class Row, class E>
void finish_gradient(const T* total, const Row* row, T row_scale, double projection, T inverse, T factor, T rescale,
                     int64_t dim, E* gradient) {
    const Lanes<T> s = broadcast(row_scale);
    Lanes<T> along = broadcast(T(0));
    if (projection != 0)
        along = sum_blocks<T>(dim, [&](int64_t begin, int64_t end) {
            Lanes<T> chain = broadcast(T(0));
            for (; begin + kLanes<T> <= end; begin += kLanes<T>)
                chain = multiply_add(load(total + begin), load(row + begin) * s, chain);
            if (begin < end) {
                const int rest = static_cast<int>(end - begin);
                chain = multiply_add(load_first(total + begin, rest), load_first(row + begin, rest) * s, chain);
            }
            return chain;
        });
    store_gradient(total, row, row_scale, static_cast<T>(-projection * static_cast<double>(sum(along))), inverse,
                   factor, rescale, dim, gradient);
}

}  // namespace

#endif
