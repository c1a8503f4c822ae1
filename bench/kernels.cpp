// SPDX-License-Identifier: Apache-2.0
//
// The kernels one by one, from the same tables that the library calls: operands in the second-level cache, one thread.
// Each is compared, bit for bit, with the scalar build's before it is timed.
//     bench_kernels [Google Benchmark's options]
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "aligned.hpp"
#include "dispatch.hpp"
#include "limits.hpp"
#include "negcos/negcos.h"

namespace {

using negcos::Kernels;
using negcos::KernelTable;

const Kernels& kernels_of(const std::string& isa) {
    const Kernels* kernels = nullptr;
    negcos::select_kernels(negcos::cpu_features(), isa.c_str(), nullptr, &kernels);
    return *kernels;
}

template <class T>
Vector<T> normal(int64_t count) {
    std::mt19937_64 random(1);
    std::normal_distribution<double> normal;
    Vector<T> values(static_cast<std::size_t>(count));
    for (T& value : values) value = static_cast<T>(normal(random));
    return values;
}

// What one call of a kernel does, and how it is counted.
struct Work {
    std::function<void(const Kernels&)> call;
    std::function<std::string()> result;  // the bytes that the last call wrote
    double items = 0;                     // elements, words or pairs
    double bytes = 0;                     // read
    double flops = 0;
};

template <class T>
std::string bytes_of(const Vector<T>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// Sizes of 192 rows, the tile engine's block.
constexpr int64_t kRows = 192;

template <class T>
struct Operands {
    int64_t dim, width, stride, score_stride;
    Vector<T> rows, inverse, project, rescale, units, panels, scores, positives, top, weight, partial, sums, scratch,
        edges, gradient, losses;
    Vector<negcos::Sums> sums_of_chunks;
    Vector<int32_t> negatives;
    negcos::Rows<T> matrix;

    explicit Operands(int64_t d)
        : dim(d),
          width(negcos::pad_lanes<T>(d)),
          stride(negcos::odd_lines<T>(d)),
          score_stride(negcos::odd_lines<T>(kRows)),
          rows(normal<T>(kRows * d)) {
        const auto sized = [](auto& values, int64_t count) { values.resize(static_cast<std::size_t>(count)); };
        for (auto* values : {&inverse, &project, &rescale, &positives, &top, &weight, &losses}) sized(*values, kRows);
        for (auto* values : {&units, &partial, &sums, &gradient}) sized(*values, kRows * stride);
        sized(panels, kRows * width);
        sized(scores, kRows * score_stride);
        sized(edges, kRows * (kRounds + 1));
        sized(sums_of_chunks, kRows);
        sized(negatives, kRows * kRounds);
        std::mt19937_64 random(2);
        for (int32_t& j : negatives) j = static_cast<int32_t>(random() % kRows);
        matrix = {rows.data(), d, kRows, inverse.data(), project.data(), rescale.data(), false};
    }

    void prepare(const Kernels& kernels) {
        const KernelTable<T>& table = kernels.table<T>();
        scratch.resize(static_cast<std::size_t>(
            std::max(table.gather_scratch(dim, kRounds + 1), table.tile_scratch(stride, kRows, 1))));
        table.norms(matrix, dim, 1e-12, {0, kRows});
        table.tile_pack(matrix, dim, units.data(), panels.data(), {0, kRows});
    }

    negcos::Tiles<T> tiles() {
        negcos::Tiles<T> t;
        t.queries = t.documents = matrix;
        t.dim = dim, t.width = width, t.stride = stride;
        t.block = t.chunk = kRows, t.chunks = 1, t.score_stride = score_stride;
        t.terms.factor = 20, t.terms.row_weight = 1.0 / kRows;
        t.gradients = true;
        t.query_units = t.document_units = units.data();
        t.panels = panels.data();
        t.scores = scores.data();
        t.positives = positives.data();
        t.chunk_top = top.data(), t.chunk_sums = sums_of_chunks.data();
        t.chunk_share = t.positive_slope = weight.data();
        t.partial = partial.data();
        t.document_sums = sums.data();
        return t;
    }

    negcos::GatherQueries<T> gather() {
        negcos::GatherQueries<T> g;
        g.queries = g.documents = matrix;
        g.dim = dim;
        g.candidates = {negatives.data(), kRounds, 1, kRounds, true};
        g.terms.factor = 20, g.terms.row_weight = 1.0 / kRows;
        g.slopes = edges.data();
        g.outputs.losses = {losses.data(), 1};
        g.outputs.grad_queries = {gradient.data(), stride};
        return g;
    }

    static constexpr int32_t kRounds = 50;
};

Work philox_work(int64_t) {
    auto words = std::make_shared<Vector<uint32_t>>(4 * negcos::kPhiloxBlocks);
    return {[=](const Kernels& k) {
                k.philox({1, 2}, {3, 4, 5, 6}, words->data());
            },
            [=] { return bytes_of(*words); }, 4 * negcos::kPhiloxBlocks, 0, 0};
}

template <class T>
Work norms_work(int64_t dim) {
    auto o = std::make_shared<Operands<T>>(dim);
    return {[=](const Kernels& k) {
                k.table<T>().norms(o->matrix, dim, 1e-12, {0, kRows});
            },
            [=] { return bytes_of(o->inverse); }, kRows, static_cast<double>(kRows * dim) * sizeof(T), 0};
}

template <class T>
Work gather_queries_work(int64_t dim) {
    auto o = std::make_shared<Operands<T>>(dim);
    const double pairs = kRows * (o->kRounds + 1);
    return {[=](const Kernels& k) {
                if (o->scratch.empty()) o->prepare(k);
                k.table<T>().gather_queries(o->gather(), {0, kRows}, o->scratch.data());
            },
            [=] { return bytes_of(o->gradient) + bytes_of(o->edges) + bytes_of(o->losses); }, pairs,
            pairs * static_cast<double>(dim) * sizeof(T), 4 * pairs * static_cast<double>(dim)};
}

template <class T>
Work tile_scores_work(int64_t dim) {
    auto o = std::make_shared<Operands<T>>(dim);
    const double pairs = kRows * kRows;
    return {[=](const Kernels& k) {
                if (o->scratch.empty()) o->prepare(k);
                k.table<T>().tile_scores(o->tiles(), {0, kRows}, 0, o->scratch.data());
            },
            [=] { return bytes_of(o->scores) + bytes_of(o->sums_of_chunks); }, pairs, 0,
            2 * pairs * static_cast<double>(dim)};
}

template <class T>
Work tile_documents_work(int64_t dim) {
    auto o = std::make_shared<Operands<T>>(dim);
    const double pairs = kRows * kRows;
    return {[=](const Kernels& k) {
                if (o->scratch.empty()) {
                    o->prepare(k);
                    k.table<T>().tile_scores(o->tiles(), {0, kRows}, 0, o->scratch.data());
                    std::fill(o->weight.begin(), o->weight.end(), T(0.5));
                }
                k.table<T>().tile_documents(o->tiles(), {0, kRows}, 0, o->scratch.data());
            },
            [=] { return bytes_of(o->sums); }, pairs, 0, 2 * pairs * static_cast<double>(dim)};
}

void run(benchmark::State& state, const std::function<Work(int64_t)>& make, const std::string& isa, int64_t dim,
         bool f64) {
    const Kernels& kernels = kernels_of(isa);
    const Work work = make(dim), reference = make(dim);
    work.call(kernels);
    reference.call(kernels_of("scalar"));
    if (work.result() != reference.result()) return state.SkipWithError("other bits than the scalar build");
    const auto start = std::chrono::steady_clock::now();
    for (auto _ : state) {
        work.call(kernels);
        benchmark::ClobberMemory();
    }
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    const double seconds = elapsed.count() / static_cast<double>(state.iterations());
    state.counters["ns/item"] = seconds / work.items * 1e9;
    if (work.bytes > 0) state.counters["GB/s"] = work.bytes / seconds / 1e9;
    if (work.flops > 0) {
        state.counters["GFLOP/s"] = work.flops / seconds / 1e9;
        state.counters["of_peak"] = work.flops / seconds / limits::fma_rate(isa, f64, 1);
    }
}

}  // namespace

int main(int argc, char** argv) {
    struct Kernel {
        const char* name;
        std::function<Work(int64_t)> f32, f64;
        bool by_dim;
    };
    const Kernel kernels[] = {
        {"philox", philox_work, nullptr, false},
        {"norms", norms_work<float>, norms_work<double>, true},
        {"gather_queries", gather_queries_work<float>, gather_queries_work<double>, true},
        {"tile_scores", tile_scores_work<float>, tile_scores_work<double>, true},
        {"tile_documents", tile_documents_work<float>, tile_documents_work<double>, true},
    };
    for (int32_t k = 0; k < negcos_isa_count(); ++k) {
        const std::string isa = negcos_isa_name(k);
        if (!negcos_isa_available(isa.c_str()) || isa == "scalar") continue;
        for (const Kernel& kernel : kernels)
            for (const bool f64 : {false, true})
                for (const int64_t dim : {16, 128, 768}) {
                    const auto& make = f64 ? kernel.f64 : kernel.f32;
                    if (!make || (!kernel.by_dim && dim != 16)) continue;
                    const std::string name = std::string("kernel/") + kernel.name +
                                             (kernel.by_dim ? "/d:" + std::to_string(dim) : "") + "/" + isa +
                                             (f64 ? "/f64" : "/f32");
                    benchmark::RegisterBenchmark(name.c_str(),
                                                 [=](benchmark::State& state) { run(state, make, isa, dim, f64); });
                }
    }
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    benchmark::RunSpecifiedBenchmarks();
}
