// SPDX-License-Identifier: Apache-2.0
//
// The negcos command. Whatever fails is one line on standard error and exit status 2.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <new>

#include "commands.hpp"
#include "files.hpp"

namespace {

// The bytes of the UTF-8 character that begins there (Unicode 15, table 3-7); 0 where none does.
int character(const char* at) noexcept {
    const auto byte = [at](int k) { return static_cast<unsigned char>(at[k]); };
    const unsigned char first = byte(0);
    if (first < 0x80) return 1;
    const int size = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    const unsigned char least = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const unsigned char most = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    for (int k = 1; k < size; ++k)
        if (byte(k) < (k == 1 ? least : 0x80) || byte(k) > (k == 1 ? most : 0xbf)) return 0;
    return size;
}

// One line without memory, which may be what is lacking. File names and headers can hold anything, and a terminal obeys
// control characters: those of ASCII, U+0080 to U+009F, and bytes that are no characters.
int report(const char* sentence) noexcept {
    static char buffer[4096];
    std::setvbuf(stderr, buffer, _IOFBF, sizeof buffer);
    std::fputs("negcos: ", stderr);
    for (const char* at = sentence; *at;) {
        const int size = character(at);
        const unsigned char first = static_cast<unsigned char>(*at), last = static_cast<unsigned char>(at[size > 1]);
        const bool control = size == 0 || first < 0x20 || first == 0x7f || (first == 0xc2 && last < 0xa0);
        if (control)
            std::fputc('?', stderr);
        else
            std::fwrite(at, 1, static_cast<size_t>(size), stderr);
        at += std::max(size, 1);
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
