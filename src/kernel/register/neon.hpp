// SPDX-License-Identifier: Apache-2.0
//
// NEON of 64-bit Arm: 16 bytes, four registers to the lanes.
#ifndef NEGCOS_KERNEL_REGISTER_NEON_HPP
#define NEGCOS_KERNEL_REGISTER_NEON_HPP

#include <arm_neon.h>

#include "kernel/register/xsimd.hpp"

namespace {

template <class T>
using Register = xsimd::batch<T, xsimd::neon64>;

// Rows and vectors of a tile of the products: as many accumulators as the 32 registers hold beside their operands.
constexpr int kTileRows = 6, kTileVectors = 1;

template <class T>
Register<T> register_load(const T* p) {
    return Register<T>::load_unaligned(p);
}
inline Register<float> register_load(const F16* p) {
    return Register<float>(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p)))));
}
inline Register<float> register_load(const BF16* p) {
    return Register<float>(vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p)), 16)));
}
// One by one: the conversion in hardware would round as the caller's mode says.
inline void register_store(F16* p, const Register<float>& x) {
    float lanes[4];
    x.store_unaligned(static_cast<float*>(lanes));
    for (int l = 0; l < 4; ++l) narrow(lanes[l], p[l]);
}
inline void register_store(BF16* p, const Register<float>& x) {
    vst1_u16(reinterpret_cast<uint16_t*>(p), vmovn_u32(bf16_words(x)));
}

// xsimd divides floats by an estimate of the reciprocal here, as the 32-bit NEON has to.
inline Register<float> divide(const Register<float>& a, const Register<float>& b) {
    return Register<float>(vdivq_f32(a, b));
}
template <class T>
Register<T> larger(const xsimd::batch<T, xsimd::neon64>& a, const xsimd::batch<T, xsimd::neon64>& b) {
    return select_less(a, b, b, a);
}
template <class T>
Register<T> zero_where_less(const xsimd::batch<T, xsimd::neon64>& a, const xsimd::batch<T, xsimd::neon64>& b,
                            const xsimd::batch<T, xsimd::neon64>& x) {
    return select_less(a, b, Register<T>(T(0)), x);
}
inline Register<uint64_t> multiply_low_halves(const Register<uint64_t>& a, const Register<uint64_t>& b) {
    return Register<uint64_t>(vmull_u32(vmovn_u64(a), vmovn_u64(b)));
}

template <class T>
Register<T> quad(const xsimd::batch<T, xsimd::neon64>& x) {
    return x;
}
template <class T>
T largest(const xsimd::batch<T, xsimd::neon64>& x) {
    constexpr int kWidth = 16 / static_cast<int>(sizeof(T));
    T lanes[kWidth];
    x.store_unaligned(static_cast<T*>(lanes));
    for (int half = kWidth / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) lanes[l] = lanes[l] < lanes[l + half] ? lanes[l + half] : lanes[l];
    return lanes[0];
}

}  // namespace

#endif
