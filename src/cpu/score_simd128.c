/* WebAssembly's 128-bit vectors: 4 lanes, as many registers as the processor beneath has, 16 on
 * x86-64. There is no fused multiply-add, and every sum is taken in the baseline's order: the
 * bits are those of the level generic.
 *
 * A tile is R rows x V query vectors. Its sums stand in registers, and are at least 8 where
 * there are that many, as additions wait for each other. */
#include "cpu/generic.h"
#include "cpu/unroll.h"

#include "base/dtype.h"

#include <string.h>
#include <wasm_simd128.h>

enum { LANES = 4, SUMS = 12, TILE_ROWS = 8, STEP = 8 };

/* Folds n products of one document, of 4 tokens each, into their maxima (and winners). The
 * maximum is NaN from the first NaN on, as the instruction has it. */
FORCE_INLINE void fold(const int n, const v128_t *product, const int pitch, float *maxima, int32_t *winners,
                       const int32_t *index)
{
    v128_t best = wasm_v128_load(maxima);
    if (!winners) {
        UNROLL
        for (int r = 0; r < n; r++)
            best = wasm_f32x4_max(best, product[r * pitch]);
        wasm_v128_store(maxima, best);
        return;
    }
    if (n > 1 && index[0] >= LIK_RARE_TOKEN) {
        v128_t below = wasm_f32x4_le(product[0], best);
        UNROLL
        for (int r = 1; r < n; r++)
            below = wasm_v128_and(below, wasm_f32x4_le(product[r * pitch], best));
        if (wasm_i32x4_all_true(below))
            return;
    }
    v128_t at = wasm_v128_load(winners);
    UNROLL
    for (int r = 0; r < n; r++) {
        v128_t x = product[r * pitch];
        v128_t take = wasm_v128_andnot(wasm_f32x4_eq(best, best), wasm_f32x4_le(x, best));
        best = wasm_v128_bitselect(x, best, take);
        at = wasm_v128_bitselect(wasm_i32x4_splat(index[r]), at, take);
    }
    wasm_v128_store(winners, at);
    wasm_v128_store(maxima, best);
}

/* A tile that touches several documents, or has fewer rows than it computed: row by row. */
static __attribute__((noinline)) void fold_rows(const struct lik_rows *job, const v128_t *product,
                                                int64_t rows, int vectors, int64_t at, int64_t segment)
{
    for (int64_t r = 0; r < rows; r++, at++) {
        while (at >= job->ends[segment])
            segment++;
        float *maxima = job->maxima + segment * job->stride;
        int32_t *winners = job->winners ? job->winners + segment * job->stride : NULL;
        for (int v = 0; v < vectors; v++)
            fold(1, product + r * vectors + v, 1, maxima + LANES * v, winners ? winners + LANES * v : NULL,
                 job->index + at);
    }
}

/* The products of R rows, [R][V], times the rows' factors, into the maxima of their
 * documents. */
FORCE_INLINE void fold_tile(const struct lik_rows *job, const int R, const int V, v128_t *product, int64_t at,
                            int64_t *segment)
{
    if (job->row_scale) {
        UNROLL
        for (int i = 0; i < R * V; i++)
            product[i] = wasm_f32x4_mul(product[i], wasm_f32x4_splat(job->row_scale[at + i / V]));
    }
    while (at >= job->ends[*segment])
        ++*segment;
    if (at + R > job->ends[*segment]) {
        v128_t spilled[SUMS];
        UNROLL
        for (int i = 0; i < R * V; i++)
            spilled[i] = product[i];
        fold_rows(job, spilled, job->count - at < R ? job->count - at : R, V, at, *segment);
        return;
    }
    float *maxima = job->maxima + *segment * job->stride;
    int32_t *winners = job->winners ? job->winners + *segment * job->stride : NULL;
    UNROLL
    for (int v = 0; v < V; v++)
        fold(R, product + v, V, maxima + LANES * v, winners ? winners + LANES * v : NULL, job->index + at);
}

/* Four elements of two bytes. f16: exponent and mantissa to an f32's places, whose bias differs
 * by 2^112; the largest exponent stays the largest. */
