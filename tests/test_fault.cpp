// SPDX-License-Identifier: Apache-2.0
//
// Whatever fails, at whatever call: a status, no output touched, nothing lost, no hang, and the context is as good as
// before. Memory, threads and files fail by faults.hpp.
#include <doctest/doctest.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "child.hpp"
#include "faults.hpp"
#include "half.hpp"
#include "pools.hpp"
#include "variants.hpp"

namespace {

using faults::kFiles;
using faults::kMemory;
using faults::kNever;
using faults::kThreads;
using harness::again;
using harness::kAgain;
using harness::kRan;
using harness::Problem;
using variants::Features;

constexpr Features kEverything = 1u << variants::hard | 1u << variants::weights | 1u << variants::positives |
                                 1u << variants::same_document | 1u << variants::prefixes;

// A call whose memory is the test's, so that what happens in it is the library's alone.
struct Call {
    static constexpr int64_t kRows = 521, kDim = 67, kHard = 2;  // large enough for threads
    Problem<float> problem;
    negcos::Options options;
    std::vector<float> losses, grad_queries, grad_documents, grad_hard;
    negcos::Batch batch;
    negcos::Result result;

    Call(int32_t sampling, Features features)
        : problem(variants::make<float>({kRows, kRows, kDim, 9, kHard}, features, sampling, 5)),
          options(problem.options_of()),
          batch(negcos::view(std::span<const float>(problem.queries), kRows, kDim),
                negcos::view(std::span<const float>(problem.documents), problem.count, kDim)) {
        problem.fill(batch);
        if (!problem.hard.empty())
            batch.hard_negatives = negcos::view(std::span<const float>(problem.hard), kRows * kHard, kDim);
    }
    Call(const Call&) = delete;

