// SPDX-License-Identifier: Apache-2.0
//
// The whole loss family at its edges: nothing left, copies and ties, NaN beside what is dropped, numbers near the end
// of their range, and options that pull a positive away from its negatives.
#include <algorithm>
#include <cmath>
#include <functional>

#include "harness.hpp"
#include "variants.hpp"

namespace {

using namespace harness;
using namespace variants;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Both engines and ALL; `of` makes a problem of a sampling.
const int32_t kFew[] = {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_GIVEN, NEGCOS_SAMPLING_ALL};
template <class T>
Problem<T> ordinary(int32_t sampling, bool dense, Features features = 0) {
    return make<T>({12, has(features, both) ? 12 : 14, 9, dense ? 40 : 2, 2}, features, sampling, 6);
}
template <class T>
void each_engine(const char* test, const std::function<void(Contexts&, int32_t, bool)>& body) {
    Contexts contexts(test);
    for (const int32_t sampling : kFew)
        for (const bool dense : {false, true}) {
            INFO("sampling " << sampling << " dense " << dense << " " << sizeof(T) * 8 << " bits");
            body(contexts, sampling, dense);
        }
}

template <class V>
bool all_zero(const V& values) {
    return std::all_of(values.begin(), values.end(), [](auto x) { return x == 0; });
}
template <class V>
bool all_finite(const V& values) {
    return std::all_of(values.begin(), values.end(), [](auto x) { return std::isfinite(x); });
}
template <class T>
bool no_gradient(const Outputs<T>& out) {
    return all_zero(out.grad_queries) && all_zero(out.grad_documents) && all_zero(out.grad_hard_negatives) &&
           out.numbers.grad_scale == 0 && out.numbers.grad_bias == 0;
}
template <class T>
bool finite(const Outputs<T>& out) {
    return all_finite(out.hit_probability) && all_finite(out.grad_queries) && all_finite(out.grad_documents) &&
           all_finite(out.grad_hard_negatives) && all_finite(out.losses) && std::isfinite(out.numbers.loss) &&
           std::isfinite(out.numbers.grad_scale) && std::isfinite(out.numbers.grad_bias);
}

// Every negative dropped, or none there.
template <class T>
void no_negative_left(Contexts& contexts, int32_t sampling, bool dense) {
    for (const Features objective : {Features{0}, add(0, decoupled), add(0, sigmoid), add(0, label_smoothing),
                                     add(0, both), add(add(0, both), decoupled), add(0, prefixes)}) {
        if (has(objective, both) && (sampling != NEGCOS_SAMPLING_ALL)) continue;
        for (const bool dropped : {true, false}) {
            INFO(names_of(objective) << (dropped ? ", all dropped" : ", none there"));
            Problem<T> p = ordinary<T>(sampling, dense, objective);
            if (dropped) {
                p.document_ids.assign(static_cast<size_t>(p.count), 3);
                p.options.exclude = NEGCOS_EXCLUDE_SAME_DOCUMENT_ID;
            } else if (sampling == NEGCOS_SAMPLING_ALL) {
                if (has(objective, both)) continue;
                p.count = p.batch = 1;
                p.queries.resize(9), p.documents.resize(9);
                p.document_ids.clear(), p.query_ids.clear();
            } else if (sampling == NEGCOS_SAMPLING_GIVEN) {
                std::fill(p.given.begin(), p.given.end(), -1);
            } else {
                p.options.rounds = 0;
            }
            const auto out = run_everywhere(contexts, p);
            check_against_oracle(p, out);
            int64_t there = std::count_if(out.negatives.begin(), out.negatives.end(), [](auto j) { return j >= 0; });
            if (sampling == NEGCOS_SAMPLING_ALL) there = p.batch * (p.count - 1) * (has(objective, both) ? 2 : 1);
            CHECK(out.numbers.excluded == (dropped ? there : 0));
            CHECK(out.numbers.accuracy == 1);
            if (has(objective, sigmoid)) continue;
            CHECK(all_zero(out.losses));
            CHECK(out.numbers.loss == 0);
            for (const T hit : out.hit_probability) CHECK(hit == 1);
            if (!has(objective, label_smoothing)) CHECK(no_gradient(out));
        }
    }
    // one query alone loses all that it has
    Problem<T> p = ordinary<T>(sampling, dense, add(add(0, decoupled), hard));
    p.document_ids.clear();
    p.options.exclude = NEGCOS_EXCLUDE_SAME_DOCUMENT_ID;
    for (int64_t j = 0; j < p.count; ++j) p.document_ids.push_back(j);
    p.options.false_negative_margin = 0;
    for (size_t c = 0; c < 9; ++c) {
        p.documents[3 * 9 + c] = -p.queries[3 * 9 + c];
        for (const size_t h : {size_t{6}, size_t{7}}) p.hard[h * 9 + c] = p.queries[3 * 9 + c] + static_cast<T>(c == 0);
    }
    const auto out = run_everywhere(contexts, p);
    check_against_oracle(p, out);
    CHECK(out.losses[3] == 0);
    CHECK(all_zero(std::vector<T>(out.grad_queries.begin() + 27, out.grad_queries.begin() + 36)));
    CHECK(all_zero(std::vector<T>(out.grad_hard_negatives.begin() + 54, out.grad_hard_negatives.begin() + 72)));
    CHECK(!all_zero(out.grad_queries));
}

template <class T>
void weights_zero(Contexts& contexts, int32_t sampling, bool dense) {
    for (const Features objective : {Features{0}, add(0, decoupled), add(0, sigmoid), add(0, batch_softmax),
                                     add(0, hard), add(0, prefixes), add(0, both)})
        for (const int32_t reduction : {NEGCOS_REDUCTION_MEAN, NEGCOS_REDUCTION_SUM}) {
            if (has(objective, both) && sampling != NEGCOS_SAMPLING_ALL) continue;
            INFO(names_of(objective) << " reduction " << reduction);
            Problem<T> p = ordinary<T>(sampling, dense, objective);
            p.options.reduction = reduction;
            const double eps = std::numeric_limits<T>::epsilon();
            const auto unweighted = run_everywhere(contexts, p);
            p.weights.assign(12, 0);
            const auto none = run_everywhere(contexts, p);
            CHECK(none.numbers.loss == 0);
            CHECK(no_gradient(none));
            CHECK(distance(none.losses, unweighted.losses) <= 1024 * eps);
            // of one weight alone the mean is that loss, and metrics do not mind weights
            p.weights[5] = 0.3;
            const auto one = run_everywhere(contexts, p);
            CHECK(one.losses == none.losses);
            const double own = static_cast<double>(one.losses[5]) * (reduction == NEGCOS_REDUCTION_SUM ? 0.3 : 1);
            CHECK(one.numbers.loss == doctest::Approx(own).epsilon(8 * eps));
            if (!has(objective, batch_softmax)) CHECK(one.numbers.accuracy == unweighted.numbers.accuracy);
            CHECK(one.numbers.excluded == unweighted.numbers.excluded);
            // weights of 1 are none
            p.weights.assign(12, 1);
            const auto even = run_everywhere(contexts, p);
            CHECK(even.numbers.loss == doctest::Approx(unweighted.numbers.loss).epsilon(1024 * eps));
            CHECK(distance(even.grad_queries, unweighted.grad_queries) <= 1024 * eps * 20);
            check_against_oracle(p, even);
        }
}

// Two queries, and more rounds than documents: SHUFFLE hits each document many times, and each counts.
template <class T>
void drawn_many_times(Contexts& contexts) {
    for (const int32_t rounds : {3, 40})
        for (const bool exclude : {false, true}) {
            INFO("rounds " << rounds << " exclude " << exclude);
            Problem<T> p(2, 2, 7, 4);
            p.options.rounds = rounds;
            p.options.scale = 2;
            p.document_ids = {8, 9};
            p.options.exclude = exclude ? NEGCOS_EXCLUDE_SAME_DOCUMENT_ID : 0;
            const auto out = run_everywhere(contexts, p);
            int64_t excluded = 0;
            for (size_t i = 0; i < 2; ++i) {
                const auto first = out.negatives.begin() + static_cast<ptrdiff_t>(i) * rounds;
                const int64_t own = std::count(first, first + rounds, static_cast<int32_t>(i)), other = rounds - own;
                excluded += exclude ? own : 0;
                const auto cosine = [&](size_t j) {
                    double qd = 0, qq = 0, dd = 0;
                    for (size_t c = 0; c < 7; ++c) {
                        const double q = static_cast<double>(p.queries[i * 7 + c]),
                                     d = static_cast<double>(p.documents[j * 7 + c]);
                        qd += q * d, qq += q * q, dd += d * d;
                    }
                    return qd / std::sqrt(qq * dd);
                };
                const double z = std::exp(2 * (cosine(1 - i) - cosine(i)));
                const double loss =
                    std::log(1 + (exclude ? 0.0 : static_cast<double>(own)) + z * static_cast<double>(other));
                CHECK(static_cast<double>(out.losses[i]) ==
                      doctest::Approx(loss).epsilon(64 * std::numeric_limits<T>::epsilon()));
            }
            CHECK(out.numbers.excluded == excluded);
            check_against_oracle(p, out);
        }
}

// Sixteen rows that are the positive of query 0, and a hard one: ties, each of which counts, and none of which is above
// the positive by more than a margin of 0.
template <class T>
void copies_of_the_positive(Contexts& contexts, int32_t sampling, bool dense) {
    Tally tally;
    for (const Features features : {Features{0}, add(0, dot), add(0, sigmoid), add(0, decoupled), add(0, prefixes),
                                    add(0, log_probability), add(0, label_smoothing)})
        for (const double false_negative : {HUGE_VAL, 0.0, -1e-3}) {
            INFO(names_of(features) << " false_negative_margin " << false_negative);
            Problem<T> p = make<T>({4, 24, 9, dense ? 40 : 5, 1}, add(features, hard), sampling, 6);
            for (size_t j = 0; j < 16; ++j)
                for (size_t c = 0; c < 9; ++c) p.documents[(4 + j) * 9 + c] = p.documents[c];
            for (size_t c = 0; c < 9; ++c) p.hard[c] = p.documents[c];
            if (!p.log_probability.empty()) p.log_probability.assign(24, -2);
            if (sampling == NEGCOS_SAMPLING_SHUFFLE) p.give(dense ? 40 : 5, 8, false);
            p.options.false_negative_margin = false_negative;
            const auto out = run_everywhere(contexts, p);
            check_clear(p, out, tally);
            CHECK(finite(out));
            const bool copies_count = false_negative >= 0;
            if (copies_count && p.log_probability.empty()) CHECK(out.numbers.accuracy < 1);
            if (!copies_count) CHECK(out.numbers.excluded >= 1);
        }
    CHECK(tally.drops_unclear == 0);
}

template <class T>
void extreme_scales(Contexts& contexts, int32_t sampling, bool dense) {
    Tally tally;
    Random random(9);
    struct Factor {
        double scale, temperature;
    };
    for (const Factor& factor : {Factor{0.0, 1.0}, {-20.0, 1.0}, {5.0, 1e-3}, {-5.0, 1e-3}})
        for (int k = 0; k < 12; ++k) {
            const double scale = factor.scale, temperature = factor.temperature;
            const Features features =
                draw_features(k < kFeatures / 2 ? add(0, static_cast<Feature>(2 * k)) : 0, random);
            INFO("scale " << scale << " temperature " << temperature << " " << names_of(features));
            Problem<T> p = ordinary<T>(sampling, dense, features);
            p.options.scale = scale, p.options.temperature = temperature;
            if (has(features, dot)) p.options.temperature = std::max(temperature, 0.05);
            const auto out = run_everywhere(contexts, p);
            // In thousands a logit is off by more than a weight that is an exponential of it can bear.
            if (Tolerance<T>(p).logit < 0.01)
                check_clear(p, out, tally);
            else
                CHECK(out.numbers.loss ==
                      doctest::Approx(
                          static_cast<double>(oracle::evaluate<T>(p.options_of(), p.inputs(out.negatives)).loss))
                          .epsilon(1e-3));
            CHECK(finite(out));
        }
    CHECK(tally.drops_unclear * 20 <= tally.problems);
}

// All rows alike: every logit is the same but for what options add, and nothing has a gradient.
template <class T>
void all_alike(Contexts& contexts, int32_t sampling, bool dense) {
    for (int f = 0; f < kFeatures; ++f) {
        const Features features = add(0, static_cast<Feature>(f));
        if (f == dot || f == zero_rows || f == norm_floor) continue;
        INFO(names_of(features));
        Problem<T> p = ordinary<T>(sampling, dense, features);
        for (auto* rows : {&p.queries, &p.documents, &p.hard})
            for (size_t k = 0; k < rows->size(); ++k) (*rows)[k] = static_cast<T>(1 + k % 9);
        const auto out = run_everywhere(contexts, p);
        const auto exact = oracle::evaluate<T>(p.options_of(), p.inputs(out.negatives));
        const Tolerance<T> tolerance(p);
        for (size_t i = 0; i < out.losses.size(); ++i)
            CHECK(std::abs(static_cast<double>(out.losses[i]) - static_cast<double>(exact.losses[i])) <=
                  std::max(2.0, exact.loss_terms) * tolerance.logit);
        CHECK(out.numbers.excluded == exact.excluded);
        CHECK(within(out.grad_queries, exact.grad_queries, exact.query_terms, tolerance.terms, tolerance.tiny));
        CHECK(within(out.grad_documents, exact.grad_documents, exact.document_terms, tolerance.terms, tolerance.tiny));
        CHECK(within(out.grad_hard_negatives, exact.grad_hard, exact.hard_terms, tolerance.terms, tolerance.tiny));
    }
}

// NaN and Inf in a hard negative reach its query, and of documents those that this one is compared with.
template <class T>
void broken_hard_negative(Contexts& contexts, int32_t sampling, bool dense) {
    for (const Features features : {add(0, hard), add(add(0, hard), sigmoid), add(add(0, hard), decoupled),
                                    add(add(0, hard), prefixes), add(add(0, hard), false_negative_margin)})
        for (const T bad : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
            INFO(names_of(features) << " " << static_cast<double>(bad));
            Problem<T> p = ordinary<T>(sampling, dense, features);
            if (!p.prefix_dims.empty()) p.prefix_dims = {4, 9}, p.prefix_weights = {0.5, 1};
            const auto clean = run_everywhere(contexts, p);
            p.hard[(2 * 5 + 1) * 9 + 2] = bad;  // the second of query 5
            const auto out = run_everywhere(contexts, p);
            CHECK(std::isnan(out.numbers.loss));
            const double tolerance = 64 * static_cast<double>(std::numeric_limits<T>::epsilon());
            const auto near = [&](T a, T b) {
                return std::abs(static_cast<double>(a) - static_cast<double>(b)) <=
                       tolerance * (20 + std::abs(static_cast<double>(b)));
            };
            for (size_t i = 0; i < 12; ++i) {
                CHECK(std::isnan(out.losses[i]) == (i == 5));
                if (i == 5) continue;
                CHECK(near(out.losses[i], clean.losses[i]));
                for (size_t c = 0; c < 9; ++c) {
                    CHECK(near(out.grad_queries[i * 9 + c], clean.grad_queries[i * 9 + c]));
                    for (const size_t h : {2 * i, 2 * i + 1})
                        CHECK(near(out.grad_hard_negatives[h * 9 + c], clean.grad_hard_negatives[h * 9 + c]));
                }
            }
            CHECK(std::isnan(out.grad_queries[5 * 9]));
            CHECK(std::isnan(out.grad_hard_negatives[11 * 9 + 2]));
            for (size_t j = 0; j < static_cast<size_t>(p.count); ++j) {
                bool met = j == 5 || sampling == NEGCOS_SAMPLING_ALL;
                const size_t rounds = static_cast<size_t>(p.rounds());
                for (size_t r = 0; r < rounds; ++r) met |= out.negatives[5 * rounds + r] == static_cast<int32_t>(j);
                if (!met)
                    CHECK(all_finite(std::vector<T>(out.grad_documents.begin() + static_cast<ptrdiff_t>(j * 9),
                                                    out.grad_documents.begin() + static_cast<ptrdiff_t>(j * 9 + 9))));
            }
        }
}

// NaN on either side counts against the model: a positive that is NaN is outranked by all negatives that are there, a
// negative that is NaN outranks its positive.
template <class T>
void ranks_of_nan(Contexts& contexts, int32_t sampling, bool dense) {
    const auto broken = [](std::vector<T>& rows, size_t begin, size_t end, double bad) {
        std::fill(rows.begin() + static_cast<ptrdiff_t>(begin * 9), rows.begin() + static_cast<ptrdiff_t>(end * 9),
                  static_cast<T>(bad));
    };
    const auto judge = [&](const Problem<T>& p, const char* where) {
        INFO(where);
        const auto out = run_everywhere(contexts, p);
        const auto expected = oracle::evaluate<T>(p.options_of(), p.inputs(out.negatives));
        CHECK(std::isnan(out.numbers.loss));
        CHECK(out.numbers.accuracy == doctest::Approx(static_cast<double>(expected.accuracy)).epsilon(1e-12));
        CHECK(out.numbers.mean_reciprocal_rank ==
              doctest::Approx(static_cast<double>(expected.mean_reciprocal_rank)).epsilon(1e-12));
        return out;
    };
    for (const Features features :
         {Features{0}, add(0, hard), add(0, sigmoid), add(0, decoupled), add(0, label_smoothing), add(0, both),
          add(0, false_negative_margin), add(0, prefixes), add(0, same_document), add(0, dot)}) {
        if (has(features, both) && sampling != NEGCOS_SAMPLING_ALL) continue;
        for (const double bad : {kNan, std::numeric_limits<double>::infinity()}) {
            if (has(features, dot) && bad == bad)
                continue;  // their logits are Inf, in the wider type of the oracle too
            for (const double scale : {20.0, -20.0, 0.0}) {
                if (scale != 20 && features != 0 && features != add(0, sigmoid))
                    continue;  // logits that fall, and alike
                INFO(names_of(features) << " " << bad << " scale " << scale);
                const Problem<T> p = [&] {
                    Problem<T> whole = ordinary<T>(sampling, dense, features);
                    whole.options.scale = scale;
                    if (!whole.prefix_dims.empty()) whole.prefix_dims = {4, 9}, whole.prefix_weights = {0.5, 1};
                    return whole;
                }();
                Problem<T> one = p;
                broken(one.queries, 5, 6, bad);
                judge(one, "a query");
                one = p;
                broken(one.documents, 3, 4, bad);
                judge(one, "a document");
                one = p;
                broken(one.queries, 0, 12, bad);
                const auto out = judge(one, "all queries");
                if (sampling == NEGCOS_SAMPLING_ALL && features == 0) {
                    CHECK(out.numbers.accuracy == 0);
                    CHECK(out.numbers.mean_reciprocal_rank == doctest::Approx(1.0 / static_cast<double>(p.count)));
                }
            }
        }
    }
}

// A prefix is a call on its columns alone, and the last one's numbers are the result's.
template <class T>
void prefixes_are_calls(Contexts& contexts, int32_t sampling, bool dense) {
    Problem<T> p = ordinary<T>(sampling, dense, add(0, hard));
    p.prefix_dims = {2, 5, 8};
    p.prefix_weights = {1, 0.5, 2};
    const auto nested = run_everywhere(contexts, p);
    double loss = 0, grad_scale = 0;
    std::vector<double> grad_queries(p.queries.size());
    Outputs<T> last;
    for (size_t k = 0; k < 3; ++k) {
        const auto cut = [&](const std::vector<T>& rows) {
            std::vector<T> columns;
            for (size_t at = 0; at < rows.size(); ++at)
                if (at % 9 < static_cast<size_t>(p.prefix_dims[k])) columns.push_back(rows[at]);
            return columns;
        };
        Problem<T> one = p;
        one.dim = p.prefix_dims[k];
        one.queries = cut(p.queries), one.documents = cut(p.documents), one.hard = cut(p.hard);
        one.prefix_dims.clear(), one.prefix_weights.clear();
        last = run_everywhere(contexts, one);
        loss += p.prefix_weights[k] * last.numbers.loss;
        grad_scale += p.prefix_weights[k] * last.numbers.grad_scale;
        for (size_t at = 0; at < last.grad_queries.size(); ++at)
            grad_queries[at / static_cast<size_t>(one.dim) * 9 + at % static_cast<size_t>(one.dim)] +=
                p.prefix_weights[k] * static_cast<double>(last.grad_queries[at]);
    }
    const double eps = std::numeric_limits<T>::epsilon();
    CHECK(nested.numbers.loss == doctest::Approx(loss).epsilon(256 * eps));
    CHECK(nested.numbers.grad_scale == doctest::Approx(grad_scale).epsilon(1024 * eps).scale(1));
    CHECK(distance(nested.grad_queries, grad_queries) <= 1024 * eps);
    CHECK(nested.numbers.accuracy == last.numbers.accuracy);
    CHECK(nested.numbers.mean_reciprocal_rank == last.numbers.mean_reciprocal_rank);
    CHECK(distance(nested.logits, last.logits) <= 1024 * eps);
    for (const auto* gradient : {&nested.grad_queries, &nested.grad_documents, &nested.grad_hard_negatives})
        for (size_t at = 8; at < gradient->size(); at += 9) CHECK((*gradient)[at] == 0);
}

template <class T>
bool finite_row(const std::vector<T>& rows, int64_t i, int64_t dim) {
    return all_finite(std::vector<T>(rows.begin() + i * dim, rows.begin() + (i + 1) * dim));
}

// Both engines: GIVEN, sparse, and ALL.
template <class Body>
void each_isa(const char* test, Body&& body) {
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
    each_isa(test, [](negcos::Context& context, int32_t sampling) {
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
                    CHECK(all_finite(without.grad_queries));
                    CHECK(all_finite(without.grad_documents));
                }
    });
}

