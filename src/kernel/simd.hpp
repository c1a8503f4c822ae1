// SPDX-License-Identifier: Apache-2.0
//
// Sixteen virtual lanes: every kernel is written for 16 floats (8 doubles), whatever the machine's registers hold: one
// AVX-512 register, two AVX2, four NEON, or plain variables in the scalar build. Lane assignment, FMA chains and the
// reduction tree are the same everywhere, and so are the bits. The only file that knows xsimd and its versions.
//
// Included by kernel units alone, which are compiled once per instruction set: all names are in an anonymous namespace
// so that no inline function of one can stand in for another's.
#ifndef NEGCOS_KERNEL_SIMD_HPP
#define NEGCOS_KERNEL_SIMD_HPP

#include <math.h>
#include <stdint.h>
#include <string.h>

#if !NEGCOS_KERNEL_SCALAR
#include <xsimd/xsimd.hpp>
#endif

#include "kernels.hpp"

namespace {

template <class T>
struct BitsOf;
template <>
struct BitsOf<float> {
    using type = uint32_t;
    static constexpr int kMantissa = 23, kBias = 127;
};
template <>
struct BitsOf<double> {
    using type = uint64_t;
    static constexpr int kMantissa = 52, kBias = 1023;
};
template <class T>
using Bits = typename BitsOf<T>::type;

// ---- One element: what is in memory and what is computed in ---------------------------------------------------------

using negcos::BF16;
using negcos::F16;
using negcos::Working;

// In integers, so that neither the rounding mode nor flush-to-zero has a say: nearest even, always.
inline float widen(F16 x) {
    const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7FFF;
    uint32_t bits = magnitude >= 0x7C00 ? magnitude << 13 | 0x7F800000u : (magnitude << 13) + (112u << 23);
    if (magnitude < 0x0400) {  // subnormal
        const float value = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
        memcpy(&bits, &value, sizeof bits);
    }
    bits |= sign;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
inline float widen(BF16 x) {
    const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
inline void narrow(float value, F16& x) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
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
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
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
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint64_t lost = (uint64_t{1} << 29) - 1;
    if (bits & lost) bits = (bits & ~lost) | (lost + 1);
    memcpy(&value, &bits, sizeof value);
    return to_element<E>(static_cast<float>(value));
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

// ---- One machine register -------------------------------------------------------------------------------------------

#if NEGCOS_KERNEL_SCALAR

template <class T>
using Register = T;
template <class T>
inline constexpr int kWidth = 1;

template <class T>
T register_load(const T* p) {
    return *p;
}
inline float register_load(const F16* p) {
    return widen(*p);
}
inline float register_load(const BF16* p) {
    return widen(*p);
}
template <class T>
void register_store(T* p, T x) {
    *p = x;
}
inline void register_store(F16* p, float x) {
    narrow(x, *p);
}
inline void register_store(BF16* p, float x) {
    narrow(x, *p);
}
inline float multiply_add(float a, float b, float c) {
    return fmaf(a, b, c);
}
inline double multiply_add(double a, double b, double c) {
    return fma(a, b, c);
}
template <class T>
T divide(T a, T b) {
    return a / b;
}
template <class T>
T select_less(T a, T b, T yes, T no) {
    return a < b ? yes : no;
}
template <class T>
T select_less_equal(T a, T b, T yes, T no) {
    return a <= b ? yes : no;
}
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

#else

#if NEGCOS_KERNEL_AVX512
using Arch = xsimd::avx512bw;
#elif NEGCOS_KERNEL_AVX2
using Arch = xsimd::fma3<xsimd::avx2>;
#elif NEGCOS_KERNEL_NEON
using Arch = xsimd::neon64;
#else
#error "a kernel unit needs -DNEGCOS_KERNEL_<ISA>=1"
#endif

template <class T>
using Register = xsimd::batch<T, Arch>;
template <class T>
inline constexpr int kWidth = static_cast<int>(Register<T>::size);

template <class T>
Register<T> register_load(const T* p) {
    return Register<T>::load_unaligned(p);
}
template <class T>
void register_store(T* p, Register<T> x) {
    x.store_unaligned(p);
}
#if NEGCOS_KERNEL_AVX512
// xsimd 8.1 has multiply and add in two roundings here.
inline Register<float> multiply_add(Register<float> a, Register<float> b, Register<float> c) {
    return Register<float>(_mm512_fmadd_ps(a, b, c));
}
inline Register<double> multiply_add(Register<double> a, Register<double> b, Register<double> c) {
    return Register<double>(_mm512_fmadd_pd(a, b, c));
}
#else
template <class T>
Register<T> multiply_add(const xsimd::batch<T, Arch>& a, const xsimd::batch<T, Arch>& b,
                         const xsimd::batch<T, Arch>& c) {
    return xsimd::fma(a, b, c);
}
#endif
template <class T>
Register<T> divide(const xsimd::batch<T, Arch>& a, const xsimd::batch<T, Arch>& b) {
    return a / b;
}
#if NEGCOS_KERNEL_NEON
// xsimd divides floats by an estimate of the reciprocal here, as the 32-bit NEON has to.
inline Register<float> divide(const Register<float>& a, const Register<float>& b) {
    return Register<float>(vdivq_f32(a, b));
}
#endif
// NaN in a or b selects `no`, on every machine.
template <class T>
Register<T> select_less(const xsimd::batch<T, Arch>& a, const xsimd::batch<T, Arch>& b,
                        const xsimd::batch<T, Arch>& yes, const xsimd::batch<T, Arch>& no) {
    return xsimd::select(a < b, yes, no);
}
template <class T>
Register<T> select_less_equal(const xsimd::batch<T, Arch>& a, const xsimd::batch<T, Arch>& b,
                              const xsimd::batch<T, Arch>& yes, const xsimd::batch<T, Arch>& no) {
    return xsimd::select(a <= b, yes, no);
}
template <class T>
xsimd::batch<Bits<T>, Arch> to_bits(const xsimd::batch<T, Arch>& x) {
#if XSIMD_VERSION_MAJOR > 10
    return xsimd::bitwise_cast<Bits<T>>(x);
#else
    return xsimd::bitwise_cast<xsimd::batch<Bits<T>, Arch>>(x);
#endif
}
template <class T>
Register<T> from_bits(const xsimd::batch<Bits<T>, Arch>& x) {
#if XSIMD_VERSION_MAJOR > 10
    return xsimd::bitwise_cast<T>(x);
#else
    return xsimd::bitwise_cast<xsimd::batch<T, Arch>>(x);
#endif
}

// Sixteen-bit elements, a register of floats at a time; xsimd has none of this.
#if NEGCOS_KERNEL_AVX512
inline Register<float> register_load(const F16* p) {
    return Register<float>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
}
inline Register<float> register_load(const BF16* p) {
    const __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return Register<float>(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)));
}
inline void register_store(F16* p, Register<float> x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_words(BF16* p, const xsimd::batch<uint32_t, Arch>& x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(x));
}
#elif NEGCOS_KERNEL_AVX2
inline Register<float> register_load(const F16* p) {
    return Register<float>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline Register<float> register_load(const BF16* p) {
    const __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return Register<float>(_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)));
}
inline void register_store(F16* p, Register<float> x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_words(BF16* p, const xsimd::batch<uint32_t, Arch>& x) {
    const __m256i words = x;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
#else
inline Register<float> register_load(const F16* p) {
    return Register<float>(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p)))));
}
inline Register<float> register_load(const BF16* p) {
    return Register<float>(vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p)), 16)));
}
// One by one: the conversion in hardware would round as the caller's mode says.
inline void register_store(F16* p, Register<float> x) {
    float lanes[kWidth<float>];
    x.store_unaligned(static_cast<float*>(lanes));
    for (int l = 0; l < kWidth<float>; ++l) narrow(lanes[l], p[l]);
}
inline void store_words(BF16* p, const xsimd::batch<uint32_t, Arch>& x) {
    vst1_u16(reinterpret_cast<uint16_t*>(p), vmovn_u32(x));
}
#endif
// The NaN of one_nan() stays one here.
inline void register_store(BF16* p, Register<float> x) {
    using Words = xsimd::batch<uint32_t, Arch>;
    const Words bits = to_bits(x);
    store_words(p, (bits + Words(uint32_t{0x7FFF}) + ((bits >> 16) & Words(uint32_t{1}))) >> 16);
}

