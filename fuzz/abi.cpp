// SPDX-License-Identifier: Apache-2.0
//
// libFuzzer over the C ABI: structs of any size with any fields, arrays of any numbers, in memory of exactly the size
// that is promised, and files of estimators whose checksum is right. Each instruction set answers as scalar does, bit
// for bit; what fails writes nothing. In half the runs calls that ask for memory are made first with one of their
// requests failing (the linker puts __wrap_X before X), which they have to say, and then again.
#include <fuzzer/FuzzedDataProvider.h>
#include <negcos/negcos.h>

#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr uint64_t kNever = UINT64_MAX;
uint64_t requests = 0, failing = kNever;  // the number of requests for memory so far, and of the one that fails

bool request_fails() {
    return requests++ == failing;
}

}  // namespace

// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names
extern "C" {
void* __real_aligned_alloc(size_t alignment, size_t size);
void* __wrap_aligned_alloc(size_t alignment, size_t size) {
    return request_fails() ? nullptr : __real_aligned_alloc(alignment, size);
}
void* __real__Znwm(size_t size);  // operator new
void* __wrap__Znwm(size_t size) {
    if (request_fails()) throw std::bad_alloc();
    return __real__Znwm(size);
}
}
// NOLINTEND(bugprone-reserved-identifier)

namespace {

[[noreturn]] void broken(const char* what) {
    std::fprintf(stderr, "fuzz: %s; the last error: %s\n", what, negcos_last_error());
    std::abort();
}

using Input = FuzzedDataProvider;

// Which request of a call fails, modulo their number.
std::optional<uint64_t> starving(Input& input) {
    if (!input.ConsumeBool()) return std::nullopt;
    return input.ConsumeIntegral<uint8_t>();
}

template <class Call>
uint64_t requests_of(Call&& call) {
    requests = 0;
    call();
    return requests;
}

// A call with one of its requests failing, if it makes any.
template <class Call>
bool starve(uint64_t which, uint64_t of, Call&& call) {
    if (of == 0) return false;
    requests = 0, failing = which % of;
    const int32_t status = call();
    failing = kNever;
    if (status != NEGCOS_STATUS_OUT_OF_MEMORY) broken("memory that failed and was not missed");
    if (!*negcos_last_error()) broken("no sentence");
    return true;
}

struct Destroy {
    void operator()(negcos_context* context) const { negcos_context_destroy(context); }
    void operator()(negcos_frequency* frequency) const { negcos_frequency_destroy(frequency); }
};
template <class Object>
using Owner = std::unique_ptr<Object, Destroy>;

// What `create` makes, or nothing; first, in half the runs, with a request that fails.
template <class Object, class Create>
Owner<Object> created(Input& input, Create&& create) {
    Object* object = nullptr;
    const auto call = [&] {
        const int32_t said = create(&object);
        if ((said == NEGCOS_STATUS_OK) != (object != nullptr)) broken("an object of a failure, or none");
        return said;
    };
    if (const std::optional<uint64_t> which = starving(input)) {
        const uint64_t count = requests_of(call);
        Destroy()(std::exchange(object, nullptr));
        starve(*which, count, call);
    }
    call();
    return Owner<Object>{object};
}

// Numbers from the input; when it ends, ones of a small generator, so that short inputs fill large arrays.
class Source {
public:
    explicit Source(Input& input) : state_(input.ConsumeIntegral<uint64_t>()) {}
    uint64_t next() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return state_ >> 24;
    }
    double number() {
        constexpr double kOdd[] = {0,    -0.0,  1,    -1,    1e30,   -1e-30, 1e300,    5e-324,    1e-310, 65504,
                                   3e38, 1e-45, 0.25, 1e154, 1e-154, 1e19,   HUGE_VAL, -HUGE_VAL, NAN};
        const uint64_t drawn = next();
        if (drawn % 64 < std::size(kOdd) && odd_) return kOdd[drawn % 64];
        return static_cast<double>(static_cast<int64_t>(drawn % 4001) - 2000) / 512;
    }
    void be_odd(bool odd) { odd_ = odd; }

private:
    uint64_t state_;
    bool odd_ = false;
};

