/* The row kernels of the levels with 32 vector registers of 16 lanes, for any multiplication.
 * A level's file names the products and the shapes that it wants (LIK_TILE_KERNELS below).
 *
 * Four bytes of a row are a *word*: an f32, two bf16, two i16, or four i8. A multiplication
 * takes a vector of query words, of 16 tokens, and a word broadcast from a row, and adds to 16
 * sums; so one loop does for all.
 *
 * Rows are not read where they lie. The tile after the current one is made ready between the
 * multiplications of this one, in scratch that stays in L1: copied, widened or made unsigned,
 * 16 words of each of its R rows after each other, so that all broadcasts of the loop have one
 * base register. (R pointers would not fit the general registers; loads and stores cost nothing
 * here, since the multiplications wait for none.) Panels after the first find the tiles ready.
 *
 * Query tokens beyond whole vectors, 4 or 8 of them, share a vector between S = 4 or 2 rows:
 *
 *     tokens   4           8           16      20              24              32
 *     tile     24 x 1/4    16 x 1/2    12x1    12 x (1 + 1/4)  12 x (1 + 1/2)  12x2
 *
 * A blend of broadcasts would take the ports of the multiplications, so the words of S rows are
 * interleaved when the tile is made: a broadcast of 8 or 16 bytes, which is a load and no more,
 * has the S rows in S neighboring lanes, and the panel has each token there S times. */
#ifndef LIK_CPU_TILE_AVX512_H
#define LIK_CPU_TILE_AVX512_H

#include "cpu/kernels.h"
#include "cpu/unroll.h"

#include <float.h>
#include <immintrin.h>
#include <string.h>

/* How rows become words. */
enum lik_tile_source { LIK_TILE_COPY, LIK_TILE_F16, LIK_TILE_BF16, LIK_TILE_I8_TO_I16, LIK_TILE_UNSIGNED };

/* What a multiplication does. The last two are what VNNI does in one instruction. */
enum lik_tile_product {
    LIK_TILE_FMA,       /* f32 */
    LIK_TILE_DOT_BF16,  /* pairs of bf16 into f32 */
    LIK_TILE_DOT_PAIRS, /* pairs of i16 into i32 */
    LIK_TILE_DOT_QUADS, /* unsigned by signed i8 into i32 */
    LIK_TILE_MADD_PAIRS,
    LIK_TILE_MADD_QUADS,
};

enum { LIK_TILE_VECTOR = 16, LIK_TILE_ROWS = 24, LIK_AMX_ROWS = 32, LIK_TILE_ACCUMULATORS = 24 };

FORCE_INLINE int lik_tile_integer(const int product)
{
    return product != LIK_TILE_FMA && product != LIK_TILE_DOT_BF16;
}

/* Bytes of a row that a word is made of. */
FORCE_INLINE int lik_tile_bytes(const int source)
{
    return source == LIK_TILE_COPY || source == LIK_TILE_UNSIGNED ? 4 : 2;
}

/* 16 words of a row, `bytes` of which are left; elements past its end are zero. */
FORCE_INLINE __m512i lik_tile_words(const int source, const char *at, int64_t bytes)
{
    if (lik_tile_bytes(source) == 4) {
        __mmask64 in = bytes >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << bytes) - 1;
        __m512i words = bytes >= 64 ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi8(in, at);
        return source == LIK_TILE_UNSIGNED ? _mm512_xor_si512(words, _mm512_set1_epi8((char)0x80)) : words;
    }
    __mmask32 in = bytes >= 32 ? ~(__mmask32)0 : ((__mmask32)1 << bytes) - 1;
    __m256i half =
        bytes >= 32 ? _mm256_loadu_si256((const __m256i *)(const void *)at) : _mm256_maskz_loadu_epi8(in, at);
    if (source == LIK_TILE_I8_TO_I16)
        return _mm512_cvtepi8_epi16(half);
    if (source == LIK_TILE_F16)
        return _mm512_castps_si512(_mm512_cvtph_ps(half));
    return _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
}