#endif

// The product of the low 32 bits of each 64-bit lane.
using Wide = Register<uint64_t>;
inline Wide multiply_low_halves(const Wide& a, const Wide& b) {
#if NEGCOS_KERNEL_AVX512
    return Wide(_mm512_mul_epu32(a, b));
#elif NEGCOS_KERNEL_AVX2
    return Wide(_mm256_mul_epu32(a, b));
#elif NEGCOS_KERNEL_NEON
    return Wide(vmull_u32(vmovn_u64(a), vmovn_u64(b)));
#else
    return (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF);
#endif
}

// The first n of a register's lanes, 0 < n < kWidth, the rest zero; nothing beyond p[n-1] is touched.
#if NEGCOS_KERNEL_AVX512
inline Register<float> register_load_first(const float* p, int n) {
    return Register<float>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p));
}
inline Register<double> register_load_first(const double* p, int n) {
    return Register<double>(_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1u), p));
}
inline void register_store_first(float* p, Register<float> x, int n) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1u), x);
}
inline void register_store_first(double* p, Register<double> x, int n) {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1u), x);
}
inline Register<float> register_load_first(const F16* p, int n) {
    return Register<float>(_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1u), p)));
}
inline Register<float> register_load_first(const BF16* p, int n) {
    const __m256i words = _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1u), p);
    return Register<float>(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16)));
}
#elif NEGCOS_KERNEL_AVX2
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
inline void register_store_first(float* p, Register<float> x, int n) {
    _mm256_maskstore_ps(p, first_mask(n, 1), x);
}
inline void register_store_first(double* p, Register<double> x, int n) {
    _mm256_maskstore_pd(p, first_mask(n, 2), x);
}
#endif
// For the types that have no masked loads.
template <class E>
Register<Working<E>> register_load_first(const E* p, int n) {
    E lanes[kWidth<Working<E>>] = {};
    for (int l = 0; l < n; ++l) lanes[l] = p[l];
    return register_load(static_cast<const E*>(lanes));
}
template <class E>
void register_store_first(E* p, Register<Working<E>> x, int n) {
    E lanes[kWidth<Working<E>>];
    register_store(static_cast<E*>(lanes), x);
    for (int l = 0; l < n; ++l) p[l] = lanes[l];
}