size_t size_of(int32_t dtype) {
    return dtype == NEGCOS_DTYPE_F64 ? 8 : dtype == NEGCOS_DTYPE_F32 ? 4 : 2;
}

void fill(unsigned char* at, int32_t dtype, Source& source) {
    const double value = source.number();
    const float single = static_cast<float>(value);
    uint32_t bits;
    std::memcpy(&bits, &single, 4);
    const uint16_t half = static_cast<uint16_t>(dtype == NEGCOS_DTYPE_BF16 ? bits >> 16 : source.next());
    if (dtype == NEGCOS_DTYPE_F64)
        std::memcpy(at, &value, 8);
    else if (dtype == NEGCOS_DTYPE_F32)
        std::memcpy(at, &single, 4);
    else
        std::memcpy(at, &half, 2);
}

// Arrays of exactly their size, so that the address sanitizer sees every byte beside them.
struct Block {
    std::unique_ptr<unsigned char[]> bytes;
    size_t size = 0;
    explicit Block(size_t n = 0) : bytes(new unsigned char[n]), size(n) { std::memset(bytes.get(), 0xAB, n); }
    Block copy() const {
        Block other(size);
        std::memcpy(other.bytes.get(), bytes.get(), size);
        return other;
    }
};

int64_t hostile(Input& input, int64_t value) {
    constexpr int64_t kHostile[] = {-1, INT64_MIN, INT64_MAX, INT64_MAX / 2, INT64_MIN / 2 + 1};
    return input.ConsumeIntegralInRange(0, 63) == 0 ? input.PickValueInArray(kHostile) : value;
}

// How far an array is from where its elements may lie.
size_t misaligned(Input& input, size_t element) {
    return input.ConsumeIntegralInRange(0, 63) == 0 ? input.ConsumeIntegralInRange<size_t>(1, element - 1) : 0;
}

struct Shape {
    int64_t rows, cols, stride;
};

// A matrix that is what it says or must be refused: what is hostile about it cannot be a size that memory could have.
negcos_const_matrix matrix(Input& input, Shape shape, int32_t dtype, const unsigned char* data) {
    negcos_const_matrix m{
        data, hostile(input, shape.rows), hostile(input, shape.cols), hostile(input, shape.stride), dtype, 0};
    const int what = input.ConsumeIntegralInRange(0, 127);
    if (what == 0) m.data = nullptr;
    if (what == 1) m.dtype = input.ConsumeIntegral<int32_t>();
    if (what == 2) m.reserved = 1;
    if (what == 3 && data) m.data = data + 1;  // not aligned
    return m;
}

// A struct as a caller of some other version has it: of another size, with a tail.
template <class Struct>
Block resized(Input& input, const Struct& value) {
    uint32_t size = sizeof(Struct);
    uint32_t said = size;
    if (input.ConsumeIntegralInRange(0, 31) == 0) {
        constexpr int kDeltas[] = {-8, -16, -24, -1, 1, 7, 8, 64, -40};
        size = static_cast<uint32_t>(static_cast<int>(size) + input.PickValueInArray(kDeltas));
        said = size;
        constexpr uint32_t kSaid[] = {0, 4, 8, 65536};
        if (input.ConsumeBool()) said = std::min(size, input.PickValueInArray(kSaid));
    }
    Block block(size);
    std::memset(block.bytes.get(), input.ConsumeIntegralInRange(0, 3) == 0 ? 1 : 0, size);
    std::memcpy(block.bytes.get(), &value, std::min<size_t>(size, sizeof value));
    if (size >= 4) std::memcpy(block.bytes.get(), &said, 4);
    return block;
}

int32_t enumerator(Input& input, int32_t most) {
    return input.ConsumeIntegralInRange(0, 63) == 0 ? input.ConsumeIntegral<int32_t>()
                                                    : input.ConsumeIntegralInRange(0, most);
}

int32_t sampling(Input& input) {
    const int32_t value = enumerator(input, NEGCOS_SAMPLING_ALL + 1);
    return value == NEGCOS_SAMPLING_ALL + 1 ? NEGCOS_SAMPLING_GROUPS : value;
}

