// SPDX-License-Identifier: Apache-2.0
//
// Problems of the whole loss family: any set of features that go together, on any sampling and shape; run on every
// instruction set and compared with the oracle.
#ifndef NEGCOS_TESTS_VARIANTS_HPP
#define NEGCOS_TESTS_VARIANTS_HPP

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "harness.hpp"

namespace variants {

using harness::Problem;
using harness::Random;

// What a call may have beyond the plain loss.
enum Feature {
    sigmoid,
    decoupled,
    batch_softmax,
    dot,
    sum,
    positives,
    hard,
    weights,
    same_document,
    same_query,
    false_negative_margin,
    margin,
    hardness,
    log_probability,
    negatives_only,
    label_smoothing,
    bias,
    both,
    prefixes,
    norm_floor,
    zero_rows,
    kFeatures
};
using Features = uint32_t;  // bits

inline constexpr const char* kNames[kFeatures] = {"sigmoid",
                                                  "decoupled",
                                                  "batch_softmax",
                                                  "dot",
                                                  "sum",
                                                  "positives",
                                                  "hard",
                                                  "weights",
                                                  "same_document",
                                                  "same_query",
                                                  "false_negative_margin",
                                                  "margin",
                                                  "hardness",
                                                  "log_probability",
                                                  "negatives_only",
                                                  "label_smoothing",
                                                  "bias",
                                                  "both",
                                                  "prefixes",
                                                  "norm_floor",
                                                  "zero_rows"};

inline constexpr int32_t kSamplings[] = {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_CYCLIC,
                                         NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_LOG_UNIFORM, NEGCOS_SAMPLING_GIVEN,
                                         NEGCOS_SAMPLING_ALL};
// GROUPS has sets of its own, after those of these, which then stay as they are.

inline bool has(Features features, Feature f) {
    return (features >> f & 1) != 0;
}
inline Features with(Features features, Feature f) {
    return features | Features{1} << f;
}
inline std::string names_of(Features features) {
    std::string names;
    for (int f = 0; f < kFeatures; ++f)
        if (has(features, static_cast<Feature>(f))) {
            if (!names.empty()) names += '+';
            names += kNames[f];
        }
    return names.empty() ? "plain" : names;
}

// Whether the two can be had in one call; what is left out here is tested to be UNSUPPORTED.
inline bool together(Feature a, Feature b) {
    static constexpr std::pair<Feature, Feature> kApart[] = {
        {sigmoid, decoupled},
        {sigmoid, batch_softmax},
        {decoupled, batch_softmax},
        {batch_softmax, same_document},
        {batch_softmax, same_query},
        {batch_softmax, false_negative_margin},
        {batch_softmax, margin},
        {batch_softmax, hardness},
        {batch_softmax, label_smoothing},
        {batch_softmax, log_probability},
        {batch_softmax, negatives_only},
        {batch_softmax, hard},
        {batch_softmax, both},
        {batch_softmax, prefixes},
        {batch_softmax, bias},
        {decoupled, label_smoothing},
        {decoupled, bias},
        {sigmoid, label_smoothing},
        {both, sigmoid},
        {both, bias},
        {both, log_probability},
        {both, negatives_only},
        {both, positives},
    };
    return std::none_of(std::begin(kApart), std::end(kApart),
                        [=](const auto& apart) { return apart == std::pair(a, b) || apart == std::pair(b, a); });
}

// f and what it needs, if that goes with what is there; else what is there.
inline Features add(Features features, Feature f) {
    Features more = with(features, f);
    if (f == bias) more = with(more, sigmoid);
    if (f == negatives_only) more = with(more, log_probability);
    for (int a = 0; a < kFeatures; ++a)
        for (int b = 0; b < a; ++b)
            if (has(more, static_cast<Feature>(a)) && has(more, static_cast<Feature>(b)) &&
                !together(static_cast<Feature>(a), static_cast<Feature>(b)))
                return features;
    return more;
}

// Those of `least`, and others at random.
inline Features draw_features(Features least, Random& random) {
    Features features = least;
    for (int f = 0; f < kFeatures; ++f) {  // each order is as good as another
        const Feature drawn = static_cast<Feature>(random.below(kFeatures));
        if (random.below(3) == 0) features = add(features, drawn);
    }
    return features;
}

struct Shape {
    int64_t batch, count, dim;
    int32_t rounds;
    int64_t hard;
};

// Below, at and above register widths; few rounds for the gather, many for tiles.
inline constexpr Shape kShapes[] = {{1, 1, 1, 1, 1},    {2, 3, 3, 2, 2},     {5, 7, 7, 9, 1},    {8, 9, 9, 3, 3},
                                    {9, 9, 15, 1, 1},   {15, 16, 16, 20, 2}, {17, 19, 31, 3, 1}, {16, 24, 33, 30, 5},
                                    {33, 40, 17, 2, 1}, {31, 31, 64, 40, 2}, {20, 50, 65, 4, 1}, {6, 70, 100, 60, 3}};

// visit(features, sampling, shape, number): each feature alone, each pair among random others, and random sets; every
// `step`th of them.
template <class Visit>
void each_set(Visit&& visit, uint64_t step = harness::test_step(), uint64_t seed = 11) {
    Random random(seed);
    uint64_t number = 0;
    const auto one = [&](Features features, int32_t sampling) {
        if (++number % step != 0) return;
        visit(features, sampling, kShapes[number % std::size(kShapes)], number);
    };
    for (int f = 0; f < kFeatures; ++f)
        for (const int32_t sampling : kSamplings) one(add(0, static_cast<Feature>(f)), sampling);
    for (int a = 0; a < kFeatures; ++a)
        for (int b = 0; b < a; ++b) {
            const Features pair = add(add(0, static_cast<Feature>(a)), static_cast<Feature>(b));
            if (!has(pair, static_cast<Feature>(b))) continue;
            const Features features = draw_features(pair, random);
            one(features, kSamplings[number % std::size(kSamplings)]);
            one(features, NEGCOS_SAMPLING_ALL);
        }
    for (int k = 0; k < 100; ++k) {
        const int32_t sampling = kSamplings[random.below(std::size(kSamplings))];
        one(draw_features(0, random), sampling);
    }
    for (size_t k = 0; k < std::size(kShapes); ++k) one(0, NEGCOS_SAMPLING_GROUPS);
    for (int f = 0; f < kFeatures; ++f) one(add(0, static_cast<Feature>(f)), NEGCOS_SAMPLING_GROUPS);
    for (int k = 0; k < 40; ++k) one(draw_features(0, random), NEGCOS_SAMPLING_GROUPS);
}

// BOTH has ALL and M = B; positives may leave M below B; samplings that need two rows have them.
template <class T>
Problem<T> make(Shape shape, Features features, int32_t sampling, uint64_t seed) {
    Random random(seed + 77);
    const auto one_of = [&](std::initializer_list<double> values) {
        return values.begin()[random.below(static_cast<int64_t>(values.size()))];
    };
    if (has(features, both)) sampling = NEGCOS_SAMPLING_ALL, shape.count = shape.batch;
    if (has(features, positives) && random.below(2) == 0) shape.count = shape.batch / 2 + 1;
    if ((shape.batch < 2 && (sampling == NEGCOS_SAMPLING_DERANGEMENT || sampling == NEGCOS_SAMPLING_CYCLIC)) ||
        (shape.count < 2 && (sampling == NEGCOS_SAMPLING_UNIFORM || sampling == NEGCOS_SAMPLING_LOG_UNIFORM)))
        sampling = NEGCOS_SAMPLING_SHUFFLE;

    if (sampling == NEGCOS_SAMPLING_GROUPS && shape.rounds >= shape.batch)
        shape.rounds = static_cast<int32_t>(shape.batch - 1);

    Problem<T> p(shape.batch, shape.count, shape.dim, seed);
    negcos::Options& o = p.options;
    o.sampling = sampling;
    o.rounds = shape.rounds;
    o.seed = seed;
    if (sampling == NEGCOS_SAMPLING_GIVEN) p.give(shape.rounds, seed, true);
    if (has(features, sigmoid)) o.objective = NEGCOS_OBJECTIVE_SIGMOID;
    if (has(features, decoupled)) o.objective = NEGCOS_OBJECTIVE_DECOUPLED;
    if (has(features, batch_softmax)) o.objective = NEGCOS_OBJECTIVE_BATCH_SOFTMAX;
    if (has(features, sum)) o.reduction = NEGCOS_REDUCTION_SUM;
    if (has(features, both)) o.direction = NEGCOS_DIRECTION_BOTH;
    o.scale = has(features, dot) ? one_of({0.5, -0.2, 0.1}) : one_of({20, 6, -3});
    o.temperature = one_of({1, 1.7, 0.6});
    if (has(features, dot)) o.similarity = NEGCOS_SIMILARITY_DOT;
    if (has(features, bias)) o.bias = one_of({-3, 0.7});
    if (has(features, margin)) o.margin = one_of({0.3, -0.15});
    if (has(features, hardness)) o.hardness = one_of({2, -0.7});
    if (has(features, label_smoothing)) o.label_smoothing = one_of({0.1, 0.45});
    if (has(features, false_negative_margin))
        o.false_negative_margin = one_of({0.1, -0.2, 0.45}) * (has(features, dot) ? 4 : 1);
    if (has(features, norm_floor)) o.norm_floor = std::sqrt(static_cast<double>(shape.dim));
    if (has(features, negatives_only)) o.correction = NEGCOS_CORRECTION_NEGATIVES_ONLY;

    const auto fill = [](auto& values, int64_t count, auto&& draw) {
        for (int64_t k = 0; k < count; ++k) values.push_back(draw());
    };
    const auto draw_id = [&] { return (random.below(1 + shape.count / 3) << 40) - 7; };
    // ids that nobody asked for play no part
    const bool idle_ids = random.below(4) == 0;
    if (has(features, same_document)) o.exclude |= NEGCOS_EXCLUDE_SAME_DOCUMENT_ID;
    if (has(features, same_document) || idle_ids) fill(p.document_ids, shape.count, draw_id);
    if (has(features, same_query)) o.exclude |= NEGCOS_EXCLUDE_SAME_QUERY_ID;
    if (has(features, same_query) || idle_ids) fill(p.query_ids, shape.batch, draw_id);
    if (has(features, positives)) fill(p.positives, shape.batch, [&] { return random.below(shape.count); });
    if (has(features, weights))
        fill(p.weights, shape.batch, [&] { return random.below(4) == 0 ? 0 : 2 * random.uniform(); });
    if (has(features, log_probability)) fill(p.log_probability, shape.count, [&] { return -9 * random.uniform(); });
    if (has(features, hard)) p.harden(shape.hard, seed);
    if (has(features, prefixes)) {
        // two at least where there are two columns, and not always all columns
        const int64_t most = std::max<int64_t>(1, shape.dim / 2);
        for (int64_t d = 1 + random.below(most); d <= shape.dim && p.prefix_dims.size() < 3;
             d += 1 + random.below(most))
            p.prefix_dims.push_back(static_cast<int32_t>(d));
        if (random.below(2) == 0)
            for (size_t k = 0; k < p.prefix_dims.size(); ++k) p.prefix_weights.push_back(one_of({1, 0.25, 1.5, 0}));
    }
    if (has(features, zero_rows)) {
        const auto zero = [&](std::vector<T>& rows, int64_t i, int64_t columns) {
            std::fill_n(rows.begin() + i * shape.dim, columns, T(0.0));
        };
        zero(p.queries, shape.batch / 2, shape.dim);
        zero(p.documents, shape.count - 1, shape.dim);
        if (!p.hard.empty()) zero(p.hard, 0, shape.dim);
        // and what is 0 for the first columns alone
        const int64_t columns = p.prefix_dims.empty() ? 0 : p.prefix_dims[0];
        zero(p.queries, 0, columns);
        zero(p.documents, shape.count / 2, columns);
    }
    return p;
}

// Whether no similarity is so close to false_negative_margin, or logit to its positive's, that rounding decides.
template <class T, class W>
bool drops_are_clear(const Problem<T>& p, const oracle::Result<W>& exact) {
    return static_cast<double>(exact.drop_clearance) > 2 * harness::Tolerance<T>(p).similarity;
}
template <class T, class W>
bool ranks_are_clear(const Problem<T>& p, const oracle::Result<W>& exact) {
    return p.last_dim() == 1 || static_cast<double>(exact.rank_clearance) > 2 * harness::Tolerance<T>(p).logit;
}

// One of each instruction set, the best first.
struct Contexts {
    std::vector<negcos::Context> all;
    explicit Contexts(const char* test) {
        for (const std::string& isa : harness::isas(test)) all.push_back(harness::context(isa));
    }
    negcos::Context& best() { return all.front(); }
};

// The outputs of the best instruction set; the others' are the same bits.
template <class T>
harness::Outputs<T> run_everywhere(Contexts& contexts, const Problem<T>& p, int64_t k = 0) {
    harness::Outputs<T> first = harness::run(contexts.best(), p, {k % 5, k % 4, true});
    const std::string expected = first.bytes();
    for (size_t v = 1; v < contexts.all.size(); ++v) {
        INFO(contexts.all[v].isa());
        const int64_t n = k + static_cast<int64_t>(v);
        CHECK(harness::run(contexts.all[v], p, {n % 5, n % 4, true}).bytes() == expected);
    }
    return first;
}

struct Tally {
    int64_t problems = 0, drops_unclear = 0, ranks_unclear = 0;
};

// Against the oracle, as far as rounding does not decide.
template <class T>
void check_clear(const Problem<T>& p, const harness::Outputs<T>& got, Tally& tally) {
    const auto exact = oracle::evaluate<T>(p.options_of(), p.inputs(got.negatives));
    const bool ranks = ranks_are_clear(p, exact), drops = drops_are_clear(p, exact);
    ++tally.problems;
    tally.ranks_unclear += !ranks;
    tally.drops_unclear += !drops;
    if (drops) harness::check_against_oracle(p, got, exact, true, ranks);
}

}  // namespace variants

#endif
