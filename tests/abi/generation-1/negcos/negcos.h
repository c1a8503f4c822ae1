/* SPDX-License-Identifier: Apache-2.0 */
/*
 * negcos: the in-batch negative-sampling cosine loss of two-tower retrieval models.
 *
 * This header is the whole interface of the library and its specification.
 *
 * Introduction
 * ============
 * Queries Q (B x d) and documents D (M x d, M >= B) come out of the two towers of a retrieval model. Row i of D is the
 * positive of query i. Each query is compared with its positive and with N negatives, other documents of the batch:
 *
 *     cos(i,j) = q_i . d_j / (max(|q_i|, f) * max(|d_j|, f))        f = norm_floor
 *     z(i,k)   = scale * cos(i, c(i,k)) / temperature               c(i,0) the positive, c(i,1..N) the negatives
 *     loss_i   = -z(i,0) + log sum_k exp z(i,k)
 *     loss     = mean_i loss_i  (or the sum)
 *
 * The library computes the loss, its gradients with respect to every query, document and the scale, and a few metrics,
 * in one call. Nothing is copied NEG + 1 times, and no B x M array is ever stored.
 *
 * Simple use
 * ==========
 *     negcos_context *context;
 *     negcos_context_create(NULL, &context);
 *
 *     negcos_options options;  negcos_options_init(&options, sizeof options);
 *     negcos_batch   batch;    negcos_batch_init(&batch, sizeof batch);
 *     negcos_result  result;   negcos_result_init(&result, sizeof result);
 *
 *     batch.queries   = (negcos_const_matrix){ q, B, d, d, NEGCOS_DTYPE_F32, 0 };
 *     batch.documents = (negcos_const_matrix){ p, B, d, d, NEGCOS_DTYPE_F32, 0 };
 *     result.grad_queries = (negcos_matrix){ dq, B, d, d, NEGCOS_DTYPE_F32, 0 };   // only if wanted
 *
 *     if (negcos_evaluate(context, &options, &batch, &result) != NEGCOS_STATUS_OK) puts(negcos_last_error());
 *     else printf("%f\n", result.loss);
 *     negcos_context_destroy(context);
 *
 * Promises
 * ========
 * - No exception, abort, exit or output comes out of any function. Every failure is a status, and negcos_last_error()
 *   says in a sentence which argument it was about, what it was and what was expected.
 * - On failure no output was written.
 * - Not one byte is read or written outside the rows given (the gap between `cols` and `row_stride` included).
 * - Inputs may overlap each other; an output may overlap nothing (checked: NEGCOS_STATUS_OVERLAP).
 * - After the first call of a shape a context allocates nothing more for calls of that shape and smaller.
 * - For given inputs, options and dtype the outputs are the same bits from run to run, for every number of threads and
 *   every threading back end, and on every instruction set.
 * - One thread at a time per context; any number of contexts at once. Functions without a context may be called from
 *   any thread at any time.
 *
 * Structs that may grow start with `struct_size`. Call their `_init` function first: it fills the defaults and the
 * size. A program built against an older, shorter struct keeps working; a longer struct is accepted when the bytes
 * that this library does not know are zero.
 *
 * What a value of an enumeration or a field needs and this version cannot do answers NEGCOS_STATUS_UNSUPPORTED.
 */
#ifndef NEGCOS_NEGCOS_H
#define NEGCOS_NEGCOS_H

#include <stddef.h>
#include <stdint.h>

#define NEGCOS_VERSION_MAJOR 0
#define NEGCOS_VERSION_MINOR 1
#define NEGCOS_VERSION_PATCH 0

#if defined(__GNUC__) || defined(__clang__)
#define NEGCOS_API __attribute__((visibility("default")))
#else
#define NEGCOS_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Enumerations. They travel as int32_t, so that every language sees the same layout. */

/* What a function returns. */
enum {
    NEGCOS_STATUS_OK = 0,
    NEGCOS_STATUS_NULL_ARGUMENT = 10, /* a pointer that is needed is NULL */
    NEGCOS_STATUS_SHAPE = 11,         /* rows, cols or row_stride do not fit */
    NEGCOS_STATUS_DTYPE = 12,         /* an element type is unknown or differs from the queries' */
    NEGCOS_STATUS_VALUE = 13,         /* an option or an index is out of its range */
    NEGCOS_STATUS_OVERLAP = 14,       /* an output overlaps an input or another output */
    NEGCOS_STATUS_STRUCT_SIZE = 15,   /* struct_size is too small, or unknown bytes are not zero */
    NEGCOS_STATUS_OUT_OF_MEMORY = 20,
    NEGCOS_STATUS_WORKSPACE_LIMIT = 21, /* the call needs more than workspace_limit */
    NEGCOS_STATUS_THREADS = 22,         /* the threading back end failed */
    NEGCOS_STATUS_UNSUPPORTED_ISA = 30, /* not built in, or this machine cannot run it */
    NEGCOS_STATUS_UNSUPPORTED = 31,     /* valid, but this version cannot do it */
    NEGCOS_STATUS_INTERNAL = 90         /* a bug in the library; please report it */
};