double option(Input& input, double usual) {
    constexpr double kValues[] = {0,     1,     -1,     0.1,    0.5, 20,       1e-3,      1e6,  1e18,
                                  1e200, 1e300, -1e300, 5e-324, NAN, HUGE_VAL, -HUGE_VAL, -0.0, 2};
    return input.ConsumeIntegralInRange(0, 3) != 0 ? usual : input.PickValueInArray(kValues);
}

// A pool that fails at some call.
struct Pool {
    int64_t calls = 0, fail_at = -1;
    static int32_t run(void* data, int64_t count, void (*body)(void*, int64_t), void* task) {
        Pool& pool = *static_cast<Pool*>(data);
        if (pool.calls++ == pool.fail_at) return 1;
        for (int64_t k = count; k-- > 0;) body(task, k);
        return 0;
    }
};

// One for each instruction set.
struct Contexts {
    std::vector<const char*> isas;
    std::vector<Owner<negcos_context>> all;
    Contexts() {
        for (int32_t k = 0; k < negcos_isa_count(); ++k)
            if (negcos_isa_available(negcos_isa_name(k))) isas.push_back(negcos_isa_name(k));
        for (size_t k = 0; k < isas.size(); ++k) all.push_back(another(k));
    }
    // Which has no memory yet.
    Owner<negcos_context> another(size_t isa) const {
        negcos_context_options options;
        negcos_context_options_init(&options, sizeof options);
        options.isa = isas[isa];
        options.threading = NEGCOS_THREADING_SERIAL;
        options.workspace_limit = 64 << 20;  // of billions of rounds
        negcos_context* context = nullptr;
        if (negcos_context_create(&options, &context)) broken("no context");
        return Owner<negcos_context>{context};
    }
};

