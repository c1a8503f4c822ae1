// SPDX-License-Identifier: Apache-2.0
//
// What replacing a file takes, in the library and in the command. Nothing here takes memory.
#ifndef NEGCOS_REPLACE_FILE_HPP
#define NEGCOS_REPLACE_FILE_HPP

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

namespace negcos {

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
