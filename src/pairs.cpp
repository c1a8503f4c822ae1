// SPDX-License-Identifier: Apache-2.0
#include "pairs.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace negcos {
namespace {

// Tasks of the sort of the edges. Each keeps a count for every document.
constexpr int64_t kMostTasks = 8;

// A query's or a document's entries of all rounds lie a stride apart. An odd number of cache lines spreads them over
// the cache's sets, where a power of two would put them all in one.
int64_t round_stride(int64_t batch) {
    constexpr int64_t kLine = 64 / sizeof(int32_t);
    return ((batch + kLine - 1) / kLine | 1) * kLine;
}

// Samplings whose rounds are permutations of the queries.
bool permutes(Sampling sampling) {
    switch (sampling) {
        case Sampling::shuffle:
        case Sampling::derangement:
        case Sampling::cyclic:
            return true;
        case Sampling::uniform:
        case Sampling::log_uniform:
        case Sampling::given:
        case Sampling::all:
        case Sampling::groups:
            break;
    }
    return false;
}

// to[i] = (i + shift) mod n.
void fill_cyclic(int64_t n, int64_t shift, int32_t* to) {
    for (int64_t i = 0; i < n - shift; ++i) to[i] = static_cast<int32_t>(i + shift);
    for (int64_t i = n - shift; i < n; ++i) to[i] = static_cast<int32_t>(i + shift - n);
}

}  // namespace

Pairs::Pairs(int64_t batch, int64_t documents, const int64_t* positives) : batch_(batch), documents_(documents) {
    candidates_.positives = positives;
}

Pairs::Pairs(const negcos_options& options, const int32_t* given, int64_t batch, int64_t documents,
             const int64_t* positives)
    : batch_(batch), documents_(documents), sampling_{options.sampling}, seed_(options.seed), step_(options.step) {
    const int64_t rounds = options.rounds;
    // Drawn rounds lie one after another, given ones row by row.
    candidates_ = sampling_ != Sampling::given ? Candidates{nullptr, 1, round_stride(batch), rounds, true, positives}
                                               : Candidates{given, rounds, 1, rounds, false, positives};
}

void Pairs::reserve(Arena& arena, int64_t workers, bool transpose) {
    const int64_t rounds = candidates_.rounds, drawn = candidates_.round_stride * rounds;
    if (sampling_ != Sampling::given) candidates_.negatives = negatives_ = arena.take<int32_t>(drawn);
    if (sampling_ == Sampling::cyclic) {
        shifts_ = arena.take<int32_t>(rounds);
        shuffled_ = arena.take<int32_t>(batch_);
    }
    if (sampling_ == Sampling::groups) reserve_deal(arena);
    if (!transpose) return;
    lists_ = {slots(), batch_, nullptr, nullptr};
    // A permutation reaches each document once: its edge of round r has place 1 + r.
    if (!candidates_.positives && (rounds == 0 || permutes(sampling_))) return;
    const int64_t edges = batch_ * slots(), stride = odd_lines<int64_t>(documents_);
    // More tasks than a document has edges would spend their time on adding up what they counted. The room grows with
    // each size alone, so that smaller calls fit in it.
    const int64_t most = std::min(kMostTasks, workers);
    tasks_ = std::min(most, 1 + edges / std::max<int64_t>(stride, 1));
    next_ = arena.take<int64_t>(std::min(most * stride, stride + edges));
    lists_.start = start_ = arena.take<int64_t>(documents_ + 1);
    lists_.places = places_ = arena.take<int64_t>(edges);
}

bool Pairs::build(Parallel& parallel, const Kernels& kernels, bool run_inline) {
    const int64_t rounds = batch_ > 0 && negatives_ ? candidates_.rounds : 0;
    if (shifts_ && rounds > 0) draw_shifts(kernels, seed_, step_, batch_, rounds, shifts_, shuffled_);
    if (dealt_ && rounds > 0) draw_deal(kernels);
    if (!parallel.for_each(rounds, run_inline, [&](int64_t round, int64_t) { draw(kernels, round); })) return false;
    return !start_ || find_places(parallel, run_inline);
}

