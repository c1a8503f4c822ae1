// SPDX-License-Identifier: Apache-2.0
//
// The lanes' operations of one instruction set on arrays: the list in simd_operations.inc as a table of functions; and
// exp, which the kernels keep to themselves.
#ifndef NEGCOS_TESTS_SIMD_OPERATIONS_HPP
#define NEGCOS_TESTS_SIMD_OPERATIONS_HPP

#include "kernels.hpp"

namespace simd {

template <class T>
using Operands = const T* [4];  // a, b, c, d

template <class T>
struct LaneOperations {
    void (*exp_nonpositive)(const T* x, T* result, int64_t n) noexcept;
#define EACH(name, nan, lanes, plain) void (*name)(const Operands<T>& x, T* out) noexcept;
#define FOLD EACH
#include "simd_operations.inc"
#undef EACH
#undef FOLD
};

template <class E>
struct MemoryOperations {
    using T = negcos::Working<E>;
#define LOAD(name, when, lanes, plain) void (*name)(const E* x, int n, T* out) noexcept;
#define STORE(name, when, lanes, plain) void (*name)(const T* from, int n, E* x) noexcept;
#include "simd_operations.inc"
#undef LOAD
#undef STORE
};

struct WordOperations {
    int64_t width;  // words at a time
#define WORDS(name, lanes, plain) void (*name)(const uint64_t* a, const uint64_t* b, uint64_t* out) noexcept;
#include "simd_operations.inc"
#undef WORDS
};

struct Operations {
    LaneOperations<float> f32;
    LaneOperations<double> f64;
    MemoryOperations<float> memory_f32;
    MemoryOperations<double> memory_f64;
    MemoryOperations<negcos::F16> memory_f16;
    MemoryOperations<negcos::BF16> memory_bf16;
    WordOperations words;

    template <class T>
    NEGCOS_INLINE const LaneOperations<T>& lanes() const {
        if constexpr (sizeof(T) == sizeof(float))
            return f32;
        else
            return f64;
    }
};

// A double that is no float; x where floats are subnormal, and a double is rounded twice on its way to bfloat16.
NEGCOS_INLINE double a_little_more(double x) {
    return x < 0x1p-126 && x > -0x1p-126 ? x : x * (1 + 0x1p-40);
}

}  // namespace simd

#endif
