/* What the levels above AVX2 take from it: the loops whose time does not count, and whose order
 * of summation makes the bits of norms, scores and gradients. */
#ifndef LIK_CPU_AVX2_H
#define LIK_CPU_AVX2_H

#include "cpu/decode.h"
#include "cpu/kernels.h"

#define LIK_AVX2_TILE_ROWS 8

/* Transposes 8 tokens. */
void lik_avx2_pack(float *packed, int64_t stride, const float *const *rows, const float *factors,
                   int64_t dim);
void lik_avx2_look_up(const struct lik_rows *job);
void lik_avx2_decode(const struct lik_cpu_decoder *decoder, float *dst, const void *centroid,
                     const uint8_t *bytes, int64_t dim);
void lik_avx2_widen(float *dst, const void *src, int32_t dtype, int64_t n);
float lik_avx2_quantize(int8_t *dst, const float *src, int64_t n, float room);
void lik_avx2_decode_i8(const struct lik_cpu_decoder *decoder, const struct lik_cpu_compressed *tokens);
void lik_avx2_narrow(void *dst, const float *src, int32_t dtype, int64_t n);
float lik_avx2_sum_squares(const float *x, int64_t n);
float lik_avx2_sum_squares_of(float scale, const float *x, int64_t n);
float lik_avx2_dot(const float *x, const float *y, int64_t n);
float lik_avx2_sum(const float *x, const float *w, int64_t n);
void lik_avx2_add_scaled(float *acc, const float *x, float factor, int64_t n);

#define LIK_AVX2_EVEN_DECLARE(name)                                                       \
    void name##_lanes8(const struct lik_rows *), name##_lanes16(const struct lik_rows *), \
        name##_lanes24(const struct lik_rows *), name##_lanes32(const struct lik_rows *)
#define LIK_AVX2_DECLARE(name)                                                            \
    LIK_AVX2_EVEN_DECLARE(name);                                                          \
    void name##_lanes4(const struct lik_rows *), name##_lanes12(const struct lik_rows *), \
        name##_lanes20(const struct lik_rows *)
LIK_AVX2_DECLARE(lik_avx2_f32);
LIK_AVX2_DECLARE(lik_avx2_f16);
LIK_AVX2_DECLARE(lik_avx2_bf16);
LIK_AVX2_EVEN_DECLARE(lik_avx2_i8_q16);
LIK_AVX2_EVEN_DECLARE(lik_avx2_i8_q7);

/* By shape. */
#define LIK_AVX2_SHAPES(name)                                                       \
    {NULL,           name##_lanes4,  name##_lanes8, name##_lanes12, name##_lanes16, \
     name##_lanes20, name##_lanes24, NULL,          name##_lanes32}
#define LIK_AVX2_EVEN_SHAPES(name) \
    {NULL, NULL, name##_lanes8, NULL, name##_lanes16, NULL, name##_lanes24, NULL, name##_lanes32}

/* Of struct lik_cpu_kernels: the loops that higher levels have no better ones for. */
#define LIK_AVX2_LOOPS                                                                   \
    .look_up = lik_avx2_look_up, .widen = lik_avx2_widen, .quantize = lik_avx2_quantize, \
    .narrow = lik_avx2_narrow, .sum_squares = lik_avx2_sum_squares,                      \
    .sum_squares_of = lik_avx2_sum_squares_of, .dot = lik_avx2_dot, .sum = lik_avx2_sum, \
    .add_scaled = lik_avx2_add_scaled

/* And all but the level's name and its integers. */
#define LIK_AVX2_FLOATS                                                                       \
    .geometry = {.unit_lanes = 4,                                                             \
                 .vector_lanes = 8,                                                           \
                 .panel_lanes = 32,                                                           \
                 .tile_rows = LIK_AVX2_TILE_ROWS,                                             \
                 .stream_unit_rows = 24, /* of tiles of 8, 6, 4 and 3 rows */                 \
                 .stream_rows = LIK_STREAM_ROWS,                                              \
                 .stream_bytes = 48 << 10,                                                    \
                 .slice_elements = 224,                                                       \
                 .slice_unit_elements = 16,                                                   \
                 .integer_words = 1},                                                         \
    .f32 = LIK_AVX2_SHAPES(lik_avx2_f32), .f16 = LIK_AVX2_SHAPES(lik_avx2_f16),               \
    .bf16 = LIK_AVX2_SHAPES(lik_avx2_bf16), .pack = lik_avx2_pack, .decode = lik_avx2_decode, \
    .decode_i8 = lik_avx2_decode_i8, LIK_AVX2_LOOPS

#endif
