// SPDX-License-Identifier: Apache-2.0
//
// The C header as C++11, without <stddef.h> pulled in by anything else.
#include "negcos/negcos.h"

static_assert(NEGCOS_STATUS_OK == 0 && NEGCOS_STATUS_INTERNAL == 90, "statuses are part of the binary interface");

int main() {
    negcos_options options;
    void (*init)(negcos_options*, size_t) = nullptr;
    return init == nullptr && sizeof options == 136 ? 0 : 1;
}
