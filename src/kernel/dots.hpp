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

// Sums over columns are chains of FMAs, one a lane; of long rows in blocks of kBlockVectors, each a chain of its own,
// and those added up: rounding errors grow with the length of a chain.
constexpr int64_t kBlockVectors = 32;
template <class T, class Chain>
[[gnu::always_inline]] inline Lanes<T> sum_blocks(int64_t dim, Chain&& chain) {
    constexpr int64_t kBlock = kBlockVectors * kLanes<T>;
    if (dim <= kBlock) return chain(int64_t{0}, dim);
    Lanes<T> total = chain(int64_t{0}, kBlock);
    for (int64_t c = kBlock; c < dim; c += kBlock) total = total + chain(c, dim - c < kBlock ? dim : c + kBlock);
    return total;
}

// Columns [begin, end) of four dot products at once, begin a multiple of the lanes.
template <bool kRescaled, class T, class E>
[[gnu::always_inline]] inline void dot_four_chain(const T* query, const E* const (&row)[4], const Lanes<T> (&scale)[4],
                                                  int64_t begin, int64_t end, Lanes<T> (&acc)[4]) {
    Lanes<T> a = broadcast(T(0)), b = a, c = a, d = a;
    int64_t k = begin;
    for (; k + kLanes<T> <= end; k += kLanes<T>) {
        const Lanes<T> q = load(query + k);
        a = multiply_add(q, load_row<kRescaled>(row[0] + k, scale[0]), a);
        b = multiply_add(q, load_row<kRescaled>(row[1] + k, scale[1]), b);
        c = multiply_add(q, load_row<kRescaled>(row[2] + k, scale[2]), c);
        d = multiply_add(q, load_row<kRescaled>(row[3] + k, scale[3]), d);
    }
    if (k < end) {
        const int rest = static_cast<int>(end - k);
        const Lanes<T> q = load(query + k);
        a = multiply_add(q, load_row_first<kRescaled>(row[0] + k, scale[0], rest), a);
        b = multiply_add(q, load_row_first<kRescaled>(row[1] + k, scale[1], rest), b);
        c = multiply_add(q, load_row_first<kRescaled>(row[2] + k, scale[2], rest), c);
        d = multiply_add(q, load_row_first<kRescaled>(row[3] + k, scale[3], rest), d);
    }
    acc[0] = a, acc[1] = b, acc[2] = c, acc[3] = d;
}

// query: padded with zeros to whole lanes. In blocks as sum_blocks(), all four at a time.
template <bool kRescaled, class T, class E>
void dot_four(const T* query, const E* const (&row)[4], const T (&rescale)[4], int64_t dim, T* out) {
    constexpr int64_t kBlock = kBlockVectors * kLanes<T>;
    Lanes<T> scale[4], acc[4];
    for (int r = 0; r < 4; ++r) scale[r] = broadcast(rescale[r]);
    dot_four_chain<kRescaled>(query, row, scale, 0, dim < kBlock ? dim : kBlock, acc);
    for (int64_t c = kBlock; c < dim; c += kBlock) {
        Lanes<T> more[4];
        dot_four_chain<kRescaled>(query, row, scale, c, dim - c < kBlock ? dim : c + kBlock, more);
        for (int r = 0; r < 4; ++r) acc[r] = acc[r] + more[r];
    }
    sum_four(acc[0], acc[1], acc[2], acc[3], out);
}

}  // namespace

#endif
