// SPDX-License-Identifier: Apache-2.0
//
// Plain descriptions of work: what the walks hand to the kernels of whatever instruction set.
#ifndef NEGCOS_WORK_HPP
#define NEGCOS_WORK_HPP

#include "element.hpp"

namespace negcos {

// Rows from `begin` up to `end`.
struct Range {
    int64_t begin = 0, end = 0;
    NEGCOS_INLINE int64_t count() const { return end - begin; }
};

// Rows of a matrix and what is known of each: x stands for data row times `rescale`, a power of two that is 1 unless
// the squared norm would overflow or vanish; `inverse` = 1 / max(|x|, floor), 0 for a zero row; `above_floor` = 1 where
// the norm is above the floor, so that the gradient has a projection term. For dot products inverse 1, above_floor 0.
template <class E>
struct Rows {
    using T = Working<E>;
    const E* data = nullptr;
    int64_t stride = 0;
    int64_t count = 0;
    T* inverse = nullptr;
    T* above_floor = nullptr;
    T* rescale = nullptr;
    bool rescaled = false;  // any rescale is not 1
    // With nested prefixes: the norm of the prefix before over this one's, and 1 where this prefix is not all zero.
    T* norm_ratio = nullptr;
    T* nonzero = nullptr;
};

struct NormCounts {
    int64_t zero = 0, rescaled = 0, nonfinite = 0;  // nonfinite: NaN or Inf in the row
};

// The positive of each query, and the negatives: row `negatives[i * row_stride + r * round_stride]` of the documents
// for query i in round r, -1 = absent.
struct Candidates {
    const int32_t* negatives = nullptr;
    int64_t row_stride = 0, round_stride = 0;
    int64_t rounds = 0;
    bool complete = true;                // none is absent
    const int64_t* positives = nullptr;  // nullptr = row i
    NEGCOS_INLINE int64_t positive(int64_t query) const { return positives ? positives[query] : query; }
    NEGCOS_INLINE int64_t slots() const { return 1 + rounds; }  // edges per query, the positive first
};

// The candidates of GROUPS: queries dealt to places, which are cut into windows of `size`; the last one reaches back
// where the batch does not divide. A query's negatives are the positives of the others in its window, in the order of
// places.
struct Deal {
    const int32_t* query = nullptr;  // at each place
    int64_t batch = 0, size = 1;     // size <= batch
    NEGCOS_INLINE int64_t window(int64_t place) const {
        const int64_t begin = place - place % size;
        return begin < batch - size ? begin : batch - size;
    }
    // Of the query at `place` in one round: the query whose positive it is.
    NEGCOS_INLINE int32_t negative(int64_t place, int64_t round) const {
        const int64_t other = window(place) + round;
        return query[other < place ? other : other + 1];
    }
};

// An edge as the gradient of the row that it reaches needs it: the row that it comes from, and its slope over that
// row's norm.
template <class T>
struct Arc {
    int32_t source;
    T coefficient;
};

// The places of arcs: those of a document lie side by side, in a fixed order, so that the forward pass writes them in
// place and the documents' pass reads them one after another.
struct ArcLists {
    int64_t slots = 1, direct = 0;
    const int64_t* start = nullptr;   // count + 1; nullptr = document j < direct has `slots` of them, the others none
    const int64_t* places = nullptr;  // of each query's slots; nullptr = document * slots + slot
    NEGCOS_INLINE int64_t begin(int64_t document) const {
        return start ? start[document] : (document < direct ? document : direct) * slots;
    }
    NEGCOS_INLINE int64_t place(int64_t query, int64_t slot, int64_t document) const {
        return places ? places[query * slots + slot] : document * slots + slot;
    }
};

// Arcs behind the last that may be read too.
inline constexpr int64_t kArcsAhead = 16;

inline constexpr int64_t kMostPrefixes = 32;

// Columns of all rows with the norms of everything up to their end. Without nested prefixes there is one prefix, all
// columns; each prefix adds one to those before. A similarity of prefix p is then that of prefix p - 1 times both rows'
// ratios plus a dot product over the columns of prefix p; and the slope of a pair in the gradient of prefix p's
// columns is its slope in loss p plus that in the columns of prefix p + 1 times both rows' ratios.
template <class E>
struct Prefix {
    Rows<E> queries, documents, hard;
    int64_t dim = 0;
    double weight = 1;           // of this prefix's loss
    bool has_zero_rows = false;  // some row is all zero up to here
};

// Documents that are no negatives of a query: those of its group, rising.
struct Exclusion {
    const int32_t* group = nullptr;  // of each query; nullptr = nothing is excluded
    const int64_t* start = nullptr;  // of each group, and the end
    const int32_t* document = nullptr;
    const int32_t* group_of_document = nullptr;  // -1 = none; nullptr where a document is in several groups
};

// As negcos.h numbers them.
enum class Objective : int32_t { softmax, batch_softmax, sigmoid, decoupled };

// How the general loss turns similarities into logits and those into a loss; docs/losses.md has the formulas.
template <class T>
struct LossTerms {
    Objective objective = Objective::softmax;
    double factor = 1;  // scale / temperature
    double hardness = 0, margin = 0, smoothing = 0, bias = 0;
    double false_negative_margin = 0;  // +Inf = off
    bool bounded = false;              // similarities are cosines
    bool weights_at_most_one = false;  // no loss has a weight above 1 in the total
    const T* correction = nullptr;     // M, padded: added to the logits of documents; nullptr = none
    bool correct_positive = false;
    Exclusion same_document, same_query;
    const double* weights = nullptr;  // B; nullptr = 1 each
    double total_weight = 1;          // what the sum of the losses is divided by
    double row_weight = 1;            // 1 / total_weight
    int64_t hard = 0;                 // hard negatives a query
};

// A sum in double with the part that each addition rounds away kept beside.
struct Sum {
    double high = 0, low = 0;
    NEGCOS_INLINE void add(double x) {
        const double s = high + x, part = s - high;
        low += (high - (s - part)) + (x - part);
        high = s;
    }
    NEGCOS_INLINE void add(const Sum& other) {
        add(other.high);
        low += other.low;
    }
    // A sum that overflowed or met NaN has nothing to correct.
    NEGCOS_INLINE double value() const { return high - high == 0 ? high + low : high; }
};

// Sums over a part of the negatives of one row; of exp, relative to the top of that part. The plain softmax fills
// `sum`, `moment` and `rank` alone.
struct Sums {
    double sum = 0;      // of exp(z - top), or of softplus(z + bias)
    double sigma = 0;    // of sigma(z + bias)
    double moment = 0;   // of exp(z - top), or sigma, times (similarity - a reference: the positive's, or the top)
    double spread = 0;   // of the positive's logit minus the negative's
    double reach = 0;    // of (similarity - the positive's)
    double kept = 0;     // negatives left
    double rank = 0;     // those whose logit is not below the positive's: NaN on either side counts
    double dropped = 0;  // negatives that an exclusion or false_negative_margin took away

