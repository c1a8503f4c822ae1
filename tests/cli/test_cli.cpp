// SPDX-License-Identifier: Apache-2.0
//
// The negcos command against the library, and against every way to call it wrongly: status 2, one line on standard
// error that names what is wrong, and no file left behind.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>

#include "command.hpp"

namespace {

using namespace harness;
using namespace command;
namespace fs = std::filesystem;

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
    CHECK(object.size() == 21);
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
    CHECK(object["grad_bias"] == 0);
    CHECK(object["objective"] == "softmax");
    CHECK(object["sampling"] == "derangement");
    CHECK(object["seed"] == 9);
    CHECK(object["step"] == 4);
    auto digested = expected;
    digested.logits.clear();  // not asked for
    CHECK(object["digest"] == sha256(folder.path / "bytes", digested.bytes()));

    // The negatives written are read back: the same losses.
    REQUIRE(folder.run("loss q.npy d.npy --negatives n.npy --scale 12.5 --temperature 0.5 --losses l2.npy") == 0);
    CHECK(read_file(folder.path / "l.npy") == read_file(folder.path / "l2.npy"));
    CHECK(folder.out.find("derangement") == std::string::npos);
    CHECK(folder.out.find("given") != std::string::npos);
}

// Each option of the family alone, and then together: the bits that the library gives for the same arrays. What an
// option does to the loss is checked to be something, so that one which does not arrive is seen.
template <class T>
void family_agrees_with_library() {
    Folder folder;
    Problem<T> all(50, 60, 19, 3);
    all.harden(2, 5);
    Random random(7);
    for (int64_t i = 0; i < 50; ++i) {
        all.positives.push_back(random.below(60));
        all.query_ids.push_back(random.below(25) - 12);
        all.weights.push_back(random.uniform());
    }
    for (int64_t j = 0; j < 60; ++j) {
        all.document_ids.push_back(random.below(20) + (int64_t{1} << 40));
        all.log_probability.push_back(-5 * random.uniform());
    }
    write_file(folder.path / "q.npy", npy(all.queries, 50, 19));
    write_file(folder.path / "d.npy", npy(all.documents, 60, 19));
    write_file(folder.path / "h.npy", npy(all.hard, 100, 19));
    write_file(folder.path / "p.npy", npy(all.positives));
    write_file(folder.path / "p2.npy", npy(all.positives, 50, 1));
    write_file(folder.path / "qi.npy", npy(all.query_ids));
    write_file(folder.path / "di.npy", npy(all.document_ids, 60, 1));
    write_file(folder.path / "lq.npy", npy(all.log_probability));
    write_file(folder.path / "w.npy", npy(all.weights, 50, 1));
    Problem<T> plain(50, 60, 19, 3);
    negcos::Context context = harness::context("scalar");
    const double plain_loss = run(context, plain).numbers.loss;

    const auto check = [&](const std::string& arguments, const Problem<T>& p) {
        INFO(arguments);
        const bool every = p.options.sampling == NEGCOS_SAMPLING_ALL;
        REQUIRE(folder.run("loss q.npy " + arguments +
                           " --json --losses l.npy --hit-probability e.npy --grad-queries gq.npy --grad-documents "
                           "gd.npy" +
                           (every ? "" : " --logits z.npy --save-negatives n.npy") +
                           (p.hard.empty() ? "" : " --grad-hard-negatives gh.npy")) == 0);
        const auto expected = run(context, p);
        CHECK(expected.numbers.loss != plain_loss);
        const auto object = nlohmann::json::parse(folder.out);
        CHECK(object["loss"] == expected.numbers.loss);
        CHECK(object["grad_bias"] == expected.numbers.grad_bias);
        CHECK(object["excluded"] == expected.numbers.excluded);
        CHECK(object["digest"] == sha256(folder.path / "bytes", expected.bytes()));
        CHECK(elements<T>(read_file(folder.path / "gd.npy"), p.count, 19) == expected.grad_documents);
        if (!every)
            CHECK(elements<T>(read_file(folder.path / "z.npy"), 50, 1 + p.rounds() + p.hard_per_query) ==
                  expected.logits);
        if (!p.hard.empty())
            CHECK(elements<T>(read_file(folder.path / "gh.npy"), 100, 19) == expected.grad_hard_negatives);
    };
    // Changes one thing of the plain problem.
    const auto alone = [&](const std::string& arguments, const std::function<void(Problem<T>&)>& change) {
        Problem<T> p = plain;
        change(p);
        check("d.npy " + arguments, p);
    };

    alone("--objective decoupled", [](auto& p) { p.options.objective = NEGCOS_OBJECTIVE_DECOUPLED; });
    alone("--objective sigmoid", [](auto& p) { p.options.objective = NEGCOS_OBJECTIVE_SIGMOID; });
    alone("--objective sigmoid --bias -10", [](auto& p) {
        p.options.objective = NEGCOS_OBJECTIVE_SIGMOID;
        p.options.bias = -10;
    });
    alone("--norm-floor 5", [](auto& p) { p.options.norm_floor = 5; });
    alone("--margin -0.125", [](auto& p) { p.options.margin = -0.125; });
    alone("--hardness 9", [](auto& p) { p.options.hardness = 9; });
    alone("--label-smoothing 0.1", [](auto& p) { p.options.label_smoothing = 0.1; });
    alone("--false-negative-margin -0.1", [](auto& p) { p.options.false_negative_margin = -0.1; });
    for (const char* file : {"p.npy", "p2.npy"})
        alone(std::string("--positives ") + file, [&](auto& p) { p.positives = all.positives; });
    alone("--weights w.npy", [&](auto& p) { p.weights = all.weights; });
    alone("--log-probability lq.npy", [&](auto& p) { p.log_probability = all.log_probability; });
    alone("--log-probability lq.npy --correction negatives-only", [&](auto& p) {
        p.log_probability = all.log_probability;
        p.options.correction = NEGCOS_CORRECTION_NEGATIVES_ONLY;
    });
    alone("--hard-negatives h.npy", [](auto& p) { p.harden(2, 5); });
    const std::string ids = " --document-ids di.npy --query-ids qi.npy";
    alone("--exclude same-document-id --document-ids di.npy", [&](auto& p) {
        p.options.exclude = NEGCOS_EXCLUDE_SAME_DOCUMENT_ID;
        p.document_ids = all.document_ids;
    });
    alone("--exclude same-query-id --query-ids qi.npy", [&](auto& p) {
        p.options.exclude = NEGCOS_EXCLUDE_SAME_QUERY_ID;
        p.query_ids = all.query_ids;
    });
    for (const char* both :
         {"--exclude same-document-id,same-query-id", "--exclude same-query-id --exclude same-document-id"})
        alone(both + ids, [&](auto& p) {
            p.options.exclude = NEGCOS_EXCLUDE_SAME_DOCUMENT_ID | NEGCOS_EXCLUDE_SAME_QUERY_ID;
            p.document_ids = all.document_ids;
            p.query_ids = all.query_ids;
        });
    alone("--prefix-dims 4,8,19", [](auto& p) { p.prefix_dims = {4, 8, 19}; });
    alone("--prefix-dims 4 --prefix-weights 1,0.5,2 --prefix-dims 8,19", [](auto& p) {
        p.prefix_dims = {4, 8, 19};
        p.prefix_weights = {1, 0.5, 2};
    });

    all.options.objective = NEGCOS_OBJECTIVE_SIGMOID;
    all.options.bias = -3;
    all.options.margin = 0.1;
    all.options.hardness = 2;
    all.options.exclude = NEGCOS_EXCLUDE_SAME_DOCUMENT_ID | NEGCOS_EXCLUDE_SAME_QUERY_ID;
    all.options.false_negative_margin = 0.25;
    all.prefix_dims = {5, 17};
    check("d.npy --objective sigmoid --bias -3 --margin 0.1 --hardness 2 --exclude same-document-id,same-query-id" +
              ids +
              " --false-negative-margin 0.25 --prefix-dims 5,17 --positives p.npy --hard-negatives h.npy "
              "--log-probability lq.npy --weights w.npy",
          all);

    // Fewer documents than queries, where --positives says which; and the options that want all documents.
    Problem<T> few = plain;
    few.count = 10;
    few.documents.resize(10 * 19);
    for (int64_t i = 0; i < 50; ++i) few.positives.push_back(i % 10);
    write_file(folder.path / "d10.npy", npy(few.documents, 10, 19));
    write_file(folder.path / "p10.npy", npy(few.positives));
    check("d10.npy --positives p10.npy", few);
    Problem<T> square = plain;
    square.count = 50;
    square.documents.resize(50 * 19);
    square.options.sampling = NEGCOS_SAMPLING_ALL;
    square.options.direction = NEGCOS_DIRECTION_BOTH;
    square.weights = all.weights;
    write_file(folder.path / "d50.npy", npy(square.documents, 50, 19));
    check("d50.npy --sampling all --direction both --weights w.npy", square);
}

