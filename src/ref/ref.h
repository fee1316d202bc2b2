/* The oracle: the operation as lik.h defines it, one product at a time, in f64, on the calling
 * thread, without workspace (but training, which has to remember what it found).
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
#include "shared/residual.h"

#include <float.h>
#include <math.h>

#define LIK_REF_SPAN 256

struct lik_ref_token {
    const struct lik_tokens *of;
    int64_t at;    /* index of element 0 in of->data */
    int64_t code;  /* LIK_RESIDUAL, LIK_ONE_HOT */
    double factor; /* the token's vector is factor times its stored elements */
    int clamped;   /* normalized, and |x| is below 1e-12 */
};

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

/* The token of a row of a contiguous array; 0 if there is none, or it is dropped. */
int lik_ref_token_of_row(const struct lik_tokens *x, int64_t row, struct lik_ref_token *token);

/* The first token of sequence 0 of d, whose mask is not looked at, with the largest product, or
 * with the first NaN. */
int64_t lik_ref_nearest(const struct lik_ref_token *q, const struct lik_tokens *d);

int lik_ref_score_run(const struct lik_score *op);
int lik_ref_topk_run(const struct lik_topk *op);
int lik_ref_grad_run(const struct lik_grad *op);
int lik_ref_decode_run(const struct lik_decode *op);
int lik_ref_encode_run(const struct lik_encode *op);
int lik_ref_quantize_run(const struct lik_quantize *op);
int lik_ref_train(const struct lik_context *, const struct lik_train *, struct lik_exec *, struct lik_plan *);

#endif
