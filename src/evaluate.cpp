// SPDX-License-Identifier: Apache-2.0
#include "evaluate.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "batch_softmax.hpp"
#include "exclusions.hpp"
#include "gather.hpp"
#include "groups.hpp"
#include "norms.hpp"
#include "pairs.hpp"
#include "plan.hpp"
#include "problem.hpp"
#include "status.hpp"
#include "tiles.hpp"

namespace negcos {
namespace {

// ---- Describe -------------------------------------------------------------------------------------------------------

// Weights that are all 1, and positives that are row i each, say what their absence says, and have its bits.
negcos_batch without_defaults(negcos_batch batch) {
    const int64_t queries = batch.queries.rows;
    if (batch.weights && std::all_of(batch.weights, batch.weights + queries, [](double weight) { return weight == 1; }))
        batch.weights = nullptr;
    int64_t i = 0;
    while (batch.positives && i < queries && batch.positives[i] == i) ++i;
    if (i == queries) batch.positives = nullptr;
    return batch;
}

// Columns from `first` on. Rows of no columns may be nowhere, and are then not a stride apart.
template <class E>
Rows<E> rows_of(const negcos_const_matrix& m, int64_t first) {
    Rows<E> rows;
    if (!m.data) {
        rows.count = m.rows;
        return rows;
    }
    rows.data = static_cast<const E*>(m.data) + first;
    rows.stride = m.row_stride;
    rows.count = m.rows;
    return rows;
}

template <class E>
void describe_prefixes(const negcos_options& options, const negcos_batch& batch, Problem<E>& problem) {
    problem.prefix_count = options.prefix_count > 0 ? options.prefix_count : 1;
    int64_t begin = 0;
    for (int64_t k = 0; k < problem.prefix_count; ++k) {
        Prefix<E>& prefix = problem.prefixes[k];
        const int64_t end = options.prefix_count > 0 ? options.prefix_dims[k] : problem.dim;
        prefix.queries = rows_of<E>(batch.queries, begin);
        prefix.documents = rows_of<E>(batch.documents, begin);
        if (batch.hard_negatives.data) prefix.hard = rows_of<E>(batch.hard_negatives, begin);
        prefix.dim = end - begin;
        prefix.weight = options.prefix_count > 0 && options.prefix_weights ? options.prefix_weights[k] : 1;
        begin = end;
    }
}

// What losses are divided by: 1 for the sum, and where all weights are 0.
double total_weight(const negcos_options& options, const negcos_batch& batch) {
    if (options.reduction == NEGCOS_REDUCTION_SUM || batch.queries.rows == 0) return 1;
    if (!batch.weights) return static_cast<double>(batch.queries.rows);
    Sum sum;
    for (int64_t i = 0; i < batch.queries.rows; ++i) sum.add(batch.weights[i]);
    return sum.value() > 0 ? sum.value() : 1;
}

template <class T>
LossTerms<T> terms_of(const negcos_options& options, const negcos_batch& batch) {
    LossTerms<T> t;
    t.objective = Objective{options.objective};
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
    t.row_weight = 1 / t.total_weight;
    t.hard = batch.queries.rows > 0 && batch.hard_negatives.data ? batch.hard_negatives.rows / batch.queries.rows : 0;
    t.weights_at_most_one = options.reduction == NEGCOS_REDUCTION_MEAN || !batch.weights;
    for (int32_t p = 0; p < options.prefix_count && options.prefix_weights; ++p)
        t.weights_at_most_one = t.weights_at_most_one && options.prefix_weights[p] <= 1;
    return t;
}

template <class E>
Problem<E> describe(const negcos_options& options, const negcos_batch& batch, const negcos_result& result,
                    const Plan& plan) {
    Problem<E> problem;
    problem.dim = batch.queries.cols;
    problem.sampled = plan.sampled;
    problem.general = plan.general;
    problem.both = options.direction == NEGCOS_DIRECTION_BOTH;
    problem.positives = batch.positives;
    problem.terms = terms_of<Working<E>>(options, batch);
    describe_prefixes(options, batch, problem);
    for_each_output(result, problem.outputs, [](const negcos_matrix& target, Output<E>& output) {
        output = {static_cast<E*>(target.data), target.row_stride};
    });
    return problem;
}

// ---- Lay out --------------------------------------------------------------------------------------------------------

// What the general loss knows of documents and pairs beside their rows.
template <class T>
class TermLists {
public:
    TermLists(const negcos_options& options, const negcos_batch& batch)
        : batch_(batch),
          document_ids_(options.exclude & NEGCOS_EXCLUDE_SAME_DOCUMENT_ID),
          query_ids_(options.exclude & NEGCOS_EXCLUDE_SAME_QUERY_ID) {}

