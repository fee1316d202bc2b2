/* What a Metal kernel is told beside its buffers: numbers alone, no addresses. Read by C and,
 * as the head of the kernels' source, by Metal's compiler.
 *
 * Every field is 64 bits wide, so that both compilers agree about the layout without a word,
 * and so that a struct is also a list of integers, which is how torch.mps.compile_shader takes
 * one. Strides count elements (of residuals: bytes), as in lik.h. */
#ifndef LIK_METAL_LAYOUT_H
#define LIK_METAL_LAYOUT_H

#ifdef __METAL_VERSION__
typedef long lik_long;
#else
#include <stdint.h>
typedef int64_t lik_long;
#endif

/* Threads of a threadgroup, of every kernel: four simdgroups of 32. */
#define LIK_METAL_THREADS 128
#define LIK_METAL_SIMD    32
#define LIK_METAL_SIMDS   4
/* Query rows and document tokens of a tile of products, and elements of what is multiplied at
 * once. Queries of up to LIK_METAL_DIM elements stay in threadgroup memory. */
#define LIK_METAL_ROWS    32
#define LIK_METAL_COLUMNS 32
#define LIK_METAL_SLICE   32
#define LIK_METAL_DIM     128
#define LIK_METAL_PAD     4 /* elements behind each row in threadgroup memory */
/* Threadgroup memory of a score with tiles of elements of b bytes: both tiles (the second also
 * holds 32-bit numbers), the products, and what is known of each row and of each column. */
#define LIK_METAL_SHARED(b)                                                           \
    (LIK_METAL_ROWS * (LIK_METAL_DIM + LIK_METAL_PAD) * (b) +                         \
     LIK_METAL_COLUMNS * (LIK_METAL_SLICE + LIK_METAL_PAD) * 4 +                      \
     LIK_METAL_ROWS * (LIK_METAL_COLUMNS + LIK_METAL_PAD) * 4 + LIK_METAL_ROWS * 28 + \
     LIK_METAL_COLUMNS * 24)
/* Keys that a threadgroup sorts in its own memory, a power of two. */
#define LIK_METAL_RUN 1024

/* Which buffer is which, the same in all kernels. A kernel declares those it uses. */
#define LIK_AT_ARGS        0
#define LIK_AT_Q_DATA      1
#define LIK_AT_Q_OFFSETS   2
#define LIK_AT_Q_MASK      3
#define LIK_AT_Q_FACTORS   4 /* f32, one a row of the contiguous array of lik_tokens_row */
#define LIK_AT_Q_WEIGHTS   5
#define LIK_AT_D_DATA      6
#define LIK_AT_D_OFFSETS   7
#define LIK_AT_D_MASK      8
#define LIK_AT_D_FACTORS   9
#define LIK_AT_D_CODES     10
#define LIK_AT_D_CENTROIDS 11
#define LIK_AT_D_BUCKETS   12 /* the codec's weights */
#define LIK_AT_LIST_Q      13
#define LIK_AT_LIST_D      14
#define LIK_AT_SCORES      15
#define LIK_AT_ARGMAX      16
#define LIK_AT_GRAD_SCORES 17
#define LIK_AT_SCALE       18 /* of the operand whose factors or gradients are taken */
#define LIK_AT_OUT         19 /* factors, or a gradient */
#define LIK_AT_KEYS        20
#define LIK_AT_MORE_KEYS   21
#define LIK_AT_KEYS_OUT    22
#define LIK_AT_VALUES      23
#define LIK_AT_IDS         24
#define LIK_METAL_BUFFERS  25

/* How tokens are stored: a value of enum lik_dtype, or compressed. */
#define LIK_KIND_F32      1
#define LIK_KIND_F16      2
#define LIK_KIND_BF16     3
#define LIK_KIND_E4M3     4
#define LIK_KIND_E5M2     5
#define LIK_KIND_I8       6
#define LIK_KIND_RESIDUAL 7
#define LIK_KIND_ONE_HOT  8

#define LIK_PAIRING_ALL        0
#define LIK_PAIRING_CANDIDATES 1
#define LIK_PAIRING_PAIRS      2
#define LIK_PAIRING_LIST       3

