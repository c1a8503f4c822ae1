// SPDX-License-Identifier: Apache-2.0
//
// Tiles: the complete graph of queries and documents, walked in tiles and never stored: for all documents as
// candidates, and for samples so dense that this is cheaper than to gather them. Blocks of queries in waves of as many
// as there are threads: first tasks that own strips of queries, from the scores to the queries' gradient, then tasks
// that own chunks of documents. So each document's gradient is added up by one task in the order of the blocks, and
// nothing depends on the number of threads.
#ifndef NEGCOS_TILES_HPP
#define NEGCOS_TILES_HPP

#include "pairs.hpp"
#include "parallel.hpp"
#include "problem.hpp"
#include "workspace.hpp"

namespace negcos {

// Queries per block: their scores against one chunk, and the rows of both, stay in a second-level cache. Documents per
// chunk: enough chunks for all threads in a batch of a few hundred. Both are multiples of every tile of the products.
// Fixed, since they decide the order of sums.
inline constexpr int64_t kTileBlock = 192, kTileChunk = 192;

// Bytes of scores that a wave is let to have beyond those of one block.
inline constexpr int64_t kMostScores = int64_t{1} << 30;

// Documents per task where a task closes their columns.
inline constexpr int64_t kColumnsPerTask = 64;

template <class E>
class TileEngine {
    using T = Working<E>;

public:
    TileEngine(const Problem<E>& problem, Pairs& pairs, const KernelTable<E>& kernels)
        : problem_(problem), pairs_(pairs), kernels_(kernels) {}

    void reserve(Arena& arena, int64_t workers);
    bool run(Parallel& parallel, const Kernels& kernels, Totals& totals);

private:
    bool walk(Parallel& parallel, bool small, TilePass pass);

    const Problem<E>& problem_;
    Pairs& pairs_;
    const KernelTable<E>& kernels_;
    Tiles<E> tiles_;
    TilePrefix<E> prefixes_[kMostPrefixes];
    int64_t wave_ = 0;  // blocks of queries at a time
    int64_t scratch_size_ = 0;
    T* scratch_ = nullptr;
};

}  // namespace negcos

#endif
