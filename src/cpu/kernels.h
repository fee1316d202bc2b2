/* What an instruction-set level provides: the inner loops, and their geometry. Drivers
 * (stream.c, score.c, pack.c, grad.c) are the same for every level.
 *
 * The unit of work is a *panel* against a *row stream*. A panel is some query tokens,
 * transposed so that they lie in vector lanes: element (k, lane) of the panel is packed[k *
 * lanes + lane]. A row stream is a list of pointers to document tokens, of any number of
 * documents one after the other; documents end at segment boundaries. A kernel takes R rows at
 * a time, broadcasts their elements against the panel's vectors, and folds the products into
 * one row of running maxima per segment. Documents are neither packed nor copied; rows of
 * several short documents share a tile.
 *
 * Every product sum runs over k in ascending order in one accumulator, whatever the tile: a
 * score depends on its query and its document alone. */
#ifndef LIK_CPU_KERNELS_H
#define LIK_CPU_KERNELS_H

#include "base/size.h"
#include "cpu/levels.h"
#include "lik/lik.h"

/* The largest of any level, for arrays on the stack. */
#define LIK_TILE_ROWS_MAX    32
#define LIK_STREAM_ROWS_MAX  384
#define LIK_VECTOR_LANES_MAX 16
#define LIK_SHAPES_MAX       8

/* The longest stream of rows that are all there before they are multiplied. */
#define LIK_STREAM_ROWS 192

/* From this token of a document on few become a maximum: with winners, kernels may ask whether
 * one of a tile does before they fold it. */
#define LIK_RARE_TOKEN 1024

/* One panel against one row stream. */
struct lik_rows {
    /* [count + 2 tiles]: tokens in the kernel's storage, then rows to prefetch */
    const void *const *rows;
    int64_t count;
    int64_t skip;           /* bytes added to every row pointer: where this call's elements begin */
    const int32_t *index;   /* [count]: token number within its document, for winners */
    const float *row_scale; /* [count + a tile], or NULL: factor of all products of the row */
    const int32_t *ends;    /* [segments]: one past the segment's last row; the last end is count */
    const void *packed;     /* this panel, elements 0 ... dim - 1 of this call, aligned to 64 */
    int64_t dim;            /* look_up: lanes */
    float *maxima;          /* [segments, stride]: running maxima, updated */
    int32_t *winners;       /* [segments, stride], or NULL: token numbers of the maxima, updated */
    int64_t stride;
    /* NULL, or [tiles][R * lanes]: product sums of the elements before (and after) this call */
    float *partial;
    int32_t first, last;      /* with partial: is this the first, the last slice of the elements? */
    float *widened;           /* f16, bf16: scratch for rows as f32, [widened_rows, widened_stride] */
    int64_t widened_stride;   /* multiple of a vector */
    int64_t widened_rows;     /* two tiles, or at least count + a tile to keep all rows for more panels */
    const int32_t *lane_bias; /* i8, 7-bit query: start value of each lane's sums */
    /* Levels that make tiles of rows: scratch for them, aligned to 64; words of a row; how many
     * panels read the rows: several keep the tiles, there is room for all, for one there are
     * two. Ready: the panel before this one left all of them. */
    int32_t *tiles;
    int64_t tile_stride;
    int32_t panels, tiles_ready;
    /* NULL, or makes the rows before `to`, with their factors: a kernel asks for rows before it
     * reads them. LIK_TILE_ROWS_MAX rows before `to` stay. */
    void (*make)(void *maker, int64_t to);
    void *maker;
};

typedef void (*lik_rows_kernel)(const struct lik_rows *);

