/* The row kernels of the levels of aarch64, for one multiplication. The file that includes it
 * has said which: `multiply`, and what it is (MATRIX, INTEGER).
 *
 * Four bytes of a row are a *word*: an f32, two bf16 or four i8. Query tokens lie in the lanes,
 * and an instruction takes its row word from one of four in a register: 16 bytes of a row are
 * loaded once and used four times, nothing is broadcast. So f16 and bf16 rows are widened on
 * their way into that register, by every panel, and no f32 rows are kept. Tiles have at most 24
 * sums, and at least 12 (four pipes with a latency of 4, or of 2 from sum to sum):
 *
 *     tokens   4     8    12   16   20   24
 *     tile     12x1  8x2  6x3  6x4  4x5  4x6
 *
 * MATRIX: an instruction takes two rows by two tokens, a *chunk* of 8 bytes of each. There a
 * panel has two words of a token after each other, so that two tokens' chunks are a vector; two
 * rows' are put together as they are loaded. Sums of 2 x 2 become rows when all are added.
 *
 * Rows are prefetched two tiles ahead through their pointers, as AVX2's are. Without a guard:
 * the amalgamation includes it for each level. */

enum source { COPY, F16, BF16 };

/* Loads and multiplications are one asm instruction each (or two that belong together), in the
 * order in which they are written: left to themselves compilers move loads ahead until sums
 * spill, load a vector again for each row, and broadcast words that several instructions
 * take. */

/* Two vectors of the panel, and on. */
FORCE_INLINE void load_two(uint8x16_t *query, const char **at)
{
    __asm__ volatile("ldp %q0, %q1, [%2], #32"
                     : "=w"(query[0]), "=w"(query[1]), "+r"(*at)
                     : "m"(*(const char (*)[32]) * at));
}

FORCE_INLINE void load_one(uint8x16_t *query, const char **at)
{
    __asm__ volatile("ldr %q0, [%1], #16" : "=w"(*query), "+r"(*at) : "m"(*(const char (*)[16]) * at));
}

/* Four words of a row, and on. */
FORCE_INLINE void load_words(const enum source source, uint8x16_t *words, const char **at)
{
    if (source == F16)
        __asm__ volatile("ldr %d0, [%1], #8\n\tfcvtl %0.4s, %0.4h"
                         : "=w"(*words), "+r"(*at)
                         : "m"(*(const char (*)[8]) * at));
    else if (source == BF16)
        __asm__ volatile("ldr %d0, [%1], #8\n\tshll %0.4s, %0.4h, #16"
                         : "=w"(*words), "+r"(*at)
                         : "m"(*(const char (*)[8]) * at));
    else
        load_one(words, at);
}

/* Chunks of two rows, and on. */
FORCE_INLINE void load_chunks(uint8x16_t *chunks, const char **first, const char **second)
{
    __asm__ volatile("ldr %d0, [%1], #8\n\tld1 {%0.d}[1], [%2], #8"
                     : "=&w"(*chunks), "+r"(*first), "+r"(*second)
                     : "m"(*(const char (*)[8]) * first), "m"(*(const char (*)[8]) * second));
}

/* acc += a step of every row, four words or a chunk, by the panel's; the panel has but `words`
 * words of the last one. Sums of chunks are of 2 x 2, [R / 2][2 V]. */
FORCE_INLINE void add_step(const enum source source, const int R, const int V, const int words,
                           float32x4_t *acc, const char **rows, const char **query)
{
    const int across = MATRIX ? 2 * V : V, down = MATRIX ? R / 2 : R, vectors = (MATRIX ? 1 : words) * across;
    uint8x16_t row[LIK_NEON_TILE_ROWS], q[2];
    UNROLL
    for (int r = 0; r < down; r++) {
        if (MATRIX)
            load_chunks(&row[r], &rows[2 * r], &rows[2 * r + 1]);
        else
            load_words(source, &row[r], &rows[r]);
    }
    UNROLL
    for (int n = 0; n < (MATRIX ? 2 * V : 4 * V); n++) {
        if (n >= vectors)
            return;
        if (n % 2 == 0 && n + 1 < vectors)
            load_two(q, query);
        else if (n % 2 == 0)
            load_one(q, query);
        UNROLL
        for (int r = 0; r < down; r++)
            multiply(n / across, &acc[r * across + n % across], row[r], q[n % 2]);
    }
}

/* The last bytes of rows, fewer than a step takes, and zeros. */
static __attribute__((noinline)) void copy_ends(int R, char (*ends)[16], const void *const *first,
                                                int64_t skip, int64_t bytes)
{
    memset(ends, 0, (size_t)R * sizeof *ends);
    for (int r = 0; r < R; r++)
        memcpy(ends[r], (const char *)first[r] + skip, (size_t)bytes);
}

/* acc += those by the panel's. */
FORCE_INLINE void add_ends(const enum source source, const int R, const int V, float32x4_t *acc,
                           const void *const *first, int64_t skip, const char *query, int64_t bytes)
{
    const int word = source == COPY ? 4 : 2;
    char ends[LIK_NEON_TILE_ROWS][16];
    const char *from[LIK_NEON_TILE_ROWS];
    copy_ends(R, ends, first, skip, bytes);
    UNROLL
    for (int r = 0; r < R; r++)
        from[r] = ends[r];
    switch (INTEGER || MATRIX ? 4 : bytes / word) { /* of these the panel has whole steps */
    case 1: add_step(source, R, V, 1, acc, from, &query); break;
    case 2: add_step(source, R, V, 2, acc, from, &query); break;
    case 3: add_step(source, R, V, 3, acc, from, &query); break;
    default: add_step(source, R, V, 4, acc, from, &query);
    }
}

