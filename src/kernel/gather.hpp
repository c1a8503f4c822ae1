// SPDX-License-Identifier: Apache-2.0
//
// The gather: by query in gather_plain.hpp or gather_general.hpp; here the documents' gradient, from the arcs that the
// queries' side has written.
#ifndef NEGCOS_KERNEL_GATHER_HPP
#define NEGCOS_KERNEL_GATHER_HPP

#include "kernel/gather_general.hpp"
#include "kernel/gather_plain.hpp"

namespace {

template <class E>
int64_t gather_scratch(const negcos::Gather<E>& t) noexcept {
    const int64_t queries = t.general ? general_gather_scratch(t) : plain_gather_scratch(t);
    const int64_t documents = padded_columns(t.prefixes, t.prefix_count) + pad_lanes<Working<E>>(2 * t.prefix_count);
    return queries > documents ? queries : documents;
}

template <class E>
negcos::Totals gather_queries(const negcos::Gather<E>& t, Range range, Working<E>* scratch) noexcept {
    return t.general ? GeneralQueryWalk<E>(t, scratch).run(range) : QueryWalk<E>(t, scratch).run(range);
}

// What was dropped has slope 0, and must not meet a NaN in its query: it goes behind the others. Returns their number.
template <class T>
int64_t dropped_last(negcos::Arc<T>* arcs, int64_t n, int64_t record) {
    int64_t kept = 0;
    for (int64_t k = 0; k < n; ++k) {
        bool any = false;
        for (int64_t p = 0; p < record; ++p) {
            const negcos::Arc<T> arc = arcs[k * record + p];
            arcs[k * record + p].coefficient = 0;
            arcs[kept * record + p] = arc;
            any = any || !(arc.coefficient == 0);
        }
        kept += any;
    }
    return kept;
}

// The sum of one number of each record, a lane each, in double every 256.
template <class T>
double sum_of_arcs(const negcos::Arc<T>* arcs, int64_t n, int64_t record) {
    double total = 0;
    for (int64_t k = 0; k < n;) {
        const int64_t end = n - k < 256 ? n : k + 256;
        Lanes<T> lanes = broadcast(T(0));
        for (; k < end; k += kLanes<T>) {
            alignas(64) T some[kLanes<T>] = {};
            for (int64_t l = 0; l < kLanes<T> && k + l < end; ++l) some[l] = arcs[(k + l) * record].coefficient;
            lanes = lanes + load(static_cast<const T*>(some));
        }
        k = end;
        total += static_cast<double>(sum(lanes));
    }
    return total;
}

// kSingle: of one prefix, whose records are single arcs.
template <bool kSingle, int64_t kAhead, class E>
void gather_documents_of(const negcos::Gather<E>& t, Range range, Working<E>* total) {
    using T = Working<E>;
    const int64_t prefixes = kSingle ? 1 : t.prefix_count, record = kSingle ? 1 : negcos::edge_record(prefixes);
    double* moment = reinterpret_cast<double*>(total + padded_columns(t.prefixes, prefixes));
    const negcos::LossTerms<T>& terms = t.terms;
    const bool drops = t.general && (terms.same_document.group || terms.same_query.group || terms.weights ||
                                     terms.false_negative_margin <= kLargestNumber<double>);
    for (int64_t j = range.begin; j < range.end; ++j) {
        const int64_t first = t.lists.begin(j);
        negcos::Arc<T>* const arcs = t.arcs + first * record;
        int64_t n = t.lists.begin(j + 1) - first;
        if (drops) n = dropped_last(arcs, n, record);
        for (int64_t p = 0, at = 0; p < prefixes; at += pad_lanes<T>(t.prefixes[p++].dim)) {
            const Prefix<E>& prefix = t.prefixes[p];
            accumulate<kAhead>(total + at, false, prefix.queries, prefix.dim, ArcEdges<T, kSingle>{arcs + p, record},
                               n);
            if constexpr (!kSingle) moment[p] = sum_of_arcs(arcs + prefixes + p, n, record);
        }
        finish_row(t.prefixes, prefixes, &Prefix<E>::documents, j, t.dim, static_cast<const T*>(total), moment,
                   static_cast<T>(terms.factor), t.outputs.grad_documents.data + j * t.outputs.grad_documents.stride);
    }
}

template <class E>
void gather_documents(const negcos::Gather<E>& t, Range range, Working<E>* scratch) noexcept {
    constexpr bool kVectors = kParts<Working<E>> < kLanes<Working<E>>;
    constexpr int64_t kAhead = kVectors ? negcos::kArcsAhead : 0;
    const negcos::Rows<E>& sources = t.prefixes[0].queries;
    const bool far = sources.count * t.dim * static_cast<int64_t>(sizeof(E)) > kNearBytes;
    if (t.prefix_count == 1)
        far ? gather_documents_of<true, kAhead>(t, range, scratch) : gather_documents_of<true, 0>(t, range, scratch);
    else
        far ? gather_documents_of<false, kAhead>(t, range, scratch) : gather_documents_of<false, 0>(t, range, scratch);
}

}  // namespace

#endif
