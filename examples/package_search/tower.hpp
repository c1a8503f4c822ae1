// SPDX-License-Identifier: Apache-2.0
//
// One tower of the model: an embedding table, a text's embedding the weighted mean of its features' rows, trained by
// Adagrad.
#ifndef PACKAGE_SEARCH_TOWER_HPP
#define PACKAGE_SEARCH_TOWER_HPP

#include <cstdint>
#include <span>
#include <vector>

#include "features.hpp"

namespace package_search {

inline constexpr std::size_t dim = 128;

class Tower {
public:
    // Initial values from the seed: towers made with one seed start as the same function.
    explicit Tower(uint64_t seed);

    // The embeddings of `texts` (indices into features), one row of `dim` each.
    std::vector<float> embed(const Features& features, std::span<const std::size_t> texts, int threads) const;

    // One step of Adagrad, given d loss / d embedding for the same texts.
    void step(const Features& features, std::span<const std::size_t> texts, std::span<const float> gradient,
              float learning_rate, int threads);

    std::span<float> table() { return table_; }
    std::span<const float> table() const { return table_; }

private:
    std::vector<float> table_;    // table_rows x dim
    std::vector<float> squares_;  // the same shape: sums of squared gradients
    // For step(): which texts have which feature, sorted by feature.
    struct Use {
        uint32_t text;
        float weight;
    };
    std::vector<uint32_t> start_, touched_;
    std::vector<Use> uses_;
};

}  // namespace package_search

#endif
