// SPDX-License-Identifier: Apache-2.0
//
// The loss written again from its formulas, slowly and in a wider type, with the candidates as explicit lists. Nothing
// here comes from the library.
#ifndef NEGCOS_TESTS_ORACLE_HPP
#define NEGCOS_TESTS_ORACLE_HPP

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "negcos/negcos.h"

#if defined(__SIZEOF_FLOAT128__) && __has_include(<quadmath.h>)
#include <quadmath.h>
#define NEGCOS_ORACLE_QUADMATH 1
#endif

namespace oracle {

// 113 bits of mantissa where the compiler has them: __float128 on x86, long double itself on others; else long double.
#ifdef NEGCOS_ORACLE_QUADMATH
__extension__ typedef __float128 Quad;
#else
using Quad = long double;
#endif

namespace math {
using std::exp;
using std::log;
using std::log1p;
using std::sqrt;
#ifdef NEGCOS_ORACLE_QUADMATH
inline Quad exp(Quad x) {
    return expq(x);
}
inline Quad log(Quad x) {
    return logq(x);
}
inline Quad log1p(Quad x) {
    return log1pq(x);
}
inline Quad sqrt(Quad x) {
    return sqrtq(x);
}
#endif
}  // namespace math

// double is wide enough to judge f32; f64 needs more.
template <class T>
struct WiderOf {
    using type = double;
};
template <>
struct WiderOf<double> {
    using type = long double;
};
template <class T>
using Wider = typename WiderOf<T>::type;

// What a call is given. Matrices are contiguous; what is empty is absent.
template <class T>
struct Inputs {
    int64_t batch = 0, count = 0, dim = 0, hard_per_query = 0;
    std::vector<T> queries, documents, hard;  // B x d, M x d, (B*H) x d
    std::vector<int32_t> negatives;           // B x rounds, drawn or given, -1 = absent; ignored with ALL
    std::vector<int64_t> positives, document_ids, query_ids;
    std::vector<double> log_probability, weights;
};

template <class W>
struct Result {
    W loss = 0, grad_scale = 0, grad_bias = 0, accuracy = 0, mean_reciprocal_rank = 0;
    int64_t excluded = 0, zero_rows = 0;
    std::vector<W> losses, hit_probability, logits;  // logits: B x slots, -Inf where absent or dropped; empty for ALL
    std::vector<W> grad_queries, grad_documents, grad_hard;
    // Of each query (the last prefix's): its candidates, positive first, -1 = absent, hard negatives as rows after the
    // documents; their similarities; d loss / d z.
    std::vector<std::vector<int64_t>> candidates;
    std::vector<std::vector<W>> similarities, slopes;

    // What tolerances are made of. The absolute values of what each gradient was summed up from, a cosine in it taken
    // as 1; of loss_i by all its logits, the largest of any i.
    std::vector<double> query_terms, document_terms, hard_terms;
    double scale_terms = 0, bias_terms = 0, loss_terms = 0;
    // How far the nearest decision was from falling the other way: a similarity that is dropped or left by
    // false_negative_margin, a logit above or below its positive's. Exact ties do not count.
    W drop_clearance = static_cast<W>(HUGE_VAL), rank_clearance = drop_clearance;
};

// The first `dim` columns of a matrix's rows: their norms, and the rows over them. With DOT each norm counts as 1.
template <class W>
class Rows {
public:
    Rows(const negcos_options& options, int64_t dim) : options_(options), dim_(dim) {}
    template <class T>
    void append(const std::vector<T>& matrix, int64_t rows, int64_t stride) {
        for (int64_t i = 0; i < rows; ++i) {
            const size_t start = units_.size();
            W sum = 0;
            for (int64_t c = 0; c < dim_; ++c) {
                units_.push_back(static_cast<W>(matrix[static_cast<size_t>(i * stride + c)]));
                sum += units_.back() * units_.back();
            }
            norms_.push_back(cosine() ? math::sqrt(sum) : W(1));
            const W over = divisor(static_cast<int64_t>(norms_.size()) - 1);
            for (size_t k = start; k < units_.size(); ++k) units_[k] /= over;
        }
    }
    bool is_zero(int64_t i) const { return norms_[static_cast<size_t>(i)] == 0; }
    int64_t zeros() const { return std::count(norms_.begin(), norms_.end(), W(0)); }
    W divisor(int64_t i) const {
        const W norm = norms_[static_cast<size_t>(i)];
        return is_zero(i) ? W(1) : below_floor(i) ? static_cast<W>(options_.norm_floor) : norm;
    }
    // 1 where the divisor is the row's norm, and moves with it.
    W moves(int64_t i) const { return cosine() && !below_floor(i) ? W(1) : W(0); }
    const W* unit(int64_t i) const { return units_.data() + i * dim_; }

private:
    bool cosine() const { return options_.similarity == NEGCOS_SIMILARITY_COSINE; }
    bool below_floor(int64_t i) const {
        return cosine() && norms_[static_cast<size_t>(i)] < static_cast<W>(options_.norm_floor);
    }

