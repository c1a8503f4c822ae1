// SPDX-License-Identifier: Apache-2.0
//
// The whole loss family: every option and input beyond the plain loss, alone, in pairs and in random sets, on every
// sampling, against the oracle and finite differences; and the oracle against differences of itself and against sums
// written out by hand.
#include <algorithm>
#include <cmath>

#include "half.hpp"
#include "harness.hpp"
#include "variants.hpp"

namespace {

using namespace harness;
using namespace variants;

// Drawn negatives are rows of the sampling's own, whatever the positives are.
template <class T>
void check_drawn(const Problem<T>& p, const std::vector<int32_t>& negatives) {
    const auto positive = [&](int64_t i) { return p.positives.empty() ? i : p.positives[static_cast<size_t>(i)]; };
    const int32_t sampling = p.options.sampling;
    if (sampling == NEGCOS_SAMPLING_GIVEN || sampling == NEGCOS_SAMPLING_ALL) return;
    if (sampling == NEGCOS_SAMPLING_GROUPS) {  // positives of other queries, none of which comes twice
        if (!p.positives.empty()) return;
        for (int64_t i = 0; i < p.batch; ++i) {
            std::vector<int32_t> drawn(negatives.begin() + i * p.rounds(), negatives.begin() + (i + 1) * p.rounds());
            drawn.push_back(static_cast<int32_t>(i));
            std::sort(drawn.begin(), drawn.end());
            CHECK(std::adjacent_find(drawn.begin(), drawn.end()) == drawn.end());
            CHECK(drawn.front() >= 0);
            CHECK(drawn.back() < p.batch);
        }
        return;
    }
    for (int64_t r = 0; r < p.rounds(); ++r) {
        std::vector<int64_t> drawn, all;
        int64_t wrong = 0;
        for (int64_t i = 0; i < p.batch; ++i) {
            drawn.push_back(negatives[static_cast<size_t>(i * p.rounds() + r)]);
            all.push_back(positive(i));
            wrong += drawn.back() < 0 || drawn.back() >= p.count;
            if (sampling == NEGCOS_SAMPLING_UNIFORM || sampling == NEGCOS_SAMPLING_LOG_UNIFORM)
                wrong += drawn.back() == all.back();
        }
        CHECK(wrong == 0);
        if (sampling == NEGCOS_SAMPLING_UNIFORM || sampling == NEGCOS_SAMPLING_LOG_UNIFORM) continue;
        std::sort(drawn.begin(), drawn.end());
        std::sort(all.begin(), all.end());
        CHECK(drawn == all);
    }
}

template <class T>
void against_oracle(const char* test) {
    Contexts contexts(test);
    Tally tally;
    each_set([&](Features features, int32_t sampling, const Shape& shape, uint64_t number) {
        INFO("#" << number << " " << names_of(features) << " sampling " << sampling << " B " << shape.batch << " M "
                 << shape.count << " d " << shape.dim << " rounds " << shape.rounds << " H " << shape.hard);
        const Problem<T> p = make<T>(shape, features, sampling, number);
        const Outputs<T> got = run_everywhere(contexts, p, static_cast<int64_t>(number));
        check_clear(p, got, tally);
        check_drawn(p, got.negatives);
    });
    CHECK(tally.drops_unclear * 50 <= tally.problems);
    CHECK(tally.ranks_unclear * 20 <= tally.problems);
}

// More than one block and chunk of the tile engine, and more than one task of the gather.
template <class T>
void large(const char* test) {
    Contexts contexts(test);
    Tally tally;
    Random random(12);
    int64_t k = 0;
    for (const Shape& shape : {Shape{200, 390, 9, 3, 2}, {193, 193, 17, 190, 1}})
        for (const Feature f : {hard, prefixes, both, sigmoid, decoupled, label_smoothing, same_document, positives})
            for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_ALL, NEGCOS_SAMPLING_GROUPS}) {
                // among so many similarities one is always too close to call in f32
                const Features features =
                    draw_features(add(add(0, f), prefixes), random) & ~with(0, false_negative_margin);
                if (static_cast<uint64_t>(++k) % test_step() != 0) continue;
                INFO(names_of(features) << " sampling " << sampling << " B " << shape.batch << " M " << shape.count);
                const Problem<T> p = make<T>(shape, features, sampling, static_cast<uint64_t>(k));
                check_clear(p, run_everywhere(contexts, p, k), tally);
            }
    CHECK(tally.drops_unclear == 0);
}

