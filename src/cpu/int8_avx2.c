/* The i8 row kernels for AVX2. vpmaddwd sums pairs of 16-bit products, vpaddd accumulates them;
 * of 8-bit ones vpmaddubsw sums pairs before that (2 * 255 * 63 < 2^15: it cannot saturate). */
#include "cpu/avx2.h"
#include "cpu/unroll.h"

#include <immintrin.h>
#include <string.h>

enum { ROWS = 4, SUMS = 8 };

/* acc += the sums of two i16 products. In asm so that the query load stays shared by the rows
 * and the order of the sums, which the compiler would turn into a tree of spilled terms, stays
 * a chain a row. */
FORCE_INLINE void add_pairs(__m256i *acc, __m256i row, __m256i query)
{
    __m256i products;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(*acc), "=&x"(products) : "x"(row), "x"(query));
}

/* acc += the sums of four products of an unsigned row and the query. */
FORCE_INLINE void add_quads(__m256i *acc, __m256i row_unsigned, __m256i query, __m256i ones)
{
    __m256i products;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
            : "+x"(*acc), "=&x"(products)
            : "x"(row_unsigned), "x"(query), "x"(ones));
}

#include "cpu/int8_avx2.h"

I8_KERNEL(avx2, lanes8, 4, 1)
I8_KERNEL(avx2, lanes16, 4, 2)
I8_KERNEL(avx2, lanes24, 2, 3)
I8_KERNEL(avx2, lanes32, 2, 4)
