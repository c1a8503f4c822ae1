// SPDX-License-Identifier: Apache-2.0
//
// The elementary functions against long double, and the norms at the ends of their range.
#include <cstring>

#include "harness.hpp"
#include "kernel_table.hpp"
#include "plan.hpp"
#include "simd_table.hpp"

namespace {

using namespace harness;

// The distance of `got` from `exact` in units of the last place of T at `exact`.
template <class T>
double ulps(T got, long double exact) {
    const T rounded = static_cast<T>(exact);
    const long double unit = std::nextafter(std::abs(rounded), std::numeric_limits<T>::infinity()) - std::abs(rounded);
    return static_cast<double>(std::abs(static_cast<long double>(got) - exact) / unit);
}

template <class T>
void exponentials(double most_ulps) {
    const double lowest = sizeof(T) == 4 ? -87.33 : -708.39;
    std::vector<T> x;
    Random random(1);
    for (int k = 0; k < 200000; ++k) x.push_back(static_cast<T>(lowest * random.uniform()));
    for (int k = 0; k < 100000; ++k) x.push_back(static_cast<T>(-std::exp2(-40 * random.uniform())));
    for (const std::string& isa : isas("kernels: exp")) {
        const simd::LaneOperations<T>& operations = simd::operations_of(isa).lanes<T>();
        std::vector<T> result(x.size());
        operations.exp_nonpositive(x.data(), result.data(), static_cast<int64_t>(x.size()));
        double worst = 0;
        for (size_t k = 0; k < x.size(); ++k)
            if (const double error = ulps(result[k], std::exp(static_cast<long double>(x[k]))); !(error <= worst))
                worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
        INFO(isa);
        CHECK(worst <= most_ulps);

        constexpr T inf = std::numeric_limits<T>::infinity();
        const T ends[] = {T(0),
                          T(-0.0),
                          static_cast<T>(2 * lowest),
                          -inf,
                          std::numeric_limits<T>::quiet_NaN(),
                          -std::numeric_limits<T>::denorm_min()};
        T values[6];
        operations.exp_nonpositive(ends, values, 6);
        CHECK(values[0] == 1);
        CHECK(values[1] == 1);
        CHECK(values[2] == 0);
        CHECK(values[3] == 0);
        CHECK(std::isnan(values[4]));
        CHECK(values[5] == 1);
    }
}

// A row of two numbers, whose norm the kernel must get right whatever their size.
template <class T>
void norms(long double most_error) {
    using Limits = std::numeric_limits<T>;
    for (const std::string& isa : isas("kernels: norms")) {
        for (int exponent = Limits::min_exponent - Limits::digits; exponent < Limits::max_exponent; exponent += 3) {
            const T row[] = {static_cast<T>(std::ldexp(0.75L, exponent)), static_cast<T>(std::ldexp(-1.0L, exponent))};
            T inverse = -1, project = -1, rescale = -1;
            negcos::Rows<T> rows;
            rows.data = row;
            rows.stride = 2;
            rows.count = 1;
            rows.inverse = &inverse;
            rows.above_floor = &project;
            rows.rescale = &rescale;
            const negcos::NormCounts counts = kernels_of(isa).table<T>().norms(rows, 2, 0.0, {0, 1});
            const long double exact =
                std::sqrt(static_cast<long double>(row[0]) * row[0] + static_cast<long double>(row[1]) * row[1]);
            INFO(isa << " 2^" << exponent);
            if (exact == 0) {
                CHECK(counts.zero == 1);
                CHECK(inverse == 0);
                continue;
            }
            CHECK(counts.zero == 0);
            CHECK(counts.rescaled == (rescale != 1));
            CHECK(project == 1);
            // the unit row is what everything else is computed from: row * rescale * inverse
            const long double length = exact * static_cast<long double>(rescale) * static_cast<long double>(inverse);
            CHECK(std::abs(length - 1) <= most_error);
            int power = 0;
            CHECK(std::frexp(rescale, &power) == T(0.5));  // a power of two, so exact
        }
    }
}

TEST_SUITE("unit") {
    TEST_CASE("kernels: exp, f32") {
        exponentials<float>(1.1);
    }
    TEST_CASE("kernels: exp, f64") {
        exponentials<double>(1.2);
    }

    TEST_CASE("kernels: log of a sum keeps what the sum rounds away") {
        std::vector<double> a, b;
        Random random(2);
        for (int k = 0; k < 200000; ++k) {
            a.push_back(k % 2 ? 1.0 : random.uniform());
            b.push_back((k % 2 ? 0.0 : 1.0 - a.back()) + std::exp2(-60 + 90 * random.uniform()));
        }
        for (const std::string& isa : isas("kernels: log")) {
            std::vector<double> result(a.size());
            kernels_of(isa).log_of_sum(a.data(), b.data(), result.data(), static_cast<int64_t>(a.size()));
            double worst = 0;
            for (size_t k = 0; k < a.size(); ++k) {
                const long double exact = std::log1p((static_cast<long double>(a[k]) - 1) + b[k]);
                // near log 1 the input's own rounding counts: a sum of two doubles below 2 is exact to 2^-106
                worst = std::max(worst, std::min(ulps(result[k], exact),
                                                 static_cast<double>(std::abs(result[k] - exact) / 0x1p-52L)));
            }
            INFO(isa);
            CHECK(worst <= 2.0);
        }
    }

    TEST_CASE("plan: sparse samples are gathered, dense ones are tiles") {
        CHECK_FALSE(negcos::tiles_are_cheaper<float>(50, 4096, 128));
        CHECK_FALSE(negcos::tiles_are_cheaper<float>(50, 256, 128));
        CHECK(negcos::tiles_are_cheaper<float>(200, 256, 128));
        CHECK(negcos::tiles_are_cheaper<double>(4096, 4096, 1024));
        CHECK_FALSE(negcos::tiles_are_cheaper<float>(INT32_MAX, INT64_MAX, 1));
    }

    TEST_CASE("plan: groups are multiplied where the loss is plain, unless they are large") {
        negcos::Options options;
        options.sampling = NEGCOS_SAMPLING_GROUPS;
        negcos_batch batch{};
        batch.queries.rows = batch.documents.rows = 1000;
        batch.queries.cols = batch.documents.cols = 64;
        const negcos_result result{};
        const auto grouped = [&] {
            return negcos::plan_of<float>(options, batch, result).walk == negcos::Walk::groups;
        };
        CHECK(grouped());
        options.similarity = NEGCOS_SIMILARITY_DOT;
        CHECK(grouped());
        options.rounds = negcos::kMostGroup - 1;
        CHECK(grouped());
        options.rounds = negcos::kMostGroup;
        CHECK_FALSE(grouped());
        options.rounds = 0;
        CHECK_FALSE(grouped());
        options.rounds = 4;
        options.margin = 0.1;
        CHECK_FALSE(grouped());
        options.margin = 0;
        const double weights[1000] = {};
        batch.weights = weights;
        CHECK_FALSE(grouped());
    }

    TEST_CASE("kernels: norms, f32") {
        norms<float>(4e-7L);
    }
    TEST_CASE("kernels: norms, f64") {
        norms<double>(1e-15L);
    }
}

}  // namespace
