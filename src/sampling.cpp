// SPDX-License-Identifier: Apache-2.0
#include "sampling.hpp"

#include <utility>

namespace negcos {
namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;

}  // namespace

void philox4x32(const uint32_t (&counter)[4], const uint32_t (&key)[2], uint32_t (&words)[4]) noexcept {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int r = 0; r < 10; ++r) {
        const uint64_t p0 = static_cast<uint64_t>(kMultiplier0) * c0;
        const uint64_t p1 = static_cast<uint64_t>(kMultiplier1) * c2;
        c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c1 = static_cast<uint32_t>(p1);
        c3 = static_cast<uint32_t>(p0);
        k0 += kWeyl0;
        k1 += kWeyl1;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
}

WordStream::WordStream(uint64_t seed, uint64_t step, uint32_t round) noexcept
    : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
      round_(round),
      step_{static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32)} {}

void WordStream::refill() noexcept {
    for (int b = 0; b < kBlocks; ++b) {
        const uint32_t counter[4] = {block_ + static_cast<uint32_t>(b), round_, step_[0], step_[1]};
        uint32_t words[4];
        philox4x32(counter, key_, words);
        for (int w = 0; w < 4; ++w) words_[4 * b + w] = words[w];
    }
    block_ += kBlocks;
    used_ = 0;
}

void draw_permutation(uint64_t seed, uint64_t step, uint32_t round, int64_t n, bool derangement,
                      int32_t* permutation) noexcept {
    WordStream words(seed, step, round);
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
        if (derangement && settled) settled = permutation[0] != 0;
    }
}

}  // namespace negcos