/* Element types. F16 and BF16 are computed in f32 and rounded once on store, to nearest even; F32 in f32; F64 in f64.
   What is beyond the range of F16 (65504) is infinite in its arrays, and finite in the numbers of the result. */
enum { NEGCOS_DTYPE_F32 = 0, NEGCOS_DTYPE_F64 = 1, NEGCOS_DTYPE_F16 = 2, NEGCOS_DTYPE_BF16 = 3 };

/* What runs the library's tasks. DEFAULT is TBB where it is built in. */
enum {
    NEGCOS_THREADING_DEFAULT = 0,
    NEGCOS_THREADING_SERIAL = 1,  /* the calling thread alone */
    NEGCOS_THREADING_TBB = 2,     /* oneTBB, an arena per context */
    NEGCOS_THREADING_OPENMP = 3,  /* an OpenMP parallel region per phase */
    NEGCOS_THREADING_CALLBACK = 4 /* the caller's own negcos_parallel_for_fn */
};

enum {
    NEGCOS_OBJECTIVE_SOFTMAX = 0,       /* softmax over a query's own candidates: the loss above */
    NEGCOS_OBJECTIVE_BATCH_SOFTMAX = 1, /* as the original layer's code does it: softmax of the positives over the
                                           batch, loss_i = -z(i,0) + log sum_i' exp z(i',0); negatives play no part */
    NEGCOS_OBJECTIVE_SIGMOID = 2,
    NEGCOS_OBJECTIVE_DECOUPLED = 3
};

enum {
    NEGCOS_SIMILARITY_COSINE = 0, /* cos(i,j) above */
    NEGCOS_SIMILARITY_DOT = 1     /* q_i . d_j in place of the cosine; norm_floor and zero_rows play no part */
};

/* Where the negatives of query i in round r come from. docs/sampling.md states the exact draws. */
enum {
    NEGCOS_SAMPLING_SHUFFLE = 0,     /* row pi_r(i), pi_r a uniform random permutation of the batch; may hit the own
                                        positive and the same document twice; both count */
    NEGCOS_SAMPLING_DERANGEMENT = 1, /* as SHUFFLE, but pi_r(i) != i for all i; needs B >= 2 */
    NEGCOS_SAMPLING_CYCLIC = 2,      /* (i + s_r) mod B, s_r random in [1,B) */
    NEGCOS_SAMPLING_UNIFORM = 3,     /* independent uniform draws from the M documents other than the positive */
    NEGCOS_SAMPLING_LOG_UNIFORM = 4, /* as UNIFORM with P(j) ~ log((j+2)/(j+1)) */
    NEGCOS_SAMPLING_GIVEN = 5,       /* batch.negatives, B x rounds; -1 = absent */
    NEGCOS_SAMPLING_ALL = 6          /* every document but the positive; rounds is ignored */
};

enum { NEGCOS_REDUCTION_MEAN = 0, NEGCOS_REDUCTION_SUM = 1 };

enum { NEGCOS_DIRECTION_QUERY_TO_DOCUMENT = 0, NEGCOS_DIRECTION_BOTH = 1 };

/* Bits of negcos_options.exclude. */
enum { NEGCOS_EXCLUDE_SAME_DOCUMENT_ID = 1, NEGCOS_EXCLUDE_SAME_QUERY_ID = 2 };

/*
 * A matrix owned by the caller: row-major, row_stride in elements (>= cols), any alignment that the element type has.
 * data == NULL means absent. A row-major n x d matrix is byte for byte a column-major d x n one (Julia, Fortran, R).
 */
typedef struct negcos_const_matrix {
    const void* data;
    int64_t rows, cols, row_stride;
    int32_t dtype, reserved; /* reserved: 0 */
} negcos_const_matrix;

typedef struct negcos_matrix {
    void* data;
    int64_t rows, cols, row_stride;
    int32_t dtype, reserved; /* reserved: 0 */
} negcos_matrix;

