// SPDX-License-Identifier: Apache-2.0
//
// Laws of the formula, on generated shapes, numbers and options.
#include <rapidcheck.h>

#include <algorithm>

#include "harness.hpp"

namespace {

using namespace harness;

// rapidcheck shrinks the shape, options and seed of what fails.
Problem<double> any_problem(bool dense) {
    const int64_t batch = *rc::gen::inRange(1, 40), extra = *rc::gen::inRange(0, 8), dim = *rc::gen::inRange(1, 40);
    Problem<double> p(batch, batch + extra, dim, *rc::gen::arbitrary<uint64_t>());
    p.options.sampling = dense ? NEGCOS_SAMPLING_ALL : NEGCOS_SAMPLING_SHUFFLE;
    p.options.rounds = *rc::gen::inRange(0, 12);
    p.options.seed = *rc::gen::arbitrary<uint64_t>();
    p.options.step = *rc::gen::arbitrary<uint64_t>();
    p.options.scale = *rc::gen::inRange(-30, 30);
    p.options.temperature = *rc::gen::element(0.25, 1.0, 3.0);
    p.options.reduction = *rc::gen::element(0, 1);
    return p;
}

// A law holds on every instruction set: the bits are the same, so one context made once will do.
negcos::Context& shared_context() {
    static negcos::Context context = [] {
        negcos::ContextOptions options;
        options.threads = 2;
        return negcos::Context(options);
    }();
    return context;
}

void property(const char* law, void (*body)(bool dense)) {
    for (const bool dense : {false, true}) {
        INFO((dense ? "ALL" : "SHUFFLE"));
        CHECK(rc::check(law, [=] { body(dense); }));
    }
}

double dot(const std::vector<double>& a, const std::vector<double>& b, int64_t dim, int64_t i) {
    double sum = 0;
    for (int64_t c = 0; c < dim; ++c) sum += a[static_cast<size_t>(i * dim + c)] * b[static_cast<size_t>(i * dim + c)];
    return sum;
}

TEST_SUITE("property") {
    TEST_CASE("properties: losses are not negative, hits are their exp, sums are sums") {
        property("range", [](bool dense) {
            const Problem<double> p = any_problem(dense);
            const auto out = run(shared_context(), p);
            double sum = 0;
            for (size_t i = 0; i < out.losses.size(); ++i) {
                RC_ASSERT(out.losses[i] >= 0);
                RC_ASSERT(out.hit_probability[i] >= 0 && out.hit_probability[i] <= 1);
                RC_ASSERT(std::abs(out.hit_probability[i] - std::exp(-out.losses[i])) < 1e-13);
                sum += out.losses[i];
            }
            if (p.options.reduction == NEGCOS_REDUCTION_MEAN) sum /= static_cast<double>(p.batch);
            RC_ASSERT(std::abs(out.numbers.loss - sum) <= 1e-13 * (1 + std::abs(sum)));
        });
    }

    TEST_CASE("properties: multiplying rows by powers of two changes no loss and divides gradients") {
        property("rescaling", [](bool dense) {
            Problem<double> p = any_problem(dense);
            p.options.norm_floor = 0;
            const auto before = run(shared_context(), p);
            const int power = *rc::gen::inRange(-300, 300);
            for (double& x : p.queries) x = std::ldexp(x, power);
            const auto after = run(shared_context(), p);
            RC_ASSERT(after.losses == before.losses);
            RC_ASSERT(after.grad_documents == before.grad_documents);
            for (size_t k = 0; k < before.grad_queries.size(); ++k)
                RC_ASSERT(std::ldexp(after.grad_queries[k], power) == before.grad_queries[k]);
        });
    }

    TEST_CASE("properties: a cosine's gradient is orthogonal to its row") {
        property("orthogonal", [](bool dense) {
            const Problem<double> p = any_problem(dense);
            const auto out = run(shared_context(), p);
            const double factor = std::abs(p.options.scale / p.options.temperature) + 1;
            for (int64_t i = 0; i < p.batch; ++i)
                RC_ASSERT(std::abs(dot(out.grad_queries, p.queries, p.dim, i)) < 1e-13 * factor * 10);
            for (int64_t j = 0; j < p.count; ++j)
                RC_ASSERT(std::abs(dot(out.grad_documents, p.documents, p.dim, j)) < 1e-13 * factor * 10 * 40);
        });
    }

    TEST_CASE("properties: the gradient of the scale is that of the loss, by halves") {
        property("scale", [](bool dense) {
            Problem<double> p = any_problem(dense);
            const double h = 1e-5, at = p.options.scale;
            p.options.scale = at + h;
            const double above = run(shared_context(), p).numbers.loss;
            p.options.scale = at - h;
            const double below = run(shared_context(), p).numbers.loss;
            p.options.scale = at;
            const double got = run(shared_context(), p).numbers.grad_scale;
            RC_ASSERT(std::abs((above - below) / (2 * h) - got) <= 1e-6 * (1 + std::abs(got)) * 10);
        });
    }

    TEST_CASE("properties: scale and temperature count only as their ratio") {
        property("ratio", [](bool dense) {
            Problem<double> p = any_problem(dense);
            const auto before = run(shared_context(), p);
            p.options.scale *= 4;
            p.options.temperature *= 4;
            const auto after = run(shared_context(), p);
            RC_ASSERT(after.losses == before.losses);
            RC_ASSERT(after.grad_queries == before.grad_queries);
        });
    }

    TEST_CASE("properties: ALL does not mind the order of the other documents") {
        CHECK(rc::check("order", [] {
            Problem<double> p = any_problem(true);
            const auto before = run(shared_context(), p);
            // reverse the rows that are nobody's positive
            const auto row = [&](int64_t j) { return p.documents.begin() + j * p.dim; };
            for (int64_t a = p.batch, b = p.count - 1; a < b; ++a, --b) std::swap_ranges(row(a), row(a + 1), row(b));
            const auto after = run(shared_context(), p);
            RC_ASSERT(distance(after.losses, before.losses) < 1e-12);
            RC_ASSERT(distance(after.grad_queries, before.grad_queries) < 1e-10);
        }));
    }

    TEST_CASE("properties: GIVEN the negatives drawn, the same bits as SHUFFLE") {
        CHECK(rc::check("given", [] {
            Problem<double> p = any_problem(false);
            const auto drawn = run(shared_context(), p);
            Problem<double> q = p;
            q.given = drawn.negatives;
            if (q.given.empty()) return;
            q.options.sampling = NEGCOS_SAMPLING_GIVEN;
            const auto given = run(shared_context(), q);
            RC_ASSERT(given.losses == drawn.losses);
            RC_ASSERT(given.grad_queries == drawn.grad_queries);
            RC_ASSERT(distance(given.grad_documents, drawn.grad_documents) < 1e-11);
        }));
    }

    TEST_CASE("properties: weights of 1 and positives in order, the same bits as without them") {
        for (const int32_t sampling :
             {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_GROUPS, NEGCOS_SAMPLING_ALL})
            CHECK(rc::check("without", [=] {
                Problem<double> p = any_problem(false);
                p.options.sampling = sampling;
                if (sampling == NEGCOS_SAMPLING_UNIFORM && p.count < 2) p.options.rounds = 0;
                if (sampling == NEGCOS_SAMPLING_GROUPS)
                    p.options.rounds = std::min(p.options.rounds, static_cast<int32_t>(p.batch) - 1);
                const auto without = run(shared_context(), p);
                p.weights.assign(static_cast<size_t>(p.batch), 1.0);
                for (int64_t i = 0; i < p.batch; ++i) p.positives.push_back(i);
                const auto with = run(shared_context(), p);
                RC_ASSERT(with.numbers.loss == without.numbers.loss);
                RC_ASSERT(with.losses == without.losses);
                RC_ASSERT(with.grad_queries == without.grad_queries);
                RC_ASSERT(with.grad_documents == without.grad_documents);
            }));
    }
}

}  // namespace
