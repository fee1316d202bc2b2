/* The i8 row kernels of levels with 16 vector registers of 8 lanes: integer dot products, exact
 * in i32, of i8 documents with an integer query. The file that includes it has said how sums
 * are multiplied: add_pairs, add_quads; and the ROWS and SUMS of its largest tiles.
 *
 * 16-bit query: document rows are widened to i16 one tile ahead (as f16 rows are in
 * score_avx2.c); a 32-bit broadcast holds elements k and k + 1 of a row, the panel holds [k /
 * 2][lane][2] i16. 7-bit query: a 32-bit broadcast holds four elements, made unsigned by
 * flipping their top bits; the panel holds [k / 4][lane][4] i8 of at most 63; the 128 * sum(q)
 * that the flip adds is taken off in the accumulators' start values.
 *
 * Elements past dim are zero in the panel, so rows are read in whole steps from a copy where a
 * row's end is not on one. Without a guard: the amalgamation includes it for each level. */

FORCE_INLINE __m256i load_query(const void *p)
{
    __m256i v;
    __asm__("vmovdqa %1, %0" : "=x"(v) : "m"(*(const __m256i *)p));
    return v;
}

FORCE_INLINE __m256i broadcast4(const void *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

static __attribute__((noinline)) void widen_row(int16_t *dst, const int8_t *src, int64_t n)
{
    int64_t k = 0;
    for (; k + 16 <= n; k += 16)
        _mm256_storeu_si256((__m256i *)(void *)(dst + k),
                            _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(src + k))));
    for (; k < n; k++)
        dst[k] = src[k];
    if (n & 1)
        dst[n] = 0;
}

/* Folds n products of one document into a vector of maxima (and winners). NaN comes from scales
 * alone and stays. */
FORCE_INLINE void fold(const int n, const __m256 *product, const int pitch, float *maxima, int32_t *winners,
                       const int32_t *index)
{
    __m256 best = _mm256_loadu_ps(maxima);
    if (!winners) {
        UNROLL
        for (int r = 0; r < n; r++) {
            __m256 nan = _mm256_cmp_ps(best, product[r * pitch], _CMP_UNORD_Q);
            best = _mm256_or_ps(_mm256_max_ps(best, product[r * pitch]), nan);
        }
        _mm256_storeu_ps(maxima, best);
        return;
    }
    if (n > 1 && index[0] >= LIK_RARE_TOKEN) { /* as in score_avx2.c */
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
        __m256 take =
            _mm256_andnot_ps(_mm256_cmp_ps(best, best, _CMP_UNORD_Q), _mm256_cmp_ps(x, best, _CMP_NLE_UQ));
        best = _mm256_blendv_ps(best, x, take);
        at = _mm256_blendv_ps(at, _mm256_castsi256_ps(_mm256_set1_epi32(index[r])), take);
    }
    _mm256_storeu_si256((__m256i *)(void *)winners, _mm256_castps_si256(at));
    _mm256_storeu_ps(maxima, best);
}

FORCE_INLINE void finish_tile(const struct lik_rows *job, const int R, const int V, const __m256i *acc,
                              int64_t at, int64_t *segment)
{
    __m256 product[SUMS];
    UNROLL
    for (int r = 0; r < R; r++) {
        __m256 factor = job->row_scale ? _mm256_broadcast_ss(job->row_scale + at + r) : _mm256_set1_ps(1.0f);
        UNROLL
        for (int v = 0; v < V; v++)
            product[r * V + v] = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[r * V + v]), factor);
    }
    while (at >= job->ends[*segment])
        ++*segment;
    if (at + R <= job->ends[*segment]) {
        float *maxima = job->maxima + *segment * job->stride;
        int32_t *winners = job->winners ? job->winners + *segment * job->stride : NULL;
        UNROLL
        for (int v = 0; v < V; v++)
            fold(R, product + v, V, maxima + 8 * v, winners ? winners + 8 * v : NULL, job->index + at);
        return;
    }
    for (int r = 0; r < R && at + r < job->count; r++) {
        while (at + r >= job->ends[*segment])
            ++*segment;
        float *maxima = job->maxima + *segment * job->stride;
        int32_t *winners = job->winners ? job->winners + *segment * job->stride : NULL;
        UNROLL
        for (int v = 0; v < V; v++)
            fold(1, product + r * V + v, 1, maxima + 8 * v, winners ? winners + 8 * v : NULL,
                 job->index + at + r);
    }
}

