// SPDX-License-Identifier: Apache-2.0
//
// Plug-ins that come and go: with the library beside them or in them, on every back end, with their threads still
// there. NEGCOS_LIBRARY and the PLUGIN_s name them.
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <sched.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "child.hpp"
#include "negcos/negcos.h"
#include "scratch.hpp"

namespace {

// Objects that stay while this does. Whoever is loaded later sees their symbols.
class Loaded {
public:
    explicit Loaded(const std::vector<const char*>& paths) {
        for (const char* path : paths)
            if (void* const handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL))
                handles_.push_back(handle);
            else
                error_ = dlerror();
    }
    Loaded(const Loaded&) = delete;
    Loaded& operator=(const Loaded&) = delete;
    ~Loaded() {
        for (; !handles_.empty(); handles_.pop_back()) dlclose(handles_.back());
    }
    const std::string& error() const { return error_; }
    // Of the last of them.
    template <class Function>
    Function* find(const char* name) const {
        return reinterpret_cast<Function*>(dlsym(handles_.back(), name));
    }

private:
    std::vector<void*> handles_;
    std::string error_;
};

using Version = uint32_t();
using Call = int32_t(int32_t threading, int32_t destroyed);

int call_and_unload(const std::vector<const char*>& paths, int32_t threading, bool destroyed) {
    for (int round = 0; round < 10; ++round) {
        const Loaded loaded(paths);
        if (!loaded.error().empty()) return 200;
        const int32_t status = loaded.find<Call>("plugin_call")(threading, destroyed);
        if (status != NEGCOS_STATUS_OK) return status;
    }
    return 0;
}

// As Python packages bring it, under a name of its own; "" where it is not here.
std::string copy_openmp(const scratch::Folder& folder) {
    void* const runtime = dlopen("libgomp.so.1", RTLD_LAZY);
    Dl_info info;
    if (!runtime || dladdr(dlsym(runtime, "omp_get_num_places"), &info) == 0) return "";
    std::string bytes = scratch::read_file(info.dli_fname);
    dlclose(runtime);
    const std::string name = "libgomp.so.1";
    for (size_t at; (at = bytes.find(name)) != std::string::npos;) bytes[at + name.size() - 1] = '9';
    const std::string path = folder / "libgomp-a34b3233.so.1";
    scratch::write_file(path, bytes);
    return path;
}

int cpus() {
    cpu_set_t set;
    CPU_ZERO(&set);
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

// What a program of its own finds, whose first thread the OpenMP of `path` binds before the library is there.
int found_beside(const char* path) {
    const int given = cpus();
    if (!dlopen(path, RTLD_NOW | RTLD_LOCAL) || cpus() != 1) {
        std::printf("the copy of OpenMP does not bind\n");
        return 1;
    }
    const Loaded library({NEGCOS_LIBRARY});
    negcos_context* context = nullptr;
    if (!library.error().empty() ||
        library.find<decltype(negcos_context_create)>("negcos_context_create")(nullptr, &context) != NEGCOS_STATUS_OK)
        return 1;
    const int32_t threads = library.find<decltype(negcos_context_threads)>("negcos_context_threads")(context);
    if (threads != given) std::printf("%d threads, expected %d\n", threads, given);
    std::fflush(stdout);
    return threads == given ? harness::kRan : 1;
}

TEST_SUITE("unit") {
    TEST_CASE("plug-ins: each that contains the library has its own version of it, whoever came first") {
        constexpr uint32_t kVersion = NEGCOS_VERSION_MAJOR << 16 | NEGCOS_VERSION_MINOR << 8 | NEGCOS_VERSION_PATCH;
        constexpr uint32_t kLater = (kVersion & ~0xffu) | 99;
        const auto version = [](const std::vector<const char*>& paths) {
            const Loaded loaded(paths);
            REQUIRE_MESSAGE(loaded.error().empty(), loaded.error());
            return loaded.find<Version>("plugin_version")();
        };
        CHECK(version({PLUGIN_LATER}) == kLater);
        CHECK(version({PLUGIN_STATIC, PLUGIN_LATER}) == kLater);
        CHECK(version({PLUGIN_LATER, PLUGIN_STATIC}) == kVersion);
        CHECK(version({PLUGIN_LATER, PLUGIN_SHARED}) == kVersion);
        CHECK(version({NEGCOS_LIBRARY, PLUGIN_LATER}) == kLater);
    }

    TEST_CASE("plug-ins: one that contains the library shows none of its functions") {
        const bool shared = Loaded({PLUGIN_SHARED}).find<Version>("negcos_version");
        const bool contained = Loaded({PLUGIN_STATIC}).find<Version>("negcos_version");
        CHECK(shared);  // found in the library beside it
        CHECK_FALSE(contained);
    }

    TEST_CASE("plug-ins: load, call, unload, ten times") {
        if (std::getenv("NEGCOS_EMULATOR")) {
            std::printf("SKIP: plug-ins: unloaded: an emulator cannot fork with threads\n");
            return;
        }
        const struct {
            std::string name;
            std::vector<const char*> paths;
        } cases[] = {
            {"the library, loaded by name", {NEGCOS_LIBRARY, PLUGIN_UNLINKED}},
            {"a plug-in with the shared library", {PLUGIN_SHARED}},
            {"a plug-in that contains the library", {PLUGIN_STATIC}},
            {"a plug-in that shows nothing of it", {PLUGIN_SEALED}},
            {"two copies", {PLUGIN_SHARED, PLUGIN_SEALED}},
        };
        for (const auto& plugin : cases)
            for (const int32_t threading : {NEGCOS_THREADING_SERIAL, NEGCOS_THREADING_TBB, NEGCOS_THREADING_OPENMP})
                for (const bool destroyed : {true, false}) {
                    const int status =
                        harness::status_of_child([&] { return call_and_unload(plugin.paths, threading, destroyed); });
                    if (status == NEGCOS_STATUS_UNSUPPORTED)
                        std::printf("SKIP: plug-ins with back end %d: not in this build\n", threading);
                    else
                        CHECK_MESSAGE(status == 0, plugin.name << ", back end " << threading
                                                               << std::string(destroyed ? "" : ", contexts left"));
                }
    }

    TEST_CASE("plug-ins: a copy of OpenMP's runtime that came first, and bound the thread, hides no CPU") {
        if (const char* path = std::getenv(harness::kAgain)) _exit(found_beside(path));
        const scratch::Folder folder;
        const std::string copy = copy_openmp(folder);
        const char* reason = nullptr;
        if (std::getenv("NEGCOS_EMULATOR")) reason = "an emulator starts no program of its own";
        if (copy.empty()) reason = "there is no libgomp.so.1";
        if (cpus() < 2) reason = "there is one CPU";
#ifndef __GLIBC__
        reason = "only glibc's loader is asked for copies";
#endif
        if (reason) {
            std::printf("SKIP: plug-ins: a copy of OpenMP's runtime: %s\n", reason);
            return;
        }
        CHECK(harness::again("plug-ins: a copy of OpenMP's runtime*", copy, [] {
            for (const char* name : {"OMP_PLACES", "GOMP_CPU_AFFINITY", "OMP_NUM_THREADS", "OMP_THREAD_LIMIT"})
                unsetenv(name);
            setenv("OMP_PROC_BIND", "true", 1);
            setenv("NEGCOS_THREADS", "1000", 1);  // above a quota of where the tests run
        }));
    }
}

}  // namespace
