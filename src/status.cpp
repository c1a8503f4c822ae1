// SPDX-License-Identifier: Apache-2.0
#include "status.hpp"

#include <locale.h>

#include <cstdarg>
#include <cstdio>

namespace negcos {
namespace {

thread_local char last_sentence[512] = "";

}  // namespace

int32_t fail(int32_t status, const char* format, ...) noexcept {
    // Decimal points, whatever the host's locale; "C" is a constant of the C library's, which takes no memory.
    const locale_t plain = newlocale(LC_ALL_MASK, "C", nullptr), before = uselocale(plain);
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(last_sentence, sizeof last_sentence, format, arguments);
    va_end(arguments);
    uselocale(before);
    if (plain) freelocale(plain);
    return status;
}

const char* last_error() noexcept {
    return last_sentence;
}

const char* status_string(int32_t status) noexcept {
    switch (status) {
        case NEGCOS_STATUS_OK:
            return "ok";
        case NEGCOS_STATUS_NULL_ARGUMENT:
            return "null argument";
        case NEGCOS_STATUS_SHAPE:
            return "shape";
        case NEGCOS_STATUS_DTYPE:
            return "dtype";
        case NEGCOS_STATUS_VALUE:
            return "value";
        case NEGCOS_STATUS_OVERLAP:
            return "overlap";
        case NEGCOS_STATUS_STRUCT_SIZE:
            return "struct size";
        case NEGCOS_STATUS_OUT_OF_MEMORY:
            return "out of memory";
        case NEGCOS_STATUS_WORKSPACE_LIMIT:
            return "workspace limit";
        case NEGCOS_STATUS_THREADS:
            return "threads";
        case NEGCOS_STATUS_UNSUPPORTED_ISA:
            return "unsupported isa";
        case NEGCOS_STATUS_UNSUPPORTED:
            return "unsupported";
        case NEGCOS_STATUS_IO:
            return "io";
        case NEGCOS_STATUS_INTERNAL:
            return "internal";
        default:
            return "unknown status";
    }
}

}  // namespace negcos
