// SPDX-License-Identifier: Apache-2.0
//
// Of tiles what is around the strips' tasks, PlainTileTask or GeneralTileTask: the columns' sums of both directions,
// the documents' losses and gradients, and the totals.
#ifndef NEGCOS_KERNEL_TILES_HPP
#define NEGCOS_KERNEL_TILES_HPP

#include "kernel/tile.hpp"
#include "kernel/tile_general.hpp"

namespace {

// Some strips of the block of queries from `first` on, in a place of the wave, against all chunks one after another.
// scratch: tile_scratch() elements.
template <class E>
void tile_queries(const Tiles<E>& t, TilePass pass, int64_t place, int64_t first, Range strips,
                  Working<E>* scratch) noexcept {
    if (t.counts) count_negatives(t, place, first, strips);
    if (t.general) {
        GeneralTileTask<E> task(t, place, first, strips, scratch);
        if (pass.sums) task.sums();
        if (pass.slopes) task.slopes(!pass.sums);
        return;
    }
    PlainTileTask<E> task(t, place, first, strips);
    for (int64_t chunk = 0; chunk < t.chunks; ++chunk) task.chunk(chunk);
    task.close(scratch);
}

// For both directions: what the blocks of a wave add to the sums of one chunk's columns, in their order.
template <class E>
void tile_columns(const Tiles<E>& t, int64_t first, int64_t blocks, int64_t chunk) noexcept {
    using T = Working<E>;
    const int64_t n = t.documents_in(chunk), begin = chunk * t.chunk;
    const Lanes<T> size = broadcast(Levels<T>(t.terms).size);
    for (int64_t p = 0; p < t.prefix_count; ++p) {
        const TilePrefix<E>& tile = t.tiles[p];
        for (int64_t place = 0; place < blocks; ++place)
            for (int64_t task = 0; task < t.tasks(); ++task) {
                const int64_t from = first + place * t.block + task * kStripsPerTask * kLanes<T>;
                if (from >= t.batch()) break;
                const T* const part =
                    tile.column_parts + (place * t.tasks() + task) * kColumnFields * t.document_count() + begin;
                for (int64_t r = 0; r < n; r += kLanes<T>) {
                    const int count = n - r < kLanes<T> ? static_cast<int>(n - r) : kLanes<T>;
                    T* const tops = tile.document_top + begin + r;
                    const Lanes<T> before =
                        from == 0 ? broadcast(kAbsent<T>) : load_first(static_cast<const T*>(tops), count);
                    const Lanes<T> of_part = load_first(part + r, count), top = larger(before, of_part);
                    alignas(64) T scale[kLanes<T>], part_scale[kLanes<T>], part_top[kLanes<T>], top_before[kLanes<T>];
                    store(static_cast<T*>(scale), exp_nonpositive((before - top) * size));
                    store(static_cast<T*>(part_scale), exp_nonpositive((of_part - top) * size));
                    store(static_cast<T*>(part_top), of_part);
                    store(static_cast<T*>(top_before), before);
                    store_first(tops, top, count);
                    for (int64_t k = 0; k < count; ++k) {
                        Sums& sums = tile.document_row[begin + r + k];
                        if (from == 0) sums = Sums();
                        // A top of -Inf: nothing there, or NaN alone, which goes on from here.
                        if (top_before[k] != kAbsent<T>) sums.rescale(static_cast<double>(scale[k]));
                        const auto field = [&](int64_t f) {
                            return static_cast<double>(part[f * t.document_count() + r + k]);
                        };
                        Sums added;
                        added.sum = field(1);
                        added.moment = field(2);
                        added.spread = field(3);
                        added.reach = field(4);
                        added.kept = field(5);
                        added.dropped = field(6);
                        sums.add(added, part_top[k] == kAbsent<T> ? 1 : static_cast<double>(part_scale[k]));
                    }
                }
            }
    }
}

template <class E>
void tile_close_documents(const Tiles<E>& t, Range range) noexcept {
    using T = Working<E>;
    const Levels<T> levels(t.terms);
    const T common = common_top(t.terms);
    for (int64_t j = range.begin; j < range.end; ++j) {
        RowEnd end;
        for (int64_t p = 0; p < t.prefix_count; ++p) {
            const TilePrefix<E>& tile = t.tiles[p];
            const Sums& sums = tile.document_row[j];
            const General<T> row(t.terms, levels, tile.positives[j], T(0));
            const T negatives = tile.document_top[j], top = common > 0 ? common : row.row_top(negatives);
            Sums shifted = sums;
            if (negatives != kAbsent<T> && top != negatives)
                shifted.rescale(static_cast<double>(row.exp_between(negatives, top)));
            const auto closed = row.close(top, shifted, weight_of(t, p, j));
            tile.document_top[j] = closed.share.top;
            tile.document_share[j] = closed.share.share;
            tile.document_smooth[j] = closed.share.smooth;
            tile.positive_slope[j] += static_cast<T>(closed.positive_slope);
            end.loss += 0.5 * t.prefixes[p].weight * closed.loss;
            end.grad_scale += closed.grad_scale;
            if (p + 1 == t.prefix_count) end.excluded = static_cast<int64_t>(sums.dropped);
        }
        t.documents[j] = end;
    }
}

// scratch: the columns of all prefixes, twice, and a number for each prefix.
template <class E>
void tile_finish_documents(const Tiles<E>& t, int64_t chunk, Working<E>* scratch) noexcept {
    using T = Working<E>;
    const int64_t n = t.documents_in(chunk), begin = chunk * t.chunk;
    const int64_t columns = padded_columns(t.prefixes, t.prefix_count);
    T *const total = scratch, *const unit = total + columns;
    double* const moment = reinterpret_cast<double*>(unit + columns);
    for (int64_t r = 0; r < n; ++r) {
        const int64_t j = begin + r;
        for (int64_t p = 0, at = 0; p < t.prefix_count; at += t.tiles[p++].width) {
            const TilePrefix<E>& tile = t.tiles[p];
            for (int64_t c = 0; c < tile.width; c += kLanes<T>)
                store(total + at + c,
                      load(static_cast<const T*>(tile.document_sums) + begin * tile.width + c * n + r * kLanes<T>));
            moment[p] = tile.document_moment ? tile.document_moment[j] : 0;
        }
        E* const gradient = t.outputs.grad_documents.data + j * t.outputs.grad_documents.stride;
        const T factor = static_cast<T>(t.terms.factor);
        if (t.general) {
            finish_row(t.prefixes, t.prefix_count, &Prefix<E>::documents, j, t.dim, static_cast<const T*>(total),
                       moment, factor, gradient);
            continue;
        }
        const negcos::Rows<E>& documents = t.prefixes[0].documents;
        load_unit(documents, j, t.dim, unit);
        finish_gradient(static_cast<const T*>(total), static_cast<const T*>(unit), T(1),
                        static_cast<double>(documents.above_floor[j]), documents.inverse[j], factor,
                        documents.rescale[j], t.dim, gradient);
    }
}

// All queries in order.
template <class E>
negcos::Totals tile_totals(const Tiles<E>& t) noexcept {
    using T = Working<E>;
    negcos::Totals totals;
    if (!t.general) {
        for (int64_t strip = 0; strip * kLanes<T> < t.batch(); ++strip) totals.add(t.totals[strip]);
        return totals;
    }
    LossWriter<E, GeneralRow<T>> writer(t.outputs);
    for (int64_t i = 0; i < t.batch(); ++i) {
        RowEnd end = t.queries[i];
        if (t.both) {
            end.loss += t.documents[i].loss;
            end.grad_scale += t.documents[i].grad_scale;
            end.excluded += t.documents[i].excluded;
        }
        const double weight = t.terms.weights ? t.terms.weights[i] : 1.0;
        totals.grad_scale.add(end.grad_scale);
        totals.grad_bias.add(end.grad_bias);
        totals.rank_zero += end.rank == 0;
        totals.reciprocal_rank.add(1.0 / (1.0 + static_cast<double>(end.rank)));
        totals.excluded += end.excluded;
        writer.add(i, weight, {end.loss}, totals);
    }
    writer.flush(totals);
    return totals;
}

// Elements, for all of the above.
template <class E>
int64_t tile_scratch(const Tiles<E>& t) noexcept {
    using T = Working<E>;
    const int64_t columns = padded_columns(t.prefixes, t.prefix_count), prefixes = t.prefix_count;
    const int64_t numbers = pad_lanes<double>(prefixes) * kLanes<T> / kLanes<double>;
    const int64_t rows = 2 * kLanes<T> < kTileRows ? kTileRows : 2 * kLanes<T>;
    int64_t most = rows * columns + numbers;
    if (!t.general) return most < t.block * columns ? t.block * columns : most;
    most += 3 * pad_lanes<T>(t.terms.hard + kLanes<T>);  // coefficients and rows of hard negatives
    return most + GeneralTileTask<E>::state_size(prefixes, t.chunk);
}

}  // namespace

#endif
