// SPDX-License-Identifier: Apache-2.0
#include "arguments.hpp"

#include <CLI/CLI.hpp>
#include <charconv>
#include <limits>
#include <sstream>
#include <type_traits>
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
    const char* end = word.data() + word.size();
    const auto [stop, error] = std::from_chars(word.data(), end, value);
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

template <class Value>
void add_name(CLI::App& app, const std::string& option, Value& value, std::span<const Name> names, int32_t normal,
              const std::string& help) {
    std::vector<std::string> words;
    for (const Name& name : names) words.push_back(name.text);
    app.add_option_function<std::string>(
           option,
           [&value, names](const std::string& word) {
               for (const Name& name : names)
                   if (word == name.text) value = name.value;
           },
           help)
        ->type_name("NAME")
        ->default_str(name_of(names, normal))
        ->check(CLI::IsMember(words));
}

void add_file(CLI::App& app, const std::string& option, std::optional<std::string>& value, const char* type,
              const std::string& help) {
    app.add_option_function<std::string>(
           option, [&value](const std::string& word) { value = word; }, help)
        ->type_name(type);
}

void define_loss(CLI::App& app, LossArguments& a) {
    app.add_option("queries", a.queries, "B x d queries")->type_name("QUERIES.npy")->required();
    app.add_option("documents", a.documents, "M x d documents, M >= B; row i is the positive of query i")
        ->type_name("DOCUMENTS.npy")
        ->required();

    app.option_defaults()->group("What is computed");
    add_name(app, "--objective", a.options.objective, kObjectives, a.options.objective,
             "softmax over a query's own candidates, or as the original layer's code does it, over the batch");
    add_name(app, "--similarity", a.options.similarity, kSimilarities, a.options.similarity, "of query and document");
    add_number(app, "--scale", a.options.scale, a.options.scale, "factor of the similarities");
    add_number(app, "--temperature", a.options.temperature, a.options.temperature, "divisor of the similarities, > 0");
    add_name(app, "--direction", a.options.direction, kDirections, a.options.direction, "which side is ranked");
    add_name(app, "--reduction", a.options.reduction, kReductions, a.options.reduction, "of the queries' losses");

    app.option_defaults()->group("Negatives");
    add_name(app, "--sampling", a.sampling, kSamplings, a.options.sampling, "where the negatives come from");
    add_number(app, "--rounds", a.rounds, a.options.rounds, "negatives per query; all: no matter");
    add_number(app, "--seed", a.options.seed, a.options.seed, "key of the draws, with --step");
    add_number(app, "--step", a.options.step, a.options.step, "training step: each draws new negatives from one seed");
    add_file(app, "--negatives", a.negatives, "IN.npy",
             "B x rounds rows of the documents ('<i4'), -1 = absent; implies --sampling given");

    app.option_defaults()->group("How it is computed");
    add_file(app, "--isa", a.isa, "NAME",
             "instruction set: scalar, avx2, avx512 or neon [the best one, capped by NEGCOS_ISA in the environment]");
    add_number(app, "--threads", a.threads, a.threads,
               "0 = all this process may use, capped by NEGCOS_THREADS in the environment");
    add_name(app, "--threading", a.threading, kThreadings, a.threading, "what runs the threads");

    app.option_defaults()->group("Output");
    add_file(app, "--losses", a.losses, "OUT.npy", "B x 1: the loss of each query");
    add_file(app, "--hit-probability", a.hit_probability, "OUT.npy", "B x 1: exp(-loss) of each query");
    add_file(app, "--grad-queries", a.grad_queries, "OUT.npy", "B x d: d loss / d queries");
    add_file(app, "--grad-documents", a.grad_documents, "OUT.npy", "M x d: d loss / d documents");
    add_file(app, "--save-negatives", a.save_negatives, "OUT.npy",
             "B x rounds: the negatives used ('<i4'); not with all");
    app.add_flag("--json", a.json,
                 "print one JSON object, with the SHA-256 of all outputs; a number that is not finite is null");

    app.footer(
        "Files are .npy, little-endian '<f2', '<f4' or '<f8', C order, two-dimensional; outputs keep the inputs' type. "
        "They\nappear when everything has succeeded, or not at all. Values that this version cannot do are answered "
        "by an error.\n\"milliseconds\" is the time of the one call of negcos_evaluate, without reading and writing "
        "files. An error is one\nline on standard error and exit status 2.");
}

}  // namespace

const char* name_of(std::span<const Name> names, int32_t value) noexcept {
    for (const Name& name : names)
        if (name.value == value) return name.text;
    return "unknown";
}

Arguments parse_arguments(int argc, const char* const* argv) {
    Arguments arguments;
    CLI::App app("The in-batch negative-sampling cosine loss of two-tower retrieval models", "negcos");
    app.set_version_flag("--version", "negcos " + version());
    app.require_subcommand(1);
    app.footer("'negcos loss --help' and 'negcos info --help' say more.");

    CLI::App& loss = *app.add_subcommand("loss", "the loss, metrics and gradients of a batch");
    define_loss(loss, arguments.loss);
    CLI::App& info = *app.add_subcommand("info", "the version, instruction sets and threading back ends");
    info.add_flag("--json", arguments.info_json, "print one JSON object");

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
