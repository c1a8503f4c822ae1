// SPDX-License-Identifier: Apache-2.0
//
// Texts as bags of hashed features: rows of an embedding table, all texts one after another.
#ifndef PACKAGE_SEARCH_FEATURES_HPP
#define PACKAGE_SEARCH_FEATURES_HPP

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace package_search {

inline constexpr std::size_t table_rows = 65536;

class Features {
public:
    struct Feature {
        uint32_t row;
        float weight;  // those of a text add up to 1
    };

    // A text's lines are its fields: each counts the same however long it is, and within it each distinct feature.
    void add(std::string_view text);

    std::size_t size() const { return start_.size() - 1; }
    std::span<const Feature> operator[](std::size_t text) const {
        return std::span(features_).subspan(start_[text], start_[text + 1] - start_[text]);
    }

private:
    std::vector<std::size_t> start_{0};
    std::vector<Feature> features_;
};

}  // namespace package_search

#endif
