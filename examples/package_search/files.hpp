// SPDX-License-Identifier: Apache-2.0
//
// Files: errors that are the user's to mend, and writing beside the final name so that no half file is ever seen.
#ifndef PACKAGE_SEARCH_FILES_HPP
#define PACKAGE_SEARCH_FILES_HPP

#include <functional>
#include <ostream>
#include <stdexcept>
#include <string>

namespace package_search {

// Wrong input: what() is one line that names it; the program prints it and ends with status 2.
struct InputError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Calls write on a new file beside `path`, then renames it to `path`.
void write_file(const std::string& path, const std::function<void(std::ostream&)>& write);

}  // namespace package_search

#endif