/* Where word u of 16 of row r stands in its block of a tile, in words. */
FORCE_INLINE int lik_tile_place(const int S, const int r, const int u)
{
    const int group = r / S * S * LIK_TILE_VECTOR, c = r % S;
    if (S == 2)
        return group + u / 2 % 2 * LIK_TILE_VECTOR + (u / 4 * 2 + u % 2) * 2 + c;
    return S == 4 ? group + u % 4 * LIK_TILE_VECTOR + u / 4 * 4 + c : group + u;
}

/* 16 words of S rows into their places. */
FORCE_INLINE void lik_tile_prepare(const int source, const int S, int32_t *block, const void *const *rows,
                                   int64_t skip, int64_t bytes)
{
    __m512i a[4];
    UNROLL
    for (int i = 0; i < S; i++)
        a[i] = lik_tile_words(source, (const char *)rows[i] + skip, bytes);
    if (S == 2) {
        __m512i low = _mm512_unpacklo_epi32(a[0], a[1]);
        a[1] = _mm512_unpackhi_epi32(a[0], a[1]);
        a[0] = low;
    } else if (S == 4) {
        __m512i b[4] = {_mm512_unpacklo_epi32(a[0], a[1]), _mm512_unpackhi_epi32(a[0], a[1]),
                        _mm512_unpacklo_epi32(a[2], a[3]), _mm512_unpackhi_epi32(a[2], a[3])};
        a[0] = _mm512_unpacklo_epi64(b[0], b[2]);
        a[1] = _mm512_unpackhi_epi64(b[0], b[2]);
        a[2] = _mm512_unpacklo_epi64(b[1], b[3]);
        a[3] = _mm512_unpackhi_epi64(b[1], b[3]);
    }
    UNROLL
    for (int i = 0; i < S; i++)
        _mm512_store_si512(block + i * LIK_TILE_VECTOR, a[i]);
}

static __attribute__((noinline)) void lik_tile_prepare_all(const int source, const int S, const int R,
                                                           int32_t *tile, const void *const *rows,
                                                           int64_t skip, int64_t bytes)
{
    for (int64_t at = 0; at < bytes; at += LIK_TILE_VECTOR * lik_tile_bytes(source))
        for (int r = 0; r < R; r += S, tile += S * LIK_TILE_VECTOR) {
            if (S == 1)
                lik_tile_prepare(source, 1, tile, rows + r, skip + at, bytes - at);
            else if (S == 2)
                lik_tile_prepare(source, 2, tile, rows + r, skip + at, bytes - at);
            else
                lik_tile_prepare(source, 4, tile, rows + r, skip + at, bytes - at);
        }
}

FORCE_INLINE __m512 lik_tile_query(const void *p)
{
    __m512 v;
    __asm__("vmovaps %1, %0" : "=v"(v) : "m"(*(const __m512 *)p));
    return v;
}

/* The words of S rows, each of which begins at `word`, in S neighboring lanes. */
FORCE_INLINE __m512 lik_tile_broadcast(const int S, const int32_t *word)
{
    if (S == 4)
        return _mm512_castsi512_ps(
            _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(const void *)word)));
    if (S == 2) {
        int64_t two;
        memcpy(&two, word, sizeof two);
        return _mm512_castsi512_ps(_mm512_set1_epi64(two));
    }
    return _mm512_castsi512_ps(_mm512_set1_epi32(*word));
}

/* acc += the products of a vector of row words and one of query words. In asm, since compilers
 * fold the loads of both into it, one load a multiplication, and reorder the sums. */
FORCE_INLINE void lik_tile_multiply(const int product, __m512 *acc, __m512 row, __m512 query, __m512i ones)
{
    __m512 t;
    switch (product) {
    case LIK_TILE_FMA: __asm__("vfmadd231ps %2, %1, %0" : "+v"(*acc) : "v"(row), "v"(query)); break;
    case LIK_TILE_DOT_BF16: __asm__("vdpbf16ps %2, %1, %0" : "+v"(*acc) : "v"(row), "v"(query)); break;
    case LIK_TILE_DOT_PAIRS: __asm__("vpdpwssd %2, %1, %0" : "+v"(*acc) : "v"(row), "v"(query)); break;
    case LIK_TILE_DOT_QUADS: __asm__("vpdpbusd %2, %1, %0" : "+v"(*acc) : "v"(row), "v"(query)); break;
    case LIK_TILE_MADD_PAIRS:
        __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(*acc), "=&v"(t) : "v"(row), "v"(query));
        break;
    default:
        __asm__("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
                : "+v"(*acc), "=&v"(t)
                : "v"(row), "v"(query), "v"(ones));
    }
}

