// SPDX-License-Identifier: Apache-2.0
#include "evaluate.hpp"

#include <atomic>
#include <cstring>
#include <limits>

#include "gather.hpp"
#include "pairs.hpp"
#include "plan.hpp"
#include "problem.hpp"
#include "tiles.hpp"

namespace negcos {
namespace {

template <class E>
Output<E> output_of(const negcos_matrix& m) {
    return {static_cast<E*>(m.data), m.row_stride};
}

template <class E>
void reserve_norms(Rows<E>& rows, Arena& arena) {
    using T = Working<E>;
    rows.inverse = arena.take<T>(rows.count);
    rows.project = arena.take<T>(rows.count);
    rows.rescale = arena.take<T>(rows.count);
}

template <class E>
bool find_norms(Parallel& parallel, const KernelTable<E>& kernels, const negcos_options& options, int64_t dim,
                Rows<E>& rows, NormCounts& total) {
    if (options.similarity == NEGCOS_SIMILARITY_DOT) {
        for (int64_t i = 0; i < rows.count; ++i) rows.inverse[i] = rows.rescale[i] = 1, rows.project[i] = 0;
        rows.rescaled = false;
        return true;
    }
    const int64_t per_task = rows_per_task(dim);
    std::atomic<int64_t> zero{0}, rescaled{0}, broken{0};
    const bool small = rows.count <= per_task;
    if (!for_each_block(parallel, rows.count, per_task, small, [&](int64_t begin, int64_t end, int64_t) {
            const NormCounts counts = kernels.norms(rows, dim, options.norm_floor, begin, end);
            zero += counts.zero;
            rescaled += counts.rescaled;
            broken += counts.broken;
        }))
        return false;
    total.zero += zero;
    total.broken += broken;
    rows.rescaled = rescaled != 0;
    return true;
}

// A caller's own threads may fail half-way, after rows were finished: then everything is computed beside the outputs
// and copied at the end.
template <class E>
class Staging {
public:
    explicit Staging(bool on) : on_(on) {}
    void reserve(Arena& arena, const negcos_matrix& target, Output<E>& output) {
        if (!on_ || !target.data) return;
        output = {arena.take<E>(target.rows * target.cols), target.cols};
    }
    void copy(const Output<E>& output, const negcos_matrix& target) const {
        if (!on_ || !target.data) return;
        for (int64_t i = 0; i < target.rows && target.cols > 0; ++i)
            std::memcpy(static_cast<E*>(target.data) + i * target.row_stride, output.data + i * output.stride,
                        sizeof(E) * static_cast<size_t>(target.cols));
    }

private:
    bool on_;
};

int32_t threads_failed() {
    return fail(NEGCOS_STATUS_THREADS, "parallel_for of the context failed; no output was written");
}

template <class E>
int32_t evaluate_with(Context& context, const negcos_options& options, const negcos_batch& batch, negcos_result& result,
                      bool tiled) {
    const KernelTable<E>& kernels = context.kernels.table<E>();
    const double rows = static_cast<double>(batch.queries.rows);

    Problem<E> problem;
    problem.queries.data = static_cast<const E*>(batch.queries.data);
    problem.queries.stride = batch.queries.row_stride;
    problem.queries.count = batch.queries.rows;
    problem.documents.data = static_cast<const E*>(batch.documents.data);
    problem.documents.stride = batch.documents.row_stride;
    problem.documents.count = batch.documents.rows;
    problem.dim = batch.queries.cols;
    problem.mean = options.reduction == NEGCOS_REDUCTION_MEAN;
    problem.batch_softmax = options.objective == NEGCOS_OBJECTIVE_BATCH_SOFTMAX;
    problem.loss = {options.scale / options.temperature, problem.mean ? 1.0 / rows : 1.0};
    problem.losses = output_of<E>(result.losses);
    problem.hit_probability = output_of<E>(result.hit_probability);
    problem.logits = output_of<E>(result.logits);
    problem.grad_queries = output_of<E>(result.grad_queries);
    problem.grad_documents = output_of<E>(result.grad_documents);

    // Under BATCH_SOFTMAX negatives play no part in the loss and exist only when asked for.
    const bool sampled = options.sampling != NEGCOS_SAMPLING_ALL;
    const bool wants_negatives = sampled && (!problem.batch_softmax || result.logits.data || result.negatives);
    Pairs pairs = wants_negatives ? Pairs(options, batch.negatives, problem.batch(), problem.documents.count)
                                  : Pairs(problem.batch(), problem.documents.count);
    GatherEngine<E> gather(problem, pairs, kernels);
    TileEngine<E> tiles(problem, sampled ? &pairs : nullptr, kernels);
    const Staging<E> staging(context.parallel.threading() == NEGCOS_THREADING_CALLBACK);

    const int32_t status = context.workspace.lay_out([&](Arena& arena) {
        Staging<E> stage = staging;
        stage.reserve(arena, result.losses, problem.losses);
        stage.reserve(arena, result.hit_probability, problem.hit_probability);
        stage.reserve(arena, result.logits, problem.logits);
        stage.reserve(arena, result.grad_queries, problem.grad_queries);
        stage.reserve(arena, result.grad_documents, problem.grad_documents);
        reserve_norms(problem.queries, arena);
        reserve_norms(problem.documents, arena);
        if (tiled)
            tiles.reserve(arena, context.parallel.threads());
        else
            gather.reserve(arena, context.parallel.threads());
    });
    if (status != NEGCOS_STATUS_OK) return status;

    Totals totals;
    NormCounts norms;
    if (!find_norms(context.parallel, kernels, options, problem.dim, problem.queries, norms) ||
        !find_norms(context.parallel, kernels, options, problem.dim, problem.documents, norms))
        return threads_failed();
    // Tiles multiply documents that were not sampled by 0, which does not keep NaN and Inf away.
    if (tiled && sampled && norms.broken > 0) return evaluate_with<E>(context, options, batch, result, false);
    if (!(tiled ? tiles.run(context.parallel, context.kernels, totals)
                : gather.run(context.parallel, context.kernels, totals)))
        return threads_failed();

    staging.copy(problem.losses, result.losses);
    staging.copy(problem.hit_probability, result.hit_probability);
    staging.copy(problem.logits, result.logits);
    staging.copy(problem.grad_queries, result.grad_queries);
    staging.copy(problem.grad_documents, result.grad_documents);
    if (result.negatives) pairs.copy_negatives(result.negatives);

    const bool ranked = !problem.batch_softmax && problem.batch() > 0;
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto one_nan = [nan](double x) { return x == x ? x : nan; };
    result.loss = one_nan(problem.mean && problem.batch() > 0 ? totals.loss.value() / rows : totals.loss.value());
    result.grad_scale = one_nan(totals.grad_scale.value() / options.temperature);
    result.grad_bias = 0;
    result.accuracy = ranked ? static_cast<double>(totals.rank_zero) / rows : nan;
    result.mean_reciprocal_rank = ranked ? totals.reciprocal_rank.value() / rows : nan;
    result.excluded = 0;
    result.zero_rows = norms.zero;
    return NEGCOS_STATUS_OK;
}

template <class E>
int32_t evaluate_typed(Context& context, const negcos_options& options, const negcos_batch& batch,
                       negcos_result& result) {
    const bool all = options.sampling == NEGCOS_SAMPLING_ALL;
    // Norms are what tells NaN and Inf from numbers, and DOT has none.
    const bool tiled =
        options.objective != NEGCOS_OBJECTIVE_BATCH_SOFTMAX &&
        (all || (options.similarity == NEGCOS_SIMILARITY_COSINE &&
                 tiles_are_cheaper<Working<E>>(options.rounds, batch.documents.rows, batch.queries.cols)));
    return evaluate_with<E>(context, options, batch, result, tiled);
}

}  // namespace

int32_t evaluate(Context& context, const negcos_options& options, const negcos_batch& batch, negcos_result& result) {
    switch (batch.queries.dtype) {
        case NEGCOS_DTYPE_F64:
            return evaluate_typed<double>(context, options, batch, result);
        case NEGCOS_DTYPE_F16:
            return evaluate_typed<F16>(context, options, batch, result);
        case NEGCOS_DTYPE_BF16:
            return evaluate_typed<BF16>(context, options, batch, result);
        default:
            return evaluate_typed<float>(context, options, batch, result);
    }
}

int32_t sample(Context& context, const negcos_options& options, int64_t batch, int64_t documents, int32_t* negatives) {
    Pairs pairs(options, nullptr, batch, documents);
    const int32_t status = context.workspace.lay_out([&](Arena& arena) { pairs.reserve(arena, false); });
    if (status != NEGCOS_STATUS_OK) return status;
    if (!pairs.build(context.parallel, context.kernels, batch * options.rounds < kInlineWork / 16))
        return threads_failed();
    pairs.copy_negatives(negatives);
    return NEGCOS_STATUS_OK;
}

}  // namespace negcos
