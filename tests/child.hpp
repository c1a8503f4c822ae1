// SPDX-License-Identifier: Apache-2.0
#ifndef NEGCOS_TESTS_CHILD_HPP
#define NEGCOS_TESTS_CHILD_HPP

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

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

}  // namespace harness

#endif
