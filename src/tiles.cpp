// SPDX-License-Identifier: Apache-2.0
#include "tiles.hpp"

#include <cstring>

namespace negcos {

template <class E>
void TileEngine<E>::reserve(Arena& arena, int64_t workers) {
    const Problem<E>& problem = problem_;
    const int64_t batch = problem.queries().count, documents = problem.documents().count;
    tiles_ = Tiles<E>{};
    Tiles<E>& t = tiles_;
    t.dim = problem.dim;
    t.width = pad_lanes<T>(problem.dim);
    t.stride = odd_lines<T>(problem.dim);
    t.block = kTileBlock < batch ? kTileBlock : batch;
    t.chunk = kTileChunk;
    t.chunks = tasks_of(documents, kTileChunk);
    t.score_stride = odd_lines<T>(kTileChunk);
    t.gradients = problem.gradients();

    // Products that overflow were refused with the shapes; the arena refuses what does not fit an address space.
    t.query_units = arena.take<T>(batch * t.stride);
    t.document_units = arena.take<T>(documents * t.stride);
    t.panels = arena.take<T>(pad_lanes<T>(documents) * t.width);
    t.scores = arena.take<T>(t.chunks * t.block * t.score_stride);
    if (problem.sampled) {
        pairs_.reserve(arena, workers, false);
        t.counts = arena.take<T>(t.chunks * t.block * t.score_stride);
    }
    t.positives = arena.take<T>(batch);
    t.chunk_top = arena.take<T>(t.block * t.chunks);
    t.chunk_sums = arena.take<Sums>(t.block * t.chunks);
    t.chunk_share = arena.take<T>(t.block * t.chunks);
    t.positive_slope = arena.take<T>(t.block);
    t.partial = problem.outputs.grad_queries.data ? arena.take<T>(t.chunks * t.block * t.stride) : nullptr;
    t.document_sums = problem.outputs.grad_documents.data ? arena.take<T>(documents * t.stride) : nullptr;
    scratch_size_ = kernels_.tile_scratch(t.stride, t.block, t.chunks);
    scratch_ = arena.take<T>(scratch_size_ * workers);
}

template <class E>
bool TileEngine<E>::run(Parallel& parallel, const Kernels& kernels, Totals& totals) {
    const Problem<E>& problem = problem_;
    const int64_t batch = problem.queries().count, documents = problem.documents().count;
    Tiles<E>& t = tiles_;
    t.queries = problem.queries();
    t.documents = problem.documents();
    t.terms = problem.terms;
    t.outputs = problem.outputs;

    const bool small = saturated_product(batch * documents, t.width) < kInlineWork;
    const auto scratch = [&](int64_t worker) { return scratch_ + worker * scratch_size_; };
    const auto blocks = [&](int64_t rows, auto&& body) {
        return for_each_block(parallel, rows, kRowsPerTask, small, body);
    };

    if (problem.sampled) {
        if (!pairs_.build(parallel, kernels, small)) return false;
        t.candidates = pairs_.candidates();
    }
    const bool packed =
        blocks(documents,
               [&](Range range, int64_t) {
                   kernels_.tile_pack(t.documents, problem.dim, t.document_units, t.panels, range);
               }) &&
        blocks(batch, [&](Range range,
                          int64_t) { kernels_.tile_pack(t.queries, problem.dim, t.query_units, nullptr, range); }) &&
        blocks(batch, [&](Range range, int64_t worker) { kernels_.tile_positives(t, range, scratch(worker)); });
    if (!packed) return false;

    // The first block of queries writes the sums, the others add to them.
    if (batch == 0 && t.document_sums)
        std::memset(t.document_sums, 0, sizeof(T) * static_cast<size_t>(documents * t.stride));
    for (int64_t first = 0; first < batch; first += t.block) {
        const Range block{first, batch - first < t.block ? batch : first + t.block};
        if (t.counts && !for_each_block(parallel, block.count(), kBlockRowsPerTask, small,
                                        [&](Range range, int64_t) { kernels_.tile_counts(t, first, range); }))
            return false;
        if (!parallel.for_each(t.chunks, small, [&](int64_t chunk, int64_t) { kernels_.tile_scores(t, block, chunk); }))
            return false;
        totals.add(kernels_.tile_combine(t, block, scratch_));
        if (!t.gradients) continue;
        if (t.outputs.grad_documents.data && !parallel.for_each(t.chunks, small, [&](int64_t chunk, int64_t worker) {
                kernels_.tile_documents(t, block, chunk, scratch(worker));
            }))
            return false;
        if (t.outputs.grad_queries.data &&
            !for_each_block(parallel, block.count(), kBlockRowsPerTask, small, [&](Range range, int64_t worker) {
                kernels_.tile_finish_queries(t, first, range, scratch(worker));
            }))
            return false;
    }
    return !t.outputs.grad_documents.data ||
           blocks(documents, [&](Range range, int64_t) { kernels_.tile_finish_documents(t, range); });
}

template class TileEngine<float>;
template class TileEngine<double>;
template class TileEngine<F16>;
template class TileEngine<BF16>;

}  // namespace negcos
