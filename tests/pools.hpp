// SPDX-License-Identifier: Apache-2.0
//
// The threads that a context can run on: a caller's own pool, and the back ends of this build.
#ifndef NEGCOS_TESTS_POOLS_HPP
#define NEGCOS_TESTS_POOLS_HPP

#include <atomic>

#include "harness.hpp"

namespace harness {

// A caller's own pool: as many threads as asked for, the indices in reverse.
struct Pool {
    int threads = 3;
    std::atomic<int> calls{0};
    int fail_at = -1;     // the call that fails
    bool throws = false;  // or throws, which it may not

    static int32_t run(void* data, int64_t count, void (*body)(void*, int64_t), void* task) {
        Pool& pool = *static_cast<Pool*>(data);
        if (pool.calls++ == pool.fail_at) {
            if (pool.throws) throw pool.fail_at;
            return 1;
        }
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

inline negcos::ContextOptions callback_options(Pool& pool, const std::string& isa) {
    negcos::ContextOptions options;
    options.threading = NEGCOS_THREADING_CALLBACK;
    options.threads = pool.threads;
    options.isa = isa.c_str();
    options.parallel_for = Pool::run;
    options.parallel_for_data = &pool;
    return options;
}

// The back ends of this build, TBB and OpenMP.
inline std::vector<int32_t> back_ends(const char* test) {
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

}  // namespace harness

#endif
