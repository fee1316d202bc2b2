/* aarch64 with dot products: four i8 by four i8 into an i32. A 16-bit query is two of 8
 * bits. */
#include "cpu/neon.h"

#include <arm_neon.h>
#include <string.h>

enum { MATRIX = 0, INTEGER = 1 };

/* sums += the products of word u of a row and four tokens. */
FORCE_INLINE void multiply(const int u, float32x4_t *sums, uint8x16_t row, uint8x16_t query)
{
    switch (u) {
    case 0: __asm__ volatile("sdot %0.4s, %1.16b, %2.4b[0]" : "+w"(*sums) : "w"(query), "w"(row)); break;
    case 1: __asm__ volatile("sdot %0.4s, %1.16b, %2.4b[1]" : "+w"(*sums) : "w"(query), "w"(row)); break;
    case 2: __asm__ volatile("sdot %0.4s, %1.16b, %2.4b[2]" : "+w"(*sums) : "w"(query), "w"(row)); break;
    default: __asm__ volatile("sdot %0.4s, %1.16b, %2.4b[3]" : "+w"(*sums) : "w"(query), "w"(row));
    }
}

#include "cpu/tile_neon.h"

TILE_KERNELS(lik_neondot_i8_q16, COPY, 1, 1)
TILE_KERNELS(lik_neondot_i8_q7, COPY, 1, 0)

const struct lik_cpu_kernels lik_kernels_neondot = {
    .level = "neondot",
    LIK_NEON_FLOATS(.integer_words = 4, .splits_i16 = 1),
    .i8_q16 = LIK_NEON_SHAPES(lik_neondot_i8_q16),
    .i8_q7 = LIK_NEON_SHAPES(lik_neondot_i8_q7),
};
