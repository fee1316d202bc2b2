/* AMX: tiles of 16 x 64 bytes are multiplied whole, 16 rows of documents by 16 query tokens.
 * What tiles have no instruction for, f32 and f16 above all, is AVX-512's.
 *
 * The document tile of tile_avx512.h, 64 bytes of each row after each other, is AMX's left
 * operand as it stands, the packed panel its right one. A block is 32 rows by a panel of 16 or
 * 32 tokens: four accumulators take turns, so that none waits for its last product. Sums leave
 * through memory; while they are folded, tiles of the next block are multiplied.
 *
 * A bf16 product has pairs of elements in two chains of f32 sums, which are added to the
 * accumulator every 32 elements; denormals count as zero. Its order does not depend on where a
 * row stands in a block. Integers are exact: a 16-bit query is two of 8 bits, high and low. */
#include "cpu/avx512.h"

enum { BLOCK_ROWS = LIK_AMX_ROWS, TILE_ROWS = 16, TILE_BYTES = 64 };

enum product { BF16, I8, I16 };

/* What LDTILECFG reads. */
struct shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static const struct shapes shapes = {
    .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

#define LOAD(tile, address, stride) \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(address), "r"((int64_t)(stride)) : "memory")
#define STORE(tile, address, stride)                                                               \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(address), "r"((int64_t)(stride)) \
                     : "memor"                                                                     \
                       "y")
#define ZERO(tile)                __asm__ volatile("tilezero %%tmm" #tile ::)
#define MULTIPLY(what, sum, a, b) __asm__ volatile(what " %%tmm" #b ", %%tmm" #a ", %%tmm" #sum ::)

/* sum += row tile a x query tile b. */
#define PRODUCT(product, sum, a, b)           \
    do {                                      \
        if ((product) == BF16)                \
            MULTIPLY("tdpbf16ps", sum, a, b); \
        else                                  \
            MULTIPLY("tdpbssd", sum, a, b);   \
    } while (0)

/* The left operand: rows as they lie, if they lie evenly, or tiles. */
struct left {
    const char *at;
    int64_t row_stride, half_stride, block_stride; /* to the next row, 16 rows, and 64 bytes of each */
};

/* The block's sums, [BLOCK_ROWS][V] vectors, of a 16-bit query its high bytes' and, `low`, its
 * low bytes'. Meanwhile asks for rows `ahead`. */
FORCE_INLINE void multiply_block(const char *query, const void *const *ahead, const enum product product,
                                 const int V, struct left left, int64_t bytes, __m512 *sums, __m512 *low)
{
    const int64_t pitch = V * TILE_BYTES, panel = (bytes + TILE_BYTES - 1) / TILE_BYTES * TILE_ROWS * pitch;
    const int halves = product == I16 && V == 2 ? 2 : 1; /* of the block: all would take 8 sums */
    for (int half = 0; half < halves; half++) {
        ZERO(0);
        ZERO(1);
        ZERO(2);
        ZERO(3);
        const char *a = left.at + half * left.half_stride, *b = query;
        for (int64_t k = 0; k < bytes; k += TILE_BYTES) {
            LOAD(4, a, left.row_stride);
            LOAD(6, b, pitch);
            PRODUCT(product, 0, 4, 6);
            if (product == I16) {
                LOAD(7, b + panel, pitch);
                MULTIPLY("tdpbssd", 1, 4, 7);
            }
            if (halves == 1) {
                LOAD(5, a + left.half_stride, left.row_stride);
                PRODUCT(product, 2, 5, 6);
                if (product == I16)
                    MULTIPLY("tdpbssd", 3, 5, 7);
            }
            if (V == 2 && product != I16) {
                LOAD(7, b + TILE_BYTES, pitch);
                PRODUCT(product, 1, 4, 7);
                PRODUCT(product, 3, 5, 7);
            } else if (V == 2) {
                LOAD(6, b + TILE_BYTES, pitch);
                LOAD(7, b + panel + TILE_BYTES, pitch);
                PRODUCT(product, 2, 4, 6);
                MULTIPLY("tdpbssd", 3, 4, 7);
            }
            for (int r = half * TILE_ROWS; r < BLOCK_ROWS / halves * (half + 1); r++)
                _mm_prefetch((const void *)((uintptr_t)ahead[r] + (uintptr_t)k), _MM_HINT_T0);
            a += left.block_stride;
            b += TILE_ROWS * pitch;
        }
        __m512 *out = sums + half * TILE_ROWS * V, *low_out = low + half * TILE_ROWS * V;
        STORE(0, out, pitch);
        if (product != I16) {
            STORE(2, out + TILE_ROWS * V, pitch);
            if (V == 2) {
                STORE(1, out + 1, pitch);
                STORE(3, out + TILE_ROWS * V + 1, pitch);
            }
        } else {
            STORE(1, low_out, pitch);
            STORE(2, V == 2 ? out + 1 : out + TILE_ROWS * V, pitch);
            STORE(3, V == 2 ? low_out + 1 : low_out + TILE_ROWS * V, pitch);
        }
    }
}

