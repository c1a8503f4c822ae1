// SPDX-License-Identifier: Apache-2.0
//
// Every instruction set and type against quadruple precision; prints the worst errors, in units of eps. The "large"
// test cases are suite `slow`.
//
// NEGCOS_ACCURACY_OUT names a file for bench/peers/accuracy.py: each case as one line of JSON, its inputs, what the
// best instruction set gave, and the exact results.
#include <cstdlib>
#include <fstream>

#include "accuracy.hpp"

namespace {

using namespace harness;
using namespace accuracy;

std::string label_of(const Case& c) {
    return std::string(name_of(c.inputs)) + (c.groups ? ", GROUPS" : "");
}

std::string text_of(const Case& c) {
    char text[96];
    std::snprintf(text, sizeof text, "%s, scale %g, B %lld, d %lld, %s", label_of(c).c_str(), c.scale,
                  static_cast<long long>(c.batch), static_cast<long long>(c.dim),
                  c.rounds < 0 ? "all" : (std::to_string(c.rounds) + " rounds").c_str());
    return text;
}

// The worst of each, and where it was.
struct Worst {
    double value = 0;
    std::string where;
    void meet(double x, const std::string& at) {
        if (!(x <= value)) value = x, where = at;
    }
};

template <class T>
void write_array(std::ofstream& out, const std::vector<T>& values) {
    out.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(T)));
}
// A quadruple as the sum of two doubles.
void write_quads(std::ofstream& out, const std::vector<Quad>& values) {
    std::vector<double> parts;
    for (const Quad x : values) parts.push_back(static_cast<double>(x));
    for (const Quad x : values) parts.push_back(static_cast<double>(x - static_cast<Quad>(static_cast<double>(x))));
    write_array(out, parts);
}

template <class E>
void write_case(const char* dtype, const Case& c, const Problem<E>& p, const Outputs<E>& got,
                const oracle::Result<Quad>& exact) {
    const char* path = std::getenv("NEGCOS_ACCURACY_OUT");
    if (!path) return;
    std::ofstream out(path, std::ios::binary | std::ios::app);
    out << "{\"dtype\": \"" << dtype << "\", \"inputs\": \"" << label_of(c) << "\", \"scale\": " << c.scale
        << ", \"batch\": " << c.batch << ", \"dim\": " << c.dim << ", \"rounds\": " << c.rounds << "}\n";
    write_array(out, p.queries);
    write_array(out, p.documents);
    write_array(out, got.negatives);
    write_array(out, std::vector<double>{got.numbers.loss});
    write_array(out, got.grad_queries);
    write_array(out, got.grad_documents);
    write_quads(out, {exact.loss});
    write_quads(out, exact.grad_queries);
    write_quads(out, exact.grad_documents);
    REQUIRE(out.good());
}

template <class E>
void check_cases(const char* dtype, const std::vector<Case>& cases, const std::vector<std::string>& on, bool large) {
    Worst strict, loss, gradient, bound;
    for (const Case& c : cases) {
        const Problem<E> p = problem_of<E>(c);
        oracle::Result<Quad> exact;
        for (const std::string& isa : on) {
            INFO(dtype << " " << text_of(c) << " on " << isa);
            negcos::Context context = harness::context(isa);
            const Outputs<E> got = run(context, p);
            if (exact.losses.empty())
                exact = oracle::evaluate<E, Quad>(p.options, p.queries, p.documents, p.batch, p.count, p.dim,
                                                  got.negatives);
            const Errors e = errors_of(p, got, exact);
            const bool strictly = !large && c.scale <= 20;
            check(p, e, strictly, strictly && c.inputs != Inputs::nearly_parallel);
            strict.meet(e.loss_strict, text_of(c));
            loss.meet(e.loss_conditioned, text_of(c));
            gradient.meet(std::max(e.queries_conditioned, e.documents_conditioned), text_of(c));
            bound.meet(e.of_bound, text_of(c));
            if (isa == on.front()) write_case(dtype, c, p, got, exact);
        }
    }
    std::printf("%s: worst loss, relative to itself %.3g eps (%s), conditioned %.3g eps (%s)\n", dtype, strict.value,
                strict.where.c_str(), loss.value, loss.where.c_str());
    std::printf("%s: worst gradient, normwise and conditioned %.3g eps (%s); share of its bound %.3g (%s)\n", dtype,
                gradient.value, gradient.where.c_str(), bound.value, bound.where.c_str());
}

std::vector<Case> cases_of(std::initializer_list<double> scales,
                           std::initializer_list<std::tuple<int, int, int>> shapes, bool groups = false) {
    std::vector<Case> cases;
    for (const Inputs inputs : kInputs)
        for (const double scale : scales)
            for (const auto& [batch, dim, rounds] : shapes)
                cases.push_back({inputs, scale, batch, dim, rounds, groups});
    return cases;
}

