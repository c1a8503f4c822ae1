// SPDX-License-Identifier: Apache-2.0
//
// Wrong calls of the whole loss family: options that exclude each other, and every argument beyond the plain loss. The
// status, a sentence that names the argument (or both of the two), and not a byte of output written.
#include <functional>

#include "errors.hpp"
#include "harness.hpp"

namespace {

using namespace harness;

// A call that works, with everything given that goes together and every output asked for. `spoil` then breaks one
// thing.
struct Call {
    std::vector<float> queries = std::vector<float>(8 * 4, 1), documents = std::vector<float>(10 * 4, 0.5f);
    std::vector<float> hard = std::vector<float>(16 * 4, 0.25f);
    std::vector<float> losses = std::vector<float>(8, 7), logits = std::vector<float>(8 * 7, 7);
    std::vector<float> grad_queries = std::vector<float>(32, 7), grad_documents = std::vector<float>(40, 7);
    std::vector<float> grad_hard = std::vector<float>(64, 7);
    std::vector<int64_t> positives = {0, 1, 2, 3, 4, 5, 5, 9}, document_ids = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    std::vector<int64_t> query_ids = {0, 1, 2, 3, 4, 5, 6, 7};
    std::vector<double> log_probability = std::vector<double>(10, -2), weights = std::vector<double>(8, 1);
    std::vector<int32_t> prefix_dims = {1, 2, 4};
    std::vector<double> prefix_weights = {1, 0.5, 2};
    negcos::Context context = errors::serial_context();
    negcos::Options options;
    negcos::Batch batch{negcos::view(std::span<const float>(queries), 8, 4),
                        negcos::view(std::span<const float>(documents), 10, 4)};
    negcos::Result result;

