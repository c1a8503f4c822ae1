// SPDX-License-Identifier: Apache-2.0
//
// The negcos command. Whatever fails is one line on standard error and exit status 2.
#include <csignal>
#include <cstdio>
#include <new>

#include "commands.hpp"
#include "files.hpp"

namespace {

// One line without memory, which may be what is lacking.
int report(const char* sentence) noexcept {
    static char buffer[4096];
    std::setvbuf(stderr, buffer, _IOFBF, sizeof buffer);
    std::fputs("negcos: ", stderr);
    // File names and headers can hold anything, and a terminal obeys control characters: those of ASCII and, where they
    // do not continue a character of UTF-8, 80 to 9F, alone or behind C2.
    int due = 0;
    for (const char* at = sentence; *at; ++at) {
        const auto c = static_cast<unsigned char>(*at), next = static_cast<unsigned char>(at[1]);
        if (c == 0xc2 && next < 0xa0) {
            due = 0;
            continue;
        }
        const bool continues = due > 0 && c >= 0x80 && c < 0xc0;
        due = continues ? due - 1 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc2 ? 1 : 0;
        const bool control = c < 0x20 || c == 0x7f || (c >= 0x80 && c < 0xa0 && !continues);
        std::fputc(control ? '?' : *at, stderr);
    }
    std::fputs("\n", stderr);
    std::fflush(stderr);
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
