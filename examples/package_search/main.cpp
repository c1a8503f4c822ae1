// SPDX-License-Identifier: Apache-2.0
//
// Trains a two-tower model to find packages by what they are described to do, with the loss of negcos, and searches
// with it. Uses nothing of the library but <negcos/negcos.hpp>.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <map>
#include <thread>

#include "corpus.hpp"
#include "files.hpp"
#include "model.hpp"
#include "negcos/negcos.hpp"
#include "report.hpp"

namespace {

using namespace package_search;

const std::map<std::string, int32_t> samplings = {
    {"shuffle", NEGCOS_SAMPLING_SHUFFLE}, {"groups", NEGCOS_SAMPLING_GROUPS}, {"all", NEGCOS_SAMPLING_ALL}};

struct Arguments {
    std::vector<std::string> queries;
    std::vector<std::size_t> columns;
    std::string pairs, catalogue, folder = "package_search", sampling = "shuffle";
    TrainingOptions training;
};

Arguments parse(int argc, char** argv) {
    Arguments a;
    CLI::App app("Trains a two-tower model on the machine's package catalogue and searches it", "package_search");
    app.option_defaults()->always_capture_default();
    app.add_option("query", a.queries,
                   "what to search for, from the saved model if there is one [train, then five searches]");
    CLI::Option* pairs =
        app.add_option("--pairs", a.pairs, "learn from this file instead: query TAB document, a pair a line");
    app.add_option("--columns", a.columns, "which columns of --pairs are query and document, of more than two")
        ->type_name("A,B")
        ->delimiter(',')
        ->expected(2)
        ->needs(pairs)
        ->check(CLI::Range(1, 1 << 20));
    app.add_option("--catalogue", a.catalogue, "the output of apt-cache dumpavail in a file [run it]")->excludes(pairs);
    app.add_option("--out", a.folder, "folder for the model, the loss curve and the embeddings")
        ->take_last();  // ./dev demo names one
    app.add_option("--epochs", a.training.epochs)->check(CLI::Range(1, 1000));
    app.add_option("--batch", a.training.batch, "pairs per step")->check(CLI::Range(2, 1 << 20));
    app.add_option("--sampling", a.sampling,
                   "negatives from: random permutations of the batch, random groups of it, all of it")
        ->type_name("NAME")
        ->check(CLI::IsMember(samplings));
    app.add_option("--rounds", a.training.rounds, "negatives per query; all: no matter")->check(CLI::Range(1, 10000));
    app.add_option("--scale", a.training.scale, "factor of the cosines")->check(CLI::PositiveNumber);
    app.add_option("--learning-rate", a.training.learning_rate, "of Adagrad")->check(CLI::PositiveNumber);
    app.add_option("--seed", a.training.seed, "of the held-out entries, the initial values and all draws");
    a.training.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    app.add_option("--threads", a.training.threads)->check(CLI::Range(1, 1024));
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) std::exit(app.exit(error));
        throw InputError(error.what());
    }
    a.training.sampling = samplings.at(a.sampling);
    if (!a.columns.empty() && a.columns[0] == a.columns[1])
        throw InputError("--columns takes column " + std::to_string(a.columns[0]) + " for both, expected two");
    return a;
}

// What else than the texts the model depends on.
uint64_t fingerprint_of(const Dataset& data, const TrainingOptions& o) {
    uint64_t hash = data.fingerprint;
    for (const double value :
         {double(o.epochs), double(o.batch), double(o.sampling), double(o.rounds), o.scale, double(o.learning_rate)})
        hash = (hash ^ std::hash<double>()(value)) * 1099511628211u;
    return hash;
}

void print_row(const char* label, const Ranking& r) {
    std::printf("  %-16s %8.3f  %9.3f  %5.3f\n", label, r.recall_at_1, r.recall_at_10, r.mean_reciprocal_rank);
}

