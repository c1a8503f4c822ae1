// SPDX-License-Identifier: Apache-2.0
#include "tiles.hpp"

#include <algorithm>
#include <cstring>

namespace negcos {

template <class E>
void TileEngine<E>::reserve(Arena& arena, int64_t workers) {
    const Problem<E>& problem = problem_;
    const int64_t batch = pad_lanes<T>(problem.queries().count), documents = problem.documents().count;
    const bool both = problem.both, queries_side = problem.outputs.grad_queries.data;
    const bool documents_side = problem.outputs.grad_documents.data;
    Tiles<E>& t = tiles_ = Tiles<E>();
    t.prefixes = problem.prefixes;
    t.tiles = prefixes_;
    t.prefix_count = problem.prefix_count;
    t.dim = problem.dim;
    t.general = problem.general;
    t.both = both;
    t.terms.hard = problem.terms.hard;
    t.block = std::min(kTileBlock, batch);
    t.chunk = std::min(kTileChunk, documents);
    t.chunks = t.chunk > 0 ? tasks_of(documents, t.chunk) : 0;
    t.strip_stride = (t.chunk | 1) * kVirtualLanes<T>;
    const int64_t block_cells = t.chunks * t.strips() * t.strip_stride;
    const int64_t fitting = kMostScores / std::max<int64_t>(1, block_cells * problem.prefix_count * int64_t{sizeof(T)});
    wave_ = t.block > 0 ? std::min({workers, tasks_of(batch, t.block), std::max<int64_t>(1, fitting)}) : 0;

    // Products that overflow were refused with the shapes; the arena refuses what does not fit an address space.
    const int64_t cells = wave_ * block_cells;
    const int64_t parts = wave_ * t.tasks() * kColumnFields * documents;
    if (problem.sampled) {
        pairs_.reserve(arena, workers, false);
        t.counts = arena.take<T>(cells);
    }
    if (t.general) {
        t.queries = arena.take<RowEnd>(batch);
        if (both) t.documents = arena.take<RowEnd>(documents);
        t.hard_similarities = arena.take<T>(problem.prefix_count * batch * problem.terms.hard);
        t.hard_slopes = arena.take<T>(batch * problem.terms.hard * edge_record(problem.prefix_count));
    } else {
        t.totals = arena.take<Totals>(batch / kVirtualLanes<T>);
        t.shifts = arena.take<T>(wave_ * t.chunks * t.block);
    }
    for (int64_t p = 0; p < problem.prefix_count; ++p) {
        TilePrefix<E>& prefix = prefixes_[p] = TilePrefix<E>();
        const int64_t dim = problem.prefixes[p].dim, width = prefix.width = pad_lanes<T>(dim);
        for (T** array : {&prefix.query_units, &prefix.query_strips}) *array = arena.take<T>(batch * width);
        prefix.document_panels = arena.take<T>(documents * dim);
        for (T** array : {&prefix.positives, &prefix.query_share, &prefix.positive_slope})
            *array = arena.take<T>(batch);
        prefix.scores = arena.take<T>(cells);
        if (queries_side) {
            prefix.column_panels = arena.take<T>(documents * dim);
            prefix.query_sums = arena.take<T>(wave_ * t.block * width);
        }
        if (documents_side) {
            prefix.shared_units = arena.take<T>(wave_ * t.block * width);
            prefix.document_sums = arena.take<T>(documents * width);
        }
        if (!t.general) continue;
        for (T** array : {&prefix.query_top, &prefix.query_smooth, &prefix.nonfinite}) *array = arena.take<T>(batch);
        if (both) {
            for (T** array : {&prefix.document_top, &prefix.document_share, &prefix.document_smooth})
                *array = arena.take<T>(documents);
            prefix.document_row = arena.take<Sums>(documents);
        }
        if (problem.prefix_count > 1 && documents_side) prefix.document_moment = arena.take<double>(documents);
        if (both || prefix.document_moment) prefix.column_parts = arena.take<T>(parts);
    }
    scratch_size_ = kernels_.tile_scratch(t);
    scratch_ = arena.take<T>(scratch_size_ * workers);
}

// All blocks of queries, wave after wave.
template <class E>
bool TileEngine<E>::walk(Parallel& parallel, bool small, TilePass pass) {
    const Tiles<E>& t = tiles_;
    const int64_t task_rows = kStripsPerTask * kVirtualLanes<T>;
    for (int64_t first = 0; first < t.batch(); first += wave_ * t.block) {
        const int64_t blocks = std::min(wave_, tasks_of(t.batch() - first, t.block));
        if (!parallel.for_each(blocks * t.tasks(), small, [&](int64_t task, int64_t worker) {
                const int64_t place = task / t.tasks(), begin = task % t.tasks() * kStripsPerTask;
                const int64_t block = first + place * t.block, left = t.batch() - block - task % t.tasks() * task_rows;
                if (left <= 0) return;
                const int64_t end = std::min(begin + kStripsPerTask, t.strips());
                kernels_.tile_queries(t, pass, place, block,
                                      {begin, std::min(end, begin + tasks_of(left, kVirtualLanes<T>))},
                                      scratch_ + worker * scratch_size_);
            }))
            return false;
        const auto chunks = [&](auto&& body) {
            return parallel.for_each(t.chunks, small, [&](int64_t chunk, int64_t worker) {
                body(chunk, scratch_ + worker * scratch_size_);
            });
        };
        if (t.both && pass.sums && !chunks([&](int64_t chunk, T*) { kernels_.tile_columns(t, first, blocks, chunk); }))
            return false;
        if (t.outputs.grad_documents.data && pass.slopes &&
            !chunks([&](int64_t chunk, T* scratch) { kernels_.tile_documents(t, first, blocks, chunk, scratch); }))
            return false;
    }
    return true;
}

template <class E>
bool TileEngine<E>::run(Parallel& parallel, const Kernels& kernels, Totals& totals) {
    const Problem<E>& problem = problem_;
    const int64_t batch = problem.queries().count, documents = problem.documents().count;
    Tiles<E>& t = tiles_;
    t.terms = problem.terms;
    t.outputs = problem.outputs;
    t.candidates.positives = problem.positives;

    const bool small = saturated_product(batch * documents, problem.dim) < kInlineWork;
    const auto rows = [&](int64_t count, int64_t per_task, auto&& body) {
        return for_each_block(parallel, count, per_task, small,
                              [&](Range range, int64_t worker) { body(range, scratch_ + worker * scratch_size_); });
    };
    const auto chunks = [&](auto&& body) {
        return rows(t.chunks, 1, [&](Range chunk, T* scratch) { body(chunk.begin, scratch); });
    };
    if (problem.sampled) {
        if (!pairs_.build(parallel, kernels, small)) return false;
        t.candidates = pairs_.candidates();
    }
    if (!chunks([&](int64_t chunk, T* scratch) { kernels_.tile_pack_documents(t, chunk, scratch); }) ||
        !rows(tasks_of(batch, kVirtualLanes<T>), kStripsPerTask,
              [&](Range strips, T* scratch) { kernels_.tile_pack_queries(t, strips, scratch); }))
        return false;

    // The first block of queries writes these sums, the others add to them.
    for (int64_t p = 0; batch == 0 && p < problem.prefix_count; ++p) {
        if (T* const sums = prefixes_[p].document_sums)
            std::memset(sums, 0, sizeof(T) * static_cast<size_t>(documents * prefixes_[p].width));
        if (double* const moments = prefixes_[p].document_moment)
            std::memset(moments, 0, sizeof(double) * static_cast<size_t>(documents));
    }
    const bool gradients = problem.gradients();
    if (!walk(parallel, small, {.sums = true, .slopes = gradients && !t.both})) return false;
    if (t.both) {
        if (!rows(documents, kColumnsPerTask, [&](Range range, T*) { kernels_.tile_close_documents(t, range); }))
            return false;
        if (gradients && !walk(parallel, small, {.sums = false, .slopes = true})) return false;
    }
    totals = kernels_.tile_totals(t);
    if (t.outputs.grad_documents.data &&
        !chunks([&](int64_t chunk, T* scratch) { kernels_.tile_finish_documents(t, chunk, scratch); }))
        return false;
    const HardNegatives<E> hard = hard_negatives(problem, static_cast<const T*>(t.hard_slopes));
    return !hard.gradient.data ||
           rows(batch, kColumnsPerTask, [&](Range range, T* scratch) { kernels_.hard_gradient(hard, range, scratch); });
}

template class TileEngine<float>;
template class TileEngine<double>;
template class TileEngine<F16>;
template class TileEngine<BF16>;

}  // namespace negcos