// Every file column by column: the same bits.
template <class T>
void reads_columns(int64_t batch, int64_t dim) {
    Folder folder;
    Problem<T> p(batch, batch + 10, dim, 3);
    p.harden(2, 5);
    std::vector<int32_t> negatives;
    Random random(7);
    for (int64_t k = 0; k < batch * 3; ++k) negatives.push_back(static_cast<int32_t>(random.below(batch + 10)));
    const std::string weights = npy(std::vector<double>(static_cast<size_t>(batch), 2), batch, 1);
    const auto digest = [&](const std::string& queries) {
        REQUIRE(folder.run("loss " + queries +
                           " d.npy --negatives n.npy --hard-negatives h.npy --weights w.npy --json "
                           "--grad-documents gd.npy") == 0);
        return nlohmann::json::parse(folder.out)["digest"].get<std::string>();
    };
    write_file(folder.path / "q.npy", npy(p.queries, batch, dim));
    write_file(folder.path / "d.npy", npy(p.documents, batch + 10, dim));
    write_file(folder.path / "n.npy", npy(negatives, batch, 3));
    write_file(folder.path / "h.npy", npy(p.hard, 2 * batch, dim));
    write_file(folder.path / "w.npy", weights);
    const std::string expected = digest("q.npy");
    const std::string queries = npy_by_columns(p.queries, batch, dim);
    write_file(folder.path / "q.npy", queries);
    write_file(folder.path / "d.npy", npy_by_columns(p.documents, batch + 10, dim));
    write_file(folder.path / "n.npy", npy_by_columns(negatives, batch, 3));
    write_file(folder.path / "h.npy", npy_by_columns(p.hard, 2 * batch, dim));
    write_file(folder.path / "w.npy", std::string(weights).replace(weights.find("False"), 5, "True "));
    CHECK(digest("q.npy") == expected);
    folder.before = "cat q.npy | ";
    CHECK(digest("/dev/stdin") == expected);
    folder.before.clear();

    // As Julia's NPZ writes a list.
    std::string flat = weights;
    flat.replace(flat.find("False"), 5, "True ").replace(flat.find(", 1)"), 4, ",)  ");
    write_file(folder.path / "w.npy", flat);
    CHECK(digest("q.npy") == expected);

    // Elements that begin where none may lie in memory; and files that end early or late.
    std::string odd = queries;
    odd.insert(odd.find('\n'), " ");
    odd[8] = static_cast<char>(odd[8] + 1);
    write_file(folder.path / "q.npy", odd);
    CHECK(digest("q.npy") == expected);
    const std::string size = std::to_string(p.queries.size() * sizeof(T));
    for (const auto& [bytes, found] :
         {std::pair(queries.substr(0, queries.size() - 1), std::to_string(p.queries.size() * sizeof(T) - 1)),
          std::pair(queries + "x", std::to_string(p.queries.size() * sizeof(T) + 1))}) {
        write_file(folder.path / "q.npy", bytes);
        for (const char* input : {"q.npy", "/dev/stdin"}) {
            folder.before = "cat q.npy | ";
            CHECK(folder.run(std::string("loss ") + input + " d.npy") == 2);
            CHECK(folder.error.find(input + (": " + found) + " bytes of elements, expected " + size) !=
                  std::string::npos);
        }
        folder.before.clear();
    }
}

