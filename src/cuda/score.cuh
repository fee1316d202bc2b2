/* What every forward kernel shares: its arguments, which query rows a tile holds, and how row
 * maxima become scores.
 *
 * Query tokens are taken in strips of 16 rows; a query of n tokens has ceil(n / 16) strips, and
 * a strip belongs to one query. The kept tokens come first, in order, then the dropped ones, so
 * that no score changes where dropped tokens are left out. A strip's weighted maxima are added
 * as a tree (row r with r + 8, then lanes 4, 8 and 16 apart), and a query's strips one after
 * another, whatever tile, warp or kernel each strip was in: the bits of a score depend on the
 * query and the document alone. */
#ifndef LIK_CUDA_SCORE_CUH
#define LIK_CUDA_SCORE_CUH

#include "cuda/codec.cuh"

extern "C" {
#include "cuda/plan/plan.h"
}

struct score_args {
    struct lik_score op; /* per_query: documents of a score row, whatever the pairing */
    struct row_tiling tiling;
    int64_t columns; /* of them those that are scored: all, or a chunk */
    /* sums of strips, [rows, columns, strips], where a query's are spread over row tiles; or
     * NULL */
    float *partial;
    const float *factor;        /* what normalizes the document tokens, one a row of their array; or NULL */
    int32_t q_vector, d_vector; /* tokens contiguous and aligned: load_8 */
};

struct strip_place {
    int64_t row; /* score row, or -1: no strip here */
    int strip;   /* of the row's query */
};

/* By 32-bit divisions: there are less than 2^31 tiles, and a query has at most 2^27 strips. */
LIK_DEVICE struct strip_place locate_strip(const struct row_tiling &t, uint32_t tile, uint32_t i)
{
    struct strip_place place;
    uint32_t of = t.parts ? t.parts : t.strips_per_query, whole = tile / of;
    uint32_t strip = (tile - whole * of) * t.strips_per_tile + i;
    if (t.parts == 0) { /* the tiles of as many queries as a tile has strips, and what is beyond them */
        uint32_t queries = strip / t.strips_per_query;
        place.row = (int64_t)whole * t.strips_per_tile + queries;
        place.strip = (int)(strip - queries * t.strips_per_query);
        if (place.row >= t.rows)
            place.row = -1;
    } else {
        place.row = whole;
        place.strip = (int)strip;
        if (place.strip >= t.strips_per_query)
            place.row = -1;
    }
    return place;
}

/* A query row of a tile: element offset of its token or LIK_NOWHERE, and what its maximum
 * counts. */
struct query_row {
    int64_t at;
    int token;    /* of its query; past the longest query: none */
    float weight; /* NaN in the rows of a query that is out of range */
    float scale;  /* of the stored elements, before any normalization */
    bool counts;
};

/* Index of the n-th set bit. */
LIK_DEVICE int nth_bit(uint32_t bits, int n)
{
    for (; n > 0; n--)
        bits &= bits - 1;
    return __ffs(bits) - 1;
}

/* The token of row n of query i, whose mask drops some of `length`. The 16 lanes of `lanes`
 * call together, with one query. */
LIK_DEVICE int token_of_row(const struct lik_tokens &q, int64_t i, int length, int n, unsigned lanes)
{
    int64_t base = lik_tokens_base(&q, &q.mask_strides, i);
    int lane = (int)threadIdx.x & 15, token = n, before = 0; /* rows of the tokens before s */
    bool found = n >= length;
    for (int dropped = 0; dropped < 2; dropped++)
        for (int s = 0; s < length && !__all_sync(lanes, found); s += 16) {
            bool in = s + lane < length && token_kept(q, base, s + lane) != dropped;
            uint32_t bits = __ballot_sync(lanes, in) >> (threadIdx.x & 16) & 0xffffu;
            if (n >= before && n < before + __popc(bits)) {
                token = s + nth_bit(bits, n - before);
                found = true;
            }
            before += __popc(bits);
        }
    return token;
}

