// SPDX-License-Identifier: Apache-2.0
//
// The end of the folds, which AVX2 and AVX-512 have in common: 32 bytes, then 16. In intrinsics, not xsimd's batches of
// those sizes: each of these would be one inline function with several machine codes.
#ifndef NEGCOS_KERNEL_REGISTER_X86_HPP
#define NEGCOS_KERNEL_REGISTER_X86_HPP

#include <immintrin.h>
#include <stdint.h>

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

// A square of 16 x 16, of which each quarter of 8 x 8 takes three shuffles a row.
inline void transpose_quarter(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
    __m256 r[8], u[8];
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) r[k] = _mm256_loadu_ps(from + k * from_stride);
#pragma GCC unroll 4
    for (int k = 0; k < 8; k += 2) {
        u[k] = _mm256_unpacklo_ps(r[k], r[k + 1]);
        u[k + 1] = _mm256_unpackhi_ps(r[k], r[k + 1]);
    }
#pragma GCC unroll 2
    for (int k = 0; k < 8; k += 4) {
        r[k] = _mm256_shuffle_ps(u[k], u[k + 2], 0x44);
        r[k + 1] = _mm256_shuffle_ps(u[k], u[k + 2], 0xEE);
        r[k + 2] = _mm256_shuffle_ps(u[k + 1], u[k + 3], 0x44);
        r[k + 3] = _mm256_shuffle_ps(u[k + 1], u[k + 3], 0xEE);
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
        _mm256_storeu_ps(to + k * to_stride, _mm256_permute2f128_ps(r[k], r[k + 4], 0x20));
        _mm256_storeu_ps(to + (k + 4) * to_stride, _mm256_permute2f128_ps(r[k], r[k + 4], 0x31));
    }
}
inline void transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
    for (int r = 0; r < 16; r += 8)
        for (int l = 0; l < 16; l += 8)
            transpose_quarter(from + l * from_stride + r, from_stride, to + r * to_stride + l, to_stride);
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
