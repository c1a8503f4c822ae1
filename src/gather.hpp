// SPDX-License-Identifier: Apache-2.0
//
// Engine 1: sampled candidates, a sparse graph. Two gathers over its edges: by query (similarities, softmax, the
// queries' gradient), then by document through the transpose (the documents' gradient).
#ifndef NEGCOS_GATHER_HPP
#define NEGCOS_GATHER_HPP

#include "pairs.hpp"
#include "problem.hpp"
#include "workspace.hpp"

namespace negcos {

template <class T>
class GatherEngine {
public:
    GatherEngine(const Problem<T>& problem, Pairs& pairs, const KernelTable<T>& kernels)
        : problem_(problem), pairs_(pairs), kernels_(kernels) {}

    void reserve(Arena& arena, int64_t workers);
    bool run(Parallel& parallel, const Kernels& kernels, Totals& totals);

private:
    bool run_inline() const;
    bool gradient_of(Parallel& parallel, const Rows<T>& targets, const Rows<T>& sources, const Incoming& incoming,
                     Output<T> gradient);

    const Problem<T>& problem_;
    Pairs& pairs_;
    const KernelTable<T>& kernels_;
    int64_t rows_per_task_ = 0, scratch_size_ = 0;
    T *edges_ = nullptr, *positives_ = nullptr, *batch_scratch_ = nullptr, *scratch_ = nullptr;
    Totals* task_totals_ = nullptr;
};

}  // namespace negcos

#endif
