/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calls of golden/calls.txt, by the C ABI: the bits that every binding must give as well. The file says what its
 * keys mean.
 *
 *     calls FILE     writes FILE's lines as computed here; status 1 when one differs, with both on standard error
 *
 * So a new call is added with ? for its values, and calls FILE > NEW.
 */
#include <negcos/negcos.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char* what, const char* which) {
    fprintf(stderr, "calls: %s: %s\n", what, which);
    exit(2);
}

/* Enumerators by name, in order of their value. */
static int32_t number_of(const char* name, const char* const* names) {
    for (int32_t i = 0; names[i] != NULL; ++i) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    die("no such name", name);
    return -1;
}

static const char* const dtypes[] = {"f32", "f64", "f16", "bf16", NULL};
static const size_t dtype_sizes[] = {4, 8, 2, 2};
static const char* const objectives[] = {"softmax", "batch-softmax", "sigmoid", "decoupled", NULL};
static const char* const similarities[] = {"cosine", "dot", NULL};
static const char* const samplings[] = {"shuffle", "derangement", "cyclic", "uniform", "log-uniform",
                                        "given",   "all",         "(none)", "groups",  NULL};
static const char* const reductions[] = {"mean", "sum", NULL};
static const char* const directions[] = {"query-to-document", "both", NULL};

static void store(double value, int32_t dtype, unsigned char* to) {
    const float narrow = (float)value;
    uint32_t bits;
    memcpy(&bits, &narrow, 4);
    uint16_t half = (uint16_t)(bits >> 16); /* BF16 */
    if (dtype == NEGCOS_DTYPE_F16) {        /* a multiple of 1/16 below 2: normal, and exact */
        half = value == 0
                   ? 0
                   : (uint16_t)((bits >> 16 & 0x8000) | ((bits >> 23 & 0xff) - 112) << 10 | (bits >> 13 & 0x3ff));
    }
    if (dtype == NEGCOS_DTYPE_F64) {
        memcpy(to, &value, 8);
    } else if (dtype == NEGCOS_DTYPE_F32) {
        memcpy(to, &narrow, 4);
    } else {
        memcpy(to, &half, 2);
    }
}

/* The arrays of a call. */
enum { max_arrays = 32 };
static void* arrays[max_arrays];
static int array_count;

static void* allocate(size_t bytes) {
    void* memory = calloc(bytes == 0 ? 1 : bytes, 1);
    if (memory == NULL || array_count == max_arrays) {
        die("out of memory", "");
    }
    return arrays[array_count++] = memory;
}

static void release(void) {
    while (array_count > 0) {
        free(arrays[--array_count]);
    }
}

static negcos_matrix blank(int64_t rows, int64_t cols, int64_t padding, int32_t dtype) {
    negcos_matrix matrix = {NULL, rows, cols, cols + padding, dtype, 0};
    matrix.data = allocate((size_t)(rows * matrix.row_stride) * dtype_sizes[dtype]);
    return matrix;
}

static negcos_const_matrix input(int64_t rows, int64_t cols, int64_t padding, int32_t dtype, int64_t salt) {
    const negcos_matrix filled = blank(rows, cols, padding, dtype);
    const negcos_const_matrix matrix = {filled.data, rows, cols, filled.row_stride, dtype, 0};
    for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < cols; ++j) {
            const int64_t value = (i * 31 + j * 17 + salt + i * j * 3) % 41 - 20;
            store((double)value / 16, dtype,
                  (unsigned char*)filled.data + (size_t)(i * filled.row_stride + j) * dtype_sizes[dtype]);
        }
    }
    return matrix;
}

static const int64_t* remainders(int64_t count, int64_t divisor) {
    int64_t* values = allocate((size_t)count * sizeof *values);
    for (int64_t i = 0; i < count; ++i) {
        values[i] = i % divisor;
    }
    return values;
}

static uint64_t hash(const void* data, int64_t rows, size_t row_bytes, size_t stride_bytes) {
    uint64_t state = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < rows; ++i) {
        const unsigned char* row = (const unsigned char*)data + (size_t)i * stride_bytes;
        for (size_t k = 0; k < row_bytes; ++k) {
            state = (state ^ row[k]) * 0x100000001b3u;
        }
    }
    return state;
}

