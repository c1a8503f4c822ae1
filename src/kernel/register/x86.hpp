// SPDX-License-Identifier: Apache-2.0
//
// The end of the folds, which AVX2 and AVX-512 have in common: 32 bytes, then 16. In intrinsics, not xsimd's batches of
// those sizes: each of these would be one inline function with several machine codes.
#ifndef NEGCOS_KERNEL_REGISTER_X86_HPP
#define NEGCOS_KERNEL_REGISTER_X86_HPP

#include <immintrin.h>

namespace {

struct QuadFloat {
    __m128 v;
    QuadFloat operator+(QuadFloat b) const { return {_mm_add_ps(v, b.v)}; }
    void store_unaligned(float* out) const { _mm_storeu_ps(out, v); }
};
struct QuadDouble {
    __m128d v;
    QuadDouble operator+(QuadDouble b) const { return {_mm_add_pd(v, b.v)}; }
    void store_unaligned(double* out) const { _mm_storeu_pd(out, v); }
};
inline QuadFloat zip_lo(QuadFloat a, QuadFloat b) {
    return {_mm_unpacklo_ps(a.v, b.v)};
}
inline QuadFloat zip_hi(QuadFloat a, QuadFloat b) {
    return {_mm_unpackhi_ps(a.v, b.v)};
}
inline QuadDouble zip_lo(QuadDouble a, QuadDouble b) {
    return {_mm_unpacklo_pd(a.v, b.v)};
}
inline QuadDouble zip_hi(QuadDouble a, QuadDouble b) {
    return {_mm_unpackhi_pd(a.v, b.v)};
}

inline QuadFloat quad(__m256 x) {
    return {_mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1))};
}
inline QuadDouble quad(__m256d x) {
    return {_mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1))};
}

// x86's max(b, a) is a < b ? b : a, NaN and zeros included: larger() exactly.
inline float largest(__m256 x) {
    const __m128 four = _mm_max_ps(_mm256_extractf128_ps(x, 1), _mm256_castps256_ps128(x));
    const __m128 two = _mm_max_ps(_mm_movehl_ps(four, four), four);
    return _mm_cvtss_f32(_mm_max_ss(_mm_movehdup_ps(two), two));
}
inline double largest(__m256d x) {
    const __m128d two = _mm_max_pd(_mm256_extractf128_pd(x, 1), _mm256_castpd256_pd128(x));
    return _mm_cvtsd_f64(_mm_max_sd(_mm_unpackhi_pd(two, two), two));
}

}  // namespace

#endif
