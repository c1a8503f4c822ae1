// SPDX-License-Identifier: Apache-2.0
//
// How a failure travels: a status from negcos.h, and a sentence kept for the thread that it happened in.
#ifndef NEGCOS_STATUS_HPP
#define NEGCOS_STATUS_HPP

#include <cstdint>

#include "negcos/negcos.h"

namespace negcos {

// Keeps the sentence for negcos_last_error() and returns `status`. Allocates nothing.
[[gnu::format(printf, 2, 3)]] int32_t fail(int32_t status, const char* format, ...) noexcept;

const char* last_error() noexcept;
const char* status_string(int32_t status) noexcept;

}  // namespace negcos

#endif
