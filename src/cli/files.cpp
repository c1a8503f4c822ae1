// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <new>
#include <optional>
#include <utility>

namespace negcos::cli {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_errno(const std::string& what) {
    throw Failure(what + ": " + std::strerror(errno));
}

class Descriptor {
public:
    Descriptor(const std::string& path, int flags) : fd_(open(path.c_str(), flags | O_CLOEXEC, 0666)) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (fd_ >= 0) close(fd_);
    }
    explicit operator bool() const { return fd_ >= 0; }
    int get() const { return fd_; }
    // Some file systems report a full disk only here.
    bool close_checked() { return close(std::exchange(fd_, -1)) == 0; }

private:
    int fd_;
};

bool write_all(int fd, const void* data, size_t size) {
    const char* at = static_cast<const char*>(data);
    while (size > 0) {
        const ssize_t written = write(fd, at, size);
        if (written < 0) {
            if (errno == EINTR) continue;
            return false;
        }
        at += written;
        size -= static_cast<size_t>(written);
    }
    return true;
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

// Where a path leads: the file itself when it exists, else its canonical name.
struct Identity {
    std::string label;
    std::optional<std::pair<dev_t, ino_t>> file;
    fs::path path;

    bool operator==(const Identity& other) const { return file == other.file && (file || path == other.path); }
};

Identity identify(std::string label, const std::string& path) {
    Identity identity{std::move(label), {}, {}};
    struct stat status;
    if (stat(path.c_str(), &status) == 0) {
        if (S_ISDIR(status.st_mode)) throw Failure(identity.label + " is a directory");
        identity.file = {status.st_dev, status.st_ino};
    } else {
        std::error_code error;
        identity.path = fs::weakly_canonical(path, error);
        if (error) identity.path = fs::path(path).lexically_normal();
    }
    return identity;
}

void write_output(const Output& output, const std::string& path, int flags) {
    const std::string what = output.option + " " + output.path;
    Descriptor file(path, O_WRONLY | flags);
    if (!file) fail_errno(what);
    if (!write_all(file.get(), output.preamble.data(), output.preamble.size()) ||
        !write_all(file.get(), output.elements.data(), output.elements.size()) || !file.close_checked()) {
        const int error = errno;
        if (flags & O_EXCL) unlink(path.c_str());
        errno = error;
        fail_errno(what);
    }
}

}  // namespace

Array read_array(const std::string& path, std::initializer_list<NpyType> accepted, NpyShape expected) {
    try {
        const Descriptor file(path, O_RDONLY);
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
        const NpyHeader header = parse_npy_beginning(bytes, size, accepted, expected);
        const uint64_t elements =
            static_cast<uint64_t>(header.rows) * static_cast<uint64_t>(header.cols) * npy_size(header.type);
        // One byte more shows that the file does not end there.
        const uint64_t most = header.offset + elements + 1;
        if (size) bytes.reserve(most);
        read_until(path, file.get(), most, bytes);
        array.header = parse_npy(bytes, accepted, expected);
        if (array.header.offset % npy_size(array.header.type) != 0) {
            bytes.erase(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(array.header.offset));
            array.header.offset = 0;
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
    std::vector<Identity> taken;
    for (const std::string& input : inputs) taken.push_back(identify("the input " + input, input));
    struct stat status;
    if (fstat(STDOUT_FILENO, &status) == 0 && S_ISREG(status.st_mode))
        taken.push_back({"standard output", {{status.st_dev, status.st_ino}}, {}});
    for (const Output& output : outputs) {
        Identity identity = identify(output.option + " " + output.path, output.path);
        for (const Identity& other : taken)
            if (identity == other) throw Failure(identity.label + " is the same file as " + other.label);
        taken.push_back(std::move(identity));
    }
}

OutputFiles::~OutputFiles() {
    for (const Staged& file : staged_) unlink(file.temporary.c_str());
}

void OutputFiles::stage(std::span<const Output> outputs) {
    std::vector<const Output*> in_place;
    staged_.reserve(outputs.size());
    for (const Output& output : outputs) {
        std::string path = output.path;
        struct stat status;
        if (stat(path.c_str(), &status) == 0) {
            if (!S_ISREG(status.st_mode)) {
                in_place.push_back(&output);
                continue;
            }
            // What a symbolic link points to is replaced, not the link.
            std::error_code error;
            if (const fs::path real = fs::canonical(path, error); !error) path = real.string();
        }
        Staged file{output.option, path + ".tmp." + std::to_string(getpid()), path};
        write_output(output, file.temporary, O_CREAT | O_EXCL);
        staged_.push_back(std::move(file));
    }
    // Last, since this cannot be taken back.
    for (const Output* output : in_place) write_output(*output, output->path, 0);
}

void OutputFiles::commit() {
    for (size_t done = 0; done < staged_.size(); ++done) {
        const Staged& file = staged_[done];
        if (std::rename(file.temporary.c_str(), file.path.c_str()) == 0) continue;
        const int error = errno;
        for (size_t i = 0; i < done; ++i) unlink(staged_[i].path.c_str());
        errno = error;
        fail_errno(file.option + " " + file.path);
    }
    staged_.clear();
}

}  // namespace negcos::cli
