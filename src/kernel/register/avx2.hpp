// SPDX-License-Identifier: Apache-2.0
//
// AVX2 with FMA and F16C: 32 bytes, two registers to the lanes.
#ifndef NEGCOS_KERNEL_REGISTER_AVX2_HPP
#define NEGCOS_KERNEL_REGISTER_AVX2_HPP

#include "kernel/register/x86.hpp"
#include "kernel/register/xsimd.hpp"

namespace {

template <class T>
using Register = xsimd::batch<T, xsimd::fma3<xsimd::avx2>>;

// Rows and vectors of a tile of the products: as many accumulators as the 16 registers hold beside their operands.
constexpr int kTileRows = 6, kTileVectors = 1;

template <class T>
Register<T> register_load(const T* p) {
    return Register<T>::load_unaligned(p);
}
inline Register<float> register_load(const F16* p) {
    return Register<float>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline Register<float> register_load(const BF16* p) {
    const __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return Register<float>(_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)));
}
inline void register_store(F16* p, const Register<float>& x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
inline void register_store(BF16* p, const Register<float>& x) {
    const __m256i words = bf16_words(x);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

alignas(32) constexpr int32_t kFirstMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
inline __m256i first_mask(int n, int words) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kFirstMask + 8 - n * words));
}
inline Register<float> register_load_first(const float* p, int n) {
    return Register<float>(_mm256_maskload_ps(p, first_mask(n, 1)));
}
inline Register<double> register_load_first(const double* p, int n) {
    return Register<double>(_mm256_maskload_pd(p, first_mask(n, 2)));
}
inline void register_store_first(float* p, const Register<float>& x, int n) {
    _mm256_maskstore_ps(p, first_mask(n, 1), x);
}
inline void register_store_first(double* p, const Register<double>& x, int n) {
    _mm256_maskstore_pd(p, first_mask(n, 2), x);
}

// In place: compilers take forms of the instruction that move the sums about, and run out of registers.
[[gnu::always_inline]] inline void add_product(Register<float>& sum, const Register<float>& a,
                                               const Register<float>& b) {
    __m256 s = sum;
    asm("vfmadd231ps %2, %1, %0" : "+v"(s) : "v"(static_cast<__m256>(a)), "v"(static_cast<__m256>(b)));
    sum = Register<float>(s);
}
[[gnu::always_inline]] inline void add_product(Register<double>& sum, const Register<double>& a,
                                               const Register<double>& b) {
    __m256d s = sum;
    asm("vfmadd231pd %2, %1, %0" : "+v"(s) : "v"(static_cast<__m256d>(a)), "v"(static_cast<__m256d>(b)));
    sum = Register<double>(s);
}
inline Register<float> larger(const Register<float>& a, const Register<float>& b) {
    return Register<float>(_mm256_max_ps(b, a));
}
inline Register<double> larger(const Register<double>& a, const Register<double>& b) {
    return Register<double>(_mm256_max_pd(b, a));
}
inline Register<float> zero_where_less(const Register<float>& a, const Register<float>& b, const Register<float>& x) {
    return Register<float>(_mm256_andnot_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ), x));
}
inline Register<double> zero_where_less(const Register<double>& a, const Register<double>& b,
                                        const Register<double>& x) {
    return Register<double>(_mm256_andnot_pd(_mm256_cmp_pd(a, b, _CMP_LT_OQ), x));
}
inline Register<uint64_t> multiply_low_halves(const Register<uint64_t>& a, const Register<uint64_t>& b) {
    return Register<uint64_t>(_mm256_mul_epu32(a, b));
}

}  // namespace

#endif