static uint64_t matrix_hash(const negcos_matrix* matrix) {
    const size_t size = dtype_sizes[matrix->dtype];
    return hash(matrix->data, matrix->rows, (size_t)matrix->cols * size, (size_t)matrix->row_stride * size);
}

static uint64_t bits(double value) {
    uint64_t number;
    memcpy(&number, &value, sizeof number);
    return number;
}

enum { max_keys = 48 };
typedef struct {
    char *keys[max_keys], *values[max_keys];
    int count;
} Call;

static const char* find(const Call* call, const char* key) {
    for (int k = 0; k < call->count; ++k) {
        if (strcmp(call->keys[k], key) == 0) {
            return call->values[k];
        }
    }
    return NULL;
}

static int64_t integer(const Call* call, const char* key) {
    const char* value = find(call, key);
    return value == NULL ? 0 : strtoll(value, NULL, 10);
}

static const char* const inputs[] = {"name", "dtype",  "queries", "documents", "dim",    "row_padding",
                                     "hard", "rounds", "seed",    "step",      "exclude"};

/* Computes a call and appends it to `line`. Memory is left to the end of the process: there are few calls. */
static void compute(negcos_context* context, const Call* call, char* line, size_t capacity) {
    negcos_options options;
    negcos_batch batch;
    negcos_result result;
    negcos_options_init(&options, sizeof options);
    negcos_batch_init(&batch, sizeof batch);
    negcos_result_init(&result, sizeof result);
    const int32_t dtype = number_of(find(call, "dtype"), dtypes);
    const int64_t queries = integer(call, "queries"), documents = integer(call, "documents"),
                  dim = integer(call, "dim");
    const int64_t padding = integer(call, "row_padding"), hard = integer(call, "hard");
    batch.queries = input(queries, dim, padding, dtype, 7);
    batch.documents = input(documents, dim, padding, dtype, 14);
    if (hard > 0) {
        batch.hard_negatives = input(queries * hard, dim, padding, dtype, 21);
    }

    const struct {
        const char* key;
        int32_t* field;
        const char* const* names;
    } enumerations[] = {
        {"objective", &options.objective, objectives}, {"similarity", &options.similarity, similarities},
        {"sampling", &options.sampling, samplings},    {"reduction", &options.reduction, reductions},
        {"direction", &options.direction, directions},
    };
    const struct {
        const char* key;
        double* field;
    } numbers[] = {
        {"scale", &options.scale},
        {"temperature", &options.temperature},
        {"bias", &options.bias},
        {"margin", &options.margin},
        {"label_smoothing", &options.label_smoothing},
        {"hardness", &options.hardness},
        {"false_negative_margin", &options.false_negative_margin},
    };
    for (size_t k = 0; k < sizeof enumerations / sizeof *enumerations; ++k) {
        if (find(call, enumerations[k].key) != NULL) {
            *enumerations[k].field = number_of(find(call, enumerations[k].key), enumerations[k].names);
        }
    }
    for (size_t k = 0; k < sizeof numbers / sizeof *numbers; ++k) {
        if (find(call, numbers[k].key) != NULL) {
            *numbers[k].field = strtod(find(call, numbers[k].key), NULL);
        }
    }
    if (find(call, "rounds") != NULL) {
        options.rounds = (int32_t)integer(call, "rounds");
    }
    options.seed = (uint64_t)integer(call, "seed");
    options.step = (uint64_t)integer(call, "step");
    options.exclude = (int32_t)integer(call, "exclude");
    if (options.exclude != 0) {
        batch.document_ids = remainders(documents, 5);
        batch.query_ids = remainders(queries, 7);
    }

    const struct {
        const char* key;
        negcos_matrix* matrix;
        int64_t rows, cols;
    } outputs[] = {
        {"losses", &result.losses, queries, 1},
        {"hit_probability", &result.hit_probability, queries, 1},
        {"logits", &result.logits, queries, 1 + options.rounds + hard},
        {"grad_queries", &result.grad_queries, queries, dim},
        {"grad_documents", &result.grad_documents, documents, dim},
        {"grad_hard_negatives", &result.grad_hard_negatives, queries * hard, dim},
    };
    for (size_t k = 0; k < sizeof outputs / sizeof *outputs; ++k) {
        if (find(call, outputs[k].key) != NULL) {
            *outputs[k].matrix = blank(outputs[k].rows, outputs[k].cols, padding, dtype);
        }
    }
    if (find(call, "negatives") != NULL) {
        result.negatives = allocate((size_t)(queries * options.rounds) * sizeof *result.negatives);
    }
    if (negcos_evaluate(context, &options, &batch, &result) != NEGCOS_STATUS_OK) {
        die(find(call, "name"), negcos_last_error());
    }

    for (int k = 0; k < call->count; ++k) {
        const char* key = call->keys[k];
        const size_t length = strlen(line);
        uint64_t value = 0;
        int computed = 1, known = 0;
        if (strcmp(key, "loss") == 0) {
            value = bits(result.loss);
        } else if (strcmp(key, "grad_scale") == 0) {
            value = bits(result.grad_scale);
        } else if (strcmp(key, "grad_bias") == 0) {
            value = bits(result.grad_bias);
        } else if (strcmp(key, "accuracy") == 0) {
            value = bits(result.accuracy);
        } else if (strcmp(key, "excluded") == 0) {
            snprintf(line + length, capacity - length, "%sexcluded=%lld", k == 0 ? "" : " ",
                     (long long)result.excluded);
            continue;
        } else if (strcmp(key, "negatives") == 0) {
            value = hash(result.negatives, queries, (size_t)options.rounds * 4, (size_t)options.rounds * 4);
        } else {
            computed = 0;
            for (size_t i = 0; i < sizeof inputs / sizeof *inputs; ++i) {
                known |= strcmp(key, inputs[i]) == 0;
            }
            for (size_t i = 0; i < sizeof enumerations / sizeof *enumerations; ++i) {
                known |= strcmp(key, enumerations[i].key) == 0;
            }
            for (size_t i = 0; i < sizeof numbers / sizeof *numbers; ++i) {
                known |= strcmp(key, numbers[i].key) == 0;
            }
            for (size_t o = 0; o < sizeof outputs / sizeof *outputs; ++o) {
                if (strcmp(key, outputs[o].key) == 0) {
                    value = matrix_hash(outputs[o].matrix);
                    computed = 1;
                }
            }
        }
        if (!computed && !known) {
            die("no such key", key);
        }
        if (computed) {
            snprintf(line + length, capacity - length, " %s=%016llx", key, (unsigned long long)value);
        } else {
            snprintf(line + length, capacity - length, "%s%s=%s", k == 0 ? "" : " ", key, call->values[k]);
        }
    }
}

