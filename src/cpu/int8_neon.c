/* The i8 row kernels for the baseline of aarch64, which multiplies integers at half of their
 * width: two rows at a time, a word of theirs in all lanes, by the panel's words.
 *
 * 16-bit query: rows are widened to i16 on their way; a word has two elements, whose sums stay
 * apart until all are added. 7-bit query: a product is at most 63 * 128, so that four of them
 * fit 16 bits, where 16 elements are added before they go to the i32 sums. */
#include "cpu/neon.h"

#include <arm_neon.h>
#include <string.h>

enum { ROWS = 2, STEP = 16 };

/* Word u of four, in all lanes. */
FORCE_INLINE int8x16_t broadcast(int8x16_t row, const int u)
{
    int32x4_t words = vreinterpretq_s32_s8(row);
    switch (u) {
    case 0: return vreinterpretq_s8_s32(vdupq_laneq_s32(words, 0));
    case 1: return vreinterpretq_s8_s32(vdupq_laneq_s32(words, 1));
    case 2: return vreinterpretq_s8_s32(vdupq_laneq_s32(words, 2));
    default: return vreinterpretq_s8_s32(vdupq_laneq_s32(words, 3));
    }
}

/* A vector of the panel, and on. In asm and in order, as in tile_neon.h. */
FORCE_INLINE int8x16_t load_query(const char **query)
{
    int8x16_t q;
    __asm__ volatile("ldr %q0, [%1], #16" : "=w"(q), "+r"(*query) : "m"(*(const char (*)[16]) * query));
    return q;
}

/* sums[0], of tokens 0 and 1, and sums[1], of 2 and 3, two sums each. */
FORCE_INLINE void add_pairs(int32x4_t *sums, int16x8_t row, int8x16_t query)
{
    __asm__ volatile("smlal %0.4s, %1.4h, %2.4h" : "+w"(sums[0]) : "w"(row), "w"(query));
    __asm__ volatile("smlal2 %0.4s, %1.8h, %2.8h" : "+w"(sums[1]) : "w"(row), "w"(query));
}

/* 16 elements of R rows by a 16-bit query. */
FORCE_INLINE void step_q16(const int R, const int V, int32x4_t *sums, const int8x16_t *row, const char *query)
{
    UNROLL
    for (int u = 0; u < STEP / 2; u++) {
        int16x8_t word[ROWS];
        UNROLL
        for (int r = 0; r < R; r++) {
            int16x8_t wide = u < 4 ? vmovl_s8(vget_low_s8(row[r])) : vmovl_high_s8(row[r]);
            word[r] = vreinterpretq_s16_s8(broadcast(vreinterpretq_s8_s16(wide), u % 4));
        }
        UNROLL
        for (int v = 0; v < V; v++) {
            int8x16_t q = load_query(&query);
            UNROLL
            for (int r = 0; r < R; r++)
                add_pairs(sums + (r * V + v) * 2, word[r], q);
        }
    }
}

/* The same by a 7-bit query. */
FORCE_INLINE void step_q7(const int R, const int V, int32x4_t *sums, const int8x16_t *row, const char *query)
{
    int8x16_t word[ROWS][4];
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int u = 0; u < 4; u++)
            word[r][u] = broadcast(row[r], u);
    }
    UNROLL
    for (int v = 0; v < V; v++) {
        int16x8_t low[ROWS], high[ROWS];
        UNROLL
        for (int u = 0; u < 4; u++) {
            const char *at = query + (u * V + v) * 16;
            int8x16_t q = load_query(&at);
            UNROLL
            for (int r = 0; r < R; r++) {
                int8x8_t half = vget_low_s8(word[r][u]);
                low[r] = u ? vmlal_s8(low[r], half, vget_low_s8(q)) : vmull_s8(half, vget_low_s8(q));
                high[r] = u ? vmlal_high_s8(high[r], word[r][u], q) : vmull_high_s8(word[r][u], q);
            }
        }
        UNROLL
        for (int r = 0; r < R; r++) {
            int32x4_t *sum = sums + (r * V + v) * 2;
            sum[0] = vpadalq_s16(sum[0], low[r]);
            sum[1] = vpadalq_s16(sum[1], high[r]);
        }
    }
}

/* The last n elements of rows, and zeros: the panel goes on to a whole step. */
static __attribute__((noinline)) void copy_ends(int R, int8_t (*ends)[STEP], const void *const *rows,
                                                int64_t k, int64_t n)
{
    memset(ends, 0, (size_t)R * sizeof *ends);
    for (int r = 0; r < R; r++)
        memcpy(ends[r], (const int8_t *)rows[r] + k, (size_t)n);
}

/* One panel shape against a row stream; `word`: elements of one, 2 or 4. */
FORCE_INLINE void run_rows(const struct lik_rows *job, const int word, const int R, const int V)
{
    const int64_t dim = job->dim, panel_step = STEP / word * V * 16;
    int64_t segment = 0;
    for (int64_t at = 0; at < job->count; at += R) {
        const void *const *rows = job->rows + at, *const *ahead = rows + 2 * LIK_NEON_TILE_ROWS - R;
        const char *query = job->packed;
        int32x4_t sums[LIK_NEON_SUMS];
        UNROLL
        for (int i = 0; i < R * V * 2; i++)
            sums[i] = vdupq_n_s32(0);
        for (int64_t k = 0; k < dim; k += STEP, query += panel_step) {
            int8x16_t row[ROWS];
            int8_t ends[ROWS][STEP];
            if (k + STEP > dim)
                copy_ends(R, ends, rows, k, dim - k);
            UNROLL
            for (int r = 0; r < R; r++) {
                row[r] = vld1q_s8(k + STEP > dim ? ends[r] : (const int8_t *)rows[r] + k);
                if (k % 64 == 0)
                    __builtin_prefetch((const char *)ahead[r] + k);
            }
            if (word == 2)
                step_q16(R, V, sums, row, query);
            else
                step_q7(R, V, sums, row, query);
        }
        float32x4_t product[LIK_NEON_SUMS / 2];
        UNROLL
        for (int i = 0; i < R * V; i++)
            product[i] = vcvtq_f32_s32(vpaddq_s32(sums[2 * i], sums[2 * i + 1]));
        lik_neon_fold_tile(job, R, V, product, at, &segment);
    }
}

#define I8_KERNEL(lanes, rows_q7, V)                         \
    void lik_neon_i8_q16_##lanes(const struct lik_rows *job) \
    {                                                        \
        run_rows(job, 2, 2, V);                              \
    }                                                        \
    void lik_neon_i8_q7_##lanes(const struct lik_rows *job)  \
    {                                                        \
        run_rows(job, 4, rows_q7, V);                        \
    }

I8_KERNEL(lanes4, 2, 1)
I8_KERNEL(lanes8, 2, 2)
I8_KERNEL(lanes12, 2, 3)
I8_KERNEL(lanes16, 2, 4)
I8_KERNEL(lanes20, 1, 5) /* two rows would not fit the registers */
I8_KERNEL(lanes24, 1, 6)
