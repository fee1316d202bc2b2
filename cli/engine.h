/* From options to collections and from there to the library: loading and checking inputs, and
 * scoring in slices, so that there is progress to show and files larger than memory pass
 * through. */
#ifndef LIK_CLI_ENGINE_H
#define LIK_CLI_ENGINE_H

#include "library.h"

/* input.c: queries and documents that fit each other. */
struct inputs {
    struct lik_collection queries, documents;
    double seconds; /* opening and checking the queries */
};
void inputs_open(struct inputs *inputs, const struct options *options, const char *queries,
                 const char *documents);
/* The same in two steps: 0, or the reader's status, and nothing is open; then what should be
 * said. */
int inputs_try(struct inputs *inputs, const struct options *options, const char *queries,
               const char *documents, struct lik_io_error *error);
void inputs_look(struct inputs *inputs, const struct options *options);
/* A note where the queries' file has weights that scores are going to have in them. */
void inputs_tell_weights(const struct inputs *inputs);
void inputs_close(struct inputs *inputs);
/* One collection from the options; `queries` says which of them. */
void collection_open(struct lik_collection *c, const struct options *options, const char *path, int queries);
/* Length of a token's vector, its scale applied but not yet scaled to unit length; `row` as
 * lik_collection_row has it. */
double row_norm(const struct lik_collection *c, int64_t row);
/* Are norms from `low` to `high` those of unit vectors, but for what their dtype rounds? */
int norms_are_unit(const struct lik_tokens *x, double low, double high);
/* Query tokens that count, or their weights' sum: what a score is divided by to be a mean
 * similarity. */
double query_weight(const struct lik_collection *queries, int64_t i);

struct engine {
    struct library library;
    struct staged *staged; /* NULL: operations read host memory as it is */
    void *workspace;       /* grows */
    size_t workspace_bytes;
};
void engine_open(struct engine *engine, const struct options *options);
void engine_close(struct engine *engine);
/* What does the work, for messages: "8 threads", or the pieces that a GPU gets, or that it
 * shares the memory. */
const char *engine_workers(const struct engine *engine, char text[48]);
/* Plan, workspace, run; a failure ends the program with the library's message. LIK_ALL and
 * LIK_LIST without argmax; the operands' rows are contiguous: [count, len_max, dim], or [total,
 * dim] with i64 offsets, and so are mask, scale (or one for the tensor) and weights. */
void engine_score(struct engine *engine, const struct lik_score *op);
void engine_topk(struct engine *engine, const struct lik_topk *op);
/* The codec's verbs. Training says how far it is, as the progress of its phase. */
void engine_train(struct engine *engine, const struct lik_train *op);
void engine_encode(struct engine *engine, const struct lik_encode *op);

/* Similarities of all tokens of query q with all tokens of document d: [query length, document
 * length], NaN where a mask drops one of the two. `out` has room for them. */
void engine_similarities(struct engine *engine, const struct inputs *inputs, int64_t q, int64_t d,
                         float *out);

/* Rows first ... first + count - 1 of x, which is contiguous, as so many sequences of one
 * token. */
struct lik_tokens tokens_rows(const struct lik_tokens *x, int64_t first, int64_t count);
/* What a row takes in memory: its vector or residual, code and scale. */
int64_t token_bytes(const struct lik_tokens *x);
/* How they are stored: "f16", "4-bit". */
const char *storage_name(const struct lik_tokens *x);

/* Rows of collection `c` in sequences first ... first + count - 1 that hold a NaN and are
 * kept. */
struct bad_rows {
    int64_t rows, sequences; /* how many rows, in how many sequences */
    int64_t sequence, token; /* the first of them */
};
void engine_find_bad(struct engine *engine, const struct lik_collection *c, int64_t first, int64_t count,
                     struct bad_rows *bad);
/* Ends the program if there are such rows in the whole collection, or masks them if
 * skip_bad. */
void engine_refuse_bad(struct engine *engine, struct lik_collection *c, int queries, int skip_bad);

/* Sequences first ... first + count - 1 of a collection as a view. */
struct lik_tokens collection_slice(const struct lik_collection *c, int64_t first, int64_t count);
/* What it takes to score these queries against one row of documents: 2 * tokens * dim. */
double flops_per_row(const struct lik_collection *queries, int64_t first, int64_t count);

/* Chooses slices of about a quarter of a second from what the ones before took. */
struct slicer {
    const struct lik_collection *documents;
    double flops_per_row, rate, start; /* rate: flops a second, 0 = not known yet */
    int64_t next, rows_done;
};
/* The next slice [*first, *first + *count); 0 at the end. */
int slicer_next(struct slicer *slicer, int64_t *first, int64_t *count);

#endif