void evaluate(Input& input) {
    static const Contexts contexts;
    const std::optional<uint64_t> starved = starving(input);
    uint64_t count = 0;
    Source source(input);
    const int64_t B = input.ConsumeIntegralInRange(0, 9), H = input.ConsumeIntegralInRange(0, 2);
    const int64_t M = input.ConsumeBool() ? B : input.ConsumeIntegralInRange(0, 9);
    const int64_t d = input.ConsumeIntegralInRange(0, 40);
    const int32_t dtype = input.ConsumeIntegralInRange(0, 3);
    source.be_odd(input.ConsumeBool());

    negcos_options options;
    negcos_options_init(&options, sizeof options);
    options.objective = enumerator(input, 3);
    options.similarity = enumerator(input, 1);
    options.sampling = sampling(input);
    const int32_t rounds = input.ConsumeIntegralInRange(0, 5);
    options.rounds =
        input.ConsumeIntegralInRange(0, 63) == 0 ? static_cast<int32_t>(0x80000000u >> (rounds & 1)) : rounds;
    options.reduction = enumerator(input, 1);
    options.direction = enumerator(input, 1);
    options.exclude = enumerator(input, 3);
    options.seed = input.ConsumeIntegral<uint64_t>();
    options.step = input.ConsumeIntegral<uint64_t>();
    options.scale = option(input, 20);
    options.temperature = option(input, 1);
    options.bias = option(input, 0);
    options.norm_floor = option(input, 1e-12);
    options.margin = option(input, 0);
    options.label_smoothing = option(input, 0);
    options.hardness = option(input, 0);
    options.false_negative_margin = option(input, HUGE_VAL);
    options.correction = enumerator(input, 1);
    std::vector<int32_t> dims;
    std::vector<double> dim_weights;
    if (input.ConsumeIntegralInRange(0, 3) == 0) {
        int32_t last = 0;
        for (int k = input.ConsumeIntegralInRange(1, 4); k > 0; --k) {
            last += input.ConsumeIntegralInRange(0, 12);
            dims.push_back(last);
            dim_weights.push_back(option(input, 1));
        }
        options.prefix_count = static_cast<int32_t>(dims.size());
        options.prefix_dims = dims.data();
        if (input.ConsumeBool()) options.prefix_weights = dim_weights.data();
    }

    const auto shape = [&](int64_t rows, int64_t cols) {
        return Shape{rows, cols, cols + input.ConsumeIntegralInRange(0, 3)};
    };
    const auto extent = [&](Shape s) {
        return s.rows == 0 ? 0 : static_cast<size_t>((s.rows - 1) * s.stride + s.cols) * size_of(dtype);
    };
    std::vector<Block> inputs;
    const auto given = [&](Shape s) {
        inputs.emplace_back(extent(s));
        for (size_t at = 0; at < inputs.back().size; at += size_of(dtype))
            fill(&inputs.back().bytes[at], dtype, source);
        return matrix(input, s, dtype, inputs.back().bytes.get());
    };
    negcos_batch batch;
    negcos_batch_init(&batch, sizeof batch);
    batch.queries = given(shape(B, d));
    batch.documents = given(shape(M, d));
    if (H > 0 && input.ConsumeBool()) batch.hard_negatives = given(shape(B * H, d));
    const auto numbers = [&](auto value, int64_t count, auto&& draw) -> decltype(value)* {
        if (input.ConsumeIntegralInRange(0, 3) != 0) return nullptr;
        const size_t off = misaligned(input, sizeof value);
        unsigned char* const at =
            inputs.emplace_back(off + static_cast<size_t>(count) * sizeof value).bytes.get() + off;
        for (int64_t k = 0; k < count; ++k) {
            value = static_cast<decltype(value)>(draw());
            std::memcpy(at + static_cast<size_t>(k) * sizeof value, &value, sizeof value);
        }
        return reinterpret_cast<decltype(value)*>(at);
    };
    const auto row = [&] {
        const uint64_t drawn = source.next();
        return drawn % 101 == 0 ? static_cast<int64_t>(drawn) - (1 << 30)
                                : static_cast<int64_t>(drawn % (static_cast<uint64_t>(M) + 1)) - (drawn % 3 == 0);
    };
    // No arrays for billions of rounds.
    const bool usual_rounds = rounds == options.rounds;
    const int64_t count_rounds = usual_rounds ? rounds : 0;
    // Lists are as long as the matrices say, so none beside a number of rows that nothing could have.
    if (batch.queries.rows == B) {
        batch.positives = numbers(int64_t{}, B, row);
        if (usual_rounds) batch.negatives = numbers(int32_t{}, B * count_rounds, row);
        batch.query_ids = numbers(int64_t{}, B, [&] { return source.next() % 4; });
        batch.weights = numbers(double{}, B, [&] { return std::abs(source.number()); });
    }
    if (batch.documents.rows == M) {
        batch.document_ids = numbers(int64_t{}, M, [&] { return source.next() % 4; });
        batch.log_probability = numbers(double{}, M, [&] { return source.number(); });
    }

    negcos_result wanted;
    negcos_result_init(&wanted, sizeof wanted);
    struct Wanted {
        negcos_matrix negcos_result::*field;
        Shape shape;
    };
    std::vector<Wanted> arrays;
    const auto want = [&](negcos_matrix negcos_result::*field, Shape s) {
        if (input.ConsumeBool()) arrays.push_back({field, s});
    };
    const int64_t hard = batch.hard_negatives.rows > 0 ? H : 0;
    want(&negcos_result::losses, shape(B, 1));
    want(&negcos_result::hit_probability, shape(B, 1));
    want(&negcos_result::logits, shape(B, 1 + count_rounds + hard));
    want(&negcos_result::grad_queries, shape(B, d));
    want(&negcos_result::grad_documents, shape(M, d));
    want(&negcos_result::grad_hard_negatives, shape(B * hard, d));
    const bool negatives = input.ConsumeBool() && usual_rounds && batch.queries.rows == B;
    const size_t negatives_off = misaligned(input, 4);
    std::vector<negcos_matrix> said;
    for (const Wanted& each : arrays) {
        const negcos_const_matrix m = matrix(input, each.shape, dtype, nullptr);
        said.push_back({nullptr, m.rows, m.cols, m.row_stride, m.dtype, m.reserved});
    }
    const Block options_block = resized(input, options), batch_block = resized(input, batch);
    const uint32_t result_delta = input.ConsumeIntegralInRange(0, 63) == 0 ? 8 : 0;

    std::string first, first_sentence;
    int32_t first_status = -1;
    for (size_t isa = 0; isa < contexts.all.size(); ++isa) {
        std::vector<Block> outputs;
        negcos_result result = wanted;
        for (size_t k = 0; k < arrays.size(); ++k) {
            outputs.emplace_back(extent(arrays[k].shape));
            negcos_matrix m = said[k];
            m.data = outputs.back().bytes.get();
            result.*arrays[k].field = m;
        }
        if (negatives) {
            outputs.emplace_back(negatives_off + static_cast<size_t>(B * count_rounds) * 4);
            result.negatives = reinterpret_cast<int32_t*>(outputs.back().bytes.get() + negatives_off);
        }
        result.loss = -3;
        Block result_block(sizeof result + result_delta);
        std::memset(result_block.bytes.get(), 0, result_block.size);
        result.struct_size = static_cast<uint32_t>(result_block.size);
        std::memcpy(result_block.bytes.get(), &result, sizeof result);
        const Block before = result_block.copy();
        const auto call = [&](negcos_context& context) {
            return negcos_evaluate(&context, reinterpret_cast<const negcos_options*>(options_block.bytes.get()),
                                   reinterpret_cast<const negcos_batch*>(batch_block.bytes.get()),
                                   reinterpret_cast<negcos_result*>(result_block.bytes.get()));
        };
        const auto check_failure = [&](int32_t status) {
            if (status == NEGCOS_STATUS_INTERNAL) broken("an internal error");
            if (!*negcos_last_error()) broken("no sentence");
            if (std::memcmp(before.bytes.get(), result_block.bytes.get(), before.size) != 0)
                broken("a result was written");
            for (const Block& each : outputs)
                for (size_t k = 0; k < each.size; ++k)
                    if (each.bytes[k] != 0xAB) broken("an output was written");
        };

        Owner<negcos_context> fresh;
        if (starved) {
            if (isa == 0) {  // all make the same requests
                const Owner<negcos_context> counted = contexts.another(isa);
                count = requests_of([&] { call(*counted); });
                std::memcpy(result_block.bytes.get(), before.bytes.get(), before.size);
                for (const Block& each : outputs) std::memset(each.bytes.get(), 0xAB, each.size);
            }
            fresh = contexts.another(isa);
            if (starve(*starved, count, [&] { return call(*fresh); })) check_failure(NEGCOS_STATUS_OUT_OF_MEMORY);
        }
        const int32_t status = call(fresh ? *fresh : *contexts.all[isa]);
        std::string all;
        if (status == NEGCOS_STATUS_OK) {
            // the numbers, not the pointers
            all.assign(reinterpret_cast<char*>(result_block.bytes.get()) + 8, 56);
            for (const Block& each : outputs) all.append(reinterpret_cast<char*>(each.bytes.get()), each.size);
        } else {
            check_failure(status);
            first_sentence = first_sentence.empty() ? negcos_last_error() : first_sentence;
            if (first_sentence != negcos_last_error()) broken("another sentence");
        }
        if (first_status < 0) first_status = status, first = all;
        if (status != first_status) broken("another status");
        if (all != first) broken("other bits");
    }
}

