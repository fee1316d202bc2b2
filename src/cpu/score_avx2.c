/* The f32, f16 and bf16 row kernels for AVX2 + FMA + F16C. 16 vector registers of 8 lanes.
 *
 * A tile is R rows x V query vectors (of 8 tokens), optionally with a half vector: the last 4
 * query tokens of two rows share one register, low half for the even row and high half for the
 * odd one, fed by a blend of two broadcasts. At least 8 accumulators keep two FMA pipes with a
 * latency of 4 busy:
 *
 *     tokens   4      8     12         16    20        24    32
 *     tile     8x0.5  8x1   6x1.5      6x2   4x2.5     4x3   3x4
 *
 * Compilers fold the shared query loads into the FMAs' memory operands, one load an FMA, and
 * spill; so a query load and an FMA are one asm instruction each, and the loop over k is
 * unrolled by 16, one cache line a row.
 *
 * f16 and bf16 rows are widened one tile ahead, into an L1 scratch, between the FMAs of the
 * current tile: the conversions use other ports and cost nothing, where widening a block first
 * costs 14 to 20 %.
 * Rows are prefetched two tiles ahead through their pointers: without it the hardware
 * prefetcher, which three streams a few hundred bytes apart defeat, leaves half of the speed
 * from memory. */
#include "cpu/avx2.h"
#include "cpu/unroll.h"

#include "base/dtype.h"

#include <immintrin.h>

enum { WIDEN_NONE, WIDEN_F16, WIDEN_BF16 };

FORCE_INLINE __m256 load_query(const float *p)
{
    __m256 v;
    __asm__("vmovaps %1, %0" : "=x"(v) : "m"(*(const __m256 *)p));
    return v;
}

FORCE_INLINE void fma_into(__m256 *acc, __m256 a, __m256 b)
{
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(*acc) : "x"(a), "x"(b));
}

