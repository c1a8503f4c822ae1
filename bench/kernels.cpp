// SPDX-License-Identifier: Apache-2.0
//
// The kernels one by one, from the same tables that the library calls: operands in the second-level cache, one thread.
// They run in the order in which the walks call them, each on what those before it left. After each, all memory is
// compared, bit for bit, with that of the scalar build; then it is timed.
//     bench_kernels [Google Benchmark's options]
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "aligned.hpp"
#include "dispatch.hpp"
#include "half.hpp"
#include "limits.hpp"
#include "negcos/negcos.h"
#include "norms.hpp"
#include "pairs.hpp"
#include "problem.hpp"

namespace {

using negcos::Arena;
using negcos::Kernels;
using negcos::KernelTable;
using negcos::Range;

const Kernels& kernels_of(const std::string& isa) {
    const Kernels* kernels = nullptr;
    negcos::select_kernels(negcos::cpu_features(), isa.c_str(), nullptr, &kernels);
    return *kernels;
}

template <class E>
E element(double x) {
    if constexpr (std::is_same_v<E, negcos::F16>)
        return {half::F16(x).bits};
    else if constexpr (std::is_same_v<E, negcos::BF16>)
        return {half::BF16(x).bits};
    else
        return static_cast<E>(x);
}

template <class E>
void fill_normal(E* values, int64_t count, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    for (int64_t k = 0; k < count; ++k) values[k] = element<E>(normal(random));
}

// 192 queries and as many documents: a block of the tiles, and whole lanes, so that nothing here needs padding.
constexpr int64_t kRows = 192, kRounds = 50, kSlots = kRounds + 1, kHard = 4, kLogs = 4096;
constexpr int64_t kPairs = kRows * kRows, kDrawn = kRows * kRounds, kEdges = kRows * kSlots, kHardEdges = kRows * kHard;
constexpr int64_t kGeneralEdges = kEdges + kHardEdges;
constexpr int64_t kGroup = 50;  // queries of a group; a window reaches back
constexpr int64_t kGroupPairs = kRows * kGroup;
constexpr Range kAll = {0, kRows};

// One plain and one general problem, with one set of kernels: all that these read and write.
template <class E>
class State {
    using T = negcos::Working<E>;

public:
    State(const std::string& isa, int64_t dim) : kernels_(kernels_of(isa)), table_(kernels_.table<E>()), dim_(dim) {
        plain_.dim = general_.dim = dim;
        general_.prefix_count = 2;
        general_.both = true;
        Arena count;
        lay_out(count);
        memory_.resize(count.used());
        Arena arena(memory_.data());
        lay_out(arena);
        for (negcos::TilePrefix<E>* tile : {&plain_tile_, general_prefixes_, general_prefixes_ + 1})
            for (T** panels : {&tile->document_panels, &tile->column_panels}) {
                panels_.emplace_back(static_cast<std::size_t>(kRows * dim_));
                *panels = panels_.back().data();
            }
        fill();
        pairs_.build(serial_, kernels_, true);
        describe_plain();
        describe_general();
    }

    // After the same kernels as `other`: whether they wrote the same, and nothing beyond the scratch that they asked
    // for.
    bool operator==(const State& other) const { return memory_ == other.memory_ && intact() && other.intact(); }
    void restore(const State& other) { memory_ = other.memory_; }

    void philox() { kernels_.philox({1, 2}, {3, 4, 5, 6}, words_); }
    void log_of_sum() { kernels_.log_of_sum(ones_, odds_, logs_, kLogs); }
    void query_norms() { table_.norms(plain_.queries(), dim_, 1e-12, kAll); }
    void norms() { *norm_counts_ = table_.norms(plain_.documents(), dim_, 1e-12, kAll); }

    void gather_scratch() { take_scratch(table_.gather_scratch(gather_)); }
    void gather_queries() { *totals_ = table_.gather_queries(gather_, kAll, scratch_.data()); }
    void gather_documents() { table_.gather_documents(gather_, kAll, scratch_.data()); }
    void gather_similarities() {
        negcos::Gather<E> similarities = gather_;
        similarities.positives = positives_;
        table_.gather_queries(similarities, kAll, scratch_.data());
    }
    void batch_softmax() {
        *totals_ = table_.batch_softmax({kRows, positives_, plain_.terms, batch_slopes_, batch_exps_, plain_.outputs});
    }

