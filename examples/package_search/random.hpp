// SPDX-License-Identifier: Apache-2.0
//
// Random numbers that are the same on every machine: std::mt19937_64 is fixed by the standard, but the distributions
// and std::shuffle are not, so those few lines are written out here.
#ifndef PACKAGE_SEARCH_RANDOM_HPP
#define PACKAGE_SEARCH_RANDOM_HPP

#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

namespace package_search {

// Uniform in [0, bound): draws above the largest multiple of the bound are thrown away.
inline uint64_t bounded(std::mt19937_64& random, uint64_t bound) {
    const uint64_t excess = (UINT64_MAX % bound + 1) % bound;  // 2^64 mod bound
    for (;;) {
        const uint64_t draw = random();
        if (draw <= UINT64_MAX - excess) return draw % bound;
    }
}

// Fisher-Yates.
template <class T>
void shuffle(std::vector<T>& values, std::mt19937_64& random) {
    for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[bounded(random, i)]);
}

// Uniform in [-1, 1), a multiple of 2^-23.
inline float symmetric(std::mt19937_64& random) {
    return static_cast<float>(static_cast<int64_t>(random() >> 40) - (1 << 23)) * 0x1p-23f;
}

}  // namespace package_search

#endif
