// SPDX-License-Identifier: Apache-2.0
#ifndef NEGCOS_TESTS_CHILD_HPP
#define NEGCOS_TESTS_CHILD_HPP

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace harness {

// What work() gives in a child of this process, from 0 to 255, or 1000 and the signal that ended it; one that hangs is
// ended after a minute.
template <class Work>
int status_of_child(Work&& work, bool with_exit_handlers = false) {
    std::fflush(nullptr);  // or the child says it again
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        alarm(60);
        const int status = work();
        if (with_exit_handlers) std::exit(status);
        _exit(status);
    }
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

// A test case in a program of its own, which has used nothing yet: it finds kAgain in its environment, and ends with
// kRan, which no other end gives, where all is right.
constexpr const char* kAgain = "NEGCOS_TEST_AGAIN";
constexpr int kRan = 42;
template <class Prepare>
bool again(const char* test_case, const std::string& value, Prepare&& prepare) {
    return status_of_child([&] {
               setenv(kAgain, value.c_str(), 1);
               prepare();
               const std::string filter = std::string("--test-case=") + test_case;
               execl("/proc/self/exe", "test", "--quiet", filter.c_str(), nullptr);
               return 1;
           }) == kRan;
}

}  // namespace harness

#endif
