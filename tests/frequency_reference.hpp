// SPDX-License-Identifier: Apache-2.0
//
// The estimators of Q written again from docs/frequency.md, down to the bytes of their files, and streams for them.
#ifndef NEGCOS_TESTS_FREQUENCY_REFERENCE_HPP
#define NEGCOS_TESTS_FREQUENCY_REFERENCE_HPP

#include <algorithm>
#include <bit>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "harness.hpp"
#include "scratch.hpp"

namespace frequency_reference {

using harness::Random;

using Ids = std::vector<int64_t>;
using Words = std::vector<uint64_t>;

inline uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

inline void seal(Words& words) {
    uint64_t sum = 0;
    for (size_t k = 0; k + 1 < words.size(); ++k) sum = mix(sum ^ words[k]);
    words.back() = sum;
}

inline std::string bytes_of(const Words& words) {
    std::string bytes;
    for (const uint64_t word : words)
        for (int b = 0; b < 8; ++b) bytes.push_back(static_cast<char>(word >> (8 * b) & 0xFF));
    return bytes;
}

inline Words words_of(const std::string& bytes) {
    Words words(bytes.size() / 8);
    for (size_t b = 0; b < 8 * words.size(); ++b)
        words[b / 8] |= uint64_t{static_cast<unsigned char>(bytes[b])} << (8 * (b % 8));
    return words;
}

// The estimators as docs/frequency.md states them.
struct Reference {
    struct Bucket {
        int64_t last = 0;  // A
        double gap = 0;    // B
        int64_t count = 0;
    };
    negcos::FrequencyOptions options;
    std::vector<std::vector<Bucket>> buckets;
    int64_t steps = 0, ids = 0;

    explicit Reference(const negcos::FrequencyOptions& o)
        : options(o), buckets(static_cast<size_t>(o.hashes), std::vector<Bucket>(static_cast<size_t>(o.buckets))) {}

    bool streaming() const { return options.method == NEGCOS_FREQUENCY_STREAMING; }

