// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <tuple>

#include "../replace_file.hpp"

namespace negcos::cli {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_errno(const std::string& what) {
    throw Failure(what + ": " + std::strerror(errno));
}

// Reads on until there are `size` bytes or the file ends, in memory that grows with what comes. By read() and not by
// mmap(): a file that shrinks meanwhile must not kill the process.
void read_until(const std::string& path, int fd, uint64_t size, std::vector<std::byte>& bytes) {
    size_t have = bytes.size();
    while (have < size) {
        if (have == bytes.size()) bytes.resize(std::min<uint64_t>(size, std::max<uint64_t>(2 * have, kNpyBeginning)));
        const ssize_t got = read(fd, bytes.data() + have, bytes.size() - have);
        if (got == 0) break;
        if (got > 0)
            have += static_cast<size_t>(got);
        else if (errno != EINTR)
            fail_errno(path);
    }
    bytes.resize(have);
}

// A file on its way into its place. What all outputs or none costs beyond a temporary file and a rename: `old`, which
// names what was there until everything is there and all is said, and that a signal waits while names change.
struct File {
    std::string what, path;
    bool replaces;
    std::string temporary = {}, old = {};
    bool saved = false, placed = false;
};
std::vector<File>& files = *new std::vector<File>;  // not destroyed, as a signal may come until the very end

// Nothing but system calls: it runs in a signal handler too.
void take_back() noexcept {
    for (const File& file : files) {
        // Where both still name what was there, rename() does nothing, and one goes.
        if (file.saved ? std::rename(file.old.c_str(), file.path.c_str()) == 0 : file.placed)
            unlink(file.saved ? file.old.c_str() : file.path.c_str());
        unlink(file.temporary.c_str());
    }
}

// Held while files come and go: signals wait, on whatever thread they are.
struct Signals {
    std::atomic_flag busy;
    static inline thread_local sigset_t before;

    void lock() noexcept {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &before);
        while (busy.test_and_set(std::memory_order_acquire)) {
        }
    }
    void unlock() noexcept {
        busy.clear(std::memory_order_release);
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }
} signals;

// The signal ends the process as soon as this returns.
void interrupted(int signal) noexcept {
    signals.lock();
    take_back();
    std::signal(signal, SIG_DFL);
    raise(signal);
}

int create(const Output& output, bool replaces, mode_t mode) {
    const fs::path path = destination(output.path);
    // A short name, as a file's own may be as long as the file system has them.
    const std::string stem = (path.parent_path() / ".negcos.").string();
    const std::lock_guard lock(signals);
    files.push_back({output.what, path.string(), replaces});
    const int fd = create_new(stem, mode, files.back().temporary);
    files.back().old = files.back().temporary + "~";
    return fd;
}

// Beside its place, unless what is there is not a regular file.
void write(const Output& output) {
    struct stat status;
    const bool there = stat(output.path.c_str(), &status) == 0, replaces = there && S_ISREG(status.st_mode);
    Descriptor to(there && !replaces ? open(output.path.c_str(), O_WRONLY | O_CLOEXEC)
                                     : create(output, replaces, replaces ? status.st_mode & 0777 : 0666));
    if (!to || (replaces && !copy_rights(status, to.get())) ||
        !write_all(to.get(), output.preamble.data(), output.preamble.size()) ||
        !write_all(to.get(), output.elements.data(), output.elements.size()) || !to.finish())
        fail_errno(output.what);
}

void place(File& file) {
    const char *const path = file.path.c_str(), *const old = file.old.c_str();
    const char* const temporary = file.temporary.c_str();
    if (file.replaces) {
        // Where the file system has no links, what was there steps aside.
        file.saved = link(path, old) == 0 || std::rename(path, old) == 0;
        file.placed = file.saved && std::rename(temporary, path) == 0;
    } else if (link(temporary, path) == 0) {
        file.placed = true;
        unlink(temporary);
    } else {
        file.placed = errno != EEXIST && std::rename(temporary, path) == 0;  // no links here, or a file that is new
    }
    if (!file.placed) fail_errno(file.what);
}

}  // namespace

