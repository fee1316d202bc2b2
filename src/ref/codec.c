/* Decoding and encoding in the oracle, one token and one element at a time. */
#include "ref/ref.h"

int lik_ref_token_of_row(const struct lik_tokens *x, int64_t row, struct lik_ref_token *token)
{
    int64_t i = lik_tokens_sequence(x, row), t = i < 0 ? 0 : row - lik_tokens_row(x, i);
    if (i < 0 || !lik_token_kept(x, i, t))
        return 0;
    *token = lik_ref_token(x, i, t);
    return 1;
}

int64_t lik_ref_nearest(const struct lik_ref_token *q, const struct lik_tokens *d)
{
    int64_t nearest = 0;
    double most = 0;
    for (int64_t t = 0; t < d->len_max; t++) {
        struct lik_ref_token token = lik_ref_token(d, 0, t);
        double product = lik_ref_product(q, &token);
        if (t == 0 || (!isnan(most) && !(product <= most))) {
            most = product;
            nearest = t;
        }
    }
    return nearest;
}

int lik_ref_decode_run(const struct lik_decode *op)
{
    int64_t dim = op->x.dim;
    for (int64_t row = 0; row < lik_tokens_rows(&op->x); row++) {
        struct lik_ref_token token;
        int kept = lik_ref_token_of_row(&op->x, row, &token);
        for (int64_t from = 0; from < dim; from += LIK_REF_SPAN) {
            float span[LIK_REF_SPAN];
            int64_t n = lik_min_i64(LIK_REF_SPAN, dim - from);
            if (kept)
                lik_ref_load(&token, from, n, span);
            for (int64_t k = 0; k < n; k++)
                lik_store_f32(op->out, op->out_dtype, row * dim + from + k,
                              kept ? (float)(token.factor * (double)span[k]) : 0);
        }
    }
    return LIK_OK;
}

/* The residual of a token into `bytes`, which are 0; returns the squared norm of what it
 * decodes to. */
static double encode_token(const struct lik_encode *op, const struct lik_ref_token *token,
                           const struct lik_ref_token *centroid, uint8_t *bytes)
{
    const struct lik_codec *codec = op->codec;
    double squares = 0;
    for (int64_t from = 0; from < op->x.dim; from += LIK_REF_SPAN) {
        float own[LIK_REF_SPAN], nearest[LIK_REF_SPAN];
        int64_t n = lik_min_i64(LIK_REF_SPAN, op->x.dim - from);
        lik_ref_load(token, from, n, own);
        lik_ref_load(centroid, from, n, nearest);
        for (int64_t k = 0; k < n; k++) {
            float decoded = nearest[k];
            if (codec->bits) {
                float element = (float)(token->factor * (double)own[k]) - nearest[k];
                int bucket = lik_bucket_of(op->cutoffs, codec->bits, element);
                lik_residual_put(bytes, from + k, codec->bits, codec->bit_order, bucket);
                decoded += lik_load_f32(codec->weights, codec->weights_dtype, bucket);
            }
            squares += (double)decoded * (double)decoded;
        }
    }
    return squares;
}

int lik_ref_encode_run(const struct lik_encode *op)
{
    struct lik_tokens centroids = lik_centroids(op->codec, op->x.dim);
    int64_t token_bytes = lik_residual_bytes(op->x.dim, op->codec->bits);
    for (int64_t row = 0; row < lik_tokens_rows(&op->x); row++) {
        struct lik_ref_token token, centroid;
        uint8_t *bytes = op->residuals ? op->residuals + row * token_bytes : NULL;
        int64_t code = 0;
        float inv_norm = 0;
        for (int64_t b = 0; b < token_bytes; b++)
            bytes[b] = 0;
        if (lik_ref_token_of_row(&op->x, row, &token)) {
            code = lik_ref_nearest(&token, &centroids);
            centroid = lik_ref_token(&centroids, 0, code);
            double norm = sqrt(encode_token(op, &token, &centroid, bytes));
            inv_norm = (float)(1 / (norm < LIK_NORM_MIN ? LIK_NORM_MIN : norm));
        }
        lik_code_put(op->codes, op->codes_dtype, row, code);
        if (op->inv_norms)
            lik_inv_norm_put(op->inv_norms, op->inv_norms_dtype, row, inv_norm);
    }
    return LIK_OK;
}