    Bucket& bucket(size_t hash, int64_t id) {
        const uint64_t key = mix(options.seed + (hash + 1) * 0x9E3779B97F4A7C15u);
        return buckets[hash][mix(static_cast<uint64_t>(id) ^ key) % static_cast<uint64_t>(options.buckets)];
    }
    void update(const Ids& batch) {
        ++steps;
        for (size_t h = 0; h < buckets.size(); ++h) {
            std::set<Bucket*> hit;
            for (const int64_t id : batch) {
                hit.insert(&bucket(h, id));
                ++bucket(h, id).count;
            }
            for (Bucket* b : hit) {
                const double gap = static_cast<double>(steps - b->last);
                if (b->last == 0 && options.initial_gap == 0)
                    b->gap = gap;
                else {
                    const double before = b->last == 0 ? options.initial_gap : b->gap;
                    b->gap = std::max(1.0, before + options.learning_rate * (gap - before));
                }
                b->last = steps;
            }
        }
        ids += static_cast<int64_t>(batch.size());
    }
    // 1 / p - 1
    double odds_against(int64_t id) {
        double gap = 1;
        int64_t count = ids;
        for (size_t h = 0; h < buckets.size(); ++h) {
            const Bucket& b = bucket(h, id);
            const double unseen = options.initial_gap > 0 ? options.initial_gap : static_cast<double>(steps + 1);
            gap = std::max(gap, b.last == 0 ? unseen : b.gap);
            count = std::min(count, b.count);
        }
        if (streaming()) return gap - 1;
        return count == 0 ? static_cast<double>(ids) : static_cast<double>(ids - count) / static_cast<double>(count);
    }
    Words file() const {
        Words words{0x5146534F4347454Eu,
                    1 | static_cast<uint64_t>(options.method) << 32,
                    static_cast<uint64_t>(options.hashes),
                    static_cast<uint64_t>(options.buckets),
                    std::bit_cast<uint64_t>(options.learning_rate),
                    std::bit_cast<uint64_t>(options.initial_gap),
                    options.seed,
                    static_cast<uint64_t>(streaming() ? steps : ids)};
        for (const auto& row : buckets)
            for (const Bucket& b : row)
                if (streaming()) {
                    words.push_back(static_cast<uint64_t>(b.last));
                    words.push_back(std::bit_cast<uint64_t>(b.gap));
                } else
                    words.push_back(static_cast<uint64_t>(b.count));
        words.push_back(0);
        seal(words);
        return words;
    }
};

inline std::string saved(const negcos::Frequency& frequency) {
    const scratch::Folder folder;
    frequency.save((folder / "q"));
    return scratch::read_file((folder / "q"));
}
inline std::vector<double> estimates(const negcos::Frequency& frequency, const Ids& ids) {
    std::vector<double> result(ids.size(), 7);
    frequency.log_probability(ids, result);
    return result;
}

inline negcos::FrequencyOptions options(int32_t method, int32_t hashes, int64_t buckets, uint64_t seed = 0) {
    negcos::FrequencyOptions result;
    result.method = method;
    result.hashes = hashes;
    result.buckets = buckets;
    result.seed = seed;
    return result;
}

// Each with and without collisions; the last ones with what only STREAMING has.
inline std::vector<negcos::FrequencyOptions> all_options() {
    std::vector<negcos::FrequencyOptions> all;
    for (const int32_t method : {NEGCOS_FREQUENCY_STREAMING, NEGCOS_FREQUENCY_COUNT_MIN})
        for (const auto& [hashes, buckets] : {std::pair{1, 1}, {1, 7}, {3, 64}, {64, 5}, {4, 5000}})
            all.push_back(options(method, hashes, buckets, 11 * static_cast<uint64_t>(hashes)));
    for (const auto& [rate, gap] : {std::pair{1.0, 0.0}, {0.3, 1.0}, {1e-300, 33.3}, {0.07, 0x1p53}}) {
        all.push_back(options(NEGCOS_FREQUENCY_STREAMING, 2, 50, ~uint64_t{0}));
        all.back().learning_rate = rate;
        all.back().initial_gap = gap;
    }
    return all;
}

// Items 0 .. count - 1 with P(k) ~ 1 / (k + 1).
struct Zipf {
    std::vector<double> upto;
    Random random{5};
    explicit Zipf(int64_t count) {
        for (int64_t k = 0; k < count; ++k) upto.push_back((k > 0 ? upto.back() : 0) + 1 / static_cast<double>(k + 1));
    }
    double share(int64_t k) const { return 1 / static_cast<double>(k + 1) / upto.back(); }
    Ids batch(int64_t size) {
        Ids ids;
        for (int64_t k = 0; k < size; ++k)
            ids.push_back(std::lower_bound(upto.begin(), upto.end(), random.uniform() * upto.back()) - upto.begin());
        return ids;
    }
};

// Streams with everything in them: frequent and rare ids, any number as an id, ids twice in a batch, steps without ids.
inline std::vector<Ids> stream(int64_t steps) {
    Zipf zipf(300);
    Random random(2);
    std::vector<Ids> batches;
    for (int64_t step = 0; step < steps; ++step) {
        batches.push_back(zipf.batch(random.below(30)));
        if (step % 5 == 1) batches.back().push_back(static_cast<int64_t>(random.next()));
        if (step % 7 == 1) batches.back().push_back(std::numeric_limits<int64_t>::min());
        if (step % 9 == 1) batches.back().push_back(-1);
    }
    return batches;
}

// Of every kind in `stream`, and some that are not in it.
inline Ids probes() {
    Ids ids{std::numeric_limits<int64_t>::min(), -1, std::numeric_limits<int64_t>::max(), 123456789};
    for (int64_t id = 0; id < 330; ++id) ids.push_back(id);
    return ids;
}

}  // namespace frequency_reference

#endif
