/* SPDX-License-Identifier: Apache-2.0 */
/*
 * negcos: the in-batch negative-sampling cosine loss of two-tower retrieval models.
 *
 * This header is the whole interface of the library and its specification.
 *
 * Introduction
 * ============
 * Queries Q (B x d) and documents D (M x d, M >= B) come out of the two towers of a retrieval model. Row i of D is the
 * positive of query i (unless batch.positives says otherwise; M may then be less than B). Each query is compared with
 * its positive and with N negatives, other documents of the batch:
 *
 *     cos(i,j) = q_i . d_j / (max(|q_i|, f) * max(|d_j|, f))        f = norm_floor
 *     z(i,k)   = scale * cos(i, c(i,k)) / temperature               c(i,0) the positive, c(i,1..N) the negatives
 *     loss_i   = -z(i,0) + log sum_k exp z(i,k)
 *     loss     = mean_i loss_i  (or the sum)
 *
 * The library computes the loss, its gradients with respect to every query, document, hard negative, the scale and the
 * bias, and a few metrics, in one call; the rest of the loss family is options of that call. Nothing is copied NEG + 1
 * times, and no B x M array is ever stored.
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
 * - After the first call of a shape and options a context allocates nothing more for such calls. (A dense sample in
 *   which NaN or Inf shows for the first time goes another way, and may grow once.)
 * - For given inputs, options and dtype the outputs are the same bits from run to run, for every number of threads and
 *   every threading back end, and on every instruction set.
 * - One thread at a time per context; any number of contexts at once. Functions without a context may be called from
 *   any thread at any time.
 *
 * Structs that may grow start with `struct_size`. Call their `_init` function first: it fills the defaults and the
 * size. A program built against an older, shorter struct keeps working; a longer struct is accepted when the bytes
 * that this library does not know are zero.
 *
 * Options that exclude each other, and threads that were not built in, answer NEGCOS_STATUS_UNSUPPORTED.
 */
#ifndef NEGCOS_NEGCOS_H
#define NEGCOS_NEGCOS_H

#include <stddef.h>
#include <stdint.h>

/* MAJOR is the ABI's too, and the number in the shared library's name (libnegcos.so.MAJOR): within it programs keep
   running, against newer libraries as well. */
#define NEGCOS_VERSION_MAJOR 0
#define NEGCOS_VERSION_MINOR 1
#define NEGCOS_VERSION_PATCH 0

#if defined(NEGCOS_API)
/* whoever builds the library says what it shows */
#elif defined(__GNUC__) || defined(__clang__)
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
    NEGCOS_STATUS_UNSUPPORTED = 31,     /* two options that exclude each other, or not built in */
    NEGCOS_STATUS_IO = 40,              /* a file cannot be read or written, or is not what it should be */
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
    NEGCOS_OBJECTIVE_SIGMOID = 2,       /* each candidate judged by itself: loss_i = -log sigma(z(i,0) + bias)
                                           + sum over the negatives of -log sigma(-z(i,k) - bias); with ALL: SigLIP */
    NEGCOS_OBJECTIVE_DECOUPLED = 3      /* as SOFTMAX with the negatives alone in the sum: loss_i = -z(i,0)
                                           + log sum_{k>0} exp z(i,k), which may be below 0; without a negative 0 */
};

enum {
    NEGCOS_SIMILARITY_COSINE = 0, /* cos(i,j) above */
    NEGCOS_SIMILARITY_DOT = 1     /* q_i . d_j in place of the cosine; norm_floor and zero_rows play no part */
};

/* Where the negatives of query i in round r come from. docs/sampling.md states the exact draws. */
enum {
    NEGCOS_SAMPLING_SHUFFLE = 0, /* the positive of query pi_r(i), pi_r a uniform random permutation of the batch; may
                                    hit the own positive and the same document twice; both count */
    NEGCOS_SAMPLING_DERANGEMENT = 1, /* as SHUFFLE, but pi_r(i) != i for all i; needs B >= 2 */
    NEGCOS_SAMPLING_CYCLIC = 2,      /* pi_r(i) = (i + s_r) mod B, s_r random in [1,B), no two alike in B - 1 rounds;
                                        needs B >= 2 */
    NEGCOS_SAMPLING_UNIFORM = 3, /* independent uniform draws from the M documents other than the positive; M >= 2 */
    NEGCOS_SAMPLING_LOG_UNIFORM = 4, /* as UNIFORM with P(j) ~ log((j+2)/(j+1)) */
    NEGCOS_SAMPLING_GIVEN = 5,       /* batch.negatives, B x rounds; -1 = absent */
    NEGCOS_SAMPLING_ALL = 6,         /* every document but the positive; rounds is ignored */
    NEGCOS_SAMPLING_GROUPS = 8       /* the batch is dealt at random into groups of rounds + 1 queries, and the
                                        negatives of each are the positives of the others in its group; needs
                                        rounds < B. (7 is no sampling) */
};

