// SPDX-License-Identifier: Apache-2.0
#include "sampling.hpp"

#include <utility>

namespace negcos {

WordStream::WordStream(const Kernels& kernels, uint64_t seed, uint64_t step, uint32_t round) noexcept
    : kernels_(kernels),
      key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
      counter_{0, round, static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32)} {}

void WordStream::refill() noexcept {
    kernels_.philox(key_, counter_, words_);
    counter_[0] += kPhiloxBlocks;
    used_ = 0;
}

void draw_permutation(const Kernels& kernels, uint64_t seed, uint64_t step, uint32_t round, int64_t n, bool derangement,
                      int32_t* permutation) noexcept {
    WordStream words(kernels, seed, step, round);
    // Durstenfeld's shuffle settles position i at step i, so a fixed point shows early and the draw starts again: each
    // derangement stays as likely as any other.
    for (bool settled = false; !settled;) {
        settled = true;
        for (int64_t i = 0; i < n; ++i) permutation[i] = static_cast<int32_t>(i);
        for (int64_t i = n - 1; i > 0 && settled; --i) {
            const uint32_t j = words.below(static_cast<uint32_t>(i) + 1);
            std::swap(permutation[i], permutation[j]);
            settled = !derangement || permutation[i] != i;
        }
        if (derangement && settled && n > 0) settled = permutation[0] != 0;
    }
}

}  // namespace negcos