    // What exp is relative to has changed.
    NEGCOS_INLINE void rescale(double scale) {
        sum *= scale;
        moment *= scale;
    }
    NEGCOS_INLINE void add(const Sums& part, double scale) {
        sum += scale * part.sum;
        moment += scale * part.moment;
        sigma += part.sigma;
        spread += part.spread;
        reach += part.reach;
        kept += part.kept;
        rank += part.rank;
        dropped += part.dropped;
    }
};

// What a range of queries adds to the numbers of the result.
struct Totals {
    Sum loss, grad_scale, grad_bias, reciprocal_rank;
    int64_t rank_zero = 0, excluded = 0;
    NEGCOS_INLINE void add(const Totals& other) {
        loss.add(other.loss);
        grad_scale.add(other.grad_scale);
        grad_bias.add(other.grad_bias);
        reciprocal_rank.add(other.reciprocal_rank);
        rank_zero += other.rank_zero;
        excluded += other.excluded;
    }
};

// A caller's output matrix; data == nullptr when not asked for.
template <class E>
struct Output {
    E* data = nullptr;
    int64_t stride = 0;
};

// Every matrix that a call can be asked for.
template <class E>
struct Outputs {
    Output<E> losses, hit_probability, logits, grad_queries, grad_documents, grad_hard_negatives;
};

// What the gradients need of an edge: for each prefix its slope in the gradient of that prefix's columns, then, if
// there are several, its slope in each prefix's loss times its similarity there.
NEGCOS_INLINE constexpr int64_t edge_record(int64_t prefix_count) {
    return prefix_count == 1 ? 1 : 2 * prefix_count;
}

// The gather: by query the similarities, losses and slopes of its edges and its gradient, then the documents' gradient.
template <class E>
struct Gather {
    using T = Working<E>;
    const Prefix<E>* prefixes = nullptr;
    int64_t prefix_count = 1, dim = 0;
    Candidates candidates;
    LossTerms<T> terms;
    bool general = false;  // the general loss, not the plain softmax
    ArcLists lists;
    Arc<T>* arcs = nullptr;    // a record of each edge, in the coefficients of as many arcs; nullptr = not needed
    T* hard_slopes = nullptr;  // B x hard records; nullptr = not needed
    T* positives = nullptr;    // not nullptr: B similarities of queries and their positives, and no losses
    Outputs<E> outputs;
    NEGCOS_INLINE int64_t batch() const { return prefixes[0].queries.count; }
};

// The softmax of the positives over the batch, serial: from `similarity` (B) the losses and, in `slopes` (B),
// d loss / d z.
template <class E>
struct BatchSoftmax {
    using T = Working<E>;
    int64_t batch = 0;
    const T* similarity = nullptr;  // B: of each query and its positive
    LossTerms<T> terms;
    T* slopes = nullptr;
    T* scratch = nullptr;  // B, padded
    Outputs<E> outputs;
};

// The plain softmax of GROUPS, window by window.
template <class E>
struct Groups {
    using T = Working<E>;
    Rows<E> queries, documents;
    int64_t dim = 0;
    Deal deal;
    LossTerms<T> terms;
    // Of the documents that the last window has in common with the one before it, the gradient of that one: in blocks
    // of columns as they are packed, and along each document's own row.
    T *common = nullptr, *common_moments = nullptr;
    Outputs<E> outputs;
};

// The gradient of hard negatives from the one edge that each has, in either walk.
template <class E>
struct HardNegatives {
    using T = Working<E>;
    const Prefix<E>* prefixes = nullptr;
    int64_t prefix_count = 1, dim = 0, hard = 0;
    double factor = 1;
    const T* slopes = nullptr;  // B x hard records
    Output<E> gradient;
};

// Strips of queries that are one task.
inline constexpr int64_t kStripsPerTask = 4;

// One prefix's rows in tiles, packed as kernel/product.hpp has it: a strip is kVirtualLanes queries. Arrays of B are of
// whole strips.
template <class E>
struct TilePrefix {
    using T = Working<E>;
    int64_t width = 0;             // columns padded to lanes
    T* query_units = nullptr;      // B x width: rows over their norms
    T* query_strips = nullptr;     // the same as strips
    T* document_panels = nullptr;  // M x columns: chunk, kChainColumns columns, panel of documents, column, document
    T* column_panels = nullptr;    // M x columns: chunk, panel of columns, document, column
    T* positives = nullptr;        // B: similarity of each query and its positive
    // Slopes of negatives, relative to the query's top or last shift: exp times share, less smooth (see EdgeShare).
    T *query_share = nullptr, *query_top = nullptr, *query_smooth = nullptr;  // B
    T* positive_slope = nullptr;                                              // B
    T* document_sums = nullptr;  // M x width: chunk, columns of a vector, document, column: the gradient so far
    // Of the blocks of a wave:
    T* scores = nullptr;        // chunk, strip, document, query: similarities, then exps or slopes
    T* shared_units = nullptr;  // columns of a vector, query, column: units, of the plain softmax times shares
    T* query_sums = nullptr;    // strip, column, query: the queries' gradient so far