enum { NEGCOS_REDUCTION_MEAN = 0, NEGCOS_REDUCTION_SUM = 1 };

/* BOTH: the mean of the loss above and of the same with the roles of queries and documents exchanged (CLIP, symmetric
   MNRL). With sampling ALL and M = B. */
enum { NEGCOS_DIRECTION_QUERY_TO_DOCUMENT = 0, NEGCOS_DIRECTION_BOTH = 1 };

/* Which logits log_probability corrects. */
enum {
    NEGCOS_CORRECTION_ALL_CANDIDATES = 0, /* the positive's too */
    NEGCOS_CORRECTION_NEGATIVES_ONLY = 1
};

/* Bits of negcos_options.exclude: which negatives of query i are dropped. */
enum {
    NEGCOS_EXCLUDE_SAME_DOCUMENT_ID = 1, /* documents with the positive's document_ids (the positive itself too) */
    NEGCOS_EXCLUDE_SAME_QUERY_ID = 2     /* documents that are the positive of a query with query i's query_ids */
};

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
    int32_t threads;   /* 0 = as many as the CPUs that the calling thread may use, capped by NEGCOS_THREADS in the
                          environment or, without it, by the container's quota and OMP_NUM_THREADS (docs/threads.md) */
    int32_t threading; /* NEGCOS_THREADING_ */
    int32_t reserved;  /* 0 */
    const char* isa;   /* NULL = the best one (NEGCOS_ISA in the environment caps that), or "scalar", "avx2",
                          "avx512", "neon"; read during the call only */
    negcos_parallel_for_fn parallel_for; /* with NEGCOS_THREADING_CALLBACK */
    void* parallel_for_data;
    uint64_t workspace_limit; /* bytes that a call may use beyond inputs and outputs; 0 = no limit */
} negcos_context_options;

/*
 * What is computed. The logits of query i, in this order (docs/losses.md has the formulas and where each comes from):
 *     z(i,k) = scale / temperature * cos                       cos of query i and candidate k
 *     margin             of the positive: scale / temperature * (cos - margin)
 *     hardness           of every negative: + hardness * cos, taken as a constant by the gradient
 *     log_probability    of documents: - log Q(candidate)
 * Options that exclude each other answer UNSUPPORTED with a sentence that names the two.
 */
typedef struct negcos_options {
    uint32_t struct_size;
    int32_t objective;  /* NEGCOS_OBJECTIVE_, SOFTMAX */
    int32_t similarity; /* NEGCOS_SIMILARITY_, COSINE */
    int32_t sampling;   /* NEGCOS_SAMPLING_, SHUFFLE */
    int32_t rounds;     /* N, negatives per query, >= 0; 4 */
    int32_t reduction;  /* NEGCOS_REDUCTION_, MEAN: sum of w_i loss_i over the sum of w_i; SUM: without the
                           division. w_i: batch.weights, or 1 */
    int32_t direction;  /* NEGCOS_DIRECTION_, QUERY_TO_DOCUMENT */
    int32_t exclude;    /* bits of NEGCOS_EXCLUDE_, 0 */
    uint64_t seed;      /* with step and the round: the key of every draw; 0 */
    uint64_t step;      /* the training step, so that each draws new negatives from one seed; 0 */
    double scale;       /* 20; any finite number whose ratio to the temperature is at most 2^124 (F64: 2^1020) in size;
                           2^90 (2^960), as all terms of a logit, for all but the plain SOFTMAX and BATCH_SOFTMAX */
    double temperature; /* 1; finite, > 0; without effect under BATCH_SOFTMAX, where the published layer's t cancels */
    double bias;        /* 0; SIGMOID only */
    double norm_floor;  /* 1e-12; finite, >= 0: norms below it count as it */
    double margin;      /* 0; finite */
    double label_smoothing; /* 0; [0, 1), SOFTMAX only: of the K candidates left each gets label_smoothing / K of the
                               target, the positive 1 - label_smoothing on top */
    double hardness;        /* 0; finite */
    double false_negative_margin; /* +Inf = off: negatives with cos > cos(positive) + this are dropped */
    int32_t correction;           /* NEGCOS_CORRECTION_, ALL_CANDIDATES: what log_probability corrects */
    int32_t prefix_count; /* 0 = off, at most 32: P nested prefixes (Matryoshka). The loss is then the sum over p of
                             prefix_weights[p] times the loss of the first prefix_dims[p] columns; metrics, logits,
                             excluded and zero_rows are those of the last prefix */
    const int32_t* prefix_dims;   /* P column counts, rising, in [1, d]; read during the call only */
    const double* prefix_weights; /* P weights in [0, 2^60] (F64: 2^480); NULL = 1 each; read during the call only */
} negcos_options;

