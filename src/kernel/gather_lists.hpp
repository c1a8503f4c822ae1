// SPDX-License-Identifier: Apache-2.0
//
// What the gather reads: the candidates of a few queries as lists, and the dot products with the rows of a list; and
// where it writes their arcs.
#ifndef NEGCOS_KERNEL_GATHER_LISTS_HPP
#define NEGCOS_KERNEL_GATHER_LISTS_HPP

#include "kernel/dots.hpp"
#include "kernel/objective.hpp"
#include "work.hpp"

namespace {

using negcos::pad_lanes;
using negcos::Range;

constexpr int64_t kListed = 16;                     // queries listed at a time: what a cache line has of a round
constexpr int64_t kRowsAhead = 8;                   // of a list, prefetched before they are read
constexpr int64_t kBehind = kRowsAhead + 3;         // candidates that are read behind the last of a list
constexpr int64_t kNearBytes = int64_t{256} << 10;  // rows of so much in all need no prefetching

// Room for a list of numbers or rows: whole lanes from its second on, and what is read behind it.
template <class T>
constexpr int64_t list_size(int64_t slots) {
    return pad_lanes<T>(slots + 16);
}
static_assert(kBehind <= 16 && kLanes<float> <= 16);

// Whether document j is in query i's group.
inline bool is_excluded(const negcos::Exclusion& exclusion, int64_t i, int32_t j) {
    if (!exclusion.group) return false;
    const int32_t g = exclusion.group[i];
    if (exclusion.group_of_document) return exclusion.group_of_document[j] == g;
    int64_t low = exclusion.start[g], high = exclusion.start[g + 1];
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (exclusion.document[middle] < j)
            low = middle + 1;
        else
            high = middle;
    }
    return low < exclusion.start[g + 1] && exclusion.document[low] == j;
}

// A query's candidates, absent and excluded ones left out: their documents and slots, the positive first.
struct CandidateList {
    const int32_t *document, *slot;
    int64_t count, excluded;
};

// Those of kListed queries.
class CandidateLists {
public:
    // size: of a list; lists: 2 * kListed of them.
    template <class T>
    CandidateLists(const negcos::Candidates& candidates, const negcos::LossTerms<T>& terms, int32_t* lists,
                   int64_t size)
        : candidates_(candidates),
          same_document_(terms.same_document),
          same_query_(terms.same_query),
          excludes_(same_document_.group || same_query_.group),
          complete_(candidates.complete && !excludes_),
          document_(lists),
          slot_(lists + kListed * size),
          size_(size) {
        for (int64_t k = 0; k < candidates.slots(); ++k) slot_[k] = static_cast<int32_t>(k);
    }
    CandidateList operator[](int64_t g) const {
        return {document_ + g * size_, complete_ ? slot_ : slot_ + g * size_, count_[g], excluded_[g]};
    }

    void read(Range queries) {
        const int64_t rounds = candidates_.rounds, row_stride = candidates_.row_stride, count = queries.count();
        const int32_t* negatives = candidates_.negatives + queries.begin * row_stride;
        for (int64_t g = 0; g < count; ++g) {
            document_[g * size_] = static_cast<int32_t>(candidates_.positive(queries.begin + g));
            count_[g] = candidates_.slots();
        }
        if (complete_) {
            for (int64_t r = 0; r < rounds; ++r, negatives += candidates_.round_stride)
                for (int64_t g = 0; g < count; ++g) document_[g * size_ + 1 + r] = negatives[g * row_stride];
        } else {
            for (int64_t g = 0; g < count; ++g, negatives += row_stride) {
                int32_t *document = document_ + g * size_, *slot = slot_ + g * size_;
                int64_t n = 1, excluded = 0;
                slot[0] = 0;
                for (int64_t r = 0; r < rounds; ++r) {
                    const int32_t j = negatives[r * candidates_.round_stride];
                    const bool out = excludes_ && j >= 0 && excludes(queries.begin + g, j);
                    document[n] = j;
                    slot[n] = static_cast<int32_t>(1 + r);
                    n += j >= 0 && !out;
                    excluded += out;
                }
                count_[g] = n;
                excluded_[g] = excluded;
            }
        }
        // What is read behind a list: the first of the next.
        for (int64_t g = 0; g < count; ++g) {
            const CandidateList next = (*this)[g + 1 < count ? g + 1 : g];
            int32_t* behind = document_ + g * size_ + count_[g];
            for (int64_t k = 0; k < kBehind; ++k) behind[k] = next.document[k < next.count ? k : 0];
        }
    }

private:
    bool excludes(int64_t query, int32_t document) const {
        return is_excluded(same_document_, query, document) || is_excluded(same_query_, query, document);
    }