/* The sizes that go with a level's kernels: how queries are packed, how long a stream is. */
struct lik_cpu_geometry {
    int32_t unit_lanes;   /* panels are multiples of it: shape h has h * unit_lanes query tokens */
    int32_t vector_lanes; /* a panel's row in `packed` is of whole vectors: half a one is there twice */
    int32_t panel_lanes;  /* of the widest panel */
    /* the most rows a tile takes; row lists are readable for two tiles past their end */
    int32_t tile_rows;
    /* streams are multiples of it, so that only a document list's last tile is partial */
    int32_t stream_unit_rows;
    int32_t stream_rows;    /* of the longest stream, of rows that kernels do not ask for */
    int32_t stream_bytes;   /* as f32, of a stream that several panels pass over: it stays in L2 */
    int32_t slice_elements; /* the most that a kernel call takes, so that panel and rows stay in L1 */
    int32_t slice_unit_elements;
    /* Kernels copy rows to tiles before they multiply, and a query token that is packed several
     * times is so in neighboring lanes; else rows are read where they are, and it is in each
     * half of its vector. */
    int32_t makes_tiles;
    /* With tiles: f32 panels of at most so many query tokens are of one vector of so many
     * lanes, and their kernels, of a lower level, read rows where they are. */
    int32_t in_place_lanes;
    int32_t integer_words; /* panels of integers and bf16 end on a multiple of as many 32-bit words */
    int32_t word_pairs;    /* two of these words of a token lie together, then those of the next */
    /* 16-bit queries are two panels of 8 bits, as those of 7: the high bytes, then the low
     * ones, both signed */
    int32_t splits_i16;
    int32_t asks_rows;    /* kernels of 7-bit queries ask for rows that are not there yet */
    int32_t reads_halves; /* f16 and bf16 kernels widen what they read each time: no f32 rows are kept */
};

/* How compressed tokens become f32 rows. */
struct lik_cpu_decoder {
    int32_t bits, top_first; /* top_first: the first element of a byte has its highest bits */
    int32_t centroids_dtype;
    int32_t round_to;   /* dtype that centroid, weight and sum are rounded to */
    int32_t shifts[8];  /* by how much a word of 8 elements is shifted down for each; bits < 8 */
    float weights[256]; /* [1 << bits], rounded, by the bits as they lie in a byte */
    float weights_size; /* of the largest; not finite if one is not */
};

/* A centroid whose tokens are met as integers: it and the weights that are added to it, in one
 * unit of its own, in which their sums are at most 127. So a token's integers depend on it
 * alone, and an element far out coarsens no other centroid's. */
struct lik_cpu_rounded {
    int8_t weights[16]; /* [1 << bits], by the bits as they lie in a byte; bits <= 4 */
    float unit;         /* NaN where something is not finite */
    int32_t unused[3];
    int8_t elements[]; /* dim, and zeros up to a multiple of LIK_ROUNDED_UNIT */
};

#define LIK_ROUNDED_UNIT 32

/* Tokens to decode to integers, and what becomes of them. While a level decodes one it asks for
 * the centroid LIK_DECODE_AHEAD tokens further on, and the residual `ahead` bytes behind. */
struct lik_cpu_compressed {
    int64_t count, dim;
    uint64_t ahead;               /* modulo 2^64, for a stride may be anything */
    const void *const *centroids; /* [count + LIK_DECODE_AHEAD]: struct lik_cpu_rounded */
    const uint8_t *const *bytes;  /* [count]: residuals; of 0 bits none is read */
    int8_t *rows;                 /* [count, dim]: each token in its centroid's unit */
    float *units;                 /* [count]: their centroids' */
    int32_t *squares;             /* [count]: their sums, below 2^31 (dim is at most 2^16) */
};

#define LIK_DECODE_AHEAD 16

