// SPDX-License-Identifier: Apache-2.0
//
// One instruction set's kernels, for tests that look behind the C ABI.
#ifndef NEGCOS_TESTS_KERNEL_TABLE_HPP
#define NEGCOS_TESTS_KERNEL_TABLE_HPP

#include <doctest/doctest.h>

#include <string>

#include "dispatch.hpp"
#include "negcos/negcos.h"

namespace harness {

inline const negcos::Kernels& kernels_of(const std::string& isa) {
    const negcos::Kernels* kernels = nullptr;
    REQUIRE(negcos::select_kernels(negcos::cpu_features(), isa.c_str(), nullptr, &kernels) == NEGCOS_STATUS_OK);
    REQUIRE(std::string(kernels->isa) == isa);
    return *kernels;
}

}  // namespace harness

#endif
