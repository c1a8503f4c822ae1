// SPDX-License-Identifier: Apache-2.0
#include "groups.hpp"

#include <algorithm>
#include <cstring>

namespace negcos {

template <class E>
void GroupsEngine<E>::reserve(Arena& arena, int64_t workers) {
    const Problem<E>& problem = problem_;
    const int64_t batch = problem.queries().count, size = pairs_.slots();
    pairs_.reserve_deal(arena);
    windows_ = batch / size;
    windows_per_task_ = std::max<int64_t>(1, rows_per_task(saturated_product(size, problem.dim)) / size);
    const int64_t tasks = tasks_of(windows_, windows_per_task_);
    task_totals_ = arena.take<Totals>(tasks);
    common_ = arena.take<T>(size * pad_lanes<T>(problem.dim));
    common_moments_ = arena.take<T>(size);
    scratch_size_ = kernels_.groups_scratch(problem.dim, size);
    scratch_ = arena.take<T>(scratch_size_ * std::min(workers, tasks));
}

template <class E>
bool GroupsEngine<E>::run(Parallel& parallel, const Kernels& kernels, Totals& totals) {
    const Problem<E>& problem = problem_;
    const Output<E>& gradient = problem.outputs.grad_documents;
    const int64_t batch = problem.queries().count, documents = problem.documents().count;
    const bool small = saturated_product(batch * pairs_.slots(), problem.dim) < kInlineWork;
    pairs_.draw_deal(kernels);

    Groups<E> groups;
    groups.queries = problem.queries();
    groups.documents = problem.documents();
    groups.dim = problem.dim;
    groups.deal = pairs_.deal();
    groups.terms = problem.terms;
    groups.common = common_;
    groups.common_moments = common_moments_;
    groups.outputs = problem.outputs;
    if (!for_each_block(parallel, windows_, windows_per_task_, small, [&](Range range, int64_t worker) {
            task_totals_[range.begin / windows_per_task_] =
                kernels_.groups_windows(groups, range, scratch_ + worker * scratch_size_);
        }))
        return false;
    for (int64_t task = 0; task < tasks_of(windows_, windows_per_task_); ++task) totals.add(task_totals_[task]);

    // Documents that are nobody's positive are in no group.
    for (int64_t j = batch; gradient.data && problem.dim > 0 && j < documents; ++j)
        std::memset(gradient.data + j * gradient.stride, 0, sizeof(E) * static_cast<size_t>(problem.dim));
    return true;
}

template class GroupsEngine<float>;
template class GroupsEngine<double>;
template class GroupsEngine<F16>;
template class GroupsEngine<BF16>;

}  // namespace negcos
