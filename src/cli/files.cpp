// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <new>
#include <optional>
#include <utility>

#include "../replace_file.hpp"

#ifndef RENAME_EXCHANGE
#include <sys/syscall.h>
#endif

namespace negcos::cli {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_errno(const std::string& what) {
    throw Failure(what + ": " + std::strerror(errno));
}

class Descriptor {
public:
    Descriptor(const std::string& path, int flags) : fd_(open(path.c_str(), flags | O_CLOEXEC)) {}
    explicit Descriptor(int fd) : fd_(fd) {}
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

// Puts elements that come column by column into rows: part by part, or, where nothing says how much will come, when all
// is there. `part` begins with what was read already. Returns how many bytes came, one too many if there are more.
uint64_t read_columns(const std::string& path, int fd, const NpyHeader& header, uint64_t size, bool known,
                      std::vector<std::byte> part, std::vector<std::byte>& rows) {
    constexpr uint64_t kPart = 1 << 20;
    const size_t element = npy_size(header.type), row = static_cast<size_t>(header.cols) * element;
    uint64_t have = 0, to = 0;
    while (have < size) {
        const uint64_t most = std::min(known ? kPart : size, size - have);
        read_until(path, fd, most, part);
        if (part.size() != most) break;
        rows.resize(size);
        for (size_t k = 0; k < most; k += element) {
            std::memcpy(&rows[to], &part[k], element);
            to += row;
            if (to >= size) to -= size - element;  // the next column
        }
        have += most;
        part.clear();
    }
    read_until(path, fd, part.size() + 1, part);
    return have + part.size();
}

// Where a path leads through symbolic links, also when nothing is there yet.
fs::path destination(fs::path path) {
    constexpr int kMostLinks = 40;  // as the kernel's
    for (int k = 0; k < kMostLinks; ++k) {
        std::error_code error;
        const fs::path next = fs::read_symlink(path, error);
        if (error) break;
        path = path.parent_path() / next;
    }
    return path;
}

// Whether something is there.
bool find(const std::string& what, const std::string& path, struct stat& status) {
    if (stat(path.c_str(), &status) == 0) return true;
    if (errno != ENOENT) fail_errno(what);
    return false;
}

// Where a path leads: the file itself when it exists, else its canonical name.
struct Identity {
    std::string label;
    std::optional<std::pair<dev_t, ino_t>> file;
    fs::path path;
    bool shared = false;  // by any number of outputs: a character device

    bool operator==(const Identity& other) const {
        return !shared && file == other.file && (file || path == other.path);
    }
};

Identity identify(std::string label, const std::string& path) {
    Identity identity{std::move(label), {}, {}, false};
    struct stat status;
    if (find(identity.label, path, status)) {
        if (S_ISDIR(status.st_mode)) throw Failure(identity.label + " is a directory");
        identity.file = {status.st_dev, status.st_ino};
        identity.shared = S_ISCHR(status.st_mode);
    } else {
        std::error_code error;
        identity.path = fs::weakly_canonical(fs::absolute(destination(path)), error);
        if (error) identity.path = fs::path(path).lexically_normal();
    }
    return identity;
}

bool write_output(const Output& output, int fd) {
    return write_all(fd, output.preamble.data(), output.preamble.size()) &&
           write_all(fd, output.elements.data(), output.elements.size());
}

#ifndef RENAME_EXCHANGE
// Linux has it for longer than some C libraries, as musl before 1.2.6.
constexpr unsigned RENAME_NOREPLACE = 1, RENAME_EXCHANGE = 2;
int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
    return static_cast<int>(syscall(SYS_renameat2, from_folder, from, to_folder, to, flags));
}
#endif

// What renameat2() says of a file system, or a kernel, that has no more than rename().
bool lacks_flags(int error) noexcept {
    return error == EINVAL || error == ENOSYS;
}

// One file for the other, at once; where the file system cannot do that, one steps aside.
bool exchange(const char* one, const char* other, const char* aside) noexcept {
    if (renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) == 0) return true;
    if (!lacks_flags(errno) || std::rename(other, aside) != 0) return false;
    if (std::rename(one, other) == 0) {
        if (std::rename(aside, one) == 0) return true;
        std::rename(other, one);
    }
    const int error = errno;
    std::rename(aside, other);
    errno = error;
    return false;
}

constexpr int kSignals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGALRM, SIGXCPU, SIGUSR1, SIGUSR2};

sigset_t all_signals() noexcept {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : kSignals) sigaddset(&signals, signal);
    return signals;
}

// What a signal takes back, and who is at it: the handler, on whatever thread it runs, or a change of names.
OutputFiles* current = nullptr;
std::atomic_flag busy;

void take_turn() noexcept {
    while (busy.test_and_set(std::memory_order_acquire)) {
    }
}

