/* The body of a level's decode: `decode` of its file with bits, the centroids' dtype and what
 * is rounded to as constants. */
#ifndef LIK_CPU_DECODE_H
#define LIK_CPU_DECODE_H

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

/* The same of its decode_i8, which is of at most 4 bits. */
#define LIK_DECODE_I8_BY_CODEC(decode_i8)                       \
    switch (decoder->bits * 2 + decoder->top_first) {           \
    case 2: return decode_i8(dst, centroid, bytes, dim, 1, 0);  \
    case 3: return decode_i8(dst, centroid, bytes, dim, 1, 1);  \
    case 4: return decode_i8(dst, centroid, bytes, dim, 2, 0);  \
    case 5: return decode_i8(dst, centroid, bytes, dim, 2, 1);  \
    case 8: return decode_i8(dst, centroid, bytes, dim, 4, 0);  \
    case 9: return decode_i8(dst, centroid, bytes, dim, 4, 1);  \
    default: return decode_i8(dst, centroid, bytes, dim, 0, 0); \
    }

#endif
