// SPDX-License-Identifier: Apache-2.0
//
// What the vector instruction sets have in common over xsimd's batches; and the one place that tells its versions
// apart.
#ifndef NEGCOS_KERNEL_REGISTER_XSIMD_HPP
#define NEGCOS_KERNEL_REGISTER_XSIMD_HPP

#include <stdint.h>

#include <xsimd/xsimd.hpp>

#include "kernel/half.hpp"

namespace {

template <class T, class Arch>
void register_store(T* p, const xsimd::batch<T, Arch>& x) {
    x.store_unaligned(p);
}
template <class T, class Arch>
xsimd::batch<T, Arch> multiply_add(const xsimd::batch<T, Arch>& a, const xsimd::batch<T, Arch>& b,
                                   const xsimd::batch<T, Arch>& c) {
    return xsimd::fma(a, b, c);
}
template <class T, class Arch>
[[gnu::always_inline]] inline void add_product(xsimd::batch<T, Arch>& sum, const xsimd::batch<T, Arch>& a,
                                               const xsimd::batch<T, Arch>& b) {
    sum = multiply_add(a, b, sum);
}
template <class T, class Arch>
xsimd::batch<T, Arch> divide(const xsimd::batch<T, Arch>& a, const xsimd::batch<T, Arch>& b) {
    return a / b;
}
// NaN in a or b selects `no`, on every machine.
template <class T, class Arch>
xsimd::batch<T, Arch> select_less(const xsimd::batch<T, Arch>& a, const xsimd::batch<T, Arch>& b,
                                  const xsimd::batch<T, Arch>& yes, const xsimd::batch<T, Arch>& no) {
    return xsimd::select(a < b, yes, no);
}
template <class T, class Arch>
xsimd::batch<T, Arch> select_less_equal(const xsimd::batch<T, Arch>& a, const xsimd::batch<T, Arch>& b,
                                        const xsimd::batch<T, Arch>& yes, const xsimd::batch<T, Arch>& no) {
    return xsimd::select(a <= b, yes, no);
}

template <class T, class Arch>
xsimd::batch<Bits<T>, Arch> to_bits(const xsimd::batch<T, Arch>& x) {
#if XSIMD_VERSION_MAJOR > 10
    return xsimd::bitwise_cast<Bits<T>>(x);
#else
    return xsimd::bitwise_cast<xsimd::batch<Bits<T>, Arch>>(x);
#endif
}
template <class T, class Arch>
xsimd::batch<T, Arch> from_bits(const xsimd::batch<Bits<T>, Arch>& x) {
#if XSIMD_VERSION_MAJOR > 10
    return xsimd::bitwise_cast<T>(x);
#else
    return xsimd::bitwise_cast<xsimd::batch<T, Arch>>(x);
#endif
}

// bfloat16 in the low half of each word. The NaN of one_nan() stays one here.
template <class Arch>
inline xsimd::batch<uint32_t, Arch> bf16_words(const xsimd::batch<float, Arch>& x) {
    using Words = xsimd::batch<uint32_t, Arch>;
    const Words bits = to_bits(x);
    return (bits + Words(uint32_t{0x7FFF}) + ((bits >> 16) & Words(uint32_t{1}))) >> 16;
}

// The sums of four quads of 16 bytes: a transpose and two additions in place of four horizontal sums, each of them
// the tree.
template <class Quad>
inline void sum_quads(const Quad& a, const Quad& b, const Quad& c, const Quad& d, float* out) {
    const Quad ac = zip_lo(a, c) + zip_hi(a, c);  // a0+a2 c0+c2 a1+a3 c1+c3
    const Quad bd = zip_lo(b, d) + zip_hi(b, d);
    (zip_lo(ac, bd) + zip_hi(ac, bd)).store_unaligned(out);
}
template <class Quad>
inline void sum_quads(const Quad& a, const Quad& b, const Quad& c, const Quad& d, double* out) {
    (zip_lo(a, b) + zip_hi(a, b)).store_unaligned(out);
    (zip_lo(c, d) + zip_hi(c, d)).store_unaligned(out + 2);
}

}  // namespace

#endif
