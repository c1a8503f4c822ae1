// SPDX-License-Identifier: Apache-2.0
//
// Problems with random inputs, run through the C ABI with any stride, offset, instruction set and back end, and
// compared with the oracle. Gaps between rows and memory around outputs are filled with canaries and checked.
#ifndef NEGCOS_TESTS_HARNESS_HPP
#define NEGCOS_TESTS_HARNESS_HPP

#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "negcos/negcos.hpp"
#include "oracle.hpp"

namespace harness {

// The same numbers on every machine: std's distributions are not specified.
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 1) {}
    uint64_t next() {
        state_ += 0x9E3779B97F4A7C15u;  // splitmix64
        uint64_t z = state_;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }
    double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
    int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
    double normal() {  // the sum of twelve uniforms: close enough, and the same everywhere
        double sum = -6;
        for (int k = 0; k < 12; ++k) sum += uniform();
        return sum;
    }

private:
    uint64_t state_;
};

// The instruction sets built in that this machine can run; says which it cannot.
inline std::vector<std::string> isas(const char* test) {
    std::vector<std::string> names;
    for (int32_t k = 0; k < negcos_isa_count(); ++k) {
        const char* name = negcos_isa_name(k);
        if (negcos_isa_available(name))
            names.emplace_back(name);
        else
            std::printf("SKIP: %s on %s: this machine cannot run it\n", test, name);
    }
    return names;
}

inline negcos::Context context(const std::string& isa, int32_t threads = 1,
                               int32_t threading = NEGCOS_THREADING_SERIAL) {
    negcos::ContextOptions options;
    options.isa = isa.c_str();
    options.threads = threads;
    options.threading = threading;
    negcos::Context result(options);
    REQUIRE(std::string(result.isa()) == isa);  // the one that was asked for is the one that runs
    return result;
}

template <class T>
struct Problem {
    int64_t batch = 0, count = 0, dim = 0;
    std::vector<T> queries, documents;
    std::vector<int32_t> given;  // for GIVEN
    negcos::Options options;

    // Documents lean towards their queries, so that losses are neither 0 nor all alike.
    Problem(int64_t b, int64_t m, int64_t d, uint64_t seed = 1) : batch(b), count(m), dim(d) {
        Random random(seed);
        queries.resize(static_cast<size_t>(b * d));
        documents.resize(static_cast<size_t>(m * d));
        for (auto& x : queries) x = static_cast<T>(random.normal());
        for (size_t k = 0; k < documents.size(); ++k)
            documents[k] =
                static_cast<T>(random.normal() + (k < queries.size() ? 0.4 * static_cast<double>(queries[k]) : 0.0));
    }

    void give(int32_t rounds, uint64_t seed, bool with_absent) {
        Random random(seed);
        options.sampling = NEGCOS_SAMPLING_GIVEN;
        options.rounds = rounds;
        given.resize(static_cast<size_t>(batch * rounds));
        for (auto& j : given) j = with_absent && random.below(4) == 0 ? -1 : static_cast<int32_t>(random.below(count));
    }

    int64_t rounds() const { return options.sampling == NEGCOS_SAMPLING_ALL ? 0 : options.rounds; }
};

// A matrix inside a larger block of canaries: `offset` elements past a 64-byte border, `gap` between rows.
template <class T>
class Framed {
public:
    Framed(int64_t rows, int64_t cols, int64_t offset, int64_t gap)
        : rows_(rows), cols_(cols), stride_(cols + gap), block_(static_cast<size_t>(rows * (cols + gap) + 96)) {
        for (size_t k = 0; k < block_.size(); ++k) block_[k] = canary(k);
        const auto address = reinterpret_cast<uintptr_t>(block_.data());
        start_ = static_cast<size_t>((64 - address % 64) % 64 / sizeof(T)) + static_cast<size_t>(offset) + 16;
    }
    void fill(const std::vector<T>& values) {
        for (int64_t i = 0; i < rows_; ++i)
            for (int64_t c = 0; c < cols_; ++c) block_[at(i, c)] = values[static_cast<size_t>(i * cols_ + c)];
    }
    std::vector<T> values() const {
        std::vector<T> result;
        for (int64_t i = 0; i < rows_; ++i)
            for (int64_t c = 0; c < cols_; ++c) result.push_back(block_[at(i, c)]);
        return result;
    }
    bool intact() const {  // nothing outside the rows was written
        std::vector<bool> inside(block_.size(), false);
        for (int64_t i = 0; i < rows_; ++i)
            for (int64_t c = 0; c < cols_; ++c) inside[at(i, c)] = true;
        for (size_t k = 0; k < block_.size(); ++k) {
            const T expected = canary(k);
            if (!inside[k] && std::memcmp(&block_[k], &expected, sizeof(T)) != 0) return false;
        }
        return true;
    }
    negcos_const_matrix input() const {
        return {block_.data() + start_, rows_, cols_, stride_, negcos::dtype_of<T>, 0};
    }
    negcos_matrix output() { return {block_.data() + start_, rows_, cols_, stride_, negcos::dtype_of<T>, 0}; }

private:
    size_t at(int64_t i, int64_t c) const { return start_ + static_cast<size_t>(i * stride_ + c); }
    // NaN in the gaps of inputs shows in every result that reads them.
    static T canary(size_t k) { return k % 2 ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(1e4); }

