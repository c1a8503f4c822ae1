// SPDX-License-Identifier: Apache-2.0
//
// The C ABI of a later version.
#include "negcos/negcos.h"
#undef NEGCOS_VERSION_PATCH
#define NEGCOS_VERSION_PATCH 99
#include "../capi/negcos.cpp"  // NOLINT(bugprone-suspicious-include)
