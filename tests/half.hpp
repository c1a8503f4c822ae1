// SPDX-License-Identifier: Apache-2.0
//
// The 16-bit types by arithmetic on doubles, apart from the library's integers: one rounding, to nearest even.
#ifndef NEGCOS_TESTS_HALF_HPP
#define NEGCOS_TESTS_HALF_HPP

#include <cmath>
#include <cstdint>
#include <limits>

#include "negcos/negcos.hpp"

namespace half {

// kMantissa stored bits, kMaxExponent of the largest finite number (and bias).
template <int kMantissa, int kMaxExponent>
struct Small {
    uint16_t bits = 0;

    Small() = default;
    bool operator==(const Small&) const = default;
    explicit Small(double value) {
        const uint16_t sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000 : 0);
        constexpr int kInfinity = (2 * kMaxExponent + 1) << kMantissa;
        if (std::isnan(value)) {
            bits = static_cast<uint16_t>(kInfinity | 1 << (kMantissa - 1));
            return;
        }
        const double size = std::abs(value);
        if (size == 0) {
            bits = sign;
            return;
        }
        int exponent = 0;
        std::frexp(size, &exponent);  // size = f * 2^exponent, 1/2 <= f < 1
        const int least = 1 - kMaxExponent, place = (exponent - 1 < least ? least : exponent - 1);
        // in units of the last place, and so in steps from 0: mantissa overflow carries into the exponent
        const double units = std::isinf(size) ? 0 : even(std::ldexp(size, kMantissa - place));
        const double steps = units + std::ldexp(static_cast<double>(place - least), kMantissa);
        bits = static_cast<uint16_t>(sign |
                                     (std::isinf(size) || steps >= kInfinity ? kInfinity : static_cast<int>(steps)));
    }
    explicit operator double() const {
        const int exponent = (bits & 0x7FFF) >> kMantissa, mantissa = bits & ((1 << kMantissa) - 1);
        const double sign = bits & 0x8000 ? -1 : 1;
        if (exponent == 2 * kMaxExponent + 1)
            return mantissa ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
        if (exponent == 0) return sign * std::ldexp(mantissa, 1 - kMaxExponent - kMantissa);
        return sign * std::ldexp(mantissa + (1 << kMantissa), exponent - kMaxExponent - kMantissa);
    }
    template <class W>  // float, and whatever is wider than double
    explicit operator W() const {
        return static_cast<W>(static_cast<double>(*this));
    }

private:
    static double even(double x) {
        const double down = std::floor(x), rest = x - down;
        return down + (rest > 0.5 || (rest == 0.5 && std::fmod(down, 2) == 1) ? 1 : 0);
    }
};
using F16 = Small<10, 15>;
using BF16 = Small<7, 127>;

template <int kMantissa, int kMaxExponent>
bool isfinite(Small<kMantissa, kMaxExponent> x) {
    return std::isfinite(static_cast<double>(x));
}
template <int kMantissa, int kMaxExponent>
bool isnan(Small<kMantissa, kMaxExponent> x) {
    return std::isnan(static_cast<double>(x));
}

}  // namespace half

template <>
inline constexpr int32_t negcos::dtype_of<half::F16> = NEGCOS_DTYPE_F16;
template <>
inline constexpr int32_t negcos::dtype_of<half::BF16> = NEGCOS_DTYPE_BF16;

template <int kMantissa, int kMaxExponent>
struct std::numeric_limits<half::Small<kMantissa, kMaxExponent>> {
    using T = half::Small<kMantissa, kMaxExponent>;
    static constexpr bool is_specialized = true;
    static T quiet_NaN() { return T(std::numeric_limits<double>::quiet_NaN()); }
    static T infinity() { return T(std::numeric_limits<double>::infinity()); }
    static T denorm_min() { return T(std::ldexp(1.0, 1 - kMaxExponent - kMantissa)); }
    static T epsilon() { return T(std::ldexp(1.0, -kMantissa)); }
    static T max() { return T(std::ldexp(2.0 - std::ldexp(1.0, -kMantissa), kMaxExponent)); }
};

#endif
