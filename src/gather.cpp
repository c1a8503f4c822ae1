// SPDX-License-Identifier: Apache-2.0
#include "gather.hpp"

#include <algorithm>

namespace negcos {

template <class E>
void GatherEngine<E>::reserve(Arena& arena, int64_t workers) {
    const Problem<E>& problem = problem_;
    const int64_t batch = problem.queries().count, slots = pairs_.slots();
    const bool transpose = problem.outputs.grad_documents.data;
    pairs_.reserve(arena, workers, transpose);
    arcs_ = transpose ? arena.take<Arc<T>>(batch * slots + kArcsAhead) : nullptr;
    rows_per_task_ = rows_per_task(saturated_product(slots, problem.dim));
    task_totals_ = arena.take<Totals>(tasks_of(batch, rows_per_task_));
    scratch_size_ = kernels_.gather_scratch(problem.dim, slots);
    scratch_ = arena.take<T>(scratch_size_ * workers);
}

template <class E>
bool GatherEngine<E>::run(Parallel& parallel, const Kernels& kernels, Totals& totals) {
    const Problem<E>& problem = problem_;
    const Rows<E>&queries = problem.queries(), &documents = problem.documents();
    const bool small = saturated_product(queries.count * pairs_.slots(), problem.dim) < kInlineWork;
    const auto blocks = [&](int64_t rows, auto&& body) {
        return for_each_block(parallel, rows, rows_per_task_, small,
                              [&](Range range, int64_t worker) { body(range, scratch_ + worker * scratch_size_); });
    };
    if (!pairs_.build(parallel, kernels, small)) return false;

    GatherQueries<E> forward;
    forward.queries = queries;
    forward.documents = documents;
    forward.dim = problem.dim;
    forward.candidates = pairs_.candidates();
    forward.terms = problem.terms;
    forward.lists = pairs_.lists();
    forward.arcs = arcs_;
    forward.outputs = problem.outputs;
    if (!blocks(queries.count, [&](Range range, T* scratch) {
            task_totals_[range.begin / rows_per_task_] = kernels_.gather_queries(forward, range, scratch);
        }))
        return false;
    for (int64_t task = 0; task < tasks_of(queries.count, rows_per_task_); ++task) totals.add(task_totals_[task]);

    if (!problem.outputs.grad_documents.data) return true;
    std::fill_n(arcs_ + pairs_.lists().begin(documents.count), kArcsAhead, Arc<T>{});
    const GatherGradient<E> backward{
        documents, queries, problem.dim, pairs_.lists(), arcs_, problem.terms.factor, problem.outputs.grad_documents};
    return blocks(documents.count,
                  [&](Range range, T* scratch) { kernels_.gather_gradient(backward, range, scratch); });
}

template class GatherEngine<float>;
template class GatherEngine<double>;
template class GatherEngine<F16>;
template class GatherEngine<BF16>;

}  // namespace negcos
