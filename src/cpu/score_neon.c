/* The baseline of aarch64: the row kernels of f32, f16 and bf16, and the small loops of all its
 * levels. */
#include "cpu/neon.h"

#include "base/dtype.h"

#include <arm_neon.h>
#include <string.h>

enum { MATRIX = 0, INTEGER = 0 };

/* acc += word u of a row by four tokens. */
FORCE_INLINE void multiply(const int u, float32x4_t *acc, uint8x16_t row, uint8x16_t query)
{
    switch (u) {
    case 0: __asm__ volatile("fmla %0.4s, %1.4s, %2.s[0]" : "+w"(*acc) : "w"(query), "w"(row)); break;
    case 1: __asm__ volatile("fmla %0.4s, %1.4s, %2.s[1]" : "+w"(*acc) : "w"(query), "w"(row)); break;
    case 2: __asm__ volatile("fmla %0.4s, %1.4s, %2.s[2]" : "+w"(*acc) : "w"(query), "w"(row)); break;
    default: __asm__ volatile("fmla %0.4s, %1.4s, %2.s[3]" : "+w"(*acc) : "w"(query), "w"(row));
    }
}

#include "cpu/tile_neon.h"

TILE_KERNELS(lik_neon_f32, COPY, 4, 0)
TILE_KERNELS(lik_neon_f16, F16, 2, 0)
TILE_KERNELS(lik_neon_bf16, BF16, 2, 0)

/* In 4 x 4 blocks. */
void lik_neon_pack(float *packed, int64_t stride, const float *const *rows, const float *factors, int64_t dim)
{
    int64_t k = 0;
    for (; k + 4 <= dim; k += 4) {
        float32x4_t a[4];
        UNROLL
        for (int l = 0; l < 4; l++)
            a[l] = vmulq_n_f32(vld1q_f32(rows[l] + k), factors[l]);
        float32x4x2_t low = vzipq_f32(a[0], a[2]), high = vzipq_f32(a[1], a[3]);
        float32x4x2_t first = vzipq_f32(low.val[0], high.val[0]), last = vzipq_f32(low.val[1], high.val[1]);
        vst1q_f32(packed + k * stride, first.val[0]);
        vst1q_f32(packed + (k + 1) * stride, first.val[1]);
        vst1q_f32(packed + (k + 2) * stride, last.val[0]);
        vst1q_f32(packed + (k + 3) * stride, last.val[1]);
    }
    for (; k < dim; k++)
        for (int l = 0; l < 4; l++)
            packed[k * stride + l] = rows[l][k] * factors[l];
}

/* Eight elements of two bytes. */
FORCE_INLINE void widen_halves(float *dst, uint16x8_t halves, const int32_t dtype)
{
    float32x4_t low, high;
    if (dtype == LIK_F16) {
        low = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(halves)));
        high = vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(halves)));
    } else {
        low = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(halves), 16));
        high = vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(halves), 16));
    }
    vst1q_f32(dst, low);
    vst1q_f32(dst + 4, high);
}

/* e4m3: exponent and mantissa in an f16's places, whose conversion no denormal mode touches;
 * the bias differs by 2^8. */
FORCE_INLINE void widen_e4m3(float *dst, uint8x8_t bytes)
{
    uint16x8_t wide = vmovl_u8(bytes), rest = vandq_u16(wide, vdupq_n_u16(0x7f));
    uint16x8_t half = vorrq_u16(vshlq_n_u16(rest, 7), vshlq_n_u16(veorq_u16(wide, rest), 8));
    uint16x8_t nan = vceqq_u16(rest, vdupq_n_u16(0x7f));
    widen_halves(dst, half, LIK_F16);
    int32x4_t low = vmovl_s16(vget_low_s16(vreinterpretq_s16_u16(nan)));
    int32x4_t high = vmovl_s16(vget_high_s16(vreinterpretq_s16_u16(nan)));
    int32x4_t x = vreinterpretq_s32_f32(vmulq_n_f32(vld1q_f32(dst), 256));
    int32x4_t y = vreinterpretq_s32_f32(vmulq_n_f32(vld1q_f32(dst + 4), 256));
    vst1q_f32(dst, vreinterpretq_f32_s32(vorrq_s32(x, low)));
    vst1q_f32(dst + 4, vreinterpretq_f32_s32(vorrq_s32(y, high)));
}

