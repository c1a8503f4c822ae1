// SPDX-License-Identifier: Apache-2.0
//
// The draws: written again from docs/sampling.md, and judged as random permutations.
#include <algorithm>
#include <map>
#include <numeric>

#include "harness.hpp"

namespace {

using namespace harness;

// ---- docs/sampling.md, again ----------------------------------------------------------------------------------------

struct Philox {
    uint32_t key[2], counter[4];
    std::vector<uint32_t> words() const {
        uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k[2] = {key[0], key[1]};
        for (int round = 0; round < 10; ++round) {
            const uint64_t a = uint64_t{0xD2511F53} * c[0], b = uint64_t{0xCD9E8D57} * c[2];
            const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(b),
                                      static_cast<uint32_t>(a >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(a)};
            std::copy(next, next + 4, c);
            k[0] += 0x9E3779B9;
            k[1] += 0xBB67AE85;
        }
        return {c, c + 4};
    }
};

class Stream {
public:
    Stream(uint64_t seed, uint64_t step, uint32_t round)
        : philox_{{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
                  {0, round, static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32)}} {}
    uint32_t word() {
        if (left_.empty()) {
            left_ = philox_.words();
            std::reverse(left_.begin(), left_.end());
            ++philox_.counter[0];
        }
        const uint32_t w = left_.back();
        left_.pop_back();
        return w;
    }
    uint32_t below(uint64_t n) {
        uint64_t m = word() * n;
        while ((m & 0xFFFFFFFF) < (uint64_t{1} << 32) % n) m = word() * n;
        return static_cast<uint32_t>(m >> 32);
    }

private:
    Philox philox_;
    std::vector<uint32_t> left_;
};

std::vector<int32_t> permutation(uint64_t seed, uint64_t step, uint32_t round, int32_t n, bool derangement) {
    Stream stream(seed, step, round);
    std::vector<int32_t> a(static_cast<size_t>(n));
again:
    std::iota(a.begin(), a.end(), 0);
    for (int32_t i = n - 1; i >= 0; --i) {
        if (i > 0) std::swap(a[static_cast<size_t>(i)], a[stream.below(static_cast<uint64_t>(i) + 1)]);
        if (derangement && a[static_cast<size_t>(i)] == i) goto again;
    }
    return a;
}

std::vector<int32_t> cyclic(uint64_t seed, uint64_t step, uint32_t round, int32_t batch) {
    const uint32_t n = static_cast<uint32_t>(batch) - 1;
    Stream stream(seed, step, round / n);
    std::vector<uint32_t> a(n);
    std::iota(a.begin(), a.end(), 1u);
    for (uint32_t t = 0; t < n; ++t) std::swap(a[t], a[t + stream.below(n - t)]);
    std::vector<int32_t> result;
    for (int32_t i = 0; i < batch; ++i)
        result.push_back(
            static_cast<int32_t>((static_cast<uint32_t>(i) + a[round % n]) % static_cast<uint32_t>(batch)));
    return result;
}

std::vector<int32_t> uniform(uint64_t seed, uint64_t step, uint32_t round, int32_t batch, int32_t documents) {
    Stream stream(seed, step, round);
    std::vector<int32_t> result;
    for (int32_t i = 0; i < batch; ++i) {
        const int32_t u = static_cast<int32_t>(stream.below(static_cast<uint64_t>(documents) - 1));
        result.push_back(u < i ? u : u + 1);
    }
    return result;
}

std::vector<int32_t> log_uniform(uint64_t seed, uint64_t step, uint32_t round, int32_t batch, int32_t documents) {
    Stream stream(seed, step, round);
    uint64_t octaves = 0;
    while (int64_t{1} << octaves <= documents) ++octaves;
    std::vector<int32_t> result;
    for (int32_t i = 0; i < batch; ++i)
        for (bool found = false; !found;) {
            const uint32_t k = stream.below(octaves);
            const uint64_t w = stream.word(), v = stream.word();
            const uint64_t j = (uint64_t{1} << k) + ((w << k) >> 32) - 1;
            const bool kept = v == 0 || v * w < ((uint64_t{1} << 32) - v) << 32;  // v (2^32 + w) < 2^64
            found = kept && j < static_cast<uint64_t>(documents) && j != static_cast<uint64_t>(i);
            if (found) result.push_back(static_cast<int32_t>(j));
        }
    return result;
}

// All rounds, query by query.
std::vector<int32_t> groups(uint64_t seed, uint64_t step, int32_t rounds, int32_t batch) {
    const std::vector<int32_t> deal = permutation(seed, step, 0, batch, false);
    std::vector<int32_t> result(static_cast<size_t>(int64_t{batch} * rounds));
    const int32_t size = rounds + 1;
    for (int32_t p = 0; p < batch; ++p) {
        const int32_t begin = std::min(p / size * size, batch - size);
        auto to = result.begin() + int64_t{deal[static_cast<size_t>(p)]} * rounds;
        for (int32_t other = begin; other < begin + size; ++other)
            if (other != p) *to++ = deal[static_cast<size_t>(other)];
    }
    return result;
}

std::vector<int32_t> draw(int32_t sampling, uint64_t seed, uint64_t step, uint32_t round, int32_t batch,
                          int32_t documents) {
    switch (sampling) {
        case NEGCOS_SAMPLING_CYCLIC:
            return cyclic(seed, step, round, batch);
        case NEGCOS_SAMPLING_UNIFORM:
            return uniform(seed, step, round, batch, documents);
        case NEGCOS_SAMPLING_LOG_UNIFORM:
            return log_uniform(seed, step, round, batch, documents);
        default:
            return permutation(seed, step, round, batch, sampling == NEGCOS_SAMPLING_DERANGEMENT);
    }
}

// ---------------------------------------------------------------------------------------------------------------------

constexpr int32_t kDrawn[] = {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_CYCLIC,
                              NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_LOG_UNIFORM};

std::vector<int32_t> sample(negcos::Context& context, int32_t sampling, int64_t batch, int32_t rounds, uint64_t seed,
                            uint64_t step, int64_t documents = 0) {
    negcos::Options options;
    options.sampling = sampling;
    options.rounds = rounds;
    options.seed = seed;
    options.step = step;
    std::vector<int32_t> negatives(static_cast<size_t>(batch * rounds), -5);
    context.sample(options, batch, documents ? documents : batch, negatives);
    return negatives;
}

std::vector<int32_t> round_of(const std::vector<int32_t>& negatives, int32_t rounds, int32_t r) {
    std::vector<int32_t> result;
    for (size_t k = static_cast<size_t>(r); k < negatives.size(); k += static_cast<size_t>(rounds))
        result.push_back(negatives[k]);
    return result;
}

TEST_SUITE("unit") {
    TEST_CASE("sampling: Philox as its authors published it") {
        // Known answers of Random123's kat_vectors.
        CHECK(Philox{{0, 0}, {0, 0, 0, 0}}.words() ==
              std::vector<uint32_t>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
        const uint32_t f = 0xffffffff;
        CHECK(Philox{{f, f}, {f, f, f, f}}.words() ==
              std::vector<uint32_t>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
        CHECK(Philox{{0xa4093822, 0x299f31d0}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}.words() ==
              std::vector<uint32_t>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
    }

    TEST_CASE("sampling: the same draws as written again from the documentation") {
        for (const std::string& isa : isas("sampling: the same draws as written again from the documentation")) {
            negcos::Context context = harness::context(isa);
            for (const int32_t sampling : kDrawn)
                for (const int32_t n : {2, 3, 17, 64, 65, 1000})
                    for (const int32_t further : {0, 1, 900})  // documents
                        for (const uint64_t seed : {uint64_t{0}, uint64_t{0x123456789abcdef0}})
                            for (const uint64_t step : {uint64_t{0}, uint64_t{7}, uint64_t{1} << 40}) {
                                INFO(isa << " sampling " << sampling << " B " << n << " M " << n + further);
                                const int32_t rounds = 5;  // of CYCLIC two cycles and more, for the smallest
                                const auto negatives = sample(context, sampling, n, rounds, seed, step, n + further);
                                for (int32_t r = 0; r < rounds; ++r)
                                    CHECK(round_of(negatives, rounds, r) ==
                                          draw(sampling, seed, step, static_cast<uint32_t>(r), n, n + further));
                            }
        }
    }

    TEST_CASE("sampling: the same groups as written again from the documentation") {
        for (const std::string& isa : isas("sampling: the same groups as written again from the documentation")) {
            negcos::Context context = harness::context(isa);
            for (const int32_t n : {2, 3, 16, 17, 64, 65, 1000})
                for (const int32_t rounds : {1, 2, 5, 15, 16, 63, 64, 998, n - 1}) {
                    if (rounds >= n) continue;
                    for (const int32_t further : {0, 900})  // documents
                        for (const uint64_t seed : {uint64_t{0}, uint64_t{0x123456789abcdef0}})
                            for (const uint64_t step : {uint64_t{0}, uint64_t{1} << 40}) {
                                INFO(isa << " B " << n << " rounds " << rounds);
                                CHECK(sample(context, NEGCOS_SAMPLING_GROUPS, n, rounds, seed, step, n + further) ==
                                      groups(seed, step, rounds, n));
                            }
                }
        }
    }

    TEST_CASE("sampling: groups are drawn from all pairs alike, never hit the positive and share their queries") {
        negcos::Context context = harness::context("scalar");
        for (const int32_t threads : {2, 7}) {
            negcos::Context many = harness::context("scalar", threads, NEGCOS_THREADING_DEFAULT);
            CHECK(sample(many, NEGCOS_SAMPLING_GROUPS, 4099, 20, 3, 1) ==
                  sample(context, NEGCOS_SAMPLING_GROUPS, 4099, 20, 3, 1));
        }
        // 20,000 deals of 12 queries in groups of 4, and of 14, whose last window reaches back over two places: how
        // often each query has each other one, binomial, within five standard deviations.
        for (const int32_t n : {12, 14}) {
            std::vector<double> count(static_cast<size_t>(n * n), 0);
            const int32_t rounds = 3, steps = 20000;
            for (int32_t step = 0; step < steps; ++step) {
                const auto negatives =
                    sample(context, NEGCOS_SAMPLING_GROUPS, n, rounds, 5, static_cast<uint64_t>(step));
                for (int32_t i = 0; i < n; ++i) {
                    std::vector<int32_t> of(negatives.begin() + i * rounds, negatives.begin() + (i + 1) * rounds);
                    for (const int32_t j : of) ++count[static_cast<size_t>(i * n + j)];
                    std::sort(of.begin(), of.end());
                    REQUIRE(std::adjacent_find(of.begin(), of.end()) == of.end());
                }
            }
            const double share = static_cast<double>(rounds) / (n - 1), expected = steps * share;
            const double deviation = std::sqrt(steps * share * (1 - share));
            for (int32_t i = 0; i < n; ++i)
                for (int32_t j = 0; j < n; ++j) {
                    const double c = count[static_cast<size_t>(i * n + j)];
                    if (i == j)
                        CHECK(c == 0);
                    else
                        CHECK(std::abs(c - expected) < 5 * deviation);
                }
        }
    }

    TEST_CASE("sampling: among as many documents as there may be") {
        const int32_t most = std::numeric_limits<int32_t>::max();
        negcos::Context context = harness::context("scalar");
        for (const int32_t sampling : {NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_LOG_UNIFORM})
            for (const int32_t documents : {most, most - 1, 1 << 30, (1 << 30) - 1}) {
                const auto negatives = sample(context, sampling, 3000, 2, 3, 1, documents);
                for (int32_t r = 0; r < 2; ++r)
                    CHECK(round_of(negatives, 2, r) == draw(sampling, 3, 1, static_cast<uint32_t>(r), 3000, documents));
                CHECK(*std::max_element(negatives.begin(), negatives.end()) > documents / 2);
            }
    }

    TEST_CASE("sampling: permutations, without fixed points where promised, whatever the threads") {
        for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_CYCLIC})
            for (const int64_t batch : {2, 5, 33, 4096}) {
                negcos::Context one = harness::context("scalar");
                const auto negatives = sample(one, sampling, batch, 20, 3, 1);
                for (int32_t r = 0; r < 20; ++r) {
                    auto round = round_of(negatives, 20, r);
                    if (sampling != NEGCOS_SAMPLING_SHUFFLE)
                        for (size_t i = 0; i < round.size(); ++i) REQUIRE(round[i] != static_cast<int32_t>(i));
                    std::sort(round.begin(), round.end());
                    for (size_t i = 0; i < round.size(); ++i) REQUIRE(round[i] == static_cast<int32_t>(i));
                }
                CHECK(sample(one, sampling, batch, 20, 3, 1, batch + 9) == negatives);  // further documents: never hit
            }
    }

    TEST_CASE("sampling: the same whatever the threads, and the same first rounds whatever their number") {
        for (const int32_t sampling : kDrawn)
            for (const int64_t batch : {2, 5, 33, 4096}) {
                INFO("sampling " << sampling << " B " << batch);
                negcos::Context one = harness::context("scalar");
                const auto negatives = sample(one, sampling, batch, 20, 3, 1);
                for (const int32_t threads : {2, 7}) {
                    negcos::Context many = harness::context("scalar", threads, NEGCOS_THREADING_DEFAULT);
                    CHECK(sample(many, sampling, batch, 20, 3, 1) == negatives);
                }
                for (const int32_t rounds : {1, 4, 19}) {
                    const auto fewer = sample(one, sampling, batch, rounds, 3, 1);
                    for (int32_t r = 0; r < rounds; ++r)
                        CHECK(round_of(fewer, rounds, r) == round_of(negatives, 20, r));
                }
                if (batch > 5) {
                    CHECK(sample(one, sampling, batch, 20, 4, 1) != negatives);
                    CHECK(sample(one, sampling, batch, 20, 3, 2) != negatives);
                    CHECK(round_of(negatives, 20, 0) != round_of(negatives, 20, 1));
                }
            }
    }

    TEST_CASE("sampling: every permutation is equally likely") {
        // Chi-square over all 24 permutations of 4 and over all 9 derangements, 20,000 draws each from a fixed seed.
        // The 1 - 1e-6 quantile of chi-square is 72.1 with 23 degrees of freedom and 42.7 with 8.
        negcos::Context context = harness::context("scalar");
        const int32_t rounds = 20000;
        for (const bool derangement : {false, true}) {
            const auto negatives =
                sample(context, derangement ? NEGCOS_SAMPLING_DERANGEMENT : NEGCOS_SAMPLING_SHUFFLE, 4, rounds, 11, 0);
            std::map<std::vector<int32_t>, int> seen;
            for (int32_t r = 0; r < rounds; ++r) ++seen[round_of(negatives, rounds, r)];
            const size_t kinds = derangement ? 9 : 24;
            REQUIRE(seen.size() == kinds);
            const double expected = rounds / static_cast<double>(kinds);
            double chi = 0;
            for (const auto& [p, count] : seen) chi += (count - expected) * (count - expected) / expected;
            CHECK(chi < (derangement ? 42.7 : 72.1));
        }
    }

    TEST_CASE("sampling: every document is equally likely for every query") {
        // Positions of 50 over 4,000 rounds: 50 * 50 cells, 49 * 49 degrees of freedom: mean 2401, standard deviation
        // sqrt(2 * 2401) = 69.3; five of them either way.
        negcos::Context context = harness::context("scalar");
        const int64_t batch = 50;
        const int32_t rounds = 4000;
        const auto negatives = sample(context, NEGCOS_SAMPLING_SHUFFLE, batch, rounds, 5, 0);
        std::vector<double> count(2500, 0);
        for (int64_t i = 0; i < batch; ++i)
            for (int32_t r = 0; r < rounds; ++r)
                ++count[static_cast<size_t>(i * batch + negatives[static_cast<size_t>(i * rounds + r)])];
        double chi = 0;
        for (const double c : count) chi += (c - 80) * (c - 80) / 80;
        CHECK(chi > 2401 - 5 * 69.3);
        CHECK(chi < 2401 + 5 * 69.3);
    }

    TEST_CASE("sampling: the shifts of a cycle are all there are, in every order alike") {
        negcos::Context context = harness::context("scalar");
        for (const int32_t batch : {2, 3, 7, 100}) {
            const int32_t rounds = 3 * (batch - 1);
            const auto negatives = sample(context, NEGCOS_SAMPLING_CYCLIC, batch, rounds, 5, 2);
            std::vector<int32_t> first(negatives.begin(),
                                       negatives.begin() + rounds);  // query 0: the shifts themselves
            for (int32_t c = 0; c < 3; ++c) {
                const auto begin = first.begin() + c * (batch - 1), end = begin + (batch - 1);
                if (batch == 100) CHECK_FALSE(std::is_sorted(begin, end));
                std::sort(begin, end);
                for (int32_t t = 0; t < batch - 1; ++t) REQUIRE(begin[t] == 1 + t);
            }
        }
        // All 6 orders of 3 shifts over 20,000 cycles. The 1 - 1e-6 quantile of chi-square is 35.9 with 5 degrees of
        // freedom.
        const int32_t cycles = 20000;
        const auto negatives = sample(context, NEGCOS_SAMPLING_CYCLIC, 4, 3 * cycles, 11, 0);
        std::map<std::vector<int32_t>, int> seen;
        for (int32_t c = 0; c < cycles; ++c) ++seen[{negatives.begin() + 3 * c, negatives.begin() + 3 * (c + 1)}];
        REQUIRE(seen.size() == 6);
        double chi = 0;
        for (const auto& [order, count] : seen) chi += (count - cycles / 6.0) * (count - cycles / 6.0) / (cycles / 6.0);
        CHECK(chi < 35.9);
    }

    TEST_CASE("sampling: UNIFORM and LOG_UNIFORM have their probabilities, and never hit the positive") {
        // For each of 8 queries 40,000 draws from M documents: chi-square with 8 (M - 2) degrees of freedom, five
        // standard deviations either way. The sizes are one document beyond, at and below a power of two.
        negcos::Context context = harness::context("scalar");
        const int32_t batch = 8, rounds = 40000;
        for (const int32_t sampling : {NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_LOG_UNIFORM})
            for (const int32_t documents : {8, 9, 31, 32, 33, 50}) {
                const auto negatives = sample(context, sampling, batch, rounds, 7, 0, documents);
                double chi = 0;
                for (int32_t i = 0; i < batch; ++i) {
                    std::vector<double> count(static_cast<size_t>(documents), 0), weight;
                    for (int32_t r = 0; r < rounds; ++r)
                        ++count[static_cast<size_t>(negatives[static_cast<size_t>(int64_t{i} * rounds + r)])];
                    CHECK(count[static_cast<size_t>(i)] == 0);
                    for (int32_t j = 0; j < documents; ++j)
                        weight.push_back(j == i                                ? 0
                                         : sampling == NEGCOS_SAMPLING_UNIFORM ? 1
                                                                               : std::log((j + 2.0) / (j + 1.0)));
                    const double total = std::accumulate(weight.begin(), weight.end(), 0.0);
                    for (size_t j = 0; j < weight.size(); ++j)
                        if (const double expected = rounds * weight[j] / total; expected > 0)
                            chi += (count[j] - expected) * (count[j] - expected) / expected;
                }
                INFO("sampling " << sampling << " M " << documents << " chi-square " << chi);
                const double freedom = batch * (documents - 2.0), deviation = std::sqrt(2 * freedom);
                CHECK(chi > freedom - 5 * deviation);
                CHECK(chi < freedom + 5 * deviation);
            }
    }

    TEST_CASE("sampling: two documents leave no choice") {
        negcos::Context context = harness::context("scalar");
        for (const int32_t sampling : {NEGCOS_SAMPLING_CYCLIC, NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_LOG_UNIFORM})
            CHECK(sample(context, sampling, 2, 3, 1, 1) == std::vector<int32_t>{1, 1, 1, 0, 0, 0});
        for (const int32_t sampling : {NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_LOG_UNIFORM})
            CHECK(sample(context, sampling, 1, 3, 1, 1, 2) == std::vector<int32_t>{1, 1, 1});
    }

    TEST_CASE("sampling: the negatives of an evaluation are those of negcos_sample") {
        negcos::Context context = harness::context("scalar");
        for (int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_CYCLIC,
                                 NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_LOG_UNIFORM, NEGCOS_SAMPLING_GROUPS}) {
            Problem<float> p(37, 41, 5, 2);
            p.options.sampling = sampling;
            p.options.rounds = 6;
            p.options.seed = 9;
            p.options.step = 3;
            CHECK(run(context, p).negatives == sample(context, sampling, 37, 6, 9, 3, 41));
            p.options.objective = NEGCOS_OBJECTIVE_BATCH_SOFTMAX;
            CHECK(run(context, p).negatives == sample(context, sampling, 37, 6, 9, 3, 41));
        }
    }
}

}  // namespace