    const negcos_options& options_;
    int64_t dim_;
    std::vector<W> units_, norms_;
};

// The first `dim` columns of the queries, and of the documents with the hard negatives after them.
template <class W>
struct Prefix {
    int64_t dim;
    Rows<W> queries, rows;

    template <class T>
    Prefix(const negcos_options& options, const Inputs<T>& inputs, int64_t columns)
        : dim(columns), queries(options, columns), rows(options, columns) {
        queries.append(inputs.queries, inputs.batch, inputs.dim);
        rows.append(inputs.documents, inputs.count, inputs.dim);
        rows.append(inputs.hard, inputs.batch * inputs.hard_per_query, inputs.dim);
    }
    W similarity(int64_t i, int64_t j) const {
        W dot = 0;  // of a zero row: 0
        for (int64_t c = 0; c < dim; ++c) dot += queries.unit(i)[c] * rows.unit(j)[c];
        return dot;
    }
};

// A query and a row that one list compares, the list's positive first.
template <class W>
struct Candidate {
    int64_t query, row;  // row: -1 = absent
    bool left;           // neither absent nor dropped
    W similarity, logit;
    W slope = 0, terms = 0;  // d loss / d logit of the list's loss, and the absolute values that it is a sum of
};

// As published, the temperature cancels.
inline double temperature_of(const negcos_options& o) {
    return o.objective == NEGCOS_OBJECTIVE_BATCH_SOFTMAX ? 1 : o.temperature;
}

template <class T, class W>
class Evaluation {
    using List = std::vector<Candidate<W>>;

public:
    // held: what the stopped gradient of hardness is stopped at.
    Evaluation(const negcos_options& options, const Inputs<T>& inputs, const Inputs<T>& held)
        : o_(options), in_(inputs), held_(held) {
        for (int64_t i = 0; i < in_.batch; ++i)
            if (!in_.query_ids.empty()) ids_of_positives_.insert({in_.query_ids[at(i)], positive(i)});
        W total = 0;
        for (int64_t i = 0; i < in_.batch; ++i) total += weight(i);
        for (int64_t i = 0; i < in_.batch; ++i)
            weights_.push_back(total == 0                              ? W(0)
                               : o_.reduction == NEGCOS_REDUCTION_MEAN ? weight(i) / total
                                                                       : weight(i));
    }

    Result<W> run() {
        const size_t batch = at(in_.batch);
        losses_terms_.assign(batch, 0);
        out_.losses.assign(batch, W(0));
        out_.grad_queries.assign(in_.queries.size(), W(0));
        out_.query_terms.assign(in_.queries.size(), 0);
        rows_gradient_.assign(in_.documents.size() + in_.hard.size(), W(0));
        rows_terms_.assign(rows_gradient_.size(), 0);
        if (o_.prefix_count == 0) add_prefix(in_.dim, W(1), true);
        for (int32_t p = 0; p < o_.prefix_count; ++p)
            add_prefix(o_.prefix_dims[p], o_.prefix_weights ? static_cast<W>(o_.prefix_weights[p]) : W(1),
                       p + 1 == o_.prefix_count);

        for (size_t i = 0; i < batch; ++i) {
            out_.loss += weights_[i] * out_.losses[i];
            out_.hit_probability.push_back(math::exp(-out_.losses[i]));
            out_.loss_terms = std::max(out_.loss_terms, losses_terms_[i]);
        }
        const auto split = [&](const auto& rows, auto& documents, auto& hard) {
            const auto border = rows.begin() + static_cast<ptrdiff_t>(in_.documents.size());
            documents.assign(rows.begin(), border);
            hard.assign(border, rows.end());
        };
        split(rows_gradient_, out_.grad_documents, out_.grad_hard);
        split(rows_terms_, out_.document_terms, out_.hard_terms);
        return std::move(out_);
    }

private:
    static size_t at(int64_t i) { return static_cast<size_t>(i); }
    static W absolute(W x) { return x < 0 ? -x : x; }
    bool batch_softmax() const { return o_.objective == NEGCOS_OBJECTIVE_BATCH_SOFTMAX; }
    W temperature() const { return static_cast<W>(temperature_of(o_)); }
    W scale() const { return static_cast<W>(o_.scale) / temperature(); }
    W weight(int64_t i) const { return in_.weights.empty() ? W(1) : static_cast<W>(in_.weights[at(i)]); }
    int64_t positive(int64_t i) const { return in_.positives.empty() ? i : in_.positives[at(i)]; }
    W log_probability(int64_t j) const {  // hard negatives have none
        return in_.log_probability.empty() || j >= in_.count ? W(0) : static_cast<W>(in_.log_probability[at(j)]);
    }
    bool both() const { return o_.direction == NEGCOS_DIRECTION_BOTH; }
    bool all() const { return o_.sampling == NEGCOS_SAMPLING_ALL; }

