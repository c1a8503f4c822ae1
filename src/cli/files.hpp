// SPDX-License-Identifier: Apache-2.0
//
// The command's files: arrays read whole into memory, and outputs that appear all together or not at all.
#pragma once

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
    std::string what;  // for messages: the option and the path
    std::string path;
    std::string preamble;
    std::span<const std::byte> elements;
};

// Throws Failure when two outputs are one file, or an output is an input, standard output, a directory, a file that may
// not be written or in a folder that is not there. Character devices, such as /dev/null, take any number of outputs.
void check_outputs(std::span<const std::string> inputs, std::span<const Output> outputs);

// Writes the outputs and prints the text: all of it or nothing, also where a signal ends the command. What was there
// before comes back; what is not a regular file (a device, a pipe) is written last and as it comes.
void write_outputs(std::vector<Output> outputs, std::string_view text);

}  // namespace negcos::cli