FORCE_INLINE v128_t widen_four(const uint16_t *src, const int32_t dtype)
{
    v128_t x = wasm_u32x4_load16x4(src);
    if (dtype == LIK_BF16)
        return wasm_i32x4_shl(x, 16);
    v128_t rest = wasm_v128_and(x, wasm_i32x4_const_splat(0x7fff));
    v128_t size = wasm_f32x4_mul(wasm_i32x4_shl(rest, 13), wasm_f32x4_const_splat(0x1p112f));
    v128_t special = wasm_i32x4_gt(rest, wasm_i32x4_const_splat(0x7bff));
    v128_t top = wasm_v128_and(special, wasm_i32x4_const_splat(0x7f800000));
    v128_t sign = wasm_i32x4_shl(wasm_v128_andnot(x, wasm_i32x4_const_splat(0x7fff)), 16);
    return wasm_v128_or(wasm_v128_or(size, top), sign);
}

static void widen(float *dst, const void *src, int32_t dtype, int64_t n)
{
    const uint16_t *halves = src;
    int64_t k = 0;
    if (dtype == LIK_F32) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
        return;
    }
    if (dtype == LIK_F16)
        for (; k + 4 <= n; k += 4)
            wasm_v128_store(dst + k, widen_four(halves + k, LIK_F16));
    if (dtype == LIK_BF16)
        for (; k + 4 <= n; k += 4)
            wasm_v128_store(dst + k, widen_four(halves + k, LIK_BF16));
    for (; k < n; k++)
        dst[k] = lik_load_f32(src, dtype, k);
}

/* sums += `elements` elements of R rows by the panel's. */
FORCE_INLINE void add_step(const int R, const int V, const int elements, v128_t *sums,
                           const float *const *rows, ptrdiff_t k, const float *query)
{
    UNROLL
    for (int u = 0; u < elements; u++) {
        v128_t row[TILE_ROWS];
        UNROLL
        for (int r = 0; r < R; r++)
            row[r] = wasm_v128_load32_splat(rows[r] + k + u);
        UNROLL
        for (int v = 0; v < V; v++) {
            v128_t q = wasm_v128_load(query + (u * V + v) * LANES);
            UNROLL
            for (int r = 0; r < R; r++)
                sums[r * V + v] = wasm_f32x4_add(sums[r * V + v], wasm_f32x4_mul(row[r], q));
        }
    }
}

/* One panel shape against a row stream. Rows of f16 and bf16 are widened a tile at a time, and
 * kept where there is room for all, since further panels will look for them. */
FORCE_INLINE void run_floats(const struct lik_rows *job, const int R, const int V, const int32_t dtype)
{
    const int keeps = job->widened_rows > 2 * TILE_ROWS;
    const ptrdiff_t dim = (ptrdiff_t)job->dim;
    int64_t segment = 0;
    for (int64_t at = 0; at < job->count; at += R) {
        v128_t sums[SUMS];
        float *partial = job->partial ? job->partial + at * V * LANES : NULL;
        UNROLL
        for (int i = 0; i < R * V; i++)
            sums[i] =
                partial && !job->first ? wasm_v128_load(partial + i * LANES) : wasm_f32x4_const_splat(0);
        const float *rows[TILE_ROWS];
        UNROLL
        for (int r = 0; r < R; r++) {
            const char *data = (const char *)job->rows[at + r] + job->skip;
            if (dtype == LIK_F32) {
                rows[r] = (const float *)(const void *)data;
            } else {
                float *widened = job->widened + (keeps ? at + r : r) * job->widened_stride;
                widen(widened, data, dtype, job->dim);
                rows[r] = widened;
            }
        }
        const float *query = job->packed;
        ptrdiff_t k = 0;
        for (; k + 4 <= dim; k += 4, query += 4 * V * LANES)
            add_step(R, V, 4, sums, rows, k, query);
        for (; k < dim; k++, query += V * LANES)
            add_step(R, V, 1, sums, rows, k, query);
        if (!partial || job->last) {
            fold_tile(job, R, V, sums, at, &segment);
            continue;
        }
        UNROLL
        for (int i = 0; i < R * V; i++)
            wasm_v128_store(partial + i * LANES, sums[i]);
    }
}

