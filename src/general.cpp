// SPDX-License-Identifier: Apache-2.0
#include "general.hpp"

#include <cstring>

#include "tiles.hpp"

namespace negcos {
namespace {

template <class E>
HardNegatives<E> hard_negatives(const Problem<E>& problem, const Working<E>* edges) {
    return {problem.prefixes,
            problem.prefix_count,
            problem.dim,
            problem.terms.hard,
            problem.terms.factor,
            edges,
            problem.outputs.grad_hard_negatives};
}

}  // namespace

template <class E>
void GeneralGatherEngine<E>::reserve(Arena& arena, int64_t workers) {
    const Problem<E>& problem = problem_;
    const int64_t batch = problem.queries().count, slots = pairs_.slots() + problem.terms.hard;
    pairs_.reserve(arena, workers, problem.outputs.grad_documents.data);
    work_ = GeneralGather<E>();
    const int64_t record = edge_record(problem.prefix_count);
    if (problem.outputs.grad_documents.data) work_.slopes = arena.take<T>(batch * pairs_.slots() * record);
    if (problem.outputs.grad_hard_negatives.data)
        work_.hard_slopes = arena.take<T>(batch * problem.terms.hard * record);
    rows_per_task_ = rows_per_task(saturated_product(slots, problem.dim));
    task_totals_ = arena.take<Totals>(tasks_of(batch, rows_per_task_));
    scratch_size_ = kernels_.general_gather_scratch(problem.prefixes, problem.prefix_count, problem.dim, slots);
    scratch_ = arena.take<T>(scratch_size_ * workers);
}

template <class E>
bool GeneralGatherEngine<E>::run(Parallel& parallel, const Kernels& kernels, Totals& totals) {
    const Problem<E>& problem = problem_;
    const bool small =
        saturated_product(problem.queries().count * (pairs_.slots() + problem.terms.hard), problem.dim) < kInlineWork;
    if (!pairs_.build(parallel, kernels, small)) return false;

    work_.prefixes = problem.prefixes;
    work_.prefix_count = problem.prefix_count;
    work_.dim = problem.dim;
    work_.candidates = pairs_.candidates();
    work_.incoming = pairs_.incoming();
    work_.terms = problem.terms;
    work_.outputs = problem.outputs;
    const auto blocks = [&](int64_t rows, auto&& body) {
        return for_each_block(parallel, rows, rows_per_task_, small,
                              [&](Range range, int64_t worker) { body(range, scratch_ + worker * scratch_size_); });
    };
    if (!blocks(problem.queries().count, [&](Range range, T* scratch) {
            task_totals_[range.begin / rows_per_task_] = kernels_.general_gather_queries(work_, range, scratch);
        }))
        return false;
    for (int64_t task = 0; task < tasks_of(problem.queries().count, rows_per_task_); ++task)
        totals.add(task_totals_[task]);
    if (problem.outputs.grad_documents.data && !blocks(problem.documents().count, [&](Range range, T* scratch) {
            kernels_.general_gather_documents(work_, range, scratch);
        }))
        return false;
    const HardNegatives<E> hard = hard_negatives(problem, work_.hard_slopes);
    return !hard.gradient.data || blocks(problem.queries().count, [&](Range range, T* scratch) {
        kernels_.hard_gradient(hard, range, scratch);
    });
}

template <class E>
void GeneralTileEngine<E>::reserve(Arena& arena, int64_t workers) {
    const Problem<E>& problem = problem_;
    const int64_t batch = problem.queries().count, documents = problem.documents().count;
    const bool both = problem.both, gradients = problem.gradients(), prefixes = problem.prefix_count > 1;
    GeneralTiles<E>& t = work_ = GeneralTiles<E>();
    t.block = kTileBlock < batch ? kTileBlock : batch;
    t.chunk = kTileChunk;
    t.chunks = tasks_of(documents, kTileChunk);
    t.score_stride = odd_lines<T>(kTileChunk);
    const int64_t cells = t.chunks * t.block * t.score_stride, hard = problem.prefix_count * batch * problem.terms.hard;
    if (problem.sampled) {
        pairs_.reserve(arena, workers, false);
        t.counts = arena.take<T>(cells);
    }
    t.queries = arena.take<RowEnd>(batch);
    if (both) t.documents = arena.take<RowEnd>(documents);
    if (hard > 0) {
        t.hard_similarities = arena.take<T>(hard);
        t.hard_slopes = arena.take<T>(batch * problem.terms.hard * edge_record(problem.prefix_count));
    }
    for (int64_t k = 0; k < problem.prefix_count; ++k) {
        GeneralTilePrefix<E>& prefix = tiles_[k] = GeneralTilePrefix<E>();
        prefix.width = pad_lanes<T>(problem.prefixes[k].dim);
        prefix.stride = odd_lines<T>(problem.prefixes[k].dim);
        prefix.query_units = arena.take<T>(batch * prefix.stride);
        prefix.document_units = arena.take<T>(documents * prefix.stride);
        prefix.panels = arena.take<T>(pad_lanes<T>(documents) * prefix.width);
        prefix.scores = arena.take<T>(cells);
        for (T** array :
             {&prefix.positives, &prefix.query_top, &prefix.query_share, &prefix.query_smooth, &prefix.positive_slope})
            *array = arena.take<T>(pad_lanes<T>(batch));
        for (T** array : {&prefix.document_top, &prefix.document_share, &prefix.document_smooth})
            if (both) *array = arena.take<T>(pad_lanes<T>(documents));
        prefix.nonfinite = arena.take<T>(batch);
        if (both) prefix.document_sums = arena.take<Sums>(documents);
        prefix.chunk_top = arena.take<T>(t.block * t.chunks);
        prefix.chunk_sums = arena.take<Sums>(t.block * t.chunks);
        if (prefixes && gradients) {
            prefix.chunk_moment = arena.take<double>(t.block * t.chunks);
            prefix.document_moment = arena.take<double>(documents);
        }
        if (problem.outputs.grad_queries.data) prefix.partial = arena.take<T>(t.chunks * t.block * prefix.stride);
        if (problem.outputs.grad_documents.data) prefix.gradient_sums = arena.take<T>(documents * prefix.stride);
    }
    scratch_size_ =
        kernels_.general_tile_scratch(problem.prefixes, problem.prefix_count, kTileChunk, t.chunks, problem.terms.hard);
    scratch_ = arena.take<T>(scratch_size_ * workers);
}

// All blocks of queries one after another: their scores, what those sum up to, and the gradients.
template <class E>
bool GeneralTileEngine<E>::walk(Parallel& parallel, bool small, bool sums, bool gradients) {
    const GeneralTiles<E>& t = work_;
    const auto chunks = [&](auto&& body) {
        return parallel.for_each(
            t.chunks, small, [&](int64_t chunk, int64_t worker) { body(chunk, scratch_ + worker * scratch_size_); });
    };
    for (int64_t first = 0; first < t.batch(); first += t.block) {
        const Range block{first, t.batch() - first < t.block ? t.batch() : first + t.block};
        const auto rows = [&](auto&& body) {
            return for_each_block(parallel, block.count(), kBlockRowsPerTask, small,
                                  [&](Range range, int64_t worker) { body(range, scratch_ + worker * scratch_size_); });
        };
        if (t.counts && !rows([&](Range range, T*) { kernels_.general_tile_counts(t, first, range); })) return false;
        if (!chunks([&](int64_t chunk, T* scratch) { kernels_.general_tile_scores(t, block, chunk, sums, scratch); }))
            return false;
        if (sums && !rows([&](Range range, T* scratch) { kernels_.general_close_queries(t, first, range, scratch); }))
            return false;
        if (!gradients) continue;
        if (!chunks([&](int64_t chunk, T* scratch) { kernels_.general_tile_slopes(t, block, chunk, scratch); }))
            return false;
        if (t.outputs.grad_queries.data &&
            !rows([&](Range range, T* scratch) { kernels_.general_finish_queries(t, first, range, scratch); }))
            return false;
    }
    return true;
}

template <class E>
bool GeneralTileEngine<E>::run(Parallel& parallel, const Kernels& kernels, Totals& totals) {
    const Problem<E>& problem = problem_;
    const int64_t batch = problem.queries().count, documents = problem.documents().count;
    GeneralTiles<E>& t = work_;
    const bool small = saturated_product(batch * documents, problem.dim) < kInlineWork;
    const auto blocks = [&](int64_t rows, auto&& body) {
        return for_each_block(parallel, rows, kRowsPerTask, small,
                              [&](Range range, int64_t worker) { body(range, scratch_ + worker * scratch_size_); });
    };
    t.prefixes = problem.prefixes;
    t.tiles = tiles_;
    t.prefix_count = problem.prefix_count;
    t.dim = problem.dim;
    t.terms = problem.terms;
    t.both = problem.both;
    t.outputs = problem.outputs;
    t.candidates.positives = problem.positives;
    if (problem.sampled) {
        if (!pairs_.build(parallel, kernels, small)) return false;
        t.candidates = pairs_.candidates();
    }
    for (int64_t k = 0; k < problem.prefix_count; ++k) {
        const Prefix<E>& prefix = problem.prefixes[k];
        const GeneralTilePrefix<E>& tile = tiles_[k];
        if (!blocks(documents,
                    [&](Range range, T*) {
                        kernels_.tile_pack(prefix.documents, prefix.dim, tile.document_units, tile.panels, range);
                    }) ||
            !blocks(batch,
                    [&](Range range, T*) {
                        kernels_.tile_pack(prefix.queries, prefix.dim, tile.query_units, nullptr, range);
                        for (int64_t i = range.begin; i < range.end; ++i)
                            tile.nonfinite[i] = k > 0 ? tiles_[k - 1].nonfinite[i] : T(0);
                        kernels_.zero_nonfinite_rows(tile.query_units, tile.stride, tile.width, tile.nonfinite, range);
                    }) ||
            !blocks(documents, [&](Range range, T*) {  // in the gradients: panels keep what scores need
                kernels_.zero_nonfinite_rows(tile.document_units, tile.stride, tile.width, nullptr, range);
            }))
            return false;
        // The first block of queries writes these sums, the others add to them.
        if (batch == 0 && tile.gradient_sums)
            std::memset(tile.gradient_sums, 0, sizeof(T) * static_cast<size_t>(documents * tile.stride));
        if (batch == 0 && tile.document_moment)
            std::memset(tile.document_moment, 0, sizeof(double) * static_cast<size_t>(documents));
    }
    if (!blocks(batch, [&](Range range, T* scratch) { kernels_.general_tile_positives(t, range, scratch); }))
        return false;

    const bool gradients = problem.gradients();
    if (!walk(parallel, small, true, gradients && !t.both)) return false;
    if (t.both) {
        if (!blocks(documents, [&](Range range, T*) { kernels_.general_close_documents(t, range); })) return false;
        // Columns are read in whole lanes.
        for (int64_t k = 0; k < problem.prefix_count; ++k)
            for (int64_t j = documents; j < pad_lanes<T>(documents); ++j)
                for (T* array : {tiles_[k].document_top, tiles_[k].document_share, tiles_[k].document_smooth})
                    array[j] = 0;
        if (gradients && !walk(parallel, small, false, true)) return false;
    }
    totals = kernels_.general_totals(t);
    if (problem.outputs.grad_documents.data &&
        !blocks(documents, [&](Range range, T* scratch) { kernels_.general_finish_documents(t, range, scratch); }))
        return false;
    const HardNegatives<E> hard = hard_negatives(problem, t.hard_slopes);
    return !hard.gradient.data ||
           blocks(batch, [&](Range range, T* scratch) { kernels_.hard_gradient(hard, range, scratch); });
}

template class GeneralGatherEngine<float>;
template class GeneralGatherEngine<double>;
template class GeneralGatherEngine<F16>;
template class GeneralGatherEngine<BF16>;
template class GeneralTileEngine<float>;
template class GeneralTileEngine<double>;
template class GeneralTileEngine<F16>;
template class GeneralTileEngine<BF16>;

}  // namespace negcos
