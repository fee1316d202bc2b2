/* What the levels above AVX-512 take from it. */
#ifndef LIK_CPU_AVX512_H
#define LIK_CPU_AVX512_H

#include "cpu/avx2.h"
#include "cpu/tile_avx512.h"

void lik_avx512_pack(float *packed, int64_t stride, const float *const *rows, const float *factors,
                     int64_t dim);
void lik_avx512_decode(const struct lik_cpu_decoder *decoder, float *dst, const void *centroid,
                       const uint8_t *bytes, int64_t dim);
void lik_avx512_decode_i8(const struct lik_cpu_decoder *decoder, const struct lik_cpu_compressed *tokens);
LIK_TILE_DECLARE(lik_avx512_f32);
LIK_TILE_DECLARE(lik_avx512_f16);
LIK_TILE_DECLARE(lik_avx512_bf16);
LIK_TILE_DECLARE(lik_avx512vnni_i8_q16);
LIK_TILE_DECLARE(lik_avx512vnni_i8_q7);

/* For few tokens AVX2's kernels: copying rows to tiles takes as long as it gains. */
#define LIK_AVX512_F32              \
    .f32 = {NULL,                   \
            lik_avx2_f32_lanes4,    \
            lik_avx2_f32_lanes8,    \
            NULL,                   \
            lik_avx512_f32_lanes16, \
            lik_avx512_f32_lanes20, \
            lik_avx512_f32_lanes24, \
            NULL,                   \
            lik_avx512_f32_lanes32}

/* Of struct lik_cpu_kernels: all but the level's name, its integers and bf16 by bf16. */
#define LIK_AVX512_FLOATS(...)                                                                        \
    .geometry = {.unit_lanes = 4,                                                                     \
                 .vector_lanes = LIK_TILE_VECTOR,                                                     \
                 .panel_lanes = 32,                                                                   \
                 .tile_rows = LIK_TILE_ROWS_MAX,                                                      \
                 .stream_unit_rows = 96, /* of tiles of 12, 24 and 32 rows */                         \
                 .stream_rows = LIK_STREAM_ROWS,                                                      \
                 .stream_bytes = 96 << 10,                                                            \
                 .slice_elements = INT32_MAX, /* the panel comes from L2 fast enough */               \
                 .slice_unit_elements = LIK_TILE_VECTOR,                                              \
                 .makes_tiles = 1,                                                                    \
                 .asks_rows = 1,                                                                      \
                 .in_place_lanes = 8,                                                                 \
                 __VA_ARGS__},                                                                        \
    LIK_AVX512_F32, .f16 = LIK_TILE_SHAPES(lik_avx512_f16), .bf16 = LIK_TILE_SHAPES(lik_avx512_bf16), \
    .pack = lik_avx512_pack, .decode = lik_avx512_decode, .decode_i8 = lik_avx512_decode_i8, LIK_AVX2_LOOPS

#define LIK_AVX512VNNI_INTEGERS \
    .i8_q16 = LIK_TILE_SHAPES(lik_avx512vnni_i8_q16), .i8_q7 = LIK_TILE_SHAPES(lik_avx512vnni_i8_q7)

#endif
