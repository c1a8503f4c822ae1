// SPDX-License-Identifier: Apache-2.0
#include "sampling.hpp"

#include <bit>

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

// Durstenfeld's shuffle settles position i at step i, so that a fixed point of a derangement shows early: then false.
template <bool kDerangement>
bool shuffle(WordStream& words, int64_t n, int32_t* permutation) noexcept {
    for (int64_t i = 0; i < n; ++i) permutation[i] = static_cast<int32_t>(i);
    uint32_t places[WordStream::kWords];
    for (int64_t i = n - 1; i > 0;) {
        const int count = words.below_falling(static_cast<uint32_t>(i) + 1, places);
        for (int k = 0; k < count; ++k, --i) {
            int32_t& place = permutation[places[k]];
            const int32_t drawn = place;
            place = permutation[i];
            permutation[i] = drawn;
            if (kDerangement && drawn == i) {
                words.give_back(count - k - 1);
                return false;
            }
        }
    }
    return !(kDerangement && n > 0 && permutation[0] == 0);
}

}  // namespace

void draw_permutation(const Kernels& kernels, uint64_t seed, uint64_t step, uint32_t round, int64_t n, bool derangement,
                      int32_t* permutation) noexcept {
    WordStream words(kernels, seed, step, round);
    // A derangement is drawn until there is no fixed point: each stays as likely as any other.
    if (!derangement)
        shuffle<false>(words, n, permutation);
    else
        while (!shuffle<true>(words, n, permutation)) {
        }
}

void draw_shifts(const Kernels& kernels, uint64_t seed, uint64_t step, int64_t n, int64_t rounds, int32_t* shifts,
                 int32_t* scratch) noexcept {
    const int64_t cycle = n - 1;
    for (int64_t first = 0; first < rounds; first += cycle) {
        WordStream words(kernels, seed, step, static_cast<uint32_t>(first / cycle));
        for (int64_t t = 0; t < cycle; ++t) scratch[t] = static_cast<int32_t>(1 + t);
        // A shuffle from the front, so that it can stop with the last round.
        for (int64_t t = 0; t < cycle && first + t < rounds; ++t) {
            const int64_t j = t + words.below(static_cast<uint32_t>(cycle - t));
            shifts[first + t] = scratch[j];
            scratch[j] = scratch[t];
        }
    }
}

void draw_uniform(const Kernels& kernels, uint64_t seed, uint64_t step, uint32_t round, int64_t batch,
                  int64_t documents, const int64_t* positives, int32_t* negatives) noexcept {
    WordStream words(kernels, seed, step, round);
    for (int64_t i = 0; i < batch; ++i) {
        const int64_t drawn = words.below(static_cast<uint32_t>(documents - 1));
        negatives[i] = static_cast<int32_t>(drawn + (drawn >= (positives ? positives[i] : i)));
    }
}

void draw_log_uniform(const Kernels& kernels, uint64_t seed, uint64_t step, uint32_t round, int64_t batch,
                      int64_t documents, const int64_t* positives, int32_t* negatives) noexcept {
    WordStream words(kernels, seed, step, round);
    const uint32_t octaves = static_cast<uint32_t>(std::bit_width(static_cast<uint64_t>(documents)));
    // Document j is the floor of x in [j + 1, j + 2) with density 1 / x, whose octaves [2^k, 2^(k+1)) all weigh the
    // same: x = 2^k (1 + w / 2^32) stays with probability 1 / (1 + w / 2^32), that is when v (2^32 + w) < 2^64. Whether
    // it stays is a coin that no branch predicts, so each draw is written, and the next one over it if it does not.
    for (int64_t i = 0; i < batch;) {
        const uint32_t k = words.below(octaves);
        const uint64_t w = words.next(), v = words.next();
        const int64_t drawn = (int64_t{1} << k) + static_cast<int64_t>(w >> (32 - k)) - 1;
        uint64_t product;
        const bool rejected = __builtin_mul_overflow(v, (uint64_t{1} << 32) + w, &product);
        negatives[i] = static_cast<int32_t>(drawn);
        i += !rejected & (drawn < documents) & (drawn != (positives ? positives[i] : i));
    }
}

}  // namespace negcos