    int64_t rows_, cols_, stride_;
    std::vector<T> block_;
    size_t start_ = 0;
};

struct Layout {
    int64_t offset = 0, gap = 0;
    bool gradients = true;
};

template <class T>
struct Outputs {
    negcos::Result numbers;
    std::vector<T> losses, hit_probability, logits, grad_queries, grad_documents;
    std::vector<int32_t> negatives;

    // Every byte of every output.
    std::string bytes() const {
        std::string all;
        const auto append = [&all](const void* data, size_t size) { all.append(static_cast<const char*>(data), size); };
        const double scalars[] = {numbers.loss, numbers.grad_scale, numbers.accuracy, numbers.mean_reciprocal_rank};
        append(scalars, sizeof scalars);
        append(&numbers.zero_rows, sizeof numbers.zero_rows);
        for (const auto* v : {&losses, &hit_probability, &logits, &grad_queries, &grad_documents})
            append(v->data(), v->size() * sizeof(T));
        append(negatives.data(), negatives.size() * sizeof(int32_t));
        return all;
    }
};

template <class T>
Outputs<T> run(negcos::Context& context, const Problem<T>& p, const Layout& layout = {}) {
    const bool all = p.options.sampling == NEGCOS_SAMPLING_ALL;
    Framed<T> queries(p.batch, p.dim, layout.offset, layout.gap), documents(p.count, p.dim, layout.offset, layout.gap);
    queries.fill(p.queries);
    documents.fill(p.documents);
    Framed<T> losses(p.batch, 1, layout.offset, layout.gap), hits(p.batch, 1, layout.offset, layout.gap),
        logits(p.batch, 1 + p.rounds(), layout.offset, layout.gap),
        grad_queries(p.batch, p.dim, layout.offset, layout.gap),
        grad_documents(p.count, p.dim, layout.offset, layout.gap);
    Outputs<T> out;
    out.negatives.assign(static_cast<size_t>(p.batch * p.rounds()), -7);

    negcos::Batch batch(queries.input(), documents.input());
    if (!p.given.empty()) batch.negatives = p.given.data();
    out.numbers.losses = losses.output();
    out.numbers.hit_probability = hits.output();
    if (!all) out.numbers.logits = logits.output();
    if (!all && !out.negatives.empty()) out.numbers.negatives = out.negatives.data();
    if (layout.gradients) {
        out.numbers.grad_queries = grad_queries.output();
        out.numbers.grad_documents = grad_documents.output();
    }
    context.evaluate(p.options, batch, out.numbers);

    for (const auto* framed : {&queries, &documents, &losses, &hits, &logits, &grad_queries, &grad_documents})
        REQUIRE(framed->intact());
    out.losses = losses.values();
    out.hit_probability = hits.values();
    if (!all) out.logits = logits.values();
    if (layout.gradients) {
        out.grad_queries = grad_queries.values();
        out.grad_documents = grad_documents.values();
    }
    return out;
}

// The largest distance between two arrays.
template <class T, class W>
double distance(const std::vector<T>& got, const std::vector<W>& expected) {
    REQUIRE(got.size() == expected.size());
    double worst = 0;
    for (size_t k = 0; k < got.size(); ++k) {
        const W g = static_cast<W>(got[k]), e = expected[k];
        if (g == e) continue;  // also both infinite
        const double d = static_cast<double>(std::abs(g - e));
        worst = d >= worst ? d : std::isnan(d) ? std::numeric_limits<double>::infinity() : worst;
    }
    return worst;
}

template <class W>
double magnitude(const std::vector<W>& values) {
    double most = 0;
    for (const W v : values)
        if (std::isfinite(v)) most = std::max(most, static_cast<double>(std::abs(v)));
    return most;
}

