/* AMX: tiles of 16 x 64 bytes are multiplied whole, 16 rows of documents by 16 query tokens.
 * What tiles have no instruction for, f32 and f16 above all, is AVX-512's.
 *
 * The document tile of tile_avx512.h, 64 bytes of each row after each other, is AMX's left
 * operand as it stands, the packed panel its right one. A block is 32 rows by a panel of 16 or
 * 32 tokens (16 rows of two panels of bytes): four sums take turns, so that none waits for its
 * last product. They leave through memory, each as the next block's first product is about to
 * take its place (before the first block nothing that counts): stores wait for products then,
 * but no product for a store. What has left is folded behind that block's products, while they
 * are at work.
 *
 * A bf16 product has pairs of elements in two chains of f32 sums, which are added to the
 * accumulator every 32 elements; denormals count as zero. Its order does not depend on where a
 * row stands in a block. Integers are exact: a 16-bit query is two of 8 bits, high and low. */
#include "cpu/avx512.h"

enum { TILE_ROWS = 16, TILE_BYTES = 64, CHUNK_ROWS = 8 };

enum product { BF16, I8, I16 };

/* What LDTILECFG reads. */
struct shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static const struct shapes shapes = {
    .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

/* `at` and a constant offset, which takes no register */
#define AT(at, offset, stride) "i"(offset), "r"(at), "r"((int64_t)(stride)) : "memory"
#define LOAD(tile, at, offset, stride) \
    __asm__ volatile("tileloadd %c0(%1,%2,1), %%tmm" #tile ::AT(at, offset, stride))
#define STORE(tile, at, offset, stride) \
    __asm__ volatile("tilestored %%tmm" #tile ", %c0(%1,%2,1)" ::AT(at, offset, stride))
#define ZERO(tile)                __asm__ volatile("tilezero %%tmm" #tile ::)
#define MULTIPLY(what, sum, a, b) __asm__ volatile(what " %%tmm" #b ", %%tmm" #a ", %%tmm" #sum ::)

/* sum += row tile a x query tile b; `begin`: the sum before leaves first. */
#define PRODUCT(product, sum, a, b, begin, sums, offset) \
    do {                                                 \
        if (begin) {                                     \
            STORE(sum, sums, offset, PITCH);             \
            ZERO(sum);                                   \
        }                                                \
        if ((product) == BF16)                           \
            MULTIPLY("tdpbf16ps", sum, a, b);            \
        else                                             \
            MULTIPLY("tdpbssd", sum, a, b);              \
    } while (0)

/* Rows of a block: four tiles of sums. */
FORCE_INLINE int block_rows(const enum product product, const int V)
{
    return product == I16 && V == 2 ? TILE_ROWS : LIK_AMX_ROWS;
}

/* A block's sums, of row r and vector v; of a 16-bit query its high bytes', and its low
 * ones'. */
struct sums {
    __m512 high[LIK_AMX_ROWS][2], low[LIK_AMX_ROWS][2];
};

/* Bytes of a row of them, to a row's second vector, to row 16, and to `low`. */
enum { PITCH = 2 * TILE_BYTES, SECOND = TILE_BYTES, HALF = TILE_ROWS * PITCH, LOW = LIK_AMX_ROWS * PITCH };

/* 64 bytes of every row by the panel, `b`, and a 16-bit query's second one; `begin`: the first,
 * before which the sums of the block before leave. */
FORCE_INLINE void multiply_step(const enum product product, const int V, const int begin, const char *a,
                                const char *half, int64_t row_stride, const char *b, const char *low,
                                struct sums *sums)
{
    const int64_t pitch = V * TILE_BYTES;
    LOAD(4, a, 0, row_stride);
    LOAD(6, b, 0, pitch);
    PRODUCT(product, 0, 4, 6, begin, sums, 0);
    if (product == I16) {
        LOAD(7, low, 0, pitch);
        PRODUCT(product, 1, 4, 7, begin, sums, LOW);
    }
    if (product == I16 && V == 2) {
        LOAD(6, b, TILE_BYTES, pitch);
        PRODUCT(product, 2, 4, 6, begin, sums, SECOND);
        LOAD(7, low, TILE_BYTES, pitch);
        PRODUCT(product, 3, 4, 7, begin, sums, LOW + SECOND);
        return;
    }
    LOAD(5, half, 0, row_stride);
    PRODUCT(product, 2, 5, 6, begin, sums, HALF);
    if (product == I16) {
        PRODUCT(product, 3, 5, 7, begin, sums, LOW + HALF);
    } else if (V == 2) {
        LOAD(7, b, TILE_BYTES, pitch);
        PRODUCT(product, 1, 4, 7, begin, sums, SECOND);
        PRODUCT(product, 3, 5, 7, begin, sums, HALF + SECOND);
    }
}

/* The sums of the last block leave. */
FORCE_INLINE void store_sums(const enum product product, const int V, struct sums *sums)
{
    STORE(0, sums, 0, PITCH);
    if (product == I16 && V == 2) {
        STORE(1, sums, LOW, PITCH);
        STORE(2, sums, SECOND, PITCH);
        STORE(3, sums, LOW + SECOND, PITCH);
    } else if (product == I16) {
        STORE(1, sums, LOW, PITCH);
        STORE(2, sums, HALF, PITCH);
        STORE(3, sums, LOW + HALF, PITCH);
    } else {
        STORE(2, sums, HALF, PITCH);
        STORE(1, sums, SECOND, PITCH);
        STORE(3, sums, HALF + SECOND, PITCH);
    }
}

/* Asks for 64 bytes of each row of a block that comes soon. */
FORCE_INLINE void ask(const void *const *rows, const int n, int64_t distance, int64_t k)
{
    const char *row = (const char *)rows[0] + k;
    for (int r = 0; r < n; r++) {
        _mm_prefetch(distance ? row : (const char *)rows[r] + k, _MM_HINT_T0);
        row += distance;
    }
}

/* The left operand: rows as they lie, `distance` apart, or tiles, and `distance` 0. */
struct left {
    const char *at;
    int64_t row_stride, half_stride, step_stride; /* to the next row, 16 rows, and 64 bytes of each */
    int64_t distance;
};

/* The distance of rows that are read where they lie: they lie evenly, all in the array, and
 * where many panels read them (`often`) at whole cache lines; else 0. */
FORCE_INLINE int64_t distance_of(const void *const *rows, int often)
{
    int64_t distance = (const char *)rows[1] - (const char *)rows[0];
    const __m512i same = _mm512_set1_epi64(distance);
    const uintptr_t off = ((uintptr_t)rows[0] | (uintptr_t)distance) % TILE_BYTES;
    __mmask8 differ = 0;
    UNROLL
    for (int r = 0; r < LIK_AMX_ROWS; r += 8) {
        __m512i here = _mm512_loadu_si512(rows + r);
        __mmask8 last = r + 8 < LIK_AMX_ROWS ? 0xff : 0x7f;
        __m512i there = _mm512_maskz_loadu_epi64(last, rows + r + 1);
        differ |= _mm512_mask_cmpneq_epi64_mask(last, _mm512_sub_epi64(there, here), same);
    }
    return differ || (often && off) ? 0 : distance;
}

/* The rows from `at` on; makes them tiles where they are none. Blocks of 16 rows share a tile
 * of 32, which a panel after this one may read whole. */
FORCE_INLINE struct left left_of(const struct lik_rows *job, int64_t at, int64_t bytes)
{
    const int64_t in_tile = at % LIK_AMX_ROWS, first = at - in_tile;
    const int64_t distance = bytes % TILE_BYTES == 0 ? distance_of(job->rows + first, job->panels > 2) : 0;
    if (distance)
        return (struct left){job->rows[at], distance, TILE_ROWS * distance, TILE_BYTES, distance};
    int32_t *tile = job->tiles + (job->panels > 1 ? first * job->tile_stride : 0);
    if (!job->tiles_ready && in_tile == 0)
        lik_tile_prepare_all(LIK_TILE_COPY, 1, LIK_AMX_ROWS, tile, job->rows + at, 0, bytes);
    return (struct left){(const char *)tile + in_tile * TILE_BYTES, TILE_BYTES, TILE_ROWS * TILE_BYTES,
                         LIK_AMX_ROWS * TILE_BYTES, 0};
}

/* The product of row r, vector v. */
FORCE_INLINE __m512 product_at(const enum product product, int r, const int v, const struct sums *sums,
                               const float *row_scale, const int scaled)
{
    __m512 x = sums->high[r][v];
    if (product == I16)
        x = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(x), 8),
                                                 _mm512_castps_si512(sums->low[r][v])));
    if (product != BF16)
        x = _mm512_cvtepi32_ps(_mm512_castps_si512(x));
    return scaled ? _mm512_mul_ps(x, _mm512_set1_ps(row_scale[r])) : x;
}

