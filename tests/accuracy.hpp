// SPDX-License-Identifier: Apache-2.0
//
// How far a call is from the exact result: in units of eps, and as a share of a bound that holds for every element.
#ifndef NEGCOS_TESTS_ACCURACY_HPP
#define NEGCOS_TESTS_ACCURACY_HPP

#include <algorithm>

#include "half.hpp"
#include "harness.hpp"
#include "plan.hpp"

namespace accuracy {

using harness::Problem;
using oracle::Quad;

// What the library computes elements E in.
template <class E>
using Working = std::conditional_t<sizeof(E) == 2, float, E>;
template <class E>
inline constexpr double kEps = std::numeric_limits<Working<E>>::epsilon();

enum class Inputs { normal, log_normal, cauchy, nearly_parallel };
inline constexpr Inputs kInputs[] = {Inputs::normal, Inputs::log_normal, Inputs::cauchy, Inputs::nearly_parallel};
inline const char* name_of(Inputs inputs) {
    static const char* const names[] = {"normal", "log-normal", "Cauchy", "nearly parallel"};
    return names[static_cast<int>(inputs)];
}

struct Case {
    Inputs inputs;
    double scale;
    int64_t batch, dim;
    int32_t rounds;       // -1 = ALL
    bool groups = false;  // of rounds + 1, else DERANGEMENT
};

// Documents lean towards their queries, but for nearly parallel rows: those differ by a thousandth of their length, or
// by a few units of the last place of 16-bit types. No query is given its own positive as a negative: the two cancel
// in the exact gradient, and all that an error could be relative to with them.
template <class E>
Problem<E> problem_of(const Case& c) {
    Problem<E> p(c.batch, c.batch, c.dim, 1);
    harness::Random random(static_cast<uint64_t>(c.inputs) + 17);
    std::vector<double> base(static_cast<size_t>(c.dim));
    for (auto& x : base) x = random.normal();
    const double apart = std::max(1e-3, 4 * static_cast<double>(std::numeric_limits<E>::epsilon()));
    const double most = sizeof(E) == 2 ? 30000 : 1e30;
    const auto draw = [&](size_t k) {
        const double x = random.normal();
        switch (c.inputs) {
            case Inputs::log_normal:
                return std::exp(x);
            case Inputs::cauchy:
                return std::clamp(std::tan(3.14159265358979 * (random.uniform() - 0.5)), -most, most);
            case Inputs::nearly_parallel:
                return base[k % base.size()] + apart * x;
            default:
                return x;
        }
    };
    const double lean = c.inputs == Inputs::nearly_parallel ? 0 : 0.4;
    for (size_t k = 0; k < p.queries.size(); ++k) p.queries[k] = static_cast<E>(draw(k));
    for (size_t k = 0; k < p.documents.size(); ++k)
        p.documents[k] = static_cast<E>(draw(k) + lean * static_cast<double>(p.queries[k]));
    p.options.scale = c.scale;
    p.options.seed = 5;
    p.options.sampling = c.rounds < 0 ? NEGCOS_SAMPLING_ALL
                         : c.groups   ? NEGCOS_SAMPLING_GROUPS
                                      : NEGCOS_SAMPLING_DERANGEMENT;
    p.options.rounds = std::max(c.rounds, 0);
    return p;
}

// clang-format off
/*
 * The bound. u = eps/2 is the unit roundoff of the working type T; m counts the roundings on the way of a product into
 * a sum over columns: the chain of FMAs of its lane, at most 32, the blocks of 32, and the 4 additions of the tree.
 * F = scale / temperature, hats are rows over their norms. First-order terms are counted; where a rounding meets |F|,
 * the exponential of its size is taken (expm1 below).
 *
 *   squared norm     relative m u; sqrt halves it; sqrt, division and the cast to T add 3 u: inverse norms i = m/2 + 3.
 *   similarity       the dot product has L = m (gather) or min(dim, 256) + dim / 256 (tiles, one chain of FMAs an
 *                    element, cut at 256) roundings; its error is L u times sum |q_c d_c| <= |q||d|. Two inverses 2 i u
 *                    and their products 2 u; tiles round the two unit rows instead, the same: kappa = L + 2 i + 2.
 *                    GROUPS multiplies unit rows as tiles do, and counts as them throughout.
 *   logit - shift    the cast of F, the difference (at most 2) and the product: 6 |F| u, and once more where tiles go
 *                    over from a chunk's shift to the row's. Logits are off by at most |F| (kappa + 12) u.
 *   sums of exp      s = 512 over the lanes and 4 for the tree; what follows is in double: nothing in f32, and in f64
 *                    one for each 512 candidates or chunk of them, and 8.
 *   loss             log-sum-exp moves by sum_k |g_k| times the logits' error. exp is good to 3 u, twice for tiles, its
 *                    sums to s u, relative to 1 - p <= loss; 4 u for the rest.
 *   weights g        p = e / sum: twice the logits' error, exp 2 x 3, sums s, division, cast and product 3, in tiles a
 *                    chunk's weight 5, each relative: w = expm1(2 |F| (kappa + 12) u) / u + s + 14.
 *   their sum        times inverse norm i + 1 (tiles: rounded unit rows, the same + 1), at most n + 1 FMAs in a chain,
 *                    n candidates: S_c = sum_k |g_k| |x_c| is off by at most (w + i + 3 + n) u S_c.
 *   projection       its dot product with the row sums |.| <= R = sum_c S_c |q_c|: (w + i + 3 + n + m + 2 i + 4) u R.
 *   last products    inverse norm, F, rescaling: i + 3.
 *
 *   |element - exact| <= u |F| / |q| (w + n + m + 4 i + 10) (S_c + R |q_c|), and what falls below the range of T: exps
 *   under 2^-126 are 0, the smallest gradients are subnormal. 16-bit outputs are rounded once more.
 */
// clang-format on
template <class E>
struct Bound {
    double u, m, i, logit, sums, weights, factor, floor;
    Bound(const Problem<E>& p, bool tiles) {
        using T = Working<E>;
        const double lanes = 64.0 / sizeof(T), dim = static_cast<double>(p.dim);
        u = kEps<E> / 2;
        const double vectors = std::ceil(dim / lanes);
        m = std::min(vectors, 32.0) + std::ceil(vectors / 32) + 4;
        const double scores = tiles ? std::min(dim, 256.0) + std::ceil(dim / 256) : m;
        i = m / 2 + 3;
        factor = std::abs(p.options.scale / oracle::temperature_of(p.options));
        logit = factor * (scores + 2 * i + 2 + 12) * u;
        sums = 512 / lanes + 4 + (sizeof(T) == 8 ? std::ceil(static_cast<double>(p.count) / 192) + 8 : 0);
        weights = std::expm1(2 * logit) / u + sums + 14;
        floor = std::numeric_limits<T>::min() * 64;
    }
    double loss(double exact, double slopes) const {
        return std::expm1(2 * logit) / 2 * slopes + (sums + 10) * u * exact + floor;
    }
    double gradient(double edges) const { return u * (weights + edges + m + 4 * i + 10); }
};

// One rounding to E of a number computed in T.
template <class E>
double last_rounding(double exact) {
    if (sizeof(E) != 2) return 0;
    return std::max(std::abs(exact) * static_cast<double>(std::numeric_limits<E>::epsilon()),
                    static_cast<double>(std::numeric_limits<E>::denorm_min())) *
           0.5000001;
}

// Errors of one call. `strict` is relative to the exact result; `conditioned` to what it was summed up from, which is
// as much larger as terms cancel: |F| sum |g| for the loss, |F|/|q| (S + R |q_c|) for gradients. The last rounding to
// 16 bits and what falls below the range of T are no part of them. `of_bound` is the largest share of the bound that
// any element took.
struct Errors {
    double loss_strict = 0, loss_conditioned = 0;
    double queries_strict = 0, queries_conditioned = 0, documents_strict = 0, documents_conditioned = 0;
    double of_bound = 0;
};

// The worst so far; NaN is worse than anything.
inline void meet(double& worst, double x) {
    if (!(x <= worst) && !std::isnan(worst)) worst = x;
}

template <class W>
double norm_of(const std::vector<W>& v) {
    W sum = 0;
    for (const W x : v) sum += x * x;
    return static_cast<double>(oracle::math::sqrt(sum));
}

// One side's gradient: `terms` S and, beside, the rows that they belong to.
template <class E>
void gradient_errors(const Bound<E>& bound, const std::vector<E>& rows, const std::vector<E>& got,
                     const std::vector<Quad>& exact, const std::vector<double>& terms, const std::vector<double>& edges,
                     size_t dim, double& strict, double& conditioned, double& of_bound) {
    std::vector<double> error(got.size()), condition(got.size());
    for (size_t i = 0; i < edges.size(); ++i) {
        double squared = 0, along = 0;
        for (size_t c = 0; c < dim; ++c) squared += std::pow(static_cast<double>(rows[i * dim + c]), 2);
        const double norm = std::sqrt(squared);
        for (size_t c = 0; c < dim; ++c)
            along += terms[i * dim + c] * std::abs(static_cast<double>(rows[i * dim + c])) / norm;
        for (size_t c = 0; c < dim; ++c) {
            const size_t k = i * dim + c;
            const double unit = std::abs(static_cast<double>(rows[k])) / norm;
            const double wanted = static_cast<double>(exact[k]), last = last_rounding<E>(wanted);
            error[k] = std::abs(static_cast<double>(static_cast<Quad>(static_cast<double>(got[k])) - exact[k]));
            condition[k] = bound.factor / norm * (terms[k] + along * unit);
            const double below_range = bound.floor * (1 + edges[i] * bound.factor / norm);
            meet(of_bound, error[k] / (bound.gradient(edges[i]) * condition[k] + 1.01 * last + below_range));
            error[k] -= last + below_range;
            if (error[k] < 0) error[k] = 0;  // and NaN stays
        }
    }
    const double distance = norm_of(error) / kEps<E>;
    strict = distance / norm_of(exact);
    conditioned = distance / norm_of(condition);
}

template <class E>
Errors errors_of(const Problem<E>& p, const harness::Outputs<E>& got, const oracle::Result<Quad>& exact) {
    const bool tiles = p.options.sampling == NEGCOS_SAMPLING_ALL || p.options.sampling == NEGCOS_SAMPLING_GROUPS ||
                       negcos::tiles_are_cheaper<Working<E>>(p.options.rounds, p.count, p.dim);
    const Bound<E> bound(p, tiles);
    const size_t batch = static_cast<size_t>(p.batch), dim = static_cast<size_t>(p.dim);
    const auto norms = [dim](const std::vector<E>& rows) {
        std::vector<double> result(rows.size() / dim);
        for (size_t k = 0; k < rows.size(); ++k) result[k / dim] += std::pow(static_cast<double>(rows[k]), 2);
        for (double& x : result) x = std::sqrt(x);
        return result;
    };
    const std::vector<double> query_norm = norms(p.queries), document_norm = norms(p.documents);
    std::vector<double> query_terms(batch * dim), document_terms(p.documents.size());
    std::vector<double> query_edges(batch), document_edges(static_cast<size_t>(p.count));
    Errors errors;
    double slopes = 0;
    const double row_weight = p.options.reduction == NEGCOS_REDUCTION_MEAN ? static_cast<double>(batch) : 1;
    for (size_t i = 0; i < batch; ++i) {
        double of_query = 0;
        for (size_t k = 0; k < exact.candidates[i].size(); ++k) {
            const size_t j = static_cast<size_t>(exact.candidates[i][k]);
            const double g = std::abs(static_cast<double>(exact.slopes[i][k]));
            of_query += g;
            ++query_edges[i];
            ++document_edges[j];
            for (size_t c = 0; c < dim; ++c) {
                query_terms[i * dim + c] +=
                    g * std::abs(static_cast<double>(p.documents[j * dim + c])) / document_norm[j];
                document_terms[j * dim + c] +=
                    g * std::abs(static_cast<double>(p.queries[i * dim + c])) / query_norm[i];
            }
        }
        slopes += of_query;
        const double loss = static_cast<double>(exact.losses[i]);
        const double error =
            static_cast<double>(static_cast<Quad>(static_cast<double>(got.losses[i])) - exact.losses[i]);
        const double most = bound.loss(loss, of_query * row_weight) + 1.01 * last_rounding<E>(loss);
        meet(errors.of_bound, std::abs(error) / most);
    }
    const double loss = static_cast<double>(exact.loss);
    const double error = std::abs(static_cast<double>(static_cast<Quad>(got.numbers.loss) - exact.loss)) / kEps<E>;
    errors.loss_strict = error / std::max(loss, bound.floor);
    errors.loss_conditioned = error / std::max(std::max(loss, bound.factor * slopes), bound.floor);
    gradient_errors(bound, p.queries, got.grad_queries, exact.grad_queries, query_terms, query_edges, dim,
                    errors.queries_strict, errors.queries_conditioned, errors.of_bound);
    gradient_errors(bound, p.documents, got.grad_documents, exact.grad_documents, document_terms, document_edges, dim,
                    errors.documents_strict, errors.documents_conditioned, errors.of_bound);
    return errors;
}

// What is promised. The loss is within 10 eps of the exact one, relative to it or to |F| sum |g|, what it moves by when
// similarities move by eps. Gradients are, normwise, within 20 eps of what they are summed up from; their weights are
// exponentials of logits, so that beyond the layer's own scale of 20 their errors grow with |F|.
// Relative to themselves they are within as much up to that scale, the gradients where rows are not nearly parallel;
// `strictly` where that is to be seen.
template <class E>
void check(const Problem<E>& p, const Errors& e, bool loss_strictly, bool gradients_strictly) {
    const double factor = std::abs(p.options.scale / oracle::temperature_of(p.options));
    CHECK(e.loss_conditioned <= 10);
    CHECK(e.queries_conditioned <= 20 * std::max(1.0, factor / 20));
    CHECK(e.documents_conditioned <= 20 * std::max(1.0, factor / 20));
    CHECK(e.of_bound <= (sizeof(E) == 2 ? 1 : 0.25));  // first-order bounds are wide, the last rounding is not
    if (loss_strictly) CHECK(e.loss_strict <= 10);
    if (gradients_strictly) CHECK(std::max(e.queries_strict, e.documents_strict) <= 20);
}

}  // namespace accuracy

#endif
