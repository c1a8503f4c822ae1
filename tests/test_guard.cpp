// SPDX-License-Identifier: Apache-2.0
//
// Not one byte outside: every input and output of a call lies against a page that nobody may touch, inputs on pages
// that nobody may write to. Before them, then behind them, at each offset from a border of 64 bytes; results are
// compared with those of memory without guards.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include "half.hpp"
#include "variants.hpp"

namespace {

using half::BF16;
using half::F16;
using harness::Outputs;
using harness::Problem;
using variants::Features;

// Pages between two that fault, at two addresses: as the library sees them, and to be written by the test.
class Guarded {
public:
    Guarded(size_t capacity, bool writable)
        : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))), size_((capacity + page_ - 1) / page_ * page_) {
        const int file = memfd_create("guarded", 0);
        REQUIRE(ftruncate(file, static_cast<off_t>(size_)) == 0);
        guards_ = map(size_ + 2 * page_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, nullptr);
        map(size_, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_FIXED, file, guards_ + page_);
        own_ = map(size_, PROT_READ | PROT_WRITE, MAP_SHARED, file, nullptr);
        close(file);
    }
    ~Guarded() {
        munmap(guards_, size_ + 2 * page_);
        munmap(own_, size_);
    }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;

    // `size` bytes that begin `skip` bytes behind the page before, or end `skip` bytes before the page behind.
    unsigned char* place(size_t size, size_t skip, bool behind) {
        if (size + skip > size_) FAIL(size << " bytes are more than " << size_);
        return guards_ + page_ + (behind ? size_ - size - skip : skip);
    }
    void write(const unsigned char* place, const void* bytes, size_t size) {
        std::memcpy(own_ + (place - guards_ - static_cast<ptrdiff_t>(page_)), bytes, size);
    }

private:
    static unsigned char* map(size_t size, int protection, int flags, int file, void* at) {
        void* address = mmap(at, size, protection, flags, file, 0);
        REQUIRE(address != MAP_FAILED);
        return static_cast<unsigned char*>(address);
    }

    size_t page_, size_;
    unsigned char *guards_ = nullptr, *own_ = nullptr;
};

struct Place {
    size_t skip;  // bytes
    bool behind;
    int64_t gap;  // elements between rows
};

// Memory for the arrays of a call, used again from call to call.
class Arrays {
public:
    explicit Arrays(size_t capacity) : capacity_(capacity) {}

    void begin(Place place) {
        place_ = place;
        inputs_.used = outputs_.used = 0;
    }
    template <class T>
    const T* input(const std::vector<T>& values) {
        if (values.empty()) return nullptr;
        Guarded& memory = inputs_.next(capacity_, false);
        unsigned char* place = memory.place(values.size() * sizeof(T), skip<T>(), place_.behind);
        memory.write(place, values.data(), values.size() * sizeof(T));
        return reinterpret_cast<const T*>(place);
    }
    template <class T>
    T* output(int64_t count) {
        Guarded& memory = outputs_.next(capacity_, true);
        return reinterpret_cast<T*>(memory.place(static_cast<size_t>(count) * sizeof(T), skip<T>(), place_.behind));
    }
    // The gap behind the last row is none of the matrix.
    template <class T>
    negcos_const_matrix matrix(const std::vector<T>& values, int64_t rows, int64_t cols) {
        const int64_t stride = cols + place_.gap;
        std::vector<T> spread(static_cast<size_t>(extent(rows, cols)), std::numeric_limits<T>::quiet_NaN());
        for (int64_t i = 0; i < rows; ++i) std::copy_n(values.begin() + i * cols, cols, spread.begin() + i * stride);
        return {input(spread), rows, cols, stride, negcos::dtype_of<T>, 0};
    }
    template <class T>
    negcos_matrix matrix(int64_t rows, int64_t cols) {
        return {output<T>(extent(rows, cols)), rows, cols, cols + place_.gap, negcos::dtype_of<T>, 0};
    }

private:
    int64_t extent(int64_t rows, int64_t cols) const { return rows == 0 ? 0 : (rows - 1) * (cols + place_.gap) + cols; }
    // Wider types than the matrices' stay aligned.
    template <class T>
    size_t skip() const {
        return place_.skip / sizeof(T) * sizeof(T);
    }
    struct Pool {
        std::vector<std::unique_ptr<Guarded>> all;
        size_t used = 0;
        Guarded& next(size_t capacity, bool writable) {
            if (used == all.size()) all.push_back(std::make_unique<Guarded>(capacity, writable));
            return *all[used++];
        }
    };

    size_t capacity_;
    Place place_{};
    Pool inputs_, outputs_;
};

template <class T>
std::vector<T> rows_of(const negcos_matrix& m) {
    std::vector<T> values;
    for (int64_t i = 0; i < m.rows; ++i) {
        const T* row = static_cast<const T*>(m.data) + i * m.row_stride;
        values.insert(values.end(), row, row + m.cols);
    }
    return values;
}

