// SPDX-License-Identifier: Apache-2.0
//
// Not one byte outside: every input and output of a call lies against a page that nobody may touch, first the page
// before it, then the page behind it; inputs on pages that nobody may write to. Between rows, and around arrays that
// begin anywhere else, are canaries: NaN where the library reads, bytes that must stay where it writes. Results are the
// bits of a call on plain memory.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>

#include "half.hpp"
#include "plan.hpp"
#include "pools.hpp"
#include "variants.hpp"

namespace {

using half::BF16;
using half::F16;
using harness::Outputs;
using harness::Problem;
using harness::Random;
using variants::Features;

// Pages between two that fault, at two addresses: as the library sees them, and to be written by the test.
class Guarded {
public:
    Guarded(size_t capacity, bool writable)
        : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))), size_((capacity + page_ - 1) / page_ * page_) {
        const int file = memfd_create("guarded", 0);
        REQUIRE(ftruncate(file, static_cast<off_t>(size_)) == 0);
        guards_ = map(size_ + 2 * page_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, nullptr);
        map(size_, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_FIXED, file, begin());
        own_ = map(size_, PROT_READ | PROT_WRITE, MAP_SHARED, file, nullptr);
        close(file);
    }
    ~Guarded() {
        munmap(guards_, size_ + 2 * page_);
        munmap(own_, size_);
    }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;

    unsigned char* begin() const { return guards_ + page_; }
    unsigned char* end() const { return begin() + size_; }
    size_t size() const { return size_; }
    unsigned char* own(const unsigned char* place) const { return own_ + (place - begin()); }

private:
    static unsigned char* map(size_t size, int protection, int flags, int file, void* at) {
        void* address = mmap(at, size, protection, flags, file, 0);
        REQUIRE(address != MAP_FAILED);
        return static_cast<unsigned char*>(address);
    }

    size_t page_, size_;
    unsigned char *guards_ = nullptr, *own_ = nullptr;
};

// Arrays begin at the page before, end at the page behind, or begin `offset` bytes past a border of 64.
enum class Side { before, behind, neither };
struct Place {
    Side side = Side::before;
    size_t offset = 0;
    int64_t gap = 0;  // elements between rows
};

constexpr size_t kFrame = 64;  // bytes of canaries on each side, as far as there is memory
// All bits are 1: NaN, or the index of no row.
constexpr int kInputCanary = 0xFF, kOutputCanary = 0xA5;

// Memory for the arrays of a call, used again from call to call.
class Arrays {
public:
    explicit Arrays(size_t capacity) : capacity_(capacity) {}

    void begin(Place place) {
        place_ = place;
        inputs_.used = outputs_.used = 0;
        written_.clear();
        against_page_ = true;
    }
    template <class T>
    const T* input(const T* values, int64_t count) {
        return input(values, 1, count, 0);
    }
    template <class T>
    const T* input(const std::vector<T>& values) {
        return values.empty() ? nullptr : input(values.data(), static_cast<int64_t>(values.size()));
    }
    template <class T>
    T* output(const T* before, const T* after, int64_t count) {
        return output(before, after, 1, count, 0);
    }
    template <class T>
    negcos_const_matrix matrix(const std::vector<T>& values, int64_t rows, int64_t cols) {
        return {input(values.data(), rows, cols, place_.gap), rows, cols, cols + place_.gap, negcos::dtype_of<T>, 0};
    }
    // `after`: what the call will have written.
    template <class T>
    negcos_matrix matrix_for(const std::vector<T>& after, int64_t rows, int64_t cols) {
        REQUIRE(after.size() == static_cast<size_t>(rows * cols));
        const T* none = nullptr;
        return {
            output(none, after.data(), rows, cols, place_.gap), rows, cols, cols + place_.gap, negcos::dtype_of<T>, 0};
    }

