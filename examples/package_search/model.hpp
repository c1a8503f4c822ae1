// SPDX-License-Identifier: Apache-2.0
//
// The two towers together: how they are trained, how well they rank, how they answer, and the file they are kept in.
#ifndef PACKAGE_SEARCH_MODEL_HPP
#define PACKAGE_SEARCH_MODEL_HPP

#include <functional>
#include <string>
#include <vector>

#include "corpus.hpp"
#include "negcos/negcos.hpp"
#include "tower.hpp"

namespace package_search {

struct TrainingOptions {
    int epochs = 5, batch = 1024, rounds = 20;
    int32_t sampling = NEGCOS_SAMPLING_SHUFFLE;
    double scale = 20;
    float learning_rate = 0.01f;
    uint64_t seed = 1;
    int threads = 1;
};

// A corpus as features, divided into entries to learn from and entries held out.
struct Dataset {
    Dataset(const Corpus& corpus, uint64_t seed);

    Features queries, documents;
    std::vector<std::size_t> training, held_out, all;
    uint64_t fingerprint = 0;  // of the texts and the division
};

struct Ranking {
    std::size_t documents;  // that each query was compared with
    double recall_at_1, recall_at_10, mean_reciprocal_rank;
};

struct Answer {
    std::size_t entry;
    float cosine;
};

class Model {
public:
    explicit Model(uint64_t seed) : queries_(seed), documents_(seed) {}

    // Calls progress(step, steps, loss) after each batch.
    void train(const Dataset& data, const TrainingOptions& options,
               const std::function<void(int64_t, int64_t, double)>& progress);

    std::vector<float> embed_queries(const Dataset& data, std::span<const std::size_t> entries, int threads) const {
        return queries_.embed(data.queries, entries, threads);
    }
    std::vector<float> embed_documents(const Dataset& data, std::span<const std::size_t> entries, int threads) const {
        return documents_.embed(data.documents, entries, threads);
    }

    // Each held-out query against the distinct held-out documents.
    Ranking rank_held_out(const Dataset& data, const Corpus& corpus, int threads) const;

    // The best `count` entries for a query, each document once.
    std::vector<Answer> search(const std::string& query, const Dataset& data, const Corpus& corpus, std::size_t count,
                               int threads) const;

    // `fingerprint` says what the model was trained on, and how; load() returns false when the file says otherwise or
    // does not exist.
    void save(const std::string& path, uint64_t fingerprint) const;
    bool load(const std::string& path, uint64_t fingerprint);

private:
    Tower queries_, documents_;
};

}  // namespace package_search

#endif