struct lik_cpu_kernels {
    const char *level;
    struct lik_cpu_geometry geometry;
    /* By shape; a shape without a kernel is packed as the next one that has one. */
    lik_rows_kernel f32[LIK_SHAPES_MAX + 1];
    lik_rows_kernel f16[LIK_SHAPES_MAX + 1];  /* shapes as f32's */
    lik_rows_kernel bf16[LIK_SHAPES_MAX + 1]; /* shapes as f32's */
    /* bf16 rows by a bf16 query, two elements at a time; NULL where that would be no faster. */
    lik_rows_kernel bf16_dot[LIK_SHAPES_MAX + 1];
    lik_rows_kernel i8_q16[LIK_SHAPES_MAX + 1];
    lik_rows_kernel i8_q7[LIK_SHAPES_MAX + 1];
    /* NULL, or what a thread does before it calls kernels of integers and bf16, and after. */
    void (*begin)(void), (*end)(void);
    /* Rows that are products already, one a lane of the whole block: takes their maxima. A row
     * is readable up to its last lane. */
    lik_rows_kernel look_up;
    /* Transposes vector_lanes tokens into a panel: packed[k * stride + l] = rows[l][k] *
     * factors[l]. */
    void (*pack)(float *packed, int64_t stride, const float *const *rows, const float *factors, int64_t dim);
    /* dst[0 ... dim) = the token of this centroid and these bytes. */
    void (*decode)(const struct lik_cpu_decoder *decoder, float *dst, const void *centroid,
                   const uint8_t *bytes, int64_t dim);
    /* dst[0 ... n) = src as f32, contiguous. */
    void (*widen)(float *dst, const void *src, int32_t dtype, int64_t n);
    /* Decodes tokens to integers. */
    void (*decode_i8)(const struct lik_cpu_decoder *decoder, const struct lik_cpu_compressed *tokens);
    /* Rounds to integers, src = unit * dst, which are at most 127 once something no larger than
     * `room`, in this unit, is added; returns the unit. 0 where all is too small for one, NaN
     * where something is not finite; then dst is 0. */
    float (*quantize)(int8_t *dst, const float *src, int64_t n, float room);
    void (*narrow)(void *dst, const float *src, int32_t dtype, int64_t n);
    float (*sum_squares)(const float *x, int64_t n);
    float (*sum_squares_of)(float scale, const float *x, int64_t n); /* of scale * x, in the same order */
    float (*dot)(const float *x, const float *y, int64_t n);
    /* sum of x[i] * w[i] (w NULL: of x[i]) in an order that depends on n alone. */
    float (*sum)(const float *x, const float *w, int64_t n);
    void (*add_scaled)(float *acc, const float *x, float factor, int64_t n); /* acc += factor * x */
};

#define LIK_DECLARE_LEVEL(name, usable) extern const struct lik_cpu_kernels lik_kernels_##name;
LIK_CPU_LEVELS(LIK_DECLARE_LEVEL)
#undef LIK_DECLARE_LEVEL

/* The shape of the next panel when `lanes` remain, at least 1. Panels are as even as possible,
 * so that none is left with a single vector, and only the last may have a half one. */
static inline int lik_panel_shape(const struct lik_cpu_geometry *g, const lik_rows_kernel *rows,
                                  int64_t lanes)
{
    int64_t units = lik_divide_up(lanes, g->unit_lanes), most = g->panel_lanes / g->unit_lanes, shape = units;
    if (units > most) {
        int64_t panels = lik_divide_up(units, most);
        shape = lik_round_up(lik_divide_up(units, panels), g->vector_lanes / g->unit_lanes);
    }
    while (!rows[shape])
        shape++;
    return (int)shape;
}

/* Query tokens of a panel, and the lanes that its row occupies in `packed`. */
static inline int64_t lik_panel_lanes(const struct lik_cpu_geometry *g, int shape)
{
    return (int64_t)g->unit_lanes * shape;
}

/* The lanes of a panel's vectors; `f32`: of a loader's f32 kernels. */
static inline int64_t lik_panel_vector(const struct lik_cpu_geometry *g, int shape, int f32)
{
    return f32 && lik_panel_lanes(g, shape) <= g->in_place_lanes ? g->in_place_lanes : g->vector_lanes;
}

static inline int64_t lik_panel_stride(const struct lik_cpu_geometry *g, int shape, int f32)
{
    return lik_round_up(lik_panel_lanes(g, shape), lik_panel_vector(g, shape, f32));
}

#endif
