// SPDX-License-Identifier: Apache-2.0
//
// What the command does, one function each. They throw Failure or negcos::Error.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"

namespace negcos::cli {

void run_loss(const LossArguments& arguments);
void run_info(bool json);

std::string version();

// The threading back ends that the library has, the default one first.
std::vector<int32_t> back_ends(ContextOptions options);

// Labels and values in two columns.
std::string table(const std::vector<std::pair<std::string, std::string>>& rows);

}  // namespace negcos::cli
