// SPDX-License-Identifier: Apache-2.0
//
// The candidate lists as a bipartite graph: the negatives as edges from queries to documents, and the place of each
// edge among those of its document, so that a document's gradient is a gather like a query's: written once, by one
// task, in a fixed order.
#ifndef NEGCOS_PAIRS_HPP
#define NEGCOS_PAIRS_HPP

#include <cstdint>

#include "kernels.hpp"
#include "negcos/negcos.h"
#include "parallel.hpp"
#include "sampling.hpp"
#include "workspace.hpp"

namespace negcos {

class Pairs {
public:
    // positives: the row of documents of each query's, nullptr = row i.
    // No negatives at all.
    Pairs(int64_t batch, int64_t documents, const int64_t* positives);
    // Drawn from options.sampling, or `given` (batch x rounds) with GIVEN.
    Pairs(const negcos_options& options, const int32_t* given, int64_t batch, int64_t documents,
          const int64_t* positives);

    int64_t slots() const { return candidates_.slots(); }
    const Candidates& candidates() const { return candidates_; }
    const ArcLists& lists() const { return lists_; }

    void reserve(Arena& arena, int64_t workers, bool transpose);
    // Draws the rounds and, if the arrays were reserved, transposes: in parallel. False when the caller's threads
    // failed.
    bool build(Parallel& parallel, const Kernels& kernels, bool run_inline);
    // Of GROUPS, in place of reserve() and build(): the deal alone.
    void reserve_deal(Arena& arena) { dealt_ = arena.take<int32_t>(batch_); }
    void draw_deal(const Kernels& kernels) const;
    Deal deal() const { return {dealt_, batch_, candidates_.slots()}; }
    // The negatives row by row, batch x rounds.
    void copy_negatives(int32_t* out) const;

private:
    void draw(const Kernels& kernels, int64_t round);
    bool find_places(Parallel& parallel, bool run_inline);

    int64_t batch_, documents_;
    Sampling sampling_ = Sampling::given;
    uint64_t seed_ = 0, step_ = 0;
    Candidates candidates_;
    ArcLists lists_;
    int32_t* negatives_ = nullptr;                     // what was drawn; nullptr when given
    int32_t *shifts_ = nullptr, *shuffled_ = nullptr;  // of CYCLIC
    int32_t* dealt_ = nullptr;                         // of GROUPS: the query at each place
    int64_t tasks_ = 0;                                // of the sort: each counts its queries' edges by document
    int64_t *start_ = nullptr, *next_ = nullptr;       // next_: the next place of each task, by document
    int64_t* places_ = nullptr;
};

}  // namespace negcos

#endif