/* Folds a block, all of one document, whose winners nobody asks for. */
FORCE_INLINE void fold_whole(const enum product product, const int V, const int numbers, const int scaled,
                             const struct sums *sums, const float *row_scale, float *maxima)
{
    const int rows = block_rows(product, V);
    __m512 best[2];
    __mmask16 nan[2];
    UNROLL
    for (int v = 0; v < V; v++) {
        best[v] = _mm512_loadu_ps(maxima + LIK_TILE_VECTOR * v);
        nan[v] = numbers ? 0 : _mm512_cmp_ps_mask(best[v], best[v], _CMP_UNORD_Q);
    }
    UNROLL
    for (int chunk = 0; chunk < rows; chunk += CHUNK_ROWS) {
        __m512 row[2][CHUNK_ROWS];
        UNROLL
        for (int r = 0; r < CHUNK_ROWS; r++) {
            UNROLL
            for (int v = 0; v < V; v++)
                row[v][r] = product_at(product, chunk + r, v, sums, row_scale, scaled);
        }
        UNROLL
        for (int v = 0; v < V; v++) {
            UNROLL
            for (int r = 0; r < CHUNK_ROWS; r += 2)
                if (!numbers)
                    nan[v] = _kor_mask16(nan[v], _mm512_cmp_ps_mask(row[v][r], row[v][r + 1], _CMP_UNORD_Q));
            UNROLL
            for (int apart = 1; apart < CHUNK_ROWS; apart *= 2) {
                UNROLL
                for (int r = 0; r < CHUNK_ROWS; r += 2 * apart)
                    row[v][r] = _mm512_max_ps(row[v][r], row[v][r + apart]);
            }
            best[v] = _mm512_max_ps(row[v][0], best[v]); /* of a NaN and a number the second */
        }
    }
    UNROLL
    for (int v = 0; v < V; v++) {
        if (!numbers)
            best[v] = _mm512_castsi512_ps(_mm512_mask_set1_epi32(_mm512_castps_si512(best[v]), nan[v], -1));
        _mm512_storeu_ps(maxima + LIK_TILE_VECTOR * v, best[v]);
    }
}

