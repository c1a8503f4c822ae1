// SPDX-License-Identifier: Apache-2.0
//
// Products of small matrices, knowing nothing of losses. One micro-kernel multiplies a small tile kept in registers:
// numbers of one side, a row each, by vectors of lanes of the other. All operands are packed in the order in which they
// are read:
//   panels  the rows of a tile side by side: [panel of up to kTileRows rows][step][row]
//   strips  kLanes columns side by side: [strip][step][lane]
// Each output element is one chain of FMAs in the order of the steps, so that tile shapes cannot change the bits;
// chains over long rows are cut and added up.
#ifndef NEGCOS_KERNEL_PRODUCT_HPP
#define NEGCOS_KERNEL_PRODUCT_HPP

#include "kernel/lanes.hpp"
#include "work.hpp"

namespace {

using negcos::pad_lanes;
using negcos::Range;

// Columns that one chain of a similarity goes over. Wider rows are multiplied by so many columns at a time.
constexpr int64_t kChainColumns = 256;

// Rows of the panel that begins with `left` rows to go: whole panels, then two about equal ones rather than a thin one.
inline int64_t panel_rows(int64_t left) {
    if (left <= kTileRows) return left;
    return left < 2 * kTileRows ? (left + 1) / 2 : kTileRows;
}

// kVectors strips of output: c[strip][row][lane] = sum over steps of a[step][row] * b[strip][step][lane]; on top of
// what is there if `add`, and of that times `scale` (a number for each lane and strip) if it is not nullptr.
template <class T>
struct Product {
    const T* b;
    int64_t b_strip;  // from one strip to the next
    int64_t steps;
    int64_t c_strip;
    bool add = false;
    const T* scale = nullptr;  // [strip][lane]
};

template <int kRows, int kVectors, class T>
class ProductTile {
public:
    [[gnu::always_inline]] ProductTile() {
        each([&](int m, int v) __attribute__((always_inline)) { sum_[m][v] = broadcast(T(0)); });
    }

    // Row m of the step is a[m * kStride].
    template <int kStride>
    [[gnu::always_inline]] void step(const T* a, const T* b, int64_t b_strip) {
        Lanes<T> right[kVectors];
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) right[v] = load(b + v * b_strip);
#pragma GCC unroll 16
        for (int m = 0; m < kRows; ++m) {
            const Lanes<T> left = broadcast(a[m * kStride]);
#pragma GCC unroll 16
            for (int v = 0; v < kVectors; ++v) add_product(sum_[m][v], left, right[v]);
        }
    }

    [[gnu::always_inline]] void put(const Product<T>& p, T* c) {
        const auto at = [&](int m, int v) { return c + v * p.c_strip + m * kLanes<T>; };
        if (!p.add)
            each([&](int m, int v) __attribute__((always_inline)) { store(at(m, v), sum_[m][v]); });
        else if (!p.scale)
            each([&](int m, int v) __attribute__((always_inline)) {
                store(at(m, v), load(static_cast<const T*>(at(m, v))) + sum_[m][v]);
            });
        else
            each([&](int m, int v) __attribute__((always_inline)) {
                store(at(m, v),
                      multiply_add(load(static_cast<const T*>(at(m, v))), load(p.scale + v * kLanes<T>), sum_[m][v]));
            });
    }

private:
    template <class Body>
    [[gnu::always_inline]] void each(Body&& body) {
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v)
#pragma GCC unroll 16
            for (int m = 0; m < kRows; ++m) body(m, v);
    }

    Lanes<T> sum_[kRows][kVectors];
};

// Steps in one turn of the inner loop, and how far ahead of it a panel is prefetched, in elements.
constexpr int kUnrolled = 4;
constexpr int kPanelAhead = 768;

template <int kRows, class T>
[[gnu::always_inline]] inline void prefetch_sums(const Product<T>& p, const T* c) {
    if (!p.add) return;
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) __builtin_prefetch(c + m * kLanes<T>);
}

// a: a panel.
template <int kRows, int kVectors, class T>
[[gnu::noinline]] void multiply_panel(const Product<T>& p, const T* a, T* c) {
    ProductTile<kRows, kVectors, T> tile;
    const T* b = p.b;
    const int64_t b_strip = p.b_strip;
    prefetch_sums<kRows>(p, c);
    int64_t k = p.steps;
    for (; k >= kUnrolled; k -= kUnrolled) {
#pragma GCC unroll 16
        for (int u = 0; u < kUnrolled * kRows; u += kLanes<T>) __builtin_prefetch(a + kPanelAhead + u);
#pragma GCC unroll 16
        for (int u = 0; u < kUnrolled; ++u) tile.template step<1>(a + u * kRows, b + u * kLanes<T>, b_strip);
        a += kUnrolled * kRows;
        b += kUnrolled * kLanes<T>;
    }
    for (; k > 0; --k) {
        tile.template step<1>(a, b, b_strip);
        a += kRows;
        b += kLanes<T>;
    }
    tile.put(p, c);
}

