// SPDX-License-Identifier: Apache-2.0
//
// Which engine a call takes. A function of shapes and options alone: the engines add up in different orders, and the
// bits must not depend on the machine.
#ifndef NEGCOS_PLAN_HPP
#define NEGCOS_PLAN_HPP

#include <cstdint>

namespace negcos {

// Nanoseconds of one core, forward and gradients, fitted to calls of both engines on the same samples on a 2.6 GHz Xeon
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

}  // namespace negcos

#endif
