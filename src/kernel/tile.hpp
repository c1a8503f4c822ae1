// SPDX-License-Identifier: Apache-2.0
//
// The inner loops of tiles: what both objectives have in common, and the plain softmax. The lanes of scores are
// queries: each query's sums are a lane's, and what a strip of queries needs of a chunk of documents stays in the
// first-level cache.
#ifndef NEGCOS_KERNEL_TILE_HPP
#define NEGCOS_KERNEL_TILE_HPP

#include "kernel/gradients.hpp"
#include "kernel/plain_softmax.hpp"
#include "kernel/product.hpp"
#include "work.hpp"

namespace {

using negcos::Prefix;
using negcos::TilePass;
using negcos::TilePrefix;
using negcos::Tiles;

// Documents whose similarities are turned into exps together, while they are still in the first-level cache: whole
// panels of any tile.
constexpr int64_t kPartDocuments = 48;
static_assert(kPartDocuments % kTileRows == 0);

// Panels of documents end where parts end.
inline int64_t document_panel_rows(int64_t row, int64_t rows) {
    const int64_t part = kPartDocuments - row % kPartDocuments;
    return panel_rows(rows - row < part ? rows - row : part);
}

inline int64_t chain_columns(int64_t column, int64_t dim) {
    return dim - column < kChainColumns ? dim - column : kChainColumns;
}

// ---- Packing --------------------------------------------------------------------------------------------------------

// nonfinite: set where a row is cleared; nullptr = not asked for.
template <class T>
void zero_nonfinite_rows(T* units, int64_t stride, int64_t width, T* nonfinite, int64_t rows) {
    for (int64_t i = 0; i < rows; ++i) {
        T* row = units + i * stride;
        Lanes<T> zeros = broadcast(T(0));
        for (int64_t c = 0; c < width; c += kLanes<T>) {
            const Lanes<T> x = load(static_cast<const T*>(row) + c);
            zeros = zeros + (x - x);
        }
        if (sum(zeros) == 0) continue;
        memset(row, 0, sizeof(T) * static_cast<size_t>(width));
        if (nonfinite) nonfinite[i] = 1;
    }
}

// n rows over their norms, row_of(lane) each, and zeros up to kLanes.
template <class E, class RowOf>
void load_units(const negcos::Rows<E>& rows, int64_t n, RowOf&& row_of, int64_t dim, int64_t width, Working<E>* units) {
    using T = Working<E>;
    for (int64_t l = 0; l < n; ++l) load_unit(rows, row_of(l), dim, units + l * width);
    memset(units + n * width, 0, sizeof(T) * static_cast<size_t>((kLanes<T> - n) * width));
}

// Similarities of a strip of queries and a strip of rows, lane by lane, by the same chains as in the tiles.
// before: what they add to; nullptr = nothing.
template <class T>
void strip_similarities(const T* queries, const T* rows, int64_t dim, const T* before, T* similarities) {
    Lanes<T> similarity = before ? load(before) : broadcast(T(0));
    for (int64_t c = 0; c < dim; c += kChainColumns) {
        Lanes<T> chain = broadcast(T(0));
        for (int64_t k = c * kLanes<T>; k < (c + chain_columns(c, dim)) * kLanes<T>; k += kLanes<T>)
            chain = multiply_add(load(rows + k), load(queries + k), chain);
        similarity = c == 0 && !before ? chain : similarity + chain;
    }
    store(similarities, similarity);
}

// Strips of queries; and their similarities with their positives and hard negatives ahead of everything else.
// scratch: 2 x kLanes x the widest prefix.
template <class E>
void tile_pack_queries(const Tiles<E>& t, Range strips, Working<E>* scratch) noexcept {
    using T = Working<E>;
    const int64_t hard = t.terms.hard;
    for (int64_t strip = strips.begin; strip < strips.end; ++strip) {
        const int64_t first = strip * kLanes<T>, left = t.batch() - first, n = left < kLanes<T> ? left : kLanes<T>;
        for (int64_t p = 0; p < t.prefix_count; ++p) {
            const Prefix<E>& prefix = t.prefixes[p];
            const TilePrefix<E>& tile = t.tiles[p];
            T *const units = tile.query_units + first * tile.width, *const queries =
                                                                        tile.query_strips + first * tile.width;
            T *const rows = scratch, *const packed = scratch + kLanes<T> * tile.width;
            load_units(
                prefix.queries, n, [&](int64_t l) { return first + l; }, prefix.dim, tile.width, units);
            T* const nonfinite = t.general ? tile.nonfinite + first : nullptr;
            if (nonfinite) {
                for (int64_t l = 0; l < kLanes<T>; ++l)
                    nonfinite[l] = p > 0 ? t.tiles[p - 1].nonfinite[first + l] : T(0);
                zero_nonfinite_rows(units, tile.width, tile.width, nonfinite, n);
            }
            pack_strip(static_cast<const T*>(units), tile.width, tile.width, queries);

            // before: these similarities over one prefix less.
            const auto find = [&](const negcos::Rows<E>& others, auto&& row_of, const T* before, T* similarities) {
                load_units(others, n, row_of, prefix.dim, tile.width, rows);
                pack_strip(static_cast<const T*>(rows), tile.width, tile.width, packed);
                alignas(64) T start[kLanes<T>] = {};
                for (int64_t l = 0; l < n && p > 0; ++l)
                    start[l] = before[l] * (prefix.queries.norm_ratio[first + l] * others.norm_ratio[row_of(l)]);
                strip_similarities(static_cast<const T*>(queries), static_cast<const T*>(packed), prefix.dim,
                                   p > 0 ? static_cast<const T*>(start) : nullptr, similarities);
                for (int64_t l = 0; l < n && nonfinite; ++l)
                    if (nonfinite[l] != 0) similarities[l] = kNan<T>;
            };
            find(
                prefix.documents, [&](int64_t l) { return t.candidates.positive(first + l); },
                p > 0 ? t.tiles[p - 1].positives + first : nullptr, tile.positives + first);
            for (int64_t h = 0; h < hard; ++h) {
                T* const similarities = t.hard_similarities + (p * t.padded_batch() + first) * hard + h * kLanes<T>;
                find(
                    prefix.hard, [&](int64_t l) { return (first + l) * hard + h; },
                    p > 0 ? similarities - t.padded_batch() * hard : nullptr, similarities);
            }
        }
    }
}

// A chunk of documents as panels of documents for the scores, and of columns for the queries' gradient.
// scratch: kTileRows x the widest prefix.
template <class E>
void tile_pack_documents(const Tiles<E>& t, int64_t chunk, Working<E>* scratch) noexcept {
    using T = Working<E>;
    const int64_t n = t.documents_in(chunk), begin = chunk * t.chunk;
    const T* const units = scratch;
    for (int64_t p = 0; p < t.prefix_count; ++p) {
        const TilePrefix<E>& tile = t.tiles[p];
        const negcos::Rows<E>& documents = t.prefixes[p].documents;
        const int64_t dim = t.prefixes[p].dim;
        for (int64_t r = 0, height; r < n; r += height) {
            height = document_panel_rows(r, n);
            for (int64_t m = 0; m < height; ++m) load_unit(documents, begin + r + m, dim, scratch + m * tile.width);
            for (int64_t c = 0; c < dim; c += kChainColumns) {
                const int64_t columns = chain_columns(c, dim);
                pack_columns(units + c, tile.width, height, columns,
                             tile.document_panels + begin * dim + c * n + r * columns);
            }
            if (!tile.column_panels) continue;
            // So that their products with the slopes of what is dropped, 0, are 0 too.
            if (t.general) zero_nonfinite_rows(scratch, tile.width, tile.width, static_cast<T*>(nullptr), height);
            for (int64_t c = 0, columns; c < dim; c += columns) {
                columns = panel_rows(dim - c);
                T* to = tile.column_panels + begin * dim + c * n + r * columns;
                for (int64_t m = 0; m < height; ++m)
                    for (int64_t k = 0; k < columns; ++k) to[m * columns + k] = units[m * tile.width + c + k];
            }
        }
    }
}

// How often each document is a negative of the queries of a block's strips.
template <class E>
void count_negatives(const Tiles<E>& t, int64_t place, int64_t first, Range strips) {
    using T = Working<E>;
    const uint32_t chunk = static_cast<uint32_t>(t.chunk);
    for (int64_t strip = strips.begin; strip < strips.end; ++strip) {
        for (int64_t c = 0; c < t.chunks; ++c)
            memset(t.strip_of(t.counts, place, c, strip), 0, sizeof(T) * static_cast<size_t>(t.strip_stride));
        for (int64_t l = 0; l < kLanes<T>; ++l) {
            const int64_t i = first + strip * kLanes<T> + l;
            if (i >= t.batch()) break;
            const int32_t* negatives = t.candidates.negatives + i * t.candidates.row_stride;
            for (int64_t k = 0; k < t.candidates.rounds; ++k) {
                const int32_t j = negatives[k * t.candidates.round_stride];
                if (j < 0) continue;
                const uint32_t document = static_cast<uint32_t>(j);
                t.strip_of(t.counts, place, document / chunk, strip)[document % chunk * kLanes<T> + l] += 1;
            }
        }
    }
}

// ---- Queries --------------------------------------------------------------------------------------------------------

// Some strips of one block of queries against all chunks: the products.
template <class E>
class TileTask {
protected:
    using T = Working<E>;

