/* Compressed tokens to f32 rows, sixteen elements at a time: the bits of residual_avx2.c. With
 * four bits a register holds all weights. To rows of integers, 64 at a time: with one bit its
 * word chooses between two weights, else half bytes look them up as in residual_avx2.c. */
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

/* The half bytes of 32 bytes, those of a byte one after the other. */
FORCE_INLINE __m512i half_bytes(__m256i bytes, const int top_first)
{
    __m512i x = _mm512_cvtepu8_epi16(bytes);
    __m512i y = top_first ? _mm512_slli_epi16(x, 8) : _mm512_slli_epi16(x, 4);
    x = top_first ? _mm512_srli_epi16(x, 4) : x;
    return _mm512_ternarylogic_epi32(x, y, _mm512_set1_epi8(15), 0xa8); /* (x | y) & 15 */
}

/* The bits of each byte in reverse. */
FORCE_INLINE uint64_t reverse_bits(uint64_t x)
{
    x = (x >> 1 & 0x5555555555555555) | (x & 0x5555555555555555) << 1;
    x = (x >> 2 & 0x3333333333333333) | (x & 0x3333333333333333) << 2;
    return (x >> 4 & 0x0f0f0f0f0f0f0f0f) | (x & 0x0f0f0f0f0f0f0f0f) << 4;
}

/* What half bytes look up: with four bits their weight, with two that of their first element
 * and that of their second; with one the two weights. */
struct tables {
    __m512i first, second;
};

FORCE_INLINE struct tables load_tables(const struct lik_cpu_rounded *centroid, const int bits,
                                       const int top_first)
{
    const __m128i weights = _mm_loadu_si128((const __m128i *)(const void *)centroid->weights);
    struct tables to;
    if (bits == 1) {
        to.first = _mm512_set1_epi8(centroid->weights[0]);
        to.second = _mm512_set1_epi8(centroid->weights[1]);
        return to;
    }
    to.first = to.second = _mm512_broadcast_i32x4(weights);
    if (bits == 2) {
        const __m128i low = _mm_setr_epi8(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
        const __m128i high = _mm_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        to.first = _mm512_broadcast_i32x4(_mm_shuffle_epi8(weights, top_first ? high : low));
        to.second = _mm512_broadcast_i32x4(_mm_shuffle_epi8(weights, top_first ? low : high));
    }
    return to;
}

/* The residual of n elements, at most 64. */
FORCE_INLINE __m256i load_residual(const uint8_t *at, const int64_t n, const int bits)
{
    if (n == 64 && bits == 4)
        return _mm256_loadu_si256((const __m256i *)(const void *)at);
    if (n == 64 && bits == 2)
        return _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)at));
    if (n == 64)
        return _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)(const void *)at));
    return _mm256_maskz_loadu_epi8((__mmask32)(((uint64_t)1 << (n * bits + 7) / 8) - 1), at);
}

/* The weights of the elements that have this residual. */
FORCE_INLINE __m512i weights64(const int bits, const int top_first, struct tables tables, __m256i bytes)
{
    if (bits == 4)
        return _mm512_shuffle_epi8(tables.first, half_bytes(bytes, top_first));
    if (bits == 1) {
        uint64_t word = (uint64_t)_mm_cvtsi128_si64(_mm256_castsi256_si128(bytes));
        return _mm512_mask_blend_epi8(top_first ? reverse_bits(word) : word, tables.first, tables.second);
    }
    /* a byte's half bytes b, c as b c 0 0, then as b b c c: each looks one element up */
    __m512i halves = half_bytes(_mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes)), top_first);
    const __m512i order =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 1, 1, 4, 4, 5, 5, 8, 8, 9, 9, 12, 12, 13, 13));
    halves = _mm512_shuffle_epi8(halves, order);
    return _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaa, _mm512_shuffle_epi8(tables.first, halves),
                                  _mm512_shuffle_epi8(tables.second, halves));
}

