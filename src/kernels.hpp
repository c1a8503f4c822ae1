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
    // Norms of rows [begin, end).
    NormCounts (*norms)(const Rows<E>&, int64_t dim, double floor, Range range) noexcept;

    // scratch: gather_scratch(dim, slots) elements.
    int64_t (*gather_scratch)(int64_t dim, int64_t slots) noexcept;
    Totals (*gather_queries)(const GatherQueries<E>&, Range range, T* scratch) noexcept;
    void (*gather_gradient)(const GatherGradient<E>&, Range range, T* scratch) noexcept;
    Totals (*batch_softmax)(const BatchSoftmax<E>&) noexcept;

    void (*tile_pack)(const Rows<E>&, int64_t dim, T* units, T* panels, Range range) noexcept;
    void (*tile_positives)(const Tiles<E>&, Range range, T* scratch) noexcept;
    void (*tile_counts)(const Tiles<E>&, int64_t first, Range range) noexcept;
    void (*tile_scores)(const Tiles<E>&, Range block, int64_t chunk, T* scratch) noexcept;
    Totals (*tile_combine)(const Tiles<E>&, Range block, T* scratch) noexcept;
    void (*tile_documents)(const Tiles<E>&, Range block, int64_t chunk, T* scratch) noexcept;
    void (*tile_finish_queries)(const Tiles<E>&, int64_t first, Range range, T* scratch) noexcept;
    void (*tile_finish_documents)(const Tiles<E>&, Range range) noexcept;
    int64_t (*tile_scratch)(int64_t stride, int64_t block, int64_t chunks) noexcept;  // elements, for all of the above

    // The general loss. Scratch of all of it: variant_scratch() elements, or tile_variant_scratch().
    int64_t (*variant_scratch)(const Prefix<E>*, int64_t prefix_count, int64_t dim, int64_t slots) noexcept;
    Totals (*variant_queries)(const GatherVariants<E>&, Range range, T* scratch) noexcept;
    void (*variant_documents)(const GatherVariants<E>&, Range range, T* scratch) noexcept;
    void (*hard_gradient)(const HardNegatives<E>&, Range range, T* scratch) noexcept;
    // Rows of units with NaN or Inf become 0, so that their products with the weights of what is dropped are 0 too.
    void (*variant_calm)(T* units, int64_t stride, int64_t width, T* broken, Range range) noexcept;
    void (*variant_positives)(const TileVariants<E>&, Range range, T* scratch) noexcept;
    void (*variant_scores)(const TileVariants<E>&, Range block, int64_t chunk, bool sums, T* scratch) noexcept;
    void (*variant_close_queries)(const TileVariants<E>&, int64_t first, Range range, T* scratch) noexcept;
    void (*variant_close_documents)(const TileVariants<E>&, Range range) noexcept;
    void (*variant_weights)(const TileVariants<E>&, Range block, int64_t chunk, T* scratch) noexcept;
    void (*variant_finish_queries)(const TileVariants<E>&, int64_t first, Range range, T* scratch) noexcept;
    void (*variant_finish_documents)(const TileVariants<E>&, Range range, T* scratch) noexcept;
    Totals (*variant_totals)(const TileVariants<E>&) noexcept;
    int64_t (*tile_variant_scratch)(const Prefix<E>*, int64_t prefix_count, int64_t chunk, int64_t chunks,
                                    int64_t hard) noexcept;

    // Elementwise, for tests: exp of n numbers <= 0.
    void (*exp_nonpositive)(const T* x, T* result, int64_t n) noexcept;
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
    // Elementwise, for tests: log(a + b).
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
