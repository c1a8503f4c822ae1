// SPDX-License-Identifier: Apache-2.0
//
// GROUPS with the plain softmax, at the speed of a matrix product: inside a window of the deal every query has every
// document as a candidate, and no document is in two groups, but for those that the last window reaches back to. So a
// task owns whole windows, rows are copied once, while they are packed, and nothing is gathered pair by pair.
#ifndef NEGCOS_GROUPS_HPP
#define NEGCOS_GROUPS_HPP

#include "pairs.hpp"
#include "parallel.hpp"
#include "problem.hpp"
#include "workspace.hpp"

namespace negcos {

template <class E>
class GroupsEngine {
    using T = Working<E>;

public:
    GroupsEngine(const Problem<E>& problem, Pairs& pairs, const KernelTable<E>& kernels)
        : problem_(problem), pairs_(pairs), kernels_(kernels) {}

    void reserve(Arena& arena, int64_t workers);
    bool run(Parallel& parallel, const Kernels& kernels, Totals& totals);

private:
    const Problem<E>& problem_;
    Pairs& pairs_;
    const KernelTable<E>& kernels_;
    int64_t windows_ = 0, windows_per_task_ = 0, scratch_size_ = 0;
    T *scratch_ = nullptr, *common_ = nullptr, *common_moments_ = nullptr;
    Totals* task_totals_ = nullptr;
};

}  // namespace negcos

#endif