    // Outputs as they are before a call, and whether they are as they should be after it.
    void reset() const {
        for (const Written& w : written_) std::memcpy(w.at, w.before.data(), w.before.size());
    }
    bool as_expected() const {
        return std::all_of(written_.begin(), written_.end(),
                           [](const Written& w) { return std::memcmp(w.at, w.after.data(), w.after.size()) == 0; });
    }
    bool against_page() const { return against_page_; }

private:
    struct Written {
        unsigned char* at;
        std::vector<unsigned char> before, after;  // with the canaries around
    };
    struct Pool {
        std::vector<std::unique_ptr<Guarded>> all;
        size_t used = 0;
        Guarded& next(size_t capacity, bool writable) {
            if (used == all.size()) all.push_back(std::make_unique<Guarded>(capacity, writable));
            return *all[used++];
        }
    };
    struct Spot {
        unsigned char *place, *low, *high;  // low, high: with the canaries around
    };

    // The gap behind the last row is none of the array.
    template <class T>
    static size_t extent(int64_t rows, int64_t cols, int64_t gap) {
        return rows == 0 ? 0 : static_cast<size_t>((rows - 1) * (cols + gap) + cols) * sizeof(T);
    }
    template <class T>
    static void spread(unsigned char* to, const T* values, int64_t rows, int64_t cols, int64_t gap) {
        const size_t row = static_cast<size_t>(cols) * sizeof(T), stride = static_cast<size_t>(cols + gap) * sizeof(T);
        for (int64_t i = 0; i < rows; ++i) std::memcpy(to + static_cast<size_t>(i) * stride, values + i * cols, row);
    }
    Spot find(const Guarded& memory, size_t size, size_t alignment) {
        const size_t skip = kFrame + place_.offset / alignment * alignment;  // wider types than the matrices' too
        if (size + skip + kFrame > memory.size()) FAIL(size << " bytes are more than " << memory.size());
        Spot spot{};
        spot.place = place_.side == Side::before   ? memory.begin()
                     : place_.side == Side::behind ? memory.end() - size
                                                   : memory.begin() + skip;
        spot.low = std::max(memory.begin(), spot.place - kFrame);
        spot.high = std::min(memory.end(), spot.place + size + kFrame);
        against_page_ = against_page_ && (place_.side == Side::before   ? spot.low == spot.place
                                          : place_.side == Side::behind ? spot.high == spot.place + size
                                                                        : false);
        return spot;
    }
    template <class T>
    const T* input(const T* values, int64_t rows, int64_t cols, int64_t gap) {
        const Guarded& memory = inputs_.next(capacity_, false);
        const Spot spot = find(memory, extent<T>(rows, cols, gap), alignof(T));
        std::memset(memory.own(spot.low), kInputCanary, static_cast<size_t>(spot.high - spot.low));
        spread(memory.own(spot.place), values, rows, cols, gap);
        return reinterpret_cast<const T*>(spot.place);
    }
    // before: nullptr = canaries
    template <class T>
    T* output(const T* before, const T* after, int64_t rows, int64_t cols, int64_t gap) {
        const Spot spot = find(outputs_.next(capacity_, true), extent<T>(rows, cols, gap), alignof(T));
        Written w{spot.low, std::vector<unsigned char>(static_cast<size_t>(spot.high - spot.low), kOutputCanary), {}};
        w.after = w.before;
        if (before) spread(w.before.data() + (spot.place - spot.low), before, rows, cols, gap);
        spread(w.after.data() + (spot.place - spot.low), after, rows, cols, gap);
        written_.push_back(std::move(w));
        return reinterpret_cast<T*>(spot.place);
    }

    size_t capacity_;
    Place place_{};
    Pool inputs_, outputs_;
    std::vector<Written> written_;
    bool against_page_ = true;
};

struct Call {
    const negcos_options* options;
    const negcos_batch* batch;
    negcos_result* result;
};

