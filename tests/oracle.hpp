// SPDX-License-Identifier: Apache-2.0
//
// The loss written again from its formulas, slowly and in a wider type, with the candidates as explicit lists. Nothing
// here comes from the library.
#ifndef NEGCOS_TESTS_ORACLE_HPP
#define NEGCOS_TESTS_ORACLE_HPP

#include <cmath>
#include <cstdint>
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

template <class W>
struct Result {
    W loss = 0, grad_scale = 0, accuracy = 0, mean_reciprocal_rank = 0;
    int64_t zero_rows = 0;
    std::vector<W> losses, hit_probability, logits;  // logits: B x slots, -Inf where absent; empty for ALL
    std::vector<W> grad_queries, grad_documents;
    // Of each query: its candidates, positive first, -1 = absent; their similarities; d loss / d z.
    std::vector<std::vector<int64_t>> candidates;
    std::vector<std::vector<W>> similarities, slopes;
};

// queries: B x d, documents: M x d, contiguous. negatives: B x rounds, -1 = absent; ignored with ALL.
template <class T, class W = Wider<T>>
Result<W> evaluate(const negcos_options& options, const std::vector<T>& queries, const std::vector<T>& documents,
                   int64_t batch, int64_t count, int64_t dim, const std::vector<int32_t>& negatives) {
    const W infinity = static_cast<W>(HUGE_VAL), nan = static_cast<W>(std::nan(""));
    const bool cosine = options.similarity == NEGCOS_SIMILARITY_COSINE;
    const bool all = options.sampling == NEGCOS_SAMPLING_ALL;
    const W floor = static_cast<W>(options.norm_floor), temperature = static_cast<W>(options.temperature);
    const W scale = static_cast<W>(options.scale);
    const auto row = [dim](const std::vector<T>& m, int64_t i, int64_t c) {
        return static_cast<W>(m[static_cast<size_t>(i * dim + c)]);
    };
    Result<W> result;

    const auto norms = [&](const std::vector<T>& m, int64_t rows) {
        std::vector<W> norm(static_cast<size_t>(rows), W(1));
        for (int64_t i = 0; cosine && i < rows; ++i) {
            W sum = 0;
            for (int64_t c = 0; c < dim; ++c) sum += row(m, i, c) * row(m, i, c);
            norm[static_cast<size_t>(i)] = math::sqrt(sum);
            result.zero_rows += sum == 0;
        }
        return norm;
    };
    const std::vector<W> query_norm = norms(queries, batch), document_norm = norms(documents, count);
    const auto clamped = [&](W norm) { return !cosine ? W(1) : norm < floor ? floor : norm; };
    const auto similarity = [&](int64_t i, int64_t j) {
        const W qn = query_norm[static_cast<size_t>(i)], dn = document_norm[static_cast<size_t>(j)];
        if (cosine && (qn == 0 || dn == 0)) return W(0);
        W dot = 0;
        for (int64_t c = 0; c < dim; ++c) dot += row(queries, i, c) * row(documents, j, c);
        return dot / clamped(qn) / clamped(dn);
    };

    // Candidate lists, the positive first.
    auto& candidates = result.candidates;
    candidates.resize(static_cast<size_t>(batch));
    const int64_t rounds = all ? 0 : options.rounds;
    for (int64_t i = 0; i < batch; ++i) {
        auto& list = candidates[static_cast<size_t>(i)];
        list.push_back(i);
        if (all)
            for (int64_t j = 0; j < count; ++j) {
                if (j != i) list.push_back(j);
            }
        else
            for (int64_t r = 0; r < rounds; ++r)
                list.push_back(negatives.empty() ? -1 : negatives[static_cast<size_t>(i * rounds + r)]);
    }

    const W row_weight = options.reduction == NEGCOS_REDUCTION_MEAN ? W(1) / static_cast<W>(batch) : W(1);
    auto &cosines = result.similarities, &slopes = result.slopes;
    cosines.resize(static_cast<size_t>(batch));
    slopes.resize(static_cast<size_t>(batch));
    for (int64_t i = 0; i < batch; ++i) {
        const auto& list = candidates[static_cast<size_t>(i)];
        auto& cos = cosines[static_cast<size_t>(i)];
        for (const int64_t j : list) cos.push_back(j < 0 ? W(0) : similarity(i, j));
        slopes[static_cast<size_t>(i)].assign(list.size(), W(0));
        if (!all)
            for (size_t k = 0; k < list.size(); ++k)
                result.logits.push_back(list[k] < 0 ? -infinity : scale * cos[k] / temperature);
    }

    if (options.objective == NEGCOS_OBJECTIVE_BATCH_SOFTMAX) {
        W top = -infinity, total = 0;
        for (const auto& cos : cosines) top = std::max(top, scale * cos[0] / temperature);
        for (const auto& cos : cosines) total += math::exp(scale * cos[0] / temperature - top);
        for (int64_t i = 0; i < batch; ++i) {
            const W z = scale * cosines[static_cast<size_t>(i)][0] / temperature;
            const W loss = top - z + math::log(total);
            result.losses.push_back(loss);
            result.hit_probability.push_back(math::exp(-loss));
            slopes[static_cast<size_t>(i)][0] = row_weight * (static_cast<W>(batch) * math::exp(z - top) / total - 1);
        }
        result.accuracy = result.mean_reciprocal_rank = nan;
    } else {
        for (int64_t i = 0; i < batch; ++i) {
            const auto& list = candidates[static_cast<size_t>(i)];
            std::vector<W> z;
            for (const W c : cosines[static_cast<size_t>(i)]) z.push_back(scale * c / temperature);
            W top = z[0];
            for (size_t k = 1; k < z.size(); ++k)
                if (list[k] >= 0) top = std::max(top, z[k]);
            W others = 0;
            int64_t rank = 0;
            for (size_t k = 1; k < z.size(); ++k) {
                if (list[k] < 0) continue;
                others += math::exp(z[k] - top);
                rank += list[k] != i && z[k] >= z[0];
            }
            const W own = math::exp(z[0] - top);
            result.losses.push_back(z[0] == top ? math::log1p(others) : top - z[0] + math::log(own + others));
            result.hit_probability.push_back(own / (own + others));
            result.accuracy += rank == 0 ? W(1) / static_cast<W>(batch) : W(0);
            result.mean_reciprocal_rank += W(1) / static_cast<W>(1 + rank) / static_cast<W>(batch);
            for (size_t k = 0; k < z.size(); ++k)
                slopes[static_cast<size_t>(i)][k] =
                    list[k] < 0 ? W(0) : row_weight * (k == 0 ? -others : math::exp(z[k] - top)) / (own + others);
        }
        if (batch == 0) result.accuracy = result.mean_reciprocal_rank = nan;
    }
    for (const W loss : result.losses) result.loss += loss * row_weight;

    result.grad_queries.assign(static_cast<size_t>(batch * dim), W(0));
    result.grad_documents.assign(static_cast<size_t>(count * dim), W(0));
    for (int64_t i = 0; i < batch; ++i)
        for (size_t k = 0; k < candidates[static_cast<size_t>(i)].size(); ++k) {
            const int64_t j = candidates[static_cast<size_t>(i)][k];
            const W g = slopes[static_cast<size_t>(i)][k], cos = cosines[static_cast<size_t>(i)][k];
            if (j < 0) continue;
            result.grad_scale += g * cos / temperature;
            const W qn = query_norm[static_cast<size_t>(i)], dn = document_norm[static_cast<size_t>(j)];
            const W factor = g * scale / temperature, qc = clamped(qn), dc = clamped(dn);
            const bool q_moves = cosine && !(qn < floor), d_moves = cosine && !(dn < floor);
            for (int64_t c = 0; c < dim; ++c) {
                const W q = row(queries, i, c), d = row(documents, j, c);
                if (!cosine || qn != 0)
                    result.grad_queries[static_cast<size_t>(i * dim + c)] +=
                        dn == 0 ? W(0) : factor * (d / dc - (q_moves ? cos * q / qc : W(0))) / qc;
                if (!cosine || dn != 0)
                    result.grad_documents[static_cast<size_t>(j * dim + c)] +=
                        qn == 0 ? W(0) : factor * (q / qc - (d_moves ? cos * d / dc : W(0))) / dc;
            }
        }
    return result;
}

}  // namespace oracle

#endif