Array read_array(const std::string& path, std::initializer_list<NpyType> accepted, NpyShape expected) {
    try {
        const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
        struct stat status;
        if (!file || fstat(file.get(), &status) != 0) fail_errno(path);
        Array array;
        std::vector<std::byte>& bytes = array.bytes;
        read_until(path, file.get(), kNpyBeginning, bytes);
        // What is no array, or not as large as it says, is refused before it takes memory.
        std::optional<uint64_t> size;
        if (bytes.size() < kNpyBeginning)
            size = bytes.size();
        else if (S_ISREG(status.st_mode))
            size = std::max<uint64_t>(static_cast<uint64_t>(status.st_size), bytes.size());
        NpyHeader& header = array.header;
        header = parse_npy_beginning(bytes, size, accepted, expected);
        const size_t element = npy_size(header.type), row = static_cast<size_t>(header.cols) * element;
        // One byte more shows that the file does not end there.
        const uint64_t most = header.offset + static_cast<uint64_t>(header.rows) * row + 1;
        if (size) bytes.reserve(most);
        read_until(path, file.get(), most, bytes);
        parse_npy(bytes, accepted, expected);
        // Column by column, or from where no element may lie in memory.
        if (header.by_columns || header.offset % element != 0) {
            const size_t part = header.by_columns ? element : row;
            std::vector<std::byte> rows(bytes.size() - header.offset);
            const std::byte* from = bytes.data() + header.offset;
            for (size_t column = 0; column < row; column += part)
                for (size_t to = column; to < rows.size(); to += row, from += part) std::memcpy(&rows[to], from, part);
            bytes = std::move(rows);
            header.offset = 0;
        }
        return array;
    } catch (const NpyError& error) {
        throw Failure(path + ": " + error.what());
    } catch (const std::bad_alloc&) {
        throw Failure(path + ": does not fit into memory");
    } catch (const std::length_error&) {
        throw Failure(path + ": does not fit into memory");
    }
}

void print(std::string_view text) {
    if (!write_all(STDOUT_FILENO, text.data(), text.size())) fail_errno("standard output");
}

void check_outputs(std::span<const std::string> inputs, std::span<const Output> outputs) {
    // A file by its number; one that is not there by its folder's and its name. Devices are shared by any number.
    std::map<std::tuple<dev_t, ino_t, std::string>, std::string> taken;
    struct stat status;
    if (fstat(STDOUT_FILENO, &status) == 0 && S_ISREG(status.st_mode))
        taken.emplace(std::tuple(status.st_dev, status.st_ino, ""), "standard output");
    for (const std::string& input : inputs)
        if (stat(input.c_str(), &status) == 0 && !S_ISCHR(status.st_mode))
            taken.emplace(std::tuple(status.st_dev, status.st_ino, ""), "the input " + input);
    for (const Output& output : outputs) {
        std::string name;
        if (stat(output.path.c_str(), &status) == 0) {
            if (S_ISDIR(status.st_mode)) throw Failure(output.what + " is a directory");
            // It would be renamed over, which asks nothing of the file itself.
            if (faccessat(AT_FDCWD, output.path.c_str(), W_OK, AT_EACCESS) != 0) fail_errno(output.what);
            if (S_ISCHR(status.st_mode)) continue;
        } else {
            if (errno != ENOENT) fail_errno(output.what);
            const fs::path path = destination(output.path);
            name = path.filename().string();
            if (stat((path.parent_path() / ".").c_str(), &status) != 0) fail_errno(output.what);
        }
        const auto [other, is_new] = taken.emplace(std::tuple(status.st_dev, status.st_ino, name), output.what);
        if (!is_new) throw Failure(output.what + " is the same file as " + other->second);
    }
}

void write_outputs(std::vector<Output> outputs, std::string_view text) {
    files.reserve(outputs.size());
    for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGALRM, SIGXCPU, SIGUSR1, SIGUSR2}) {
        struct sigaction action;
        if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN)  // nohup turns one off
            std::signal(signal, interrupted);
    }
    try {
        // Pipes and devices come last, since what is written there cannot be taken back.
        std::partition(outputs.begin(), outputs.end(), [](const Output& output) {
            std::error_code error;
            return !fs::is_other(output.path, error);
        });
        for (const Output& output : outputs) write(output);
        {
            const std::lock_guard lock(signals);
            for (File& file : files) place(file);
        }
        // Nothing is said of files that are not there, and none stays of which nothing could be said.
        print(text);
    } catch (...) {
        const std::lock_guard lock(signals);
        take_back();
        files.clear();
        throw;
    }
    const std::lock_guard lock(signals);
    for (const File& file : files)
        if (file.saved) unlink(file.old.c_str());
    files.clear();
}

}  // namespace negcos::cli
