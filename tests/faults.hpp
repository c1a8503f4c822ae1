// SPDX-License-Identifier: Apache-2.0
//
// Failures on demand: of memory, of thread creation, of files. faults.cpp puts itself before the system's functions in
// any program that it is linked into.
#ifndef NEGCOS_TESTS_FAULTS_HPP
#define NEGCOS_TESTS_FAULTS_HPP

#include <cstdint>

namespace faults {

// kStrange: operator new, by an exception that no standard library throws. kEmptyWrites: write(), by writing nothing.
enum Kind { kMemory, kThreads, kFiles, kStrange, kEmptyWrites, kKinds };

// From now on counts calls of a kind and lets the nth (from 0) fail, and all after it where `and_later`. Nothing fails
// with nth = kNever.
constexpr int64_t kNever = INT64_MAX;
void arm(Kind kind, int64_t nth, bool and_later = false);
// How many calls there were since arm(); no more fail.
int64_t disarm();

// As a file system without hard links.
extern bool no_links;
// Called before every read().
extern void (*before_read)();

// Blocks of memory that have been taken and not been given back, by whomever in this process.
int64_t live_blocks();

}  // namespace faults

#endif
