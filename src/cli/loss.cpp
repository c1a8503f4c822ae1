// SPDX-License-Identifier: Apache-2.0
//
// negcos loss: reads the arrays, evaluates once, prints the numbers and writes the arrays that were asked for.
#include <openssl/evp.h>

#include <algorithm>
#include <bit>
#include <cctype>
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

// Rows without columns have no size that a file would have to back: any number of them would be believed.
Array read_matrix(const std::string& path) {
    Array array = read_array(path, kFloats);
    const NpyHeader& h = array.header;
    if (h.rows > 0 && h.cols == 0)
        throw Failure(path + ": its shape is (" + std::to_string(h.rows) + ", 0), expected at least 1 column");
    return array;
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

    Output output() const {
        return {option + (" " + *path), *path, npy_preamble(type, rows, cols), {elements.data(), size()}};
    }
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

// What needs another option and would play no part without it.
void check_needs(const LossArguments& a) {
    const auto needs = [](bool there, const char* what, bool has, const char* other) {
        if (there && !has) throw Failure(std::string(what) + " needs " + other);
    };
    const Options& o = a.options;
    const bool by_document = o.exclude & NEGCOS_EXCLUDE_SAME_DOCUMENT_ID;
    const bool by_query = o.exclude & NEGCOS_EXCLUDE_SAME_QUERY_ID;
    const auto has = [](const std::optional<std::string>& file) { return file.has_value(); };
    needs(by_document, "--exclude same-document-id", has(a.document_ids), "--document-ids IN.npy");
    needs(by_query, "--exclude same-query-id", has(a.query_ids), "--query-ids IN.npy");
    needs(has(a.document_ids), "--document-ids", by_document, "--exclude same-document-id");
    needs(has(a.query_ids), "--query-ids", by_query, "--exclude same-query-id");
    needs(has(a.grad_hard_negatives), "--grad-hard-negatives", has(a.hard_negatives), "--hard-negatives IN.npy");
    needs(o.correction != NEGCOS_CORRECTION_ALL_CANDIDATES, "--correction", has(a.log_probability),
          "--log-probability IN.npy");
    if (!a.prefix_weights.empty() && a.prefix_weights.size() != a.prefix_dims.size())
        throw Failure("--prefix-weights has " + std::to_string(a.prefix_weights.size()) + " numbers, expected " +
                      std::to_string(a.prefix_dims.size()) + ", as many as --prefix-dims");
}

// The input files, each with the name of its field in negcos_batch.
std::vector<std::pair<std::string, std::string>> inputs_of(const LossArguments& a) {
    std::vector<std::pair<std::string, std::string>> inputs = {{"queries", a.queries}, {"documents", a.documents}};
    const auto add = [&](const char* field, const std::optional<std::string>& path) {
        if (path) inputs.emplace_back(field, *path);
    };
    add("hard_negatives", a.hard_negatives);
    add("positives", a.positives);
    add("negatives", a.negatives);
    add("document_ids", a.document_ids);
    add("query_ids", a.query_ids);
    add("log_probability", a.log_probability);
    add("weights", a.weights);
    return inputs;
}

// A word of the library's, as the command line has it: options for fields, and names for enumerators.
std::string translated(const std::string& word) {
    const size_t dot = word.find('.');
    const std::string holder = word.substr(0, dot);
    if (word == "isa") return "--isa";
    if (word == "negcos_isa_name") return "negcos info";
    std::string text = dot == std::string::npos ? word : word.substr(dot + 1);
    std::replace(text.begin(), text.end(), '_', '-');
    if (dot != std::string::npos) {
        if (holder != "options" && holder != "batch" && holder != "result") return word;
        if (text == "queries" || text == "documents") return text;
        if (text == "prefix-count") return "--prefix-dims";
        return (holder == "result" && text == "negatives" ? "--save-" : "--") + text;
    }
    if (std::any_of(word.begin(), word.end(), [](unsigned char c) { return std::islower(c); })) return word;
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    for (const std::span<const Name> names : {std::span<const Name>(kObjectives), std::span<const Name>(kSamplings),
                                              std::span<const Name>(kDirections), std::span<const Name>(kThreadings)})
        for (const Name& name : names)
            if (text == name.text) return text;
    return word;
}

// The library speaks of its own fields: say it in options, and put in front the file that a sentence begins with.
Failure explain(const Error& error, const LossArguments& a) {
    const std::string sentence = error.what();
    std::string text, word;
    for (const auto& [field, path] : inputs_of(a))
        if (const std::string name = "batch." + field;
            sentence.starts_with(name) && (sentence[name.size()] == ' ' || sentence[name.size()] == '['))
            text = path + ": ";
    if (sentence.starts_with("options.prefix_count")) text = "the number of ";
    for (const char c : sentence + " ") {
        if (std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.') {
            word += c;
        } else {
            text += translated(word) + c;
            word.clear();
        }
    }
    text.pop_back();
    return Failure(text);
}

// SHA-256 of the numbers and of the elements of every array that was asked for, in this order and as they lie in memory
// on a little-endian machine: two calls with equal digests gave the same bits. The last two numbers are left out where
// they are 0, so that a call without the options that they belong to keeps the digest it always had.
std::string digest_of(const Result& result, const std::vector<Target*>& targets) {
    static_assert(std::endian::native == std::endian::little);
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> state(EVP_MD_CTX_new(), EVP_MD_CTX_free);
    bool good = state && EVP_DigestInit_ex(state.get(), EVP_sha256(), nullptr);
    const auto add = [&](const void* data, size_t size) { good = good && EVP_DigestUpdate(state.get(), data, size); };
    const double numbers[] = {result.loss, result.grad_scale, result.accuracy, result.mean_reciprocal_rank};
    add(numbers, sizeof numbers);
    add(&result.zero_rows, sizeof result.zero_rows);
    for (const Target* target : targets) add(target->elements.data(), target->size());
    if (result.excluded != 0) add(&result.excluded, sizeof result.excluded);
    if (result.grad_bias != 0) add(&result.grad_bias, sizeof result.grad_bias);
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

void compute(const LossArguments& a) {
    if (a.negatives && a.sampling && *a.sampling != NEGCOS_SAMPLING_GIVEN)
        throw Failure(std::string("--sampling ") + name_of(kSamplings, *a.sampling) +
                      " contradicts --negatives, which implies given");
    check_needs(a);

    Target losses{"--losses", a.losses}, hits{"--hit-probability", a.hit_probability}, logits{"--logits", a.logits};
    Target grad_queries{"--grad-queries", a.grad_queries}, grad_documents{"--grad-documents", a.grad_documents};
    Target grad_hard_negatives{"--grad-hard-negatives", a.grad_hard_negatives};
    Target drawn{"--save-negatives", a.save_negatives};
    std::vector<Target*> targets;
    for (Target* target : {&losses, &hits, &logits, &grad_queries, &grad_documents, &grad_hard_negatives, &drawn})
        if (target->path) targets.push_back(target);

    std::vector<std::string> inputs;
    for (const auto& [field, path] : inputs_of(a)) inputs.push_back(path);
    std::vector<Output> outputs;
    outputs.reserve(targets.size());
    for (const Target* target : targets) outputs.push_back(target->output());
    check_outputs(inputs, outputs);

    const Array queries = read_matrix(a.queries), documents = read_matrix(a.documents);
    std::optional<Array> negatives, hard_negatives;
    if (a.negatives) negatives = read_array(*a.negatives, {NpyType::i4});
    if (a.hard_negatives) hard_negatives = read_matrix(*a.hard_negatives);
    const NpyType type = queries.header.type;
    const auto check_type = [&](const std::string& path, const Array& array) {
        if (array.header.type != type)
            throw Failure(path + ": its elements are '" + npy_descr(array.header.type) + "', expected '" +
                          npy_descr(type) + "' as in " + a.queries);
    };
    check_type(a.documents, documents);
    if (hard_negatives) check_type(*a.hard_negatives, *hard_negatives);

    const int64_t rows = queries.header.rows, count = documents.header.rows, dim = queries.header.cols;
    Options options = a.options;
    settle_sampling(a, negatives ? &*negatives : nullptr, rows, options);
    options.prefix_count = static_cast<int32_t>(a.prefix_dims.size());
    if (!a.prefix_dims.empty()) options.prefix_dims = a.prefix_dims.data();
    if (!a.prefix_weights.empty()) options.prefix_weights = a.prefix_weights.data();

    Batch batch(view_of(queries), view_of(documents));
    if (negatives) batch.negatives = static_cast<const int32_t*>(negatives->data());
    if (hard_negatives) batch.hard_negatives = view_of(*hard_negatives);
    std::vector<Array> lists;
    const auto read_list = [&](const std::optional<std::string>& path, NpyType element,
                               bool of_queries) -> const void* {
        if (!path) return nullptr;
        lists.push_back(read_array(*path, {element}, NpyShape::list));
        const int64_t have = lists.back().header.rows, expected = of_queries ? rows : count;
        if (have != expected)
            throw Failure(*path + ": " + std::to_string(have) + " numbers, expected " + std::to_string(expected) +
                          ", as many as " + (of_queries ? "queries" : "documents"));
        return lists.back().data();
    };
    batch.positives = static_cast<const int64_t*>(read_list(a.positives, NpyType::i8, true));
    batch.document_ids = static_cast<const int64_t*>(read_list(a.document_ids, NpyType::i8, false));
    batch.query_ids = static_cast<const int64_t*>(read_list(a.query_ids, NpyType::i8, true));
    batch.log_probability = static_cast<const double*>(read_list(a.log_probability, NpyType::f8, false));
    batch.weights = static_cast<const double*>(read_list(a.weights, NpyType::f8, true));

    losses.shape(type, rows, 1);
    hits.shape(type, rows, 1);
    const int64_t hard_rows = batch.hard_negatives.rows;
    logits.shape(type, rows, 1 + int64_t{options.rounds} + (rows > 0 ? hard_rows / rows : 0));
    grad_queries.shape(type, rows, dim);
    grad_documents.shape(type, count, dim);
    grad_hard_negatives.shape(type, hard_rows, dim);
    drawn.shape(NpyType::i4, rows, options.rounds);
    Result result;
    result.losses = losses.matrix();
    result.hit_probability = hits.matrix();
    result.logits = logits.matrix();
    result.grad_queries = grad_queries.matrix();
    result.grad_documents = grad_documents.matrix();
    result.grad_hard_negatives = grad_hard_negatives.matrix();
    if (drawn.path) result.negatives = reinterpret_cast<int32_t*>(drawn.elements.data());

    ContextOptions context_options;
    context_options.threads = a.threads;
    context_options.isa = a.isa ? a.isa->c_str() : nullptr;
    context_options.threading =
        a.threading == NEGCOS_THREADING_DEFAULT ? back_ends(context_options).front() : a.threading;
    Context context(context_options);

    const auto start = std::chrono::steady_clock::now();
    context.evaluate(options, batch, result);
    const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;

    const int64_t rounds = options.sampling != NEGCOS_SAMPLING_ALL ? options.rounds : std::max(count - 1, int64_t{0});
    const char* const sampling = name_of(kSamplings, options.sampling);
    const char* const objective = name_of(kObjectives, options.objective);
    const char* const dtype = name_of(kDtypes, batch.queries.dtype);
    const char* const threading = name_of(kThreadings, context_options.threading);
    std::string text;
    if (a.json) {
        // Value by value: to give back a whole object, nlohmann_json takes memory, and ends the process where there is
        // none.
        const auto add = [&text](const char* key, const nlohmann::json& value) {
            text.append(text.empty() ? "{\"" : ",\"").append(key).append("\":").append(value.dump());
        };
        add("loss", result.loss);
        add("accuracy", result.accuracy);
        add("mean_reciprocal_rank", result.mean_reciprocal_rank);
        add("grad_scale", result.grad_scale);
        add("batch", rows);
        add("documents", count);
        add("dim", dim);
        add("rounds", rounds);
        add("dtype", dtype);
        add("isa", context.isa());
        add("threads", context.threads());
        add("threading", threading);
        add("zero_rows", result.zero_rows);
        add("excluded", result.excluded);
        add("milliseconds", elapsed.count());
        add("grad_bias", result.grad_bias);
        add("objective", objective);
        add("sampling", sampling);
        add("seed", options.seed);
        add("step", options.step);
        add("digest", digest_of(result, targets));
        text += "}\n";
    } else {
        std::vector<std::pair<std::string, std::string>> lines = {
            {"loss", decimal(result.loss)},
            {"accuracy", decimal(result.accuracy)},
            {"mean reciprocal rank", decimal(result.mean_reciprocal_rank)},
            {"d loss / d scale", decimal(result.grad_scale)}};
        if (options.objective == NEGCOS_OBJECTIVE_SIGMOID)
            lines.emplace_back("d loss / d bias", decimal(result.grad_bias));
        lines.insert(lines.end(), {{"batch", std::to_string(rows)},
                                   {"documents", std::to_string(count)},
                                   {"dim", std::to_string(dim)},
                                   {"rounds", std::to_string(rounds)},
                                   {"sampling", sampling},
                                   {"objective", objective},
                                   {"dtype", dtype},
                                   {"isa", context.isa()},
                                   {"threads", std::to_string(context.threads())},
                                   {"threading", threading},
                                   {"zero rows", std::to_string(result.zero_rows)},
                                   {"excluded", std::to_string(result.excluded)},
                                   {"milliseconds", decimal(elapsed.count())}});
        text = table(lines);
    }
    outputs.clear();
    for (const Target* target : targets) outputs.push_back(target->output());
    write_outputs(std::move(outputs), text);
}

}  // namespace

void run_loss(const LossArguments& arguments) {
    try {
        compute(arguments);
    } catch (const Error& error) {
        throw explain(error, arguments);
    }
}

}  // namespace negcos::cli