    void tile_scratch() { take_scratch(table_.tile_scratch(tiles_)); }
    void tile_pack_documents() { table_.tile_pack_documents(tiles_, 0, scratch_.data()); }
    void tile_pack_queries() { table_.tile_pack_queries(tiles_, {0, tiles_.strips()}, scratch_.data()); }
    void tile_queries_counted() {
        negcos::Tiles<E> tiles = tiles_;
        tiles.candidates = pairs_.candidates();
        tiles.counts = counts_;
        queries_of(tiles, {});
    }
    void tile_queries_forward() {
        negcos::Tiles<E> tiles = tiles_;
        tiles.outputs.grad_queries = tiles.outputs.grad_documents = {};
        queries_of(tiles, {});
    }
    void tile_queries() { queries_of(tiles_, {}); }
    void tile_documents() { table_.tile_documents(tiles_, 0, 1, 0, scratch_.data()); }
    void tile_finish_documents() { table_.tile_finish_documents(tiles_, 0, scratch_.data()); }
    void tile_totals() { *totals_ = table_.tile_totals(tiles_); }

    void groups_scratch() { take_scratch(table_.groups_scratch(dim_, kGroup)); }
    void groups_windows() { *totals_ = table_.groups_windows(groups_of_, {0, kRows / kGroup}, scratch_.data()); }

    void general_norms() {
        *norm_counts_ = {};
        negcos::find_norms(general_, NEGCOS_SIMILARITY_COSINE, 1e-12, serial_, table_, *norm_counts_);
    }
    void general_gather_scratch() { take_scratch(table_.gather_scratch(general_gather_)); }
    void general_gather_queries() { *totals_ = table_.gather_queries(general_gather_, kAll, scratch_.data()); }
    void general_gather_documents() { table_.gather_documents(general_gather_, kAll, scratch_.data()); }
    void hard_gradient() {
        table_.hard_gradient({general_.prefixes, general_.prefix_count, dim_, kHard, general_.terms.factor,
                              general_gather_.hard_slopes, general_.outputs.grad_hard_negatives},
                             kAll, scratch_.data());
    }

    void general_tile_scratch() { take_scratch(table_.tile_scratch(general_tiles_)); }
    void general_tile_pack() {
        table_.tile_pack_documents(general_tiles_, 0, scratch_.data());
        table_.tile_pack_queries(general_tiles_, {0, general_tiles_.strips()}, scratch_.data());
    }
    void general_tile_sums() { queries_of(general_tiles_, {.sums = true, .slopes = false}); }
    void tile_columns() { table_.tile_columns(general_tiles_, 0, 1, 0); }
    void tile_close_documents() { table_.tile_close_documents(general_tiles_, kAll); }
    void general_tile_slopes() { queries_of(general_tiles_, {.sums = false, .slopes = true}); }
    void general_tile_documents() { table_.tile_documents(general_tiles_, 0, 1, 0, scratch_.data()); }
    void general_tile_finish() { table_.tile_finish_documents(general_tiles_, 0, scratch_.data()); }
    void general_tile_totals() { *totals_ = table_.tile_totals(general_tiles_); }

private:
    void queries_of(const negcos::Tiles<E>& tiles, negcos::TilePass pass) {
        for (int64_t strip = 0; strip < tiles.strips(); strip += negcos::kStripsPerTask)
            table_.tile_queries(tiles, pass, 0, 0, {strip, std::min(strip + negcos::kStripsPerTask, tiles.strips())},
                                scratch_.data());
    }

