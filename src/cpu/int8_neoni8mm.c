/* aarch64 with dot products and matrix products of i8: two rows by two tokens, 8 elements of
 * each. */
#include "cpu/neon.h"

#include <arm_neon.h>
#include <string.h>

enum { MATRIX = 1, INTEGER = 1 };

/* sums, of 2 x 2, += the products of two rows and two tokens. */
FORCE_INLINE void multiply(const int u, float32x4_t *sums, uint8x16_t rows, uint8x16_t query)
{
    (void)u;
    __asm__ volatile("smmla %0.4s, %1.16b, %2.16b" : "+w"(*sums) : "w"(rows), "w"(query));
}

#include "cpu/tile_neon.h"

TILE_KERNELS(lik_neoni8mm_i8_q16, COPY, 1, 1)
TILE_KERNELS(lik_neoni8mm_i8_q7, COPY, 1, 0)

const struct lik_cpu_kernels lik_kernels_neoni8mm = {
    .level = "neoni8mm",
    LIK_NEON_FLOATS(LIK_NEON_CHUNKS),
    LIK_NEONI8MM_INTEGERS,
};
