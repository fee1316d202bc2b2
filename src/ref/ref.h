/* The oracle: the operation as lik.h defines it, one product at a time, in f64, on the calling
 * thread, without workspace.
 *
 * A token is `dim` stored elements with a scale. Its vector is
 *
 *     v = x / max(|x|, 1e-12)    with `normalize`
 *     v = x                      without                  where x = scale * stored
 *
 * and so always the stored elements times one factor.
 *
 * Elements are read through a window of SPAN on the stack, so that any dim works and nothing is
 * allocated. */
#ifndef LIK_REF_H
#define LIK_REF_H

#include "base/dtype.h"
#include "base/size.h"
#include "core/backend.h"
#include "shared/argmax.h"

#include <math.h>

#define LIK_REF_SPAN 256

struct lik_ref_token {
    const struct lik_tokens *of;
    int64_t at;    /* index of element 0 in of->data */
    double factor; /* the token's vector is factor times its stored elements */
    int clamped;   /* normalized, and |x| is below 1e-12 */
};

/* Is token t of sequence i kept by the mask? */
static inline int lik_ref_kept(const struct lik_tokens *x, int64_t i, int64_t t)
{
    return !x->mask || x->mask[lik_tokens_base(x, &x->mask_strides, i) + t * x->mask_strides.token];
}

/* Weight of query token s of query i. */
static inline double lik_ref_weight(const struct lik_tokens *q, int64_t i, int64_t s)
{
    if (!q->weights)
        return 1;
    return (double)q->weights[lik_tokens_base(q, &q->weights_strides, i) + s * q->weights_strides.token];
}

/* Stored elements from ... from + n - 1 of a token; n <= LIK_REF_SPAN. */
void lik_ref_load(const struct lik_ref_token *token, int64_t from, int64_t n, float *out);

/* Token t of sequence i, which must be kept: reads it if it has to be normalized. */
struct lik_ref_token lik_ref_token(const struct lik_tokens *x, int64_t i, int64_t t);

/* Inner product of the two tokens' vectors. */
double lik_ref_product(const struct lik_ref_token *q, const struct lik_ref_token *d);

/* Score of query i and document j; argmax gets one index a query token of the row `row` of
 * op->argmax if it is wanted. */
float lik_ref_score(const struct lik_score *op, int64_t i, int64_t j, int64_t row, int want_argmax);

int lik_ref_score_run(const struct lik_score *op);
int lik_ref_topk_run(const struct lik_topk *op);
int lik_ref_grad_run(const struct lik_grad *op);

#endif