/* The same of a row word that is broadcast from memory, once more for each multiplication. */
FORCE_INLINE void lik_tile_multiply_at(const int product, __m512 *acc, const int32_t *word, __m512 query)
{
    switch (product) {
    case LIK_TILE_FMA:
        __asm__("vfmadd231ps %1%{1to16%}, %2, %0" : "+v"(*acc) : "m"(*word), "v"(query));
        break;
    case LIK_TILE_DOT_BF16:
        __asm__("vdpbf16ps %1%{1to16%}, %2, %0" : "+v"(*acc) : "m"(*word), "v"(query));
        break;
    default: __asm__("vpdpwssd %1%{1to16%}, %2, %0" : "+v"(*acc) : "m"(*word), "v"(query)); break;
    }
}

/* Does a multiplication take its row word from memory? That is one instruction less to decode,
 * but where there are two vectors a load more. */
FORCE_INLINE int lik_tile_from_memory(const int product, const int V)
{
    return V == 1 &&
           (product == LIK_TILE_FMA || product == LIK_TILE_DOT_BF16 || product == LIK_TILE_DOT_PAIRS);
}

/* Word u of a block of every row against the panel. */
FORCE_INLINE void lik_tile_step(const int product, const int R, const int V, const int S, __m512 *acc,
                                const int32_t *block, const int u, const int32_t *query, __m512i ones)
{
    __m512 q[3];
    UNROLL
    for (int v = 0; v < V + (S > 1); v++)
        q[v] = lik_tile_query(query + LIK_TILE_VECTOR * v);
    UNROLL
    for (int r = 0; r < R; r++) {
        if (V > 0 && lik_tile_from_memory(product, V)) {
            UNROLL
            for (int v = 0; v < V; v++)
                lik_tile_multiply_at(product, &acc[r * V + v], block + lik_tile_place(S, r, u), q[v]);
        } else if (V > 0) {
            __m512 row = lik_tile_broadcast(1, block + lik_tile_place(S, r, u));
            UNROLL
            for (int v = 0; v < V; v++)
                lik_tile_multiply(product, &acc[r * V + v], row, q[v], ones);
        }
        if (S > 1 && r % S == 0)
            lik_tile_multiply(product, &acc[R * V + r / S],
                              lik_tile_broadcast(S, block + lik_tile_place(S, r, u)), q[V], ones);
    }
}

/* acc += sums over the words of a tile; meanwhile makes the next one ready, if there is one,
 * and asks for rows `ahead`. */
FORCE_INLINE void lik_tile_dot(const int source, const int product, const int R, const int V, const int S,
                               __m512 *acc, const int32_t *tile, const int32_t *query, int64_t bytes,
                               int64_t skip, int32_t *next, const void *const *coming,
                               const void *const *ahead)
{
    const int lanes = LIK_TILE_VECTOR * (V + (S > 1)), step = LIK_TILE_VECTOR * lik_tile_bytes(source);
    const __m512i ones = _mm512_set1_epi16(1);
    int64_t at = 0, line = 0; /* row by row, which the processor's own prefetching takes up */
    for (; at + step <= bytes; at += step) {
        UNROLL
        for (int u = 0; u < LIK_TILE_VECTOR; u++) {
            lik_tile_step(product, R, V, S, acc, tile, u, query + u * lanes, ones);
            if (next) {
                UNROLL
                for (int r = 0; r < R; r += S)
                    if (r * LIK_TILE_VECTOR / R == u) {
                        lik_tile_prepare(source, S, next + r * LIK_TILE_VECTOR, coming + r, skip + at, 64);
                        UNROLL
                        for (int i = 0; i < S; i++) {
                            if (V == 0) { /* fewer instructions, where they count more */
                                _mm_prefetch((const char *)ahead[r + i] + skip + at, _MM_HINT_T0);
                            } else if ((r + i) % (4 / lik_tile_bytes(source)) == 0) {
                                _mm_prefetch((const char *)*ahead + skip + line, _MM_HINT_T1);
                                line += 64;
                                if (line >= bytes)
                                    line = 0, ahead++;
                            }
                        }
                    }
            }
        }
        query += LIK_TILE_VECTOR * lanes;
        tile += R * LIK_TILE_VECTOR;
        if (next)
            next += R * LIK_TILE_VECTOR;
    }
    if (at == bytes)
        return;
    if (next)
        lik_tile_prepare_all(source, S, R, next, coming, skip + at, bytes - at);
    const int words = (int)((bytes - at + lik_tile_bytes(source) - 1) / lik_tile_bytes(source));
    for (int u = 0; u < words; u++)
        lik_tile_step(product, R, V, S, acc, tile, u, query + u * lanes, ones);
}

