// SPDX-License-Identifier: Apache-2.0
#include "plan.hpp"

#include <limits>

namespace negcos {

bool is_general(const negcos_options& o, const negcos_batch& batch) {
    if (o.objective == NEGCOS_OBJECTIVE_BATCH_SOFTMAX) return false;
    return o.objective != NEGCOS_OBJECTIVE_SOFTMAX || o.direction != NEGCOS_DIRECTION_QUERY_TO_DOCUMENT ||
           o.exclude != 0 || o.margin != 0 || o.label_smoothing != 0 || o.hardness != 0 ||
           o.false_negative_margin < std::numeric_limits<double>::infinity() || o.prefix_count > 0 ||
           batch.hard_negatives.data || batch.positives || batch.log_probability || batch.weights;
}

double temperature_of(const negcos_options& o) {
    return o.objective == NEGCOS_OBJECTIVE_BATCH_SOFTMAX ? 1 : o.temperature;
}

}  // namespace negcos