// As harness::run, between guards.
template <class T>
Outputs<T> run(negcos::Context& context, const Problem<T>& p, Arrays& arrays, Place place) {
    arrays.begin(place);
    const int64_t hard = p.batch * p.hard_per_query;
    const bool all = p.options.sampling == NEGCOS_SAMPLING_ALL;

    negcos_options options = p.options_of();
    options.prefix_dims = arrays.input(p.prefix_dims);
    options.prefix_weights = arrays.input(p.prefix_weights);
    negcos_batch batch;
    negcos_batch_init(&batch, sizeof batch);
    batch.queries = arrays.matrix(p.queries, p.batch, p.dim);
    batch.documents = arrays.matrix(p.documents, p.count, p.dim);
    if (hard > 0) batch.hard_negatives = arrays.matrix(p.hard, hard, p.dim);
    batch.positives = arrays.input(p.positives);
    batch.negatives = arrays.input(p.given);
    batch.document_ids = arrays.input(p.document_ids);
    batch.query_ids = arrays.input(p.query_ids);
    batch.log_probability = arrays.input(p.log_probability);
    batch.weights = arrays.input(p.weights);
    negcos_result result;
    negcos_result_init(&result, sizeof result);
    result.losses = arrays.matrix<T>(p.batch, 1);
    result.hit_probability = arrays.matrix<T>(p.batch, 1);
    if (!all) result.logits = arrays.matrix<T>(p.batch, 1 + p.rounds() + p.hard_per_query);
    result.grad_queries = arrays.matrix<T>(p.batch, p.dim);
    result.grad_documents = arrays.matrix<T>(p.count, p.dim);
    if (hard > 0) result.grad_hard_negatives = arrays.matrix<T>(hard, p.dim);
    const int64_t drawn = p.batch * p.rounds();
    if (drawn > 0) result.negatives = arrays.output<int32_t>(drawn);

    // The structs too; options as the first version of the header had them where that is enough.
    if (p.prefix_dims.empty()) options.struct_size = 112;
    const auto* begin = reinterpret_cast<const uint64_t*>(&options);
    const uint64_t* words = arrays.input(std::vector<uint64_t>(begin, begin + options.struct_size / 8));
    negcos_result* guarded = arrays.output<negcos_result>(1);
    std::memcpy(static_cast<void*>(guarded), &result, sizeof result);
    REQUIRE(negcos_evaluate(context.get(), reinterpret_cast<const negcos_options*>(words),
                            arrays.input(std::vector{batch}), guarded) == NEGCOS_STATUS_OK);

    Outputs<T> out;
    std::memcpy(static_cast<negcos_result*>(&out.numbers), guarded, sizeof result);
    out.losses = rows_of<T>(result.losses);
    out.hit_probability = rows_of<T>(result.hit_probability);
    if (!all) out.logits = rows_of<T>(result.logits);
    out.grad_queries = rows_of<T>(result.grad_queries);
    out.grad_documents = rows_of<T>(result.grad_documents);
    if (hard > 0) out.grad_hard_negatives = rows_of<T>(result.grad_hard_negatives);
    out.negatives.assign(result.negatives, result.negatives + drawn);
    return out;
}

constexpr int64_t kMostDim = 257, kMostBatch = 65;
constexpr int32_t kRounds = 3;
constexpr int64_t kHard = 2;

// Plain calls, and calls with everything else that an array is passed for, in both engines.
constexpr Features kPlain = 0;
constexpr Features kAll = 1u << variants::hard | 1u << variants::weights | 1u << variants::positives |
                          1u << variants::same_document | 1u << variants::same_query | 1u << variants::log_probability |
                          1u << variants::prefixes;

// Every step-th pair of d and B, with so many of the offsets, in turn.
template <class T>
void check_shapes(int64_t step, int64_t offsets) {
    constexpr int64_t kOffsets = 64 / sizeof(T);
    variants::Contexts contexts("guard");
    Arrays arrays(kMostBatch * (kHard + 1) * (kMostDim + 3) * sizeof(T) + 4096);
    int64_t calls = 0;
    for (int64_t pair = 0; pair < kMostDim * kMostBatch; pair += step) {
        const int64_t dim = 1 + pair / kMostBatch, batch = 1 + pair % kMostBatch;
        for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_GIVEN, NEGCOS_SAMPLING_ALL}) {
            const Features features = sampling == NEGCOS_SAMPLING_SHUFFLE || (pair / step) % 2 == 0 ? kPlain : kAll;
            const Problem<T> p = variants::make<T>({batch, batch, dim, kRounds, kHard}, features, sampling,
                                                   static_cast<uint64_t>(pair + 1));
            const std::string expected = harness::run(contexts.best(), p).bytes();
            for (negcos::Context& context : contexts.all)
                for (int64_t turn = 0; turn < offsets; ++turn)
                    for (const bool behind : {false, true}) {
                        const int64_t offset = (calls + pair / step + turn * kOffsets / offsets) % kOffsets;
                        const Place place{static_cast<size_t>(offset) * sizeof(T), behind, offset % 4};
                        INFO(context.isa() << ", d " << dim << ", B " << batch << ", sampling " << sampling
                                           << ", offset " << offset << (behind ? ", behind" : ", before"));
                        const std::string got = run(context, p, arrays, place).bytes();
                        ++calls;
                        if (got != expected) FAIL_CHECK("other bits");
                    }
        }
    }
    std::printf("%lld calls between guards\n", static_cast<long long>(calls));
}