// Everything that a call is handed, the structs too, and what it has to make of it.
template <class T>
Call lay_out(Arrays& arrays, const Problem<T>& p, const Outputs<T>& expected, Place place) {
    arrays.begin(place);
    const int64_t hard = p.batch * p.hard_per_query;
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
    result.losses = arrays.matrix_for(expected.losses, p.batch, 1);
    result.hit_probability = arrays.matrix_for(expected.hit_probability, p.batch, 1);
    if (p.options.sampling != NEGCOS_SAMPLING_ALL)
        result.logits = arrays.matrix_for(expected.logits, p.batch, 1 + p.rounds() + p.hard_per_query);
    result.grad_queries = arrays.matrix_for(expected.grad_queries, p.batch, p.dim);
    result.grad_documents = arrays.matrix_for(expected.grad_documents, p.count, p.dim);
    if (hard > 0) result.grad_hard_negatives = arrays.matrix_for(expected.grad_hard_negatives, hard, p.dim);
    const int64_t drawn = p.batch * p.rounds();
    const int32_t* none = nullptr;
    if (drawn > 0) result.negatives = arrays.output(none, expected.negatives.data(), drawn);

    // Options as the first version of the header had them where that is enough.
    if (p.prefix_dims.empty()) options.struct_size = 112;
    const auto* words = reinterpret_cast<const uint64_t*>(&options);
    negcos_result after = result;
    after.loss = expected.numbers.loss;
    after.grad_scale = expected.numbers.grad_scale;
    after.grad_bias = expected.numbers.grad_bias;
    after.accuracy = expected.numbers.accuracy;
    after.mean_reciprocal_rank = expected.numbers.mean_reciprocal_rank;
    after.excluded = expected.numbers.excluded;
    after.zero_rows = expected.numbers.zero_rows;
    return {reinterpret_cast<const negcos_options*>(arrays.input(words, options.struct_size / 8)),
            arrays.input(&batch, 1), arrays.output(&result, &after, 1)};
}

constexpr int64_t kMostDim = 257, kMostBatch = 65, kMostCount = kMostBatch + 3;
constexpr int32_t kRounds = 3;
constexpr int64_t kHard = 2;

// Ways through an engine that hand over other arrays, or read and write them elsewhere.
struct Way {
    const char* name;
    bool tiles;
    int32_t sampling;
    Features features;
    bool positives = false;  // of any documents, perhaps of fewer than there are queries
    bool dense = false;      // so many rounds that tiles are cheaper
    bool has(variants::Feature f) const { return variants::has(features, f); }
};
constexpr Features kPlain = 0;
constexpr Features kBoth = 1u << variants::hard | 1u << variants::weights | 1u << variants::same_document |
                           1u << variants::same_query | 1u << variants::prefixes | 1u << variants::both;
constexpr Features kRich = (kBoth & ~(1u << variants::both)) | 1u << variants::log_probability;
constexpr Features kDot = 1u << variants::dot;
constexpr Features kBatchSoftmax = 1u << variants::batch_softmax | 1u << variants::weights;

const std::vector<Way> kEngines[] = {
    {{"gather: SHUFFLE", false, NEGCOS_SAMPLING_SHUFFLE, kPlain},
     {"gather: GIVEN", false, NEGCOS_SAMPLING_GIVEN, kPlain},
     {"gather: SHUFFLE, DOT", false, NEGCOS_SAMPLING_SHUFFLE, kDot},
     {"gather: BATCH_SOFTMAX", false, NEGCOS_SAMPLING_SHUFFLE, kBatchSoftmax},
     {"gather: BATCH_SOFTMAX, positives", false, NEGCOS_SAMPLING_GIVEN, kBatchSoftmax, true}},
    {{"groups", false, NEGCOS_SAMPLING_GROUPS, kPlain}, {"groups, DOT", false, NEGCOS_SAMPLING_GROUPS, kDot}},
    {{"tiles: ALL", true, NEGCOS_SAMPLING_ALL, kPlain},
     {"tiles: ALL, DOT", true, NEGCOS_SAMPLING_ALL, kDot},
     {"tiles: SHUFFLE, dense", true, NEGCOS_SAMPLING_SHUFFLE, kPlain, false, true},
     {"tiles: GIVEN, dense", true, NEGCOS_SAMPLING_GIVEN, kPlain, false, true}},
    {{"gather, all arrays: SHUFFLE", false, NEGCOS_SAMPLING_SHUFFLE, kRich},
     {"gather, all arrays: GIVEN, positives", false, NEGCOS_SAMPLING_GIVEN, kRich, true},
     {"gather, all arrays: GROUPS", false, NEGCOS_SAMPLING_GROUPS, kRich},
     {"gather, all arrays: SHUFFLE, DOT", false, NEGCOS_SAMPLING_SHUFFLE, kRich | kDot}},
    {{"tiles, all arrays: ALL", true, NEGCOS_SAMPLING_ALL, kRich},
     {"tiles, all arrays: ALL, positives", true, NEGCOS_SAMPLING_ALL, kRich, true},
     {"tiles, all arrays: ALL, DOT, positives", true, NEGCOS_SAMPLING_ALL, kRich | kDot, true},
     {"tiles, all arrays: ALL, BOTH", true, NEGCOS_SAMPLING_ALL, kBoth},
     {"tiles, all arrays: GIVEN, dense, positives", true, NEGCOS_SAMPLING_GIVEN, kRich, true, true}},
};

