// SPDX-License-Identifier: Apache-2.0
//
// Independent tasks on whichever threads a context was given. Nothing outside parallel.cpp knows oneTBB or OpenMP.
#ifndef NEGCOS_PARALLEL_HPP
#define NEGCOS_PARALLEL_HPP

#include <atomic>
#include <cfenv>
#include <cstdint>
#include <memory>

#include "negcos/negcos.h"

namespace negcos {

// As negcos.h numbers them.
enum class Threading : int32_t { automatic, serial, tbb, openmp, callback };

class Parallel {
public:
    // threading: one that available() accepts.
    Parallel(Threading threading, int32_t threads, negcos_parallel_for_fn callback, void* callback_data);
    ~Parallel();
    Parallel(const Parallel&) = delete;
    Parallel& operator=(const Parallel&) = delete;

    static bool available(Threading threading) noexcept;
    static Threading preferred() noexcept;     // of the available ones
    static int32_t usable_threads() noexcept;  // as many as the CPUs that the calling thread was given
    // Of these, as many as quotas of control groups and OpenMP's environment leave.
    static int32_t default_threads();

    int32_t threads() const noexcept { return threads_; }
    Threading threading() const noexcept { return threading_; }

    // body(index, worker) once for every index in [0, count), worker in [0, threads) and never twice at once. Inline
    // work stays in the calling thread. Returns false when the caller's own threads failed; what ran is then unknown.
    template <class Body>
    bool for_each(int64_t count, bool run_inline, Body&& body) noexcept {
        const int64_t workers = count < threads_ ? count : threads_;
        if (run_inline || workers <= 1 || threading_ == Threading::serial || forked()) {
            for (int64_t index = 0; index < count; ++index) body(index, int64_t{0});
            return true;
        }
        Loop<Body> loop{body, count, workers};
        std::fegetenv(&loop.mode);
        if (!run(workers, &Loop<Body>::work, &loop)) return false;
        // Whatever no worker came to: a back end may start fewer than it was asked for.
        for (int64_t index; (index = loop.next.fetch_add(1)) < count;) body(index, int64_t{0});
        return true;
    }

private:
    // Workers take the next index until none is left, and compute in the floating-point mode of the calling thread.
    template <class Body>
    struct Loop {
        Body& body;
        int64_t count, workers;
        std::atomic<int64_t> next{0}, started{0};
        std::fenv_t mode{};

        static void work(void* task, int64_t) {
            Loop& loop = *static_cast<Loop*>(task);
            const int64_t worker = loop.started.fetch_add(1);
            if (worker >= loop.workers) return;
            std::fenv_t own;
            std::fegetenv(&own);
            std::fesetenv(&loop.mode);
            for (int64_t index; (index = loop.next.fetch_add(1)) < loop.count;) loop.body(index, worker);
            std::fesetenv(&own);
        }
    };

    bool run(int64_t workers, void (*work)(void*, int64_t), void* task) noexcept;
    bool forked() const noexcept;

    struct Arena;
    Threading threading_;
    int32_t threads_;
    int64_t process_;
    negcos_parallel_for_fn callback_;
    void* callback_data_;
    std::unique_ptr<Arena> arena_;
};

}  // namespace negcos

#endif
