// SPDX-License-Identifier: Apache-2.0
//
// The same bits everywhere. Each call is made on every instruction set, with back ends and thread counts in turn (a
// caller's own threads, whose outputs are staged, are one of them), at changing alignments and strides; all must give
// the bytes of the first. Those bytes go to the file that NEGCOS_DIGESTS_OUT names, for tests/digests.py to hash and
// compare with tests/golden/digests.txt.
//
// NEGCOS_DIGESTS_TURNS: each call with one of so many parts of the back ends and thread counts, 4 by default and always
// without vectors; 1 = with all. NEGCOS_DIGESTS_THREADS: thread counts, e.g. "3", in place of all of them; where they
// are emulated, threads are slow. NEGCOS_TEST_STEP: every so many of the calls of sets and of those that ask for some
// of the gradients, and every half as many of the others. NEGCOS_DIGESTS_DRAWS, for tests/compare.py: all calls in so
// many draws, the first of them the one above; each made once, every output in a frame of its own.
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
// Of sets and of gradients in part, with so many times fewer of them: threads do there what they do in other calls.
constexpr size_t kSparing = 8;

struct Variant {
    std::string label;
    bool threaded;
    size_t turns;
    std::unique_ptr<Pool> pool;  // of a callback
    negcos::Context context;
};

size_t number_of(const char* name, size_t otherwise) {
    const char* text = std::getenv(name);
    return text ? std::stoul(text) : otherwise;
}

std::vector<int> thread_counts() {
    const char* text = std::getenv("NEGCOS_DIGESTS_THREADS");
    std::istringstream words(text ? text : "1 2 3 5 7 16");
    std::vector<int> counts;
    for (int count; words >> count;) counts.push_back(count);
    return counts;
}