/* Elements 2 u and 2 u + 1 of 8, as i16, in all lanes; or 4 u ... 4 u + 3, in both halves. */
FORCE_INLINE v128_t pair_of(v128_t row, const int u)
{
    switch (u) {
    case 0: return wasm_i32x4_shuffle(row, row, 0, 0, 0, 0);
    case 1: return wasm_i32x4_shuffle(row, row, 1, 1, 1, 1);
    case 2: return wasm_i32x4_shuffle(row, row, 2, 2, 2, 2);
    default: return wasm_i32x4_shuffle(row, row, 3, 3, 3, 3);
    }
}

FORCE_INLINE v128_t four_of(v128_t row, const int u)
{
    return u ? wasm_i64x2_shuffle(row, row, 1, 1) : wasm_i64x2_shuffle(row, row, 0, 0);
}

/* 8 elements by a 16-bit query: the panel has two of a token in a word, whose products are
 * added at once. */
FORCE_INLINE void add_pairs(const int R, const int V, v128_t *sums, const v128_t *row, const char *query)
{
    UNROLL
    for (int u = 0; u < STEP / 2; u++) {
        UNROLL
        for (int v = 0; v < V; v++) {
            v128_t q = wasm_v128_load(query + (u * V + v) * 16);
            UNROLL
            for (int r = 0; r < R; r++)
                sums[r * V + v] =
                    wasm_i32x4_add(sums[r * V + v], wasm_i32x4_dot_i16x8(pair_of(row[r], u), q));
        }
    }
}

/* The same by a 7-bit query, four elements of a token in a word: two sums a token, of tokens 0
 * and 1, and of 2 and 3. */
FORCE_INLINE void add_fours(const int R, const int V, v128_t *sums, const v128_t *row, const char *query)
{
    UNROLL
    for (int u = 0; u < STEP / 4; u++) {
        UNROLL
        for (int v = 0; v < V; v++) {
            v128_t low = wasm_i16x8_load8x8(query + (u * V + v) * 16);
            v128_t high = wasm_i16x8_load8x8(query + (u * V + v) * 16 + 8);
            UNROLL
            for (int r = 0; r < R; r++) {
                v128_t *sum = sums + (r * V + v) * 2, word = four_of(row[r], u);
                sum[0] = wasm_i32x4_add(sum[0], wasm_i32x4_dot_i16x8(word, low));
                sum[1] = wasm_i32x4_add(sum[1], wasm_i32x4_dot_i16x8(word, high));
            }
        }
    }
}

/* One panel shape against a row stream of i8; `word`: elements of one, 2 or 4. A panel ends on
 * a whole step, rows do not. */
FORCE_INLINE void run_integers(const struct lik_rows *job, const int word, const int R, const int V)
{
    const int each = word / 2;
    const ptrdiff_t dim = (ptrdiff_t)job->dim, panel_step = STEP / word * V * 16;
    int64_t segment = 0;
    for (int64_t at = 0; at < job->count; at += R) {
        const char *query = job->packed;
        v128_t sums[SUMS], product[SUMS];
        UNROLL
        for (int i = 0; i < R * V * each; i++)
            sums[i] = wasm_i32x4_const_splat(0);
        for (ptrdiff_t k = 0; k < dim; k += STEP, query += panel_step) {
            v128_t row[TILE_ROWS];
            UNROLL
            for (int r = 0; r < R; r++) {
                const int8_t *from = (const int8_t *)job->rows[at + r] + k;
                int8_t end[STEP] = {0};
                if (k + STEP > dim) {
                    memcpy(end, from, (size_t)(dim - k));
                    from = end;
                }
                row[r] = wasm_i16x8_load8x8(from);
            }
            if (word == 2)
                add_pairs(R, V, sums, row, query);
            else
                add_fours(R, V, sums, row, query);
        }
        UNROLL
        for (int i = 0; i < R * V; i++) {
            v128_t sum = sums[i * each];
            if (word == 4) {
                v128_t last = sums[2 * i + 1];
                sum = wasm_i32x4_add(wasm_i32x4_shuffle(sum, last, 0, 2, 4, 6),
                                     wasm_i32x4_shuffle(sum, last, 1, 3, 5, 7));
            }
            product[i] = wasm_f32x4_convert_i32x4(sum);
        }
        fold_tile(job, R, V, product, at, &segment);
    }
}