    TileTask(const Tiles<E>& t, int64_t place, int64_t first, Range strips)
        : t_(t), place_(place), first_(first), strips_(strips) {}

    T* scores_of(int64_t p, int64_t chunk, int64_t strip) const {
        return t_.strip_of(t_.tiles[p].scores, place_, chunk, strip);
    }
    const T* counts_of(int64_t chunk, int64_t strip) const {
        return t_.counts ? t_.strip_of(t_.counts, place_, chunk, strip) : nullptr;
    }
    int64_t query_of(int64_t strip) const { return first_ + strip * kLanes<T>; }
    int64_t in_wave(int64_t strip) const { return place_ * t_.block + strip * kLanes<T>; }
    int64_t rows_of(int64_t strip) const {
        const int64_t left = t_.batch() - query_of(strip);
        return left < kLanes<T> ? left : kLanes<T>;
    }

    // body(lane, row of the chunk) where a query's positive is in rows [part.begin, part.end) of the chunk.
    template <class Body>
    void for_each_positive(int64_t chunk, int64_t strip, Range part, Body&& body) const {
        for (int64_t l = 0; l < rows_of(strip); ++l) {
            const int64_t row = t_.candidates.positive(query_of(strip) + l) - chunk * t_.chunk;
            if (row >= part.begin && row < part.end) body(l, row);
        }
    }

