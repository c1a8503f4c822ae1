// SPDX-License-Identifier: Apache-2.0
//
// Problems with random inputs, run through the C ABI with any stride, offset, instruction set and back end, and
// compared with the oracle. Gaps between rows and memory around outputs are filled with canaries and checked.
#ifndef NEGCOS_TESTS_HARNESS_HPP
#define NEGCOS_TESTS_HARNESS_HPP

#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <utility>
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

// NEGCOS_TEST_STEP: every how many of a long list of cases, where all would take an emulated machine too long.
inline uint64_t test_step() {
    const char* text = std::getenv("NEGCOS_TEST_STEP");
    return text ? std::strtoull(text, nullptr, 10) : 1;
}

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
    int64_t batch = 0, count = 0, dim = 0, hard_per_query = 0;
    std::vector<T> queries, documents, hard;
    std::vector<int32_t> given;  // for GIVEN
    std::vector<int64_t> positives, document_ids, query_ids;
    std::vector<double> log_probability, weights;
    std::vector<int32_t> prefix_dims;
    std::vector<double> prefix_weights;
    negcos::Options options;  // prefixes: only in options_of()

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

    void harden(int64_t per_query, uint64_t seed) {
        Random random(seed);
        hard_per_query = per_query;
        hard.resize(static_cast<size_t>(batch * per_query * dim));
        for (size_t k = 0; k < hard.size(); ++k) {
            const size_t c = k % static_cast<size_t>(dim), i = k / static_cast<size_t>(dim * per_query);
            hard[k] =
                static_cast<T>(random.normal() + 0.3 * static_cast<double>(queries[i * static_cast<size_t>(dim) + c]));
        }
    }

    int64_t rounds() const { return options.sampling == NEGCOS_SAMPLING_ALL ? 0 : options.rounds; }
    int64_t last_dim() const { return prefix_dims.empty() ? dim : prefix_dims.back(); }
    negcos::Options options_of() const {
        negcos::Options result = options;
        result.prefix_count = static_cast<int32_t>(prefix_dims.size());
        if (!prefix_dims.empty()) result.prefix_dims = prefix_dims.data();
        if (!prefix_weights.empty()) result.prefix_weights = prefix_weights.data();
        return result;
    }
    oracle::Inputs<T> inputs(const std::vector<int32_t>& negatives) const {
        return {batch,     count,     dim,          hard_per_query, queries,         documents, hard,
                negatives, positives, document_ids, query_ids,      log_probability, weights};
    }
    // All but the matrices.
    void fill(negcos::Batch& to) const {
        const auto data = [](const auto& v) { return v.empty() ? nullptr : v.data(); };
        to.negatives = data(given);
        to.positives = data(positives);
        to.document_ids = data(document_ids);
        to.query_ids = data(query_ids);
        to.log_probability = data(log_probability);
        to.weights = data(weights);
    }
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
    std::vector<T> losses, hit_probability, logits, grad_queries, grad_documents, grad_hard_negatives;
    std::vector<int32_t> negatives;

    // Every byte of every output; excluded and grad_bias where they are not 0.
    std::string bytes() const {
        std::string all;
        const auto append = [&all](const void* data, size_t size) { all.append(static_cast<const char*>(data), size); };
        const double scalars[] = {numbers.loss, numbers.grad_scale, numbers.accuracy, numbers.mean_reciprocal_rank};
        append(scalars, sizeof scalars);
        append(&numbers.zero_rows, sizeof numbers.zero_rows);
        for (const auto* v : {&losses, &hit_probability, &logits, &grad_queries, &grad_documents, &grad_hard_negatives})
            append(v->data(), v->size() * sizeof(T));
        append(negatives.data(), negatives.size() * sizeof(int32_t));
        if (numbers.excluded != 0) append(&numbers.excluded, sizeof numbers.excluded);
        if (numbers.grad_bias != 0) append(&numbers.grad_bias, sizeof numbers.grad_bias);
        return all;
    }
};

