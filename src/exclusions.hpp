// SPDX-License-Identifier: Apache-2.0
//
// Documents that are no negatives of a query, as lists: of those that share the positive's id, and of the positives of
// queries that share the query's id. As long as the documents and the queries, however many pairs they take out.
#ifndef NEGCOS_EXCLUSIONS_HPP
#define NEGCOS_EXCLUSIONS_HPP

#include <cstdint>

#include "kernels.hpp"
#include "workspace.hpp"

namespace negcos {

class ExclusionList {
public:
    // Room for `members` (id, document) pairs and the groups of `batch` queries and all documents.
    void reserve(Arena& arena, int64_t members, int64_t batch, int64_t documents);

    // Documents grouped by their ids; query i's group is that of its positive. positives: nullptr = row i.
    Exclusion same_document(const int64_t* document_ids, int64_t documents, const int64_t* positives, int64_t batch);
    // Positives grouped by their queries' ids.
    Exclusion same_query(const int64_t* query_ids, int64_t documents, const int64_t* positives, int64_t batch);

private:
    template <class DocumentOf>
    void group(const int64_t* ids, int64_t members, int32_t* group_of, DocumentOf&& document_of);

    int32_t *group_ = nullptr, *group_of_document_ = nullptr, *document_ = nullptr;
    int64_t* start_ = nullptr;
};

}  // namespace negcos

#endif
