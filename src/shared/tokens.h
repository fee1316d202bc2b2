/* Index arithmetic of operands and pairings. Included by C, CUDA and Metal host code alike: no
 * library calls. */
#ifndef LIK_SHARED_TOKENS_H
#define LIK_SHARED_TOKENS_H

#include "lik/lik.h"

#ifdef __CUDACC__
#define LIK_INLINE static __host__ __device__ inline
#else
#define LIK_INLINE static inline
#endif

/* Norms are taken as at least this, as torch.nn.functional.normalize takes them. */
#define LIK_NORM_MIN 1e-12

/* The norm a token is divided by. A NaN stays one. */
LIK_INLINE float lik_clamp_norm(float norm)
{
    return norm < (float)LIK_NORM_MIN ? (float)LIK_NORM_MIN : norm;
}

LIK_INLINE int64_t lik_offset_at(const struct lik_tokens *x, int64_t i)
{
    return x->offsets_dtype == LIK_I32 ? (int64_t)((const int32_t *)x->offsets)[i]
                                       : ((const int64_t *)x->offsets)[i];
}

/* Tokens of sequence i before any mask. */
LIK_INLINE int64_t lik_tokens_length(const struct lik_tokens *x, int64_t i)
{
    return x->offsets ? lik_offset_at(x, i + 1) - lik_offset_at(x, i) : x->len_max;
}

/* Where token 0 of sequence i stands in an array with these strides; token t is t *
 * strides->token further. */
LIK_INLINE int64_t lik_tokens_base(const struct lik_tokens *x, const struct lik_strides *strides, int64_t i)
{
    if (x->offsets)
        return lik_offset_at(x, i) * strides->token;
    if (x->group_size > 0)
        return (i / x->group_size) * strides->group + (i % x->group_size) * strides->sequence;
    return i * strides->sequence;
}

/* Does the mask keep token t of sequence i? */
LIK_INLINE int lik_token_kept(const struct lik_tokens *x, int64_t i, int64_t t)
{
    return !x->mask || x->mask[lik_tokens_base(x, &x->mask_strides, i) + t * x->mask_strides.token];
}

/* Tokens of sequence i that the mask keeps. */
LIK_INLINE int64_t lik_tokens_kept(const struct lik_tokens *x, int64_t i)
{
    int64_t length = lik_tokens_length(x, i), kept = 0;
    for (int64_t t = 0; x->mask && t < length; t++)
        kept += lik_token_kept(x, i, t);
    return x->mask ? kept : length;
}

/* Row of token 0 of sequence i in a contiguous array shaped [count, len_max] or [total]:
 * gradients, weights' gradients, codes. */
LIK_INLINE int64_t lik_tokens_row(const struct lik_tokens *x, int64_t i)
{
    return x->offsets ? lik_offset_at(x, i) : i * x->len_max;
}

/* Rows of that contiguous array. */
LIK_INLINE int64_t lik_tokens_rows(const struct lik_tokens *x)
{
    return x->offsets ? x->total : x->count * x->len_max;
}

/* The sequence that a row of that array belongs to; -1: none. */
LIK_INLINE int64_t lik_tokens_sequence(const struct lik_tokens *x, int64_t row)
{
    if (!x->offsets)
        return row / x->len_max;
    int64_t low = 0, high = x->count;
    while (low < high) { /* low: how many sequences begin at or before row */
        int64_t middle = low + (high - low) / 2;
        if (lik_offset_at(x, middle) <= row)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && row < lik_offset_at(x, low) ? low - 1 : -1;
}

/* Scores of a problem, and which query and document score n belongs to. */
LIK_INLINE int64_t lik_score_columns(const struct lik_score *op)
{
    return op->pairing == LIK_ALL ? op->d.count : op->pairing == LIK_CANDIDATES ? op->per_query : 1;
}

LIK_INLINE int64_t lik_score_rows(const struct lik_score *op)
{
    return op->pairing == LIK_LIST ? op->list_count : op->q.count;
}

LIK_INLINE int64_t lik_score_query(const struct lik_score *op, int64_t row)
{
    return op->pairing == LIK_LIST ? op->list_q[row] : row;
}

LIK_INLINE int64_t lik_score_document(const struct lik_score *op, int64_t row, int64_t column)
{
    switch (op->pairing) {
    case LIK_ALL: return column;
    case LIK_CANDIDATES: return row * op->per_query + column;
    case LIK_PAIRS: return row;
    default: return op->list_d[row];
    }
}

/* Top-k order: is (a, id_a) before (b, id_b)? Better score first, NaN last, ties by lower
 * id. */
LIK_INLINE int lik_topk_before(float a, int64_t id_a, float b, int64_t id_b, int32_t smallest)
{
    int nan_a = a != a, nan_b = b != b;
    if (nan_a != nan_b)
        return nan_b;
    if (!nan_a && a != b)
        return smallest ? a < b : a > b;
    return id_a < id_b;
}

#endif