/* sums + the squares of the n elements, at most 64, from k on, which go to dst. */
FORCE_INLINE __m512i decode64(int8_t *dst, const struct lik_cpu_rounded *centroid, const uint8_t *bytes,
                              int64_t k, const int64_t n, const int bits, const int top_first,
                              struct tables tables, __m512i sums)
{
    const __mmask64 in = n == 64 ? 0 : ((__mmask64)1 << n) - 1;
    __m512i x = n == 64 ? _mm512_loadu_si512(centroid->elements + k)
                        : _mm512_maskz_loadu_epi8(in, centroid->elements + k);
    if (bits) {
        __m512i weights = weights64(bits, top_first, tables, load_residual(bytes + k * bits / 8, n, bits));
        x = n == 64 ? _mm512_add_epi8(x, weights) : _mm512_maskz_add_epi8(in, x, weights);
    }
    if (n == 64)
        _mm512_storeu_si512(dst + k, x);
    else
        _mm512_mask_storeu_epi8(dst + k, in, x);
    __m512i size = _mm512_abs_epi8(x);
    __m512i pairs = _mm512_maddubs_epi16(size, size);
    return _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

/* A token to dst; returns sixteen parts of the sum of its squares. */
FORCE_INLINE __m512i decode_token(int8_t *dst, const struct lik_cpu_rounded *centroid, const uint8_t *bytes,
                                  int64_t dim, const int bits, const int top_first)
{
    const struct tables tables = load_tables(centroid, bits, top_first);
    __m512i sums = _mm512_setzero_si512();
    int64_t k = 0;
    for (; k + 64 <= dim; k += 64)
        sums = decode64(dst, centroid, bytes, k, 64, bits, top_first, tables, sums);
    if (k < dim)
        sums = decode64(dst, centroid, bytes, k, dim - k, bits, top_first, tables, sums);
    return sums;
}

/* Token by token the sum of parts of four of them. */
FORCE_INLINE __m128i sum_parts(const __m512i *parts)
{
    __m512i x = _mm512_add_epi32(_mm512_unpacklo_epi32(parts[0], parts[1]),
                                 _mm512_unpackhi_epi32(parts[0], parts[1]));
    __m512i y = _mm512_add_epi32(_mm512_unpacklo_epi32(parts[2], parts[3]),
                                 _mm512_unpackhi_epi32(parts[2], parts[3]));
    __m512i four = _mm512_add_epi32(_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y));
    __m256i two = _mm256_add_epi32(_mm512_castsi512_si256(four), _mm512_extracti64x4_epi64(four, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1));
}

FORCE_INLINE void decode_all(const struct lik_cpu_compressed *tokens, const int64_t dim, const int bits,
                             const int top_first)
{
    const int64_t count = tokens->count;
    int64_t t = 0;
    for (; t + 4 <= count; t += 4) {
        __m512i parts[4];
        UNROLL
        for (int i = 0; i < 4; i++) {
            lik_ask_ahead(tokens, t + i, bits, dim);
            const struct lik_cpu_rounded *centroid = tokens->centroids[t + i];
            parts[i] = decode_token(tokens->rows + (t + i) * dim, centroid,
                                    bits ? tokens->bytes[t + i] : NULL, dim, bits, top_first);
            tokens->units[t + i] = centroid->unit;
        }
        _mm_storeu_si128((__m128i *)(void *)(tokens->squares + t), sum_parts(parts));
    }
    for (; t < count; t++) {
        const struct lik_cpu_rounded *centroid = tokens->centroids[t];
        __m512i parts = decode_token(tokens->rows + t * dim, centroid, bits ? tokens->bytes[t] : NULL, dim,
                                     bits, top_first);
        tokens->squares[t] = _mm512_reduce_add_epi32(parts);
        tokens->units[t] = centroid->unit;
    }
}

FORCE_INLINE void decode_i8(const struct lik_cpu_compressed *tokens, const int bits, const int top_first)
{
    if (tokens->dim == 128)
        decode_all(tokens, 128, bits, top_first);
    else
        decode_all(tokens, tokens->dim, bits, top_first);
}

void lik_avx512_decode_i8(const struct lik_cpu_decoder *decoder, const struct lik_cpu_compressed *tokens)
{
    LIK_DECODE_I8_BY_CODEC(decode_i8);
}
