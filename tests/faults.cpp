// SPDX-License-Identifier: Apache-2.0
#include "faults.hpp"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <new>

namespace {

constexpr int kNone = -1;

std::atomic<int> armed{kNone};
std::atomic<int64_t> calls{0}, failing{0}, live{0};
std::atomic<bool> later{false};

bool fails(faults::Kind kind) {
    if (armed.load(std::memory_order_acquire) != kind) return false;
    const int64_t call = calls.fetch_add(1), nth = failing.load();
    return later.load() ? call >= nth : call == nth;
}

// dlsym itself asks for memory, before it has said where memory comes from.
thread_local bool looking = false;
alignas(64) unsigned char early[1 << 16];
std::atomic<size_t> early_used{0};

bool is_early(const void* block) {
    return block >= early && block < early + sizeof early;
}
void* take_early(size_t size) {
    return early + early_used.fetch_add((size + 63) / 64 * 64);
}

// The system's functions, as they stand behind ours: all at once, when the first is called, which is before main().
struct Real {
    decltype(&::malloc) malloc;
    decltype(&::calloc) calloc;
    decltype(&::realloc) realloc;
    decltype(&::aligned_alloc) aligned_alloc;
    decltype(&::memalign) memalign;
    decltype(&::posix_memalign) posix_memalign;
    decltype(&::free) free;
    decltype(&::pthread_create) pthread_create;
    decltype(&::open) open;
    decltype(&::read) read;
    decltype(&::write) write;
    decltype(&::fsync) fsync;
    decltype(&::close) close;
    decltype(&::rename) rename;
    decltype(&::link) link;
    decltype(&::fchmod) fchmod;

    Real() {
        looking = true;
        find(malloc, "malloc");
        find(calloc, "calloc");
        find(realloc, "realloc");
        find(aligned_alloc, "aligned_alloc");
        find(memalign, "memalign");
        find(posix_memalign, "posix_memalign");
        find(free, "free");
        find(pthread_create, "pthread_create");
        find(open, "open64");  // meson asks for 64-bit offsets everywhere
        find(read, "read");
        find(write, "write");
        find(fsync, "fsync");
        find(close, "close");
        find(rename, "rename");
        find(link, "link");
        find(fchmod, "fchmod");
        looking = false;
    }
    template <class Function>
    static void find(Function& function, const char* name) {
        function = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
    }
};
const Real& real() {
    static const Real functions;
    return functions;
}

// take(function) where memory is to be had.
template <class Take>
void* taken(Take&& take) {
    if (fails(faults::kMemory)) {
        errno = ENOMEM;
        return nullptr;
    }
    void* block = take();
    if (block) ++live;
    return block;
}

}  // namespace

namespace faults {

void arm(Kind kind, int64_t nth, bool and_later) {
    calls = 0;
    failing = nth;
    later = and_later;
    armed.store(kind, std::memory_order_release);
}
int64_t disarm() {
    armed.store(kNone, std::memory_order_release);
    return calls;
}
bool no_links = false;
void (*before_read)() = nullptr;

int64_t live_blocks() {
    return live;
}

}  // namespace faults

void* operator new(size_t size) {
    if (fails(faults::kStrange)) throw 0;
    if (void* block = malloc(size)) return block;
    throw std::bad_alloc();
}
void operator delete(void* block) noexcept {
    free(block);
}
void operator delete(void* block, size_t) noexcept {
    free(block);
}

extern "C" {

void* malloc(size_t size) noexcept {
    if (looking) return take_early(size);
    return taken([=] { return real().malloc(size); });
}
void* calloc(size_t count, size_t size) noexcept {
    if (looking) return take_early(count * size);
    return taken([=] { return real().calloc(count, size); });
}
void* realloc(void* block, size_t size) noexcept {
    if (!block) return malloc(size);
    if (is_early(block) || fails(faults::kMemory)) {
        errno = ENOMEM;
        return nullptr;
    }
    return real().realloc(block, size);
}
void* aligned_alloc(size_t alignment, size_t size) noexcept {
    return taken([=] { return real().aligned_alloc(alignment, size); });
}
void* memalign(size_t alignment, size_t size) noexcept {
    return taken([=] { return real().memalign(alignment, size); });
}
int posix_memalign(void** block, size_t alignment, size_t size) noexcept {
    int status = ENOMEM;
    taken([&]() -> void* {
        status = real().posix_memalign(block, alignment, size);
        return status == 0 ? *block : nullptr;
    });
    return status;
}
void free(void* block) noexcept {
    if (!block || looking || is_early(block)) return;
    --live;
    real().free(block);
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                   void* argument) noexcept {
    return fails(faults::kThreads) ? EAGAIN : real().pthread_create(thread, attributes, start, argument);
}

int open(const char* path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    if (!fails(faults::kFiles)) return real().open(path, flags, mode);
    errno = EACCES;
    return -1;
}
ssize_t read(int file, void* bytes, size_t size) {
    if (faults::before_read) faults::before_read();
    if (!fails(faults::kFiles)) return real().read(file, bytes, size);
    errno = EIO;
    return -1;
}
ssize_t write(int file, const void* bytes, size_t size) {
    if (fails(faults::kEmptyWrites)) return 0;
    if (!fails(faults::kFiles)) return real().write(file, bytes, size);
    errno = ENOSPC;
    return -1;
}
int fsync(int file) {
    if (!fails(faults::kFiles)) return real().fsync(file);
    errno = EIO;
    return -1;
}
int close(int file) {
    const bool failing_now = fails(faults::kFiles);
    const int status = real().close(file);
    if (!failing_now) return status;
    errno = EIO;
    return -1;
}
int rename(const char* from, const char* to) noexcept {
    if (!fails(faults::kFiles)) return real().rename(from, to);
    errno = EACCES;
    return -1;
}
int link(const char* from, const char* to) noexcept {
    errno = faults::no_links ? EPERM : EACCES;
    if (faults::no_links || fails(faults::kFiles)) return -1;
    return real().link(from, to);
}
int fchmod(int file, mode_t mode) noexcept {
    if (!fails(faults::kFiles)) return real().fchmod(file, mode);
    errno = EPERM;
    return -1;
}

}  // extern "C"
