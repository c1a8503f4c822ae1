// SPDX-License-Identifier: Apache-2.0
//
// negcos for C++20: ownership, defaults and errors as exceptions over negcos.h, and nothing else. Header only; the C
// ABI underneath is the only binary interface. What each option and field means stands in negcos.h.
//
//     negcos::Context context;
//     negcos::Batch batch(negcos::view(queries, B, d), negcos::view(documents, B, d));   // std::span<const float>
//     negcos::Result result;
//     result.grad_queries = negcos::view(grad, B, d);                                     // std::span<float>
//     context.evaluate({}, batch, result);                                                // throws negcos::Error
#ifndef NEGCOS_NEGCOS_HPP
#define NEGCOS_NEGCOS_HPP

#if __cplusplus <= 201703L && !(defined(_MSVC_LANG) && _MSVC_LANG > 201703L)
#error "negcos.hpp needs C++20 (-std=c++20); negcos.h works from C99 and C++11 on"
#endif

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "negcos/negcos.h"

namespace negcos {

// A call that failed: what() is negcos_last_error().
class Error : public std::runtime_error {
public:
    explicit Error(int32_t status) : std::runtime_error(negcos_last_error()), status_(status) {}
    int32_t status() const noexcept { return status_; }

private:
    int32_t status_;
};

inline void check(int32_t status) {
    if (status != NEGCOS_STATUS_OK) throw Error(status);
}

template <class T>
inline constexpr int32_t dtype_of = -1;
template <>
inline constexpr int32_t dtype_of<float> = NEGCOS_DTYPE_F32;
template <>
inline constexpr int32_t dtype_of<double> = NEGCOS_DTYPE_F64;

// A row-major rows x cols view of memory that the caller keeps; row_stride in elements, 0 = cols. Throws
// std::invalid_argument when the span is too short for it.
template <class T>
auto view(std::span<T> data, int64_t rows, int64_t cols, int64_t row_stride = 0) {
    using Matrix = std::conditional_t<std::is_const_v<T>, negcos_const_matrix, negcos_matrix>;
    const int64_t stride = row_stride == 0 ? cols : row_stride;
    if (rows < 0 || cols < 0 || stride < cols) throw std::invalid_argument("negcos::view: negative shape or stride");
    const int64_t have = static_cast<int64_t>(data.size());
    if (rows > 0 && (cols > have || (stride > 0 && rows - 1 > (have - cols) / stride)))
        throw std::invalid_argument("negcos::view: " + std::to_string(rows) + " x " + std::to_string(cols) +
                                    " does not fit a span of " + std::to_string(have) + " elements");
    return Matrix{data.data(), rows, cols, stride, dtype_of<std::remove_const_t<T>>, 0};
}

struct Options : negcos_options {
    Options() noexcept : negcos_options{} { negcos_options_init(this, sizeof(negcos_options)); }
};

struct Batch : negcos_batch {
    Batch() noexcept : negcos_batch{} { negcos_batch_init(this, sizeof(negcos_batch)); }
    Batch(const negcos_const_matrix& q, const negcos_const_matrix& d) noexcept : Batch() {
        queries = q;
        documents = d;
    }
};

struct Result : negcos_result {
    Result() noexcept : negcos_result{} { negcos_result_init(this, sizeof(negcos_result)); }
};

struct ContextOptions : negcos_context_options {
    ContextOptions() noexcept : negcos_context_options{} {
        negcos_context_options_init(this, sizeof(negcos_context_options));
    }
};

// Owns a negcos_context: movable, not copyable; one thread at a time.
class Context {
public:
    explicit Context(const ContextOptions& options = {}) {
        negcos_context* created = nullptr;
        check(negcos_context_create(&options, &created));
        handle_.reset(created);
    }

    void evaluate(const Options& options, const Batch& batch, Result& result) {
        check(negcos_evaluate(handle_.get(), &options, &batch, &result));
    }

    // negatives: batch x options.rounds.
    void sample(const Options& options, int64_t batch, int64_t documents, std::span<int32_t> negatives) {
        if (batch > 0 && options.rounds > 0 && static_cast<int64_t>(negatives.size()) / options.rounds < batch)
            throw std::invalid_argument("negcos::Context::sample: negatives is shorter than batch x rounds");
        check(negcos_sample(handle_.get(), &options, batch, documents, negatives.data()));
    }

    const char* isa() const noexcept { return negcos_context_isa(handle_.get()); }
    int32_t threads() const noexcept { return negcos_context_threads(handle_.get()); }
    negcos_context* get() const noexcept { return handle_.get(); }

private:
    struct Destroy {
        void operator()(negcos_context* context) const noexcept { negcos_context_destroy(context); }
    };
    std::unique_ptr<negcos_context, Destroy> handle_;
};

struct FrequencyOptions : negcos_frequency_options {
    FrequencyOptions() noexcept : negcos_frequency_options{} {
        negcos_frequency_options_init(this, sizeof(negcos_frequency_options));
    }
};

// Owns a negcos_frequency: movable, not copyable; one thread at a time, const members any number.
class Frequency {
public:
    explicit Frequency(const FrequencyOptions& options = {}) {
        negcos_frequency* created = nullptr;
        check(negcos_frequency_create(&options, &created));
        handle_.reset(created);
    }
    static Frequency load(const std::string& path) {
        negcos_frequency* loaded = nullptr;
        check(negcos_frequency_load(path.c_str(), &loaded));
        return Frequency(loaded);
    }

    // One call a training step.
    void update(std::span<const int64_t> ids) {
        check(negcos_frequency_update(handle_.get(), ids.data(), static_cast<int64_t>(ids.size())));
    }
    void log_probability(std::span<const int64_t> ids, std::span<double> log_probability) const {
        if (log_probability.size() < ids.size())
            throw std::invalid_argument("negcos::Frequency::log_probability: log_probability is shorter than ids");
        check(negcos_frequency_log_probability(handle_.get(), ids.data(), static_cast<int64_t>(ids.size()),
                                               log_probability.data()));
    }
    void save(const std::string& path) const { check(negcos_frequency_save(handle_.get(), path.c_str())); }
    negcos_frequency* get() const noexcept { return handle_.get(); }

private:
    explicit Frequency(negcos_frequency* handle) noexcept : handle_(handle) {}

    struct Destroy {
        void operator()(negcos_frequency* frequency) const noexcept { negcos_frequency_destroy(frequency); }
    };
    std::unique_ptr<negcos_frequency, Destroy> handle_;
};

}  // namespace negcos

#endif
