// SPDX-License-Identifier: Apache-2.0
//
// What replacing a file takes, in the library and in the command: a new one beside it, which is renamed over it when it
// is whole and on the disk.
#ifndef NEGCOS_REPLACE_FILE_HPP
#define NEGCOS_REPLACE_FILE_HPP

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

namespace negcos {

class Descriptor {
public:
    explicit Descriptor(int fd) noexcept : fd_(fd) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (fd_ >= 0) close(fd_);
    }
    explicit operator bool() const noexcept { return fd_ >= 0; }
    int get() const noexcept { return fd_; }

    // On the disk, so that the rename that follows cannot get there first; pipes and most devices have none (EINVAL).
    // Some file systems report a full disk only here. False with errno.
    bool finish() noexcept { return (fsync(fd_) == 0 || errno == EINVAL) && close(std::exchange(fd_, -1)) == 0; }

private:
    int fd_;
};

// False with errno.
inline bool write_all(int fd, const void* data, size_t size) noexcept {
    const char* at = static_cast<const char*>(data);
    while (size > 0) {
        const ssize_t written = write(fd, at, size);
        if (written < 0 && errno == EINTR) continue;
        if (written == 0) errno = EIO;  // no device is known to do so, and none is tried for ever
        if (written <= 0) return false;
        at += written;
        size -= static_cast<size_t>(written);
    }
    return true;
}

// Where a path leads through symbolic links, also when nothing is there yet: that is replaced, not the links.
inline std::filesystem::path destination(std::filesystem::path path) {
    std::error_code error;
    for (int links = 40; links > 0 && std::filesystem::is_symlink(path, error); --links)  // as many as the kernel
        path = path.parent_path() / std::filesystem::read_symlink(path, error);
    return path;
}

// Opens a new file, named by the stem, the process and a number such that nothing has this name, nor this and ~. Names
// may be taken by other threads, or left behind by a process that was killed. Without a file there is errno, and no
// name.
inline int create_new(const std::string& stem, mode_t mode, std::string& name) {
    for (unsigned n = 0;; ++n) {
        std::string next = stem + std::to_string(getpid()) + "." + std::to_string(n);
        if (access((next + "~").c_str(), F_OK) == 0) continue;
        const int fd = open(next.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd < 0 && errno == EEXIST) continue;
        if (fd >= 0) name = std::move(next);
        return fd;
    }
}

// Gives the file the owner of another as far as possible, and in no case more for anyone to read or write.
inline bool copy_rights(const struct stat& from, int fd) noexcept {
    mode_t mode = from.st_mode & 0777;
    if (fchown(fd, from.st_uid, from.st_gid) != 0 && fchown(fd, static_cast<uid_t>(-1), from.st_gid) != 0)
        mode &= 0707 | (mode & 07) << 3;
    if (fchmod(fd, mode) == 0) return true;
    struct stat now;
    return fstat(fd, &now) == 0 && (now.st_mode & 0777 & ~mode) == 0;
}

}  // namespace negcos

#endif
