// SPDX-License-Identifier: Apache-2.0
//
// The norms of all rows, of each of their prefixes, and what ties those of a row to each other.
#ifndef NEGCOS_NORMS_HPP
#define NEGCOS_NORMS_HPP

#include "kernels.hpp"
#include "parallel.hpp"
#include "problem.hpp"
#include "workspace.hpp"

namespace negcos {

template <class E>
void reserve_norms(Problem<E>& problem, Arena& arena);

// counts: zero and nonfinite rows, by their longest prefix. False when the caller's threads failed.
template <class E>
bool find_norms(Problem<E>& problem, int32_t similarity, double floor, Parallel& parallel,
                const KernelTable<E>& kernels, NormCounts& counts);

}  // namespace negcos

#endif
