// SPDX-License-Identifier: Apache-2.0
//
// Gradients in f64 against central differences of the library's own loss: right even if the oracle were wrong.
#include "harness.hpp"

namespace {

using namespace harness;

double loss_of(negcos::Context& context, const Problem<double>& p, int32_t objective) {
    negcos::Batch batch(negcos::view(std::span<const double>(p.queries), p.batch, p.dim),
                        negcos::view(std::span<const double>(p.documents), p.count, p.dim));
    if (!p.given.empty()) batch.negatives = p.given.data();
    negcos::Options options = p.options;
    options.objective = objective;
    negcos::Result result;
    context.evaluate(options, batch, result);
    return result.loss;
}

void check_gradients(negcos::Context& context, Problem<double> p, int32_t objective) {
    p.options.objective = objective;
    const Outputs<double> out = run(context, p);
    const auto difference = [&](auto&& move) {
        const double h = 1e-6;
        move(h);
        const double up = loss_of(context, p, objective);
        move(-2 * h);
        const double down = loss_of(context, p, objective);
        move(h);
        return (up - down) / (2 * h);
    };
    Random random(3);
    for (const bool queries : {true, false}) {
        std::vector<double>& rows = queries ? p.queries : p.documents;
        const std::vector<double>& gradient = queries ? out.grad_queries : out.grad_documents;
        for (int trial = 0; trial < 6; ++trial) {  // single coordinates
            const size_t k = static_cast<size_t>(random.below(static_cast<int64_t>(rows.size())));
            CHECK(difference([&](double h) { rows[k] += h; }) == doctest::Approx(gradient[k]).epsilon(1e-5).scale(1));
        }
        std::vector<double> direction(rows.size());  // all at once
        double expected = 0;
        for (size_t k = 0; k < rows.size(); ++k) {
            direction[k] = random.normal();
            expected += direction[k] * gradient[k];
        }
        const double slope = difference([&](double h) {
            for (size_t k = 0; k < rows.size(); ++k) rows[k] += h * direction[k];
        });
        CHECK(slope == doctest::Approx(expected).epsilon(1e-5).scale(1));
    }
    const double slope = difference([&](double h) { p.options.scale += h; });
    CHECK(slope == doctest::Approx(out.numbers.grad_scale).epsilon(1e-6).scale(1));
}

TEST_SUITE("unit") {
    TEST_CASE("finite differences") {
        for (const std::string& isa : isas("finite differences"))
            for (const int32_t sampling :
                 {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_CYCLIC, NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_LOG_UNIFORM,
                  NEGCOS_SAMPLING_GIVEN, NEGCOS_SAMPLING_ALL, NEGCOS_SAMPLING_GROUPS})
                for (const int32_t objective : {NEGCOS_OBJECTIVE_SOFTMAX, NEGCOS_OBJECTIVE_BATCH_SOFTMAX})
                    for (const int32_t similarity : {NEGCOS_SIMILARITY_COSINE, NEGCOS_SIMILARITY_DOT})
                        for (const int32_t reduction : {NEGCOS_REDUCTION_MEAN, NEGCOS_REDUCTION_SUM}) {
                            negcos::Context context = harness::context(isa);
                            Problem<double> p(9, 11, 7, 4);
                            p.options.sampling = sampling;
                            if (sampling == NEGCOS_SAMPLING_GIVEN) p.give(5, 2, true);
                            p.options.similarity = similarity;
                            p.options.reduction = reduction;
                            p.options.scale = 3;
                            p.options.temperature = 0.8;
                            INFO(isa << " sampling " << sampling << " objective " << objective << " similarity "
                                     << similarity << " reduction " << reduction);
                            check_gradients(context, p, objective);
                        }
    }

    TEST_CASE("finite differences: rows below the norm floor") {
        for (const std::string& isa : isas("finite differences: rows below the norm floor"))
            for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_ALL, NEGCOS_SAMPLING_GROUPS}) {
                negcos::Context context = harness::context(isa);
                Problem<double> p(6, 6, 5, 8);
                p.options.sampling = sampling;
                p.options.norm_floor = 2.5;  // above some norms and below others
                check_gradients(context, p, NEGCOS_OBJECTIVE_SOFTMAX);
                p.options.norm_floor = 100;  // above all
                check_gradients(context, p, NEGCOS_OBJECTIVE_SOFTMAX);
            }
    }
}

}  // namespace
