// SPDX-License-Identifier: Apache-2.0
//
// exp and log, exhaustively: every f32 number that they can be given, against a wider type; prints the worst error in
// units of the last place. The suite `slow` does it for every instruction set and for log.
//
// NEGCOS_ELEMENTARY_STEP: every how many numbers, where they are too many for an emulated machine.
#include <cstdlib>
#include <cstring>
#include <thread>

#include "harness.hpp"
#include "kernel_table.hpp"
#include "simd_table.hpp"

namespace {

using namespace harness;

uint32_t step_of(uint32_t normal) {
    const char* text = std::getenv("NEGCOS_ELEMENTARY_STEP");
    const int step = text ? std::atoi(text) : 0;
    return step > 0 ? static_cast<uint32_t>(step) : normal;
}

float from_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

struct Worst {
    double ulps = 0;
    float at = 0;
    int64_t wrong = 0, count = 0;

    void meet(double error, float x) {
        if (!std::isfinite(error))
            ++wrong;
        else if (error > ulps)
            ulps = error, at = x;
    }
};

// The numbers with bits [begin, end), a few at a time, on all cores.
template <class Check>
Worst each_number(uint32_t begin, uint32_t end, uint32_t step, const Check& check) {
    constexpr uint32_t kTogether = 1 << 12;
    const uint32_t workers = std::max(1u, std::thread::hardware_concurrency());
    std::vector<Worst> worst(workers);
    std::vector<std::thread> threads;
    for (uint32_t w = 0; w < workers; ++w)
        threads.emplace_back([&, w] {
            std::vector<float> x;
            for (uint64_t from = begin + uint64_t{w} * kTogether * step; from < end;
                 from += uint64_t{workers} * kTogether * step) {
                x.clear();
                for (uint64_t bits = from; bits < end && x.size() < kTogether; bits += step)
                    x.push_back(from_bits(static_cast<uint32_t>(bits)));
                worst[w].count += static_cast<int64_t>(x.size());
                check(x, worst[w]);
            }
        });
    for (auto& thread : threads) thread.join();
    Worst all;
    for (const Worst& w : worst) {
        if (w.ulps > all.ulps) all.ulps = w.ulps, all.at = w.at;
        all.wrong += w.wrong;
        all.count += w.count;
    }
    CHECK(all.count == (int64_t{end} - begin + step - 1) / step);
    return all;
}

// Units of the last place of T at `exact`, a normal number of T; `got` and `exact` in a wider type.
template <class T, class W>
double ulps(W got, W exact) {
    constexpr int kDigits = std::numeric_limits<T>::digits;
    return static_cast<double>(std::abs(got - exact)) *
           std::scalbn(1.0, kDigits - 1 - std::ilogb(static_cast<double>(exact)));
}

// exp of every x <= 0: 0 below `lowest`, where the result would be subnormal, and above it within `most` ulp.
constexpr float kLowest = -87.33654f;
void check_exp(const std::string& isa, uint32_t step, double most) {
    const simd::Operations& operations = simd::operations_of(isa);
    const auto check = [&](const std::vector<float>& x, Worst& worst) {
        std::vector<float> got(x.size());
        operations.f32.exp_nonpositive(x.data(), got.data(), static_cast<int64_t>(x.size()));
        for (size_t k = 0; k < x.size(); ++k) {
            if (x[k] < kLowest) {
                worst.wrong += got[k] != 0;
                continue;
            }
            const double error = ulps<float>(static_cast<double>(got[k]), std::exp(static_cast<double>(x[k])));
            worst.meet(error, x[k]);
        }
    };
    const Worst worst = each_number(0x80000000u, 0xFF800001u, step, check);  // -0 to -Inf
    std::printf("exp on %s: %lld numbers, worst %.4f ulp at %.9g\n", isa.c_str(), static_cast<long long>(worst.count),
                worst.ulps, static_cast<double>(worst.at));
    CHECK(worst.ulps <= most);
    CHECK(worst.wrong == 0);
}

// The same bits of exp as on `reference`, which check_exp() has seen.
void check_same_exp(const std::string& isa, const std::string& reference, uint32_t step) {
    const simd::Operations &operations = simd::operations_of(isa), &expected = simd::operations_of(reference);
    const auto check = [&](const std::vector<float>& x, Worst& worst) {
        std::vector<float> got(x.size()), wanted(x.size());
        operations.f32.exp_nonpositive(x.data(), got.data(), static_cast<int64_t>(x.size()));
        expected.f32.exp_nonpositive(x.data(), wanted.data(), static_cast<int64_t>(x.size()));
        worst.wrong += std::memcmp(got.data(), wanted.data(), x.size() * sizeof(float)) != 0;
    };
    const Worst worst = each_number(0x80000000u, 0xFF800001u, step, check);
    std::printf("exp on %s: %lld numbers as on %s\n", isa.c_str(), static_cast<long long>(worst.count),
                reference.c_str());
    CHECK(worst.wrong == 0);
}

// log(1 + b) in f64 for every f32 b from 0 to 2^60.
void check_log(const std::string& isa, uint32_t step, double most) {
    const negcos::Kernels& kernels = kernels_of(isa);
    const auto check = [&](const std::vector<float>& x, Worst& worst) {
        const std::vector<double> one(x.size(), 1.0), b(x.begin(), x.end());
        std::vector<double> got(x.size());
        kernels.log_of_sum(one.data(), b.data(), got.data(), static_cast<int64_t>(x.size()));
        for (size_t k = 0; k < x.size(); ++k) {
            const long double exact = std::log1p(static_cast<long double>(b[k]));
            if (exact == 0) {
                worst.wrong += got[k] != 0;
                continue;
            }
            const double error = ulps<double>(static_cast<long double>(got[k]), exact);
            worst.meet(error, x[k]);
        }
    };
    const Worst worst = each_number(0, 0x5D800001u, step, check);
    std::printf("log(1 + b) on %s: %lld numbers, worst %.4f ulp of f64 at %.9g\n", isa.c_str(),
                static_cast<long long>(worst.count), worst.ulps, static_cast<double>(worst.at));
    CHECK(worst.ulps <= most);
    CHECK(worst.wrong == 0);
}

constexpr double kExpUlps = 1.5, kLogUlps = 1.5;

TEST_SUITE("accuracy") {
    TEST_CASE("elementary: exp of every f32 on the best instruction set, of every 1009th on the others") {
        const std::vector<std::string> names = isas("elementary: exp");
        for (const std::string& isa : names)
            check_exp(isa, isa == names.front() ? step_of(1) : step_of(1009), kExpUlps);
    }
    TEST_CASE("elementary: log of every 101st f32") {
        const std::vector<std::string> names = isas("elementary: log");
        for (const std::string& isa : names)
            check_log(isa, isa == names.front() ? step_of(101) : step_of(1009), kLogUlps);
    }
}
TEST_SUITE("slow") {
    TEST_CASE("elementary: exp of every f32 on every instruction set") {
        const std::vector<std::string> names = isas("elementary: exp, all");
        for (const std::string& isa : names)
            if (isa != names.front()) check_same_exp(isa, names.front(), step_of(1));
    }
    TEST_CASE("elementary: log of every f32") {
        check_log(isas("elementary: log, all").front(), step_of(1), kLogUlps);
    }
}

}  // namespace