    // Whether document j is no negative of query i by its ids. Seen from document j, whose positive is query j, it is
    // query i that is no negative of it: the same pairs.
    bool same_id(int64_t i, int64_t j) const {
        if (j >= in_.count) return false;
        return ((o_.exclude & NEGCOS_EXCLUDE_SAME_DOCUMENT_ID) != 0 &&
                in_.document_ids[at(j)] == in_.document_ids[at(positive(i))]) ||
               ((o_.exclude & NEGCOS_EXCLUDE_SAME_QUERY_ID) != 0 &&
                ids_of_positives_.count({in_.query_ids[at(i)], j}) != 0);
    }

    Candidate<W> positive_of(const Prefix<W>& prefix, int64_t i, int64_t j) const {
        const W s = prefix.similarity(i, j);
        const bool corrected = o_.correction == NEGCOS_CORRECTION_ALL_CANDIDATES;
        return {i, j, true, s, scale() * (s - static_cast<W>(o_.margin)) - (corrected ? log_probability(j) : W(0))};
    }

    void push_negative(List& list, const Prefix<W>& prefix, const Prefix<W>& held, int64_t i, int64_t j) {
        if (j < 0) return list.push_back({i, j, false, W(0), W(0)});
        const W s = prefix.similarity(i, j), most = list[0].similarity + static_cast<W>(o_.false_negative_margin);
        const W hardness = static_cast<W>(o_.hardness) * (o_.hardness != 0 ? held.similarity(i, j) : W(0));
        if (s != most) out_.drop_clearance = std::min(out_.drop_clearance, absolute(s - most));
        list.push_back({i, j, !same_id(i, j) && !(s > most), s, scale() * s + hardness - log_probability(j)});
    }

    List row_list(const Prefix<W>& prefix, const Prefix<W>& held, int64_t i) {
        List list{positive_of(prefix, i, positive(i))};
        if (all())
            for (int64_t j = 0; j < in_.count; ++j) {
                if (j != positive(i)) push_negative(list, prefix, held, i, j);
            }
        else
            for (int64_t r = 0; r < o_.rounds; ++r)
                push_negative(list, prefix, held, i, in_.negatives.empty() ? -1 : in_.negatives[at(i * o_.rounds + r)]);
        for (int64_t h = 0; h < in_.hard_per_query; ++h)
            push_negative(list, prefix, held, i, in_.count + i * in_.hard_per_query + h);
        return list;
    }

    // Document j and all queries.
    List column_list(const Prefix<W>& prefix, const Prefix<W>& held, int64_t j) {
        List list{positive_of(prefix, j, j)};
        for (int64_t i = 0; i < in_.batch; ++i)
            if (i != j) push_negative(list, prefix, held, i, j);
        return list;
    }

    // -log sigma(-x), and sigma(x).
    static W softplus(W x) { return (x > 0 ? x : W(0)) + math::log1p(math::exp(-absolute(x))); }
    static W sigma(W x) { return x > 0 ? 1 / (1 + math::exp(-x)) : math::exp(x) / (1 + math::exp(x)); }

    // These return the loss of a list, and leave its slopes there.
    W sigmoid(List& list) const {
        W loss = 0;
        for (size_t k = 0; k < list.size(); ++k) {
            if (!list[k].left) continue;
            const W sign = static_cast<W>(k == 0 ? -1 : 1), x = sign * (list[k].logit + static_cast<W>(o_.bias));
            loss += softplus(x);
            list[k].terms = sigma(x);
            list[k].slope = sign * list[k].terms;
        }
        return loss;
    }