/* Row r (0 to 15) of a strip, where it follows from the strides alone: no masks, offsets,
 * weights, scales, groups or list. */
LIK_DEVICE struct query_row locate_plain_row(const struct score_args &a, struct strip_place place, int r)
{
    struct query_row row = {LIK_NOWHERE, place.strip * LIK_STRIP_ROWS + r, 0.0f, 1.0f, false};
    const struct lik_tokens &q = a.op.q;
    if (place.row < 0 || row.token >= q.len_max)
        return row;
    row.at = place.row * q.strides.sequence + row.token * q.strides.token;
    row.weight = 1.0f;
    row.counts = true;
    return row;
}

/* Any row r (0 to 15) of a strip; 16 neighboring lanes call together, one a row. */
LIK_DEVICE struct query_row locate_row(const struct score_args &a, struct strip_place place, int r)
{
    struct query_row row = {LIK_NOWHERE, place.strip * LIK_STRIP_ROWS + r, 0.0f, 1.0f, false};
    const struct lik_tokens &q = a.op.q;
    if (place.row < 0)
        return row;
    int64_t i = lik_score_query(&a.op, place.row);
    int length = sequence_length(q, i);
    if (length < 0) {
        row.weight = __uint_as_float(0x7fc00000u);
        row.counts = true;
        return row;
    }
    if (q.mask)
        row.token = token_of_row(q, i, length, row.token, 0xffffu << (threadIdx.x & 16));
    int s = row.token;
    if (s >= length || !token_kept(q, lik_tokens_base(&q, &q.mask_strides, i), s))
        return row;
    row.scale = token_scale(q, lik_tokens_base(&q, &q.scale_strides, i), s);
    row.at = lik_tokens_base(&q, &q.strides, i) + s * q.strides.token;
    row.weight = q.weights
                     ? q.weights[lik_tokens_base(&q, &q.weights_strides, i) + s * q.weights_strides.token]
                     : 1.0f;
    row.counts = true;
    return row;
}

/* What a row's products are to be multiplied by; eight neighboring lanes (`lane` 0 to 7) call
 * together. Its size goes to the weight and its sign to the elements, for the maximum does not
 * commute with a negative factor. */
LIK_DEVICE float row_factor(const struct score_args &a, const struct query_row &row, int lane)
{
    return a.op.q.normalize && row.at != LIK_NOWHERE
               ? unit_factor(a.op.q, row.at, row.scale, lane, a.q_vector)
               : row.scale;
}

/* The maximum, NaN if either is. */
LIK_DEVICE float max_nan(float a, float b)
{
#if __CUDA_ARCH__ >= 800
    float c;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
    return c;
#else
    return a > b || a != a ? a : b;
#endif
}

/* (best, at) becomes the better of itself and (x, t): larger, the lower index of equals, the
 * first NaN; t < 0: none. */
LIK_DEVICE void keep_better(float &best, int &at, float x, int t)
{
    bool nan_x = x != x, nan_best = best != best;
    bool better = nan_x || nan_best ? nan_x && (!nan_best || t < at) : x > best || (x == best && t < at);
    if (t >= 0 && (at < 0 || better)) {
        best = x;
        at = t;
    }
}

/* Adds the 16 rows of a strip: v0 of row lane / 4, v1 of row lane / 4 + 8, the same in the four
 * lanes of a row. */
LIK_DEVICE float add_strip(float v0, float v1)
{
    float v = __fadd_rn(v0, v1);
#pragma unroll
    for (int o = 4; o < 32; o *= 2)
        v = __fadd_rn(v, __shfl_xor_sync(~0u, v, o));
    return v;
}

LIK_DEVICE void store_argmax(const struct lik_score &op, int64_t at, int t)
{
    if (op.argmax_dtype == LIK_I16)
        ((int16_t *)op.argmax)[at] = (int16_t)t;
    else
        ((int32_t *)op.argmax)[at] = t;
}

#endif
