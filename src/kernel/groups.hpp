// SPDX-License-Identifier: Apache-2.0
//
// The inner loops of GROUPS for the plain softmax: one window of the deal at a time, whose queries are all compared
// with all of its documents. Rows are packed once, in the dealt order; then there are only small products, whose left
// operands are single numbers and whose vectors are of queries (similarities) or columns (gradients):
//
//     units     [block of kLanes columns][row][column]    rows over their norms
//     strip     [column][query]                           the units of kLanes queries
//     scores    [document][query]                         of a strip: signed similarities
//     slopes    [strip][document][query]                  of the window
//
// As in product.hpp each element is one chain of FMAs in the order of the inner index, cut every 256, so the height of
// a register tile decides no bits.
#ifndef NEGCOS_KERNEL_GROUPS_HPP
#define NEGCOS_KERNEL_GROUPS_HPP

#include "kernel/lanes.hpp"
#include "kernel/plain_softmax.hpp"
#include "work.hpp"

namespace {

using negcos::pad_lanes;
using negcos::Range;

// Rows of a register tile of one vector: as many accumulators as the registers hold beside the operands, and enough for
// the latency of the FMAs.
constexpr int kGroupRows = kParts<float> == 1 ? 12 : kTileRows;

constexpr int64_t kGroupChain = 256;    // steps of a chain of FMAs
constexpr int64_t kGroupSums = 32;      // exps of a query that are added up at a time
constexpr int64_t kGroupRowsAhead = 4;  // rows fetched before they are packed

// body(a constant of the height).
template <int kRows = kGroupRows, class Body>
[[gnu::always_inline]] inline void with_rows(int64_t rows, Body&& body) {
    if (rows == kRows)
        body(Constant<kRows>());
    else if constexpr (kRows > 1)
        with_rows<kRows - 1>(rows, body);
}

// body(first row, a constant of the height) over tiles of `rows` rows, the last two of similar height.
template <class Body>
[[gnu::always_inline]] inline void each_tile(Range rows, Body&& body) {
    for (int64_t r = rows.begin; r < rows.end;) {
        const int64_t left = rows.end - r;
        const int64_t height = left <= kGroupRows ? left : left < 2 * kGroupRows ? (left + 1) / 2 : kGroupRows;
        with_rows(
            height, [&](auto constant) __attribute__((always_inline)) { body(r, constant); });
        r += height;
    }
}

template <int kRows, class T>
struct GroupTile {
    Lanes<T> sum[kRows];

    [[gnu::always_inline]] void clear() {
#pragma GCC unroll 16
        for (int m = 0; m < kRows; ++m) sum[m] = broadcast(T(0));
    }
    [[gnu::always_inline]] void step(const T* a, int64_t row, const T* b) {
        const Lanes<T> right = load(b);
#pragma GCC unroll 16
        for (int m = 0; m < kRows; ++m) {
            const Lanes<T> left = broadcast(a[m * row]);
            NEGCOS_EACH_PART(T) add_product(sum[m].part[p], left.part[p], right.part[p]);
        }
    }
    // Row m's numbers lie side by side, kLanes of them in each of `groups` that are a_group apart.
    [[gnu::always_inline]] void add_groups(const T* a, int64_t a_group, int64_t groups, const T* b) {
        for (; groups > 0; --groups, a += a_group) {
            const T* left = a;
            for (int l = 0; l < kLanes<T>; l += 4) {
#pragma GCC unroll 4
                for (int u = 0; u < 4; ++u) step(left + u, kLanes<T>, b + u * kLanes<T>);
                left += 4;
                b += 4 * kLanes<T>;
            }
        }
    }
    // The rows' numbers lie side by side, steps are kLanes apart; steps: a multiple of 4.
    [[gnu::always_inline]] void add_steps(const T* a, int64_t steps, const T* b) {
        for (; steps > 0; steps -= 4) {
#pragma GCC unroll 4
            for (int u = 0; u < 4; ++u) step(a + u * kLanes<T>, 1, b + u * kLanes<T>);
            a += 4 * kLanes<T>;
            b += 4 * kLanes<T>;
        }
    }
    [[gnu::always_inline]] void add(const T* from) {
#pragma GCC unroll 16
        for (int m = 0; m < kRows; ++m) sum[m] = load(from + m * kLanes<T>) + sum[m];
    }
    [[gnu::always_inline]] void put(T* to) const {
#pragma GCC unroll 16
        for (int m = 0; m < kRows; ++m) store(to + m * kLanes<T>, sum[m]);
    }
};

// Where everything is in a worker's scratch.
template <class T>
struct GroupLayout {
    int64_t blocks, padded, stride, strips;  // blocks of columns; rows, to whole strips; rows of a block, an odd number
    int64_t units, slopes, elements;

