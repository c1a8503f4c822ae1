// SPDX-License-Identifier: Apache-2.0
#include "sampling.hpp"

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

namespace {

// Inline, so that the place in the stream stays in a register.
template <bool kDerangement, bool kInverse>
[[gnu::always_inline]] inline bool shuffle(WordStream& words, int64_t n, int32_t* permutation,
                                           int32_t* inverse) noexcept {
    for (int64_t i = 0; i < n; ++i) permutation[i] = static_cast<int32_t>(i);
    for (int64_t i = n - 1; i > 0; --i) {
        const uint32_t j = words.below(static_cast<uint32_t>(i) + 1);
        const int32_t drawn = permutation[j];
        permutation[j] = permutation[i];
        permutation[i] = drawn;
        if (kDerangement && drawn == i) return false;
        if (kInverse) inverse[drawn] = static_cast<int32_t>(i);
    }
    if (n > 0 && kDerangement && permutation[0] == 0) return false;
    if (n > 0 && kInverse) inverse[permutation[0]] = 0;
    return true;
}

}  // namespace

void draw_permutation(const Kernels& kernels, uint64_t seed, uint64_t step, uint32_t round, int64_t n, bool derangement,
                      int32_t* permutation, int32_t* inverse) noexcept {
    WordStream words(kernels, seed, step, round);
    // Durstenfeld's shuffle settles position i at step i, so its inverse falls out on the way, and a fixed point shows
    // early and the draw starts again: each derangement stays as likely as any other.
    if (!derangement)
        inverse ? shuffle<false, true>(words, n, permutation, inverse)
                : shuffle<false, false>(words, n, permutation, inverse);
    else
        while (!(inverse ? shuffle<true, true>(words, n, permutation, inverse)
                         : shuffle<true, false>(words, n, permutation, inverse))) {
        }
}

}  // namespace negcos
