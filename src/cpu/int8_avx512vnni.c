/* AVX-512 with VNNI: integer products in one instruction where AVX-512 takes two or three. */
#include "cpu/avx512.h"

LIK_TILE_KERNELS(lik_avx512vnni_i8_q16, LIK_TILE_I8_TO_I16, LIK_TILE_DOT_PAIRS)
LIK_TILE_KERNELS(lik_avx512vnni_i8_q7, LIK_TILE_UNSIGNED, LIK_TILE_DOT_QUADS)

const struct lik_cpu_kernels lik_kernels_avx512vnni = {
    .level = "avx512vnni",
    LIK_AVX512_FLOATS(.integer_words = 1),
    LIK_AVX512VNNI_INTEGERS,
};