    void lay_out(Arena& arena) {
        const auto take = [&]<class X>(X*& array, int64_t count) { array = arena.take<X>(count); };
        take(words_, 4 * negcos::kPhiloxBlocks);
        for (double** array : {&ones_, &odds_, &logs_}) take(*array, kLogs);
        take(norm_counts_, 1);
        take(totals_, 1);
        take(scratch_size_, 1);
        for (E** rows : {&queries_, &documents_}) take(*rows, kRows * dim_);
        take(hard_, kHardEdges * dim_);
        take(negatives_, kDrawn);
        pairs_ = negcos::Pairs(given(), negatives_, kRows, kRows, nullptr);
        pairs_.reserve(arena, 1, true);
        take(groups_, kRows);
        take(group_start_, kRows / 2 + 1);
        take(group_documents_, kRows);
        take(dealt_, kRows);
        take(groups_of_.common, kGroup * negcos::pad_lanes<T>(dim_));
        take(groups_of_.common_moments, kGroup);

        for (negcos::Problem<E>* problem : {&plain_, &general_}) {
            const int64_t prefix_dim = dim_ / problem->prefix_count;
            for (int64_t p = 0; p < problem->prefix_count; ++p) {
                negcos::Prefix<E>& prefix = problem->prefixes[p];
                prefix.dim = prefix_dim;
                prefix.queries = rows_of(queries_ + p * prefix_dim, kRows);
                prefix.documents = rows_of(documents_ + p * prefix_dim, kRows);
                prefix.hard = rows_of(hard_ + p * prefix_dim, kHardEdges);
            }
            negcos::reserve_norms(*problem, arena);
            negcos::Outputs<E>& outputs = problem->outputs;
            for (negcos::Output<E>* output : {&outputs.losses, &outputs.hit_probability})
                *output = {arena.take<E>(kRows), 1};
            for (negcos::Output<E>* output : {&outputs.grad_queries, &outputs.grad_documents})
                *output = {arena.take<E>(kRows * negcos::odd_lines<T>(dim_)), negcos::odd_lines<T>(dim_)};
            outputs.grad_hard_negatives = {arena.take<E>(kHardEdges * dim_), dim_};
        }

        take(gather_.arcs, kEdges + negcos::kArcsAhead);
        for (T** array : {&positives_, &batch_slopes_, &batch_exps_}) take(*array, kRows);

        lay_out_tiles(arena, tiles_, plain_, &plain_tile_);
        lay_out_tiles(arena, general_tiles_, general_, general_prefixes_);
        take(counts_, kRows / kLine * tiles_.strip_stride);
        take(tiles_.totals, kRows / kLine);

        const int64_t record = negcos::edge_record(general_.prefix_count);
        take(general_gather_.arcs, (kEdges + negcos::kArcsAhead) * record);
        take(general_gather_.hard_slopes, kHardEdges * record);
        take(general_tiles_.hard_similarities, general_.prefix_count * kHardEdges);
        take(general_tiles_.hard_slopes, kHardEdges * record);
        for (negcos::RowEnd** ends : {&general_tiles_.queries, &general_tiles_.documents}) take(*ends, kRows);
    }

    void lay_out_tiles(Arena& arena, negcos::Tiles<E>& tiles, const negcos::Problem<E>& problem,
                       negcos::TilePrefix<E>* prefixes) {
        tiles.prefixes = problem.prefixes;
        tiles.tiles = prefixes;
        tiles.prefix_count = problem.prefix_count;
        tiles.dim = dim_;
        tiles.block = tiles.chunk = kRows;
        tiles.chunks = 1;
        tiles.strip_stride = (kRows | 1) * kLine;
        tiles.general = problem.both;
        tiles.both = problem.both;
        tiles.shifts = arena.take<T>(kRows);
        for (int64_t p = 0; p < problem.prefix_count; ++p) {
            negcos::TilePrefix<E>& tile = prefixes[p];
            tile.width = negcos::pad_lanes<T>(problem.prefixes[p].dim);
            for (T** units :
                 {&tile.query_units, &tile.query_strips, &tile.shared_units, &tile.query_sums, &tile.document_sums})
                *units = arena.take<T>(kRows * tile.width);
            tile.scores = arena.take<T>(kRows / kLine * tiles.strip_stride);
            for (T** array :
                 {&tile.positives, &tile.query_share, &tile.query_top, &tile.query_smooth, &tile.positive_slope,
                  &tile.nonfinite, &tile.document_top, &tile.document_share, &tile.document_smooth})
                *array = arena.take<T>(kRows);
            tile.document_row = arena.take<negcos::Sums>(kRows);
            if (!problem.both) continue;
            tile.document_moment = arena.take<double>(kRows);
            tile.column_parts = arena.take<T>(tiles.tasks() * negcos::kColumnFields * kRows);
        }
    }

    static negcos_options given() {
        negcos_options options = {};
        options.sampling = NEGCOS_SAMPLING_GIVEN;
        options.rounds = kRounds;
        return options;
    }
    negcos::Rows<E> rows_of(const E* data, int64_t count) const {
        negcos::Rows<E> rows;
        rows.data = data;
        rows.stride = dim_;
        rows.count = count;
        return rows;
    }