// As the library chooses its engine.
template <class T>
bool takes_tiles(const Way& way, int64_t rounds, int64_t count, int64_t dim) {
    using Computed = std::conditional_t<sizeof(T) == 2, float, T>;
    if (way.has(variants::batch_softmax)) return false;
    if (way.sampling == NEGCOS_SAMPLING_ALL) return true;
    if (way.sampling == NEGCOS_SAMPLING_GROUPS && rounds > 0 && (way.features & ~kDot) == kPlain) return false;
    return !way.has(variants::dot) && negcos::tiles_are_cheaper<Computed>(rounds, count, dim);
}

// More documents than queries, as many or, with positives, fewer; for the gather engine enough of them.
template <class T>
variants::Shape shape_of(const Way& way, int64_t batch, int64_t dim, Random& random) {
    int64_t count = batch + (way.has(variants::both) ? 0 : random.below(4));
    if (way.positives) count = 1 + random.below(batch + 3);
    const bool few = way.sampling == NEGCOS_SAMPLING_GROUPS && kRounds >= batch;
    const int32_t rounds = few ? static_cast<int32_t>(batch - 1) : kRounds;
    while (!way.tiles && takes_tiles<T>(way, rounds, count, dim)) ++count;
    return {batch, count, dim, way.dense ? static_cast<int32_t>(count) : rounds, kHard};
}

// SHUFFLE and GROUPS draw from as many documents as there are queries: no gather reads the last row.
bool leaves_documents(const Way& way, variants::Shape shape) {
    const bool few = way.sampling == NEGCOS_SAMPLING_SHUFFLE || way.sampling == NEGCOS_SAMPLING_GROUPS;
    return !way.tiles && few && shape.count > shape.batch;
}

template <class T>
Problem<T> largest(const Way& way, uint64_t seed) {
    const int64_t count = way.has(variants::both) ? kMostBatch : kMostCount;
    const int32_t rounds = way.dense ? static_cast<int32_t>(count) : kRounds;
    return variants::make<T>({kMostBatch, count, kMostDim, rounds, kHard}, way.features, way.sampling, seed);
}

// The first rows and columns of a problem, which is much cheaper than another; with prefixes and positives of its own.
template <class T>
Problem<T> part_of(const Problem<T>& whole, variants::Shape shape, bool positives) {
    Problem<T> p(0, 0, 0);
    p.batch = shape.batch, p.count = shape.count, p.dim = shape.dim;
    p.options = whole.options;
    p.options.rounds = shape.rounds;
    p.hard_per_query = whole.hard_per_query;
    const auto rows = [&](std::vector<T>& to, const std::vector<T>& from, int64_t count) {
        to.resize(static_cast<size_t>(count * p.dim));
        for (int64_t i = 0; i < count; ++i) std::copy_n(from.begin() + i * whole.dim, p.dim, to.begin() + i * p.dim);
    };
    const auto first = [](auto& to, const auto& from, int64_t count) {
        if (!from.empty()) to.assign(from.begin(), from.begin() + count);
    };
    rows(p.queries, whole.queries, p.batch);
    rows(p.documents, whole.documents, p.count);
    rows(p.hard, whole.hard, p.batch * p.hard_per_query);
    first(p.given, whole.given, p.batch * shape.rounds);
    for (int32_t& j : p.given) j = j < 0 ? j : j % static_cast<int32_t>(p.count);
    first(p.document_ids, whole.document_ids, p.count);
    first(p.query_ids, whole.query_ids, p.batch);
    first(p.log_probability, whole.log_probability, p.count);
    first(p.weights, whole.weights, p.batch);
    for (int64_t i = 0; positives && i < p.batch; ++i) p.positives.push_back((5 * i + 2) % p.count);
    // The last rows, which end at the page, count and are candidates.
    if (!p.weights.empty()) p.weights.back() = 1;
    if (!p.given.empty()) p.given.back() = static_cast<int32_t>(p.count - 1);
    if (!p.positives.empty()) p.positives.back() = p.count - 1;
    if (!whole.prefix_dims.empty()) {
        for (const int64_t d : {(p.dim + 2) / 3, (2 * p.dim + 1) / 3, p.dim})
            if (p.prefix_dims.empty() || d > p.prefix_dims.back()) p.prefix_dims.push_back(static_cast<int32_t>(d));
        if (p.prefix_dims.size() > 1 && p.batch % 4 == 3) p.prefix_dims.pop_back();  // columns of no prefix
        if (p.batch % 2 == 0) p.prefix_weights.assign(p.prefix_dims.size(), 0.75);
    }
    return p;
}

