/* The level of AVX-512 F, BW, DQ and VL: the row kernels of every storage. Products are those
 * of AVX2, in its order, and so are their bits. */
#include "cpu/avx512.h"
#include "cpu/tile_avx512.h"

void lik_avx512_pack(float *packed, int64_t stride, const float *const *rows, const float *factors,
                     int64_t dim)
{
    for (int l = 0; l < LIK_TILE_VECTOR; l += 8)
        lik_avx2_pack(packed + l, stride, rows + l, factors + l, dim);
}

LIK_TILE_WIDE_KERNELS(lik_avx512_f32, LIK_TILE_COPY, LIK_TILE_FMA)
LIK_TILE_KERNELS(lik_avx512_f16, LIK_TILE_F16, LIK_TILE_FMA)
LIK_TILE_KERNELS(lik_avx512_bf16, LIK_TILE_BF16, LIK_TILE_FMA)
LIK_TILE_KERNELS(lik_avx512_i8_q16, LIK_TILE_I8_TO_I16, LIK_TILE_MADD_PAIRS)
LIK_TILE_KERNELS(lik_avx512_i8_q7, LIK_TILE_UNSIGNED, LIK_TILE_MADD_QUADS)

const struct lik_cpu_kernels lik_kernels_avx512 = {
    .level = "avx512",
    LIK_AVX512_FLOATS(.integer_words = 1),
    .i8_q16 = LIK_TILE_SHAPES(lik_avx512_i8_q16),
    .i8_q7 = LIK_TILE_SHAPES(lik_avx512_i8_q7),
};