    GroupLayout(int64_t dim, int64_t size)
        : blocks(pad_lanes<T>(dim) / kLanes<T>),
          padded(pad_lanes<T>(size)),
          stride(padded + 1),
          strips(padded / kLanes<T>),
          units(blocks * stride * kLanes<T>),
          slopes(strips * stride * kLanes<T>),
          elements(2 * units + slopes + blocks * kLanes<T> * kLanes<T> + (2 * kLanes<T> + 8) * padded) {}
};

// The documents that the last full window and the one that reaches back have in common: their gradient begins in the
// first and ends in the second.
enum class Shared { none, begin, end };

template <class E>
class GroupWindow {
    using T = Working<E>;

public:
    GroupWindow(const negcos::Groups<E>& t, T* scratch)
        : t_(t), softmax_(t.terms), at_(t.dim, t.deal.size), size_(t.deal.size), writer_(t.outputs) {
        const auto take = [&](int64_t count) {
            T* result = scratch;
            scratch += count;
            return result;
        };
        query_units_ = take(at_.units);
        document_units_ = take(at_.units);
        slopes_ = take(at_.slopes);
        strip_ = take(at_.blocks * kLanes<T> * kLanes<T>);
        scores_ = take(at_.padded * kLanes<T>);
        moments_ = take(at_.padded * kLanes<T>);
        const auto take_side = [&](Side& side) {
            side.size = take(at_.padded);
            side.along = take(at_.padded);
            side.gradient = reinterpret_cast<E**>(take(at_.padded * kPointer));
        };
        take_side(queries_);
        take_side(documents_);
    }

    // The window that begins at a place; its queries are those from `first` on.
    void run(int64_t begin, int64_t first, Shared shared) {
        const int32_t* places = t_.deal.query + begin;
        pack(t_.documents, t_.outputs.grad_documents, places, size_, document_units_, documents_);
        pack(t_.queries, t_.outputs.grad_queries, places + first, size_ - first, query_units_, queries_);
        const bool documents = t_.outputs.grad_documents.data, queries = t_.outputs.grad_queries.data;
        for (int64_t s = 0; s * kLanes<T> < size_ - first; ++s) {
            find_scores(s);
            close_strip(s, places, first);
        }
        if (!documents && !queries) return;
        if (documents) close_documents(shared);
        const int64_t rows = size_ - first, common = size_ - t_.deal.batch % size_;
        for (int64_t b = 0; b < at_.blocks; ++b) {
            if (queries)
                for (int64_t s = 0; s * kLanes<T> < rows; ++s) query_gradient(b, s, rows);
            if (!documents) continue;
            // The common documents are the first ones of the window that reaches back, and the last of the one before.
            if (shared == Shared::begin) {
                document_gradient(b, {0, size_ - common}, rows, Shared::none);
                document_gradient(b, {size_ - common, size_}, rows, Shared::begin);
            } else if (shared == Shared::end) {
                document_gradient(b, {0, common}, rows, Shared::end);
                document_gradient(b, {common, size_}, rows, Shared::none);
            } else {
                document_gradient(b, {0, size_}, rows, Shared::none);
            }
        }
    }

    negcos::Totals totals() {
        writer_.flush(totals_);
        return totals_;
    }

private:
    // Of the window's queries or documents: where their gradients go, what these have of the rows themselves, and what
    // they are multiplied by: size, or where that product is no ordinary number, its factors one after another.
    struct Side {
        const int32_t* row;
        const negcos::Rows<E>* rows;
        E** gradient;
        T *along, *size;
        bool ordinary;  // all sizes are
    };
    static constexpr int64_t kPointer = 8 / sizeof(T);  // elements