// ---- Sixteen lanes --------------------------------------------------------------------------------------------------

template <class T>
inline constexpr int kLanes = 64 / static_cast<int>(sizeof(T));
template <class T>
inline constexpr int kParts = kLanes<T> / kWidth<T>;

template <class T>
struct Lanes {
    Register<T> part[static_cast<size_t>(kParts<T>)];
};

#define NEGCOS_EACH_PART(T) _Pragma("GCC unroll 16") for (int p = 0; p < kParts<T>; ++p)

template <class T>
Lanes<T> broadcast(T x) {
    Lanes<T> r;
    NEGCOS_EACH_PART(T) r.part[p] = Register<T>(x);
    return r;
}
// Elements in memory, one for each lane.
template <class E>
Lanes<Working<E>> load(const E* x) {
    using T = Working<E>;
    Lanes<T> r;
    NEGCOS_EACH_PART(T) r.part[p] = register_load(x + p * kWidth<T>);
    return r;
}
template <class E>
void store(E* x, const Lanes<Working<E>>& a) {
    using T = Working<E>;
    NEGCOS_EACH_PART(T) register_store(x + p * kWidth<T>, a.part[p]);
}
// The first n lanes, 0 <= n <= kLanes; the others are 0 on load and left alone on store.
template <class E>
Lanes<Working<E>> load_first(const E* x, int n) {
    using T = Working<E>;
    Lanes<T> r;
    NEGCOS_EACH_PART(T) {
        const int have = n - p * kWidth<T>;
        r.part[p] = have >= kWidth<T> ? register_load(x + p * kWidth<T>)
                    : have <= 0       ? Register<T>(T(0))
                                      : register_load_first(x + p * kWidth<T>, have);
    }
    return r;
}
template <class E>
void store_first(E* x, const Lanes<Working<E>>& a, int n) {
    using T = Working<E>;
    NEGCOS_EACH_PART(T) {
        const int have = n - p * kWidth<T>;
        if (have >= kWidth<T>)
            register_store(x + p * kWidth<T>, a.part[p]);
        else if (have > 0)
            register_store_first(x + p * kWidth<T>, a.part[p], have);
    }
}

