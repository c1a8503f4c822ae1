// SPDX-License-Identifier: Apache-2.0
//
// The estimators of Q against themselves written again, what the estimates are worth on streams whose frequencies are
// known, and every way to call wrongly.
#include <cstdlib>
#include <functional>

#include "frequency_reference.hpp"

namespace {

using namespace frequency_reference;
using scratch::Folder;
using scratch::write_file;
namespace fs = std::filesystem;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

TEST_SUITE("unit") {
    TEST_CASE("frequency: written again, the same bytes of state and the same estimates") {
        for (const negcos::FrequencyOptions& o : all_options()) {
            INFO("method " << o.method << " hashes " << o.hashes << " buckets " << o.buckets << " learning rate "
                           << o.learning_rate << " initial gap " << o.initial_gap);
            negcos::Frequency frequency(o);
            Reference reference(o);
            CHECK(saved(frequency) == bytes_of(reference.file()));
            for (const Ids& batch : stream(150)) {
                frequency.update(batch);
                reference.update(batch);
            }
            CHECK(saved(frequency) == bytes_of(reference.file()));
            const Ids ids = probes();
            const std::vector<double> got = estimates(frequency, ids);
            for (size_t k = 0; k < ids.size(); ++k) {
                INFO("id " << ids[k]);
                const double expected = -std::log1p(reference.odds_against(ids[k]));
                CHECK(std::isfinite(got[k]));
                CHECK(std::fabs(got[k] - expected) <= 4e-16 * std::fabs(expected));
            }
        }
    }

    TEST_CASE("frequency: the same bits on every instruction set and machine") {
        std::vector<std::string> names = harness::isas("frequency");
        const char* before = std::getenv("NEGCOS_ISA");
        const std::string kept = before ? before : "";
        for (const std::string& isa : names) {
            setenv("NEGCOS_ISA", isa.c_str(), 1);
            uint64_t digest = 0;
            for (const negcos::FrequencyOptions& o : all_options()) {
                negcos::Frequency frequency(o);
                for (const Ids& batch : stream(100)) frequency.update(batch);
                for (const double x : estimates(frequency, probes())) digest = mix(digest ^ std::bit_cast<uint64_t>(x));
                for (const uint64_t word : words_of(saved(frequency))) digest = mix(digest ^ word);
            }
            INFO(isa);
            CHECK(digest == 13538908286671934637u);
        }
        setenv("NEGCOS_ISA", "sse9", 1);
        negcos_frequency* created = nullptr;
        CHECK(negcos_frequency_create(nullptr, &created) == NEGCOS_STATUS_UNSUPPORTED_ISA);
        CHECK(negcos_frequency_load("/nowhere", &created) == NEGCOS_STATUS_UNSUPPORTED_ISA);
        CHECK(created == nullptr);
        before ? setenv("NEGCOS_ISA", kept.c_str(), 1) : unsetenv("NEGCOS_ISA");
    }

    TEST_CASE("frequency: an item never seen") {
        for (const int32_t method : {NEGCOS_FREQUENCY_STREAMING, NEGCOS_FREQUENCY_COUNT_MIN}) {
            negcos::Frequency frequency(options(method, 4, 1000));
            CHECK(estimates(frequency, {5, -5}) == std::vector<double>{0, 0});  // the first is all there is
            for (int step = 0; step < 9; ++step) frequency.update(Ids{1, 1, 2});
            const std::vector<double> q = estimates(frequency, {5, 1, 2});
            const bool streaming = method == NEGCOS_FREQUENCY_STREAMING;
            CHECK(q[0] == doctest::Approx(-std::log(streaming ? 10 : 28)).epsilon(1e-15));
            CHECK(q[1] == doctest::Approx(streaming ? 0 : std::log(2.0 / 3)).epsilon(1e-15));
            CHECK(q[2] == doctest::Approx(streaming ? 0 : std::log(1.0 / 3)).epsilon(1e-15));
            // What it was told is what it gets, when it comes next.
            frequency.update(Ids{5});
            CHECK(estimates(frequency, {5})[0] == q[0]);
        }
        negcos::FrequencyOptions o = options(NEGCOS_FREQUENCY_STREAMING, 4, 1000);
        o.initial_gap = 20;
        negcos::Frequency frequency(o);
        frequency.update(Ids{1});
        CHECK(estimates(frequency, {5})[0] == doctest::Approx(-std::log(20)).epsilon(1e-15));
        CHECK(estimates(frequency, {1})[0] == doctest::Approx(-std::log(20 - 0.01 * 19)).epsilon(1e-15));
    }

    TEST_CASE("frequency: the order of a batch plays no part; STREAMING counts an id once a batch") {
        for (negcos::FrequencyOptions o : all_options()) {
            negcos::Frequency forward(o), backward(o), twice(o);
            for (Ids batch : stream(50)) {
                forward.update(batch);
                twice.update([&] {
                    Ids doubled = batch;
                    doubled.insert(doubled.end(), batch.begin(), batch.end());
                    return doubled;
                }());
                std::reverse(batch.begin(), batch.end());
                backward.update(batch);
            }
            CHECK(saved(forward) == saved(backward));
            CHECK((saved(forward) == saved(twice)) == (o.method == NEGCOS_FREQUENCY_STREAMING));
        }
    }

    TEST_CASE("frequency: STREAMING finds the frequencies of a Zipf stream") {
        constexpr int64_t kItems = 1000, kBatch = 32, kJudged = 100;
        Zipf zipf(kItems);
        negcos::FrequencyOptions o = options(NEGCOS_FREQUENCY_STREAMING, 4, 1 << 14);
        o.learning_rate = 0.02;
        negcos::Frequency frequency(o);
        for (int step = 0; step < 8000; ++step) frequency.update(zipf.batch(kBatch));
        Ids items;
        for (int64_t k = 0; k < kJudged; ++k) items.push_back(k);
        const std::vector<double> q = estimates(frequency, items);
        double worst = 0, mean = 0;
        for (int64_t k = 0; k < kJudged; ++k) {
            const double truth = 1 - std::pow(1 - zipf.share(k), kBatch);  // that a batch has it
            const double error = q[static_cast<size_t>(k)] - std::log(truth);
            worst = std::max(worst, std::fabs(error));
            mean += error / kJudged;
        }
        // A moving average of geometric gaps is spread by sqrt(learning_rate / 2) of itself, 0.1 here.
        INFO("worst " << worst << ", mean " << mean);
        CHECK(worst < 0.35);
        CHECK(std::fabs(mean) < 0.03);
    }

    TEST_CASE("frequency: STREAMING follows an item that becomes more frequent") {
        negcos::Frequency streaming(options(NEGCOS_FREQUENCY_STREAMING, 4, 1000));
        negcos::Frequency count_min(options(NEGCOS_FREQUENCY_COUNT_MIN, 4, 1000));
        const auto run = [&](int steps, int every) {
            for (int step = 0; step < steps; ++step) {
                const Ids batch(1, step % every == 0 ? 5 : 6 + step);
                streaming.update(batch);
                count_min.update(batch);
            }
        };
        run(2000, 20);
        CHECK(estimates(streaming, {5})[0] == doctest::Approx(std::log(1 / 20.0)).epsilon(0.2));
        run(3000, 2);
        CHECK(estimates(streaming, {5})[0] == doctest::Approx(std::log(1 / 2.0)).epsilon(1e-4));
        CHECK(estimates(count_min, {5})[0] == doctest::Approx(std::log(1600.0 / 5000)).epsilon(0.01));
    }

    TEST_CASE("frequency: a first gap as the start is unbiased, a fixed one is not") {
        // 3000 items, each in a batch with probability 1/40: ten sightings each in 400 steps.
        for (const double initial_gap : {0.0, 1.0}) {
            negcos::FrequencyOptions o = options(NEGCOS_FREQUENCY_STREAMING, 4, 1 << 16);
            o.initial_gap = initial_gap;
            negcos::Frequency frequency(o);
            Random random(9);
            Ids items;
            for (int64_t id = 0; id < 3000; ++id) items.push_back(id);
            for (int step = 0; step < 400; ++step) {
                Ids batch;
                for (const int64_t id : items)
                    if (random.uniform() < 1.0 / 40) batch.push_back(id);
                frequency.update(batch);
            }
            double mean = 0;
            for (const double q : estimates(frequency, items)) mean += std::exp(-q) / 3000;
            INFO("mean gap " << mean);
            CHECK(mean > (initial_gap == 0 ? 38 : 4));
            CHECK(mean < (initial_gap == 0 ? 42 : 6));
        }
    }

    TEST_CASE("frequency: COUNT_MIN finds shares, exact without collisions and never below the truth with them") {
        Zipf zipf(2000);
        std::vector<double> counts(2000);
        Ids items;
        for (int64_t k = 0; k < 2000; ++k) items.push_back(k);
        negcos::Frequency roomy(options(NEGCOS_FREQUENCY_COUNT_MIN, 4, 1 << 16));
        negcos::Frequency narrow(options(NEGCOS_FREQUENCY_COUNT_MIN, 4, 500));
        negcos::Frequency single(options(NEGCOS_FREQUENCY_COUNT_MIN, 1, 500));
        for (int step = 0; step < 1000; ++step) {
            const Ids batch = zipf.batch(100);
            for (const int64_t id : batch) ++counts[static_cast<size_t>(id)];
            for (negcos::Frequency* f : {&roomy, &narrow, &single}) f->update(batch);
        }
        const std::vector<double> q = estimates(roomy, items), n = estimates(narrow, items),
                                  s = estimates(single, items);
        int64_t above = 0;
        for (size_t k = 0; k < items.size(); ++k) {
            const double share = counts[k] > 0 ? std::log(counts[k] / 100000) : -std::log(100001);
            CHECK(std::fabs(q[k] - share) <= 1e-14);
            if (k < 20) CHECK(std::fabs(q[k] - std::log(zipf.share(static_cast<int64_t>(k)))) < 0.1);
            CHECK(n[k] >= share - 1e-14);
            CHECK(s[k] >= n[k]);
            above += n[k] > share + 1e-9;
        }
        CHECK(above > 1000);  // there were collisions
    }

    TEST_CASE("frequency: more hashes, fewer collisions") {
        for (const int32_t method : {NEGCOS_FREQUENCY_STREAMING, NEGCOS_FREQUENCY_COUNT_MIN}) {
            Ids items;
            for (int64_t k = 0; k < 300; ++k) items.push_back(k);
            std::vector<double> fewer, apart;
            double error = kInf;
            for (const int32_t hashes : {1, 2, 8, 0}) {
                // 0: no collisions, what the others would be
                negcos::Frequency frequency(hashes > 0 ? options(method, hashes, 200) : options(method, 4, 1 << 18));
                for (const Ids& batch : stream(2000)) frequency.update(batch);
                const std::vector<double> q = estimates(frequency, items);
                // The first hashes are the same ones.
                if (!fewer.empty() && hashes > 0)
                    for (size_t k = 0; k < q.size(); ++k) CHECK(q[k] <= fewer[k]);
                if (hashes > 0) fewer = q;
                if (hashes == 1) apart = q;
                if (hashes == 0) {
                    double of_one = 0, of_eight = 0;
                    for (size_t k = 0; k < q.size(); ++k) {
                        of_one += std::fabs(apart[k] - q[k]);
                        of_eight += std::fabs(fewer[k] - q[k]);
                    }
                    error = of_eight / of_one;
                }
            }
            INFO("error with 8 hashes of that with 1: " << error);
            CHECK(error < 0.35);
        }
    }

    TEST_CASE("frequency: another seed, other collisions") {
        negcos::Frequency a(options(NEGCOS_FREQUENCY_COUNT_MIN, 1, 50, 1)),
            b(options(NEGCOS_FREQUENCY_COUNT_MIN, 1, 50, 2));
        for (const Ids& batch : stream(50)) a.update(batch), b.update(batch);
        CHECK(estimates(a, probes()) != estimates(b, probes()));
    }

    TEST_CASE("frequency: it counts to 2^53 and no further") {
        const Folder folder;
        for (const int32_t method : {NEGCOS_FREQUENCY_STREAMING, NEGCOS_FREQUENCY_COUNT_MIN}) {
            Words words = words_of(saved(negcos::Frequency(options(method, 2, 3))));
            words[7] = (uint64_t{1} << 53) - 1;
            seal(words);
            write_file((folder / "q"), bytes_of(words));
            negcos::Frequency frequency = negcos::Frequency::load((folder / "q"));
            CHECK(estimates(frequency, {1})[0] == doctest::Approx(-53 * std::log(2)).epsilon(1e-15));
            frequency.update(Ids{1});
            CHECK(estimates(frequency, {1})[0] == doctest::Approx(-53 * std::log(2)).epsilon(1e-15));
            const std::string full = saved(frequency);
            const int64_t id = 1;
            CHECK(negcos_frequency_update(frequency.get(), &id, 1) == NEGCOS_STATUS_VALUE);
            CHECK(std::string(negcos_last_error()).find("2^53") != std::string::npos);
            CHECK(saved(frequency) == full);
            // 2^53 + 1 ids or steps, were there one more
            for (const double q : estimates(frequency, probes())) CHECK(std::isfinite(q));
            negcos::Frequency::load((folder / "q")).save((folder / "q"));
        }
    }

    TEST_CASE("frequency: options") {
        struct Mistake {
            int32_t status;
            const char* named;
            std::function<void(negcos::FrequencyOptions&)> spoil;
        };
        using O = negcos::FrequencyOptions;
        for (const Mistake& mistake : std::vector<Mistake>{
                 {NEGCOS_STATUS_VALUE, "method", [](O& o) { o.method = -1; }},
                 {NEGCOS_STATUS_VALUE, "method", [](O& o) { o.method = 2; }},
                 {NEGCOS_STATUS_VALUE, "hashes", [](O& o) { o.hashes = 0; }},
                 {NEGCOS_STATUS_VALUE, "hashes", [](O& o) { o.hashes = 65; }},
                 {NEGCOS_STATUS_VALUE, "hashes", [](O& o) { o.hashes = -4; }},
                 {NEGCOS_STATUS_VALUE, "reserved", [](O& o) { o.reserved = 1; }},
                 {NEGCOS_STATUS_VALUE, "buckets", [](O& o) { o.buckets = 0; }},
                 {NEGCOS_STATUS_VALUE, "buckets", [](O& o) { o.buckets = -1; }},
                 {NEGCOS_STATUS_VALUE, "buckets", [](O& o) { o.buckets = (int64_t{1} << 32) + 1; }},
                 {NEGCOS_STATUS_VALUE, "learning_rate", [](O& o) { o.learning_rate = 0; }},
                 {NEGCOS_STATUS_VALUE, "learning_rate", [](O& o) { o.learning_rate = -0.1; }},
                 {NEGCOS_STATUS_VALUE, "learning_rate", [](O& o) { o.learning_rate = 1.01; }},
                 {NEGCOS_STATUS_VALUE, "learning_rate", [](O& o) { o.learning_rate = kNaN; }},
                 {NEGCOS_STATUS_VALUE, "initial_gap", [](O& o) { o.initial_gap = 0.99; }},
                 {NEGCOS_STATUS_VALUE, "initial_gap", [](O& o) { o.initial_gap = -1; }},
                 {NEGCOS_STATUS_VALUE, "initial_gap", [](O& o) { o.initial_gap = kInf; }},
                 {NEGCOS_STATUS_VALUE, "initial_gap", [](O& o) { o.initial_gap = kNaN; }},
                 {NEGCOS_STATUS_VALUE, "initial_gap", [](O& o) { o.initial_gap = 0x1p54; }},
                 {NEGCOS_STATUS_UNSUPPORTED, "COUNT_MIN",
                  [](O& o) { o.method = NEGCOS_FREQUENCY_COUNT_MIN, o.learning_rate = 0.02; }},
                 {NEGCOS_STATUS_UNSUPPORTED, "COUNT_MIN",
                  [](O& o) { o.method = NEGCOS_FREQUENCY_COUNT_MIN, o.initial_gap = 2; }},
                 {NEGCOS_STATUS_STRUCT_SIZE, "negcos_frequency_options", [](O& o) { o.struct_size = 0; }},
                 {NEGCOS_STATUS_STRUCT_SIZE, "negcos_frequency_options", [](O& o) { o.struct_size = 40; }},
             }) {
            negcos::FrequencyOptions o = options(NEGCOS_FREQUENCY_STREAMING, 4, 100);
            mistake.spoil(o);
            negcos_frequency* created = nullptr;
            const int32_t status = negcos_frequency_create(&o, &created);
            INFO(mistake.named << ": " << negcos_last_error());
            CHECK(status == mistake.status);
            CHECK(std::string(negcos_last_error()).find(mistake.named) != std::string::npos);
            CHECK(created == nullptr);
        }
        const negcos::FrequencyOptions normal;
        CHECK(normal.struct_size == sizeof(negcos_frequency_options));
        CHECK(normal.method == NEGCOS_FREQUENCY_STREAMING);
        CHECK(normal.hashes == 4);
        CHECK(normal.buckets == 1 << 20);
        CHECK(normal.learning_rate == 0.01);
        CHECK(normal.initial_gap == 0);
        CHECK(normal.seed == 0);
        negcos_frequency_options_init(nullptr, 8);
        // NULL is the same: 64 MiB of table, and these options in the file.
        negcos_frequency* created = nullptr;
        REQUIRE(negcos_frequency_create(nullptr, &created) == NEGCOS_STATUS_OK);
        const Folder folder;
        REQUIRE(negcos_frequency_save(created, (folder / "q").c_str()) == NEGCOS_STATUS_OK);
        negcos_frequency_destroy(created);
        CHECK(fs::file_size((folder / "q")) == 8 * 9 + (uint64_t{64} << 20));
        Words expected = Reference(options(NEGCOS_FREQUENCY_STREAMING, 1, 1)).file();
        expected[2] = 4;
        expected[3] = 1 << 20;
        std::ifstream file((folder / "q"), std::ios::binary);
        std::string header(64, '\0');
        file.read(header.data(), 64);
        CHECK(header == bytes_of({expected.begin(), expected.begin() + 8}));
    }

    TEST_CASE("frequency: arguments") {
        negcos::Frequency frequency(options(NEGCOS_FREQUENCY_STREAMING, 2, 10));
        frequency.update(Ids{1, 2});
        const std::string before = saved(frequency);
        Ids ids{1, 2, 3};
        std::vector<double> q(3, 7);
        negcos_frequency* const f = frequency.get();
        CHECK(negcos_frequency_create(nullptr, nullptr) == NEGCOS_STATUS_NULL_ARGUMENT);
        CHECK(negcos_frequency_update(nullptr, ids.data(), 3) == NEGCOS_STATUS_NULL_ARGUMENT);
        CHECK(negcos_frequency_update(f, nullptr, 3) == NEGCOS_STATUS_NULL_ARGUMENT);
        CHECK(negcos_frequency_update(f, ids.data(), -1) == NEGCOS_STATUS_SHAPE);
        CHECK(std::string(negcos_last_error()).find("count is -1") != std::string::npos);
        CHECK(negcos_frequency_update(f, ids.data(), std::numeric_limits<int64_t>::max()) == NEGCOS_STATUS_SHAPE);
        CHECK(negcos_frequency_log_probability(nullptr, ids.data(), 3, q.data()) == NEGCOS_STATUS_NULL_ARGUMENT);
        CHECK(negcos_frequency_log_probability(f, nullptr, 3, q.data()) == NEGCOS_STATUS_NULL_ARGUMENT);
        CHECK(negcos_frequency_log_probability(f, ids.data(), 3, nullptr) == NEGCOS_STATUS_NULL_ARGUMENT);
        CHECK(negcos_frequency_log_probability(f, ids.data(), -1, q.data()) == NEGCOS_STATUS_SHAPE);
        CHECK(negcos_frequency_log_probability(f, ids.data(), std::numeric_limits<int64_t>::max(), q.data()) ==
              NEGCOS_STATUS_SHAPE);
        for (const ptrdiff_t offset : {-2, 0, 2})
            CHECK(negcos_frequency_log_probability(f, ids.data(), 3, reinterpret_cast<double*>(ids.data()) + offset) ==
                  NEGCOS_STATUS_OVERLAP);
        const auto* askew = reinterpret_cast<const int64_t*>(reinterpret_cast<const char*>(ids.data()) + 4);
        CHECK(negcos_frequency_update(f, askew, 2) == NEGCOS_STATUS_VALUE);
        CHECK(negcos_frequency_log_probability(f, askew, 2, q.data()) == NEGCOS_STATUS_VALUE);
        CHECK(std::string(negcos_last_error()) == "ids is not aligned to its elements of 8 bytes");
        auto* const out = reinterpret_cast<double*>(reinterpret_cast<char*>(q.data()) + 1);
        CHECK(negcos_frequency_log_probability(f, ids.data(), 2, out) == NEGCOS_STATUS_VALUE);
        CHECK(std::string(negcos_last_error()) == "log_probability is not aligned to its elements of 8 bytes");
        CHECK(negcos_frequency_save(nullptr, "q") == NEGCOS_STATUS_NULL_ARGUMENT);
        CHECK(negcos_frequency_save(f, nullptr) == NEGCOS_STATUS_NULL_ARGUMENT);
        negcos_frequency* loaded = nullptr;
        CHECK(negcos_frequency_load(nullptr, &loaded) == NEGCOS_STATUS_NULL_ARGUMENT);
        CHECK(negcos_frequency_load("q", nullptr) == NEGCOS_STATUS_NULL_ARGUMENT);
        negcos_frequency_destroy(nullptr);
        CHECK(loaded == nullptr);
        CHECK(q == std::vector<double>(3, 7));
        CHECK(ids == Ids{1, 2, 3});
        CHECK(saved(frequency) == before);
        CHECK(std::string(negcos_status_string(NEGCOS_STATUS_IO)) == "io");
        CHECK_THROWS_AS(frequency.log_probability(ids, std::span<double>(q).first(2)), std::invalid_argument);

        CHECK(negcos_frequency_log_probability(f, nullptr, 0, nullptr) == NEGCOS_STATUS_OK);
        CHECK(saved(frequency) == before);
        // Neighbours in one array are no overlap.
        std::vector<int64_t> both{1, 2, 3, 7, 7, 7, 7};
        REQUIRE(negcos_frequency_log_probability(f, both.data(), 3, reinterpret_cast<double*>(both.data()) + 3) ==
                NEGCOS_STATUS_OK);
        for (size_t k = 0; k < 3; ++k) CHECK(std::bit_cast<double>(both[3 + k]) == estimates(frequency, ids)[k]);
        CHECK(both[6] == 7);
        // A step without items is a step.
        CHECK(negcos_frequency_update(f, nullptr, 0) == NEGCOS_STATUS_OK);
        CHECK(saved(frequency) != before);
    }
}

}  // namespace
