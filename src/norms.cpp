// SPDX-License-Identifier: Apache-2.0
#include "norms.hpp"

#include <atomic>

namespace negcos {
namespace {

// What ties row i of a prefix to that of the next: see Prefix. A prefix that is all zero takes over the next one's
// norm, so that the gradient of its columns, which comes from longer prefixes alone, has something to be relative to.
template <class T, class E>
void link_row(Rows<E>& prefix, Rows<E>* next, int64_t i) {
    const bool zero = prefix.inverse[i] == 0;
    prefix.nonzero[i] = zero ? T(0) : T(1);
    if (!next) return;
    next->norm_ratio[i] = 1;
    if (zero) {
        prefix.inverse[i] = next->inverse[i];
        prefix.rescale[i] = next->rescale[i];
        prefix.above_floor[i] = 0;
    } else {
        // Each ratio is in range where inverse times rescale may not be. NaN and Inf are met in the similarities.
        const T ratio =
            static_cast<T>(static_cast<double>(next->inverse[i]) / static_cast<double>(prefix.inverse[i]) *
                           (static_cast<double>(next->rescale[i]) / static_cast<double>(prefix.rescale[i])));
        next->norm_ratio[i] = ratio - ratio == 0 ? ratio : T(1);
    }
}

// Of one side's rows, their prefixes one after another.
template <class E>
bool find_norms_of(Rows<E> Prefix<E>::*side, Problem<E>& problem, bool dot, double floor, Parallel& parallel,
                   const KernelTable<E>& kernels, NormCounts& total) {
    const int64_t prefixes = problem.prefix_count;
    const Rows<E>& whole = problem.prefixes[0].*side;
    const int64_t per_task = rows_per_task(problem.dim * prefixes);
    std::atomic<int64_t> zero{0}, nonfinite{0}, rescaled{0};
    std::atomic<bool> has_zero[kMostPrefixes] = {};
    const auto block = [&](Range range, int64_t) {
        for (int64_t k = 0, dim = 0; k < prefixes; ++k) {
            Rows<E> rows = problem.prefixes[k].*side;
            rows.data = whole.data;
            dim += problem.prefixes[k].dim;
            if (dot) {
                for (int64_t i = range.begin; i < range.end; ++i)
                    rows.inverse[i] = rows.rescale[i] = 1, rows.above_floor[i] = 0;
                continue;
            }
            const NormCounts counts = kernels.norms(rows, dim, floor, range);
            rescaled += counts.rescaled;
            if (counts.zero > 0) has_zero[k] = true;
            if (k + 1 == prefixes) zero += counts.zero, nonfinite += counts.nonfinite;
        }
        for (int64_t k = prefixes - 1; k >= 0 && prefixes > 1; --k)
            for (int64_t i = range.begin; i < range.end; ++i)
                link_row<Working<E>>(problem.prefixes[k].*side,
                                     k + 1 < prefixes ? &(problem.prefixes[k + 1].*side) : nullptr, i);
    };
    if (!for_each_block(parallel, whole.count, per_task, whole.count <= per_task, block)) return false;
    total.zero += zero;
    total.nonfinite += nonfinite;
    for (int64_t k = 0; k < prefixes; ++k) {
        (problem.prefixes[k].*side).rescaled = rescaled != 0;
        if (has_zero[k]) problem.prefixes[k].has_zero_rows = true;
    }
    return true;
}

}  // namespace

template <class E>
void reserve_norms(Problem<E>& problem, Arena& arena) {
    using T = Working<E>;
    for (int64_t k = 0; k < problem.prefix_count; ++k) {
        Prefix<E>& prefix = problem.prefixes[k];
        for (Rows<E>* rows : {&prefix.queries, &prefix.documents, &prefix.hard}) {
            rows->inverse = arena.take<T>(rows->count);
            rows->above_floor = arena.take<T>(rows->count);
            rows->rescale = arena.take<T>(rows->count);
            if (problem.prefix_count == 1) continue;
            rows->norm_ratio = arena.take<T>(rows->count);
            rows->nonzero = arena.take<T>(rows->count);
        }
    }
}

template <class E>
bool find_norms(Problem<E>& problem, int32_t similarity, double floor, Parallel& parallel,
                const KernelTable<E>& kernels, NormCounts& counts) {
    for (Rows<E> Prefix<E>::*side : {&Prefix<E>::queries, &Prefix<E>::documents, &Prefix<E>::hard})
        if (!find_norms_of(side, problem, similarity == NEGCOS_SIMILARITY_DOT, floor, parallel, kernels, counts))
            return false;
    return true;
}

#define NEGCOS_NORMS_OF(E)                               \
    template void reserve_norms<E>(Problem<E>&, Arena&); \
    template bool find_norms<E>(Problem<E>&, int32_t, double, Parallel&, const KernelTable<E>&, NormCounts&)
NEGCOS_NORMS_OF(float);
NEGCOS_NORMS_OF(double);
NEGCOS_NORMS_OF(F16);
NEGCOS_NORMS_OF(BF16);

}  // namespace negcos
