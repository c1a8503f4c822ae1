// SPDX-License-Identifier: Apache-2.0
//
// The whole loss family at its edges: NaN beside what is dropped, numbers near the end of their range, and options that
// pull a positive away from its negatives.
#include "harness.hpp"

namespace {

using namespace harness;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

template <class T>
bool finite(const std::vector<T>& values) {
    return std::all_of(values.begin(), values.end(), [](T x) { return std::isfinite(x); });
}
template <class T>
bool finite(const Outputs<T>& out) {
    return std::isfinite(out.numbers.loss) && std::isfinite(out.numbers.grad_scale) &&
           std::isfinite(out.numbers.grad_bias) && finite(out.losses) && finite(out.hit_probability) &&
           finite(out.grad_queries) && finite(out.grad_documents) && finite(out.grad_hard_negatives);
}
template <class T>
bool finite_row(const std::vector<T>& rows, int64_t i, int64_t dim) {
    return finite(std::vector<T>(rows.begin() + i * dim, rows.begin() + (i + 1) * dim));
}

// Both engines: GIVEN, sparse, and ALL.
template <class Body>
void each_engine(const char* test, Body&& body) {
    for (const std::string& isa : isas(test)) {
        negcos::Context context = harness::context(isa);
        for (const int32_t sampling : {NEGCOS_SAMPLING_GIVEN, NEGCOS_SAMPLING_ALL}) {
            INFO(isa << " sampling " << sampling);
            body(context, sampling);
        }
    }
}

template <class T>
Problem<T> problem(int32_t sampling, int64_t dim = 6) {
    Problem<T> p(40, 40, dim, 3);
    p.options.sampling = sampling;
    if (sampling == NEGCOS_SAMPLING_GIVEN) {
        p.give(3, 5, false);
        p.given[0] = 3;  // what the tests drop is drawn
    }
    return p;
}

template <class T>
void nan_beside_what_is_dropped(const char* test) {
    each_engine(test, [](negcos::Context& context, int32_t sampling) {
        for (const int32_t similarity : {NEGCOS_SIMILARITY_COSINE, NEGCOS_SIMILARITY_DOT})
            for (const int32_t objective :
                 {NEGCOS_OBJECTIVE_SOFTMAX, NEGCOS_OBJECTIVE_SIGMOID, NEGCOS_OBJECTIVE_DECOUPLED})
                for (const bool prefixes : {false, true}) {
                    INFO("similarity " << similarity << " objective " << objective << " prefixes " << prefixes);
                    Problem<T> p = problem<T>(sampling);
                    p.options.similarity = similarity;
                    p.options.objective = objective;
                    p.options.scale = 2;
                    if (prefixes) p.prefix_dims = {2, 6};
                    for (int64_t j = 0; j < 40; ++j) p.document_ids.push_back(j == 3 ? 0 : j);
                    p.options.exclude = NEGCOS_EXCLUDE_SAME_DOCUMENT_ID;

                    Problem<T> query = p;  // query 0 may not have document 3, nor query 3 document 0
                    query.queries[0] = static_cast<T>(kNan);
                    const auto of_query = run(context, query);
                    CHECK(!finite_row(of_query.grad_queries, 0, 6));
                    CHECK(!finite_row(of_query.grad_documents, 0, 6));
                    for (int64_t i = 1; i < 40; ++i) CHECK(finite_row(of_query.grad_queries, i, 6));
                    CHECK(finite_row(of_query.grad_documents, 3, 6));

                    Problem<T> document = p;
                    document.documents[3 * 6] = static_cast<T>(kNan);
                    const auto of_document = run(context, document);
                    CHECK(std::isfinite(of_document.losses[0]));
                    CHECK(finite_row(of_document.grad_queries, 0, 6));
                    CHECK(!finite_row(of_document.grad_queries, 3, 6));
                    CHECK(!finite_row(of_document.grad_documents, 3, 6));

                    Problem<T> left_out = query;
                    left_out.weights.assign(40, 1);
                    left_out.weights[0] = 0;
                    const auto without = run(context, left_out);
                    CHECK(std::isnan(without.losses[0]));
                    CHECK(std::isfinite(without.numbers.loss));
                    CHECK(std::isfinite(without.numbers.grad_scale));
                    CHECK(finite(without.grad_queries));
                    CHECK(finite(without.grad_documents));
                }
    });
}

template <class T>
void far_numbers(const char* test) {
    const bool f64 = sizeof(T) == 8;
    each_engine(test, [f64](negcos::Context& context, int32_t sampling) {
        for (const int32_t objective :
             {NEGCOS_OBJECTIVE_SOFTMAX, NEGCOS_OBJECTIVE_SIGMOID, NEGCOS_OBJECTIVE_DECOUPLED}) {
            INFO("objective " << objective);
            Problem<T> p = problem<T>(sampling);
            p.options.objective = objective;
            p.weights.assign(40, f64 ? 1e100 : 1e15);
            p.options.reduction = NEGCOS_REDUCTION_SUM;
            CHECK(finite(run(context, p)));
            p.weights.clear();
            if (objective == NEGCOS_OBJECTIVE_SOFTMAX) p.options.label_smoothing = 0.1;
            p.options.scale = f64 ? 1e280 : 1e26;
            CHECK(finite(run(context, p)));
            p.options.scale = 1;  // dot products beyond what a logit can hold
            p.options.similarity = NEGCOS_SIMILARITY_DOT;
            for (auto* rows : {&p.queries, &p.documents})
                for (T& x : *rows) x *= static_cast<T>(f64 ? 1e150 : 1e16);
            const auto out = run(context, p);
            CHECK(std::isfinite(out.numbers.loss));
            CHECK(std::isfinite(out.numbers.grad_scale));
        }
        Problem<T> tiny = problem<T>(sampling);  // prefixes of rows that only a rescaled norm can hold
        for (T& x : tiny.queries)
            x = static_cast<T>(std::round(4 * static_cast<double>(x))) * std::numeric_limits<T>::denorm_min();
        tiny.options.norm_floor = 0;
        tiny.prefix_dims = {2, 6};
        const auto out = run(context, tiny);  // but for the gradient of such a row, which may be beyond the range
        CHECK(std::isfinite(out.numbers.loss));
        CHECK(std::isfinite(out.numbers.grad_scale));
        CHECK(finite(out.losses));
        CHECK(finite(out.grad_documents));
    });
}

template <class T>
void pulled_apart(const char* test) {
    for (const std::string& isa : isas(test)) {
        negcos::Context context = harness::context(isa);
        for (const auto& [scale, hardness, margin] : {std::tuple{100.0, -80.0, 0.0},
                                                      {60.0, -30.0, 0.0},
                                                      {1000.0, -999.0, 0.0},
                                                      {20.0, 9.0, 0.3},
                                                      {20.0, 0.0, -0.7},
                                                      {30.0, -29.0, 0.9},
                                                      {3.0, 40.0, 0.0}})
            for (const T sign : {T(1), T(-1)})
                for (const int32_t objective : {NEGCOS_OBJECTIVE_SOFTMAX, NEGCOS_OBJECTIVE_DECOUPLED}) {
                    INFO(isa << " scale " << scale << " hardness " << hardness << " margin " << margin << " sign "
                             << sign << " objective " << objective);
                    Problem<T> p(9, 9, 5, 4);
                    for (size_t k = 0; k < p.queries.size(); ++k) p.documents[k] = sign * p.queries[k];
                    p.options.sampling = NEGCOS_SAMPLING_ALL;
                    p.options.direction = NEGCOS_DIRECTION_BOTH;
                    p.options.objective = objective;
                    p.options.scale = scale;
                    p.options.hardness = hardness;
                    p.options.margin = margin;
                    const auto out = run(context, p);
                    const auto exact = oracle::evaluate<T>(p.options_of(), p.inputs(out.negatives));
                    const double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
                    for (size_t i = 0; i < 9; ++i)
                        CHECK(static_cast<double>(out.losses[i]) ==
                              doctest::Approx(static_cast<double>(exact.losses[i]))
                                  .epsilon(100 * eps)
                                  .scale(2 * (scale + std::abs(hardness))));
                    CHECK(finite(out));
                    if (objective == NEGCOS_OBJECTIVE_SOFTMAX)
                        for (const T loss : out.losses) CHECK(loss >= 0);
                }
    }
}

TEST_SUITE("unit") {
    TEST_CASE("variant edges: NaN beside what is dropped, f32") {
        nan_beside_what_is_dropped<float>("variant edges: NaN beside what is dropped, f32");
    }
    TEST_CASE("variant edges: NaN beside what is dropped, f64") {
        nan_beside_what_is_dropped<double>("variant edges: NaN beside what is dropped, f64");
    }
    TEST_CASE("variant edges: far numbers, f32") {
        far_numbers<float>("variant edges: far numbers, f32");
    }
    TEST_CASE("variant edges: far numbers, f64") {
        far_numbers<double>("variant edges: far numbers, f64");
    }
    TEST_CASE("variant edges: positives pulled away from negatives, f32") {
        pulled_apart<float>("variant edges: positives pulled away from negatives, f32");
    }
    TEST_CASE("variant edges: positives pulled away from negatives, f64") {
        pulled_apart<double>("variant edges: positives pulled away from negatives, f64");
    }
    TEST_CASE("variant edges: hard negatives that are absent have no rows") {
        negcos::Context context;
        const Problem<float> p(4, 4, 8, 2);
        negcos::Batch batch(negcos::view(std::span<const float>(p.queries), 4, 8),
                            negcos::view(std::span<const float>(p.documents), 4, 8));
        batch.hard_negatives = {nullptr, 8, 8, 8, NEGCOS_DTYPE_F32, 0};
        negcos::Options options;
        options.margin = 0.1;
        negcos::Result result;
        context.evaluate(options, batch, result);
        const double loss = result.loss;
        batch.hard_negatives = {};
        context.evaluate(options, batch, result);
        CHECK(result.loss == loss);
    }
}

}  // namespace
