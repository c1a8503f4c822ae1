// SPDX-License-Identifier: Apache-2.0
//
// The negcos command. Whatever fails is one line on standard error and exit status 2.
#include <csignal>
#include <cstdio>
#include <new>

#include "commands.hpp"
#include "files.hpp"

namespace {

int report(std::string sentence) {
    // File names and headers can hold anything; the line stays one.
    for (char& c : sentence)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    std::fprintf(stderr, "negcos: %s\n", sentence.c_str());
    return 2;
}

}  // namespace

int main(int argc, char** argv) {
    using namespace negcos::cli;
    // A reader that went away and a full quota are errors to clean up after, not reasons to die.
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGXFSZ, SIG_IGN);
    try {
        const Arguments arguments = parse_arguments(argc, argv);
        switch (arguments.command) {
            case Arguments::Command::text:
                print(arguments.text);
                break;
            case Arguments::Command::loss:
                run_loss(arguments.loss);
                break;
            case Arguments::Command::info:
                run_info(arguments.info_json);
                break;
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return report("out of memory");
    } catch (const std::exception& error) {
        return report(error.what());
    }
}
