// SPDX-License-Identifier: Apache-2.0
//
// NumPy's .npy format, as far as the command uses it: one or two dimensions, little-endian. The parser works on bytes
// in memory and trusts none of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

namespace negcos::cli {

enum class NpyType { f2, f4, f8, i4, i8 };

// Two dimensions, or a list of numbers: one dimension, or two and a single column.
enum class NpyShape { matrix, list };

// NumPy's name of the type, e.g. "<f4", and the size of an element in bytes.
const char* npy_descr(NpyType type) noexcept;
size_t npy_size(NpyType type) noexcept;

// What is wrong with a file, what was found and what was expected, without the file's name.
struct NpyError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct NpyHeader {
    NpyType type;
    int64_t rows, cols;
    size_t offset;    // of the first element; the elements reach exactly to the end of the file
    bool by_columns;  // Fortran order, where that is not C order too
};

// Format versions 1.0, 2.0 and 3.0. Throws NpyError unless `file` is a whole file with elements of an accepted type.
NpyHeader parse_npy(std::span<const std::byte> file, std::initializer_list<NpyType> accepted,
                    NpyShape expected = NpyShape::matrix);

// The same of a file of which `beginning` is the start: this much of it, or all that there is. Its whole size is
// checked where it is known.
inline constexpr size_t kNpyMostHeader = 10000;  // NumPy's max_header_size
inline constexpr size_t kNpyBeginning = 12 + kNpyMostHeader;
NpyHeader parse_npy_beginning(std::span<const std::byte> beginning, std::optional<uint64_t> size,
                              std::initializer_list<NpyType> accepted, NpyShape expected = NpyShape::matrix);

// Everything before the elements, version 1.0, padded so that they start at a multiple of 64.
std::string npy_preamble(NpyType type, int64_t rows, int64_t cols);

}  // namespace negcos::cli
