// SPDX-License-Identifier: Apache-2.0
//
// The files of the estimators of Q: a save replaces whole or not at all, and what is damaged is not loaded.
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "frequency_reference.hpp"

namespace {

using namespace frequency_reference;
using scratch::Folder;
using scratch::read_file;
using scratch::write_file;
namespace fs = std::filesystem;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

TEST_SUITE("unit") {
    TEST_CASE("frequency: saved, loaded and gone on as if never stopped") {
        const Folder folder;
        for (const negcos::FrequencyOptions& o : all_options()) {
            negcos::Frequency frequency(o);
            for (const Ids& batch : stream(60)) frequency.update(batch);
            frequency.save((folder / "q"));  // over the one before
            CHECK(folder.files().size() == 1);
            negcos::Frequency loaded = negcos::Frequency::load((folder / "q"));
            CHECK(saved(loaded) == read_file((folder / "q")));
            CHECK(estimates(loaded, probes()) == estimates(frequency, probes()));
            for (const Ids& batch : stream(40)) loaded.update(batch), frequency.update(batch);
            CHECK(saved(loaded) == saved(frequency));
            CHECK(saved(loaded) != read_file((folder / "q")));
        }
        // Larger than any buffer.
        negcos::Frequency frequency(options(NEGCOS_FREQUENCY_STREAMING, 3, 12345));
        for (const Ids& batch : stream(200)) frequency.update(batch);
        frequency.save((folder / "q"));
        CHECK(fs::file_size((folder / "q")) == 8 * (8 + 3 * 12345 * 2 + 1));
        CHECK(saved(negcos::Frequency::load((folder / "q"))) == read_file((folder / "q")));
    }

    TEST_CASE("frequency: a save that fails leaves what was there") {
        const Folder folder;
        negcos::Frequency frequency(options(NEGCOS_FREQUENCY_STREAMING, 4, 1000));
        frequency.save((folder / "q"));
        const std::string before = read_file((folder / "q"));
        for (const Ids& batch : stream(10)) frequency.update(batch);

        struct rlimit limit;
        REQUIRE(getrlimit(RLIMIT_FSIZE, &limit) == 0);
        const struct rlimit low { 1 << 14, limit.rlim_max };
        const auto handler = signal(SIGXFSZ, SIG_IGN);
        REQUIRE(setrlimit(RLIMIT_FSIZE, &low) == 0);
        const int32_t status = negcos_frequency_save(frequency.get(), (folder / "q").c_str());
        setrlimit(RLIMIT_FSIZE, &limit);
        signal(SIGXFSZ, handler);
        CHECK(status == NEGCOS_STATUS_IO);
        CHECK(std::string(negcos_last_error()).find((folder / "q")) != std::string::npos);
        CHECK(read_file((folder / "q")) == before);
        CHECK(folder.files().size() == 1);

        const auto fails = [&](const std::string& path, const char* said) {
            INFO(path);
            CHECK(negcos_frequency_save(frequency.get(), path.c_str()) == NEGCOS_STATUS_IO);
            const std::string sentence = negcos_last_error();
            INFO(sentence);
            CHECK(sentence.find(said) != std::string::npos);
        };
        fails(folder.path, "regular file");
        fails("/dev/null", "regular file");
        fails((folder / "none/q"), "No such file");
        fails("", "No such file");
        fails((folder / "q/q"), "Not a directory");
        CHECK(folder.files().size() == 1);
        CHECK(fs::is_character_file("/dev/null"));
    }

    TEST_CASE("frequency: a save replaces what a link points to, and steps around names that are taken") {
        const Folder folder;
        negcos::Frequency frequency(options(NEGCOS_FREQUENCY_COUNT_MIN, 1, 3));
        frequency.save((folder / "q"));
        fs::create_symlink("q", (folder / "link"));
        const std::string taken = (folder / "q") + ".tmp." + std::to_string(getpid()) + ".0";
        write_file(taken, "another's");
        frequency.update(Ids{1});
        frequency.save((folder / "link"));
        CHECK(fs::is_symlink((folder / "link")));
        CHECK(read_file((folder / "q")) == saved(frequency));
        CHECK(read_file(taken) == "another's");
        CHECK(folder.files().size() == 3);
        fs::create_symlink("new", (folder / "nowhere"));
        frequency.save((folder / "nowhere"));
        CHECK(fs::is_symlink((folder / "nowhere")));
        CHECK(read_file((folder / "new")) == saved(frequency));
        // Who may read and write it stays as it was.
        fs::permissions((folder / "q"), fs::perms::owner_read | fs::perms::owner_write);
        frequency.save((folder / "q"));
        CHECK(fs::status((folder / "q")).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
    }

    TEST_CASE("frequency: a file with any bit changed, cut or continued is an error, and nothing is loaded") {
        const Folder folder;
        const auto fails = [&](const std::string& bytes, const char* said) {
            write_file((folder / "q"), bytes);
            negcos_frequency* loaded = nullptr;
            CHECK(negcos_frequency_load((folder / "q").c_str(), &loaded) == NEGCOS_STATUS_IO);
            CHECK(loaded == nullptr);
            const std::string sentence = negcos_last_error();
            INFO(sentence);
            CHECK(sentence.find((folder / "q")) != std::string::npos);
            CHECK(sentence.find(said) != std::string::npos);
        };
        for (const int32_t method : {NEGCOS_FREQUENCY_STREAMING, NEGCOS_FREQUENCY_COUNT_MIN}) {
            negcos::Frequency frequency(options(method, 2, 3, 77));
            frequency.update(Ids{1, 2, 3});
            frequency.update(Ids{1, 5});
            const std::string good = saved(frequency);
            write_file((folder / "q"), good);
            CHECK(saved(negcos::Frequency::load((folder / "q"))) == good);
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
        CHECK(negcos_frequency_load((folder / "none").c_str(), &loaded) == NEGCOS_STATUS_IO);
        CHECK(negcos_frequency_load("", &loaded) == NEGCOS_STATUS_IO);
        REQUIRE(mkfifo((folder / "pipe").c_str(), 0600) == 0);
        CHECK(negcos_frequency_load((folder / "pipe").c_str(), &loaded) == NEGCOS_STATUS_IO);
        CHECK(loaded == nullptr);
        CHECK_THROWS_AS(negcos::Frequency::load((folder / "none")), negcos::Error);
    }
}

}  // namespace