// 16-bit rows are f32, rounded once.
template <class H>
void half_rows(const char* test) {
    Contexts contexts(test);
    const auto wrong = [](const std::vector<H>& got, const std::vector<float>& expected) {
        int64_t count = got.size() != expected.size();
        for (size_t k = 0; k < got.size(); ++k) count += got[k].bits != H(static_cast<double>(expected[k])).bits;
        return count;
    };
    each_set([&](Features features, int32_t sampling, const Shape& shape, uint64_t number) {
        if (number % 3 != 0) return;
        INFO("#" << number << " " << names_of(features) << " sampling " << sampling);
        const Problem<H> p = make<H>(shape, features, sampling, number);
        Problem<float> wide = make<float>(shape, features, sampling, number);
        for (auto [to, from] :
             {std::pair{&wide.queries, &p.queries}, {&wide.documents, &p.documents}, {&wide.hard, &p.hard}})
            for (size_t k = 0; k < to->size(); ++k) (*to)[k] = static_cast<float>((*from)[k]);
        const Outputs<H> got = run_everywhere(contexts, p, static_cast<int64_t>(number));
        const Outputs<float> expected = run(contexts.best(), wide);
        const auto same = [](double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); };
        CHECK(same(got.numbers.loss, expected.numbers.loss));
        CHECK(same(got.numbers.grad_scale, expected.numbers.grad_scale));
        CHECK(same(got.numbers.grad_bias, expected.numbers.grad_bias));
        CHECK(same(got.numbers.accuracy, expected.numbers.accuracy));
        CHECK(got.numbers.excluded == expected.numbers.excluded);
        CHECK(got.negatives == expected.negatives);
        CHECK(wrong(got.logits, expected.logits) == 0);
        CHECK(wrong(got.grad_queries, expected.grad_queries) == 0);
        CHECK(wrong(got.grad_documents, expected.grad_documents) == 0);
        CHECK(wrong(got.grad_hard_negatives, expected.grad_hard_negatives) == 0);
        // losses are doubles before they are rounded: by way of f32 they may be one step of 16 bits away
        for (const auto& [narrow, f32] :
             {std::pair{&got.losses, &expected.losses}, {&got.hit_probability, &expected.hit_probability}})
            for (size_t i = 0; i < narrow->size(); ++i)
                CHECK(std::abs((*narrow)[i].bits - H(static_cast<double>((*f32)[i])).bits) <= 1);
    });
}

// move(h) shifts something by h: the slope of what loss() then says.
template <class Move, class Loss>
auto difference(double h, Move&& move, Loss&& loss) {
    move(h);
    const auto up = loss();
    move(-2 * h);
    const auto down = loss();
    move(h);
    return (up - down) / static_cast<decltype(up)>(2 * h);
}

// Slopes of `loss` in every kind of input of p, beside the gradients given; one coordinate, and all of them at once.
template <class T, class Gradient, class Loss>
void check_differences(Problem<T>& p, const Gradient& queries, const Gradient& documents, const Gradient& hard_rows,
                       double of_scale, double of_bias, double h, double tolerance, Loss&& loss) {
    Random random(3);
    const auto check_slope = [&](const char* what, auto&& move, double expected) {
        INFO(what);
        CHECK(static_cast<double>(difference(h, move, loss)) == doctest::Approx(expected).epsilon(tolerance).scale(1));
    };
    const auto check_rows = [&](const char* what, std::vector<T>& rows, const Gradient& gradient) {
        REQUIRE(gradient.size() == rows.size());
        if (rows.empty()) return;
        const size_t k = static_cast<size_t>(random.below(static_cast<int64_t>(rows.size())));
        check_slope(
            what, [&](double by) { rows[k] += static_cast<T>(by); }, static_cast<double>(gradient[k]));
        std::vector<double> direction;
        double expected = 0;
        for (size_t j = 0; j < rows.size(); ++j) {
            direction.push_back(random.normal());
            expected += direction[j] * static_cast<double>(gradient[j]);
        }
        check_slope(
            what,
            [&](double by) {
                for (size_t j = 0; j < rows.size(); ++j) rows[j] += static_cast<T>(by * direction[j]);
            },
            expected);
    };
    check_rows("queries", p.queries, queries);
    check_rows("documents", p.documents, documents);
    check_rows("hard negatives", p.hard, hard_rows);
    check_slope(
        "scale", [&](double by) { p.options.scale += by; }, of_scale);
    if (p.options.objective == NEGCOS_OBJECTIVE_SIGMOID)
        check_slope(
            "bias", [&](double by) { p.options.bias += by; }, of_bias);
    else
        CHECK(of_bias == 0);
}

