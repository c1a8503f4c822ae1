// SPDX-License-Identifier: Apache-2.0
//
// The inner loops of tiles for the plain softmax: all documents as candidates, or dense samples of them. The lanes of
// scores are queries: each query's sums are a lane's, and what a strip of queries needs of a chunk of documents stays
// in the first-level cache from the scores to the queries' gradient.
#ifndef NEGCOS_KERNEL_TILE_HPP
#define NEGCOS_KERNEL_TILE_HPP

#include "kernel/gradients.hpp"
#include "kernel/objective.hpp"
#include "kernel/product.hpp"
#include "work.hpp"

namespace {

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

// ---- Packing

// Strips of queries; and their positives' similarities ahead of everything else, by the same chains as in the tiles.
// scratch: 2 x kLanes x width.
template <class E>
void tile_pack_queries(const Tiles<E>& t, Range strips, Working<E>* scratch) noexcept {
    using T = Working<E>;
    T *const rows = scratch, *const documents = scratch + kLanes<T> * t.width;
    for (int64_t strip = strips.begin; strip < strips.end; ++strip) {
        const int64_t first = strip * kLanes<T>;
        T *const units = t.query_units + first * t.width, *const packed = t.query_strips + first * t.width;
        for (int64_t l = 0; l < kLanes<T>; ++l) {
            if (first + l < t.queries.count) {
                load_unit(t.queries, first + l, t.dim, units + l * t.width);
                load_unit(t.documents, first + l, t.dim, rows + l * t.width);
            } else {
                memset(units + l * t.width, 0, sizeof(T) * static_cast<size_t>(t.width));
                memset(rows + l * t.width, 0, sizeof(T) * static_cast<size_t>(t.width));
            }
        }
        pack_strip(static_cast<const T*>(units), t.width, t.width, packed);
        pack_strip(static_cast<const T*>(rows), t.width, t.width, documents);
        Lanes<T> similarity = broadcast(T(0));
        for (int64_t c = 0; c < t.dim; c += kChainColumns) {
            Lanes<T> chain = broadcast(T(0));
            for (int64_t k = c * kLanes<T>; k < (c + chain_columns(c, t.dim)) * kLanes<T>; k += kLanes<T>)
                chain = multiply_add(load(static_cast<const T*>(documents) + k),
                                     load(static_cast<const T*>(packed) + k), chain);
            similarity = c == 0 ? chain : similarity + chain;
        }
        store(t.positives + first, similarity);
    }
}

// A chunk of documents as panels of documents for the scores, and of columns for the queries' gradient.
// scratch: kTileRows x width.
template <class E>
void tile_pack_documents(const Tiles<E>& t, int64_t chunk, Working<E>* scratch) noexcept {
    using T = Working<E>;
    const int64_t n = t.documents_in(chunk), begin = chunk * t.chunk;
    const T* const units = scratch;
    for (int64_t r = 0, height; r < n; r += height) {
        height = document_panel_rows(r, n);
        for (int64_t m = 0; m < height; ++m) load_unit(t.documents, begin + r + m, t.dim, scratch + m * t.width);
        for (int64_t c = 0; c < t.dim; c += kChainColumns) {
            const int64_t columns = chain_columns(c, t.dim);
            pack_columns(units + c, t.width, height, columns, t.document_panels + begin * t.dim + c * n + r * columns);
        }
        for (int64_t c = 0, columns; t.column_panels && c < t.dim; c += columns) {
            columns = panel_rows(t.dim - c);
            T* to = t.column_panels + begin * t.dim + c * n + r * columns;
            for (int64_t m = 0; m < height; ++m)
                for (int64_t k = 0; k < columns; ++k) to[m * columns + k] = units[m * t.width + c + k];
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
            if (i >= t.queries.count) break;
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

// ---- Queries

// The logits of sampled candidates that lie in a chunk, each in its slot.
template <class E>
void tile_logits(const Tiles<E>& t, int64_t first, int64_t chunk, Working<E> factor, const Working<E>* scores) {
    using T = Working<E>;
    const int64_t begin = chunk * t.chunk, n = t.documents_in(chunk);
    for (int64_t l = 0; l < kLanes<T> && first + l < t.queries.count; ++l) {
        E* out = t.outputs.logits.data + (first + l) * t.outputs.logits.stride;
        const int32_t* negatives = t.candidates.negatives + (first + l) * t.candidates.row_stride;
        if (begin == 0) out[0] = to_element<E>(factor * t.positives[first + l]);
        for (int64_t k = 0; k < t.candidates.rounds; ++k) {
            const int64_t j = negatives[k * t.candidates.round_stride], at = j - begin;
            if (j < 0 && begin == 0)
                out[1 + k] = to_element<E>(kAbsent<T>);
            else if (j >= 0 && at >= 0 && at < n)
                out[1 + k] = to_element<E>(factor * scores[at * kLanes<T> + l]);
        }
    }
}

// The strips of one task against all chunks.
template <class E>
class TileQueries {
    using T = Working<E>;

public:
    TileQueries(const Tiles<E>& t, int64_t place, int64_t first, Range strips)
        : t_(t), softmax_(t.terms), place_(place), first_(first), strips_(strips) {
        for (int64_t s = strips.begin; s < strips.end; ++s) {
            const int64_t query = first + s * kLanes<T>, left = t.queries.count - query;
            sums_[s - strips.begin].start(softmax_, t.positives + query, left < kLanes<T> ? left : kLanes<T>);
        }
    }

    void chunk(int64_t chunk) {
        const int64_t n = t_.documents_in(chunk);
        for (int64_t s = strips_.begin; s < strips_.end; ++s) sums_[s - strips_.begin].begin_chunk();
        if (t_.dim <= kChainColumns) {
            for_each_strips(strips_.begin, strips_.end, [&](int64_t s, auto together) {
                const Range strips{s, s + together.value};
                if (t_.outputs.logits.data) {
                    scores(together, chunk, s, 0, {0, n});
                    logits(chunk, strips);
                }
                for (int64_t r = 0; r < n; r += kPartDocuments) {
                    const Range part{r, n - r < kPartDocuments ? n : r + kPartDocuments};
                    if (!t_.outputs.logits.data) scores(together, chunk, s, 0, part);
                    exps(chunk, strips, part);
                }
                end_chunk(chunk, strips);
                if (t_.outputs.grad_queries.data) gradient(together, chunk, s, 0);
            });
            return;
        }
        // Panels of one chain's columns serve all strips before the next.
        for (int64_t c = 0; c < t_.dim; c += kChainColumns)
            for_each_strips(strips_.begin, strips_.end, [&](int64_t s, auto together) {
                scores(together, chunk, s, c, {0, n});
            });
        logits(chunk, strips_);
        for (int64_t s = strips_.begin; s < strips_.end; ++s)
            for (int64_t r = 0; r < n; r += kPartDocuments)
                exps(chunk, {s, s + 1}, {r, n - r < kPartDocuments ? n : r + kPartDocuments});
        end_chunk(chunk, strips_);
        for (int64_t c = 0; t_.outputs.grad_queries.data && c < t_.dim; c += kChainColumns)
            for_each_strips(strips_.begin, strips_.end,
                            [&](int64_t s, auto together) { gradient(together, chunk, s, c); });
    }

    // Losses, totals, and the queries' gradient. scratch: 2 x kLanes x width.
    void close(T* scratch) {
        for (int64_t s = strips_.begin; s < strips_.end; ++s) {
            close(s);
            if (t_.outputs.grad_documents.data) share_units(s);
            if (t_.outputs.grad_queries.data) finish(s, scratch);
        }
    }

private:
    T* scores_of(int64_t chunk, int64_t strip) const { return t_.strip_of(t_.scores, place_, chunk, strip); }
    int64_t query_of(int64_t strip) const { return first_ + strip * kLanes<T>; }
    int64_t in_wave(int64_t strip) const { return place_ * t_.block + strip * kLanes<T>; }

    // Columns [c, c + kChainColumns) of the similarities with a part of the chunk's documents.
    template <int kStrips>
    void scores(Constant<kStrips>, int64_t chunk, int64_t strip, int64_t c, Range part) {
        const int64_t steps = chain_columns(c, t_.dim);
        const Product<T> product{t_.query_strips + query_of(strip) * t_.width + c * kLanes<T>, t_.width * kLanes<T>,
                                 steps, t_.strip_stride, c > 0};
        const T* const panels = t_.document_panels + chunk * t_.chunk * t_.dim + c * t_.documents_in(chunk);
        T* const out = scores_of(chunk, strip);
        for (int64_t r = part.begin, height; r < part.end; r += height) {
            height = document_panel_rows(r, part.end);
            multiply_panel_of<kTileRows, kStrips>(height, product, panels + r * steps, out + r * kLanes<T>);
        }
    }

    void logits(int64_t chunk, Range strips) {
        for (int64_t s = strips.begin; s < strips.end && t_.outputs.logits.data; ++s)
            tile_logits(t_, query_of(s), chunk, softmax_.factor, static_cast<const T*>(scores_of(chunk, s)));
    }

    // What is no negative is put out of the way, then similarities become exps.
    void exps(int64_t chunk, Range strips, Range part) {
        const T absent = softmax_.sign * kAbsent<T>;
        for (int64_t s = strips.begin; s < strips.end; ++s) {
            T* const scores = scores_of(chunk, s);
            // Rows of the chunk in which each lane's positive is.
            const int64_t own = query_of(s) - chunk * t_.chunk;
            PlainStrip<T>& sums = sums_[s - strips_.begin];
            if (t_.counts) {
                const T* counts = t_.strip_of(t_.counts, place_, chunk, s);
                for (int64_t k = part.begin * kLanes<T>; k < part.end * kLanes<T>; k += kLanes<T>)
                    store(scores + k, select_less(load(counts + k), broadcast(T(1)), broadcast(absent),
                                                  load(static_cast<const T*>(scores) + k)));
                sums.template add<true>(softmax_, scores, part.begin, part.count(), counts);
                // Drawn as its own negative, the positive counts in the sums but outranks nobody.
                for (int64_t l = 0; l < kLanes<T>; ++l)
                    if (own + l >= part.begin && own + l < part.end)
                        sums.rank[l] -= static_cast<double>(counts[(own + l) * kLanes<T> + l]);
                continue;
            }
            for (int64_t l = 0; l < kLanes<T>; ++l)
                if (own + l >= part.begin && own + l < part.end) scores[(own + l) * kLanes<T> + l] = absent;
            sums.template add<false>(softmax_, scores, part.begin, part.count(), nullptr);
        }
    }

    void end_chunk(int64_t chunk, Range strips) {
        for (int64_t s = strips.begin; s < strips.end; ++s) {
            PlainStrip<T>& sums = sums_[s - strips_.begin];
            sums.end_chunk();
            store(t_.shifts + (place_ * t_.chunks + chunk) * t_.block + s * kLanes<T>,
                  load(static_cast<const T*>(sums.shift)));
        }
    }

    // What the chunk adds to columns of the gradient: panels that begin in [c, c + kChainColumns).
    template <int kStrips>
    void gradient(Constant<kStrips>, int64_t chunk, int64_t strip, int64_t c) {
        const PlainStrip<T>* const sums = sums_ + (strip - strips_.begin);
        const int64_t n = t_.documents_in(chunk);
        Product<T> product{scores_of(chunk, strip), t_.strip_stride, n, t_.width * kLanes<T>, chunk > 0};
        alignas(64) T scale[kStrips][kLanes<T>];
        bool moved = false;
        for (int v = 0; v < kStrips; ++v) {
            for (int l = 0; l < kLanes<T>; ++l) scale[v][l] = sums[v].moved ? sums[v].factor[l] : T(1);
            moved = moved || sums[v].moved;
        }
        if (moved) product.scale = scale[0];
        const T* const panels = t_.column_panels + chunk * t_.chunk * t_.dim;
        T* const out = t_.query_sums + in_wave(strip) * t_.width;
        const int64_t to = c + chain_columns(c, t_.dim);
        int64_t column = 0;
        while (column < c) column += panel_rows(t_.dim - column);
        for (int64_t height; column < to; column += height) {
            height = panel_rows(t_.dim - column);
            multiply_panel_of<kTileRows, kStrips>(height, product, panels + column * n, out + column * kLanes<T>);
        }
    }

    void close(int64_t strip) {
        PlainStrip<T>& sums = sums_[strip - strips_.begin];
        negcos::Totals& totals = t_.totals[place_ * t_.strips() + strip];
        totals = negcos::Totals();
        LossWriter<E, PlainRow> writer(t_.outputs);
        T *const share = t_.shares + in_wave(strip), *const positive_slope = t_.positive_slopes + in_wave(strip);
        for (int l = 0; l < kLanes<T>; ++l) {
            const int64_t i = query_of(strip) + l;
            share[l] = positive_slope[l] = 0;
            if (i >= t_.queries.count) continue;
            const T positive = t_.positives[i];
            const auto closed = softmax_.close(positive, sums.shift[l], sums.sums(softmax_, l), t_.terms.row_weight);
            totals.grad_scale.add(closed.grad_scale);
            int64_t rank = static_cast<int64_t>(sums.rank[l]);
            // The positive's own place is absent, which is below any number, but not below NaN.
            if (!t_.counts && !(softmax_.factor * softmax_.sign * kAbsent<T> < softmax_.factor * positive)) --rank;
            totals.rank_zero += rank == 0;
            totals.reciprocal_rank.add(1.0 / (1.0 + static_cast<double>(rank)));
            writer.add(i, 1, closed.row, totals);
            share[l] = static_cast<T>(closed.share);
            positive_slope[l] = static_cast<T>(closed.positive_slope);
        }
        writer.flush(totals);
    }

    void share_units(int64_t strip) {
        T* const to = t_.shared_units + place_ * t_.block * t_.width + strip * kLanes<T> * kLanes<T>;
        for (int64_t l = 0; l < kLanes<T>; ++l) {
            const Lanes<T> share = broadcast(t_.shares[in_wave(strip) + l]);
            const T* unit = t_.query_units + (query_of(strip) + l) * t_.width;
            for (int64_t c = 0; c < t_.width; c += kLanes<T>)
                store(to + c * t_.block + l * kLanes<T>, load(unit + c) * share);
        }
    }

    void finish(int64_t strip, T* scratch) {
        T *const rows = scratch, *const document = scratch + kLanes<T> * t_.width;
        unpack_strip(static_cast<const T*>(t_.query_sums) + in_wave(strip) * t_.width, t_.width, rows, t_.width);
        for (int64_t l = 0; l < kLanes<T> && query_of(strip) + l < t_.queries.count; ++l) {
            const int64_t i = query_of(strip) + l;
            load_unit(t_.documents, i, t_.dim, document);
            const Lanes<T> share = broadcast(t_.shares[in_wave(strip) + l]),
                           positive = broadcast(t_.positive_slopes[in_wave(strip) + l]);
            T* const total = rows + l * t_.width;
            for (int64_t c = 0; c < t_.width; c += kLanes<T>)
                store(total + c, multiply_add(positive, load(static_cast<const T*>(document) + c),
                                              load(static_cast<const T*>(total) + c) * share));
            finish_gradient(static_cast<const T*>(total), t_.query_units + i * t_.width, T(1),
                            static_cast<double>(t_.queries.above_floor[i]), t_.queries.inverse[i], softmax_.factor,
                            t_.queries.rescale[i], t_.dim,
                            t_.outputs.grad_queries.data + i * t_.outputs.grad_queries.stride);
        }
    }

    const Tiles<E>& t_;
    PlainSoftmax<T> softmax_;
    int64_t place_, first_;
    Range strips_;
    PlainStrip<T> sums_[negcos::kStripsPerTask];
};

// Some strips of the block of queries from `first` on, in a place of the wave: scores, softmax and gradient, all chunks
// one after another. scratch: 2 x kLanes x width.
template <class E>
void tile_queries(const Tiles<E>& t, int64_t place, int64_t first, Range strips, Working<E>* scratch) noexcept {
    if (t.counts) count_negatives(t, place, first, strips);
    TileQueries<E> queries(t, place, first, strips);
    for (int64_t chunk = 0; chunk < t.chunks; ++chunk) queries.chunk(chunk);
    queries.close(scratch);
}

// ---- Documents

// Units of a block times the queries' shares of a chunk whose exps are relative to other shifts than the last.
template <class E>
const Working<E>* shared_units_of(const Tiles<E>& t, int64_t place, int64_t first, int64_t chunk, int64_t count,
                                  Working<E>* scratch) {
    using T = Working<E>;
    const T* const shifts = t.shifts + (place * t.chunks + chunk) * t.block;
    const T* const last = t.shifts + (place * t.chunks + t.chunks - 1) * t.block;
    if (memcmp(shifts, last, sizeof(T) * static_cast<size_t>(count)) == 0)
        return t.shared_units + place * t.block * t.width;
    const PlainSoftmax<T> softmax(t.terms);
    for (int64_t r = 0; r < pad_lanes<T>(count); ++r) {
        T share = t.shares[place * t.block + r];
        if (shifts[r] != last[r]) share *= exp_one((shifts[r] - last[r]) * softmax.size);
        const T* unit = t.query_units + (first + r) * t.width;
        for (int64_t c = 0; c < t.width; c += kLanes<T>)
            store(scratch + c * t.block + r * kLanes<T>, load(unit + c) * broadcast(share));
    }
    return scratch;
}

// What the blocks of a wave, the first of them from query `first` on, add to the gradient of one chunk of documents, in
// their order. scratch: block x width.
template <class E>
void tile_documents(const Tiles<E>& t, int64_t first, int64_t blocks, int64_t chunk, Working<E>* scratch) noexcept {
    using T = Working<E>;
    const int64_t n = t.documents_in(chunk), begin = chunk * t.chunk;
    T* const sums = t.document_sums + begin * t.width;
    for (int64_t place = 0; place < blocks; ++place, first += t.block) {
        const int64_t left = t.queries.count - first, count = left < t.block ? left : t.block;
        const T* const units = shared_units_of(t, place, first, chunk, count, scratch);
        const T* const exps = t.strip_of(t.scores, place, chunk, 0);
        Product<T> product{nullptr, t.block * kLanes<T>, pad_lanes<T>(count), n * kLanes<T>, first > 0};
        for_each_strips(0, t.width / kLanes<T>, [&](int64_t vector, auto together) {
            product.b = units + vector * t.block * kLanes<T>;
            multiply_strips<decltype(together)::value>(product, exps, t.strip_stride, n, sums + vector * n * kLanes<T>);
        });
        const int64_t from = first < begin ? begin : first, to = first + count < begin + n ? first + count : begin + n;
        for (int64_t own = from; own < to; ++own) {
            const Lanes<T> slope = broadcast(t.positive_slopes[place * t.block + own - first]);
            const T* unit = t.query_units + own * t.width;
            for (int64_t c = 0; c < t.width; c += kLanes<T>) {
                T* total = sums + c * n + (own - begin) * kLanes<T>;
                store(total, multiply_add(slope, load(unit + c), load(static_cast<const T*>(total))));
            }
        }
    }
}

// scratch: 2 x width.
template <class E>
void tile_finish_documents(const Tiles<E>& t, int64_t chunk, Working<E>* scratch) noexcept {
    using T = Working<E>;
    const int64_t n = t.documents_in(chunk), begin = chunk * t.chunk;
    const T* const sums = t.document_sums + begin * t.width;
    T *const total = scratch, *const unit = scratch + t.width;
    for (int64_t r = 0; r < n; ++r) {
        const int64_t j = begin + r;
        for (int64_t c = 0; c < t.width; c += kLanes<T>) store(total + c, load(sums + c * n + r * kLanes<T>));
        load_unit(t.documents, j, t.dim, unit);
        finish_gradient(static_cast<const T*>(total), static_cast<const T*>(unit), T(1),
                        static_cast<double>(t.documents.above_floor[j]), t.documents.inverse[j],
                        static_cast<T>(t.terms.factor), t.documents.rescale[j], t.dim,
                        t.outputs.grad_documents.data + j * t.outputs.grad_documents.stride);
    }
}

// Elements, for all of the above.
template <class T>
int64_t tile_scratch(int64_t width, int64_t block) noexcept {
    int64_t rows = 2 * kLanes<T>;
    if (rows < kTileRows) rows = kTileRows;
    return (rows < block ? block : rows) * width;
}

}  // namespace

#endif
