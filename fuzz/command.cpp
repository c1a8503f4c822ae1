// SPDX-License-Identifier: Apache-2.0
//
// libFuzzer over the command line: arguments, a line each.
#include <cstdlib>
#include <string>
#include <vector>

#include "cli/arguments.hpp"
#include "cli/files.hpp"

using namespace negcos::cli;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    std::vector<std::string> words = {"negcos"};
    words.emplace_back();
    for (size_t k = 0; k < size; ++k) {
        if (data[k] == '\n')
            words.emplace_back();
        else if (data[k] != 0)  // which ends an argument
            words.back().push_back(static_cast<char>(data[k]));
    }
    std::vector<const char*> arguments;
    arguments.reserve(words.size());
    for (const std::string& word : words) arguments.push_back(word.c_str());
    try {
        const Arguments parsed = parse_arguments(static_cast<int>(arguments.size()), arguments.data());
        if (parsed.command == Arguments::Command::text && parsed.text.empty()) std::abort();
        if (parsed.command == Arguments::Command::loss &&
            (parsed.loss.queries.empty() || parsed.loss.documents.empty()))
            std::abort();
    } catch (const Failure& failure) {
        if (!*failure.what()) std::abort();
    }
    return 0;
}