void sample(Input& input) {
    static const Contexts contexts;
    negcos_options options;
    negcos_options_init(&options, sizeof options);
    options.sampling = sampling(input);
    options.rounds = input.ConsumeIntegralInRange(-1, 6);
    options.seed = input.ConsumeIntegral<uint64_t>();
    options.step = input.ConsumeIntegral<uint64_t>();
    const int64_t B = input.ConsumeIntegralInRange(0, 40), M = input.ConsumeIntegralInRange(0, 40);
    const int64_t said_B = hostile(input, B), said_M = hostile(input, M);
    const size_t off = misaligned(input, 4);
    Block block(off + static_cast<size_t>(B * std::max(options.rounds, 0)) * 4);
    int32_t* negatives = reinterpret_cast<int32_t*>(block.bytes.get() + off);
    const auto call = [&](negcos_context& context) {
        return negcos_sample(&context, &options, said_B, said_M, negatives);
    };
    const auto check_failure = [&] {
        for (size_t k = 0; k < block.size; ++k)
            if (block.bytes[k] != 0xAB) broken("an output was written");
    };
    Owner<negcos_context> fresh;
    if (const std::optional<uint64_t> which = starving(input)) {
        const Owner<negcos_context> counted = contexts.another(0);
        const uint64_t count = requests_of([&] { call(*counted); });
        std::memset(block.bytes.get(), 0xAB, block.size);
        fresh = contexts.another(0);
        if (starve(*which, count, [&] { return call(*fresh); })) check_failure();
    }
    if (call(fresh ? *fresh : *contexts.all.front())) return check_failure();
    for (size_t k = 0; k < (block.size - off) / 4; ++k)
        if (negatives[k] < 0 || negatives[k] >= std::max(M, B)) broken("a negative out of range");
}