FORCE_INLINE __m256 widen8(int storage, const uint16_t *p)
{
    __m128i half = _mm_loadu_si128((const __m128i *)(const void *)p);
    if (storage == WIDEN_F16)
        return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

static __attribute__((noinline)) void widen_row(int storage, float *dst, const uint16_t *src, int64_t n)
{
    int64_t k = 0;
    for (; k + 8 <= n; k += 8)
        _mm256_storeu_ps(dst + k, widen8(storage, src + k));
    for (; k < n; k++)
        dst[k] = storage == WIDEN_F16 ? lik_f16_to_f32(src[k]) : lik_bf16_to_f32(src[k]);
}

FORCE_INLINE const uint16_t *halves(const void *row, int64_t skip)
{
    return (const uint16_t *)(const void *)((const char *)row + skip);
}

/* One element of every row against the panel: acc[r][v] += rows[r][k] * query[k][v]. */
FORCE_INLINE void step(const int R, const int V, const int half, __m256 *acc, const float *const *rows,
                       int64_t k, const float *query)
{
    __m256 *half_acc = acc + R * V;
    if (R < V) { /* few rows: hold their broadcasts, pass over the query vectors */
        __m256 row[8];
        UNROLL
        for (int r = 0; r < R; r++)
            row[r] = _mm256_broadcast_ss(rows[r] + k);
        UNROLL
        for (int v = 0; v < V; v++) {
            __m256 q = load_query(query + 8 * v);
            UNROLL
            for (int r = 0; r < R; r++)
                fma_into(&acc[r * V + v], row[r], q);
        }
    } else { /* few query vectors: hold them, pass over the rows */
        __m256 q[5];
        UNROLL
        for (int v = 0; v < V + half; v++)
            q[v] = load_query(query + 8 * v);
        UNROLL
        for (int r = 0; r < R; r += 1 + half) {
            __m256 even = _mm256_broadcast_ss(rows[r] + k);
            UNROLL
            for (int v = 0; v < V; v++)
                fma_into(&acc[r * V + v], even, q[v]);
            if (half) {
                __m256 odd = _mm256_broadcast_ss(rows[r + 1] + k);
                UNROLL
                for (int v = 0; v < V; v++)
                    fma_into(&acc[(r + 1) * V + v], odd, q[v]);
                fma_into(&half_acc[r / 2], _mm256_blend_ps(even, odd, 0xf0), q[V]);
            }
        }
    }
}

/* acc = sums over k of the R rows; meanwhile widens R rows `next` into `widened`, or prefetches
 * rows `ahead`. */
FORCE_INLINE void dot_tile(const int R, const int V, const int half, const int storage, __m256 *acc,
                           const float *const *rows, const float *query, int64_t dim,
                           const void *const *ahead, const void *const *next, int64_t skip, float *widened,
                           int64_t widened_stride)
{
    const int lanes = 8 * (V + half);
    int64_t k = 0;
    for (; k + 16 <= dim; k += 16) {
        if (storage == WIDEN_NONE) {
            UNROLL
            for (int r = 0; r < R; r++)
                _mm_prefetch((const char *)ahead[r] + skip + 4 * k, _MM_HINT_T0);
        } else {
            if ((k & 16) == 0) {
                UNROLL
                for (int r = 0; r < R; r++)
                    _mm_prefetch((const char *)ahead[r] + skip + 2 * k, _MM_HINT_T0);
            }
        }
        UNROLL
        for (int u = 0; u < 16; u++) {
            step(R, V, half, acc, rows, k + u, query + u * lanes);
            if (storage != WIDEN_NONE && u % 8 == 7) {
                UNROLL
                for (int r = 0; r < R; r++)
                    _mm256_store_ps(widened + r * widened_stride + k + u - 7,
                                    widen8(storage, halves(next[r], skip) + k + u - 7));
            }
        }
        query += 16 * lanes;
    }
    if (storage != WIDEN_NONE && k < dim) {
        for (int r = 0; r < R; r++)
            widen_row(storage, widened + r * widened_stride + k, halves(next[r], skip) + k, dim - k);
    }
    for (; k < dim; k++) {
        step(R, V, half, acc, rows, k, query);
        query += lanes;
    }
}

/* All ones where a or b is NaN: one comparison tests two vectors. */
FORCE_INLINE __m256 unordered(__m256 a, __m256 b)
{
    return _mm256_cmp_ps(a, b, _CMP_UNORD_Q);
}

/* Folds n products, all of one document, into a vector of maxima (and winners). The maximum is
 * NaN from the first NaN on. */
FORCE_INLINE void fold(const int n, const __m256 *product, const int pitch, float *maxima, int32_t *winners,
                       const int32_t *index)
{
    __m256 best = _mm256_loadu_ps(maxima);
    if (winners) {
        if (n > 1 && index[0] >= LIK_RARE_TOKEN) { /* one test for all lanes would spill */
            __m256 above = _mm256_setzero_ps();
            UNROLL
            for (int r = 0; r < n; r++)
                above = _mm256_or_ps(above, _mm256_cmp_ps(product[r * pitch], best, _CMP_NLE_UQ));
            if (_mm256_testz_ps(above, above))
                return;
        }
        __m256 at = _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)(const void *)winners));
        UNROLL
        for (int r = 0; r < n; r++) {
            __m256 x = product[r * pitch];
            __m256 take = _mm256_andnot_ps(unordered(best, best), _mm256_cmp_ps(x, best, _CMP_NLE_UQ));
            best = _mm256_blendv_ps(best, x, take);
            at = _mm256_blendv_ps(at, _mm256_castsi256_ps(_mm256_set1_epi32(index[r])), take);
        }
        _mm256_storeu_si256((__m256i *)(void *)winners, _mm256_castps_si256(at));
    } else {
        __m256 nan = unordered(best, product[0]), most = _mm256_max_ps(best, product[0]);
        UNROLL
        for (int r = 1; r < n; r++) {
            most = _mm256_max_ps(most, product[r * pitch]);
            if (r % 2 == 0)
                nan = _mm256_or_ps(nan, unordered(product[(r - 1) * pitch], product[r * pitch]));
        }
        if (n % 2 == 0)
            nan = _mm256_or_ps(nan, unordered(product[(n - 1) * pitch], product[(n - 1) * pitch]));
        best = _mm256_or_ps(most, nan);
    }
    _mm256_storeu_ps(maxima, best);
}

/* The half vector's pairs of rows: each register holds 4 lanes of an even and an odd row. */
FORCE_INLINE void fold_half(const int n, const __m256 *product, float *maxima, int32_t *winners,
                            const int32_t *index)
{
    __m256 row[8];
    UNROLL
    for (int p = 0; p < n / 2; p++) {
        row[2 * p] = product[p];
        row[2 * p + 1] = _mm256_permute2f128_ps(product[p], product[p], 0x11);
    }
    /* The maxima's rows leave room for a whole vector; the upper 4 lanes are padding. */
    fold(n, row, 1, maxima, winners, index);
}