/* Folds n products of one document, of 16 tokens each, into their maxima (and winners). The
 * maximum is NaN from the first NaN on; `numbers`: none of these is. */
FORCE_INLINE void lik_tile_fold(const int n, const __m512 *product, const int pitch, const int numbers,
                                float *maxima, int32_t *winners, const int32_t *index)
{
    __m512 best = _mm512_loadu_ps(maxima);
    if (!winners) {
        __m512 most[LIK_TILE_ROWS]; /* a tree: a chain of n would take longer than its block */
        UNROLL
        for (int r = 0; r < n; r++)
            most[r] = product[r * pitch];
        UNROLL
        for (int apart = 1; apart < n; apart *= 2) {
            UNROLL
            for (int r = 0; r + apart < n; r += 2 * apart)
                most[r] = _mm512_max_ps(most[r], most[r + apart]);
        }
        if (numbers) {
            _mm512_storeu_ps(maxima, _mm512_max_ps(most[0], best)); /* of a NaN and a number the second */
            return;
        }
        __mmask16 nan = _mm512_cmp_ps_mask(best, product[0], _CMP_UNORD_Q);
        UNROLL
        for (int r = 1; r < n; r += 2) {
            const int other = r + 1 < n ? r + 1 : r;
            nan = _kor_mask16(nan,
                              _mm512_cmp_ps_mask(product[r * pitch], product[other * pitch], _CMP_UNORD_Q));
        }
        best = _mm512_max_ps(best, most[0]);
        best = _mm512_castsi512_ps(_mm512_mask_set1_epi32(_mm512_castps_si512(best), nan, -1));
        _mm512_storeu_ps(maxima, best);
        return;
    }
    if (n > 1 && index[0] >= LIK_RARE_TOKEN) {
        __mmask16 above = 0;
        UNROLL
        for (int r = 0; r < n; r++)
            above |= _mm512_cmp_ps_mask(product[r * pitch], best, _CMP_NLE_UQ);
        if (!above)
            return;
    }
    __m512i at = _mm512_loadu_si512(winners);
    UNROLL
    for (int r = 0; r < n; r++) {
        __m512 x = product[r * pitch];
        __mmask16 number = _mm512_cmp_ps_mask(best, best, _CMP_ORD_Q);
        __mmask16 take = _mm512_mask_cmp_ps_mask(number, x, best, _CMP_NLE_UQ);
        best = _mm512_mask_mov_ps(best, take, x);
        at = _mm512_mask_set1_epi32(at, take, index[r]);
    }
    _mm512_storeu_si512(winners, at);
    _mm512_storeu_ps(maxima, best);
}

/* Row c of the S rows that share a vector. */
FORCE_INLINE __m512 lik_tile_apart(const int S, __m512 shared, int c)
{
    return _mm512_maskz_compress_ps((__mmask16)((S == 2 ? 0x5555u : 0x1111u) << c), shared);
}

/* A tile that touches several documents, or has fewer rows than it computed: row by row. */
static __attribute__((noinline)) void lik_tile_fold_rows(const struct lik_rows *job, const __m512 *product,
                                                         int rows, int R, int V, int S, int64_t at,
                                                         int64_t segment)
{
    for (int r = 0; r < rows; r++, at++) {
        while (at >= job->ends[segment])
            segment++;
        float *maxima = job->maxima + segment * job->stride;
        int32_t *winners = job->winners ? job->winners + segment * job->stride : NULL;
        for (int v = 0; v < V; v++)
            lik_tile_fold(1, product + r * V + v, 1, 0, maxima + LIK_TILE_VECTOR * v,
                          winners ? winners + LIK_TILE_VECTOR * v : NULL, job->index + at);
        if (S == 1)
            continue;
        __m512 x = lik_tile_apart(S, product[R * V + r / S], r % S);
        lik_tile_fold(1, &x, 1, 0, maxima + LIK_TILE_VECTOR * V,
                      winners ? winners + LIK_TILE_VECTOR * V : NULL, job->index + at);
    }
}

