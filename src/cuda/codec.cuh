/* How stored tokens become numbers: lengths, masks, factors and elements of an operand, read on
 * the device.
 *
 * Nothing here trusts what lies in device memory: a sequence index or an offset out of range
 * gives length -1, and the score concerned becomes NaN. */
#ifndef LIK_CUDA_CODEC_CUH
#define LIK_CUDA_CODEC_CUH

#include "cuda/copy.cuh"
#include "shared/tokens.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

/* The element offset of no token. Strides may be negative, and so may offsets. */
#define LIK_NOWHERE INT64_MIN

/* Tokens of sequence i before any mask, or -1. */
LIK_DEVICE int sequence_length(const struct lik_tokens &x, int64_t i)
{
    if (i < 0 || i >= x.count)
        return -1;
    if (!x.offsets)
        return (int)x.len_max;
    int64_t from = lik_offset_at(&x, i), to = lik_offset_at(&x, i + 1);
    return from < 0 || to < from || to > x.total || to - from > x.len_max ? -1 : (int)(to - from);
}

LIK_DEVICE bool token_kept(const struct lik_tokens &x, int64_t mask_base, int t)
{
    return !x.mask || x.mask[mask_base + t * x.mask_strides.token];
}

/* One element as f32, without its scale. */
LIK_DEVICE float load_element(const void *data, int dtype, int64_t at)
{
    switch (dtype) {
    case LIK_F32: return ((const float *)data)[at];
    case LIK_F16: return __half2float(((const __half *)data)[at]);
    case LIK_BF16: return __bfloat162float(((const __nv_bfloat16 *)data)[at]);
    case LIK_E4M3: return __half2float(__nv_cvt_fp8_to_halfraw(((const uint8_t *)data)[at], __NV_E4M3));
    case LIK_E5M2: return __half2float(__nv_cvt_fp8_to_halfraw(((const uint8_t *)data)[at], __NV_E5M2));
    default: return (float)((const int8_t *)data)[at];
    }
}

LIK_DEVICE void unpack_halves(uint4 raw, int dtype, float (&v)[8])
{
    const uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (dtype == LIK_BF16) {
            v[2 * i] = __uint_as_float(word[i] << 16);
            v[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
        } else {
            float2 pair = __half22float2(*(const __half2 *)&word[i]);
            v[2 * i] = pair.x;
            v[2 * i + 1] = pair.y;
        }
    }
}

/* Elements k ... k + 7 of the token at `at`, zeros past `dim`. `vector`: the tokens are
 * contiguous and aligned to min(16, 8 elements) bytes. */
LIK_DEVICE void load_8(const struct lik_tokens &x, int64_t at, int k, bool vector, float (&v)[8])
{
    int n = (int)x.dim - k;
    if (vector && n >= 8) {
        if (x.dtype == LIK_F32) {
            const float4 *p = (const float4 *)((const float *)x.data + at + k);
            float4 a = p[0], b = p[1];
            v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
            return;
        }
        if (x.dtype == LIK_F16 || x.dtype == LIK_BF16) {
            unpack_halves(*(const uint4 *)((const uint16_t *)x.data + at + k), x.dtype, v);
            return;
        }
        uint2 raw = *(const uint2 *)((const uint8_t *)x.data + at + k);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            uint8_t byte = (uint8_t)((i < 4 ? raw.x : raw.y) >> 8 * (i & 3));
            v[i] = x.dtype == LIK_I8 ? (float)(int8_t)byte
                                     : __half2float(__nv_cvt_fp8_to_halfraw(
                                           byte, x.dtype == LIK_E4M3 ? __NV_E4M3 : __NV_E5M2));
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] = i < n ? load_element(x.data, x.dtype, at + (k + i) * x.dim_stride) : 0.0f;
}

/* What makes a unit vector of the token x = `own` times the elements at `at`: own / max(|x|,
 * LIK_NORM_MIN). Eight lanes (`lane` 0 to 7) take every eighth run of 8 elements each, always
 * in the same order, so that every kernel gets the same bits. The eight lanes must be neighbors
 * and call together. A sum of squares that leaves the range of f32 is taken again with the
 * elements scaled. */