/* Are the block's rows a constant distance apart, all in the array? Then it. */
static int64_t distance_of(const void *const *rows)
{
    int64_t distance = (const char *)rows[1] - (const char *)rows[0];
    const __m512i same = _mm512_set1_epi64(distance);
    __mmask8 differ = 0;
    UNROLL
    for (int r = 0; r < BLOCK_ROWS; r += 8) {
        __m512i here = _mm512_loadu_si512(rows + r);
        __mmask8 last = r + 8 < BLOCK_ROWS ? 0xff : 0x7f;
        __m512i there = _mm512_maskz_loadu_epi64(last, rows + r + 1);
        differ |= _mm512_mask_cmpneq_epi64_mask(last, _mm512_sub_epi64(there, here), same);
    }
    return differ ? 0 : distance;
}

/* The product of row r, vector v. */
FORCE_INLINE __m512 product_at(const enum product product, const int V, int r, const int v,
                               const __m512 *sums, const __m512 *low, const float *row_scale)
{
    __m512 x = sums[r * V + v];
    if (product == I16)
        x = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(x), 8),
                                                 _mm512_castps_si512(low[r * V + v])));
    if (product != BF16)
        x = _mm512_cvtepi32_ps(_mm512_castps_si512(x));
    return row_scale ? _mm512_mul_ps(x, _mm512_set1_ps(row_scale[r])) : x;
}

FORCE_INLINE void fold_block(const struct lik_rows *job, const enum product product, const int V, int64_t at,
                             const __m512 *sums, const __m512 *low, int64_t *segment)
{
    enum { CHUNK = 8 };
    const float *row_scale = job->row_scale ? job->row_scale + at : NULL;
    const int numbers = product != BF16 && (!row_scale || lik_tile_finite(row_scale, BLOCK_ROWS));
    for (int64_t chunk = 0; chunk < BLOCK_ROWS && at + chunk < job->count; chunk += CHUNK) {
        __m512 row[CHUNK * 2];
        UNROLL
        for (int r = 0; r < CHUNK; r++) {
            UNROLL
            for (int v = 0; v < V; v++)
                row[r * V + v] = product_at(product, V, (int)chunk + r, v, sums, low, row_scale);
        }
        if (numbers)
            lik_tile_fold_tile(job, CHUNK, V, 1, 1, row, at + chunk, segment);
        else
            lik_tile_fold_tile(job, CHUNK, V, 1, 0, row, at + chunk, segment);
    }
}

FORCE_INLINE void run(const struct lik_rows *job, const enum product product, const int V)
{
    const int64_t bytes = job->dim * (product == BF16 ? 2 : 1), stride = BLOCK_ROWS * job->tile_stride;
    __m512 sums[2][BLOCK_ROWS * 2], low[2][product == I16 ? BLOCK_ROWS * 2 : 1];
    int64_t segment = 0, distance;
    __asm__ volatile("ldtilecfg %0" ::"m"(shapes));
    if (job->make)
        job->make(job->maker, BLOCK_ROWS);
    for (int64_t at = 0; at < job->count + BLOCK_ROWS; at += BLOCK_ROWS) {
        const int64_t turn = at / BLOCK_ROWS % 2;
        if (at < job->count) {
            int32_t *tiles = job->tiles + (job->tiles_kept ? at / BLOCK_ROWS * stride : 0);
            struct left left = {(const char *)tiles, TILE_BYTES, TILE_ROWS * TILE_BYTES,
                                BLOCK_ROWS * TILE_BYTES};
            if (bytes % TILE_BYTES == 0 && (distance = distance_of(job->rows + at)))
                left = (struct left){job->rows[at], distance, TILE_ROWS * distance, TILE_BYTES};
            else if (!job->tiles_ready)
                lik_tile_prepare_all(LIK_TILE_COPY, 1, BLOCK_ROWS, tiles, job->rows + at, 0, bytes);
            multiply_block(job->packed, job->rows + at + 2 * BLOCK_ROWS, product, V, left, bytes, sums[turn],
                           low[turn]);
        }
        if (job->make) /* while this block is multiplied */
            job->make(job->maker, at + 2 * BLOCK_ROWS);
        if (at > 0)
            fold_block(job, product, V, at - BLOCK_ROWS, sums[!turn], low[!turn], &segment);
    }
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
};
