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
enum class Sampling : int32_t { shuffle, derangement, cyclic, uniform, log_uniform, given, all };

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

private:
    void refill() noexcept;

    static constexpr int kWords = 4 * kPhiloxBlocks;
    const Kernels& kernels_;
    uint32_t key_[2], counter_[4];
    int used_ = kWords;
    uint32_t words_[kWords];
};

// A uniform random permutation of [0, n) into `permutation`, and its inverse into `inverse` unless that is nullptr;
// with `derangement`, one without fixed points (n >= 2).
void draw_permutation(const Kernels& kernels, uint64_t seed, uint64_t step, uint32_t round, int64_t n, bool derangement,
                      int32_t* permutation, int32_t* inverse) noexcept;

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