// Of 257 * 65 pairs, coprime to both.
constexpr int64_t kSome = 101;

// Every step-th pair of d and B from the `first` on; on each, one way through each engine with every instruction set,
// against the pages on both sides. Where pairs are few: each time, else in turn, with the caller's own threads too, for
// whom results are staged, and at an offset.
template <class T>
void check_shapes(int64_t step, int64_t first = 0) {
    variants::Contexts contexts("guard");
    harness::Pool pool;
    negcos::Context staged(harness::callback_options(pool, contexts.best().isa()));
    Arrays arrays(kMostBatch * kHard * (kMostDim + 3) * sizeof(T) + 4096);
    Random random(1);
    int64_t calls = 0;
    for (const std::vector<Way>& engine : kEngines) {
        // Calls of each way whose arrays all touched the page, and of each offset.
        std::vector<int64_t> before(engine.size()), behind(engine.size()), offsets(64 / sizeof(T));
        std::vector<Problem<T>> problems;
        for (const Way& way : engine) problems.push_back(largest<T>(way, 1 + problems.size()));
        for (int64_t pair = first, number = 0; pair < kMostDim * kMostBatch; pair += step, ++number) {
            const int64_t dim = 1 + pair / kMostBatch, batch = 1 + pair % kMostBatch;
            size_t k = 0;
            variants::Shape shape{};
            do {
                k = static_cast<size_t>(random.below(static_cast<int64_t>(engine.size())));
                shape = shape_of<T>(engine[k], batch, dim, random);
            } while (leaves_documents(engine[k], shape));
            const Way& way = engine[k];
            REQUIRE(takes_tiles<T>(way, shape.rounds, shape.count, dim) == way.tiles);
            const Problem<T> p = part_of(problems[k], shape, way.positives);
            const Outputs<T> expected = harness::run(contexts.best(), p);
            const bool more = step >= kSome || random.below(16) == 0;
            for (const Side side : {Side::before, Side::behind, Side::neither}) {
                if (side == Side::neither && !more) continue;
                const int64_t offset = side == Side::neither ? number % static_cast<int64_t>(offsets.size()) : 0;
                const Place place{side, static_cast<size_t>(offset) * sizeof(T), random.below(4)};
                const Call call = lay_out(arrays, p, expected, place);
                REQUIRE(arrays.against_page() == (side != Side::neither));
                const auto check = [&](negcos::Context& context, const std::string& threads) {
                    INFO(std::string(way.name) << " on " << std::string(context.isa()) << threads << ", d " << dim
                                               << ", B " << batch << ", M " << p.count << ", gap " << place.gap
                                               << ", side " << static_cast<int>(side) << ", offset " << offset);
                    arrays.reset();
                    REQUIRE(negcos_evaluate(context.get(), call.options, call.batch, call.result) == NEGCOS_STATUS_OK);
                    if (!arrays.as_expected()) FAIL_CHECK("other bits");
                    ++calls;
                };
                for (negcos::Context& context : contexts.all) check(context, "");
                if (more) check(staged, " with threads of the caller's");
                ++(side == Side::before   ? before[k]
                   : side == Side::behind ? behind[k]
                                          : offsets[static_cast<size_t>(offset)]);
            }
        }
        for (size_t k = 0; k < engine.size(); ++k) {
            INFO(std::string(engine[k].name));
            CHECK(before[k] > 0);
            CHECK(behind[k] > 0);
        }
        for (const int64_t times : offsets) CHECK(times > 0);
    }
    CHECK(pool.calls > 0);
    std::printf("%lld calls between guards\n", static_cast<long long>(calls));
}

