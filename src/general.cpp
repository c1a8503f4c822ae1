// SPDX-License-Identifier: Apache-2.0
#include "general.hpp"

namespace negcos {
template <class E>
void GeneralGatherEngine<E>::reserve(Arena& arena, int64_t workers) {
    const Problem<E>& problem = problem_;
    const int64_t batch = problem.queries().count, slots = pairs_.slots() + problem.terms.hard;
    pairs_.reserve(arena, workers, problem.outputs.grad_documents.data);
    work_ = GeneralGather<E>();
    const int64_t record = edge_record(problem.prefix_count);
    if (problem.outputs.grad_documents.data) work_.arcs = arena.take<Arc<T>>(batch * pairs_.slots() * record);
    if (problem.outputs.grad_hard_negatives.data)
        work_.hard_slopes = arena.take<T>(batch * problem.terms.hard * record);
    rows_per_task_ = rows_per_task(saturated_product(slots, problem.dim));
    task_totals_ = arena.take<Totals>(tasks_of(batch, rows_per_task_));
    scratch_size_ = kernels_.general_gather_scratch(problem.prefixes, problem.prefix_count, problem.dim, slots);
    scratch_ = arena.take<T>(scratch_size_ * workers);
}

template <class E>
bool GeneralGatherEngine<E>::run(Parallel& parallel, const Kernels& kernels, Totals& totals) {
    const Problem<E>& problem = problem_;
    const bool small =
        saturated_product(problem.queries().count * (pairs_.slots() + problem.terms.hard), problem.dim) < kInlineWork;
    if (!pairs_.build(parallel, kernels, small)) return false;

    work_.prefixes = problem.prefixes;
    work_.prefix_count = problem.prefix_count;
    work_.dim = problem.dim;
    work_.candidates = pairs_.candidates();
    work_.lists = pairs_.lists();
    work_.terms = problem.terms;
    work_.outputs = problem.outputs;
    const auto blocks = [&](int64_t rows, auto&& body) {
        return for_each_block(parallel, rows, rows_per_task_, small,
                              [&](Range range, int64_t worker) { body(range, scratch_ + worker * scratch_size_); });
    };
    if (!blocks(problem.queries().count, [&](Range range, T* scratch) {
            task_totals_[range.begin / rows_per_task_] = kernels_.general_gather_queries(work_, range, scratch);
        }))
        return false;
    for (int64_t task = 0; task < tasks_of(problem.queries().count, rows_per_task_); ++task)
        totals.add(task_totals_[task]);
    if (problem.outputs.grad_documents.data && !blocks(problem.documents().count, [&](Range range, T* scratch) {
            kernels_.general_gather_documents(work_, range, scratch);
        }))
        return false;
    const HardNegatives<E> hard = hard_negatives(problem, static_cast<const T*>(work_.hard_slopes));
    return !hard.gradient.data || blocks(problem.queries().count, [&](Range range, T* scratch) {
        kernels_.hard_gradient(hard, range, scratch);
    });
}

template class GeneralGatherEngine<float>;
template class GeneralGatherEngine<double>;
template class GeneralGatherEngine<F16>;
template class GeneralGatherEngine<BF16>;

}  // namespace negcos