template <class T>
Lanes<T> operator+(const Lanes<T>& a, const Lanes<T>& b) {
    Lanes<T> r;
    NEGCOS_EACH_PART(T) r.part[p] = a.part[p] + b.part[p];
    return r;
}
template <class T>
Lanes<T> operator-(const Lanes<T>& a, const Lanes<T>& b) {
    Lanes<T> r;
    NEGCOS_EACH_PART(T) r.part[p] = a.part[p] - b.part[p];
    return r;
}
template <class T>
Lanes<T> operator*(const Lanes<T>& a, const Lanes<T>& b) {
    Lanes<T> r;
    NEGCOS_EACH_PART(T) r.part[p] = a.part[p] * b.part[p];
    return r;
}
template <class T>
Lanes<T> operator/(const Lanes<T>& a, const Lanes<T>& b) {
    Lanes<T> r;
    NEGCOS_EACH_PART(T) r.part[p] = divide(a.part[p], b.part[p]);
    return r;
}
// a * b + c in one rounding.
template <class T>
Lanes<T> multiply_add(const Lanes<T>& a, const Lanes<T>& b, const Lanes<T>& c) {
    Lanes<T> r;
    NEGCOS_EACH_PART(T) r.part[p] = multiply_add(a.part[p], b.part[p], c.part[p]);
    return r;
}
template <class T>
Lanes<T> select_less(const Lanes<T>& a, const Lanes<T>& b, const Lanes<T>& yes, const Lanes<T>& no) {
    Lanes<T> r;
    NEGCOS_EACH_PART(T) r.part[p] = select_less(a.part[p], b.part[p], yes.part[p], no.part[p]);
    return r;
}
template <class T>
Lanes<T> select_less_equal(const Lanes<T>& a, const Lanes<T>& b, const Lanes<T>& yes, const Lanes<T>& no) {
    Lanes<T> r;
    NEGCOS_EACH_PART(T) r.part[p] = select_less_equal(a.part[p], b.part[p], yes.part[p], no.part[p]);
    return r;
}
// NaN of any kind as the one that every machine writes: sign and payload depend on the machine.
template <class T>
Lanes<T> one_nan(const Lanes<T>& a) {
    return select_less_equal(a, a, a, broadcast(static_cast<T>(__builtin_nanf(""))));
}
// The larger; a where either is NaN.
template <class T>
Lanes<T> larger(const Lanes<T>& a, const Lanes<T>& b) {
    return select_less(a, b, b, a);
}
// 2^n from t = n + 1.5 * 2^mantissa: n sits in the low bits of t, shifted into the exponent's place.
template <class T>
Lanes<T> power_of_two(const Lanes<T>& t) {
    Lanes<T> r;
    NEGCOS_EACH_PART(T) {
        const auto one = to_bits(Register<T>(T(1)));
        r.part[p] = from_bits<T>((to_bits(t.part[p]) << BitsOf<T>::kMantissa) + one);
    }
    return r;
}

