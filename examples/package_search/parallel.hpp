// SPDX-License-Identifier: Apache-2.0
//
// A loop over a few threads. Which thread runs which chunk is left to chance, so bodies write only what belongs to
// their own indices; then the result is the same for any number of threads.
#ifndef PACKAGE_SEARCH_PARALLEL_HPP
#define PACKAGE_SEARCH_PARALLEL_HPP

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace package_search {

// Calls body(begin, end) for chunks of at most `grain` indices that together cover [0, count).
template <class Body>
void parallel_for(int threads, std::size_t count, std::size_t grain, const Body& body) {
    std::atomic<std::size_t> next{0};
    std::exception_ptr failure;
    std::mutex failure_mutex;
    const auto work = [&] {
        try {
            for (;;) {
                const std::size_t begin = next.fetch_add(grain);
                if (begin >= count) return;
                body(begin, std::min(begin + grain, count));
            }
        } catch (...) {
            const std::lock_guard lock(failure_mutex);
            failure = std::current_exception();
        }
    };
    {
        const std::size_t useful = std::min(static_cast<std::size_t>(threads), (count + grain - 1) / grain);
        std::vector<std::jthread> others;
        for (std::size_t t = 1; t < useful; ++t) others.emplace_back(work);
        work();
    }
    if (failure) std::rethrow_exception(failure);
}

}  // namespace package_search

#endif
