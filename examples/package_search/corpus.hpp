// SPDX-License-Identifier: Apache-2.0
//
// What is learned from: pairs of a query text and the document it should find, read from the package catalogue of a
// Debian or Ubuntu machine or from a file of tab-separated pairs.
#ifndef PACKAGE_SEARCH_CORPUS_HPP
#define PACKAGE_SEARCH_CORPUS_HPP

#include <cstddef>
#include <string>
#include <vector>

namespace package_search {

struct Entry {
    std::string query;     // a package's one-line description
    std::string document;  // fields, one a line: name and section, tags, the names it depends on
    std::string title;     // what an answer shows first: its name
};

struct Corpus {
    std::string source;  // for messages
    bool packages;       // a package catalogue: queries describe their documents
    std::vector<Entry> entries;
};

// The output of `apt-cache dumpavail`, or a file in its format when `path` is not empty.
Corpus read_catalogue(const std::string& path);

// Lines of query TAB document; with `columns`, the numbers of those two from 1, lines of any more. Empty lines are
// passed over.
Corpus read_pairs(const std::string& path, const std::vector<std::size_t>& columns);

}  // namespace package_search

#endif
