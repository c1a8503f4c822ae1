// SPDX-License-Identifier: Apache-2.0
#include "tiles.hpp"

#include <algorithm>
#include <cstring>

namespace negcos {

template <class E>
void TileEngine<E>::reserve(Arena& arena, int64_t workers) {
    const Problem<E>& problem = problem_;
    constexpr int64_t kLanes = kVirtualLanes<T>;
    const int64_t batch = pad_lanes<T>(problem.queries().count), documents = problem.documents().count;
    tiles_ = Tiles<E>{};
    Tiles<E>& t = tiles_;
    t.dim = problem.dim;
    t.width = pad_lanes<T>(problem.dim);
    t.block = std::min(kTileBlock, batch);
    t.chunk = std::min(kTileChunk, documents);
    t.chunks = t.chunk > 0 ? tasks_of(documents, t.chunk) : 0;
    t.strip_stride = (t.chunk | 1) * kLanes;
    t.gradients = problem.gradients();
    wave_ = t.block > 0 ? std::min(workers, tasks_of(batch, t.block)) : 0;
    const int64_t scores = wave_ * t.chunks * t.strips() * t.strip_stride;

    // Products that overflow were refused with the shapes; the arena refuses what does not fit an address space.
    t.query_units = arena.take<T>(batch * t.width);
    t.query_strips = arena.take<T>(batch * t.width);
    t.document_panels = arena.take<T>(documents * t.dim);
    t.positives = arena.take<T>(batch);
    t.scores = arena.take<T>(scores);
    if (problem.sampled) {
        pairs_.reserve(arena, workers, false);
        t.counts = arena.take<T>(scores);
    }
    t.shifts = arena.take<T>(wave_ * t.chunks * t.block);
    t.shares = arena.take<T>(wave_ * t.block);
    t.positive_slopes = arena.take<T>(wave_ * t.block);
    t.totals = arena.take<Totals>(wave_ * t.strips());
    if (problem.outputs.grad_queries.data) {
        t.column_panels = arena.take<T>(documents * t.dim);
        t.query_sums = arena.take<T>(wave_ * t.block * t.width);
    }
    if (problem.outputs.grad_documents.data) {
        t.shared_units = arena.take<T>(wave_ * t.block * t.width);
        t.document_sums = arena.take<T>(documents * t.width);
    }
    scratch_size_ = kernels_.tile_scratch(t.width, t.block);
    scratch_ = arena.take<T>(scratch_size_ * workers);
}

template <class E>
bool TileEngine<E>::run(Parallel& parallel, const Kernels& kernels, Totals& totals) {
    const Problem<E>& problem = problem_;
    constexpr int64_t kLanes = kVirtualLanes<T>;
    const int64_t batch = problem.queries().count, documents = problem.documents().count;
    Tiles<E>& t = tiles_;
    t.queries = problem.queries();
    t.documents = problem.documents();
    t.terms = problem.terms;
    t.outputs = problem.outputs;

    const bool small = saturated_product(batch * documents, t.width) < kInlineWork;
    const auto chunks = [&](auto&& body) {
        return parallel.for_each(
            t.chunks, small, [&](int64_t chunk, int64_t worker) { body(chunk, scratch_ + worker * scratch_size_); });
    };
    if (problem.sampled) {
        if (!pairs_.build(parallel, kernels, small)) return false;
        t.candidates = pairs_.candidates();
    }
    if (!chunks([&](int64_t chunk, T* scratch) { kernels_.tile_pack_documents(t, chunk, scratch); }) ||
        !for_each_block(parallel, tasks_of(batch, kLanes), kStripsPerTask, small, [&](Range strips, int64_t worker) {
            kernels_.tile_pack_queries(t, strips, scratch_ + worker * scratch_size_);
        }))
        return false;

    // The first block of queries writes the sums, the others add to them.
    if (batch == 0 && t.document_sums)
        std::memset(t.document_sums, 0, sizeof(T) * static_cast<size_t>(documents * t.width));
    const int64_t tasks = tasks_of(t.strips(), kStripsPerTask);
    for (int64_t first = 0; first < batch; first += wave_ * t.block) {
        const int64_t blocks = std::min(wave_, tasks_of(batch - first, t.block));
        const auto strips_in = [&](int64_t place) {
            return std::min(t.strips(), tasks_of(batch - first - place * t.block, kLanes));
        };
        if (!parallel.for_each(blocks * tasks, small, [&](int64_t task, int64_t worker) {
                const int64_t place = task / tasks, begin = task % tasks * kStripsPerTask;
                const Range strips{begin, std::min(begin + kStripsPerTask, strips_in(place))};
                if (strips.count() > 0)
                    kernels_.tile_queries(t, place, first + place * t.block, strips, scratch_ + worker * scratch_size_);
            }))
            return false;
        for (int64_t place = 0; place < blocks; ++place)
            for (int64_t strip = 0; strip < strips_in(place); ++strip) totals.add(t.totals[place * t.strips() + strip]);
        if (t.outputs.grad_documents.data &&
            !chunks([&](int64_t chunk, T* scratch) { kernels_.tile_documents(t, first, blocks, chunk, scratch); }))
            return false;
    }
    return !t.outputs.grad_documents.data ||
           chunks([&](int64_t chunk, T* scratch) { kernels_.tile_finish_documents(t, chunk, scratch); });
}

template class TileEngine<float>;
template class TileEngine<double>;
template class TileEngine<F16>;
template class TileEngine<BF16>;

}  // namespace negcos
