// SPDX-License-Identifier: Apache-2.0
#include "gather.hpp"

namespace negcos {

template <class E>
bool GatherEngine<E>::run_inline() const {
    int64_t work;
    return !__builtin_mul_overflow(problem_.batch() * pairs_.slots(), problem_.dim, &work) && work < kInlineWork;
}

template <class E>
void GatherEngine<E>::reserve(Arena& arena, int64_t workers) {
    const Problem<E>& p = problem_;
    const int64_t batch = p.batch(), slots = pairs_.slots();
    pairs_.reserve(arena, workers, p.grad_documents.data && !p.batch_softmax);
    if (p.batch_softmax) {
        positives_ = arena.take<T>(batch);
        batch_scratch_ = arena.take<T>(pad_lanes<T>(batch));
        edges_ = p.gradients() ? arena.take<T>(batch) : nullptr;
        own_.reserve(arena, workers, p.grad_documents.data);
        own_start_ = p.positives ? arena.take<int64_t>(batch + 1) : nullptr;
        own_edge_ = p.positives ? arena.take<Edge>(batch) : nullptr;
    } else {
        edges_ = p.grad_documents.data ? arena.take<T>(batch * slots) : nullptr;
    }
    int64_t work;
    rows_per_task_ = rows_per_task(__builtin_mul_overflow(slots, p.dim, &work) ? INT64_MAX : work);
    task_totals_ = arena.take<Totals>(tasks_of(batch, rows_per_task_));
    scratch_size_ = kernels_.gather_scratch(p.dim, slots);
    scratch_ = arena.take<T>(scratch_size_ * workers);
}

template <class E>
bool GatherEngine<E>::gradient_of(Parallel& parallel, const Rows<E>& targets, const Rows<E>& sources,
                                  const Incoming& incoming, Output<E> gradient) {
    const GatherGradient<E> work{targets, sources, problem_.dim, incoming, edges_, problem_.loss.factor, gradient};
    return for_each_block(parallel, targets.count, rows_per_task_, run_inline(),
                          [&](int64_t begin, int64_t end, int64_t worker) {
                              kernels_.gather_gradient(work, begin, end, scratch_ + worker * scratch_size_);
                          });
}

template <class E>
bool GatherEngine<E>::run(Parallel& parallel, const Kernels& kernels, Totals& totals) {
    const Problem<E>& p = problem_;
    if (!pairs_.build(parallel, kernels, run_inline())) return false;

    GatherQueries<E> forward{p.queries, p.documents, p.dim,    pairs_.candidates(), p.loss,   !p.batch_softmax,
                             edges_,    positives_,  p.losses, p.hit_probability,   p.logits, p.grad_queries};
    if (p.batch_softmax) forward.edges = nullptr;  // they come from the whole batch below
    if (!for_each_block(parallel, p.batch(), rows_per_task_, run_inline(),
                        [&](int64_t begin, int64_t end, int64_t worker) {
                            task_totals_[begin / rows_per_task_] =
                                kernels_.gather_queries(forward, begin, end, scratch_ + worker * scratch_size_);
                        }))
        return false;

    if (!p.batch_softmax) {
        for (int64_t task = 0; task < tasks_of(p.batch(), rows_per_task_); ++task) totals.add(task_totals_[task]);
        return !p.grad_documents.data ||
               gradient_of(parallel, p.documents, p.queries, pairs_.incoming(), p.grad_documents);
    }

    totals = kernels_.batch_softmax({p.batch(), positives_, p.loss.factor, p.mean, p.terms.weights,
                                     p.terms.total_weight, edges_, batch_scratch_, p.losses, p.hit_probability});
    if (!own_.build(parallel, kernels, run_inline())) return false;
    // Seen from a query, the one edge leads to its positive; its slot is the whole index of the edge.
    Incoming positive;
    positive.direct = p.batch();
    if (p.positives) {
        for (int64_t i = 0; i <= p.batch(); ++i) own_start_[i] = i;
        for (int64_t i = 0; i < p.batch(); ++i)
            own_edge_[i] = {static_cast<int32_t>(p.positives[i]), static_cast<int32_t>(i)};
        positive.start = own_start_;
        positive.edge = own_edge_;
        positive.slots = 0;
    }
    return (!p.grad_queries.data || gradient_of(parallel, p.queries, p.documents, positive, p.grad_queries)) &&
           (!p.grad_documents.data || gradient_of(parallel, p.documents, p.queries, own_.incoming(), p.grad_documents));
}

template class GatherEngine<float>;
template class GatherEngine<double>;
template class GatherEngine<F16>;
template class GatherEngine<BF16>;

}  // namespace negcos