    const negcos::Candidates candidates_;
    const negcos::Exclusion same_document_, same_query_;
    const bool excludes_, complete_;
    int32_t *document_, *slot_;
    int64_t size_, count_[kListed] = {}, excluded_[kListed] = {};
};

// visit(k, arc) for the record of arcs of each of query i's edges to documents.
template <class E, class Visit>
[[gnu::always_inline]] inline void each_arc(const negcos::Gather<E>& t, int64_t i, const CandidateList& list,
                                            int64_t record, const Visit& visit) {
    negcos::Arc<Working<E>>* const arcs = t.arcs;
    if (!arcs) return;
    const int64_t slots = t.lists.slots, n = list.count;
    const int32_t *document = list.document, *slot = list.slot;
    if (t.lists.places) {
        const int64_t* places = t.lists.places + i * slots;
#pragma GCC unroll 4
        for (int64_t k = 0; k < n; ++k) visit(k, arcs + places[slot[k]] * record);
    } else {
#pragma GCC unroll 4
        for (int64_t k = 0; k < n; ++k) visit(k, arcs + (document[k] * slots + slot[k]) * record);
    }
}

// The dot products of a query with n rows of a list, and with up to three behind them. kDim: dim, or 0 where the
// compiler does not know it.
template <int64_t kDim, bool kRescaled, bool kPrefetch, class E, class T>
void find_dots_of(const negcos::Rows<E>& rows, int64_t dim, const int32_t* list, int64_t n, const T* query, T* dots) {
    constexpr int64_t kAhead = kDim > 0 ? kRowsAhead : 4;  // of long rows fewer
    for (int64_t k = 0; k < n; k += 4) {
        const E *four[4], *later[4] = {};
        T rescale[4] = {1, 1, 1, 1};
        for (int64_t r = 0; r < 4; ++r) {
            const int64_t j = list[k + r];
            four[r] = rows.data + j * rows.stride;
            if constexpr (kPrefetch) later[r] = rows.data + list[k + r + kAhead] * rows.stride;
            if constexpr (kRescaled) rescale[r] = rows.rescale[j];
        }
        dot_four<kRescaled, kPrefetch>(query, four, rescale, kDim > 0 ? kDim : dim, dots + k, later);
    }
}

// Rare, so out of line.
template <class E, class T>
[[gnu::noinline]] void find_dots_rescaled(const negcos::Rows<E>& rows, int64_t dim, const int32_t* list, int64_t n,
                                          const T* query, T* dots) {
    find_dots_of<0, true, false>(rows, dim, list, n, query, dots);
}

template <class E, class T>
void find_dots(const negcos::Rows<E>& rows, int64_t dim, const int32_t* list, int64_t n, const T* query, T* dots) {
    constexpr int64_t kOne = kLanes<T>;
    constexpr bool kFast = kWidth < T >> 1;  // where there are no vectors, more copies only take longer to build
    if (rows.rescaled) [[unlikely]]
        return find_dots_rescaled(rows, dim, list, n, query, dots);
    const auto find = [&](auto columns) {
        constexpr int64_t kDim = decltype(columns)::value;
        if (kFast && rows.count * dim * static_cast<int64_t>(sizeof(E)) > kNearBytes)
            find_dots_of<kDim, false, kFast>(rows, dim, list, n, query, dots);
        else
            find_dots_of<kDim, false, false>(rows, dim, list, n, query, dots);
    };
    if constexpr (kFast) {
        switch (dim) {
            case kOne:
                return find(Constant<kOne>());
            case 2 * kOne:
                return find(Constant<2 * kOne>());
            case 4 * kOne:
                return find(Constant<4 * kOne>());
            case 8 * kOne:
                return find(Constant<8 * kOne>());
            default:
                break;
        }
    }
    find(Constant<int64_t{0}>());
}

}  // namespace

#endif