    W softmax(List& list) const {
        const bool decoupled = o_.objective == NEGCOS_OBJECTIVE_DECOUPLED;
        W top = decoupled ? -static_cast<W>(HUGE_VAL) : list[0].logit, others = 0;
        int64_t left = 0;
        for (size_t k = 1; k < list.size(); ++k)
            if (list[k].left) top = std::max(top, list[k].logit), ++left;
        if (decoupled && left == 0) return 0;
        for (size_t k = 1; k < list.size(); ++k)
            if (list[k].left) others += math::exp(list[k].logit - top);
        const W own = decoupled ? W(0) : math::exp(list[0].logit - top), total = own + others;
        const W smoothing = static_cast<W>(o_.label_smoothing), share = smoothing / static_cast<W>(left + 1);
        W loss = !decoupled && list[0].logit == top ? math::log1p(others) : top - list[0].logit + math::log(total);
        list[0].slope = -others / total + (smoothing - share);
        list[0].terms = others / total + (smoothing - share);
        for (size_t k = 1; k < list.size(); ++k) {
            if (!list[k].left) continue;
            if (smoothing > 0) loss += share * (list[0].logit - list[k].logit);
            list[k].slope = math::exp(list[k].logit - top) / total - share;
            list[k].terms = math::exp(list[k].logit - top) / total + share;
        }
        return loss;
    }

    W loss_of(List& list) const { return o_.objective == NEGCOS_OBJECTIVE_SIGMOID ? sigmoid(list) : softmax(list); }

    // As published: the positives over the batch. Slopes are those of the total, so `of_prefix` is all they are due.
    void add_batch_softmax(std::vector<List>& lists, const Prefix<W>& prefix, W of_prefix) {
        W top = -static_cast<W>(HUGE_VAL), total = 0, weights = 0;
        for (const List& list : lists) top = std::max(top, list[0].logit);
        for (const List& list : lists) total += math::exp(list[0].logit - top);
        for (const W w : weights_) weights += w;
        for (size_t i = 0; i < lists.size(); ++i) {
            Candidate<W>& own = lists[i][0];
            const W hit = math::exp(own.logit - top) / total;
            out_.losses[i] += of_prefix * (top - own.logit + math::log(total));
            losses_terms_[i] += 2 * static_cast<double>(of_prefix);
            own.slope = weights * hit - weights_[i];
            own.terms = weights * hit + weights_[i];
            add_gradient(own, prefix, of_prefix);
        }
    }

    void add_list(const List& list, const Prefix<W>& prefix, int64_t i, W loss, W due) {
        out_.losses[at(i)] += due * loss;
        for (const Candidate<W>& c : list) {
            losses_terms_[at(i)] += static_cast<double>(due * c.terms);
            if (c.left) add_gradient(c, prefix, due * weights_[at(i)], &c == list.data());
        }
    }

    // By the chain rule from d loss / d logit, `due` times.
    void add_gradient(const Candidate<W>& c, const Prefix<W>& prefix, W due, bool positive = true) {
        const W g = due * c.slope;
        const W per_scale = (c.similarity - (positive ? static_cast<W>(o_.margin) : W(0))) / temperature();
        const double terms = static_cast<double>(due * c.terms);
        out_.grad_scale += g * per_scale;
        out_.scale_terms += terms * std::abs(static_cast<double>(per_scale));
        if (o_.objective == NEGCOS_OBJECTIVE_SIGMOID) out_.grad_bias += g, out_.bias_terms += terms;
        // A zero row has no gradient; the other row's is 0 too, but summed up from similarities that may cancel.
        const bool q_zero = prefix.queries.is_zero(c.query), d_zero = prefix.rows.is_zero(c.row);
        const W *q = prefix.queries.unit(c.query), *d = prefix.rows.unit(c.row);
        const W q_over = prefix.queries.divisor(c.query), q_moves = prefix.queries.moves(c.query);
        const W d_over = prefix.rows.divisor(c.row), d_moves = prefix.rows.moves(c.row);
        const W to_query = q_zero || d_zero ? W(0) : g * scale() / q_over;
        const W to_row = q_zero || d_zero ? W(0) : g * scale() / d_over;
        const double factor = terms * std::abs(static_cast<double>(scale()));
        const double of_query = q_zero ? 0 : factor / static_cast<double>(q_over);
        const double of_row = d_zero ? 0 : factor / static_cast<double>(d_over);
        const W q_along = q_moves * c.similarity, d_along = d_moves * c.similarity;
        for (int64_t k = 0; k < prefix.dim; ++k) {
            const size_t at_query = at(c.query * in_.dim + k), at_row = at(c.row * in_.dim + k);
            out_.grad_queries[at_query] += to_query * (d[k] - q_along * q[k]);
            rows_gradient_[at_row] += to_row * (q[k] - d_along * d[k]);
            const double q_size = std::abs(static_cast<double>(q[k])), d_size = std::abs(static_cast<double>(d[k]));
            out_.query_terms[at_query] += of_query * (d_size + (q_moves != 0 ? q_size : 0));
            rows_terms_[at_row] += of_row * (q_size + (d_moves != 0 ? d_size : 0));
        }
    }

