/* Compressed tokens to f32 rows, eight elements at a time: their bits are shifted to the bottom
 * of eight lanes and look their weights up in one or two registers; with 8 bits, in memory. To
 * rows of integers, 32 at a time: half bytes in the order of their elements look the weights of
 * their 4, 2 or 1 elements up in as many registers of bytes. */
#include "cpu/avx2.h"
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

void lik_avx2_decode(const struct lik_cpu_decoder *decoder, float *dst, const void *centroid,
                     const uint8_t *bytes, int64_t dim)
{
    LIK_DECODE_BY_CODEC(decode);
}

/* The half bytes of 16 bytes, those of a byte one after the other. */
FORCE_INLINE __m256i half_bytes(__m128i bytes, const int top_first)
{
    __m256i x = _mm256_cvtepu8_epi16(bytes);
    x = top_first ? _mm256_or_si256(_mm256_srli_epi16(x, 4), _mm256_slli_epi16(x, 8))
                  : _mm256_or_si256(x, _mm256_slli_epi16(x, 4));
    return _mm256_and_si256(x, _mm256_set1_epi8(15));
}

/* For each half byte the index of element f of it in the weights. */
FORCE_INLINE __m128i field_of_half(int bits, int top_first, int f)
{
    const __m128i half = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m128i shift = _mm_cvtsi32_si128(top_first ? 4 - bits - f * bits : f * bits);
    return _mm_and_si128(_mm_srl_epi16(half, shift), _mm_set1_epi8((char)((1 << bits) - 1)));
}

/* The weights of 32 elements, whose residual begins at `at` and is all readable. `tables`: what
 * a half byte's elements have. */
FORCE_INLINE __m256i weights32(const int bits, const int top_first, const __m128i *tables, const uint8_t *at)
{
    if (bits == 4) {
        __m256i halves = half_bytes(_mm_loadu_si128((const __m128i *)(const void *)at), top_first);
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(tables[0]), halves);
    }
    if (bits == 2) {
        __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)at);
        __m128i halves = _mm256_castsi256_si128(half_bytes(bytes, top_first));
        __m128i even = _mm_shuffle_epi8(tables[0], halves), odd = _mm_shuffle_epi8(tables[1], halves);
        return _mm256_set_m128i(_mm_unpackhi_epi8(even, odd), _mm_unpacklo_epi8(even, odd));
    }
    int32_t word;
    memcpy(&word, at, sizeof word);
    __m128i halves = _mm256_castsi256_si128(half_bytes(_mm_cvtsi32_si128(word), top_first));
    __m128i first =
        _mm_unpacklo_epi8(_mm_shuffle_epi8(tables[0], halves), _mm_shuffle_epi8(tables[1], halves));
    __m128i last =
        _mm_unpacklo_epi8(_mm_shuffle_epi8(tables[2], halves), _mm_shuffle_epi8(tables[3], halves));
    return _mm256_set_m128i(_mm_unpackhi_epi16(first, last), _mm_unpacklo_epi16(first, last));
}

/* sums += the squares of bytes of at most 127. */
FORCE_INLINE __m256i add_squares(__m256i sums, __m256i x)
{
    __m256i size = _mm256_abs_epi8(x);
    __m256i pairs = _mm256_maddubs_epi16(size, size); /* at most 2 * 127 * 127 < 2^15 */
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

FORCE_INLINE int32_t total_of(__m256i sums)
{
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

FORCE_INLINE void take_tables(__m128i *tables, const struct lik_cpu_rounded *centroid, const int bits,
                              const int top_first)
{
    const __m128i weights = _mm_loadu_si128((const __m128i *)(const void *)centroid->weights);
    tables[0] = weights;
    for (int f = 0; bits && bits < 4 && f < 4 / bits; f++)
        tables[f] = _mm_shuffle_epi8(weights, field_of_half(bits, top_first, f));
}

/* All but the elements after the last 32. Returns the sum of their squares. */
FORCE_INLINE int32_t decode_token(int8_t *dst, const struct lik_cpu_rounded *centroid, const uint8_t *bytes,
                                  int64_t dim, const int bits, const int top_first)
{
    __m128i tables[4];
    take_tables(tables, centroid, bits, top_first);
    __m256i sums = _mm256_setzero_si256();
    for (int64_t k = 0; k + 32 <= dim; k += 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(centroid->elements + k));
        if (bits)
            x = _mm256_add_epi8(x, weights32(bits, top_first, tables, bytes + k * bits / 8));
        _mm256_storeu_si256((__m256i *)(void *)(dst + k), x);
        sums = add_squares(sums, x);
    }
    return total_of(sums);
}

/* The elements after the last 32, with the sum of their squares: a function of its own, for
 * what it calls would take the loop's registers. */
static __attribute__((noinline)) int32_t decode_rest(int8_t *dst, const struct lik_cpu_rounded *centroid,
                                                     const uint8_t *bytes, int64_t dim, const int bits,
                                                     const int top_first)
{
    const int64_t k = dim / 32 * 32, left = dim - k;
    __m128i tables[4];
    uint8_t rest[16] = {0};
    int8_t row[32] __attribute__((aligned(32)));
    take_tables(tables, centroid, bits, top_first);
    if (bits)
        memcpy(rest, bytes + k * bits / 8, (size_t)(left * bits + 7) / 8);
    __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(centroid->elements + k));
    if (bits)
        x = _mm256_add_epi8(x, weights32(bits, top_first, tables, rest));
    _mm256_store_si256((__m256i *)(void *)row, x);
    memset(row + left, 0, (size_t)(32 - left));
    memcpy(dst + k, row, (size_t)left);
    return total_of(
        add_squares(_mm256_setzero_si256(), _mm256_load_si256((const __m256i *)(const void *)row)));
}

FORCE_INLINE void decode_i8(const struct lik_cpu_compressed *tokens, const int bits, const int top_first)
{
    for (int64_t t = 0; t < tokens->count; t++) {
        lik_ask_ahead(tokens, t, bits, tokens->dim);
        const struct lik_cpu_rounded *centroid = tokens->centroids[t];
        tokens->squares[t] = decode_token(tokens->rows + t * tokens->dim, centroid,
                                          bits ? tokens->bytes[t] : NULL, tokens->dim, bits, top_first);
        tokens->units[t] = centroid->unit;
    }
    for (int64_t t = 0; tokens->dim % 32 && t < tokens->count; t++)
        tokens->squares[t] += decode_rest(tokens->rows + t * tokens->dim, tokens->centroids[t],
                                          bits ? tokens->bytes[t] : NULL, tokens->dim, bits, top_first);
}

void lik_avx2_decode_i8(const struct lik_cpu_decoder *decoder, const struct lik_cpu_compressed *tokens)
{
    LIK_DECODE_I8_BY_CODEC(decode_i8);
}

float lik_avx2_quantize(int8_t *dst, const float *src, int64_t n, float room)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 largest = _mm256_setzero_ps(), other = largest, broken = largest;
    float most = 0, rest = room - room, limit = room > 0 ? 126 : 127; /* both may be rounded up */
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
    most = _mm_cvtss_f32(half) + room;
    int odd = rest != 0 || _mm256_movemask_ps(_mm256_cmp_ps(broken, broken, _CMP_UNORD_Q));
    if (!(most >= 0x1p-100f) || odd) {
        memset(dst, 0, (size_t)n);
        return odd ? NAN : 0;
    }
    float steps = limit / most;
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
    return most / limit;
}
