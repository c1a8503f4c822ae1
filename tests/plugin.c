/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A user's plug-in: the version of its negcos, and calls on threads.
 */
#include <negcos/negcos.h>

uint32_t plugin_version(void);
int32_t plugin_call(int32_t threading, int32_t destroyed);

uint32_t plugin_version(void) {
    return negcos_version();
}

/* One call on three threads of a context of its own, which may be left behind. */
int32_t plugin_call(int32_t threading, int32_t destroyed) {
    enum { rows = 300, cols = 40 };
    static float queries[rows * cols], documents[rows * cols];
    for (int k = 0; k < rows * cols; ++k) {
        queries[k] = (float)(k % 7 - 3);
        documents[k] = (float)(k % 11 - 5);
    }
    negcos_context_options context_options;
    negcos_options options;
    negcos_batch batch;
    negcos_result result;
    negcos_context_options_init(&context_options, sizeof context_options);
    negcos_options_init(&options, sizeof options);
    negcos_batch_init(&batch, sizeof batch);
    negcos_result_init(&result, sizeof result);
    const negcos_const_matrix q = {queries, rows, cols, cols, NEGCOS_DTYPE_F32, 0};
    const negcos_const_matrix d = {documents, rows, cols, cols, NEGCOS_DTYPE_F32, 0};
    context_options.threading = threading;
    context_options.threads = 3;
    options.sampling = NEGCOS_SAMPLING_ALL;
    batch.queries = q;
    batch.documents = d;
    negcos_context* context;
    int32_t status = negcos_context_create(&context_options, &context);
    if (status == NEGCOS_STATUS_OK) {
        status = negcos_evaluate(context, &options, &batch, &result);
        if (destroyed) {
            negcos_context_destroy(context);
        }
    }
    return status;
}
