// SPDX-License-Identifier: Apache-2.0
//
// Sixteen virtual lanes: every kernel is written for 16 floats (8 doubles), whatever the machine's registers hold: one
// AVX-512 register, two AVX2, four NEON, or plain variables in the scalar build. Lane assignment, FMA chains and the
// reduction tree are the same everywhere, and so are the bits.
//
// Included by kernel units alone, which are compiled once per instruction set: all names are in an anonymous namespace
// so that no inline function of one can stand in for another's.
#ifndef NEGCOS_KERNEL_LANES_HPP
#define NEGCOS_KERNEL_LANES_HPP

#include <stdint.h>

// What an instruction set has to give: kernel/register/<isa>.hpp, chosen by the build. Elements: register_load,
// register_store and, where the machine masks, register_load_first and register_store_first. Numbers: multiply_add,
// add_product, divide, select_less, select_less_equal, zero_where_less, larger, to_bits, from_bits,
// multiply_low_halves. The end of the folds: quad, sum_quads, largest. And the shape of a tile: kTileRows,
// kTileVectors.
#include NEGCOS_KERNEL_REGISTER

#include "element.hpp"
#include "kernel/half.hpp"

namespace {

template <auto kValue>
struct Constant {
    static constexpr auto value = kValue;
};

template <class T>
inline constexpr int kLanes = 64 / static_cast<int>(sizeof(T));
template <class T>
inline constexpr int kParts = 64 / static_cast<int>(sizeof(Register<T>));
template <class T>
inline constexpr int kWidth = kLanes<T> / kParts<T>;  // lanes of a register

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
// The first n of a register's lanes, 0 < n < kWidth, the rest zero; nothing beyond p[n-1] is touched. For elements that
// have no masked loads or stores.
template <class E>
Register<Working<E>> register_load_first(const E* p, int n) {
    E lanes[kWidth<Working<E>>] = {};
    for (int l = 0; l < n; ++l) lanes[l] = p[l];
    return register_load(static_cast<const E*>(lanes));
}
template <class E>
void register_store_first(E* p, const Register<Working<E>>& x, int n) {
    E lanes[kWidth<Working<E>>];
    register_store(static_cast<E*>(lanes), x);
    for (int l = 0; l < n; ++l) p[l] = lanes[l];
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
// sum += a * b.
template <class T>
[[gnu::always_inline]] inline void add_product(Lanes<T>& sum, const Lanes<T>& a, const Lanes<T>& b) {
    NEGCOS_EACH_PART(T) add_product(sum.part[p], a.part[p], b.part[p]);
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
    Lanes<T> r;
    NEGCOS_EACH_PART(T) r.part[p] = larger(a.part[p], b.part[p]);
    return r;
}
// x, or 0 where a < b.
template <class T>
Lanes<T> zero_where_less(const Lanes<T>& a, const Lanes<T>& b, const Lanes<T>& x) {
    Lanes<T> r;
    NEGCOS_EACH_PART(T) r.part[p] = zero_where_less(a.part[p], b.part[p], x.part[p]);
    return r;
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

// Lane l holds l 0, 1, 2, ...
template <class T>
Lanes<T> lane_indices() {
    alignas(64) static constexpr T kIndices[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return load(kIndices);
}

// A square of kLanes x kLanes: rows of `from` become columns of `to`.
template <class T>
void transpose(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
    for (int r = 0; r < kLanes<T>; ++r)
        for (int l = 0; l < kLanes<T>; ++l) to[r * to_stride + l] = from[l * from_stride + r];
}

// ---- Across lanes: the tree 16 -> 8 -> 4 -> 2 -> 1, lane l with lane l + half. Here as far as a single register,
// whose own lanes are folded by its file.

template <int kFirst = 0, int kStep = 1, class T, class Join>
Register<T> fold(const Lanes<T>& a, const Join& join) {
    if constexpr (kStep == kParts<T>)
        return a.part[kFirst];
    else
        return join(fold<kFirst, 2 * kStep>(a, join), fold<kFirst + kStep, 2 * kStep>(a, join));
}
template <class T>
T largest(const Lanes<T>& a) {
    return largest(fold(a, [](const Register<T>& x, const Register<T>& y) { return larger(x, y); }));
}
template <class T>
inline void sum_four(const Lanes<T>& a, const Lanes<T>& b, const Lanes<T>& c, const Lanes<T>& d, T* out) {
    const auto add = [](const Register<T>& x, const Register<T>& y) { return x + y; };
    const auto qa = quad(fold(a, add)), qb = quad(fold(b, add)), qc = quad(fold(c, add)), qd = quad(fold(d, add));
    sum_quads(qa, qb, qc, qd, out);
}
template <class T>
T sum(const Lanes<T>& a) {
    T sums[4];
    sum_four(a, a, a, a, static_cast<T*>(sums));
    return sums[0];
}

}  // namespace

#endif
