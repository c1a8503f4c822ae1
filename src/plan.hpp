// SPDX-License-Identifier: Apache-2.0
//
// How a call is computed: which walk over the graph of candidates, and which arithmetic between similarities and
// gradients. A function of shapes and options alone, as walks add up in different orders, and the bits must not depend
// on the machine; but for one rule about NaN, which the norms bring to light (must_gather).
#ifndef NEGCOS_PLAN_HPP
#define NEGCOS_PLAN_HPP

#include <cstdint>

#include "element.hpp"
#include "negcos/negcos.h"

namespace negcos {

// Nanoseconds of one core, forward and gradients, fitted to calls of both walks on the same samples on a 2.6 GHz Xeon
// (docs/performance.md, "When tiles are cheaper"); only their ratios matter. A gather visits each sampled pair, at a
// price for the visit and for each byte of its row, which is higher where the documents are more than a second-level
// cache holds. Tiles visit every pair of a query and a document.
inline constexpr double kPairCost = 6.5, kPairCostPerByteNear = 0.018, kPairCostPerByteFar = 0.055;
inline constexpr double kNearBytes = 1 << 20;
inline constexpr double kCellCost = 1.8, kCellCostPerByte = 0.0125;

// T: what is computed in. 16-bit rows are planned as f32, so that both add up in one order.
template <class T>
bool tiles_are_cheaper(int64_t rounds, int64_t documents, int64_t dim) {
    const double row = static_cast<double>(dim) * sizeof(T), all = static_cast<double>(documents);
    const double per_byte = row * all > kNearBytes ? kPairCostPerByteFar : kPairCostPerByteNear;
    const double slots = 1 + static_cast<double>(rounds);
    return all * (kCellCost + kCellCostPerByte * row) < slots * (kPairCost + per_byte * row);
}

// Windows of GROUPS that are larger are walked as any sample: their products are as large as those of tiles, and they
// are too few to be tasks.
inline constexpr int64_t kMostGroup = 512;

enum class Walk { gather, tiles, groups, batch_softmax };

struct Plan {
    Walk walk;
    bool general;    // the arithmetic of the whole loss family, not that of the plain softmax
    bool sampled;    // candidates are drawn or given, not all documents
    bool negatives;  // needs_negatives()
};

// Whether a call asks for more than the plain softmax over a query's candidates, or the published layer.
bool is_general(const negcos_options& options, const negcos_batch& batch);

// What similarities are divided by: in the published layer the temperature cancels.
double temperature_of(const negcos_options& options);

// Whether negatives are drawn or read at all: BATCH_SOFTMAX has them on demand.
inline bool needs_negatives(const negcos_options& options, const negcos_result& result) {
    return options.sampling != NEGCOS_SAMPLING_ALL &&
           (options.objective != NEGCOS_OBJECTIVE_BATCH_SOFTMAX || result.logits.data || result.negatives);
}

template <class E>
Plan plan_of(const negcos_options& options, const negcos_batch& batch, const negcos_result& result) {
    const bool sampled = options.sampling != NEGCOS_SAMPLING_ALL, negatives = needs_negatives(options, result);
    if (options.objective == NEGCOS_OBJECTIVE_BATCH_SOFTMAX) return {Walk::batch_softmax, false, sampled, negatives};
    const bool general = is_general(options, batch);
    if (options.sampling == NEGCOS_SAMPLING_GROUPS && !general && options.rounds > 0 && options.rounds < kMostGroup &&
        options.rounds < batch.queries.rows)
        return {Walk::groups, false, sampled, negatives};
    // Norms are what tells NaN and Inf from numbers, and DOT has none.
    const bool tiles =
        !sampled || (options.similarity == NEGCOS_SIMILARITY_COSINE &&
                     tiles_are_cheaper<Working<E>>(options.rounds, batch.documents.rows, batch.queries.cols));
    return {tiles ? Walk::tiles : Walk::gather, general, sampled, negatives};
}

// Tiles multiply documents that were not sampled by 0, which does not keep NaN and Inf away: then all is gathered.
inline bool must_gather(const Plan& plan, int64_t nonfinite_rows) {
    return plan.walk == Walk::tiles && plan.sampled && nonfinite_rows > 0;
}

}  // namespace negcos

#endif
