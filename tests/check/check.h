/* The check suite: every backend and CPU level against expectations computed here in f64, over
 * generated problems.
 *
 * A `spec` says what a problem looks like, a `problem` is that problem in memory: inputs
 * read-only between unmapped pages, what no kernel may look at (gaps, dropped tokens, rows
 * outside the sequences) filled with NaN, outputs poisoned. The expectation is computed once
 * from the decoded tokens, independently of src/ref, which is checked like every backend. */
#ifndef LIK_CHECK_H
#define LIK_CHECK_H

#include "lik/lik.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array)  ((int64_t)(sizeof(array) / sizeof *(array)))
#define UNIT_ROUNDOFF 0x1p-24 /* of f32 */

/* ---- harness.c: failures, random numbers, guarded memory ---- */

/* Totals of the run. `quick` asks for the reduced set; `only` >= 0 runs just that case of each
 * group; `slack` bytes are left between a buffer's end and the unmapped page (emulators may
 * load a whole vector where an instruction names a scalar). */
extern struct check_totals {
    int64_t cases, checks, failures, skipped;
    int quick;
    int64_t only;
    int stop;         /* at the first failure */
    int gpu;          /* only a GPU is checked: its tolerances hold */
    int64_t launched; /* operations run on it */
    size_t slack;
    double worst; /* the largest error seen, as a share of its tolerance */
} totals;

/* Names what is being checked, in messages and after a crash. */
__attribute__((format(printf, 1, 2))) void check_describe(const char *format, ...);

/* Counts one check; prints the description and the message if it does not hold. Returns
 * `holds`. */
__attribute__((format(printf, 2, 3))) int check(int holds, const char *format, ...);

/* Checks that a call succeeded, printing its message if it did not. */
int check_ok(int status, const char *call);

/* Checks |got - want| <= tolerance; NaN must meet NaN, an infinity itself. `what` and `at` name
 * the entry. */
int check_close(const char *what, int64_t at, double got, double want, double tolerance);

/* Should case `number` of the running group be run? Takes every `thin`-th in the reduced
 * set. */
int check_wanted(int64_t number, int64_t thin);

/* Prints the case after a fault, then leaves the signal to whoever had it before. */
void check_catch_faults(void);

struct rng {
    uint64_t state;
};
uint64_t rng_next(struct rng *rng);
int64_t rng_below(struct rng *rng, int64_t n); /* 0 ... n - 1; n >= 1 */
double rng_unit(struct rng *rng);              /* [0, 1) */
double rng_normal(struct rng *rng);
#define RNG_PICK(rng, array) ((array)[rng_below((rng), COUNT(array))])

/* Bytes that start right behind, or end right before, an unmapped page; the slack on the other
 * side is watched. */
enum placement { AT_END, AT_BEGIN };
struct buffer {
    unsigned char *map, *data;
    size_t map_bytes, bytes;
};
struct buffer buffer_make(size_t bytes, enum placement placement, size_t align);
void buffer_lock(struct buffer *b);                          /* read-only from here on */
void buffer_check(const struct buffer *b, const char *name); /* the slack is untouched */
void buffer_free(struct buffer *b);

/* ---- devices ---- */

struct device {
    const char *name, *level; /* "cpu:avx2", "avx2" */
    struct lik_context *ctx;  /* NULL: this processor lacks the level */
};
extern struct device devices[];
extern const int64_t device_count;
void devices_open(const char *only);
void devices_close(void);
/* So many tasks at once: by a pool if there are 8, else one after another, last first. */
struct lik_exec exec_of(int32_t threads);

/* ---- problem.c: generated problems and what they should give ---- */

enum layout {
    CONTIGUOUS,
    GAPS,
    SPREAD,
    TRANSPOSED,
    REVERSED,
    BROADCAST,
    GROUPED,
    PACKED_I32,
    PACKED_I64,
    PACKED_GAPS,
    LAYOUTS
};
enum mask { UNMASKED, KEEP_ALL, PREFIX, RANDOM, ALTERNATE, SHARED, KEEP_NONE, MASKS };
enum scale { UNSCALED, PER_TENSOR, PER_TOKEN, SCALES };
enum values {
    NORMAL,
    INTEGERS,
    TIES,
    DENORMALS,
    WITH_NAN,
    WITH_INF,
    ZEROS,
    LARGE,
    SKEWED,
    VALUES,
    /* f32 and bf16, in no random problem: elements whose squares leave the range of f32, */
    SQUARES_OVERFLOW = VALUES,
    /* and those of tokens that only a scale makes large enough to have a direction */
    SQUARES_UNDERFLOW
};