constexpr Shape kSmall[] = {{7, 9, 5, 4, 2}, {6, 6, 8, 30, 1}, {5, 8, 3, 2, 3}};

// For finite differences: nothing drops in or out within a step, and no zero rows, where the loss has no slope.
template <class T>
bool smooth(const Problem<T>& p, const std::vector<int32_t>& negatives) {
    return oracle::evaluate<T>(p.options_of(), p.inputs(negatives)).drop_clearance > 1e-3;
}

void library_differences(const char* test) {
    Contexts contexts(test);
    uint64_t checked = 0;
    each_set([&](Features features, int32_t sampling, const Shape&, uint64_t number) {
        // The library cannot hold still what hardness sees: the oracle's differences do that.
        if (has(features, hardness) || has(features, zero_rows)) return;
        INFO("#" << number << " " << names_of(features) << " sampling " << sampling);
        Problem<double> p = make<double>(kSmall[number % std::size(kSmall)], features, sampling, number);
        p.options.scale = p.options.scale > 0 ? 3 : -2;
        const Outputs<double> out = run_everywhere(contexts, p);
        if (!smooth(p, out.negatives)) return;
        ++checked;
        check_differences(p, out.grad_queries, out.grad_documents, out.grad_hard_negatives, out.numbers.grad_scale,
                          out.numbers.grad_bias, 1e-6, 2e-6, [&] {
                              return run(contexts.best(), p, {0, 0, false}).numbers.loss;
                          });
    });
    CHECK(checked * test_step() > 200);
}

void oracle_differences() {
    using Wide = long double;
    uint64_t checked = 0;
    each_set([&](Features features, int32_t, const Shape&, uint64_t number) {
        if (has(features, zero_rows)) return;
        INFO("#" << number << " " << names_of(features));
        Problem<Wide> p = make<Wide>(kSmall[number % std::size(kSmall)], features,
                                     number % 2 ? NEGCOS_SAMPLING_GIVEN : NEGCOS_SAMPLING_ALL, number);
        p.options.scale = p.options.scale > 0 ? 3 : -2;
        if (!smooth(p, p.given)) return;
        ++checked;
        const oracle::Inputs<Wide> held = p.inputs(p.given);
        const auto exact = oracle::evaluate<Wide, Wide>(p.options_of(), held);
        check_differences(p, exact.grad_queries, exact.grad_documents, exact.grad_hard,
                          static_cast<double>(exact.grad_scale), static_cast<double>(exact.grad_bias), 1e-7, 1e-9,
                          [&] { return oracle::evaluate<Wide, Wide>(p.options_of(), p.inputs(p.given), held).loss; });
    });
    CHECK(checked * test_step() > 200);
}

/*
 * Queries (1,0) (0,1) (1,1) (1,-1) against all of the documents (1,0) (1,1) (1,1) (0,1): with s = 1/sqrt(2) the cosines
 *            d0   d1   d2   d3
 *      q0     1    s    s    0
 *      q1     0    s    s    1
 *      q2     s    1    1    s
 *      q3     s    0    0   -s
 * and each loss written out from them.
 */
Problem<double> example() {
    Problem<double> p(4, 4, 2);
    p.queries = {1, 0, 0, 1, 1, 1, 1, -1};
    p.documents = {1, 0, 1, 1, 1, 1, 0, 1};
    p.options.sampling = NEGCOS_SAMPLING_ALL;
    p.options.scale = 2;
    return p;
}
const double s = std::sqrt(0.5);
const double kCosines[4][4] = {{1, s, s, 0}, {0, s, s, 1}, {s, 1, 1, s}, {s, 0, 0, -s}};

void check_losses(Contexts* contexts, const Problem<double>& p, const std::vector<double>& losses, double loss,
                  int64_t excluded = 0) {
    const auto exact = oracle::evaluate<double>(p.options_of(), p.inputs({}));
    CHECK(distance(losses, exact.losses) < 1e-13);
    CHECK(static_cast<double>(exact.loss) == doctest::Approx(loss).epsilon(1e-13));
    CHECK(exact.excluded == excluded);
    if (!contexts) return;
    const auto got = run_everywhere(*contexts, p);
    CHECK(distance(got.losses, losses) < 1e-13);
    CHECK(got.numbers.loss == doctest::Approx(loss).epsilon(1e-13));
    CHECK(got.numbers.excluded == excluded);
    for (size_t i = 0; i < losses.size(); ++i)
        CHECK(got.hit_probability[i] == doctest::Approx(std::exp(-losses[i])).epsilon(1e-13));
}

