/* Maxima of rows that are products already, one a lane: those that LIK_ONE_HOT looks up. A
 * document's maxima stay in registers, 32 lanes at a time; what a row costs is its loads. */
#include "cpu/avx2.h"
#include "cpu/unroll.h"

#include <immintrin.h>

/* All ones where a or b is NaN. */
FORCE_INLINE __m256 unordered(__m256 a, __m256 b)
{
    return _mm256_cmp_ps(a, b, _CMP_UNORD_Q);
}

/* Vector v of V: the last may end within it, and is not read past that. */
FORCE_INLINE __m256 load_products(const float *row, const int v, const int V, const int partial, __m256i in)
{
    return partial && v == V - 1 ? _mm256_maskload_ps(row + 8 * v, in) : _mm256_loadu_ps(row + 8 * v);
}

FORCE_INLINE void take_maxima(const float *const *rows, int64_t skip, int64_t count, const int V,
                              const int partial, __m256i in, float *maxima)
{
    __m256 most[4], nan[4];
    UNROLL
    for (int v = 0; v < V; v++) {
        most[v] = _mm256_loadu_ps(maxima + 8 * v);
        nan[v] = unordered(most[v], most[v]);
    }
    int64_t r = 0;
    for (; r + 2 <= count; r += 2) { /* one comparison tests two rows for NaN */
        const float *even = rows[r] + skip, *odd = rows[r + 1] + skip;
        UNROLL
        for (int v = 0; v < V; v++) {
            __m256 a = load_products(even, v, V, partial, in), b = load_products(odd, v, V, partial, in);
            most[v] = _mm256_max_ps(_mm256_max_ps(most[v], a), b);
            nan[v] = _mm256_or_ps(nan[v], unordered(a, b));
        }
    }
    if (r < count) {
        UNROLL
        for (int v = 0; v < V; v++) {
            __m256 a = load_products(rows[r] + skip, v, V, partial, in);
            most[v] = _mm256_max_ps(most[v], a);
            nan[v] = _mm256_or_ps(nan[v], unordered(a, a));
        }
    }
    UNROLL
    for (int v = 0; v < V; v++)
        _mm256_storeu_ps(maxima + 8 * v, _mm256_or_ps(most[v], nan[v]));
}

FORCE_INLINE void take_winners(const float *const *rows, int64_t skip, int64_t count, const int V,
                               const int partial, __m256i in, float *maxima, int32_t *winners,
                               const int32_t *index)
{
    __m256 best[4], at[4];
    UNROLL
    for (int v = 0; v < V; v++) {
        best[v] = _mm256_loadu_ps(maxima + 8 * v);
        at[v] = _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)(const void *)(winners + 8 * v)));
    }
    for (int64_t r = 0; r < count; r++) {
        __m256 number = _mm256_castsi256_ps(_mm256_set1_epi32(index[r]));
        UNROLL
        for (int v = 0; v < V; v++) {
            __m256 x = load_products(rows[r] + skip, v, V, partial, in);
            __m256 take =
                _mm256_andnot_ps(unordered(best[v], best[v]), _mm256_cmp_ps(x, best[v], _CMP_NLE_UQ));
            best[v] = _mm256_blendv_ps(best[v], x, take);
            at[v] = _mm256_blendv_ps(at[v], number, take);
        }
    }
    UNROLL
    for (int v = 0; v < V; v++) {
        _mm256_storeu_ps(maxima + 8 * v, best[v]);
        _mm256_storeu_si256((__m256i *)(void *)(winners + 8 * v), _mm256_castps_si256(at[v]));
    }
}

/* V vectors of lanes from `lane` on, past all rows. */
FORCE_INLINE void run_lanes(const struct lik_rows *job, int64_t lane, const int V, const int partial,
                            __m256i in)
{
    const float *const *rows = (const float *const *)(const void *)job->rows;
    for (int64_t at = 0, segment = 0; at < job->count; segment++) {
        int64_t count = job->ends[segment] - at;
        float *maxima = job->maxima + segment * job->stride + lane;
        if (job->winners)
            take_winners(rows + at, lane, count, V, partial, in, maxima,
                         job->winners + segment * job->stride + lane, job->index + at);
        else
            take_maxima(rows + at, lane, count, V, partial, in, maxima);
        at += count;
    }
}

void lik_avx2_look_up(const struct lik_rows *job)
{
    const __m256i none = _mm256_setzero_si256();
    int64_t lane = 0;
    for (; lane + 32 <= job->dim; lane += 32)
        run_lanes(job, lane, 4, 0, none);
    const int rest = (int)(job->dim - lane);
    const __m256i in =
        _mm256_cmpgt_epi32(_mm256_set1_epi32((rest - 1) % 8 + 1), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    switch ((rest + 7) / 8 * 2 + (rest % 8 != 0)) {
    case 0: break;
    case 2: run_lanes(job, lane, 1, 0, none); break;
    case 3: run_lanes(job, lane, 1, 1, in); break;
    case 4: run_lanes(job, lane, 2, 0, none); break;
    case 5: run_lanes(job, lane, 2, 1, in); break;
    case 6: run_lanes(job, lane, 3, 0, none); break;
    case 7: run_lanes(job, lane, 3, 1, in); break;
    default: run_lanes(job, lane, 4, 1, in); break;
    }
}
