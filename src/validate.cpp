// SPDX-License-Identifier: Apache-2.0
#include "validate.hpp"

#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>

#include "plan.hpp"
#include "sampling.hpp"
#include "status.hpp"
#include "work.hpp"

namespace negcos {
namespace {

// Evaluates to its status when that is a failure.
#define NEGCOS_TRY(expression)                                    \
    do {                                                          \
        if (const int32_t status_ = (expression)) return status_; \
    } while (false)

// Two options that cannot be had together.
int32_t exclusive(const char* one, const char* other) {
    return fail(NEGCOS_STATUS_UNSUPPORTED, "%s and %s exclude each other", one, other);
}

int32_t check_enum(const char* name, int32_t value, int32_t last) {
    if (value < 0 || value > last)
        return fail(NEGCOS_STATUS_VALUE, "options.%s is %d, expected 0 to %d", name, value, last);
    return NEGCOS_STATUS_OK;
}

int32_t check_finite(const char* name, double value) {
    if (!std::isfinite(value))
        return fail(NEGCOS_STATUS_VALUE, "options.%s is %g, expected a finite number", name, value);
    return NEGCOS_STATUS_OK;
}

// The largest logit: differences of two must stay finite in the working type; in the general loss, sums of 2^31.
double most_of(const negcos_options& options, const negcos_batch& batch) {
    if (is_general(options, batch)) return batch.queries.dtype == NEGCOS_DTYPE_F64 ? 0x1p960 : 0x1p90;
    return batch.queries.dtype == NEGCOS_DTYPE_F64 ? 0x1p1020 : 0x1p124;
}

// The largest weight of a query and of a prefix: their product over a softmax must stay finite too.
double most_weight_of(int32_t dtype) {
    return dtype == NEGCOS_DTYPE_F64 ? 0x1p480 : 0x1p60;
}

// What is checked to be in range is cast to the core's enumerations.
static_assert(static_cast<int32_t>(Dtype::bf16) == NEGCOS_DTYPE_BF16);
static_assert(static_cast<int32_t>(Objective::decoupled) == NEGCOS_OBJECTIVE_DECOUPLED);
static_assert(static_cast<int32_t>(Sampling::all) == NEGCOS_SAMPLING_ALL &&
              static_cast<int32_t>(Sampling::groups) == NEGCOS_SAMPLING_GROUPS);

const char* name_of(Objective objective) {
    switch (objective) {
        case Objective::softmax:
            return "options.objective SOFTMAX";
        case Objective::batch_softmax:
            return "options.objective BATCH_SOFTMAX";
        case Objective::sigmoid:
            return "options.objective SIGMOID";
        case Objective::decoupled:
            return "options.objective DECOUPLED";
    }
    return "options.objective";
}

// dtype: a known one.
int64_t element_size(int32_t dtype) {
    switch (Dtype{dtype}) {
        case Dtype::f32:
            return sizeof(float);
        case Dtype::f64:
            return sizeof(double);
        case Dtype::f16:
            return sizeof(F16);
        case Dtype::bf16:
            return sizeof(BF16);
    }
    return 0;
}

// A block of memory row by row, in bytes.
struct Region {
    const char* name;
    uintptr_t begin = 0;
    uint64_t rows = 0, width = 0, stride = 0;

