// SPDX-License-Identifier: Apache-2.0
//
// The same bits everywhere. Each call is made on every instruction set, with back ends and thread counts in turn, at
// changing alignments and strides; all must give the bytes of the first. Those bytes go to the file that
// NEGCOS_DIGESTS_OUT names, for tests/digests.py to hash and compare with tests/golden/digests.txt.
//
// NEGCOS_DIGESTS_TURNS: each call with one of so many parts of the back ends and thread counts, 4 by default and always
// without vectors; 1 = with all. NEGCOS_DIGESTS_THREADS: thread counts, e.g. "3", in place of all of them; where they
// are emulated, threads are slow.
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>

#include "half.hpp"
#include "harness.hpp"
#include "pools.hpp"
#include "variants.hpp"

namespace {

using namespace harness;

constexpr size_t kTurns = 4;

struct Variant {
    std::string label;
    bool threaded;
    size_t turns;
    std::unique_ptr<Pool> pool;  // of a callback
    negcos::Context context;
};

std::vector<int> thread_counts() {
    const char* text = std::getenv("NEGCOS_DIGESTS_THREADS");
    std::istringstream words(text ? text : "1 2 3 5 7 16");
    std::vector<int> counts;
    for (int count; words >> count;) counts.push_back(count);
    return counts;
}

std::vector<Variant> variants(const char* test) {
    std::vector<Variant> result;
    const char* text = std::getenv("NEGCOS_DIGESTS_TURNS");
    const size_t asked = text ? std::stoul(text) : kTurns;
    for (const std::string& isa : isas(test)) {
        // Threads know nothing of instruction sets, and the slowest would take most of the time.
        const size_t turns = isa == "scalar" ? kTurns : asked;
        result.push_back({isa + " serial", false, turns, nullptr, context(isa)});
        for (const int threads : thread_counts()) {
            const std::string count = " x " + std::to_string(threads);
            for (const int32_t threading : back_ends(test))
                result.push_back({isa + (threading == NEGCOS_THREADING_TBB ? " TBB" : " OpenMP") + count, true, turns,
                                  nullptr, context(isa, threads, threading)});
            auto pool = std::make_unique<Pool>();
            pool->threads = threads;
            negcos::Context own(callback_options(*pool, isa));
            result.push_back({isa + " callback" + count, true, turns, std::move(pool), std::move(own)});
        }
    }
    return result;
}

struct Shape {
    int64_t batch, count, dim;
    int32_t rounds;
};

// Drawn once from sizes at and around the widths of registers, tiles, blocks and tasks; the last ones are large enough
// for many tasks, and divide nothing. Dense samples among them are planned as tiles: kGathered more shapes, which run
// sampled alone, make up for those.
constexpr size_t kShapes = 204, kGathered = 170;
std::vector<Shape> shapes() {
    const int64_t batches[] = {1, 2, 3, 5, 8, 13, 16, 17, 31, 33, 64, 65, 100, 192, 193, 257, 400};
    const int64_t dims[] = {1,  2,  3,  5,  7,   8,   9,   15,  16,  17,  23,  31,  32,  33, 47,
                            48, 63, 64, 65, 100, 127, 128, 129, 200, 256, 257, 384, 512, 768};
    const int32_t rounds[] = {0, 1, 2, 3, 4, 7, 8, 16, 20, 33, 50};
    std::vector<Shape> result;
    Random random(4);
    const auto draw = [&] {
        const Shape s{batches[random.below(std::size(batches))], random.below(4) == 0 ? random.below(70) : 0,
                      dims[random.below(std::size(dims))], rounds[random.below(std::size(rounds))]};
        if (s.batch * (s.batch + s.count) * s.dim <= 2'000'000)
            result.push_back({s.batch, s.batch + s.count, s.dim, s.rounds});
    };
    while (result.size() < kShapes) draw();
    for (const Shape& s : {Shape{1021, 1031, 67, 9}, {700, 700, 129, 4}, {513, 2000, 33, 40}, {2500, 2500, 24, 6}})
        result.push_back(s);
    const size_t most = result.size() + kGathered;
    while (result.size() < most) draw();
    return result;
}

// Every rare thing in some of the shapes: another sampling, similarity, reduction and scale, zero rows, rows whose
// squares overflow f32, NaN.
template <class T>
Problem<T> problem(const Shape& shape, size_t index, int32_t objective, bool all) {
    Problem<T> p(shape.batch, shape.count, shape.dim, index);
    const auto row = [&](std::vector<T>& rows, int64_t i) { return rows.data() + i * shape.dim; };
    if (index % 5 == 1) std::fill_n(row(p.queries, shape.batch / 2), shape.dim, T(0.0));
    if (index % 7 == 2) {
        T* far = row(p.documents, shape.count - 1);
        for (int64_t c = 0; c < shape.dim; ++c) far[c] = T(static_cast<double>(far[c]) * (sizeof(T) == 2 ? 1e4 : 1e30));
    }
    if (index % 11 == 3) *row(p.queries, shape.batch - 1) = std::numeric_limits<T>::quiet_NaN();
    p.options.objective = objective;
    p.options.seed = 1000 + index;
    p.options.step = index % 3;
    if (all) {
        p.options.sampling = NEGCOS_SAMPLING_ALL;
    } else if (index % 3 == 2) {
        p.give(shape.rounds, index, true);
    } else {
        p.options.sampling = index % 3 == 1 && shape.batch > 1 ? NEGCOS_SAMPLING_DERANGEMENT : NEGCOS_SAMPLING_SHUFFLE;
        p.options.rounds = shape.rounds;
    }
    if (index % 4 == 3) {
        p.options.similarity = NEGCOS_SIMILARITY_DOT;
        p.options.scale = 0.3;
    } else if (index % 6 == 4) {
        p.options.scale = -7;
        p.options.temperature = 0.5;
    }
    p.options.reduction = index % 9 == 5 ? NEGCOS_REDUCTION_SUM : NEGCOS_REDUCTION_MEAN;
    return p;
}

// The whole loss family: each feature among others at random, in one task and in several; then random sets.
constexpr size_t kFamily = 60;
template <class Visit>
void each_family_call(Visit&& visit) {
    const variants::Shape small[] = {{1, 2, 1, 2, 1}, {7, 9, 15, 3, 2}, {16, 17, 33, 30, 1}, {33, 40, 48, 4, 3}};
    const variants::Shape large[] = {{193, 260, 40, 5, 2}, {257, 257, 31, 120, 1}, {300, 420, 17, 3, 1}};
    Random random(8);
    for (size_t k = 0; k < kFamily; ++k) {
        using namespace variants;
        const Features least = k < kFeatures ? add(0, static_cast<Feature>(k)) : 0;
        const Features features = draw_features(least, random);
        const int32_t sampling = k % 2 ? NEGCOS_SAMPLING_ALL : variants::kSamplings[k / 2 % std::size(kSamplings)];
        const variants::Shape& shape = k % 3 == 2 ? large[k / 3 % std::size(large)] : small[k / 3 % std::size(small)];
        std::ostringstream label;
        label << " family sampling " << sampling << ' ' << names_of(features) << " #" << k;
        visit(k, label.str(), shape, features, sampling);
    }
}

template <class T>
void same_everywhere(const char* dtype) {
    std::ofstream out;
    if (const char* path = std::getenv("NEGCOS_DIGESTS_OUT")) {
        out.open(path, std::ios::binary | std::ios::app);
        REQUIRE(out.good());
    }
    const std::string test = std::string("digests: ") + dtype;
    std::vector<Variant> all_variants = variants(test.c_str());
    const std::vector<Shape> all_shapes = shapes();
    const auto judge = [&](const std::string& name, const Problem<T>& p, size_t k) {
        INFO(name);
        const std::string expected = run(all_variants.front().context, p).bytes();
        for (size_t v = 0; v < all_variants.size(); ++v) {
            if (all_variants[v].threaded && (v + k) % all_variants[v].turns != 0) continue;
            const int64_t n = static_cast<int64_t>(v + k);
            INFO(all_variants[v].label);
            CHECK(run(all_variants[v].context, p, {1 + n % 5, n % 4, true}).bytes() == expected);
        }
        if (out.is_open()) {
            out << name << '\n' << expected.size() << '\n' << expected;
            REQUIRE(out.good());
        }
    };
    for (size_t k = 0; k < all_shapes.size(); ++k)
        for (const int32_t objective : {NEGCOS_OBJECTIVE_SOFTMAX, NEGCOS_OBJECTIVE_BATCH_SOFTMAX})
            for (const bool all : {false, true}) {
                const bool more = k + kGathered >= all_shapes.size();
                if (more && (all || objective == NEGCOS_OBJECTIVE_BATCH_SOFTMAX)) continue;
                const Shape& s = all_shapes[k];
                std::ostringstream name;
                name << dtype << (objective == NEGCOS_OBJECTIVE_SOFTMAX ? " softmax" : " batch-softmax")
                     << (all ? " all" : " sampled") << " B " << s.batch << " M " << s.count << " d " << s.dim;
                if (!all) name << " rounds " << s.rounds;
                name << " #" << k;
                judge(name.str(), problem<T>(s, k, objective, all), k);
            }
    each_family_call([&](size_t k, const std::string& label, const variants::Shape& shape, variants::Features features,
                         int32_t sampling) {
        Problem<T> p = variants::make<T>(shape, features, sampling, k);
        if (k % 9 == 4) *p.queries.rbegin() = std::numeric_limits<T>::quiet_NaN();
        if (k % 9 == 7 && !p.hard.empty()) p.hard.front() = std::numeric_limits<T>::infinity();
        judge(dtype + label, p, k);
    });
    for (const Variant& variant : all_variants)  // not all of that ran in the calling thread
        if (variant.pool && variant.pool->threads > 1) CHECK(variant.pool->calls > 0);
}

TEST_SUITE("bits") {
    TEST_CASE("digests: f32") {
        same_everywhere<float>("f32");
    }
    TEST_CASE("digests: f64") {
        same_everywhere<double>("f64");
    }
    TEST_CASE("digests: f16") {
        same_everywhere<half::F16>("f16");
    }
    TEST_CASE("digests: bf16") {
        same_everywhere<half::BF16>("bf16");
    }
}

}  // namespace
