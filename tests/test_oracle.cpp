// SPDX-License-Identifier: Apache-2.0
//
// Every instruction set, type and odd shape against the oracle.
#include "harness.hpp"

namespace {

using namespace harness;

struct Shape {
    int64_t batch, count, dim;
    int32_t rounds;
};

// Below, at and above every register width; rows and columns, and more than one block and chunk of the tile engine.
const Shape kShapes[] = {{1, 1, 1, 1},    {2, 2, 3, 3},     {3, 5, 7, 4},     {7, 7, 8, 5},    {8, 9, 9, 20},
                         {9, 9, 15, 1},   {15, 16, 16, 3},  {16, 16, 17, 4},  {17, 19, 31, 5}, {31, 31, 33, 20},
                         {33, 40, 64, 3}, {64, 64, 65, 17}, {65, 70, 100, 4}, {5, 5, 128, 33}, {6, 6, 129, 2}};

template <class T>
void each_shape(const char* test, int32_t sampling, int32_t objective) {
    for (const std::string& isa : isas(test)) {
        negcos::Context context = harness::context(isa);
        uint64_t seed = 0;
        for (const Shape& shape : kShapes)
            for (const int32_t rounds : {0, shape.rounds}) {
                ++seed;
                Problem<T> p(shape.batch, shape.count, shape.dim, seed);
                p.options.seed = seed;
                p.options.objective = objective;
                p.options.similarity = seed % 5 == 4 ? NEGCOS_SIMILARITY_DOT : NEGCOS_SIMILARITY_COSINE;
                if (p.options.similarity == NEGCOS_SIMILARITY_DOT) p.options.scale = 0.5;
                p.options.reduction = seed % 3 == 2 ? NEGCOS_REDUCTION_SUM : NEGCOS_REDUCTION_MEAN;
                if (seed % 4 == 3) p.options.temperature = 1.7;
                if (sampling == NEGCOS_SAMPLING_GIVEN) {
                    p.give(rounds, seed, seed % 2 == 0);
                } else {
                    p.options.sampling = sampling;
                    p.options.rounds = rounds;
                }
                const bool cannot_draw =
                    ((sampling == NEGCOS_SAMPLING_DERANGEMENT || sampling == NEGCOS_SAMPLING_CYCLIC) &&
                     shape.batch == 1) ||
                    ((sampling == NEGCOS_SAMPLING_UNIFORM || sampling == NEGCOS_SAMPLING_LOG_UNIFORM) &&
                     shape.count == 1) ||
                    (sampling == NEGCOS_SAMPLING_GROUPS && rounds >= shape.batch);
                if (cannot_draw) continue;
                INFO(isa << " B " << shape.batch << " M " << shape.count << " d " << shape.dim << " rounds " << rounds
                         << " seed " << seed);
                const Layout layout{static_cast<int64_t>(seed % 4), static_cast<int64_t>(seed % 3), true};
                check_against_oracle(p, run(context, p, layout));
            }
    }
}

template <class T>
void each_sampling(const char* test) {
    for (const int32_t sampling :
         {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_CYCLIC, NEGCOS_SAMPLING_UNIFORM,
          NEGCOS_SAMPLING_LOG_UNIFORM, NEGCOS_SAMPLING_GIVEN, NEGCOS_SAMPLING_ALL, NEGCOS_SAMPLING_GROUPS})
        for (const int32_t objective : {NEGCOS_OBJECTIVE_SOFTMAX, NEGCOS_OBJECTIVE_BATCH_SOFTMAX}) {
            INFO("sampling " << sampling << " objective " << objective);
            each_shape<T>(test, sampling, objective);
        }
}

TEST_SUITE("unit") {
    TEST_CASE("oracle: f32") {
        each_sampling<float>("oracle: f32");
    }
    TEST_CASE("oracle: f64") {
        each_sampling<double>("oracle: f64");
    }

    TEST_CASE("oracle: tiles across blocks and chunks") {
        const Shape shapes[] = {
            {130, 700, 40, 0}, {300, 300, 64, 0}, {193, 385, 17, 0}, {192, 192, 16, 0}, {1, 500, 9, 0}};
        for (const std::string& isa : isas("oracle: tiles across blocks and chunks")) {
            negcos::Context context = harness::context(isa);
            uint64_t number = 0;
            for (const Shape& shape : shapes)
                for (const double scale : {20.0, -3.0}) {
                    if (++number % test_step() != 0) continue;
                    INFO(isa << " B " << shape.batch << " M " << shape.count << " d " << shape.dim);
                    Problem<float> p(shape.batch, shape.count, shape.dim, 5);
                    p.options.sampling = NEGCOS_SAMPLING_ALL;
                    p.options.scale = scale;
                    check_against_oracle(p, run(context, p, {1, 3, true}));
                    Problem<double> q(shape.batch, shape.count, shape.dim, 6);
                    q.options.sampling = NEGCOS_SAMPLING_ALL;
                    q.options.scale = scale;
                    check_against_oracle(q, run(context, q, {1, 3, true}));
                }
        }
    }

    TEST_CASE("oracle: samples so dense that they are tiles") {
        for (const std::string& isa : isas("oracle: samples so dense that they are tiles")) {
            negcos::Context context = harness::context(isa);
            uint64_t number = 0;
            const auto check = [&](auto& p, int32_t sampling) {
                INFO(isa << " sampling " << sampling << " " << sizeof(p.queries[0]) * 8 << " bits");
                for (const double scale : {20.0, -3.0}) {
                    if (++number % test_step() != 0) continue;
                    p.options.scale = scale;
                    if (sampling == NEGCOS_SAMPLING_GIVEN) {
                        p.give(300, 8, true);
                    } else {
                        p.options.sampling = sampling;
                        p.options.rounds = 200;
                    }
                    check_against_oracle(p, run(context, p, {1, 3, true}));
                }
            };
            for (const int32_t sampling :
                 {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_CYCLIC, NEGCOS_SAMPLING_UNIFORM,
                  NEGCOS_SAMPLING_LOG_UNIFORM, NEGCOS_SAMPLING_GIVEN, NEGCOS_SAMPLING_GROUPS}) {
                const int64_t count = sampling == NEGCOS_SAMPLING_GIVEN ? 450 : 210;
                Problem<float> p(210, count, 40, 5);
                check(p, sampling);
                Problem<double> q(210, count, 17, 6);
                check(q, sampling);
            }
        }
    }

    TEST_CASE("oracle: each gradient alone, and none") {
        for (const std::string& isa : isas("oracle: each gradient alone, and none"))
            for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_ALL, NEGCOS_SAMPLING_GROUPS})
                for (const int32_t objective : {NEGCOS_OBJECTIVE_SOFTMAX, NEGCOS_OBJECTIVE_BATCH_SOFTMAX}) {
                    negcos::Context context = harness::context(isa);
                    Problem<float> p(40, 40, 33, 9);
                    p.options.sampling = sampling;
                    p.options.objective = objective;
                    const auto both = run(context, p);
                    check_against_oracle(p, run(context, p, {0, 0, false}), false);
                    for (const bool queries : {true, false}) {
                        std::vector<float> gradient(p.queries.size(), -1);
                        negcos::Batch batch(negcos::view(std::span<const float>(p.queries), 40, 33),
                                            negcos::view(std::span<const float>(p.documents), 40, 33));
                        negcos::Result result;
                        (queries ? result.grad_queries : result.grad_documents) =
                            negcos::view(std::span<float>(gradient), 40, 33);
                        context.evaluate(p.options, batch, result);
                        CHECK(gradient == (queries ? both.grad_queries : both.grad_documents));
                        CHECK(result.loss == both.numbers.loss);
                    }
                }
    }
}

}  // namespace
