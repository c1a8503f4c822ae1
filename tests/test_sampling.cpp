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

// ---------------------------------------------------------------------------------------------------------------------

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
            for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT})
                for (const int32_t n : {2, 3, 17, 64, 65, 1000})
                    for (const uint64_t seed : {uint64_t{0}, uint64_t{0x123456789abcdef0}})
                        for (const uint64_t step : {uint64_t{0}, uint64_t{7}, uint64_t{1} << 40}) {
                            const auto negatives = sample(context, sampling, n, 3, seed, step);
                            for (int32_t r = 0; r < 3; ++r)
                                CHECK(round_of(negatives, 3, r) ==
                                      permutation(seed, step, static_cast<uint32_t>(r), n,
                                                  sampling == NEGCOS_SAMPLING_DERANGEMENT));
                        }
        }
    }

    TEST_CASE("sampling: permutations, without fixed points where promised, whatever the threads") {
        for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT})
            for (const int64_t batch : {2, 5, 33, 4096}) {
                negcos::Context one = harness::context("scalar");
                const auto negatives = sample(one, sampling, batch, 20, 3, 1);
                for (int32_t r = 0; r < 20; ++r) {
                    auto round = round_of(negatives, 20, r);
                    if (sampling == NEGCOS_SAMPLING_DERANGEMENT)
                        for (size_t i = 0; i < round.size(); ++i) REQUIRE(round[i] != static_cast<int32_t>(i));
                    std::sort(round.begin(), round.end());
                    for (size_t i = 0; i < round.size(); ++i) REQUIRE(round[i] == static_cast<int32_t>(i));
                }
                for (const int32_t threads : {2, 7}) {
                    negcos::Context many = harness::context("scalar", threads, NEGCOS_THREADING_DEFAULT);
                    CHECK(sample(many, sampling, batch, 20, 3, 1) == negatives);
                }
                CHECK(sample(one, sampling, batch, 20, 3, 1, batch + 9) == negatives);  // further documents: never hit
                // A call with fewer rounds draws the first ones.
                const auto fewer = sample(one, sampling, batch, 4, 3, 1);
                for (int32_t r = 0; r < 4; ++r) CHECK(round_of(fewer, 4, r) == round_of(negatives, 20, r));
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

    TEST_CASE("sampling: the negatives of an evaluation are those of negcos_sample") {
        negcos::Context context = harness::context("scalar");
        for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT}) {
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