#define KERNELS(lanes, R, R_q7, V)                         \
    static void f32_##lanes(const struct lik_rows *job)    \
    {                                                      \
        run_floats(job, R, V, LIK_F32);                    \
    }                                                      \
    static void f16_##lanes(const struct lik_rows *job)    \
    {                                                      \
        run_floats(job, R, V, LIK_F16);                    \
    }                                                      \
    static void bf16_##lanes(const struct lik_rows *job)   \
    {                                                      \
        run_floats(job, R, V, LIK_BF16);                   \
    }                                                      \
    static void i8_q16_##lanes(const struct lik_rows *job) \
    {                                                      \
        run_integers(job, 2, R, V);                        \
    }                                                      \
    static void i8_q7_##lanes(const struct lik_rows *job)  \
    {                                                      \
        run_integers(job, 4, R_q7, V);                     \
    }

KERNELS(lanes4, 8, 4, 1)
KERNELS(lanes8, 4, 2, 2)
KERNELS(lanes12, 4, 2, 3)
KERNELS(lanes16, 2, 1, 4)

static void pack(float *packed, int64_t stride, const float *const *rows, const float *factors, int64_t dim)
{
    for (int64_t k = 0; k < dim; k++)
        for (int l = 0; l < LANES; l++)
            packed[k * stride + l] = rows[l][k] * factors[l];
}

/* Sums of every eighth product each, added as the baseline does; all elements times scale. */
FORCE_INLINE float dot_scaled(const int scaled, float scale, const float *x, const float *y, int64_t n)
{
    const v128_t factor = wasm_f32x4_splat(scale);
    v128_t acc[2] = {wasm_f32x4_const_splat(0), wasm_f32x4_const_splat(0)};
    float sum[8];
    int64_t k = 0;
    for (; k + 8 <= n; k += 8) {
        UNROLL
        for (int i = 0; i < 2; i++) {
            v128_t a = wasm_v128_load(x + k + 4 * i), b = wasm_v128_load(y + k + 4 * i);
            if (scaled) {
                a = wasm_f32x4_mul(factor, a);
                b = wasm_f32x4_mul(factor, b);
            }
            acc[i] = wasm_f32x4_add(acc[i], wasm_f32x4_mul(a, b));
        }
    }
    wasm_v128_store(sum, acc[0]);
    wasm_v128_store(sum + 4, acc[1]);
    for (; k < n; k++)
        sum[k & 7] += scaled ? scale * x[k] * (scale * y[k]) : x[k] * y[k];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

static float dot(const float *x, const float *y, int64_t n)
{
    return dot_scaled(0, 1, x, y, n);
}

static float sum_squares(const float *x, int64_t n)
{
    return dot_scaled(0, 1, x, x, n);
}

static float sum_squares_of(float scale, const float *x, int64_t n)
{
    return dot_scaled(1, scale, x, x, n);
}

static void add_scaled(float *acc, const float *x, float factor, int64_t n)
{
    for (int64_t k = 0; k < n; k++)
        acc[k] += x[k] * factor;
}

#define SHAPES(name) {NULL, name##_lanes4, name##_lanes8, name##_lanes12, name##_lanes16}

const struct lik_cpu_kernels lik_kernels_simd128 = {
    .level = "simd128",
    .geometry = {.unit_lanes = LANES,
                 .vector_lanes = LANES,
                 .panel_lanes = 16,
                 .tile_rows = TILE_ROWS,
                 .stream_unit_rows = 24, /* of tiles of 8, 4, 2 and 1 rows */
                 .stream_rows = LIK_STREAM_ROWS,
                 .stream_bytes = 48 << 10,
                 .slice_elements = 224,
                 .slice_unit_elements = 16,
                 .integer_words = 4}, /* of a step */
    .f32 = SHAPES(f32),
    .f16 = SHAPES(f16),
    .bf16 = SHAPES(bf16),
    .i8_q16 = SHAPES(i8_q16),
    .i8_q7 = SHAPES(i8_q7),
    .look_up = lik_generic_look_up,
    .pack = pack,
    .decode = lik_generic_decode,
    .decode_i8 = lik_generic_decode_i8,
    .widen = widen,
    .quantize = lik_generic_quantize,
    .narrow = lik_generic_narrow,
    .sum_squares = sum_squares,
    .sum_squares_of = sum_squares_of,
    .dot = dot,
    .sum = lik_generic_sum,
    .add_scaled = add_scaled,
};
