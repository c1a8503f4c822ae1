// SPDX-License-Identifier: Apache-2.0
//
// The command's files: arrays read whole into memory, and outputs that appear all together or not at all.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "npy.hpp"

namespace negcos::cli {

// What went wrong, in a sentence for the person at the terminal.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Array {
    NpyHeader header;
    std::vector<std::byte> bytes;

    const void* data() const { return bytes.data() + header.offset; }
};

// Throws Failure naming the file. The elements are aligned, and in C order whatever the file's.
Array read_array(const std::string& path, std::initializer_list<NpyType> accepted,
                 NpyShape expected = NpyShape::matrix);

// Writes to standard output at once; throws Failure when not all of it could be written.
void print(std::string_view text);

struct Output {
    std::string option;  // that named it, for messages
    std::string path;
    std::string preamble;
    std::span<const std::byte> elements;
};

// Throws Failure when two outputs are one file, or an output is an input, standard output, a directory or a file that
// may not be written. Character devices, such as /dev/null, take any number of outputs.
void check_outputs(std::span<const std::string> inputs, std::span<const Output> outputs);

// Files that appear all together or not at all, also where a signal ends the command. What is not a regular file (a
// device, a pipe) is written in place by stage().
class OutputFiles {
public:
    OutputFiles();
    OutputFiles(const OutputFiles&) = delete;
    OutputFiles& operator=(const OutputFiles&) = delete;
    ~OutputFiles();  // takes back what was not kept

    void stage(std::span<const Output> outputs);  // beside their places
    void commit();                                // into their places
    void keep() noexcept;                         // what they replaced is gone

private:
    // Until it is in its place, `temporary` names the new file, and then the replaced one.
    struct Staged {
        std::string what, path, temporary, aside;
        bool replaces, placed = false;

        bool place() const noexcept;
        bool take_back() const noexcept;
    };
    int create(Staged file, mode_t mode);
    void undo() noexcept;
    static void interrupted(int signal) noexcept;

    std::vector<Staged> staged_;
};

}  // namespace negcos::cli
