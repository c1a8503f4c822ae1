// SPDX-License-Identifier: Apache-2.0
//
// The command in a process in which memory and files fail, at whatever call: its numbers and all its files, or one line
// and status 2, what was there before, and nothing left behind.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "../faults.hpp"
#include "../scratch.hpp"
#include "cli/files.hpp"

int negcos_main(int argc, char** argv);  // main.cpp

namespace {

namespace fs = std::filesystem;
using negcos::cli::NpyType;
using scratch::read_file;
using scratch::write_file;

std::string npy(int64_t rows, int64_t cols) {
    const std::vector<float> values(static_cast<size_t>(rows * cols), 0.5f);
    return negcos::cli::npy_preamble(NpyType::f4, rows, cols) +
           std::string(reinterpret_cast<const char*>(values.data()), 4 * values.size());
}

// With what the command says, beside it.
struct Folder : scratch::Folder {
    fs::path out = path.string() + ".out", error = path.string() + ".err";
    ~Folder() {
        fs::remove(out);
        fs::remove(error);
    }
};

// A standard stream that leads elsewhere for a while.
class Redirected {
public:
    Redirected(int stream, const fs::path& to) : stream_(stream), before_(dup(stream)) {
        std::fflush(nullptr);
        const int fd = open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        REQUIRE(dup2(fd, stream_) == stream_);
        close(fd);
    }
    Redirected(const Redirected&) = delete;
    ~Redirected() {
        std::fflush(nullptr);
        dup2(before_, stream_);
        close(before_);
    }

private:
    int stream_, before_;
};

// The command while a call fails; and whether there were fewer calls.
std::pair<int, bool> run(const Folder& folder, std::vector<std::string> words, faults::Kind kind, int64_t nth) {
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const Redirected out(STDOUT_FILENO, folder.out), error(STDERR_FILENO, folder.error);
    faults::arm(kind, nth);
    const int status = negcos_main(static_cast<int>(words.size()), arguments.data());
    const bool fewer = faults::disarm() <= nth;
    return {status, fewer};
}

TEST_SUITE("fault") {
    TEST_CASE("files: whatever call fails, all outputs appear or none, and what was there is whole") {
        const Folder folder;
        write_file(folder / "q.npy", npy(5, 3));
        std::string columns = npy(5, 3);
        write_file(folder / "d.npy", columns.replace(columns.find("False"), 5, "True "));
        std::vector<std::string> words = {
            "negcos",         "loss",       folder / "q.npy", folder / "d.npy",    "--threading", "serial",
            "--isa",          "scalar",     "--losses",       folder / "l",        "--logits",    folder / "new",
            "--grad-queries", folder / "g", "--json",         "--hit-probability", "/dev/null"};
        const std::set<std::string> before = {"q.npy", "d.npy", "l", "g"};
        std::set<std::string> after = before;
        after.insert("new");
        const auto reset = [&] {
            for (const char* name : {"l", "g"}) {
                fs::remove(folder / name);
                write_file(folder / name, "old");
                REQUIRE(chmod((folder / name).c_str(), 0640) == 0);
            }
            fs::remove(folder / "new");
        };
        reset();
        REQUIRE(run(folder, words, faults::kFiles, faults::kNever).first == 0);  // and libcrypto has begun
        const std::string losses = read_file(folder / "l");
        struct Fault {
            faults::Kind kind;
            bool no_links = false;
        };
        for (const Fault& fault : {Fault{faults::kFiles}, Fault{faults::kFiles, true}, Fault{faults::kMemory},
                                   Fault{faults::kMemory, true}, Fault{faults::kEmptyWrites}})
            for (int64_t nth = 0;; ++nth) {
                INFO("kind " << fault.kind << ", call " << nth << (fault.no_links ? ", without links" : ""));
                reset();
                faults::no_links = fault.no_links;
                const auto [status, fewer] = run(folder, words, fault.kind, nth);
                faults::no_links = false;
                const std::string error = read_file(folder.error);
                INFO(error);
                if (status == 0) {
                    CHECK(read_file(folder / "l") == losses);
                    CHECK(folder.files() == after);
                    CHECK(read_file(folder.out).starts_with("{\"loss\":"));
                } else {
                    CHECK(status == 2);
                    CHECK(error.starts_with("negcos: "));
                    CHECK(error.find('\n') == error.size() - 1);
                    for (const char* name : {"l", "g"}) CHECK(read_file(folder / name) == "old");
                    CHECK(folder.files() == before);
                    CHECK(read_file(folder.out).empty());
                }
                struct stat there;
                REQUIRE(stat((folder / "l").c_str(), &there) == 0);
                CHECK((there.st_mode & 07777) == 0640);
                if (!fewer) continue;
                CHECK(status == 0);
                CHECK(nth > 3);
                break;
            }
    }

    TEST_CASE("files: one that shrinks while it is read is refused") {
        const Folder folder;
        static std::string path;
        static int reads;
        path = folder / "large.npy";
        for (const int run : {0, 1, 2, 3, 4, 5}) {
            const int at = run / 2;
            std::string bytes = npy(1 << 16, 4);
            write_file(path, bytes.replace(bytes.find("False"), 5, run % 2 == 0 ? "False" : "True "));
            reads = -at;
            faults::before_read = [] {
                if (reads++ == 0) CHECK(truncate(path.c_str(), 1 << 16) == 0);
            };
            CHECK_THROWS_WITH_AS(negcos::cli::read_array(path, {NpyType::f4}),
                                 doctest::Contains(" bytes of elements, expected 1048576 for shape (65536, 4)"),
                                 negcos::cli::Failure);
            faults::before_read = nullptr;
            CHECK(reads > 0);
        }
    }
}

}  // namespace