void contexts(Input& input) {
    negcos_context_options options;
    negcos_context_options_init(&options, sizeof options);
    options.threads = input.ConsumeIntegralInRange(-1, 3);
    options.threading = enumerator(input, 4);
    options.workspace_limit = input.ConsumeBool() ? 0 : input.ConsumeIntegralInRange<uint64_t>(0, 100000);
    const std::string isa = input.ConsumeRandomLengthString(9);
    if (input.ConsumeBool()) options.isa = isa.c_str();
    Pool pool;
    pool.fail_at = input.ConsumeIntegralInRange(-1, 6);
    options.parallel_for = input.ConsumeBool() ? Pool::run : nullptr;
    options.parallel_for_data = &pool;
    // Threads of a runtime are the tests' business: starting them takes longer than all else here.
    if (options.threading != NEGCOS_THREADING_SERIAL) options.threading = NEGCOS_THREADING_CALLBACK;
    const Block block = resized(input, options);
    const auto* given = reinterpret_cast<const negcos_context_options*>(block.bytes.get());
    const Owner<negcos_context> context =
        created<negcos_context>(input, [&](negcos_context** made) { return negcos_context_create(given, made); });
    if (!context) return;
    std::vector<float> queries(70 * 20), documents(70 * 20), gradient(70 * 20, 7);
    Source source(input);
    for (float& x : queries) x = static_cast<float>(source.number());
    for (float& x : documents) x = static_cast<float>(source.number());
    negcos_options o;
    negcos_options_init(&o, sizeof o);
    o.sampling = input.ConsumeBool() ? NEGCOS_SAMPLING_ALL : NEGCOS_SAMPLING_SHUFFLE;
    o.rounds = 40;
    negcos_batch batch;
    negcos_batch_init(&batch, sizeof batch);
    batch.queries = {queries.data(), 70, 20, 20, NEGCOS_DTYPE_F32, 0};
    batch.documents = {documents.data(), 70, 20, 20, NEGCOS_DTYPE_F32, 0};
    negcos_result result;
    negcos_result_init(&result, sizeof result);
    result.grad_documents = {gradient.data(), 70, 20, 20, NEGCOS_DTYPE_F32, 0};
    const int32_t status = negcos_evaluate(context.get(), &o, &batch, &result);
    if (status && status != NEGCOS_STATUS_WORKSPACE_LIMIT && status != NEGCOS_STATUS_THREADS) broken("another failure");
    if (status)
        for (const float x : gradient)
            if (x != 7) broken("an output was written");
}

// A file in memory, as each save waits for its disk.
struct Scratch {
    const std::string path =
        (access("/dev/shm", W_OK) == 0 ? "/dev/shm" : std::filesystem::temp_directory_path().string()) +
        "/negcos_fuzz." + std::to_string(getpid());
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { unlink(path.c_str()); }
    void write(const std::string& bytes) const {
        std::ofstream file(path, std::ios::binary);
        if (!file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush()) broken("no file");
    }
    std::string read() const {
        std::ifstream file(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(file), {}};
    }
};

