// SPDX-License-Identifier: Apache-2.0
//
// libFuzzer over the reader of .npy files. tests/cli/npy_numpy.py compares what it accepts of the corpus with NumPy's
// reading.
#include "cli/npy.hpp"

#include <cstdlib>

using namespace negcos::cli;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
    for (const NpyShape shape : {NpyShape::matrix, NpyShape::list}) try {
            const NpyHeader header =
                parse_npy(file, {NpyType::f2, NpyType::f4, NpyType::f8, NpyType::i4, NpyType::i8}, shape);
            if (header.rows < 0 || header.cols < 0 || header.offset > size) std::abort();
            const unsigned __int128 elements =
                static_cast<unsigned __int128>(header.rows) * static_cast<unsigned __int128>(header.cols);
            if (elements * npy_size(header.type) != size - header.offset) std::abort();
            if (shape == NpyShape::list && header.cols != 1) std::abort();
        } catch (const NpyError& error) {
            if (!*error.what()) std::abort();
        }
    return 0;
}