typedef struct negcos_batch {
    uint32_t struct_size;
    uint32_t reserved;                  /* 0 */
    negcos_const_matrix queries;        /* B x d */
    negcos_const_matrix documents;      /* M x d, M >= B without positives; the queries' dtype */
    negcos_const_matrix hard_negatives; /* absent, or (B*H) x d: rows i*H .. i*H + H - 1 are negatives of query i alone,
                                           and follow the rounds in its list; they have no id and no log_probability */
    const int64_t* positives;      /* B rows of documents, each the positive of its query; several queries may share
                                      one. NULL = row i */
    const int32_t* negatives;      /* with NEGCOS_SAMPLING_GIVEN: B x rounds rows of documents, -1 = absent */
    const int64_t* document_ids;   /* M, with NEGCOS_EXCLUDE_SAME_DOCUMENT_ID; otherwise not read */
    const int64_t* query_ids;      /* B, with NEGCOS_EXCLUDE_SAME_QUERY_ID; otherwise not read */
    const double* log_probability; /* NULL, or M finite numbers: log Q of each document to be drawn as a candidate
                                      (Yi et al., RecSys 2019); negcos_frequency estimates them */
    const double* weights; /* NULL, or B numbers in [0, 2^60] (F64: 2^480). 0 takes a query out of the total and the
                              gradients, whatever is in its row; all 0: loss and gradients 0 */
} negcos_batch;

/*
 * Outputs. The numbers are always written (on success); an array is computed when its data is not NULL. Arrays have
 * the queries' dtype and belong to the caller.
 */
