// SPDX-License-Identifier: Apache-2.0
//
// The files of the negcos command: all its outputs or none, whatever ends it, with what was there before; and no more
// read of an input than it claims.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <limits>
#include <thread>

#include "cli/files.hpp"
#include "command.hpp"

namespace {

using namespace command;
namespace fs = std::filesystem;

struct Joined {
    std::thread& thread;
    ~Joined() { thread.join(); }
};

TEST_SUITE("cli") {
    TEST_CASE("cli: an output that cannot be written takes the others with it, and replaced files come back whole") {
        Inputs in;
        REQUIRE(in.run("loss q.npy d.npy --losses l.npy") == 0);
        const std::string old = read_file(in.path / "l.npy");
        CHECK(in.run("loss q.npy d.npy --seed 4 --losses l.npy --grad-queries /dev/full") == 2);
        CHECK(read_file(in.path / "l.npy") == old);
        CHECK(in.run("loss q.npy d.npy --seed 4 --losses l.npy") == 0);
        CHECK(read_file(in.path / "l.npy") != old);
        CHECK(in.files() == std::set<std::string>{"q.npy", "d.npy", "l.npy"});
        CHECK(in.run("loss q.npy d.npy --json > /dev/full") == 2);
    }

    TEST_CASE("cli: a place that is taken at the last moment brings back what was replaced before it") {
        Inputs in;
        const std::string old = "old", fresh = "fresh", large(1 << 20, 'x');
        const auto path = [&](const char* name) { return (in.path / name).string(); };
        const auto output = [&](const char* name, const std::string& text) {
            return negcos::cli::Output{std::string("--") + name, path(name), text, {}};
        };
        const std::vector<negcos::cli::Output> outputs = {output("l.npy", fresh), output("pipe", large),
                                                          output("n.npy", fresh), output("g.npy", fresh)};
        REQUIRE(mkfifo(path("pipe").c_str(), 0600) == 0);
        const auto write = [&](bool taken) {
            // All else is written by the time that the pipe is, and it takes no more until it is read.
            std::thread reader([&] {
                std::ifstream pipe(path("pipe"));
                if (taken) fs::create_directory(path("g.npy"));
                pipe.ignore(std::numeric_limits<std::streamsize>::max());
            });
            const Joined joined{reader};
            negcos::cli::write_outputs(outputs, "");
        };
        write_file(path("l.npy"), old);
        auto left = in.files();
        left.insert("g.npy");
        CHECK_THROWS_WITH_AS(write(true), doctest::Contains("--g.npy: "), negcos::cli::Failure);
        CHECK(read_file(path("l.npy")) == old);
        CHECK(in.files() == left);
        fs::remove(path("g.npy"));
        write(false);
        for (const char* name : {"l.npy", "n.npy", "g.npy"}) CHECK(read_file(path(name)) == fresh);
        left.insert("n.npy");
        CHECK(in.files() == left);
    }

    TEST_CASE("cli: a signal takes back what is in its place while the numbers are printed") {
        const Inputs in;
        const std::string path = (in.path / "l.npy").string(), fresh = "fresh", large(1 << 20, 'x');
        for (const bool there : {true, false}) {
            if (there)
                write_file(path, "old");
            else
                fs::remove(path);
            const auto before = in.files();
            int pipe[2];
            REQUIRE(::pipe(pipe) == 0);
            const pid_t child = fork();
            REQUIRE(child >= 0);
            if (child == 0) {
                alarm(60);
                std::signal(SIGTERM, SIG_DFL);  // doctest has it
                dup2(pipe[1], STDOUT_FILENO);
                close(pipe[0]);
                try {
                    negcos::cli::write_outputs({{"--losses", path, fresh, {}}}, large);
                    _exit(1);
                } catch (...) {
                    _exit(2);
                }
            }
            close(pipe[1]);
            char first;
            CHECK(read(pipe[0], &first, 1) == 1);
            CHECK(read_file(path) == fresh);
            REQUIRE(kill(child, SIGTERM) == 0);
            int status = -1;
            REQUIRE(waitpid(child, &status, 0) == child);
            close(pipe[0]);
            CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM));
            CHECK(in.files() == before);
            if (there) CHECK(read_file(path) == "old");
        }
    }

    TEST_CASE("cli: what is replaced is there all the time") {
        const Inputs in;
        const std::string path = (in.path / "l.npy").string(), fresh = "fresh";
        write_file(path, "old");
        std::atomic<bool> written = false, missed = false, looked = false;
        std::thread reader([&] {
            while (!written) {
                if (access(path.c_str(), F_OK) != 0) missed = true;
                looked = true;
            }
        });
        while (!looked) std::this_thread::yield();
        for (int k = 0; k < 200; ++k) negcos::cli::write_outputs({{"--losses", path, fresh, {}}}, "");
        written = true;
        reader.join();
        CHECK(!missed);
    }

    TEST_CASE("cli: a file that appears meanwhile is not replaced") {
        const Inputs in;
        const std::string path = (in.path / "new.npy").string(), pipe = (in.path / "pipe").string();
        REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
        std::thread other([&] {  // the pipe comes last, and opens when there is a reader
            const auto begun = [&] {
                for (const std::string& name : in.files())
                    if (name.find(".negcos.") != std::string::npos) return true;
                return false;
            };
            while (!begun()) std::this_thread::yield();
            write_file(path, "another's");
            std::ifstream(pipe).get();
        });
        std::string message;
        try {
            negcos::cli::write_outputs({{"--losses", path, "ours", {}}, {"--hits", pipe, "ours", {}}}, "");
        } catch (const std::exception& error) {
            message = error.what();
        }
        other.join();
        CHECK(message.find("exists") != std::string::npos);
        CHECK(read_file(path) == "another's");
    }

    TEST_CASE("cli: names that a killed run left behind, and names as long as there are") {
        Inputs in;
        const std::string process = std::to_string(getpid()), longest(255, 'x'), kept = "kept";
        const std::set<std::string> left = {".negcos." + process + ".0", ".negcos." + process + ".1~"};
        for (const std::string& name : left) write_file(in.path / name, kept);
        const std::string fresh = "fresh";
        for (int k = 0; k < 2; ++k)
            negcos::cli::write_outputs({{"--losses", (in.path / longest).string(), fresh, {}}}, "");
        CHECK(read_file(in.path / longest) == fresh);
        for (const std::string& name : left) CHECK(read_file(in.path / name) == kept);
        CHECK(in.files().size() == 5);
    }

    TEST_CASE("cli: a replaced file keeps who may read it, and one that may not be written is not replaced") {
        Inputs in;
        const fs::perms kept = fs::perms::owner_read | fs::perms::owner_write | fs::perms::others_write;
        write_file(in.path / "l.npy", "old");
        fs::permissions(in.path / "l.npy", kept);
        REQUIRE(in.run("loss q.npy d.npy --losses l.npy --hit-probability h.npy") == 0);
        CHECK(fs::status(in.path / "l.npy").permissions() == kept);
        CHECK(read_file(in.path / "l.npy") != "old");
        write_file(in.path / "new", "");
        CHECK(fs::status(in.path / "h.npy").permissions() == fs::status(in.path / "new").permissions());

        // By somebody else where this is root, who may write everything.
        fs::permissions(in.path, fs::perms::all);
        fs::permissions(in.path / "l.npy", fs::perms::owner_read | fs::perms::others_read);
        const std::vector<negcos::cli::Output> outputs = {{"--losses l.npy", (in.path / "l.npy").string(), {}, {}}};
        const pid_t child = fork();
        if (child == 0) {
            if (geteuid() == 0 && seteuid(65534) != 0) _exit(77);
            try {
                negcos::cli::check_outputs({}, outputs);
                _exit(1);
            } catch (const negcos::cli::Failure& failure) {
                _exit(std::string(failure.what()).ends_with("l.npy: Permission denied") ? 0 : 3);
            }
        }
        int status = -1;
        REQUIRE(waitpid(child, &status, 0) == child);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
            std::printf("SKIP: cli: a file that may not be written: root is nobody else here\n");
        else
            CHECK(status == 0);
    }

    TEST_CASE("cli: symbolic links lead to what is written, there or not, and devices take everything") {
        Inputs in;
        write_file(in.path / "l.npy", "old");
        fs::create_directory(in.path / "folder");
        fs::create_symlink("l.npy", in.path / "there");
        fs::create_symlink("folder/second", in.path / "first");
        fs::create_symlink("../new.npy", in.path / "folder/second");
        fs::create_symlink("loop", in.path / "loop");
        REQUIRE(in.run("loss q.npy d.npy --losses there --hit-probability first") == 0);
        for (const char* link : {"there", "first", "folder/second"}) CHECK(fs::is_symlink(in.path / link));
        CHECK(elements<float>(read_file(in.path / "l.npy"), 50, 1) !=
              elements<float>(read_file(in.path / "new.npy"), 50, 1));
        fs::remove(in.path / "new.npy");
        for (const auto& [line, named] :
             {std::pair("--losses first --hit-probability new.npy", std::string("is the same file as")),
              std::pair("--losses loop", std::string("--losses loop: ") + std::strerror(ELOOP) + "\n"),
              std::pair("--losses q.npy/l.npy", std::string("--losses q.npy/l.npy: Not a directory\n"))}) {
            CHECK(in.run(std::string("loss q.npy d.npy ") + line) == 2);
            CHECK(in.error.find(named) != std::string::npos);
        }
        CHECK(in.run("loss q.npy d.npy --losses /dev/null --hit-probability /dev/null") == 0);
        CHECK(in.files() == std::set<std::string>{"q.npy", "d.npy", "l.npy", "folder", "there", "first", "loop"});
    }

    TEST_CASE("cli: standard output and files, both or neither") {
        Inputs in;
        write_file(in.path / "l.npy", "old");
        CHECK(in.run("loss q.npy d.npy --json --losses l.npy --logits n.npy > /dev/full") == 2);
        CHECK(in.error.find("standard output: ") != std::string::npos);
        CHECK(read_file(in.path / "l.npy") == "old");
        CHECK(in.files() == std::set<std::string>{"q.npy", "d.npy", "l.npy"});
    }

    TEST_CASE("cli: a signal takes back what is not in its place, and ends the command") {
        Inputs in;
        write_file(in.path / "l.npy", "old");
        REQUIRE(mkfifo((in.path / "pipe").c_str(), 0600) == 0);
        const auto before = in.files();
        for (const char* signal : {"HUP", "INT", "QUIT", "TERM", "XCPU", "USR1"}) {
            INFO(std::string(signal));
            // It waits for a reader of the pipe when everything else is there.
            const std::string wait =
                "for k in $(seq 1200); do [ -e .negcos.$!.1 ] && break; sleep 0.05; done; ls -A | wc -l; ";
            const int status = std::system(("cd '" + in.path.string() +
                                            "' && { env --default-signal \"$NEGCOS_COMMAND\" loss q.npy d.npy "
                                            "--losses l.npy --logits n.npy --hit-probability pipe > /dev/null & " +
                                            wait + "kill -" + signal + " $!; wait $!; [ $? -gt 128 ]; } > ../" +
                                            in.path.filename().string() + ".out")
                                               .c_str());
            CHECK(status == 0);
            CHECK(std::stoul(read_file(in.path.string() + ".out")) == before.size() + 2);
            CHECK(in.files() == before);
            CHECK(read_file(in.path / "l.npy") == "old");
        }
        fs::remove(in.path.string() + ".out");
    }

    TEST_CASE("cli: what has no end, or not the size that it claims, takes no memory") {
        Inputs in;
        const std::string q = read_file(in.path / "q.npy");
        write_file(in.path / "sparse.npy", q);
        fs::resize_file(in.path / "sparse.npy", uintmax_t{1} << 40);
        std::string claims = q;
        claims.replace(claims.find("(50, 19), }     "), 16, "(9999999999,9),}");
        write_file(in.path / "claims.npy", claims);
        const auto by_columns = [](std::string bytes) { return bytes.replace(bytes.find("False"), 5, "True "); };
        write_file(in.path / "fortran.npy", by_columns(q));
        write_file(in.path / "claims-fortran.npy", by_columns(claims));
        write_file(in.path / "padded.npy", std::string("\x93NUMPY\2\0\0\0\1\0", 12) + std::string(1 << 17, ' '));
        if (!watched) in.before = "ulimit -v 4000000; ";
        for (const Mistake& mistake :
             {Mistake{"loss /dev/zero d.npy", ": /dev/zero: not a .npy file\n"},
              Mistake{"loss sparse.npy d.npy",
                      ": sparse.npy: 1099511627648 bytes of elements, expected 3800 for shape "},
              Mistake{"loss claims.npy d.npy",
                      ": claims.npy: 3800 bytes of elements, expected 359999999964 for shape "},
              Mistake{"loss claims-fortran.npy d.npy",
                      ": claims-fortran.npy: 3800 bytes of elements, expected 359999999964 for shape "},
              Mistake{"loss padded.npy d.npy", ": padded.npy: its header has 65536 bytes, expected at most 10000\n"},
              Mistake{"loss /dev/stdin d.npy < sparse.npy", "bytes of elements, expected 3800 for shape"}}) {
            INFO(mistake.arguments);
            CHECK(in.run(mistake.arguments) == 2);
            INFO(in.error);
            CHECK(in.error.find(mistake.named) != std::string::npos);
        }
        for (const auto& [input, named] : {std::pair("cat q.npy /dev/zero", " bytes of elements, expected 3800 for"),
                                           std::pair("cat fortran.npy /dev/zero", " bytes of elements, expected 3800"),
                                           std::pair("cat claims-fortran.npy", " bytes of elements, expected 3599999"),
                                           std::pair("{ cat claims-fortran.npy; head -c 100000 /dev/zero; }",
                                                     ": 103800 bytes of elements, expected 359999999964 for"),
                                           std::pair("cat /dev/zero", ": /dev/stdin: not a .npy file\n")}) {
            in.before = std::string(watched ? "" : "ulimit -v 4000000; ") + input + " | ";
            CHECK(in.run("loss /dev/stdin d.npy") == 2);
            INFO(in.error);
            CHECK(in.error.find(named) != std::string::npos);
        }
        // A pipe that is a whole file, larger than what is read of it first.
        write_file(in.path / "wide.npy", npy(std::vector<double>(50 * 1000, 1), 50, 1000));
        in.before = "cat wide.npy | ";
        CHECK(in.run("loss /dev/stdin wide.npy") == 0);
    }

    TEST_CASE("cli: a disk that is full in the middle of a file, and a folder that takes none") {
        Inputs in;
        // 512 bytes a file, as if there were no more.
        in.before = "ulimit -f 1; trap '' XFSZ; ";
        CHECK(in.run("loss q.npy d.npy --losses l.npy --grad-queries g.npy") == 2);
        CHECK(in.error.find("--grad-queries g.npy: ") != std::string::npos);
        CHECK(std::count(in.error.begin(), in.error.end(), '\n') == 1);
        in.before.clear();
        CHECK(in.run("loss q.npy d.npy --losses l.npy --grad-queries /proc/g.npy") == 2);
        CHECK(in.error.find("--grad-queries /proc/g.npy: ") != std::string::npos);
        CHECK(in.files() == std::set<std::string>{"q.npy", "d.npy"});
    }
}

}  // namespace