    // Of the general loss alone. nonfinite: 1 where a query has NaN or Inf up to here; such rows are 0 in units.
    T* nonfinite = nullptr;  // B
    // For both directions each document's softmax.
    T *document_top = nullptr, *document_share = nullptr, *document_smooth = nullptr;  // M
    Sums* document_row = nullptr;                                                      // M, relative to document_top
    double* document_moment = nullptr;  // M: of several prefixes, sums of slopes times similarities
    T* column_parts = nullptr;          // task of the wave, kColumnFields, M: what it adds to the documents' sums
};

// Sums over columns that a task leaves to the documents' chunks: top, sum, moment, spread, reach, kept, dropped; or of
// several prefixes, in the pass over slopes, the moment alone.
inline constexpr int64_t kColumnFields = 7;

// What rows or columns add to the totals.
struct RowEnd {
    double loss = 0, grad_scale = 0, grad_bias = 0;
    int64_t rank = 0, excluded = 0;
};

// Tiles: every query against every document, a block of queries at a time against chunks of documents; as many blocks
// together as there are threads, a wave. All documents are candidates once each, or, with `counts`, as often as they
// were sampled. Blocks are whole strips.
template <class E>
struct Tiles {
    using T = Working<E>;
    const Prefix<E>* prefixes = nullptr;
    const TilePrefix<E>* tiles = nullptr;
    int64_t prefix_count = 1, dim = 0;
    int64_t block = 0, chunk = 0, chunks = 0;
    int64_t strip_stride = 0;  // from the scores of one strip to those of the next
    Candidates candidates;     // `positives`, and what is counted
    LossTerms<T> terms;
    bool general = false;  // the general loss, not the plain softmax
    bool both = false;
    T* counts = nullptr;       // as scores: how often the document is a negative; nullptr = once each
    T* shifts = nullptr;       // plain, of the blocks of a wave: chunk, query: what exps are relative to
    Totals* totals = nullptr;  // plain: of each strip
    T *hard_similarities = nullptr, *hard_slopes = nullptr;  // prefix, strip, hard negative, query; B x hard records
    RowEnd *queries = nullptr, *documents = nullptr;         // general: B; M for both directions
    Outputs<E> outputs;

    NEGCOS_INLINE int64_t batch() const { return prefixes[0].queries.count; }
    NEGCOS_INLINE int64_t padded_batch() const { return pad_lanes<T>(batch()); }
    NEGCOS_INLINE int64_t document_count() const { return prefixes[0].documents.count; }
    NEGCOS_INLINE int64_t strips() const { return block / kVirtualLanes<T>; }                         // in a block
    NEGCOS_INLINE int64_t tasks() const { return (strips() + kStripsPerTask - 1) / kStripsPerTask; }  // in a block
    NEGCOS_INLINE int64_t documents_in(int64_t of_chunk) const {
        const int64_t left = document_count() - of_chunk * chunk;
        return left < chunk ? left : chunk;
    }
    // Of an array like scores: a strip's part in a chunk, of the block in a place of the wave.
    NEGCOS_INLINE T* strip_of(T* array, int64_t place, int64_t of_chunk, int64_t strip) const {
        return array + ((place * chunks + of_chunk) * strips() + strip) * strip_stride;
    }
};

// What a task does of the general loss: both, but for both directions, which need all sums ahead of the slopes.
struct TilePass {
    bool sums = true, slopes = true;
};

}  // namespace negcos

#endif
