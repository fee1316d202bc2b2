/* What the levels of aarch64 share: the loops that higher ones take from NEON, whose order of
 * summation makes the bits of norms, scores and gradients, and how products become maxima.
 *
 * 32 vector registers of 4 lanes. */
#ifndef LIK_CPU_NEON_H
#define LIK_CPU_NEON_H

#include "cpu/kernels.h"
#include "cpu/unroll.h"

#include <arm_neon.h>

enum { LIK_NEON_LANES = 4, LIK_NEON_TILE_ROWS = 12, LIK_NEON_SUMS = 24 };

/* Transposes 4 tokens. */
void lik_neon_pack(float *packed, int64_t stride, const float *const *rows, const float *factors,
                   int64_t dim);
void lik_neon_look_up(const struct lik_rows *job);
void lik_neon_decode(const struct lik_cpu_decoder *decoder, float *dst, const void *centroid,
                     const uint8_t *bytes, int64_t dim);
void lik_neon_decode_i8(const struct lik_cpu_decoder *decoder, const struct lik_cpu_compressed *tokens);
float lik_neon_quantize(int8_t *dst, const float *src, int64_t n, float room);
void lik_neon_widen(float *dst, const void *src, int32_t dtype, int64_t n);
void lik_neon_narrow(void *dst, const float *src, int32_t dtype, int64_t n);
float lik_neon_sum_squares(const float *x, int64_t n);
float lik_neon_sum_squares_of(float scale, const float *x, int64_t n);
float lik_neon_dot(const float *x, const float *y, int64_t n);
float lik_neon_sum(const float *x, const float *w, int64_t n);
void lik_neon_add_scaled(float *acc, const float *x, float factor, int64_t n);

#define LIK_NEON_DECLARE(name)                                                            \
    void name##_lanes4(const struct lik_rows *), name##_lanes8(const struct lik_rows *),  \
        name##_lanes12(const struct lik_rows *), name##_lanes16(const struct lik_rows *), \
        name##_lanes20(const struct lik_rows *), name##_lanes24(const struct lik_rows *)
LIK_NEON_DECLARE(lik_neon_f32);
LIK_NEON_DECLARE(lik_neon_f16);
LIK_NEON_DECLARE(lik_neon_bf16);
LIK_NEON_DECLARE(lik_neon_i8_q16);
LIK_NEON_DECLARE(lik_neon_i8_q7);
LIK_NEON_DECLARE(lik_neoni8mm_i8_q16);
LIK_NEON_DECLARE(lik_neoni8mm_i8_q7);