// While it lives, signals wait.
class Uninterrupted {
public:
    Uninterrupted() noexcept {
        const sigset_t signals = all_signals();
        pthread_sigmask(SIG_BLOCK, &signals, &before_);
        take_turn();
    }
    Uninterrupted(const Uninterrupted&) = delete;
    Uninterrupted& operator=(const Uninterrupted&) = delete;
    ~Uninterrupted() {
        const int error = errno;
        busy.clear(std::memory_order_release);
        pthread_sigmask(SIG_SETMASK, &before_, nullptr);
        errno = error;
    }

private:
    sigset_t before_;
};

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
        if (header.by_columns) {
            const auto begin = bytes.begin() + static_cast<ptrdiff_t>(header.offset);
            std::vector<std::byte> rows;
            const uint64_t came =
                read_columns(path, file.get(), header, elements, size.has_value(), {begin, bytes.end()}, rows);
            parse_npy_beginning(bytes, header.offset + came, accepted, expected);
            return {{header.type, header.rows, header.cols, 0, false}, std::move(rows)};
        }
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
        taken.push_back({"standard output", {{status.st_dev, status.st_ino}}, {}, false});
    for (const Output& output : outputs) {
        Identity identity = identify(output.option + " " + output.path, output.path);
        for (const Identity& other : taken)
            if (identity == other) throw Failure(identity.label + " is the same file as " + other.label);
        // It would be renamed over, which asks nothing of the file itself.
        if (identity.file && faccessat(AT_FDCWD, output.path.c_str(), W_OK, AT_EACCESS) != 0)
            fail_errno(identity.label);
        taken.push_back(std::move(identity));
    }
}

bool OutputFiles::Staged::place() const noexcept {
    if (replaces) return exchange(temporary.c_str(), path.c_str(), aside.c_str());
    // What has come into the place meanwhile stays, where the file system can tell.
    return renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) == 0 ||
           (lacks_flags(errno) && std::rename(temporary.c_str(), path.c_str()) == 0);
}

bool OutputFiles::Staged::take_back() const noexcept {
    return replaces ? exchange(temporary.c_str(), path.c_str(), aside.c_str())
                    : std::rename(path.c_str(), temporary.c_str()) == 0;
}

OutputFiles::OutputFiles() {
    const Uninterrupted now;
    current = this;
    for (const int signal : kSignals) {
        struct sigaction action;
        // What nohup has turned off stays so.
        if (sigaction(signal, nullptr, &action) != 0 || action.sa_handler != SIG_DFL) continue;
        action.sa_handler = interrupted;
        action.sa_mask = all_signals();
        action.sa_flags = static_cast<int>(SA_RESETHAND);
        sigaction(signal, &action, nullptr);
    }
}

OutputFiles::~OutputFiles() {
    const Uninterrupted now;
    undo();
    current = nullptr;
}

// Nothing but system calls: it runs in a signal handler too.
void OutputFiles::undo() noexcept {
    for (Staged& file : staged_) {
        if (file.placed && !file.take_back()) continue;  // what was replaced is beside its place, at least
        file.placed = false;
        unlink(file.temporary.c_str());
    }
}

// The handler is the default one by now, so that the signal ends the process as soon as this returns.
void OutputFiles::interrupted(int signal) noexcept {
    take_turn();
    if (current) current->undo();
    raise(signal);
}

// Opens a new file beside its place. Names that are taken were left behind by processes that were killed. They are
// short, as a file's own may be as long as the file system has them.
int OutputFiles::create(Staged file, mode_t mode) {
    const fs::path folder = fs::path(file.path).parent_path();
    const std::string name = ".negcos." + std::to_string(getpid()) + ".";
    const Uninterrupted now;
    for (unsigned n = 0;; ++n) {
        file.temporary = (folder / (name + std::to_string(n))).string();
        file.aside = file.temporary + "~";
        if (access(file.aside.c_str(), F_OK) == 0) continue;
        const int fd = open(file.temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd < 0 && errno == EEXIST) continue;
        if (fd >= 0) staged_.push_back(std::move(file));
        return fd;
    }
}

void OutputFiles::stage(std::span<const Output> outputs) {
    std::vector<const Output*> in_place;
    {
        const Uninterrupted now;
        staged_.reserve(outputs.size());
    }
    for (const Output& output : outputs) {
        const std::string what = output.option + " " + output.path;
        struct stat status;
        const bool there = find(what, output.path, status);
        if (there && !S_ISREG(status.st_mode)) {
            in_place.push_back(&output);
            continue;
        }
        // What a symbolic link points to is replaced, not the link.
        Descriptor to(
            create({what, destination(output.path).string(), {}, {}, there}, there ? status.st_mode & 0777 : 0666));
        // On the disk, so that its name cannot get there first. Some file systems report a full disk only here.
        if (!to || (there && !copy_rights(status, to.get())) || !write_output(output, to.get()) ||
            fsync(to.get()) != 0 || !to.close_checked())
            fail_errno(what);
    }
    // Last, since this cannot be taken back.
    for (const Output* output : in_place) {
        Descriptor to(output->path, O_WRONLY);
        if (!to || !write_output(*output, to.get()) || !to.close_checked())
            fail_errno(output->option + " " + output->path);
    }
}

// What fails here is taken back with all before it, by the destructor.
void OutputFiles::commit() {
    const Uninterrupted now;
    for (Staged& file : staged_) {
        file.placed = file.place();
        if (!file.placed) fail_errno(file.what);
    }
}

void OutputFiles::keep() noexcept {
    const Uninterrupted now;
    for (const Staged& file : staged_)
        if (file.replaces) unlink(file.temporary.c_str());
    staged_.clear();
}

}  // namespace negcos::cli
