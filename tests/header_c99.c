/* SPDX-License-Identifier: Apache-2.0 */
/* The header as C99, and the binary interface: offsets on 64-bit systems, which bindings are written against. */
#include "negcos/negcos.h"

#define OFFSET(type, field, offset) typedef char type##_##field[offsetof(type, field) == (offset) ? 1 : -1]
#define SIZE(type, size) typedef char type##_size[sizeof(type) == (size) ? 1 : -1]

OFFSET(negcos_const_matrix, data, 0);
OFFSET(negcos_const_matrix, rows, 8);
OFFSET(negcos_const_matrix, cols, 16);
OFFSET(negcos_const_matrix, row_stride, 24);
OFFSET(negcos_const_matrix, dtype, 32);
SIZE(negcos_const_matrix, 40);
OFFSET(negcos_matrix, data, 0);
OFFSET(negcos_matrix, dtype, 32);
SIZE(negcos_matrix, 40);

OFFSET(negcos_context_options, struct_size, 0);
OFFSET(negcos_context_options, threads, 4);
OFFSET(negcos_context_options, threading, 8);
OFFSET(negcos_context_options, isa, 16);
OFFSET(negcos_context_options, parallel_for, 24);
OFFSET(negcos_context_options, parallel_for_data, 32);
OFFSET(negcos_context_options, workspace_limit, 40);
SIZE(negcos_context_options, 48);

OFFSET(negcos_options, objective, 4);
OFFSET(negcos_options, similarity, 8);
OFFSET(negcos_options, sampling, 12);
OFFSET(negcos_options, rounds, 16);
OFFSET(negcos_options, reduction, 20);
OFFSET(negcos_options, direction, 24);
OFFSET(negcos_options, exclude, 28);
OFFSET(negcos_options, seed, 32);
OFFSET(negcos_options, step, 40);
OFFSET(negcos_options, scale, 48);
OFFSET(negcos_options, temperature, 56);
OFFSET(negcos_options, bias, 64);
OFFSET(negcos_options, norm_floor, 72);
OFFSET(negcos_options, margin, 80);
OFFSET(negcos_options, label_smoothing, 88);
OFFSET(negcos_options, hardness, 96);
OFFSET(negcos_options, false_negative_margin, 104);
OFFSET(negcos_options, correction, 112);
OFFSET(negcos_options, prefix_count, 116);
OFFSET(negcos_options, prefix_dims, 120);
OFFSET(negcos_options, prefix_weights, 128);
SIZE(negcos_options, 136);

OFFSET(negcos_batch, queries, 8);
OFFSET(negcos_batch, documents, 48);
OFFSET(negcos_batch, hard_negatives, 88);
OFFSET(negcos_batch, positives, 128);
OFFSET(negcos_batch, negatives, 136);
OFFSET(negcos_batch, document_ids, 144);
OFFSET(negcos_batch, query_ids, 152);
OFFSET(negcos_batch, log_probability, 160);
OFFSET(negcos_batch, weights, 168);
SIZE(negcos_batch, 176);

OFFSET(negcos_result, loss, 8);
OFFSET(negcos_result, grad_scale, 16);
OFFSET(negcos_result, grad_bias, 24);
OFFSET(negcos_result, accuracy, 32);
OFFSET(negcos_result, mean_reciprocal_rank, 40);
OFFSET(negcos_result, excluded, 48);
OFFSET(negcos_result, zero_rows, 56);
OFFSET(negcos_result, losses, 64);
OFFSET(negcos_result, hit_probability, 104);
OFFSET(negcos_result, logits, 144);
OFFSET(negcos_result, grad_queries, 184);
OFFSET(negcos_result, grad_documents, 224);
OFFSET(negcos_result, grad_hard_negatives, 264);
OFFSET(negcos_result, negatives, 304);
SIZE(negcos_result, 312);

OFFSET(negcos_frequency_options, struct_size, 0);
OFFSET(negcos_frequency_options, method, 4);
OFFSET(negcos_frequency_options, hashes, 8);
OFFSET(negcos_frequency_options, buckets, 16);
OFFSET(negcos_frequency_options, learning_rate, 24);
OFFSET(negcos_frequency_options, initial_gap, 32);
OFFSET(negcos_frequency_options, seed, 40);
SIZE(negcos_frequency_options, 48);

int main(void) {
    return 0;
}