    // Columns [c, c + kChainColumns) of the similarities with a part of the chunk's documents; of the first columns on
    // top of what is there if `add`.
    template <int kStrips>
    void multiply_scores(Constant<kStrips>, int64_t p, int64_t chunk, int64_t strip, int64_t c, Range part, bool add) {
        const int64_t dim = t_.prefixes[p].dim, steps = chain_columns(c, dim);
        const TilePrefix<E>& tile = t_.tiles[p];
        const Product<T> product{tile.query_strips + query_of(strip) * tile.width + c * kLanes<T>,
                                 tile.width * kLanes<T>, steps, t_.strip_stride, add || c > 0};
        const T* const panels = tile.document_panels + chunk * t_.chunk * dim + c * t_.documents_in(chunk);
        T* const out = scores_of(p, chunk, strip);
        for (int64_t r = part.begin, height; r < part.end; r += height) {
            height = document_panel_rows(r, part.end);
            multiply_panel_of<kTileRows, kStrips>(height, product, panels + r * steps, out + r * kLanes<T>);
        }
    }

    // What the chunk adds to columns of the gradient: panels that begin in [c, c + kChainColumns). scale: of what was
    // added before, for each strip and lane; nullptr = 1.
    template <int kStrips>
    void multiply_gradient(Constant<kStrips>, int64_t p, int64_t chunk, int64_t strip, int64_t c, const T* scale) {
        const int64_t dim = t_.prefixes[p].dim, n = t_.documents_in(chunk);
        const TilePrefix<E>& tile = t_.tiles[p];
        Product<T> product{scores_of(p, chunk, strip), t_.strip_stride, n, tile.width * kLanes<T>, chunk > 0, scale};
        const T* const panels = tile.column_panels + chunk * t_.chunk * dim;
        T* const out = tile.query_sums + in_wave(strip) * tile.width;
        const int64_t to = c + chain_columns(c, dim);
        int64_t column = 0;
        while (column < c) column += panel_rows(dim - column);
        for (int64_t height; column < to; column += height) {
            height = panel_rows(dim - column);
            multiply_panel_of<kTileRows, kStrips>(height, product, panels + column * n, out + column * kLanes<T>);
        }
    }

