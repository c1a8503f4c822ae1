// SPDX-License-Identifier: Apache-2.0
//
// negcos loss: reads the arrays, evaluates once, prints the numbers and writes the arrays that were asked for.
#include <openssl/evp.h>

#include <bit>
#include <chrono>
#include <cstdio>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.hpp"
#include "files.hpp"

namespace negcos::cli {
namespace {

constexpr std::initializer_list<NpyType> kFloats = {NpyType::f2, NpyType::f4, NpyType::f8};

int32_t dtype_of_file(NpyType type) {
    return type == NpyType::f2 ? NEGCOS_DTYPE_F16 : type == NpyType::f4 ? NEGCOS_DTYPE_F32 : NEGCOS_DTYPE_F64;
}

negcos_const_matrix view_of(const Array& array) {
    const NpyHeader& h = array.header;
    return {array.data(), h.rows, h.cols, h.cols, dtype_of_file(h.type), 0};
}

// An output array on its way into a file; nothing when the option is absent.
struct Target {
    const char* option;
    const std::optional<std::string>& path;
    NpyType type = NpyType::i4;
    int64_t rows = 0, cols = 0;
    std::vector<std::byte> elements = {};

    void shape(NpyType element_type, int64_t r, int64_t c) {
        if (!path) return;
        type = element_type, rows = r, cols = c;
        uint64_t bytes = 0;
        if (__builtin_mul_overflow(static_cast<uint64_t>(r), static_cast<uint64_t>(c), &bytes) ||
            __builtin_mul_overflow(bytes, uint64_t{npy_size(type)}, &bytes) || bytes > elements.max_size())
            throw std::bad_alloc();
        // Never empty: what has no data is absent to the library.
        elements.resize(bytes > 0 ? bytes : 1);
    }

    negcos_matrix matrix() {
        if (!path) return {};
        return {elements.data(), rows, cols, cols, dtype_of_file(type), 0};
    }

    size_t size() const { return path ? static_cast<size_t>(rows) * static_cast<size_t>(cols) * npy_size(type) : 0; }

