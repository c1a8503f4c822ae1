// SPDX-License-Identifier: Apache-2.0
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), several counters side by side.
#ifndef NEGCOS_KERNEL_PHILOX_HPP
#define NEGCOS_KERNEL_PHILOX_HPP

#include "kernel/lanes.hpp"
#include "kernels.hpp"

namespace {

// A word in the low half of each 64-bit lane: the multiplications look at no more, and what gathers in the high halves
// never comes back.
inline void philox_blocks(const uint32_t (&key)[2], const uint32_t (&counter)[4], uint32_t* words) noexcept {
    // Two registers side by side hide the latency of the multiplications.
    constexpr int kWide = kWidth<uint64_t>, kBlocks = negcos::kPhiloxBlocks;
    constexpr int kSide = kBlocks / kWide < 2 ? 1 : 2;
    using Wide = Register<uint64_t>;
    const Wide multiplier0(uint64_t{0xD2511F53}), multiplier1(uint64_t{0xCD9E8D57}), low_half(uint64_t{0xFFFFFFFF});
    for (int first = 0; first < kBlocks; first += kSide * kWide) {
        uint64_t lanes[2][static_cast<size_t>(kSide * kWide)];
        for (int b = 0; b < kSide * kWide; ++b) lanes[0][b] = counter[0] + static_cast<uint32_t>(first + b);
        Wide c0[kSide], c1[kSide], c2[kSide], c3[kSide];
        for (int s = 0; s < kSide; ++s) {
            c0[s] = register_load(static_cast<const uint64_t*>(lanes[0]) + s * kWide);
            c1[s] = Wide(uint64_t{counter[1]});
            c2[s] = Wide(uint64_t{counter[2]});
            c3[s] = Wide(uint64_t{counter[3]});
        }
        uint32_t k0 = key[0], k1 = key[1];
#pragma GCC unroll 10
        for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 2
            for (int s = 0; s < kSide; ++s) {
                const Wide p0 = multiply_low_halves(c0[s], multiplier0), p1 = multiply_low_halves(c2[s], multiplier1);
                c0[s] = (p1 >> 32) ^ c1[s] ^ Wide(uint64_t{k0});
                c2[s] = (p0 >> 32) ^ c3[s] ^ Wide(uint64_t{k1});
                c1[s] = p1;
                c3[s] = p0;
            }
            k0 += 0x9E3779B9;
            k1 += 0xBB67AE85;
        }
        for (int s = 0; s < kSide; ++s) {
            register_store(static_cast<uint64_t*>(lanes[0]) + s * kWide, (c0[s] & low_half) ^ (c1[s] << 32));
            register_store(static_cast<uint64_t*>(lanes[1]) + s * kWide, (c2[s] & low_half) ^ (c3[s] << 32));
        }
        for (int b = 0; b < kSide * kWide; ++b, words += 4) {  // two words at a time, the low half first
            memcpy(words, &lanes[0][b], 8);
            memcpy(words + 2, &lanes[1][b], 8);
        }
    }
}

}  // namespace

#endif
