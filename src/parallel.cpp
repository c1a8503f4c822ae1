// SPDX-License-Identifier: Apache-2.0
#include "parallel.hpp"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <vector>

#ifdef __GLIBC__
#include <dlfcn.h>
#include <link.h>
#endif

#include "config.hpp"
#include "cpu_quota.hpp"

// As in omp.h, which only some compilers have.
extern "C" {
int omp_get_num_places();
int omp_get_place_num_procs(int place);
void omp_get_place_proc_ids(int place, int* processors);
int omp_get_num_procs();
}
#ifndef NEGCOS_HAVE_OPENMP
// Of the application's OpenMP, where it has one: that binds threads just as ours would.
#pragma weak omp_get_num_places
#pragma weak omp_get_place_num_procs
#pragma weak omp_get_place_proc_ids
#pragma weak omp_get_num_procs
#endif

#ifdef NEGCOS_HAVE_TBB
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#endif

namespace negcos {

#ifdef NEGCOS_HAVE_TBB
constexpr bool kHaveTbb = true;
#else
constexpr bool kHaveTbb = false;
#endif
#ifdef NEGCOS_HAVE_OPENMP
constexpr bool kHaveOpenmp = true;
#else
constexpr bool kHaveOpenmp = false;
#endif

static_assert(static_cast<int32_t>(Threading::callback) == NEGCOS_THREADING_CALLBACK);

namespace {

// Children of fork() are told apart by their number and by how many forks lie before them: in another namespace, as of
// a container, a child may have its parent's number.
std::atomic<int64_t> forks{0};
int64_t this_process() noexcept {
    return forks.load(std::memory_order_relaxed) << 32 | static_cast<int64_t>(getpid());
}
void count_forks() {
    static const bool counted = [] {
        if (pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); }) != 0)
            throw std::bad_alloc();
        return true;
    }();
    static_cast<void>(counted);
}

// The threads of a pool outlive every context, and would run on in code that is gone. So what contains this code, the
// shared library or a plug-in that the static one is part of, stays until the process ends, and with it the back ends
// that it needs. (musl never unloads anything.)
void stay_loaded() {
#ifdef __GLIBC__
    static const bool stays = [] {
        Dl_info info;
        link_map* object = nullptr;
        if (dladdr1(&forks, &info, reinterpret_cast<void**>(&object), RTLD_DL_LINKMAP) == 0) return true;
        // A program itself has no name, and stays anyway.
        if (*object->l_name != '\0' && !dlopen(object->l_name, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE))
            throw std::bad_alloc();
        return true;
    }();
    static_cast<void>(stays);
#endif
}

const char* after_spaces(const char* at) {
    while (std::isspace(static_cast<unsigned char>(*at))) ++at;
    return at;
}

// "N", or with `levels` "N,N,…" for those of nesting, of which the outermost counts; INT32_MAX where it is unset or
// wrong, which OpenMP's runtimes leave out of account too.
int32_t threads_in(const char* variable, bool levels) {
    const char* at = std::getenv(variable);
    if (!at) return INT32_MAX;
    long first = 0;
    for (bool more = true; more; ++at) {
        char* end = nullptr;
        errno = 0;
        const long count = std::strtol(at, &end, 10);
        at = after_spaces(end);
        more = levels && *at == ',';
        if (errno != 0 || count < 1 || (!more && *at != '\0')) return INT32_MAX;
        if (first == 0) first = count;
    }
    return static_cast<int32_t>(std::min<long>(first, INT32_MAX));
}

#ifdef __linux__
struct Cpus {
    cpu_set_t set;
    int32_t count;
};
// What an OpenMP runtime is asked; null where it has no such function.
struct OpenMP {
    decltype(&omp_get_num_places) num_places;
    decltype(&omp_get_place_num_procs) place_num_procs;
    decltype(&omp_get_place_proc_ids) place_proc_ids;
    decltype(&omp_get_num_procs) num_procs;
};
constexpr OpenMP kLinked{omp_get_num_places, omp_get_place_num_procs, omp_get_place_proc_ids, omp_get_num_procs};

