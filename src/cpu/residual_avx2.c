/* Compressed tokens to f32 rows, eight elements at a time: their bits are shifted to the bottom
 * of eight lanes and look their weights up in one or two registers; with 8 bits, in memory. */
#include "cpu/kernels.h"
#include "cpu/unroll.h"

#include "base/dtype.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

/* Rounded to nearest even and widened again; `kind` is a constant at every call. */
FORCE_INLINE __m256 rounded(__m256 x, const int32_t kind)
{
    if (kind == LIK_F16)
        return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    if (kind != LIK_BF16)
        return x;
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    return _mm256_blendv_ps(_mm256_castsi256_ps(_mm256_and_si256(up, _mm256_set1_epi32(-65536))), x, nan);
}

FORCE_INLINE __m256 centroid8(const void *centroid, const int32_t dtype, int64_t k)
{
    if (dtype == LIK_F32)
        return _mm256_loadu_ps((const float *)centroid + k);
    __m128i half = _mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)centroid + k));
    return dtype == LIK_F16 ? _mm256_cvtph_ps(half)
                            : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* The weights of elements k ... k + 7. */
FORCE_INLINE __m256 weights8(const int bits, const float *table, __m256 low, __m256 high, __m256i shifts,
                             const uint8_t *bytes, int64_t k)
{
    const uint8_t *at = bytes + k * bits / 8;
    if (bits == 8) {
        __m256i index = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at));
        return _mm256_i32gather_ps(table, index, 4);
    }
    uint32_t word = 0;
    memcpy(&word, at, (size_t)bits);
    __m256i index = _mm256_srlv_epi32(_mm256_set1_epi32((int)word), shifts);
    if (bits < 4) /* looks at the lowest two bits; with one bit the table is there twice */
        return _mm256_permutevar_ps(low, index);
    __m256 below = _mm256_permutevar8x32_ps(low, index), above = _mm256_permutevar8x32_ps(high, index);
    return _mm256_blendv_ps(below, above, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}

FORCE_INLINE void decode(const struct lik_cpu_decoder *decoder, float *dst, const void *centroid,
                         const uint8_t *bytes, int64_t dim, const int bits, const int32_t dtype,
                         const int32_t round_to)
{
    __m256 low = _mm256_setzero_ps(), high = low;
    __m256i shifts = _mm256_setzero_si256();
    if (bits && bits < 8) {
        const float *w = decoder->weights;
        shifts = _mm256_loadu_si256((const __m256i *)(const void *)decoder->shifts);
        if (bits == 1)
            low = _mm256_setr_ps(w[0], w[1], w[0], w[1], w[0], w[1], w[0], w[1]);
        else if (bits == 2)
            low = _mm256_broadcast_ps((const __m128 *)(const void *)w);
        else
            low = _mm256_loadu_ps(w), high = _mm256_loadu_ps(w + 8);
    }
    int64_t k = 0;
    for (; k + 8 <= dim; k += 8) {
        __m256 x = rounded(centroid8(centroid, dtype, k), dtype == round_to ? LIK_F32 : round_to);
        if (bits)
            x = rounded(_mm256_add_ps(x, weights8(bits, decoder->weights, low, high, shifts, bytes, k)),
                        round_to);
        _mm256_storeu_ps(dst + k, x);
    }
    for (; k < dim; k++) {
        dst[k] = lik_round_f32(lik_load_f32(centroid, dtype, k), round_to);
        if (!bits)
            continue;
        int at = (int)(k % (8 / bits)) * bits;
        int number = bytes[k / (8 / bits)] >> (decoder->top_first ? 8 - bits - at : at) & ((1 << bits) - 1);
        dst[k] = lik_round_f32(dst[k] + decoder->weights[number], round_to);
    }
}

#define BY_DTYPE(bits, round_to)                                                               \
    switch (decoder->centroids_dtype) {                                                        \
    case LIK_F32: decode(decoder, dst, centroid, bytes, dim, bits, LIK_F32, round_to); return; \
    case LIK_F16: decode(decoder, dst, centroid, bytes, dim, bits, LIK_F16, round_to); return; \
    default: decode(decoder, dst, centroid, bytes, dim, bits, LIK_BF16, round_to); return;     \
    }

#define BY_ROUNDING(bits)                        \
    switch (decoder->round_to) {                 \
    case LIK_F32: BY_DTYPE(bits, LIK_F32) break; \
    case LIK_F16: BY_DTYPE(bits, LIK_F16) break; \
    default: BY_DTYPE(bits, LIK_BF16) break;     \
    }

void lik_avx2_decode(const struct lik_cpu_decoder *decoder, float *dst, const void *centroid,
                     const uint8_t *bytes, int64_t dim);
void lik_avx2_decode(const struct lik_cpu_decoder *decoder, float *dst, const void *centroid,
                     const uint8_t *bytes, int64_t dim)
{
    switch (decoder->bits) {
    case 0: BY_ROUNDING(0) break;
    case 1: BY_ROUNDING(1) break;
    case 2: BY_ROUNDING(2) break;
    case 4: BY_ROUNDING(4) break;
    default: BY_ROUNDING(8) break;
    }
}

float lik_avx2_quantize(int8_t *dst, const float *src, int64_t n);
float lik_avx2_quantize(int8_t *dst, const float *src, int64_t n)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 largest = _mm256_setzero_ps(), other = largest, broken = largest;
    float most = 0, rest = 0;
    int64_t k = 0;
    for (; k + 16 <= n; k += 16) {
        __m256 x = _mm256_loadu_ps(src + k), y = _mm256_loadu_ps(src + k + 8);
        largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, x));
        other = _mm256_max_ps(other, _mm256_andnot_ps(sign, y));
        /* NaN, of infinities too */
        broken = _mm256_add_ps(broken, _mm256_add_ps(_mm256_sub_ps(x, x), _mm256_sub_ps(y, y)));
    }
    for (; k < n; k++) {
        float size = fabsf(src[k]);
        most = size > most ? size : most;
        rest += src[k] - src[k];
    }
    largest = _mm256_max_ps(largest, other);
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    half = _mm_max_ss(_mm_max_ss(half, _mm_movehdup_ps(half)), _mm_set_ss(most));
    most = _mm_cvtss_f32(half);
    int odd = rest != 0 || _mm256_movemask_ps(_mm256_cmp_ps(broken, broken, _CMP_UNORD_Q));
    if (!(most >= 0x1p-100f) || odd) {
        memset(dst, 0, (size_t)n);
        return odd ? NAN : 0;
    }
    float steps = 127 / most;
    const __m256 factor = _mm256_set1_ps(steps);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (k = 0; k + 32 <= n; k += 32) {
        __m256i x[4];
        UNROLL
        for (int v = 0; v < 4; v++)
            x[v] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(src + k + 8 * v), factor));
        __m256i pairs = _mm256_packs_epi32(x[0], x[1]), more = _mm256_packs_epi32(x[2], x[3]);
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(pairs, more), order);
        _mm256_storeu_si256((__m256i *)(void *)(dst + k), bytes);
    }
    for (; k < n; k++)
        dst[k] = (int8_t)lrintf(src[k] * steps);
    return most / 127;
}
