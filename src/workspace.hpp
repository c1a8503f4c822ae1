// SPDX-License-Identifier: Apache-2.0
//
// The memory of a context: one 64-byte aligned block, grown when a call needs more and then kept. A call lays out its
// arrays twice with the same code: once to add up sizes, once to get addresses.
#ifndef NEGCOS_WORKSPACE_HPP
#define NEGCOS_WORKSPACE_HPP

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "status.hpp"

namespace negcos {

// Hands out consecutive arrays, each on a 64-byte border. Without a base it only counts: what it then hands out is not
// null, so that layouts take the same path, and must not be used.
class Arena {
public:
    Arena() = default;
    explicit Arena(void* base) : base_(reinterpret_cast<uintptr_t>(base)) {}

    template <class T>
    T* take(int64_t count) noexcept {
        size_t bytes, end;
        if (count < 0 || __builtin_mul_overflow(static_cast<size_t>(count), sizeof(T), &bytes) ||
            __builtin_add_overflow(bytes, kAlign - 1, &bytes) ||
            __builtin_add_overflow(used_, bytes / kAlign * kAlign, &end) || end > PTRDIFF_MAX) {
            overflow_ = true;
            return nullptr;
        }
        T* result = reinterpret_cast<T*>(base_ + used_);
        used_ = end;
        return result;
    }
    size_t used() const noexcept { return used_; }
    bool overflow() const noexcept { return overflow_; }

    static constexpr size_t kAlign = 64;

private:
    uintptr_t base_ = kAlign;
    size_t used_ = 0;
    bool overflow_ = false;
};

class Workspace {
public:
    explicit Workspace(uint64_t limit) noexcept : limit_(limit) {}
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    ~Workspace() { std::free(base_); }

    // layout(arena) takes every array that the call needs.
    template <class Layout>
    int32_t lay_out(Layout&& layout) noexcept {
        Arena count;
        layout(count);
        if (count.overflow())
            return fail(NEGCOS_STATUS_OUT_OF_MEMORY, "the workspace of this call is larger than the address space");
        if (limit_ != 0 && count.used() > limit_)
            return fail(NEGCOS_STATUS_WORKSPACE_LIMIT, "workspace_limit is %llu bytes, this call needs %llu",
                        static_cast<unsigned long long>(limit_), static_cast<unsigned long long>(count.used()));
        if (count.used() > capacity_) {
            std::free(base_);
            capacity_ = 0;
            base_ = allocate(count.used());
            if (!base_)
                return fail(NEGCOS_STATUS_OUT_OF_MEMORY, "could not allocate a workspace of %llu bytes",
                            static_cast<unsigned long long>(count.used()));
            capacity_ = count.used();
        }
        Arena real(base_);
        layout(real);
        return NEGCOS_STATUS_OK;
    }

private:
    // Large workspaces are walked at random, each step to another page: where the system has huge pages, ask for them.
    static void* allocate(size_t bytes) noexcept {
        constexpr size_t kHugePage = size_t{2} << 20;
        if (bytes < 4 * kHugePage) return std::aligned_alloc(Arena::kAlign, bytes);
        void* base = std::aligned_alloc(kHugePage, (bytes + kHugePage - 1) / kHugePage * kHugePage);
#ifdef __linux__
        if (base) madvise(base, bytes, MADV_HUGEPAGE);  // a wish: no harm where it is not granted
#endif
        return base;
    }

    void* base_ = nullptr;
    size_t capacity_ = 0;
    uint64_t limit_;
};

}  // namespace negcos

#endif
