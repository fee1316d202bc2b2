/* Compressed tokens to f32 rows, eight elements at a time: their bits are shifted to the bottom
 * of eight lanes and look their weights up in one register or, with four bits, four; with 8
 * bits, in memory. To rows of integers, 32 at a time, as in residual_avx2.c. */
#include "cpu/decode.h"
#include "cpu/neon.h"

#include "base/dtype.h"

#include <arm_neon.h>
#include <math.h>
#include <string.h>

/* Rounded to nearest even and widened again; `kind` is a constant at every call. */
FORCE_INLINE float32x4_t rounded(float32x4_t x, const int32_t kind)
{
    if (kind == LIK_F16)
        return vcvt_f32_f16(vcvt_f16_f32(x));
    if (kind != LIK_BF16)
        return x;
    uint32x4_t bits = vreinterpretq_u32_f32(x);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t up = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    float32x4_t to = vreinterpretq_f32_u32(vandq_u32(up, vdupq_n_u32(0xffff0000)));
    return vbslq_f32(vceqq_f32(x, x), to, x);
}

FORCE_INLINE float32x4_t centroid4(const void *centroid, const int32_t dtype, int64_t k)
{
    if (dtype == LIK_F32)
        return vld1q_f32((const float *)centroid + k);
    uint16x4_t half = vld1_u16((const uint16_t *)centroid + k);
    return dtype == LIK_F16 ? vcvt_f32_f16(vreinterpret_f16_u16(half))
                            : vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

/* What the elements of a word of 8 look up, and by how much they are shifted up, which is less
 * than 0. */
struct weights {
    uint8x16x4_t table;
    int32x4_t shifts[2];
};

FORCE_INLINE void load_weights(struct weights *to, const struct lik_cpu_decoder *decoder, const int bits)
{
    for (int i = 0; i < 4; i++)
        to->table.val[i] = vdupq_n_u8(0);
    if (bits == 0 || bits == 8)
        return;
    for (int i = 0; i < (bits == 4 ? 4 : 1); i++)
        to->table.val[i] = vreinterpretq_u8_f32(vld1q_f32(decoder->weights + 4 * i));
    for (int i = 0; i < 2; i++)
        to->shifts[i] = vnegq_s32(vld1q_s32(decoder->shifts + 4 * i));
}

/* The weights of elements 4 h ... of the 8 whose bits begin at `at`. */
FORCE_INLINE float32x4_t weights4(const int bits, const int h, const struct weights *weights,
                                  const float *all, const uint8_t *at)
{
    if (bits == 8) {
        at += 4 * h;
        return (float32x4_t){all[at[0]], all[at[1]], all[at[2]], all[at[3]]};
    }
    uint32_t word = 0;
    memcpy(&word, at, (size_t)bits);
    uint32x4_t number =
        vandq_u32(vshlq_u32(vdupq_n_u32(word), weights->shifts[h]), vdupq_n_u32((1u << bits) - 1));
    /* its four bytes */
    uint32x4_t place = vmlaq_n_u32(vdupq_n_u32(0x03020100), number, 0x04040404);
    uint8x16_t x = bits == 4 ? vqtbl4q_u8(weights->table, vreinterpretq_u8_u32(place))
                             : vqtbl1q_u8(weights->table.val[0], vreinterpretq_u8_u32(place));
    return vreinterpretq_f32_u8(x);
}

FORCE_INLINE void decode(const struct lik_cpu_decoder *decoder, float *dst, const void *centroid,
                         const uint8_t *bytes, int64_t dim, const int bits, const int32_t dtype,
                         const int32_t round_to)
{
    struct weights weights;
    load_weights(&weights, decoder, bits);
    int64_t k = 0;
    for (; k + 8 <= dim; k += 8) {
        UNROLL
        for (int h = 0; h < 2; h++) {
            float32x4_t x = centroid4(centroid, dtype, k + 4 * h);
            x = rounded(x, dtype == round_to ? LIK_F32 : round_to);
            if (bits)
                x = rounded(vaddq_f32(x, weights4(bits, h, &weights, decoder->weights, bytes + k * bits / 8)),
                            round_to);
            vst1q_f32(dst + k + 4 * h, x);
        }
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

void lik_neon_decode(const struct lik_cpu_decoder *decoder, float *dst, const void *centroid,
                     const uint8_t *bytes, int64_t dim)
{
    LIK_DECODE_BY_CODEC(decode);
}

/* The half bytes of 16 bytes, those of a byte one after the other. */
FORCE_INLINE uint8x16x2_t half_bytes(uint8x16_t bytes, const int top_first)
{
    uint8x16_t low = vandq_u8(bytes, vdupq_n_u8(15)), high = vshrq_n_u8(bytes, 4);
    return top_first ? vzipq_u8(high, low) : vzipq_u8(low, high);
}

/* For each half byte the index of element f of it in the weights. */
FORCE_INLINE uint8x16_t field_of_half(int bits, int top_first, int f)
{
    static const uint8_t halves[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    int8x16_t down = vdupq_n_s8((int8_t)(top_first ? f * bits + bits - 4 : -f * bits));
    return vandq_u8(vshlq_u8(vld1q_u8(halves), down), vdupq_n_u8((uint8_t)((1 << bits) - 1)));
}

/* The weights of 32 elements, whose residual begins at `at` and is all readable. `tables`: what
 * a half byte's elements have. */
FORCE_INLINE int8x16x2_t weights32(const int bits, const int top_first, const int8x16_t *tables,
                                   const uint8_t *at)
{
    if (bits == 4) {
        uint8x16x2_t halves = half_bytes(vld1q_u8(at), top_first);
        return (int8x16x2_t){{vqtbl1q_s8(tables[0], halves.val[0]), vqtbl1q_s8(tables[0], halves.val[1])}};
    }
    if (bits == 2) {
        uint8x16_t halves = half_bytes(vcombine_u8(vld1_u8(at), vdup_n_u8(0)), top_first).val[0];
        return vzipq_s8(vqtbl1q_s8(tables[0], halves), vqtbl1q_s8(tables[1], halves));
    }
    uint32_t word;
    memcpy(&word, at, sizeof word);
    uint8x16_t bytes = vreinterpretq_u8_u32(vsetq_lane_u32(word, vdupq_n_u32(0), 0));
    uint8x16_t halves = half_bytes(bytes, top_first).val[0];
    int8x16_t first = vzip1q_s8(vqtbl1q_s8(tables[0], halves), vqtbl1q_s8(tables[1], halves));
    int8x16_t last = vzip1q_s8(vqtbl1q_s8(tables[2], halves), vqtbl1q_s8(tables[3], halves));
    int16x8x2_t all = vzipq_s16(vreinterpretq_s16_s8(first), vreinterpretq_s16_s8(last));
    return (int8x16x2_t){{vreinterpretq_s8_s16(all.val[0]), vreinterpretq_s8_s16(all.val[1])}};
}

/* sums + the squares of bytes of at most 127. */
FORCE_INLINE uint32x4_t add_squares(uint32x4_t sums, int8x16_t x)
{
    int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(x)); /* two are at most 2 * 127 * 127 < 2^15 */
    return vpadalq_u16(sums, vreinterpretq_u16_s16(vmlal_high_s8(low, x, x)));
}

/* 32 elements of the token at dst; returns the sum of squares. */
FORCE_INLINE uint32x4_t decode32(int8_t *dst, const int8_t *elements, const int bits, const int top_first,
                                 const int8x16_t *tables, const uint8_t *at, uint32x4_t sums)
{
    int8x16x2_t x = {{vld1q_s8(elements), vld1q_s8(elements + 16)}};
    if (bits) {
        int8x16x2_t w = weights32(bits, top_first, tables, at);
        x.val[0] = vaddq_s8(x.val[0], w.val[0]);
        x.val[1] = vaddq_s8(x.val[1], w.val[1]);
    }
    vst1q_s8(dst, x.val[0]);
    vst1q_s8(dst + 16, x.val[1]);
    return add_squares(add_squares(sums, x.val[0]), x.val[1]);
}

/* Returns the sum of squares. */
FORCE_INLINE int32_t decode_token(int8_t *dst, const struct lik_cpu_rounded *centroid, const uint8_t *bytes,
                                  int64_t dim, const int bits, const int top_first)
{
    int8x16_t tables[4] = {vld1q_s8(centroid->weights)};
    const int8x16_t weights = tables[0];
    for (int f = 0; bits && bits < 4 && f < 4 / bits; f++)
        tables[f] = vqtbl1q_s8(weights, field_of_half(bits, top_first, f));
    uint32x4_t sums = vdupq_n_u32(0);
    int64_t k = 0;
    for (; k + 32 <= dim; k += 32)
        sums = decode32(dst + k, centroid->elements + k, bits, top_first, tables,
                        bits ? bytes + k * bits / 8 : NULL, sums);
    int32_t squares = (int32_t)vaddvq_u32(sums);
    if (k < dim) {
        uint8_t rest[16] = {0};
        int8_t row[32];
        if (bits)
            memcpy(rest, bytes + k * bits / 8, (size_t)((dim - k) * bits + 7) / 8);
        decode32(row, centroid->elements + k, bits, top_first, tables, rest, sums);
        for (int64_t i = 0; i < dim - k; i++)
            squares += row[i] * row[i];
        memcpy(dst + k, row, (size_t)(dim - k));
    }
    return squares;
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
}

void lik_neon_decode_i8(const struct lik_cpu_decoder *decoder, const struct lik_cpu_compressed *tokens)
{
    LIK_DECODE_I8_BY_CODEC(decode_i8);
}

float lik_neon_quantize(int8_t *dst, const float *src, int64_t n, float room)
{
    float32x4_t largest = vdupq_n_f32(0), broken = largest;
    float most = 0, rest = room - room, limit = room > 0 ? 126 : 127; /* both may be rounded up */
    int64_t k = 0;
    for (; k + 4 <= n; k += 4) {
        float32x4_t x = vld1q_f32(src + k);
        largest = vmaxnmq_f32(largest, vabsq_f32(x));
        broken = vaddq_f32(broken, vsubq_f32(x, x)); /* NaN, of infinities too */
    }
    for (; k < n; k++) {
        float size = fabsf(src[k]);
        most = size > most ? size : most;
        rest += src[k] - src[k];
    }
    most = fmaxf(most, vmaxvq_f32(largest)) + room;
    rest += vaddvq_f32(broken);
    if (!(most >= 0x1p-100f) || rest != 0) {
        memset(dst, 0, (size_t)n);
        return rest != 0 ? NAN : 0;
    }
    float steps = limit / most;
    for (k = 0; k + 16 <= n; k += 16) {
        int32x4_t x[4];
        UNROLL
        for (int v = 0; v < 4; v++)
            x[v] = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(src + k + 4 * v), steps));
        int16x8_t low = vqmovn_high_s32(vqmovn_s32(x[0]), x[1]);
        int16x8_t high = vqmovn_high_s32(vqmovn_s32(x[2]), x[3]);
        vst1q_s8(dst + k, vqmovn_high_s16(vqmovn_s16(low), high));
    }
    for (; k < n; k++)
        dst[k] = (int8_t)lrintf(src[k] * steps);
    return most / limit;
}