FORCE_INLINE void fold_block(const struct lik_rows *job, const enum product product, const int V, int64_t at,
                             const struct sums *sums, int64_t *segment)
{
    const int rows = block_rows(product, V);
    const float *row_scale = job->row_scale ? job->row_scale + at : NULL;
    const int numbers = product != BF16 && (!row_scale || lik_tile_finite(row_scale, rows));
    while (at >= job->ends[*segment])
        ++*segment;
    if (!job->winners && at + rows <= job->ends[*segment]) {
        float *maxima = job->maxima + *segment * job->stride;
        if (!row_scale)
            fold_whole(product, V, product != BF16, 0, sums, NULL, maxima);
        else if (product != BF16 && numbers)
            fold_whole(product, V, 1, 1, sums, row_scale, maxima);
        else
            fold_whole(product, V, 0, 1, sums, row_scale, maxima);
        return;
    }
    for (int64_t chunk = 0; chunk < rows && at + chunk < job->count; chunk += CHUNK_ROWS) {
        __m512 row[CHUNK_ROWS * 2];
        UNROLL
        for (int r = 0; r < CHUNK_ROWS; r++) {
            UNROLL
            for (int v = 0; v < V; v++)
                row[r * V + v] = product_at(product, (int)chunk + r, v, sums, row_scale, row_scale != NULL);
        }
        if (product != BF16 && numbers)
            lik_tile_fold_tile(job, CHUNK_ROWS, V, 1, 1, row, at + chunk, segment);
        else
            lik_tile_fold_tile(job, CHUNK_ROWS, V, 1, 0, row, at + chunk, segment);
    }
}

