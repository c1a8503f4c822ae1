// SPDX-License-Identifier: Apache-2.0
//
// Reading the catalogue (blank-line separated stanzas of "Field: value", continued by lines that start with a blank)
// and tab-separated pairs.
#include "corpus.hpp"

#include <sys/wait.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "files.hpp"

namespace package_search {
namespace {

constexpr const char* apt_command = "apt-cache dumpavail";

// Calls each_line on every line, its end cut off. False, with errno set, when reading fails.
bool read_lines(std::FILE* file, const std::function<void(std::string_view)>& each_line) {
    char* buffer = nullptr;
    std::size_t capacity = 0;
    ssize_t length = 0;
    errno = 0;
    while ((length = getline(&buffer, &capacity, file)) >= 0) {
        std::string_view line(buffer, static_cast<std::size_t>(length));
        if (line.ends_with('\n')) line.remove_suffix(1);
        if (line.ends_with('\r')) line.remove_suffix(1);
        each_line(line);
    }
    const int reason = errno;
    std::free(buffer);
    errno = reason;
    return std::ferror(file) == 0 && reason == 0;
}

void read_file(const std::string& path, const std::function<void(std::string_view)>& each_line) {
    const auto close = [](std::FILE* file) { std::fclose(file); };
    const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path.c_str(), "r"), close);
    if (!file || !read_lines(file.get(), each_line)) throw InputError(path + ": " + std::strerror(errno));
}

void read_apt(const std::function<void(std::string_view)>& each_line) {
    std::FILE* pipe = popen((std::string(apt_command) + " 2>/dev/null").c_str(), "r");
    if (pipe == nullptr) throw InputError(std::string(apt_command) + ": " + std::strerror(errno));
    read_lines(pipe, each_line);
    const int status = pclose(pipe);
    if (status == 0) return;
    throw InputError(std::string(apt_command) + ": " +
                     (WIFEXITED(status) && WEXITSTATUS(status) == 127
                          ? "not found; give a catalogue with --catalogue or other data with --pairs"
                          : "failed; run it by hand to see why"));
}

// "libc6 (>= 2.34), foo:any | bar" -> " libc6 foo bar"
void append_names(std::string_view relations, std::string& out) {
    while (!relations.empty()) {
        const std::size_t end = std::min(relations.find_first_of(",|"), relations.size());
        std::string_view name = relations.substr(0, end);
        name.remove_prefix(std::min(name.find_first_not_of(' '), name.size()));
        name = name.substr(0, name.find_first_of(" :("));
        if (!name.empty()) out.append(" ").append(name);
        relations.remove_prefix(std::min(end + 1, relations.size()));
    }
}

// Collects one stanza after the other.
class CatalogueReader {
public:
    void line(std::string_view text) {
        if (text.empty()) return finish();
        if (text.front() != ' ' && text.front() != '\t') {
            const std::size_t colon = std::min(text.find(':'), text.size());
            value_ = field(text.substr(0, colon));
            text.remove_prefix(std::min(colon + 1, text.size()));
        } else if (value_ == &description_) {
            return;  // only the first line
        }
        if (value_ == nullptr) return;
        text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
        value_->append(value_->empty() ? "" : " ").append(text);
    }

    void finish() {
        if (!name_.empty() && !description_.empty() && seen_.insert(name_).second) {
            std::string document = name_ + " " + section_ + "\n" + tags_ + "\n";
            append_names(depends_, document);
            entries_.push_back({description_, std::move(document), name_});
        }
        for (std::string* value : {&name_, &description_, &section_, &tags_, &depends_}) value->clear();
        value_ = nullptr;
    }

    std::vector<Entry> take() { return std::move(entries_); }

private:
    std::string* field(std::string_view name) {
        if (name == "Package") return &name_;
        if (name == "Description" || name == "Description-en") return description_.empty() ? &description_ : nullptr;
        if (name == "Section") return &section_;
        if (name == "Tag") return &tags_;
        if (name == "Depends" || name == "Pre-Depends") {
            depends_.append(depends_.empty() ? "" : ",");
            return &depends_;
        }
        return nullptr;
    }

    std::string name_, description_, section_, tags_, depends_;
    std::string* value_ = nullptr;  // the field being read
    std::unordered_set<std::string> seen_;
    std::vector<Entry> entries_;
};

}  // namespace

Corpus read_catalogue(const std::string& path) {
    CatalogueReader reader;
    const auto line = [&](std::string_view text) { reader.line(text); };
    if (path.empty())
        read_apt(line);
    else
        read_file(path, line);
    reader.finish();

    Corpus corpus{path.empty() ? apt_command : path, true, reader.take()};
    if (corpus.entries.empty())
        throw InputError(corpus.source + ": no package with a description in it" +
                         (path.empty() ? "; run apt-get update" : ""));
    return corpus;
}

Corpus read_pairs(const std::string& path, const std::vector<std::size_t>& columns) {
    Corpus corpus{path, false, {}};
    const std::size_t query = columns.empty() ? 1 : columns[0], document = columns.empty() ? 2 : columns[1];
    const std::size_t fewest = std::max(query, document);
    std::size_t number = 0;
    read_file(path, [&](std::string_view line) {
        ++number;
        if (line.empty()) return;
        const auto fail = [&](const std::string& what) {
            throw InputError(path + ":" + std::to_string(number) + ": " + what);
        };
        std::vector<std::string> cells(1);
        for (const char c : line) {
            if (c == '\t')
                cells.emplace_back();
            else
                cells.back() += c;
        }
        const std::string count = std::to_string(cells.size()) + (cells.size() == 1 ? " column" : " columns");
        if (columns.empty() && cells.size() != 2)
            fail(count + ", expected query TAB document; --columns A,B takes two of more");
        if (cells.size() < fewest) fail(count + ", and --columns takes column " + std::to_string(fewest));
        for (const std::size_t column : {query, document})
            if (cells[column - 1].find_first_not_of(' ') == std::string::npos)
                fail("column " + std::to_string(column) + " is empty");
        corpus.entries.push_back({cells[query - 1], cells[document - 1], cells[document - 1]});
    });
    if (corpus.entries.empty()) throw InputError(path + ": empty");
    return corpus;
}

}  // namespace package_search
