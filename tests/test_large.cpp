// SPDX-License-Identifier: Apache-2.0
//
// Matrices of more than 2^31 elements, where an index in 32 bits would wrap. Suite `slow`: gigabytes of memory.
#include <sys/mman.h>

#include <algorithm>
#include <fstream>

#include "half.hpp"
#include "harness.hpp"

namespace {

using namespace harness;

// Pages that take memory only when they are touched.
template <class T>
class Pages {
public:
    explicit Pages(int64_t count) : bytes_(static_cast<size_t>(count) * sizeof(T)) {
        void* base = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        data = base == MAP_FAILED ? nullptr : static_cast<T*>(base);
    }
    ~Pages() {
        if (data) munmap(data, bytes_);
    }
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;
    T* data;

private:
    size_t bytes_;
};

// False, and says why, where the machine has less memory to give.
bool has_memory(const char* test, int64_t gibibytes) {
    std::ifstream file("/proc/meminfo");
    std::string word;
    int64_t kibibytes = 0;
    while (file >> word)
        if (word == "MemAvailable:") file >> kibibytes;
    if (kibibytes >= gibibytes << 20) return true;
    std::printf("SKIP: %s: needs %lld GiB of free memory, this machine has %lld\n", test,
                static_cast<long long>(gibibytes), static_cast<long long>(kibibytes >> 20));
    return false;
}

TEST_SUITE("slow") {
    // Few rows far apart: the last begins beyond 2^31 elements, in every matrix and in both engines.
    TEST_CASE("large: rows far apart") {
        constexpr int64_t kRows = 2201, kDim = 33, kStride = 1'000'003;
        static_assert((kRows - 1) * kStride > INT64_C(1) << 31);
        Problem<float> p(kRows, kRows, kDim, 3);
        p.options.rounds = 7;
        for (const std::string& isa : isas("large: rows far apart"))
            for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_ALL}) {
                INFO(isa << " sampling " << sampling);
                p.options.sampling = sampling;
                negcos::Context context = harness::context(isa);
                const Outputs<float> expected = run(context, p);
                Pages<float> queries(kRows * kStride), documents(kRows * kStride), grad_queries(kRows * kStride),
                    grad_documents(kRows * kStride), losses(kRows * kStride);
                for (const auto* pages : {&queries, &documents, &grad_queries, &grad_documents, &losses})
                    REQUIRE(pages->data != nullptr);
                for (int64_t i = 0; i < kRows; ++i) {
                    std::copy_n(p.queries.data() + i * kDim, kDim, queries.data + i * kStride);
                    std::copy_n(p.documents.data() + i * kDim, kDim, documents.data + i * kStride);
                }
                negcos::Batch batch;
                batch.queries = {queries.data, kRows, kDim, kStride, NEGCOS_DTYPE_F32, 0};
                batch.documents = {documents.data, kRows, kDim, kStride, NEGCOS_DTYPE_F32, 0};
                negcos::Result result;
                result.losses = {losses.data, kRows, 1, kStride, NEGCOS_DTYPE_F32, 0};
                result.grad_queries = {grad_queries.data, kRows, kDim, kStride, NEGCOS_DTYPE_F32, 0};
                result.grad_documents = {grad_documents.data, kRows, kDim, kStride, NEGCOS_DTYPE_F32, 0};
                context.evaluate(p.options, batch, result);
                CHECK(result.loss == expected.numbers.loss);
                int64_t wrong = 0;
                for (int64_t i = 0; i < kRows; ++i) {
                    const size_t at = static_cast<size_t>(i * kDim), bytes = kDim * sizeof(float);
                    wrong += losses.data[i * kStride] != expected.losses[static_cast<size_t>(i)];
                    wrong += std::memcmp(grad_queries.data + i * kStride, &expected.grad_queries[at], bytes) != 0;
                    wrong += std::memcmp(grad_documents.data + i * kStride, &expected.grad_documents[at], bytes) != 0;
                }
                CHECK(wrong == 0);
            }
    }

    // 2^31 + 2^14 elements side by side, their gradient too. The last rows are judged: they and their negatives are a
    // smaller problem of their own.
    TEST_CASE("large: more than 2^31 elements") {
        if (!has_memory("large: more than 2^31 elements", 10)) return;
        constexpr int64_t kDim = 1 << 14, kRows = (1 << 17) + 1, kJudged = 40;
        constexpr int32_t kRounds = 2;
        Pages<half::BF16> rows(kRows * kDim), gradient(kRows * kDim);
        REQUIRE((rows.data && gradient.data));
        Random random(1);
        std::vector<half::BF16> noise(static_cast<size_t>(kDim * 97 + 5));
        for (auto& x : noise) x = half::BF16(random.normal());
        const int64_t period = static_cast<int64_t>(noise.size());
        for (int64_t k = 0; k < kRows * kDim; k += period)
            std::copy_n(noise.data(), std::min(period, kRows * kDim - k), rows.data + k);
        std::vector<int32_t> negatives;
        for (int64_t i = 0; i < kRows; ++i)
            for (int32_t r = 1; r <= kRounds; ++r)
                negatives.push_back(static_cast<int32_t>(i + r < kRows ? i + r : i - r));
        const auto losses_of = [&](int64_t first, int64_t count, std::vector<half::BF16>& losses, half::BF16* out) {
            negcos::Context context{negcos::ContextOptions()};
            negcos::Options options;
            options.sampling = NEGCOS_SAMPLING_GIVEN;
            options.rounds = kRounds;
            options.reduction = NEGCOS_REDUCTION_SUM;
            std::vector<int32_t> own(negatives.begin() + first * kRounds,
                                     negatives.begin() + (first + count) * kRounds);
            for (int32_t& j : own) j -= static_cast<int32_t>(first);
            negcos::Batch batch;
            const half::BF16* data = rows.data + first * kDim;
            batch.queries = batch.documents = {data, count, kDim, kDim, NEGCOS_DTYPE_BF16, 0};
            batch.negatives = own.data();
            negcos::Result result;
            losses.resize(static_cast<size_t>(count));
            result.losses = {losses.data(), count, 1, 1, NEGCOS_DTYPE_BF16, 0};
            result.grad_queries = {out, count, kDim, kDim, NEGCOS_DTYPE_BF16, 0};
            context.evaluate(options, batch, result);
        };
        std::vector<half::BF16> all, few, few_gradient(static_cast<size_t>(kJudged * kDim));
        losses_of(0, kRows, all, gradient.data);
        losses_of(kRows - kJudged, kJudged, few, few_gradient.data());
        int64_t wrong = 0;
        for (int64_t k = 0; k < kJudged; ++k)
            wrong += all[static_cast<size_t>(kRows - kJudged + k)].bits != few[static_cast<size_t>(k)].bits;
        CHECK(wrong == 0);
        CHECK(std::memcmp(gradient.data + (kRows - kJudged) * kDim, few_gradient.data(),
                          few_gradient.size() * sizeof few_gradient[0]) == 0);
    }

    // 2^31 + 2^21 pairs: rows of one number, so that every cosine is 1 and every loss is log(1 + rounds).
    TEST_CASE("large: more than 2^31 sampled pairs") {
        if (!has_memory("large: more than 2^31 sampled pairs", 11)) return;
        constexpr int64_t kRows = 1 << 21;
        constexpr int32_t kRounds = 1024;
        const std::vector<float> ones(static_cast<size_t>(kRows), 1.0f);
        std::vector<float> losses(static_cast<size_t>(kRows));
        negcos::Context context{negcos::ContextOptions()};
        negcos::Options options;
        options.rounds = kRounds;
        const negcos::Batch batch(negcos::view(std::span<const float>(ones), kRows, 1),
                                  negcos::view(std::span<const float>(ones), kRows, 1));
        negcos::Result result;
        result.losses = negcos::view(std::span<float>(losses), kRows, 1);
        context.evaluate(options, batch, result);
        const float expected = static_cast<float>(std::log(1.0 + kRounds));
        int64_t wrong = 0;
        for (const float x : losses) wrong += !(std::abs(x - expected) <= 1e-6f * expected);
        CHECK(wrong == 0);
        CHECK(result.accuracy < 1e-6);  // all but a query that drew itself alone have ties
    }
}

}  // namespace
