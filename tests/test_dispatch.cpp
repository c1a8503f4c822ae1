// SPDX-License-Identifier: Apache-2.0
//
// Which kernels run on which CPU, with CPUs made up.
#include <cstdlib>
#include <cstring>
#include <set>

#include "dispatch.hpp"
#include "harness.hpp"
#include "status.hpp"

namespace {

using namespace negcos;

constexpr uint32_t kAll = ~uint32_t{0};
constexpr uint32_t kWithAvx2 = kAvx2 | kFma | kF16c;
constexpr uint32_t kWithAvx512 = kWithAvx2 | kAvx512f | kAvx512cd | kAvx512dq | kAvx512bw | kAvx512vl;

bool built_in(const char* isa) {
    for (int32_t k = 0; k < isa_count(); ++k)
        if (std::strcmp(isa_name(k), isa) == 0) return true;
    return false;
}

std::string selected(uint32_t features, const char* name, const char* cap) {
    const Kernels* kernels = nullptr;
    const int32_t status = select_kernels(features, name, cap, &kernels);
    return status == NEGCOS_STATUS_OK ? kernels->isa : "status " + std::to_string(status);
}

const std::string kUnsupported = "status " + std::to_string(NEGCOS_STATUS_UNSUPPORTED_ISA);

TEST_SUITE("unit") {
    TEST_CASE("dispatch: scalar is always there, and last") {
        REQUIRE(isa_count() >= 1);
        CHECK(std::string(isa_name(isa_count() - 1)) == "scalar");
        CHECK(isa_name(-1) == nullptr);
        CHECK(isa_name(isa_count()) == nullptr);
        CHECK(selected(0, nullptr, nullptr) == "scalar");
        CHECK(selected(kAll, nullptr, nullptr) == isa_name(0));
    }

    TEST_CASE("dispatch: the best that the CPU has") {
        if (!built_in("avx2") || !built_in("avx512")) {
            std::printf("SKIP: dispatch: the best that the CPU has: not built for x86-64\n");
            return;
        }
        CHECK(selected(kWithAvx512, nullptr, nullptr) == "avx512");
        CHECK(selected(kWithAvx2, nullptr, nullptr) == "avx2");
        for (const uint32_t missing : {kAvx512f, kAvx512cd, kAvx512dq, kAvx512bw, kAvx512vl})
            CHECK(selected(kWithAvx512 & ~missing, nullptr, nullptr) == "avx2");
        CHECK(selected(kAvx2, nullptr, nullptr) == "scalar");  // without FMA
        CHECK(selected(kWithAvx2 & ~uint32_t{kF16c}, nullptr, nullptr) == "scalar");
        CHECK(selected(kWithAvx512 & ~uint32_t{kFma}, nullptr, nullptr) == "scalar");
    }

    // tests/everywhere.sh says what the machine that it emulates must select.
    TEST_CASE("dispatch: what this machine selects is the best that it can run") {
        std::string best;
        for (int32_t k = isa_count() - 1; k >= 0; --k)
            if (isa_available(isa_name(k), cpu_features())) best = isa_name(k);
        if (const char* expected = std::getenv("NEGCOS_EXPECTED_ISA")) CHECK(best == expected);
        CHECK(selected(cpu_features(), nullptr, nullptr) == best);
    }

    // Each processor below this one, feature by feature, newest first: what it selects gives the same bits.
    TEST_CASE("dispatch: features switched off one by one, the same bits") {
        harness::Problem<float> p(37, 41, 29, 3);
        p.options.rounds = 5;
        uint32_t features = cpu_features();
        std::set<std::string> ran;
        std::string expected;
        for (const uint32_t off :
             {0u, +kAvx512vl, +kAvx512bw, +kAvx512dq, +kAvx512cd, +kAvx512f, +kF16c, +kFma, +kAvx2, +kNeon}) {
            for (const uint32_t mask :
                 {features & ~off, cpu_features() & ~off}) {  // all newer ones off, and this alone
                const std::string isa = selected(mask, nullptr, nullptr);
                INFO(isa << " without feature " << off);
                CHECK(isa_available(isa.c_str(), mask));
                negcos::Context context = harness::context(isa);
                const std::string bytes = harness::run(context, p).bytes();
                if (expected.empty()) expected = bytes;
                CHECK(bytes == expected);
                ran.insert(isa);
            }
            features &= ~off;
        }
        CHECK(features == 0);
        CHECK(selected(features, nullptr, nullptr) == "scalar");
        size_t runnable = 0;
        for (int32_t k = 0; k < isa_count(); ++k) runnable += isa_available(isa_name(k), cpu_features());
        CHECK(ran.size() == (runnable));
    }

    TEST_CASE("dispatch: a name is that set or an error") {
        for (int32_t k = 0; k < isa_count(); ++k) CHECK(selected(kAll, isa_name(k), nullptr) == isa_name(k));
        CHECK(selected(kAll, "sse9", nullptr) == kUnsupported);
        CHECK(std::string(negcos_last_error()).find("sse9") != std::string::npos);
        CHECK(selected(kAll, "", nullptr) == kUnsupported);
        CHECK(selected(kAll, "AVX2", nullptr) == kUnsupported);
        for (int32_t k = 0; k + 1 < isa_count(); ++k) {
            CHECK(selected(0, isa_name(k), nullptr) == kUnsupported);
            CHECK(!isa_available(isa_name(k), 0));
        }
        CHECK(isa_available("scalar", 0));
        CHECK(!isa_available("sse9", kAll));
    }

    TEST_CASE("dispatch: the cap binds the default and never a name") {
        for (int32_t k = 0; k < isa_count(); ++k) CHECK(selected(kAll, nullptr, isa_name(k)) == isa_name(k));
        CHECK(selected(0, nullptr, isa_name(0)) == "scalar");  // not above the cap, and what runs
        CHECK(selected(kAll, isa_name(0), "scalar") == isa_name(0));
        CHECK(selected(kAll, nullptr, "sse9") == kUnsupported);
        CHECK(std::string(negcos_last_error()).find("NEGCOS_ISA") != std::string::npos);
    }
}

}  // namespace
