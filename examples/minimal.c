/* SPDX-License-Identifier: Apache-2.0 */
/*
 * negcos from C: the loss of eight queries with their documents, the gradients, and one step of gradient descent.
 *
 *     cc minimal.c $(pkg-config --cflags --libs negcos) && ./a.out
 */
#include <negcos/negcos.h>
#include <stdio.h>

enum { B = 8, dim = 4 };

static int failed(void) {
    fprintf(stderr, "minimal: %s\n", negcos_last_error());
    return 1;
}

int main(void) {
    /* Row i of documents is the positive of query i; the other rows are where negatives come from. */
    float queries[B][dim], documents[B][dim], grad_queries[B][dim], grad_documents[B][dim];
    for (int i = 0; i < B; ++i) {
        for (int j = 0; j < dim; ++j) {
            queries[i][j] = (float)((i * 5 + j * 3) % 7 - 3);
            documents[i][j] = (float)((i * 3 + j * 2) % 7 - 3);
        }
    }

    /* The defaults: cosines times 20, softmax over the positive and four negatives drawn by shuffling the batch. */
    negcos_options options;
    negcos_options_init(&options, sizeof options);

    negcos_batch batch;
    negcos_batch_init(&batch, sizeof batch);
    batch.queries = (negcos_const_matrix){queries, B, dim, dim, NEGCOS_DTYPE_F32, 0};
    batch.documents = (negcos_const_matrix){documents, B, dim, dim, NEGCOS_DTYPE_F32, 0};

    /* What is not asked for is not computed. */
    negcos_result result;
    negcos_result_init(&result, sizeof result);
    result.grad_queries = (negcos_matrix){grad_queries, B, dim, dim, NEGCOS_DTYPE_F32, 0};
    result.grad_documents = (negcos_matrix){grad_documents, B, dim, dim, NEGCOS_DTYPE_F32, 0};

    negcos_context* context;
    if (negcos_context_create(NULL, &context) != NEGCOS_STATUS_OK) {
        return failed();
    }
    if (negcos_evaluate(context, &options, &batch, &result) != NEGCOS_STATUS_OK) {
        return failed();
    }
    printf("loss %.6f, accuracy %.3f\n", result.loss, result.accuracy);

    for (int i = 0; i < B; ++i) {
        for (int j = 0; j < dim; ++j) {
            queries[i][j] -= grad_queries[i][j];
            documents[i][j] -= grad_documents[i][j];
        }
    }
    if (negcos_evaluate(context, &options, &batch, &result) != NEGCOS_STATUS_OK) {
        return failed();
    }
    printf("loss %.6f, accuracy %.3f after a step\n", result.loss, result.accuracy);

    negcos_context_destroy(context);
    return 0;
}