std::string numbers_up_to(int last) {
    std::string text = "1";
    for (int k = 2; k <= last; ++k) text.append(",").append(std::to_string(k));
    return text;
}

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

    TEST_CASE("cli: the whole family agrees with the library, f32") {
        family_agrees_with_library<float>();
    }

    TEST_CASE("cli: the whole family agrees with the library, f64") {
        family_agrees_with_library<double>();
    }

    TEST_CASE("cli: the whole family agrees with the library, f16") {
        family_agrees_with_library<half::F16>();
    }

    TEST_CASE("cli: Fortran order is read as NumPy reads it") {
        reads_columns<half::F16>(50, 19);
        reads_columns<float>(7, 5);
        reads_columns<double>(300, 500);  // more than is read at once
    }

    TEST_CASE("cli: an empty batch with every file is 0") {
        Folder folder;
        write_file(folder.path / "m.npy", npy(std::vector<float>{}, 0, 19));
        write_file(folder.path / "i.npy", npy(std::vector<int64_t>{}));
        write_file(folder.path / "x.npy", npy(std::vector<double>{}, 0, 1));
        REQUIRE(folder.run("loss m.npy m.npy --hard-negatives m.npy --positives i.npy --document-ids i.npy --query-ids "
                           "i.npy --exclude same-document-id,same-query-id --log-probability x.npy --weights x.npy "
                           "--logits z.npy --grad-hard-negatives g.npy --json") == 0);
        CHECK(nlohmann::json::parse(folder.out)["loss"] == 0);
        CHECK(elements<float>(read_file(folder.path / "z.npy"), 0, 5).empty());
        CHECK(elements<float>(read_file(folder.path / "g.npy"), 0, 19).empty());
    }

    TEST_CASE("cli: what is printed") {
        Inputs in;
        REQUIRE(in.run("loss q.npy d.npy --json --seed 18446744073709551615") == 0);
        const auto object = nlohmann::ordered_json::parse(in.out);
        std::vector<std::string> keys;
        for (const auto& [key, value] : object.items()) keys.push_back(key);
        CHECK(keys == std::vector<std::string>{"loss",       "accuracy",  "mean_reciprocal_rank",
                                               "grad_scale", "batch",     "documents",
                                               "dim",        "rounds",    "dtype",
                                               "isa",        "threads",   "threading",
                                               "zero_rows",  "excluded",  "milliseconds",
                                               "grad_bias",  "objective", "sampling",
                                               "seed",       "step",      "digest"});
        CHECK(object["seed"] == UINT64_MAX);
        REQUIRE(in.run("loss q.npy d.npy") == 0);
        CHECK(in.out.find("d loss / d scale") != std::string::npos);
        CHECK(in.out.find("d loss / d bias") == std::string::npos);
        REQUIRE(in.run("loss q.npy d.npy --objective sigmoid") == 0);
        CHECK(in.out.find("d loss / d bias") != std::string::npos);
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
        for (const std::string sampling : {"derangement", "cyclic", "uniform", "log-uniform", "groups"})
            CHECK(loss("--sampling " + sampling)["loss"] != base["loss"]);
        CHECK(loss("--sampling all")["rounds"] == 59);
        CHECK(loss("--sampling all --isa scalar")["isa"] == "scalar");
        CHECK(loss("--threads 3")["threads"] == 3);
        CHECK(loss("--threading serial")["threading"] == "serial");
        CHECK(loss("--reduction sum")["loss"].get<double>() ==
              doctest::Approx(50 * base["loss"].get<double>()).epsilon(1e-6));
        CHECK(loss("--direction query-to-document")["loss"] == base["loss"]);
        CHECK(loss("--rounds +4 --scale +20 --seed +0 --threads +0 --norm-floor +1e-12")["loss"] == base["loss"]);
        CHECK(loss("--prefix-dims +4,8 --prefix-weights +1,+.5")["loss"] ==
              loss("--prefix-dims 4,8 --prefix-weights 1,0.5")["loss"]);
        CHECK(loss("--false-negative-margin +inf")["loss"] == base["loss"]);
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
        write_file(in.path / "h.npy", npy(std::vector<float>(100 * 19, 1), 100, 19));
        write_file(in.path / "h-odd.npy", npy(std::vector<float>(101 * 19, 1), 101, 19));
        write_file(in.path / "i50.npy", npy(std::vector<int64_t>(50, 1)));
        write_file(in.path / "i60.npy", npy(std::vector<int64_t>(60, 1)));
        write_file(in.path / "i-out.npy", npy(std::vector<int64_t>(50, 60), 50, 1));
        write_file(in.path / "x50.npy", npy(std::vector<double>(50, 1)));
        write_file(in.path / "x60.npy", npy(std::vector<double>(60, -1)));
        write_file(in.path / "x-minus.npy", npy(std::vector<double>(50, -1)));
        write_file(in.path / "x-nan.npy", npy(std::vector<double>(60, std::nan("")), 60, 1));
        fs::create_directory(in.path / "folder");
        const std::string bytes_before = read_file(in.path / "n.npy");

        std::vector<Mistake> mistakes = {
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
            {"loss q.npy d.npy --rounds +", "\"+\" is not a whole number"},
            {"loss q.npy d.npy --rounds ++3", "\"++3\" is not a whole number"},
            {"loss q.npy d.npy --rounds +-0", "\"+-0\" is not a whole number"},
            {"loss q.npy d.npy --rounds '+ 3'", "\"+ 3\" is not a whole number"},
            {"loss q.npy d.npy --scale +", "\"+\" is not a number"},
            {"loss q.npy d.npy --scale ++3", "\"++3\" is not a number"},
            {"loss q.npy d.npy --scale +-3", "\"+-3\" is not a number"},
            {"loss q.npy d.npy --prefix-dims 4,+-8", "\"+-8\" is not a whole number"},
            {"loss q.npy d.npy --sampling nix", "--sampling"},
            {"loss q.npy d.npy --sampling ALL", "--sampling"},
            {"loss q.npy d.npy --sampling given", "--negatives"},
            {"loss q.npy d.npy --sampling groups --rounds 50", "--sampling groups needs more queries than --rounds"},
            {"loss q.npy d.npy --objective nix", "--objective"},
            {"loss q.npy d.npy --scale nix", "--scale"},
            {"loss q.npy d.npy --scale inf", "scale"},
            {"loss q.npy d.npy --temperature 0", "temperature"},
            {"loss q.npy d.npy --similarity nix", "--similarity"},
            {"loss q.npy d.npy --direction nix", "--direction"},
            {"loss q.npy d.npy --direction both", ": --direction both and any --sampling but all exclude each other\n"},
            {"loss q.npy d.npy --direction both --sampling all",
             ": d.npy: documents has 60 rows, expected the queries' 50 with direction both\n"},
            {"loss q.npy d.npy --direction both --sampling all --objective sigmoid",
             ": --objective sigmoid and --direction both exclude each other\n"},
            {"loss q.npy d.npy --direction both --sampling all --positives i50.npy",
             ": --direction both and --positives exclude each other\n"},
            {"loss q.npy d.npy --direction both --sampling all --log-probability x60.npy",
             ": --direction both and --log-probability exclude each other\n"},
            {"loss q.npy d.npy --objective batch-softmax --margin 1",
             ": --objective batch-softmax and --margin exclude each other\n"},
            {"loss q.npy d.npy --objective batch-softmax --hardness 1",
             ": --objective batch-softmax and --hardness exclude each other\n"},
            {"loss q.npy d.npy --objective batch-softmax --false-negative-margin 0",
             ": --objective batch-softmax and --false-negative-margin exclude each other\n"},
            {"loss q.npy d.npy --objective batch-softmax --exclude same-query-id --query-ids i50.npy",
             ": --objective batch-softmax and --exclude exclude each other\n"},
            {"loss q.npy d.npy --objective batch-softmax --prefix-dims 4",
             ": --objective batch-softmax and --prefix-dims exclude each other\n"},
            {"loss q.npy d.npy --objective batch-softmax --hard-negatives h.npy",
             ": --objective batch-softmax and --hard-negatives exclude each other\n"},
            {"loss q.npy d.npy --objective batch-softmax --log-probability x60.npy",
             ": --objective batch-softmax and --log-probability exclude each other\n"},
            {"loss q.npy d.npy --objective decoupled --label-smoothing 0.1",
             ": --objective decoupled and --label-smoothing exclude each other\n"},
            {"loss q.npy d.npy --bias 1", ": --objective softmax and --bias exclude each other\n"},
            {"loss q.npy d.npy --margin nix", "--margin"},
            {"loss q.npy d.npy --margin nan", ": --margin is nan"},
            {"loss q.npy d.npy --margin 1e300", ": --margin makes a logit of"},
            {"loss q.npy d.npy --hardness inf", ": --hardness is inf"},
            {"loss q.npy d.npy --label-smoothing 1", ": --label-smoothing is 1"},
            {"loss q.npy d.npy --label-smoothing -0.1", ": --label-smoothing is -0.1"},
            {"loss q.npy d.npy --objective sigmoid --bias x", "--bias"},
            {"loss q.npy d.npy --objective sigmoid --bias inf", ": --bias is inf"},
            {"loss q.npy d.npy --false-negative-margin nan", ": --false-negative-margin is nan"},
            {"loss q.npy d.npy --norm-floor -1", ": --norm-floor is -1"},
            {"loss q.npy d.npy --scale 1e300 --temperature 1e-300", ": --scale / --temperature is"},
            {"loss q.npy d.npy --correction nix", "--correction"},
            {"loss q.npy d.npy --correction negatives-only", "--log-probability"},
            {"loss q.npy d.npy --exclude nix", "--exclude: nix"},
            {"loss q.npy d.npy --exclude same-query-id,", "--exclude"},
            {"loss q.npy d.npy --exclude same-document-id", "--document-ids"},
            {"loss q.npy d.npy --exclude same-query-id", "--query-ids"},
            {"loss q.npy d.npy --document-ids i60.npy", "--exclude same-document-id"},
            {"loss q.npy d.npy --query-ids i50.npy --document-ids i60.npy --exclude same-document-id",
             "--exclude same-query-id"},
            {"loss q.npy d.npy --prefix-dims 4,,8", "--prefix-dims"},
            {"loss q.npy d.npy --prefix-dims 4,8.5", "--prefix-dims"},
            {"loss q.npy d.npy --prefix-dims ''", "--prefix-dims"},
            {"loss q.npy d.npy --prefix-dims 8,8", ": --prefix-dims[1] is 8"},
            {"loss q.npy d.npy --prefix-dims 8,20", ": --prefix-dims[1] is 20"},
            {"loss q.npy d.npy --prefix-dims " + numbers_up_to(100), ": the number of --prefix-dims is 100"},
            {"loss q.npy d.npy --prefix-dims 4,8 --prefix-weights 1", "--prefix-weights has 1 numbers, expected 2"},
            {"loss q.npy d.npy --prefix-dims 4,8 --prefix-weights 1,-1", ": --prefix-weights[1] is -1"},
            {"loss q.npy d.npy --prefix-weights 1", "--prefix-dims"},
            {"loss q.npy d.npy --hard-negatives h-odd.npy",
             ": h-odd.npy: --hard-negatives has 101 rows, expected a multiple of the 50 queries\n"},
            {"loss q.npy d.npy --hard-negatives narrow.npy", ": narrow.npy: --hard-negatives has 18 columns"},
            {"loss q.npy d.npy --hard-negatives double.npy", ": double.npy: its elements are '<f8', expected '<f4'"},
            {"loss q.npy d.npy --hard-negatives i50.npy", ": i50.npy: its elements are '<i8', expected '<f2', "},
            {"loss q.npy d.npy --grad-hard-negatives out.npy", "--hard-negatives IN.npy"},
            {"loss q.npy d.npy --positives i-out.npy",
             ": i-out.npy: --positives[0] is 60, expected a row of the 60 documents\n"},
            {"loss q.npy d.npy --weights x-minus.npy", ": x-minus.npy: --weights[0] is -1"},
            {"loss q.npy d.npy --log-probability x-nan.npy", ": x-nan.npy: --log-probability[0] is nan"},
            {"loss q.npy d.npy --sampling all --logits out.npy", ": --logits cannot be had with sampling all"},
            {"loss q.npy d.npy --weights x50.npy --logits x50.npy", "x50.npy"},
            {"loss q.npy d.npy --hard-negatives h.npy --logits a.npy --grad-hard-negatives a.npy", "a.npy"},
            {"loss q.npy d.npy --hard-negatives h.npy --logits a.npy --grad-hard-negatives nix/b.npy", "nix/b.npy"},
            {"loss q.npy d.npy --hard-negatives h.npy --logits a.npy --grad-hard-negatives /dev/full", "/dev/full"},
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
        // Files that are lists of numbers: how many, of which type, and what is wrong with each.
        for (const auto& [option, fits, type] :
             {std::tuple("--positives", "i50.npy", "'<i8'"), std::tuple("--document-ids", "i60.npy", "'<i8'"),
              std::tuple("--query-ids", "i50.npy", "'<i8'"), std::tuple("--log-probability", "x60.npy", "'<f8'"),
              std::tuple("--weights", "x50.npy", "'<f8'")}) {
            const std::string line = std::string("loss q.npy d.npy --exclude same-document-id,same-query-id ") +
                                     (option == std::string("--document-ids") ? "" : "--document-ids i60.npy ") +
                                     (option == std::string("--query-ids") ? "" : "--query-ids i50.npy ") + option +
                                     " ";
            const std::string whole = read_file(in.path / fits);
            REQUIRE(in.run(line + fits) == 0);
            const auto wrong = [&, stem = std::string(option).substr(2)](
                                   const std::string& name, const std::string& bytes, const std::string& named) {
                const std::string file = stem + name;
                if (!bytes.empty()) write_file(in.path / file, bytes);
                mistakes.push_back({line + file, ": " + file + ": " + named});
            };
            const bool whole_numbers = type == std::string("'<i8'");
            const std::string count = fits[1] == '5' ? "50" : "60";
            wrong("-missing.npy", "", "No such file");
            wrong("-text.npy", "hello\n", "not a .npy file");
            wrong("-short.npy", whole.substr(0, whole.size() - 8),
                  (count == "50" ? "392" : "472") + std::string(" bytes of elements, expected"));
            wrong("-type.npy", whole_numbers ? npy(std::vector<double>(50, 1)) : npy(std::vector<int64_t>(50, 1)),
                  std::string("its elements are '") + (whole_numbers ? "<f8" : "<i8") + "', expected " + type);
            wrong("-small.npy", npy(std::vector<float>(50, 1)),
                  std::string("its elements are '<f4', expected ") + type);
            wrong("-count.npy", whole_numbers ? npy(std::vector<int64_t>(49, 1)) : npy(std::vector<double>(49, 1)),
                  "49 numbers, expected " + count + ", as many as " + (count == "50" ? "queries" : "documents"));
            for (const auto& [shape, rows, cols] : {std::tuple("(25, 2)", 25, 2), std::tuple("(1, 50)", 1, 50)})
                wrong(std::string("-") + std::to_string(cols) + ".npy",
                      whole_numbers ? npy(std::vector<int64_t>(50, 1), rows, cols)
                                    : npy(std::vector<double>(50, 1), rows, cols),
                      std::string("its shape is ") + shape + ", expected (N,) or (N, 1)");
        }
        const std::set<std::string> before = in.files();
        for (const Mistake& mistake : mistakes) {
            INFO(mistake.arguments);
            CHECK(in.run(mistake.arguments) == 2);
            INFO(in.error);
            CHECK(in.out.empty());
            CHECK(in.error.starts_with("negcos: "));
            CHECK(in.error.find('\n') == in.error.size() - 1);
            CHECK(in.error.find(mistake.named) != std::string::npos);
            // Fields and enumerators of the library's are not for the terminal.
            for (const char* word : {"options.", "batch.", "result.", "negcos_", "SOFTMAX", "BOTH"})
                CHECK(in.error.find(word) == std::string::npos);
            CHECK(in.files() == before);
        }
        CHECK(read_file(in.path / "q.npy") == q);
        CHECK(read_file(in.path / "n.npy") == bytes_before);
    }

    TEST_CASE("cli: rows without columns are refused, and empty shapes as NumPy has them") {
        Folder folder;
        write_file(folder.path / "e.npy", npy(std::vector<float>{}, 0, 0));
        write_file(folder.path / "r.npy", npy(std::vector<float>{}, 2147483647, 0));
        write_file(folder.path / "c.npy", npy(std::vector<float>{}, 0, INT64_MAX));
        CHECK(folder.run("loss e.npy e.npy") == 0);
        for (const char* line : {"loss r.npy r.npy", "loss e.npy r.npy", "loss e.npy e.npy --hard-negatives r.npy"}) {
            CHECK(folder.run(line) == 2);
            CHECK(folder.error == "negcos: r.npy: its shape is (2147483647, 0), expected at least 1 column\n");
        }
        CHECK(folder.run("loss c.npy c.npy") == 2);
        CHECK(folder.error == "negcos: c.npy: its shape (0, 9223372036854775807) is larger than the address space\n");
    }

    TEST_CASE("cli: what a terminal would obey is not printed") {
        Inputs in;
        const std::string letters = "\xc3\x9b \xe2\x82\xac \xf0\x9f\x90\x9f \xc2\xa9";
        const std::vector<std::pair<std::string, std::string>> names = {{"a\x1b[1mb\x7f", "a?[1mb?"},
                                                                        {"a\xc2\x9b[", "a?["},
                                                                        {"a\x9b[", "a?["},
                                                                        {"\xe2\xc2\x9b", "??"},
                                                                        {"\xff\x9b[", "??["},
                                                                        {"\xf8\x9b\x9b\x9b", "????"},
                                                                        {"\xe0\x82\x9b", "???"},
                                                                        {"\xe1\x9b"
                                                                         "A",
                                                                         "??A"},
                                                                        {"\xed\xa0\x80", "???"},
                                                                        {"\xf4\x90\x80\x80", "????"},
                                                                        {letters, letters}};
        for (const auto& [name, shown] : names) {
            CHECK(in.run("loss q.npy '" + name + "'") == 2);
            CHECK(in.error == "negcos: " + shown + ": No such file or directory\n");
        }
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
}

}  // namespace
