/* aarch64 with dot products and matrix products of i8 and of bf16: bf16 documents by bf16
 * queries without a conversion, two rows by two tokens, 4 elements each. The instruction adds
 * the products of two elements, then that sum to what it has, both rounded to odd, and takes
 * denormals for zero. */
#include "cpu/neon.h"

#include <arm_neon.h>
#include <string.h>

enum { MATRIX = 1, INTEGER = 0 };

/* sums, of 2 x 2, += the products of two rows and two tokens. */
FORCE_INLINE void multiply(const int u, float32x4_t *sums, uint8x16_t rows, uint8x16_t query)
{
    (void)u;
    __asm__ volatile("bfmmla %0.4s, %1.8h, %2.8h" : "+w"(*sums) : "w"(rows), "w"(query));
}

#include "cpu/tile_neon.h"

TILE_KERNELS(lik_neonbf16_dot, COPY, 2, 0)

const struct lik_cpu_kernels lik_kernels_neonbf16 = {
    .level = "neonbf16",
    LIK_NEON_FLOATS(LIK_NEON_CHUNKS),
    LIK_NEONI8MM_INTEGERS,
    .bf16_dot = LIK_NEON_SHAPES(lik_neonbf16_dot),
};
