// SPDX-License-Identifier: Apache-2.0
//
// Dot products of one row with four others at a time: the row is loaded once for the four, and their lanes are summed
// together. Each result is the same bits whatever its place among the four.
#ifndef NEGCOS_KERNEL_DOTS_HPP
#define NEGCOS_KERNEL_DOTS_HPP

#include "kernel/lanes.hpp"
#include "work.hpp"

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

// Query i in the working type, padded with zeros to whole lanes.
template <class E, class T>
void load_query(const negcos::Rows<E>& queries, int64_t i, int64_t dim, T* query) {
    const E* row = queries.data + i * queries.stride;
    const Lanes<T> s = broadcast(queries.rescale[i]);
    int64_t c = 0;
    for (; c + kLanes<T> <= dim; c += kLanes<T>) store(query + c, load_row<true>(row + c, s));
    if (c < dim) store(query + c, load_row_first<true>(row + c, s, static_cast<int>(dim - c)));
}

// Sums over columns are chains of FMAs, one a lane; of long rows in blocks of kBlock, each a chain of its own,
// and those added up: rounding errors grow with the length of a chain.
template <class T>
inline constexpr int64_t kBlock = 32 * kLanes<T>;
template <class T, class Chain>
[[gnu::always_inline]] inline Lanes<T> sum_blocks(int64_t dim, Chain&& chain) {
    if (dim <= kBlock<T>) return chain(int64_t{0}, dim);
    Lanes<T> total = chain(int64_t{0}, kBlock<T>);
    for (int64_t c = kBlock<T>; c < dim; c += kBlock<T>)
        total = total + chain(c, dim - c < kBlock<T> ? dim : c + kBlock<T>);
    return total;
}

// query: padded with zeros to whole lanes. Blocks as in sum_blocks(), of all four at a time. With kPrefetch, the same
// columns of four later rows are prefetched.
template <bool kRescaled, bool kPrefetch = false, class T, class E>
[[gnu::always_inline]] inline void dot_four(const T* query, const E* const (&row)[4], const T (&rescale)[4],
                                            int64_t dim, T* out, const E* const* later = nullptr) {
    Lanes<T> a = broadcast(T(0)), b = a, c = a, d = a;
    Lanes<T> block_a = a, block_b = a, block_c = a, block_d = a;
    const Lanes<T> sa = broadcast(rescale[0]), sb = broadcast(rescale[1]), sc = broadcast(rescale[2]),
                   sd = broadcast(rescale[3]);
    const int64_t whole = dim - dim % kLanes<T>;
    for (int64_t k = 0;;) {
        const int64_t end = whole - k > kBlock<T> ? k + kBlock<T> : whole;
#pragma GCC unroll 8
        for (; k < end; k += kLanes<T>) {
            if constexpr (kPrefetch)
                for (int r = 0; r < 4; ++r) __builtin_prefetch(later[r] + k);
            const Lanes<T> q = load(query + k);
            a = multiply_add(q, load_row<kRescaled>(row[0] + k, sa), a);
            b = multiply_add(q, load_row<kRescaled>(row[1] + k, sb), b);
            c = multiply_add(q, load_row<kRescaled>(row[2] + k, sc), c);
            d = multiply_add(q, load_row<kRescaled>(row[3] + k, sd), d);
        }
        if (k > 0 && k < dim && k % kBlock<T> == 0) {
            block_a = block_a + a, block_b = block_b + b, block_c = block_c + c, block_d = block_d + d;
            a = b = c = d = broadcast(T(0));
        }
        if (k == whole) break;
    }
    if (whole < dim) {
        const int rest = static_cast<int>(dim - whole);
        const Lanes<T> q = load(query + whole);
        a = multiply_add(q, load_row_first<kRescaled>(row[0] + whole, sa, rest), a);
        b = multiply_add(q, load_row_first<kRescaled>(row[1] + whole, sb, rest), b);
        c = multiply_add(q, load_row_first<kRescaled>(row[2] + whole, sc, rest), c);
        d = multiply_add(q, load_row_first<kRescaled>(row[3] + whole, sd, rest), d);
    }
    if (dim > kBlock<T>) a = block_a + a, b = block_b + b, c = block_c + c, d = block_d + d;
    sum_four(a, b, c, d, out);
}

}  // namespace

#endif
