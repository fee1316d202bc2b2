/* AVX-512 with VNNI and BF16: bf16 documents by bf16 queries, a pair of elements at a time. The
 * instruction adds the product of the odd element, then that of the even one, each rounded to
 * nearest, and takes denormals for zero. */
#include "cpu/avx512.h"

LIK_TILE_KERNELS(lik_avx512bf16_dot, LIK_TILE_COPY, LIK_TILE_DOT_BF16)

const struct lik_cpu_kernels lik_kernels_avx512bf16 = {
    .level = "avx512bf16",
    LIK_AVX512_FLOATS(.integer_words = 1),
    LIK_AVX512VNNI_INTEGERS,
    .bf16_dot = LIK_TILE_SHAPES(lik_avx512bf16_dot),
};
