// SPDX-License-Identifier: Apache-2.0
//
// Writing beside the final name.
#include "files.hpp"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace package_search {

void write_file(const std::string& path, const std::function<void(std::ostream&)>& write) {
    const std::string part = path + ".part";
    errno = 0;
    std::ofstream file(part, std::ios::binary | std::ios::trunc);
    if (file) write(file);
    file.close();
    if (!file) {
        const int reason = errno;
        std::error_code ignored;
        std::filesystem::remove(part, ignored);
        throw InputError(path + ": cannot be written" + (reason ? std::string(": ") + std::strerror(reason) : ""));
    }
    std::error_code error;
    std::filesystem::rename(part, path, error);
    if (error) throw InputError(path + ": cannot be written: " + error.message());
}

}  // namespace package_search