int main(int argc, char** argv) {
    negcos_context* context;
    static char line[4096], words[4096], computed[4096];
    int calls = 0, differ = 0;
    FILE* file = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (file == NULL) {
        die("usage", "calls FILE");
    }
    if (negcos_context_create(NULL, &context) != NEGCOS_STATUS_OK) {
        die("negcos_context_create", negcos_last_error());
    }
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = 0;
        if (line[0] == '#' || line[0] == 0) {
            puts(line);
            continue;
        }
        strcpy(words, line);
        Call call = {{NULL}, {NULL}, 0};
        for (char* word = strtok(words, " "); word != NULL; word = strtok(NULL, " ")) {
            char* equals = strchr(word, '=');
            if (equals == NULL || call.count == max_keys) {
                die("not key=value", word);
            }
            *equals = 0;
            call.keys[call.count] = word;
            call.values[call.count++] = equals + 1;
        }
        computed[0] = 0;
        compute(context, &call, computed, sizeof computed);
        release();
        puts(computed);
        ++calls;
        if (strcmp(line, computed) != 0) {
            ++differ;
            fprintf(stderr, "recorded: %s\ncomputed: %s\n", line, computed);
        }
    }
    fclose(file);
    negcos_context_destroy(context);
    fprintf(stderr, "calls: %d computed, %d differ\n", calls, differ);
    return calls == 0 || differ != 0;
}