// All places together, where the runtime has several and `own` is one of them.
std::optional<Cpus> all_places(const OpenMP& openmp, const Cpus& own) {
    if (!openmp.num_places || !openmp.place_num_procs || !openmp.place_proc_ids || !openmp.num_procs) return {};
    Cpus all;
    CPU_ZERO(&all.set);
    bool bound = false;
    for (int place = 0, places = openmp.num_places(); place < places; ++place) {
        int cpus[CPU_SETSIZE];
        const int count = openmp.place_num_procs(place);
        if (count > CPU_SETSIZE) return {};
        openmp.place_proc_ids(place, cpus);
        cpu_set_t set;
        CPU_ZERO(&set);
        for (int k = 0; k < count; ++k) CPU_SET(static_cast<size_t>(cpus[k]), &set);
        bound = bound || CPU_EQUAL(&set, &own.set);
        CPU_OR(&all.set, &all.set, &set);
    }
    if (!bound || CPU_EQUAL(&all.set, &own.set)) return {};
    // GOMP_CPU_AFFINITY may name CPUs that the process was not given; these are not counted here.
    all.count = std::min(CPU_COUNT(&all.set), openmp.num_procs());
    return all;
}

#ifdef __GLIBC__
// GNU's runtimes that are loaded: Python's packages bring copies, each under a name of its own.
std::vector<std::string> gnu_runtimes() {
    std::vector<std::string> paths;
    dl_iterate_phdr(
        [](dl_phdr_info* object, size_t, void* found) -> int {
            const std::string_view path = object->dlpi_name;
            try {
                if (path.substr(path.rfind('/') + 1).starts_with("libgomp"))
                    static_cast<std::vector<std::string>*>(found)->emplace_back(path);
            } catch (...) {
                return 1;
            }
            return 0;
        },
        &paths);
    return paths;
}

// As above, of the runtime in a file that is loaded.
std::optional<Cpus> all_places(const std::string& path, const Cpus& own) {
    void* const object = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    if (!object) return {};
    std::optional<Cpus> all;
    const auto find = [&](auto& function, const char* name) {
        function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(object, name));
    };
    OpenMP openmp;
    find(openmp.num_places, "omp_get_num_places");
    find(openmp.place_num_procs, "omp_get_place_num_procs");
    find(openmp.place_proc_ids, "omp_get_place_proc_ids");
    find(openmp.num_procs, "omp_get_num_procs");
    // LLVM's under GNU's name starts when it is asked, and ends the process where another of its kind has started.
    if (!dlsym(object, "__kmpc_begin")) all = all_places(openmp, own);
    dlclose(object);
    return all;
}
#endif