    // share_of(lane): what the lane's unit is multiplied by for the documents' side.
    template <class ShareOf>
    void share_units(int64_t p, int64_t strip, ShareOf&& share_of) {
        const TilePrefix<E>& tile = t_.tiles[p];
        T* const to = tile.shared_units + place_ * t_.block * tile.width + strip * kLanes<T> * kLanes<T>;
        for (int64_t l = 0; l < kLanes<T>; ++l) {
            const Lanes<T> share = broadcast(share_of(l));
            const T* unit = tile.query_units + (query_of(strip) + l) * tile.width;
            for (int64_t c = 0; c < tile.width; c += kLanes<T>)
                store(to + c * t_.block + l * kLanes<T>, load(unit + c) * share);
        }
    }

    const Tiles<E>& t_;
    int64_t place_, first_;
    Range strips_;
};

// The logits of one query's candidates that lie in a chunk, each in its slot. logit(similarity, document).
template <class E, class Logit>
void tile_logits(const Tiles<E>& t, int64_t query, int64_t chunk, const Working<E>* scores, Logit&& logit) {
    using T = Working<E>;
    const int64_t begin = chunk * t.chunk, n = t.documents_in(chunk);
    E* const out = t.outputs.logits.data + query * t.outputs.logits.stride + 1;
    const int32_t* negatives = t.candidates.negatives + query * t.candidates.row_stride;
    for (int64_t k = 0; k < t.candidates.rounds; ++k) {
        const int64_t j = negatives[k * t.candidates.round_stride], at = j - begin;
        if (j < 0 && begin == 0)
            out[k] = to_element<E>(kAbsent<T>);
        else if (j >= 0 && at >= 0 && at < n)
            out[k] = to_element<E>(logit(scores[at * kLanes<T>], j));
    }
}

// The plain softmax of the strips of a task.
template <class E>
class PlainTileTask : TileTask<E> {
    using Task = TileTask<E>;
    using Task::counts_of, Task::in_wave, Task::place_, Task::query_of, Task::rows_of, Task::scores_of, Task::strips_,
        Task::t_;
    using typename Task::T;

public:
    PlainTileTask(const Tiles<E>& t, int64_t place, int64_t first, Range strips)
        : Task(t, place, first, strips), softmax_(t.terms), dim_(t.prefixes[0].dim), tile_(t.tiles[0]) {
        for (int64_t s = strips.begin; s < strips.end; ++s)
            sums_of(s).start(softmax_, tile_.positives + query_of(s), rows_of(s));
    }

