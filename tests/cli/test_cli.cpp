// SPDX-License-Identifier: Apache-2.0
//
// The negcos command against the library, and against every way to call it wrongly: status 2, one line on standard
// error that names what is wrong, and no file left behind.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "../half.hpp"
#include "../harness.hpp"
#include "cli/npy.hpp"

namespace {

using namespace harness;
namespace fs = std::filesystem;
using negcos::cli::NpyType;

std::string read_file(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    REQUIRE(file);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const fs::path& path, const std::string& bytes) {
    std::ofstream file(path, std::ios::binary);
    file << bytes;
    REQUIRE(file.flush());
}

template <class T>
constexpr NpyType npy_type = sizeof(T) == 8          ? NpyType::f8
                             : sizeof(T) == 2        ? NpyType::f2
                             : std::is_integral_v<T> ? NpyType::i4
                                                     : NpyType::f4;

template <class T>
std::string npy(const std::vector<T>& values, int64_t rows, int64_t cols) {
    return negcos::cli::npy_preamble(npy_type<T>, rows, cols) +
           std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

template <class T>
std::vector<T> elements(const std::string& bytes, int64_t rows, int64_t cols) {
    const auto header = negcos::cli::parse_npy(std::as_bytes(std::span(bytes)), {npy_type<T>});
    CHECK(header.rows == rows);
    CHECK(header.cols == cols);
    std::vector<T> values(static_cast<size_t>(rows * cols));
    std::memcpy(values.data(), bytes.data() + header.offset, values.size() * sizeof(T));
    return values;
}

// A folder of its own, and the command run in it.
class Folder {
public:
    Folder() {
        std::string name = (fs::temp_directory_path() / "negcos-test-XXXXXX").string();
        REQUIRE(mkdtemp(name.data()));
        path = name;
    }
    Folder(const Folder&) = delete;
    ~Folder() { fs::remove_all(path); }

    int run(const std::string& arguments) {
        const char* command = std::getenv("NEGCOS_COMMAND");
        if (!command) FAIL("NEGCOS_COMMAND does not name the command to test");
        // Redirections first: those among the arguments win.
        const std::string line = "cd '" + path.string() + "' && timeout 60 '" + command + "' > ../" +
                                 path.filename().string() + ".out 2> ../" + path.filename().string() + ".err " +
                                 arguments;
        const int status = std::system(line.c_str());
        out = read_file(path.string() + ".out");
        error = read_file(path.string() + ".err");
        fs::remove(path.string() + ".out");
        fs::remove(path.string() + ".err");
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    std::set<std::string> files() const {
        std::set<std::string> names;
        for (const auto& entry : fs::directory_iterator(path)) names.insert(entry.path().filename().string());
        return names;
    }

    fs::path path;
    std::string out, error;
};

struct Inputs : Folder {
    Problem<float> p{50, 60, 19, 3};
    Inputs() {
        write_file(path / "q.npy", npy(p.queries, 50, 19));
        write_file(path / "d.npy", npy(p.documents, 60, 19));
    }
};

// As coreutils compute it.
std::string sha256(const fs::path& path, const std::string& bytes) {
    write_file(path, bytes);
    FILE* pipe = popen(("sha256sum '" + path.string() + "'").c_str(), "r");
    REQUIRE(pipe);
    char text[65] = "";
    CHECK(std::fread(text, 1, 64, pipe) == 64);
    pclose(pipe);
    return text;
}

template <class T>
void agrees_with_library() {
    Folder folder;
    Problem<T> p(50, 60, 19, 3);
    write_file(folder.path / "q.npy", npy(p.queries, 50, 19));
    write_file(folder.path / "d.npy", npy(p.documents, 60, 19));
    REQUIRE(folder.run(
                "loss q.npy d.npy --rounds 7 --sampling derangement --scale 12.5 --temperature 0.5 --seed 9 "
                "--step 4 --reduction sum --isa scalar --threads 1 --threading serial --json --losses l.npy "
                "--hit-probability h.npy --grad-queries gq.npy --grad-documents gd.npy --save-negatives n.npy") == 0);
    p.options.rounds = 7;
    p.options.sampling = NEGCOS_SAMPLING_DERANGEMENT;
    p.options.scale = 12.5;
    p.options.temperature = 0.5;
    p.options.seed = 9;
    p.options.step = 4;
    p.options.reduction = NEGCOS_REDUCTION_SUM;
    negcos::Context context = harness::context("scalar");
    const auto expected = run(context, p);
    CHECK(elements<T>(read_file(folder.path / "l.npy"), 50, 1) == expected.losses);
    CHECK(elements<T>(read_file(folder.path / "h.npy"), 50, 1) == expected.hit_probability);
    CHECK(elements<T>(read_file(folder.path / "gq.npy"), 50, 19) == expected.grad_queries);
    CHECK(elements<T>(read_file(folder.path / "gd.npy"), 60, 19) == expected.grad_documents);
    CHECK(elements<int32_t>(read_file(folder.path / "n.npy"), 50, 7) == expected.negatives);

    const auto object = nlohmann::json::parse(folder.out);
    CHECK(object.size() == 16);
    CHECK(object["loss"] == expected.numbers.loss);
    CHECK(object["accuracy"] == expected.numbers.accuracy);
    CHECK(object["mean_reciprocal_rank"] == expected.numbers.mean_reciprocal_rank);
    CHECK(object["grad_scale"] == expected.numbers.grad_scale);
    CHECK(object["batch"] == 50);
    CHECK(object["documents"] == 60);
    CHECK(object["dim"] == 19);
    CHECK(object["rounds"] == 7);
    CHECK(object["dtype"] == (sizeof(T) == 2 ? "f16" : sizeof(T) == 4 ? "f32" : "f64"));
    CHECK(object["isa"] == "scalar");
    CHECK(object["threads"] == 1);
    CHECK(object["threading"] == "serial");
    CHECK(object["zero_rows"] == 0);
    CHECK(object["excluded"] == 0);
    CHECK(object["milliseconds"].get<double>() > 0);
    auto digested = expected;
    digested.logits.clear();  // the command has none
    CHECK(object["digest"] == sha256(folder.path / "bytes", digested.bytes()));

    // The negatives written are read back: the same losses.
    REQUIRE(folder.run("loss q.npy d.npy --negatives n.npy --scale 12.5 --temperature 0.5 --losses l2.npy") == 0);
    CHECK(read_file(folder.path / "l.npy") == read_file(folder.path / "l2.npy"));
    CHECK(folder.out.find("derangement") == std::string::npos);
    CHECK(folder.out.find("given") != std::string::npos);
}

struct Mistake {
    std::string arguments, named;
};

TEST_SUITE("cli") {
    TEST_CASE("cli: loss agrees with the library, f32") {
        agrees_with_library<float>();
    }
    TEST_CASE("cli: loss agrees with the library, f64") {
        agrees_with_library<double>();
    }

    TEST_CASE("cli: loss agrees with the library, f16") {
        agrees_with_library<half::F16>();
    }

    TEST_CASE("cli: one digest for every instruction set and thread count, another for other outputs") {
        Inputs in;
        const auto digest = [&](const std::string& options) {
            REQUIRE(in.run("loss q.npy d.npy --json --grad-queries g.npy " + options) == 0);
            return nlohmann::json::parse(in.out)["digest"].get<std::string>();
        };
        const std::string expected = digest("--isa scalar --threading serial");
        CHECK(expected.size() == 64);
        for (const std::string& isa : isas("cli: one digest"))
            for (const char* threads : {"1", "3"}) CHECK(digest("--isa " + isa + " --threads " + threads) == expected);
        CHECK(digest("--losses l.npy") != expected);
        CHECK(digest("--seed 1") != expected);
    }

    TEST_CASE("cli: every option that this version has changes what it should") {
        Inputs in;
        const auto loss = [&](const std::string& options) {
            REQUIRE(in.run("loss q.npy d.npy --json " + options) == 0);
            return nlohmann::json::parse(in.out);
        };
        const auto base = loss("");
        CHECK(loss("--seed 1")["loss"] != base["loss"]);
        CHECK(loss("--step 1")["loss"] != base["loss"]);
        CHECK(loss("--scale 10")["loss"] != base["loss"]);
        CHECK(loss("--scale 10")["loss"] == loss("--temperature 2")["loss"]);
        CHECK(loss("--rounds 5")["rounds"] == 5);
        CHECK(loss("--rounds 5")["loss"] != base["loss"]);
        CHECK(loss("--similarity dot")["loss"] != base["loss"]);
        CHECK(loss("--objective batch-softmax")["accuracy"].is_null());
        for (const std::string sampling : {"derangement", "cyclic", "uniform", "log-uniform"})
            CHECK(loss("--sampling " + sampling)["loss"] != base["loss"]);
        CHECK(loss("--sampling all")["rounds"] == 59);
        CHECK(loss("--sampling all --isa scalar")["isa"] == "scalar");
        CHECK(loss("--threads 3")["threads"] == 3);
        CHECK(loss("--threading serial")["threading"] == "serial");
        CHECK(loss("--reduction sum")["loss"].get<double>() ==
              doctest::Approx(50 * base["loss"].get<double>()).epsilon(1e-6));
        CHECK(loss("--direction query-to-document")["loss"] == base["loss"]);
    }

    TEST_CASE("cli: mistakes are one line, status 2, and no file") {
        Inputs in;
        const std::string q = read_file(in.path / "q.npy");
        const auto with_header = [&](const std::string& from, const std::string& to) {
            std::string bytes = q;
            bytes.replace(bytes.find(from), from.size(), to);
            return bytes;
        };
        write_file(in.path / "empty.npy", "");
        write_file(in.path / "text.npy", "hello\n");
        write_file(in.path / "short.npy", q.substr(0, q.size() - 1));
        write_file(in.path / "long.npy", q + "x");
        write_file(in.path / "header.npy", q.substr(0, 40));
        write_file(in.path / "big.npy", with_header("'<f4'", "'>f4'"));
        write_file(in.path / "int.npy", with_header("'<f4'", "'<i8'"));
        write_file(in.path / "fortran.npy", with_header("False", " True"));
        write_file(in.path / "flat.npy", with_header("(50, 19)", "(950,)  "));
        write_file(in.path / "cube.npy", with_header("(50, 19),", "(50,19,1)"));
        write_file(in.path / "half.npy",
                   negcos::cli::npy_preamble(NpyType::f2, 50, 19) + std::string(50 * 19 * 2, '\0'));
        write_file(in.path / "few.npy", npy(std::vector<float>(40 * 19), 40, 19));
        write_file(in.path / "narrow.npy", npy(std::vector<float>(60 * 18), 60, 18));
        write_file(in.path / "double.npy", npy(std::vector<double>(60 * 19), 60, 19));
        write_file(in.path / "n.npy", npy(std::vector<int32_t>(50 * 4, 1), 50, 4));
        write_file(in.path / "n-out.npy", npy(std::vector<int32_t>(50 * 4, 60), 50, 4));
        write_file(in.path / "n-few.npy", npy(std::vector<int32_t>(40 * 4, 1), 40, 4));
        fs::create_directory(in.path / "folder");
        const std::string bytes_before = read_file(in.path / "n.npy");

        const std::vector<Mistake> mistakes = {
            {"", "subcommand"},
            {"nix", "nix"},
            {"loss", "queries"},
            {"loss q.npy", "documents"},
            {"loss q.npy d.npy extra", "extra"},
            {"loss q.npy d.npy --nix", "--nix"},
            {"loss nix.npy d.npy", "nix.npy"},
            {"loss q.npy folder", "folder"},
            {"loss empty.npy d.npy", "empty.npy"},
            {"loss text.npy d.npy", "text.npy"},
            {"loss short.npy d.npy", "short.npy"},
            {"loss long.npy d.npy", "long.npy"},
            {"loss header.npy d.npy", "header.npy"},
            {"loss big.npy d.npy", "'>f4'"},
            {"loss int.npy d.npy", "'<i8'"},
            {"loss fortran.npy d.npy", "Fortran"},
            {"loss flat.npy d.npy", "2 dimensions"},
            {"loss cube.npy d.npy", "2 dimensions"},
            {"loss q.npy few.npy", "few.npy"},
            {"loss q.npy narrow.npy", "narrow.npy"},
            {"loss q.npy double.npy", "double.npy"},
            {"loss half.npy d.npy", "d.npy"},
            {"loss q.npy d.npy --rounds", "--rounds"},
            {"loss q.npy d.npy --rounds 1.5", "--rounds"},
            {"loss q.npy d.npy --rounds -1", "--rounds"},
            {"loss q.npy d.npy --rounds 99999999999", "--rounds"},
            {"loss q.npy d.npy --rounds 0x10", "--rounds"},
            {"loss q.npy d.npy --sampling nix", "--sampling"},
            {"loss q.npy d.npy --sampling ALL", "--sampling"},
            {"loss q.npy d.npy --sampling given", "--negatives"},
            {"loss q.npy d.npy --objective nix", "--objective"},
            {"loss q.npy d.npy --objective sigmoid", "SIGMOID"},
            {"loss q.npy d.npy --objective decoupled", "DECOUPLED"},
            {"loss q.npy d.npy --scale nix", "--scale"},
            {"loss q.npy d.npy --scale inf", "scale"},
            {"loss q.npy d.npy --temperature 0", "temperature"},
            {"loss q.npy d.npy --similarity nix", "--similarity"},
            {"loss q.npy d.npy --direction nix", "--direction"},
            {"loss q.npy d.npy --direction both", "direction"},
            {"loss q.npy d.npy --reduction nix", "--reduction"},
            {"loss q.npy d.npy --seed -1", "--seed"},
            {"loss q.npy d.npy --step x", "--step"},
            {"loss q.npy d.npy --isa nix", "nix"},
            {"loss q.npy d.npy --threads -1", "--threads"},
            {"loss q.npy d.npy --threads 99999999", "threads"},
            {"loss q.npy d.npy --threading nix", "--threading"},
            {"loss q.npy d.npy --threading callback", "callback"},
            {"loss q.npy d.npy --negatives q.npy", "q.npy"},
            {"loss q.npy d.npy --negatives n-few.npy", "n-few.npy"},
            {"loss q.npy d.npy --negatives n-out.npy", "n-out.npy"},
            {"loss q.npy d.npy --negatives n.npy --rounds 3", "--rounds"},
            {"loss q.npy d.npy --negatives n.npy --sampling shuffle", "--sampling"},
            {"loss q.npy d.npy --sampling all --save-negatives out.npy", "negatives"},
            {"loss q.npy d.npy --losses q.npy", "q.npy"},
            {"loss q.npy d.npy --losses ./d.npy", "d.npy"},
            {"loss q.npy d.npy --negatives n.npy --save-negatives n.npy", "n.npy"},
            {"loss q.npy d.npy --losses a.npy --hit-probability a.npy", "a.npy"},
            {"loss q.npy d.npy --losses a.npy --hit-probability ./a.npy", "a.npy"},
            {"loss q.npy d.npy --losses a.npy --hit-probability nix/b.npy", "nix/b.npy"},
            {"loss q.npy d.npy --losses folder", "folder"},
            {"loss q.npy d.npy --grad-queries /dev/full", "/dev/full"},
            {"info nix", "nix"},
            {"info --nix", "--nix"},
        };
        const std::set<std::string> before = in.files();
        for (const Mistake& mistake : mistakes) {
            INFO(mistake.arguments);
            CHECK(in.run(mistake.arguments) == 2);
            INFO(in.error);
            CHECK(in.out.empty());
            CHECK(in.error.starts_with("negcos: "));
            CHECK(in.error.find('\n') == in.error.size() - 1);
            CHECK(in.error.find(mistake.named) != std::string::npos);
            CHECK(in.files() == before);
        }
        CHECK(read_file(in.path / "q.npy") == q);
        CHECK(read_file(in.path / "n.npy") == bytes_before);
    }

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

    TEST_CASE("cli: the environment caps a default context, and its nonsense is an error") {
        Inputs in;
        REQUIRE(setenv("NEGCOS_ISA", "scalar", 1) == 0);
        REQUIRE(setenv("NEGCOS_THREADS", "1", 1) == 0);
        REQUIRE(in.run("loss q.npy d.npy --json") == 0);
        CHECK(nlohmann::json::parse(in.out)["isa"] == "scalar");
        CHECK(nlohmann::json::parse(in.out)["threads"] == 1);
        for (const auto& [name, value] : {std::pair("NEGCOS_ISA", "nix"), std::pair("NEGCOS_THREADS", "many")}) {
            REQUIRE(setenv("NEGCOS_ISA", "scalar", 1) == 0);
            REQUIRE(setenv(name, value, 1) == 0);
            CHECK(in.run("loss q.npy d.npy") == 2);
            CHECK(in.error.find(name) != std::string::npos);
            CHECK(in.run("info") == 2);
            unsetenv("NEGCOS_THREADS");
        }
        unsetenv("NEGCOS_ISA");
    }

    TEST_CASE("cli: info and help") {
        Folder folder;
        REQUIRE(folder.run("info --json") == 0);
        const auto object = nlohmann::json::parse(folder.out);
        REQUIRE(object["isas"].size() == static_cast<size_t>(negcos_isa_count()));
        for (int32_t k = 0; k < negcos_isa_count(); ++k) {
            const auto& isa = object["isas"][static_cast<size_t>(k)];
            CHECK(isa["name"] == negcos_isa_name(k));
            CHECK(isa["available"] == (negcos_isa_available(negcos_isa_name(k)) != 0));
        }
        negcos::Context context;
        CHECK(object["isa"] == context.isa());
        CHECK(object["threads"] == context.threads());
        REQUIRE(folder.run("info") == 0);
        for (int32_t k = 0; k < negcos_isa_count(); ++k)
            CHECK(folder.out.find(negcos_isa_name(k)) != std::string::npos);
        REQUIRE(folder.run("--version") == 0);
        const uint32_t v = negcos_version();
        CHECK(folder.out == "negcos " + std::to_string(v >> 16) + "." + std::to_string(v >> 8 & 255) + "." +
                                std::to_string(v & 255) + "\n");
        for (const char* help : {"--help", "loss --help", "info --help"}) {
            REQUIRE(folder.run(help) == 0);
            CHECK(folder.error.empty());
            CHECK(folder.out.size() > 100);
        }
    }

    TEST_CASE("npy: versions 1 to 3, loose spacing, and no damage from any byte") {
        const std::vector<float> values = {1, 2, 3, 4, 5, 6};
        const std::string good = npy(values, 2, 3);
        CHECK(good.size() % 64 == 24);  // elements start on a 64-byte border
        CHECK(elements<float>(good, 2, 3) == values);

        const std::string text = "{ \"shape\" : (2,3) ,'fortran_order':False, 'descr':'<f4'}";
        for (const int major : {1, 2, 3}) {
            std::string bytes = "\x93NUMPY";
            bytes += static_cast<char>(major);
            bytes += '\0';
            bytes += static_cast<char>(text.size());
            bytes.append(major == 1 ? 1 : 3, '\0');
            bytes += text + good.substr(good.size() - 24);
            CHECK(elements<float>(bytes, 2, 3) == values);
        }
        CHECK(elements<float>(npy(std::vector<float>{}, 0, 7), 0, 7).empty());

        // Every byte of the header replaced, and every length: a header or an NpyError, nothing else.
        Random random(5);
        int accepted = 0, refused = 0;
        const auto feed = [&](const std::string& bytes) {
            try {
                const auto header = negcos::cli::parse_npy(std::as_bytes(std::span(bytes)), {NpyType::f4, NpyType::i4});
                REQUIRE(header.offset + static_cast<size_t>(header.rows * header.cols) * 4 == bytes.size());
                ++accepted;
            } catch (const negcos::cli::NpyError&) {
                ++refused;
            }
        };
        for (size_t k = 0; k < good.size() - 24; ++k)
            for (int value = 0; value < 256; ++value) {
                std::string bytes = good;
                bytes[k] = static_cast<char>(value);
                feed(bytes);
            }
        for (size_t size = 0; size < good.size(); ++size) feed(good.substr(0, size));
        for (int k = 0; k < 20000; ++k) {
            std::string bytes = good;
            for (int change = 0; change < 6; ++change)
                bytes[static_cast<size_t>(random.below(128))] = static_cast<char>(random.next());
            feed(bytes);
        }
        CHECK(accepted > 100);
        CHECK(refused > 10000);
    }
}

}  // namespace
