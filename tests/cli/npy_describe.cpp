// SPDX-License-Identifier: Apache-2.0
//
// What the command makes of .npy files, a line each: type, rows, columns and offset of the numbers, as a matrix and as
// a list, or that it refuses. npy_numpy.py compares that with NumPy's reading.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

#include "cli/npy.hpp"

using namespace negcos::cli;

int main(int argc, char** argv) {
    for (int k = 1; k < argc; ++k) {
        std::ifstream file(argv[k], std::ios::binary);
        const std::string bytes(std::istreambuf_iterator<char>(file), {});
        for (const NpyShape shape : {NpyShape::matrix, NpyShape::list}) try {
                const NpyHeader header =
                    parse_npy(std::as_bytes(std::span(bytes)),
                              {NpyType::f2, NpyType::f4, NpyType::f8, NpyType::i4, NpyType::i8}, shape);
                std::printf("%s %lld %lld %zu;", npy_descr(header.type), static_cast<long long>(header.rows),
                            static_cast<long long>(header.cols), header.offset);
            } catch (const NpyError&) {
                std::printf("refused;");
            }
        std::printf("\n");
    }
}