    void add_prefix(int64_t dim, W of_prefix, bool last) {
        const Prefix<W> prefix(o_, in_, dim), held(o_, held_, dim);
        std::vector<List> lists, columns;
        for (int64_t i = 0; i < in_.batch; ++i) lists.push_back(row_list(prefix, held, i));
        for (int64_t j = 0; both() && j < in_.batch; ++j) columns.push_back(column_list(prefix, held, j));
        if (batch_softmax())
            add_batch_softmax(lists, prefix, of_prefix);
        else
            for (std::vector<List>* direction : {&lists, &columns})
                for (size_t i = 0; i < direction->size(); ++i) {
                    List& list = (*direction)[i];
                    const W loss = loss_of(list);
                    add_list(list, prefix, static_cast<int64_t>(i), loss, both() ? of_prefix / 2 : of_prefix);
                }
        if (!last) return;

        out_.zero_rows = prefix.queries.zeros() + prefix.rows.zeros();
        for (const auto* direction : {&lists, &columns})
            for (const List& list : *direction)
                for (const Candidate<W>& c : list) out_.excluded += c.row >= 0 && !c.left;
        for (size_t i = 0; i < lists.size(); ++i)
            describe(lists[i], batch_softmax() ? of_prefix : of_prefix * weights_[i]);
        if (batch_softmax() || in_.batch == 0) out_.accuracy = out_.mean_reciprocal_rank = static_cast<W>(std::nan(""));
    }

    // The list itself, its logits and its rank.
    void describe(const List& list, W due) {
        int64_t rank = 0;
        out_.candidates.emplace_back();
        out_.similarities.emplace_back();
        out_.slopes.emplace_back();
        for (const Candidate<W>& c : list) {
            out_.candidates.back().push_back(c.row);
            out_.similarities.back().push_back(c.similarity);
            out_.slopes.back().push_back(due * c.slope);
            if (!all()) out_.logits.push_back(c.left ? c.logit : -static_cast<W>(HUGE_VAL));
            if (!c.left || c.row == list[0].row) continue;
            rank += !(c.logit < list[0].logit);  // NaN on either side loses
            if (c.logit != list[0].logit)
                out_.rank_clearance = std::min(out_.rank_clearance, absolute(c.logit - list[0].logit));
        }
        out_.accuracy += rank == 0 ? W(1) / static_cast<W>(in_.batch) : W(0);
        out_.mean_reciprocal_rank += W(1) / static_cast<W>(1 + rank) / static_cast<W>(in_.batch);
    }

    const negcos_options& o_;
    const Inputs<T>&in_, &held_;
    std::set<std::pair<int64_t, int64_t>> ids_of_positives_;  // a query's id and its positive
    std::vector<W> weights_;                                  // d loss / d loss_i
    std::vector<W> rows_gradient_;
    std::vector<double> losses_terms_, rows_terms_;
    Result<W> out_;
};

template <class T, class W = Wider<T>>
Result<W> evaluate(const negcos_options& options, const Inputs<T>& inputs, const Inputs<T>& held) {
    return Evaluation<T, W>(options, inputs, held).run();
}
template <class T, class W = Wider<T>>
Result<W> evaluate(const negcos_options& options, const Inputs<T>& inputs) {
    return evaluate<T, W>(options, inputs, inputs);
}

// The loss alone: queries, documents and negatives.
template <class T, class W = Wider<T>>
Result<W> evaluate(const negcos_options& options, const std::vector<T>& queries, const std::vector<T>& documents,
                   int64_t batch, int64_t count, int64_t dim, const std::vector<int32_t>& negatives) {
    Inputs<T> inputs;
    inputs.batch = batch, inputs.count = count, inputs.dim = dim;
    inputs.queries = queries, inputs.documents = documents, inputs.negatives = negatives;
    return evaluate<T, W>(options, inputs);
}

}  // namespace oracle

#endif
