/* Quantization in the oracle: the nearest of all 8-bit numbers, looked for. */
#include "ref/ref.h"

/* The code of the number nearest to v, of two the one whose last bit is 0. */
static uint8_t nearest(float v, int32_t dtype)
{
    int best = 0;
    double least = INFINITY;
    if (isnan(v))
        return dtype == LIK_I8 ? 0 : 0x7f;
    for (int code = 0; code < 256; code++) {
        const uint8_t bytes[4] = {(uint8_t)code};
        double number = (double)lik_load_f32(bytes, dtype, 0);
        double apart = fabs((double)v - number);
        int usable = isfinite(number) && (dtype == LIK_I8 || (code >= 128) == (signbit(v) != 0));
        if (usable && (apart < least || (apart == least && !(code & 1)))) {
            least = apart;
            best = code;
        }
    }
    return (uint8_t)best;
}

/* Element k as it counts without normalization, in f32. */
static float element(const struct lik_ref_token *token, int64_t k)
{
    float stored;
    lik_ref_load(token, k, 1, &stored);
    return (float)(token->factor * (double)stored);
}

/* The largest |element|, or NaN. */
static float largest_of(const struct lik_ref_token *token, int64_t dim)
{
    float largest = 0;
    for (int64_t k = 0; k < dim; k++) {
        float x = fabsf(element(token, k));
        largest = isnan(x) || isnan(largest) ? NAN : fmaxf(largest, x);
    }
    return largest;
}

static float scale_of(int32_t dtype, float largest)
{
    float most = dtype == LIK_I8     ? 127
                 : dtype == LIK_E4M3 ? 448
                                     : 57344,
          least = dtype == LIK_I8 ? 1e-12F : 1e-6F;
    return (isnan(largest) || largest > least ? largest : least) / most;
}

int lik_ref_quantize_run(const struct lik_quantize *op)
{
    struct lik_tokens x = op->x; /* not normalized: the values are the same */
    struct lik_ref_token token;
    int64_t dim = x.dim, rows = lik_tokens_rows(&x);
    float largest = 0;
    x.normalize = 0;
    for (int64_t row = 0; row < rows && op->one_scale; row++)
        if (lik_ref_token_of_row(&x, row, &token)) {
            float own = largest_of(&token, dim);
            largest = isnan(own) || isnan(largest) ? NAN : fmaxf(largest, own);
        }
    if (op->one_scale)
        op->scales[0] = scale_of(op->values_dtype, largest);
    for (int64_t row = 0; row < rows; row++) {
        uint8_t *values = (uint8_t *)op->values + row * dim;
        int kept = lik_ref_token_of_row(&x, row, &token);
        float scale = op->one_scale ? op->scales[0]
                      : kept        ? scale_of(op->values_dtype, largest_of(&token, dim))
                                    : 0;
        double squares = 0;
        for (int64_t k = 0; k < dim; k++) {
            float own = kept ? element(&token, k) : 0;
            values[k] = kept ? nearest(own / scale, op->values_dtype) : 0;
            squares += (double)own * (double)own;
        }
        if (op->x.normalize && kept)
            scale = (float)((double)scale / (sqrt(squares) < LIK_NORM_MIN ? LIK_NORM_MIN : sqrt(squares)));
        if (!op->one_scale)
            op->scales[row] = scale;
    }
    return LIK_OK;
}
