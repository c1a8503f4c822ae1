// SPDX-License-Identifier: Apache-2.0
//
// Vectors on a border of cache lines, as the tensors of the usual frameworks and the library's own workspace are.
#ifndef NEGCOS_BENCH_ALIGNED_HPP
#define NEGCOS_BENCH_ALIGNED_HPP

#include <cstddef>
#include <new>
#include <vector>

template <class T>
struct Aligned {
    using value_type = T;
    Aligned() = default;
    template <class U>
    explicit Aligned(const Aligned<U>&) {}
    T* allocate(std::size_t n) { return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64})); }
    void deallocate(T* data, std::size_t) { ::operator delete (data, std::align_val_t{64}); }
    bool operator==(const Aligned&) const { return true; }
};
template <class T>
using Vector = std::vector<T, Aligned<T>>;

#endif
