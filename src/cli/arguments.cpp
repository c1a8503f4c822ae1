// SPDX-License-Identifier: Apache-2.0
#include "arguments.hpp"

#include <CLI/CLI.hpp>
#include <charconv>
#include <functional>
#include <limits>
#include <sstream>
#include <type_traits>
#include <utility>
#include <vector>

#include "commands.hpp"
#include "files.hpp"

namespace negcos::cli {
namespace {

template <class T>
std::string text_of(T value) {
    std::ostringstream text;
    text << value;
    return text.str();
}

// Numbers are read strictly: decimal, the whole word, in range. CLI11's own conversion takes 010 for 8 and lets large
// numbers wrap.
template <class T>
T number(const std::string& option, const std::string& word) {
    T value{};
    // One plus in front, which std::from_chars does not take.
    const bool plus = word.starts_with('+') && !word.starts_with("+-");
    const char* end = word.data() + word.size();
    const auto [stop, error] = std::from_chars(word.data() + plus, end, value);
    const bool valid = error == std::errc() && stop == end;
    if constexpr (std::is_floating_point_v<T>) {
        if (!valid) throw CLI::ValidationError(option, "\"" + word + "\" is not a number in the range of a double");
    } else {
        if (!valid || value < T{0})
            throw CLI::ValidationError(option, "\"" + word + "\" is not a whole number from 0 to " +
                                                   std::to_string(std::numeric_limits<T>::max()));
    }
    return value;
}

// `value` may be std::optional<T>, so that it tells whether the option was there.
template <class T, class Value>
void add_number(CLI::App& app, const std::string& option, Value& value, T normal, const std::string& help) {
    app.add_option_function<std::string>(
           option, [&value, option](const std::string& word) { value = number<T>(option, word); }, help)
        ->type_name(std::is_floating_point_v<T> ? "X" : "N")
        ->default_str(text_of(normal));
}

std::vector<std::string> words_of(std::span<const Name> names) {
    std::vector<std::string> words;
    for (const Name& name : names) words.emplace_back(name.text);
    return words;
}

template <class Value>
void add_name(CLI::App& app, const std::string& option, Value& value, std::span<const Name> names, int32_t normal,
              const std::string& help) {
    app.add_option_function<std::string>(
           option,
           [&value, names](const std::string& word) {
               for (const Name& name : names)
                   if (word == name.text) value = name.value;
           },
           help)
        ->type_name("NAME")
        ->default_str(name_of(names, normal))
        ->check(CLI::IsMember(words_of(names)));
}

// Values with commas between them; the option may also be repeated.
void add_list(CLI::App& app, const std::string& option, const std::string& type,
              std::function<void(const std::string&)> take, const std::string& help) {
    app.add_option_function<std::vector<std::string>>(
           option,
           [take = std::move(take)](const std::vector<std::string>& lists) {
               for (const std::string& list : lists) {
                   std::istringstream rest(list + ",");  // "a,,b" and "a," have an empty value, which `take` refuses
                   for (std::string word; std::getline(rest, word, ',');) take(word);
               }
           },
           help)
        ->type_name(type + "," + type)
        ->type_size(1)
        ->allow_extra_args(false);
}

template <class T>
void add_numbers(CLI::App& app, const std::string& option, std::vector<T>& values, const std::string& help) {
    add_list(
        app, option, std::is_floating_point_v<T> ? "X" : "N",
        [&values, option](const std::string& word) { values.push_back(number<T>(option, word)); }, help);
}

std::string not_empty(const std::string& word) {
    return word.empty() ? "the name is empty" : "";
}

void add_file(CLI::App& app, const std::string& option, std::optional<std::string>& value, const char* type,
              const std::string& help) {
    app.add_option_function<std::string>(
           option, [&value](const std::string& word) { value = word; }, help)
        ->type_name(type)
        ->check(not_empty);
}

void define_loss(CLI::App& app, LossArguments& a) {
    Options& o = a.options;
    app.add_option("queries", a.queries, "B x d queries")->type_name("QUERIES.npy")->check(not_empty)->required();
    app.add_option("documents", a.documents, "M x d documents; without --positives M >= B, and row i is query i's")
        ->type_name("DOCUMENTS.npy")
        ->check(not_empty)
        ->required();

    app.option_defaults()->group("What is computed");
    add_name(app, "--objective", o.objective, kObjectives, o.objective,
             "softmax over a query's own candidates; batch-softmax: over the batch's positives, as the\n"
             "original layer's code does it; sigmoid: each candidate by itself; decoupled: softmax over\n"
             "the negatives alone");
    add_name(app, "--similarity", o.similarity, kSimilarities, o.similarity, "of query and document");
    add_number(app, "--scale", o.scale, o.scale, "factor of the similarities");
    add_number(app, "--temperature", o.temperature, o.temperature,
               "divisor of the similarities, > 0; not with batch-softmax, where it cancels");
    add_number(app, "--norm-floor", o.norm_floor, o.norm_floor, "norms below it count as it");
    add_number(app, "--margin", o.margin, o.margin, "taken from the positive's similarity");
    add_number(app, "--hardness", o.hardness, o.hardness,
               "times a negative's similarity, as a constant, is added to its logit");
    add_file(app, "--log-probability", a.log_probability, "IN.npy",
             "M ('<f8'): log Q of each document to be drawn, taken from the logits");
    add_name(app, "--correction", o.correction, kCorrections, o.correction, "whose logits --log-probability corrects");
    add_number(app, "--bias", o.bias, o.bias, "added to the logits; sigmoid only");
    add_number(app, "--label-smoothing", o.label_smoothing, o.label_smoothing,
               "share of the target spread over all candidates, in [0, 1); softmax only");
    add_name(app, "--direction", o.direction, kDirections, o.direction,
             "which side is ranked; both: the mean of the two, with --sampling all and M = B");
    add_file(app, "--weights", a.weights, "IN.npy", "B ('<f8'): weights of the queries' losses, 0 or more [1 each]");
    add_name(app, "--reduction", o.reduction, kReductions, o.reduction, "of the queries' losses");
    add_numbers(app, "--prefix-dims", a.prefix_dims,
                "rising: the loss is the sum of those of the first N columns (Matryoshka) [all columns]");
    add_numbers(app, "--prefix-weights", a.prefix_weights, "of the prefixes' losses, as many, 0 or more [1 each]");

    app.option_defaults()->group("Candidates");
    add_file(app, "--positives", a.positives, "IN.npy", "B ('<i8'): the row of each query's positive [row i]");
    add_name(app, "--sampling", a.sampling, kSamplings, o.sampling, "where the negatives come from");
    add_number(app, "--rounds", a.rounds, o.rounds, "negatives per query; all: no matter");
    add_number(app, "--seed", o.seed, o.seed, "key of the draws, with --step");
    add_number(app, "--step", o.step, o.step, "training step: each draws new negatives from one seed");
    add_file(app, "--negatives", a.negatives, "IN.npy",
             "B x rounds rows of the documents ('<i4'), -1 = absent; implies --sampling given");
    add_file(app, "--hard-negatives", a.hard_negatives, "IN.npy",
             "(B*H) x d: H more negatives for each query alone, query 0's first");
    add_list(
        app, "--exclude", "NAME",
        [&o](const std::string& word) {
            const std::string wrong = CLI::IsMember(words_of(kExclusions))(word);
            if (!wrong.empty()) throw CLI::ValidationError("--exclude", wrong);
            for (const Name& name : kExclusions)
                if (word == name.text) o.exclude |= name.value;
        },
        "drop negatives; same-document-id: those with the positive's document id; same-query-id: the\n"
        "positives of queries with the query's id [none]");
    add_file(app, "--document-ids", a.document_ids, "IN.npy", "M ('<i8'), for --exclude same-document-id");
    add_file(app, "--query-ids", a.query_ids, "IN.npy", "B ('<i8'), for --exclude same-query-id");
    add_number(app, "--false-negative-margin", o.false_negative_margin, o.false_negative_margin,
               "drop negatives that are more similar than the positive by more than X; inf: none");

    app.option_defaults()->group("How it is computed");
    add_file(app, "--isa", a.isa, "NAME",
             "instruction set: scalar, avx2, avx512 or neon [the best one, capped by NEGCOS_ISA in the\n"
             "environment]");
    add_number(app, "--threads", a.threads, a.threads,
               "0 = all CPUs this process may use, capped by NEGCOS_THREADS or else by quotas and OMP_NUM_THREADS");
    add_name(app, "--threading", a.threading, kThreadings, a.threading, "what runs the threads");

    app.option_defaults()->group("Output");
    add_file(app, "--losses", a.losses, "OUT.npy", "B x 1: the loss of each query");
    add_file(app, "--hit-probability", a.hit_probability, "OUT.npy", "B x 1: exp(-loss) of each query");
    add_file(app, "--logits", a.logits, "OUT.npy",
             "B x (1 + rounds + H): the positive's first, -Inf where absent or dropped; not with all");
    add_file(app, "--grad-queries", a.grad_queries, "OUT.npy", "B x d: d loss / d queries");
    add_file(app, "--grad-documents", a.grad_documents, "OUT.npy", "M x d: d loss / d documents");
    add_file(app, "--grad-hard-negatives", a.grad_hard_negatives, "OUT.npy", "(B*H) x d: d loss / d hard negatives");
    add_file(app, "--save-negatives", a.save_negatives, "OUT.npy",
             "B x rounds: the negatives used ('<i4'); not with all");
    app.add_flag("--json", a.json,
                 "print one JSON object, with the SHA-256 of its numbers and of the arrays asked for; a number that is "
                 "not finite is null");

    app.footer(
        "Files are .npy, little-endian, in C or Fortran order: matrices '<f2', '<f4' or '<f8', all alike, of two "
        "dimensions,\nlists of M or B numbers also of one. Outputs are of the queries' type, in C order, and appear "
        "when everything has\nsucceeded, or not at all.\nOptions that exclude each other are an error that names the "
        "two. An error is one line on "
        "standard "
        "error and exit\nstatus 2. \"milliseconds\" is the time of the one call of negcos_evaluate, without reading "
        "and writing files.");
}

struct Parser {
    Arguments arguments;
    CLI::App app{"The in-batch negative-sampling cosine loss of two-tower retrieval models", "negcos"};
    CLI::App& loss = *app.add_subcommand("loss", "the loss, metrics and gradients of a batch");
    CLI::App& info = *app.add_subcommand("info", "the version, instruction sets and threading back ends");

