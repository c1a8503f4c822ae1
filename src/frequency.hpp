// SPDX-License-Identifier: Apache-2.0
//
// How often an item is a candidate, from the ids of batches: the streaming estimator of Yi et al. (RecSys 2019) and a
// count-min sketch over the same hashes. docs/frequency.md states both, the hash and the file.
#ifndef NEGCOS_FREQUENCY_HPP
#define NEGCOS_FREQUENCY_HPP

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "negcos/negcos.h"

namespace negcos {

struct Kernels;

negcos_frequency_options default_frequency_options() noexcept;
int32_t validate_frequency(const negcos_frequency_options& options) noexcept;

class Frequency {
public:
    // Options as validate_frequency passes them.
    Frequency(const Kernels& kernels, const negcos_frequency_options& options);

    int32_t update(const int64_t* ids, int64_t count) noexcept;
    int32_t log_probability(const int64_t* ids, int64_t count, double* log_probability) const noexcept;
    int32_t save(const char* path) const;
    static int32_t load(const Kernels& kernels, const char* path, std::optional<Frequency>& loaded);

private:
    uint64_t bucket(size_t hash, int64_t id) const noexcept;
    void sight(uint64_t& last, uint64_t& average) const noexcept;
    double odds_against(int64_t id) const noexcept;
    bool in_range() const noexcept;

    const Kernels& kernels_;
    negcos_frequency_options options_;
    uint64_t total_ = 0;          // steps; with COUNT_MIN ids
    std::vector<uint64_t> keys_;  // of the hashes
    // hashes x buckets. STREAMING: two words, the step of the last sighting, 0 = none, and the bits of the average gap
    // (A and B of the paper, side by side for the cache); COUNT_MIN: one, the count.
    std::vector<uint64_t> table_;
};

}  // namespace negcos

#endif
