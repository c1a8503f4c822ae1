// SPDX-License-Identifier: Apache-2.0
//
// The published layer's loss: a softmax of the positives' similarities over the batch. Negatives play no part in it and
// exist only when the caller asks for them or their logits.
#ifndef NEGCOS_BATCH_SOFTMAX_HPP
#define NEGCOS_BATCH_SOFTMAX_HPP

#include "pairs.hpp"
#include "parallel.hpp"
#include "problem.hpp"
#include "workspace.hpp"

namespace negcos {

template <class E>
class BatchSoftmaxEngine {
    using T = Working<E>;

public:
    BatchSoftmaxEngine(const Problem<E>& problem, Pairs& pairs, const KernelTable<E>& kernels)
        : problem_(problem),
          pairs_(pairs),
          kernels_(kernels),
          positives_(problem.queries().count, problem.documents().count, problem.positives) {}

    void reserve(Arena& arena, int64_t workers);
    bool run(Parallel& parallel, const Kernels& kernels, Totals& totals);

private:
    const Problem<E>& problem_;
    Pairs& pairs_;
    const KernelTable<E>& kernels_;
    Pairs positives_;  // the graph of the loss: each query and its positive
    Gather<E> similarities_;
    Arc<T>* arcs_ = nullptr;
    int64_t rows_per_task_ = 0, scratch_size_ = 0;
    T *similarity_ = nullptr, *slopes_ = nullptr, *exps_ = nullptr, *scratch_ = nullptr;
};

}  // namespace negcos

#endif
