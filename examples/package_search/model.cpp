// SPDX-License-Identifier: Apache-2.0
#include "model.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "files.hpp"
#include "parallel.hpp"
#include "random.hpp"

namespace package_search {
namespace {

constexpr std::size_t most_held_out = 5000;
constexpr char magic[] = "package_search model 1\n";

uint64_t mix(uint64_t hash, std::string_view text) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
    return (hash ^ 0xff) * 1099511628211u;
}

// Several sums side by side, so that the compiler may use wide registers without reordering.
float dot(const float* a, const float* b) {
    float sums[16] = {};
    for (std::size_t c = 0; c < dim; c += 16)
        for (std::size_t k = 0; k < 16; ++k) sums[k] += a[c + k] * b[c + k];
    return std::accumulate(sums, sums + 16, 0.0f);
}

void normalise(std::vector<float>& rows) {
    for (std::size_t i = 0; i < rows.size(); i += dim) {
        const float norm = std::sqrt(dot(&rows[i], &rows[i]));
        for (std::size_t c = 0; c < dim && norm > 0; ++c) rows[i + c] /= norm;
    }
}

}  // namespace

Dataset::Dataset(const Corpus& corpus, uint64_t seed) {
    fingerprint = 14695981039346656037u + seed;
    for (const Entry& entry : corpus.entries) {
        queries.add(entry.query);
        documents.add(entry.document);
        fingerprint = mix(mix(fingerprint, entry.query), entry.document);
    }
    all.resize(corpus.entries.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    std::vector<std::size_t> order = all;
    std::mt19937_64 random(seed);
    shuffle(order, random);
    const std::size_t held = std::min(most_held_out, order.size() / 5);
    held_out.assign(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(held));
    training.assign(order.begin() + static_cast<std::ptrdiff_t>(held), order.end());
}

void Model::train(const Dataset& data, const TrainingOptions& options,
                  const std::function<void(int64_t, int64_t, double)>& progress) {
    negcos::ContextOptions context_options;
    context_options.threads = options.threads;
    negcos::Context context(context_options);
    negcos::Options loss;
    loss.sampling = options.sampling;
    loss.rounds = options.rounds;
    loss.scale = options.scale;
    loss.seed = options.seed;

    const std::size_t count = data.training.size(), batch_size = static_cast<std::size_t>(options.batch);
    const std::size_t batches = (count + batch_size - 1) / batch_size;
    const int64_t steps = static_cast<int64_t>(batches) * options.epochs;
    std::vector<std::size_t> order = data.training;
    std::vector<float> grad_queries, grad_documents;
    std::mt19937_64 random(options.seed);
    int64_t step = 0;
    for (int epoch = 0; epoch < options.epochs; ++epoch) {
        shuffle(order, random);
        for (std::size_t b = 0; b < batches; ++b) {
            // Batches of nearly the same size rather than a small one at the end.
            const std::size_t begin = count * b / batches, end = count * (b + 1) / batches;
            const std::span<const std::size_t> entries = std::span(order).subspan(begin, end - begin);
            const std::vector<float> queries = embed_queries(data, entries, options.threads);
            const std::vector<float> documents = embed_documents(data, entries, options.threads);
            grad_queries.resize(queries.size());
            grad_documents.resize(documents.size());

            const int64_t rows = static_cast<int64_t>(entries.size()), cols = dim;
            const negcos::Batch batch(negcos::view(std::span(queries), rows, cols),
                                      negcos::view(std::span(documents), rows, cols));
            negcos::Result result;
            result.grad_queries = negcos::view(std::span(grad_queries), rows, cols);
            result.grad_documents = negcos::view(std::span(grad_documents), rows, cols);
            loss.step = static_cast<uint64_t>(step);
            context.evaluate(loss, batch, result);

            queries_.step(data.queries, entries, grad_queries, options.learning_rate, options.threads);
            documents_.step(data.documents, entries, grad_documents, options.learning_rate, options.threads);
            progress(++step, steps, result.loss);
        }
    }
}

Ranking Model::rank_held_out(const Dataset& data, const Corpus& corpus, int threads) const {
    // Each document once, and for each query where its own is.
    std::unordered_map<std::string_view, std::size_t> places;
    std::vector<std::size_t> candidates, own;
    for (const std::size_t entry : data.held_out) {
        const auto [place, fresh] = places.emplace(corpus.entries[entry].document, candidates.size());
        if (fresh) candidates.push_back(entry);
        own.push_back(place->second);
    }
    std::vector<float> queries = embed_queries(data, data.held_out, threads);
    std::vector<float> documents = embed_documents(data, candidates, threads);
    normalise(queries);
    normalise(documents);

    std::vector<std::size_t> ranks(own.size(), 0);
    parallel_for(threads, own.size(), 32, [&](std::size_t begin, std::size_t end) {
        std::vector<float> positive(end - begin);
        for (std::size_t i = begin; i < end; ++i)
            positive[i - begin] = dot(&queries[i * dim], &documents[own[i] * dim]);
        for (std::size_t j = 0; j < candidates.size(); ++j)
            for (std::size_t i = begin; i < end; ++i)
                ranks[i] += j != own[i] && dot(&queries[i * dim], &documents[j * dim]) >= positive[i - begin];
    });
    Ranking ranking{candidates.size(), 0, 0, 0};
    for (const std::size_t rank : ranks) {
        ranking.recall_at_1 += rank < 1;
        ranking.recall_at_10 += rank < 10;
        ranking.mean_reciprocal_rank += 1.0 / static_cast<double>(rank + 1);
    }
    for (double* sum : {&ranking.recall_at_1, &ranking.recall_at_10, &ranking.mean_reciprocal_rank})
        *sum /= static_cast<double>(ranks.size());
    return ranking;
}

std::vector<Answer> Model::search(const std::string& query, const Dataset& data, const Corpus& corpus,
                                  std::size_t count, int threads) const {
    Features features;
    features.add(query);
    const std::size_t only[] = {0};
    std::vector<float> embedding = queries_.embed(features, only, 1),
                       documents = embed_documents(data, data.all, threads);
    normalise(embedding);
    normalise(documents);
    std::vector<Answer> answers;
    for (const std::size_t entry : data.all) answers.push_back({entry, dot(embedding.data(), &documents[entry * dim])});
    std::stable_sort(answers.begin(), answers.end(),
                     [](const Answer& a, const Answer& b) { return a.cosine > b.cosine; });

    std::vector<Answer> best;
    std::unordered_set<std::string_view> seen;
    for (const Answer& answer : answers) {
        if (best.size() == count) break;
        if (seen.insert(corpus.entries[answer.entry].document).second) best.push_back(answer);
    }
    return best;
}

void Model::save(const std::string& path, uint64_t fingerprint) const {
    write_file(path, [&](std::ostream& file) {
        file.write(magic, sizeof magic);
        file.write(reinterpret_cast<const char*>(&fingerprint), sizeof fingerprint);
        for (const std::span<const float> table : {queries_.table(), documents_.table()})
            file.write(reinterpret_cast<const char*>(table.data()), static_cast<std::streamsize>(table.size_bytes()));
    });
}

bool Model::load(const std::string& path, uint64_t fingerprint) {
    std::ifstream file(path, std::ios::binary);
    char start[sizeof magic];
    uint64_t trained_on = 0;
    if (!file.read(start, sizeof start) || !std::equal(start, start + sizeof start, magic)) return false;
    if (!file.read(reinterpret_cast<char*>(&trained_on), sizeof trained_on) || trained_on != fingerprint) return false;
    for (const std::span<float> table : {queries_.table(), documents_.table()})
        if (!file.read(reinterpret_cast<char*>(table.data()), static_cast<std::streamsize>(table.size_bytes())))
            return false;
    return file.peek() == std::ifstream::traits_type::eof();
}

}  // namespace package_search
