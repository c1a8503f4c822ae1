// SPDX-License-Identifier: Apache-2.0
//
// Engine 2: all documents as candidates, the complete graph, walked in tiles and never stored. Blocks of queries one
// after another; inside a block, tasks that own chunks of documents. So each document's gradient is added up by one
// task in the order of the blocks, and nothing depends on the number of threads.
#ifndef NEGCOS_TILES_HPP
#define NEGCOS_TILES_HPP

#include "parallel.hpp"
#include "problem.hpp"
#include "workspace.hpp"

namespace negcos {

template <class T>
class TileEngine {
public:
    TileEngine(const Problem<T>& problem, const KernelTable<T>& kernels) : problem_(problem), kernels_(kernels) {}

    void reserve(Arena& arena, int64_t workers);
    bool run(Parallel& parallel, Totals& totals);

private:
    const Problem<T>& problem_;
    const KernelTable<T>& kernels_;
    Tiles<T> tiles_;
    int64_t scratch_size_ = 0;
    T* scratch_ = nullptr;
};

}  // namespace negcos

#endif
