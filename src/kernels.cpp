// SPDX-License-Identifier: Apache-2.0
//
// Compiled once for each instruction set, with its flags: defines one symbol, the table kernels_<isa>.
#include "kernels.hpp"

#include "kernel/batch_softmax.hpp"
#include "kernel/exp_log.hpp"
#include "kernel/gather.hpp"
#include "kernel/gradients.hpp"
#include "kernel/groups.hpp"
#include "kernel/norms.hpp"
#include "kernel/philox.hpp"
#include "kernel/tiles.hpp"

#define NEGCOS_JOIN_(a, b) a##b
#define NEGCOS_JOIN(a, b) NEGCOS_JOIN_(a, b)
#define NEGCOS_TEXT_(a) #a
#define NEGCOS_TEXT(a) NEGCOS_TEXT_(a)

namespace {

void log_each(const double* a, const double* b, double* result, int64_t n) noexcept {
    for (int64_t k = 0; k < n; k += kLanes<double>) {
        const int count = n - k < kLanes<double> ? static_cast<int>(n - k) : kLanes<double>;
        store_first(result + k, log_of_sum(load_first(a + k, count), load_first(b + k, count)), count);
    }
}

template <class E>
constexpr negcos::KernelTable<E> kTable = {
    .norms = norms<E>,
    .gather_scratch = gather_scratch<E>,
    .gather_queries = gather_queries<E>,
    .gather_documents = gather_documents<E>,
    .batch_softmax = batch_softmax<E>,
    .tile_pack_queries = tile_pack_queries<E>,
    .tile_pack_documents = tile_pack_documents<E>,
    .tile_queries = tile_queries<E>,
    .tile_columns = tile_columns<E>,
    .tile_close_documents = tile_close_documents<E>,
    .tile_documents = tile_documents<E>,
    .tile_finish_documents = tile_finish_documents<E>,
    .tile_totals = tile_totals<E>,
    .tile_scratch = tile_scratch<E>,
    .groups_scratch = groups_scratch<negcos::Working<E>>,
    .groups_windows = groups_windows<E>,
    .hard_gradient = hard_gradient<E>,
};

}  // namespace

namespace negcos {

extern const Kernels NEGCOS_JOIN(kernels_, NEGCOS_KERNEL_ISA);
const Kernels NEGCOS_JOIN(kernels_, NEGCOS_KERNEL_ISA) = {
    .isa = NEGCOS_TEXT(NEGCOS_KERNEL_ISA),
    .philox = philox_blocks,
    .f32 = kTable<float>,
    .f64 = kTable<double>,
    .f16 = kTable<negcos::F16>,
    .bf16 = kTable<negcos::BF16>,
    .log_of_sum = log_each,
};

}  // namespace negcos
