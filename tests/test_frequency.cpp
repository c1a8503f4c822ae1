// SPDX-License-Identifier: Apache-2.0
//
// The estimators of Q, written again from docs/frequency.md, down to the bytes of their files; what the estimates are
// worth on streams whose frequencies are known; and every way to call wrongly or to break a file.
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "harness.hpp"

namespace {

using harness::Random;
namespace fs = std::filesystem;

using Ids = std::vector<int64_t>;
using Words = std::vector<uint64_t>;

uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

void seal(Words& words) {
    uint64_t sum = 0;
    for (size_t k = 0; k + 1 < words.size(); ++k) sum = mix(sum ^ words[k]);
    words.back() = sum;
}

std::string bytes_of(const Words& words) {
    std::string bytes;
    for (const uint64_t word : words)
        for (int b = 0; b < 8; ++b) bytes.push_back(static_cast<char>(word >> (8 * b) & 0xFF));
    return bytes;
}

Words words_of(const std::string& bytes) {
    Words words(bytes.size() / 8);
    for (size_t b = 0; b < 8 * words.size(); ++b)
        words[b / 8] |= uint64_t{static_cast<unsigned char>(bytes[b])} << (8 * (b % 8));
    return words;
}

// The estimators as docs/frequency.md states them.
struct Reference {
    struct Bucket {
        int64_t last = 0;  // A
        double gap = 0;    // B
        int64_t count = 0;
    };
    negcos::FrequencyOptions options;
    std::vector<std::vector<Bucket>> buckets;
    int64_t steps = 0, ids = 0;

    explicit Reference(const negcos::FrequencyOptions& o)
        : options(o), buckets(static_cast<size_t>(o.hashes), std::vector<Bucket>(static_cast<size_t>(o.buckets))) {}

    bool streaming() const { return options.method == NEGCOS_FREQUENCY_STREAMING; }

    Bucket& bucket(size_t hash, int64_t id) {
        const uint64_t key = mix(options.seed + (hash + 1) * 0x9E3779B97F4A7C15u);
        return buckets[hash][mix(static_cast<uint64_t>(id) ^ key) % static_cast<uint64_t>(options.buckets)];
    }
    void update(const Ids& batch) {
        ++steps;
        for (size_t h = 0; h < buckets.size(); ++h) {
            std::set<Bucket*> hit;
            for (const int64_t id : batch) {
                hit.insert(&bucket(h, id));
                ++bucket(h, id).count;
            }
            for (Bucket* b : hit) {
                const double gap = static_cast<double>(steps - b->last);
                if (b->last == 0 && options.initial_gap == 0)
                    b->gap = gap;
                else {
                    const double before = b->last == 0 ? options.initial_gap : b->gap;
                    b->gap = std::max(1.0, before + options.learning_rate * (gap - before));
                }
                b->last = steps;
            }
        }
        ids += static_cast<int64_t>(batch.size());
    }
    // 1 / p - 1
    double odds_against(int64_t id) {
        double gap = 1;
        int64_t count = ids;
        for (size_t h = 0; h < buckets.size(); ++h) {
            const Bucket& b = bucket(h, id);
            const double unseen = options.initial_gap > 0 ? options.initial_gap : static_cast<double>(steps + 1);
            gap = std::max(gap, b.last == 0 ? unseen : b.gap);
            count = std::min(count, b.count);
        }
        if (streaming()) return gap - 1;
        return count == 0 ? static_cast<double>(ids) : static_cast<double>(ids - count) / static_cast<double>(count);
    }
    Words file() const {
        Words words{0x5146534F4347454Eu,
                    1 | static_cast<uint64_t>(options.method) << 32,
                    static_cast<uint64_t>(options.hashes),
                    static_cast<uint64_t>(options.buckets),
                    std::bit_cast<uint64_t>(options.learning_rate),
                    std::bit_cast<uint64_t>(options.initial_gap),
                    options.seed,
                    static_cast<uint64_t>(streaming() ? steps : ids)};
        for (const auto& row : buckets)
            for (const Bucket& b : row)
                if (streaming()) {
                    words.push_back(static_cast<uint64_t>(b.last));
                    words.push_back(std::bit_cast<uint64_t>(b.gap));
                } else
                    words.push_back(static_cast<uint64_t>(b.count));
        words.push_back(0);
        seal(words);
        return words;
    }
};

// A folder of its own, which is gone afterwards.
struct Folder {
    std::string path = (fs::temp_directory_path() / "negcos_frequency.XXXXXX").string();
    Folder() { REQUIRE(mkdtemp(path.data()) != nullptr); }
    ~Folder() {
        std::error_code error;
        fs::remove_all(path, error);
    }
    std::string file(const std::string& name = "q") const { return path + "/" + name; }
    size_t count() const {
        return static_cast<size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
    }
};

std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    REQUIRE(file);
    return {std::istreambuf_iterator<char>(file), {}};
}
void write(const std::string& path, const std::string& bytes) {
    std::ofstream file(path, std::ios::binary);
    file << bytes;
    REQUIRE(file.flush());
}
std::string saved(const negcos::Frequency& frequency) {
    const Folder folder;
    frequency.save(folder.file());
    return read(folder.file());
}
std::vector<double> estimates(const negcos::Frequency& frequency, const Ids& ids) {
    std::vector<double> result(ids.size(), 7);
    frequency.log_probability(ids, result);
    return result;
}