/* Sums to products: converted, and times the rows' factors. */
FORCE_INLINE void lik_tile_scale(const int product, const int R, const int V, const int S, __m512 *acc,
                                 const float *row_scale)
{
    if (lik_tile_integer(product)) {
        UNROLL
        for (int i = 0; i < R * V + (S > 1) * R / S; i++)
            acc[i] = _mm512_cvtepi32_ps(_mm512_castps_si512(acc[i]));
    }
    if (!row_scale)
        return;
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int v = 0; v < V; v++)
            acc[r * V + v] = _mm512_mul_ps(acc[r * V + v], _mm512_set1_ps(row_scale[r]));
        if (S == 2 && r % S == 0) {
            double two;
            memcpy(&two, row_scale + r, sizeof two);
            acc[R * V + r / S] = _mm512_mul_ps(acc[R * V + r / S], _mm512_castpd_ps(_mm512_set1_pd(two)));
        }
        if (S == 4 && r % S == 0)
            acc[R * V + r / S] =
                _mm512_mul_ps(acc[R * V + r / S], _mm512_broadcast_f32x4(_mm_loadu_ps(row_scale + r)));
    }
}

/* Are the products of integers with these rows numbers? They are if the rows' factors are
 * finite. */
FORCE_INLINE int lik_tile_finite(const float *row_scale, const int n)
{
    __mmask16 finite = 0xffff;
    UNROLL
    for (int r = 0; r < n; r += LIK_TILE_VECTOR) {
        const __mmask16 in = (__mmask16)(n - r < LIK_TILE_VECTOR ? (1u << (n - r)) - 1 : 0xffff);
        __m512 factor = _mm512_abs_ps(_mm512_maskz_loadu_ps(in, row_scale + r));
        finite &= _mm512_cmp_ps_mask(factor, _mm512_set1_ps(FLT_MAX), _CMP_LE_OQ);
    }
    return finite == 0xffff;
}

/* The products of a tile into the maxima of their documents. */
FORCE_INLINE void lik_tile_fold_tile(const struct lik_rows *job, const int R, const int V, const int S,
                                     const int numbers, const __m512 *acc, int64_t at, int64_t *segment)
{
    while (at >= job->ends[*segment])
        ++*segment;
    if (at + R > job->ends[*segment]) {
        __m512 spilled[LIK_TILE_ACCUMULATORS];
        UNROLL
        for (int i = 0; i < R * V + (S > 1) * R / S; i++)
            spilled[i] = acc[i];
        int rows_left = job->count - at < R ? (int)(job->count - at) : R;
        lik_tile_fold_rows(job, spilled, rows_left, R, V, S, at, *segment);
        return;
    }
    float *maxima = job->maxima + *segment * job->stride;
    int32_t *winners = job->winners ? job->winners + *segment * job->stride : NULL;
    UNROLL
    for (int v = 0; v < V; v++)
        lik_tile_fold(R, acc + v, V, numbers, maxima + LIK_TILE_VECTOR * v,
                      winners ? winners + LIK_TILE_VECTOR * v : NULL, job->index + at);
    if (S == 1)
        return;
    __m512 row[LIK_TILE_ROWS];
    UNROLL
    for (int r = 0; r < R; r++)
        row[r] = lik_tile_apart(S, acc[R * V + r / S], r % S);
    lik_tile_fold(R, row, 1, numbers, maxima + LIK_TILE_VECTOR * V,
                  winners ? winners + LIK_TILE_VECTOR * V : NULL, job->index + at);
}