    void fill() {
        std::mt19937_64 random(2);
        for (int64_t k = 0; k < kLogs; ++k) {
            ones_[k] = 1;
            odds_[k] = std::ldexp(1.0 + static_cast<double>(random() % 4096), static_cast<int>(random() % 60) - 30);
        }
        for (int64_t k = 0; k < kDrawn; ++k) negatives_[k] = static_cast<int32_t>(random() % kRows);
        fill_normal(queries_, kRows * dim_, 1);
        fill_normal(documents_, kRows * dim_, 3);
        fill_normal(hard_, kHardEdges * dim_, 4);
        for (int32_t i = 0; i < kRows; ++i) groups_[i] = i / 2, group_documents_[i] = i, dealt_[i] = 5 * i % kRows;
        for (int64_t g = 0; g <= kRows / 2; ++g) group_start_[g] = 2 * g;
    }

    void describe_plain() {
        plain_.terms.factor = 20;
        plain_.terms.row_weight = 1.0 / kRows;
        gather_.prefixes = plain_.prefixes;
        gather_.dim = dim_;
        gather_.terms = tiles_.terms = plain_.terms;
        gather_.outputs.losses = plain_.outputs.losses;
        gather_.outputs.grad_queries = plain_.outputs.grad_queries;
        gather_.outputs.grad_documents = plain_.outputs.grad_documents;
        gather_.candidates = pairs_.candidates();
        gather_.candidates.complete = true;  // like drawn ones
        gather_.lists = pairs_.lists();
        tiles_.outputs = plain_.outputs;
        groups_of_.queries = plain_.queries();
        groups_of_.documents = plain_.documents();
        groups_of_.dim = dim_;
        groups_of_.deal = {dealt_, kRows, kGroup};
        groups_of_.terms = plain_.terms;
        groups_of_.outputs = plain_.outputs;
    }

    void describe_general() {
        negcos::LossTerms<T>& terms = general_.terms;
        terms.factor = 20;
        terms.hardness = 0.5;
        terms.margin = 0.1;
        terms.smoothing = 0.1;
        terms.false_negative_margin = 0.1;
        terms.bounded = terms.weights_at_most_one = true;
        terms.same_document = {groups_, group_start_, group_documents_, groups_};
        terms.total_weight = kRows;
        terms.row_weight = 1.0 / kRows;
        terms.hard = kHard;

        general_gather_.prefixes = general_.prefixes;
        general_gather_.prefix_count = general_.prefix_count;
        general_gather_.dim = dim_;
        general_gather_.general = true;
        general_gather_.terms = general_tiles_.terms = terms;
        general_gather_.outputs = general_tiles_.outputs = general_.outputs;
        general_gather_.candidates = pairs_.candidates();
        general_gather_.lists = pairs_.lists();
    }

    // As much as was asked for, and a line that nobody may touch. The size is compared like all that kernels write.
    void take_scratch(int64_t size) {
        *scratch_size_ = size;
        scratch_.assign(static_cast<std::size_t>(size + kLine), kUntouched);
    }
    bool intact() const {
        return std::all_of(scratch_.begin() + *scratch_size_, scratch_.end(), [](T x) { return x == kUntouched; });
    }
    static constexpr int64_t kLine = negcos::kVirtualLanes<T>;
    static constexpr T kUntouched = T(12345);

    const Kernels& kernels_;
    const KernelTable<E>& table_;
    const int64_t dim_;
    negcos::Parallel serial_{negcos::Threading::serial, 1, nullptr, nullptr};
    Vector<unsigned char> memory_;
    Vector<T> scratch_;
    std::vector<Vector<T>> panels_;  // of as many rows as the registers hold: not compared

