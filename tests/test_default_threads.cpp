// SPDX-License-Identifier: Apache-2.0
//
// How many threads a context takes by default: what the process was given, whatever OpenMP binds; the quotas of control
// groups; OMP_NUM_THREADS; what stands above them. That those threads run, all at once, where they may.
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "child.hpp"
#include "cpu_quota.hpp"
#include "parallel.hpp"
#include "pools.hpp"

namespace {

using harness::again;
using harness::kAgain;
using harness::kRan;

constexpr const char* kVariables[] = {"OMP_PROC_BIND",   "OMP_PLACES",       "GOMP_CPU_AFFINITY", "KMP_AFFINITY",
                                      "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "NEGCOS_THREADS"};

using Variables = std::map<std::string, std::string>;

int32_t default_threads(int32_t threading = NEGCOS_THREADING_DEFAULT) {
    negcos::ContextOptions options;
    options.threading = threading;
    return negcos::Context(options).threads();
}

// Sets variables for a while.
class Environment {
public:
    explicit Environment(const Variables& values) {
        for (const char* name : kVariables) {
            if (const char* before = std::getenv(name)) before_[name] = before;
            unsetenv(name);
        }
        set(values);
    }
    ~Environment() {
        for (const char* name : kVariables) unsetenv(name);
        set(before_);
    }
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;

private:
    static void set(const Variables& values) {
        for (const auto& [name, value] : values) setenv(name.c_str(), value.c_str(), 1);
    }
    Variables before_;
};

cpu_set_t affinity() {
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    return set;
}

// Whether `count` threads are in tasks at the same time, each of which waits for the others, and may run on at least so
// many CPUs between them.
bool run_together(int32_t threading, int32_t count) {
    negcos::Parallel parallel(negcos::Threading{threading}, count, nullptr, nullptr);
    const auto late = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    std::atomic<int32_t> arrived{0};
    std::mutex mutex;
    cpu_set_t all;
    CPU_ZERO(&all);
    parallel.for_each(count, false, [&](int64_t, int64_t) {
        {
            const std::lock_guard<std::mutex> lock(mutex);
            const cpu_set_t own = affinity();
            CPU_OR(&all, &all, &own);
        }
        ++arrived;
        while (arrived < count && std::chrono::steady_clock::now() < late) std::this_thread::yield();
        if (arrived < count) arrived = INT_MIN;
    });
    if (arrived != count) std::printf("fewer than %d threads at once\n", count);
    if (CPU_COUNT(&all) < count) std::printf("%d threads on %d CPUs\n", count, CPU_COUNT(&all));
    return arrived == count && CPU_COUNT(&all) >= count;
}

struct Case {
    Variables environment;
    int32_t expected;
};

// What a program of its own finds: "THREADING EXPECTED FROM_ANOTHER_THREAD".
int found(const char* text) {
    int threading = 0, expected = 0, elsewhere = 0;
    if (std::sscanf(text, "%d %d %d", &threading, &expected, &elsewhere) != 3) return 1;
    bool right = false;
    const auto look = [&] {
        const cpu_set_t before = affinity();
        const int32_t got = default_threads(threading);
        if (got != expected) std::printf("%d threads, expected %d\n", got, expected);
        right = got == expected && run_together(threading, got);
        const cpu_set_t after = affinity();
        if (!CPU_EQUAL(&before, &after)) {
            std::printf("the calling thread's affinity was changed\n");
            right = false;
        }
    };
    if (elsewhere)
        std::thread(look).join();
    else
        look();
    std::fflush(stdout);
    return right ? kRan : 1;
}

TEST_SUITE("unit") {
    TEST_CASE("default threads: those that the process was given, wherever OpenMP binds its first one") {
        if (const char* text = std::getenv(kAgain)) _exit(found(text));
        if (std::getenv("NEGCOS_EMULATOR")) {
            std::printf("SKIP: default threads: where OpenMP binds: an emulator starts no program of its own\n");
            return;
        }
        std::vector<int> mine;
        const cpu_set_t own = affinity();
        for (int cpu = 0; cpu < CPU_SETSIZE && mine.size() < 2; ++cpu)
            if (CPU_ISSET(cpu, &own)) mine.push_back(cpu);
        if (mine.size() < 2) {
            std::printf("SKIP: default threads: where OpenMP binds: there is one CPU\n");
            return;
        }
        const std::string a = std::to_string(mine[0]), b = std::to_string(mine[1]);
        const std::vector<Case> cases = {
            {{}, 2},
            {{{"OMP_PROC_BIND", "true"}}, 2},
            {{{"OMP_PROC_BIND", "close"}}, 2},
            {{{"OMP_PROC_BIND", "spread"}}, 2},
            {{{"OMP_PROC_BIND", "false"}, {"OMP_PLACES", "cores"}}, 2},
            {{{"OMP_PLACES", "cores"}}, 2},
            {{{"OMP_PLACES", "threads"}}, 2},
            {{{"OMP_PLACES", "sockets"}, {"OMP_PROC_BIND", "spread"}}, 2},
            {{{"OMP_PLACES", "{" + a + "},{" + b + "}"}}, 2},
            {{{"OMP_PLACES", "{" + b + "},{" + a + "}"}, {"OMP_PROC_BIND", "close"}}, 2},
            {{{"OMP_PLACES", "{" + b + "}"}}, 1},
            {{{"GOMP_CPU_AFFINITY", a + " " + b}}, 2},
            {{{"GOMP_CPU_AFFINITY", b + " " + a}, {"OMP_PROC_BIND", "true"}}, 2},
        };
        for (const int32_t threading : harness::back_ends("default threads"))
            for (const Case& c : cases)
                for (const bool one_cpu : {false, true})
                    for (const bool elsewhere : {false, true}) {
                        std::string said = "threading " + std::to_string(threading);
                        for (const auto& [name, value] : c.environment) said += " " + name + "=" + value;
                        INFO(said << (one_cpu ? ", one CPU" : "") << (elsewhere ? ", from another thread" : ""));
                        const int32_t expected = one_cpu ? 1 : c.expected;
                        const std::string value = std::to_string(threading) + " " + std::to_string(expected) + " " +
                                                  std::to_string(int{elsewhere});
                        CHECK(again("default threads: those that the process was given*", value, [&] {
                            cpu_set_t given;
                            CPU_ZERO(&given);
                            for (const int cpu : mine)
                                if (!one_cpu || cpu == mine[0]) CPU_SET(static_cast<size_t>(cpu), &given);
                            sched_setaffinity(0, sizeof given, &given);
                            // Above a quota of where the tests run.
                            for (const char* name : kVariables) unsetenv(name);
                            setenv("NEGCOS_THREADS", "1000", 1);
                            for (const auto& [name, text] : c.environment) setenv(name.c_str(), text.c_str(), 1);
                        }));
                    }
    }

    TEST_CASE("default threads: a thread that was restricted has as many as it may use") {
        const Environment environment(Variables{{"NEGCOS_THREADS", "1000"}});
        const cpu_set_t own = affinity();
        int first = 0;
        while (!CPU_ISSET(static_cast<size_t>(first), &own)) ++first;
        // What is thrown there arrives here.
        std::async(std::launch::async, [&] {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(static_cast<size_t>(first), &one);
            REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
            CHECK(default_threads() == 1);
        }).get();
    }

    TEST_CASE("default threads: OpenMP's environment is a cap, NEGCOS_THREADS and options stand above it") {
        const auto threads = [](const Variables& variables) {
            const Environment environment(variables);
            return default_threads();
        };
        const int32_t given = threads({{"NEGCOS_THREADS", "1000"}}), usual = threads({});
        CHECK(usual == std::min(given, negcos::cpu_quota()));
        if (given == 1) std::printf("SKIP: default threads: a cap of 1 is not seen where there is one CPU\n");
        for (const char* one : {"1", " 1 ", "1,4", "1 , 4", "\t1,1,1", "+1"}) {
            INFO("'" << std::string(one) << "'");
            CHECK(threads({{"OMP_NUM_THREADS", one}}) == 1);
            CHECK(threads({{"OMP_NUM_THREADS", one}, {"NEGCOS_THREADS", "1000"}}) == given);
        }
        CHECK(threads({{"OMP_NUM_THREADS", "1000"}}) == usual);
        CHECK(threads({{"OMP_NUM_THREADS", "99999999999"}}) == usual);
        CHECK(threads({{"OMP_NUM_THREADS", "1000,1"}}) == usual);
        // What OpenMP's runtimes say is invalid, and leave out of account.
        for (const char* invalid :
             {"", " ", "0", "-1", "one", "1x", "1,", ",1", "1,0", "1,x", "1 1", "1;4", "0x1", "99999999999999999999"}) {
            INFO("'" << std::string(invalid) << "'");
            CHECK(threads({{"OMP_NUM_THREADS", invalid}}) == usual);
        }
        CHECK(threads({{"OMP_THREAD_LIMIT", "1"}}) == 1);
        CHECK(threads({{"OMP_THREAD_LIMIT", "1"}, {"OMP_NUM_THREADS", "1000"}}) == 1);
        for (const char* invalid : {"nix", "1,1", "1,"}) {  // libgomp takes no list there
            INFO("'" << std::string(invalid) << "'");
            CHECK(threads({{"OMP_THREAD_LIMIT", invalid}}) == usual);
        }
        CHECK(threads({{"OMP_THREAD_LIMIT", "1"}, {"NEGCOS_THREADS", "1000"}}) == given);
        for (const int32_t threading : harness::back_ends("default threads: explicit")) {
            const Environment environment(Variables{{"OMP_NUM_THREADS", "1"}, {"NEGCOS_THREADS", "1"}});
            CHECK(harness::context("scalar", 3, threading).threads() == 3);
        }
    }

    TEST_CASE("default threads: the least quota of the groups that a process is in") {
        constexpr int32_t kNone = INT32_MAX;
        // Mounts and groups as systems show them.
        const std::string unified =
            "24 30 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:13 - proc proc rw\n"
            "35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        const std::string in_container =
            "812 801 0:98 / /proc rw,nosuid - proc proc rw\n"
            "815 811 0:30 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n";
        const std::string separate =
            "25 18 0:21 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:8 - tmpfs tmpfs ro,mode=755\n"
            "26 25 0:22 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,xattr,name=systemd\n"
            "29 25 0:25 / /sys/fs/cgroup/cpuset rw,relatime shared:13 - cgroup cgroup rw,cpuset\n"
            "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:14 - cgroup cgroup rw,cpu,cpuacct\n";
        const std::string separate_in_container =
            "964 963 0:25 /docker/f00 /sys/fs/cgroup/cpuset ro,relatime master:13 - cgroup cgroup rw,cpuset\n"
            "965 963 0:26 /docker/f00 /sys/fs/cgroup/cpu,cpuacct ro,relatime master:14 - cgroup cgroup "
            "rw,cpu,cpuacct\n";
        const std::string cpu = "/sys/fs/cgroup/cpu,cpuacct";
        const struct {
            const char* name;
            std::string groups, mounts;
            Variables files;
            int32_t expected;
        } layouts[] = {
            {"no control groups", "", "24 30 0:22 / /proc rw - proc proc rw\n", {}, kNone},
            {"nothing can be read", "", "", {}, kNone},
            {"version 2, a service of systemd",
             "0::/system.slice/train.service\n",
             unified,
             {{"/sys/fs/cgroup/system.slice/train.service/cpu.max", "150000 100000\n"},
              {"/sys/fs/cgroup/system.slice/cpu.max", "max 100000\n"}},
             2},
            {"version 2, a slice above has less",
             "0::/user.slice/user-1000.slice/session-3.scope\n",
             unified,
             {{"/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope/cpu.max", "400000 100000\n"},
              {"/sys/fs/cgroup/user.slice/user-1000.slice/cpu.max", "max 100000\n"},
              {"/sys/fs/cgroup/user.slice/cpu.max", "300000 100000\n"}},
             3},
            {"version 2, no limit",
             "0::/user.slice\n",
             unified,
             {{"/sys/fs/cgroup/user.slice/cpu.max", "max 100000\n"}},
             kNone},
            {"version 2, another group's quota",
             "0::/user.slice\n",
             unified,
             {{"/sys/fs/cgroup/user/cpu.max", "50000 100000\n"}, {"/sys/fs/cgroup/user.slices/cpu.max", "1 9\n"}},
             kNone},
            {"version 2, half a CPU in a container",
             "0::/\n",
             in_container,
             {{"/sys/fs/cgroup/cpu.max", "50000 100000\n"}},
             1},
            {"version 2, two and a bit in a container",
             "0::/\n",
             in_container,
             {{"/sys/fs/cgroup/cpu.max", "200001 100000\n"}},
             3},
            {"version 2, a container that is told its name outside",
             "0::/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-f00.scope\n",
             "815 811 0:30 /kubepods.slice/kubepods-pod1_2.slice/cri-containerd-f00.scope /sys/fs/cgroup ro - cgroup2 "
             "cgroup rw\n",
             {{"/sys/fs/cgroup/cpu.max", "100000 100000"}},
             1},
            {"version 2, a mount whose root lies elsewhere",
             "0::/\n",
             "815 811 0:30 /../../f00 /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
             {{"/sys/fs/cgroup/cpu.max", "100000 50000"}},
             2},
            {"version 2, a group outside the namespace",
             "0::/../../other\n",
             in_container,
             {{"/sys/fs/cgroup/cpu.max", "100000 100000"}},
             1},
            {"version 2, the mount that shows the group is not the first",
             "0::/pods/one\n",
             "70 60 0:30 /pods/two /mnt/two ro - cgroup2 cgroup rw\n"
             "71 60 0:30 /pods/on /mnt/on ro - cgroup2 cgroup rw\n"
             "72 60 0:30 /pods /mnt/pods ro - cgroup2 cgroup rw\n",
             {{"/mnt/two/cpu.max", "1 1"}, {"/mnt/on/cpu.max", "1 1"}, {"/mnt/pods/one/cpu.max", "7 1"}},
             7},
            {"version 2, folders with a space and a backslash",
             "0::/my pods/a\\b\n",
             "70 60 0:30 /my\\040pods /mnt/a\\040b ro - cgroup2 cgroup rw\n",
             {{"/mnt/a b/a\\b/cpu.max", "5 1"}},
             5},
            {"version 2, no escapes",
             "0::/x\n",
             "70 60 0:30 / /mnt/\\04\\9999\\x ro - cgroup2 cgroup rw\n",
             {{"/mnt/\\04\\9999\\x/x/cpu.max", "5 1"}},
             5},
            {"version 1, Docker",
             "4:cpu,cpuacct:/docker/f00\n3:cpuset:/docker/f00\n1:name=systemd:/docker/f00\n",
             separate_in_container,
             {{cpu + "/cpu.cfs_quota_us", "50000\n"}, {cpu + "/cpu.cfs_period_us", "100000\n"}},
             1},
            {"version 1, Docker without a limit",
             "4:cpu,cpuacct:/docker/f00\n",
             separate_in_container,
             {{cpu + "/cpu.cfs_quota_us", "-1\n"}, {cpu + "/cpu.cfs_period_us", "100000\n"}},
             kNone},
            {"version 1, Kubernetes on the host's side: the pod has less",
             "11:cpuset:/kubepods/burstable/pod1/f00\n7:cpuacct,cpu:/kubepods/burstable/pod1/f00\n",
             separate,
             {{cpu + "/kubepods/burstable/pod1/f00/cpu.cfs_quota_us", "400000\n"},
              {cpu + "/kubepods/burstable/pod1/f00/cpu.cfs_period_us", "100000\n"},
              {cpu + "/kubepods/burstable/pod1/cpu.cfs_quota_us", "250000\n"},
              {cpu + "/kubepods/burstable/pod1/cpu.cfs_period_us", "100000\n"},
              {cpu + "/kubepods/burstable/cpu.cfs_quota_us", "-1\n"},
              {cpu + "/kubepods/burstable/cpu.cfs_period_us", "100000\n"}},
             3},
            {"both versions, version 1 has the processors",
             "5:cpu,cpuacct:/job\n1:name=systemd:/job\n0::/job\n",
             separate + "42 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
             {{cpu + "/job/cpu.cfs_quota_us", "20000"}, {cpu + "/job/cpu.cfs_period_us", "10000"}},
             2},
            {"version 1, the processors' sets alone",
             "3:cpuset:/docker/f00\n",
             separate_in_container,
             {{cpu + "/cpu.cfs_quota_us", "50000\n"}, {cpu + "/cpu.cfs_period_us", "100000\n"}},
             kNone},
            {"a quota without a period",
             "0::/\n4:cpu:/\n",
             unified + separate,
             {{"/sys/fs/cgroup/cpu.max", "50000\n"}, {cpu + "/cpu.cfs_quota_us", "50000\n"}},
             kNone},
            {"periods of nothing, and less",
             "0::/a\n",
             unified,
             {{"/sys/fs/cgroup/a/cpu.max", "50000 0"}, {"/sys/fs/cgroup/cpu.max", "50000 -100000"}},
             kNone},
            {"no quota at all is not none", "0::/\n", unified, {{"/sys/fs/cgroup/cpu.max", "0 100000\n"}}, kNone},
            {"numbers that no integer holds",
             "0::/a\n",
             unified,
             {{"/sys/fs/cgroup/a/cpu.max", "99999999999999999999 100000"},
              {"/sys/fs/cgroup/cpu.max", "9223372036854775807 1"}},
             kNone},
            {"garbage",
             "\n:\n::\n0:\n0::\n0::nix\n4:cpu\n4:cpu:\n4:cpu:nix\n:::::\n",
             "\n - \n - cgroup2\n1 2 3 - cgroup2 \n1 2 3 4 - cgroup x cpu\n 1 2 / / - cgroup2 x y\n",
             {},
             kNone},
        };
        for (const auto& layout : layouts) {
            INFO(std::string(layout.name));
            CHECK(negcos::cpu_quota([&](const std::string& path) -> std::string {
                      if (path == "/proc/self/cgroup") return layout.groups;
                      if (path == "/proc/self/mountinfo") return layout.mounts;
                      const auto file = layout.files.find(path);
                      return file == layout.files.end() ? "" : file->second;
                  }) == layout.expected);
        }
    }
}

}  // namespace
