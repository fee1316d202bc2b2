/* Elements of 8 bits as f16 or bf16, which hold each of them exactly. */
#ifndef LIK_CUDA_WIDEN_CUH
#define LIK_CUDA_WIDEN_CUH

#include "cuda/codec.cuh"

/* Four elements as two pairs of f16. */
template <int from> LIK_DEVICE void widen_to_f16(uint32_t bytes, uint32_t (&to)[2])
{
    if (from == LIK_E5M2) { /* an f16 that lacks the last byte */
        to[0] = __byte_perm(bytes, 0, 0x1404);
        to[1] = __byte_perm(bytes, 0, 0x3424);
    } else if (from == LIK_I8) { /* 1024 + 128 + x, less 1152 */
        const uint32_t biased = bytes ^ 0x80808080u, less = 0x64806480u;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t pair = __byte_perm(biased, 0x64646464u, i ? 0x4342 : 0x4140);
            __half2 x = __hsub2(*(const __half2 *)&pair, *(const __half2 *)&less);
            to[i] = *(const uint32_t *)&x;
        }
    } else {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            __half2_raw x = __nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)(bytes >> 16 * i), __NV_E4M3);
            to[i] = (uint32_t)x.y << 16 | x.x;
        }
    }
}

/* A pair of f16 as bf16. */
LIK_DEVICE uint32_t bf16_of_f16(uint32_t pair)
{
    const float2 v = __half22float2(*(const __half2 *)&pair);
    const __nv_bfloat162 x = __floats2bfloat162_rn(v.x, v.y);
    return *(const uint32_t *)&x;
}

/* Four elements as two pairs of f16, or of bf16. */
template <int from, bool bf16> LIK_DEVICE void widen_4(uint32_t bytes, uint32_t (&to)[2])
{
    if (bf16 && from == LIK_I8) { /* 128 and the lower 7 bits, less 128, or 256 where the sign is set */
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint32_t more = __byte_perm(bytes & 0x7f7f7f7fu, 0x43434343u, i ? 0x4342 : 0x4140),
                           less = __byte_perm(bytes & 0x80808080u, 0x43434343u, i ? 0x4342 : 0x4140);
            const __nv_bfloat162 x = __hsub2(*(const __nv_bfloat162 *)&more, *(const __nv_bfloat162 *)&less);
            to[i] = *(const uint32_t *)&x;
        }
        return;
    }
    widen_to_f16<from>(bytes, to);
    if (bf16) {
        to[0] = bf16_of_f16(to[0]);
        to[1] = bf16_of_f16(to[1]);
    }
}

#endif
