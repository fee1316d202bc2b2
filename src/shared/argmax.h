/* The argmax of a problem: one token number for each score, counted row by row, and each query
 * token. */
#ifndef LIK_SHARED_ARGMAX_H
#define LIK_SHARED_ARGMAX_H

#include "shared/tokens.h"

LIK_INLINE int64_t lik_argmax_at(const struct lik_score *op, int64_t score, int64_t s)
{
    int64_t at = score * op->q.len_max + s;
    return op->argmax_dtype == LIK_I16 ? ((const int16_t *)op->argmax)[at]
                                       : ((const int32_t *)op->argmax)[at];
}

LIK_INLINE void lik_argmax_put(const struct lik_score *op, int64_t score, int64_t s, int64_t t)
{
    int64_t at = score * op->q.len_max + s;
    if (op->argmax_dtype == LIK_I16)
        ((int16_t *)op->argmax)[at] = (int16_t)t;
    else
        ((int32_t *)op->argmax)[at] = (int32_t)t;
}

#endif