    uint32_t* words_ = nullptr;
    double *ones_ = nullptr, *odds_ = nullptr, *logs_ = nullptr;
    negcos::NormCounts* norm_counts_ = nullptr;
    negcos::Totals* totals_ = nullptr;
    int64_t* scratch_size_ = nullptr;
    E *queries_ = nullptr, *documents_ = nullptr, *hard_ = nullptr;
    int32_t *negatives_ = nullptr, *groups_ = nullptr, *group_documents_ = nullptr, *dealt_ = nullptr;
    int64_t* group_start_ = nullptr;
    T *positives_ = nullptr, *batch_slopes_ = nullptr, *batch_exps_ = nullptr, *counts_ = nullptr;
    negcos::Pairs pairs_{kRows, kRows, nullptr};
    negcos::Problem<E> plain_, general_;
    negcos::Gather<E> gather_;
    negcos::Tiles<E> tiles_;
    negcos::Groups<E> groups_of_;
    negcos::Gather<E> general_gather_;
    negcos::Tiles<E> general_tiles_;
    negcos::TilePrefix<E> plain_tile_, general_prefixes_[2];
};

// A step of the walks.
template <class E>
struct Step {
    const char* name;
    void (State<E>::*call)();
    std::size_t slot;       // its place in the table; kNoSlot: not of the table, or another call of a slot
    double items = 0;       // rows, pairs, words or numbers; 0 = not timed
    double row_reads = 0;   // rows read
    double pair_sums = 0;   // multiply-adds, per column
    bool all_dims = false;  // not 128 alone
};
constexpr std::size_t kNoSlot = static_cast<std::size_t>(-1);

#define STEP(name) #name, &S::name
#define SLOT(name) #name, &S::name, offsetof(Table, name)
template <class E, class S = State<E>, class Table = KernelTable<E>>
constexpr Step<E> kSteps[] = {
    {STEP(philox), kNoSlot, std::is_same_v<E, float> ? 4.0 * negcos::kPhiloxBlocks : 0},
    {STEP(log_of_sum), kNoSlot, std::is_same_v<E, double> ? kLogs : 0.0},
    {STEP(query_norms), kNoSlot},
    {SLOT(norms), kRows, kRows, 0, true},

    {SLOT(gather_scratch)},
    {SLOT(gather_queries), kEdges, kEdges, 2 * kEdges, true},
    {SLOT(gather_documents), kEdges, kEdges, kEdges},
    {STEP(gather_similarities), kNoSlot},
    {SLOT(batch_softmax), kRows},

    {SLOT(tile_scratch)},
    {SLOT(tile_pack_documents), kRows, kRows},
    {SLOT(tile_pack_queries), kRows, 2 * kRows},
    {STEP(tile_queries_counted), kNoSlot, kPairs},
    {STEP(tile_queries_forward), kNoSlot, kPairs, 0, kPairs},
    {SLOT(tile_queries), kPairs, 0, 2 * kPairs, true},
    {SLOT(tile_documents), kPairs, 0, kPairs, true},
    {SLOT(tile_finish_documents), kRows},
    {SLOT(tile_totals), kRows},

    {SLOT(groups_scratch)},
    {SLOT(groups_windows), kGroupPairs, 0, 3 * kGroupPairs, true},

    {STEP(general_norms), kNoSlot},
    {STEP(general_gather_scratch), kNoSlot},
    {STEP(general_gather_queries), kNoSlot, kGeneralEdges, kGeneralEdges, 2 * kGeneralEdges},
    {STEP(general_gather_documents), kNoSlot, kEdges, kEdges, kEdges},
    {SLOT(hard_gradient), kHardEdges},

    {STEP(general_tile_scratch), kNoSlot},
    {STEP(general_tile_pack), kNoSlot, kRows, 3 * kRows},
    {STEP(general_tile_sums), kNoSlot, kPairs, 0, kPairs},
    {SLOT(tile_columns), kRows},
    {SLOT(tile_close_documents), kRows},
    {STEP(general_tile_slopes), kNoSlot, kPairs, 0, 2 * kPairs},
    {STEP(general_tile_documents), kNoSlot, kPairs, 0, kPairs},
    {STEP(general_tile_finish), kNoSlot, kRows},
    {STEP(general_tile_totals), kNoSlot, kRows},
};
#undef STEP
#undef SLOT

template <class E>
constexpr bool every_slot_has_a_step() {
    for (std::size_t slot = 0; slot < sizeof(KernelTable<E>); slot += sizeof(void (*)()))
        if (std::none_of(std::begin(kSteps<E>), std::end(kSteps<E>), [&](const auto& s) { return s.slot == slot; }))
            return false;
    return true;
}
static_assert(every_slot_has_a_step<float>());
static_assert(sizeof(Kernels) == sizeof(const char*) + 4 * sizeof(KernelTable<float>) + 2 * sizeof(void (*)()),
              "philox and log_of_sum are all beside the tables");

// The same problems with the kernels of an instruction set and with the scalar ones, side by side.
template <class E>
class Comparison {
public:
    Comparison(const std::string& isa, int64_t dim) : state_(isa, dim), scalar_("scalar", dim) {}