Owner<negcos_frequency> loaded(Input& input, const Scratch& file) {
    return created<negcos_frequency>(input, [&](negcos_frequency** made) {
        const int32_t status = negcos_frequency_load(file.path.c_str(), made);
        if (status && status != NEGCOS_STATUS_IO && status != NEGCOS_STATUS_OUT_OF_MEMORY) broken("another failure");
        return status;
    });
}

std::string saved(Input& input, const negcos_frequency& estimator) {
    const Scratch file;
    const auto call = [&] { return negcos_frequency_save(&estimator, file.path.c_str()); };
    if (const std::optional<uint64_t> which = starving(input)) {
        const uint64_t count = requests_of(call);
        file.write("before");
        if (starve(*which, count, call) && file.read() != "before") broken("a file was written");
    }
    if (call()) broken("save");
    return file.read();
}

// What is loaded again is the same estimator: it is saved as the same bytes.
void saved_and_loaded(Input& input, const negcos_frequency& estimator) {
    const std::string bytes = saved(input, estimator);
    const Scratch file;
    file.write(bytes);
    const Owner<negcos_frequency> again = loaded(input, file);
    if (!again || saved(input, *again) != bytes) broken("another estimator than was saved");
}

void count_ids(Input& input, negcos_frequency& estimator) {
    for (int step = input.ConsumeIntegralInRange(0, 5); step > 0; --step) {
        const std::vector<uint8_t> drawn =
            input.ConsumeBytes<uint8_t>(static_cast<size_t>(input.ConsumeIntegralInRange(0, 9)));
        const int64_t count = static_cast<int64_t>(drawn.size());
        const size_t ids_off = misaligned(input, 8), log_off = misaligned(input, 8);
        const Block ids_block(ids_off + 8 * drawn.size()), log_block(log_off + 8 * drawn.size());
        for (size_t k = 0; k < drawn.size(); ++k) {
            const int64_t id = drawn[k];
            std::memcpy(&ids_block.bytes[ids_off + 8 * k], &id, 8);
        }
        const int64_t* ids = reinterpret_cast<const int64_t*>(ids_block.bytes.get() + ids_off);
        double* log_probability = reinterpret_cast<double*>(log_block.bytes.get() + log_off);
        int32_t update = 0, estimate = 0;
        const uint64_t needed = requests_of([&] {
            update = negcos_frequency_update(&estimator, ids, count);
            estimate = negcos_frequency_log_probability(&estimator, ids, count, log_probability);
        });
        if (needed != 0) broken("memory for counting");
        if (update && update != NEGCOS_STATUS_VALUE) broken("update");  // beyond 2^53, or not aligned
        if (estimate && ids_off == 0 && log_off == 0) broken("estimate");
        for (size_t k = 0; k < log_block.size; ++k)
            if (estimate && log_block.bytes[k] != 0xAB) broken("an output was written");
        for (int64_t k = 0; k < count && !estimate; ++k)
            if (!(log_probability[k] <= 0 && log_probability[k] > -100)) broken("no log of a probability");
    }
}

void frequency(Input& input) {
    negcos_frequency_options options;
    negcos_frequency_options_init(&options, sizeof options);
    options.method = enumerator(input, 1);
    options.hashes = input.ConsumeIntegralInRange(-1, 9);
    options.buckets = hostile(input, input.ConsumeIntegralInRange(0, 50));
    options.learning_rate = option(input, 0.1);
    options.initial_gap = option(input, 0);
    options.seed = input.ConsumeIntegral<uint64_t>();
    const Block block = resized(input, options);
    const auto* given = reinterpret_cast<const negcos_frequency_options*>(block.bytes.get());
    const Owner<negcos_frequency> estimator =
        created<negcos_frequency>(input, [&](negcos_frequency** made) { return negcos_frequency_create(given, made); });
    if (!estimator) return;
    count_ids(input, *estimator);
    saved_and_loaded(input, *estimator);
}