// What a thread was given (0: the calling one). Where the user has OpenMP bind its threads, GNU's runtime binds the
// first one to its place before main() begins, and whatever threads that one starts are born bound: what the process
// was given is then all places together. A second copy of that runtime knows only the place that the first one left.
std::optional<Cpus> given_cpus(pid_t thread) noexcept {
    Cpus own;
    CPU_ZERO(&own.set);
    if (sched_getaffinity(thread, sizeof own.set, &own.set) != 0) return {};
    own.count = CPU_COUNT(&own.set);
    // LLVM's runtime binds when it is first asked anything: not where nobody told it to.
    constexpr const char* kBinding[] = {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"};
    if (std::none_of(std::begin(kBinding), std::end(kBinding), [](const char* name) { return std::getenv(name); }))
        return own;
    try {
        if (const auto all = all_places(kLinked, own)) return all;
#ifdef __GLIBC__
        for (const std::string& path : gnu_runtimes())
            if (const auto all = all_places(path, own)) return all;
#endif
    } catch (...) {  // no memory to look
    }
    return own;  // bound by nobody, or by someone else, who is followed
}
#endif

// The process that ran a back end's threads first; 0: none has.
std::atomic<int64_t> threaded_process{0};

#ifdef NEGCOS_HAVE_OPENMP
// "SIZE[B|K|M|G]", in kibibytes where it does not say, with spaces anywhere between (OpenMP 5.2, 21.2.2); what is not
// that has no size.
std::optional<size_t> stack_size_in(const char* variable) {
    const char* const text = std::getenv(variable);
    if (!text) return {};
    char* end = nullptr;
    errno = 0;
    const unsigned long size = std::strtoul(text, &end, 10);
    if (end == text || errno != 0) return {};
    const char* at = after_spaces(end);
    int shift = 10;
    if (*at != '\0') {
        constexpr char kUnits[] = "bkmg";
        const char* const unit = std::strchr(kUnits, std::tolower(static_cast<unsigned char>(*at)));
        if (!unit || *after_spaces(at + 1) != '\0') return {};
        shift = 10 * static_cast<int>(unit - kUnits);
    }
    if (size << shift >> shift != size) return {};
    return size << shift;
}
// As libgomp reads what its threads are given; nothing: the system's.
std::optional<size_t> openmp_stack_size() {
    const std::optional<size_t> size = stack_size_in("OMP_STACKSIZE");
    return size ? size : stack_size_in("GOMP_STACKSIZE");
}

// Whether so many threads at once are to be had: OpenMP's runtimes end the process when they are refused one.
bool try_threads(int32_t count) {
    static std::atomic<int32_t> had{1};
    if (count <= had.load(std::memory_order_relaxed)) return true;
    std::atomic<bool> over{false};
    const auto wait = [](void* flag) -> void* {
        static_cast<std::atomic<bool>*>(flag)->wait(false);
        return nullptr;
    };
    std::vector<pthread_t> others(static_cast<size_t>(count) - 1);
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    if (const auto size = openmp_stack_size()) pthread_attr_setstacksize(&attributes, *size);
    size_t started = 0;
    while (started < others.size() && pthread_create(&others[started], &attributes, wait, &over) == 0) ++started;
    pthread_attr_destroy(&attributes);
    over = true;
    over.notify_all();
    for (size_t k = 0; k < started; ++k) pthread_join(others[k], nullptr);
    if (started < others.size()) return false;
    had.store(count, std::memory_order_relaxed);
    return true;
}
#endif

}  // namespace

#ifdef NEGCOS_HAVE_TBB
namespace {

#ifdef __linux__
// Gives the process's first thread, while this lives, all that it was given before OpenMP bound it.
class Unbound {
public:
    Unbound() noexcept {
        const std::optional<Cpus> given = given_cpus(getpid());
        unbound_ = given && sched_getaffinity(getpid(), sizeof bound_, &bound_) == 0 &&
                   !CPU_EQUAL(&given->set, &bound_) && sched_setaffinity(getpid(), sizeof given->set, &given->set) == 0;
    }
    ~Unbound() {
        if (unbound_) sched_setaffinity(getpid(), sizeof bound_, &bound_);
    }
    Unbound(const Unbound&) = delete;
    Unbound& operator=(const Unbound&) = delete;

private:
    cpu_set_t bound_;
    bool unbound_ = false;
};
#else
struct Unbound {};
#endif

// oneTBB's first use counts processors, in memory of its own: those of the process's first thread, to which it lets its
// threads go too. Where it is refused that memory, it forgets that it has failed, and whoever uses it next waits for
// ever: so nobody does.
bool tbb_counts() {
    static const bool counts = [] {
        [[maybe_unused]] const Unbound unbound;
        try {
            return tbb::global_control::active_value(tbb::global_control::max_allowed_parallelism) > 0;
        } catch (const std::bad_alloc&) {
            return false;
        }
    }();
    return counts;
}

}  // namespace
#endif

