// SPDX-License-Identifier: Apache-2.0
//
// Which set of kernels runs: a pure function of what the CPU has, what was asked for and a cap.
#ifndef NEGCOS_DISPATCH_HPP
#define NEGCOS_DISPATCH_HPP

#include <cstdint>

#include "kernels.hpp"

namespace negcos {

enum CpuFeature : uint32_t {
    kAvx2 = 1,
    kFma = 2,
    kAvx512f = 4,
    kAvx512cd = 8,
    kAvx512dq = 16,
    kAvx512bw = 32,
    kAvx512vl = 64,
    kNeon = 128,
    kF16c = 256,
};

// The features of this CPU that its operating system has switched on, as bits of CpuFeature.
uint32_t cpu_features() noexcept;

// The kernel sets built in, best first.
int32_t isa_count() noexcept;
const char* isa_name(int32_t index) noexcept;  // nullptr outside
bool isa_available(const char* name, uint32_t features) noexcept;

// The set called `name`, or with nullptr the best that `features` allow and that is not above `cap` (nullptr = none).
// Returns a status and, on success, *kernels.
int32_t select_kernels(uint32_t features, const char* name, const char* cap, const Kernels** kernels) noexcept;

}  // namespace negcos

#endif