struct side_spec {
    int32_t dtype;
    int64_t count, len;
    enum layout layout;
    enum mask mask;
    enum scale scale;
    int normalize;
    enum values values;
    /* compressed: bits an element, ColBERT's bit order; scale_f16: its scale is in f16;
     * codes_together: one token behind another */
    int compressed, bits, colbert, scale_f16, codes_together;
    int32_t centroids_dtype, weights_dtype, codes_dtype;
    int one_hot; /* documents: LIK_ONE_HOT */
};

struct spec {
    struct side_spec q, d;
    int64_t dim, per_query, list_count, scores_gap;
    int32_t pairing, precision, argmax_dtype; /* argmax_dtype 0: not wanted */
    int weights;
    enum placement placement;
    uint64_t seed;
};

/* One operand decoded to f64, token t of sequence i at row i * len + t. */
struct decoded {
    int64_t len, dim;
    unsigned char *kept, *clamped; /* clamped: normalized, its norm below 1e-12 */
    double *raw;                   /* the stored elements */
    double *vector;                /* what counts: normalized or scaled */
    double *factor;                /* vector = factor * raw */
    double *norm;                  /* |vector| */
    double *l1;                    /* sum of |vector[k]| */
    double *largest;               /* max of |vector[k]| */
    double *rounding;              /* of an element of a compressed token met as integers, at most */
    int64_t *code;                 /* one-hot: which element is the product; else NULL */
};

struct problem {
    struct spec spec;
    struct lik_score op;
    struct lik_codec codec; /* of compressed documents */
    int64_t scores;         /* rows * columns */
    struct buffer inputs[16];
    int input_count;
    struct buffer out_scores, out_argmax;
    struct decoded q, d;
    double *weights;   /* [q.count, q.len] */
    double *expected;  /* [scores] */
    double *maxima;    /* [scores, q.len]; 0 where there is none */
    int32_t *winner;   /* [scores, q.len]; -1 where there is none */
    double *tolerance; /* [scores] */
};

/* A problem without any special feature: f32, one query, one document, everything
 * contiguous. */
struct spec spec_plain(int64_t q_len, int64_t d_len, int64_t dim, uint64_t seed);

/* A random problem of about at most `work` multiplications. */
struct spec spec_random(struct rng *rng, int64_t work);

/* Problem `number` (0 to 63) of normalized tokens whose squares leave the range of f32. */
struct spec spec_far(int64_t number);
/* Problem `number` of few query tokens and more documents of 8 bits than a GPU has warps. */
struct spec spec_many(int64_t number);
void spec_describe(const struct spec *spec, char *text, size_t size);

/* ---- arrays.c: where entries stand, how they are filled ---- */

/* Where token t of sequence i stands in an array with these strides. Written anew: the checks
 * must not trust src/shared/tokens.h. */
int64_t problem_place(const struct lik_tokens *x, struct lik_strides strides, int64_t i, int64_t t);
/* The row of token t of sequence i in a contiguous array. */
int64_t problem_row(const struct lik_tokens *x, int64_t i, int64_t t);
/* Strides of a per-token array: plain, spread, or backwards. */
struct lik_strides problem_strides(struct rng *rng, const struct lik_tokens *x);
/* Reserves an array of `size`-byte entries for these strides; returns where entry (0, 0, 0)
 * stands. */
unsigned char *problem_reserve(struct problem *p, const struct lik_tokens *x, struct lik_strides strides,
                               int64_t inner, int64_t inner_stride, size_t size, int fill);
/* A token's elements, drawn. */
void problem_fill(struct rng *rng, const struct side_spec *side, const struct lik_tokens *x, void *data,
                  int64_t place);

/* ---- compressed.c: documents of LIK_RESIDUAL and LIK_ONE_HOT ---- */