void lik_neon_widen(float *dst, const void *src, int32_t dtype, int64_t n)
{
    if (dtype == LIK_F32) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
        return;
    }
    int64_t k = 0;
    for (; k + 8 <= n; k += 8) {
        if (dtype == LIK_F16) {
            widen_halves(dst + k, vld1q_u16((const uint16_t *)src + k), LIK_F16);
            continue;
        }
        if (dtype == LIK_BF16) {
            widen_halves(dst + k, vld1q_u16((const uint16_t *)src + k), LIK_BF16);
            continue;
        }
        uint8x8_t bytes = vld1_u8((const uint8_t *)src + k);
        if (dtype == LIK_I8) {
            int16x8_t wide = vmovl_s8(vreinterpret_s8_u8(bytes));
            vst1q_f32(dst + k, vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))));
            vst1q_f32(dst + k + 4, vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide))));
        } else if (dtype == LIK_E5M2) { /* the upper byte of an f16 */
            widen_halves(dst + k, vshll_n_u8(bytes, 8), LIK_F16);
        } else {
            widen_e4m3(dst + k, bytes);
        }
    }
    for (; k < n; k++)
        dst[k] = lik_load_f32(src, dtype, k);
}

void lik_neon_narrow(void *dst, const float *src, int32_t dtype, int64_t n)
{
    int64_t k = 0;
    if (dtype == LIK_F32) {
        memcpy(dst, src, (size_t)n * sizeof *src);
        return;
    }
    if (dtype == LIK_F16)
        for (; k + 4 <= n; k += 4)
            vst1_u16((uint16_t *)dst + k, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(src + k))));
    for (; k < n; k++)
        lik_store_f32(dst, dtype, k, src[k]);
}

/* sum + (scale * x) * (scale * y), four elements. */
FORCE_INLINE float32x4_t add_products(float32x4_t sum, const int scaled, float scale, const float *x,
                                      const float *y)
{
    float32x4_t a = vld1q_f32(x), b = vld1q_f32(y);
    if (scaled) {
        a = vmulq_n_f32(a, scale);
        b = vmulq_n_f32(b, scale);
    }
    return vfmaq_f32(sum, a, b);
}

/* 16 elements at a time into four sums, what is left of whole vectors into the first. */
FORCE_INLINE float dot_scaled(const int scaled, float scale, const float *x, const float *y, int64_t n)
{
    float32x4_t acc[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    int64_t k = 0;
    for (; k + 16 <= n; k += 16) {
        UNROLL
        for (int i = 0; i < 4; i++)
            acc[i] = add_products(acc[i], scaled, scale, x + k + 4 * i, y + k + 4 * i);
    }
    for (; k + 4 <= n; k += 4)
        acc[0] = add_products(acc[0], scaled, scale, x + k, y + k);
    float rest = 0;
    for (; k < n; k++)
        rest += scaled ? scale * x[k] * (scale * y[k]) : x[k] * y[k];
    return vaddvq_f32(vaddq_f32(vaddq_f32(acc[0], acc[1]), vaddq_f32(acc[2], acc[3]))) + rest;
}

float lik_neon_dot(const float *x, const float *y, int64_t n)
{
    return dot_scaled(0, 1, x, y, n);
}

float lik_neon_sum_squares(const float *x, int64_t n)
{
    return dot_scaled(0, 1, x, x, n);
}

float lik_neon_sum_squares_of(float scale, const float *x, int64_t n)
{
    return dot_scaled(1, scale, x, x, n);
}

float lik_neon_sum(const float *x, const float *w, int64_t n)
{
    float32x4_t acc = vdupq_n_f32(0);
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        acc = w ? vfmaq_f32(acc, vld1q_f32(x + i), vld1q_f32(w + i)) : vaddq_f32(acc, vld1q_f32(x + i));
    float rest = 0;
    for (; i < n; i++)
        rest += w ? x[i] * w[i] : x[i];
    return vaddvq_f32(acc) + rest;
}

void lik_neon_add_scaled(float *acc, const float *x, float factor, int64_t n)
{
    int64_t k = 0;
    for (; k + 4 <= n; k += 4)
        vst1q_f32(acc + k, vfmaq_n_f32(vld1q_f32(acc + k), vld1q_f32(x + k), factor));
    for (; k < n; k++)
        acc[k] = __builtin_fmaf(x[k], factor, acc[k]);
}

const struct lik_cpu_kernels lik_kernels_neon = {
    .level = "neon",
    LIK_NEON_FLOATS(.integer_words = 8),
    .i8_q16 = LIK_NEON_SHAPES(lik_neon_i8_q16),
    .i8_q7 = LIK_NEON_SHAPES(lik_neon_i8_q7),
};