    // No digit is lost by it, and no product of it overflows that would not by its factors.
    static bool is_ordinary(T size) {
        const T magnitude = size < 0 ? -size : size;
        constexpr T kMost = static_cast<T>(sizeof(T) == 4 ? 0x1p60 : 0x1p500);
        return size == 0 || (magnitude > 1 / kMost && magnitude < kMost);
    }

    // n rows over their norms, then zeros to whole strips.
    void pack(const negcos::Rows<E>& rows, const negcos::Output<E>& gradient, const int32_t* places, int64_t n,
              T* units, Side& side) {
        side.row = places;
        side.rows = &rows;
        side.ordinary = true;
        const auto fetch = [&](int64_t r) {
            const char* row = reinterpret_cast<const char*>(rows.data + places[r] * rows.stride);
            for (int64_t k = 0; k < t_.dim * static_cast<int64_t>(sizeof(E)); k += 64) __builtin_prefetch(row + k);
        };
        for (int64_t r = 0; r < n && r < kGroupRowsAhead; ++r) fetch(r);
        const int64_t block = at_.stride * kLanes<T>, whole = t_.dim / kLanes<T>;
        const int rest = static_cast<int>(t_.dim % kLanes<T>);
        for (int64_t r = 0; r < n; ++r) {
            if (r + kGroupRowsAhead < n) fetch(r + kGroupRowsAhead);
            const int64_t i = places[r];
            const E* row = rows.data + i * rows.stride;
            const T one_over_norm = rows.inverse[i], rescale = rows.rescale[i];
            side.size[r] =
                static_cast<T>(t_.terms.factor * static_cast<double>(one_over_norm) * static_cast<double>(rescale));
            side.ordinary = side.ordinary && is_ordinary(side.size[r]);
            side.along[r] = rows.above_floor[i];
            if (gradient.data) side.gradient[r] = gradient.data + i * gradient.stride;
            const Lanes<T> s = broadcast(rescale), inverse = broadcast(one_over_norm);
            T* unit = units + r * kLanes<T>;
            for (int64_t b = 0; b < whole; ++b, unit += block) store(unit, load(row + b * kLanes<T>) * s * inverse);
            if (rest > 0)
                store(unit, select_less(lane_indices<T>(), broadcast(static_cast<T>(rest)),
                                        load_first(row + whole * kLanes<T>, rest) * s * inverse, broadcast(T(0))));
        }
        for (int64_t r = n; r < at_.padded; ++r)
            for (int64_t b = 0; b < at_.blocks; ++b) store(units + b * block + r * kLanes<T>, broadcast(T(0)));
    }

    // Signed similarities of kLanes queries with all documents.
    void find_scores(int64_t s) {
        const int64_t block = at_.stride * kLanes<T>;
        for (int64_t b = 0; b < at_.blocks; ++b) {
            const T* unit = query_units_ + b * block + s * kLanes<T> * kLanes<T>;
            T* column = strip_ + b * kLanes<T> * kLanes<T>;
            for (int l = 0; l < kLanes<T>; ++l)
                for (int c = 0; c < kLanes<T>; ++c) column[c * kLanes<T> + l] = unit[l * kLanes<T> + c] * softmax_.sign;
        }
        constexpr int64_t kBlocks = kGroupChain / kLanes<T>;
        for (int64_t b = 0; b == 0 || b < at_.blocks; b += kBlocks) {
            const int64_t count = at_.blocks - b < kBlocks ? at_.blocks - b : kBlocks;
            each_tile(
                {0, size_}, [&](int64_t j, auto constant) __attribute__((always_inline)) {
                    GroupTile<decltype(constant)::value, T> tile;
                    tile.clear();
                    tile.add_groups(document_units_ + b * block + j * kLanes<T>, block, count,
                                    strip_ + b * kLanes<T> * kLanes<T>);
                    if (b > 0) tile.add(scores_ + j * kLanes<T>);
                    tile.put(scores_ + j * kLanes<T>);
                });
        }
    }

    // A number of each query of a strip.
    struct Numbers {
        alignas(64) T lane[kLanes<T>];
    };

