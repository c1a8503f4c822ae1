// SPDX-License-Identifier: Apache-2.0
//
// The only extern "C" unit: brings the caller's structs to this library's size, validates, calls, and lets nothing but
// a status out.
#include "negcos/negcos.h"

#include <pthread.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <system_error>
#include <utility>

#include "config.hpp"
#include "dispatch.hpp"
#include "evaluate.hpp"
#include "frequency.hpp"
#include "status.hpp"
#include "validate.hpp"

using namespace negcos;

struct negcos_context : Context {
    using Context::Context;
};
struct negcos_frequency {
    explicit negcos_frequency(Frequency&& made) : estimator(std::move(made)) {}
    Frequency estimator;
};

namespace {

constexpr int32_t kMostThreads = 4096;
constexpr uint32_t kLargestStruct = 1 << 16;

// The sizes of the structs' first version: nobody was ever built against shorter ones.
constexpr size_t kFirstSize(const negcos_context_options*) {
    return 48;
}
constexpr size_t kFirstSize(const negcos_options*) {
    return 112;
}
constexpr size_t kFirstSize(const negcos_batch*) {
    return 176;
}
constexpr size_t kFirstSize(const negcos_result*) {
    return 312;
}
constexpr size_t kFirstSize(const negcos_frequency_options*) {
    return 48;
}

negcos_context_options defaults(const negcos_context_options*) {
    return {};
}
negcos_options defaults(const negcos_options*) {
    negcos_options options{};
    options.rounds = 4;
    options.scale = 20;
    options.temperature = 1;
    options.norm_floor = 1e-12;
    options.false_negative_margin = std::numeric_limits<double>::infinity();
    return options;
}
negcos_batch defaults(const negcos_batch*) {
    return {};
}
negcos_result defaults(const negcos_result*) {
    return {};
}
negcos_frequency_options defaults(const negcos_frequency_options*) {
    return default_frequency_options();
}

template <class Struct>
void initialise(Struct* target, size_t size) noexcept {
    if (!target || size < sizeof target->struct_size) return;
    Struct filled = defaults(target);
    std::memset(target, 0, size);
    filled.struct_size = static_cast<uint32_t>(size < kLargestStruct ? size : kLargestStruct);
    std::memcpy(target, &filled, size < sizeof filled ? size : sizeof filled);
}

// The caller's struct at this library's size: what an older caller does not know has its default, and what a newer one
// knows beyond this library must not be in use.
template <class Struct>
int32_t read_struct(const char* name, const Struct* source, Struct& result) noexcept {
    result = defaults(source);
    // Every version ends at a whole field: none that is cut through is read.
    if (source->struct_size < kFirstSize(source) || source->struct_size > kLargestStruct || source->struct_size % 8)
        return fail(NEGCOS_STATUS_STRUCT_SIZE, "%s.struct_size is %u, expected sizeof = %zu (call %s_init first)", name,
                    source->struct_size, sizeof(Struct), name);
    const size_t size = source->struct_size, known = size < sizeof(Struct) ? size : sizeof(Struct);
    std::memcpy(&result, source, known);
    const auto* bytes = reinterpret_cast<const unsigned char*>(source);
    for (size_t at = known; at < size; ++at)
        if (bytes[at] != 0)
            return fail(NEGCOS_STATUS_STRUCT_SIZE,
                        "%s: byte %zu of %zu is set, but this library knows only %zu: a newer option?", name, at, size,
                        sizeof(Struct));
    return NEGCOS_STATUS_OK;
}

template <class Struct>
int32_t read_optional(const char* name, const Struct* source, Struct& result) noexcept {
    if (source) return read_struct(name, source, result);
    result = defaults(source);
    return NEGCOS_STATUS_OK;
}

// Calls are no cancellation points, though what they do may be: a thread that is cancelled ends after its call. Else
// the C library would unwind through functions that let nothing out, which ends the process.
class Uncancelled {
public:
    Uncancelled() noexcept { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
    ~Uncancelled() { pthread_setcancelstate(before_, nullptr); }
    Uncancelled(const Uncancelled&) = delete;
    Uncancelled& operator=(const Uncancelled&) = delete;

private:
    int before_ = PTHREAD_CANCEL_ENABLE;
};

// Of the exception at hand. Everything that can throw is standard C++ running out of memory; anything else is a bug.
int32_t status_of_exception() noexcept {
    try {
        throw;
    } catch (const std::bad_alloc&) {
        return fail(NEGCOS_STATUS_OUT_OF_MEMORY, "out of memory");
    } catch (...) {
        return fail(NEGCOS_STATUS_INTERNAL, "an unexpected exception; please report this");
    }
}

template <class Body>
int32_t guarded(Body&& body) noexcept {
    const Uncancelled uncancelled;
    try {
        return body();
    } catch (...) {
        return status_of_exception();
    }
}

int32_t threads_of(int32_t asked, int32_t& threads) {
    if (asked < 0 || asked > kMostThreads)
        return fail(NEGCOS_STATUS_VALUE, "options.threads is %d, expected 0 (all) to %d", asked, kMostThreads);
    threads = asked;
    if (asked != 0) return NEGCOS_STATUS_OK;
    if (const char* text = std::getenv("NEGCOS_THREADS")) {
        const char* const last = text + std::strlen(text);
        long cap = 0;
        const auto [end, error] = std::from_chars(text, last, cap);
        if (end != last || error != std::errc() || cap < 1)
            return fail(NEGCOS_STATUS_VALUE, "NEGCOS_THREADS in the environment is \"%.64s\", expected a number from 1",
                        text);
        threads = static_cast<int32_t>(std::min<long>(cap, Parallel::usable_threads()));
    } else {
        threads = Parallel::default_threads();
    }
    threads = std::min(threads, kMostThreads);
    return NEGCOS_STATUS_OK;
}

int32_t threading_of(const negcos_context_options& options, Threading& threading) noexcept {
    if (options.threading < NEGCOS_THREADING_DEFAULT || options.threading > NEGCOS_THREADING_CALLBACK)
        return fail(NEGCOS_STATUS_VALUE, "options.threading is %d, expected 0 to %d", options.threading,
                    NEGCOS_THREADING_CALLBACK);
    threading = Threading{options.threading};
    if (threading == Threading::callback && !options.parallel_for)
        return fail(NEGCOS_STATUS_NULL_ARGUMENT, "options.parallel_for is NULL, expected a function with CALLBACK");
    if (threading == Threading::automatic) threading = Parallel::preferred();
    if (!Parallel::available(threading))
        return fail(NEGCOS_STATUS_UNSUPPORTED, "options.threading %s is not built into this library",
                    threading == Threading::tbb ? "TBB" : "OPENMP");
    return NEGCOS_STATUS_OK;
}

int32_t create(const negcos_context_options* given, negcos_context** context) {
    if (!context) return fail(NEGCOS_STATUS_NULL_ARGUMENT, "context is NULL, expected a place for the new context");
    negcos_context_options options;
    int32_t status = read_optional("negcos_context_options", given, options);
    if (status) return status;
    if (options.reserved != 0) return fail(NEGCOS_STATUS_VALUE, "options.reserved is %d, expected 0", options.reserved);
    Threading threading{};
    int32_t threads = 0;
    if ((status = threading_of(options, threading)) || (status = threads_of(options.threads, threads))) return status;
    const Kernels* kernels = nullptr;
    if ((status = select_kernels(cpu_features(), options.isa, std::getenv("NEGCOS_ISA"), &kernels))) return status;
    *context = std::make_unique<negcos_context>(*kernels, threading, threads, options).release();
    return NEGCOS_STATUS_OK;
}

int32_t create(const negcos_frequency_options* given, negcos_frequency** frequency) {
    if (!frequency)
        return fail(NEGCOS_STATUS_NULL_ARGUMENT, "frequency is NULL, expected a place for the new estimator");
    negcos_frequency_options options;
    const Kernels* kernels = nullptr;
    int32_t status;
    if ((status = read_optional("negcos_frequency_options", given, options)) ||
        (status = validate_frequency(options)) ||
        (status = select_kernels(cpu_features(), nullptr, std::getenv("NEGCOS_ISA"), &kernels)))
        return status;
    *frequency = std::make_unique<negcos_frequency>(Frequency(*kernels, options)).release();
    return NEGCOS_STATUS_OK;
}

int32_t load(const char* path, negcos_frequency** frequency) {
    if (!path) return fail(NEGCOS_STATUS_NULL_ARGUMENT, "path is NULL");
    if (!frequency)
        return fail(NEGCOS_STATUS_NULL_ARGUMENT, "frequency is NULL, expected a place for the loaded estimator");
    const Kernels* kernels = nullptr;
    std::optional<Frequency> loaded;
    int32_t status;
    if ((status = select_kernels(cpu_features(), nullptr, std::getenv("NEGCOS_ISA"), &kernels)) ||
        (status = Frequency::load(*kernels, path, loaded)))
        return status;
    *frequency = std::make_unique<negcos_frequency>(std::move(*loaded)).release();
    return NEGCOS_STATUS_OK;
}

}  // namespace

static_assert(sizeof(negcos_const_matrix) == 40 && sizeof(negcos_matrix) == 40);
static_assert(sizeof(negcos_context_options) == 48 && sizeof(negcos_options) == 136);
static_assert(sizeof(negcos_batch) == 176 && sizeof(negcos_result) == 312);
static_assert(sizeof(negcos_frequency_options) == 48);

extern "C" {

uint32_t negcos_version(void) {
    return (NEGCOS_VERSION_MAJOR << 16) | (NEGCOS_VERSION_MINOR << 8) | NEGCOS_VERSION_PATCH;
}

const char* negcos_status_string(int32_t status) {
    return status_string(status);
}

const char* negcos_last_error(void) {
    return last_error();
}

int32_t negcos_isa_count(void) {
    return isa_count();
}

const char* negcos_isa_name(int32_t index) {
    return isa_name(index);
}

int32_t negcos_isa_available(const char* isa) {
    return isa && isa_available(isa, cpu_features()) ? 1 : 0;
}

void negcos_context_options_init(negcos_context_options* options, size_t size) {
    initialise(options, size);
}
void negcos_options_init(negcos_options* options, size_t size) {
    initialise(options, size);
}
void negcos_batch_init(negcos_batch* batch, size_t size) {
    initialise(batch, size);
}
void negcos_result_init(negcos_result* result, size_t size) {
    initialise(result, size);
}

int32_t negcos_context_create(const negcos_context_options* options, negcos_context** context) {
    return guarded([&] { return create(options, context); });
}

void negcos_context_destroy(negcos_context* context) {
    delete context;
}

const char* negcos_context_isa(const negcos_context* context) {
    return context ? context->kernels.isa : nullptr;
}

int32_t negcos_context_threads(const negcos_context* context) {
    return context ? context->parallel.threads() : 0;
}

int32_t negcos_evaluate(negcos_context* context, const negcos_options* options, const negcos_batch* batch,
                        negcos_result* result) {
    return guarded([&]() -> int32_t {
        if (!context) return fail(NEGCOS_STATUS_NULL_ARGUMENT, "context is NULL");
        if (!batch) return fail(NEGCOS_STATUS_NULL_ARGUMENT, "batch is NULL");
        if (!result) return fail(NEGCOS_STATUS_NULL_ARGUMENT, "result is NULL");
        negcos_options o;
        negcos_batch b;
        negcos_result r;
        int32_t status;
        if ((status = read_optional("negcos_options", options, o)) ||
            (status = read_struct("negcos_batch", batch, b)) || (status = read_struct("negcos_result", result, r)) ||
            (status = validate_evaluate(o, b, r, {options, batch, result})) || (status = evaluate(*context, o, b, r)))
            return status;
        result->loss = r.loss;
        result->grad_scale = r.grad_scale;
        result->grad_bias = r.grad_bias;
        result->accuracy = r.accuracy;
        result->mean_reciprocal_rank = r.mean_reciprocal_rank;
        result->excluded = r.excluded;
        result->zero_rows = r.zero_rows;
        return NEGCOS_STATUS_OK;
    });
}

int32_t negcos_sample(negcos_context* context, const negcos_options* options, int64_t batch, int64_t documents,
                      int32_t* negatives) {
    return guarded([&]() -> int32_t {
        if (!context) return fail(NEGCOS_STATUS_NULL_ARGUMENT, "context is NULL");
        negcos_options o;
        int32_t status;
        if ((status = read_optional("negcos_options", options, o)) ||
            (status = validate_sample(o, batch, documents, negatives, options)))
            return status;
        return sample(*context, o, batch, documents, negatives);
    });
}

void negcos_frequency_options_init(negcos_frequency_options* options, size_t size) {
    initialise(options, size);
}

int32_t negcos_frequency_create(const negcos_frequency_options* options, negcos_frequency** frequency) {
    return guarded([&] { return create(options, frequency); });
}

int32_t negcos_frequency_update(negcos_frequency* frequency, const int64_t* ids, int64_t count) {
    return guarded([&] {
        if (!frequency) return fail(NEGCOS_STATUS_NULL_ARGUMENT, "frequency is NULL");
        return frequency->estimator.update(ids, count);
    });
}

int32_t negcos_frequency_log_probability(const negcos_frequency* frequency, const int64_t* ids, int64_t count,
                                         double* log_probability) {
    return guarded([&] {
        if (!frequency) return fail(NEGCOS_STATUS_NULL_ARGUMENT, "frequency is NULL");
        return frequency->estimator.log_probability(ids, count, log_probability);
    });
}

int32_t negcos_frequency_save(const negcos_frequency* frequency, const char* path) {
    return guarded([&] {
        if (!frequency) return fail(NEGCOS_STATUS_NULL_ARGUMENT, "frequency is NULL");
        if (!path) return fail(NEGCOS_STATUS_NULL_ARGUMENT, "path is NULL");
        return frequency->estimator.save(path);
    });
}

int32_t negcos_frequency_load(const char* path, negcos_frequency** frequency) {
    return guarded([&] { return load(path, frequency); });
}

void negcos_frequency_destroy(negcos_frequency* frequency) {
    delete frequency;
}

}  // extern "C"