// Arrays of `count` against both pages, and at an offset that no other count has.
template <class T>
std::vector<Place> places_of(int64_t count) {
    return {{Side::before}, {Side::behind}, {Side::neither, static_cast<size_t>(count) * sizeof(T) % 64}};
}

void check_draws() {
    negcos::Context context;
    Arrays arrays(1 << 16);
    for (const int32_t sampling : {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_CYCLIC,
                                   NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_LOG_UNIFORM, NEGCOS_SAMPLING_GROUPS})
        for (int64_t batch = 2; batch <= kMostBatch; ++batch) {
            negcos::Options options;
            options.sampling = sampling;
            options.rounds = static_cast<int32_t>(1 + batch % 7);
            if (sampling == NEGCOS_SAMPLING_GROUPS && options.rounds >= batch) continue;
            const int64_t count = batch * options.rounds;
            std::vector<int32_t> expected(static_cast<size_t>(count));
            context.sample(options, batch, batch, expected);
            for (const Place place : places_of<int32_t>(batch)) {
                INFO("sampling " << sampling << ", B " << batch << ", side " << static_cast<int>(place.side));
                arrays.begin(place);
                const int32_t* none = nullptr;
                int32_t* negatives = arrays.output(none, expected.data(), count);
                const auto* given = arrays.input(static_cast<const negcos_options*>(&options), 1);
                arrays.reset();
                REQUIRE(negcos_sample(context.get(), given, batch, batch, negatives) == NEGCOS_STATUS_OK);
                CHECK(arrays.as_expected());
            }
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
        for (int64_t count = 1; count <= kMostBatch; ++count)
            for (const Place place : places_of<int64_t>(count)) {
                INFO("method " << method << ", " << count << " ids, side " << static_cast<int>(place.side));
                std::vector<int64_t> ids(static_cast<size_t>(count));
                std::iota(ids.begin(), ids.end(), -3);
                CHECK(negcos_frequency_update(frequency, ids.data(), count) == NEGCOS_STATUS_OK);
                std::vector<double> expected(ids.size());
                CHECK(negcos_frequency_log_probability(frequency, ids.data(), count, expected.data()) ==
                      NEGCOS_STATUS_OK);
                arrays.begin(place);
                const int64_t* given = arrays.input(ids);
                const double* none = nullptr;
                double* log_probability = arrays.output(none, expected.data(), count);
                arrays.reset();
                CHECK(negcos_frequency_log_probability(frequency, given, count, log_probability) == NEGCOS_STATUS_OK);
                CHECK(arrays.as_expected());
                CHECK(negcos_frequency_update(frequency, given, count) == NEGCOS_STATUS_OK);
            }
        negcos_frequency_destroy(frequency);
    }
}

TEST_SUITE("guard") {
    TEST_CASE("guard: pages that fault do fault") {
        Guarded inputs(1, false), outputs(1, true);
        volatile unsigned char *input = inputs.end() - 1, *output = outputs.end() - 1;
        *inputs.own(inputs.end() - 1) = 1;
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
        check_shapes<float>(kSome);
    }
    TEST_CASE("guard: some shapes of f64") {
        check_shapes<double>(kSome);
    }
    TEST_CASE("guard: some shapes of f16") {
        check_shapes<F16>(kSome);
    }
    TEST_CASE("guard: some shapes of bf16") {
        check_shapes<BF16>(kSome);
    }
    TEST_CASE("guard: draws") {
        check_draws();
    }
    TEST_CASE("guard: the frequency estimator") {
        check_frequency();
    }
}

// NEGCOS_GUARD_STEP: every how many of all shapes, others for each type.
template <class T>
void check_all(int64_t type) {
    const char* text = std::getenv("NEGCOS_GUARD_STEP");
    const int64_t step = text ? std::stoll(text) : 1;
    check_shapes<T>(step, type % step);
}

TEST_SUITE("slow") {
    TEST_CASE("guard: every shape of f32") {
        check_all<float>(0);
    }
    TEST_CASE("guard: every shape of f64") {
        check_all<double>(1);
    }
    TEST_CASE("guard: every shape of f16") {
        check_all<F16>(2);
    }
    TEST_CASE("guard: every shape of bf16") {
        check_all<BF16>(3);
    }
}

}  // namespace
