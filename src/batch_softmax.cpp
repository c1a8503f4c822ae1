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
    similarities_.prefixes = problem.prefixes;
    similarities_.dim = problem.dim;
    similarities_.candidates = pairs_.candidates();
    similarities_.terms = problem.terms;
    similarities_.positives = similarity_;
    scratch_size_ = kernels_.gather_scratch(similarities_);
    scratch_ = arena.take<T>(scratch_size_ * workers);
}

template <class E>
bool BatchSoftmaxEngine<E>::run(Parallel& parallel, const Kernels& kernels, Totals& totals) {
    const Problem<E>& problem = problem_;
    const Rows<E>& queries = problem.queries();
    const bool small = saturated_product(queries.count * pairs_.slots(), problem.dim) < kInlineWork;
    const auto blocks = [&](int64_t rows, auto&& body) {
        return for_each_block(parallel, rows, rows_per_task_, small,
                              [&](Range range, int64_t worker) { body(range, scratch_ + worker * scratch_size_); });
    };
    if (!pairs_.build(parallel, kernels, small)) return false;

    similarities_.candidates = pairs_.candidates();
    similarities_.outputs.logits = problem.outputs.logits;
    if (!blocks(queries.count,
                [&](Range range, T* scratch) { kernels_.gather_queries(similarities_, range, scratch); }))
        return false;

    totals = kernels_.batch_softmax({queries.count, similarity_, problem.terms, slopes_, exps_, problem.outputs});

    if (!positives_.build(parallel, kernels, small)) return false;
    // Each query has one edge, to its positive; seen from the query, it is arc i.
    const auto gradient = [&](const Prefix<E>& sides, const ArcLists& lists, const auto& edge_ends, Output<E> output) {
        if (!output.data) return true;
        for (int64_t i = 0; i < queries.count; ++i) {
            const auto [target, source] = edge_ends(i);
            arcs_[lists.place(i, 0, target)] = {static_cast<int32_t>(source),
                                                slopes_[i] * sides.queries.inverse[source]};
        }
        std::fill_n(arcs_ + queries.count, kArcsAhead, Arc<T>{});
        Gather<E> work;
        work.prefixes = &sides;
        work.dim = problem.dim;
        work.terms = problem.terms;
        work.lists = lists;
        work.arcs = arcs_;
        work.outputs.grad_documents = output;
        return blocks(sides.documents.count,
                      [&](Range range, T* scratch) { kernels_.gather_documents(work, range, scratch); });
    };
    const auto positive = [&](int64_t i) { return problem.positives ? problem.positives[i] : i; };
    Prefix<E> exchanged = problem.prefixes[0];
    std::swap(exchanged.queries, exchanged.documents);
    return gradient(
               exchanged, {1, queries.count, nullptr, nullptr}, [&](int64_t i) { return std::pair(i, positive(i)); },
               problem.outputs.grad_queries) &&
           gradient(
               problem.prefixes[0], positives_.lists(), [&](int64_t i) { return std::pair(positive(i), i); },
               problem.outputs.grad_documents);
}

template class BatchSoftmaxEngine<float>;
template class BatchSoftmaxEngine<double>;
template class BatchSoftmaxEngine<F16>;
template class BatchSoftmaxEngine<BF16>;

}  // namespace negcos
