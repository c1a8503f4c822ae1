// SPDX-License-Identifier: Apache-2.0
#include "exclusions.hpp"

#include <algorithm>

namespace negcos {

void ExclusionList::reserve(Arena& arena, int64_t members, int64_t batch, int64_t documents) {
    group_ = arena.take<int32_t>(batch);
    group_of_document_ = arena.take<int32_t>(documents);
    document_ = arena.take<int32_t>(members);
    start_ = arena.take<int64_t>(members + 1);
}

// Members sorted by id and document; each group's documents, once each, and each member's group.
template <class DocumentOf>
void ExclusionList::group(const int64_t* ids, int64_t members, int32_t* group_of, DocumentOf&& document_of) {
    for (int64_t k = 0; k < members; ++k) document_[k] = static_cast<int32_t>(k);
    std::sort(document_, document_ + members, [&](int32_t a, int32_t b) {
        if (ids[a] != ids[b]) return ids[a] < ids[b];
        if (document_of(a) != document_of(b)) return document_of(a) < document_of(b);
        return a < b;
    });
    int64_t groups = 0, kept = 0;
    int64_t id = 0;
    for (int64_t k = 0; k < members; ++k) {
        const int32_t member = document_[k];
        if (k == 0 || ids[member] != id) {
            id = ids[member];
            start_[groups++] = kept;
        }
        group_of[member] = static_cast<int32_t>(groups - 1);
        const int32_t document = static_cast<int32_t>(document_of(member));
        if (kept == start_[groups - 1] || document_[kept - 1] != document) document_[kept++] = document;
    }
    start_[groups] = kept;
}

Exclusion ExclusionList::same_document(const int64_t* document_ids, int64_t documents, const int64_t* positives,
                                       int64_t batch) {
    group(document_ids, documents, group_of_document_, [](int64_t j) { return j; });
    for (int64_t i = 0; i < batch; ++i) group_[i] = group_of_document_[positives ? positives[i] : i];
    return {group_, start_, document_, group_of_document_};
}

Exclusion ExclusionList::same_query(const int64_t* query_ids, int64_t documents, const int64_t* positives,
                                    int64_t batch) {
    group(query_ids, batch, group_, [&](int64_t i) { return positives ? positives[i] : i; });
    if (positives) return {group_, start_, document_, nullptr};
    for (int64_t j = 0; j < documents; ++j) group_of_document_[j] = j < batch ? group_[j] : -1;
    return {group_, start_, document_, group_of_document_};
}

}  // namespace negcos