/* A tile that touches several documents, or has fewer rows than it computed: row by row. */
static __attribute__((noinline)) void fold_rows(const struct lik_rows *job, const __m256 *product, int rows,
                                                int pitch, int vectors, const __m256 *half_product,
                                                int64_t at, int64_t segment)
{
    for (int r = 0; r < rows; r++, at++) {
        while (at >= job->ends[segment])
            segment++;
        float *maxima = job->maxima + segment * job->stride;
        int32_t *winners = job->winners ? job->winners + segment * job->stride : NULL;
        const int32_t *index = job->index + at;
        for (int v = 0; v < vectors; v++)
            fold(1, product + r * pitch + v, 1, maxima + 8 * v, winners ? winners + 8 * v : NULL, index);
        if (half_product) {
            __m256 x = half_product[r / 2];
            if (r & 1)
                x = _mm256_permute2f128_ps(x, x, 0x11);
            fold(1, &x, 1, maxima + 8 * vectors, winners ? winners + 8 * vectors : NULL, index);
        }
    }
}

FORCE_INLINE void scale_products(const int R, const int V, const int half, __m256 *acc,
                                 const float *row_scale)
{
    UNROLL
    for (int r = 0; r < R; r++) {
        __m256 factor = _mm256_broadcast_ss(row_scale + r);
        UNROLL
        for (int v = 0; v < V; v++)
            acc[r * V + v] = _mm256_mul_ps(acc[r * V + v], factor);
    }
    if (half) {
        UNROLL
        for (int p = 0; p < R / 2; p++) {
            __m256 factor = _mm256_blend_ps(_mm256_broadcast_ss(row_scale + 2 * p),
                                            _mm256_broadcast_ss(row_scale + 2 * p + 1), 0xf0);
            acc[R * V + p] = _mm256_mul_ps(acc[R * V + p], factor);
        }
    }
}

/* One panel shape against a row stream. */
FORCE_INLINE void run_rows(const struct lik_rows *job, const int R, const int V, const int half,
                           const int storage)
{
    enum { MOST = 14 };
    const int accumulators = R * V + half * R / 2;
    int64_t segment = 0;
    if (storage != WIDEN_NONE)
        for (int r = 0; r < R; r++)
            widen_row(storage, job->widened + r * job->widened_stride, halves(job->rows[r], job->skip),
                      job->dim);
    for (int64_t at = 0, slot = 0; at < job->count; at += R) {
        __m256 acc[MOST];
        if (job->partial && !job->first) {
            UNROLL
            for (int i = 0; i < accumulators; i++)
                acc[i] = _mm256_load_ps(job->partial + (at / R * accumulators + i) * 8);
        } else {
            UNROLL
            for (int i = 0; i < accumulators; i++)
                acc[i] = _mm256_setzero_ps();
        }
        const float *rows[8];
        if (storage == WIDEN_NONE) {
            UNROLL
            for (int r = 0; r < R; r++)
                rows[r] = (const float *)(const void *)((const char *)job->rows[at + r] + job->skip);
            dot_tile(R, V, half, storage, acc, rows, job->packed, job->dim,
                     job->rows + at + 2 * LIK_AVX2_TILE_ROWS - R, NULL, job->skip, NULL, 0);
        } else {
            int64_t next = slot + 2 * R <= job->widened_rows ? slot + R : 0;
            UNROLL
            for (int r = 0; r < R; r++)
                rows[r] = job->widened + (slot + r) * job->widened_stride;
            dot_tile(R, V, half, storage, acc, rows, job->packed, job->dim,
                     job->rows + at + 2 * LIK_AVX2_TILE_ROWS - R, job->rows + at + R, job->skip,
                     job->widened + next * job->widened_stride, job->widened_stride);
            slot = next;
        }
        if (job->partial && !job->last) {
            UNROLL
            for (int i = 0; i < accumulators; i++)
                _mm256_store_ps(job->partial + (at / R * accumulators + i) * 8, acc[i]);
            continue;
        }
        if (job->row_scale)
            scale_products(R, V, half, acc, job->row_scale + at);
        while (at >= job->ends[segment])
            segment++;
        if (at + R <= job->ends[segment]) {
            float *maxima = job->maxima + segment * job->stride;
            int32_t *winners = job->winners ? job->winners + segment * job->stride : NULL;
            UNROLL
            for (int v = 0; v < V; v++)
                fold(R, acc + v, V, maxima + 8 * v, winners ? winners + 8 * v : NULL, job->index + at);
            if (half)
                fold_half(R, acc + R * V, maxima + 8 * V, winners ? winners + 8 * V : NULL, job->index + at);
        } else {
            int rows_left = job->count - at < R ? (int)(job->count - at) : R;
            __m256 spilled[MOST];
            UNROLL
            for (int i = 0; i < accumulators; i++)
                spilled[i] = acc[i];
            fold_rows(job, spilled, rows_left, V, V, half ? spilled + R * V : NULL, at, segment);
        }
    }
}

