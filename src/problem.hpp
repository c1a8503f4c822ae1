// SPDX-License-Identifier: Apache-2.0
//
// One call, checked and typed: what both engines work on.
#ifndef NEGCOS_PROBLEM_HPP
#define NEGCOS_PROBLEM_HPP

#include <cstdint>

#include "kernels.hpp"

namespace negcos {

template <class E>
struct Problem {
    Rows<E> queries, documents, hard;  // B, M and B * H rows
    int64_t dim = 0;
    LossScale loss;
    bool mean = true, batch_softmax = false;
    // The general loss.
    Level<E> levels[kMostPrefixes];
    int64_t level_count = 1;
    LossTerms<Working<E>> terms;
    const int64_t* positives = nullptr;  // nullptr = row i
    bool both = false;
    Output<E> losses, hit_probability, logits, grad_queries, grad_documents, grad_hard_negatives;

    int64_t batch() const { return queries.count; }
    bool gradients() const { return grad_queries.data || grad_documents.data; }
};

// Below this many multiply-adds a pass takes some ten microseconds: handing it to other threads would cost more than
// they could save.
inline constexpr int64_t kInlineWork = 1 << 18;

// Rows per task for `work` multiply-adds a row: a function of the shape alone, since sums are taken task by task.
inline int64_t rows_per_task(int64_t work) {
    const int64_t rows = kInlineWork / (work > 0 ? work : 1);
    return rows < 8 ? 8 : rows > 1024 ? 1024 : rows;
}

inline int64_t tasks_of(int64_t rows, int64_t per_task) {
    return (rows + per_task - 1) / per_task;
}

// body(begin, end, worker) over blocks of rows.
template <class Parallel, class Body>
bool for_each_block(Parallel& parallel, int64_t rows, int64_t per_task, bool run_inline, Body&& body) {
    return parallel.for_each(tasks_of(rows, per_task), run_inline, [&](int64_t task, int64_t worker) {
        const int64_t begin = task * per_task;
        body(begin, begin + per_task < rows ? begin + per_task : rows, worker);
    });
}

}  // namespace negcos

#endif