/* acc += sums over the elements of R rows; meanwhile asks for rows `ahead`. */
FORCE_INLINE void dot_tile(const enum source source, const int R, const int V, float32x4_t *acc,
                           const void *const *first, int64_t skip, const char *query, int64_t bytes,
                           const void *const *ahead)
{
    const int step = MATRIX || source != COPY ? 8 : 16;
    const char *rows[LIK_NEON_TILE_ROWS];
    UNROLL
    for (int r = 0; r < R; r++)
        rows[r] = (const char *)first[r] + skip;
    int64_t at = 0;
    for (; at + 4 * step <= bytes; at += 4 * step) {
        UNROLL
        for (int s = 0; s < 4; s++) {
            add_step(source, R, V, 4, acc, rows, &query);
            if (step == 8 && (at & 32)) /* every 64 bytes */
                continue;
            UNROLL
            for (int r = 0; r < R; r++)
                if (r * 4 / R == s)
                    __builtin_prefetch((const char *)ahead[r] + skip + at);
        }
    }
    for (; at + step <= bytes; at += step)
        add_step(source, R, V, 4, acc, rows, &query);
    if (at < bytes)
        add_ends(source, R, V, acc, first, skip + at, query, bytes - at);
}

/* Sums of 2 x 2 to rows of 4 tokens. */
FORCE_INLINE void part_rows(const int R, const int V, float32x4_t *acc)
{
    float32x4_t row[LIK_NEON_SUMS];
    UNROLL
    for (int p = 0; p < R / 2; p++) {
        UNROLL
        for (int v = 0; v < V; v++) {
            float64x2_t first = vreinterpretq_f64_f32(acc[(p * V + v) * 2]);
            float64x2_t second = vreinterpretq_f64_f32(acc[(p * V + v) * 2 + 1]);
            row[2 * p * V + v] = vreinterpretq_f32_f64(vzip1q_f64(first, second));
            row[(2 * p + 1) * V + v] = vreinterpretq_f32_f64(vzip2q_f64(first, second));
        }
    }
    UNROLL
    for (int i = 0; i < R * V; i++)
        acc[i] = row[i];
}

/* One panel shape against a row stream. `split`: two panels of 8 bits make one of 16. */
FORCE_INLINE void run_rows(const struct lik_rows *job, const enum source source, const int element_bytes,
                           const int split, const int R, const int V)
{
    const int64_t bytes = job->dim * element_bytes, low_bytes = lik_round_up(bytes, MATRIX ? 8 : 16) * V * 4;
    int64_t segment = 0;
    for (int64_t at = 0; at < job->count; at += R) {
        float32x4_t acc[LIK_NEON_SUMS];
        float *partial = job->partial ? job->partial + at * V * LIK_NEON_LANES : NULL;
        const void *const *rows = job->rows + at, *const *ahead = rows + 2 * LIK_NEON_TILE_ROWS - R;
        if (partial && !job->first) {
            UNROLL
            for (int i = 0; i < R * V; i++)
                acc[i] = vld1q_f32(partial + i * LIK_NEON_LANES);
        } else {
            UNROLL
            for (int i = 0; i < R * V; i++)
                acc[i] = vdupq_n_f32(0);
        }
        dot_tile(source, R, V, acc, rows, job->skip, job->packed, bytes, ahead);
        if (split) {
            UNROLL
            for (int i = 0; i < R * V; i++)
                acc[i] = vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(acc[i]), 8));
            dot_tile(source, R, V, acc, rows, job->skip, (const char *)job->packed + low_bytes, bytes, ahead);
        }
        if (partial && !job->last) {
            UNROLL
            for (int i = 0; i < R * V; i++)
                vst1q_f32(partial + i * LIK_NEON_LANES, acc[i]);
            continue;
        }
        if (MATRIX)
            part_rows(R, V, acc);
        if (INTEGER) {
            UNROLL
            for (int i = 0; i < R * V; i++)
                acc[i] = vcvtq_f32_s32(vreinterpretq_s32_f32(acc[i]));
        }
        lik_neon_fold_tile(job, R, V, acc, at, &segment);
    }
}

#define TILE_KERNEL(name, source, element_bytes, split, R, V) \
    void name(const struct lik_rows *job)                     \
    {                                                         \
        run_rows(job, source, element_bytes, split, R, V);    \
    }

/* A kernel a shape: name_lanes4 and so on. */
#define TILE_KERNELS(name, source, element_bytes, split)                         \
    LIK_NEON_DECLARE(name);                                                      \
    TILE_KERNEL(name##_lanes4, source, element_bytes, split, 12, 1)              \
    TILE_KERNEL(name##_lanes8, source, element_bytes, split, 8 + 4 * MATRIX, 2)  \
    TILE_KERNEL(name##_lanes12, source, element_bytes, split, 6 + 2 * MATRIX, 3) \
    TILE_KERNEL(name##_lanes16, source, element_bytes, split, 6, 4)              \
    TILE_KERNEL(name##_lanes20, source, element_bytes, split, 4, 5)              \
    TILE_KERNEL(name##_lanes24, source, element_bytes, split, 4, 6)