negcos::FrequencyOptions options(int32_t method, int32_t hashes, int64_t buckets, uint64_t seed = 0) {
    negcos::FrequencyOptions result;
    result.method = method;
    result.hashes = hashes;
    result.buckets = buckets;
    result.seed = seed;
    return result;
}

// Each with and without collisions; the last ones with what only STREAMING has.
std::vector<negcos::FrequencyOptions> all_options() {
    std::vector<negcos::FrequencyOptions> all;
    for (const int32_t method : {NEGCOS_FREQUENCY_STREAMING, NEGCOS_FREQUENCY_COUNT_MIN})
        for (const auto& [hashes, buckets] : {std::pair{1, 1}, {1, 7}, {3, 64}, {64, 5}, {4, 5000}})
            all.push_back(options(method, hashes, buckets, 11 * static_cast<uint64_t>(hashes)));
    for (const auto& [rate, gap] : {std::pair{1.0, 0.0}, {0.3, 1.0}, {1e-300, 33.3}, {0.07, 0x1p53}}) {
        all.push_back(options(NEGCOS_FREQUENCY_STREAMING, 2, 50, ~uint64_t{0}));
        all.back().learning_rate = rate;
        all.back().initial_gap = gap;
    }
    return all;
}

// Items 0 .. count - 1 with P(k) ~ 1 / (k + 1).
struct Zipf {
    std::vector<double> upto;
    Random random{5};
    explicit Zipf(int64_t count) {
        for (int64_t k = 0; k < count; ++k) upto.push_back((k > 0 ? upto.back() : 0) + 1 / static_cast<double>(k + 1));
    }
    double share(int64_t k) const { return 1 / static_cast<double>(k + 1) / upto.back(); }
    Ids batch(int64_t size) {
        Ids ids;
        for (int64_t k = 0; k < size; ++k)
            ids.push_back(std::lower_bound(upto.begin(), upto.end(), random.uniform() * upto.back()) - upto.begin());
        return ids;
    }
};

// Streams with everything in them: frequent and rare ids, any number as an id, ids twice in a batch, steps without ids.
std::vector<Ids> stream(int64_t steps) {
    Zipf zipf(300);
    Random random(2);
    std::vector<Ids> batches;
    for (int64_t step = 0; step < steps; ++step) {
        batches.push_back(zipf.batch(random.below(30)));
        if (step % 5 == 1) batches.back().push_back(static_cast<int64_t>(random.next()));
        if (step % 7 == 1) batches.back().push_back(std::numeric_limits<int64_t>::min());
        if (step % 9 == 1) batches.back().push_back(-1);
    }
    return batches;
}

