// SPDX-License-Identifier: Apache-2.0
//
// The gradient of one row: a weighted sum of the rows that its edges lead to, then the derivative of its own norm.
#ifndef NEGCOS_KERNEL_GRADIENTS_HPP
#define NEGCOS_KERNEL_GRADIENTS_HPP

#include "kernel/dots.hpp"
#include "kernel/lanes.hpp"
#include "work.hpp"

namespace {

// The edges that a gradient is summed over: from rows of a list, with their coefficients kStep apart, or arcs.
template <class T, int64_t kStep>
struct ListedEdges {
    const int32_t* index;
    const T* coefficients;
    int64_t row(int64_t k) const { return index[k]; }
    T coefficient(int64_t k) const { return coefficients[k * kStep]; }
};
template <class T>
struct ArcEdges {
    const negcos::Arc<T>* arcs;
    int64_t row(int64_t k) const { return arcs[k].source; }
    T coefficient(int64_t k) const { return arcs[k].coefficient; }
};

// total[0 .. columns) (+)= sum_k coefficient(k) * row(k), in the order of k. kColumns vectors of lanes stay in
// registers while the rows go by; with kPart, one of which `rest` elements alone. Rows kAhead edges on are prefetched.
template <int kColumns, bool kPart, bool kRescaled, int64_t kAhead, class T, class E, class Edges>
void accumulate_columns(T* total, bool add, const negcos::Rows<E>& rows, int64_t column, const Edges edges,
                        int64_t count, int rest) {
    Lanes<T> acc[kColumns];
#pragma GCC unroll 16
    for (int v = 0; v < kColumns; ++v) acc[v] = add ? load(total + v * kLanes<T>) : broadcast(T(0));
    const E* const data = rows.data + column;
#pragma GCC unroll 2
    for (int64_t k = 0; k < count; ++k) {
        const int64_t j = edges.row(k);
        const E* row = data + j * rows.stride;
        const Lanes<T> w = broadcast(edges.coefficient(k));
        const Lanes<T> s = kRescaled ? broadcast(rows.rescale[j]) : w;
        if constexpr (kAhead > 0) {
            const E* later = data + edges.row(k + kAhead) * rows.stride;
#pragma GCC unroll 16
            for (int v = 0; v < kColumns; ++v) __builtin_prefetch(later + v * kLanes<T>);
        }
#pragma GCC unroll 16
        for (int v = 0; v < kColumns; ++v) {
            const E* x = row + v * kLanes<T>;
            acc[v] = multiply_add(w, kPart ? load_row_first<kRescaled>(x, s, rest) : load_row<kRescaled>(x, s), acc[v]);
        }
    }
#pragma GCC unroll 16
    for (int v = 0; v < kColumns; ++v) store(total + v * kLanes<T>, acc[v]);
}

template <bool kRescaled, int64_t kAhead = 0, class T, class E, class Edges>
void accumulate(T* total, bool add, const negcos::Rows<E>& rows, int64_t dim, const Edges& edges, int64_t count) {
    constexpr int kMost = kParts<T> == 1 ? 8 : 4;
    int64_t c = 0;
    for (; c + kMost * kLanes<T> <= dim; c += kMost * kLanes<T>)
        accumulate_columns<kMost, false, kRescaled, kAhead>(total + c, add, rows, c, edges, count, 0);
    for (; c + 2 * kLanes<T> <= dim; c += 2 * kLanes<T>)
        accumulate_columns<2, false, kRescaled, kAhead>(total + c, add, rows, c, edges, count, 0);
    for (; c + kLanes<T> <= dim; c += kLanes<T>)
        accumulate_columns<1, false, kRescaled, kAhead>(total + c, add, rows, c, edges, count, 0);
    if (c < dim)
        accumulate_columns<1, true, kRescaled, kAhead>(total + c, add, rows, c, edges, count,
                                                       static_cast<int>(dim - c));
}
template <bool kRescaled, class T, class E>
void accumulate(T* total, const negcos::Rows<E>& rows, int64_t dim, const int32_t* index, const T* coefficient,
                int64_t count) {
    accumulate<kRescaled>(total, true, rows, dim, ListedEdges<T, 1>{index, coefficient}, count);
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

// Row i's gradient from its total, of rows as given.
template <class E, class T>
void finish_row(const T* total, const negcos::Rows<E>& rows, int64_t i, T factor, int64_t dim,
                const negcos::Output<E>& gradient) {
    const T inverse = rows.inverse[i], rescale = rows.rescale[i];
    const double inv = static_cast<double>(inverse);
    finish_gradient(total, rows.data + i * rows.stride, rescale, inv * inv * static_cast<double>(rows.above_floor[i]),
                    inverse, factor, rescale, dim, gradient.data + i * gradient.stride);
}

}  // namespace

#endif
