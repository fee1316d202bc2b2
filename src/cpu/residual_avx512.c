/* Compressed tokens to f32 rows, sixteen elements at a time: the bits of residual_avx2.c. With
 * four bits a register holds all weights. */
#include "cpu/avx512.h"

#include "base/dtype.h"

/* Rounded to nearest even and widened again; `kind` is a constant at every call. */
FORCE_INLINE __m512 rounded(__m512 x, const int32_t kind)
{
    if (kind == LIK_F16)
        return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    if (kind != LIK_BF16)
        return x;
    __m512i bits = _mm512_castps_si512(x), one = _mm512_set1_epi32(1);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_mask_mov_ps(_mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(-65536))), nan, x);
}

FORCE_INLINE __m512 centroid16(const void *centroid, const int32_t dtype, int64_t k)
{
    if (dtype == LIK_F32)
        return _mm512_loadu_ps((const float *)centroid + k);
    __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)((const uint16_t *)centroid + k));
    return dtype == LIK_F16 ? _mm512_cvtph_ps(half)
                            : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* The weights of elements k ... k + 15. */
FORCE_INLINE __m512 weights16(const int bits, const float *weights, __m512 table, __m512i shifts,
                              const uint8_t *bytes, int64_t k)
{
    const uint8_t *at = bytes + k * bits / 8;
    if (bits == 8)
        return _mm512_i32gather_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)at)),
                                   weights, 4);
    uint32_t words[2] = {0}; /* of 8 elements each with four bits; else the first has all 16 */
    memcpy(words, at, (size_t)bits * 2);
    __m512i word = _mm512_set1_epi32((int)words[0]);
    if (bits == 4)
        word = _mm512_mask_set1_epi32(word, 0xff00, (int)words[1]);
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(word, shifts), table); /* by the lowest four bits */
}

FORCE_INLINE void decode(const struct lik_cpu_decoder *decoder, float *dst, const void *centroid,
                         const uint8_t *bytes, int64_t dim, const int bits, const int32_t dtype,
                         const int32_t round_to)
{
    __m512 table = _mm512_setzero_ps();
    __m512i shifts = _mm512_setzero_si512();
    if (bits && bits < 8) {
        const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        const __m512i number = _mm512_and_si512(lane, _mm512_set1_epi32((1 << bits) - 1));
        table = _mm512_permutexvar_ps(number, _mm512_loadu_ps(decoder->weights));
        shifts = _mm512_broadcast_i32x8(_mm256_loadu_si256((const __m256i *)(const void *)decoder->shifts));
        if (bits < 4) /* elements 8 to 15 follow in the same word */
            shifts = _mm512_mask_add_epi32(shifts, 0xff00, shifts, _mm512_set1_epi32(8 * bits));
    }
    int64_t k = 0;
    for (; k + 16 <= dim; k += 16) {
        __m512 x = rounded(centroid16(centroid, dtype, k), dtype == round_to ? LIK_F32 : round_to);
        if (bits)
            x = rounded(_mm512_add_ps(x, weights16(bits, decoder->weights, table, shifts, bytes, k)),
                        round_to);
        _mm512_storeu_ps(dst + k, x);
    }
    if (k < dim)
        lik_avx2_decode(decoder, dst + k, (const char *)centroid + k * (dtype == LIK_F32 ? 4 : 2),
                        bits ? bytes + k * bits / 8 : NULL, dim - k);
}

void lik_avx512_decode(const struct lik_cpu_decoder *decoder, float *dst, const void *centroid,
                       const uint8_t *bytes, int64_t dim)
{
    LIK_DECODE_BY_CODEC(decode);
}
