// SPDX-License-Identifier: Apache-2.0
//
// The same bits for every thread count, back end and instruction set, from several contexts at once and after fork;
// and a caller's thread pool that fails.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cfenv>

#include "harness.hpp"

namespace {

using namespace harness;

// A caller's own pool: as many threads as asked for, the indices in reverse.
struct Pool {
    int threads = 3;
    std::atomic<int> calls{0};
    int fail_at = -1;  // the call that fails

    static int32_t run(void* data, int64_t count, void (*body)(void*, int64_t), void* task) {
        Pool& pool = *static_cast<Pool*>(data);
        if (pool.calls++ == pool.fail_at) return 1;
        std::atomic<int64_t> next{count};
        const auto work = [&] {
            for (int64_t index; (index = --next) >= 0;) body(task, index);
        };
        std::vector<std::thread> others;
        for (int t = 1; t < pool.threads; ++t) others.emplace_back(work);
        work();
        for (auto& other : others) other.join();
        return 0;
    }
};

negcos::ContextOptions callback_options(Pool& pool, const std::string& isa) {
    negcos::ContextOptions options;
    options.threading = NEGCOS_THREADING_CALLBACK;
    options.threads = pool.threads;
    options.isa = isa.c_str();
    options.parallel_for = Pool::run;
    options.parallel_for_data = &pool;
    return options;
}

// The back ends of this build, TBB and OpenMP.
std::vector<int32_t> back_ends(const char* test) {
    std::vector<int32_t> result;
    for (const int32_t threading : {NEGCOS_THREADING_TBB, NEGCOS_THREADING_OPENMP}) {
        negcos::ContextOptions options;
        options.threading = threading;
        try {
            negcos::Context context(options);
            result.push_back(threading);
        } catch (const negcos::Error&) {
            std::printf("SKIP: %s with %s: not in this build\n", test,
                        threading == NEGCOS_THREADING_TBB ? "TBB" : "OpenMP");
        }
    }
    return result;
}

// Large enough that work is handed to threads, with sizes that divide nothing.
template <class T>
std::vector<Problem<T>> problems() {
    std::vector<Problem<T>> result;
    for (const int32_t sampling :
         {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_GIVEN, NEGCOS_SAMPLING_ALL}) {
        for (const int32_t similarity : {NEGCOS_SIMILARITY_COSINE, NEGCOS_SIMILARITY_DOT}) {
            Problem<T> p(1021, 1031, 67, 11);
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
    Problem<T> p(1021, 1031, 67, 12);
    p.options.objective = NEGCOS_OBJECTIVE_BATCH_SOFTMAX;
    result.push_back(p);
    return result;
}

template <class T>
void same_bits(const char* test) {
    const std::vector<std::string> names = isas(test);
    const std::vector<int32_t> threadings = back_ends(test);
    for (const Problem<T>& p : problems<T>()) {
        negcos::Context reference = context("scalar");
        const std::string expected = run(reference, p).bytes();
        for (const std::string& isa : names) {
            negcos::Context serial = context(isa);
            INFO(isa << ", sampling " << p.options.sampling << ", similarity " << p.options.similarity);
            CHECK(run(serial, p).bytes() == expected);
            CHECK(run(serial, p, {1, 3, true}).bytes() == expected);  // alignment and strides change nothing
            for (const int32_t threads : {1, 2, 3, 5, 7, 16}) {
                INFO("threads " << threads);
                for (const int32_t threading : threadings) {
                    negcos::Context parallel = context(isa, threads, threading);
                    CHECK(run(parallel, p).bytes() == expected);
                    CHECK(run(parallel, p).bytes() == expected);  // and again, with warm memory
                }
                Pool pool;
                pool.threads = threads;
                negcos::Context own(callback_options(pool, isa));
                CHECK(run(own, p).bytes() == expected);
                if (threads > 1 && p.options.objective == NEGCOS_OBJECTIVE_SOFTMAX) CHECK(pool.calls > 0);
            }
        }
    }
}

TEST_SUITE("bits") {
    TEST_CASE("threads: the same bits everywhere, f32") {
        same_bits<float>("threads: the same bits everywhere, f32");
    }
    TEST_CASE("threads: the same bits everywhere, f64") {
        same_bits<double>("threads: the same bits everywhere, f64");
    }

    TEST_CASE("threads: the caller's rounding and flush-to-zero modes hold in workers") {
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

    TEST_CASE("threads: a pool that fails, at whatever call, leaves every output alone") {
        Problem<float> p(1021, 1021, 67, 11);
        for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_ALL}) {
            p.options.sampling = sampling;
            Pool counting;
            negcos::Context good(callback_options(counting, "scalar"));
            const std::string expected = run(good, p).bytes();
            REQUIRE(counting.calls > 1);
            for (int fail_at = 0; fail_at < counting.calls; ++fail_at) {
                INFO("sampling " << sampling << ", call " << fail_at);
                Pool pool;
                pool.fail_at = fail_at;
                negcos::Context own(callback_options(pool, "scalar"));
                std::vector<float> grad_queries(1021 * 67, 7), grad_documents(1021 * 67, 7), losses(1021, 7);
                negcos::Batch batch(negcos::view(std::span<const float>(p.queries), 1021, 67),
                                    negcos::view(std::span<const float>(p.documents), 1021, 67));
                negcos::Result result;
                result.loss = -3;
                result.losses = negcos::view(std::span<float>(losses), 1021, 1);
                result.grad_queries = negcos::view(std::span<float>(grad_queries), 1021, 67);
                result.grad_documents = negcos::view(std::span<float>(grad_documents), 1021, 67);
                CHECK(negcos_evaluate(own.get(), &p.options, &batch, &result) == NEGCOS_STATUS_THREADS);
                CHECK(std::string(negcos_last_error()).find("parallel_for") != std::string::npos);
                CHECK(result.loss == -3);
                for (const auto* v : {&losses, &grad_queries, &grad_documents})
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

    TEST_CASE("threads: a context made before fork works after it") {
        const Problem<float> p = problems<float>().front();
        for (const int32_t threading : back_ends("threads: fork")) {
            negcos::Context parallel = context("scalar", 3, threading);
            const std::string expected = run(parallel, p).bytes();
            const pid_t child = fork();
            REQUIRE(child >= 0);
            if (child == 0) {
                alarm(60);  // a child that hangs is a failure
                _exit(run(parallel, p).bytes() == expected ? 0 : 1);
            }
            int status = -1;
            REQUIRE(waitpid(child, &status, 0) == child);
            CHECK(WIFEXITED(status));
            CHECK(WEXITSTATUS(status) == 0);
            CHECK(run(parallel, p).bytes() == expected);
        }
    }
}

}  // namespace
