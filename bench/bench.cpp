// SPDX-License-Identifier: Apache-2.0
//
// Whole calls through the C ABI, each with the limit of the machine for the same work, probed in the same run. Every
// combination of engine, type and instruction set is compared with the oracle before it is timed.
//     bench [--figures] [Google Benchmark's options]
#include <benchmark/benchmark.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "aligned.hpp"
#include "half.hpp"
#include "limits.hpp"
#include "negcos/negcos.hpp"
#include "oracle.hpp"

namespace {

enum class Part { forward, gradients, sampling };

// What the general loss costs beside the plain one. Both directions share one exp while the scale is moderate, and not
// at CLIP's largest, 100. Prefixes are of a quarter, half and all of the columns.
enum class Variant { plain, both, both100, prefixes, sigmoid, smoothed, corrected };

struct Case {
    int64_t batch, dim;
    int32_t rounds;  // all = every document
    Part part = Part::gradients;
    int threads = 1;
    std::string isa;
    int32_t dtype = NEGCOS_DTYPE_F32;
    Variant variant = Variant::plain;
    bool groups = false;  // the rounds are those of GROUPS, else of SHUFFLE
};
constexpr int32_t all = -1;

template <class T>
struct Data {
    Vector<T> queries, documents, grad_queries, grad_documents;
    Data(int64_t batch, int64_t dim) {
        std::mt19937_64 random(1);
        std::normal_distribution<double> normal;
        const std::size_t size = static_cast<std::size_t>(batch * dim);
        for (auto* values : {&queries, &documents})
            for (std::size_t k = 0; k < size; ++k) values->push_back(static_cast<T>(normal(random)));
        grad_queries.resize(size);
        grad_documents.resize(size);
    }
};

negcos::Options options_of(const Case& c) {
    negcos::Options options;
    options.sampling = c.rounds == all ? NEGCOS_SAMPLING_ALL
                       : c.groups      ? NEGCOS_SAMPLING_GROUPS
                                       : NEGCOS_SAMPLING_SHUFFLE;
    options.rounds = c.rounds == all ? 0 : c.rounds;
    const bool both = c.variant == Variant::both || c.variant == Variant::both100;
    if (both) options.direction = NEGCOS_DIRECTION_BOTH;
    if (c.variant == Variant::both100) options.scale = 100;
    if (c.variant == Variant::sigmoid) options.objective = NEGCOS_OBJECTIVE_SIGMOID, options.bias = -10;
    if (c.variant == Variant::smoothed) options.label_smoothing = 0.1;
    if (c.variant == Variant::corrected) options.exclude = NEGCOS_EXCLUDE_SAME_DOCUMENT_ID;
    return options;
}

// What the variants take beside the rows: every eighth document twice, with their log Q.
struct Extras {
    std::vector<int64_t> document_ids;
    std::vector<double> log_probability;
    std::vector<int32_t> prefix_dims;