#define ROWS_KERNEL(name, R, V, half)                     \
    void lik_avx2_f32_##name(const struct lik_rows *job)  \
    {                                                     \
        run_rows(job, R, V, half, WIDEN_NONE);            \
    }                                                     \
    void lik_avx2_f16_##name(const struct lik_rows *job)  \
    {                                                     \
        run_rows(job, R, V, half, WIDEN_F16);             \
    }                                                     \
    void lik_avx2_bf16_##name(const struct lik_rows *job) \
    {                                                     \
        run_rows(job, R, V, half, WIDEN_BF16);            \
    }

ROWS_KERNEL(lanes4, 8, 0, 1)
ROWS_KERNEL(lanes8, 8, 1, 0)
ROWS_KERNEL(lanes12, 6, 1, 1)
ROWS_KERNEL(lanes16, 6, 2, 0)
ROWS_KERNEL(lanes20, 4, 2, 1)
ROWS_KERNEL(lanes24, 4, 3, 0)
ROWS_KERNEL(lanes32, 3, 4, 0)

/* In 8 x 8 blocks: 24 shuffles for 64 elements. */
void lik_avx2_pack(float *packed, int64_t stride, const float *const *rows, const float *factors, int64_t dim)
{
    int64_t k = 0;
    for (; k + 8 <= dim; k += 8) {
        __m256 a[8], b[8];
        UNROLL
        for (int l = 0; l < 8; l++)
            a[l] = _mm256_mul_ps(_mm256_loadu_ps(rows[l] + k), _mm256_broadcast_ss(factors + l));
        UNROLL
        for (int l = 0; l < 8; l += 2) {
            b[l] = _mm256_unpacklo_ps(a[l], a[l + 1]);
            b[l + 1] = _mm256_unpackhi_ps(a[l], a[l + 1]);
        }
        UNROLL
        for (int l = 0; l < 8; l += 4) {
            a[l] = _mm256_shuffle_ps(b[l], b[l + 2], 0x44);
            a[l + 1] = _mm256_shuffle_ps(b[l], b[l + 2], 0xee);
            a[l + 2] = _mm256_shuffle_ps(b[l + 1], b[l + 3], 0x44);
            a[l + 3] = _mm256_shuffle_ps(b[l + 1], b[l + 3], 0xee);
        }
        UNROLL
        for (int l = 0; l < 4; l++) {
            _mm256_storeu_ps(packed + (k + l) * stride, _mm256_permute2f128_ps(a[l], a[l + 4], 0x20));
            _mm256_storeu_ps(packed + (k + 4 + l) * stride, _mm256_permute2f128_ps(a[l], a[l + 4], 0x31));
        }
    }
    for (; k < dim; k++)
        for (int l = 0; l < 8; l++)
            packed[k * stride + l] = rows[l][k] * factors[l];
}

void lik_avx2_widen(float *dst, const void *src, int32_t dtype, int64_t n)
{
    if (dtype == LIK_F16 || dtype == LIK_BF16) {
        widen_row(dtype == LIK_F16 ? WIDEN_F16 : WIDEN_BF16, dst, src, n);
        return;
    }
    if (dtype == LIK_F32) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
        return;
    }
    int64_t k = 0;
    for (; k + 8 <= n; k += 8) {
        __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)((const char *)src + k));
        __m256 x;
        if (dtype == LIK_I8) {
            x = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
        } else if (dtype == LIK_E5M2) { /* the upper byte of an f16 */
            x = _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(bytes), 8));
            /* e4m3: exponent and mantissa in an f16's places, whose conversion no denormal mode
         * touches; bias by 2^8 */
        } else {
            __m128i wide = _mm_cvtepu8_epi16(bytes), rest = _mm_and_si128(wide, _mm_set1_epi16(0x7f));
            __m128i half =
                _mm_or_si128(_mm_slli_epi16(rest, 7), _mm_slli_epi16(_mm_xor_si128(wide, rest), 8));
            __m256i nan = _mm256_cvtepi16_epi32(_mm_cmpeq_epi16(rest, _mm_set1_epi16(0x7f)));
            x = _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256));
            x = _mm256_or_ps(x, _mm256_castsi256_ps(nan));
        }
        _mm256_storeu_ps(dst + k, x);
    }
    for (; k < n; k++)
        dst[k] = lik_load_f32(src, dtype, k);
}

