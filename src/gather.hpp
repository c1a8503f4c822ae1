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

template <class E>
class GatherEngine {
    using T = Working<E>;

public:
    GatherEngine(const Problem<E>& problem, Pairs& pairs, const KernelTable<E>& kernels)
        : problem_(problem),
          pairs_(pairs),
          kernels_(kernels),
          own_(problem.queries.count, problem.documents.count, problem.positives) {}

    void reserve(Arena& arena, int64_t workers);
    bool run(Parallel& parallel, const Kernels& kernels, Totals& totals);

private:
    bool run_inline() const;
    bool gradient_of(Parallel& parallel, const Rows<E>& targets, const Rows<E>& sources, const Incoming& incoming,
                     Output<E> gradient);

    const Problem<E>& problem_;
    Pairs& pairs_;
    const KernelTable<E>& kernels_;
    Pairs own_;  // queries and their positives alone, for BATCH_SOFTMAX
    int64_t* own_start_ = nullptr;
    Edge* own_edge_ = nullptr;
    int64_t rows_per_task_ = 0, scratch_size_ = 0;
    T *edges_ = nullptr, *positives_ = nullptr, *batch_scratch_ = nullptr, *scratch_ = nullptr;
    Totals* task_totals_ = nullptr;
};

}  // namespace negcos

#endif
