// SPDX-License-Identifier: Apache-2.0
//
// The gradient of one row: a weighted sum of the rows that its edges lead to, then the derivative of its own norm.
#ifndef NEGCOS_KERNEL_GRADIENTS_HPP
#define NEGCOS_KERNEL_GRADIENTS_HPP

#include "kernel/dots.hpp"
#include "kernel/lanes.hpp"
#include "work.hpp"

namespace {

using negcos::pad_lanes;
using negcos::Prefix;
using negcos::Range;

// The edges that a gradient is summed over: from rows of a list, with their coefficients kStep apart, or records of
// arcs, with kSingle of one each.
template <class T, int64_t kStep>
struct ListedEdges {
    const int32_t* index;
    const T* coefficients;
    int64_t row(int64_t k) const { return index[k]; }
    T coefficient(int64_t k) const { return coefficients[k * kStep]; }
};
template <class T, bool kSingle>
struct ArcEdges {
    const negcos::Arc<T>* arcs;
    int64_t record;
    const negcos::Arc<T>& arc(int64_t k) const { return arcs[kSingle ? k : k * record]; }
    int64_t row(int64_t k) const { return arc(k).source; }
    T coefficient(int64_t k) const { return arc(k).coefficient; }
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

template <bool kRescaled, int64_t kAhead, class T, class E, class Edges>
[[gnu::always_inline]] inline void accumulate_rows(T* total, bool add, const negcos::Rows<E>& rows, int64_t dim,
                                                   const Edges& edges, int64_t count) {
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

// Rare, so out of line: another copy for every caller would only take compilers longer.
template <class T, class E, class Edges>
[[gnu::noinline]] void accumulate_rescaled(T* total, bool add, const negcos::Rows<E>& rows, int64_t dim,
                                           const Edges edges, int64_t count) {
    accumulate_rows<true, 0>(total, add, rows, dim, edges, count);
}

template <int64_t kAhead = 0, class T, class E, class Edges>
[[gnu::always_inline]] inline void accumulate(T* total, bool add, const negcos::Rows<E>& rows, int64_t dim,
                                              const Edges& edges, int64_t count) {
    if (rows.rescaled) [[unlikely]]
        accumulate_rescaled(total, add, rows, dim, edges, count);
    else
        accumulate_rows<false, kAhead>(total, add, rows, dim, edges, count);
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

// Columns [from, dim): those past the last prefix, or all of a row that takes no part.
template <class E>
void clear_rest(E* gradient, int64_t from, int64_t dim) {
    for (int64_t c = from; c < dim; ++c) gradient[c] = to_element<E>(Working<E>(0));
}

template <class E>
int64_t padded_columns(const Prefix<E>* prefixes, int64_t prefix_count) {
    int64_t columns = 0;
    for (int64_t p = 0; p < prefix_count; ++p) columns += pad_lanes<Working<E>>(prefixes[p].dim);
    return columns;
}

// The gradient of one row from the totals of all prefixes, prefix after prefix at `total` (each padded to whole lanes),
// and with prefixes each prefix's sum of slopes times similarities.
template <class E, class T>
void finish_row(const Prefix<E>* prefixes, int64_t prefix_count, negcos::Rows<E> Prefix<E>::*side, int64_t i,
                int64_t dim, const T* total, const double* moment, T factor, E* gradient) {
    int64_t column = 0, at = 0;
    for (int64_t p = 0; p < prefix_count; ++p) column += prefixes[p].dim, at += pad_lanes<T>(prefixes[p].dim);
    clear_rest(gradient, column, dim);
    double along = 0;
    for (int64_t p = prefix_count - 1; p >= 0; --p) {
        const negcos::Rows<E>& rows = prefixes[p].*side;
        const E* row = rows.data + i * rows.stride;
        const T inverse = rows.inverse[i], rescale = rows.rescale[i];
        const double inv = static_cast<double>(inverse), above_floor = static_cast<double>(rows.above_floor[i]);
        column -= prefixes[p].dim;
        at -= pad_lanes<T>(prefixes[p].dim);
        if (prefix_count == 1) {
            finish_gradient(total, row, rescale, inv * inv * above_floor, inverse, factor, rescale, prefixes[p].dim,
                            gradient);
            return;
        }
        along += moment[p] * above_floor;
        store_gradient(total + at, row, rescale, static_cast<T>(-along * inv), inverse, factor, rescale,
                       prefixes[p].dim, gradient + column);
        const double ratio = static_cast<double>(rows.norm_ratio[i]);
        along *= ratio * ratio;
    }
}

// The gradient of the hard negatives of queries: each has one edge.
template <class E>
void hard_gradient(const negcos::HardNegatives<E>& t, Range range, Working<E>* total) noexcept {
    using T = Working<E>;
    const int64_t columns = padded_columns(t.prefixes, t.prefix_count);
    double* moment = reinterpret_cast<double*>(total + columns);
    const int64_t record = negcos::edge_record(t.prefix_count);
    for (int64_t row = range.begin * t.hard; row < range.end * t.hard; ++row) {
        const int64_t i = row / t.hard;
        const T* edge = t.slopes + row * record;
        bool any = false;
        for (int64_t p = 0; p < record; ++p) any = any || !(edge[p] == 0);
        if (!any) {  // dropped
            clear_rest(t.gradient.data + row * t.gradient.stride, 0, t.dim);
            continue;
        }
        for (int64_t p = 0, at = 0; p < t.prefix_count; at += pad_lanes<T>(t.prefixes[p++].dim)) {
            const Prefix<E>& prefix = t.prefixes[p];
            load_query(prefix.queries, i, prefix.dim, total + at);
            const Lanes<T> w = broadcast(edge[p] * prefix.queries.inverse[i]);
            for (int64_t c = 0; c < prefix.dim; c += kLanes<T>)
                store(total + at + c, load(static_cast<const T*>(total) + at + c) * w);
            moment[p] = t.prefix_count > 1 ? static_cast<double>(edge[t.prefix_count + p]) : 0;
        }
        finish_row(t.prefixes, t.prefix_count, &Prefix<E>::hard, row, t.dim, static_cast<const T*>(total), moment,
                   static_cast<T>(t.factor), t.gradient.data + row * t.gradient.stride);
    }
}

}  // namespace

#endif
