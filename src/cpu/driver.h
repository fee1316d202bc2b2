/* What the drivers of the CPU backend share: how a problem is cut into items, and the scratch
 * of one slot.
 *
 * An item is a rectangle of the score matrix, rows [row, row + rows_per_item) x columns
 * [column, + columns_per_item). Slots (at most one a thread) take items from an atomic counter
 * until none is left. A slot packs the queries of an item unless it did so for its last item,
 * streams the documents past them, and hands finished scores to the sink: the score matrix or a
 * heap of the k best. Every slot has its own scratch, so nothing is shared but the counter. */
#ifndef LIK_CPU_DRIVER_H
#define LIK_CPU_DRIVER_H

#include "base/layout.h"
#include "core/backend.h"
#include "cpu/kernels.h"
#include "shared/argmax.h"
#include "shared/heap.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>

struct lik_cpu_plan {
    const struct lik_cpu_geometry *geometry;
    const struct lik_cpu_loader *loader;
    const lik_rows_kernel *rows; /* the loader's kernels, by shape */
    int64_t slots;
    /* sizes and numbers of the items */
    int64_t rows_per_item, columns_per_item, item_rows, item_columns;
    int64_t lanes;       /* query tokens of a block, rounded up to whole vectors */
    int64_t depth;       /* elements of a packed token: dim, and zeros */
    int64_t stride;      /* of maxima and winners: a vector more */
    int64_t panels;      /* panels of a full block */
    int64_t slice;       /* elements a kernel call takes: dim, or some below it */
    int64_t stream_rows; /* rows of a stream */
    int64_t made_rows;   /* of `gathered`: a stream's, or those of two turns of a loader's `decode` */
    int64_t segments;    /* documents a stream may touch */
    int64_t widened_rows, widened_stride;
    int64_t tile_rows, tile_stride; /* of `tiles`: rows, and 32-bit words of a row */
    /* Byte offsets into a slot's scratch, and its size. */
    size_t packed, lane_bias, lane_token, lane_weight, lane_start, query_lane, maxima, winners, partial,
        widened, tiles, token, integers, gathered, rounded;
    size_t slot_bytes;
    size_t rounded_all; /* byte offset of all centroids rounded, if `rounds_all` */
    int rounds_all;     /* before the first item; else each with the token that names it */
};

/* Bytes of one struct lik_cpu_rounded. */
static inline int64_t lik_cpu_rounded_bytes(int64_t dim)
{
    return (int64_t)sizeof(struct lik_cpu_rounded) + lik_round_up(dim, LIK_ROUNDED_UNIT);
}

/* A block of packed queries: rows [row, row + queries) of an LIK_ALL problem, or one query.
 * Lanes are the kept tokens of these queries, one after the other. */
struct lik_cpu_block {
    int64_t row, queries; /* what is packed; queries = 0: nothing yet */
    int64_t lanes;
    int panels;
    void *packed;
    int32_t *lane_bias;
    int32_t *lane_token; /* [lanes]: token number within its query */
    float *lane_weight;  /* [lanes]: factor of the lane's maximum, all 1 unless `weighted` */
    /* [lanes]: where its maximum begins: -inf, or NaN where all its products are, which its
     * integers do not say */
    float *lane_start;
    int weighted;
    int64_t *query_lane; /* [queries + 1] */
};

/* What reading an operand's tokens as f32 takes. */
struct lik_cpu_reader {
    const struct lik_cpu_kernels *kernels;
    const struct lik_tokens *x;
    struct lik_cpu_decoder decoder; /* LIK_RESIDUAL */
};

struct lik_cpu_slot {
    struct lik_cpu_block block;
    struct lik_cpu_reader queries, documents;
    float *maxima, *partial;
    float *widened; /* [widened_rows, widened_stride] */
    int32_t *tiles; /* [tile_rows, tile_stride] */
    float *token;   /* [a vector's lanes, dim]: tokens as f32 */
    /* [made_rows + 2 tiles, dim]: rows of i8 elements that do not lie together, or decoded */
    int8_t *gathered;
    int32_t *winners, *integers;     /* integers: [dim], that token quantized */
    struct lik_cpu_rounded *rounded; /* the centroid at hand */
};

/* Where scores go. `heaps` NULL: the score matrix; else heaps[slot * q.count + row]. */
struct lik_cpu_job {
    const struct lik_cpu_kernels *kernels;
    const struct lik_score *op;
    const struct lik_exec *exec;
    struct lik_cpu_plan plan;
    atomic_llong next;
    struct lik_cpu_rounded *rounded; /* all centroids, or NULL */
    const struct lik_topk *topk;
    int64_t *heap_counts; /* [slots, q.count] */
    int64_t heap_k;       /* k, or the number of documents if that is less: what a heap can hold */
    float *heap_values;   /* [slots - 1, q.count, heap_k]: slot 0 uses the outputs */
    int64_t *heap_ids;
};

