// SPDX-License-Identifier: Apache-2.0
//
// One instruction set's operations of the lanes.
#ifndef NEGCOS_TESTS_SIMD_TABLE_HPP
#define NEGCOS_TESTS_SIMD_TABLE_HPP

#include <stdexcept>
#include <string>

#include "config.hpp"
#include "simd_operations.hpp"

namespace simd {

#define NEGCOS_TARGET(isa, needs) extern const Operations operations_##isa;
#include "targets.inc"
#undef NEGCOS_TARGET

inline const Operations& operations_of(const std::string& name) {
#define NEGCOS_TARGET(isa, needs) \
    if (name == #isa) return operations_##isa;
#include "targets.inc"
#undef NEGCOS_TARGET
    throw std::invalid_argument("no instruction set " + name);
}

}  // namespace simd

#endif
