// SPDX-License-Identifier: Apache-2.0
//
// Every check of a call's arguments, before anything is computed: what is wrong is named, with what it was and what was
// expected. The structs are copies of the caller's, already brought to this library's size.
#ifndef NEGCOS_VALIDATE_HPP
#define NEGCOS_VALIDATE_HPP

#include <cstddef>

#include "negcos/negcos.h"

namespace negcos {

int32_t validate_options(const negcos_options& options);
// The caller's own structs, which no output may lie over. NULL: the caller has none.
struct Callers {
    const negcos_options* options;
    const negcos_batch* batch;
    const negcos_result* result;
};
int32_t validate_evaluate(const negcos_options& options, const negcos_batch& batch, const negcos_result& result,
                          const Callers& callers);
int32_t validate_sample(const negcos_options& options, int64_t batch, int64_t documents, const int32_t* negatives,
                        const negcos_options* callers);

// An array of numbers of `size` bytes each begins at a multiple of that.
int32_t check_aligned(const char* name, const void* data, size_t size);

}  // namespace negcos

#endif
