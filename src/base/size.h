/* Checked size arithmetic: each function returns 0 and stores the result, or returns -1 if it
 * does not fit. */
#ifndef LIK_BASE_SIZE_H
#define LIK_BASE_SIZE_H

#include <stddef.h>
#include <stdint.h>

__attribute__((warn_unused_result)) static inline int lik_mul_i64(int64_t a, int64_t b, int64_t *out)
{
    return __builtin_mul_overflow(a, b, out) ? -1 : 0;
}

__attribute__((warn_unused_result)) static inline int lik_add_i64(int64_t a, int64_t b, int64_t *out)
{
    return __builtin_add_overflow(a, b, out) ? -1 : 0;
}

static inline int64_t lik_min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t lik_max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* a / b rounded up, for a >= 0 and b > 0: no sum that might not fit. */
static inline int64_t lik_divide_up(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

/* n rounded up to a multiple of `to`, a power of two; n must leave room for it. */
static inline int64_t lik_round_up(int64_t n, int64_t to)
{
    return (n + to - 1) & ~(to - 1);
}

#endif