void check_draws() {
    negcos::Context context;
    Arrays arrays(1 << 16);
    for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_CYCLIC,
                                   NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_LOG_UNIFORM})
        for (int64_t batch = 2; batch <= kMostBatch; ++batch)
            for (const bool behind : {false, true}) {
                negcos::Options options;
                options.sampling = sampling;
                options.rounds = static_cast<int32_t>(batch % 7);
                arrays.begin({static_cast<size_t>(batch % 16) * 4, behind, 0});
                int32_t* negatives = arrays.output<int32_t>(batch * options.rounds);
                REQUIRE(negcos_sample(context.get(), &options, batch, batch, negatives) == NEGCOS_STATUS_OK);
            }
}

void check_frequency() {
    Arrays arrays(1 << 16);
    for (const int32_t method : {NEGCOS_FREQUENCY_STREAMING, NEGCOS_FREQUENCY_COUNT_MIN}) {
        negcos_frequency_options options;
        negcos_frequency_options_init(&options, sizeof options);
        options.method = method;
        negcos_frequency* frequency = nullptr;
        REQUIRE(negcos_frequency_create(&options, &frequency) == NEGCOS_STATUS_OK);
        for (int64_t count = 0; count <= kMostBatch; ++count)
            for (const bool behind : {false, true}) {
                std::vector<int64_t> ids(static_cast<size_t>(count));
                std::iota(ids.begin(), ids.end(), -3);
                arrays.begin({static_cast<size_t>(count % 8) * 8, behind, 0});
                const int64_t* given = arrays.input(ids);
                double* log_probability = arrays.output<double>(count);
                CHECK(negcos_frequency_update(frequency, given, count) == NEGCOS_STATUS_OK);
                CHECK(negcos_frequency_log_probability(frequency, given, count, log_probability) == NEGCOS_STATUS_OK);
            }
        negcos_frequency_destroy(frequency);
    }
}

// Of 257 * 65 pairs, coprime to both.
constexpr int64_t kSome = 101;

TEST_SUITE("guard") {
    TEST_CASE("guard: pages that fault do fault") {
        Guarded inputs(1, false), outputs(1, true);
        const unsigned char first = 1;
        volatile unsigned char *input = inputs.place(1, 0, true), *output = outputs.place(1, 0, true);
        inputs.write(inputs.place(1, 0, true), &first, 1);
        CHECK(input[0] == 1);
        output[0] = 1;
        const auto dies = [](auto&& work) {
            std::fflush(nullptr);
            const pid_t child = fork();
            REQUIRE(child >= 0);
            if (child == 0) {
                signal(SIGSEGV, SIG_DFL);
                work();
                _exit(0);
            }
            int status = 0;
            REQUIRE(waitpid(child, &status, 0) == child);
            return WIFSIGNALED(status);
        };
        const ptrdiff_t page = sysconf(_SC_PAGESIZE);
        CHECK(dies([&] { input[0] = 2; }));
        CHECK(dies([&] { _exit(input[1]); }));
        CHECK(dies([&] { _exit(input[-page]); }));
        CHECK(dies([&] { output[1] = 2; }));
        CHECK(dies([&] { output[-page] = 2; }));
    }
    TEST_CASE("guard: some shapes of f32") {
        check_shapes<float>(kSome, 2);
    }
    TEST_CASE("guard: some shapes of f64") {
        check_shapes<double>(kSome, 2);
    }
    TEST_CASE("guard: some shapes of f16") {
        check_shapes<F16>(kSome, 2);
    }
    TEST_CASE("guard: some shapes of bf16") {
        check_shapes<BF16>(kSome, 2);
    }
    TEST_CASE("guard: draws") {
        check_draws();
    }
    TEST_CASE("guard: the frequency estimator") {
        check_frequency();
    }
}

TEST_SUITE("slow") {
    TEST_CASE("guard: every shape of f32") {
        check_shapes<float>(1, 1);
    }
    TEST_CASE("guard: every shape of f64") {
        check_shapes<double>(1, 1);
    }
    TEST_CASE("guard: every shape of f16") {
        check_shapes<F16>(1, 1);
    }
    TEST_CASE("guard: every shape of bf16") {
        check_shapes<BF16>(1, 1);
    }
}

}  // namespace
