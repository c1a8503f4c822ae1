// SPDX-License-Identifier: Apache-2.0
//
// The border between the walks and the machine: a table of functions for each instruction set. The tables are defined
// in kernels.cpp, which is compiled once per instruction set.
#ifndef NEGCOS_KERNELS_HPP
#define NEGCOS_KERNELS_HPP

#include "work.hpp"

namespace negcos {

template <class E>
struct KernelTable {
    using T = Working<E>;
    // Norms of rows.
    NormCounts (*norms)(const Rows<E>&, int64_t dim, double floor, Range range) noexcept;

    // scratch: gather_scratch() elements. A document's arcs that were dropped go behind its others.
    int64_t (*gather_scratch)(const Gather<E>&) noexcept;
    Totals (*gather_queries)(const Gather<E>&, Range range, T* scratch) noexcept;
    void (*gather_documents)(const Gather<E>&, Range range, T* scratch) noexcept;
    Totals (*batch_softmax)(const BatchSoftmax<E>&) noexcept;

    // Strips are of the block of queries from `first` on, in a place of the wave; those to pack are of all queries.
    // blocks: of the wave whose first query is `first`. scratch: tile_scratch() elements.
    void (*tile_pack_queries)(const Tiles<E>&, Range strips, T* scratch) noexcept;
    void (*tile_pack_documents)(const Tiles<E>&, int64_t chunk, T* scratch) noexcept;
    void (*tile_queries)(const Tiles<E>&, TilePass pass, int64_t place, int64_t first, Range strips,
                         T* scratch) noexcept;
    void (*tile_columns)(const Tiles<E>&, int64_t first, int64_t blocks, int64_t chunk) noexcept;
    void (*tile_close_documents)(const Tiles<E>&, Range range) noexcept;
    void (*tile_documents)(const Tiles<E>&, int64_t first, int64_t blocks, int64_t chunk, T* scratch) noexcept;
    void (*tile_finish_documents)(const Tiles<E>&, int64_t chunk, T* scratch) noexcept;
    Totals (*tile_totals)(const Tiles<E>&) noexcept;
    int64_t (*tile_scratch)(const Tiles<E>&) noexcept;

    // Windows of GROUPS, counted without the one that reaches back.
    int64_t (*groups_scratch)(int64_t dim, int64_t size) noexcept;
    Totals (*groups_windows)(const Groups<E>&, Range windows, T* scratch) noexcept;

    // The gradient of hard negatives, in either walk. scratch: as much as that walk's.
    void (*hard_gradient)(const HardNegatives<E>&, Range range, T* scratch) noexcept;
};

// Blocks of four words that one call of the generator makes.
inline constexpr int kPhiloxBlocks = 16;

struct Kernels {
    const char* isa;
    // The words of counters (counter[0] + b, counter[1..3]), b = 0 .. kPhiloxBlocks - 1, four each.
    void (*philox)(const uint32_t (&key)[2], const uint32_t (&counter)[4], uint32_t* words) noexcept;
    KernelTable<float> f32;
    KernelTable<double> f64;
    KernelTable<F16> f16;
    KernelTable<BF16> bf16;
    // Elementwise: log(a + b) for 0 <= a <= 1, 0 <= b and a + b in [1, 2^60].
    void (*log_of_sum)(const double* a, const double* b, double* result, int64_t n) noexcept;

    template <class E>
    const KernelTable<E>& table() const;
};
template <>
inline const KernelTable<float>& Kernels::table<float>() const {
    return f32;
}
template <>
inline const KernelTable<double>& Kernels::table<double>() const {
    return f64;
}
template <>
inline const KernelTable<F16>& Kernels::table<F16>() const {
    return f16;
}
template <>
inline const KernelTable<BF16>& Kernels::table<BF16>() const {
    return bf16;
}

}  // namespace negcos

#endif