/* Makes the side of a random problem compressed. */
void compressed_random(struct side_spec *side, uint64_t seed);
void compressed_even(struct spec *spec);
int64_t compressed_bytes(const struct side_spec *side, int64_t dim);
/* Fills codes, bytes and tables; strides and mask are there. */
void compressed_make(struct problem *p, struct lik_tokens *x, const struct side_spec *side, struct rng *rng);
/* Makes the documents of a random problem one-hot, its queries tables. */
void one_hot_random(struct spec *spec);
void one_hot_make(struct problem *p, struct lik_tokens *x, const struct side_spec *side, struct rng *rng);
int64_t compressed_code(const struct lik_tokens *x, int64_t i, int64_t t);
double compressed_element(const struct lik_tokens *x, int64_t i, int64_t t, int64_t k);
/* By how much an element may be off where the token, whose elements these are, is met as
 * integers. */
double compressed_rounding(const struct lik_tokens *x, int64_t i, int64_t t, const double *element);
/* The bucket of element k of a token with these bytes. */
int compressed_bucket(const struct lik_codec *codec, const unsigned char *token, int64_t k);

struct problem *problem_make(const struct spec *spec);
void problem_free(struct problem *p);

/* Which query and document score n belongs to. */
void problem_pair(const struct problem *p, int64_t n, int64_t *i, int64_t *j);
double problem_product(const struct problem *p, int64_t i, int64_t s, int64_t j, int64_t t);
/* How far a kernel's product of query token s and any token of document j may be off. */
double problem_product_tolerance(const struct problem *p, int64_t i, int64_t s, int64_t j);
int64_t problem_length(const struct lik_tokens *x, int64_t i);
int64_t problem_argmax(const struct problem *p, int64_t n, int64_t s);
/* The document token a kernel names must be kept, score as high as the best does, and be the
 * first of its likes. */
void check_winner(const struct problem *p, int64_t n, int64_t s);
float problem_score(const struct problem *p, int64_t n);

/* Is the query of this problem rounded to integers by CPU kernels? */
int problem_quantized(const struct problem *p);
/* Are its compressed documents rounded to 8-bit integers? */
int problem_rounded(const struct problem *p);

/* Runs the score on fresh poisoned outputs, with a workspace of exactly the planned size.
 * Returns the status. */
int problem_run(struct problem *p, const struct lik_context *ctx, const struct lik_exec *exec);
void problem_poison(struct problem *p);

/* Calls plan, allocates exactly that between guards, calls run, checks the guards. */
int run_score(const struct lik_context *ctx, const struct lik_score *op, const struct lik_exec *exec);
int run_topk(const struct lik_context *ctx, const struct lik_topk *op, const struct lik_exec *exec);
int run_grad(const struct lik_context *ctx, const struct lik_grad *op, const struct lik_exec *exec);
int run_decode(const struct lik_context *ctx, const struct lik_decode *op, const struct lik_exec *exec);
int run_encode(const struct lik_context *ctx, const struct lik_encode *op, const struct lik_exec *exec);
int run_train(const struct lik_context *ctx, const struct lik_train *op, const struct lik_exec *exec);
int run_quantize(const struct lik_context *ctx, const struct lik_quantize *op, const struct lik_exec *exec);

/* ---- gpu.c: the same over copies of all arrays in device memory ---- */

int gpu_run_score(const struct lik_context *ctx, const struct lik_score *op);
int gpu_run_topk(const struct lik_context *ctx, const struct lik_topk *op);
int gpu_run_grad(const struct lik_context *ctx, const struct lik_grad *op);
int gpu_run_decode(const struct lik_context *ctx, const struct lik_decode *op);
int gpu_run_encode(const struct lik_context *ctx, const struct lik_encode *op);
int gpu_run_train(const struct lik_context *ctx, const struct lik_train *op);
int gpu_run_quantize(const struct lik_context *ctx, const struct lik_quantize *op);

/* ---- the groups ---- */

void check_dtypes(void);
void check_score(void);
void check_special(void);
void check_invariance(void);
void check_grad(void);
void check_topk(void);
void check_codec(void);
void check_training(void); /* a part of it */
void check_quantize(void);
void check_arguments(void);
void check_entries(void); /* a part of it */
void check_codes(void);   /* another */
void check_pool(void);
void check_plans(void);
void check_files(void);
void check_views(void);

#endif
