// SPDX-License-Identifier: Apache-2.0
#include "tower.hpp"

#include <algorithm>
#include <cmath>

#include "parallel.hpp"
#include "random.hpp"

namespace package_search {
namespace {

constexpr float initial_size = 0.05f;

void add_row(float* sum, const float* row, float weight) {
    for (std::size_t c = 0; c < dim; ++c) sum[c] += weight * row[c];
}

}  // namespace

Tower::Tower(uint64_t seed) : table_(table_rows * dim), start_(table_rows + 1) {
    std::mt19937_64 random(seed);
    for (float& value : table_) value = initial_size * symmetric(random);
}

std::vector<float> Tower::embed(const Features& features, std::span<const std::size_t> texts, int threads) const {
    std::vector<float> embeddings(texts.size() * dim);
    parallel_for(threads, texts.size(), 64, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            float* embedding = &embeddings[i * dim];
            for (const auto [row, weight] : features[texts[i]]) add_row(embedding, &table_[row * dim], weight);
        }
    });
    return embeddings;
}

void Tower::step(const Features& features, std::span<const std::size_t> texts, std::span<const float> gradient,
                 float learning_rate, int threads) {
    if (squares_.empty()) squares_.resize(table_.size());

    // Sort the batch's features, so that each table row is updated once, by one thread, in a fixed order.
    std::fill(start_.begin(), start_.end(), 0);
    for (const std::size_t text : texts)
        for (const auto [row, weight] : features[text]) ++start_[row + 1];
    touched_.clear();
    for (uint32_t row = 0; row < table_rows; ++row) {
        if (start_[row + 1] > 0) touched_.push_back(row);
        start_[row + 1] += start_[row];
    }
    uses_.resize(start_[table_rows]);
    for (std::size_t i = 0; i < texts.size(); ++i)
        for (const auto [row, weight] : features[texts[i]]) uses_[start_[row]++] = {static_cast<uint32_t>(i), weight};
    // start_[row] is now the end of its list, and so the start of the next row's.

    parallel_for(threads, touched_.size(), 256, [&](std::size_t begin, std::size_t end) {
        for (std::size_t k = begin; k < end; ++k) {
            const uint32_t row = touched_[k];
            float sum[dim] = {};
            for (uint32_t at = row == 0 ? 0 : start_[row - 1]; at < start_[row]; ++at)
                add_row(sum, &gradient[uses_[at].text * dim], uses_[at].weight);
            float* values = &table_[row * dim];
            float* squares = &squares_[row * dim];
            for (std::size_t c = 0; c < dim; ++c) {
                squares[c] += sum[c] * sum[c];
                values[c] -= learning_rate * sum[c] / (std::sqrt(squares[c]) + 1e-10f);
            }
        }
    });
}

}  // namespace package_search
