// SPDX-License-Identifier: Apache-2.0
//
// The processor time that control groups, and so containers, leave a process: cpu.max of version 2,
// cpu.cfs_quota_us of version 1.
#ifndef NEGCOS_CPU_QUOTA_HPP
#define NEGCOS_CPU_QUOTA_HPP

#include <cstdint>
#include <functional>
#include <string>

namespace negcos {

// A file's text; "" where it cannot be read.
using ReadFile = std::function<std::string(const std::string& path)>;

// CPUs' worth of time, rounded up: half a CPU keeps one thread busy, and one and a half keep two. INT32_MAX: no limit
// was found.
int32_t cpu_quota(const ReadFile& read);
int32_t cpu_quota();  // of this process

}  // namespace negcos

#endif
