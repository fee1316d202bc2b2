/* Views, contiguous or cut from others: pure functions, with no backend behind them. */
#include "base/error.h"
#include "shared/operand.h"

struct lik_tokens lik_tokens_padded(const void *data, int32_t dtype, int64_t count, int64_t len, int64_t dim)
{
    struct lik_tokens x = {
        .struct_size = sizeof x, .dtype = dtype, .count = count, .len_max = len, .dim = dim};
    x.data = data;
    x.dim_stride = 1;
    x.strides.token = dim;
    /* refused when the operation checks the sizes */
    if (__builtin_mul_overflow(len, dim, &x.strides.sequence))
        x.strides.sequence = INT64_MAX;
    struct lik_strides rows = {.sequence = len, .token = 1};
    x.mask_strides = x.scale_strides = x.weights_strides = x.codes_strides = rows;
    return x;
}

struct lik_tokens lik_tokens_packed(const void *data, int32_t dtype, int64_t count, int64_t len_max,
                                    int64_t total, int64_t dim, const void *offsets, int32_t offsets_dtype)
{
    struct lik_tokens x = {
        .struct_size = sizeof x, .dtype = dtype, .count = count, .len_max = len_max, .dim = dim};
    x.data = data;
    x.total = total;
    x.dim_stride = 1;
    x.strides.token = dim;
    x.offsets = offsets;
    x.offsets_dtype = offsets_dtype;
    x.mask_strides = x.scale_strides = x.weights_strides = x.codes_strides = (struct lik_strides){.token = 1};
    return x;
}

struct lik_tokens lik_tokens_compressed(struct lik_tokens contiguous, const struct lik_codec *codec,
                                        const void *codes, int32_t codes_dtype)
{
    struct lik_tokens x = contiguous;
    x.storage = LIK_RESIDUAL;
    x.codec = codec;
    x.codes = codes;
    x.codes_dtype = codes_dtype;
    x.strides.token = codec ? lik_residual_bytes(x.dim, codec->bits) : 0;
    if (!x.offsets && __builtin_mul_overflow(x.len_max, x.strides.token, &x.strides.sequence))
        x.strides.sequence = INT64_MAX; /* refused when the operation checks the sizes */
    return x;
}

int lik_tokens_slice(const struct lik_tokens *x, int64_t first, int64_t count, struct lik_tokens *out)
{
    if (!x || !out)
        return lik_fail(LIK_EINVAL, "%s is NULL", x ? "out" : "x");
    if (first < 0 || count < 0 || first > x->count || count > x->count - first)
        return lik_fail(LIK_EINVAL, "first is %lld and count %lld, x has %lld sequences", (long long)first,
                        (long long)count, (long long)x->count);
    if (x->group_size < 0)
        return lik_fail(LIK_EINVAL, "x.group_size is %lld, must not be negative", (long long)x->group_size);
    struct lik_tokens slice;
    if (lik_operand_slice(x, first, count, &slice))
        return lik_fail(LIK_EINVAL,
                        "first is %lld and count %lld: must be whole groups of x or lie within one "
                        "(group_size is %lld), and its strides within 2^63 bytes",
                        (long long)first, (long long)count, (long long)x->group_size);
    *out = slice;
    return lik_succeed();
}