void train(Model& model, const Corpus& corpus, const Dataset& data, const Arguments& a) {
    const Ranking before = model.rank_held_out(data, corpus, a.training.threads);
    const bool all = a.training.sampling == NEGCOS_SAMPLING_ALL;
    std::printf("\nTraining: %d epochs of batches of %d, %s negatives per query, %d threads\n", a.training.epochs,
                a.training.batch, all ? "all" : std::to_string(a.training.rounds).c_str(), a.training.threads);
    Progress progress;
    model.train(data, a.training,
                [&](int64_t step, int64_t steps, double loss) { progress.update(step, steps, loss); });
    const double seconds = progress.seconds();
    const Ranking after = model.rank_held_out(data, corpus, a.training.threads);

    std::printf("\n%zu held-out queries, each against all %zu held-out documents:\n", data.held_out.size(),
                after.documents);
    std::printf("  %-16s Recall@1  Recall@10    MRR\n", "");
    print_row("before training", before);
    print_row("after training", after);
    std::printf("  trained in %.1f s\n", seconds);

    const std::vector<float> queries = model.embed_queries(data, data.held_out, a.training.threads);
    const std::vector<float> documents = model.embed_documents(data, data.held_out, a.training.threads);
    write_npy(a.folder + "/queries.npy", queries, data.held_out.size(), dim);
    write_npy(a.folder + "/documents.npy", documents, data.held_out.size(), dim);
    const bool drawn = write_loss_curve(a.folder, progress.losses());
    model.save(a.folder + "/model.bin", fingerprint_of(data, a.training));
    std::printf("\nWritten to %s:\n", a.folder.c_str());
    std::printf("  queries.npy, documents.npy   the held-out embeddings, %zu x %zu\n", data.held_out.size(), dim);
    std::printf("  %s   the loss of every step\n", drawn ? "loss.svg, loss.tsv        " : "loss.tsv                  ");
    if (!drawn) std::printf("  (no loss.svg: gnuplot is not installed)\n");
    std::printf("  model.bin                    the model, for later searches\n");
}

void search(const Model& model, const std::string& query, const Corpus& corpus, const Dataset& data, int threads) {
    std::printf("\n\"%s\"\n", query.c_str());
    for (const Answer& answer : model.search(query, data, corpus, 5, threads)) {
        const Entry& entry = corpus.entries[answer.entry];
        if (corpus.packages)
            std::printf("  %.2f  %-28s %s\n", static_cast<double>(answer.cosine), entry.title.c_str(),
                        entry.query.c_str());
        else
            std::printf("  %.2f  %.100s\n", static_cast<double>(answer.cosine), entry.title.c_str());
    }
}

void run(const Arguments& a) {
    const Corpus corpus = a.pairs.empty() ? read_catalogue(a.catalogue) : read_pairs(a.pairs, a.columns);
    constexpr std::size_t fewest = 10;
    if (corpus.entries.size() < fewest)
        throw InputError(corpus.source + ": " + std::to_string(corpus.entries.size()) + " entries, expected at least " +
                         std::to_string(fewest));
    const Dataset data(corpus, a.training.seed);
    std::printf("%s: %zu entries, %zu to learn from, %zu held out\n", corpus.source.c_str(), corpus.entries.size(),
                data.training.size(), data.held_out.size());

    std::error_code error;
    std::filesystem::create_directories(a.folder, error);
    if (error) throw InputError(a.folder + ": cannot be made: " + error.message());
    Model model(a.training.seed);
    if (a.queries.empty() || !model.load(a.folder + "/model.bin", fingerprint_of(data, a.training)))
        train(model, corpus, data, a);
    else
        std::printf("model: %s/model.bin, trained on the same entries\n", a.folder.c_str());

    std::vector<std::string> queries = a.queries;
    if (queries.empty() && corpus.packages)
        queries = {"edit photos", "play chess against the computer", "download videos from websites",
                   "monitor network traffic", "manage passwords"};
    for (std::size_t k = 0; queries.size() < 5 && a.queries.empty(); ++k)
        queries.push_back(corpus.entries[data.held_out[k % data.held_out.size()]].query);
    for (const std::string& query : queries) search(model, query, corpus, data, a.training.threads);
}

}  // namespace

int main(int argc, char** argv) {
    try {
        run(parse(argc, argv));
        return 0;
    } catch (const std::exception& error) {
        std::fflush(stdout);
        std::fprintf(stderr, "package_search: %s\n", error.what());
        return 2;
    }
}
