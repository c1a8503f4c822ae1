// SPDX-License-Identifier: Apache-2.0
//
// negcos info: what the library is, and what it makes of this machine.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "commands.hpp"
#include "files.hpp"

namespace negcos::cli {
namespace {

// The library computes on these many lanes whatever the instruction set: that is why the bits agree.
constexpr int kF32Lanes = 16, kF64Lanes = 8;

std::string listed(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) {
        if (!text.empty()) text += ", ";
        text += word;
    }
    return text;
}

}  // namespace

std::string version() {
    const uint32_t v = negcos_version();
    return std::to_string(v >> 16) + "." + std::to_string((v >> 8) & 0xff) + "." + std::to_string(v & 0xff);
}

// The library has no list of them: ask it for one context of each.
std::vector<int32_t> back_ends(ContextOptions options) {
    std::vector<int32_t> built_in;
    for (const int32_t threading : {NEGCOS_THREADING_TBB, NEGCOS_THREADING_OPENMP, NEGCOS_THREADING_SERIAL}) {
        options.threading = threading;
        try {
            const Context context(options);
            built_in.push_back(threading);
        } catch (const Error& error) {
            if (error.status() != NEGCOS_STATUS_UNSUPPORTED) throw;
        }
    }
    return built_in;
}

std::string table(const std::vector<std::pair<std::string, std::string>>& rows) {
    size_t width = 0;
    for (const auto& row : rows) width = std::max(width, row.first.size());
    std::string text;
    for (const auto& [label, value] : rows)
        text.append(label).append(width - label.size() + 2, ' ').append(value).append("\n");
    return text;
}

void run_info(bool json) {
    ContextOptions options;
    const std::vector<int32_t> threadings = back_ends(options);
    options.threading = threadings.front();
    const Context context(options);

    std::vector<std::string> isa_texts, threading_names;
    nlohmann::ordered_json isas = nlohmann::ordered_json::array();
    for (int32_t i = 0; i < negcos_isa_count(); ++i) {
        const std::string name = negcos_isa_name(i);
        const bool available = negcos_isa_available(name.c_str()) != 0;
        isas.push_back({{"name", name}, {"available", available}});
        isa_texts.push_back(available ? name : name + " (not on this machine)");
    }
    for (const int32_t threading : threadings) threading_names.push_back(name_of(kThreadings, threading));

    if (json) {
        const nlohmann::ordered_json object = {{"version", version()},
                                               {"isas", isas},
                                               {"isa", context.isa()},
                                               {"threads", context.threads()},
                                               {"threading", threading_names.front()},
                                               {"back_ends", threading_names},
                                               {"lanes", {{"f32", kF32Lanes}, {"f64", kF64Lanes}}}};
        print(object.dump() + "\n");
    } else {
        print(table({{"version", version()},
                     {"instruction sets", listed(isa_texts)},
                     {"selected", context.isa()},
                     {"threads", std::to_string(context.threads())},
                     {"back ends", listed(threading_names) + " (" + threading_names.front() + " is the default)"},
                     {"lanes", std::to_string(kF32Lanes) + " f32 / " + std::to_string(kF64Lanes) + " f64"}}));
    }
}

}  // namespace negcos::cli