/* One panel shape against a row stream. */
FORCE_INLINE void lik_tile_run(const struct lik_rows *job, const int source, const int product, const int R,
                               const int V, const int S)
{
    const int accumulators = R * V + (S > 1) * R / S;
    const int element_bytes = source == LIK_TILE_I8_TO_I16 || source == LIK_TILE_UNSIGNED ? 1
                              : source == LIK_TILE_COPY && product == LIK_TILE_FMA        ? 4
                                                                                          : 2;
    const int64_t bytes = job->dim * element_bytes, stride = R * job->tile_stride;
    __m512i start[3];
    UNROLL
    for (int v = 0; v < V + (S > 1); v++)
        start[v] = _mm512_setzero_si512();
    if (source == LIK_TILE_UNSIGNED) {
        UNROLL
        for (int v = 0; v < V + (S > 1); v++)
            start[v] = _mm512_loadu_si512(job->lane_bias + LIK_TILE_VECTOR * v);
        if (S > 1)
            start[V] = _mm512_permutexvar_epi32(
                _mm512_srli_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                  (unsigned)S / 2),
                start[V]);
    }
    const int makes = source == LIK_TILE_UNSIGNED && job->make;
    if (makes)
        job->make(job->maker, R);
    if (!job->tiles_ready)
        lik_tile_prepare_all(source, S, R, job->tiles, job->rows, job->skip, bytes);
    int64_t segment = 0;
    int32_t *tile = job->tiles;
    for (int64_t at = 0; at < job->count; at += R) {
        __m512 acc[LIK_TILE_ACCUMULATORS];
        UNROLL
        for (int i = 0; i < accumulators; i++)
            acc[i] = _mm512_castsi512_ps(start[i < R * V ? i % (V > 0 ? V : 1) : V]);
        if (makes)
            job->make(job->maker, at + 2 * R);
        int32_t *next = job->panels > 1 || tile == job->tiles ? tile + stride : job->tiles;
        lik_tile_dot(source, product, R, V, S, acc, tile, job->packed, bytes, job->skip,
                     job->tiles_ready ? NULL : next, job->rows + at + R,
                     job->rows + at + (R > 16 ? 2 * LIK_TILE_ROWS_MAX - R : 2 * R));
        lik_tile_scale(product, R, V, S, acc, job->row_scale ? job->row_scale + at : NULL);
        if (lik_tile_integer(product) && (!job->row_scale || lik_tile_finite(job->row_scale + at, R)))
            lik_tile_fold_tile(job, R, V, S, 1, acc, at, &segment);
        else
            lik_tile_fold_tile(job, R, V, S, 0, acc, at, &segment);
        tile = next;
    }
}

#define LIK_TILE_KERNEL(name, source, product, R, V, S) \
    void name(const struct lik_rows *job)               \
    {                                                   \
        lik_tile_run(job, source, product, R, V, S);    \
    }

/* A kernel a shape: name_lanes4 and so on. */
#define LIK_TILE_DECLARE(name)                                                            \
    void name##_lanes4(const struct lik_rows *), name##_lanes8(const struct lik_rows *),  \
        name##_lanes16(const struct lik_rows *), name##_lanes20(const struct lik_rows *), \
        name##_lanes24(const struct lik_rows *), name##_lanes32(const struct lik_rows *)
#define LIK_TILE_KERNELS(name, source, product)               \
    LIK_TILE_DECLARE(name);                                   \
    LIK_TILE_KERNEL(name##_lanes4, source, product, 24, 0, 4) \
    LIK_TILE_KERNEL(name##_lanes8, source, product, 16, 0, 2) \
    LIK_TILE_WIDE_KERNELS(name, source, product)
#define LIK_TILE_WIDE_KERNELS(name, source, product)           \
    LIK_TILE_KERNEL(name##_lanes16, source, product, 12, 1, 1) \
    LIK_TILE_KERNEL(name##_lanes20, source, product, 12, 1, 4) \
    LIK_TILE_KERNEL(name##_lanes24, source, product, 12, 1, 2) \
    LIK_TILE_KERNEL(name##_lanes32, source, product, 12, 2, 1)

/* By shape, of 4 tokens each. */
#define LIK_TILE_SHAPES(name)                                                      \
    {NULL,           name##_lanes4,  name##_lanes8, NULL,          name##_lanes16, \
     name##_lanes20, name##_lanes24, NULL,          name##_lanes32}

#endif
