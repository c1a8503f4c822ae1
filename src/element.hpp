// SPDX-License-Identifier: Apache-2.0
//
// Element types, and the virtual register that every kernel counts in.
#ifndef NEGCOS_ELEMENT_HPP
#define NEGCOS_ELEMENT_HPP

#include <cstdint>

namespace negcos {

// As negcos.h numbers them.
enum class Dtype : int32_t { f32, f64, f16, bf16 };

// Elements in memory: float, double, or 16 bits that are computed in float and rounded once on store.
struct F16 {
    uint16_t bits;  // IEEE binary16
};
struct BF16 {
    uint16_t bits;  // the upper half of a float
};
template <class E>
struct WorkingOf {
    using type = E;
};
template <>
struct WorkingOf<F16> {
    using type = float;
};
template <>
struct WorkingOf<BF16> {
    using type = float;
};
template <class E>
using Working = typename WorkingOf<E>::type;

// Lanes of the virtual register: 64 bytes, 16 f32 or 8 f64.
template <class T>
inline constexpr int64_t kVirtualLanes = 64 / static_cast<int64_t>(sizeof(T));

// Functions here are compiled into kernel units too, each with its own instruction set: they must never be emitted, or
// one unit's copy could be called from another.
#define NEGCOS_INLINE [[gnu::always_inline]] inline

template <class T>
NEGCOS_INLINE constexpr int64_t pad_lanes(int64_t n) {
    return (n + kVirtualLanes<T> - 1) / kVirtualLanes<T> * kVirtualLanes<T>;
}

// A row stride of an odd number of cache lines: rows apart by a power of two would fall into the same few sets of a
// cache. (A virtual register is a cache line.)
template <class T>
NEGCOS_INLINE constexpr int64_t odd_lines(int64_t n) {
    const int64_t lines = pad_lanes<T>(n) / kVirtualLanes<T>;
    return (lines > 4 ? lines | 1 : lines) * kVirtualLanes<T>;
}

}  // namespace negcos

#endif
