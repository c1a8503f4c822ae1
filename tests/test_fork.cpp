// SPDX-License-Identifier: Apache-2.0
//
// Children of fork(): none of a pool's threads live on there. A parent's context, and one made there, give the same
// bits; nothing hangs, neither in a call nor at the end.
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "child.hpp"
#include "pools.hpp"

namespace {

using harness::Problem;
using harness::run;
using harness::status_of_child;

constexpr int kChildren = 100;
constexpr int kRight = 0, kWrong = 1, kNoNamespaces = 77;

std::vector<Problem<float>> problems() {
    std::vector<Problem<float>> all;
    for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_ALL}) {
        all.emplace_back(521, 521, 67, 3);  // large enough for threads
        all.back().options.sampling = sampling;
        all.back().options.rounds = 9;
    }
    return all;
}

int threads_here() {
    int count = 0;
    for ([[maybe_unused]] const auto& each : std::filesystem::directory_iterator("/proc/self/task")) ++count;
    return count;
}

// An emulator has threads of its own, and loses them in a child.
bool emulated(const char* what) {
    if (!std::getenv("NEGCOS_EMULATOR")) return false;
    std::printf("SKIP: fork: %s: an emulator cannot fork with threads\n", what);
    return true;
}

negcos::Context parallel_context(int32_t threading) {
    negcos::ContextOptions options;
    options.threads = 3;
    options.threading = threading;
    return negcos::Context(options);
}

// Whether a context of three threads starts any: oneTBB has no more than processors. For children, whose environment
// ends with them.
bool starts_threads(int32_t threading) {
    setenv("NEGCOS_THREADS", "1000", 1);
    return threading != NEGCOS_THREADING_TBB || negcos::Context().threads() > 1;
}

TEST_SUITE("unit") {
    // First those of a process that has run no threads.
    TEST_CASE("fork: a child of a process that has run no threads has its own") {
        if (emulated("own threads")) return;
        REQUIRE(threads_here() == 1);
        for (const int32_t threading : harness::back_ends("fork: own threads")) {
            const Problem<float> p = problems().front();
            const auto work = [&] {
                negcos::Context serial = harness::context("scalar");
                negcos::Context own = parallel_context(threading);
                return run(own, p).bytes() == run(serial, p).bytes() &&
                               (threads_here() > 1) == starts_threads(threading)
                           ? 0
                           : 1;
            };
            CHECK(status_of_child(work) == 0);
        }
    }

    // As where containers are started: parent and child are both number 1.
    TEST_CASE("fork: a child that has its parent's number, in another namespace") {
        if (emulated("namespaces")) return;
        const Problem<float> p = problems().front();
        negcos::Context serial = harness::context("scalar");
        const std::string expected = run(serial, p).bytes();
        for (const int32_t threading : harness::back_ends("fork: namespaces")) {
            INFO("threading " << threading);
            const auto in_namespace = [](auto&& work) {
                if (unshare(CLONE_NEWPID) != 0) return kNoNamespaces;
                const pid_t child = fork();
                if (child == 0) {
                    prctl(PR_SET_PDEATHSIG, SIGKILL);  // number 1 ignores alarms: its parent's ends it
                    _exit(getpid() == 1 ? work() : kNoNamespaces);
                }
                int status = -1;
                if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return kWrong;
                return WEXITSTATUS(status);
            };
            const int status = status_of_child([&] {
                return in_namespace([&] {
                    negcos::Context parents = parallel_context(threading);
                    if (run(parents, p).bytes() != expected || (threads_here() > 1) != starts_threads(threading))
                        return kWrong;
                    return in_namespace(
                        [&] { return run(parents, p).bytes() == expected && threads_here() == 1 ? kRight : kWrong; });
                });
            });
            if (status == kNoNamespaces) {
                std::printf("SKIP: fork: namespaces: this machine lets us make none\n");
                return;
            }
            CHECK(status == kRight);
        }
    }

    TEST_CASE("fork: the same bits in a hundred children, by the parent's context and by one of their own") {
        if (emulated("the parent's context")) return;
        const std::vector<Problem<float>> all = problems();
        std::vector<std::string> expected;
        negcos::Context serial = harness::context("scalar");
        for (const auto& p : all) expected.push_back(run(serial, p).bytes());

        std::vector<int32_t> threadings = harness::back_ends("fork");
        threadings.push_back(NEGCOS_THREADING_SERIAL);
        const int children = harness::test_step() == 1 ? kChildren : 3;
        for (const int32_t threading : threadings) {
            INFO("threading " << threading);
            negcos::Context parents = parallel_context(threading);
            for (size_t k = 0; k < all.size(); ++k) REQUIRE(run(parents, all[k]).bytes() == expected[k]);
            for (int child = 0; child < children; ++child) {
                const size_t k = static_cast<size_t>(child) % all.size();
                const auto work = [&] {
                    const bool right = run(parents, all[k]).bytes() == expected[k];
                    negcos::Context own = parallel_context(threading);
                    return run(own, all[k]).bytes() == expected[k] && right && threads_here() == 1 ? 0 : 1;
                };
                REQUIRE(status_of_child(work, child % 4 == 3) == 0);
            }
            CHECK(run(parents, all[0]).bytes() == expected[0]);
        }
    }

    TEST_CASE("fork: a caller's own threads are used by a context that is made in the child") {
        if (emulated("a caller's threads")) return;
        const Problem<float> p = problems().front();
        negcos::Context serial = harness::context("scalar");
        const std::string expected = run(serial, p).bytes();
        harness::Pool before;
        negcos::Context parents(harness::callback_options(before, "scalar"));
        REQUIRE(run(parents, p).bytes() == expected);
        REQUIRE(before.calls > 0);
        const auto work = [&] {
            const int calls = before.calls;
            const bool right = run(parents, p).bytes() == expected && before.calls == calls;  // not there
            harness::Pool pool;
            negcos::Context own(harness::callback_options(pool, "scalar"));
            return run(own, p).bytes() == expected && pool.calls > 0 && right ? 0 : 1;
        };
        CHECK(status_of_child(work) == 0);
    }
}

}  // namespace