struct lik_metal_strides {
    lik_long group, sequence, token;
};

/* An operand. */
struct lik_metal_tokens {
    lik_long kind;  /* LIK_KIND_* */
    lik_long dtype; /* LIK_KIND_F32, F16 or BF16: what compressed tokens are decoded to */
    lik_long count, len_max, dim, total;
    lik_long offset_bytes; /* 0: padded */
    lik_long group_size;   /* 0: sequences have no groups */
    lik_long dim_stride;
    lik_long quads; /* non-zero: four elements from a multiple of four on may be read at once */
    struct lik_metal_strides data;
    lik_long has_mask;
    struct lik_metal_strides mask;
    lik_long scale_bytes; /* of an element; 0: there are none */
    struct lik_metal_strides scale;
    lik_long has_weights;
    struct lik_metal_strides weights;
    lik_long code_bytes; /* 0: dense tokens have none */
    lik_long code_count; /* codes are 0 to one less */
    struct lik_metal_strides codes;
    lik_long normalize;
    lik_long has_factors; /* scale and normalization are taken from the factors */
    lik_long bits, bit_order;
    lik_long centroid_stride, centroids_dtype, buckets_dtype;
};

/* lik_factors: scale / max(|scale x|, 1e-12), or scale, of every row of an operand. */
struct lik_metal_factors {
    struct lik_metal_tokens x; /* its buffers are those of d */
    lik_long rows;
    lik_long threadgroups;
};

/* lik_score_*: items are runs of documents for a tile of queries. Scores (row_first + r,
 * column_first + c), r < rows and c < columns, go to scores[r * scores_stride + c]. */
struct lik_metal_score {
    struct lik_metal_tokens q, d;
    lik_long pairing, per_query, list_count;
    lik_long row_first, rows, column_first, columns;
    lik_long queries_per_tile; /* rows of the scores; more than 1 only for LIK_PAIRING_ALL */
    lik_long columns_per_run, runs;
    lik_long items; /* tiles * runs */
    lik_long scores_stride;
    lik_long argmax_bytes; /* of an entry; 0: none is wanted */
    lik_long threadgroups;
};

/* lik_grad and lik_grad_weights: a row of one operand's gradient a simdgroup. */
struct lik_metal_grad {
    struct lik_metal_tokens q, d;
    lik_long pairing, per_query, list_count;
    lik_long score_rows, score_columns;
    lik_long grad_scores_stride;
    lik_long argmax_bytes;
    lik_long of_queries; /* whose gradient: q's, or 0: d's */
    lik_long rows;       /* of the gradient */
    lik_long out_dtype;  /* LIK_KIND_F32, F16 or BF16 */
    lik_long accumulate;
    lik_long threadgroups;
};

/* lik_list_keys: keys (sequence << 32 | list entry), to be sorted, so that what a sequence
 * takes part in stands together, in the list's order. */
struct lik_metal_list_keys {
    lik_long of_queries, sequences, list_count;
    lik_long padded; /* entries of keys_out, a power of two */
    lik_long threadgroups;
};

/* lik_select, lik_gather_keys: keys a query are `count` scores of documents first_id ..., or
 * `count` keys, and then `more` keys of before. lik_select sorts runs of `run` of them and
 * keeps the first of each: keys_out[(query * runs + run) * keep + n]. lik_gather_keys puts all
 * of them, padded with keys that come last, at keys_out[query * padded + n]. */
struct lik_metal_select {
    lik_long queries, count, stride, more, more_stride; /* strides: from query to query */
    lik_long from_scores, first_id, smallest;
    lik_long run, runs, keep; /* run: a power of two, at most LIK_METAL_RUN */
    lik_long padded;
    lik_long threadgroups;
};

/* lik_sort_pass: one step of a bitonic sort of `padded` keys each of `queries`, in place. */
struct lik_metal_sort {
    lik_long queries, padded, size, stride;
    lik_long threadgroups;
};

/* lik_write_best: the k first keys of each query as values and ids. */
struct lik_metal_best {
    lik_long queries, k;
    lik_long stride, count; /* of the keys: from query to query; how many a query has */
    lik_long id_base, smallest;
    lik_long threadgroups;
};

#endif