struct Parallel::Arena {
#ifdef NEGCOS_HAVE_TBB
    explicit Arena(int32_t threads) : threads(threads) {
        renew();
    }
    // An arena whose start has thrown waits for ever for that start to end: oneTBB forgets that it has failed.
    void renew() {
        const auto most = tbb::global_control::active_value(tbb::global_control::max_allowed_parallelism);
        // One larger than what oneTBB would start makes it print a warning.
        tbb.emplace(threads < static_cast<int32_t>(most) ? threads : static_cast<int32_t>(most));
    }
    int32_t threads;
    std::optional<tbb::task_arena> tbb;
#endif
};

Parallel::Parallel(Threading threading, int32_t threads, negcos_parallel_for_fn callback, void* callback_data)
    : threading_(threading),
      threads_(threading == Threading::serial ? 1 : threads),
      process_(this_process()),
      callback_(callback),
      callback_data_(callback_data) {
    count_forks();
    if (threading == Threading::tbb || threading == Threading::openmp) stay_loaded();
#ifdef NEGCOS_HAVE_TBB
    if (threading == Threading::tbb && threads > 1 && tbb_counts()) arena_ = std::make_unique<Arena>(threads);
#endif
}

Parallel::~Parallel() = default;

bool Parallel::available(Threading threading) noexcept {
    switch (threading) {
        case Threading::serial:
        case Threading::callback:
            return true;
        case Threading::tbb:
            return kHaveTbb;
        case Threading::openmp:
            return kHaveOpenmp;
        case Threading::automatic:  // preferred() says which
            break;
    }
    return false;
}

Threading Parallel::preferred() noexcept {
#if defined(NEGCOS_HAVE_TBB)
    return Threading::tbb;
#elif defined(NEGCOS_HAVE_OPENMP)
    return Threading::openmp;
#else
    return Threading::serial;
#endif
}

int32_t Parallel::usable_threads() noexcept {
#ifdef __linux__
    if (const std::optional<Cpus> given = given_cpus(0)) return given->count;
#endif
    const unsigned count = std::thread::hardware_concurrency();
    return count == 0 ? 1 : static_cast<int32_t>(count);
}

int32_t Parallel::default_threads() {
    return std::min(
        {usable_threads(), cpu_quota(), threads_in("OMP_NUM_THREADS", true), threads_in("OMP_THREAD_LIMIT", false)});
}

// The threads of a pool do not live on in the child of a fork, where its runtime may wait for them for ever: also for a
// context that was made there.
bool Parallel::forked() const noexcept {
    const int64_t process = this_process(), threaded = threaded_process.load(std::memory_order_relaxed);
    return process != process_ || (threaded != 0 && threaded != process && threading_ != Threading::callback);
}

bool Parallel::run(int64_t workers, void (*work)(void*, int64_t), void* task) noexcept {
    if (threading_ != Threading::callback) threaded_process.store(process_, std::memory_order_relaxed);
    try {
        switch (threading_) {
            case Threading::tbb:
#ifdef NEGCOS_HAVE_TBB
                if (!arena_) return true;  // the calling thread does it all
                try {
                    arena_->tbb->execute([&] {
                        tbb::parallel_for(
                            int64_t{0}, workers, [&](int64_t w) { work(task, w); }, tbb::simple_partitioner());
                    });
                } catch (...) {
                    arena_->renew();
                    throw;
                }
#endif
                return true;
            case Threading::openmp:
#ifdef NEGCOS_HAVE_OPENMP
                if (!try_threads(threads_)) return true;
                    // Always as many: for another number the runtime takes memory for another team.
#pragma omp parallel num_threads(threads_)
                work(task, 0);
#endif
                return true;
            case Threading::callback:
                return callback_(callback_data_, workers, work, task) == 0;
            case Threading::automatic:
            case Threading::serial:
                break;
        }
        return true;
    } catch (...) {
        // Our tasks never throw. A pool that could not be had leaves the work to the calling thread; the caller's own
        // threads that threw have failed.
        return threading_ != Threading::callback;
    }
}

}  // namespace negcos