    // The softmax of a strip: losses, and the slopes of its edges.
    void close_strip(int64_t s, const int32_t* places, int64_t first) {
        const int64_t begin = s * kLanes<T>;
        const int64_t left = size_ - first - begin;
        const int live = left < kLanes<T> ? static_cast<int>(left) : kLanes<T>;
        // Where in the window each query's own document is.
        T* const own_score = scores_ + (first + begin) * kLanes<T>;
        const auto own_at = [](int l) { return l * kLanes<T> + l; };

        Numbers own{}, top, positive_exp, sum, moment, rank, share{}, own_slope;
        for (int l = 0; l < live; ++l) own.lane[l] = own_score[own_at(l)];
        if (t_.outputs.logits.data) write_logits(places + first + begin, first + begin, live);
        // exp of it is 0, and whether it outranks itself is taken back.
        for (int l = 0; l < live; ++l) own_score[own_at(l)] = kAbsent<T>;
        find_exps(s, own, top, positive_exp, sum, moment, rank);
        for (int l = 0; l < live; ++l) {
            own_score[own_at(l)] = own.lane[l];
            Sums negatives;
            negatives.sum = static_cast<double>(sum.lane[l]);
            negatives.moment = static_cast<double>(moment.lane[l]) / softmax_.exact_size;
            const auto closed = softmax_.close(softmax_.sign * own.lane[l], top.lane[l], negatives, t_.terms.row_weight,
                                               static_cast<double>(positive_exp.lane[l]));
            const int64_t outranked_by = static_cast<int64_t>(rank.lane[l]);
            totals_.grad_scale.add(closed.grad_scale);
            totals_.rank_zero += outranked_by == 0;
            totals_.reciprocal_rank.add(1.0 / (1.0 + static_cast<double>(outranked_by)));
            writer_.add(places[first + begin + l], 1, closed.row, totals_);
            share.lane[l] = static_cast<T>(closed.share);
            own_slope.lane[l] = static_cast<T>(closed.positive_slope);
            T& along = queries_.along[begin + l];
            along = along != 0 ? static_cast<T>(-closed.grad_scale) : T(0);
        }
        if (!t_.outputs.grad_documents.data && !t_.outputs.grad_queries.data) return;
        find_slopes(s, share, live);
        T* const own_slopes = slopes_ + (s * at_.stride + first + begin) * kLanes<T>;
        T* const own_moments = moments_ + (first + begin) * kLanes<T>;
        for (int l = 0; l < live; ++l) {
            own_slopes[own_at(l)] = own_slope.lane[l];
            own_moments[own_at(l)] += own_slope.lane[l] * own.lane[l];
        }
    }

    void write_logits(const int32_t* queries, int64_t own, int live) const {
        const T size = softmax_.sign * softmax_.factor;
        for (int l = 0; l < live; ++l) {
            E* out = t_.outputs.logits.data + queries[l] * t_.outputs.logits.stride;
            *out++ = to_element<E>(size * scores_[(own + l) * kLanes<T> + l]);
            for (int64_t j = 0; j < size_; ++j)
                if (j != own + l) *out++ = to_element<E>(size * scores_[j * kLanes<T> + l]);
        }
    }

    // exps of a strip in the place of slopes, relative to each query's top, and their sums.
    [[gnu::flatten]] void find_exps(int64_t s, const Numbers& own, Numbers& top_of, Numbers& positive_exp,
                                    Numbers& sum_of, Numbers& moment_of, Numbers& rank_of) {
        const Lanes<T> sizes = broadcast(softmax_.size), factors = broadcast(softmax_.sign * softmax_.factor);
        const Lanes<T> zero = broadcast(T(0)), one = broadcast(T(1));
        const Lanes<T> positive = load(static_cast<const T*>(own.lane)), threshold = factors * positive;
        const T* scores = scores_;
        T* slopes = slopes_ + s * at_.stride * kLanes<T>;
        Lanes<T> top = positive, other = positive;
        int64_t k = 0;
        for (; k + 2 <= size_; k += 2) {
            top = larger(top, load(scores + k * kLanes<T>));
            other = larger(other, load(scores + (k + 1) * kLanes<T>));
        }
        if (k < size_) top = larger(top, load(scores + k * kLanes<T>));
        top = larger(top, other);
        Lanes<T> sum = zero, moment = zero;
        Lanes<T> rank = zero - select_less(broadcast(kAbsent<T>) * factors, threshold, zero, one);
        for (int64_t from = 0; from < size_; from += kGroupSums) {
            const int64_t to = size_ - from < kGroupSums ? size_ : from + kGroupSums;
            Lanes<T> sums = zero, moments = zero;
            for (int64_t j = from; j < to; ++j) {
                const Lanes<T> a = load(scores + j * kLanes<T>);
                Lanes<T> held;
                const Lanes<T> e = exp_nonpositive((a - top) * sizes, held);
                store(slopes + j * kLanes<T>, e);
                sums = sums + e;
                moments = multiply_add(e, held, moments);
                rank = rank + select_less(a * factors, threshold, zero, one);
            }
            sum = sum + sums;
            moment = moment + moments;
        }
        store(static_cast<T*>(top_of.lane), top);
        store(static_cast<T*>(positive_exp.lane), exp_nonpositive((positive - top) * sizes));
        store(static_cast<T*>(sum_of.lane), sum);
        store(static_cast<T*>(moment_of.lane), moment);
        store(static_cast<T*>(rank_of.lane), rank);
    }

