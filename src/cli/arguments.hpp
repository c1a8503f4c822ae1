// SPDX-License-Identifier: Apache-2.0
//
// The command line as values, and the names of the enumerators on it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "negcos/negcos.hpp"

namespace negcos::cli {

// An enumerator in lower case with dashes.
struct Name {
    const char* text;
    int32_t value;
};

inline constexpr Name kThreadings[] = {{"default", NEGCOS_THREADING_DEFAULT},
                                       {"serial", NEGCOS_THREADING_SERIAL},
                                       {"tbb", NEGCOS_THREADING_TBB},
                                       {"openmp", NEGCOS_THREADING_OPENMP}};
inline constexpr Name kObjectives[] = {{"softmax", NEGCOS_OBJECTIVE_SOFTMAX},
                                       {"batch-softmax", NEGCOS_OBJECTIVE_BATCH_SOFTMAX},
                                       {"sigmoid", NEGCOS_OBJECTIVE_SIGMOID},
                                       {"decoupled", NEGCOS_OBJECTIVE_DECOUPLED}};
inline constexpr Name kSimilarities[] = {{"cosine", NEGCOS_SIMILARITY_COSINE}, {"dot", NEGCOS_SIMILARITY_DOT}};
inline constexpr Name kSamplings[] = {{"shuffle", NEGCOS_SAMPLING_SHUFFLE},
                                      {"derangement", NEGCOS_SAMPLING_DERANGEMENT},
                                      {"cyclic", NEGCOS_SAMPLING_CYCLIC},
                                      {"uniform", NEGCOS_SAMPLING_UNIFORM},
                                      {"log-uniform", NEGCOS_SAMPLING_LOG_UNIFORM},
                                      {"given", NEGCOS_SAMPLING_GIVEN},
                                      {"all", NEGCOS_SAMPLING_ALL},
                                      {"groups", NEGCOS_SAMPLING_GROUPS}};
inline constexpr Name kReductions[] = {{"mean", NEGCOS_REDUCTION_MEAN}, {"sum", NEGCOS_REDUCTION_SUM}};
inline constexpr Name kDirections[] = {{"query-to-document", NEGCOS_DIRECTION_QUERY_TO_DOCUMENT},
                                       {"both", NEGCOS_DIRECTION_BOTH}};
inline constexpr Name kDtypes[] = {
    {"f32", NEGCOS_DTYPE_F32}, {"f64", NEGCOS_DTYPE_F64}, {"f16", NEGCOS_DTYPE_F16}, {"bf16", NEGCOS_DTYPE_BF16}};
inline constexpr Name kExclusions[] = {{"same-document-id", NEGCOS_EXCLUDE_SAME_DOCUMENT_ID},
                                       {"same-query-id", NEGCOS_EXCLUDE_SAME_QUERY_ID}};
inline constexpr Name kCorrections[] = {{"all-candidates", NEGCOS_CORRECTION_ALL_CANDIDATES},
                                        {"negatives-only", NEGCOS_CORRECTION_NEGATIVES_ONLY}};

const char* name_of(std::span<const Name> names, int32_t value) noexcept;

struct LossArguments {
    std::string queries, documents;
    Options options;                          // without pointers: prefixes are below
    std::optional<int32_t> sampling, rounds;  // as far as they were given
    int32_t threads = 0, threading = NEGCOS_THREADING_DEFAULT;
    std::optional<std::string> isa;
    std::vector<int32_t> prefix_dims;
    std::vector<double> prefix_weights;
    // Input files, output files.
    std::optional<std::string> hard_negatives, positives, negatives, document_ids, query_ids, log_probability, weights;
    std::optional<std::string> losses, hit_probability, logits, grad_queries, grad_documents, grad_hard_negatives,
        save_negatives;
    bool json = false;
};

struct Arguments {
    enum class Command { text, loss, info } command = Command::text;
    std::string text;  // what --help or --version says
    LossArguments loss;
    bool info_json = false;
};

// Throws Failure. Not for several threads at once.
Arguments parse_arguments(int argc, const char* const* argv);

}  // namespace negcos::cli
