// SPDX-License-Identifier: Apache-2.0
#include "pairs.hpp"

#include "sampling.hpp"

namespace negcos {
namespace {

// A query's or a document's entries of all rounds lie a stride apart. An odd number of cache lines spreads them over
// the cache's sets, where a power of two would put them all in one.
int64_t round_stride(int64_t batch) {
    constexpr int64_t kLine = 64 / sizeof(int32_t);
    return ((batch + kLine - 1) / kLine | 1) * kLine;
}

}  // namespace

Pairs::Pairs(const negcos_options& options, const int32_t* given, int64_t batch, int64_t documents)
    : batch_(batch),
      documents_(documents),
      drawn_(options.sampling != NEGCOS_SAMPLING_GIVEN),
      derangement_(options.sampling == NEGCOS_SAMPLING_DERANGEMENT),
      seed_(options.seed),
      step_(options.step) {
    const int64_t rounds = options.rounds;
    // Drawn rounds lie one after another, given ones row by row.
    candidates_ = drawn_ ? Candidates{nullptr, 1, round_stride(batch), rounds, true}
                         : Candidates{given, rounds, 1, rounds, false};
}

void Pairs::reserve(Arena& arena, bool transpose) {
    const int64_t rounds = candidates_.rounds;
    if (drawn_) candidates_.negatives = permutations_ = arena.take<int32_t>(candidates_.round_stride * rounds);
    if (!transpose) return;
    incoming_ = {batch_, nullptr, rounds, candidates_.round_stride, nullptr, nullptr, slots()};
    if (drawn_) {
        incoming_.inverse = inverse_ = arena.take<int32_t>(candidates_.round_stride * rounds);
    } else if (rounds > 0) {
        incoming_.start = start_ = arena.take<int64_t>(documents_ + 1);
        incoming_.edge = edge_ = arena.take<int64_t>(batch_ * slots());
    }
}

bool Pairs::build(Parallel& parallel, const Kernels& kernels, bool run_inline) {
    if (!drawn_) {
        if (edge_) sort_edges();
        return true;
    }
    return parallel.for_each(candidates_.rounds, run_inline, [&](int64_t round, int64_t) { draw(kernels, round); });
}

void Pairs::draw(const Kernels& kernels, int64_t round) {
    int32_t* permutation = permutations_ + round * candidates_.round_stride;
    int32_t* inverse = inverse_ ? inverse_ + round * candidates_.round_stride : nullptr;
    draw_permutation(kernels, seed_, step_, static_cast<uint32_t>(round), batch_, derangement_, permutation, inverse);
}

// A counting sort by document: stable, so each document's edges come in the order of queries and slots.
void Pairs::sort_edges() {
    for (int64_t j = 0; j <= documents_; ++j) start_[j] = 0;
    const auto each_edge = [&](auto&& visit) {
        int64_t edge = 0;
        for (int64_t i = 0; i < batch_; ++i) {
            visit(i, edge++);
            const int32_t* negatives = candidates_.negatives + i * candidates_.row_stride;
            for (int64_t r = 0; r < candidates_.rounds; ++r, ++edge)
                if (negatives[r] >= 0) visit(static_cast<int64_t>(negatives[r]), edge);
        }
    };
    each_edge([&](int64_t j, int64_t) { ++start_[j + 1]; });
    for (int64_t j = 0; j < documents_; ++j) start_[j + 1] += start_[j];
    each_edge([&](int64_t j, int64_t edge) { edge_[start_[j]++] = edge; });
    for (int64_t j = documents_; j > 0; --j) start_[j] = start_[j - 1];
    start_[0] = 0;
}

void Pairs::copy_negatives(int32_t* out) const {
    for (int64_t i = 0; i < batch_; ++i)
        for (int64_t r = 0; r < candidates_.rounds; ++r)
            *out++ = candidates_.negatives[i * candidates_.row_stride + r * candidates_.round_stride];
}

}  // namespace negcos