    Parser() {
        app.set_version_flag("--version", "negcos " + version());
        app.require_subcommand(1);
        app.footer("'negcos loss --help' and 'negcos info --help' say more.");
        define_loss(loss, arguments.loss);
        info.add_flag("--json", arguments.info_json, "print one JSON object");
    }
};

}  // namespace

const char* name_of(std::span<const Name> names, int32_t value) noexcept {
    for (const Name& name : names)
        if (name.value == value) return name.text;
    return "unknown";
}

Arguments parse_arguments(int argc, const char* const* argv) {
    // Once, as defining options takes longer than parsing, and the fuzzer parses millions of times.
    static Parser parser;
    auto& [arguments, app, loss, info] = parser;
    arguments = {};
    try {
        app.parse(argc, argv);
    } catch (const CLI::RequiredError& error) {
        // CLI11 says that a subcommand is required, but not what stood there instead.
        const std::vector<std::string> words = app.remaining();
        if (loss.parsed() || info.parsed() || words.empty()) throw Failure(error.what());
        throw Failure("\"" + words.front() + "\" is not a subcommand, expected loss or info");
    } catch (const CLI::ParseError& error) {
        std::ostringstream out, unused;
        if (app.exit(error, out, unused) != 0) throw Failure(error.what());
        arguments.text = out.str();
        return arguments;
    }
    arguments.command = loss.parsed() ? Arguments::Command::loss : Arguments::Command::info;
    return arguments;
}

}  // namespace negcos::cli
