/* The body of a level's decode: `decode` of its file with bits, the centroids' dtype and what
 * is rounded to as constants. */
#ifndef LIK_CPU_DECODE_H
#define LIK_CPU_DECODE_H

#include "cpu/kernels.h"
#include "cpu/unroll.h"

#define LIK_DECODE_BY_DTYPE(decode, bits, to)                                            \
    switch (decoder->centroids_dtype) {                                                  \
    case LIK_F32: decode(decoder, dst, centroid, bytes, dim, bits, LIK_F32, to); return; \
    case LIK_F16: decode(decoder, dst, centroid, bytes, dim, bits, LIK_F16, to); return; \
    default: decode(decoder, dst, centroid, bytes, dim, bits, LIK_BF16, to); return;     \
    }

#define LIK_DECODE_BY_ROUNDING(decode, bits)                        \
    switch (decoder->round_to) {                                    \
    case LIK_F32: LIK_DECODE_BY_DTYPE(decode, bits, LIK_F32) break; \
    case LIK_F16: LIK_DECODE_BY_DTYPE(decode, bits, LIK_F16) break; \
    default: LIK_DECODE_BY_DTYPE(decode, bits, LIK_BF16) break;     \
    }

#define LIK_DECODE_BY_CODEC(decode)                   \
    switch (decoder->bits) {                          \
    case 0: LIK_DECODE_BY_ROUNDING(decode, 0) break;  \
    case 1: LIK_DECODE_BY_ROUNDING(decode, 1) break;  \
    case 2: LIK_DECODE_BY_ROUNDING(decode, 2) break;  \
    case 4: LIK_DECODE_BY_ROUNDING(decode, 4) break;  \
    default: LIK_DECODE_BY_ROUNDING(decode, 8) break; \
    }

/* Asks for a centroid and a residual that come soon. */
FORCE_INLINE void lik_ask_ahead(const struct lik_cpu_compressed *tokens, int64_t t, const int bits,
                                const int64_t dim)
{
    const char *centroid = tokens->centroids[t + LIK_DECODE_AHEAD];
    for (int64_t at = 0; at < (int64_t)sizeof(struct lik_cpu_rounded) + dim; at += 64)
        __builtin_prefetch(centroid + at);
    for (int64_t at = 0; at < dim * bits / 8; at += 64)
        __builtin_prefetch((const void *)((uintptr_t)tokens->bytes[t] + tokens->ahead + (uintptr_t)at));
}

/* The same of its decode_i8, which is of at most 4 bits. */
#define LIK_DECODE_I8_BY_CODEC(decode_i8)             \
    switch (decoder->bits * 2 + decoder->top_first) { \
    case 2: decode_i8(tokens, 1, 0); break;           \
    case 3: decode_i8(tokens, 1, 1); break;           \
    case 4: decode_i8(tokens, 2, 0); break;           \
    case 5: decode_i8(tokens, 2, 1); break;           \
    case 8: decode_i8(tokens, 4, 0); break;           \
    case 9: decode_i8(tokens, 4, 1); break;           \
    default: decode_i8(tokens, 0, 0); break;          \
    }

#endif