    void clear() {
        losses.assign(kRows, 7);
        grad_queries.assign(kRows * kDim, 7);
        grad_documents.assign(static_cast<size_t>(problem.count * kDim), 7);
        grad_hard.assign(problem.hard.size(), 7);
        result = negcos::Result();
        result.loss = result.accuracy = -3;
        result.losses = negcos::view(std::span<float>(losses), kRows, 1);
        result.grad_queries = negcos::view(std::span<float>(grad_queries), kRows, kDim);
        result.grad_documents = negcos::view(std::span<float>(grad_documents), problem.count, kDim);
        if (!grad_hard.empty())
            result.grad_hard_negatives = negcos::view(std::span<float>(grad_hard), kRows * kHard, kDim);
    }
    int32_t run(negcos_context* context) { return negcos_evaluate(context, &options, &batch, &result); }
    bool untouched() const {
        for (const auto* v : {&losses, &grad_queries, &grad_documents, &grad_hard})
            for (const float x : *v)
                if (x != 7) return false;
        return result.loss == -3 && result.accuracy == -3;
    }
    std::string bytes() const {
        std::string all(reinterpret_cast<const char*>(&result.loss), sizeof result.loss);
        for (const auto* v : {&losses, &grad_queries, &grad_documents, &grad_hard})
            all.append(reinterpret_cast<const char*>(v->data()), v->size() * sizeof(float));
        return all;
    }
};

struct Kind {
    const char* name;
    int32_t sampling;
    Features features;
};
constexpr Kind kKinds[] = {
    {"gather", NEGCOS_SAMPLING_SHUFFLE, 0}, {"gather, drawn with replacement", NEGCOS_SAMPLING_UNIFORM, 0},
    {"tiles", NEGCOS_SAMPLING_ALL, 0},      {"gather, everything", NEGCOS_SAMPLING_GIVEN, kEverything},
    {"groups", NEGCOS_SAMPLING_GROUPS, 0},  {"tiles, everything", NEGCOS_SAMPLING_ALL, kEverything},
};

#ifdef __SANITIZE_ADDRESS__
constexpr bool kWatched = true;
#else
constexpr bool kWatched = false;
#endif

// The address sanitizer has blocks of its own, and finds what is lost by itself.
int64_t live_blocks() {
    return kWatched ? 0 : faults::live_blocks();
}

constexpr int32_t kThreadsAsked = 3;

negcos_context_options options_for(int32_t threading) {
    negcos_context_options options;
    negcos_context_options_init(&options, sizeof options);
    options.threading = threading;
    options.threads = kThreadsAsked;
    return options;
}

std::vector<int32_t> threadings(const char* test) {
    std::vector<int32_t> all = harness::back_ends(test);
    all.push_back(NEGCOS_THREADING_SERIAL);
    return all;
}

// Whether work() says yes in a child: what keeps threads, or could end the process, is tried there.
template <class Work>
bool child_succeeds(Work&& work) {
    const int status = harness::status_of_child([&] { return work() ? 0 : 1; });
    if (status > 1) MESSAGE("ended with ", status);
    return status == 0;
}

// Whether the library has it, asked without using it.
bool available(int32_t threading) {
    negcos_context_options options = options_for(threading);
    options.threads = 1;
    negcos_context* context = nullptr;
    const bool has = negcos_context_create(&options, &context) == NEGCOS_STATUS_OK;
    negcos_context_destroy(context);
    return has;
}

enum Outcome { kWrong = 1, kSurvived = 0, kDone = 2 };  // done: there were fewer calls than that

struct Failure {
    faults::Kind kind;
    int64_t nth;
    bool and_later;
    // The back end has run before in this process.
    bool started = false;
};

// The first call in a new context while something fails, and one after that.
Outcome first_call(Call& call, int32_t threading, const Failure& failure, const std::string& expected) {
    negcos_context_options options = options_for(threading);
    negcos_context* context = nullptr;
    if (failure.started) {
        call.clear();
        if (negcos_context_create(&options, &context) != NEGCOS_STATUS_OK || call.run(context)) return kWrong;
        negcos_context_destroy(context);
    }
    if (negcos_context_create(&options, &context) != NEGCOS_STATUS_OK) return kWrong;
    call.clear();
    faults::arm(failure.kind, failure.nth, failure.and_later);
    const int32_t status = call.run(context);
    const bool fewer = faults::disarm() <= failure.nth;
    // Without threads the calling one does it all.
    const int32_t refused = failure.kind == kMemory ? NEGCOS_STATUS_OUT_OF_MEMORY : NEGCOS_STATUS_OK;
    bool right = status == NEGCOS_STATUS_OK ? call.bytes() == expected : status == refused && call.untouched();
    if (!right) std::printf("status %d, %s\n", status, negcos_last_error());
    if (fewer && status != NEGCOS_STATUS_OK) right = false;
    call.clear();
    right = call.run(context) == NEGCOS_STATUS_OK && call.bytes() == expected && right;
    negcos_context_destroy(context);
    return !right ? kWrong : fewer ? kDone : kSurvived;
}

std::string expected_of(Call& call) {
    negcos::Context serial = harness::context("scalar");
    call.clear();
    REQUIRE(call.run(serial.get()) == NEGCOS_STATUS_OK);
    return call.bytes();
}

// Whether a call in a new context is right, with nothing failing.
bool works(int32_t threading) {
    Call call(NEGCOS_SAMPLING_SHUFFLE, 0);
    return first_call(call, threading, {kMemory, kNever, false}, expected_of(call)) == kDone;
}

TEST_SUITE("fault") {
    TEST_CASE("fault: memory, in a serial call: a status, nothing lost") {
        for (const Kind& kind : kKinds) {
            Call call(kind.sampling, kind.features);
            const std::string expected = expected_of(call);
            for (const bool and_later : {false, true}) {
                Outcome outcome = kSurvived;
                for (int64_t nth = 0; outcome == kSurvived; ++nth) {
                    INFO(std::string(kind.name) << ", allocation " << nth);
                    const int64_t before = live_blocks();
                    outcome = first_call(call, NEGCOS_THREADING_SERIAL, {kMemory, nth, and_later}, expected);
                    CHECK(outcome != kWrong);
                    CHECK(live_blocks() == before);
                    if (nth > 0) continue;
                    CHECK(outcome == kSurvived);  // there is something to fail
                }
            }
        }
    }

    // What the runtimes themselves do not survive is left out: libgomp ends the process when it has no memory or,
    // beyond the threads that were tried before, no thread; and the C library's dlopen, by which oneTBB starts, crashes
    // when there is no memory at all.
    TEST_CASE("fault: memory and threads, with every back end") {
        if (kWatched) {
            std::printf("SKIP: fault: with every back end: the address sanitizer's own threads need memory\n");
            return;
        }
        for (const int32_t threading : harness::back_ends("fault"))
            for (const Kind& kind : kKinds) {
                Call call(kind.sampling, kind.features);
                const std::string expected = expected_of(call);
                const bool openmp = threading == NEGCOS_THREADING_OPENMP;
                for (const faults::Kind what : {kMemory, kThreads})
                    for (const bool and_later : {false, true}) {
                        const bool started = what == kMemory && (openmp || and_later);
                        const int64_t most = openmp && what == kThreads ? kThreadsAsked - 1 : 500;
                        int64_t nth = 0;
                        for (bool more = true; more && nth < most; ++nth) {
                            INFO("threading " << threading << ", " << std::string(kind.name) << ", "
                                              << std::string(what == kMemory ? "allocation " : "thread ") << nth
                                              << std::string(and_later ? " and all later" : ""));
                            int pipes[2];
                            REQUIRE(pipe(pipes) == 0);
                            CHECK(child_succeeds([&] {
                                const Outcome outcome =
                                    first_call(call, threading, {what, nth, and_later, started}, expected);
                                const char said = outcome == kSurvived ? 'm' : 'd';
                                return write(pipes[1], &said, 1) == 1 && outcome != kWrong;
                            }));
                            close(pipes[1]);
                            char said = 'd';
                            more = read(pipes[0], &said, 1) == 1 && said == 'm';
                            close(pipes[0]);
                        }
                        CHECK(nth > 1);
                        CHECK(nth < 500);
                    }
            }
    }

    // libgomp ends the process where a stack of that size is not to be had.
    TEST_CASE("fault: stacks that OpenMP is told to take and cannot") {
        if (!available(NEGCOS_THREADING_OPENMP) || kWatched) {
            std::printf("SKIP: fault: stacks: %s\n",
                        kWatched ? "the address sanitizer's threads have their own" : "no OpenMP");
            return;
        }
        if (std::getenv(kAgain)) _exit(works(NEGCOS_THREADING_OPENMP) ? kRan : 1);
        // OpenMP reads them before main() begins.
        for (const auto& sizes : {std::pair("100000G", ""),
                                  {" 100000000 m ", ""},
                                  {"100000000000", ""},
                                  {"8192g", "1M"},
                                  {"", "100000G"},
                                  {"junk", "100000G"},
                                  {"5T", "100000G"},
                                  {"100000GB", "100000G"},
                                  {"64M", "100000G"},
                                  {"5T", "9x"}}) {
            INFO("OMP_STACKSIZE '" << std::string(sizes.first) << "', GOMP_STACKSIZE '" << std::string(sizes.second)
                                   << "'");
            CHECK(again("fault: stacks*", "", [&] {
                setenv("OMP_STACKSIZE", sizes.first, 1);
                setenv("GOMP_STACKSIZE", sizes.second, 1);
                const struct rlimit limit { rlim_t{8} << 30, rlim_t{8} << 30 };
                setrlimit(RLIMIT_AS, &limit);
            }));
        }
    }

    // In a process that has not used it before: what it does once is done then.
    TEST_CASE("fault: oneTBB's first use, without memory") {
        if (!available(NEGCOS_THREADING_TBB)) {
            std::printf("SKIP: fault: oneTBB's first use: no oneTBB\n");
            return;
        }
        if (const char* nth = std::getenv(kAgain)) {
            negcos_context_options options = options_for(NEGCOS_THREADING_TBB);
            negcos_context* context = nullptr;
            faults::arm(kMemory, std::atoll(nth));
            const int32_t status = negcos_context_create(&options, &context);
            faults::disarm();
            negcos_context_destroy(context);
            const bool right = status == NEGCOS_STATUS_OK || status == NEGCOS_STATUS_OUT_OF_MEMORY;
            _exit(right && works(NEGCOS_THREADING_TBB) ? kRan : 1);
        }
        for (int nth = 0; nth < 20; ++nth) {
            INFO("allocation " << nth);
            CHECK(again("fault: oneTBB*", std::to_string(nth), [] {}));
        }
    }

    TEST_CASE("fault: a thread that is cancelled ends after its call, not in it") {
        const std::filesystem::path path =
            std::filesystem::temp_directory_path() / ("negcos-cancel-" + std::to_string(getpid()));
        for (const int32_t threading : threadings("fault: cancelled")) {
            INFO("threading " << threading);
            const auto work = [&] {
                bool done = false, reached = false;
                std::function<void()> calls = [&] {
                    pthread_cancel(pthread_self());
                    {
                        negcos_context_options options = options_for(threading);
                        negcos_context* context = nullptr;
                        negcos_frequency *frequency = nullptr, *loaded = nullptr;
                        Call call(NEGCOS_SAMPLING_SHUFFLE, 0);
                        call.clear();
                        done = negcos_context_create(&options, &context) == NEGCOS_STATUS_OK &&
                               call.run(context) == NEGCOS_STATUS_OK &&
                               negcos_frequency_create(nullptr, &frequency) == NEGCOS_STATUS_OK &&
                               negcos_frequency_save(frequency, path.c_str()) == NEGCOS_STATUS_OK &&
                               negcos_frequency_load(path.c_str(), &loaded) == NEGCOS_STATUS_OK;
                        negcos_frequency_destroy(frequency);
                        negcos_frequency_destroy(loaded);
                        negcos_context_destroy(context);
                    }
                    pthread_testcancel();
                    reached = true;
                };
                pthread_t thread;
                if (pthread_create(
                        &thread, nullptr,
                        [](void* body) -> void* {
                            (*static_cast<std::function<void()>*>(body))();
                            return nullptr;
                        },
                        &calls) != 0)
                    return false;
                pthread_join(thread, nullptr);
                return done && !reached;
            };
            CHECK(child_succeeds(work));
        }
        std::filesystem::remove(path);
    }

    TEST_CASE("fault: a context that cannot be had") {
        for (const int32_t threading : threadings("fault: context")) {
            negcos_context_options options = options_for(threading);
            for (const faults::Kind kind : {kMemory, faults::kStrange})
                for (int64_t nth = 0;; ++nth) {
                    INFO("threading " << threading << ", kind " << kind << ", allocation " << nth);
                    negcos_context* const nothing = reinterpret_cast<negcos_context*>(64);
                    negcos_context* context = nothing;
                    const int64_t before = live_blocks();
                    faults::arm(kind, nth);
                    const int32_t status = negcos_context_create(&options, &context);
                    const bool fewer = faults::disarm() <= nth;
                    if (status == NEGCOS_STATUS_OK) {
                        negcos_context_destroy(context);
                        if (fewer) break;
                        continue;
                    }
                    CHECK(status == (kind == kMemory ? NEGCOS_STATUS_OUT_OF_MEMORY : NEGCOS_STATUS_INTERNAL));
                    CHECK(context == nothing);
                    CHECK(live_blocks() == before);
                }
        }
    }

    // After the first call, where all is the library's; a back end's threads take memory when they first come in.
    TEST_CASE("fault: a warm context allocates nothing") {
        struct {
            Kind kind;
            bool half;
        } const all[] = {
            {kKinds[0], false},
            {kKinds[1], false},
            {kKinds[2], false},
            {kKinds[3], false},
            {kKinds[4], false},
            {kKinds[5], false},
            {{"groups, everything", NEGCOS_SAMPLING_GROUPS, kEverything}, false},
            {{"gather, halves", NEGCOS_SAMPLING_DERANGEMENT, 0}, true},
            {{"tiles, halves, everything", NEGCOS_SAMPLING_ALL, kEverything}, true},
            {{"dot", NEGCOS_SAMPLING_CYCLIC, 1u << variants::dot | 1u << variants::sum}, false},
            {{"both directions", NEGCOS_SAMPLING_ALL, 1u << variants::both}, false},
            {{"the published layer", NEGCOS_SAMPLING_SHUFFLE, 1u << variants::batch_softmax}, false},
            {{"sigmoid, log-uniform", NEGCOS_SAMPLING_LOG_UNIFORM, 1u << variants::sigmoid}, false},
        };
        for (const int32_t threading : threadings("fault: warm"))
            for (const auto& each : all) {
                const Kind& kind = each.kind;
                INFO("threading " << threading << ", " << std::string(kind.name));
                Call call(kind.sampling, kind.features);
                negcos_context_options options = options_for(threading);
                negcos_context* context = nullptr;
                REQUIRE(negcos_context_create(&options, &context) == NEGCOS_STATUS_OK);
                call.clear();
                // Whatever numbers the first halves of what is there make.
                if (each.half)
                    for (int32_t* dtype :
                         {&call.batch.queries.dtype, &call.batch.documents.dtype, &call.batch.hard_negatives.dtype,
                          &call.result.losses.dtype, &call.result.grad_queries.dtype, &call.result.grad_documents.dtype,
                          &call.result.grad_hard_negatives.dtype})
                        *dtype = NEGCOS_DTYPE_F16;
                const int calls = threading == NEGCOS_THREADING_SERIAL ? 1 : 3;
                for (int k = 0; k < calls; ++k) REQUIRE(call.run(context) == NEGCOS_STATUS_OK);
                faults::arm(kMemory, kNever);
                const int32_t status = call.run(context);
                CHECK(faults::disarm() == 0);
                CHECK(status == NEGCOS_STATUS_OK);
                negcos_context_destroy(context);
            }
        negcos::Context serial = harness::context("scalar");
        std::vector<int32_t> negatives(521 * 9);
        for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_CYCLIC,
                                       NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_LOG_UNIFORM, NEGCOS_SAMPLING_GROUPS}) {
            negcos::Options options;
            options.sampling = sampling;
            options.rounds = 9;
            for (const bool warm : {false, true}) {
                faults::arm(kMemory, kNever);
                const int32_t status = negcos_sample(serial.get(), &options, 521, 521, negatives.data());
                const int64_t count = faults::disarm();
                CHECK(status == NEGCOS_STATUS_OK);
                if (warm) CHECK(count == 0);
            }
        }
    }

    TEST_CASE("fault: an estimator that cannot be had, saved or loaded") {
        const std::filesystem::path folder =
            std::filesystem::temp_directory_path() / ("negcos-fault-" + std::to_string(getpid()));
        std::filesystem::create_directory(folder);
        const std::string path = (folder / "estimator").string();
        const auto contents = [&path] {
            std::ifstream file(path, std::ios::binary);
            return std::string(std::istreambuf_iterator<char>(file), {});
        };
        negcos_frequency_options options;
        negcos_frequency_options_init(&options, sizeof options);
        options.buckets = 5000;  // several writes
        negcos_frequency* frequency = nullptr;
        REQUIRE(negcos_frequency_create(&options, &frequency) == NEGCOS_STATUS_OK);
        REQUIRE(negcos_frequency_save(frequency, path.c_str()) == NEGCOS_STATUS_OK);
        const std::string old = contents();
        const int64_t ids[] = {1, 2, 3};
        double log_probability[3];
        faults::arm(kMemory, kNever);
        const int32_t updated = negcos_frequency_update(frequency, ids, 3);
        const int32_t estimated = negcos_frequency_log_probability(frequency, ids, 3, log_probability);
        CHECK(faults::disarm() == 0);  // calls take no memory
        REQUIRE(updated == NEGCOS_STATUS_OK);
        REQUIRE(estimated == NEGCOS_STATUS_OK);

        negcos_frequency* const nothing = reinterpret_cast<negcos_frequency*>(64);
        // Each in turn until there are fewer calls than that: what it answers while it fails, and what is left behind.
        const auto each_fails = [&](faults::Kind kind, int32_t expected, auto&& work, auto&& check) {
            for (int64_t nth = 0;; ++nth) {
                INFO("call " << nth);
                const int64_t before = live_blocks();
                negcos_frequency* made = nothing;
                faults::arm(kind, nth);
                const int32_t status = work(&made);
                const bool fewer = faults::disarm() <= nth;
                if (status == NEGCOS_STATUS_OK) {
                    if (made != nothing) negcos_frequency_destroy(made);
                } else {
                    CHECK(status == expected);
                    CHECK(made == nothing);
                    check();
                }
                CHECK(live_blocks() == before);
                CHECK(std::distance(std::filesystem::directory_iterator(folder), {}) == 1);
                // Some failures are got over, such as of permissions that a file has anyway.
                if (status == NEGCOS_STATUS_OK && !fewer) std::ofstream(path, std::ios::binary) << old;
                if (!fewer) continue;
                CHECK(status == NEGCOS_STATUS_OK);
                CHECK(nth > 0);
                break;
            }
        };
        const auto untouched = [&] { CHECK(contents() == old); };
        const auto create = [&](negcos_frequency** made) { return negcos_frequency_create(&options, made); };
        const auto load = [&](negcos_frequency** made) { return negcos_frequency_load(path.c_str(), made); };
        const auto save = [&](negcos_frequency**) { return negcos_frequency_save(frequency, path.c_str()); };
        each_fails(kMemory, NEGCOS_STATUS_OUT_OF_MEMORY, create, untouched);
        each_fails(faults::kStrange, NEGCOS_STATUS_INTERNAL, create, untouched);
        each_fails(kMemory, NEGCOS_STATUS_OUT_OF_MEMORY, load, untouched);
        each_fails(faults::kStrange, NEGCOS_STATUS_INTERNAL, load, untouched);
        each_fails(kFiles, NEGCOS_STATUS_IO, load, untouched);
        each_fails(kMemory, NEGCOS_STATUS_OUT_OF_MEMORY, save, untouched);
        std::ofstream(path, std::ios::binary) << old;
        each_fails(faults::kStrange, NEGCOS_STATUS_INTERNAL, save, untouched);
        std::ofstream(path, std::ios::binary) << old;
        each_fails(kFiles, NEGCOS_STATUS_IO, save, untouched);
        CHECK(contents() != old);
        negcos_frequency_destroy(frequency);
        std::filesystem::remove_all(folder);
    }
}

}  // namespace
