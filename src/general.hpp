// SPDX-License-Identifier: Apache-2.0
//
// The gather of the general loss (is_general() in plan.hpp): masks, corrections and objectives between similarities and
// gradients, hard negatives beside the documents, and nested prefixes.
#ifndef NEGCOS_GENERAL_HPP
#define NEGCOS_GENERAL_HPP

#include "pairs.hpp"
#include "parallel.hpp"
#include "problem.hpp"
#include "workspace.hpp"

namespace negcos {

template <class E>
class GeneralGatherEngine {
    using T = Working<E>;

public:
    GeneralGatherEngine(const Problem<E>& problem, Pairs& pairs, const KernelTable<E>& kernels)
        : problem_(problem), pairs_(pairs), kernels_(kernels) {}

    void reserve(Arena& arena, int64_t workers);
    bool run(Parallel& parallel, const Kernels& kernels, Totals& totals);

private:
    const Problem<E>& problem_;
    Pairs& pairs_;
    const KernelTable<E>& kernels_;
    GeneralGather<E> work_;
    int64_t rows_per_task_ = 0, scratch_size_ = 0;
    T* scratch_ = nullptr;
    Totals* task_totals_ = nullptr;
};

}  // namespace negcos

#endif