    explicit Extras(const Case& c) {
        for (int64_t j = 0; j < c.batch && c.variant == Variant::corrected; ++j) {
            document_ids.push_back(j % 8 == 0 ? j / 16 : c.batch + j);
            log_probability.push_back(-std::log(static_cast<double>(c.batch)) - static_cast<double>(j % 3));
        }
        if (c.variant == Variant::prefixes)
            for (const int64_t part : {4, 2, 1}) prefix_dims.push_back(static_cast<int32_t>(c.dim / part));
    }
};

negcos::Context context_of(const Case& c) {
    negcos::ContextOptions options;
    options.threads = c.threads;
    options.isa = c.isa.c_str();
    return negcos::Context(options);
}

template <class T>
void evaluate(negcos::Context& context, negcos::Options options, const Case& c, const Extras& extras, Data<T>& data,
              negcos::Result& result) {
    negcos::Batch batch(negcos::view(std::span<const T>(data.queries), c.batch, c.dim),
                        negcos::view(std::span<const T>(data.documents), c.batch, c.dim));
    if (!extras.document_ids.empty()) {
        batch.document_ids = extras.document_ids.data();
        batch.log_probability = extras.log_probability.data();
    }
    options.prefix_count = static_cast<int32_t>(extras.prefix_dims.size());
    options.prefix_dims = extras.prefix_dims.data();
    if (c.part == Part::gradients) {
        result.grad_queries = negcos::view(std::span<T>(data.grad_queries), c.batch, c.dim);
        result.grad_documents = negcos::view(std::span<T>(data.grad_documents), c.batch, c.dim);
    }
    context.evaluate(options, batch, result);
}

// The same options on at most 256 queries, against the oracle. Returns what is wrong.
template <class T>
std::string check(const Case& timed) {
    Case c = timed;
    c.batch = std::min<int64_t>(c.batch, 256);
    c.rounds = std::min(c.rounds, 64);
    c.part = Part::gradients;
    negcos::Context context = context_of(c);
    if (context.isa() != c.isa) return "another instruction set ran";
    negcos::Options options = options_of(c);
    const Extras extras(c);
    Data<T> data(c.batch, c.dim);
    std::vector<int32_t> negatives(static_cast<std::size_t>(c.batch * options.rounds));
    negcos::Result result;
    if (!negatives.empty()) result.negatives = negatives.data();
    evaluate(context, options, c, extras, data, result);
    oracle::Inputs<T> inputs;
    inputs.batch = inputs.count = c.batch;
    inputs.dim = c.dim;
    inputs.queries.assign(data.queries.begin(), data.queries.end());
    inputs.documents.assign(data.documents.begin(), data.documents.end());
    inputs.negatives = negatives;
    inputs.document_ids = extras.document_ids;
    inputs.log_probability = extras.log_probability;
    options.prefix_count = static_cast<int32_t>(extras.prefix_dims.size());
    options.prefix_dims = extras.prefix_dims.data();
    const auto expected = oracle::evaluate<T>(options, inputs);
    // What is computed in f32 is rounded once more to 16 bits.
    const double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
    const double tolerance = sizeof(T) == 2 ? 2000 * 0x1p-23 + eps : 2000 * eps;
    if (!(std::abs(result.loss - static_cast<double>(expected.loss)) <= tolerance)) return "wrong loss";
    const auto differ = [&](const auto& got, const auto& want) {
        double most = 0, worst = 0;
        for (std::size_t k = 0; k < got.size(); ++k) {
            most = std::max(most, std::abs(static_cast<double>(want[k])));
            worst = std::max(worst, std::abs(static_cast<double>(got[k]) - static_cast<double>(want[k])));
        }
        return !(worst <= tolerance * most);
    };
    if (differ(data.grad_queries, expected.grad_queries)) return "wrong gradient of the queries";
    if (differ(data.grad_documents, expected.grad_documents)) return "wrong gradient of the documents";
    return "";
}

template <class T>
void run(benchmark::State& state, const Case& c) {
    static std::set<std::string> checked;
    const std::string what = c.isa + std::to_string(c.dim) +
                             (c.rounds == all ? "all"
                              : c.groups      ? "groups"
                                              : "") +
                             std::to_string(sizeof(T)) + "/" + std::to_string(static_cast<int>(c.variant));
    if (!checked.count(what)) {
        const std::string wrong = check<T>(c);
        if (!wrong.empty()) return state.SkipWithError(wrong.c_str());
        checked.insert(what);
    }

    negcos::Context context = context_of(c);
    const negcos::Options options = options_of(c);
    const Extras extras(c);
    Data<T> data(c.batch, c.dim);
    std::vector<int32_t> negatives(c.part == Part::sampling ? static_cast<std::size_t>(c.batch * c.rounds) : 0);
    negcos::Result result;
    const auto start = std::chrono::steady_clock::now();
    for (auto _ : state) {
        if (c.part == Part::sampling)
            context.sample(options, c.batch, c.batch, negatives);
        else
            evaluate(context, options, c, extras, data, result);
        benchmark::ClobberMemory();
    }
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    const double seconds = elapsed.count() / static_cast<double>(state.iterations());
    const double batch = static_cast<double>(c.batch), dim = static_cast<double>(c.dim);
    const double pairs = c.rounds == all ? batch * batch : batch * (c.rounds + (c.part != Part::sampling));
    state.counters["ns/pair"] = seconds / pairs * 1e9;
    if (c.part == Part::sampling || c.variant != Variant::plain) return;
    if (c.rounds == all || c.groups) {
        const double flops = pairs * dim * (c.part == Part::gradients ? 6 : 2);
        state.counters["GFLOP/s"] = flops / seconds / 1e9;
        state.counters["of_limit"] = flops / seconds / limits::fma_rate(c.isa, sizeof(T) == 8, c.threads);
    } else {
        const int passes = c.part == Part::gradients ? 2 : 1;
        const int64_t row = c.dim * static_cast<int64_t>(sizeof(T));
        state.counters["GB/s"] = pairs * static_cast<double>(row) * passes / seconds / 1e9;
        state.counters["of_limit"] =
            limits::gather_seconds(c.batch, row, c.batch * (c.rounds + 1), passes, c.threads) / seconds;
    }
}

void add(const Case& c) {
    static const char* const dtypes[] = {"f32", "f64", "f16", "bf16"};
    static const char* const parts[] = {"forward", "gradients", "sampling"};
    static const char* const variants[] = {"", "/both", "/both100", "/prefixes", "/sigmoid", "/smoothed", "/corrected"};
    const std::string name =
        std::string(c.rounds == all ? "tiles"
                    : c.groups      ? "groups"
                                    : "gather") +
        "/" + parts[static_cast<int>(c.part)] + "/B:" + std::to_string(c.batch) + "/d:" + std::to_string(c.dim) +
        "/rounds:" + (c.rounds == all ? "all" : std::to_string(c.rounds)) + "/" + c.isa + "/" + dtypes[c.dtype] +
        "/threads:" + std::to_string(c.threads) + variants[static_cast<int>(c.variant)];
    void (*const runs[])(benchmark::State&, const Case&) = {run<float>, run<double>, run<half::F16>, run<half::BF16>};
    benchmark::RegisterBenchmark(name.c_str(), [c, run = runs[c.dtype]](benchmark::State& state) { run(state, c); })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
}

}  // namespace