template <int kRows, int kVectors, class T>
void multiply_panel_of(int64_t rows, const Product<T>& p, const T* a, T* c) {
    if (rows == kRows)
        multiply_panel<kRows, kVectors>(p, a, c);
    else if constexpr (kRows > 1)
        multiply_panel_of<kRows - 1, kVectors>(rows, p, a, c);
}

// a: rows of strips, the steps of which are lanes: [strip][row][lane], strips a_strip apart.
template <int kRows, int kVectors, class T>
[[gnu::noinline]] void multiply_strips(const Product<T>& p, const T* a, int64_t a_strip, T* c) {
    ProductTile<kRows, kVectors, T> tile;
    const T* b = p.b;
    const int64_t b_strip = p.b_strip;
    prefetch_sums<kRows>(p, c);
    for (int64_t strip = p.steps / kLanes<T>; strip > 0; --strip) {
#pragma GCC unroll 16
        for (int m = 0; m < kRows; ++m) __builtin_prefetch(a + (kRows + m) * kLanes<T>);
        const T* left = a;
        for (int l = 0; l < kLanes<T>; l += kUnrolled) {
#pragma GCC unroll 16
            for (int u = 0; u < kUnrolled; ++u) tile.template step<kLanes<T>>(left + u, b + u * kLanes<T>, b_strip);
            left += kUnrolled;
            b += kUnrolled * kLanes<T>;
        }
        a += a_strip;
    }
    tile.put(p, c);
}

template <int kRows, int kVectors, class T>
void multiply_strips_of(int64_t rows, const Product<T>& p, const T* a, int64_t a_strip, T* c) {
    if (rows == kRows)
        multiply_strips<kRows, kVectors>(p, a, a_strip, c);
    else if constexpr (kRows > 1)
        multiply_strips_of<kRows - 1, kVectors>(rows, p, a, a_strip, c);
}

template <int kVectors, class T>
void multiply_strips(const Product<T>& p, const T* a, int64_t a_strip, int64_t rows, T* c) {
    for (int64_t r = 0; r < rows;) {
        const int64_t height = panel_rows(rows - r);
        multiply_strips_of<kTileRows, kVectors>(height, p, a + r * kLanes<T>, a_strip, c + r * kLanes<T>);
        r += height;
    }
}

// body(first strip, a constant of how many) over strips, as many together as a tile has vectors.
template <class Body>
void for_each_strips(int64_t begin, int64_t end, Body&& body) {
    int64_t s = begin;
    for (; s + kTileVectors <= end; s += kTileVectors) body(s, Constant<kTileVectors>());
    if constexpr (kTileVectors > 1)
        for (; s < end; ++s) body(s, Constant<1>());
}

// ---- Packing --------------------------------------------------------------------------------------------------------

// Row i over its norm, padded with zeros to whole lanes.
template <class E>
void load_unit(const negcos::Rows<E>& rows, int64_t i, int64_t dim, Working<E>* unit) {
    using T = Working<E>;
    const E* row = rows.data + i * rows.stride;
    const Lanes<T> s = broadcast(rows.rescale[i]), inverse = broadcast(rows.inverse[i]);
    int64_t c = 0;
    for (; c + kLanes<T> <= dim; c += kLanes<T>) store(unit + c, load(row + c) * s * inverse);
    if (c < dim) {
        const Lanes<T> x = load_first(row + c, static_cast<int>(dim - c)) * s * inverse;
        store(unit + c, select_less(lane_indices<T>(), broadcast(static_cast<T>(dim - c)), x, broadcast(T(0))));
    }
}

// kLanes rows of `width` columns, `stride` apart, into a strip: [column][row].
template <class T>
void pack_strip(const T* rows, int64_t stride, int64_t width, T* strip) {
    for (int64_t c = 0; c < width; c += kLanes<T>) transpose(rows + c, stride, strip + c * kLanes<T>, kLanes<T>);
}
// And back.
template <class T>
void unpack_strip(const T* strip, int64_t width, T* rows, int64_t stride) {
    for (int64_t c = 0; c < width; c += kLanes<T>) transpose(strip + c * kLanes<T>, kLanes<T>, rows + c, stride);
}

// `count` columns of `height` rows, `stride` apart, side by side: to[column][row].
template <class T>
void pack_columns(const T* rows, int64_t stride, int64_t height, int64_t count, T* to) {
    if (height == kTileRows) {
        for (int64_t c = 0; c < count; ++c)
#pragma GCC unroll 16
            for (int64_t m = 0; m < kTileRows; ++m) to[c * kTileRows + m] = rows[m * stride + c];
        return;
    }
    for (int64_t c = 0; c < count; ++c)
        for (int64_t m = 0; m < height; ++m) to[c * height + m] = rows[m * stride + c];
}

}  // namespace

#endif
