// SPDX-License-Identifier: Apache-2.0
//
// exp and log in FMAs alone: no libm, so the bits are the same on every machine. Coefficients: interpolation at the
// Chebyshev nodes of the reduced interval in 64-bit mantissas, rounded.
#ifndef NEGCOS_KERNEL_EXP_LOG_HPP
#define NEGCOS_KERNEL_EXP_LOG_HPP

#include "kernel/lanes.hpp"

namespace {

// exp(x) = 2^n * exp(r), |r| <= log(2)/2, exp(r) = 1 + r + r^2 q(r). log(2) is split in two so that n * high is exact.
template <class T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
    static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
    static constexpr float kLowest = -87.33654f;  // below it exp would be subnormal, and is 0 here
    static constexpr float kLog2e = 1.44269504f, kLog2High = 0.693359375f, kLog2Low = -2.12194440e-4f;
    static constexpr float kQ[] = {0.0013926184f, 0.008363179f, 0.041666556f, 0.16666576f, 0.5f};
};
template <>
struct ExpConstants<double> {
    static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr double kLowest = -708.3964185322641;
    static constexpr double kLog2e = 1.4426950408889634, kLog2High = 0.6931471803691238,
                            kLog2Low = 1.9082149292705877e-10;
    static constexpr double kQ[] = {2.5100546156814093e-08, 2.7620090982121963e-07,
                                    2.755726802386926e-06,  2.4801521289521757e-05,
                                    0.00019841269863455098, 0.0013888888917219133,
                                    0.00833333333332992,    0.04166666666662411,
                                    0.16666666666666669,    0.5};
};

// For x <= 0, as log-sum-exp needs it. Results that would be subnormal are 0, so that flush-to-zero modes change
// nothing; NaN stays NaN.
// `held` is x, or the lowest number that counts. Always inline: compilers take it for too large, and a call passes
// lanes through memory.
template <class T>
[[gnu::always_inline]] inline Lanes<T> exp_nonpositive(const Lanes<T>& x, Lanes<T>& held) {
    using K = ExpConstants<T>;
    const Lanes<T> lowest = broadcast(K::kLowest), round = broadcast(K::kRound);
    held = larger(x, lowest);
    const Lanes<T> shifted = multiply_add(held, broadcast(K::kLog2e), round);
    const Lanes<T> n = shifted - round;
    Lanes<T> r = multiply_add(n, broadcast(-K::kLog2High), held);
    r = multiply_add(n, broadcast(-K::kLog2Low), r);
    Lanes<T> q = broadcast(K::kQ[0]);
    constexpr int kTerms = sizeof K::kQ / sizeof(T);
#pragma GCC unroll 16
    for (int k = 1; k < kTerms; ++k) q = multiply_add(q, r, broadcast(K::kQ[k]));
    const Lanes<T> fraction = multiply_add(q, r * r, r);  // exp(r) - 1
    const Lanes<T> power = power_of_two(shifted);
    return zero_where_less(x, lowest, multiply_add(power, fraction, power));
}

template <class T>
[[gnu::always_inline]] inline Lanes<T> exp_nonpositive(const Lanes<T>& x) {
    Lanes<T> held;
    return exp_nonpositive(x, held);
}

// log(a + b) for 0 <= a <= 1, 0 <= b and a + b in [1, 2^60]: as accurate for tiny b as log1p, since what the sum
// rounds away comes back as a first-order term.
inline Lanes<double> log_of_sum(const Lanes<double>& a, const Lanes<double>& b) {
    const Lanes<double> u = a + b;
    const Lanes<double> b_part = u - a;
    const Lanes<double> lost = (a - (u - b_part)) + (b - b_part);  // a + b = u + lost exactly

    // u = 2^k f with f in [sqrt(1/2), sqrt(2)); log f = 2 atanh(s), s = (f - 1) / (f + 1)
    Lanes<double> k, f;
    NEGCOS_EACH_PART(double) {
        using Integers = decltype(to_bits(u.part[p]));
        const Integers bits = to_bits(u.part[p]);
        // adding 1 - sqrt(1/2) in bits carries into the exponent exactly when the mantissa is above sqrt(2)
        const Integers carried = bits + Integers(uint64_t{0x3FF0000000000000} - uint64_t{0x3FE6A09E667F3BCD});
        const Integers exponent = carried >> 52;
        f.part[p] = from_bits<double>((carried & Integers(uint64_t{0x000FFFFFFFFFFFFF})) +
                                      Integers(uint64_t{0x3FE6A09E667F3BCD}));
        const Integers as_double = exponent | Integers(uint64_t{0x4330000000000000});  // 2^52 + exponent
        k.part[p] = from_bits<double>(as_double) - Register<double>(4503599627370496.0 + 1023.0);
    }
    const Lanes<double> one = broadcast(1.0);
    const Lanes<double> g = f - one;
    const Lanes<double> s = g / (f + one);
    const Lanes<double> z = s * s;
    Lanes<double> r = broadcast(0.13086952952253067);
    r = multiply_add(r, z, broadcast(0.13268760756434833));
    r = multiply_add(r, z, broadcast(0.15386239204215588));
    r = multiply_add(r, z, broadcast(0.18181795673806792));
    r = multiply_add(r, z, broadcast(0.2222222239107556));
    r = multiply_add(r, z, broadcast(0.2857142857080844));
    r = multiply_add(r, z, broadcast(0.4000000000000086));
    r = multiply_add(r, z, broadcast(0.6666666666666666));
    // log f = g - s (g - z r): g = f - 1 is exact and carries the leading digits
    const Lanes<double> log_f = g - s * (g - z * r);
    const Lanes<double> low = multiply_add(k, broadcast(ExpConstants<double>::kLog2Low), log_f + lost / u);
    const Lanes<double> result = multiply_add(k, broadcast(ExpConstants<double>::kLog2High), low);
    return select_less(u, broadcast(1.0e300), result, u);  // NaN stays NaN
}

// log(1 + e) for 0 <= e <= 1: 2 atanh(s) with s = e / (2 + e) <= 1/3, whose series loses nothing for tiny e. The terms
// left out are below (1/9)^8 / 17 in f32 and (1/9)^16 / 33 in f64 of the result.
template <class T>
Lanes<T> log1p_unit(const Lanes<T>& e) {
    constexpr int kTerms = sizeof(T) == 4 ? 7 : 15;
    const Lanes<T> two = broadcast(T(2));
    const Lanes<T> s = e / (two + e), z = s * s;
    Lanes<T> r = broadcast(T(1) / T(2 * kTerms + 1));
#pragma GCC unroll 16
    for (int k = kTerms - 2; k >= 0; --k) r = multiply_add(r, z, broadcast(T(1) / T(2 * k + 3)));
    const Lanes<T> twice = s + s;
    return multiply_add(twice * z, r, twice);
}

}  // namespace

#endif