    void chunk(int64_t chunk) {
        const int64_t n = t_.documents_in(chunk);
        for (int64_t s = strips_.begin; s < strips_.end; ++s) sums_of(s).begin_chunk();
        if (dim_ <= kChainColumns) {
            for_each_strips(strips_.begin, strips_.end, [&](int64_t s, auto together) {
                const Range strips{s, s + decltype(together)::value};
                if (t_.outputs.logits.data) {
                    this->multiply_scores(together, 0, chunk, s, 0, {0, n}, false);
                    logits(chunk, strips);
                }
                for (int64_t r = 0; r < n; r += kPartDocuments) {
                    const Range part{r, n - r < kPartDocuments ? n : r + kPartDocuments};
                    if (!t_.outputs.logits.data) this->multiply_scores(together, 0, chunk, s, 0, part, false);
                    exps(chunk, strips, part);
                }
                end_chunk(chunk, strips);
                if (t_.outputs.grad_queries.data) gradient(together, chunk, s, 0);
            });
            return;
        }
        // Panels of one chain's columns serve all strips before the next.
        for (int64_t c = 0; c < dim_; c += kChainColumns)
            for_each_strips(strips_.begin, strips_.end, [&](int64_t s, auto together) {
                this->multiply_scores(together, 0, chunk, s, c, {0, n}, false);
            });
        logits(chunk, strips_);
        for (int64_t s = strips_.begin; s < strips_.end; ++s)
            for (int64_t r = 0; r < n; r += kPartDocuments)
                exps(chunk, {s, s + 1}, {r, n - r < kPartDocuments ? n : r + kPartDocuments});
        end_chunk(chunk, strips_);
        for (int64_t c = 0; t_.outputs.grad_queries.data && c < dim_; c += kChainColumns)
            for_each_strips(strips_.begin, strips_.end,
                            [&](int64_t s, auto together) { gradient(together, chunk, s, c); });
    }

    // Losses, totals, and the queries' gradient. scratch: 2 x kLanes x width.
    void close(T* scratch) {
        for (int64_t s = strips_.begin; s < strips_.end; ++s) {
            close(s);
            const T* const share = tile_.query_share + query_of(s);
            if (t_.outputs.grad_documents.data) this->share_units(0, s, [&](int64_t l) { return share[l]; });
            if (t_.outputs.grad_queries.data) finish(s, scratch);
        }
    }

private:
    PlainStrip<T>& sums_of(int64_t strip) { return sums_[strip - strips_.begin]; }

    void logits(int64_t chunk, Range strips) {
        const T factor = softmax_.factor;
        for (int64_t s = strips.begin; s < strips.end && t_.outputs.logits.data; ++s)
            for (int64_t l = 0; l < rows_of(s); ++l) {
                const int64_t i = query_of(s) + l;
                if (chunk == 0)
                    t_.outputs.logits.data[i * t_.outputs.logits.stride] = to_element<E>(factor * tile_.positives[i]);
                tile_logits(t_, i, chunk, static_cast<const T*>(scores_of(0, chunk, s)) + l,
                            [&](T similarity, int64_t) { return factor * similarity; });
            }
    }

    // What is no negative is put out of the way, then similarities become exps.
    void exps(int64_t chunk, Range strips, Range part) {
        const T absent = softmax_.sign * kAbsent<T>;
        for (int64_t s = strips.begin; s < strips.end; ++s) {
            T* const scores = scores_of(0, chunk, s);
            PlainStrip<T>& sums = sums_of(s);
            if (const T* const counts = counts_of(chunk, s)) {
                for (int64_t k = part.begin * kLanes<T>; k < part.end * kLanes<T>; k += kLanes<T>)
                    store(scores + k, select_less(load(counts + k), broadcast(T(1)), broadcast(absent),
                                                  load(static_cast<const T*>(scores) + k)));
                sums.template add<true>(softmax_, scores, part.begin, part.count(), counts);
                // Drawn as its own negative, the positive counts in the sums but outranks nobody.
                this->for_each_positive(chunk, s, part, [&](int64_t l, int64_t row) {
                    sums.rank[l] -= static_cast<double>(counts[row * kLanes<T> + l]);
                });
                continue;
            }
            this->for_each_positive(chunk, s, part,
                                    [&](int64_t l, int64_t row) { scores[row * kLanes<T> + l] = absent; });
            sums.template add<false>(softmax_, scores, part.begin, part.count(), nullptr);
        }
    }