FORCE_INLINE void run(const struct lik_rows *job, const enum product product, const int V)
{
    const int rows = block_rows(product, V), asks = !job->tiles_ready && !job->make;
    const int64_t bytes = job->dim * (product == BF16 ? 2 : 1), query_step = TILE_ROWS * V * TILE_BYTES;
    const int64_t panel = lik_divide_up(bytes, TILE_BYTES) * query_step;
    struct sums sums;
    int64_t segment = 0;
    if (job->make)
        job->make(job->maker, LIK_AMX_ROWS);
    for (int64_t at = 0; at < job->count; at += rows) {
        const struct left left = left_of(job, at, bytes);
        const char *a = left.at, *half = a + left.half_stride, *b = job->packed;
        const void *const *ahead = asks ? job->rows + at + 2 * LIK_AMX_ROWS - rows : NULL;
        multiply_step(product, V, 1, a, half, left.row_stride, b, b + panel, &sums);
        if (ahead)
            ask(ahead, rows, left.distance, 0);
        for (int64_t k = TILE_BYTES; k < bytes; k += TILE_BYTES) {
            a += left.step_stride;
            half += left.step_stride;
            b += query_step;
            multiply_step(product, V, 0, a, half, left.row_stride, b, b + panel, &sums);
            if (ahead)
                ask(ahead, rows, left.distance, k);
        }
        if (job->make) /* while this block is multiplied */
            job->make(job->maker, at + 2 * LIK_AMX_ROWS);
        if (at > 0)
            fold_block(job, product, V, at - rows, &sums, &segment);
    }
    store_sums(product, V, &sums);
    fold_block(job, product, V, (job->count - 1) / rows * rows, &sums, &segment);
}

static void begin(void)
{
    __asm__ volatile("ldtilecfg %0" ::"m"(shapes));
}

static void end(void)
{
    __asm__ volatile("tilerelease" ::);
}

#define AMX_KERNELS(name, product)                         \
    static void name##_lanes16(const struct lik_rows *job) \
    {                                                      \
        run(job, product, 1);                              \
    }                                                      \
    static void name##_lanes32(const struct lik_rows *job) \
    {                                                      \
        run(job, product, 2);                              \
    }
AMX_KERNELS(amx_bf16, BF16)
AMX_KERNELS(amx_i8_q7, I8)
AMX_KERNELS(amx_i8_q16, I16)

#define AMX_SHAPES(name) {[4] = name##_lanes16, [8] = name##_lanes32}

const struct lik_cpu_kernels lik_kernels_amx = {
    .level = "amx",
    LIK_AVX512_FLOATS(.integer_words = LIK_TILE_VECTOR, .splits_i16 = 1),
    .bf16_dot = AMX_SHAPES(amx_bf16),
    .i8_q16 = AMX_SHAPES(amx_i8_q16),
    .i8_q7 = AMX_SHAPES(amx_i8_q7),
    .begin = begin,
    .end = end,
};