template <class T>
Outputs<T> run(negcos::Context& context, const Problem<T>& p, const Layout& layout = {}) {
    const bool all = p.options.sampling == NEGCOS_SAMPLING_ALL, hardened = !p.hard.empty();
    const int64_t hard_rows = p.batch * p.hard_per_query;
    const auto framed = [&](int64_t rows, int64_t cols) { return Framed<T>(rows, cols, layout.offset, layout.gap); };
    Framed<T> queries = framed(p.batch, p.dim), documents = framed(p.count, p.dim), hard = framed(hard_rows, p.dim);
    queries.fill(p.queries);
    documents.fill(p.documents);
    hard.fill(p.hard);
    Framed<T> losses = framed(p.batch, 1), hits = framed(p.batch, 1),
              logits = framed(p.batch, 1 + p.rounds() + p.hard_per_query), grad_queries = framed(p.batch, p.dim),
              grad_documents = framed(p.count, p.dim), grad_hard = framed(hard_rows, p.dim);
    Outputs<T> out;
    out.negatives.assign(static_cast<size_t>(p.batch * p.rounds()), -7);

    negcos::Batch batch(queries.input(), documents.input());
    if (hardened) batch.hard_negatives = hard.input();
    p.fill(batch);
    out.numbers.losses = losses.output();
    out.numbers.hit_probability = hits.output();
    if (!all) out.numbers.logits = logits.output();
    if (!all && !out.negatives.empty()) out.numbers.negatives = out.negatives.data();
    if (layout.gradients) {
        out.numbers.grad_queries = grad_queries.output();
        out.numbers.grad_documents = grad_documents.output();
        if (hardened) out.numbers.grad_hard_negatives = grad_hard.output();
    }
    context.evaluate(p.options_of(), batch, out.numbers);

    for (const auto* each :
         {&queries, &documents, &hard, &losses, &hits, &logits, &grad_queries, &grad_documents, &grad_hard})
        REQUIRE(each->intact());
    out.losses = losses.values();
    out.hit_probability = hits.values();
    if (!all) out.logits = logits.values();
    if (layout.gradients) {
        out.grad_queries = grad_queries.values();
        out.grad_documents = grad_documents.values();
        if (hardened) out.grad_hard_negatives = grad_hard.values();
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

// The longest and the shortest length of a row; 0 is no length.
template <class T>
std::pair<double, double> lengths(const std::vector<T>& rows, int64_t dim) {
    double longest = 0, shortest = std::numeric_limits<double>::infinity();
    for (size_t i = 0; dim > 0 && i < rows.size() / static_cast<size_t>(dim); ++i) {
        double sum = 0;
        for (size_t c = 0; c < static_cast<size_t>(dim); ++c)
            sum += std::pow(static_cast<double>(rows[i * static_cast<size_t>(dim) + c]), 2);
        if (std::isfinite(sum)) longest = std::max(longest, std::sqrt(sum));
        if (sum > 0) shortest = std::min(shortest, std::sqrt(sum));
    }
    return {longest, shortest};
}

/*
 * Tolerances. A similarity is a dot product of two rows over their norms: with blocked sums its error is a few eps
 * (sqrt(d)/4 + 4 of them is generous for the sizes here), relative to |q||d|, so to 1 for cosines. Logits multiply it
 * by scale/temperature, and a loss moves by that times what its slopes add up to. A gradient is a sum of weights times
 * unit rows, times scale/temperature over the row's norm, each element relative to the sum of its terms' absolute
 * values; the error of its weights is that of the logits. Everything is given a factor of 4 on top.
 */
template <class T>
struct Tolerance {
    double similarity, logit, terms, tiny;

    explicit Tolerance(const Problem<T>& p) {
        const double eps = std::numeric_limits<T>::epsilon();
        const double factor = std::abs(p.options.scale / oracle::temperature_of(p.options));
        double unit = 1, shortest = 1;
        const auto of_queries = lengths(p.queries, p.dim), of_documents = lengths(p.documents, p.dim),
                   of_hard = lengths(p.hard, p.dim);
        if (p.options.similarity == NEGCOS_SIMILARITY_DOT)
            unit = of_queries.first * std::max(of_documents.first, of_hard.first);
        else
            shortest =
                std::max(std::min({of_queries.second, of_documents.second, of_hard.second}), p.options.norm_floor);
        similarity = 4 * eps * (std::sqrt(static_cast<double>(p.dim)) / 4 + 4) * std::max(unit, 1e-30);
        logit = similarity * std::max(factor + std::abs(p.options.hardness), 1e-30) +
                4 * eps * (2 + factor * std::abs(p.options.margin) + magnitude(p.log_probability));
        terms = 8 * logit + 64 * eps;
        tiny = 64 * static_cast<double>(std::numeric_limits<T>::min()) * (1 + factor * unit / shortest);
    }
};

// Each element within `relative` of its terms.
template <class T, class W>
bool within(const std::vector<T>& got, const std::vector<W>& expected, const std::vector<double>& terms,
            double relative, double tiny) {
    REQUIRE(got.size() == expected.size());
    for (size_t k = 0; k < got.size(); ++k) {
        const double error = static_cast<double>(std::abs(static_cast<W>(got[k]) - expected[k]));
        if (!(error <= relative * terms[k] + tiny)) return false;
    }
    return true;
}

template <class T, class W>
void check_against_oracle(const Problem<T>& p, const Outputs<T>& got, const oracle::Result<W>& expected,
                          bool gradients = true, bool ranks = true) {
    const double eps = std::numeric_limits<T>::epsilon();
    const Tolerance<T> tolerance(p);
    const double logit = tolerance.logit;
    const double loss = std::max(2.0, expected.loss_terms) * logit + 4 * eps * magnitude(expected.losses);
    double of_all = 1;  // losses that the total is a sum of
    if (p.options.reduction == NEGCOS_REDUCTION_SUM)
        of_all = std::max(1.0, p.weights.empty() ? static_cast<double>(p.batch)
                                                 : std::accumulate(p.weights.begin(), p.weights.end(), 0.0));

    CHECK(distance(got.losses, expected.losses) <= loss);
    std::vector<double> hits;  // of DECOUPLED they may be beyond the type, and stay at its largest number
    for (const W hit : expected.hit_probability)
        hits.push_back(static_cast<double>(std::min(hit, static_cast<W>(std::numeric_limits<T>::max()))));
    CHECK(within(got.hit_probability, hits, hits, std::expm1(loss) + 8 * eps, tolerance.tiny));
    if (!got.logits.empty())
        CHECK(distance(got.logits, expected.logits) <= logit + 4 * eps * magnitude(expected.logits));
    CHECK(std::abs(got.numbers.loss - static_cast<double>(expected.loss)) <= of_all * loss);
    CHECK(std::abs(got.numbers.grad_scale - static_cast<double>(expected.grad_scale)) <=
          tolerance.terms * expected.scale_terms + 4 * of_all * tolerance.similarity *
                                                       std::max(2.0, expected.loss_terms) /
                                                       oracle::temperature_of(p.options));
    CHECK(std::abs(got.numbers.grad_bias - static_cast<double>(expected.grad_bias)) <=
          tolerance.terms * expected.bias_terms);
    CHECK(got.numbers.zero_rows == expected.zero_rows);
    // What is dropped, and ranks, are exact unless two numbers are closer than rounding: then this problem does not
    // tell, and is to be changed.
    if (std::isfinite(p.options.false_negative_margin))
        REQUIRE(static_cast<double>(expected.drop_clearance) > tolerance.similarity);
    CHECK(got.numbers.excluded == expected.excluded);
    if (p.options.objective == NEGCOS_OBJECTIVE_BATCH_SOFTMAX || p.batch == 0) {
        CHECK(std::isnan(got.numbers.accuracy));
        CHECK(std::isnan(got.numbers.mean_reciprocal_rank));
    } else if (ranks && p.last_dim() != 1) {
        // In one dimension every cosine is 1 or -1; no other of these problems has such a pair by chance.
        CHECK(got.numbers.accuracy == doctest::Approx(static_cast<double>(expected.accuracy)).epsilon(1e-12));
        CHECK(got.numbers.mean_reciprocal_rank ==
              doctest::Approx(static_cast<double>(expected.mean_reciprocal_rank)).epsilon(1e-12));
    }
    if (!gradients) return;
    CHECK(within(got.grad_queries, expected.grad_queries, expected.query_terms, tolerance.terms, tolerance.tiny));
    CHECK(
        within(got.grad_documents, expected.grad_documents, expected.document_terms, tolerance.terms, tolerance.tiny));
    CHECK(within(got.grad_hard_negatives, expected.grad_hard, expected.hard_terms, tolerance.terms, tolerance.tiny));
}

template <class T>
void check_against_oracle(const Problem<T>& p, const Outputs<T>& got, bool gradients = true) {
    check_against_oracle(p, got, oracle::evaluate<T>(p.options_of(), p.inputs(got.negatives)), gradients);
}

}  // namespace harness

#endif
