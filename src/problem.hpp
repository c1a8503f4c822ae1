// SPDX-License-Identifier: Apache-2.0
//
// One call, checked and typed: what every walk works on.
#ifndef NEGCOS_PROBLEM_HPP
#define NEGCOS_PROBLEM_HPP

#include <cstdint>

#include "negcos/negcos.h"
#include "work.hpp"

namespace negcos {

template <class E>
struct Problem {
    int64_t dim = 0;
    Prefix<E> prefixes[kMostPrefixes];  // one of all columns where the caller names none
    int64_t prefix_count = 1;
    bool sampled = true;                 // candidates are drawn or given, not all documents
    bool general = false;                // the arithmetic of the whole loss family
    bool both = false;                   // documents too have a softmax over the queries
    const int64_t* positives = nullptr;  // nullptr = row i
    LossTerms<Working<E>> terms;
    Outputs<E> outputs;

    // Rows from their first column on; their norms are those of the first prefix.
    const Rows<E>& queries() const { return prefixes[0].queries; }
    const Rows<E>& documents() const { return prefixes[0].documents; }
    bool gradients() const { return outputs.grad_queries.data || outputs.grad_documents.data; }
};

// slopes: B x hard records.
template <class E>
HardNegatives<E> hard_negatives(const Problem<E>& problem, const Working<E>* slopes) {
    return {problem.prefixes,
            problem.prefix_count,
            problem.dim,
            problem.terms.hard,
            problem.terms.factor,
            slopes,
            problem.outputs.grad_hard_negatives};
}

// visit(the caller's matrix, the walks' output) of every matrix that a call can be asked for.
template <class E, class Visit>
void for_each_output(const negcos_result& result, Outputs<E>& outputs, Visit&& visit) {
    visit(result.losses, outputs.losses);
    visit(result.hit_probability, outputs.hit_probability);
    visit(result.logits, outputs.logits);
    visit(result.grad_queries, outputs.grad_queries);
    visit(result.grad_documents, outputs.grad_documents);
    visit(result.grad_hard_negatives, outputs.grad_hard_negatives);
}

// Below this many multiply-adds a pass takes some ten microseconds: handing it to other threads would cost more than
// they could save.
inline constexpr int64_t kInlineWork = 1 << 18;

// a * b, both not negative, or the largest number.
inline int64_t saturated_product(int64_t a, int64_t b) {
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

// Rows per task for `work` multiply-adds a row: a function of the shape alone, since sums are taken task by task.
inline int64_t rows_per_task(int64_t work) {
    const int64_t rows = kInlineWork / (work > 0 ? work : 1);
    return rows < 8 ? 8 : rows > 1024 ? 1024 : rows;
}

inline int64_t tasks_of(int64_t rows, int64_t per_task) {
    return (rows + per_task - 1) / per_task;
}

// body(range, worker) over blocks of rows.
template <class Parallel, class Body>
bool for_each_block(Parallel& parallel, int64_t rows, int64_t per_task, bool run_inline, Body&& body) {
    return parallel.for_each(tasks_of(rows, per_task), run_inline, [&](int64_t task, int64_t worker) {
        const int64_t begin = task * per_task;
        body(Range{begin, begin + per_task < rows ? begin + per_task : rows}, worker);
    });
}

}  // namespace negcos

#endif
