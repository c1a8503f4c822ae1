// SPDX-License-Identifier: Apache-2.0
//
// The processor's floating-point control: rounding, exceptions that trap, flush-to-zero.
#ifndef NEGCOS_TESTS_MODES_HPP
#define NEGCOS_TESTS_MODES_HPP

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace modes {

// The control bits alone: what has happened (inexact, underflow, ...) is status, and every sum changes it.
inline uint64_t control() {
#if defined(__x86_64__)
    return _mm_getcsr() & ~uint32_t{0x3F};
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
#else
#error "no floating-point control known for this processor"
#endif
}
inline void set_control(uint64_t control) {
#if defined(__x86_64__)
    _mm_setcsr(static_cast<uint32_t>(control));
#else
    __asm__ volatile("msr fpcr, %0" ::"r"(control));
#endif
}

// Subnormal results are 0, and on x86 subnormal operands too, as long as this lives.
class FlushToZero {
public:
    FlushToZero() : before_(control()) {
#if defined(__x86_64__)
        set_control(before_ | 0x8040);
#else
        set_control(before_ | uint64_t{1} << 24);
#endif
    }
    ~FlushToZero() {
        set_control(before_);
    }
    FlushToZero(const FlushToZero&) = delete;
    FlushToZero& operator=(const FlushToZero&) = delete;

private:
    uint64_t before_;
};

}  // namespace modes

#endif