/*
 * The caller's own threads: calls body(task, index) once for every index in [0, count), in any order, on any threads,
 * and returns 0 when all are done. Any other value, returned once no body runs any more, makes the call fail with
 * NEGCOS_STATUS_THREADS. It must not throw through the library. `data` is negcos_context_options.parallel_for_data.
 */
typedef int32_t (*negcos_parallel_for_fn)(void* data, int64_t count, void (*body)(void* task, int64_t index),
                                          void* task);

typedef struct negcos_context_options {
    uint32_t struct_size;
    int32_t threads;   /* 0 = all that this process may use (NEGCOS_THREADS in the environment caps that) */
    int32_t threading; /* NEGCOS_THREADING_ */
    int32_t reserved;  /* 0 */
    const char* isa;   /* NULL = the best one (NEGCOS_ISA in the environment caps that), or "scalar", "avx2",
                          "avx512", "neon"; read during the call only */
    negcos_parallel_for_fn parallel_for; /* with NEGCOS_THREADING_CALLBACK */
    void* parallel_for_data;
    uint64_t workspace_limit; /* bytes that a call may use beyond inputs and outputs; 0 = no limit */
} negcos_context_options;

typedef struct negcos_options {
    uint32_t struct_size;
    int32_t objective;            /* NEGCOS_OBJECTIVE_, SOFTMAX */
    int32_t similarity;           /* NEGCOS_SIMILARITY_, COSINE */
    int32_t sampling;             /* NEGCOS_SAMPLING_, SHUFFLE */
    int32_t rounds;               /* N, negatives per query, >= 0; 4 */
    int32_t reduction;            /* NEGCOS_REDUCTION_, MEAN */
    int32_t direction;            /* NEGCOS_DIRECTION_, QUERY_TO_DOCUMENT */
    int32_t exclude;              /* bits of NEGCOS_EXCLUDE_, 0 */
    uint64_t seed;                /* with step and the round: the key of every draw; 0 */
    uint64_t step;                /* the training step, so that each draws new negatives from one seed; 0 */
    double scale;                 /* 20; any finite number whose ratio to the temperature the working type can hold */
    double temperature;           /* 1; finite, > 0 */
    double bias;                  /* 0; SIGMOID only */
    double norm_floor;            /* 1e-12; finite, >= 0: norms below it count as it */
    double margin;                /* 0 */
    double label_smoothing;       /* 0 */
    double hardness;              /* 0 */
    double false_negative_margin; /* +Inf = off */
} negcos_options;

typedef struct negcos_batch {
    uint32_t struct_size;
    uint32_t reserved;                  /* 0 */
    negcos_const_matrix queries;        /* B x d */
    negcos_const_matrix documents;      /* M x d, M >= B; row i is the positive of query i; the queries' dtype */
    negcos_const_matrix hard_negatives; /* absent, or (B*H) x d */
    const int64_t* positives;           /* NULL = row i */
    const int32_t* negatives;           /* with NEGCOS_SAMPLING_GIVEN: B x rounds rows of documents, -1 = absent */
    const int64_t* document_ids;        /* NULL, or M */
    const int64_t* query_ids;           /* NULL, or B */
    const double* log_probability;      /* NULL, or M */
    const double* weights;              /* NULL, or B */
} negcos_batch;

/*
 * Outputs. The numbers are always written (on success); an array is computed when its data is not NULL. Arrays have
 * the queries' dtype and belong to the caller.
 */
typedef struct negcos_result {
    uint32_t struct_size;
    uint32_t reserved;             /* 0 */
    double loss;                   /* mean or sum of the losses; 0 for an empty batch */
    double grad_scale;             /* d loss / d scale */
    double grad_bias;              /* d loss / d bias; 0 without SIGMOID */
    double accuracy;               /* share of queries whose positive's logit is above every negative's; ties lose; the
                                      positive's own row is no negative. NaN under BATCH_SOFTMAX and for an empty batch */
    double mean_reciprocal_rank;   /* mean of 1 / (1 + number of negatives with a logit >= the positive's); likewise */
    int64_t excluded;              /* negatives dropped by exclude and false_negative_margin */
    int64_t zero_rows;             /* rows of queries and documents whose norm is 0 (COSINE); their cosines and
                                      gradients are 0 */
    negcos_matrix losses;          /* B x 1: loss_i */
    negcos_matrix hit_probability; /* B x 1: exp(-loss_i) */
    negcos_matrix logits;          /* B x (1 + rounds): z(i,k), the positive first; -Inf where absent; not with ALL */
    negcos_matrix grad_queries;    /* B x d: d loss / d queries */
    negcos_matrix grad_documents;  /* M x d: d loss / d documents */
    negcos_matrix grad_hard_negatives;
    int32_t* negatives; /* B x rounds: the rows used as negatives; not with ALL */
} negcos_result;

