// SPDX-License-Identifier: Apache-2.0
//
// Files of a test's own.
#ifndef NEGCOS_TESTS_SCRATCH_HPP
#define NEGCOS_TESTS_SCRATCH_HPP

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

namespace scratch {

namespace fs = std::filesystem;

inline std::string read_file(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    REQUIRE(file);
    return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_file(const fs::path& path, const std::string& bytes) {
    std::ofstream file(path, std::ios::binary);
    file << bytes;
    REQUIRE(file.flush());
}

// A folder that is gone afterwards.
struct Folder {
    Folder() {
        std::string name = (fs::temp_directory_path() / "negcos-test-XXXXXX").string();
        REQUIRE(mkdtemp(name.data()));
        path = name;
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() {
        std::error_code error;
        fs::remove_all(path, error);
    }
    std::string operator/(const std::string& name) const { return (path / name).string(); }
    std::set<std::string> files() const {
        std::set<std::string> names;
        for (const auto& entry : fs::directory_iterator(path)) names.insert(entry.path().filename().string());
        return names;
    }

    fs::path path;
};

}  // namespace scratch

#endif
