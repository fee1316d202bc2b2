/* How compressed tokens (LIK_RESIDUAL) become numbers: their codes, their elements, what
 * normalizes them. A codec is a host's struct whose pointers are the device's, so kernels take
 * a copy of it in their arguments; the pointer to it is not followed here.
 *
 * A code out of range makes its token NaN, and nothing is read through it. */
#ifndef LIK_CUDA_COMPRESSED_CUH
#define LIK_CUDA_COMPRESSED_CUH

#include "cuda/codec.cuh"
#include "shared/residual.h"

/* A token: where its residual begins, and its centroid's number, -1 if there is no such one. */
struct coded_token {
    int64_t at, code;
};

/* Token t of the sequence whose residuals and codes begin at these places. */
LIK_DEVICE struct coded_token coded_token_at(const struct lik_tokens &x, const struct lik_codec &codec,
                                             int64_t base, int64_t codes_base, int64_t t)
{
    struct coded_token token = {base + t * x.strides.token, 0};
    token.code = lik_code_at(&x, codes_base + t * x.codes_strides.token);
    if (token.code < 0 || token.code >= codec.centroid_count)
        token.code = -1;
    return token;
}

LIK_DEVICE float round_to(int dtype, float x)
{
    return dtype == LIK_F32   ? x
           : dtype == LIK_F16 ? __half2float(__float2half_rn(x))
                              : __bfloat162float(__float2bfloat16_rn(x));
}

/* Elements k ... k + 7 of a token, zeros past `dim`. */
LIK_DEVICE void decode_8(const struct lik_tokens &x, const struct lik_codec &codec,
                         const struct coded_token &token, int k, float (&v)[8])
{
    const int64_t stride = codec.centroid_stride ? codec.centroid_stride : x.dim;
    const uint8_t *bytes = (const uint8_t *)x.data + token.at;
    const int n = (int)x.dim - k;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        v[i] = 0.0f;
        if (i >= n)
            continue;
        if (token.code < 0) {
            v[i] = __uint_as_float(0x7fc00000u);
            continue;
        }
        float centroid = load_element(codec.centroids, codec.centroids_dtype, token.code * stride + k + i);
        v[i] = round_to(x.dtype, centroid);
        if (!codec.bits)
            continue;
        int bucket = lik_residual_bucket(bytes, k + i, codec.bits, codec.bit_order);
        float weight = load_element(codec.weights, codec.weights_dtype, bucket);
        v[i] = round_to(x.dtype, __fadd_rn(v[i], round_to(x.dtype, weight)));
    }
}

/* A token's scale, which may be stored in f16. */
LIK_DEVICE float coded_scale(const struct lik_tokens &x, int64_t scale_base, int t)
{
    if (!x.scale)
        return 1.0f;
    return load_element(x.scale, x.scale_dtype == LIK_F16 ? LIK_F16 : LIK_F32,
                        scale_base + t * x.scale_strides.token);
}

/* 1 over the length of a token, or over LIK_NORM_MIN, from the sum of its squares. */
LIK_DEVICE float coded_unit_of(float squares)
{
    const float factor = rsqrtf(squares);
    return factor > 1.0f / (float)LIK_NORM_MIN ? 1.0f / (float)LIK_NORM_MIN : factor;
}

/* What makes a unit vector of the token x = `own` times its elements, as unit_factor. Four
 * neighboring lanes (`lane` 0 to 3) call together; each has four elements of every 16, in the
 * order in which a lane of mma's A operand may hold them: the same bits from every kernel. */
LIK_DEVICE float coded_unit_factor(const struct lik_tokens &x, const struct lik_codec &codec,
                                   const struct coded_token &token, float own, int lane)
{
    unsigned lanes = 0xfu << (threadIdx.x & 28u);
    float scale = 1.0f;
    for (int attempt = 0;; attempt++) {
        float squares = 0.0f, largest = 0.0f;
        for (int k = lane * 4; k < (int)x.dim; k += 16) {
            float v[8];
            decode_8(x, codec, token, k & ~7, v);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float e = lane & 1 ? v[4 + i] : v[i], y = __fmul_rn(e, scale);
                squares = __fmaf_rn(y, y, squares);
                largest = fmaxf(largest, fabsf(e));
            }
        }
#pragma unroll
        for (int o = 1; o < 4; o *= 2) {
            squares = __fadd_rn(squares, __shfl_xor_sync(lanes, squares, o));
            largest = fmaxf(largest, __shfl_xor_sync(lanes, largest, o));
        }
        bool lost = squares > 1e37f || (squares < 1e-30f && largest > 0.0f);
        if (!lost && !attempt && own == 1.0f)
            return coded_unit_of(squares);
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

#endif
