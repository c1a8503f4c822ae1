// SPDX-License-Identifier: Apache-2.0
#include "batch_softmax.hpp"

#include <algorithm>
#include <utility>

namespace negcos {

template <class E>
void BatchSoftmaxEngine<E>::reserve(Arena& arena, int64_t workers) {
    const Problem<E>& problem = problem_;
    const int64_t batch = problem.queries().count, slots = pairs_.slots();
    pairs_.reserve(arena, workers, false);
    positives_.reserve(arena, workers, problem.outputs.grad_documents.data);
    similarity_ = arena.take<T>(batch);
    exps_ = arena.take<T>(pad_lanes<T>(batch));
    slopes_ = problem.gradients() ? arena.take<T>(batch) : nullptr;
    arcs_ = problem.gradients() ? arena.take<Arc<T>>(batch + kArcsAhead) : nullptr;
    rows_per_task_ = rows_per_task(saturated_product(slots, problem.dim));
    scratch_size_ = kernels_.gather_scratch(problem.dim, slots);
    scratch_ = arena.take<T>(scratch_size_ * workers);
}

template <class E>
bool BatchSoftmaxEngine<E>::run(Parallel& parallel, const Kernels& kernels, Totals& totals) {
    const Problem<E>& problem = problem_;
    const Rows<E>&queries = problem.queries(), &documents = problem.documents();
    const bool small = saturated_product(queries.count * pairs_.slots(), problem.dim) < kInlineWork;
    const auto blocks = [&](int64_t rows, auto&& body) {
        return for_each_block(parallel, rows, rows_per_task_, small,
                              [&](Range range, int64_t worker) { body(range, scratch_ + worker * scratch_size_); });
    };
    if (!pairs_.build(parallel, kernels, small)) return false;

    GatherQueries<E> similarities;
    similarities.queries = queries;
    similarities.documents = documents;
    similarities.dim = problem.dim;
    similarities.candidates = pairs_.candidates();
    similarities.terms = problem.terms;
    similarities.softmax = false;
    similarities.positives = similarity_;
    similarities.outputs.logits = problem.outputs.logits;
    if (!blocks(queries.count, [&](Range range, T* scratch) { kernels_.gather_queries(similarities, range, scratch); }))
        return false;

    totals = kernels_.batch_softmax({queries.count, similarity_, problem.terms, slopes_, exps_, problem.outputs});

    if (!positives_.build(parallel, kernels, small)) return false;
    // Each query has one edge, to its positive; seen from the query, it is arc i.
    const auto gradient = [&](const Rows<E>& targets, const Rows<E>& sources, const ArcLists& lists,
                              const auto& edge_ends, Output<E> output) {
        if (!output.data) return true;
        for (int64_t i = 0; i < queries.count; ++i) {
            const auto [target, source] = edge_ends(i);
            arcs_[lists.place(i, 0, target)] = {static_cast<int32_t>(source), slopes_[i] * sources.inverse[source]};
        }
        std::fill_n(arcs_ + queries.count, kArcsAhead, Arc<T>{});
        const GatherGradient<E> work{targets, sources, problem.dim, lists, arcs_, problem.terms.factor, output};
        return blocks(targets.count, [&](Range range, T* scratch) { kernels_.gather_gradient(work, range, scratch); });
    };
    const auto positive = [&](int64_t i) { return problem.positives ? problem.positives[i] : i; };
    return gradient(
               queries, documents, {1, queries.count, nullptr, nullptr},
               [&](int64_t i) { return std::pair(i, positive(i)); }, problem.outputs.grad_queries) &&
           gradient(
               documents, queries, positives_.lists(), [&](int64_t i) { return std::pair(positive(i), i); },
               problem.outputs.grad_documents);
}

template class BatchSoftmaxEngine<float>;
template class BatchSoftmaxEngine<double>;
template class BatchSoftmaxEngine<F16>;
template class BatchSoftmaxEngine<BF16>;

}  // namespace negcos
