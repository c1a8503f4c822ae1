// SPDX-License-Identifier: Apache-2.0
//
// A 4 x 2 example small enough to follow by hand, through both softmaxes. The layer that this library reproduces is the
// NegativeCosineLayer of a post by zhouwenyuan1015 (CC BY-SA 4.0): normalising over axis 0 of [batch, NEG + 1] and
// keeping column 0 is BATCH_SOFTMAX; what its text describes is SOFTMAX.
#include "harness.hpp"

namespace {

using namespace harness;

/*
 * Queries (1,0) (0,1) (1,1) (1,-1) and documents (1,0) (1,1) (1,1) (0,1). With s = 1/sqrt(2) the cosines are
 *            d0   d1   d2   d3
 *      q0     1    s    s    0
 *      q1     0    s    s    1
 *      q2     s    1    1    s
 *      q3     s    0    0   -s
 * so the positives' are 1, s, 1, -s.
 */
template <class T>
Problem<T> example() {
    Problem<T> p(4, 4, 2);
    p.queries = {1, 0, 0, 1, 1, 1, 1, -1};
    p.documents = {1, 0, 1, 1, 1, 1, 0, 1};
    return p;
}

template <class T>
void check_example(const std::string& isa) {
    negcos::Context context = harness::context(isa);
    const double s = std::sqrt(0.5), eps = std::numeric_limits<T>::epsilon();
    const double z[4] = {20, 20 * s, 20, -20 * s};

    Problem<T> p = example<T>();
    p.options.objective = NEGCOS_OBJECTIVE_BATCH_SOFTMAX;
    double total = 0, loss = 0;
    for (const double x : z) total += std::exp(x);
    for (const double x : z) loss += (std::log(total) - x) / 4;
    const Outputs<T> published = run(context, p);
    CHECK(published.numbers.loss == doctest::Approx(loss).epsilon(40 * eps));
    for (size_t i = 0; i < 4; ++i)
        CHECK(static_cast<double>(published.hit_probability[i]) ==
              doctest::Approx(std::exp(z[i]) / total).epsilon(80 * eps));

    // Two rounds of negatives, those of the table's columns: 1 2 3 0 and 3 3 1 1.
    p.options.objective = NEGCOS_OBJECTIVE_SOFTMAX;
    p.options.sampling = NEGCOS_SAMPLING_GIVEN;
    p.options.rounds = 2;
    p.given = {1, 3, 2, 3, 3, 1, 0, 1};
    const double negatives[4][2] = {{20 * s, 0}, {20 * s, 20}, {20 * s, 20}, {20 * s, 0}};
    loss = 0;
    for (int i = 0; i < 4; ++i)
        loss += std::log(1 + std::exp(negatives[i][0] - z[i]) + std::exp(negatives[i][1] - z[i])) / 4;
    const Outputs<T> described = run(context, p);
    CHECK(described.numbers.loss == doctest::Approx(loss).epsilon(40 * eps));
    // q0 wins; q1 loses to a tie and to d3; q2 ties with d1; q3 loses to both.
    CHECK(described.numbers.accuracy == 0.25);
    CHECK(described.numbers.mean_reciprocal_rank == doctest::Approx((1 + 1. / 3 + 1. / 2 + 1. / 3) / 4));
    check_against_oracle(p, described);
}

TEST_SUITE("unit") {
    TEST_CASE("the 4 x 2 example through both softmaxes") {
        for (const std::string& isa : isas("the 4 x 2 example through both softmaxes")) {
            check_example<float>(isa);
            check_example<double>(isa);
        }
    }

    TEST_CASE("BATCH_SOFTMAX: negatives play no part in the loss") {
        negcos::Context context = harness::context("scalar");
        Problem<double> p(8, 8, 5, 2);
        p.options.objective = NEGCOS_OBJECTIVE_BATCH_SOFTMAX;
        const double loss = run(context, p).numbers.loss;
        for (const int32_t rounds : {0, 1, 50}) {
            p.options.rounds = rounds;
            CHECK(run(context, p).numbers.loss == loss);
        }
    }

    TEST_CASE("BATCH_SOFTMAX: the temperature has no effect") {
        for (const std::string& isa : isas("BATCH_SOFTMAX: the temperature has no effect")) {
            negcos::Context context = harness::context(isa);
            Problem<float> p(37, 37, 24, 1);
            p.options.objective = NEGCOS_OBJECTIVE_BATCH_SOFTMAX;
            p.options.rounds = 3;
            const Outputs<float> expected = run(context, p);
            // 1e-300: also a scale over it that no number could hold
            for (const double temperature : {0.7, 3.0, 1e-300}) {
                p.options.temperature = temperature;
                const Outputs<float> got = run(context, p);
                CHECK(got.bytes() == expected.bytes());
                CHECK(got.logits == expected.logits);
                CHECK(got.numbers.grad_scale == expected.numbers.grad_scale);
                check_against_oracle(p, got);
            }
        }
    }
}

}  // namespace