std::vector<Variant> variants(const char* test) {
    std::vector<Variant> result;
    const size_t asked = number_of("NEGCOS_DIGESTS_TURNS", kTurns);
    const auto add_callback = [&](const std::string& isa, int threads, size_t turns) {
        auto pool = std::make_unique<Pool>();
        pool->threads = threads;
        negcos::Context own(callback_options(*pool, isa));
        result.push_back(
            {isa + " callback x " + std::to_string(threads), true, turns, std::move(pool), std::move(own)});
    };
    const std::vector<int> counts = thread_counts();
    for (const std::string& isa : isas(test)) {
        // Threads know nothing of instruction sets, and the slowest would take most of the time.
        const size_t turns = isa == "scalar" ? kTurns : asked;
        result.push_back({isa + " serial", false, turns, nullptr, context(isa)});
        for (const int threads : counts) {
            for (const int32_t threading : back_ends(test))
                result.push_back(
                    {isa + (threading == NEGCOS_THREADING_TBB ? " TBB x " : " OpenMP x ") + std::to_string(threads),
                     true, turns, nullptr, context(isa, threads, threading)});
            add_callback(isa, threads, turns);
        }
        if (counts.empty()) add_callback(isa, 1, turns);
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
std::vector<Shape> shapes(uint64_t seed) {
    const int64_t batches[] = {1, 2, 3, 5, 8, 13, 16, 17, 31, 33, 64, 65, 100, 192, 193, 257, 400};
    const int64_t dims[] = {1,  2,  3,  5,  7,   8,   9,   15,  16,  17,  23,  31,  32,  33, 47,
                            48, 63, 64, 65, 100, 127, 128, 129, 200, 256, 257, 384, 512, 768};
    const int32_t rounds[] = {0, 1, 2, 3, 4, 7, 8, 16, 20, 33, 50};
    std::vector<Shape> result;
    Random random(seed);
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

// Gradients that a call asks for.
enum class Gradients { all, none, queries, documents, hard };
constexpr const char* kGradients[] = {"all", "none", "queries", "documents", "hard negatives"};

// One output: rows of `columns` elements of `type`.
struct Output {
    const char* name;
    const char* type;
    int64_t columns;
    std::string bytes;
};

// Every output of a call; excluded and grad_bias where they are not 0.
template <class T>
std::vector<Output> outputs_of(negcos::Context& context, const Problem<T>& p, Gradients gradients, const Layout& layout,
                               const char* dtype) {
    const bool sampled = p.options.sampling != NEGCOS_SAMPLING_ALL;
    const int64_t hard_rows = p.batch * p.hard_per_query;
    const auto framed = [&](int64_t rows, int64_t columns) {
        return Framed<T>(rows, columns, layout.offset, layout.gap);
    };
    Framed<T> queries = framed(p.batch, p.dim), documents = framed(p.count, p.dim), hard = framed(hard_rows, p.dim);
    queries.fill(p.queries);
    documents.fill(p.documents);
    hard.fill(p.hard);
    negcos::Batch batch(queries.input(), documents.input());
    if (hard_rows > 0) batch.hard_negatives = hard.input();
    p.fill(batch);

    negcos::Result result;
    struct Asked {
        const char* name;
        int64_t columns;
        Framed<T> memory;
    };
    std::vector<Asked> asked;
    const auto ask = [&](bool wanted, const char* name, negcos_matrix negcos_result::*field, int64_t rows,
                         int64_t columns) {
        if (!wanted) return;
        asked.push_back({name, columns, framed(rows, columns)});
        result.*field = asked.back().memory.output();
    };
    ask(true, "losses", &negcos_result::losses, p.batch, 1);
    ask(true, "hit_probability", &negcos_result::hit_probability, p.batch, 1);
    ask(sampled, "logits", &negcos_result::logits, p.batch, 1 + p.rounds() + p.hard_per_query);
    const auto of = [&](Gradients one) { return gradients == Gradients::all || gradients == one; };
    ask(of(Gradients::queries), "grad_queries", &negcos_result::grad_queries, p.batch, p.dim);
    ask(of(Gradients::documents), "grad_documents", &negcos_result::grad_documents, p.count, p.dim);
    ask(of(Gradients::hard) && hard_rows > 0, "grad_hard_negatives", &negcos_result::grad_hard_negatives, hard_rows,
        p.dim);
    std::vector<int32_t> negatives(static_cast<size_t>(p.batch * p.rounds()), -7);
    if (!negatives.empty()) result.negatives = negatives.data();
    context.evaluate(p.options_of(), batch, result);

    std::vector<Output> all;
    const auto add = [&](const char* name, const char* type, int64_t columns, const auto* data, size_t count) {
        all.push_back({name, type, columns, std::string(reinterpret_cast<const char*>(data), count * sizeof *data)});
    };
    add("loss", "f64", 1, &result.loss, 1);
    add("grad_scale", "f64", 1, &result.grad_scale, 1);
    add("accuracy", "f64", 1, &result.accuracy, 1);
    add("mean_reciprocal_rank", "f64", 1, &result.mean_reciprocal_rank, 1);
    add("zero_rows", "i64", 1, &result.zero_rows, 1);
    for (const Asked& each : asked) {
        REQUIRE(each.memory.intact());
        const std::vector<T> values = each.memory.values();
        add(each.name, dtype, each.columns, values.data(), values.size());
    }
    for (const auto* input : {&queries, &documents, &hard}) REQUIRE(input->intact());
    add("negatives", "i32", p.rounds(), negatives.data(), negatives.size());
    if (result.excluded != 0) add("excluded", "i64", 1, &result.excluded, 1);
    if (result.grad_bias != 0) add("grad_bias", "f64", 1, &result.grad_bias, 1);
    return all;
}

// One problem, and the gradients that its calls ask for. A digest is of all of its calls.
template <class T>
struct Digest {
    std::string name;
    Problem<T> problem;
    size_t number;
    std::vector<Gradients> calls{Gradients::all};
    bool sparing = false;  // with fewer threads, and left out in larger part where time is short
};

// The digest of what asks for some gradients or none.
template <class T>
Digest<T> in_part(Digest<T> whole) {
    whole.name += " in part";
    whole.calls = {Gradients::none, Gradients::queries, Gradients::documents};
    if (!whole.problem.hard.empty()) whole.calls.push_back(Gradients::hard);
    whole.sparing = true;
    return whole;
}

constexpr uint64_t kApart = 1'000'000;  // seeds, as each is the one before by one number later

// The plain losses, some of them in part too.
constexpr size_t kInPart = 13;  // prime to the periods of problem()
template <class T, class Visit>
void each_shape(const char* dtype, size_t draw, Visit&& visit) {
    const std::vector<Shape> all_shapes = shapes(4 + draw * kApart);
    for (size_t k = 0; k < all_shapes.size(); ++k)
        for (const int32_t objective : {NEGCOS_OBJECTIVE_SOFTMAX, NEGCOS_OBJECTIVE_BATCH_SOFTMAX})
            for (const bool all : {false, true}) {
                const bool more = k + kGathered >= all_shapes.size();
                if (more && (all || objective == NEGCOS_OBJECTIVE_BATCH_SOFTMAX)) continue;
                const Shape& s = all_shapes[k];
                const size_t number = k + draw * all_shapes.size();
                std::ostringstream name;
                name << dtype << (objective == NEGCOS_OBJECTIVE_SOFTMAX ? " softmax" : " batch-softmax")
                     << (all ? " all" : " sampled") << " B " << s.batch << " M " << s.count << " d " << s.dim;
                if (!all) name << " rounds " << s.rounds;
                name << " #" << number;
                const Digest<T> whole{name.str(), problem<T>(s, number, objective, all), number};
                visit(whole);
                if (k % kInPart == 3) visit(in_part(whole));
            }
}

// The whole loss family: each feature among others at random, in one task and in several; then random sets.
constexpr size_t kFamily = 60;
template <class T, class Visit>
void each_family(const char* dtype, size_t draw, Visit&& visit) {
    const variants::Shape small[] = {{1, 2, 1, 2, 1}, {7, 9, 15, 3, 2}, {16, 17, 33, 30, 1}, {33, 40, 48, 4, 3}};
    const variants::Shape large[] = {{193, 260, 40, 5, 2}, {257, 257, 31, 120, 1}, {300, 420, 17, 3, 1}};
    Random random(8 + draw * kApart);
    for (size_t k = 0; k < kFamily; ++k) {
        using namespace variants;
        const Features least = k < kFeatures ? add(0, static_cast<Feature>(k)) : 0;
        const Features features = draw_features(least, random);
        const int32_t sampling = k % 2 ? NEGCOS_SAMPLING_ALL : variants::kSamplings[k / 2 % std::size(kSamplings)];
        const variants::Shape& shape = k % 3 == 2 ? large[k / 3 % std::size(large)] : small[k / 3 % std::size(small)];
        const size_t number = k + draw * kFamily;
        std::ostringstream name;
        name << dtype << " family sampling " << sampling << ' ' << names_of(features) << " #" << number;
        Problem<T> p = make<T>(shape, features, sampling, number);
        if (k % 9 == 4) *p.queries.rbegin() = std::numeric_limits<T>::quiet_NaN();
        if (k % 9 == 7 && !p.hard.empty()) p.hard.front() = std::numeric_limits<T>::infinity();
        const Digest<T> whole{name.str(), std::move(p), number};
        visit(whole);
        visit(in_part(whole));
    }
}

// The sets that test_variants compares with the oracle, whole and in part.
template <class T, class Visit>
void each_set(const char* dtype, size_t draw, Visit&& visit) {
    const auto one = [&](variants::Features features, int32_t sampling, const variants::Shape& shape, uint64_t k) {
        const uint64_t number = k + draw * 10'000;
        std::ostringstream name;
        name << dtype << " set sampling " << sampling << ' ' << variants::names_of(features) << " #" << number;
        Digest<T> set = in_part(Digest<T>{name.str(), variants::make<T>(shape, features, sampling, number), number});
        set.name = name.str();
        set.calls.insert(set.calls.begin(), Gradients::all);
        visit(set);
    };
    variants::each_set(one, 1, 11 + draw * kApart);
}

// GROUPS, plain: sizes of groups around the lanes, batches that they divide and leave, several tasks.
constexpr size_t kGroups = 40;
template <class T, class Visit>
void each_group(const char* dtype, size_t draw, Visit&& visit) {
    const int64_t batches[] = {2, 3, 9, 16, 17, 40, 64, 65, 100, 193, 257, 400};
    const int64_t dims[] = {1, 7, 8, 15, 16, 17, 31, 33, 64, 65, 100, 129, 257, 300};
    const int32_t rounds[] = {1, 2, 4, 7, 15, 16, 17, 31, 40, 63, 64, 130, 300};
    Random random(9 + draw * kApart);
    for (size_t k = 0; k < kGroups; ++k) {
        const int64_t batch = k < kGroups - 4 ? batches[random.below(std::size(batches))] : 1500 + random.below(700);
        Shape s{batch, batch + random.below(2) * random.below(70), dims[random.below(std::size(dims))],
                rounds[random.below(std::size(rounds))]};
        if (s.rounds >= batch) s.rounds = static_cast<int32_t>(batch - 1);
        const size_t number = k + draw * kGroups;
        std::ostringstream name;
        name << dtype << " groups B " << s.batch << " M " << s.count << " d " << s.dim << " rounds " << s.rounds << " #"
             << number;
        Digest<T> whole{name.str(), problem<T>(s, number, NEGCOS_OBJECTIVE_SOFTMAX, false), number};
        Problem<T>& p = whole.problem;
        p.given.clear();
        p.options.sampling = NEGCOS_SAMPLING_GROUPS;
        p.options.rounds = s.rounds;
        visit(whole);
        if (k % 4 == 3) visit(in_part(whole));
    }
}

template <class T, class Visit>
void each_digest(const char* dtype, size_t draw, Visit&& visit) {
    each_shape<T>(dtype, draw, visit);
    each_family<T>(dtype, draw, visit);
    each_set<T>(dtype, draw, visit);
    each_group<T>(dtype, draw, visit);
}

// What tests/digests.py reads: a line with the name, a line with the length, the bytes; "-" for what was left out.
void write(std::ostream& out, const std::string& name, const std::string& bytes) {
    out << name << '\n' << bytes.size() << '\n' << bytes;
    REQUIRE(out.good());
}

template <class T>
std::string bytes_of(negcos::Context& context, const Digest<T>& digest, int64_t n, const char* dtype) {
    std::string all;
    for (const Gradients gradients : digest.calls) {
        const Layout layout{n % 5, n % 4};
        for (const Output& output : outputs_of(context, digest.problem, gradients, layout, dtype)) all += output.bytes;
        ++n;
    }
    return all;
}

template <class T>
void same_everywhere(const char* test, const char* dtype, std::ostream* out) {
    std::vector<Variant> all_variants = variants(test);
    std::vector<size_t> staged;
    for (size_t v = 0; v < all_variants.size(); ++v)
        if (all_variants[v].pool) staged.push_back(v);
    // Where time is short, others for each type.
    const size_t step = static_cast<size_t>(test_step()), old_step = (step + 1) / 2;
    size_t number = static_cast<size_t>(negcos::dtype_of<T>);
    each_digest<T>(dtype, 0, [&](const Digest<T>& digest) {
        INFO(digest.name);
        if (number++ % (digest.sparing ? step : old_step) != 0) {
            if (out) *out << digest.name << "\n-\n";
            return;
        }
        const size_t k = digest.number, times = digest.sparing ? kSparing : 1;
        const std::string expected = bytes_of(all_variants.front().context, digest, 0, dtype);
        for (size_t v = 0; v < all_variants.size(); ++v) {
            Variant& variant = all_variants[v];
            const bool turn =
                (v + k) % (variant.turns * times) == 0 || (digest.sparing && v == staged[k % staged.size()]);
            if (variant.threaded && !turn) continue;
            INFO(variant.label);
            CHECK(bytes_of(variant.context, digest, static_cast<int64_t>(1 + v + k), dtype) == expected);
        }
        if (out) write(*out, digest.name, expected);
    });
    for (const Variant& variant : all_variants)  // not all of that ran in the calling thread
        if (variant.pool && variant.pool->threads > 1) CHECK(variant.pool->calls > 0);
}

// What another build of the library can be compared by: it may refuse what this one knows.
template <class T>
void write_draws(const char* test, const char* dtype, size_t draws, std::ostream& out) {
    negcos::Context best = context(isas(test).front());
    for (size_t draw = 0; draw < draws; ++draw)
        each_digest<T>(dtype, draw, [&](const Digest<T>& digest) {
            for (const Gradients gradients : digest.calls) {
                const std::string call = digest.name + ", gradients: " + kGradients[static_cast<int>(gradients)] + '\t';
                try {
                    for (const Output& o : outputs_of(best, digest.problem, gradients, {}, dtype))
                        write(out, call + o.name + ' ' + o.type + ' ' + std::to_string(o.columns), o.bytes);
                } catch (const negcos::Error& error) {
                    write(out, call + "refused", error.what());
                }
            }
        });
}

template <class T>
void digests(const char* dtype) {
    const std::string test = std::string("digests: ") + dtype;
    std::ofstream out;
    if (const char* path = std::getenv("NEGCOS_DIGESTS_OUT")) {
        out.open(path, std::ios::binary | std::ios::app);
        REQUIRE(out.good());
    }
    if (const size_t draws = number_of("NEGCOS_DIGESTS_DRAWS", 0))
        write_draws<T>(test.c_str(), dtype, draws, out);
    else
        same_everywhere<T>(test.c_str(), dtype, out.is_open() ? &out : nullptr);
}

TEST_SUITE("bits") {
    TEST_CASE("digests: f32") {
        digests<float>("f32");
    }
    TEST_CASE("digests: f64") {
        digests<double>("f64");
    }
    TEST_CASE("digests: f16") {
        digests<half::F16>("f16");
    }
    TEST_CASE("digests: bf16") {
        digests<half::BF16>("bf16");
    }
}

}  // namespace