FORCE_INLINE void run_q16(const struct lik_rows *job, const int R, const int V)
{
    int16_t *widened = (int16_t *)(void *)job->widened;
    const int64_t stride = 2 * job->widened_stride, dim = job->dim;
    int64_t segment = 0;
    for (int r = 0; r < R; r++)
        widen_row(widened + r * stride, job->rows[r], dim);
    for (int64_t at = 0, slot = 0; at < job->count; at += R) {
        int64_t next = slot + 2 * R <= job->widened_rows ? slot + R : 0;
        const int16_t *rows = widened + slot * stride;
        int16_t *ahead = widened + next * stride;
        const int16_t *query = job->packed;
        const int8_t *coming[ROWS], *distant[ROWS];
        UNROLL
        for (int r = 0; r < R; r++) {
            coming[r] = job->rows[at + R + r];
            distant[r] = job->rows[at + 2 * LIK_AVX2_TILE_ROWS - R + r];
        }
        __m256i acc[SUMS];
        UNROLL
        for (int i = 0; i < R * V; i++)
            acc[i] = _mm256_setzero_si256();
        int64_t k = 0;
        for (; k + 16 <= dim; k += 16) {
            if ((k & 63) == 0) {
                UNROLL
                for (int r = 0; r < R; r++)
                    _mm_prefetch((const char *)distant[r] + k, _MM_HINT_T0);
            }
            UNROLL
            for (int r = 0; r < R; r++)
                _mm256_storeu_si256(
                    (__m256i *)(void *)(ahead + r * stride + k),
                    _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(coming[r] + k))));
            UNROLL
            for (int u = 0; u < 16; u += 2) {
                __m256i row[ROWS];
                UNROLL
                for (int r = 0; r < R; r++)
                    row[r] = broadcast4(rows + r * stride + k + u);
                UNROLL
                for (int v = 0; v < V; v++) {
                    __m256i q = load_query(query + 8 * V * u + 16 * v);
                    UNROLL
                    for (int r = 0; r < R; r++)
                        add_pairs(&acc[r * V + v], row[r], q);
                }
            }
            query += 16 * 8 * V;
        }
        if (k < dim) {
            for (int r = 0; r < R; r++)
                widen_row(ahead + r * stride + k, coming[r] + k, dim - k);
            for (; k < dim; k += 2, query += 2 * 8 * V) {
                UNROLL
                for (int v = 0; v < V; v++) {
                    __m256i q = load_query(query + 16 * v);
                    UNROLL
                    for (int r = 0; r < R; r++)
                        add_pairs(&acc[r * V + v], broadcast4(rows + r * stride + k), q);
                }
            }
        }
        finish_tile(job, R, V, acc, at, &segment);
        slot = next;
    }
}

FORCE_INLINE void run_q7(const struct lik_rows *job, const int R, const int V)
{
    const __m256i ones = _mm256_set1_epi16(1), flip = _mm256_set1_epi8((char)0x80);
    const int64_t dim = job->dim, whole = dim & ~(int64_t)3;
    int64_t segment = 0;
    for (int64_t at = 0; at < job->count; at += R) {
        const int8_t *query = job->packed;
        const int8_t *const *rows = (const int8_t *const *)(const void *)job->rows + at;
        __m256i acc[SUMS];
        UNROLL
        for (int v = 0; v < V; v++) {
            UNROLL
            for (int r = 0; r < R; r++)
                acc[r * V + v] = _mm256_loadu_si256((const __m256i *)(const void *)(job->lane_bias + 8 * v));
        }
        int64_t k = 0;
        for (; k + 32 <= whole; k += 32) {
            if ((k & 32) == 0) {
                UNROLL
                for (int r = 0; r < R; r++)
                    _mm_prefetch((const char *)rows[2 * LIK_AVX2_TILE_ROWS - R + r] + k, _MM_HINT_T0);
            }
            UNROLL
            for (int u = 0; u < 32; u += 4) {
                __m256i row[ROWS];
                UNROLL
                for (int r = 0; r < R; r++)
                    row[r] = _mm256_xor_si256(broadcast4(rows[r] + k + u), flip);
                UNROLL
                for (int v = 0; v < V; v++) {
                    __m256i q = load_query(query + 8 * V * u + 32 * v);
                    UNROLL
                    for (int r = 0; r < R; r++)
                        add_quads(&acc[r * V + v], row[r], q, ones);
                }
            }
            query += 32 * 8 * V;
        }
        for (; k < dim; k += 4, query += 4 * 8 * V) {
            __m256i row[ROWS];
            UNROLL
            for (int r = 0; r < R; r++) {
                char four[4] = {0};
                memcpy(four, rows[r] + k, (size_t)(dim - k < 4 ? dim - k : 4));
                row[r] = _mm256_xor_si256(broadcast4(four), flip);
            }
            UNROLL
            for (int v = 0; v < V; v++) {
                __m256i q = load_query(query + 32 * v);
                UNROLL
                for (int r = 0; r < R; r++)
                    add_quads(&acc[r * V + v], row[r], q, ones);
            }
        }
        finish_tile(job, R, V, acc, at, &segment);
    }
}

#define I8_KERNEL(level, name, R, V)                             \
    void lik_##level##_i8_q16_##name(const struct lik_rows *job) \
    {                                                            \
        run_q16(job, R, V);                                      \
    }                                                            \
    void lik_##level##_i8_q7_##name(const struct lik_rows *job)  \
    {                                                            \
        run_q7(job, R, V);                                       \
    }