void lik_avx2_narrow(void *dst, const float *src, int32_t dtype, int64_t n)
{
    int64_t k = 0;
    if (dtype == LIK_F32) {
        memcpy(dst, src, (size_t)n * sizeof *src);
        return;
    }
    if (dtype == LIK_F16)
        for (; k + 8 <= n; k += 8)
            _mm_storeu_si128(
                (__m128i *)(void *)((uint16_t *)dst + k),
                _mm256_cvtps_ph(_mm256_loadu_ps(src + k), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    for (; k < n; k++)
        lik_store_f32(dst, dtype, k, src[k]);
}

FORCE_INLINE float horizontal(__m256 x)
{
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

float lik_avx2_dot(const float *x, const float *y, int64_t n)
{
    __m256 a = _mm256_setzero_ps(), b = a, c = a, e = a;
    int64_t k = 0;
    for (; k + 32 <= n; k += 32) {
        a = _mm256_fmadd_ps(_mm256_loadu_ps(x + k), _mm256_loadu_ps(y + k), a);
        b = _mm256_fmadd_ps(_mm256_loadu_ps(x + k + 8), _mm256_loadu_ps(y + k + 8), b);
        c = _mm256_fmadd_ps(_mm256_loadu_ps(x + k + 16), _mm256_loadu_ps(y + k + 16), c);
        e = _mm256_fmadd_ps(_mm256_loadu_ps(x + k + 24), _mm256_loadu_ps(y + k + 24), e);
    }
    for (; k + 8 <= n; k += 8)
        a = _mm256_fmadd_ps(_mm256_loadu_ps(x + k), _mm256_loadu_ps(y + k), a);
    float rest = 0;
    for (; k < n; k++)
        rest += x[k] * y[k];
    return horizontal(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, e))) + rest;
}

float lik_avx2_sum_squares(const float *x, int64_t n)
{
    return lik_avx2_dot(x, x, n);
}

float lik_avx2_sum_squares_of(float scale, const float *x, int64_t n)
{
    __m256 acc[4], f = _mm256_set1_ps(scale);
    int64_t k = 0;
    for (int i = 0; i < 4; i++)
        acc[i] = _mm256_setzero_ps();
    /* 32 at a time into four sums, what is left of whole vectors into the first */
    for (; k + 8 <= n; k += 8) {
        int64_t i = k < n - n % 32 ? k / 8 % 4 : 0;
        __m256 y = _mm256_mul_ps(f, _mm256_loadu_ps(x + k));
        acc[i] = _mm256_fmadd_ps(y, y, acc[i]);
    }
    float rest = 0;
    for (; k < n; k++)
        rest += scale * x[k] * (scale * x[k]);
    return horizontal(_mm256_add_ps(_mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3]))) + rest;
}

float lik_avx2_sum(const float *x, const float *w, int64_t n)
{
    __m256 acc = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        acc = w ? _mm256_fmadd_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(w + i), acc)
                : _mm256_add_ps(_mm256_loadu_ps(x + i), acc);
    float rest = 0;
    for (; i < n; i++)
        rest += w ? x[i] * w[i] : x[i];
    return horizontal(acc) + rest;
}

void lik_avx2_add_scaled(float *acc, const float *x, float factor, int64_t n)
{
    __m256 f = _mm256_set1_ps(factor);
    int64_t k = 0;
    for (; k + 8 <= n; k += 8)
        _mm256_storeu_ps(acc + k, _mm256_fmadd_ps(_mm256_loadu_ps(x + k), f, _mm256_loadu_ps(acc + k)));
    for (; k < n; k++)
        acc[k] = __builtin_fmaf(x[k], factor, acc[k]);
}

const struct lik_cpu_kernels lik_kernels_avx2 = {
    .level = "avx2",
    LIK_AVX2_FLOATS,
    .i8_q16 = LIK_AVX2_EVEN_SHAPES(lik_avx2_i8_q16),
    .i8_q7 = LIK_AVX2_EVEN_SHAPES(lik_avx2_i8_q7),
};