    bool empty() const { return rows == 0 || width == 0; }
    uintptr_t end() const { return begin + static_cast<uintptr_t>((rows - 1) * stride + width); }
};

Region contiguous(const char* name, const void* data, int64_t count, int64_t size) {
    const uint64_t bytes = data && count > 0 ? static_cast<uint64_t>(count) * static_cast<uint64_t>(size) : 0;
    return {name, reinterpret_cast<uintptr_t>(data), 1, bytes, bytes};
}

template <class Matrix>
Region region(const char* name, const Matrix& m) {
    if (!m.data) return {name};
    const uint64_t size = static_cast<uint64_t>(element_size(m.dtype));
    return {name, reinterpret_cast<uintptr_t>(m.data), static_cast<uint64_t>(m.rows),
            static_cast<uint64_t>(m.cols) * size, static_cast<uint64_t>(m.row_stride) * size};
}

bool overlap(const Region& a, const Region& b) {
    if (a.empty() || b.empty() || a.end() <= b.begin || b.end() <= a.begin) return false;
    // Columns of one wider matrix, or what lies in its gaps: the ranges interleave, the elements may still be apart.
    if ((a.rows > 1 && b.rows > 1 && a.stride != b.stride) || (a.rows == 1 && b.rows == 1)) return true;
    const Region &low = a.begin <= b.begin ? a : b, &high = a.begin <= b.begin ? b : a;
    if (low.rows == 1) return true;  // it reaches into the other's first row
    const uint64_t offset = (high.begin - low.begin) % low.stride;
    return offset < low.width || offset + high.width > low.stride;
}

// Shape, stride, dtype and alignment of a matrix that is present.
template <class Matrix>
int32_t check_matrix(const char* name, const Matrix& m) {
    if (m.reserved != 0) return fail(NEGCOS_STATUS_VALUE, "%s.reserved is %d, expected 0", name, m.reserved);
    if (m.dtype < NEGCOS_DTYPE_F32 || m.dtype > NEGCOS_DTYPE_BF16)
        return fail(NEGCOS_STATUS_DTYPE, "%s.dtype is %d, expected one of NEGCOS_DTYPE_", name, m.dtype);
    if (m.rows < 0 || m.cols < 0)
        return fail(NEGCOS_STATUS_SHAPE, "%s is %lld x %lld, expected no negative size", name,
                    static_cast<long long>(m.rows), static_cast<long long>(m.cols));
    if (m.row_stride < m.cols)
        return fail(NEGCOS_STATUS_SHAPE, "%s.row_stride is %lld, expected at least cols = %lld", name,
                    static_cast<long long>(m.row_stride), static_cast<long long>(m.cols));
    int64_t bytes;
    if (m.rows > 0 &&
        (__builtin_mul_overflow(m.rows - 1, m.row_stride, &bytes) || __builtin_add_overflow(bytes, m.cols, &bytes) ||
         __builtin_mul_overflow(bytes, element_size(m.dtype), &bytes)))
        return fail(NEGCOS_STATUS_SHAPE, "%s of %lld rows with row_stride %lld is larger than the address space", name,
                    static_cast<long long>(m.rows), static_cast<long long>(m.row_stride));
    const uintptr_t address = reinterpret_cast<uintptr_t>(m.data);
    if (address % static_cast<uintptr_t>(element_size(m.dtype)) != 0)
        return fail(NEGCOS_STATUS_VALUE, "%s.data is not aligned to its elements of %d bytes", name,
                    static_cast<int>(element_size(m.dtype)));
    return NEGCOS_STATUS_OK;
}

template <class Matrix>
int32_t check_input(const char* name, const Matrix& m) {
    if (!m.data && m.rows != 0 && m.cols != 0) return fail(NEGCOS_STATUS_NULL_ARGUMENT, "%s.data is NULL", name);
    return check_matrix(name, m);
}

int32_t check_like_queries(const char* name, const negcos_const_matrix& m, const negcos_const_matrix& queries) {
    if (m.dtype != queries.dtype)
        return fail(NEGCOS_STATUS_DTYPE, "%s.dtype is %d, expected the queries' %d", name, m.dtype, queries.dtype);
    if (m.cols != queries.cols)
        return fail(NEGCOS_STATUS_SHAPE, "%s has %lld columns, expected the queries' %lld", name,
                    static_cast<long long>(m.cols), static_cast<long long>(queries.cols));
    return NEGCOS_STATUS_OK;
}

int32_t check_output(const char* name, const negcos_matrix& m, int64_t rows, int64_t cols, int32_t dtype) {
    if (!m.data) return NEGCOS_STATUS_OK;
    NEGCOS_TRY(check_matrix(name, m));
    if (m.dtype != dtype)
        return fail(NEGCOS_STATUS_DTYPE, "%s.dtype is %d, expected the queries' %d", name, m.dtype, dtype);
    if (m.rows != rows || m.cols != cols)
        return fail(NEGCOS_STATUS_SHAPE, "%s is %lld x %lld, expected %lld x %lld", name,
                    static_cast<long long>(m.rows), static_cast<long long>(m.cols), static_cast<long long>(rows),
                    static_cast<long long>(cols));
    return NEGCOS_STATUS_OK;
}

int32_t check_sampling(const negcos_options& options, int64_t batch, int64_t documents) {
    if (documents > std::numeric_limits<int32_t>::max())
        return fail(NEGCOS_STATUS_SHAPE, "%lld documents, expected at most 2147483647",
                    static_cast<long long>(documents));
    int64_t edges;
    // What an edge takes in the workspace, for 32 prefixes, is counted in numbers of 64 bits as well.
    if (__builtin_mul_overflow(batch, int64_t{1} + options.rounds, &edges) ||
        __builtin_mul_overflow(edges, 2 * kMostPrefixes, &edges))
        return fail(NEGCOS_STATUS_SHAPE, "%lld queries with %d rounds are more than 2^57 pairs",
                    static_cast<long long>(batch), options.rounds);
    return NEGCOS_STATUS_OK;
}

// Whether there is something to draw from.
int32_t check_draws(const negcos_options& options, int64_t batch, int64_t documents) {
    if (batch == 0 || options.rounds == 0) return NEGCOS_STATUS_OK;
    const auto needs_two = [](const char* sampling, int64_t got, const char* of) -> int32_t {
        if (got >= 2) return NEGCOS_STATUS_OK;
        return fail(NEGCOS_STATUS_SHAPE, "options.sampling %s needs at least 2 %s, got %d", sampling, of,
                    static_cast<int>(got));
    };
    switch (Sampling{options.sampling}) {
        case Sampling::derangement:
            return needs_two("DERANGEMENT", batch, "queries");
        case Sampling::cyclic:
            return needs_two("CYCLIC", batch, "queries");
        case Sampling::uniform:
            return needs_two("UNIFORM", documents, "documents");
        case Sampling::log_uniform:
            return needs_two("LOG_UNIFORM", documents, "documents");
        case Sampling::groups:
            if (options.rounds < batch) return NEGCOS_STATUS_OK;
            return fail(NEGCOS_STATUS_SHAPE,
                        "options.sampling GROUPS needs more queries than options.rounds, got %lld and %d",
                        static_cast<long long>(batch), options.rounds);
        case Sampling::shuffle:
        case Sampling::given:
        case Sampling::all:
            return NEGCOS_STATUS_OK;
    }
    return fail(NEGCOS_STATUS_INTERNAL, "options.sampling is %d", options.sampling);
}

int32_t check_given(const negcos_options& options, const negcos_batch& batch) {
    const int64_t count = batch.queries.rows * options.rounds;
    if (count == 0) return NEGCOS_STATUS_OK;
    if (!batch.negatives)
        return fail(NEGCOS_STATUS_NULL_ARGUMENT, "batch.negatives is NULL, expected %lld x %d indices with GIVEN",
                    static_cast<long long>(batch.queries.rows), options.rounds);
    NEGCOS_TRY(check_aligned("batch.negatives", batch.negatives, sizeof(int32_t)));
    for (int64_t k = 0; k < count; ++k) {
        const int32_t j = batch.negatives[k];
        if (j < -1 || j >= batch.documents.rows)
            return fail(NEGCOS_STATUS_VALUE,
                        "batch.negatives[%lld, %lld] is %d, expected -1 (absent) or a row of the %lld documents",
                        static_cast<long long>(k / options.rounds), static_cast<long long>(k % options.rounds), j,
                        static_cast<long long>(batch.documents.rows));
    }
    return NEGCOS_STATUS_OK;
}

int32_t check_scale(const negcos_options& options, const negcos_batch& batch) {
    const double most = most_of(options, batch);
    const double temperature = temperature_of(options), factor = options.scale / temperature;
    if (!(std::fabs(factor) <= most)) {
        if (temperature != options.temperature)
            return fail(NEGCOS_STATUS_VALUE, "options.scale is %g, expected at most %g in size for this dtype",
                        options.scale, most);
        return fail(NEGCOS_STATUS_VALUE,
                    "options.scale / options.temperature is %g / %g, expected a ratio of at most %g for this dtype",
                    options.scale, temperature, most);
    }
    const double terms[] = {factor * options.margin, std::fabs(factor) + std::fabs(options.hardness), options.bias};
    const char* const names[] = {"margin", "hardness", "bias"};
    for (size_t k = 0; k < std::size(terms); ++k)
        if (!(std::fabs(terms[k]) <= most))
            return fail(NEGCOS_STATUS_VALUE, "options.%s makes a logit of %g, expected at most %g for this dtype",
                        names[k], terms[k], most);
    return NEGCOS_STATUS_OK;
}

int32_t check_prefixes(const negcos_options& options, int64_t dim) {
    for (int32_t p = 0; p < options.prefix_count; ++p) {
        const int32_t columns = options.prefix_dims[p], before = p > 0 ? options.prefix_dims[p - 1] : 0;
        if (columns <= before || columns > dim)
            return fail(NEGCOS_STATUS_VALUE,
                        "options.prefix_dims[%d] is %d, expected more than %d and at most %lld columns", p, columns,
                        before, static_cast<long long>(dim));
    }
    return NEGCOS_STATUS_OK;
}

int32_t check_numbers(const char* name, const double* values, int64_t count, double least, double most) {
    for (int64_t k = 0; values && k < count; ++k)
        if (!(values[k] >= least && values[k] <= most))
            return fail(NEGCOS_STATUS_VALUE, "%s[%lld] is %g, expected a number from %g to %g", name,
                        static_cast<long long>(k), values[k], least, most);
    return NEGCOS_STATUS_OK;
}

int32_t check_positives(const negcos_batch& batch) {
    if (batch.queries.rows > std::numeric_limits<int32_t>::max())  // else no more than documents
        return fail(NEGCOS_STATUS_SHAPE, "%lld queries, expected at most 2147483647",
                    static_cast<long long>(batch.queries.rows));
    for (int64_t i = 0; batch.positives && i < batch.queries.rows; ++i)
        if (batch.positives[i] < 0 || batch.positives[i] >= batch.documents.rows)
            return fail(NEGCOS_STATUS_VALUE, "batch.positives[%lld] is %lld, expected a row of the %lld documents",
                        static_cast<long long>(i), static_cast<long long>(batch.positives[i]),
                        static_cast<long long>(batch.documents.rows));
    return NEGCOS_STATUS_OK;
}

int32_t check_hard_negatives(const negcos_options& options, const negcos_batch& batch, const negcos_result& result) {
    const negcos_const_matrix &hard = batch.hard_negatives, &queries = batch.queries;
    if (!hard.data) {
        if (result.grad_hard_negatives.data)
            return fail(NEGCOS_STATUS_NULL_ARGUMENT,
                        "batch.hard_negatives is absent, expected rows for result.grad_hard_negatives");
        return NEGCOS_STATUS_OK;
    }
    NEGCOS_TRY(check_matrix("batch.hard_negatives", hard));
    NEGCOS_TRY(check_like_queries("batch.hard_negatives", hard, queries));
    if (queries.rows > 0 ? hard.rows % queries.rows != 0 : hard.rows != 0)
        return fail(NEGCOS_STATUS_SHAPE, "batch.hard_negatives has %lld rows, expected a multiple of the %lld queries",
                    static_cast<long long>(hard.rows), static_cast<long long>(queries.rows));
    int64_t edges;
    if (hard.rows > std::numeric_limits<int32_t>::max() ||
        __builtin_add_overflow(queries.rows * (int64_t{1} + options.rounds), hard.rows, &edges))
        return fail(NEGCOS_STATUS_SHAPE, "batch.hard_negatives has %lld rows, expected at most 2147483647",
                    static_cast<long long>(hard.rows));
    return NEGCOS_STATUS_OK;
}

// Options of the batch that others exclude or need.
int32_t check_combinations(const negcos_options& options, const negcos_batch& batch) {
    if (options.objective == NEGCOS_OBJECTIVE_BATCH_SOFTMAX) {
        if (batch.log_probability) return exclusive("options.objective BATCH_SOFTMAX", "batch.log_probability");
        if (batch.hard_negatives.data) return exclusive("options.objective BATCH_SOFTMAX", "batch.hard_negatives");
    }
    if (options.direction == NEGCOS_DIRECTION_BOTH) {
        if (batch.positives) return exclusive("options.direction BOTH", "batch.positives");
        if (batch.log_probability) return exclusive("options.direction BOTH", "batch.log_probability");
        if (batch.documents.rows != batch.queries.rows)
            return fail(NEGCOS_STATUS_SHAPE,
                        "batch.documents has %lld rows, expected the queries' %lld with direction BOTH",
                        static_cast<long long>(batch.documents.rows), static_cast<long long>(batch.queries.rows));
    }
    if ((options.exclude & NEGCOS_EXCLUDE_SAME_DOCUMENT_ID) && !batch.document_ids && batch.documents.rows > 0)
        return fail(NEGCOS_STATUS_NULL_ARGUMENT,
                    "batch.document_ids is NULL, expected %lld with exclude SAME_DOCUMENT_ID",
                    static_cast<long long>(batch.documents.rows));
    if ((options.exclude & NEGCOS_EXCLUDE_SAME_QUERY_ID) && !batch.query_ids && batch.queries.rows > 0)
        return fail(NEGCOS_STATUS_NULL_ARGUMENT, "batch.query_ids is NULL, expected %lld with exclude SAME_QUERY_ID",
                    static_cast<long long>(batch.queries.rows));
    return NEGCOS_STATUS_OK;
}

template <class Struct>
Region struct_region(const char* name, const Struct* callers, const Struct& copy) {
    return contiguous(name, callers, copy.struct_size, 1);
}

int32_t check_overlaps(const negcos_options& options, const negcos_batch& batch, const negcos_result& result,
                       const Callers& callers) {
    const int64_t edges = batch.queries.rows * options.rounds;
    const bool given = options.sampling == NEGCOS_SAMPLING_GIVEN;
    const bool documents_excluded = options.exclude & NEGCOS_EXCLUDE_SAME_DOCUMENT_ID;
    const bool queries_excluded = options.exclude & NEGCOS_EXCLUDE_SAME_QUERY_ID;
    const Region inputs[] = {
        struct_region("options", callers.options, options),
        struct_region("batch", callers.batch, batch),
        region("batch.queries", batch.queries),
        region("batch.documents", batch.documents),
        region("batch.hard_negatives", batch.hard_negatives),
        contiguous("batch.negatives", given ? batch.negatives : nullptr, edges, sizeof(int32_t)),
        contiguous("batch.positives", batch.positives, batch.queries.rows, sizeof(int64_t)),
        contiguous("batch.document_ids", documents_excluded ? batch.document_ids : nullptr, batch.documents.rows,
                   sizeof(int64_t)),
        contiguous("batch.query_ids", queries_excluded ? batch.query_ids : nullptr, batch.queries.rows,
                   sizeof(int64_t)),
        contiguous("batch.log_probability", batch.log_probability, batch.documents.rows, sizeof(double)),
        contiguous("batch.weights", batch.weights, batch.queries.rows, sizeof(double)),
        contiguous("options.prefix_dims", options.prefix_dims, options.prefix_count, sizeof(int32_t)),
        contiguous("options.prefix_weights", options.prefix_weights, options.prefix_count, sizeof(double)),
    };
    const Region outputs[] = {
        struct_region("result", callers.result, result),
        region("result.losses", result.losses),
        region("result.hit_probability", result.hit_probability),
        region("result.logits", result.logits),
        region("result.grad_queries", result.grad_queries),
        region("result.grad_documents", result.grad_documents),
        region("result.grad_hard_negatives", result.grad_hard_negatives),
        contiguous("result.negatives", result.negatives, edges, sizeof(int32_t)),
    };
    for (const Region& output : outputs) {
        for (const Region& input : inputs)
            if (overlap(output, input)) return fail(NEGCOS_STATUS_OVERLAP, "%s overlaps %s", output.name, input.name);
        for (const Region* other = outputs; other != &output; ++other)
            if (overlap(output, *other)) return fail(NEGCOS_STATUS_OVERLAP, "%s overlaps %s", output.name, other->name);
    }
    return NEGCOS_STATUS_OK;
}

}  // namespace

int32_t check_aligned(const char* name, const void* data, size_t size) {
    if (reinterpret_cast<uintptr_t>(data) % size != 0)
        return fail(NEGCOS_STATUS_VALUE, "%s is not aligned to its elements of %d bytes", name, static_cast<int>(size));
    return NEGCOS_STATUS_OK;
}

int32_t validate_options(const negcos_options& o) {
    NEGCOS_TRY(check_enum("objective", o.objective, NEGCOS_OBJECTIVE_DECOUPLED));
    NEGCOS_TRY(check_enum("similarity", o.similarity, NEGCOS_SIMILARITY_DOT));
    if (o.sampling != NEGCOS_SAMPLING_GROUPS && (o.sampling < 0 || o.sampling > NEGCOS_SAMPLING_ALL))
        return fail(NEGCOS_STATUS_VALUE, "options.sampling is %d, expected 0 to %d or %d", o.sampling,
                    NEGCOS_SAMPLING_ALL, NEGCOS_SAMPLING_GROUPS);
    NEGCOS_TRY(check_enum("reduction", o.reduction, NEGCOS_REDUCTION_SUM));
    NEGCOS_TRY(check_enum("direction", o.direction, NEGCOS_DIRECTION_BOTH));
    NEGCOS_TRY(check_enum("exclude", o.exclude, NEGCOS_EXCLUDE_SAME_DOCUMENT_ID | NEGCOS_EXCLUDE_SAME_QUERY_ID));
    NEGCOS_TRY(check_enum("correction", o.correction, NEGCOS_CORRECTION_NEGATIVES_ONLY));
    if (o.rounds < 0) return fail(NEGCOS_STATUS_VALUE, "options.rounds is %d, expected 0 or more", o.rounds);
    NEGCOS_TRY(check_finite("scale", o.scale));
    NEGCOS_TRY(check_finite("temperature", o.temperature));
    if (o.temperature <= 0)
        return fail(NEGCOS_STATUS_VALUE, "options.temperature is %g, expected more than 0", o.temperature);
    NEGCOS_TRY(check_finite("norm_floor", o.norm_floor));
    if (o.norm_floor < 0)
        return fail(NEGCOS_STATUS_VALUE, "options.norm_floor is %g, expected 0 or more", o.norm_floor);

    NEGCOS_TRY(check_finite("bias", o.bias));
    NEGCOS_TRY(check_finite("margin", o.margin));
    NEGCOS_TRY(check_finite("hardness", o.hardness));
    if (!(o.label_smoothing >= 0 && o.label_smoothing < 1))
        return fail(NEGCOS_STATUS_VALUE, "options.label_smoothing is %g, expected at least 0 and less than 1",
                    o.label_smoothing);
    if (!(o.false_negative_margin > -std::numeric_limits<double>::infinity()))
        return fail(NEGCOS_STATUS_VALUE, "options.false_negative_margin is %g, expected a number or +Inf",
                    o.false_negative_margin);
    if (o.prefix_count < 0 || o.prefix_count > kMostPrefixes)
        return fail(NEGCOS_STATUS_VALUE, "options.prefix_count is %d, expected 0 to %d", o.prefix_count,
                    static_cast<int>(kMostPrefixes));
    if (o.prefix_count > 0 && !o.prefix_dims)
        return fail(NEGCOS_STATUS_NULL_ARGUMENT, "options.prefix_dims is NULL, expected %d column counts",
                    o.prefix_count);
    NEGCOS_TRY(check_aligned("options.prefix_dims", o.prefix_dims, sizeof(int32_t)));
    NEGCOS_TRY(check_aligned("options.prefix_weights", o.prefix_weights, sizeof(double)));
    NEGCOS_TRY(
        check_numbers("options.prefix_weights", o.prefix_weights, o.prefix_count, 0, most_weight_of(NEGCOS_DTYPE_F64)));

    const char* const objective = name_of(Objective{o.objective});
    if (o.objective == NEGCOS_OBJECTIVE_BATCH_SOFTMAX) {
        if (o.direction == NEGCOS_DIRECTION_BOTH) return exclusive(objective, "options.direction BOTH");
        if (o.exclude != 0) return exclusive(objective, "options.exclude");
        if (o.margin != 0) return exclusive(objective, "options.margin");
        if (o.hardness != 0) return exclusive(objective, "options.hardness");
        if (o.false_negative_margin < std::numeric_limits<double>::infinity())
            return exclusive(objective, "options.false_negative_margin");
        if (o.prefix_count != 0) return exclusive(objective, "options.prefix_count");
    }
    if (o.label_smoothing != 0 && o.objective != NEGCOS_OBJECTIVE_SOFTMAX)
        return exclusive(objective, "options.label_smoothing");
    if (o.bias != 0 && o.objective != NEGCOS_OBJECTIVE_SIGMOID) return exclusive(objective, "options.bias");
    if (o.direction == NEGCOS_DIRECTION_BOTH) {
        // Its sum over all pairs is the same from either side.
        if (o.objective == NEGCOS_OBJECTIVE_SIGMOID) return exclusive(objective, "options.direction BOTH");
        if (o.sampling != NEGCOS_SAMPLING_ALL)
            return exclusive("options.direction BOTH", "any options.sampling but ALL");
    }
    return NEGCOS_STATUS_OK;
}

int32_t validate_evaluate(const negcos_options& options, const negcos_batch& batch, const negcos_result& result,
                          const Callers& callers) {
    NEGCOS_TRY(validate_options(options));
    if (batch.reserved != 0) return fail(NEGCOS_STATUS_VALUE, "batch.reserved is %u, expected 0", batch.reserved);
    if (result.reserved != 0) return fail(NEGCOS_STATUS_VALUE, "result.reserved is %u, expected 0", result.reserved);

    const negcos_const_matrix &queries = batch.queries, &documents = batch.documents;
    NEGCOS_TRY(check_input("batch.queries", queries));
    NEGCOS_TRY(check_input("batch.documents", documents));
    NEGCOS_TRY(check_like_queries("batch.documents", documents, queries));
    if (documents.rows < queries.rows && !batch.positives)
        return fail(NEGCOS_STATUS_SHAPE, "batch.documents has %lld rows, expected at least the queries' %lld",
                    static_cast<long long>(documents.rows), static_cast<long long>(queries.rows));
    NEGCOS_TRY(check_combinations(options, batch));
    NEGCOS_TRY(check_scale(options, batch));
    NEGCOS_TRY(check_prefixes(options, queries.cols));
    NEGCOS_TRY(check_aligned("batch.positives", batch.positives, sizeof(int64_t)));
    NEGCOS_TRY(check_aligned("batch.document_ids", batch.document_ids, sizeof(int64_t)));
    NEGCOS_TRY(check_aligned("batch.query_ids", batch.query_ids, sizeof(int64_t)));
    NEGCOS_TRY(check_aligned("batch.log_probability", batch.log_probability, sizeof(double)));
    NEGCOS_TRY(check_aligned("batch.weights", batch.weights, sizeof(double)));
    NEGCOS_TRY(check_positives(batch));
    const double most_weight = most_weight_of(queries.dtype), most = most_of(options, batch);
    NEGCOS_TRY(check_numbers("options.prefix_weights", options.prefix_weights, options.prefix_count, 0, most_weight));
    NEGCOS_TRY(check_numbers("batch.weights", batch.weights, queries.rows, 0, most_weight));
    NEGCOS_TRY(check_numbers("batch.log_probability", batch.log_probability, documents.rows, -most, most));
    NEGCOS_TRY(check_sampling(options, queries.rows, documents.rows));
    NEGCOS_TRY(check_hard_negatives(options, batch, result));

    if (options.sampling == NEGCOS_SAMPLING_ALL) {
        if (result.logits.data)
            return fail(NEGCOS_STATUS_VALUE, "result.logits cannot be had with sampling ALL: it would be B x M");
        if (result.negatives)
            return fail(NEGCOS_STATUS_VALUE, "result.negatives cannot be had with sampling ALL: it would be B x M");
    } else if (needs_negatives(options, result)) {
        NEGCOS_TRY(check_draws(options, queries.rows, documents.rows));
        if (options.sampling == NEGCOS_SAMPLING_GIVEN) NEGCOS_TRY(check_given(options, batch));
    }

    const int64_t rows = queries.rows;
    NEGCOS_TRY(check_output("result.losses", result.losses, rows, 1, queries.dtype));
    NEGCOS_TRY(check_output("result.hit_probability", result.hit_probability, rows, 1, queries.dtype));
    const int64_t hard = batch.hard_negatives.data && rows > 0 ? batch.hard_negatives.rows / rows : 0;
    NEGCOS_TRY(check_output("result.logits", result.logits, rows, int64_t{1} + options.rounds + hard, queries.dtype));
    NEGCOS_TRY(check_output("result.grad_queries", result.grad_queries, rows, queries.cols, queries.dtype));
    NEGCOS_TRY(
        check_output("result.grad_documents", result.grad_documents, documents.rows, queries.cols, queries.dtype));
    NEGCOS_TRY(check_output("result.grad_hard_negatives", result.grad_hard_negatives, batch.hard_negatives.rows,
                            queries.cols, queries.dtype));
    NEGCOS_TRY(check_aligned("result.negatives", result.negatives, sizeof(int32_t)));
    return check_overlaps(options, batch, result, callers);
}

int32_t validate_sample(const negcos_options& options, int64_t batch, int64_t documents, const int32_t* negatives,
                        const negcos_options* callers) {
    NEGCOS_TRY(validate_options(options));
    if (batch < 0) return fail(NEGCOS_STATUS_SHAPE, "batch is %lld, expected 0 or more", static_cast<long long>(batch));
    if (documents < batch)
        return fail(NEGCOS_STATUS_SHAPE, "documents is %lld, expected at least the batch's %lld",
                    static_cast<long long>(documents), static_cast<long long>(batch));
    if (options.sampling == NEGCOS_SAMPLING_GIVEN || options.sampling == NEGCOS_SAMPLING_ALL)
        return fail(NEGCOS_STATUS_VALUE, "options.sampling %s draws no negatives",
                    options.sampling == NEGCOS_SAMPLING_ALL ? "ALL" : "GIVEN");
    NEGCOS_TRY(check_sampling(options, batch, documents));
    NEGCOS_TRY(check_draws(options, batch, documents));
    if (!negatives && batch > 0 && options.rounds > 0)
        return fail(NEGCOS_STATUS_NULL_ARGUMENT, "negatives is NULL, expected room for %lld x %d",
                    static_cast<long long>(batch), options.rounds);
    NEGCOS_TRY(check_aligned("negatives", negatives, sizeof(int32_t)));
    if (overlap(contiguous("negatives", negatives, batch * options.rounds, sizeof(int32_t)),
                struct_region("options", callers, options)))
        return fail(NEGCOS_STATUS_OVERLAP, "negatives overlaps options");
    return NEGCOS_STATUS_OK;
}

}  // namespace negcos