// One lane for each index 0, 1, 2, ...
template <class T>
Lanes<T> lane_indices() {
    alignas(64) static constexpr T kIndices[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return load(kIndices);
}

// ---- Across lanes: the fixed tree 16 -> 8 -> 4 -> 2 -> 1, lane l with lane l + half

#if NEGCOS_KERNEL_AVX512 || NEGCOS_KERNEL_AVX2
// x86's max(b, a) is a < b ? b : a, NaN and zeros included: larger() exactly.
inline float largest(__m256 x) {
    const __m128 low = _mm256_castps256_ps128(x);
    const __m128 four = _mm_max_ps(_mm256_extractf128_ps(x, 1), low);
    const __m128 two = _mm_max_ps(_mm_movehl_ps(four, four), four);
    return _mm_cvtss_f32(_mm_max_ss(_mm_movehdup_ps(two), two));
}
inline double largest(__m256d x) {
    const __m128d two = _mm_max_pd(_mm256_extractf128_pd(x, 1), _mm256_castpd256_pd128(x));
    return _mm_cvtsd_f64(_mm_max_sd(_mm_unpackhi_pd(two, two), two));
}
#if NEGCOS_KERNEL_AVX512
inline float largest(const Lanes<float>& a) {
    const __m512 x = a.part[0];
    return largest(_mm256_max_ps(_mm512_extractf32x8_ps(x, 1), _mm512_castps512_ps256(x)));
}
inline double largest(const Lanes<double>& a) {
    const __m512d x = a.part[0];
    return largest(_mm256_max_pd(_mm512_extractf64x4_pd(x, 1), _mm512_castpd512_pd256(x)));
}
#else
inline float largest(const Lanes<float>& a) {
    return largest(_mm256_max_ps(a.part[1], a.part[0]));
}
inline double largest(const Lanes<double>& a) {
    return largest(_mm256_max_pd(a.part[1], a.part[0]));
}
#endif
#else
template <class T>
T largest(const Lanes<T>& a) {
    alignas(64) T lanes[kLanes<T>];
    store(static_cast<T*>(lanes), a);
    for (int half = kLanes<T> / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) lanes[l] = lanes[l] < lanes[l + half] ? lanes[l + half] : lanes[l];
    return lanes[0];
}
#endif

#if NEGCOS_KERNEL_SCALAR

template <class T>
T sum(const Lanes<T>& a) {
    alignas(64) T lanes[kLanes<T>];
    store(static_cast<T*>(lanes), a);
    for (int half = kLanes<T> / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    return lanes[0];
}

template <class T>
void sum_four(const Lanes<T>& a, const Lanes<T>& b, const Lanes<T>& c, const Lanes<T>& d, T* out) {
    out[0] = sum(a);
    out[1] = sum(b);
    out[2] = sum(c);
    out[3] = sum(d);
}

#else

#if NEGCOS_KERNEL_NEON
template <class T>
using Quad = Register<T>;
template <class T>
Quad<T> fold(const Lanes<T>& a) {
    return (a.part[0] + a.part[2]) + (a.part[1] + a.part[3]);
}
template <class T>
Quad<T> zip_low(const Quad<T>& a, const Quad<T>& b) {
    return xsimd::zip_lo(a, b);
}
template <class T>
Quad<T> zip_high(const Quad<T>& a, const Quad<T>& b) {
    return xsimd::zip_hi(a, b);
}
template <class T>
void store_quad(T* out, const Quad<T>& a) {
    a.store_unaligned(out);
}
#else
// Intrinsics, not xsimd's 128-bit batches: those would be one inline function with several machine codes.
struct QuadFloat {
    __m128 v;
    QuadFloat operator+(QuadFloat b) const { return {_mm_add_ps(v, b.v)}; }
};
struct QuadDouble {
    __m128d v;
    QuadDouble operator+(QuadDouble b) const { return {_mm_add_pd(v, b.v)}; }
};
inline QuadFloat zip_low(QuadFloat a, QuadFloat b) {
    return {_mm_unpacklo_ps(a.v, b.v)};
}
inline QuadFloat zip_high(QuadFloat a, QuadFloat b) {
    return {_mm_unpackhi_ps(a.v, b.v)};
}
inline QuadDouble zip_low(QuadDouble a, QuadDouble b) {
    return {_mm_unpacklo_pd(a.v, b.v)};
}
inline QuadDouble zip_high(QuadDouble a, QuadDouble b) {
    return {_mm_unpackhi_pd(a.v, b.v)};
}
inline void store_quad(float* out, QuadFloat a) {
    _mm_storeu_ps(out, a.v);
}
inline void store_quad(double* out, QuadDouble a) {
    _mm_storeu_pd(out, a.v);
}

inline QuadFloat fold(__m256 x) {
    return {_mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1))};
}
inline QuadDouble fold(__m256d x) {
    return {_mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1))};
}
#if NEGCOS_KERNEL_AVX512
inline QuadFloat fold(const Lanes<float>& a) {
    const __m512 x = a.part[0];
    return fold(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
}
inline QuadDouble fold(const Lanes<double>& a) {
    const __m512d x = a.part[0];
    return fold(_mm256_add_pd(_mm512_castpd512_pd256(x), _mm512_extractf64x4_pd(x, 1)));
}
#else
inline QuadFloat fold(const Lanes<float>& a) {
    return fold(static_cast<__m256>(a.part[0] + a.part[1]));
}
inline QuadDouble fold(const Lanes<double>& a) {
    return fold(static_cast<__m256d>(a.part[0] + a.part[1]));
}
#endif
#endif

// Four sums at once: a transpose and two additions in place of four horizontal sums; each is sum()'s tree exactly.
inline void sum_four(const Lanes<float>& a, const Lanes<float>& b, const Lanes<float>& c, const Lanes<float>& d,
                     float* out) {
    const auto fa = fold(a), fb = fold(b), fc = fold(c), fd = fold(d);
    const auto ac = zip_low(fa, fc) + zip_high(fa, fc);  // a0+a2 c0+c2 a1+a3 c1+c3
    const auto bd = zip_low(fb, fd) + zip_high(fb, fd);
    store_quad(out, zip_low(ac, bd) + zip_high(ac, bd));
}
inline void sum_four(const Lanes<double>& a, const Lanes<double>& b, const Lanes<double>& c, const Lanes<double>& d,
                     double* out) {
    const auto fa = fold(a), fb = fold(b), fc = fold(c), fd = fold(d);
    store_quad(out, zip_low(fa, fb) + zip_high(fa, fb));
    store_quad(out + 2, zip_low(fc, fd) + zip_high(fc, fd));
}

template <class T>
T sum(const Lanes<T>& a) {
    T sums[4];
    sum_four(a, a, a, a, static_cast<T*>(sums));
    return sums[0];
}

#endif

}  // namespace

#endif
