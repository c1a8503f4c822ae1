// SPDX-License-Identifier: Apache-2.0
//
// The gather: sampled candidates, a sparse graph. Two passes over its edges: by query (similarities, softmax, the
// queries' gradient), then by document through the transpose (the documents' gradient).
#ifndef NEGCOS_GATHER_HPP
#define NEGCOS_GATHER_HPP

#include "pairs.hpp"
#include "parallel.hpp"
#include "problem.hpp"
#include "workspace.hpp"

namespace negcos {

template <class E>
class GatherEngine {
    using T = Working<E>;

public:
    GatherEngine(const Problem<E>& problem, Pairs& pairs, const KernelTable<E>& kernels)
        : problem_(problem), pairs_(pairs), kernels_(kernels) {}

    void reserve(Arena& arena, int64_t workers);
    bool run(Parallel& parallel, const Kernels& kernels, Totals& totals);

private:
    const Problem<E>& problem_;
    Pairs& pairs_;
    const KernelTable<E>& kernels_;
    Gather<E> work_;
    int64_t rows_per_task_ = 0, scratch_size_ = 0;
    T* scratch_ = nullptr;
    Totals* task_totals_ = nullptr;
};

}  // namespace negcos

#endif
