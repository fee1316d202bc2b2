/* One token as f32, its norm and its factor: what packing, loading and gradients have in
 * common. */
#include "cpu/driver.h"

#include "base/dtype.h"

void lik_cpu_load_token(const struct lik_cpu_kernels *kernels, const struct lik_tokens *x, int64_t i,
                        int64_t t, float *dst)
{
    int64_t at = lik_tokens_base(x, &x->strides, i) + t * x->strides.token;
    if (x->dim_stride == 1) {
        kernels->widen(dst, (const char *)x->data + at * (int64_t)lik_dtype_bytes(x->dtype), x->dtype,
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
