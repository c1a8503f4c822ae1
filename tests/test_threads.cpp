// SPDX-License-Identifier: Apache-2.0
//
// Threads: the caller's floating-point modes in workers, several contexts at once, and a caller's pool that
// fails. That bits do not depend on threads is test_digests.cpp's.
#include <sys/resource.h>

#include <atomic>
#include <cfenv>

#include "harness.hpp"
#include "pools.hpp"

namespace {

using namespace harness;

// Large enough that work is handed to threads, with sizes that divide nothing, and no larger: emulated machines run
// them.
template <class T>
std::vector<Problem<T>> problems() {
    std::vector<Problem<T>> result;
    for (const int32_t sampling :
         {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_CYCLIC, NEGCOS_SAMPLING_UNIFORM,
          NEGCOS_SAMPLING_LOG_UNIFORM, NEGCOS_SAMPLING_GIVEN, NEGCOS_SAMPLING_ALL, NEGCOS_SAMPLING_GROUPS}) {
        for (const int32_t similarity : {NEGCOS_SIMILARITY_COSINE, NEGCOS_SIMILARITY_DOT}) {
            Problem<T> p(521, 531, 67, 11);
            if (sampling == NEGCOS_SAMPLING_GIVEN) {
                p.give(9, 5, true);
            } else {
                p.options.sampling = sampling;
                p.options.rounds = 9;
            }
            p.options.similarity = similarity;
            if (similarity == NEGCOS_SIMILARITY_DOT) p.options.scale = 0.3;
            p.options.seed = 77;
            result.push_back(p);
        }
    }
    Problem<T> p(521, 531, 67, 12);
    p.options.objective = NEGCOS_OBJECTIVE_BATCH_SOFTMAX;
    result.push_back(p);
    return result;
}

TEST_SUITE("bits") {
    TEST_CASE("threads: the caller's rounding mode holds in workers") {
        Problem<float> p(1021, 1021, 67, 11);
        p.options.rounds = 9;
        negcos::Context serial = context("scalar");
        const int mode = std::fegetround();
        std::fesetround(FE_UPWARD);
        const std::string expected = run(serial, p).bytes();
        for (const int32_t threading : back_ends("threads: modes")) {
            negcos::Context parallel = context("scalar", 3, threading);
            CHECK(run(parallel, p).bytes() == expected);
        }
        std::fesetround(mode);
        CHECK(run(serial, p).bytes() != expected);
    }

    TEST_CASE("threads: a pool that fails or throws, at whatever call, leaves every output alone") {
        Problem<float> plain(421, 421, 67, 11);
        plain.options.rounds = 9;
        Problem<float> variant = plain;
        variant.harden(2, 12);
        variant.prefix_dims = {19, 67};
        const auto with = [](Problem<float> p, int32_t sampling, int32_t direction) {
            p.options.sampling = sampling;
            p.options.direction = direction;
            return p;
        };
        for (const Problem<float>& p :
             {with(plain, NEGCOS_SAMPLING_SHUFFLE, 0), with(plain, NEGCOS_SAMPLING_UNIFORM, 0),
              with(plain, NEGCOS_SAMPLING_ALL, 0), with(plain, NEGCOS_SAMPLING_GROUPS, 0),
              with(variant, NEGCOS_SAMPLING_SHUFFLE, 0), with(variant, NEGCOS_SAMPLING_ALL, NEGCOS_DIRECTION_BOTH)}) {
            Pool counting;
            negcos::Context good(callback_options(counting, "scalar"));
            const std::string expected = run(good, p).bytes();
            REQUIRE(counting.calls > (p.options.sampling == NEGCOS_SAMPLING_GROUPS ? 0 : 1));  // GROUPS has one phase
            for (int fail_at = 0; fail_at < counting.calls; fail_at += static_cast<int>(test_step())) {
                INFO("sampling " << p.options.sampling << ", hard negatives " << p.hard_per_query << ", call "
                                 << fail_at);
                Pool pool;
                pool.fail_at = fail_at;
                pool.throws = fail_at % 2 != 0;
                negcos::Context own(callback_options(pool, "scalar"));
                const int64_t hard = 421 * p.hard_per_query;
                std::vector<float> grad_queries(421 * 67, 7), grad_documents(421 * 67, 7), losses(421, 7),
                    grad_hard(static_cast<size_t>(hard * 67), 7);
                negcos::Batch batch(negcos::view(std::span<const float>(p.queries), 421, 67),
                                    negcos::view(std::span<const float>(p.documents), 421, 67));
                negcos::Result result;
                result.loss = -3;
                result.losses = negcos::view(std::span<float>(losses), 421, 1);
                result.grad_queries = negcos::view(std::span<float>(grad_queries), 421, 67);
                result.grad_documents = negcos::view(std::span<float>(grad_documents), 421, 67);
                if (hard > 0) {
                    batch.hard_negatives = negcos::view(std::span<const float>(p.hard), hard, 67);
                    result.grad_hard_negatives = negcos::view(std::span<float>(grad_hard), hard, 67);
                }
                const negcos::Options options = p.options_of();
                CHECK(negcos_evaluate(own.get(), &options, &batch, &result) == NEGCOS_STATUS_THREADS);
                CHECK(std::string(negcos_last_error()).find("parallel_for") != std::string::npos);
                CHECK(result.loss == -3);
                for (const auto* v : {&losses, &grad_queries, &grad_documents, &grad_hard})
                    for (const float x : *v) REQUIRE(x == 7);
                CHECK(run(own, p).bytes() == expected);  // the context is as good as before
            }
        }
    }

    TEST_CASE("threads: many contexts at once") {
        std::vector<Problem<float>> all = problems<float>();
        std::vector<std::string> expected;
        for (const auto& p : all) {
            negcos::Context serial = context("scalar");
            expected.push_back(run(serial, p).bytes());
        }
        std::atomic<int> wrong{0};
        std::vector<std::thread> threads;
        for (size_t t = 0; t < 6; ++t)
            threads.emplace_back([&, t] {
                negcos::ContextOptions options;
                options.threads = 2;
                negcos::Context own(options);
                for (size_t k = 0; k < 2 * all.size(); ++k) {
                    const size_t which = (k + t) % all.size();
                    if (run(own, all[which]).bytes() != expected[which]) ++wrong;
                }
            });
        for (auto& thread : threads) thread.join();
        CHECK(wrong == 0);
    }
}

}  // namespace