/*
 * Tolerances. A similarity is a dot product of two rows over their norms: with blocked sums its error is a few eps
 * (sqrt(d)/4 + 4 of them is generous for the sizes here), relative to |q||d|, so to 1 for cosines. Logits multiply it
 * by scale/temperature, and a loss moves by at most twice as much as its logits. A gradient is a sum of weights of
 * total at most 2 times unit rows, times scale/temperature over the row's norm; the error of its weights is that of the
 * logits. Everything is given a factor of 4 on top.
 */
template <class T>
void check_against_oracle(const Problem<T>& p, const Outputs<T>& got, bool gradients = true) {
    const auto expected =
        oracle::evaluate<T>(p.options, p.queries, p.documents, p.batch, p.count, p.dim, got.negatives);
    const double eps = std::numeric_limits<T>::epsilon();
    const double factor = std::abs(p.options.scale / p.options.temperature);
    double unit = 1;  // what similarities are relative to
    if (p.options.similarity == NEGCOS_SIMILARITY_DOT)
        unit = static_cast<double>(p.dim) * magnitude(p.queries) * magnitude(p.documents);
    const double similarity = 4 * eps * (std::sqrt(static_cast<double>(p.dim)) / 4 + 4) * std::max(unit, 1e-30);
    const double logit = similarity * std::max(factor, 1e-30) + 8 * eps;
    const double rows =
        p.options.reduction == NEGCOS_REDUCTION_SUM ? static_cast<double>(std::max<int64_t>(p.batch, 1)) : 1;

    CHECK(distance(got.losses, expected.losses) <= 2 * logit + 4 * eps * magnitude(expected.losses));
    CHECK(distance(got.hit_probability, expected.hit_probability) <= 2 * logit + 4 * eps);
    if (!got.logits.empty())
        CHECK(distance(got.logits, expected.logits) <= logit + 4 * eps * magnitude(expected.logits));
    CHECK(std::abs(got.numbers.loss - static_cast<double>(expected.loss)) <=
          rows * (2 * logit + 4 * eps * magnitude(expected.losses)));
    CHECK(std::abs(got.numbers.grad_scale - static_cast<double>(expected.grad_scale)) <=
          rows * (4 * logit * unit + 4 * similarity) / p.options.temperature);
    CHECK(got.numbers.zero_rows == expected.zero_rows);
    CHECK(got.numbers.excluded == 0);
    CHECK(got.numbers.grad_bias == 0);
    if (p.options.objective == NEGCOS_OBJECTIVE_BATCH_SOFTMAX || p.batch == 0) {
        CHECK(std::isnan(got.numbers.accuracy));
        CHECK(std::isnan(got.numbers.mean_reciprocal_rank));
    } else if (p.dim != 1) {
        // Ranks are exact unless two logits are closer than rounding. In one dimension every cosine is 1 or -1, so they
        // are; no other of these problems has such a pair by chance.
        CHECK(got.numbers.accuracy == doctest::Approx(static_cast<double>(expected.accuracy)).epsilon(1e-12));
        CHECK(got.numbers.mean_reciprocal_rank ==
              doctest::Approx(static_cast<double>(expected.mean_reciprocal_rank)).epsilon(1e-12));
    }
    if (!gradients) return;
    // What cancels in a gradient is of the size of one weighted row over the row's own norm.
    double shortest = 1;
    if (p.options.similarity == NEGCOS_SIMILARITY_COSINE) {
        shortest = std::numeric_limits<double>::infinity();
        for (const auto* m : {&p.queries, &p.documents})
            for (size_t i = 0; p.dim > 0 && i * static_cast<size_t>(p.dim) < m->size(); ++i) {
                double sum = 0;
                for (size_t c = 0; c < static_cast<size_t>(p.dim); ++c)
                    sum += std::pow(static_cast<double>((*m)[i * static_cast<size_t>(p.dim) + c]), 2);
                if (sum > 0) shortest = std::min(shortest, std::max(std::sqrt(sum), p.options.norm_floor));
            }
    }
    const double cancelled = 64 * eps * 2 * factor * std::max(unit, 1.0) / shortest;
    const double relative = 8 * logit + 16 * eps;
    CHECK(distance(got.grad_queries, expected.grad_queries) <= relative * magnitude(expected.grad_queries) + cancelled);
    CHECK(distance(got.grad_documents, expected.grad_documents) <=
          relative * magnitude(expected.grad_documents) + cancelled);
}

}  // namespace harness

#endif