/* A thread pool, a set of kernels and a workspace. Opaque; one thread at a time. */
typedef struct negcos_context negcos_context;

/* The library's version: (major << 16) | (minor << 8) | patch. */
NEGCOS_API uint32_t negcos_version(void);

/* The name of a status, e.g. "shape". Static text, never NULL; "unknown status" for any other number. */
NEGCOS_API const char* negcos_status_string(int32_t status);

/*
 * The last failure in the calling thread, in a sentence; "" when there was none. Never NULL; valid until the next
 * call of this thread that fails. Owned by the library.
 */
NEGCOS_API const char* negcos_last_error(void);

/* The number of instruction sets built into the library. */
NEGCOS_API int32_t negcos_isa_count(void);

/* The name of one of them, best first, index in [0, negcos_isa_count()); NULL outside. Static text. */
NEGCOS_API const char* negcos_isa_name(int32_t index);

/* 1 when it is built in and this processor and operating system can run it, otherwise 0. */
NEGCOS_API int32_t negcos_isa_available(const char* isa);

/*
 * Fill a struct of `size` bytes (sizeof the struct where the caller was compiled) with the defaults. NULL is fine. A
 * size below the struct's first version leaves a struct that every call answers with NEGCOS_STATUS_STRUCT_SIZE.
 */
NEGCOS_API void negcos_context_options_init(negcos_context_options* options, size_t size);
NEGCOS_API void negcos_options_init(negcos_options* options, size_t size);
NEGCOS_API void negcos_batch_init(negcos_batch* batch, size_t size);
NEGCOS_API void negcos_result_init(negcos_result* result, size_t size);

/*
 * Create a context. options: NULL = the defaults. *context is written on success only and belongs to the caller, who
 * gives it back with negcos_context_destroy. A child of fork() may go on using its parent's context; its calls run in
 * the calling thread alone.
 * Errors: NULL_ARGUMENT (context, or parallel_for with CALLBACK), STRUCT_SIZE, VALUE (threads, threading,
 * NEGCOS_THREADS), UNSUPPORTED_ISA (isa, NEGCOS_ISA), UNSUPPORTED (a back end not built in), OUT_OF_MEMORY, THREADS.
 */
NEGCOS_API int32_t negcos_context_create(const negcos_context_options* options, negcos_context** context);

/* Destroy a context; no call may be running in it. NULL is fine. */
NEGCOS_API void negcos_context_destroy(negcos_context* context);

/* The instruction set in force, static text; NULL for a NULL context. */
NEGCOS_API const char* negcos_context_isa(const negcos_context* context);

/*
 * The number of threads that a call may use; 0 for a NULL context. (oneTBB itself starts no more than the machine or
 * the host program's own limit allows.)
 */
NEGCOS_API int32_t negcos_context_threads(const negcos_context* context);

/*
 * The one entry: the loss of a batch and everything that result asks for. No gradient is computed that was not asked
 * for. options: NULL = the defaults. An empty batch (B = 0) has loss 0. NaN or Inf in query i reaches loss_i, the
 * total and the gradients that depend on it, and no other query's row.
 * Errors: NULL_ARGUMENT, STRUCT_SIZE, SHAPE, DTYPE, VALUE, OVERLAP, OUT_OF_MEMORY, WORKSPACE_LIMIT, THREADS,
 * UNSUPPORTED.
 */
NEGCOS_API int32_t negcos_evaluate(negcos_context* context, const negcos_options* options, const negcos_batch* batch,
                                   negcos_result* result);

/*
 * The negatives alone: those that negcos_evaluate would use for a batch of `batch` queries and `documents` documents
 * (>= batch) under options->sampling, rounds, seed and step, as rows of documents. negatives: batch x rounds, owned by
 * the caller. options: NULL = the defaults.
 * Errors: NULL_ARGUMENT, STRUCT_SIZE, SHAPE, VALUE (GIVEN and ALL draw nothing), OUT_OF_MEMORY, WORKSPACE_LIMIT,
 * THREADS, UNSUPPORTED.
 */
NEGCOS_API int32_t negcos_sample(negcos_context* context, const negcos_options* options, int64_t batch,
                                 int64_t documents, int32_t* negatives);

#ifdef __cplusplus
}
#endif

#endif