double log_sum_exp(const std::vector<double>& z) {
    double sum = 0;
    for (const double x : z) sum += std::exp(x);
    return std::log(sum);
}
double softplus(double x) {
    return std::log(1 + std::exp(x));
}
double mean(const std::vector<double>& v) {
    return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
}

// Of each query: the logits of its negatives by z(i, j), and the loss by the logits' function.
template <class Logit, class Loss>
std::vector<double> written_out(Logit&& z, Loss&& loss) {
    std::vector<double> losses;
    for (int i = 0; i < 4; ++i) {
        std::vector<double> negatives;
        for (int j = 0; j < 4; ++j)
            if (j != i && !std::isinf(z(i, j))) negatives.push_back(z(i, j));
        losses.push_back(loss(z(i, i), negatives));
    }
    return losses;
}
const auto plain = [](int i, int j) { return 2 * kCosines[i][j]; };
double softmax_loss(double z, std::vector<double> negatives) {
    negatives.push_back(z);
    return log_sum_exp(negatives) - z;
}

void by_hand(Contexts* contexts) {
    const Problem<double> base = example();
    const auto check = [&](const char* what, auto&& change, const std::vector<double>& losses, int64_t excluded = 0) {
        INFO(what);
        Problem<double> p = base;
        change(p);
        check_losses(contexts, p, losses, mean(losses), excluded);
    };
    using P = Problem<double>;
    check(
        "plain", [](P&) {}, written_out(plain, softmax_loss));
    check(
        "decoupled", [](P& p) { p.options.objective = NEGCOS_OBJECTIVE_DECOUPLED; },
        written_out(plain, [](double z, const auto& negatives) { return log_sum_exp(negatives) - z; }));
    check(
        "sigmoid", [](P& p) { p.options.objective = NEGCOS_OBJECTIVE_SIGMOID, p.options.bias = -0.5; },
        written_out(plain, [](double z, const auto& negatives) {
            double loss = softplus(-(z - 0.5));
            for (const double x : negatives) loss += softplus(x - 0.5);
            return loss;
        }));
    check(
        "label_smoothing", [](P& p) { p.options.label_smoothing = 0.2; },
        written_out(plain, [](double z, auto negatives) {
            negatives.push_back(z);
            return log_sum_exp(negatives) - 0.8 * z - 0.2 * mean(negatives);
        }));
    check(
        "margin", [](P& p) { p.options.margin = 0.25; },
        written_out([](int i, int j) { return 2 * (kCosines[i][j] - (i == j ? 0.25 : 0)); }, softmax_loss));
    check(
        "hardness", [](P& p) { p.options.hardness = 1.5; },
        written_out([](int i, int j) { return (i == j ? 2 : 3.5) * kCosines[i][j]; }, softmax_loss));
    const std::vector<double> log_q = {-0.5, -1, -2, -3};
    for (const int32_t correction : {NEGCOS_CORRECTION_ALL_CANDIDATES, NEGCOS_CORRECTION_NEGATIVES_ONLY})
        check(
            "log_probability", [&](P& p) { p.log_probability = log_q, p.options.correction = correction; },
            written_out(
                [&](int i, int j) {
                    const bool left_alone = i == j && correction == NEGCOS_CORRECTION_NEGATIVES_ONLY;
                    return plain(i, j) - (left_alone ? 0 : log_q[static_cast<size_t>(j)]);
                },
                softmax_loss));
    const double out = -HUGE_VAL;
    check(
        "SAME_DOCUMENT_ID",
        [](P& p) {
            p.document_ids = {5, 6, 6, 5};
            p.options.exclude = NEGCOS_EXCLUDE_SAME_DOCUMENT_ID;
        },
        written_out([=](int i, int j) { return i != j && i + j == 3 ? out : plain(i, j); }, softmax_loss), 4);
    check(
        "SAME_QUERY_ID",
        [](P& p) {
            p.query_ids = {1, 2, 1, 1};
            p.options.exclude = NEGCOS_EXCLUDE_SAME_QUERY_ID;
        },
        written_out([=](int i, int j) { return i != j && i != 1 && j != 1 ? out : plain(i, j); }, softmax_loss), 6);
    // q1 loses d3, q3 loses all: s, 0 and 0 are above -s + 0.1
    check(
        "false_negative_margin", [](P& p) { p.options.false_negative_margin = 0.1; },
        written_out([=](int i, int j) { return i != j && kCosines[i][j] > kCosines[i][i] + 0.1 ? out : plain(i, j); },
                    softmax_loss),
        4);

    const std::vector<double> rows = written_out(plain, softmax_loss);
    const std::vector<double> columns = written_out([](int i, int j) { return plain(j, i); }, softmax_loss);
    std::vector<double> both_ways;
    for (size_t i = 0; i < 4; ++i) both_ways.push_back((rows[i] + columns[i]) / 2);
    check(
        "BOTH", [](P& p) { p.options.direction = NEGCOS_DIRECTION_BOTH; }, both_ways);

    // The first column alone: queries 1 0 1 1 and documents 1 1 1 0, whose cosines are 1, and 0 where one is 0.
    const std::vector<double> narrow =
        written_out([](int i, int j) { return i == 1 || j == 3 ? 0.0 : 2.0; }, softmax_loss);
    std::vector<double> nested;
    for (size_t i = 0; i < 4; ++i) nested.push_back(0.5 * narrow[i] + 3 * rows[i]);
    check(
        "prefixes",
        [](P& p) {
            p.prefix_dims = {1, 2}, p.prefix_weights = {0.5, 3};
        },
        nested);
    check(
        "prefixes that leave columns out", [](P& p) { p.prefix_dims = {1}; }, narrow);

    // Positives 1 1 0 3: query i's other documents are its negatives.
    std::vector<double> of_positives;
    const std::vector<int64_t> own = {1, 1, 0, 3};
    for (int i = 0; i < 4; ++i) {
        std::vector<double> z;
        for (int j = 0; j < 4; ++j) z.push_back(plain(i, j));
        of_positives.push_back(log_sum_exp(z) - z[static_cast<size_t>(own[static_cast<size_t>(i)])]);
    }
    check(
        "positives", [&](P& p) { p.positives = own; }, of_positives);

    // One hard negative each: (0,1), whose cosines are those of d3.
    std::vector<double> hardened;
    for (int i = 0; i < 4; ++i) {
        std::vector<double> z{plain(i, 3)};
        for (int j = 0; j < 4; ++j) z.push_back(plain(i, j));
        hardened.push_back(log_sum_exp(z) - plain(i, i));
    }
    check(
        "hard_negatives", [](P& p) { p.hard_per_query = 1, p.hard = {0, 1, 0, 1, 0, 1, 0, 1}; }, hardened);

    INFO("weights");
    Problem<double> p = base;
    p.weights = {2, 0, 1, 0.5};
    const double weighted = 2 * rows[0] + rows[2] + 0.5 * rows[3];
    check_losses(contexts, p, rows, weighted / 3.5);
    p.options.reduction = NEGCOS_REDUCTION_SUM;
    check_losses(contexts, p, rows, weighted);
}

TEST_SUITE("unit") {
    TEST_CASE("variants: the oracle against differences of its own loss") {
        oracle_differences();
    }
    TEST_CASE("variants: the oracle against losses written out") {
        by_hand(nullptr);
    }
    TEST_CASE("variants: losses written out") {
        Contexts contexts("variants: losses written out");
        by_hand(&contexts);
    }
    TEST_CASE("variants: sets of features, f32") {
        against_oracle<float>("variants: sets of features, f32");
    }
    TEST_CASE("variants: sets of features, f64") {
        against_oracle<double>("variants: sets of features, f64");
    }
    TEST_CASE("variants: sets of features, f16") {
        half_rows<half::F16>("variants: sets of features, f16");
    }
    TEST_CASE("variants: sets of features, bf16") {
        half_rows<half::BF16>("variants: sets of features, bf16");
    }
    TEST_CASE("variants: blocks, chunks and tasks, f32") {
        large<float>("variants: blocks, chunks and tasks, f32");
    }
    TEST_CASE("variants: blocks, chunks and tasks, f64") {
        large<double>("variants: blocks, chunks and tasks, f64");
    }
    TEST_CASE("variants: finite differences") {
        library_differences("variants: finite differences");
    }
}

}  // namespace
