// SPDX-License-Identifier: Apache-2.0
//
// Dot products of one row with four others at a time: the row is loaded once for the four, and their lanes are summed
// together. Each result is the same bits whatever its place among the four.
#ifndef NEGCOS_KERNEL_DOTS_HPP
#define NEGCOS_KERNEL_DOTS_HPP

#include "kernel/simd.hpp"

namespace {

// Rows outside the safe range of norms are multiplied by a power of two as they are read.
template <bool kRescaled, class E>
Lanes<Working<E>> load_row(const E* x, const Lanes<Working<E>>& rescale) {
    if constexpr (kRescaled)
        return load(x) * rescale;
    else
        return load(x);
}
template <bool kRescaled, class E>
Lanes<Working<E>> load_row_first(const E* x, const Lanes<Working<E>>& rescale, int n) {
    if constexpr (kRescaled)
        return load_first(x, n) * rescale;
    else
        return load_first(x, n);
}

// query: padded with zeros to whole lanes.
template <bool kRescaled, class T, class E>
void dot_four(const T* query, const E* const (&row)[4], const T (&rescale)[4], int64_t dim, T* out) {
    Lanes<T> a = broadcast(T(0)), b = a, c = a, d = a;
    Lanes<T> sa = a, sb = a, sc = a, sd = a;
    if constexpr (kRescaled) {
        sa = broadcast(rescale[0]);
        sb = broadcast(rescale[1]);
        sc = broadcast(rescale[2]);
        sd = broadcast(rescale[3]);
    }
    int64_t k = 0;
    for (; k + kLanes<T> <= dim; k += kLanes<T>) {
        const Lanes<T> q = load(query + k);
        a = multiply_add(q, load_row<kRescaled>(row[0] + k, sa), a);
        b = multiply_add(q, load_row<kRescaled>(row[1] + k, sb), b);
        c = multiply_add(q, load_row<kRescaled>(row[2] + k, sc), c);
        d = multiply_add(q, load_row<kRescaled>(row[3] + k, sd), d);
    }
    if (k < dim) {
        const int rest = static_cast<int>(dim - k);
        const Lanes<T> q = load(query + k);
        a = multiply_add(q, load_row_first<kRescaled>(row[0] + k, sa, rest), a);
        b = multiply_add(q, load_row_first<kRescaled>(row[1] + k, sb, rest), b);
        c = multiply_add(q, load_row_first<kRescaled>(row[2] + k, sc, rest), c);
        d = multiply_add(q, load_row_first<kRescaled>(row[3] + k, sd, rest), d);
    }
    sum_four(a, b, c, d, out);
}

}  // namespace

#endif