    // All steps up to `last`. Returns the first that wrote other bits than the scalar build's, or beyond its scratch;
    // or nullptr.
    const char* run(std::size_t last) {
        for (; done_ <= last && !different_; ++done_) {
            const Step<E>& step = kSteps<E>[done_];
            (state_.*step.call)();
            (scalar_.*step.call)();
            if (!(state_ == scalar_)) different_ = step.name;
        }
        return different_;
    }
    bool is_past(std::size_t step) const { return done_ > step + 1; }
    // Some steps work in place: when they have been timed, what they first left is what the next one needs.
    template <class Time>
    void time(const Time& time) {
        time(state_);
        state_.restore(scalar_);
    }

private:
    State<E> state_, scalar_;
    std::size_t done_ = 0;
    const char* different_ = nullptr;
};

bool all_equal = true;

template <class E>
void run(benchmark::State& state, std::size_t index, const std::string& isa, int64_t dim) {
    // Rows come in the order of the steps, so that each continues where the one before stopped.
    static std::unique_ptr<Comparison<E>> comparison;
    static std::string problem;
    if (const std::string wanted = isa + std::to_string(dim);
        !comparison || problem != wanted || comparison->is_past(index)) {
        comparison = std::make_unique<Comparison<E>>(isa, dim);
        problem = wanted;
    }
    if (const char* different = comparison->run(index)) {
        all_equal = false;
        return state.SkipWithError(
            (std::string(different) + " wrote other bits than the scalar build's, or beyond its scratch").c_str());
    }

    const Step<E>& step = kSteps<E>[index];
    double seconds = 0;
    comparison->time([&](State<E>& kernels) {
        const auto start = std::chrono::steady_clock::now();
        for (auto _ : state) {
            (kernels.*step.call)();
            benchmark::ClobberMemory();
        }
        const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
        seconds = elapsed.count() / static_cast<double>(state.iterations());
    });
    const double columns = static_cast<double>(dim), bytes = step.row_reads * columns * sizeof(E);
    const double flops = 2 * step.pair_sums * columns;
    state.counters["ns/item"] = seconds / step.items * 1e9;
    if (bytes > 0) state.counters["GB/s"] = bytes / seconds / 1e9;
    if (flops > 0) {
        state.counters["GFLOP/s"] = flops / seconds / 1e9;
        state.counters["of_peak"] = flops / seconds / limits::fma_rate(isa, std::is_same_v<E, double>, 1);
    }
}

template <class E>
void add_rows(const std::string& isa, const char* dtype, const std::vector<int64_t>& dims) {
    for (const int64_t dim : dims)
        for (std::size_t k = 0; k < std::size(kSteps<E>); ++k) {
            const Step<E>& step = kSteps<E>[k];
            const bool of_rows = step.call != &State<E>::philox && step.call != &State<E>::log_of_sum;
            if (step.items == 0 || (dim != 128 && !step.all_dims)) continue;
            const std::string name = std::string("kernel/") + step.name + (of_rows ? "/d:" + std::to_string(dim) : "") +
                                     "/" + isa + "/" + dtype;
            benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { run<E>(state, k, isa, dim); });
        }
}

}  // namespace

int main(int argc, char** argv) {
    for (int32_t k = 0; k < negcos_isa_count(); ++k) {
        const std::string isa = negcos_isa_name(k);
        if (!negcos_isa_available(isa.c_str()) || isa == "scalar") continue;
        add_rows<float>(isa, "f32", {16, 128, 768});
        add_rows<double>(isa, "f64", {16, 128, 768});
        add_rows<negcos::F16>(isa, "f16", {128});
        add_rows<negcos::BF16>(isa, "bf16", {128});
    }
    // So many rows need no half second each.
    char least_time[] = "--benchmark_min_time=0.1";
    std::vector<char*> arguments(argv, argv + argc);
    arguments.insert(arguments.begin() + 1, least_time);
    int count = static_cast<int>(arguments.size());
    benchmark::Initialize(&count, arguments.data());
    if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
    benchmark::RunSpecifiedBenchmarks();
    return all_equal ? 0 : 1;
}