void Pairs::draw_deal(const Kernels& kernels) const {
    draw_permutation(kernels, seed_, step_, 0, batch_, false, dealt_);
}

void Pairs::draw(const Kernels& kernels, int64_t r) {
    const uint32_t round = static_cast<uint32_t>(r);
    int32_t* negatives = negatives_ + r * candidates_.round_stride;
    switch (sampling_) {
        case Sampling::shuffle:
        case Sampling::derangement:
            draw_permutation(kernels, seed_, step_, round, batch_, sampling_ == Sampling::derangement, negatives);
            break;
        case Sampling::cyclic:
            fill_cyclic(batch_, shifts_[r], negatives);
            break;
        case Sampling::uniform:
            return draw_uniform(kernels, seed_, step_, round, batch_, documents_, candidates_.positives, negatives);
        case Sampling::log_uniform:
            return draw_log_uniform(kernels, seed_, step_, round, batch_, documents_, candidates_.positives, negatives);
        case Sampling::groups:
            for (int64_t place = 0; place < batch_; ++place) negatives[dealt_[place]] = deal().negative(place, r);
            break;
        case Sampling::given:
        case Sampling::all:
            return;  // nothing is drawn
    }
    if (candidates_.positives)  // of queries, so far
        for (int64_t i = 0; i < batch_; ++i) negatives[i] = static_cast<int32_t>(candidates_.positives[negatives[i]]);
}

// A counting sort by document: stable, so each document's edges come in the order of queries and slots, whatever the
// number of tasks. Each task counts the edges of its own range of queries by document; summed up over documents and,
// for each, over tasks, the counts become the places that each task gives out.
bool Pairs::find_places(Parallel& parallel, bool run_inline) {
    const int64_t stride = odd_lines<int64_t>(documents_);
    const auto each_edge = [this, stride](int64_t task, auto&& visit) {
        const Candidates candidates = candidates_;  // a copy, which counting cannot change
        int64_t* next = next_ + task * stride;
        for (int64_t i = batch_ * task / tasks_, end = batch_ * (task + 1) / tasks_; i < end; ++i) {
            int64_t edge = i * candidates.slots();
            visit(next[candidates.positive(i)], edge);
            const int32_t* negatives = candidates.negatives + i * candidates.row_stride;
            for (int64_t r = 0; r < candidates.rounds; ++r)
                if (const int32_t j = negatives[r * candidates.round_stride]; ++edge, j >= 0) visit(next[j], edge);
        }
    };
    if (!parallel.for_each(tasks_, run_inline, [&](int64_t task, int64_t) {
            std::memset(next_ + task * stride, 0, sizeof(int64_t) * static_cast<size_t>(documents_));
            each_edge(task, [](int64_t& count, int64_t) { ++count; });
        }))
        return false;
    int64_t place = 0;
    for (int64_t j = 0; j < documents_; ++j) {
        start_[j] = place;
        for (int64_t task = 0; task < tasks_; ++task) place += std::exchange(next_[task * stride + j], place);
    }
    start_[documents_] = place;
    return parallel.for_each(tasks_, run_inline, [&](int64_t task, int64_t) {
        each_edge(task, [places = places_](int64_t& next, int64_t edge) { places[edge] = next++; });
    });
}

void Pairs::copy_negatives(int32_t* out) const {
    if (dealt_ && !candidates_.positives) {  // in the order of places, each row whole
        for (int64_t place = 0; place < batch_; ++place)
            for (int64_t r = 0; r < candidates_.rounds; ++r)
                out[dealt_[place] * candidates_.rounds + r] = deal().negative(place, r);
        return;
    }
    for (int64_t i = 0; i < batch_; ++i)
        for (int64_t r = 0; r < candidates_.rounds; ++r)
            *out++ = candidates_.negatives[i * candidates_.row_stride + r * candidates_.round_stride];
}

}  // namespace negcos
