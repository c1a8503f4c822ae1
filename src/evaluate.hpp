// SPDX-License-Identifier: Apache-2.0
//
// One call from checked arguments to results.
#ifndef NEGCOS_EVALUATE_HPP
#define NEGCOS_EVALUATE_HPP

#include "negcos/negcos.h"
#include "parallel.hpp"
#include "workspace.hpp"

namespace negcos {

struct Kernels;

struct Context {
    Context(const Kernels& k, Threading threading, int32_t threads, const negcos_context_options& options)
        : kernels(k),
          parallel(threading, threads, options.parallel_for, options.parallel_for_data),
          workspace(options.workspace_limit) {}

    const Kernels& kernels;
    Parallel parallel;
    Workspace workspace;
};

// Arguments as validate.hpp passes them. Writes to the result on success only.
int32_t evaluate(Context& context, const negcos_options& options, const negcos_batch& batch, negcos_result& result);
int32_t sample(Context& context, const negcos_options& options, int64_t batch, int64_t documents, int32_t* negatives);

}  // namespace negcos

#endif
