// SPDX-License-Identifier: Apache-2.0
#include "dispatch.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstring>

#include "config.hpp"
#include "status.hpp"

namespace negcos {

#define NEGCOS_TARGET(isa, needs) extern const Kernels kernels_##isa;
#include "targets.inc"
#undef NEGCOS_TARGET

namespace {

struct Target {
    const Kernels* kernels;
    uint32_t needs;
};

#define NEGCOS_TARGET(isa, needs) {&kernels_##isa, needs},
constexpr Target kTargets[] = {
#include "targets.inc"
};
#undef NEGCOS_TARGET
constexpr int32_t kCount = sizeof kTargets / sizeof kTargets[0];

int32_t find(const char* name) noexcept {
    for (int32_t t = 0; t < kCount; ++t)
        if (std::strcmp(kTargets[t].kernels->isa, name) == 0) return t;
    return -1;
}

bool runs(int32_t target, uint32_t features) noexcept {
    return (kTargets[target].needs & features) == kTargets[target].needs;
}

}  // namespace

uint32_t cpu_features() noexcept {
    uint32_t features = 0;
#if defined(__x86_64__)
    // Unlike raw CPUID this also asks whether the operating system saves the registers.
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) {
        features |= kAvx2;
        // clang 14 cannot be asked for F16C by name; its registers are AVX's.
        unsigned eax, ebx, ecx, edx;
        if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C)) features |= kF16c;
    }
    if (__builtin_cpu_supports("fma")) features |= kFma;
    if (__builtin_cpu_supports("avx512f")) features |= kAvx512f;
    if (__builtin_cpu_supports("avx512cd")) features |= kAvx512cd;
    if (__builtin_cpu_supports("avx512dq")) features |= kAvx512dq;
    if (__builtin_cpu_supports("avx512bw")) features |= kAvx512bw;
    if (__builtin_cpu_supports("avx512vl")) features |= kAvx512vl;
#elif defined(__aarch64__)
    features |= kNeon;
#endif
    return features;
}

int32_t isa_count() noexcept {
    return kCount;
}

const char* isa_name(int32_t index) noexcept {
    return index >= 0 && index < kCount ? kTargets[index].kernels->isa : nullptr;
}

bool isa_available(const char* name, uint32_t features) noexcept {
    const int32_t target = find(name);
    return target >= 0 && runs(target, features);
}

int32_t select_kernels(uint32_t features, const char* name, const char* cap, const Kernels** kernels) noexcept {
    if (name) {
        const int32_t target = find(name);
        if (target < 0)
            return fail(NEGCOS_STATUS_UNSUPPORTED_ISA,
                        "isa: \"%.64s\" is not built into this library (see negcos_isa_name)", name);
        if (!runs(target, features))
            return fail(NEGCOS_STATUS_UNSUPPORTED_ISA, "isa: this machine cannot run \"%s\"",
                        kTargets[target].kernels->isa);
        *kernels = kTargets[target].kernels;
        return NEGCOS_STATUS_OK;
    }
    int32_t target = 0;
    if (cap) {
        target = find(cap);
        if (target < 0)
            return fail(NEGCOS_STATUS_UNSUPPORTED_ISA,
                        "NEGCOS_ISA in the environment: \"%.64s\" is not built into this library", cap);
    }
    while (!runs(target, features)) ++target;  // the last one needs nothing
    *kernels = kTargets[target].kernels;
    return NEGCOS_STATUS_OK;
}

}  // namespace negcos