/* ---- plan.c ---- */

/* Lays the slots out at the beginning of the workspace. */
LIK_STATUS lik_cpu_plan_score(const struct lik_cpu_kernels *kernels, const struct lik_score *op,
                              const struct lik_exec *exec, struct lik_cpu_plan *plan,
                              struct lik_layout *layout);
void lik_cpu_slot_init(const struct lik_cpu_plan *plan, char *scratch, struct lik_cpu_slot *slot);
/* "score_f16_d128_avx2", "score_bf16_residual4_d128_avx2": verb, documents' dtype and loader,
 * dim, level. */
void lik_cpu_name(const struct lik_cpu_kernels *kernels, const char *verb, const struct lik_score *op,
                  const struct lik_cpu_plan *plan, char *variant, size_t size);
/* The same of a verb of the codec: "decode_f16_residual4_d128_avx2". */
void lik_cpu_name_tokens(const struct lik_cpu_kernels *kernels, const char *verb, const struct lik_tokens *x,
                         const char *suffix, char *variant, size_t size);

/* ---- norm.c ---- */

/* The same as lik_cpu_norm, where the sum of squares, `squares`, left the range of f32 or came
 * near its lower end. */
float lik_cpu_norm_again(const struct lik_cpu_kernels *kernels, const float *x, int64_t n, float squares);
/* |x| of the elements as they are stored. Where nothing was lost the sum taken again has the
 * same bits, so that its lower bound may be any. */
static inline float lik_cpu_norm(const struct lik_cpu_kernels *kernels, const float *x, int64_t n)
{
    float squares = kernels->sum_squares(x, n);
    return squares >= 1e-30f && squares <= FLT_MAX ? sqrtf(squares)
                                                   : lik_cpu_norm_again(kernels, x, n, squares);
}

/* ---- token.c: one token ---- */

/* Do a token's elements lie together? */
static inline int lik_cpu_lies_together(const struct lik_tokens *x)
{
    return x->dim_stride == 1 || x->dim == 1;
}
/* Are tokens of x stored as the f32 that counts? Then they need no loading. */
static inline int lik_cpu_in_place(const struct lik_tokens *x)
{
    return x->storage == LIK_DENSE && x->dtype == LIK_F32 && lik_cpu_lies_together(x);
}
/* Asks for bytes that are read soon. */
static inline void lik_cpu_prefetch(const void *at, int64_t bytes)
{
    for (int64_t b = 0; b < bytes; b += 64)
        __builtin_prefetch((const char *)at + b);
}
void lik_cpu_reader_init(struct lik_cpu_reader *reader, const struct lik_cpu_kernels *kernels,
                         const struct lik_tokens *x);
/* Token t of sequence i as f32, with neither scale nor normalization: of any storage. */
void lik_cpu_load_token(const struct lik_cpu_reader *reader, int64_t i, int64_t t, float *dst);
/* Asks for what a token is made of, where that lies anywhere. */
void lik_cpu_prefetch_token(const struct lik_tokens *x, int64_t i, int64_t t);
/* The factor that scale and normalization put on a token; `raw` is the token without them. */
float lik_cpu_token_factor(const struct lik_cpu_kernels *kernels, const struct lik_tokens *x, float scale,
                           const float *raw);

/* ---- pack.c ---- */

/* Packs queries row ... row + queries - 1 (LIK_ALL), or the one query of `row`. */
void lik_cpu_pack(const struct lik_cpu_kernels *kernels, const struct lik_score *op,
                  const struct lik_cpu_plan *plan, int64_t row, int64_t queries, struct lik_cpu_slot *slot);

/* ---- score.c ---- */

/* Runs all items of the job; the slots' scratch begins at `scratch`. */
void lik_cpu_run(struct lik_cpu_job *job, char *scratch);

/* ---- the backend's hooks ---- */

int lik_cpu_score(const struct lik_context *, const struct lik_score *, struct lik_exec *, struct lik_plan *);
int lik_cpu_topk(const struct lik_context *, const struct lik_topk *, struct lik_exec *, struct lik_plan *);
int lik_cpu_grad(const struct lik_context *, const struct lik_grad *, struct lik_exec *, struct lik_plan *);
int lik_cpu_decode(const struct lik_context *, const struct lik_decode *, struct lik_exec *,
                   struct lik_plan *);
int lik_cpu_encode(const struct lik_context *, const struct lik_encode *, struct lik_exec *,
                   struct lik_plan *);
int lik_cpu_train(const struct lik_context *, const struct lik_train *, struct lik_exec *, struct lik_plan *);
int lik_cpu_quantize(const struct lik_context *, const struct lik_quantize *, struct lik_exec *,
                     struct lik_plan *);

#endif
