// SPDX-License-Identifier: Apache-2.0
#include "cpu_quota.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

namespace negcos {
namespace {

// What comes before the next `end`, and takes both away from the text.
std::string_view cut(std::string_view& text, char end) {
    const std::string_view piece = text.substr(0, text.find(end));
    text.remove_prefix(std::min(piece.size() + 1, text.size()));
    return piece;
}

bool lists(std::string_view names, std::string_view name) {
    while (!names.empty())
        if (cut(names, ',') == name) return true;
    return false;
}

// A name in mountinfo has spaces and the like as a backslash and three octal digits.
std::string plain(std::string_view name) {
    std::string text;
    for (size_t at; (at = name.find('\\')) != std::string_view::npos;) {
        text += name.substr(0, at);
        name.remove_prefix(at);
        unsigned code = 0;
        const char* const digits = name.data() + 1;
        const bool escaped = name.size() > 3 && std::from_chars(digits, digits + 3, code, 8).ptr == digits + 3;
        text += escaped ? static_cast<char>(code) : '\\';
        name.remove_prefix(escaped ? 4 : 1);
    }
    return text.append(name);
}

struct Mount {
    std::string root, point;
};

bool shows(std::string_view root, std::string_view group) {
    return root == "/" || (group.starts_with(root) && (group.size() == root.size() || group[root.size()] == '/'));
}

// Where a group is to be seen: a mount that shows it, or else any of its hierarchy, whose root it is in a container
// that is told another name for it.
std::optional<Mount> find_mount(std::string_view mounts, bool unified, std::string_view group) {
    std::optional<Mount> found;
    while (!mounts.empty()) {
        // ID PARENT DEVICE ROOT POINT OPTIONS [OPTIONAL]... - TYPE SOURCE OPTIONS
        std::string_view line = cut(mounts, '\n');
        const size_t dash = line.find(" - ");
        if (dash == std::string_view::npos) continue;
        std::string_view system = line.substr(dash + 3);
        const std::string_view type = cut(system, ' ');
        cut(system, ' ');
        if (unified ? type != "cgroup2" : type != "cgroup" || !lists(system, "cpu")) continue;
        for (int skipped = 0; skipped < 3; ++skipped) cut(line, ' ');
        std::string root = plain(cut(line, ' '));
        Mount mount{std::move(root), plain(cut(line, ' '))};
        if (shows(mount.root, group)) return mount;
        if (!found) found = std::move(mount);
    }
    return found;
}

std::optional<int64_t> number(std::string_view text) {
    int64_t value = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc()) return {};
    return value;
}

// "QUOTA PERIOD", both in microseconds; no quota is "max" in version 2 and -1 in version 1.
int32_t cpus_of(std::string_view text) {
    const auto quota = number(cut(text, ' ')), period = number(text);
    if (!quota || !period || *quota <= 0 || *period <= 0) return INT32_MAX;
    return static_cast<int32_t>(std::min<int64_t>(*quota / *period + (*quota % *period != 0), INT32_MAX));
}

std::string read_file(const std::string& path) {
    struct Close {
        void operator()(std::FILE* file) const noexcept { std::fclose(file); }
    };
    std::string text;
    const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "re"));
    char part[4096];
    for (size_t got; file && (got = std::fread(part, 1, sizeof part, file.get())) > 0;) text.append(part, got);
    return text;
}

}  // namespace

int32_t cpu_quota(const ReadFile& read) {
    const std::string groups = read("/proc/self/cgroup"), mounts = read("/proc/self/mountinfo");
    int32_t least = INT32_MAX;
    for (std::string_view rest = groups; !rest.empty();) {
        std::string_view group = cut(rest, '\n');  // ID:CONTROLLERS:PATH
        const bool unified = group.starts_with("0::");
        cut(group, ':');
        if (!lists(cut(group, ':'), "cpu") && !unified) continue;
        const std::optional<Mount> mount = find_mount(mounts, unified, group);
        if (!mount || !group.starts_with('/')) continue;
        std::string below;
        if (shows(mount->root, group)) below = group.substr(mount->root == "/" ? 0 : mount->root.size());
        // A group has no more than those that it is in.
        for (;; below.resize(below.rfind('/'))) {
            const std::string folder = mount->point + below;
            least = std::min(least, cpus_of(unified ? read(folder + "/cpu.max")
                                                    : read(folder + "/cpu.cfs_quota_us") + ' ' +
                                                          read(folder + "/cpu.cfs_period_us")));
            if (below.empty()) break;
        }
    }
    return least;
}

int32_t cpu_quota() {
    return cpu_quota(read_file);
}

}  // namespace negcos
