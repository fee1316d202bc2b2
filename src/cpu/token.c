/* One token as f32, its norm and its factor: what packing, loading and gradients have in
 * common. */
#include "cpu/driver.h"

#include "base/dtype.h"
#include "shared/residual.h"

void lik_cpu_reader_init(struct lik_cpu_reader *reader, const struct lik_cpu_kernels *kernels,
                         const struct lik_tokens *x)
{
    reader->kernels = kernels;
    reader->x = x;
    if (x->storage != LIK_RESIDUAL)
        return;
    const struct lik_codec *codec = x->codec;
    struct lik_cpu_decoder *decoder = &reader->decoder;
    decoder->bits = codec->bits;
    decoder->top_first = codec->bit_order == LIK_BITS_COLBERT;
    decoder->centroids_dtype = codec->centroids_dtype;
    decoder->round_to = x->dtype;
    decoder->weights_size = 0;
    for (int f = 0; f < 8 && codec->bits; f++) {
        int first = f * codec->bits / 8 * 8, within = f % (8 / codec->bits);
        decoder->shifts[f] = first + lik_residual_shift(codec->bits, codec->bit_order, within);
    }
    for (int n = 0; codec->bits && n < 1 << codec->bits; n++) {
        int bucket = decoder->top_first ? lik_reversed_bits(n, codec->bits) : n;
        decoder->weights[n] =
            lik_round_f32(lik_load_f32(codec->weights, codec->weights_dtype, bucket), x->dtype);
        float size = fabsf(decoder->weights[n]);
        if (!isnan(decoder->weights_size) && !(decoder->weights_size >= size))
            decoder->weights_size = size;
    }
}

void lik_cpu_prefetch_token(const struct lik_tokens *x, int64_t i, int64_t t)
{
    if (x->storage == LIK_RESIDUAL) { /* its centroid; the bytes come in order */
        int64_t entry = lik_tokens_base(x, &x->codes_strides, i) + t * x->codes_strides.token;
        int64_t element_bytes = (int64_t)lik_dtype_bytes(x->codec->centroids_dtype);
        lik_cpu_prefetch(lik_centroid_at(x, lik_code_at(x, entry), element_bytes), x->dim * element_bytes);
    } else if (x->storage == LIK_DENSE && x->dim_stride == 1) {
        int64_t at = lik_tokens_base(x, &x->strides, i) + t * x->strides.token;
        int64_t element_bytes = (int64_t)lik_dtype_bytes(x->dtype);
        lik_cpu_prefetch((const char *)x->data + at * element_bytes, x->dim * element_bytes);
    }
}

static void load_compressed(const struct lik_cpu_reader *reader, int64_t i, int64_t t, float *dst)
{
    const struct lik_tokens *x = reader->x;
    const struct lik_codec *codec = x->codec;
    int64_t code = lik_code_at(x, lik_tokens_base(x, &x->codes_strides, i) + t * x->codes_strides.token);
    const char *centroid = lik_centroid_at(x, code, (int64_t)lik_dtype_bytes(codec->centroids_dtype));
    const uint8_t *bytes = NULL;
    if (codec->bits)
        bytes = (const uint8_t *)x->data + lik_tokens_base(x, &x->strides, i) + t * x->strides.token;
    reader->kernels->decode(&reader->decoder, dst, centroid, bytes, x->dim);
}

void lik_cpu_load_token(const struct lik_cpu_reader *reader, int64_t i, int64_t t, float *dst)
{
    const struct lik_tokens *x = reader->x;
    if (x->storage == LIK_RESIDUAL) {
        load_compressed(reader, i, t, dst);
        return;
    }
    int64_t at = lik_tokens_base(x, &x->strides, i) + t * x->strides.token;
    if (x->dim_stride == 1) {
        reader->kernels->widen(dst, (const char *)x->data + at * (int64_t)lik_dtype_bytes(x->dtype), x->dtype,
                               x->dim);
        return;
    }
    for (int64_t k = 0; k < x->dim; k++)
        dst[k] = lik_load_f32(x->data, x->dtype, at + k * x->dim_stride);
}

float lik_cpu_token_factor(const struct lik_cpu_kernels *kernels, const struct lik_tokens *x, float scale,
                           const float *raw)
{
    if (!x->normalize)
        return scale;
    return scale / lik_clamp_norm(fabsf(scale) * lik_cpu_norm(kernels, raw, x->dim));
}
