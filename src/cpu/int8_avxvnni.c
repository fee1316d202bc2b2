/* AVX2 with AVX-VNNI, which processors without AVX-512 have: integer products in one
 * instruction, so that more registers are left for sums. */
#include "cpu/avx2.h"
#include "cpu/unroll.h"

#include <immintrin.h>
#include <string.h>

enum { ROWS = 8, SUMS = 12 };

/* acc += the sums of two i16 products. In asm as in int8_avx2.c. */
FORCE_INLINE void add_pairs(__m256i *acc, __m256i row, __m256i query)
{
    __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(*acc) : "x"(row), "x"(query));
}

/* acc += the sums of four products of an unsigned row and the query. */
FORCE_INLINE void add_quads(__m256i *acc, __m256i row_unsigned, __m256i query, __m256i ones)
{
    (void)ones;
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(*acc) : "x"(row_unsigned), "x"(query));
}

#include "cpu/int8_avx2.h"

LIK_AVX2_EVEN_DECLARE(lik_avxvnni_i8_q16);
LIK_AVX2_EVEN_DECLARE(lik_avxvnni_i8_q7);
I8_KERNEL(avxvnni, lanes8, 8, 1)
I8_KERNEL(avxvnni, lanes16, 4, 2)
I8_KERNEL(avxvnni, lanes24, 4, 3)
I8_KERNEL(avxvnni, lanes32, 3, 4)

const struct lik_cpu_kernels lik_kernels_avxvnni = {
    .level = "avxvnni",
    LIK_AVX2_FLOATS,
    .i8_q16 = LIK_AVX2_EVEN_SHAPES(lik_avxvnni_i8_q16),
    .i8_q7 = LIK_AVX2_EVEN_SHAPES(lik_avxvnni_i8_q7),
};
