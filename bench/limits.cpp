// SPDX-License-Identifier: Apache-2.0
#include "limits.hpp"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <thread>
#include <tuple>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace limits {
namespace {

using Clock = std::chrono::steady_clock;

// The same work on each of `threads` threads; seconds from the last start to the last end, starting threads left out.
double timed(int threads, const std::function<void(int)>& work) {
    std::barrier all(threads);
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t)
        others.emplace_back([&, t] {
            all.arrive_and_wait();
            work(t);
            all.arrive_and_wait();
        });
    all.arrive_and_wait();
    const auto start = Clock::now();
    work(0);
    all.arrive_and_wait();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    for (std::thread& other : others) other.join();
    return seconds;
}

double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
    return values[values.size() / 2];
}

struct Gather {
    const char* data;
    const int32_t* index;
    int64_t lines, begin, end, ahead;
};

void prefetch(const Gather& g, int64_t k) {
    if (g.ahead == 0) return;
    const char* row = g.data + g.index[k + g.ahead] * g.lines * 64;
    for (int64_t line = 0; line < g.lines; ++line) __builtin_prefetch(row + line * 64);
}

#if defined(__x86_64__)
// Eight sums, so that no addition waits for the one before; the empty asm keeps them.
__attribute__((target("avx512f"))) void read_avx512(const Gather& g) {
    __m512i sums[8] = {};
    for (int64_t k = g.begin; k < g.end; ++k) {
        prefetch(g, k);
        const char* row = g.data + g.index[k] * g.lines * 64;
        int64_t line = 0;
        for (; line + 8 <= g.lines; line += 8)
#pragma GCC unroll 8
            for (int s = 0; s < 8; ++s) sums[s] = _mm512_xor_si512(sums[s], _mm512_loadu_si512(row + (line + s) * 64));
        for (; line < g.lines; ++line) sums[0] = _mm512_xor_si512(sums[0], _mm512_loadu_si512(row + line * 64));
    }
    for (__m512i& sum : sums) asm volatile("" : "+v"(sum));
}

__attribute__((target("avx2"))) void read_avx2(const Gather& g) {
    __m256i sums[8] = {};
    for (int64_t k = g.begin; k < g.end; ++k) {
        prefetch(g, k);
        const __m256i* row = reinterpret_cast<const __m256i*>(g.data + g.index[k] * g.lines * 64);
        int64_t half = 0;
        for (; half + 8 <= 2 * g.lines; half += 8)
#pragma GCC unroll 8
            for (int s = 0; s < 8; ++s) sums[s] = _mm256_xor_si256(sums[s], _mm256_loadu_si256(row + half + s));
        for (; half < 2 * g.lines; ++half) sums[0] = _mm256_xor_si256(sums[0], _mm256_loadu_si256(row + half));
    }
    for (__m256i& sum : sums) asm volatile("" : "+x"(sum));
}

#define NEGCOS_FMA_PROBE(name, isa, type, set1, fmadd, constraint)                             \
    __attribute__((target(isa))) void name(int64_t rounds) {                                   \
        const type factor = set1(1);                                                           \
        type sums[12];                                                                         \
        for (type & sum : sums) sum = set1(1);                                                 \
        for (int64_t k = 0; k < rounds; ++k) {                                                 \
            _Pragma("GCC unroll 12") for (type & sum : sums) sum = fmadd(sum, factor, factor); \
            for (type & sum : sums) asm volatile("" : "+" constraint(sum));                    \
        }                                                                                      \
    }
NEGCOS_FMA_PROBE(fma_avx512_f32, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, "v")
NEGCOS_FMA_PROBE(fma_avx512_f64, "avx512f", __m512d, _mm512_set1_pd, _mm512_fmadd_pd, "v")
NEGCOS_FMA_PROBE(fma_avx2_f32, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, "x")
NEGCOS_FMA_PROBE(fma_avx2_f64, "avx2,fma", __m256d, _mm256_set1_pd, _mm256_fmadd_pd, "x")
#undef NEGCOS_FMA_PROBE
#endif

void read(const Gather& g) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return read_avx512(g);
    if (__builtin_cpu_supports("avx2")) return read_avx2(g);
#endif
    uint64_t sums[8] = {};
    for (int64_t k = g.begin; k < g.end; ++k) {
        prefetch(g, k);
        const char* row = g.data + g.index[k] * g.lines * 64;
        for (int64_t line = 0; line < g.lines; ++line) {
            uint64_t words[8];
            std::memcpy(words, row + line * 64, 64);
            for (int w = 0; w < 8; ++w) sums[w] ^= words[w];
        }
    }
    for (uint64_t& sum : sums) asm volatile("" : "+r"(sum));
}

}  // namespace

double gather_seconds(int64_t rows, int64_t row_bytes, int64_t pairs, int passes, int threads) {
    static std::map<std::tuple<int64_t, int64_t, int64_t, int, int>, double> known;
    double& best = known[{rows, row_bytes, pairs, passes, threads}];
    if (best > 0) return best;

    constexpr int64_t kFarthest = 16;
    const int64_t lines = (row_bytes + 63) / 64;
    struct Free {
        void operator()(char* memory) const { std::free(memory); }
    };
    const std::size_t bytes = static_cast<std::size_t>(rows * lines * 64);
    const std::unique_ptr<char, Free> data(static_cast<char*>(std::aligned_alloc(64, bytes)));
    std::memset(data.get(), 1, bytes);
    std::vector<int32_t> index(static_cast<std::size_t>(pairs + kFarthest));
    std::mt19937_64 random(1);
    for (int32_t& i : index) i = static_cast<int32_t>(random() % static_cast<uint64_t>(rows));

    best = std::numeric_limits<double>::infinity();
    for (const int64_t ahead : {0, 1, 2, 4, 8, 16}) {
        const auto once = [&] {
            return timed(threads, [&](int t) {
                for (int pass = 0; pass < passes; ++pass)
                    read({data.get(), index.data(), lines, pairs * t / threads, pairs * (t + 1) / threads, ahead});
            });
        };
        std::vector<double> seconds = {once()};  // a first one to warm up, and to see how often there is time for
        const int repeats = static_cast<int>(std::clamp(0.1 / seconds[0], 3.0, 31.0));
        seconds.clear();
        for (int k = 0; k < repeats; ++k) seconds.push_back(once());
        best = std::min(best, median(seconds));
    }
    return best;
}

double fma_rate(const std::string& isa, bool f64, int threads) {
    static std::map<std::tuple<std::string, bool, int>, double> known;
    double& rate = known[{isa, f64, threads}];
    if (rate > 0) return rate;
#if defined(__x86_64__)
    void (*probe)(int64_t) = isa == "avx512" ? (f64 ? fma_avx512_f64 : fma_avx512_f32)
                             : isa == "avx2" ? (f64 ? fma_avx2_f64 : fma_avx2_f32)
                                             : nullptr;
    if (probe) {
        constexpr int64_t kRounds = 4000000;
        const double lanes = (isa == "avx512" ? 64.0 : 32.0) / (f64 ? 8 : 4);
        std::vector<double> seconds;
        seconds.reserve(7);
        for (int k = 0; k < 7; ++k) seconds.push_back(timed(threads, [&](int) { probe(kRounds); }));
        rate = static_cast<double>(kRounds) * 12 * 2 * lanes * threads / median(seconds);
        return rate;
    }
#endif
    return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace limits
