// SPDX-License-Identifier: Apache-2.0
//
// AVX-512 F, CD, DQ, BW and VL: 64 bytes, all lanes in one register.
#ifndef NEGCOS_KERNEL_REGISTER_AVX512_HPP
#define NEGCOS_KERNEL_REGISTER_AVX512_HPP

#include "kernel/register/x86.hpp"
#include "kernel/register/xsimd.hpp"

namespace {

template <class T>
using Register = xsimd::batch<T, xsimd::avx512bw>;

// Rows and vectors of a tile of the products: as many accumulators as the 32 registers hold beside their operands.
constexpr int kTileRows = 12, kTileVectors = 2;

template <class T>
Register<T> register_load(const T* p) {
    return Register<T>::load_unaligned(p);
}
inline Register<float> register_load(const F16* p) {
    return Register<float>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
}
inline Register<float> register_load(const BF16* p) {
    const __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return Register<float>(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)));
}
inline void register_store(F16* p, const Register<float>& x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
inline void register_store(BF16* p, const Register<float>& x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(bf16_words(x)));
}

template <class Mask>
Mask first_mask(int n) {
    return static_cast<Mask>((1u << n) - 1u);
}
inline Register<float> register_load_first(const float* p, int n) {
    return Register<float>(_mm512_maskz_loadu_ps(first_mask<__mmask16>(n), p));
}
inline Register<double> register_load_first(const double* p, int n) {
    return Register<double>(_mm512_maskz_loadu_pd(first_mask<__mmask8>(n), p));
}
inline Register<float> register_load_first(const F16* p, int n) {
    return Register<float>(_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_mask<__mmask16>(n), p)));
}
inline Register<float> register_load_first(const BF16* p, int n) {
    const __m256i words = _mm256_maskz_loadu_epi16(first_mask<__mmask16>(n), p);
    return Register<float>(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16)));
}
inline void register_store_first(float* p, const Register<float>& x, int n) {
    _mm512_mask_storeu_ps(p, first_mask<__mmask16>(n), x);
}
inline void register_store_first(double* p, const Register<double>& x, int n) {
    _mm512_mask_storeu_pd(p, first_mask<__mmask8>(n), x);
}

// xsimd 8.1 has multiply and add in two roundings here.
inline Register<float> multiply_add(const Register<float>& a, const Register<float>& b, const Register<float>& c) {
    return Register<float>(_mm512_fmadd_ps(a, b, c));
}
inline Register<double> multiply_add(const Register<double>& a, const Register<double>& b, const Register<double>& c) {
    return Register<double>(_mm512_fmadd_pd(a, b, c));
}
// In place: compilers take forms of the instruction that move the sums about, and run out of registers.
[[gnu::always_inline]] inline void add_product(Register<float>& sum, const Register<float>& a,
                                               const Register<float>& b) {
    __m512 s = sum;
    asm("vfmadd231ps %2, %1, %0" : "+v"(s) : "v"(static_cast<__m512>(a)), "v"(static_cast<__m512>(b)));
    sum = Register<float>(s);
}
[[gnu::always_inline]] inline void add_product(Register<double>& sum, const Register<double>& a,
                                               const Register<double>& b) {
    __m512d s = sum;
    asm("vfmadd231pd %2, %1, %0" : "+v"(s) : "v"(static_cast<__m512d>(a)), "v"(static_cast<__m512d>(b)));
    sum = Register<double>(s);
}
inline Register<float> larger(const Register<float>& a, const Register<float>& b) {
    return Register<float>(_mm512_max_ps(b, a));
}
inline Register<double> larger(const Register<double>& a, const Register<double>& b) {
    return Register<double>(_mm512_max_pd(b, a));
}
inline Register<float> zero_where_less(const Register<float>& a, const Register<float>& b, const Register<float>& x) {
    return Register<float>(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ), x));
}
inline Register<double> zero_where_less(const Register<double>& a, const Register<double>& b,
                                        const Register<double>& x) {
    return Register<double>(_mm512_maskz_mov_pd(_mm512_cmp_pd_mask(a, b, _CMP_NLT_UQ), x));
}
inline Register<uint64_t> multiply_low_halves(const Register<uint64_t>& a, const Register<uint64_t>& b) {
    return Register<uint64_t>(_mm512_mul_epu32(a, b));
}

inline QuadFloat quad(__m512 x) {
    return quad(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
}
inline QuadDouble quad(__m512d x) {
    return quad(_mm256_add_pd(_mm512_castpd512_pd256(x), _mm512_extractf64x4_pd(x, 1)));
}
inline float largest(__m512 x) {
    return largest(_mm256_max_ps(_mm512_extractf32x8_ps(x, 1), _mm512_castps512_ps256(x)));
}
inline double largest(__m512d x) {
    return largest(_mm256_max_pd(_mm512_extractf64x4_pd(x, 1), _mm512_castpd512_pd256(x)));
}

}  // namespace

#endif
