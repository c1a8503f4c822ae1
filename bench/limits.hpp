// SPDX-License-Identifier: Apache-2.0
//
// What the machine can do at most, probed in the process that is compared with it.
#ifndef NEGCOS_BENCH_LIMITS_HPP
#define NEGCOS_BENCH_LIMITS_HPP

#include <cstdint>
#include <string>

namespace limits {

// Seconds to read `pairs` rows of `row_bytes` out of `rows`, in a random order, `passes` times over, with `threads`
// threads, doing nothing else: the best of several prefetch distances. Sixteen floats at a time where the machine has
// AVX-512, else eight.
double gather_seconds(int64_t rows, int64_t row_bytes, int64_t pairs, int passes, int threads);

// Floating-point operations per second of independent fused multiply-adds in registers, a multiply-add counting as two.
double fma_rate(const std::string& isa, bool f64, int threads);

}  // namespace limits

#endif