// A file that is whole but for what the input breaks: of another size, with a wrong checksum, with anything in it.
void load(Input& input) {
    const bool streaming = input.ConsumeBool();
    const int64_t hashes = input.ConsumeIntegralInRange(1, 4), buckets = input.ConsumeIntegralInRange(1, 9);
    constexpr uint64_t kMost = uint64_t{1} << 53;
    const uint64_t total = input.ConsumeBool() ? input.ConsumeIntegralInRange<uint64_t>(0, 9)
                                               : kMost - input.ConsumeIntegralInRange<uint64_t>(0, 9);
    const auto gap = [&] { return std::bit_cast<uint64_t>(input.ConsumeFloatingPointInRange<double>(1, 0x1p53)); };
    // As docs/frequency.md has it: "NEGCOSFQ", the version, options.
    std::vector<uint64_t> words = {0x5146534F4347454Eu,
                                   1 | uint64_t{!streaming} << 32,
                                   static_cast<uint64_t>(hashes),
                                   static_cast<uint64_t>(buckets),
                                   std::bit_cast<uint64_t>(0.01),
                                   streaming && input.ConsumeBool() ? gap() : 0,
                                   input.ConsumeIntegral<uint64_t>(),
                                   total};
    for (int64_t k = hashes * buckets; k > 0; --k) {
        words.push_back(input.ConsumeIntegralInRange<uint64_t>(0, total));
        if (streaming) words.push_back(words.back() != 0 ? gap() : 0);
    }
    const int odd = std::max(input.ConsumeIntegralInRange(-4, 2), 0);
    const bool wrong_sum = input.ConsumeIntegralInRange(0, 31) == 0, cut = input.ConsumeIntegralInRange(0, 15) == 0;
    for (int k = odd; k > 0; --k) {
        constexpr uint64_t kOdd[] = {0, 1, kMost, kMost + 1, UINT64_MAX, uint64_t{1} << 32, uint64_t{1} << 63};
        uint64_t& word = words[input.ConsumeIntegralInRange<size_t>(0, words.size() - 1)];
        const int how = input.ConsumeIntegralInRange(0, 3);
        if (how == 0) word = input.ConsumeIntegral<uint64_t>();
        if (how == 1) word = input.PickValueInArray(kOdd);
        if (how == 2) word = std::bit_cast<uint64_t>(option(input, 0.5));
        if (how == 3) word ^= uint64_t{1} << input.ConsumeIntegralInRange(0, 63);
    }
    uint64_t sum = 0;
    for (const uint64_t word : words) {
        sum ^= word;
        sum = (sum ^ (sum >> 30)) * 0xBF58476D1CE4E5B9u;
        sum = (sum ^ (sum >> 27)) * 0x94D049BB133111EBu;
        sum ^= sum >> 31;
    }
    words.push_back(sum ^ uint64_t{wrong_sum});
    std::string bytes(reinterpret_cast<const char*>(words.data()), 8 * words.size());
    if (cut) bytes.resize(input.ConsumeIntegralInRange<size_t>(0, 2 * bytes.size()));

    const Scratch file;
    file.write(bytes);
    const Owner<negcos_frequency> estimator = loaded(input, file);
    if (!estimator && odd == 0 && !wrong_sum && !cut) broken("a whole file was refused");
    if (!estimator) return;
    const bool averages = words[1] >> 32 == NEGCOS_FREQUENCY_STREAMING;
    for (size_t k = 8; k + 1 < words.size(); k += averages ? 2 : 1) {
        if (words[k] > words[7]) broken("a bucket that was hit after the last step, or too often");
        if (averages && (words[k] == 0 ? words[k + 1] != 0 : !(std::bit_cast<double>(words[k + 1]) >= 1)))
            broken("an average that is none");
    }
    if (saved(input, *estimator) != bytes) broken("other bytes than were loaded");
    count_ids(input, *estimator);
    saved_and_loaded(input, *estimator);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Input input(data, size);
    const int what = input.ConsumeIntegralInRange(0, 9);
    if (what == 0) sample(input);
    if (what == 1) contexts(input);
    if (what == 2) frequency(input);
    if (what == 3) load(input);
    if (what > 3) evaluate(input);
    return 0;
}
