/* What an instruction-set level provides: the inner loops. Drivers (score.c, grad.c) are the
 * same for every level.
 *
 * The unit of work is a *panel* against a *row stream*. A panel is up to 32 query tokens,
 * transposed so that query tokens lie in vector lanes: element (k, lane) of the panel is
 * packed[k * lanes + lane]. A row stream is a list of pointers to document tokens, of any
 * number of documents one after the other; documents end at segment boundaries. A kernel takes
 * R rows at a time, broadcasts their elements against the panel's vectors, and folds the
 * products into one row of running maxima per segment. Documents are neither packed nor copied;
 * rows of several short documents share a tile.
 *
 * Every product sum runs over k in ascending order in one accumulator, whatever the tile: a
 * score depends on its query and its document alone. */
#ifndef LIK_CPU_KERNELS_H
#define LIK_CPU_KERNELS_H

#include "lik/lik.h"

#define LIK_PANEL_LANES  32 /* query tokens in the widest panel */
#define LIK_PANEL_HALVES 8  /* panels come in multiples of 4 tokens: shape h has 4 * h lanes */
/* the most rows a tile takes; row lists are readable for two tiles past their end */
#define LIK_TILE_ROWS 8

/* One panel against one row stream. */
struct lik_rows {
    /* [count + 2 * LIK_TILE_ROWS]: tokens in the kernel's storage, then rows to prefetch */
    const void *const *rows;
    int64_t count;
    int64_t skip;           /* bytes added to every row pointer: where this call's elements begin */
    const int32_t *index;   /* [count]: token number within its document, for winners */
    const float *row_scale; /* [count + LIK_TILE_ROWS], or NULL: factor of all products of the row */
    const int32_t *ends;    /* [segments]: one past the segment's last row; the last end is count */
    const void *packed;     /* this panel, elements 0 ... dim - 1 of this call, aligned to 64 */
    int64_t dim;
    float *maxima;    /* [segments, stride]: running maxima, updated */
    int32_t *winners; /* [segments, stride], or NULL: token numbers of the maxima, updated */
    int64_t stride;
    /* NULL, or [tiles][R * lanes]: product sums of the elements before (and after) this call */
    float *partial;
    int32_t first, last;    /* with partial: is this the first, the last slice of the elements? */
    float *widened;         /* f16, bf16: scratch for rows as f32, [widened_rows, widened_stride] */
    int64_t widened_stride; /* multiple of 8 */
    /* 2 * LIK_TILE_ROWS, or at least count + LIK_TILE_ROWS to keep all rows for more panels */
    int64_t widened_rows;
    const int32_t *lane_bias; /* i8, 7-bit query: start value of each lane's sums */
};

typedef void (*lik_rows_kernel)(const struct lik_rows *);

struct lik_cpu_kernels {
    const char *level;
    /* By shape (half vectors of 4 lanes): 1, 2, 3, 4, 5, 6, 8; entry 7 and 0 are unused (7 is
     * padded to 8). */
    lik_rows_kernel f32[LIK_PANEL_HALVES + 1];
    lik_rows_kernel f16[LIK_PANEL_HALVES + 1];
    lik_rows_kernel bf16[LIK_PANEL_HALVES + 1];
    lik_rows_kernel i8_q16[LIK_PANEL_HALVES + 1]; /* even shapes only */
    lik_rows_kernel i8_q7[LIK_PANEL_HALVES + 1];
    /* Transposes 8 tokens into a panel: packed[k * stride + l] = rows[l][k] * factors[l]. */
    void (*pack8)(float *packed, int64_t stride, const float *const rows[8], const float factors[8],
                  int64_t dim);
    /* dst[0 ... n) = src as f32, contiguous. */
    void (*widen)(float *dst, const void *src, int32_t dtype, int64_t n);
    void (*narrow)(void *dst, const float *src, int32_t dtype, int64_t n);
    float (*sum_squares)(const float *x, int64_t n);
    float (*sum_squares_of)(float scale, const float *x, int64_t n); /* of scale * x, in the same order */
    float (*dot)(const float *x, const float *y, int64_t n);
    /* sum of x[i] * w[i] (w NULL: of x[i]) in an order that depends on n alone. */
    float (*sum)(const float *x, const float *w, int64_t n);
    void (*add_scaled)(float *acc, const float *x, float factor, int64_t n); /* acc += factor * x */
};

extern const struct lik_cpu_kernels lik_kernels_generic;
extern const struct lik_cpu_kernels lik_kernels_avx2;

/* Panels of at most LIK_PANEL_LANES: the shape (in half vectors) of the next panel when
 * `halves` remain. Panels are as even as possible, so that none is left with a single vector,
 * and only the last may have a half one. */
static inline int lik_panel_shape(int64_t halves)
{
    if (halves <= LIK_PANEL_HALVES)
        return halves == 7 ? 8 : (int)halves;
    int64_t panels = (halves + LIK_PANEL_HALVES - 1) / LIK_PANEL_HALVES;
    int64_t share = (halves + panels - 1) / panels;
    return (int)(share + (share & 1));
}

/* Lanes that a panel's row occupies in `packed`: a half vector is stored twice to fill a whole
 * one. */
static inline int64_t lik_panel_stride(int shape)
{
    return 4 * (shape + (shape & 1));
}

#endif