/* By shape. */
#define LIK_NEON_SHAPES(name) \
    {NULL, name##_lanes4, name##_lanes8, name##_lanes12, name##_lanes16, name##_lanes20, name##_lanes24}

/* Of struct lik_cpu_kernels: all but the level's name, its integers and bf16 by bf16. */
#define LIK_NEON_FLOATS(...)                                                                       \
    .geometry = {.unit_lanes = LIK_NEON_LANES,                                                     \
                 .vector_lanes = LIK_NEON_LANES,                                                   \
                 .panel_lanes = 24,                                                                \
                 .tile_rows = LIK_NEON_TILE_ROWS,                                                  \
                 .stream_unit_rows = 24, /* of tiles of 12, 8, 6, 4 and 2 rows */                  \
                 .stream_rows = LIK_STREAM_ROWS,                                                   \
                 .stream_bytes = 48 << 10,                                                         \
                 .slice_elements = 224,                                                            \
                 .slice_unit_elements = 16,                                                        \
                 .reads_halves = 1,                                                                \
                 __VA_ARGS__},                                                                     \
    .f32 = LIK_NEON_SHAPES(lik_neon_f32), .f16 = LIK_NEON_SHAPES(lik_neon_f16),                    \
    .bf16 = LIK_NEON_SHAPES(lik_neon_bf16), .look_up = lik_neon_look_up, .pack = lik_neon_pack,    \
    .decode = lik_neon_decode, .decode_i8 = lik_neon_decode_i8, .widen = lik_neon_widen,           \
    .quantize = lik_neon_quantize, .narrow = lik_neon_narrow, .sum_squares = lik_neon_sum_squares, \
    .sum_squares_of = lik_neon_sum_squares_of, .dot = lik_neon_dot, .sum = lik_neon_sum,           \
    .add_scaled = lik_neon_add_scaled

/* Of the geometry, for matrix products. */
#define LIK_NEON_CHUNKS .integer_words = 2, .word_pairs = 1, .splits_i16 = 1

#define LIK_NEONI8MM_INTEGERS \
    .i8_q16 = LIK_NEON_SHAPES(lik_neoni8mm_i8_q16), .i8_q7 = LIK_NEON_SHAPES(lik_neoni8mm_i8_q7)

/* Of x and best: is x the new maximum? A NaN is, and stays. */
FORCE_INLINE uint32x4_t lik_neon_takes(float32x4_t x, float32x4_t best)
{
    return vbicq_u32(vceqq_f32(best, best), vcleq_f32(x, best));
}

/* Folds n products of one document, of 4 tokens each, into their maxima (and winners). The
 * maximum is NaN from the first NaN on, as the instruction has it. */
FORCE_INLINE void lik_neon_fold(const int n, const float32x4_t *product, const int pitch, float *maxima,
                                int32_t *winners, const int32_t *index)
{
    float32x4_t best = vld1q_f32(maxima);
    if (!winners) {
        UNROLL
        for (int r = 0; r < n; r++)
            best = vmaxq_f32(best, product[r * pitch]);
        vst1q_f32(maxima, best);
        return;
    }
    if (n > 1 && index[0] >= LIK_RARE_TOKEN) {
        uint32x4_t below = vdupq_n_u32(UINT32_MAX);
        UNROLL
        for (int r = 0; r < n; r++)
            below = vandq_u32(below, vcleq_f32(product[r * pitch], best));
        if (vminvq_u32(below))
            return;
    }
    int32x4_t at = vld1q_s32(winners);
    UNROLL
    for (int r = 0; r < n; r++) {
        uint32x4_t take = lik_neon_takes(product[r * pitch], best);
        best = vbslq_f32(take, product[r * pitch], best);
        at = vbslq_s32(take, vdupq_n_s32(index[r]), at);
    }
    vst1q_s32(winners, at);
    vst1q_f32(maxima, best);
}

/* A tile that touches several documents, or has fewer rows than it computed: row by row. */
static __attribute__((noinline)) void lik_neon_fold_rows(const struct lik_rows *job,
                                                         const float32x4_t *product, int64_t rows,
                                                         int vectors, int64_t at, int64_t segment)
{
    for (int64_t r = 0; r < rows; r++, at++) {
        while (at >= job->ends[segment])
            segment++;
        float *maxima = job->maxima + segment * job->stride;
        int32_t *winners = job->winners ? job->winners + segment * job->stride : NULL;
        for (int v = 0; v < vectors; v++)
            lik_neon_fold(1, product + r * vectors + v, 1, maxima + LIK_NEON_LANES * v,
                          winners ? winners + LIK_NEON_LANES * v : NULL, job->index + at);
    }
}

/* The products of R rows, [R][V], times the rows' factors, into the maxima of their
 * documents. */
FORCE_INLINE void lik_neon_fold_tile(const struct lik_rows *job, const int R, const int V,
                                     float32x4_t *product, int64_t at, int64_t *segment)
{
    if (job->row_scale) {
        UNROLL
        for (int i = 0; i < R * V; i++)
            product[i] = vmulq_n_f32(product[i], job->row_scale[at + i / V]);
    }
    while (at >= job->ends[*segment])
        ++*segment;
    if (at + R > job->ends[*segment]) {
        float32x4_t spilled[LIK_NEON_SUMS];
        UNROLL
        for (int i = 0; i < R * V; i++)
            spilled[i] = product[i];
        lik_neon_fold_rows(job, spilled, job->count - at < R ? job->count - at : R, V, at, *segment);
        return;
    }
    float *maxima = job->maxima + *segment * job->stride;
    int32_t *winners = job->winners ? job->winners + *segment * job->stride : NULL;
    UNROLL
    for (int v = 0; v < V; v++)
        lik_neon_fold(R, product + v, V, maxima + LIK_NEON_LANES * v,
                      winners ? winners + LIK_NEON_LANES * v : NULL, job->index + at);
}

#endif