    void end_chunk(int64_t chunk, Range strips) {
        for (int64_t s = strips.begin; s < strips.end; ++s) {
            sums_of(s).end_chunk();
            store(t_.shifts + (place_ * t_.chunks + chunk) * t_.block + s * kLanes<T>,
                  load(static_cast<const T*>(sums_of(s).shift)));
        }
    }

    template <int kStrips>
    void gradient(Constant<kStrips> together, int64_t chunk, int64_t strip, int64_t c) {
        alignas(64) T scale[kStrips][kLanes<T>];
        bool moved = false;
        for (int v = 0; v < kStrips; ++v) {
            const PlainStrip<T>& sums = sums_of(strip + v);
            for (int l = 0; l < kLanes<T>; ++l) scale[v][l] = sums.moved ? sums.factor[l] : T(1);
            moved = moved || sums.moved;
        }
        this->multiply_gradient(together, 0, chunk, strip, c, moved ? static_cast<const T*>(scale[0]) : nullptr);
    }

    void close(int64_t strip) {
        PlainStrip<T>& sums = sums_of(strip);
        negcos::Totals& totals = t_.totals[query_of(strip) / kLanes<T>];
        totals = negcos::Totals();
        LossWriter<E, PlainRow> writer(t_.outputs);
        for (int64_t l = 0; l < kLanes<T>; ++l) {
            const int64_t i = query_of(strip) + l;
            tile_.query_share[i] = tile_.positive_slope[i] = 0;
            if (l >= rows_of(strip)) continue;
            const T positive = tile_.positives[i];
            const int lane = static_cast<int>(l);
            const auto closed = softmax_.close(positive, sums.shift[l], sums.sums(softmax_, lane), t_.terms.row_weight);
            totals.grad_scale.add(closed.grad_scale);
            int64_t rank = static_cast<int64_t>(sums.rank[l]);
            // The positive's own place is absent, which is below any number, but not below NaN.
            if (!t_.counts && !(softmax_.factor * softmax_.sign * kAbsent<T> < softmax_.factor * positive)) --rank;
            totals.rank_zero += rank == 0;
            totals.reciprocal_rank.add(1.0 / (1.0 + static_cast<double>(rank)));
            writer.add(i, 1, closed.row, totals);
            tile_.query_share[i] = static_cast<T>(closed.share);
            tile_.positive_slope[i] = static_cast<T>(closed.positive_slope);
        }
        writer.flush(totals);
    }

    void finish(int64_t strip, T* scratch) {
        T *const rows = scratch, *const document = scratch + kLanes<T> * tile_.width;
        const negcos::Rows<E>&queries = t_.prefixes[0].queries, &documents = t_.prefixes[0].documents;
        unpack_strip(static_cast<const T*>(tile_.query_sums) + in_wave(strip) * tile_.width, tile_.width, rows,
                     tile_.width);
        for (int64_t l = 0; l < rows_of(strip); ++l) {
            const int64_t i = query_of(strip) + l;
            load_unit(documents, t_.candidates.positive(i), dim_, document);
            const Lanes<T> share = broadcast(tile_.query_share[i]), positive = broadcast(tile_.positive_slope[i]);
            T* const total = rows + l * tile_.width;
            for (int64_t c = 0; c < tile_.width; c += kLanes<T>)
                store(total + c, multiply_add(positive, load(static_cast<const T*>(document) + c),
                                              load(static_cast<const T*>(total) + c) * share));
            finish_gradient(static_cast<const T*>(total), tile_.query_units + i * tile_.width, T(1),
                            static_cast<double>(queries.above_floor[i]), queries.inverse[i], softmax_.factor,
                            queries.rescale[i], dim_,
                            t_.outputs.grad_queries.data + i * t_.outputs.grad_queries.stride);
        }
    }