template <class T>
void far_numbers(const char* test) {
    constexpr bool f64 = sizeof(T) == 8;
    each_isa(test, [](negcos::Context& context, int32_t sampling) {
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
        CHECK(all_finite(out.losses));
        CHECK(all_finite(out.grad_documents));
    });
}

template <class T>
void pulled_apart(const char* test) {
    for (const std::string& isa : isas(test)) {
        negcos::Context context = harness::context(isa);
        struct Pull {
            double scale, hardness, margin;
        };
        for (const Pull& pull : {Pull{100.0, -80.0, 0.0},
                                 {60.0, -30.0, 0.0},
                                 {1000.0, -999.0, 0.0},
                                 {20.0, 9.0, 0.3},
                                 {20.0, 0.0, -0.7},
                                 {30.0, -29.0, 0.9},
                                 {3.0, 40.0, 0.0}})
            for (const T sign : {T(1), T(-1)})
                for (const int32_t objective : {NEGCOS_OBJECTIVE_SOFTMAX, NEGCOS_OBJECTIVE_DECOUPLED}) {
                    const double scale = pull.scale, hardness = pull.hardness, margin = pull.margin;
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

// Dot products that are exact, near 1024, at a scale that makes logits of thousands: their differences keep all digits,
// as they do in the plain loss, wherever no correction is added to a logit.
template <class T>
void large_logits(Contexts& contexts, int32_t sampling, bool dense) {
    const double eps = std::numeric_limits<T>::epsilon();
    for (const Feature feature : {dot, hard, weights, positives, same_document, label_smoothing, decoupled, both}) {
        if (feature == both && sampling != NEGCOS_SAMPLING_ALL) continue;
        INFO(kNames[feature]);
        Problem<T> p = ordinary<T>(sampling, dense, add(add(0, dot), feature));
        Random random(11);
        for (auto* rows : {&p.queries, &p.documents, &p.hard})
            for (size_t k = 0; k < rows->size(); ++k)
                (*rows)[k] = static_cast<T>(
                    k % static_cast<size_t>(p.dim) == 0 ? 32.0 : static_cast<double>(random.below(17) - 8) / 16);
        p.options.scale = 20.0 / 3, p.options.temperature = 1;
        const auto out = run_everywhere(contexts, p);
        const auto expected = oracle::evaluate<T>(p.options_of(), p.inputs(out.negatives));
        const double differences = 20;  // of logits
        CHECK(std::abs(out.numbers.loss - static_cast<double>(expected.loss)) < 4 * eps * differences);
        for (size_t i = 0; i < out.losses.size(); ++i)
            CHECK(std::abs(static_cast<double>(out.losses[i]) - static_cast<double>(expected.losses[i])) <
                  4 * eps * differences);
    }
}

#define NEGCOS_EACH_ENGINE(name, body)                   \
    TEST_CASE(name ", f32") {                            \
        each_engine<float>(name ", f32", body<float>);   \
    }                                                    \
    TEST_CASE(name ", f64") {                            \
        each_engine<double>(name ", f64", body<double>); \
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
    TEST_CASE("variant edges: drawn many times") {
        Contexts contexts("variant edges: drawn many times");
        drawn_many_times<float>(contexts);
        drawn_many_times<double>(contexts);
    }
    NEGCOS_EACH_ENGINE("variant edges: no negative left", no_negative_left)
    NEGCOS_EACH_ENGINE("variant edges: weights of 0 and 1", weights_zero)
    NEGCOS_EACH_ENGINE("variant edges: copies of the positive", copies_of_the_positive)
    NEGCOS_EACH_ENGINE("variant edges: extreme scales", extreme_scales)
    NEGCOS_EACH_ENGINE("variant edges: large logits keep their differences", large_logits)
    NEGCOS_EACH_ENGINE("variant edges: all rows alike", all_alike)
    NEGCOS_EACH_ENGINE("variant edges: NaN and Inf in a hard negative", broken_hard_negative)
    NEGCOS_EACH_ENGINE("variant edges: ranks of NaN and Inf", ranks_of_nan)
    NEGCOS_EACH_ENGINE("variant edges: prefixes are calls", prefixes_are_calls)
}

}  // namespace
