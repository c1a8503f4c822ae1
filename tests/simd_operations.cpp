// SPDX-License-Identifier: Apache-2.0
//
// Compiled once for each instruction set, with the flags of its kernels: defines one symbol, the table
// operations_<isa>.
#include "simd_operations.hpp"

#include "kernel/exp_log.hpp"
#include "kernel/lanes.hpp"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

namespace {

using simd::a_little_more;

#define EACH(name, nan, lanes, plain)                                   \
    template <class T>                                                  \
    void run_##name(const simd::Operands<T>& x, T* out) noexcept {      \
        [[maybe_unused]] const Lanes<T> a = load(x[0]), b = load(x[1]); \
        [[maybe_unused]] const Lanes<T> c = load(x[2]), d = load(x[3]); \
        [[maybe_unused]] const T first = x[0][0];                       \
        store(out, lanes);                                              \
    }
#define FOLD(name, nan, lanes, plain)                                   \
    template <class T>                                                  \
    void run_##name(const simd::Operands<T>& x, T* out) noexcept {      \
        [[maybe_unused]] const Lanes<T> a = load(x[0]), b = load(x[1]); \
        [[maybe_unused]] const Lanes<T> c = load(x[2]), d = load(x[3]); \
        lanes;                                                          \
    }
#define LOAD(name, when, lanes, plain)                                              \
    template <class E>                                                              \
    void run_##name(const E* x, [[maybe_unused]] int n, Working<E>* out) noexcept { \
        store(out, lanes);                                                          \
    }
#define STORE(name, when, lanes, plain)                                              \
    template <class E>                                                               \
    void run_##name(const Working<E>* from, [[maybe_unused]] int n, E* x) noexcept { \
        [[maybe_unused]] const Lanes<Working<E>> a = load(from);                     \
        lanes;                                                                       \
    }
#define WORDS(name, lanes, plain)                                                             \
    void run_##name(const uint64_t* x, const uint64_t* y, uint64_t* out) noexcept {           \
        [[maybe_unused]] const Register<uint64_t> a = register_load(x), b = register_load(y); \
        register_store(out, lanes);                                                           \
    }
#include "simd_operations.inc"
#undef EACH
#undef FOLD
#undef LOAD
#undef STORE
#undef WORDS

template <class T>
void exp_each(const T* x, T* result, int64_t n) noexcept {
    for (int64_t k = 0; k < n; k += kLanes<T>) {
        const int count = n - k < kLanes<T> ? static_cast<int>(n - k) : kLanes<T>;
        store_first(result + k, exp_nonpositive(load_first(x + k, count)), count);
    }
}

template <class T>
constexpr simd::LaneOperations<T> kLaneOperations = {
    exp_each<T>,
#define EACH(name, nan, lanes, plain) run_##name<T>,
#define FOLD EACH
#include "simd_operations.inc"
#undef EACH
#undef FOLD
};

template <class E>
constexpr simd::MemoryOperations<E> kMemoryOperations = {
#define LOAD(name, when, lanes, plain) run_##name<E>,
#define STORE LOAD
#include "simd_operations.inc"
#undef LOAD
#undef STORE
};

constexpr simd::WordOperations kWordOperations = {
    kWidth<uint64_t>,
#define WORDS(name, lanes, plain) run_##name,
#include "simd_operations.inc"
#undef WORDS
};

}  // namespace

namespace simd {

extern const Operations JOIN(operations_, NEGCOS_KERNEL_ISA);
const Operations JOIN(operations_, NEGCOS_KERNEL_ISA) = {
    kLaneOperations<float>,    kLaneOperations<double>,        kMemoryOperations<float>,
    kMemoryOperations<double>, kMemoryOperations<negcos::F16>, kMemoryOperations<negcos::BF16>,
    kWordOperations,
};

}  // namespace simd
