// SPDX-License-Identifier: Apache-2.0
//
// What the command makes of .npy files, a line each: type, rows, columns and the numbers' bytes, as a matrix and as a
// list, or that it refuses. npy_numpy.py compares that with NumPy's reading.
#include <cstdio>

#include "cli/files.hpp"

using namespace negcos::cli;

int main(int argc, char** argv) {
    for (int k = 1; k < argc; ++k) {
        for (const NpyShape shape : {NpyShape::matrix, NpyShape::list}) try {
                const Array array =
                    read_array(argv[k], {NpyType::f2, NpyType::f4, NpyType::f8, NpyType::i4, NpyType::i8}, shape);
                const NpyHeader& header = array.header;
                std::printf("%s %lld %lld ", npy_descr(header.type), static_cast<long long>(header.rows),
                            static_cast<long long>(header.cols));
                for (const std::byte byte : std::span(array.bytes).subspan(header.offset))
                    std::printf("%02x", static_cast<unsigned>(byte));
                std::printf(";");
            } catch (const Failure&) {
                std::printf("refused;");
            }
        std::printf("\n");
    }
}
