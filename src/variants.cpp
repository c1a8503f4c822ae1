// SPDX-License-Identifier: Apache-2.0
#include "variants.hpp"

#include <cstring>

#include "tiles.hpp"

namespace negcos {
namespace {

template <class E>
HardNegatives<E> hard_negatives(const Problem<E>& p, const Working<E>* edges) {
    return {p.levels, p.level_count, p.dim, p.terms.hard, p.terms.factor, edges, p.grad_hard_negatives};
}

}  // namespace

template <class E>
void GatherVariantEngine<E>::reserve(Arena& arena, int64_t workers) {
    const Problem<E>& p = problem_;
    const int64_t batch = p.batch(), slots = pairs_.slots() + p.terms.hard;
    pairs_.reserve(arena, workers, p.grad_documents.data);
    work_ = GatherVariants<E>();
    const int64_t record = edge_record(p.level_count);
    if (p.grad_documents.data) work_.edges = arena.take<T>(batch * pairs_.slots() * record);
    if (p.grad_hard_negatives.data) work_.hard_edges = arena.take<T>(batch * p.terms.hard * record);
    int64_t work;
    rows_per_task_ = rows_per_task(__builtin_mul_overflow(slots, p.dim, &work) ? INT64_MAX : work);
    task_totals_ = arena.take<Totals>(tasks_of(batch, rows_per_task_));
    scratch_size_ = kernels_.variant_scratch(p.levels, p.level_count, p.dim, slots);
    scratch_ = arena.take<T>(scratch_size_ * workers);
}

template <class E>
bool GatherVariantEngine<E>::run(Parallel& parallel, const Kernels& kernels, Totals& totals) {
    const Problem<E>& p = problem_;
    int64_t work;
    const bool small =
        !__builtin_mul_overflow(p.batch() * (pairs_.slots() + p.terms.hard), p.dim, &work) && work < kInlineWork;
    if (!pairs_.build(parallel, kernels, small)) return false;

    work_.levels = p.levels;
    work_.level_count = p.level_count;
    work_.dim = p.dim;
    work_.candidates = pairs_.candidates();
    work_.incoming = pairs_.incoming();
    work_.terms = p.terms;
    work_.losses = p.losses;
    work_.hit_probability = p.hit_probability;
    work_.logits = p.logits;
    work_.grad_queries = p.grad_queries;
    work_.grad_documents = p.grad_documents;
    const auto blocks = [&](int64_t rows, auto&& body) {
        return for_each_block(parallel, rows, rows_per_task_, small, [&](int64_t begin, int64_t end, int64_t worker) {
            body(begin, end, scratch_ + worker * scratch_size_);
        });
    };
    if (!blocks(p.batch(), [&](int64_t begin, int64_t end, T* scratch) {
            task_totals_[begin / rows_per_task_] = kernels_.variant_queries(work_, begin, end, scratch);
        }))
        return false;
    for (int64_t task = 0; task < tasks_of(p.batch(), rows_per_task_); ++task) totals.add(task_totals_[task]);
    if (p.grad_documents.data && !blocks(p.documents.count, [&](int64_t begin, int64_t end, T* scratch) {
            kernels_.variant_documents(work_, begin, end, scratch);
        }))
        return false;
    const HardNegatives<E> hard = hard_negatives(p, work_.hard_edges);
    return !hard.gradient.data || blocks(p.batch(), [&](int64_t begin, int64_t end, T* scratch) {
        kernels_.hard_gradient(hard, begin, end, scratch);
    });
}

namespace {

constexpr int64_t kRowsOfBlock = 8;  // per task, where rows of a block are put together

}  // namespace

template <class E>
void TileVariantEngine<E>::reserve(Arena& arena, int64_t workers) {
    const Problem<E>& p = problem_;
    const int64_t batch = p.batch(), documents = p.documents.count;
    const bool both = p.both, gradients = p.gradients(), prefixes = p.level_count > 1;
    TileVariants<E>& t = work_ = TileVariants<E>();
    t.block = kTileBlock < batch ? kTileBlock : batch;
    t.chunk = kTileChunk;
    t.chunks = tasks_of(documents, kTileChunk);
    t.score_stride = odd_lines<T>(kTileChunk);
    const int64_t cells = t.chunks * t.block * t.score_stride, hard = p.level_count * batch * p.terms.hard;
    if (sampled_) {
        sampled_->reserve(arena, workers, false);
        counting_.counts = arena.take<T>(cells);
    }
    t.queries = arena.take<RowEnd>(batch);
    if (both) t.documents = arena.take<RowEnd>(documents);
    if (hard > 0) {
        t.hard_similarities = arena.take<T>(hard);
        t.hard_edges = arena.take<T>(batch * p.terms.hard * edge_record(p.level_count));
    }
    for (int64_t k = 0; k < p.level_count; ++k) {
        TileLevel<E>& level = tiles_[k] = TileLevel<E>();
        level.width = pad_lanes<T>(p.levels[k].dim);
        level.stride = odd_lines<T>(p.levels[k].dim);
        level.query_units = arena.take<T>(batch * level.stride);
        level.document_units = arena.take<T>(documents * level.stride);
        level.panels = arena.take<T>(pad_lanes<T>(documents) * level.width);
        level.scores = arena.take<T>(cells);
        for (T** array :
             {&level.positives, &level.query_top, &level.query_share, &level.query_smooth, &level.positive_weight})
            *array = arena.take<T>(pad_lanes<T>(batch));
        for (T** array : {&level.document_top, &level.document_share, &level.document_smooth})
            if (both) *array = arena.take<T>(pad_lanes<T>(documents));
        level.broken = arena.take<T>(batch);
        if (both) level.document_sums = arena.take<EdgeSums>(documents);
        level.chunk_top = arena.take<T>(t.block * t.chunks);
        level.chunk_sums = arena.take<EdgeSums>(t.block * t.chunks);
        if (prefixes && gradients) {
            level.chunk_moment = arena.take<double>(t.block * t.chunks);
            level.document_moment = arena.take<double>(documents);
        }
        if (p.grad_queries.data) level.partial = arena.take<T>(t.chunks * t.block * level.stride);
        if (p.grad_documents.data) level.gradient_sums = arena.take<T>(documents * level.stride);
    }
    scratch_size_ = kernels_.tile_variant_scratch(p.levels, p.level_count, kTileChunk, t.chunks, p.terms.hard);
    scratch_ = arena.take<T>(scratch_size_ * workers);
}

// All blocks of queries one after another: their scores, what those sum up to, and the gradients.
template <class E>
bool TileVariantEngine<E>::walk(Parallel& parallel, bool small, bool sums, bool gradients) {
    const TileVariants<E>& t = work_;
    const auto chunks = [&](auto&& body) {
        return parallel.for_each(
            t.chunks, small, [&](int64_t chunk, int64_t worker) { body(chunk, scratch_ + worker * scratch_size_); });
    };
    for (int64_t first = 0; first < t.batch(); first += t.block) {
        const int64_t count = t.batch() - first < t.block ? t.batch() - first : t.block;
        const auto rows = [&](auto&& body) {
            return for_each_block(parallel, count, kRowsOfBlock, small,
                                  [&](int64_t begin, int64_t end, int64_t worker) {
                                      body(begin, end, scratch_ + worker * scratch_size_);
                                  });
        };
        if (t.counts &&
            !rows([&](int64_t begin, int64_t end, T*) { kernels_.tile_counts(counting_, first, begin, end); }))
            return false;
        if (!chunks([&](int64_t chunk, T* scratch) { kernels_.variant_scores(t, first, count, chunk, sums, scratch); }))
            return false;
        if (sums && !rows([&](int64_t begin, int64_t end, T* scratch) {
                kernels_.variant_close_queries(t, first, begin, end, scratch);
            }))
            return false;
        if (!gradients) continue;
        if (!chunks([&](int64_t chunk, T* scratch) { kernels_.variant_weights(t, first, count, chunk, scratch); }))
            return false;
        if (t.grad_queries.data && !rows([&](int64_t begin, int64_t end, T* scratch) {
                kernels_.variant_finish_queries(t, first, begin, end, scratch);
            }))
            return false;
    }
    return true;
}

template <class E>
bool TileVariantEngine<E>::run(Parallel& parallel, const Kernels& kernels, Totals& totals) {
    const Problem<E>& p = problem_;
    const int64_t batch = p.batch(), documents = p.documents.count;
    TileVariants<E>& t = work_;
    int64_t work;
    const bool small = !__builtin_mul_overflow(batch * documents, p.dim, &work) && work < kInlineWork;
    const auto blocks = [&](int64_t rows, auto&& body) {
        return for_each_block(parallel, rows, kTileRows, small, [&](int64_t begin, int64_t end, int64_t worker) {
            body(begin, end, scratch_ + worker * scratch_size_);
        });
    };
    t.levels = p.levels;
    t.tiles = tiles_;
    t.level_count = p.level_count;
    t.dim = p.dim;
    t.terms = p.terms;
    t.both = p.both;
    t.losses = p.losses;
    t.hit_probability = p.hit_probability;
    t.logits = p.logits;
    t.grad_queries = p.grad_queries;
    t.grad_documents = p.grad_documents;
    t.candidates.positives = p.positives;
    if (sampled_) {
        if (!sampled_->build(parallel, kernels, small)) return false;
        counting_.block = t.block;
        counting_.chunk = t.chunk;
        counting_.chunks = t.chunks;
        counting_.score_stride = t.score_stride;
        counting_.candidates = t.candidates = sampled_->candidates();
        t.counts = counting_.counts;
    }
    for (int64_t k = 0; k < p.level_count; ++k) {
        const Level<E>& level = p.levels[k];
        const TileLevel<E>& tile = tiles_[k];
        if (!blocks(documents,
                    [&](int64_t begin, int64_t end, T*) {
                        kernels_.tile_pack(level.documents, level.dim, tile.document_units, tile.panels, begin, end);
                    }) ||
            !blocks(batch,
                    [&](int64_t begin, int64_t end, T*) {
                        kernels_.tile_pack(level.queries, level.dim, tile.query_units, nullptr, begin, end);
                        for (int64_t i = begin; i < end; ++i) tile.broken[i] = k > 0 ? tiles_[k - 1].broken[i] : T(0);
                        kernels_.variant_calm(tile.query_units, tile.stride, tile.width, tile.broken, begin, end);
                    }) ||
            !blocks(documents, [&](int64_t begin, int64_t end, T*) {  // in the gradients: panels keep what scores need
                kernels_.variant_calm(tile.document_units, tile.stride, tile.width, nullptr, begin, end);
            }))
            return false;
        // The first block of queries writes these sums, the others add to them.
        if (batch == 0 && tile.gradient_sums)
            std::memset(tile.gradient_sums, 0, sizeof(T) * static_cast<size_t>(documents * tile.stride));
        if (batch == 0 && tile.document_moment)
            std::memset(tile.document_moment, 0, sizeof(double) * static_cast<size_t>(documents));
    }
    if (!blocks(batch,
                [&](int64_t begin, int64_t end, T* scratch) { kernels_.variant_positives(t, begin, end, scratch); }))
        return false;

    const bool gradients = p.grad_queries.data || p.grad_documents.data;
    if (!walk(parallel, small, true, gradients && !t.both)) return false;
    if (t.both) {
        if (!blocks(documents,
                    [&](int64_t begin, int64_t end, T*) { kernels_.variant_close_documents(t, begin, end); }))
            return false;
        // Columns are read in whole lanes.
        for (int64_t k = 0; k < p.level_count; ++k)
            for (int64_t j = documents; j < pad_lanes<T>(documents); ++j)
                for (T* array : {tiles_[k].document_top, tiles_[k].document_share, tiles_[k].document_smooth})
                    array[j] = 0;
        if (gradients && !walk(parallel, small, false, true)) return false;
    }
    totals = kernels_.variant_totals(t);
    if (p.grad_documents.data && !blocks(documents, [&](int64_t begin, int64_t end, T* scratch) {
            kernels_.variant_finish_documents(t, begin, end, scratch);
        }))
        return false;
    const HardNegatives<E> hard = hard_negatives(p, t.hard_edges);
    return !hard.gradient.data || blocks(batch, [&](int64_t begin, int64_t end, T* scratch) {
        kernels_.hard_gradient(hard, begin, end, scratch);
    });
}

template class GatherVariantEngine<float>;
template class GatherVariantEngine<double>;
template class GatherVariantEngine<F16>;
template class GatherVariantEngine<BF16>;
template class TileVariantEngine<float>;
template class TileVariantEngine<double>;
template class TileVariantEngine<F16>;
template class TileVariantEngine<BF16>;

}  // namespace negcos
