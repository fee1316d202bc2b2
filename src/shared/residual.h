/* Tokens that have codes, bit by bit: which code a token has, which bucket an element, read
 * and written. Included by C and CUDA alike. */
#ifndef LIK_SHARED_RESIDUAL_H
#define LIK_SHARED_RESIDUAL_H

#include "shared/tokens.h"

#include <string.h>

/* Bytes of residual a token. */
LIK_INLINE int64_t lik_residual_bytes(int64_t dim, int32_t bits)
{
    return dim / 8 * bits + (dim % 8 * bits + 7) / 8;
}

/* Elements from one centroid to the next. */
LIK_INLINE int64_t lik_centroid_stride(const struct lik_tokens *x)
{
    return x->codec->centroid_stride ? x->codec->centroid_stride : x->dim;
}

/* Where centroid `code` begins; its element has this many bytes. */
LIK_INLINE const char *lik_centroid_at(const struct lik_tokens *x, int64_t code, int64_t element_bytes)
{
    return (const char *)x->codec->centroids + code * lik_centroid_stride(x) * element_bytes;
}

/* The centroids as one document. */
LIK_INLINE struct lik_tokens lik_centroids(const struct lik_codec *codec, int64_t dim)
{
    struct lik_tokens x;
    memset(&x, 0, sizeof x);
    x.struct_size = sizeof x;
    x.dtype = codec->centroids_dtype;
    x.count = 1;
    x.len_max = codec->centroid_count;
    x.dim = dim;
    x.dim_stride = 1;
    x.data = codec->centroids;
    x.strides.token = codec->centroid_stride ? codec->centroid_stride : dim;
    x.scale_dtype = LIK_F32;
    return x;
}

/* What codes number: 0 to one less than this. */
LIK_INLINE int64_t lik_code_count(const struct lik_tokens *x)
{
    return x->storage == LIK_ONE_HOT ? x->dim : x->codec->centroid_count;
}

/* Entry `at` of the codes. */
LIK_INLINE int64_t lik_code_at(const struct lik_tokens *x, int64_t at)
{
    switch (x->codes_dtype) {
    case LIK_I16: return ((const uint16_t *)x->codes)[at];
    case LIK_I32: return ((const int32_t *)x->codes)[at];
    default: return ((const int64_t *)x->codes)[at];
    }
}

/* Entry `at` of codes that are written. */
LIK_INLINE void lik_code_put(void *codes, int32_t dtype, int64_t at, int64_t code)
{
    switch (dtype) {
    case LIK_I16: ((uint16_t *)codes)[at] = (uint16_t)code; break;
    case LIK_I32: ((int32_t *)codes)[at] = (int32_t)code; break;
    default: ((int64_t *)codes)[at] = code; break;
    }
}

/* `bits` bits, the lowest of which becomes the highest. */
LIK_INLINE int lik_reversed_bits(int number, int bits)
{
    int reversed = 0;
    for (int b = 0; b < bits; b++)
        reversed |= (number >> b & 1) << (bits - 1 - b);
    return reversed;
}

/* By how much a byte is shifted down for element f of it, 0 ... 8 / bits - 1. In ColBERT's
 * order the bits that are lowest then are the bucket's number in reverse. */
LIK_INLINE int lik_residual_shift(int bits, int bit_order, int f)
{
    return bit_order == LIK_BITS_COLBERT ? 8 - bits - f * bits : f * bits;
}

/* The bucket of element k of a token whose residual is `bytes`; bits >= 1. */
LIK_INLINE int lik_residual_bucket(const uint8_t *bytes, int64_t k, int bits, int bit_order)
{
    int per_byte = 8 / bits;
    int number = bytes[k / per_byte] >> lik_residual_shift(bits, bit_order, (int)(k % per_byte));
    number &= (1 << bits) - 1;
    return bit_order == LIK_BITS_COLBERT ? lik_reversed_bits(number, bits) : number;
}

/* Puts the bucket of element k into a token's residual, which was 0 there; bits >= 1. */
LIK_INLINE void lik_residual_put(uint8_t *bytes, int64_t k, int bits, int bit_order, int bucket)
{
    int per_byte = 8 / bits;
    int number = bit_order == LIK_BITS_COLBERT ? lik_reversed_bits(bucket, bits) : bucket;
    number <<= lik_residual_shift(bits, bit_order, (int)(k % per_byte));
    bytes[k / per_byte] = (uint8_t)(bytes[k / per_byte] | number);
}

/* The bucket of an element that remains: how many cutoffs, which ascend, are below it. */
LIK_INLINE int lik_bucket_of(const float *cutoffs, int bits, float element)
{
    int below = 0;
    for (int step = 1 << bits >> 1; step > 0; step >>= 1)
        below += cutoffs[below + step - 1] < element ? step : 0;
    return below;
}

#endif