int main(int argc, char** argv) {
    bool figures = false;
    if (argc > 1 && std::strcmp(argv[1], "--figures") == 0) figures = true, argv[1] = argv[0], ++argv, --argc;

    std::vector<std::string> isas;
    for (int32_t k = 0; k < negcos_isa_count(); ++k)
        if (negcos_isa_available(negcos_isa_name(k))) isas.push_back(negcos_isa_name(k));
    const std::string best = isas.front();
    const int most = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    std::vector<int> thread_counts = {1};
    if (most > 1) thread_counts.push_back(most);

    // The headline shapes: every part of the call, and how it scales.
    for (const int threads : thread_counts) {
        for (const Part part : {Part::sampling, Part::forward, Part::gradients})
            add({4096, 128, 50, part, threads, best});
        for (const Part part : {Part::forward, Part::gradients}) add({4096, 128, all, part, threads, best});
        add({2048, 768, all, Part::gradients, threads, best});
        add({1024, 64, all, Part::gradients, threads, best});
    }
    // As many negatives dealt in groups and gathered.
    for (const int threads : thread_counts)
        for (const bool groups : {true, false}) {
            for (const int64_t dim : {16, 32, 64, 128, 256, 768})
                add({4096, dim, 63, Part::gradients, threads, best, NEGCOS_DTYPE_F32, Variant::plain, groups});
            for (const int32_t rounds : {4, 15, 255})
                add({4096, 128, rounds, Part::gradients, threads, best, NEGCOS_DTYPE_F32, Variant::plain, groups});
            add({65536, 128, 63, Part::gradients, threads, best, NEGCOS_DTYPE_F32, Variant::plain, groups});
        }
    add({32, 64, 4, Part::gradients, most, best});
    add({4096, 128, 50, Part::gradients, most, best, NEGCOS_DTYPE_F64});
    add({4096, 128, all, Part::gradients, most, best, NEGCOS_DTYPE_F64});
    // The rest of the family beside the plain loss; `./dev bench variants` gives the ratios.
    for (const auto& [batch, dim, rounds] : {std::tuple<int64_t, int64_t, int32_t>{4096, 128, all},
                                             {1024, 128, all},
                                             {1024, 384, all},
                                             {2048, 768, all},
                                             {4096, 128, 50},
                                             {4096, 384, 20},
                                             {4096, 768, 20}})
        for (const Variant variant : {Variant::plain, Variant::both, Variant::both100, Variant::prefixes,
                                      Variant::sigmoid, Variant::smoothed, Variant::corrected})
            if (rounds == all || (variant != Variant::both && variant != Variant::both100))
                if (variant != Variant::plain || batch != 4096 || dim != 128)  // a headline already
                    add({batch, dim, rounds, Part::gradients, 1, best, NEGCOS_DTYPE_F32, variant});
    // Rows of half the bytes, from each level of the memory: the batch of 1024 fits a second-level cache.
    for (const int64_t batch : {1024, 4096, 16384, 65536})
        for (const int64_t dim : {128, 512})
            for (const int threads : thread_counts)
                for (const int32_t dtype : {NEGCOS_DTYPE_F32, NEGCOS_DTYPE_F16, NEGCOS_DTYPE_BF16})
                    add({batch, dim, 20, Part::gradients, threads, best, dtype});
    // Instruction sets against each other.
    for (const std::string& isa : isas) {
        if (isa == "scalar") continue;
        for (const int64_t dim : {16, 32, 64, 128, 256, 512, 1024}) {
            add({4096, dim, 20, Part::gradients, 1, isa});
            add({1024, dim, all, Part::gradients, 1, isa});
        }
    }
    if (figures) {  // the whole plane, minutes more
        for (const int64_t batch : {256, 1024, 16384, 65536, 262144, 1048576})
            add({batch, 128, 20, Part::gradients, most, best});
        for (const int64_t batch : {256, 1024, 4096, 65536})
            for (const int64_t dim : {16, 64, 256, 1024}) add({batch, dim, 20, Part::gradients, most, best});
        for (const int32_t rounds : {1, 4, 20, 100, 300, 1000}) add({4096, 128, rounds, Part::gradients, most, best});
        // Sparse to dense samples: where the plan goes over to tiles.
        for (const int32_t rounds : {32, 64, 128, 256}) add({256, 128, rounds, Part::gradients, most, best});
        for (const int64_t batch : {256, 512, 2048, 8192}) add({batch, 128, all, Part::gradients, most, best});
    }

    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    benchmark::AddCustomContext("isa", best);
    benchmark::AddCustomContext("version", std::to_string(negcos_version()));
    benchmark::RunSpecifiedBenchmarks();
}
