// SPDX-License-Identifier: Apache-2.0
//
// The negatives of each round, drawn from a counter-based generator keyed by (seed, step, round): any round can be
// drawn by any thread. docs/sampling.md states the algorithm so that it can be written again.
#ifndef NEGCOS_SAMPLING_HPP
#define NEGCOS_SAMPLING_HPP

#include <cstdint>

#include "kernels.hpp"

namespace negcos {

// As negcos.h numbers them.
enum class Sampling : int32_t { shuffle, derangement, cyclic, uniform, log_uniform, given, all, groups = 8 };

// The words of one round's stream, in order: counters (block, round, step), block = 0, 1, 2, ...
class WordStream {
public:
    WordStream(const Kernels& kernels, uint64_t seed, uint64_t step, uint32_t round) noexcept;

    uint32_t next() noexcept {
        if (used_ == kWords) refill();
        return words_[used_++];
    }

    // Uniform in [0, n), n > 0: multiply and shift, drawing again where it would favour anyone (Lemire, "Fast random
    // integer generation in an interval", 2019).
    uint32_t below(uint32_t n) noexcept {
        uint64_t m = static_cast<uint64_t>(next()) * n;
        if (static_cast<uint32_t>(m) < n) {
            const uint32_t unfair = (0u - n) % n;
            while (static_cast<uint32_t>(m) < unfair) m = static_cast<uint64_t>(next()) * n;
        }
        return static_cast<uint32_t>(m >> 32);
    }

    static constexpr int kWords = 4 * kPhiloxBlocks;

    // below(n), below(n - 1), ..., below(2) into `out`: as many of them, at least one, as the words at hand give.
    int below_falling(uint32_t n, uint32_t (&out)[kWords]) noexcept {
        if (used_ == kWords) refill();
        const int count = n - 1 < static_cast<uint32_t>(kWords - used_) ? static_cast<int>(n - 1) : kWords - used_;
        const uint32_t* words = words_ + used_;
        uint32_t unfair = 0;
        for (int k = 0; k < count; ++k) {
            const uint32_t choices = n - static_cast<uint32_t>(k);
            const uint64_t m = static_cast<uint64_t>(words[k]) * choices;
            out[k] = static_cast<uint32_t>(m >> 32);
            unfair |= static_cast<uint32_t>(m) < choices;
        }
        if (unfair) {  // one of them may have to be drawn again
            out[0] = below(n);
            return 1;
        }
        used_ += count;
        return count;
    }
    // The last `count` of those come again.
    void give_back(int count) noexcept { used_ -= count; }

private:
    void refill() noexcept;

    const Kernels& kernels_;
    uint32_t key_[2], counter_[4];
    int used_ = kWords;
    uint32_t words_[kWords];
};

// A uniform random permutation of [0, n); with `derangement`, one without fixed points (n >= 2).
void draw_permutation(const Kernels& kernels, uint64_t seed, uint64_t step, uint32_t round, int64_t n, bool derangement,
                      int32_t* permutation) noexcept;

// The shifts of CYCLIC, n >= 2: those of each n - 1 consecutive rounds are a uniform random permutation of [1, n).
// scratch: n - 1 numbers.
void draw_shifts(const Kernels& kernels, uint64_t seed, uint64_t step, int64_t n, int64_t rounds, int32_t* shifts,
                 int32_t* scratch) noexcept;

// One of the documents other than the positive for each query, independent of each other: all as likely, or with
// P(j) ~ log((j + 2) / (j + 1)). documents >= 2; positives: the row of each query's, nullptr = row i.
void draw_uniform(const Kernels& kernels, uint64_t seed, uint64_t step, uint32_t round, int64_t batch,
                  int64_t documents, const int64_t* positives, int32_t* negatives) noexcept;
void draw_log_uniform(const Kernels& kernels, uint64_t seed, uint64_t step, uint32_t round, int64_t batch,
                      int64_t documents, const int64_t* positives, int32_t* negatives) noexcept;

}  // namespace negcos

#endif