// Of every kind in `stream`, and some that are not in it.
Ids probes() {
    Ids ids{std::numeric_limits<int64_t>::min(), -1, std::numeric_limits<int64_t>::max(), 123456789};
    for (int64_t id = 0; id < 330; ++id) ids.push_back(id);
    return ids;
}

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

    TEST_CASE("frequency: saved, loaded and gone on as if never stopped") {
        const Folder folder;
        for (const negcos::FrequencyOptions& o : all_options()) {
            negcos::Frequency frequency(o);
            for (const Ids& batch : stream(60)) frequency.update(batch);
            frequency.save(folder.file());  // over the one before
            CHECK(folder.count() == 1);
            negcos::Frequency loaded = negcos::Frequency::load(folder.file());
            CHECK(saved(loaded) == read(folder.file()));
            CHECK(estimates(loaded, probes()) == estimates(frequency, probes()));
            for (const Ids& batch : stream(40)) loaded.update(batch), frequency.update(batch);
            CHECK(saved(loaded) == saved(frequency));
            CHECK(saved(loaded) != read(folder.file()));
        }
        // Larger than any buffer.
        negcos::Frequency frequency(options(NEGCOS_FREQUENCY_STREAMING, 3, 12345));
        for (const Ids& batch : stream(200)) frequency.update(batch);
        frequency.save(folder.file());
        CHECK(fs::file_size(folder.file()) == 8 * (8 + 3 * 12345 * 2 + 1));
        CHECK(saved(negcos::Frequency::load(folder.file())) == read(folder.file()));
    }

    TEST_CASE("frequency: a save that fails leaves what was there") {
        const Folder folder;
        negcos::Frequency frequency(options(NEGCOS_FREQUENCY_STREAMING, 4, 1000));
        frequency.save(folder.file());
        const std::string before = read(folder.file());
        for (const Ids& batch : stream(10)) frequency.update(batch);

        struct rlimit limit;
        REQUIRE(getrlimit(RLIMIT_FSIZE, &limit) == 0);
        const struct rlimit low { 1 << 14, limit.rlim_max };
        const auto handler = signal(SIGXFSZ, SIG_IGN);
        REQUIRE(setrlimit(RLIMIT_FSIZE, &low) == 0);
        const int32_t status = negcos_frequency_save(frequency.get(), folder.file().c_str());
        setrlimit(RLIMIT_FSIZE, &limit);
        signal(SIGXFSZ, handler);
        CHECK(status == NEGCOS_STATUS_IO);
        CHECK(std::string(negcos_last_error()).find(folder.file()) != std::string::npos);
        CHECK(read(folder.file()) == before);
        CHECK(folder.count() == 1);

        const auto fails = [&](const std::string& path, const char* said) {
            INFO(path);
            CHECK(negcos_frequency_save(frequency.get(), path.c_str()) == NEGCOS_STATUS_IO);
            const std::string sentence = negcos_last_error();
            INFO(sentence);
            CHECK(sentence.find(said) != std::string::npos);
        };
        fails(folder.path, "regular file");
        fails("/dev/null", "regular file");
        fails(folder.file("none/q"), "No such file");
        fails("", "No such file");
        fails(folder.file("q/q"), "Not a directory");
        CHECK(folder.count() == 1);
        CHECK(fs::is_character_file("/dev/null"));
    }

    TEST_CASE("frequency: a save replaces what a link points to, and steps around names that are taken") {
        const Folder folder;
        negcos::Frequency frequency(options(NEGCOS_FREQUENCY_COUNT_MIN, 1, 3));
        frequency.save(folder.file());
        fs::create_symlink("q", folder.file("link"));
        const std::string taken = folder.file() + ".tmp." + std::to_string(getpid()) + ".0";
        write(taken, "another's");
        frequency.update(Ids{1});
        frequency.save(folder.file("link"));
        CHECK(fs::is_symlink(folder.file("link")));
        CHECK(read(folder.file()) == saved(frequency));
        CHECK(read(taken) == "another's");
        CHECK(folder.count() == 3);
        // Who may read and write it stays as it was.
        fs::permissions(folder.file(), fs::perms::owner_read | fs::perms::owner_write);
        frequency.save(folder.file());
        CHECK(fs::status(folder.file()).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
    }

    TEST_CASE("frequency: a file with any bit changed, cut or continued is an error, and nothing is loaded") {
        const Folder folder;
        const auto fails = [&](const std::string& bytes, const char* said) {
            write(folder.file(), bytes);
            negcos_frequency* loaded = nullptr;
            CHECK(negcos_frequency_load(folder.file().c_str(), &loaded) == NEGCOS_STATUS_IO);
            CHECK(loaded == nullptr);
            const std::string sentence = negcos_last_error();
            INFO(sentence);
            CHECK(sentence.find(folder.file()) != std::string::npos);
            CHECK(sentence.find(said) != std::string::npos);
        };
        for (const int32_t method : {NEGCOS_FREQUENCY_STREAMING, NEGCOS_FREQUENCY_COUNT_MIN}) {
            negcos::Frequency frequency(options(method, 2, 3, 77));
            frequency.update(Ids{1, 2, 3});
            frequency.update(Ids{1, 5});
            const std::string good = saved(frequency);
            write(folder.file(), good);
            CHECK(saved(negcos::Frequency::load(folder.file())) == good);
            for (size_t at = 0; at < good.size(); ++at)
                for (int bit = 0; bit < 8; ++bit) {
                    std::string bad = good;
                    bad[at] = static_cast<char>(bad[at] ^ 1 << bit);
                    INFO("byte " << at << " bit " << bit);
                    fails(bad, at < 8 ? "no saved estimator" : at < 12 ? "version" : "damaged");
                }
            for (size_t size = 0; size < good.size(); ++size) {
                INFO("cut to " << size);
                fails(good.substr(0, size), "cut off");
            }
            fails(good + '\0', "cut off or damaged");
            fails(good + good, "cut off or damaged");
            fails(std::string(good.size(), '\0'), "no saved estimator");
            fails("\x93NUMPY" + good, "no saved estimator");

            // A checksum that matches does not make it right.
            const auto fails_sealed = [&](size_t word, uint64_t value, const char* said) {
                INFO("word " << word << " = " << value);
                Words words = words_of(good);
                REQUIRE(words[word] != value);
                words[word] = value;
                seal(words);
                fails(bytes_of(words), said);
            };
            const auto bits = [](double x) { return std::bit_cast<uint64_t>(x); };
            fails_sealed(1, 2, "version 2");
            fails_sealed(1, 0, "version 0");
            fails_sealed(1, 1 | uint64_t{2} << 32, "header");
            fails_sealed(1, 1 | uint64_t{0xFFFFFFFF} << 32, "header");
            fails_sealed(2, 0, "header");
            fails_sealed(2, 65, "header");
            fails_sealed(2, 2 | uint64_t{1} << 32, "header");
            fails_sealed(2, 3, "cut off");
            fails_sealed(3, 0, "header");
            fails_sealed(3, ~uint64_t{0}, "header");
            fails_sealed(3, uint64_t{1} << 32, "cut off");  // no terabytes are asked for
            fails_sealed(4, bits(0), "header");
            fails_sealed(4, bits(kNaN), "header");
            fails_sealed(4, bits(1.5), "header");
            fails_sealed(5, bits(0.5), "header");
            fails_sealed(5, bits(kInf), "header");
            fails_sealed(7, (uint64_t{1} << 53) + 1, "header");
            fails_sealed(7, 0, "table");  // fewer than the table has
            fails_sealed(8, uint64_t{1} << 40, "table");
            if (method == NEGCOS_FREQUENCY_COUNT_MIN) {
                fails_sealed(5, bits(2), "header");
                continue;
            }
            const Words words = words_of(good);
            for (size_t word = 8; word + 1 < words.size(); word += 2) {
                if (words[word] == 0) {
                    fails_sealed(word, 1, "table");
                    fails_sealed(word + 1, bits(1), "table");
                } else
                    for (const double gap : {0.0, 0.5, -1.0, kNaN, kInf, 0x1p54})
                        fails_sealed(word + 1, bits(gap), "table");
            }
        }
        negcos_frequency* loaded = nullptr;
        CHECK(negcos_frequency_load(folder.path.c_str(), &loaded) == NEGCOS_STATUS_IO);
        CHECK(negcos_frequency_load("/dev/null", &loaded) == NEGCOS_STATUS_IO);
        CHECK(negcos_frequency_load(folder.file("none").c_str(), &loaded) == NEGCOS_STATUS_IO);
        CHECK(negcos_frequency_load("", &loaded) == NEGCOS_STATUS_IO);
        REQUIRE(mkfifo(folder.file("pipe").c_str(), 0600) == 0);
        CHECK(negcos_frequency_load(folder.file("pipe").c_str(), &loaded) == NEGCOS_STATUS_IO);
        CHECK(loaded == nullptr);
        CHECK_THROWS_AS(negcos::Frequency::load(folder.file("none")), negcos::Error);
    }

    TEST_CASE("frequency: it counts to 2^53 and no further") {
        const Folder folder;
        for (const int32_t method : {NEGCOS_FREQUENCY_STREAMING, NEGCOS_FREQUENCY_COUNT_MIN}) {
            Words words = words_of(saved(negcos::Frequency(options(method, 2, 3))));
            words[7] = (uint64_t{1} << 53) - 1;
            seal(words);
            write(folder.file(), bytes_of(words));
            negcos::Frequency frequency = negcos::Frequency::load(folder.file());
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
            negcos::Frequency::load(folder.file()).save(folder.file());
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
        REQUIRE(negcos_frequency_save(created, folder.file().c_str()) == NEGCOS_STATUS_OK);
        negcos_frequency_destroy(created);
        CHECK(fs::file_size(folder.file()) == 8 * 9 + (uint64_t{64} << 20));
        Words expected = Reference(options(NEGCOS_FREQUENCY_STREAMING, 1, 1)).file();
        expected[2] = 4;
        expected[3] = 1 << 20;
        std::ifstream file(folder.file(), std::ios::binary);
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
