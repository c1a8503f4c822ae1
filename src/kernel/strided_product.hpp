// SPDX-License-Identifier: Apache-2.0
//
// Products of small matrices with strided operands, for the general loss in tiles. Each output element is one chain of
// FMAs in the order of the inner index, so tile shapes cannot change the bits; chains over long rows are cut and added
// up.
#ifndef NEGCOS_KERNEL_STRIDED_PRODUCT_HPP
#define NEGCOS_KERNEL_STRIDED_PRODUCT_HPP

#include "kernel/product.hpp"

namespace {

// c[m][v] (+)= sum_k a[m][k] * b[k][v], v a vector of lanes. Side by side in a are either the steps, rows being
// a_stride apart, or the rows, steps being a_stride apart: constant offsets from few pointers, so that next to nothing
// competes with the FMAs.
enum class Left { kStepsTogether, kRowsTogether };
template <class T>
struct StridedProduct {
    const T* a;
    int64_t a_stride;
    const T* b;
    int64_t b_vector, b_step;
    T* c;
    int64_t c_row, c_vector;
    int64_t rows, vectors, steps;
    bool add;
};

template <int kRows, int kVectors, class T>
using Tile = Lanes<T>[kRows][kVectors];

// One step for the whole tile; left(m) is the scalar of row m.
template <int kRows, int kVectors, class T, class LeftOf>
[[gnu::always_inline]] inline void multiply_step(Tile<kRows, kVectors, T>& acc, const T* b, int64_t b_vector,
                                                 LeftOf&& left) {
    Lanes<T> right[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) right[v] = load(b + v * b_vector);
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
        const Lanes<T> x = broadcast(left(m));
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) acc[m][v] = multiply_add(x, right[v], acc[m][v]);
    }
}

template <Left kLeft, int kRows, int kVectors, class T>
void multiply_tile(const StridedProduct<T>& product, const T* a, const T* b, T* c) {
    Tile<kRows, kVectors, T> acc;
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) acc[m][v] = broadcast(T(0));
    const int64_t stride = product.a_stride, b_step = product.b_step, b_vector = product.b_vector;
    if constexpr (kLeft == Left::kRowsTogether) {
        for (int64_t k = product.steps; k > 0; --k) {
            multiply_step<kRows, kVectors>(acc, b, b_vector, [&](int m) { return a[m]; });
            __builtin_prefetch(a + 12 * stride);  // each step a line of its own, in strides that hardware follows late
            a += stride;
            b += b_step;
        }
    } else {
        // One pointer for three rows: base, base + stride and base + 2 * stride are addresses that cost nothing. The
        // empty asm keeps the compiler from making a pointer of each row, for which there are not enough registers.
        constexpr int kPointers = (kRows + 2) / 3;
        const T* left[kPointers];
#pragma GCC unroll 16
        for (int g = 0; g < kPointers; ++g) left[g] = a + 3 * g * stride;
        for (int64_t k = product.steps; k > 0; --k) {
            multiply_step<kRows, kVectors>(acc, b, b_vector, [&](int m) { return left[m / 3][m % 3 * stride]; });
            b += b_step;
#pragma GCC unroll 16
            for (int g = 0; g < kPointers; ++g) {
                ++left[g];
                asm("" : "+r"(left[g]));
            }
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) {
            T* out = c + m * product.c_row + v * product.c_vector;
            store(out, product.add ? load(static_cast<const T*>(out)) + acc[m][v] : acc[m][v]);
        }
}

template <Left kLeft, int kRows, int kVectors, class T>
void multiply_last_rows(const StridedProduct<T>& product, int64_t rows, const T* a, const T* b, T* c) {
    if (rows == kRows)
        multiply_tile<kLeft, kRows, kVectors>(product, a, b, c);
    else if constexpr (kRows > 1)
        multiply_last_rows<kLeft, kRows - 1, kVectors>(product, rows, a, b, c);
}

template <Left kLeft, int kVectors, class T>
void multiply_rows(const StridedProduct<T>& product, int64_t vector) {
    const int64_t a_row = kLeft == Left::kRowsTogether ? 1 : product.a_stride;
    const T* b = product.b + vector * product.b_vector;
    T* c = product.c + vector * product.c_vector;
    int64_t m = 0;
    for (; m + kTileRows <= product.rows; m += kTileRows)
        multiply_tile<kLeft, kTileRows, kVectors>(product, product.a + m * a_row, b, c + m * product.c_row);
    if constexpr (kTileRows > 1)
        if (m < product.rows)
            multiply_last_rows<kLeft, kTileRows - 1, kVectors>(product, product.rows - m, product.a + m * a_row, b,
                                                               c + m * product.c_row);
}

template <Left kLeft, class T>
void multiply(const StridedProduct<T>& product) {
    int64_t v = 0;
    for (; v + kTileVectors <= product.vectors; v += kTileVectors) multiply_rows<kLeft, kTileVectors>(product, v);
    for (; v < product.vectors; ++v) multiply_rows<kLeft, 1>(product, v);
}

// Rows over their norms, padded to whole lanes, and for documents (panels != nullptr) the same transposed in groups of
// kLanes rows: panels[(group * width + column) * kLanes + row]. begin is a multiple of kLanes.
template <class E>
void tile_pack(const negcos::Rows<E>& rows, int64_t dim, Working<E>* units, Working<E>* panels, Range range) noexcept {
    using T = Working<E>;
    const int64_t width = pad_lanes<T>(dim), stride = negcos::odd_lines<T>(dim);
    for (int64_t i = range.begin; i < range.end; ++i) {
        const E* row = rows.data + i * rows.stride;
        const Lanes<T> s = broadcast(rows.rescale[i]), inverse = broadcast(rows.inverse[i]);
        T* unit = units + i * stride;
        int64_t c = 0;
        for (; c + kLanes<T> <= dim; c += kLanes<T>) store(unit + c, load(row + c) * s * inverse);
        if (c < dim) {
            const Lanes<T> x = load_first(row + c, static_cast<int>(dim - c)) * s * inverse;
            store(unit + c, select_less(lane_indices<T>(), broadcast(static_cast<T>(dim - c)), x, broadcast(T(0))));
        }
    }
    if (!panels) return;
    for (int64_t first = range.begin; first < range.end; first += kLanes<T>) {
        T* panel = panels + first * width;
        const int64_t count = range.end - first < kLanes<T> ? range.end - first : kLanes<T>;
        for (int64_t l = 0; l < kLanes<T>; ++l)
            for (int64_t c = 0; c < width; ++c)
                panel[c * kLanes<T> + l] = l < count ? units[(first + l) * stride + c] : T(0);
    }
}

// Similarities of `rows` queries with `vectors` groups of documents: scores[row][document], on top of what is there
// when `add`. An element is a chain of its own, not one of kLanes: so its chains are shorter than in a gather's blocks.
template <class T>
void multiply_units(const T* queries, int64_t query_stride, const T* panels, int64_t width, int64_t dim, int64_t rows,
                    int64_t vectors, T* scores, int64_t stride, bool add) {
    StridedProduct<T> product{queries, query_stride, panels, kLanes<T> * width, kLanes<T>, scores,
                              stride,  kLanes<T>,    rows,   vectors,           dim,       add};
    for (int64_t c = 0; c == 0 || c < dim; c += kChainColumns) {
        product.steps = dim - c < kChainColumns ? dim - c : kChainColumns;
        multiply<Left::kStepsTogether>(product);
        product.a += kChainColumns;
        product.b += kChainColumns * product.b_step;
        product.add = true;
    }
}

}  // namespace

#endif
