// SPDX-License-Identifier: Apache-2.0
//
// The candidate lists and the places of their edges by document, for every sampling, with and without an index of
// positives.
#include "pairs.hpp"

#include <algorithm>

#include "harness.hpp"
#include "kernel_table.hpp"

namespace {

using namespace harness;

// Of query, slot.
using Edges = std::vector<std::pair<int32_t, int32_t>>;

struct Case {
    int32_t sampling;
    int64_t batch, documents;
    int32_t rounds;
    std::vector<int64_t> positives = {};  // empty = row i
    std::vector<int32_t> given = {};

    bool permutes() const {
        return sampling == NEGCOS_SAMPLING_SHUFFLE || sampling == NEGCOS_SAMPLING_DERANGEMENT ||
               sampling == NEGCOS_SAMPLING_CYCLIC;
    }
    bool in_groups() const { return sampling == NEGCOS_SAMPLING_GROUPS; }
    int64_t positive(int64_t i) const { return positives.empty() ? i : positives[static_cast<size_t>(i)]; }
};

// What the library makes of it, as plain lists.
struct Lists {
    bool sorted = false;             // edges have their places from the sort
    std::vector<int32_t> negatives;  // batch x rounds
    std::vector<Edges> incoming;     // of each document
    bool operator==(const Lists&) const = default;
};

// Of each document, what the places of all edges make of them; each place is taken once.
std::vector<Edges> incoming(const negcos::Pairs& pairs, const Case& c) {
    const negcos::ArcLists& lists = pairs.lists();
    const negcos::Candidates& candidates = pairs.candidates();
    const std::pair<int32_t, int32_t> nobody{-1, -1};
    Edges arcs(static_cast<size_t>(lists.begin(c.documents)), nobody);
    for (int64_t i = 0; i < c.batch; ++i)
        for (int64_t slot = 0; slot < pairs.slots(); ++slot) {
            const int64_t at = i * candidates.row_stride + (slot - 1) * candidates.round_stride;
            const int64_t document = slot == 0 ? c.positive(i) : candidates.negatives[at];
            if (document < 0) continue;
            const int64_t place = lists.place(i, slot, document);
            REQUIRE(place >= lists.begin(document));
            REQUIRE(place < lists.begin(document + 1));
            auto& arc = arcs[static_cast<size_t>(place)];
            REQUIRE(arc == nobody);
            arc = {static_cast<int32_t>(i), static_cast<int32_t>(slot)};
        }
    REQUIRE(std::find(arcs.begin(), arcs.end(), nobody) == arcs.end());
    std::vector<Edges> result;
    for (int64_t j = 0; j < c.documents; ++j)
        result.emplace_back(arcs.begin() + lists.begin(j), arcs.begin() + lists.begin(j + 1));
    return result;
}

Lists build(const Case& c, int32_t threads) {
    negcos::Options options;
    options.sampling = c.sampling;
    options.rounds = c.rounds;
    options.seed = 5;
    options.step = 6;
    negcos::Pairs pairs(options, c.given.data(), c.batch, c.documents,
                        c.positives.empty() ? nullptr : c.positives.data());
    negcos::Workspace workspace(0);
    REQUIRE(workspace.lay_out([&](negcos::Arena& arena) { pairs.reserve(arena, threads, true); }) == NEGCOS_STATUS_OK);
    negcos::Parallel parallel(negcos::Parallel::preferred(), threads, nullptr, nullptr);
    REQUIRE(pairs.build(parallel, kernels_of("scalar"), false));

    Lists lists;
    lists.negatives.resize(static_cast<size_t>(c.batch * c.rounds));
    pairs.copy_negatives(lists.negatives.data());
    lists.sorted = pairs.lists().start != nullptr;
    lists.incoming = incoming(pairs, c);
    return lists;
}

// The transpose of the negatives, edge by edge.
std::vector<Edges> transpose(const Case& c, const std::vector<int32_t>& negatives) {
    std::vector<Edges> incoming(static_cast<size_t>(c.documents));
    for (int64_t i = 0; i < c.batch; ++i) {
        const int32_t query = static_cast<int32_t>(i);
        incoming[static_cast<size_t>(c.positive(i))].emplace_back(query, 0);
        for (int32_t r = 0; r < c.rounds; ++r)
            if (const int32_t j = negatives[static_cast<size_t>(i * c.rounds + r)]; j >= 0)
                incoming.at(static_cast<size_t>(j)).emplace_back(query, 1 + r);
    }
    return incoming;
}

void check(const Case& c) {
    INFO("sampling " << c.sampling << " B " << c.batch << " M " << c.documents << " rounds " << c.rounds
                     << " positives " << !c.positives.empty());
    const Lists lists = build(c, 1);
    std::vector<Edges> expected = transpose(c, lists.negatives);
    CHECK(lists.sorted == (!c.positives.empty() || (c.rounds > 0 && !c.permutes())));
    if (!lists.sorted)  // by rounds, each of which reaches a document once
        for (Edges& edges : expected)
            std::stable_sort(edges.begin(), edges.end(),
                             [](const auto& a, const auto& b) { return a.second < b.second; });
    CHECK(lists.incoming == expected);
    for (const int32_t threads : {2, 5, 16}) CHECK(build(c, threads) == lists);

    if (c.sampling == NEGCOS_SAMPLING_GIVEN) {
        CHECK(lists.negatives == c.given);
        return;
    }
    // Against the draws where row i is the positive of query i.
    Case own = c;
    own.positives.clear();
    if (own.documents < own.batch) own.documents = own.batch;
    const std::vector<int32_t> draws = own.documents == c.documents || c.permutes() || c.in_groups()
                                           ? build(own, 1).negatives
                                           : std::vector<int32_t>();
    for (int64_t i = 0; i < c.batch; ++i)
        for (int32_t r = 0; r < c.rounds; ++r) {
            const size_t at = static_cast<size_t>(i * c.rounds + r);
            const int64_t negative = lists.negatives[at];
            REQUIRE(negative >= 0);
            REQUIRE(negative < c.documents);
            if (c.permutes() || c.in_groups()) {
                REQUIRE(negative == c.positive(draws[at]));
            } else {
                REQUIRE(negative != c.positive(i));
                if (c.sampling == NEGCOS_SAMPLING_UNIFORM && !draws.empty()) {
                    const int64_t u = draws[at] - (draws[at] > i);
                    REQUIRE(negative == u + (u >= c.positive(i)));
                }
            }
        }
}

TEST_SUITE("unit") {
    TEST_CASE("pairs: each document has its edges, in their fixed order") {
        struct Shape {
            int64_t batch, documents;
        };
        Random random(4);
        for (const Shape& shape : {Shape{0, 0},
                                   {0, 3},
                                   {1, 2},
                                   {2, 2},
                                   {7, 9},
                                   {64, 64},
                                   {300, 301},
                                   {40, 900},
                                   {5, 3},
                                   {300, 2},
                                   {1000, 17}})  // the last three with an index alone
            for (const int32_t rounds : {0, 1, 3, 20})
                for (const bool indexed : {false, true}) {
                    if (!indexed && shape.documents < shape.batch) continue;
                    std::vector<int64_t> positives;
                    for (int64_t i = 0; indexed && i < shape.batch; ++i)
                        positives.push_back(random.below(shape.documents));
                    if (indexed && positives.empty()) continue;
                    for (const int32_t sampling :
                         {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_CYCLIC,
                          NEGCOS_SAMPLING_UNIFORM, NEGCOS_SAMPLING_LOG_UNIFORM, NEGCOS_SAMPLING_GIVEN,
                          NEGCOS_SAMPLING_GROUPS}) {
                        Case c{sampling, shape.batch, shape.documents, rounds, positives};
                        if (shape.batch == 1 && c.permutes()) continue;
                        if (shape.batch > 0 && c.in_groups() && rounds >= shape.batch) continue;
                        if (sampling == NEGCOS_SAMPLING_GIVEN)
                            for (int64_t k = 0; k < shape.batch * rounds; ++k)
                                c.given.push_back(static_cast<int32_t>(random.below(shape.documents + 1)) - 1);
                        check(c);
                    }
                }
    }

    TEST_CASE("pairs: positives alone") {
        const std::vector<int64_t> positives = {3, 0, 3, 2, 3};
        negcos::Pairs pairs(5, 4, positives.data());
        negcos::Workspace workspace(0);
        REQUIRE(workspace.lay_out([&](negcos::Arena& arena) { pairs.reserve(arena, 1, true); }) == NEGCOS_STATUS_OK);
        negcos::Parallel parallel(negcos::Threading::serial, 1, nullptr, nullptr);
        REQUIRE(pairs.build(parallel, kernels_of("scalar"), true));
        const Case c{NEGCOS_SAMPLING_GIVEN, 5, 4, 0, positives};
        CHECK(incoming(pairs, c) == std::vector<Edges>{{{1, 0}}, {}, {{3, 0}}, {{0, 0}, {2, 0}, {4, 0}}});
    }

    TEST_CASE("pairs: smaller calls need no more memory") {
        const auto bytes = [](int64_t batch, int64_t documents, int32_t rounds) {
            negcos::Options options;
            options.sampling = NEGCOS_SAMPLING_UNIFORM;
            options.rounds = rounds;
            negcos::Pairs pairs(options, nullptr, batch, documents, nullptr);
            negcos::Arena arena;
            pairs.reserve(arena, 100, true);
            return arena.used();
        };
        for (const int64_t batch : {16, 100, 256})
            for (const int32_t rounds : {1, 5, 40})
                for (int64_t documents = 256; documents < 6000; documents += 37) {
                    REQUIRE(bytes(batch, documents, rounds) <= bytes(batch, documents + 37, rounds));
                    REQUIRE(bytes(batch - 1, documents, rounds) <= bytes(batch, documents, rounds));
                    REQUIRE(bytes(batch, documents, rounds - 1) <= bytes(batch, documents, rounds));
                }
    }
}

}  // namespace
