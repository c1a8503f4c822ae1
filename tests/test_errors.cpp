// SPDX-License-Identifier: Apache-2.0
//
// Every way to call wrongly: the status, a sentence that names the argument, and not a byte of output written.
#include <algorithm>
#include <clocale>
#include <cstdio>
#include <cstdlib>

#include "errors.hpp"
#include "harness.hpp"
#include "pools.hpp"
#include "scratch.hpp"

namespace {

using namespace harness;

// A call that works, with every output asked for. `spoil` then breaks one thing.
struct Call {
    std::vector<float> queries = std::vector<float>(8 * 4, 1), documents = std::vector<float>(8 * 4, 0.5f);
    std::vector<float> losses = std::vector<float>(8, 7), hits = losses, logits = std::vector<float>(8 * 5, 7);
    std::vector<float> grad_queries = std::vector<float>(32, 7), grad_documents = grad_queries;
    std::vector<int32_t> negatives = std::vector<int32_t>(32, 7), given = std::vector<int32_t>(32, 1);
    negcos::Context context = errors::serial_context();
    negcos::Options options;
    negcos::Batch batch{negcos::view(std::span<const float>(queries), 8, 4),
                        negcos::view(std::span<const float>(documents), 8, 4)};
    negcos::Result result;

    Call() {
        result.losses = negcos::view(std::span<float>(losses), 8, 1);
        result.hit_probability = negcos::view(std::span<float>(hits), 8, 1);
        result.logits = negcos::view(std::span<float>(logits), 8, 5);
        result.grad_queries = negcos::view(std::span<float>(grad_queries), 8, 4);
        result.grad_documents = negcos::view(std::span<float>(grad_documents), 8, 4);
        result.negatives = negatives.data();
        result.loss = result.accuracy = -3;
    }
    int32_t evaluate() { return negcos_evaluate(context.get(), &options, &batch, &result); }
    bool untouched() const {
        return errors::all_seven(losses, hits, logits, grad_queries, grad_documents, negatives) && result.loss == -3 &&
               result.accuracy == -3;
    }
};

using Mistake = errors::Mistake<Call>;

void check(const std::vector<Mistake>& mistakes) {
    errors::check(mistakes);
}

template <class T>
T* misaligned(T* data) {
    return reinterpret_cast<T*>(reinterpret_cast<char*>(data) + 1);
}

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

std::string written(double value) {
    char text[40];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

// As a host whose language has a decimal comma. glibc takes a category from one file, so that no such locale need be
// installed: a number for the category and the format, how many fields, where each begins, and the fields.
class Comma {
public:
    Comma() {
        const uint32_t head[] = {0x20031114, 6, 32, 34, 35, 36, 40, 44};
        const char fields[] = ",\0\0\0,\0\0\0\0\0\0\0UTF-8";
        std::filesystem::create_directory(folder_ / "comma");
        scratch::write_file(
            folder_ / "comma/LC_NUMERIC",
            std::string(reinterpret_cast<const char*>(head), sizeof head) + std::string(fields, sizeof fields));
        setenv("LOCPATH", folder_.path.c_str(), 1);
        std::setlocale(LC_NUMERIC, "comma");
    }
    Comma(const Comma&) = delete;
    ~Comma() {
        std::setlocale(LC_NUMERIC, "C");
        unsetenv("LOCPATH");
    }

private:
    scratch::Folder folder_;
};

TEST_SUITE("unit") {
    TEST_CASE("errors: numbers in sentences are the same whatever the host's locale") {
        const Comma comma;
        if (written(1.5) != "1,5") {
            std::printf("SKIP: errors: a decimal comma: this C library takes no locale of ours\n");
            return;
        }
        const auto says = [](const char* sentence) { CHECK(std::string(negcos_last_error()) == sentence); };
        Call call;
        call.options.temperature = -1.5;
        CHECK(call.evaluate() == NEGCOS_STATUS_VALUE);
        says("options.temperature is -1.5, expected more than 0");
        negcos_frequency_options options;
        negcos_frequency_options_init(&options, sizeof options);
        options.initial_gap = 0.25;
        negcos_frequency* frequency = nullptr;
        CHECK(negcos_frequency_create(&options, &frequency) == NEGCOS_STATUS_VALUE);
        says("options.initial_gap is 0.25, expected 0 (the first gap), or 1 to 2^53");
        CHECK(written(1.5) == "1,5");  // and the host's locale is what it was
    }

    TEST_CASE("errors: the call without a mistake works") {
        Call call;
        CHECK(call.evaluate() == NEGCOS_STATUS_OK);
        CHECK(!call.untouched());
    }

    TEST_CASE("errors: NULL") {
        Call call;
        CHECK(negcos_evaluate(nullptr, &call.options, &call.batch, &call.result) == NEGCOS_STATUS_NULL_ARGUMENT);
        CHECK(negcos_evaluate(call.context.get(), &call.options, nullptr, &call.result) == NEGCOS_STATUS_NULL_ARGUMENT);
        CHECK(negcos_evaluate(call.context.get(), &call.options, &call.batch, nullptr) == NEGCOS_STATUS_NULL_ARGUMENT);
        CHECK(call.untouched());
        CHECK(negcos_evaluate(call.context.get(), nullptr, &call.batch, &call.result) == NEGCOS_STATUS_OK);
        CHECK(negcos_context_create(nullptr, nullptr) == NEGCOS_STATUS_NULL_ARGUMENT);
        CHECK(negcos_sample(nullptr, nullptr, 2, 2, call.negatives.data()) == NEGCOS_STATUS_NULL_ARGUMENT);
        CHECK(negcos_sample(call.context.get(), nullptr, 2, 2, nullptr) == NEGCOS_STATUS_NULL_ARGUMENT);
        negcos_context_destroy(nullptr);
        negcos_options_init(nullptr, 8);
        negcos_batch_init(nullptr, 8);
        negcos_result_init(nullptr, 8);
        negcos_context_options_init(nullptr, 8);
        CHECK(negcos_context_isa(nullptr) == nullptr);
        CHECK(negcos_context_threads(nullptr) == 0);
        CHECK(negcos_isa_available(nullptr) == 0);
        CHECK(negcos_isa_available("avx9000") == 0);
        CHECK(negcos_isa_name(-1) == nullptr);
        CHECK(negcos_isa_name(negcos_isa_count()) == nullptr);
        CHECK(std::string(negcos_status_string(12345)) == "unknown status");
        std::vector<std::string> names;
        for (const int32_t status :
             {NEGCOS_STATUS_OK, NEGCOS_STATUS_NULL_ARGUMENT, NEGCOS_STATUS_SHAPE, NEGCOS_STATUS_DTYPE,
              NEGCOS_STATUS_VALUE, NEGCOS_STATUS_OVERLAP, NEGCOS_STATUS_STRUCT_SIZE, NEGCOS_STATUS_OUT_OF_MEMORY,
              NEGCOS_STATUS_WORKSPACE_LIMIT, NEGCOS_STATUS_THREADS, NEGCOS_STATUS_UNSUPPORTED_ISA,
              NEGCOS_STATUS_UNSUPPORTED, NEGCOS_STATUS_IO, NEGCOS_STATUS_INTERNAL}) {
            const std::string name = negcos_status_string(status);
            CHECK(name != "unknown status");
            CHECK(std::find(names.begin(), names.end(), name) == names.end());
            names.push_back(name);
        }
        check({
            {NEGCOS_STATUS_NULL_ARGUMENT, "queries", [](Call& c) { c.batch.queries.data = nullptr; }},
            {NEGCOS_STATUS_NULL_ARGUMENT, "documents", [](Call& c) { c.batch.documents.data = nullptr; }},
            {NEGCOS_STATUS_NULL_ARGUMENT, "negatives", [](Call& c) { c.options.sampling = NEGCOS_SAMPLING_GIVEN; }},
        });
    }

    TEST_CASE("errors: struct sizes") {
        check({
            {NEGCOS_STATUS_STRUCT_SIZE, "negcos_options", [](Call& c) { c.options.struct_size = 0; }},
            {NEGCOS_STATUS_STRUCT_SIZE, "negcos_options",
             [](Call& c) { c.options.struct_size = sizeof c.options - 1; }},
            {NEGCOS_STATUS_STRUCT_SIZE, "negcos_options", [](Call& c) { c.options.struct_size = 104; }},
            {NEGCOS_STATUS_STRUCT_SIZE, "negcos_options", [](Call& c) { c.options.struct_size = 0xFFFFFFFF; }},
            {NEGCOS_STATUS_STRUCT_SIZE, "negcos_batch", [](Call& c) { c.batch.struct_size = 8; }},
            {NEGCOS_STATUS_STRUCT_SIZE, "negcos_result", [](Call& c) { c.result.struct_size = 16; }},
        });
        // Whatever size each struct says, with a tail that is zero or not: known, refused, or from the future and zero
        // where this library knows nothing.
        const auto each = [](auto init, size_t known, size_t first, auto&& use) {
            std::vector<unsigned char> bytes(70000);
            for (const size_t size : {size_t{0}, size_t{3}, size_t{4}, size_t{7}, size_t{8}, first - 8, first - 1,
                                      first, first + 1, known - 1, known, known + 1, known + 8, known + 16,
                                      size_t{65528}, size_t{65536}, size_t{65537}, size_t{65544}, size_t{70000}})
                for (const size_t tail : {size_t{0}, known, size - 1}) {
                    INFO("size " << size << " of " << known << ", byte " << tail << " set");
                    std::fill(bytes.begin(), bytes.end(), 0xAB);
                    init(bytes.data(), size);  // writes no further than it was told
                    CHECK(std::all_of(bytes.begin() + (size < 4 ? 0 : static_cast<ptrdiff_t>(size)), bytes.end(),
                                      [](unsigned char byte) { return byte == 0xAB; }));
                    const uint32_t said = static_cast<uint32_t>(size);
                    std::memcpy(bytes.data(), &said, 4);
                    const bool set = size > known && tail >= known && tail < size;
                    if (set) bytes[tail] = 1;
                    const bool valid = size >= first && size <= 65536 && size % 8 == 0 && !set;
                    CHECK(use(bytes.data()) == (valid ? NEGCOS_STATUS_OK : NEGCOS_STATUS_STRUCT_SIZE));
                }
        };
        const auto as = [](auto init, auto pointer) {
            return [=](unsigned char* bytes, size_t size) { init(reinterpret_cast<decltype(pointer)>(bytes), size); };
        };
        Call call;
        each(as(negcos_options_init, &call.options), sizeof(negcos_options), 112, [&](const unsigned char* bytes) {
            return negcos_evaluate(call.context.get(), reinterpret_cast<const negcos_options*>(bytes), &call.batch,
                                   &call.result);
        });
        each(as(negcos_batch_init, static_cast<negcos_batch*>(nullptr)), sizeof(negcos_batch), 176,
             [&](unsigned char* bytes) {
                 std::memcpy(bytes + 8, reinterpret_cast<const unsigned char*>(&call.batch) + 8, 80);  // the matrices
                 return negcos_evaluate(call.context.get(), &call.options, reinterpret_cast<const negcos_batch*>(bytes),
                                        &call.result);
             });
        each(as(negcos_result_init, static_cast<negcos_result*>(nullptr)), sizeof(negcos_result), 312,
             [&](unsigned char* bytes) {
                 return negcos_evaluate(call.context.get(), &call.options, &call.batch,
                                        reinterpret_cast<negcos_result*>(bytes));
             });
        each(as(negcos_context_options_init, static_cast<negcos_context_options*>(nullptr)),
             sizeof(negcos_context_options), 48, [](const unsigned char* bytes) {
                 negcos_context* context = nullptr;
                 const int32_t status =
                     negcos_context_create(reinterpret_cast<const negcos_context_options*>(bytes), &context);
                 negcos_context_destroy(context);
                 return status;
             });
        each(as(negcos_frequency_options_init, static_cast<negcos_frequency_options*>(nullptr)),
             sizeof(negcos_frequency_options), 48, [](const unsigned char* bytes) {
                 negcos_frequency* frequency = nullptr;
                 const int32_t status =
                     negcos_frequency_create(reinterpret_cast<const negcos_frequency_options*>(bytes), &frequency);
                 negcos_frequency_destroy(frequency);
                 return status;
             });
    }

    TEST_CASE("errors: options") {
        const auto option = [](auto member, auto value) { return [=](Call& c) { c.options.*member = value; }; };
        using O = negcos_options;
        std::vector<Mistake> mistakes;
        for (const int32_t value : {-1, 99}) {
            mistakes.push_back({NEGCOS_STATUS_VALUE, "objective", option(&O::objective, value)});
            mistakes.push_back({NEGCOS_STATUS_VALUE, "similarity", option(&O::similarity, value)});
            mistakes.push_back({NEGCOS_STATUS_VALUE, "sampling", option(&O::sampling, value)});
            mistakes.push_back({NEGCOS_STATUS_VALUE, "reduction", option(&O::reduction, value)});
            mistakes.push_back({NEGCOS_STATUS_VALUE, "direction", option(&O::direction, value)});
            mistakes.push_back({NEGCOS_STATUS_VALUE, "exclude", option(&O::exclude, value)});
        }
        for (const double value : {kNaN, kInf, -kInf}) {
            mistakes.push_back({NEGCOS_STATUS_VALUE, "scale", option(&O::scale, value)});
            mistakes.push_back({NEGCOS_STATUS_VALUE, "temperature", option(&O::temperature, value)});
            mistakes.push_back({NEGCOS_STATUS_VALUE, "norm_floor", option(&O::norm_floor, value)});
        }
        for (const double value : {kNaN, -kInf}) {
            mistakes.push_back({NEGCOS_STATUS_VALUE, "bias", option(&O::bias, value)});
            mistakes.push_back({NEGCOS_STATUS_VALUE, "margin", option(&O::margin, value)});
            mistakes.push_back({NEGCOS_STATUS_VALUE, "label_smoothing", option(&O::label_smoothing, value)});
            mistakes.push_back({NEGCOS_STATUS_VALUE, "hardness", option(&O::hardness, value)});
            mistakes.push_back(
                {NEGCOS_STATUS_VALUE, "false_negative_margin", option(&O::false_negative_margin, value)});
        }
        mistakes.push_back({NEGCOS_STATUS_VALUE, "rounds", option(&O::rounds, -1)});
        mistakes.push_back({NEGCOS_STATUS_VALUE, "temperature", option(&O::temperature, 0.0)});
        mistakes.push_back({NEGCOS_STATUS_VALUE, "temperature", option(&O::temperature, -1.0)});
        mistakes.push_back({NEGCOS_STATUS_VALUE, "norm_floor", option(&O::norm_floor, -1e-3)});
        mistakes.push_back({NEGCOS_STATUS_VALUE, "scale", option(&O::scale, 1e300)});  // not a finite f32
        mistakes.push_back({NEGCOS_STATUS_VALUE, "options.scale is 1e+300, expected", [](Call& c) {
                                c.options.objective = NEGCOS_OBJECTIVE_BATCH_SOFTMAX;
                                c.options.scale = 1e300;
                                c.options.temperature = 1e300;  // has no effect there
                            }});
        check(mistakes);
    }

    TEST_CASE("errors: shapes, dtypes, alignment") {
        const int64_t huge = int64_t{1} << 62;
        check({
            {NEGCOS_STATUS_SHAPE, "queries", [](Call& c) { c.batch.queries.rows = -1; }},
            {NEGCOS_STATUS_SHAPE, "queries", [](Call& c) { c.batch.queries.cols = -1; }},
            {NEGCOS_STATUS_SHAPE, "row_stride", [](Call& c) { c.batch.queries.row_stride = 3; }},
            {NEGCOS_STATUS_SHAPE, "row_stride", [](Call& c) { c.batch.documents.row_stride = -4; }},
            {NEGCOS_STATUS_SHAPE, "columns", [](Call& c) { c.batch.documents.cols = 3; }},
            {NEGCOS_STATUS_SHAPE, "rows", [](Call& c) { c.batch.documents.rows = 7; }},
            {NEGCOS_STATUS_SHAPE, "address space", [=](Call& c) { c.batch.documents.row_stride = huge; }},
            {NEGCOS_STATUS_SHAPE, "address space", [=](Call& c) { c.batch.documents.rows = huge; }},
            {NEGCOS_STATUS_SHAPE, "losses", [](Call& c) { c.result.losses.rows = 7; }},
            {NEGCOS_STATUS_SHAPE, "hit_probability", [](Call& c) { c.result.hit_probability.cols = 0; }},
            {NEGCOS_STATUS_SHAPE, "logits", [](Call& c) { c.options.rounds = 3; }},
            {NEGCOS_STATUS_SHAPE, "grad_queries", [](Call& c) { c.result.grad_queries.rows = 9; }},
            {NEGCOS_STATUS_SHAPE, "grad_documents", [](Call& c) { c.result.grad_documents.row_stride = 1; }},
            {NEGCOS_STATUS_SHAPE, "DERANGEMENT",
             [](Call& c) {
                 c.options.sampling = NEGCOS_SAMPLING_DERANGEMENT;
                 c.batch.queries.rows = 1;
             }},
            {NEGCOS_STATUS_SHAPE, "CYCLIC needs at least 2 queries, got 1",
             [](Call& c) {
                 c.options.sampling = NEGCOS_SAMPLING_CYCLIC;
                 c.batch.queries.rows = 1;
             }},
            {NEGCOS_STATUS_SHAPE, "UNIFORM needs at least 2 documents, got 1",
             [](Call& c) {
                 c.options.sampling = NEGCOS_SAMPLING_UNIFORM;
                 c.batch.queries.rows = c.batch.documents.rows = 1;
             }},
            {NEGCOS_STATUS_SHAPE, "LOG_UNIFORM needs at least 2 documents, got 1",
             [](Call& c) {
                 c.options.sampling = NEGCOS_SAMPLING_LOG_UNIFORM;
                 c.batch.queries.rows = c.batch.documents.rows = 1;
             }},
            {NEGCOS_STATUS_SHAPE, "options.sampling GROUPS needs more queries than options.rounds, got 4 and 4",
             [](Call& c) {
                 c.options.sampling = NEGCOS_SAMPLING_GROUPS;
                 c.options.rounds = 4;
                 c.batch.queries.rows = 4;
             }},
            {NEGCOS_STATUS_DTYPE, "queries", [](Call& c) { c.batch.queries.dtype = 9; }},
            {NEGCOS_STATUS_DTYPE, "documents", [](Call& c) { c.batch.documents.dtype = -1; }},
            {NEGCOS_STATUS_DTYPE, "documents", [](Call& c) { c.batch.documents.dtype = NEGCOS_DTYPE_F64; }},
            {NEGCOS_STATUS_DTYPE, "losses",
             [](Call& c) { c.batch.queries.dtype = c.batch.documents.dtype = NEGCOS_DTYPE_F16; }},
            {NEGCOS_STATUS_DTYPE, "documents.dtype is 3, expected the queries' 2",
             [](Call& c) { c.batch.queries.dtype = NEGCOS_DTYPE_F16, c.batch.documents.dtype = NEGCOS_DTYPE_BF16; }},
            {NEGCOS_STATUS_DTYPE, "grad_queries", [](Call& c) { c.result.grad_queries.dtype = NEGCOS_DTYPE_F64; }},
            {NEGCOS_STATUS_DTYPE, "losses", [](Call& c) { c.result.losses.dtype = 77; }},
            {NEGCOS_STATUS_VALUE, "reserved", [](Call& c) { c.batch.reserved = 1; }},
            {NEGCOS_STATUS_VALUE, "reserved", [](Call& c) { c.result.reserved = 1; }},
            {NEGCOS_STATUS_VALUE, "reserved", [](Call& c) { c.batch.queries.reserved = 1; }},
            {NEGCOS_STATUS_VALUE, "aligned",
             [](Call& c) {
                 c.batch.queries.data = reinterpret_cast<const char*>(c.queries.data()) + 1;
                 c.batch.queries.rows = 7;
             }},
            {NEGCOS_STATUS_VALUE, "batch.negatives is not aligned to its elements of 4 bytes",
             [](Call& c) {
                 c.options.sampling = NEGCOS_SAMPLING_GIVEN;
                 c.batch.negatives = misaligned(c.given.data());
             }},
            {NEGCOS_STATUS_VALUE, "result.negatives is not aligned to its elements of 4 bytes",
             [](Call& c) { c.result.negatives = misaligned(c.negatives.data()); }},
            {NEGCOS_STATUS_VALUE, "logits", [](Call& c) { c.options.sampling = NEGCOS_SAMPLING_ALL; }},
            {NEGCOS_STATUS_VALUE, "negatives",
             [](Call& c) {
                 c.options.sampling = NEGCOS_SAMPLING_ALL;
                 c.result.logits.data = nullptr;
             }},
            {NEGCOS_STATUS_VALUE, "negatives[2, 1] is 8",
             [](Call& c) {
                 c.options.sampling = NEGCOS_SAMPLING_GIVEN;
                 c.given[9] = 8;
                 c.batch.negatives = c.given.data();
             }},
            {NEGCOS_STATUS_VALUE, "negatives[0, 0] is -2",
             [](Call& c) {
                 c.options.sampling = NEGCOS_SAMPLING_GIVEN;
                 c.given[0] = -2;
                 c.batch.negatives = c.given.data();
             }},
        });
    }

    TEST_CASE("errors: overlaps") {
        check({
            {NEGCOS_STATUS_OVERLAP, "grad_queries overlaps batch.queries",
             [](Call& c) { c.result.grad_queries.data = c.queries.data(); }},
            {NEGCOS_STATUS_OVERLAP, "grad_documents overlaps batch.documents",
             [](Call& c) { c.result.grad_documents.data = c.documents.data(); }},
            {NEGCOS_STATUS_OVERLAP, "overlaps", [](Call& c) { c.result.grad_documents.data = c.grad_queries.data(); }},
            {NEGCOS_STATUS_OVERLAP, "overlaps", [](Call& c) { c.result.losses.data = c.logits.data() + 39 - 7; }},
            {NEGCOS_STATUS_OVERLAP, "negatives",
             [](Call& c) {
                 c.options.sampling = NEGCOS_SAMPLING_GIVEN;
                 c.batch.negatives = c.given.data();
                 c.result.negatives = c.given.data() + 31;
             }},
            {NEGCOS_STATUS_OVERLAP, "result.losses overlaps result",
             [](Call& c) { c.result.losses.data = &c.result.loss; }},
            {NEGCOS_STATUS_OVERLAP, "result.losses overlaps batch", [](Call& c) { c.result.losses.data = &c.batch; }},
            {NEGCOS_STATUS_OVERLAP, "result.negatives overlaps options",
             [](Call& c) { c.result.negatives = reinterpret_cast<int32_t*>(&c.options) + 33; }},
        });
        // Inputs may overlap, and outputs that are columns of one matrix do not touch.
        Call call;
        call.batch.documents = call.batch.queries;
        std::vector<float> both(8 * 8, 7);
        call.result.grad_queries = {both.data(), 8, 4, 8, NEGCOS_DTYPE_F32, 0};
        call.result.grad_documents = {both.data() + 4, 8, 4, 8, NEGCOS_DTYPE_F32, 0};
        CHECK(call.evaluate() == NEGCOS_STATUS_OK);
        call.result.grad_documents.data = both.data() + 3;
        CHECK(call.evaluate() == NEGCOS_STATUS_OVERLAP);

        // A result among the elements that are read.
        Call inside;
        std::vector<double> numbers(8 * 8);
        auto* const result = reinterpret_cast<negcos_result*>(numbers.data());
        negcos_result_init(result, sizeof *result);
        inside.batch.queries = {numbers.data(), 8, 4, 16, NEGCOS_DTYPE_F32, 0};
        CHECK(negcos_evaluate(inside.context.get(), &inside.options, &inside.batch, result) == NEGCOS_STATUS_OVERLAP);
        CHECK(std::string(negcos_last_error()) == "result overlaps batch.queries");

        // In the gaps between rows there is room.
        std::vector<double> wide(8 * 64);
        inside.batch.queries = {wide.data(), 8, 4, 128, NEGCOS_DTYPE_F32, 0};
        auto* const between = reinterpret_cast<negcos_result*>(wide.data() + 64 + 2);
        negcos_result_init(between, sizeof *between);
        CHECK(negcos_evaluate(inside.context.get(), &inside.options, &inside.batch, between) == NEGCOS_STATUS_OK);
        auto* const into = reinterpret_cast<negcos_result*>(wide.data() + 2 * 64 - 38);
        negcos_result_init(into, sizeof *into);
        CHECK(negcos_evaluate(inside.context.get(), &inside.options, &inside.batch, into) == NEGCOS_STATUS_OVERLAP);
        auto* const before = reinterpret_cast<negcos_result*>(wide.data());
        negcos_result_init(before, sizeof *before);
        inside.batch.queries.data = wide.data() + 10;
        inside.batch.queries.rows = inside.batch.documents.rows = 7;
        CHECK(negcos_evaluate(inside.context.get(), &inside.options, &inside.batch, before) == NEGCOS_STATUS_OVERLAP);

        auto* const over = reinterpret_cast<int32_t*>(&call.options);
        CHECK(negcos_sample(call.context.get(), &call.options, 8, 8, over) == NEGCOS_STATUS_OVERLAP);
        CHECK(negcos_sample(call.context.get(), nullptr, 8, 8, misaligned(call.negatives.data())) ==
              NEGCOS_STATUS_VALUE);
        CHECK(std::string(negcos_last_error()) == "negatives is not aligned to its elements of 4 bytes");
    }

    TEST_CASE("errors: contexts, limits and the environment") {
        const auto create = [](auto&& change) {
            negcos::ContextOptions options;
            change(options);
            negcos_context* context = nullptr;
            const int32_t status = negcos_context_create(&options, &context);
            CHECK((context != nullptr) == (status == NEGCOS_STATUS_OK));
            negcos_context_destroy(context);
            return status;
        };
        using C = negcos::ContextOptions;
        CHECK(create([](C&) {}) == NEGCOS_STATUS_OK);
        negcos_context* normal = nullptr;
        CHECK(negcos_context_create(nullptr, &normal) == NEGCOS_STATUS_OK);
        CHECK(negcos_context_threads(normal) >= 1);
        negcos_context_destroy(normal);
        CHECK(create([](C& c) { c.isa = "avx9000"; }) == NEGCOS_STATUS_UNSUPPORTED_ISA);
        CHECK(std::string(negcos_last_error()).find("avx9000") != std::string::npos);
        CHECK(create([](C& c) { c.isa = ""; }) == NEGCOS_STATUS_UNSUPPORTED_ISA);
        CHECK(create([](C& c) { c.threads = -1; }) == NEGCOS_STATUS_VALUE);
        CHECK(create([](C& c) { c.threads = 1 << 20; }) == NEGCOS_STATUS_VALUE);
        CHECK(create([](C& c) { c.threading = 5; }) == NEGCOS_STATUS_VALUE);
        CHECK(create([](C& c) { c.threading = -1; }) == NEGCOS_STATUS_VALUE);
        for (const int32_t threading : {NEGCOS_THREADING_TBB, NEGCOS_THREADING_OPENMP}) {
            const int32_t status = create([&](C& c) { c.threading = threading; });
            if (status == NEGCOS_STATUS_OK) continue;
            CHECK(status == NEGCOS_STATUS_UNSUPPORTED);
            CHECK(std::string(negcos_last_error()).find(threading == NEGCOS_THREADING_TBB ? "TBB" : "OPENMP") !=
                  std::string::npos);
        }
        CHECK(create([](C& c) { c.threading = NEGCOS_THREADING_CALLBACK; }) == NEGCOS_STATUS_NULL_ARGUMENT);
        CHECK(create([](C& c) { c.reserved = 1; }) == NEGCOS_STATUS_VALUE);
        CHECK(create([](C& c) { c.struct_size = 4; }) == NEGCOS_STATUS_STRUCT_SIZE);

        for (int32_t k = 0; k < negcos_isa_count(); ++k) {  // a cap, not a demand
            setenv("NEGCOS_ISA", negcos_isa_name(k), 1);
            negcos::Context context;
            int32_t got = 0;
            while (std::string(negcos_isa_name(got)) != context.isa()) ++got;
            CHECK(got >= k);
            CHECK((negcos_isa_available(negcos_isa_name(k)) == 0 || got == k));
            negcos::ContextOptions scalar;
            scalar.isa = "scalar";
            CHECK(std::string(negcos::Context(scalar).isa()) == "scalar");
        }
        setenv("NEGCOS_ISA", "fastest", 1);
        CHECK(create([](C&) {}) == NEGCOS_STATUS_UNSUPPORTED_ISA);
        CHECK(std::string(negcos_last_error()).find("NEGCOS_ISA") != std::string::npos);
        unsetenv("NEGCOS_ISA");

        setenv("NEGCOS_THREADS", "1", 1);
        CHECK(negcos::Context().threads() == 1);
        setenv("NEGCOS_THREADS", "1000000", 1);
        CHECK(negcos::Context().threads() >= 1);
        setenv("NEGCOS_THREADS", "1", 1);
        negcos::ContextOptions three;
        three.threads = 3;
        three.threading = back_ends("errors: threads").empty() ? NEGCOS_THREADING_SERIAL : NEGCOS_THREADING_DEFAULT;
        CHECK(negcos::Context(three).threads() == (three.threading == NEGCOS_THREADING_SERIAL ? 1 : 3));
        for (const char* bad : {"", "0", "-2", "+1", " 1", "two", "3x", "99999999999999999999"}) {
            setenv("NEGCOS_THREADS", bad, 1);
            CHECK(create([](C&) {}) == NEGCOS_STATUS_VALUE);
            CHECK(std::string(negcos_last_error()).find("NEGCOS_THREADS") != std::string::npos);
        }
        unsetenv("NEGCOS_THREADS");

        Call call;
        negcos::ContextOptions limited;
        limited.workspace_limit = 100;
        call.context = negcos::Context(limited);
        CHECK(call.evaluate() == NEGCOS_STATUS_WORKSPACE_LIMIT);
        CHECK(call.untouched());
        CHECK(std::string(negcos_last_error()).find("workspace_limit is 100") != std::string::npos);
    }

    TEST_CASE("errors: negcos_sample") {
        Call call;
        negcos::Options options;
        const auto sample = [&](int64_t batch, int64_t documents) {
            return negcos_sample(call.context.get(), &options, batch, documents, call.negatives.data());
        };
        options.struct_size = 4;
        CHECK(sample(4, 4) == NEGCOS_STATUS_STRUCT_SIZE);
        options.struct_size = sizeof(negcos_options);
        CHECK(sample(-1, 5) == NEGCOS_STATUS_SHAPE);
        CHECK(sample(5, 4) == NEGCOS_STATUS_SHAPE);
        CHECK(sample(1, int64_t{1} << 31) == NEGCOS_STATUS_SHAPE);
        for (const int32_t sampling : {NEGCOS_SAMPLING_GIVEN, NEGCOS_SAMPLING_ALL}) {
            options.sampling = sampling;
            CHECK(sample(4, 4) == NEGCOS_STATUS_VALUE);
        }
        for (const int32_t sampling : {NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_CYCLIC}) {
            options.sampling = sampling;
            CHECK(sample(1, 4) == NEGCOS_STATUS_SHAPE);
        }
        for (const int32_t sampling : {NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_LOG_UNIFORM}) {
            options.sampling = sampling;
            CHECK(sample(1, 1) == NEGCOS_STATUS_SHAPE);
        }
        options.sampling = NEGCOS_SAMPLING_GROUPS;
        CHECK(sample(4, 9) == NEGCOS_STATUS_SHAPE);
        CHECK(sample(1, 9) == NEGCOS_STATUS_SHAPE);
        CHECK(call.untouched());
        for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_CYCLIC,
                                       NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_LOG_UNIFORM, NEGCOS_SAMPLING_GROUPS}) {
            options.sampling = sampling;
            CHECK(sample(0, 0) == NEGCOS_STATUS_OK);
            CHECK(sample(0, 5) == NEGCOS_STATUS_OK);
            CHECK(call.untouched());
            options.rounds = 0;
            CHECK(sample(1, 1) == NEGCOS_STATUS_OK);  // nothing to draw
            options.rounds = 4;
        }
        CHECK(sample(8, 8) == NEGCOS_STATUS_OK);
    }
}

}  // namespace
