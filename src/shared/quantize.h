/* 8-bit numbers of quantization, for C and CUDA: bounds, and how f32 becomes one. */
#ifndef LIK_SHARED_QUANTIZE_H
#define LIK_SHARED_QUANTIZE_H

#include "shared/tokens.h"

#include <string.h>

/* The largest number of a dtype. */
LIK_INLINE float lik_quantize_most(int32_t dtype)
{
    return dtype == LIK_I8 ? 127.0f : dtype == LIK_E4M3 ? 448.0f : 57344.0f;
}

/* A token's largest element counts as at least this. */
LIK_INLINE float lik_quantize_least(int32_t dtype)
{
    return dtype == LIK_I8 ? 1e-12f : 1e-6f;
}

/* NaN stays one. */
LIK_INLINE float lik_quantize_scale(int32_t dtype, float largest)
{
    float least = lik_quantize_least(dtype);
    return (largest < least ? least : largest) / lik_quantize_most(dtype);
}

LIK_INLINE int32_t lik_float_bits(float x)
{
    int32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

LIK_INLINE float lik_bits_float(int32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* To the nearest, ties to even: adding 1.5 * 2^23 leaves the integer in the lowest bits. */
LIK_INLINE uint8_t lik_as_i8(float v)
{
    return (uint8_t)lik_float_bits(v + 12582912.0f);
}

/* To the nearest, ties to even; |v| is at most the largest number. `shift` are the bits of the
 * mantissa that go, `lowest` the smallest normal number, `magic` a number whose last bit is the
 * smallest subnormal one, `rebias` the difference of the exponents' biases, in place. */
LIK_INLINE uint8_t lik_as_float8(float v, int shift, float lowest, float magic, int32_t rebias)
{
    int32_t bits = lik_float_bits(v), magnitude = bits & INT32_MAX;
    int32_t rounded = magnitude + (1 << (shift - 1)) - 1 + ((magnitude >> shift) & 1);
    int32_t normal = (rounded >> shift) - rebias;
    int32_t subnormal = lik_float_bits(lik_bits_float(magnitude) + magic) - lik_float_bits(magic);
    int32_t code = lik_bits_float(magnitude) < lowest ? subnormal : normal;
    return (uint8_t)(code | (int32_t)((uint32_t)bits >> 24 & 0x80));
}

LIK_INLINE uint8_t lik_as_e4m3(float v)
{
    return lik_as_float8(v, 20, 0x1p-6f, 0x1p14f, (127 - 7) << 3);
}

LIK_INLINE uint8_t lik_as_e5m2(float v)
{
    return lik_as_float8(v, 21, 0x1p-14f, 0x1p7f, (127 - 15) << 2);
}

/* The squares of quantized elements are added in this order: element k to sum k % SUMS, then
 * neighbors. It is that of eight lanes with every eighth run of eight elements each. */
#define LIK_QUANTIZE_SUMS 64

#endif