    // exps become slopes: 0 where there is no query; and for each document their sum times similarities, a lane each.
    void find_slopes(int64_t s, const Numbers& share, int live) {
        const Lanes<T> shares = load(static_cast<const T*>(share.lane)), zero = broadcast(T(0));
        const Lanes<T> lane = lane_indices<T>(), lives = broadcast(static_cast<T>(live));
        T* slopes = slopes_ + s * at_.stride * kLanes<T>;
        for (int64_t j = 0; j < size_; ++j) {
            Lanes<T> w = load(static_cast<const T*>(slopes) + j * kLanes<T>) * shares;
            Lanes<T> a = load(static_cast<const T*>(scores_) + j * kLanes<T>);
            if (live < kLanes<T>) w = select_less(lane, lives, w, zero), a = select_less(lane, lives, a, zero);
            store(slopes + j * kLanes<T>, w);
            T* total = moments_ + j * kLanes<T>;
            store(total, multiply_add(w, a, s > 0 ? load(static_cast<const T*>(total)) : zero));
        }
        for (int64_t j = size_; j % 4 != 0; ++j) store(slopes + j * kLanes<T>, zero);
    }

    // What each document's gradient has along its own row.
    void close_documents(Shared shared) {
        const int64_t common = size_ - t_.deal.batch % size_;
        for (int64_t j = size_; j < size_ + (4 - size_ % 4) % 4; ++j) store(moments_ + j * kLanes<T>, broadcast(T(0)));
        for (int64_t j = 0; j < size_; j += 4) {
            const auto of = [&](int64_t k) { return load(static_cast<const T*>(moments_) + (j + k) * kLanes<T>); };
            T sums[4];
            sum_four(of(0), of(1), of(2), of(3), static_cast<T*>(sums));
            for (int64_t k = 0; k < 4 && j + k < size_; ++k) {
                T moment = sums[k];
                if (shared == Shared::begin && j + k >= size_ - common)
                    t_.common_moments[j + k - (size_ - common)] = moment;
                if (shared == Shared::end && j + k < common) moment = t_.common_moments[j + k] + moment;
                T& along = documents_.along[j + k];
                along = along != 0 ? -softmax_.sign * moment : T(0);
            }
        }
    }

    // Of the queries of a strip, in a block of columns.
    void query_gradient(int64_t b, int64_t s, int64_t rows) {
        const int64_t begin = s * kLanes<T>, end = rows - begin < kLanes<T> ? rows : begin + kLanes<T>;
        const T* documents = document_units_ + b * at_.stride * kLanes<T>;
        each_tile(
            {begin, end}, [&](int64_t r, auto constant) __attribute__((always_inline)) {
                GroupTile<decltype(constant)::value, T> tile;
                const T* slopes = slopes_ + s * at_.stride * kLanes<T> + (r - begin);
                fetch_rows<decltype(constant)::value>(queries_, r, b);
                add_up(
                    tile, (size_ + 3) / 4 * 4,
                    kGroupChain, [&](int64_t k, int64_t steps) __attribute__((always_inline)) {
                        tile.add_steps(slopes + k * kLanes<T>, steps, documents + k * kLanes<T>);
                    });
                finish(tile, query_units_, queries_, r, b);
            });
    }