typedef struct negcos_result {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    double loss;       /* weighted mean or sum of the losses; 0 for an empty batch */
    double grad_scale; /* d loss / d scale */
    double grad_bias;  /* d loss / d bias; 0 without SIGMOID */
    double accuracy;   /* share of queries with rank 0. The rank is the number of negatives, the positive's own row left
                          out, whose logit is not below the positive's: ties and NaN count against the model. NaN
                          under BATCH_SOFTMAX and for an empty batch */
    double mean_reciprocal_rank; /* mean of 1 / (1 + rank); likewise */
    int64_t excluded;     /* negatives dropped by exclude and false_negative_margin; with BOTH of both directions */
    int64_t zero_rows;    /* rows of queries, documents and hard negatives whose norm is 0 (COSINE); their
                             cosines and gradients are 0 */
    negcos_matrix losses; /* B x 1: loss_i; with BOTH the mean of query i's and of its document's */
    negcos_matrix hit_probability; /* B x 1: exp(-loss_i); under DECOUPLED it may be above 1 */
    negcos_matrix logits;         /* B x (1 + rounds + H): z(i,k), the positive first; -Inf where absent or dropped; not
                                     with ALL */
    negcos_matrix grad_queries;   /* B x d: d loss / d queries */
    negcos_matrix grad_documents; /* M x d: d loss / d documents */
    negcos_matrix grad_hard_negatives; /* (B*H) x d: d loss / d hard_negatives */
    int32_t* negatives; /* B x rounds: the rows drawn as negatives, dropped ones included; not with ALL */
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
 * the calling thread alone, and so do those of a context that it creates with oneTBB or OpenMP when its parent has run
 * threads of theirs here. The results are the same bits. The first context with oneTBB or OpenMP keeps the library, or
 * the plug-in that contains it, loaded until the process ends, as their threads live on: dlclose() may be called, and
 * unloads nothing.
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
 * The negatives alone: those that negcos_evaluate would use for a batch without `positives` (with them, ask for
 * result.negatives) of `batch` queries and `documents` documents (>= batch) under options->sampling, rounds, seed and
 * step, as rows of documents. negatives: batch x rounds, owned by the caller. options: NULL = the defaults. Errors:
 * NULL_ARGUMENT, STRUCT_SIZE, SHAPE, VALUE (GIVEN and ALL draw nothing), OUT_OF_MEMORY, WORKSPACE_LIMIT, THREADS,
 * UNSUPPORTED.
 */
NEGCOS_API int32_t negcos_sample(negcos_context* context, const negcos_options* options, int64_t batch,
                                 int64_t documents, int32_t* negatives);

/*
 * How often is an item a candidate? An estimator of Q, for batch.log_probability: item ids in, one batch a training
 * step, log-probabilities out, in memory that does not grow with the number of items. docs/frequency.md states the
 * algorithms, the hash and the file so that they can be written again; for given options and ids the estimates are the
 * same bits on every machine.
 *
 *     negcos_frequency_update(frequency, item_ids, M);                              // once a step
 *     negcos_frequency_log_probability(frequency, item_ids, M, log_probability);
 *     batch.log_probability = log_probability;
 *
 * Ids are hashed into buckets, and items that share one look more frequent than they are. Several hashes make that
 * rare: the estimate is that of the hash which makes the item the least frequent.
 */
enum {
    NEGCOS_FREQUENCY_STREAMING = 0, /* Yi et al., RecSys 2019: 1 / (moving average of the steps between batches that
                                       have the item) = the probability that a batch has the item. Follows items whose
                                       frequency changes. An id counts once a batch */
    NEGCOS_FREQUENCY_COUNT_MIN = 1  /* count-min sketch: the item's share of all ids so far = the probability that a
                                       draw is the item. Never below the true share */
};

typedef struct negcos_frequency_options {
    uint32_t struct_size;
    int32_t method;       /* NEGCOS_FREQUENCY_, STREAMING */
    int32_t hashes;       /* 4; [1, 64] */
    int32_t reserved;     /* 0 */
    int64_t buckets;      /* of each hash, 2^20; [1, 2^32]. Memory: hashes * buckets * 16 bytes, COUNT_MIN 8 */
    double learning_rate; /* STREAMING only, 0.01; (0, 1]: the weight of an item's latest gap in its average */
    double initial_gap;   /* STREAMING only, 0: an average begins as the item's first gap, which is unbiased; or
                             [1, 2^53]: it begins here and the first gap counts as any other */
    uint64_t seed;        /* of the hashes, 0 */
} negcos_frequency_options;

/* Opaque. One thread at a time updates it, and none else uses it meanwhile; log_probability and save leave it as it is
   and may run in any number of threads at once. */
typedef struct negcos_frequency negcos_frequency;

/* As the other _init functions. */
NEGCOS_API void negcos_frequency_options_init(negcos_frequency_options* options, size_t size);

/*
 * Create an estimator that has seen nothing. options: NULL = the defaults. *frequency is written on success only and
 * belongs to the caller, who gives it back with negcos_frequency_destroy.
 * Errors: NULL_ARGUMENT, STRUCT_SIZE, VALUE, UNSUPPORTED (learning_rate or initial_gap with COUNT_MIN), UNSUPPORTED_ISA
 * (NEGCOS_ISA in the environment), OUT_OF_MEMORY.
 */
NEGCOS_API int32_t negcos_frequency_create(const negcos_frequency_options* options, negcos_frequency** frequency);

/*
 * Count a batch: `count` ids of items, any numbers, in any order. One call is one training step, count = 0 a step
 * without items. Allocates nothing; on failure nothing was counted.
 * Errors: NULL_ARGUMENT, SHAPE (count), VALUE (more than 2^53 steps, with COUNT_MIN ids).
 */
NEGCOS_API int32_t negcos_frequency_update(negcos_frequency* frequency, const int64_t* ids, int64_t count);

/*
 * log_probability[k] = log of the estimate for ids[k], natural, finite and <= 0 for every id. An item never seen gets
 * what it would have if the next step (COUNT_MIN: the next draw) were its first: 1 / (steps or ids so far + 1); with an
 * initial_gap 1 / initial_gap. Allocates nothing.
 * Errors: NULL_ARGUMENT, SHAPE (count), OVERLAP.
 */
NEGCOS_API int32_t negcos_frequency_log_probability(const negcos_frequency* frequency, const int64_t* ids,
                                                    int64_t count, double* log_probability);

/*
 * Save everything, options included, to be loaded on any machine. The file is written beside `path` and then renamed:
 * whatever interrupts it, at `path` is the old file or the new one.
 * Errors: NULL_ARGUMENT, IO (also when something other than a regular file is there), OUT_OF_MEMORY.
 */
NEGCOS_API int32_t negcos_frequency_save(const negcos_frequency* frequency, const char* path);

/*
 * Load what negcos_frequency_save saved; it goes on as the saved one would have. *frequency is written on success only
 * and belongs to the caller.
 * Errors: NULL_ARGUMENT, IO (also for a file that is truncated, damaged or not such a file), UNSUPPORTED_ISA,
 * OUT_OF_MEMORY.
 */
NEGCOS_API int32_t negcos_frequency_load(const char* path, negcos_frequency** frequency);

/* Destroy an estimator; no call may be running in it. NULL is fine. */
NEGCOS_API void negcos_frequency_destroy(negcos_frequency* frequency);

#ifdef __cplusplus
}
#endif

#endif
