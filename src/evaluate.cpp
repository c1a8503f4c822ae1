// SPDX-License-Identifier: Apache-2.0
#include "evaluate.hpp"

#include <atomic>
#include <cstring>
#include <limits>

#include "exclusions.hpp"
#include "gather.hpp"
#include "pairs.hpp"
#include "plan.hpp"
#include "problem.hpp"
#include "tiles.hpp"
#include "validate.hpp"
#include "variants.hpp"

namespace negcos {
namespace {

template <class E>
Output<E> output_of(const negcos_matrix& m) {
    return {static_cast<E*>(m.data), m.row_stride};
}

// Rows of no columns may be nowhere, and are then not a stride apart.
template <class E>
void read_from(const negcos_const_matrix& m, Rows<E>& rows) {
    rows.data = static_cast<const E*>(m.data);
    rows.stride = m.data ? m.row_stride : 0;
    rows.count = m.rows;
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

template <class E>
void define_levels(const negcos_options& options, Problem<E>& p) {
    p.level_count = options.prefix_count > 0 ? options.prefix_count : 1;
    int64_t begin = 0;
    for (int64_t k = 0; k < p.level_count; ++k) {
        Level<E>& level = p.levels[k];
        const int64_t end = options.prefix_count > 0 ? options.prefix_dims[k] : p.dim;
        level.queries = p.queries;
        level.documents = p.documents;
        level.hard = p.hard;
        for (Rows<E>* rows : {&level.queries, &level.documents, &level.hard})
            if (rows->data) rows->data += begin;
        level.dim = end - begin;
        level.weight = options.prefix_count > 0 && options.prefix_weights ? options.prefix_weights[k] : 1;
        begin = end;
    }
}

template <class E>
void reserve_levels(Problem<E>& p, Arena& arena) {
    using T = Working<E>;
    for (int64_t k = 0; k < p.level_count; ++k)
        for (Rows<E>* rows : {&p.levels[k].queries, &p.levels[k].documents, &p.levels[k].hard}) {
            reserve_norms(*rows, arena);
            if (p.level_count == 1) continue;
            rows->ratio = arena.take<T>(rows->count);
            rows->live = arena.take<T>(rows->count);
        }
}

// What ties row i of a prefix to that of the next: see Level. A prefix that is all zero takes over the next one's norm,
// so that the gradient of its columns, which comes from longer prefixes alone, has something to be relative to.
template <class T, class E>
void link_row(Rows<E>& prefix, Rows<E>* next, int64_t i) {
    const bool zero = prefix.inverse[i] == 0;
    prefix.live[i] = zero ? T(0) : T(1);
    if (!next) return;
    next->ratio[i] = 1;
    if (zero) {
        prefix.inverse[i] = next->inverse[i];
        prefix.rescale[i] = next->rescale[i];
        prefix.project[i] = 0;
    } else {
        // Each of the two is in range where the products are not. NaN and Inf are met in the similarities.
        const T ratio =
            static_cast<T>(static_cast<double>(next->inverse[i]) / static_cast<double>(prefix.inverse[i]) *
                           (static_cast<double>(next->rescale[i]) / static_cast<double>(prefix.rescale[i])));
        next->ratio[i] = ratio - ratio == 0 ? ratio : T(1);
    }
}

// Norms of every prefix of one side's rows; zero and broken ones are counted in the last.
template <class E>
bool find_level_norms(Parallel& parallel, const KernelTable<E>& kernels, const negcos_options& options, Problem<E>& p,
                      Rows<E> Level<E>::*side, const E* data, NormCounts& total) {
    using T = Working<E>;
    const int64_t count = (p.levels[0].*side).count, per_task = rows_per_task(p.dim * p.level_count);
    const bool dot = options.similarity == NEGCOS_SIMILARITY_DOT;
    std::atomic<int64_t> zero{0}, broken{0}, rescaled{0};
    std::atomic<bool> dead[kMostPrefixes] = {};
    const auto block = [&](int64_t begin, int64_t end, int64_t) {
        for (int64_t k = 0, dim = 0; k < p.level_count; ++k) {
            Rows<E> rows = p.levels[k].*side;
            rows.data = data;
            dim += p.levels[k].dim;
            if (dot) {
                for (int64_t i = begin; i < end; ++i) rows.inverse[i] = rows.rescale[i] = 1, rows.project[i] = 0;
                continue;
            }
            const NormCounts counts = kernels.norms(rows, dim, options.norm_floor, begin, end);
            rescaled += counts.rescaled;
            if (counts.zero > 0) dead[k] = true;
            if (k + 1 == p.level_count) zero += counts.zero, broken += counts.broken;
        }
        for (int64_t k = p.level_count - 1; k >= 0 && p.level_count > 1; --k)
            for (int64_t i = begin; i < end; ++i)
                link_row<T>(p.levels[k].*side, k + 1 < p.level_count ? &(p.levels[k + 1].*side) : nullptr, i);
    };
    if (!for_each_block(parallel, count, per_task, count <= per_task, block)) return false;
    total.zero += zero;
    total.broken += broken;
    for (int64_t k = 0; k < p.level_count; ++k) {
        (p.levels[k].*side).rescaled = rescaled != 0;
        if (dead[k]) p.levels[k].dead = true;
    }
    return true;
}

// What losses are divided by: 1 for the sum, and where all weights are 0.
double total_weight(const negcos_options& options, const negcos_batch& batch) {
    if (options.reduction == NEGCOS_REDUCTION_SUM || batch.queries.rows == 0) return 1;
    if (!batch.weights) return static_cast<double>(batch.queries.rows);
    Sum sum;
    for (int64_t i = 0; i < batch.queries.rows; ++i) sum.add(batch.weights[i]);
    return sum.value() > 0 ? sum.value() : 1;
}

template <class E>
LossTerms<Working<E>> terms_of(const negcos_options& options, const negcos_batch& batch) {
    using Terms = LossTerms<Working<E>>;
    Terms t;
    t.objective = options.objective == NEGCOS_OBJECTIVE_SIGMOID     ? Terms::Objective::sigmoid
                  : options.objective == NEGCOS_OBJECTIVE_DECOUPLED ? Terms::Objective::decoupled
                                                                    : Terms::Objective::softmax;
    t.factor = options.scale / temperature_of(options);
    t.hardness = options.hardness;
    t.margin = options.margin;
    t.smoothing = options.label_smoothing;
    t.bias = options.bias;
    t.false_negative_margin = options.false_negative_margin;
    t.bounded = options.similarity == NEGCOS_SIMILARITY_COSINE;
    t.correct_positive = batch.log_probability && options.correction == NEGCOS_CORRECTION_ALL_CANDIDATES;
    t.weights = batch.weights;
    t.total_weight = total_weight(options, batch);
    t.hard = batch.queries.rows > 0 && batch.hard_negatives.data ? batch.hard_negatives.rows / batch.queries.rows : 0;
    t.light = options.reduction == NEGCOS_REDUCTION_MEAN || !batch.weights;
    for (int32_t p = 0; p < options.prefix_count && options.prefix_weights; ++p)
        t.light = t.light && options.prefix_weights[p] <= 1;
    return t;
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
    read_from(batch.queries, problem.queries);
    read_from(batch.documents, problem.documents);
    read_from(batch.hard_negatives, problem.hard);
    if (!batch.hard_negatives.data) problem.hard.count = 0;
    problem.dim = batch.queries.cols;
    problem.mean = options.reduction == NEGCOS_REDUCTION_MEAN;
    problem.batch_softmax = options.objective == NEGCOS_OBJECTIVE_BATCH_SOFTMAX;
    problem.loss = {options.scale / temperature_of(options), problem.mean ? 1.0 / rows : 1.0};
    problem.losses = output_of<E>(result.losses);
    problem.hit_probability = output_of<E>(result.hit_probability);
    problem.logits = output_of<E>(result.logits);
    problem.grad_queries = output_of<E>(result.grad_queries);
    problem.grad_documents = output_of<E>(result.grad_documents);
    problem.grad_hard_negatives = output_of<E>(result.grad_hard_negatives);
    problem.positives = batch.positives;
    problem.both = options.direction == NEGCOS_DIRECTION_BOTH;
    problem.terms = terms_of<E>(options, batch);
    const bool general = is_general(options, batch);
    if (general) define_levels(options, problem);
    ExclusionList same_document, same_query;
    Working<E>* correction = nullptr;

    // Under BATCH_SOFTMAX negatives play no part in the loss and exist only when asked for.
    const bool sampled = options.sampling != NEGCOS_SAMPLING_ALL;
    const bool wants_negatives = sampled && (!problem.batch_softmax || result.logits.data || result.negatives);
    Pairs pairs = wants_negatives
                      ? Pairs(options, batch.negatives, problem.batch(), problem.documents.count, batch.positives)
                      : Pairs(problem.batch(), problem.documents.count, batch.positives);
    GatherEngine<E> gather(problem, pairs, kernels);
    TileEngine<E> tiles(problem, sampled ? &pairs : nullptr, kernels);
    GatherVariantEngine<E> gather_variants(problem, pairs, kernels);
    TileVariantEngine<E> tile_variants(problem, sampled ? &pairs : nullptr, kernels);
    const Staging<E> staging(context.parallel.threading() == NEGCOS_THREADING_CALLBACK);

    const int32_t status = context.workspace.lay_out([&](Arena& arena) {
        Staging<E> stage = staging;
        stage.reserve(arena, result.losses, problem.losses);
        stage.reserve(arena, result.hit_probability, problem.hit_probability);
        stage.reserve(arena, result.logits, problem.logits);
        stage.reserve(arena, result.grad_queries, problem.grad_queries);
        stage.reserve(arena, result.grad_documents, problem.grad_documents);
        stage.reserve(arena, result.grad_hard_negatives, problem.grad_hard_negatives);
        const int64_t workers = context.parallel.threads();
        if (!general) {
            reserve_norms(problem.queries, arena);
            reserve_norms(problem.documents, arena);
            tiled ? tiles.reserve(arena, workers) : gather.reserve(arena, workers);
            return;
        }
        reserve_levels(problem, arena);
        if (batch.log_probability) correction = arena.take<Working<E>>(pad_lanes<Working<E>>(problem.documents.count));
        if (options.exclude & NEGCOS_EXCLUDE_SAME_DOCUMENT_ID)
            same_document.reserve(arena, problem.documents.count, problem.batch(), problem.documents.count);
        if (options.exclude & NEGCOS_EXCLUDE_SAME_QUERY_ID)
            same_query.reserve(arena, problem.batch(), problem.batch(), problem.documents.count);
        tiled ? tile_variants.reserve(arena, workers) : gather_variants.reserve(arena, workers);
    });
    if (status != NEGCOS_STATUS_OK) return status;

    Totals totals;
    NormCounts norms;
    if (general) {
        const auto norms_of = [&](Rows<E> Level<E>::*side, const Rows<E>& rows) {
            return find_level_norms(context.parallel, kernels, options, problem, side, rows.data, norms);
        };
        if (!norms_of(&Level<E>::queries, problem.queries) || !norms_of(&Level<E>::documents, problem.documents) ||
            !norms_of(&Level<E>::hard, problem.hard))
            return threads_failed();
        for (int64_t j = 0; correction && j < problem.documents.count; ++j)
            correction[j] = static_cast<Working<E>>(-batch.log_probability[j]);
        for (int64_t j = problem.documents.count; correction && j < pad_lanes<Working<E>>(problem.documents.count); ++j)
            correction[j] = 0;
        problem.terms.correction = correction;
        if (options.exclude & NEGCOS_EXCLUDE_SAME_DOCUMENT_ID)
            problem.terms.same_document = same_document.same_document(batch.document_ids, problem.documents.count,
                                                                      batch.positives, problem.batch());
        if (options.exclude & NEGCOS_EXCLUDE_SAME_QUERY_ID)
            problem.terms.same_query =
                same_query.same_query(batch.query_ids, problem.documents.count, batch.positives, problem.batch());
    } else if (!find_norms(context.parallel, kernels, options, problem.dim, problem.queries, norms) ||
               !find_norms(context.parallel, kernels, options, problem.dim, problem.documents, norms)) {
        return threads_failed();
    }
    // Tiles multiply documents that were not sampled by 0, which does not keep NaN and Inf away.
    if (tiled && sampled && norms.broken > 0) return evaluate_with<E>(context, options, batch, result, false);
    const auto run = [&](auto& engine) { return engine.run(context.parallel, context.kernels, totals); };
    if (!(general ? (tiled ? run(tile_variants) : run(gather_variants)) : (tiled ? run(tiles) : run(gather))))
        return threads_failed();

    staging.copy(problem.losses, result.losses);
    staging.copy(problem.hit_probability, result.hit_probability);
    staging.copy(problem.logits, result.logits);
    staging.copy(problem.grad_queries, result.grad_queries);
    staging.copy(problem.grad_documents, result.grad_documents);
    staging.copy(problem.grad_hard_negatives, result.grad_hard_negatives);
    if (result.negatives) pairs.copy_negatives(result.negatives);

    const bool ranked = !problem.batch_softmax && problem.batch() > 0;
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto one_nan = [nan](double x) { return x == x ? x : nan; };
    result.loss = one_nan(totals.loss.value() / problem.terms.total_weight);
    result.grad_scale = one_nan(totals.grad_scale.value() / temperature_of(options));
    result.grad_bias = one_nan(totals.grad_bias.value());
    result.accuracy = ranked ? static_cast<double>(totals.rank_zero) / rows : nan;
    result.mean_reciprocal_rank = ranked ? totals.reciprocal_rank.value() / rows : nan;
    result.excluded = totals.excluded;
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
    Pairs pairs(options, nullptr, batch, documents, nullptr);
    const int32_t status =
        context.workspace.lay_out([&](Arena& arena) { pairs.reserve(arena, context.parallel.threads(), false); });
    if (status != NEGCOS_STATUS_OK) return status;
    if (!pairs.build(context.parallel, context.kernels, batch * options.rounds < kInlineWork / 16))
        return threads_failed();
    pairs.copy_negatives(negatives);
    return NEGCOS_STATUS_OK;
}

}  // namespace negcos