template <class E>
void small_cases(const char* dtype) {
    const std::vector<std::string> on = isas(("accuracy: " + std::string(dtype)).c_str());
    check_cases<E>(dtype, cases_of({1, 20, 100, 1000}, {{48, 64, 8}, {6, 4096, 2}, {4, 4096, 3}, {40, 33, -1}}), on,
                   false);
    // Groups that divide the batch, and ones of which the last reaches back.
    check_cases<E>(dtype, cases_of({20, 1000}, {{48, 64, 15}, {40, 33, 12}, {7, 4096, 2}}, true), on, false);
}

// The best instruction set alone: that the others give the same bits is test_digests.cpp's.
template <class E>
void large_cases(const char* dtype) {
    const std::string best = isas("accuracy: large").front();
    check_cases<E>(dtype, cases_of({20, 1000}, {{65536, 16, 4}, {96, 4096, 8}, {512, 128, 16}, {256, 64, -1}}), {best},
                   true);
    check_cases<E>(dtype, cases_of({20, 1000}, {{600, 300, 299}}, true), {best}, true);
}

// Queries against all of 65,536 documents, of which these queries are judged: whatever the others are, their losses and
// gradients are those of the few queries alone against the same documents, their positives first. Of f32, at the
// layer's own scale, there are as many queries.
template <class E>
void large_all(const char* dtype) {
    constexpr int64_t kDocuments = 65536, kDim = 16;
    constexpr size_t kJudged = 12;
    for (const double scale : {1.0, 20.0, 1000.0}) {
        const int64_t batch = scale == 20 && sizeof(E) == sizeof(float) ? kDocuments : kDocuments / 16;
        INFO(dtype << " scale " << scale);
        Problem<E> p = problem_of<E>({Inputs::normal, scale, kDocuments, kDim, -1});
        p.batch = batch;
        p.queries.resize(static_cast<size_t>(batch * kDim));
        p.options.reduction = NEGCOS_REDUCTION_SUM;
        negcos::ContextOptions options;
        negcos::Context context(options);
        const Outputs<E> got = run(context, p);

        Problem<E> few(kJudged, kDocuments, kDim, 1);
        few.options = p.options;
        few.documents = p.documents;
        Outputs<E> of_few;
        for (size_t k = 0; k < kJudged; ++k) {
            const size_t i = k * static_cast<size_t>(batch / 11 - 1);
            std::copy_n(p.queries.begin() + static_cast<ptrdiff_t>(i * kDim), kDim,
                        few.queries.begin() + static_cast<ptrdiff_t>(k * kDim));
            if (i != k)
                std::swap_ranges(few.documents.begin() + static_cast<ptrdiff_t>(k * kDim),
                                 few.documents.begin() + static_cast<ptrdiff_t>((k + 1) * kDim),
                                 few.documents.begin() + static_cast<ptrdiff_t>(i * kDim));
            of_few.losses.push_back(got.losses[i]);
            for (size_t c = 0; c < kDim; ++c) of_few.grad_queries.push_back(got.grad_queries[i * kDim + c]);
        }
        const auto exact =
            oracle::evaluate<E, Quad>(few.options, few.queries, few.documents, few.batch, few.count, few.dim, {});
        // Losses and the documents' gradient are not of these queries alone: what was not computed counts as exact.
        of_few.numbers.loss = static_cast<double>(exact.loss);
        for (const Quad x : exact.grad_documents)
            of_few.grad_documents.push_back(static_cast<E>(static_cast<double>(x)));
        const Errors e = errors_of(few, of_few, exact);
        check(few, e, false, false);
        std::printf(
            "%s, all of 65536, scale %g: gradient of queries %.3g eps, conditioned %.3g; share of the bound %.3g\n",
            dtype, scale, e.queries_strict, e.queries_conditioned, e.of_bound);
    }
}

TEST_SUITE("accuracy") {
    TEST_CASE("accuracy: f32") {
        small_cases<float>("f32");
    }
    TEST_CASE("accuracy: f64") {
        small_cases<double>("f64");
    }
    TEST_CASE("accuracy: f16") {
        small_cases<half::F16>("f16");
    }
    TEST_CASE("accuracy: bf16") {
        small_cases<half::BF16>("bf16");
    }
}
TEST_SUITE("slow") {
    TEST_CASE("accuracy: large, f32") {
        large_cases<float>("f32");
    }
    TEST_CASE("accuracy: large, f64") {
        large_cases<double>("f64");
    }
    TEST_CASE("accuracy: 65536 documents, f32") {
        large_all<float>("f32");
    }
    TEST_CASE("accuracy: 65536 documents, f64") {
        large_all<double>("f64");
    }
}

}  // namespace
