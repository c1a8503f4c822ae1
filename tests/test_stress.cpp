// SPDX-License-Identifier: Apache-2.0
//
// Many contexts on many threads: calls of mixed shapes on the same inputs, contexts destroyed and made anew while
// others run. Every result is compared.
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>

#include "pools.hpp"
#include "variants.hpp"

namespace {

using harness::Problem;
using harness::Random;
using variants::Features;

constexpr int kContexts = 64, kThreads = 16;

// A problem of any dtype, and its bytes.
struct Job {
    std::function<std::string(negcos::Context&)> run;
    std::string expected;
};

template <class T>
void add_jobs(std::vector<Job>& jobs, uint64_t seed) {
    constexpr Features kSome = 1u << variants::hard | 1u << variants::weights | 1u << variants::same_document;
    for (const int32_t sampling : variants::kSamplings)
        for (const Features features : {Features{0}, kSome})
            for (const variants::Shape shape :
                 {variants::Shape{5, 5, 3, 2, 1}, {130, 130, 40, 7, 2}, {400, 400, 24, 9, 1}}) {
                const auto problem = std::make_shared<Problem<T>>(variants::make<T>(shape, features, sampling, ++seed));
                Job job{[problem](negcos::Context& context) { return harness::run(context, *problem).bytes(); }, {}};
                negcos::Context serial = harness::context("scalar");
                job.expected = job.run(serial);
                jobs.push_back(std::move(job));
            }
}

// A context, its pool where it is the caller's, and who is in it.
struct Slot {
    std::mutex mutex;
    harness::Pool pool;
    std::unique_ptr<negcos::Context> context;
};

void stress(std::chrono::seconds duration) {
    std::vector<Job> jobs;
    add_jobs<float>(jobs, 0);
    add_jobs<double>(jobs, 100);
    std::vector<int32_t> threadings = harness::back_ends("stress");
    threadings.push_back(NEGCOS_THREADING_SERIAL);
    threadings.push_back(NEGCOS_THREADING_CALLBACK);
    const std::vector<std::string> isas = harness::isas("stress");

    std::vector<Slot> slots(kContexts);
    std::atomic<int64_t> calls{0}, wrong{0}, renewed{0};
    const auto end = std::chrono::steady_clock::now() + duration;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
        threads.emplace_back([&, t] {
            Random random(static_cast<uint64_t>(t));
            const auto any = [&random](const auto& all) -> const auto& {
                return all[static_cast<size_t>(random.below(static_cast<int64_t>(all.size())))];
            };
            // however slow the machine, or its emulator, some calls of each context
            while (std::chrono::steady_clock::now() < end || calls < kContexts) {
                Slot& slot = slots[static_cast<size_t>(random.below(kContexts))];
                const std::unique_lock<std::mutex> lock(slot.mutex, std::try_to_lock);
                if (!lock) continue;
                if (!slot.context || random.below(8) == 0) {
                    slot.context.reset();
                    const std::string& isa = any(isas);
                    const int32_t threading = any(threadings);
                    negcos::ContextOptions options;
                    if (threading == NEGCOS_THREADING_CALLBACK) options = harness::callback_options(slot.pool, isa);
                    options.isa = isa.c_str();
                    options.threading = threading;
                    options.threads = static_cast<int32_t>(1 + random.below(4));
                    slot.context = std::make_unique<negcos::Context>(options);
                    ++renewed;
                }
                const Job& job = any(jobs);
                if (job.run(*slot.context) != job.expected) ++wrong;
                ++calls;
            }
        });
    for (auto& thread : threads) thread.join();
    std::printf("%lld calls in %lld contexts\n", static_cast<long long>(calls), static_cast<long long>(renewed));
    CHECK(wrong == 0);
}

TEST_SUITE("bits") {
    TEST_CASE("stress: many contexts on many threads, for seconds") {
        stress(std::chrono::seconds(3));
    }
}
TEST_SUITE("slow") {
    TEST_CASE("stress: many contexts on many threads, for ten minutes") {
        stress(std::chrono::minutes(10));
    }
}

}  // namespace
