// SPDX-License-Identifier: Apache-2.0
//
// No vectors: a register is a number. For reference and portability, not for speed.
#ifndef NEGCOS_KERNEL_REGISTER_SCALAR_HPP
#define NEGCOS_KERNEL_REGISTER_SCALAR_HPP

#include <math.h>
#include <stdint.h>

#include "kernel/half.hpp"

namespace {

template <class T>
using Register = T;

// Rows and vectors of a tile of the products.
constexpr int kTileRows = 2, kTileVectors = 1;

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
void add_product(T& sum, T a, T b) {
    sum = multiply_add(a, b, sum);
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
T larger(T a, T b) {
    return a < b ? b : a;
}
template <class T>
T zero_where_less(T a, T b, T x) {
    return a < b ? T(0) : x;
}
inline uint64_t multiply_low_halves(uint64_t a, uint64_t b) {
    return (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF);
}

// Nothing is left to fold.
template <class T>
T quad(T x) {
    return x;
}
template <class T>
void sum_quads(T a, T b, T c, T d, T* out) {
    out[0] = a;
    out[1] = b;
    out[2] = c;
    out[3] = d;
}
template <class T>
T largest(T x) {
    return x;
}

}  // namespace

#endif