    PlainSoftmax<T> softmax_;
    int64_t dim_;
    const TilePrefix<E>& tile_;
    PlainStrip<T> sums_[negcos::kStripsPerTask];
};

// ---- Documents ------------------------------------------------------------------------------------------------------

// The plain softmax: units of a block times the queries' shares of a chunk whose exps are relative to other shifts than
// the last.
template <class E>
const Working<E>* shared_units_of(const Tiles<E>& t, int64_t place, int64_t first, int64_t chunk, int64_t count,
                                  Working<E>* scratch) {
    using T = Working<E>;
    const TilePrefix<E>& tile = t.tiles[0];
    const T* const shifts = t.shifts + (place * t.chunks + chunk) * t.block;
    const T* const last = t.shifts + (place * t.chunks + t.chunks - 1) * t.block;
    if (memcmp(shifts, last, sizeof(T) * static_cast<size_t>(count)) == 0)
        return tile.shared_units + place * t.block * tile.width;
    const PlainSoftmax<T> softmax(t.terms);
    for (int64_t r = 0; r < pad_lanes<T>(count); ++r) {
        T share = tile.query_share[first + r];
        if (shifts[r] != last[r]) share *= exp_one((shifts[r] - last[r]) * softmax.size);
        const T* unit = tile.query_units + (first + r) * tile.width;
        for (int64_t c = 0; c < tile.width; c += kLanes<T>)
            store(scratch + c * t.block + r * kLanes<T>, load(unit + c) * broadcast(share));
    }
    return scratch;
}

template <class E>
void add_positives(const Tiles<E>& t, Range block, int64_t chunk) {
    using T = Working<E>;
    const TilePrefix<E>& tile = t.tiles[0];
    const int64_t n = t.documents_in(chunk), begin = chunk * t.chunk;
    for (int64_t i = block.begin; i < block.end; ++i) {
        const int64_t row = t.candidates.positive(i) - begin;
        if (row < 0 || row >= n) continue;
        const Lanes<T> slope = broadcast(tile.positive_slope[i]);
        const T* unit = tile.query_units + i * tile.width;
        for (int64_t c = 0; c < tile.width; c += kLanes<T>) {
            T* total = tile.document_sums + begin * tile.width + c * n + row * kLanes<T>;
            store(total, multiply_add(slope, load(unit + c), load(static_cast<const T*>(total))));
        }
    }
}

// What the blocks of a wave, the first of them from query `first` on, add to the gradient of one chunk of documents, in
// their order. scratch: block x width.
template <class E>
void tile_documents(const Tiles<E>& t, int64_t first, int64_t blocks, int64_t chunk, Working<E>* scratch) noexcept {
    using T = Working<E>;
    const int64_t n = t.documents_in(chunk), begin = chunk * t.chunk;
    for (int64_t p = 0; p < t.prefix_count; ++p) {
        const TilePrefix<E>& tile = t.tiles[p];
        for (int64_t place = 0; place < blocks; ++place) {
            const int64_t from = first + place * t.block, left = t.batch() - from;
            const int64_t count = left < t.block ? left : t.block;
            const T* const units = t.general ? static_cast<const T*>(tile.shared_units) + place * t.block * tile.width
                                             : shared_units_of(t, place, from, chunk, count, scratch);
            Product<T> product{nullptr, t.block * kLanes<T>, pad_lanes<T>(count), n * kLanes<T>, from > 0};
            for_each_strips(0, tile.width / kLanes<T>, [&](int64_t vector, auto together) {
                product.b = units + vector * t.block * kLanes<T>;
                multiply_strips<decltype(together)::value>(
                    product, static_cast<const T*>(t.strip_of(tile.scores, place, chunk, 0)), t.strip_stride, n,
                    tile.document_sums + begin * tile.width + vector * n * kLanes<T>);
            });
            if (!t.general) add_positives(t, {from, from + count}, chunk);
            if (!tile.document_moment) continue;
            for (int64_t task = 0; task * negcos::kStripsPerTask * kLanes<T> < count; ++task) {
                const T* const part =
                    tile.column_parts + (place * t.tasks() + task) * negcos::kColumnFields * t.document_count() + begin;
                for (int64_t r = 0; r < n; ++r) {
                    double& moment = tile.document_moment[begin + r];
                    moment = (from == 0 && task == 0 ? 0 : moment) + static_cast<double>(part[r]);
                }
            }
        }
    }
}

}  // namespace

#endif