    Call() {
        batch.hard_negatives = negcos::view(std::span<const float>(hard), 16, 4);
        batch.positives = positives.data();
        batch.log_probability = log_probability.data();
        batch.weights = weights.data();
        options.prefix_count = 3;
        options.prefix_dims = prefix_dims.data();
        options.prefix_weights = prefix_weights.data();
        result.losses = negcos::view(std::span<float>(losses), 8, 1);
        result.logits = negcos::view(std::span<float>(logits), 8, 7);
        result.grad_queries = negcos::view(std::span<float>(grad_queries), 8, 4);
        result.grad_documents = negcos::view(std::span<float>(grad_documents), 10, 4);
        result.grad_hard_negatives = negcos::view(std::span<float>(grad_hard), 16, 4);
        result.loss = result.accuracy = -3;
    }
    // Back to the plain loss, for what needs few others beside it.
    void plain() {
        batch.hard_negatives = {}, result.grad_hard_negatives = {}, result.logits = {};
        batch.positives = nullptr, batch.log_probability = nullptr, batch.weights = nullptr;
        options.prefix_count = 0;
    }
    // ALL in both directions, the first 8 documents, nothing else.
    void both() {
        plain();
        options.direction = NEGCOS_DIRECTION_BOTH;
        options.sampling = NEGCOS_SAMPLING_ALL;
        batch.documents.rows = result.grad_documents.rows = 8;
    }
    int32_t evaluate() { return negcos_evaluate(context.get(), &options, &batch, &result); }
    bool untouched() const {
        return errors::all_seven(losses, logits, grad_queries, grad_documents, grad_hard) && result.loss == -3 &&
               result.accuracy == -3;
    }
};

using Mistake = errors::Mistake<Call>;

void check(const std::vector<Mistake>& mistakes) {
    errors::check(mistakes);
}

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

// One option or input, switched on in a plain call.
struct Switch {
    const char* name;
    std::function<void(Call&)> on;
};

TEST_SUITE("unit") {
    TEST_CASE("variant errors: the calls without a mistake work") {
        const std::vector<std::function<void(Call&)>> fine = {
            [](Call&) {},
            [](Call& c) { c.plain(); },
            [](Call& c) { c.both(); },
            [](Call& c) {  // fewer documents than queries, with positives
                c.batch.documents.rows = c.result.grad_documents.rows = 3;
                c.positives = {0, 1, 2, 2, 1, 0, 0, 2};
            },
            [](Call& c) { c.options.prefix_weights = nullptr; },
            [](Call& c) { c.options.prefix_count = 0; },
            [](Call& c) { c.options.prefix_count = 2; },  // the last columns take no part
            [](Call& c) {                                 // read only where exclude asks for them
                c.batch.document_ids = nullptr, c.batch.query_ids = nullptr;
                c.options.exclude = 0;
            },
            [](Call& c) {
                c.options.exclude = NEGCOS_EXCLUDE_SAME_DOCUMENT_ID | NEGCOS_EXCLUDE_SAME_QUERY_ID;
                c.batch.document_ids = c.document_ids.data(), c.batch.query_ids = c.query_ids.data();
            },
            [](Call& c) { c.weights.assign(8, 0); },
            [](Call& c) { c.options.objective = NEGCOS_OBJECTIVE_SIGMOID, c.options.bias = -10; },
            [](Call& c) { c.options.objective = NEGCOS_OBJECTIVE_DECOUPLED; },
            [](Call& c) { c.options.label_smoothing = 0.99; },
            [](Call& c) {
                c.plain();
                c.options.objective = NEGCOS_OBJECTIVE_BATCH_SOFTMAX;
                c.batch.positives = c.positives.data(), c.batch.weights = c.weights.data();
            },
            [](Call& c) {  // H = 0
                c.batch.hard_negatives.rows = 0, c.result.grad_hard_negatives.rows = 0;
                c.result.logits.cols = 5;
            },
        };
        for (size_t k = 0; k < fine.size(); ++k) {
            INFO("call " << k);
            Call call;
            fine[k](call);
            CHECK(call.evaluate() == NEGCOS_STATUS_OK);
            CHECK(!call.untouched());
        }
    }

    TEST_CASE("variant errors: options that exclude each other") {
        const Switch decoupled{"DECOUPLED", [](Call& c) { c.options.objective = NEGCOS_OBJECTIVE_DECOUPLED; }};
        const Switch sigmoid{"SIGMOID", [](Call& c) { c.options.objective = NEGCOS_OBJECTIVE_SIGMOID; }};
        const Switch softmax{"SOFTMAX", [](Call& c) { c.options.objective = NEGCOS_OBJECTIVE_SOFTMAX; }};
        const Switch published{"BATCH_SOFTMAX", [](Call& c) { c.options.objective = NEGCOS_OBJECTIVE_BATCH_SOFTMAX; }};
        const Switch smoothing{"label_smoothing", [](Call& c) { c.options.label_smoothing = 0.1; }};
        const Switch bias{"bias", [](Call& c) { c.options.bias = 1; }};
        const Switch both{"BOTH", [](Call& c) { c.both(); }};
        const Switch log_probability{"log_probability",
                                     [](Call& c) { c.batch.log_probability = c.log_probability.data(); }};
        const Switch positives{"positives", [](Call& c) {
                                   c.positives.back() = 7;
                                   c.batch.positives = c.positives.data();
                               }};
        const auto exclude = [](int32_t bits) {
            return Switch{"exclude", [bits](Call& c) {
                              c.options.exclude = bits;
                              c.batch.document_ids = c.document_ids.data(), c.batch.query_ids = c.query_ids.data();
                          }};
        };
        std::vector<std::pair<Switch, Switch>> pairs = {
            // BOTH first: it makes a plain call of its own
            {published, exclude(NEGCOS_EXCLUDE_SAME_DOCUMENT_ID)},
            {published, exclude(NEGCOS_EXCLUDE_SAME_QUERY_ID)},
            {published, {"false_negative_margin", [](Call& c) { c.options.false_negative_margin = 0.1; }}},
            {published, {"margin", [](Call& c) { c.options.margin = 0.1; }}},
            {published, {"hardness", [](Call& c) { c.options.hardness = 0.1; }}},
            {published, smoothing},
            {published, log_probability},
            {published,
             {"hard_negatives",
              [](Call& c) { c.batch.hard_negatives = negcos::view(std::span<const float>(c.hard), 16, 4); }}},
            {both, published},
            {published, {"prefix_count", [](Call& c) { c.options.prefix_count = 3; }}},
            {published, bias},
            {decoupled, smoothing},
            {sigmoid, smoothing},
            {softmax, bias},
            {decoupled, bias},
            {both, sigmoid},
            {both, log_probability},
            {both, positives},
        };
        for (const int32_t sampling :
             {NEGCOS_SAMPLING_SHUFFLE, NEGCOS_SAMPLING_DERANGEMENT, NEGCOS_SAMPLING_CYCLIC, NEGCOS_SAMPLING_UNIFORM,
              NEGCOS_SAMPLING_LOG_UNIFORM, NEGCOS_SAMPLING_GIVEN, NEGCOS_SAMPLING_GROUPS})
            pairs.push_back({both, {"sampling", [sampling](Call& c) {
                                        static const std::vector<int32_t> none(32, -1);
                                        c.options.sampling = sampling;
                                        c.batch.negatives = none.data();
                                    }}});
        std::vector<Mistake> mistakes;
        for (const auto& [a, b] : pairs)
            mistakes.push_back({NEGCOS_STATUS_UNSUPPORTED, {a.name, b.name}, [a = a.on, b = b.on](Call& c) {
                                    c.plain();
                                    a(c), b(c);
                                }});
        check(mistakes);
    }

    TEST_CASE("variant errors: options") {
        const auto option = [](auto member, auto value) { return [=](Call& c) { c.options.*member = value; }; };
        using O = negcos_options;
        std::vector<Mistake> mistakes;
        for (const double value : {kNaN, kInf, -kInf}) {
            mistakes.push_back({NEGCOS_STATUS_VALUE, {"margin"}, option(&O::margin, value)});
            mistakes.push_back({NEGCOS_STATUS_VALUE, {"hardness"}, option(&O::hardness, value)});
            mistakes.push_back({NEGCOS_STATUS_VALUE, {"label_smoothing"}, option(&O::label_smoothing, value)});
            mistakes.push_back({NEGCOS_STATUS_VALUE, {"bias"}, [=](Call& c) {
                                    c.options.objective = NEGCOS_OBJECTIVE_SIGMOID;
                                    c.options.bias = value;
                                }});
        }
        for (const double value : {1.0, -0.1, 2.0})
            mistakes.push_back({NEGCOS_STATUS_VALUE, {"label_smoothing"}, option(&O::label_smoothing, value)});
        mistakes.push_back({NEGCOS_STATUS_VALUE, {"false_negative_margin"}, option(&O::false_negative_margin, kNaN)});
        for (const int32_t value : {-1, 2}) {
            mistakes.push_back({NEGCOS_STATUS_VALUE, {"correction"}, option(&O::correction, value)});
            mistakes.push_back({NEGCOS_STATUS_VALUE, {"direction"}, option(&O::direction, value)});
        }
        mistakes.push_back({NEGCOS_STATUS_VALUE, {"exclude"}, option(&O::exclude, 4)});
        mistakes.push_back({NEGCOS_STATUS_VALUE, {"false_negative_margin"}, option(&O::false_negative_margin, -kInf)});
        // Beyond what sums of logits and of weights can hold.
        mistakes.push_back({NEGCOS_STATUS_VALUE, {"scale"}, option(&O::scale, 1e300)});
        mistakes.push_back({NEGCOS_STATUS_VALUE, {"hardness"}, option(&O::hardness, 1e300)});
        mistakes.push_back({NEGCOS_STATUS_VALUE, {"margin"}, option(&O::margin, 1e300)});

        mistakes.push_back({NEGCOS_STATUS_VALUE, {"prefix_count"}, option(&O::prefix_count, -1)});
        mistakes.push_back({NEGCOS_STATUS_VALUE, {"prefix_count"}, option(&O::prefix_count, 33)});
        mistakes.push_back(
            {NEGCOS_STATUS_NULL_ARGUMENT, {"prefix_dims"}, [](Call& c) { c.options.prefix_dims = nullptr; }});
        for (const std::vector<int32_t>& dims :
             {std::vector<int32_t>{2, 2, 4}, {3, 2, 4}, {0, 2, 4}, {-1, 2, 4}, {1, 2, 5}})
            mistakes.push_back({NEGCOS_STATUS_VALUE, {"prefix_dims"}, [=](Call& c) {
                                    std::copy(dims.begin(), dims.end(), c.prefix_dims.begin());
                                }});
        for (const double value : {kNaN, kInf, -1.0})
            mistakes.push_back(
                {NEGCOS_STATUS_VALUE, {"prefix_weights"}, [=](Call& c) { c.prefix_weights[1] = value; }});
        check(mistakes);
    }

    TEST_CASE("variant errors: inputs and outputs") {
        std::vector<Mistake> mistakes = {
            {NEGCOS_STATUS_SHAPE,
             {"documents"},
             [](Call& c) {  // without positives: fewer documents than queries
                 c.batch.positives = nullptr;
                 c.batch.documents.rows = c.result.grad_documents.rows = 7;
             }},
            {NEGCOS_STATUS_SHAPE, {"hard_negatives"}, [](Call& c) { c.batch.hard_negatives.rows = 15; }},
            {NEGCOS_STATUS_SHAPE, {"hard_negatives"}, [](Call& c) { c.batch.hard_negatives.cols = 3; }},
            {NEGCOS_STATUS_SHAPE, {"hard_negatives"}, [](Call& c) { c.batch.hard_negatives.rows = -8; }},
            {NEGCOS_STATUS_SHAPE,
             {"hard_negatives", "row_stride"},
             [](Call& c) { c.batch.hard_negatives.row_stride = 3; }},
            {NEGCOS_STATUS_DTYPE, {"hard_negatives"}, [](Call& c) { c.batch.hard_negatives.dtype = NEGCOS_DTYPE_F64; }},
            {NEGCOS_STATUS_DTYPE, {"hard_negatives"}, [](Call& c) { c.batch.hard_negatives.dtype = 9; }},
            {NEGCOS_STATUS_VALUE, {"hard_negatives", "reserved"}, [](Call& c) { c.batch.hard_negatives.reserved = 1; }},
            {NEGCOS_STATUS_VALUE,
             {"hard_negatives", "aligned"},
             [](Call& c) {
                 c.batch.hard_negatives.data = reinterpret_cast<const char*>(c.hard.data()) + 1;
                 c.batch.hard_negatives.rows = 8;
                 c.result.grad_hard_negatives.rows = 8;
                 c.result.logits.cols = 6;
             }},
            {NEGCOS_STATUS_NULL_ARGUMENT,
             {"document_ids"},
             [](Call& c) { c.options.exclude = NEGCOS_EXCLUDE_SAME_DOCUMENT_ID; }},
            {NEGCOS_STATUS_NULL_ARGUMENT,
             {"query_ids"},
             [](Call& c) { c.options.exclude = NEGCOS_EXCLUDE_SAME_QUERY_ID; }},
            {NEGCOS_STATUS_NULL_ARGUMENT,
             {"query_ids"},
             [](Call& c) {
                 c.options.exclude = NEGCOS_EXCLUDE_SAME_DOCUMENT_ID | NEGCOS_EXCLUDE_SAME_QUERY_ID;
                 c.batch.document_ids = c.document_ids.data();
             }},
            {NEGCOS_STATUS_SHAPE, {"logits"}, [](Call& c) { c.result.logits.cols = 5; }},  // no room for H
            {NEGCOS_STATUS_SHAPE, {"grad_hard_negatives"}, [](Call& c) { c.result.grad_hard_negatives.rows = 8; }},
            {NEGCOS_STATUS_SHAPE, {"grad_hard_negatives"}, [](Call& c) { c.result.grad_hard_negatives.cols = 3; }},
            {NEGCOS_STATUS_DTYPE,
             {"grad_hard_negatives"},
             [](Call& c) { c.result.grad_hard_negatives.dtype = NEGCOS_DTYPE_F16; }},
            // asked for without what it is the gradient of
            {NEGCOS_STATUS_NULL_ARGUMENT,
             {"grad_hard_negatives", "hard_negatives"},
             [](Call& c) {
                 c.batch.hard_negatives = {};
                 c.result.logits.cols = 5;
             }},
            {NEGCOS_STATUS_SHAPE,
             {"BOTH", "documents"},
             [](Call& c) {
                 c.both();
                 c.batch.documents.rows = c.result.grad_documents.rows = 10;
             }},
            {NEGCOS_STATUS_OVERLAP,
             {"grad_hard_negatives", "hard_negatives"},
             [](Call& c) { c.result.grad_hard_negatives.data = c.hard.data(); }},
            {NEGCOS_STATUS_OVERLAP,
             {"grad_hard_negatives", "grad_queries"},
             [](Call& c) { c.result.grad_queries.data = c.grad_hard.data() + 32; }},
            {NEGCOS_STATUS_OVERLAP,
             {"losses", "hard_negatives"},
             [](Call& c) { c.result.losses.data = c.hard.data() + 56; }},
            {NEGCOS_STATUS_OVERLAP,
             {"grad_hard_negatives", "weights"},
             [](Call& c) { c.batch.weights = reinterpret_cast<const double*>(c.grad_hard.data() + 2); }},
            {NEGCOS_STATUS_OVERLAP,
             {"grad_hard_negatives", "log_probability"},
             [](Call& c) { c.batch.log_probability = reinterpret_cast<const double*>(c.grad_hard.data()); }},
        };
        for (const int64_t row : {int64_t{-1}, int64_t{10}, int64_t{1} << 40})
            mistakes.push_back({NEGCOS_STATUS_VALUE, {"positives"}, [=](Call& c) { c.positives[3] = row; }});
        for (const double value : {kNaN, kInf, -kInf})
            mistakes.push_back(
                {NEGCOS_STATUS_VALUE, {"log_probability"}, [=](Call& c) { c.log_probability[9] = value; }});
        for (const double value : {kNaN, kInf, -1e-9, 1e300})
            mistakes.push_back({NEGCOS_STATUS_VALUE, {"weights"}, [=](Call& c) { c.weights[7] = value; }});
        check(mistakes);
    }
}

}  // namespace
