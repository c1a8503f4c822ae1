// SPDX-License-Identifier: Apache-2.0
//
// One element: what is in memory and what is computed in. Conversions of the 16-bit types without any of a machine's
// own: in integers, so that neither the rounding mode nor flush-to-zero has a say, and to nearest even.
#ifndef NEGCOS_KERNEL_HALF_HPP
#define NEGCOS_KERNEL_HALF_HPP

#include <stdint.h>
#include <string.h>

#include "element.hpp"

namespace {

using negcos::BF16;
using negcos::F16;
using negcos::Working;

template <class T>
struct BitsOf;
template <>
struct BitsOf<float> {
    using type = uint32_t;
    static constexpr int kMantissa = 23;
};
template <>
struct BitsOf<double> {
    using type = uint64_t;
    static constexpr int kMantissa = 52;
};
template <class T>
using Bits = typename BitsOf<T>::type;

template <class T>
Bits<T> to_bits(T x) {
    Bits<T> bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
template <class T>
T from_bits(Bits<T> bits) {
    T x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

inline float widen(F16 x) {
    const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7FFF;
    uint32_t bits = magnitude >= 0x7C00 ? magnitude << 13 | 0x7F800000u : (magnitude << 13) + (112u << 23);
    if (magnitude < 0x0400)  // subnormal
        bits = to_bits(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
    return from_bits<float>(bits | sign);
}
inline float widen(BF16 x) {
    return from_bits<float>(static_cast<uint32_t>(x.bits) << 16);
}
inline void narrow(float value, F16& x) {
    const uint32_t bits = to_bits(value);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF, exponent = magnitude >> 23;
    uint32_t half;
    if (magnitude > 0x7F800000) {
        half = 0x7E00;
    } else if (exponent >= 143) {  // 2^16 and above
        half = 0x7C00;
    } else if (exponent >= 113) {
        half = (magnitude - (112u << 23) + 0xFFF + (magnitude >> 13 & 1)) >> 13;
    } else if (exponent >= 102) {  // subnormal, down to half of the smallest
        const uint32_t mantissa = (magnitude & 0x7FFFFF) | 0x800000, shift = 126 - exponent;
        const uint32_t tie = 1u << (shift - 1), rest = mantissa & (2 * tie - 1);
        half = mantissa >> shift;
        half += rest > tie || (rest == tie && (half & 1));
    } else {
        half = 0;
    }
    x.bits = static_cast<uint16_t>(sign | half);
}
inline void narrow(float value, BF16& x) {
    const uint32_t bits = to_bits(value);
    const bool nan = (bits & 0x7FFFFFFF) > 0x7F800000;
    x.bits = nan ? uint16_t{0x7FC0} : static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// One rounding from the type of `value` to the element's; every NaN is the same NaN, since machines differ in theirs.
template <class E>
E to_element(float value) {
    E x;
    narrow(value == value ? value : __builtin_nanf(""), x);
    return x;
}
template <class E>
E to_element(double value) {
    // Rounded to odd on the way through float, so that the second rounding cannot see a tie that is none; but for what
    // is subnormal in float, the cast is exact.
    uint64_t bits = to_bits(value);
    const uint64_t lost = (uint64_t{1} << 29) - 1;
    if (bits & lost) bits = (bits & ~lost) | (lost + 1);
    return to_element<E>(static_cast<float>(from_bits<double>(bits)));
}
template <>
inline float to_element<float>(float value) {
    return value == value ? value : __builtin_nanf("");
}
template <>
inline float to_element<float>(double value) {
    return value == value ? static_cast<float>(value) : __builtin_nanf("");
}
template <>
inline double to_element<double>(double value) {
    return value == value ? value : __builtin_nan("");
}

}  // namespace

#endif
