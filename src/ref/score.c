/* The forward pass of the oracle: for each query token the products with every kept document
 * token in order, the first largest of them (or the first NaN) kept, weighted and summed in
 * f64, and rounded to f32 once. */
#include "ref/ref.h"

/* Element k of a compressed token. */
static float decoded(const struct lik_ref_token *token, int64_t k)
{
    const struct lik_tokens *x = token->of;
    const struct lik_codec *codec = x->codec;
    float element =
        lik_load_f32(codec->centroids, codec->centroids_dtype, token->code * lik_centroid_stride(x) + k);
    element = lik_round_f32(element, x->dtype);
    if (!codec->bits)
        return element;
    const uint8_t *bytes = (const uint8_t *)x->data + token->at;
    int bucket = lik_residual_bucket(bytes, k, codec->bits, codec->bit_order);
    float weight = lik_load_f32(codec->weights, codec->weights_dtype, bucket);
    return lik_round_f32(element + lik_round_f32(weight, x->dtype), x->dtype);
}

void lik_ref_load(const struct lik_ref_token *token, int64_t from, int64_t n, float *out)
{
    const struct lik_tokens *x = token->of;
    for (int64_t k = 0; k < n; k++)
        out[k] = x->storage == LIK_RESIDUAL
                     ? decoded(token, from + k)
                     : lik_load_f32(x->data, x->dtype, token->at + (from + k) * x->dim_stride);
}

struct lik_ref_token lik_ref_token(const struct lik_tokens *x, int64_t i, int64_t t)
{
    struct lik_ref_token token = {.of = x, .factor = 1};
    token.at = lik_tokens_base(x, &x->strides, i) + t * x->strides.token;
    if (x->storage != LIK_DENSE)
        token.code = lik_code_at(x, lik_tokens_base(x, &x->codes_strides, i) + t * x->codes_strides.token);
    if (x->scale)
        token.factor = (double)lik_load_f32(
            x->scale, x->scale_dtype, lik_tokens_base(x, &x->scale_strides, i) + t * x->scale_strides.token);
    if (!x->normalize)
        return token;
    double squares = 0;
    for (int64_t from = 0; from < x->dim; from += LIK_REF_SPAN) {
        float span[LIK_REF_SPAN];
        int64_t n = lik_min_i64(LIK_REF_SPAN, x->dim - from);
        lik_ref_load(&token, from, n, span);
        for (int64_t k = 0; k < n; k++)
            squares += (double)span[k] * (double)span[k];
    }
    double norm = fabs(token.factor) * sqrt(squares);
    token.clamped = norm < LIK_NORM_MIN;
    token.factor /= token.clamped ? LIK_NORM_MIN : norm;
    return token;
}

double lik_ref_product(const struct lik_ref_token *q, const struct lik_ref_token *d)
{
    double sum = 0;
    if (d->of->storage == LIK_ONE_HOT) {
        float element;
        lik_ref_load(q, d->code, 1, &element);
        return (double)element;
    }
    for (int64_t from = 0; from < q->of->dim; from += LIK_REF_SPAN) {
        float a[LIK_REF_SPAN], b[LIK_REF_SPAN];
        int64_t n = lik_min_i64(LIK_REF_SPAN, q->of->dim - from);
        lik_ref_load(q, from, n, a);
        lik_ref_load(d, from, n, b);
        for (int64_t k = 0; k < n; k++)
            sum += (double)a[k] * (double)b[k];
    }
    return q->factor * d->factor * sum;
}

float lik_ref_score(const struct lik_score *op, int64_t i, int64_t j, int64_t row, int want_argmax)
{
    int64_t q_length = lik_tokens_length(&op->q, i), d_length = lik_tokens_length(&op->d, j);
    double score = 0;
    for (int64_t s = 0; s < op->q.len_max; s++) {
        double best = 0;
        int64_t best_t = -1;
        if (s < q_length && lik_token_kept(&op->q, i, s)) {
            struct lik_ref_token q = lik_ref_token(&op->q, i, s);
            for (int64_t t = 0; t < d_length; t++) {
                if (!lik_token_kept(&op->d, j, t))
                    continue;
                struct lik_ref_token d = lik_ref_token(&op->d, j, t);
                double product = lik_ref_product(&q, &d);
                if (best_t < 0 || (!isnan(best) && !(product <= best))) {
                    best = product;
                    best_t = t;
                }
            }
        }
        if (best_t >= 0)
            score += lik_ref_weight(&op->q, i, s) * best;
        if (want_argmax)
            lik_argmax_put(op, row, s, best_t);
    }
    return (float)score;
}

int lik_ref_score_run(const struct lik_score *op)
{
    int64_t rows = lik_score_rows(op), columns = lik_score_columns(op);
    for (int64_t row = 0; columns > 0 && row < rows; row++)
        for (int64_t column = 0; column < columns; column++) {
            int64_t i = lik_score_query(op, row), j = lik_score_document(op, row, column);
            float score = lik_ref_score(op, i, j, row * columns + column, op->argmax != NULL);
            op->scores[row * op->scores_stride + column] = score;
        }
    return LIK_OK;
}
