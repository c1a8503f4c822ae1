// SPDX-License-Identifier: Apache-2.0
//
// The ends of every range: empty and tiny batches, zero rows, huge, tiny and subnormal numbers, NaN and Inf.
#include <algorithm>
#include <cstdlib>
#include <functional>

#include "half.hpp"
#include "harness.hpp"
#include "modes.hpp"

namespace {

using namespace harness;

const int32_t kSamplings[] = {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_ALL, NEGCOS_SAMPLING_GROUPS};

template <class T>
void scale_row(std::vector<T>& rows, int64_t dim, int64_t i, double by) {
    for (int64_t c = 0; c < dim; ++c) {
        auto& x = rows[static_cast<size_t>(i * dim + c)];
        x = static_cast<T>(static_cast<double>(x) * by);
    }
}

template <class T>
void each(const char* test, const std::function<void(negcos::Context&, int32_t sampling)>& body) {
    for (const std::string& isa : isas(test))
        for (const int32_t sampling : kSamplings) {
            INFO(isa << " sampling " << sampling << " " << sizeof(T) * 8 << " bits");
            negcos::Context context = harness::context(isa);
            body(context, sampling);
        }
}

// As many of the rounds as a batch has.
int32_t rounds_of(int32_t sampling, int64_t batch, int32_t rounds) {
    return sampling == NEGCOS_SAMPLING_GROUPS && rounds >= batch ? static_cast<int32_t>(std::max<int64_t>(batch - 1, 0))
                                                                 : rounds;
}

template <class T>
void small_batches(negcos::Context& context, int32_t sampling) {
    for (const int64_t batch : {0, 1, 2})
        for (const int64_t extra : {0, 3})
            for (const int64_t dim : {0, 1, 5})
                for (const int32_t rounds : {0, 3})
                    for (const int32_t reduction : {NEGCOS_REDUCTION_MEAN, NEGCOS_REDUCTION_SUM}) {
                        INFO("B " << batch << " M " << batch + extra << " d " << dim << " rounds " << rounds);
                        Problem<T> p(batch, batch + extra, dim, 3);
                        p.options.sampling = sampling;
                        p.options.rounds = rounds_of(sampling, batch, rounds);
                        p.options.reduction = reduction;
                        const auto out = run(context, p);
                        check_against_oracle(p, out);
                        if (batch == 0) CHECK(out.numbers.loss == 0);
                    }
}

template <class T>
void zero_rows(negcos::Context& context, int32_t sampling) {
    Problem<T> p(9, 9, 17, 5);
    p.options.sampling = sampling;
    for (const int64_t i : {0, 4}) scale_row(p.queries, 17, i, 0);
    for (const int64_t j : {4, 7}) scale_row(p.documents, 17, j, 0);
    const auto out = run(context, p);
    CHECK(out.numbers.zero_rows == 4);
    check_against_oracle(p, out);
    for (size_t c = 0; c < 17; ++c) {
        CHECK(out.grad_queries[4 * 17 + c] == 0);
        CHECK(out.grad_documents[7 * 17 + c] == 0);
    }
}

// Rows whose squared norm would overflow or vanish have the cosines and, times their own length, the gradients of the
// same rows at an ordinary length.
template <class T>
void far_rows(negcos::Context& context, int32_t sampling) {
    const bool single = sizeof(T) == 4;
    for (const double up : {single ? 0x1p100 : 0x1p1000, 0x1p3})
        for (const double down : {single ? 0x1p-90 : 0x1p-900, 0x1p-2}) {
            Problem<T> plain(12, 14, 33, 6);
            plain.options.sampling = sampling;
            plain.options.norm_floor = 0;
            Problem<T> far = plain;
            scale_row(far.queries, 33, 2, up);
            scale_row(far.queries, 33, 3, down);
            scale_row(far.documents, 33, 2, down);
            scale_row(far.documents, 33, 5, up);
            const auto a = run(context, plain), b = run(context, far);
            CHECK(b.numbers.loss == doctest::Approx(a.numbers.loss).epsilon(1e-5));
            CHECK(distance(b.losses, a.losses) < (single ? 1e-4 : 1e-12));
            for (size_t c = 0; c < 33; ++c) {
                const auto same = [&](T far_gradient, T gradient, double by) {
                    const double expected = static_cast<double>(gradient) / by;
                    // A tiny gradient of a huge row may be below the type's range.
                    CHECK(std::abs(static_cast<double>(far_gradient) - expected) <=
                          1e-3 * std::abs(expected) + (single ? 1e-6 : 1e-12) / by + 1e-37);
                };
                same(b.grad_queries[2 * 33 + c], a.grad_queries[2 * 33 + c], up);
                same(b.grad_queries[3 * 33 + c], a.grad_queries[3 * 33 + c], down);
                same(b.grad_documents[2 * 33 + c], a.grad_documents[2 * 33 + c], down);
                same(b.grad_documents[5 * 33 + c], a.grad_documents[5 * 33 + c], up);
                same(b.grad_queries[7 * 33 + c], a.grad_queries[7 * 33 + c], 1);
            }
        }
}

template <class T>
void subnormal_rows(negcos::Context& context, int32_t sampling) {
    Problem<T> p(6, 6, 4, 2);
    p.options.sampling = sampling;
    for (size_t c = 0; c < 4; ++c) p.queries[c] = static_cast<T>(c + 1) * std::numeric_limits<T>::denorm_min();
    const auto out = run(context, p);
    CHECK(out.numbers.zero_rows == 0);
    for (const T x : out.losses) CHECK(std::isfinite(x));
    for (const T x : out.grad_queries) CHECK(std::isfinite(x));
    for (const T x : out.grad_documents) CHECK(std::isfinite(x));
}

// rounds 2 of 20 documents are gathered; 9 would be tiles, which leave a batch with NaN or Inf to the gather, so that
// the others' numbers differ in their last bits from those of a clean batch.
template <class T>
void contained(negcos::Context& context, int32_t sampling, int32_t rounds) {
    const T tolerance = rounds == 2 || sampling != NEGCOS_SAMPLING_SHUFFLE ? 0 : 16 * std::numeric_limits<T>::epsilon();
    constexpr T inf = std::numeric_limits<T>::infinity();
    for (const T bad : {std::numeric_limits<T>::quiet_NaN(), inf, -inf}) {
        Problem<T> p(20, 20, 9, 4);
        p.options.sampling = sampling;
        p.options.rounds = sampling == NEGCOS_SAMPLING_ALL ? 0 : rounds;
        const auto clean = run(context, p);
        p.queries[5 * 9 + 3] = bad;
        const auto out = run(context, p);
        CHECK(std::isnan(out.numbers.loss));
        for (size_t i = 0; i < 20; ++i) {
            if (i == 5) {
                CHECK(std::isnan(out.losses[i]));
                continue;
            }
            CHECK(std::abs(out.losses[i] - clean.losses[i]) <= tolerance * 20);
            for (size_t c = 0; c < 9; ++c)
                CHECK(std::abs(out.grad_queries[i * 9 + c] - clean.grad_queries[i * 9 + c]) <= tolerance);
        }
        CHECK(std::isnan(out.grad_queries[5 * 9]));
        CHECK(std::isnan(out.grad_documents[5 * 9]));  // its positive depends on it
        if (sampling != NEGCOS_SAMPLING_ALL)
            for (size_t j = 0; j < 20; ++j) {  // and of the others just those that it was compared with
                bool met = j == 5;
                for (size_t r = 0; r < static_cast<size_t>(rounds); ++r)
                    met |= out.negatives[5 * static_cast<size_t>(rounds) + r] == static_cast<int32_t>(j);
                CHECK(std::isnan(out.grad_documents[j * 9]) == met);
            }
    }
}

// NaN or Inf in a document reaches the queries that have it as a candidate, and no other.
template <class T>
void contained_document(negcos::Context& context, int32_t sampling) {
    constexpr T inf = std::numeric_limits<T>::infinity();
    for (const T bad : {std::numeric_limits<T>::quiet_NaN(), inf, -inf}) {
        Problem<T> p(20, 24, 9, 4);
        p.options.sampling = sampling;
        p.options.rounds = 2;
        p.documents[5 * 9 + 3] = bad;
        const auto out = run(context, p);
        CHECK(std::isnan(out.numbers.loss));
        for (size_t i = 0; i < 20; ++i) {
            bool met = i == 5 || sampling == NEGCOS_SAMPLING_ALL;
            for (size_t r = 0; r < 2 && !met; ++r) met = out.negatives[2 * i + r] == 5;
            CHECK(std::isnan(out.losses[i]) == met);
            for (size_t c = 0; c < 9; ++c) CHECK(std::isnan(out.grad_queries[i * 9 + c]) == met);
        }
        CHECK(std::isnan(out.grad_documents[5 * 9]));
    }
}

// Rows of 1e30 and of 1e-30 beside ordinary ones, all finite and as the oracle has them.
template <class T>
void mixed_rows(negcos::Context& context, int32_t sampling) {
    Problem<T> p(12, 14, 19, 8);
    p.options.sampling = sampling;
    p.options.norm_floor = 0;
    for (const int64_t i : {1, 6}) scale_row(p.queries, 19, i, 1e30);
    for (const int64_t i : {2, 7}) scale_row(p.queries, 19, i, 1e-30);
    for (const int64_t j : {1, 7, 12}) scale_row(p.documents, 19, j, 1e-30);
    for (const int64_t j : {2, 8, 13}) scale_row(p.documents, 19, j, 1e30);
    check_against_oracle(p, run(context, p));
}

// Flush-to-zero changes nothing of ordinary rows, and leaves subnormal rows finite: zero, where they are read as such.
template <class T>
void flushed(negcos::Context& context, int32_t sampling) {
    Problem<T> p(33, 37, 19, 8);
    p.options.sampling = sampling;
    p.options.rounds = 5;
    const std::string expected = run(context, p).bytes();
    for (size_t c = 0; c < 19; ++c) p.queries[c] = static_cast<T>(c + 1) * std::numeric_limits<T>::denorm_min();
    const Problem<T> tiny = p;
    p = Problem<T>(33, 37, 19, 8);
    p.options = tiny.options;
    const modes::FlushToZero flush;
    CHECK(run(context, p).bytes() == expected);
    const auto out = run(context, tiny);
    CHECK(out.numbers.zero_rows <= 1);
    CHECK(std::isfinite(out.numbers.loss));
    for (const auto* v : {&out.losses, &out.grad_queries, &out.grad_documents})
        for (const T x : *v) CHECK(std::isfinite(x));
}

// Every document twice or more: a tie each, and each counts.
template <class T>
void duplicates(negcos::Context& context, int32_t sampling) {
    Problem<T> p(24, 30, 13, 9);
    p.options.sampling = sampling;
    p.options.rounds = 6;
    for (size_t j = 1; j < 30; j += 1)
        for (size_t c = 0; c < 13; ++c) p.documents[j * 13 + c] = p.documents[(j % 3) * 13 + c];
    const auto out = run(context, p);
    check_against_oracle(p, out);
    if (sampling == NEGCOS_SAMPLING_ALL) CHECK(out.numbers.accuracy == 0);
}

// 16-bit rows: whatever happens to them, it is what happens to the same rows in f32.
template <class H>
void half_rows(negcos::Context& context, int32_t sampling) {
    using Limits = std::numeric_limits<H>;
    // vcvtph2ps and vcvtps2ph know no flush-to-zero on a processor; qemu's do.
    const bool emulated =
        std::getenv("NEGCOS_EMULATOR") && std::is_same_v<H, half::F16> && std::string(context.isa()) == "avx2";
    if (emulated)
        std::printf("SKIP: edges: rows of f16 flushed to zero on an emulated avx2: qemu converts otherwise\n");
    for (const H bad : {Limits::quiet_NaN(), Limits::infinity(), H(-static_cast<double>(Limits::infinity())), H(0.0),
                        Limits::denorm_min(), Limits::max()})
        for (const int64_t batch : {0, 1, 2, 19})
            for (const int64_t dim : {0, 1, 9, 40})
                for (const bool flush : {false, true}) {
                    if (flush && emulated) continue;
                    INFO("value " << static_cast<double>(bad) << " B " << batch << " d " << dim << " flush " << flush);
                    Problem<H> p(batch, batch + 2, dim, 5);
                    p.options.sampling = sampling;
                    p.options.rounds = rounds_of(sampling, batch, dim == 9 ? 0 : 3);
                    p.options.scale = dim == 40 ? -1e3 : 20;
                    if (batch > 0) std::fill_n(p.queries.begin(), dim, bad);
                    if (dim > 0) p.documents[static_cast<size_t>(batch * dim)] = bad;
                    Problem<float> wide(batch, batch + 2, dim, 5);
                    wide.options = p.options;
                    for (size_t k = 0; k < p.queries.size(); ++k) wide.queries[k] = static_cast<float>(p.queries[k]);
                    for (size_t k = 0; k < p.documents.size(); ++k)
                        wide.documents[k] = static_cast<float>(p.documents[k]);
                    Outputs<H> got;
                    Outputs<float> expected;
                    if (flush) {
                        const modes::FlushToZero flushing;
                        got = run(context, p);
                        expected = run(context, wide);
                    } else {
                        got = run(context, p);
                        expected = run(context, wide);
                    }
                    CHECK(got.numbers.zero_rows == expected.numbers.zero_rows);
                    CHECK((got.numbers.loss == expected.numbers.loss ||
                           (std::isnan(got.numbers.loss) && std::isnan(expected.numbers.loss))));
                    int64_t wrong = got.grad_queries.size() != expected.grad_queries.size();
                    for (size_t k = 0; k < got.grad_queries.size(); ++k)
                        wrong += got.grad_queries[k].bits != H(static_cast<double>(expected.grad_queries[k])).bits;
                    for (size_t k = 0; k < got.grad_documents.size(); ++k)
                        wrong += got.grad_documents[k].bits != H(static_cast<double>(expected.grad_documents[k])).bits;
                    CHECK(wrong == 0);
                }
}

template <class T>
void scales(negcos::Context& context, int32_t sampling) {
    for (const double scale : {0.0, -20.0, 1e4, 1e-30, -1e-3, 1e30}) {
        INFO("scale " << scale);
        Problem<T> p(30, 33, 11, 7);
        p.options.sampling = sampling;
        p.options.scale = scale;
        const auto out = run(context, p);
        if (std::abs(scale) <= 1e4) check_against_oracle(p, out);
        CHECK(std::isfinite(out.numbers.loss));
        for (const auto* v : {&out.losses, &out.hit_probability, &out.grad_queries, &out.grad_documents})
            for (const T x : *v) CHECK(std::isfinite(x));
    }
}

template <class T>
void ties(negcos::Context& context, int32_t sampling) {
    // Documents 0 and 1 are the same: each is the other's tie, and a tie is no win.
    Problem<T> p(2, 2, 6, 3);
    p.options.sampling = sampling;
    for (size_t c = 0; c < 6; ++c) p.documents[6 + c] = p.documents[c];
    if (sampling == NEGCOS_SAMPLING_GROUPS) {
        p.options.rounds = 1;
    } else if (sampling == NEGCOS_SAMPLING_SHUFFLE) {
        p.options.sampling = NEGCOS_SAMPLING_GIVEN;
        p.options.rounds = 2;
        p.given = {1, 0, 0, 1};  // the other, then the own positive, which is no negative for the rank
    }
    const auto out = run(context, p);
    CHECK(out.numbers.accuracy == 0);
    CHECK(out.numbers.mean_reciprocal_rank == 0.5);
    check_against_oracle(p, out);
}

TEST_SUITE("unit") {
    TEST_CASE("edges: small batches, f32") {
        each<float>("edges: small batches, f32", small_batches<float>);
    }
    TEST_CASE("edges: small batches, f64") {
        each<double>("edges: small batches, f64", small_batches<double>);
    }
    TEST_CASE("edges: zero rows, f32") {
        each<float>("edges: zero rows, f32", zero_rows<float>);
    }
    TEST_CASE("edges: zero rows, f64") {
        each<double>("edges: zero rows, f64", zero_rows<double>);
    }
    TEST_CASE("edges: far rows, f32") {
        each<float>("edges: far rows, f32", far_rows<float>);
    }
    TEST_CASE("edges: far rows, f64") {
        each<double>("edges: far rows, f64", far_rows<double>);
    }
    TEST_CASE("edges: subnormal rows, f32") {
        each<float>("edges: subnormal rows, f32", subnormal_rows<float>);
    }
    TEST_CASE("edges: subnormal rows, f64") {
        each<double>("edges: subnormal rows, f64", subnormal_rows<double>);
    }
    TEST_CASE("edges: NaN and Inf contained, f32") {
        for (const int32_t rounds : {2, 9})
            each<float>("edges: NaN and Inf contained, f32", [=](negcos::Context& context, int32_t sampling) {
                contained<float>(context, sampling, rounds);
            });
    }
    TEST_CASE("edges: NaN and Inf contained, f64") {
        for (const int32_t rounds : {2, 9})
            each<double>("edges: NaN and Inf contained, f64", [=](negcos::Context& context, int32_t sampling) {
                contained<double>(context, sampling, rounds);
            });
    }
    TEST_CASE("edges: NaN and Inf in a document, f32") {
        each<float>("edges: NaN and Inf in a document, f32", contained_document<float>);
    }
    TEST_CASE("edges: NaN and Inf in a document, f64") {
        each<double>("edges: NaN and Inf in a document, f64", contained_document<double>);
    }
    TEST_CASE("edges: rows of 1e30 and 1e-30, f32") {
        each<float>("edges: rows of 1e30 and 1e-30, f32", mixed_rows<float>);
    }
    TEST_CASE("edges: rows of 1e30 and 1e-30, f64") {
        each<double>("edges: rows of 1e30 and 1e-30, f64", mixed_rows<double>);
    }
    TEST_CASE("edges: flush to zero, f32") {
        each<float>("edges: flush to zero, f32", flushed<float>);
    }
    TEST_CASE("edges: flush to zero, f64") {
        each<double>("edges: flush to zero, f64", flushed<double>);
    }
    TEST_CASE("edges: duplicated documents, f32") {
        each<float>("edges: duplicated documents, f32", duplicates<float>);
    }
    TEST_CASE("edges: duplicated documents, f64") {
        each<double>("edges: duplicated documents, f64", duplicates<double>);
    }
    TEST_CASE("edges: rows of f16") {
        each<half::F16>("edges: rows of f16", half_rows<half::F16>);
    }
    TEST_CASE("edges: rows of bf16") {
        each<half::BF16>("edges: rows of bf16", half_rows<half::BF16>);
    }
    TEST_CASE("edges: scales, f32") {
        each<float>("edges: scales, f32", scales<float>);
    }
    TEST_CASE("edges: scales, f64") {
        each<double>("edges: scales, f64", scales<double>);
    }
    TEST_CASE("edges: ties, f32") {
        each<float>("edges: ties, f32", ties<float>);
    }
    TEST_CASE("edges: ties, f64") {
        each<double>("edges: ties, f64", ties<double>);
    }
}

}  // namespace