    void reserve(Arena& arena) {
        const int64_t queries = batch_.queries.rows, documents = batch_.documents.rows;
        if (batch_.log_probability) correction_ = arena.take<T>(pad_lanes<T>(documents));
        if (document_ids_) same_document_.reserve(arena, documents, queries, documents);
        if (query_ids_) same_query_.reserve(arena, queries, queries, documents);
    }

    void fill(LossTerms<T>& terms) {
        const int64_t queries = batch_.queries.rows, documents = batch_.documents.rows;
        if (correction_) {
            for (int64_t j = 0; j < documents; ++j) correction_[j] = static_cast<T>(-batch_.log_probability[j]);
            for (int64_t j = documents; j < pad_lanes<T>(documents); ++j) correction_[j] = 0;
        }
        terms.correction = correction_;
        if (document_ids_)
            terms.same_document =
                same_document_.same_document(batch_.document_ids, documents, batch_.positives, queries);
        if (query_ids_)
            terms.same_query = same_query_.same_query(batch_.query_ids, documents, batch_.positives, queries);
    }

private:
    const negcos_batch& batch_;
    bool document_ids_, query_ids_;
    ExclusionList same_document_, same_query_;
    T* correction_ = nullptr;
};

// A caller's own threads may fail half-way, after rows were finished: then everything is computed beside the caller's
// matrices and copied at the end.
template <class E>
void stage(Arena& arena, const negcos_result& result, Outputs<E>& outputs) {
    for_each_output(result, outputs, [&](const negcos_matrix& target, Output<E>& output) {
        if (target.data) output = {arena.take<E>(target.rows * target.cols), target.cols};
    });
}

// ---- Deliver --------------------------------------------------------------------------------------------------------

template <class E>
void copy_staged(const negcos_result& result, Outputs<E>& outputs) {
    for_each_output(result, outputs, [](const negcos_matrix& target, const Output<E>& output) {
        if (!target.data) return;
        for (int64_t i = 0; i < target.rows && target.cols > 0; ++i)
            std::memcpy(static_cast<E*>(target.data) + i * target.row_stride, output.data + i * output.stride,
                        sizeof(E) * static_cast<size_t>(target.cols));
    });
}

// NaN as the one that every machine writes.
double one_nan(double x) {
    return x == x ? x : std::numeric_limits<double>::quiet_NaN();
}

void deliver_numbers(const negcos_options& options, int64_t batch, bool ranked, const Totals& totals,
                     double total_weight, const NormCounts& norms, negcos_result& result) {
    const double rows = static_cast<double>(batch), nan = std::numeric_limits<double>::quiet_NaN();
    ranked = ranked && batch > 0;
    result.loss = one_nan(totals.loss.value() / total_weight);
    result.grad_scale = one_nan(totals.grad_scale.value() / temperature_of(options));
    result.grad_bias = one_nan(totals.grad_bias.value());
    result.accuracy = ranked ? static_cast<double>(totals.rank_zero) / rows : nan;
    result.mean_reciprocal_rank = ranked ? totals.reciprocal_rank.value() / rows : nan;
    result.excluded = totals.excluded;
    result.zero_rows = norms.zero;
}

int32_t threads_failed() {
    return fail(NEGCOS_STATUS_THREADS, "parallel_for of the context failed; no output was written");
}

// ---- A call ---------------------------------------------------------------------------------------------------------

template <class E>
int32_t evaluate_planned(Context& context, const negcos_options& options, const negcos_batch& batch,
                         negcos_result& result, const Plan& plan);

template <class E, template <class> class Engine>
int32_t evaluate_by(Context& context, const negcos_options& options, const negcos_batch& batch, negcos_result& result,
                    const Plan& plan) {
    const KernelTable<E>& kernels = context.kernels.table<E>();
    const bool staged = context.parallel.threading() == Threading::callback;

    Problem<E> problem = describe<E>(options, batch, result, plan);
    Pairs pairs = plan.negatives
                      ? Pairs(options, batch.negatives, batch.queries.rows, batch.documents.rows, batch.positives)
                      : Pairs(batch.queries.rows, batch.documents.rows, batch.positives);
    TermLists<Working<E>> lists(options, batch);
    Engine<E> engine(problem, pairs, kernels);

    const int32_t status = context.workspace.lay_out([&](Arena& arena) {
        if (staged) stage(arena, result, problem.outputs);
        reserve_norms(problem, arena);
        if (plan.general) lists.reserve(arena);
        engine.reserve(arena, context.parallel.threads());
    });
    if (status != NEGCOS_STATUS_OK) return status;

    NormCounts norms;
    if (!find_norms(problem, options.similarity, options.norm_floor, context.parallel, kernels, norms))
        return threads_failed();
    if (must_gather(plan, norms.nonfinite)) {
        Plan gathered = plan;
        gathered.walk = Walk::gather;
        return evaluate_planned<E>(context, options, batch, result, gathered);
    }

    Totals totals;
    if (plan.general) lists.fill(problem.terms);
    if (!engine.run(context.parallel, context.kernels, totals)) return threads_failed();

    if (staged) copy_staged(result, problem.outputs);
    if (result.negatives) pairs.copy_negatives(result.negatives);
    deliver_numbers(options, batch.queries.rows, plan.walk != Walk::batch_softmax, totals, problem.terms.total_weight,
                    norms, result);
    return NEGCOS_STATUS_OK;
}

template <class E>
int32_t evaluate_planned(Context& context, const negcos_options& options, const negcos_batch& batch,
                         negcos_result& result, const Plan& plan) {
    switch (plan.walk) {
        case Walk::batch_softmax:
            return evaluate_by<E, BatchSoftmaxEngine>(context, options, batch, result, plan);
        case Walk::tiles:
            return evaluate_by<E, TileEngine>(context, options, batch, result, plan);
        case Walk::groups:
            return evaluate_by<E, GroupsEngine>(context, options, batch, result, plan);
        case Walk::gather:
            return evaluate_by<E, GatherEngine>(context, options, batch, result, plan);
    }
    return fail(NEGCOS_STATUS_INTERNAL, "no such walk");
}

template <class E>
int32_t evaluate_as(Context& context, const negcos_options& options, const negcos_batch& batch, negcos_result& result) {
    return evaluate_planned<E>(context, options, batch, result, plan_of<E>(options, batch, result));
}

}  // namespace

int32_t evaluate(Context& context, const negcos_options& options, const negcos_batch& given, negcos_result& result) {
    const negcos_batch batch = without_defaults(given);
    switch (Dtype{batch.queries.dtype}) {
        case Dtype::f32:
            return evaluate_as<float>(context, options, batch, result);
        case Dtype::f64:
            return evaluate_as<double>(context, options, batch, result);
        case Dtype::f16:
            return evaluate_as<F16>(context, options, batch, result);
        case Dtype::bf16:
            return evaluate_as<BF16>(context, options, batch, result);
    }
    return fail(NEGCOS_STATUS_INTERNAL, "no kernels for dtype %d", batch.queries.dtype);
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
