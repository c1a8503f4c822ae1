// SPDX-License-Identifier: Apache-2.0
//
// A token is a run of letters and digits in lower case ("+" counts, for c++; bytes beyond ASCII count as letters). Its
// features are the token itself and the trigrams of the token between "<" and ">". FNV-1a picks the row.
#include "features.hpp"

#include <algorithm>
#include <string>

namespace package_search {
namespace {

uint32_t row_of(char kind, std::string_view text) {
    uint32_t hash = 2166136261u;
    const auto mix = [&hash](char c) { hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u; };
    mix(kind);
    for (const char c : text) mix(c);
    return (hash ^ (hash >> 16)) % table_rows;
}

bool in_token(unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' || c >= 0x80;
}

void add_token(const std::string& token, std::vector<uint32_t>& rows) {
    if (token.empty()) return;
    rows.push_back(row_of('w', token));
    std::string framed;
    framed.append(1, '<').append(token).append(1, '>');
    for (std::size_t at = 0; at + 3 <= framed.size(); ++at)
        rows.push_back(row_of('t', std::string_view(framed).substr(at, 3)));
}

// The distinct features of a line.
std::vector<uint32_t> rows_of(std::string_view line) {
    std::vector<uint32_t> rows;
    std::string token;
    for (const char c : line) {
        if (in_token(static_cast<unsigned char>(c))) {
            token += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
        } else {
            add_token(token, rows);
            token.clear();
        }
    }
    add_token(token, rows);
    std::sort(rows.begin(), rows.end());
    rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
    return rows;
}

}  // namespace

void Features::add(std::string_view text) {
    int fields = 0;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        const std::vector<uint32_t> rows = rows_of(text.substr(0, end));
        for (const uint32_t row : rows) features_.push_back({row, 1.0f / static_cast<float>(rows.size())});
        fields += !rows.empty();
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    for (std::size_t k = start_.back(); k < features_.size(); ++k) features_[k].weight /= static_cast<float>(fields);
    start_.push_back(features_.size());
}

}  // namespace package_search
