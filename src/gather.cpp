// SPDX-License-Identifier: Apache-2.0
#include "gather.hpp"

#include <algorithm>

namespace negcos {

template <class E>
void GatherEngine<E>::reserve(Arena& arena, int64_t workers) {
    const Problem<E>& problem = problem_;
    const int64_t batch = problem.queries().count, slots = pairs_.slots(), hard = problem.terms.hard;
    const int64_t record = edge_record(problem.prefix_count);
    const bool transpose = problem.outputs.grad_documents.data;
    pairs_.reserve(arena, workers, transpose);
    if (transpose) work_.arcs = arena.take<Arc<T>>((batch * slots + kArcsAhead) * record);
    if (problem.outputs.grad_hard_negatives.data) work_.hard_slopes = arena.take<T>(batch * hard * record);
    rows_per_task_ = rows_per_task(saturated_product(slots + hard, problem.dim));
    task_totals_ = arena.take<Totals>(tasks_of(batch, rows_per_task_));
    work_.prefixes = problem.prefixes;
    work_.prefix_count = problem.prefix_count;
    work_.dim = problem.dim;
    work_.candidates = pairs_.candidates();
    work_.terms = problem.terms;
    work_.general = problem.general;
    scratch_size_ = kernels_.gather_scratch(work_);
    scratch_ = arena.take<T>(scratch_size_ * workers);
}

template <class E>
bool GatherEngine<E>::run(Parallel& parallel, const Kernels& kernels, Totals& totals) {
    const Problem<E>& problem = problem_;
    const int64_t batch = problem.queries().count, documents = problem.documents().count;
    const bool small = saturated_product(batch * (pairs_.slots() + problem.terms.hard), problem.dim) < kInlineWork;
    const auto blocks = [&](int64_t rows, auto&& body) {
        return for_each_block(parallel, rows, rows_per_task_, small,
                              [&](Range range, int64_t worker) { body(range, scratch_ + worker * scratch_size_); });
    };
    if (!pairs_.build(parallel, kernels, small)) return false;

    work_.candidates = pairs_.candidates();
    work_.terms = problem.terms;
    work_.lists = pairs_.lists();
    work_.outputs = problem.outputs;
    if (!blocks(batch, [&](Range range, T* scratch) {
            task_totals_[range.begin / rows_per_task_] = kernels_.gather_queries(work_, range, scratch);
        }))
        return false;
    for (int64_t task = 0; task < tasks_of(batch, rows_per_task_); ++task) totals.add(task_totals_[task]);

    if (problem.outputs.grad_documents.data) {
        const int64_t record = edge_record(problem.prefix_count);
        std::fill_n(work_.arcs + work_.lists.begin(documents) * record, kArcsAhead * record, Arc<T>{});
        if (!blocks(documents, [&](Range range, T* scratch) { kernels_.gather_documents(work_, range, scratch); }))
            return false;
    }
    const HardNegatives<E> hard = hard_negatives(problem, static_cast<const T*>(work_.hard_slopes));
    return !hard.gradient.data ||
           blocks(batch, [&](Range range, T* scratch) { kernels_.hard_gradient(hard, range, scratch); });
}

template class GatherEngine<float>;
template class GatherEngine<double>;
template class GatherEngine<F16>;
template class GatherEngine<BF16>;

}  // namespace negcos
