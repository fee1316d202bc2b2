/* Scalar conversions between f32 and the narrow dtypes, exact where the value is representable,
 * else rounded to nearest even. No backend may depend on the processor's rounding or denormal
 * mode here: integer arithmetic only. */
#ifndef LIK_BASE_DTYPE_H
#define LIK_BASE_DTYPE_H

#include "lik/lik.h"

#include <string.h>

static inline float lik_f32_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t lik_bits_of_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float lik_bf16_to_f32(uint16_t x)
{
    return lik_f32_of_bits((uint32_t)x << 16);
}

static inline uint16_t lik_bf16_of_f32(float value)
{
    uint32_t bits = lik_bits_of_f32(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u); /* keep a NaN a NaN */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline float lik_f16_to_f32(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000u) << 16, exponent = x >> 10 & 0x1fu, mantissa = x & 0x3ffu;
    if (exponent == 31)
        return lik_f32_of_bits(sign | 0x7f800000u | mantissa << 13 | (mantissa ? 0x400000u : 0));
    if (exponent == 0) {
        float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    return lik_f32_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

static inline uint16_t lik_f16_of_f32(float value)
{
    uint32_t bits = lik_bits_of_f32(value), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (rest >= 0x477ff000u) /* 65520 and up round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (rest >= 0x38800000u) /* normal */
        return (uint16_t)(sign | (rest - 0x38000000u + 0xfffu + (rest >> 13 & 1u)) >> 13);
    if (rest < 0x33000000u) /* below half of the smallest denormal */
        return (uint16_t)sign;
    uint32_t shift = 126 - (rest >> 23), mantissa = (rest & 0x7fffffu) | 0x800000u;
    uint32_t kept = mantissa >> shift, lost = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
    return (uint16_t)(sign | (kept + (lost > half || (lost == half && (kept & 1u)))));
}

static inline float lik_e4m3_to_f32(uint8_t x)
{
    uint32_t exponent = x >> 3 & 15u, mantissa = x & 7u;
    if ((x & 0x7fu) == 0x7fu)
        return lik_f32_of_bits(0x7fc00000u);
    float value =
        exponent ? lik_f32_of_bits((exponent + 120) << 23 | mantissa << 20) : (float)mantissa * 0x1p-9f;
    return x & 0x80u ? -value : value;
}

static inline float lik_e5m2_to_f32(uint8_t x)
{
    return lik_f16_to_f32((uint16_t)((uint16_t)x << 8));
}

/* Numbers ordered as the floats are, -0 before +0, and back. */
static inline uint32_t lik_order_of_f32(float value)
{
    uint32_t bits = lik_bits_of_f32(value);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

static inline float lik_f32_of_order(uint32_t order)
{
    return lik_f32_of_bits(order >> 31 ? order & 0x7fffffffu : ~order);
}

/* Element `index` of `data` as f32, without its scale. */
static inline float lik_load_f32(const void *data, int32_t dtype, int64_t index)
{
    switch (dtype) {
    case LIK_F32: return ((const float *)data)[index];
    case LIK_F16: return lik_f16_to_f32(((const uint16_t *)data)[index]);
    case LIK_BF16: return lik_bf16_to_f32(((const uint16_t *)data)[index]);
    case LIK_E4M3: return lik_e4m3_to_f32(((const uint8_t *)data)[index]);
    case LIK_E5M2: return lik_e5m2_to_f32(((const uint8_t *)data)[index]);
    default: return (float)((const int8_t *)data)[index];
    }
}

/* The nearest value of F32, F16 or BF16. */
static inline float lik_round_f32(float value, int32_t dtype)
{
    switch (dtype) {
    case LIK_F16: return lik_f16_to_f32(lik_f16_of_f32(value));
    case LIK_BF16: return lik_bf16_to_f32(lik_bf16_of_f32(value));
    default: return value;
    }
}

/* Stores f32 as F32, F16 or BF16. */
static inline void lik_store_f32(void *data, int32_t dtype, int64_t index, float value)
{
    switch (dtype) {
    case LIK_F32: ((float *)data)[index] = value; break;
    case LIK_F16: ((uint16_t *)data)[index] = lik_f16_of_f32(value); break;
    default: ((uint16_t *)data)[index] = lik_bf16_of_f32(value); break;
    }
}

/* The same of an inverse norm, which in F16 is finite. */
static inline void lik_inv_norm_put(void *data, int32_t dtype, int64_t index, float value)
{
    lik_store_f32(data, dtype, index, dtype == LIK_F16 && value > 65504 ? 65504 : value);
}

#endif