LIK_DEVICE float unit_factor(const struct lik_tokens &x, int64_t at, float own, int lane, bool vector)
{
    unsigned lanes = 0xffu << (threadIdx.x & 24u);
    float scale = 1.0f;
    for (int attempt = 0;; attempt++) {
        float squares = 0.0f, largest = 0.0f;
#pragma unroll 2
        for (int k = lane * 8; k < (int)x.dim; k += 64) {
            float v[8];
            load_8(x, at, k, vector, v);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                float y = __fmul_rn(v[i], scale);
                squares = __fmaf_rn(y, y, squares);
                largest = fmaxf(largest, fabsf(v[i]));
            }
        }
#pragma unroll
        for (int o = 1; o < 8; o *= 2) {
            squares = __fadd_rn(squares, __shfl_xor_sync(lanes, squares, o));
            largest = fmaxf(largest, __shfl_xor_sync(lanes, largest, o));
        }
        bool lost = squares > 1e37f || (squares < 1e-30f && largest > 0.0f);
        if (!lost || attempt || isinf(largest) || isnan(squares)) {
            float norm = __fdiv_rn(__fsqrt_rn(squares), scale);
            float length = __fmul_rn(fabsf(own), norm);
            return __fdiv_rn(own, lik_clamp_norm(length));
        }
        int exponent;
        frexpf(largest, &exponent);
        scale = ldexpf(1.0f, exponent > 120 ? -120 : exponent < -120 ? 120 : -exponent);
    }
}

LIK_DEVICE float token_scale(const struct lik_tokens &x, int64_t scale_base, int t)
{
    return x.scale ? x.scale[scale_base + t * x.scale_strides.token] : 1.0f;
}

LIK_DEVICE float round_to_bf16(float x)
{
    return __bfloat162float(__float2bfloat16_rn(x));
}

/* Takes the leading bf16 off `rest`. Truncated, so that three of them hold an f32 exactly; the
 * last plane is rounded. */
LIK_DEVICE uint16_t take_plane(float &rest, bool last)
{
    float plane = last ? round_to_bf16(rest) : __uint_as_float(__float_as_uint(rest) & 0xffff0000u);
    if (isnan(rest) || isinf(rest)) {
        plane = isnan(rest) ? __uint_as_float(0x7fc00000u) : rest;
        rest = 0.0f;
    } else {
        rest -= plane;
    }
    return (uint16_t)(__float_as_uint(plane) >> 16);
}

/* Eight elements as planes, the p-th at `to` + p * plane_bytes; as take_plane, but that an
 * infinity leaves NaN. */
template <int planes> LIK_DEVICE void split_8(float (&v)[8], char *to, int plane_bytes)
{
#pragma unroll
    for (int p = 0; p < planes; p++) {
        uint32_t word[4];
#pragma unroll
        for (int e = 0; e < 8; e += 2) {
            uint32_t low = __float_as_uint(v[e]), high = __float_as_uint(v[e + 1]);
            if (p == planes - 1) {
                __nv_bfloat162 pair = __floats2bfloat162_rn(v[e], v[e + 1]);
                word[e / 2] = *(const uint32_t *)&pair;
            } else {
                word[e / 2] = __byte_perm(low, high, 0x7632);
                v[e] -= __uint_as_float(low & 0xffff0000u);
                v[e + 1] -= __uint_as_float(high & 0xffff0000u);
            }
        }
        *(uint4 *)(to + p * plane_bytes) = make_uint4(word[0], word[1], word[2], word[3]);
    }
}

LIK_DEVICE void split_8(float (&v)[8], int planes, char *to, int plane_bytes)
{
    switch (planes) {
    case 3: return split_8<3>(v, to, plane_bytes);
    case 2: return split_8<2>(v, to, plane_bytes);
    default: return split_8<1>(v, to, plane_bytes);
    }
}

#endif
