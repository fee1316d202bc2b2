/* Which tokens training looks at: a shuffling that a seed names, each entry computed for
 * itself. Included by C and CUDA alike. */
#ifndef LIK_SHARED_SAMPLE_H
#define LIK_SHARED_SAMPLE_H

#include "base/size.h"
#include "shared/tokens.h"

#include <string.h>

#define LIK_HELD_OUT_MAX 50000 /* tokens whose residuals make the buckets */

/* Entry n of the numbers 0 ... count - 1, shuffled: a Feistel cipher on the next power of four,
 * applied again until it falls below count. */
LIK_INLINE int64_t lik_shuffled(int64_t n, int64_t count, uint64_t seed)
{
    int half = 1;
    while ((count - 1) >> 2 * half)
        half++;
    const uint64_t mask = ((uint64_t)1 << half) - 1;
    uint64_t x = (uint64_t)n;
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint64_t round = 1; round <= 6; round++) { /* splitmix64's finish as the round function */
            uint64_t z = right ^ (seed + round * 0x9e3779b97f4a7c15u);
            z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
            z = (z ^ z >> 27) * 0x94d049bb133111ebu;
            z = (z ^ z >> 31) & mask;
            z ^= left;
            left = right;
            right = z;
        }
        x = left << half | right;
    } while (x >= (uint64_t)count);
    return (int64_t)x;
}

/* How many of `kept` tokens are held out, the first of the shuffled ones: never so many that
 * fewer than the centroids remain. */
LIK_INLINE int64_t lik_train_held_out(const struct lik_train *op, int64_t kept)
{
    int64_t share = kept / 20 < LIK_HELD_OUT_MAX ? kept / 20 : LIK_HELD_OUT_MAX;
    int64_t rest = kept > op->centroid_count ? kept - op->centroid_count : 0;
    return share < rest ? share : rest;
}

/* How many k-means sees, the next ones; never fewer of more tokens. */
static inline int64_t lik_train_points(const struct lik_train *op, int64_t kept)
{
    int64_t most, rest = kept - lik_train_held_out(op, kept);
    return lik_mul_i64(op->centroid_count, op->points_per_centroid, &most) ? rest : lik_min_i64(most, rest);
}

/* An upper bound, for any number of kept tokens up to `rows`, of how many make the buckets: all
 * that k-means sees where none is held out. */
static inline int64_t lik_train_bucket_tokens(const struct lik_train *op, int64_t rows)
{
    int64_t few = lik_min_i64(lik_max_i64(op->centroid_count, 20), rows);
    return lik_min_i64(lik_max_i64(few, rows / 20), LIK_HELD_OUT_MAX);
}

/* The centroids that are trained, as a codec's. */
static inline struct lik_codec lik_train_codec(const struct lik_train *op)
{
    struct lik_codec codec;
    memset(&codec, 0, sizeof codec);
    codec.struct_size = sizeof codec;
    codec.centroids = op->centroids;
    codec.centroid_count = op->centroid_count;
    codec.centroids_dtype = LIK_F32;
    return codec;
}

/* The position of quantile part / parts among n sorted values: *below of them, and how far it
 * is to the next. */
LIK_INLINE double lik_quantile_position(int64_t n, int64_t part, int64_t parts, int64_t *below)
{
    *below = (n - 1) * part / parts;
    return (double)((n - 1) * part % parts) / (double)parts;
}

#endif
