// SPDX-License-Identifier: Apache-2.0
//
// The negcos command, run in a folder of its own on files that are written there.
#ifndef NEGCOS_TESTS_CLI_COMMAND_HPP
#define NEGCOS_TESTS_CLI_COMMAND_HPP

#include <sys/wait.h>

#include <cstdlib>
#include <cstring>

#include "../half.hpp"
#include "../harness.hpp"
#include "../scratch.hpp"
#include "cli/npy.hpp"

namespace command {

using harness::Problem;
using negcos::cli::NpyType;
using scratch::read_file;
using scratch::write_file;

template <class T>
inline constexpr NpyType npy_type = std::is_integral_v<T> ? (sizeof(T) == 8 ? NpyType::i8 : NpyType::i4)
                                    : sizeof(T) == 8      ? NpyType::f8
                                    : sizeof(T) == 2      ? NpyType::f2
                                                          : NpyType::f4;

template <class T>
std::string npy(const std::vector<T>& values, int64_t rows, int64_t cols) {
    return negcos::cli::npy_preamble(npy_type<T>, rows, cols) +
           std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// Of one dimension, as numpy.save writes it but for the spaces.
template <class T>
std::string npy(const std::vector<T>& values) {
    std::string bytes = npy(values, static_cast<int64_t>(values.size()), 1);
    bytes.replace(bytes.find(", 1)"), 4, ",)  ");
    return bytes;
}

// In Fortran order: column by column.
template <class T>
std::string npy_by_columns(const std::vector<T>& values, int64_t rows, int64_t cols) {
    std::vector<T> columns;
    for (int64_t j = 0; j < cols; ++j)
        for (int64_t i = 0; i < rows; ++i) columns.push_back(values[static_cast<size_t>(i * cols + j)]);
    std::string bytes = npy(columns, rows, cols);
    bytes.replace(bytes.find("False"), 5, " True");
    return bytes;
}

template <class T>
std::vector<T> elements(const std::string& bytes, int64_t rows, int64_t cols) {
    const auto header = negcos::cli::parse_npy(std::as_bytes(std::span(bytes)), {npy_type<T>});
    CHECK(header.rows == rows);
    CHECK(header.cols == cols);
    std::vector<T> values(static_cast<size_t>(rows * cols));
    if (!values.empty()) std::memcpy(values.data(), bytes.data() + header.offset, values.size() * sizeof(T));
    return values;
}

class Folder : public scratch::Folder {
public:
    int run(const std::string& arguments) {
        const char* command = std::getenv("NEGCOS_COMMAND");
        if (!command) FAIL("NEGCOS_COMMAND does not name the command to test");
        // Redirections first: those among the arguments win.
        const std::string line = "cd '" + path.string() + "' && " + before + "timeout 60 '" + command + "' > ../" +
                                 path.filename().string() + ".out 2> ../" + path.filename().string() + ".err " +
                                 arguments;
        const int status = std::system(line.c_str());
        out = read_file(path.string() + ".out");
        error = read_file(path.string() + ".err");
        scratch::fs::remove(path.string() + ".out");
        scratch::fs::remove(path.string() + ".err");
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

    std::string before;  // for the shell, e.g. limits
    std::string out, error;
};

struct Inputs : Folder {
    Problem<float> p{50, 60, 19, 3};
    Inputs() {
        write_file(path / "q.npy", npy(p.queries, 50, 19));
        write_file(path / "d.npy", npy(p.documents, 60, 19));
    }
};

// A command line, and what its sentence says.
struct Mistake {
    std::string arguments, named;
};

// gcc defines a macro, clang has a feature.
#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
inline constexpr bool watched = true;  // in more memory than is there
#else
inline constexpr bool watched = false;
#endif

}  // namespace command

#endif