    // Of some documents, in a block of columns.
    void document_gradient(int64_t b, Range range, int64_t rows, Shared shared) {
        constexpr int64_t kStrips = kGroupChain / kLanes<T>;
        const T* queries = query_units_ + b * at_.stride * kLanes<T>;
        each_tile(
            range, [&](int64_t j, auto constant) __attribute__((always_inline)) {
                GroupTile<decltype(constant)::value, T> tile;
                const T* slopes = slopes_ + j * kLanes<T>;
                fetch_rows<decltype(constant)::value>(documents_, j, b);
                add_up(
                    tile, pad_lanes<T>(rows) / kLanes<T>,
                    kStrips, [&](int64_t s, int64_t strips) __attribute__((always_inline)) {
                        tile.add_groups(slopes + s * at_.stride * kLanes<T>, at_.stride * kLanes<T>, strips,
                                        queries + s * kLanes<T> * kLanes<T>);
                    });
                T* common = t_.common + (b * size_ + j - range.begin) * kLanes<T>;
                if (shared == Shared::begin) return tile.put(common);
                if (shared == Shared::end) tile.add(common);
                finish(tile, document_units_, documents_, j, b);
            });
    }

    template <int kRows>
    [[gnu::always_inline]] static void fetch_rows(const Side& side, int64_t r, int64_t b) {
#pragma GCC unroll 16
        for (int m = 0; m < kRows; ++m) __builtin_prefetch(side.gradient[r + m] + b * kLanes<T>, 1);
    }

    // steps in chains of `most`.
    template <int kRows, class Chain>
    [[gnu::always_inline]] static void add_up(GroupTile<kRows, T>& tile, int64_t steps, int64_t most, Chain&& chain) {
        tile.clear();
        chain(0, steps < most ? steps : most);
        for (int64_t k = most; k < steps; k += most) {
            alignas(64) T before[kRows * kLanes<T>];
            tile.put(before);
            tile.clear();
            chain(k, steps - k < most ? steps - k : most);
            tile.add(before);
        }
    }

    // The derivative of each row's norm, and the rows into the caller's matrix: as store_gradient().
    template <int kRows>
    [[gnu::always_inline]] void finish(const GroupTile<kRows, T>& tile, const T* units, const Side& side, int64_t r,
                                       int64_t b) const {
        const T* unit = units + (b * at_.stride + r) * kLanes<T>;
        const int64_t left = t_.dim - b * kLanes<T>;
#pragma GCC unroll 16
        for (int m = 0; m < kRows; ++m) {
            Lanes<T> x = multiply_add(broadcast(side.along[r + m]), load(unit + m * kLanes<T>), tile.sum[m]);
            if (side.ordinary || is_ordinary(side.size[r + m])) [[likely]] {
                x = x * broadcast(side.size[r + m]);
            } else {
                const int64_t i = side.row[r + m];
                x = x * broadcast(side.rows->inverse[i]) * broadcast(softmax_.factor) *
                    broadcast(side.rows->rescale[i]);
            }
            E* out = side.gradient[r + m] + b * kLanes<T>;
            if (left >= kLanes<T>) [[likely]]
                store(out, one_nan(x));
            else
                store_first(out, one_nan(x), static_cast<int>(left));
        }
    }

    const negcos::Groups<E>& t_;
    const PlainSoftmax<T> softmax_;
    const GroupLayout<T> at_;
    const int64_t size_;
    LossWriter<E, PlainRow> writer_;
    negcos::Totals totals_;
    T *query_units_, *document_units_, *slopes_, *strip_, *scores_, *moments_;
    Side queries_, documents_;
};

template <class T>
int64_t groups_scratch(int64_t dim, int64_t size) noexcept {
    return GroupLayout<T>(dim, size).elements;
}

// Full windows, the last of all with the one that reaches back.
template <class E>
negcos::Totals groups_windows(const negcos::Groups<E>& t, Range windows, Working<E>* scratch) noexcept {
    GroupWindow<E> window(t, scratch);
    const int64_t size = t.deal.size, batch = t.deal.batch, rest = batch % size;
    for (int64_t w = windows.begin; w < windows.end; ++w) {
        const bool reaches_back = rest > 0 && w + 1 == batch / size;
        window.run(w * size, 0, reaches_back ? Shared::begin : Shared::none);
        if (reaches_back) window.run(batch - size, size - rest, Shared::end);
    }
    return window.totals();
}

}  // namespace

#endif