    Output output() const { return {option, *path, npy_preamble(type, rows, cols), {elements.data(), size()}}; }
};

// --negatives settles the sampling and the rounds; what else was said must agree.
void settle_sampling(const LossArguments& a, const Array* negatives, int64_t queries, Options& options) {
    if (a.sampling) options.sampling = *a.sampling;
    if (a.rounds) options.rounds = *a.rounds;
    if (!negatives) {
        if (options.sampling == NEGCOS_SAMPLING_GIVEN) throw Failure("--sampling given needs --negatives IN.npy");
        return;
    }
    const NpyHeader& h = negatives->header;
    const std::string shape = *a.negatives + ": " + std::to_string(h.rows) + " x " + std::to_string(h.cols);
    if (h.rows != queries)
        throw Failure(shape + " negatives, expected " + std::to_string(queries) + " rows, as many as queries");
    if (h.cols > std::numeric_limits<int32_t>::max()) throw Failure(shape + " negatives, expected fewer columns");
    if (a.rounds && *a.rounds != h.cols)
        throw Failure(shape + " negatives contradict --rounds " + std::to_string(*a.rounds));
    options.sampling = NEGCOS_SAMPLING_GIVEN;
    options.rounds = static_cast<int32_t>(h.cols);
}

// The library speaks of its own arguments; put the file's name in front.
[[noreturn]] void explain(const Error& error, const LossArguments& a) {
    const std::string sentence = error.what();
    if (sentence.starts_with("batch.queries")) throw Failure(a.queries + ": " + sentence);
    if (sentence.starts_with("batch.documents")) throw Failure(a.documents + ": " + sentence);
    if (sentence.starts_with("batch.negatives") && a.negatives) throw Failure(*a.negatives + ": " + sentence);
    throw error;
}

// SHA-256 of the numbers and of the elements of every array that was asked for, in this order and as they lie in memory
// on a little-endian machine: two calls with equal digests gave the same bits.
std::string digest_of(const Result& result, const std::vector<Target*>& targets) {
    static_assert(std::endian::native == std::endian::little);
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> state(EVP_MD_CTX_new(), EVP_MD_CTX_free);
    bool good = state && EVP_DigestInit_ex(state.get(), EVP_sha256(), nullptr);
    const auto add = [&](const void* data, size_t size) { good = good && EVP_DigestUpdate(state.get(), data, size); };
    const double numbers[] = {result.loss, result.grad_scale, result.accuracy, result.mean_reciprocal_rank};
    add(numbers, sizeof numbers);
    add(&result.zero_rows, sizeof result.zero_rows);
    for (const Target* target : targets) add(target->elements.data(), target->size());
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (!good || !EVP_DigestFinal_ex(state.get(), bytes, &size)) throw Failure("libcrypto could not compute a SHA-256");
    std::string text;
    for (unsigned k = 0; k < size; ++k)
        text += "0123456789abcdef"[bytes[k] >> 4], text += "0123456789abcdef"[bytes[k] & 15];
    return text;
}

std::string decimal(double value) {
    char text[40];
    std::snprintf(text, sizeof text, "%.10g", value);
    return text;
}

}  // namespace

void run_loss(const LossArguments& a) {
    if (a.threading == NEGCOS_THREADING_CALLBACK)
        throw Failure("--threading callback: the command has no threads of a caller's, expected another one");
    if (a.negatives && a.sampling && *a.sampling != NEGCOS_SAMPLING_GIVEN)
        throw Failure(std::string("--sampling ") + name_of(kSamplings, *a.sampling) +
                      " contradicts --negatives, which implies given");

    Target losses{"--losses", a.losses}, hits{"--hit-probability", a.hit_probability};
    Target grad_queries{"--grad-queries", a.grad_queries}, grad_documents{"--grad-documents", a.grad_documents};
    Target drawn{"--save-negatives", a.save_negatives};
    std::vector<Target*> targets;
    for (Target* target : {&losses, &hits, &grad_queries, &grad_documents, &drawn})
        if (target->path) targets.push_back(target);

    std::vector<std::string> inputs = {a.queries, a.documents};
    if (a.negatives) inputs.push_back(*a.negatives);
    std::vector<Output> outputs;
    for (const Target* target : targets) outputs.push_back({target->option, *target->path, {}, {}});
    check_outputs(inputs, outputs);

    const Array queries = read_array(a.queries, kFloats), documents = read_array(a.documents, kFloats);
    std::optional<Array> negatives;
    if (a.negatives) negatives = read_array(*a.negatives, {NpyType::i4});
    const NpyType type = queries.header.type;
    if (documents.header.type != type)
        throw Failure(a.documents + ": its elements are '" + npy_descr(documents.header.type) + "', expected '" +
                      npy_descr(type) + "' as in " + a.queries);

    const int64_t rows = queries.header.rows, dim = queries.header.cols;
    Options options = a.options;
    settle_sampling(a, negatives ? &*negatives : nullptr, rows, options);

    Batch batch(view_of(queries), view_of(documents));
    if (negatives) batch.negatives = static_cast<const int32_t*>(negatives->data());

    losses.shape(type, rows, 1);
    hits.shape(type, rows, 1);
    grad_queries.shape(type, rows, dim);
    grad_documents.shape(type, documents.header.rows, dim);
    drawn.shape(NpyType::i4, rows, options.rounds);
    Result result;
    result.losses = losses.matrix();
    result.hit_probability = hits.matrix();
    result.grad_queries = grad_queries.matrix();
    result.grad_documents = grad_documents.matrix();
    if (drawn.path) result.negatives = reinterpret_cast<int32_t*>(drawn.elements.data());

    ContextOptions context_options;
    context_options.threads = a.threads;
    context_options.isa = a.isa ? a.isa->c_str() : nullptr;
    context_options.threading =
        a.threading == NEGCOS_THREADING_DEFAULT ? back_ends(context_options).front() : a.threading;
    Context context(context_options);

    const auto start = std::chrono::steady_clock::now();
    try {
        context.evaluate(options, batch, result);
    } catch (const Error& error) {
        explain(error, a);
    }
    const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;

    outputs.clear();
    for (const Target* target : targets) outputs.push_back(target->output());
    OutputFiles files;
    files.stage(outputs);

    const int64_t rounds = options.sampling != NEGCOS_SAMPLING_ALL ? int64_t{options.rounds}
                           : documents.header.rows > 0             ? documents.header.rows - 1
                                                                   : 0;
    const char* const dtype = name_of(kDtypes, batch.queries.dtype);
    const char* const threading = name_of(kThreadings, context_options.threading);
    if (a.json) {
        const nlohmann::ordered_json object = {{"loss", result.loss},
                                               {"accuracy", result.accuracy},
                                               {"mean_reciprocal_rank", result.mean_reciprocal_rank},
                                               {"grad_scale", result.grad_scale},
                                               {"batch", rows},
                                               {"documents", documents.header.rows},
                                               {"dim", dim},
                                               {"rounds", rounds},
                                               {"dtype", dtype},
                                               {"isa", context.isa()},
                                               {"threads", context.threads()},
                                               {"threading", threading},
                                               {"zero_rows", result.zero_rows},
                                               {"excluded", result.excluded},
                                               {"milliseconds", elapsed.count()},
                                               {"digest", digest_of(result, targets)}};
        print(object.dump() + "\n");
    } else {
        print(table({{"loss", decimal(result.loss)},
                     {"accuracy", decimal(result.accuracy)},
                     {"mean reciprocal rank", decimal(result.mean_reciprocal_rank)},
                     {"d loss / d scale", decimal(result.grad_scale)},
                     {"batch", std::to_string(rows)},
                     {"documents", std::to_string(documents.header.rows)},
                     {"dim", std::to_string(dim)},
                     {"rounds", std::to_string(rounds)},
                     {"sampling", name_of(kSamplings, options.sampling)},
                     {"objective", name_of(kObjectives, options.objective)},
                     {"dtype", dtype},
                     {"isa", context.isa()},
                     {"threads", std::to_string(context.threads())},
                     {"threading", threading},
                     {"zero rows", std::to_string(result.zero_rows)},
                     {"excluded", std::to_string(result.excluded)},
                     {"milliseconds", decimal(elapsed.count())}}));
    }
    files.commit();
}

}  // namespace negcos::cli
