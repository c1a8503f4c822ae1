// SPDX-License-Identifier: Apache-2.0
//
// How many threads a context takes by default: what the process was given, whatever OpenMP binds. That those threads
// run, all at once, where they may.
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <map>
#include <mutex>
#include <thread>

#include "child.hpp"
#include "parallel.hpp"
#include "pools.hpp"

namespace {

using harness::again;
using harness::kAgain;
using harness::kRan;

constexpr const char* kVariables[] = {"OMP_PROC_BIND",   "OMP_PLACES",       "GOMP_CPU_AFFINITY",
                                      "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "NEGCOS_THREADS"};

using Variables = std::map<std::string, std::string>;

int32_t default_threads(int32_t threading = NEGCOS_THREADING_DEFAULT) {
    negcos::ContextOptions options;
    options.threading = threading;
    return negcos::Context(options).threads();
}

// Sets variables for a while.
class Environment {
public:
    explicit Environment(const Variables& values) {
        for (const char* name : kVariables) {
            if (const char* before = std::getenv(name)) before_[name] = before;
            unsetenv(name);
        }
        set(values);
    }
    ~Environment() {
        for (const char* name : kVariables) unsetenv(name);
        set(before_);
    }
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;

private:
    static void set(const Variables& values) {
        for (const auto& [name, value] : values) setenv(name.c_str(), value.c_str(), 1);
    }
    Variables before_;
};

cpu_set_t affinity() {
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    return set;
}

// Whether `count` threads are in tasks at the same time, each of which waits for the others, and may run on at least so
// many CPUs between them.
bool run_together(int32_t threading, int32_t count) {
    negcos::Parallel parallel(threading, count, nullptr, nullptr);
    const auto late = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    std::atomic<int32_t> arrived{0};
    std::mutex mutex;
    cpu_set_t all;
    CPU_ZERO(&all);
    parallel.for_each(count, false, [&](int64_t, int64_t) {
        {
            const std::lock_guard<std::mutex> lock(mutex);
            const cpu_set_t own = affinity();
            CPU_OR(&all, &all, &own);
        }
        ++arrived;
        while (arrived < count && std::chrono::steady_clock::now() < late) std::this_thread::yield();
        if (arrived < count) arrived = INT_MIN;
    });
    if (arrived != count) std::printf("fewer than %d threads at once\n", count);
    if (CPU_COUNT(&all) < count) std::printf("%d threads on %d CPUs\n", count, CPU_COUNT(&all));
    return arrived == count && CPU_COUNT(&all) >= count;
}

struct Case {
    Variables environment;
    int32_t expected;
};

// What a program of its own finds: "THREADING EXPECTED FROM_ANOTHER_THREAD".
int found(const char* text) {
    int threading = 0, expected = 0, elsewhere = 0;
    if (std::sscanf(text, "%d %d %d", &threading, &expected, &elsewhere) != 3) return 1;
    bool right = false;
    const auto look = [&] {
        const cpu_set_t before = affinity();
        const int32_t got = default_threads(threading);
        if (got != expected) std::printf("%d threads, expected %d\n", got, expected);
        right = got == expected && run_together(threading, got);
        const cpu_set_t after = affinity();
        if (!CPU_EQUAL(&before, &after)) {
            std::printf("the calling thread's affinity was changed\n");
            right = false;
        }
    };
    if (elsewhere)
        std::thread(look).join();
    else
        look();
    std::fflush(stdout);
    return right ? kRan : 1;
}

TEST_SUITE("unit") {
    TEST_CASE("default threads: those that the process was given, wherever OpenMP binds its first one") {
        if (const char* text = std::getenv(kAgain)) _exit(found(text));
        if (std::getenv("NEGCOS_EMULATOR")) {
            std::printf("SKIP: default threads: where OpenMP binds: an emulator starts no program of its own\n");
            return;
        }
        std::vector<int> mine;
        const cpu_set_t own = affinity();
        for (int cpu = 0; cpu < CPU_SETSIZE && mine.size() < 2; ++cpu)
            if (CPU_ISSET(cpu, &own)) mine.push_back(cpu);
        if (mine.size() < 2) {
            std::printf("SKIP: default threads: where OpenMP binds: there is one CPU\n");
            return;
        }
        const std::string a = std::to_string(mine[0]), b = std::to_string(mine[1]);
        const std::vector<Case> cases = {
            {{}, 2},
            {{{"OMP_PROC_BIND", "true"}}, 2},
            {{{"OMP_PROC_BIND", "close"}}, 2},
            {{{"OMP_PROC_BIND", "spread"}}, 2},
            {{{"OMP_PROC_BIND", "false"}, {"OMP_PLACES", "cores"}}, 2},
            {{{"OMP_PLACES", "cores"}}, 2},
            {{{"OMP_PLACES", "threads"}}, 2},
            {{{"OMP_PLACES", "sockets"}, {"OMP_PROC_BIND", "spread"}}, 2},
            {{{"OMP_PLACES", "{" + a + "},{" + b + "}"}}, 2},
            {{{"OMP_PLACES", "{" + b + "},{" + a + "}"}, {"OMP_PROC_BIND", "close"}}, 2},
            {{{"OMP_PLACES", "{" + b + "}"}}, 1},
            {{{"GOMP_CPU_AFFINITY", a + " " + b}}, 2},
            {{{"GOMP_CPU_AFFINITY", b + " " + a}, {"OMP_PROC_BIND", "true"}}, 2},
        };
        for (const int32_t threading : harness::back_ends("default threads"))
            for (const Case& c : cases)
                for (const bool one_cpu : {false, true})
                    for (const bool elsewhere : {false, true}) {
                        std::string said = "threading " + std::to_string(threading);
                        for (const auto& [name, value] : c.environment) said += " " + name + "=" + value;
                        INFO(said << (one_cpu ? ", one CPU" : "") << (elsewhere ? ", from another thread" : ""));
                        const int32_t expected = one_cpu ? 1 : c.expected;
                        const std::string value = std::to_string(threading) + " " + std::to_string(expected) + " " +
                                                  std::to_string(int{elsewhere});
                        CHECK(again("default threads: those that the process was given*", value, [&] {
                            cpu_set_t given;
                            CPU_ZERO(&given);
                            for (const int cpu : mine)
                                if (!one_cpu || cpu == mine[0]) CPU_SET(static_cast<size_t>(cpu), &given);
                            sched_setaffinity(0, sizeof given, &given);
                            // Above a quota of where the tests run.
                            for (const char* name : kVariables) unsetenv(name);
                            setenv("NEGCOS_THREADS", "1000", 1);
                            for (const auto& [name, text] : c.environment) setenv(name.c_str(), text.c_str(), 1);
                        }));
                    }
    }

    TEST_CASE("default threads: a thread that was restricted has as many as it may use") {
        const Environment environment(Variables{{"NEGCOS_THREADS", "1000"}});
        const cpu_set_t own = affinity();
        int first = 0;
        while (!CPU_ISSET(static_cast<size_t>(first), &own)) ++first;
        std::thread([&] {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(static_cast<size_t>(first), &one);
            REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
            CHECK(default_threads() == 1);
        }).join();
    }
}

}  // namespace
