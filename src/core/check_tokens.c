/* Checks of one operand: its layout, its arrays, its storage. See check_tokens.h. */
#include "core/check_tokens.h"

#include "base/size.h"
#include "shared/operand.h"

#include <stdio.h>
#include <string.h>

/* A struct of at least our size; what a newer header added must be zero. */
int lik_check_struct(const char *name, const void *in, size_t size)
{
    if (!in)
        return lik_fail(LIK_EINVAL, "%s is NULL", name);
    size_t given;
    memcpy(&given, in, sizeof given);
    if (given < size)
        return lik_fail(LIK_EINVAL, "%s.struct_size is %zu, must be at least %zu", name, given, size);
    if (given > size + 4096)
        return lik_fail(LIK_EINVAL, "%s.struct_size is %zu, this library knows %zu", name, given, size);
    for (size_t i = size; i < given; i++)
        if (((const char *)in)[i])
            return lik_fail(
                LIK_EUNSUPPORTED,
                "%s.struct_size is %zu and its fields past byte %zu, the size this library knows, are set",
                name, given, size);
    return LIK_OK;
}

int lik_check_aligned(const char *name, const char *field, const void *pointer, size_t bytes)
{
    if (bytes && (uintptr_t)pointer % bytes)
        return lik_fail(LIK_EINVAL, "%s%s is %p, must be aligned to %zu bytes", name, field, pointer, bytes);
    return LIK_OK;
}

/* The offset of the last entry, its index times |stride| summed over the axes, must stay one in
 * bytes. */
static int check_array(const char *name, const struct lik_tokens *x, const struct lik_operand_array *array)
{
    int64_t extents[4], reach = 0;
    const int64_t strides[4] = {array->strides.group, array->strides.sequence, array->strides.token,
                                array->inner_stride};
    lik_operand_extents(x, array, extents);
    for (int i = 0; i < 4; i++) {
        /* packed: an empty sequence may end at the last row */
        int64_t term, last = i == 2 && x->offsets ? x->total : extents[i] - 1;
        if (last <= 0)
            continue;
        if (strides[i] == INT64_MIN || lik_mul_i64(last, strides[i] < 0 ? -strides[i] : strides[i], &term) ||
            lik_add_i64(reach, term, &reach) || lik_mul_i64(reach, array->element_bytes, &term))
            return lik_fail(LIK_EINVAL, "%s.%s: stride %lld over %lld entries passes 2^63 bytes", name,
                            array->strides_name, (long long)strides[i], (long long)extents[i]);
    }
    return LIK_OK;
}

/* Addresses first: they tell more than strides. */
static int check_arrays(const char *name, const struct lik_tokens *x)
{
    for (int n = 0; n < LIK_OPERAND_ARRAYS; n++) {
        struct lik_operand_array array = lik_array_of(x, n);
        if (array.at && (uintptr_t)array.at % (size_t)array.element_bytes)
            return lik_fail(LIK_EINVAL, "%s.%s is %p, must be aligned to %lld bytes", name, array.name,
                            array.at, (long long)array.element_bytes);
    }
    for (int n = 0; n < LIK_OPERAND_ARRAYS; n++) {
        struct lik_operand_array array = lik_array_of(x, n);
        if ((array.at || (n == LIK_DATA && x->storage != LIK_ONE_HOT)) && check_array(name, x, &array))
            return LIK_EINVAL;
    }
    return LIK_OK;
}

/* A length of 0 becomes that of the longest sequence. */
static int find_longest(const char *name, struct lik_tokens *x)
{
    int64_t longest = 0, rows;
    for (int64_t i = 0; i < x->count; i++)
        longest = lik_max_i64(longest, lik_offset_at(x, i + 1) - lik_offset_at(x, i));
    if (longest > INT32_MAX)
        return lik_fail(LIK_EINVAL, "%s has a sequence of %lld tokens, at most %d may be", name,
                        (long long)longest, INT32_MAX);
    if (lik_mul_i64(x->count, longest, &rows))
        return lik_fail(LIK_EINVAL,
                        "%s.count is %lld and its longest sequence %lld: their product passes 2^63", name,
                        (long long)x->count, (long long)longest);
    x->len_max = longest;
    return LIK_OK;
}

int lik_check_offsets(const char *name, const struct lik_tokens *x, int64_t len_max)
{
    int64_t last = lik_offset_at(x, 0);
    if (last < 0)
        return lik_fail(LIK_EINVAL, "%s.offsets[0] is %lld, must not be negative", name, (long long)last);
    for (int64_t i = 1; i <= x->count; i++) {
        int64_t next = lik_offset_at(x, i);
        if (next < last)
            return lik_fail(LIK_EINVAL, "%s.offsets[%lld] is %lld, less than %s.offsets[%lld], which is %lld",
                            name, (long long)i, (long long)next, name, (long long)(i - 1), (long long)last);
        if (next - last > len_max)
            return lik_fail(LIK_EINVAL, "%s.len_max is %lld, sequence %lld has %lld tokens", name,
                            (long long)len_max, (long long)(i - 1), (long long)(next - last));
        last = next;
    }
    if (last > x->total)
        return lik_fail(LIK_EINVAL, "%s.offsets[%lld] is %lld, %s.total is %lld", name, (long long)x->count,
                        (long long)last, name, (long long)x->total);
    return LIK_OK;
}

static int check_layout(const struct lik_context *ctx, const char *name, struct lik_tokens *x)
{
    int64_t rows;
    if (x->group_size < 0)
        return lik_fail(LIK_EINVAL, "%s.group_size is %lld, must not be negative", name,
                        (long long)x->group_size);
    if (x->offsets) {
        if (x->offsets_dtype != LIK_I32 && x->offsets_dtype != LIK_I64)
            return lik_fail(LIK_EINVAL, "%s.offsets_dtype is %d, must be LIK_I32 or LIK_I64", name,
                            x->offsets_dtype);
        if (x->total < 0)
            return lik_fail(LIK_EINVAL, "%s.total is %lld, must not be negative", name, (long long)x->total);
        if (x->group_size)
            return lik_fail(LIK_EINVAL, "%s.group_size is %lld, but %s is packed (offsets set)", name,
                            (long long)x->group_size, name);
        if (lik_mul_i64(x->count, lik_max_i64(x->len_max, 8), &rows)) /* 8: the bytes of an offset */
            return lik_fail(LIK_EINVAL, "%s.count is %lld and %s.len_max %lld: their product passes 2^63",
                            name, (long long)x->count, name, (long long)x->len_max);
        if (lik_check_aligned(name, ".offsets", x->offsets, lik_dtype_bytes(x->offsets_dtype)))
            return LIK_EINVAL;
        if (ctx->backend->host_memory && (lik_check_offsets(name, x, x->len_max ? x->len_max : INT64_MAX) ||
                                          (!x->len_max && find_longest(name, x))))
            return LIK_EINVAL;
        rows = x->total;
    } else {
        if (x->offsets_dtype)
            return lik_fail(LIK_EINVAL, "%s.offsets is NULL, %s.offsets_dtype is %d: 0 if %s is padded", name,
                            name, x->offsets_dtype, name);
        if (x->group_size && x->count % x->group_size)
            return lik_fail(LIK_EINVAL, "%s.count is %lld, no multiple of %s.group_size, which is %lld", name,
                            (long long)x->count, name, (long long)x->group_size);
        if (lik_mul_i64(x->count, x->len_max, &rows))
            return lik_fail(LIK_EINVAL, "%s.count is %lld and %s.len_max %lld: their product passes 2^63",
                            name, (long long)x->count, name, (long long)x->len_max);
    }
    int64_t bytes, token_bytes = x->storage == LIK_ONE_HOT ? 8 : x->dim * 4;
    if (lik_mul_i64(rows, token_bytes, &bytes))
        return lik_fail(LIK_EINVAL, "%s has %lld tokens of dim %lld: its size passes 2^63 bytes", name,
                        (long long)rows, (long long)x->dim);
    int without_data = x->storage == LIK_ONE_HOT || (x->storage == LIK_RESIDUAL && x->codec->bits == 0);
    if (rows > 0 && !x->data && !without_data)
        return lik_fail(LIK_EINVAL, "%s.data is NULL, %s has %lld tokens", name, name, (long long)rows);
    if (rows > 0 && !x->codes && x->storage != LIK_DENSE)
        return lik_fail(LIK_EINVAL, "%s.codes is NULL, %s has %lld tokens", name, name, (long long)rows);
    return LIK_OK;
}

int lik_dtype_is_float(int32_t dtype)
{
    return dtype == LIK_F32 || dtype == LIK_F16 || dtype == LIK_BF16;
}

int lik_check_bits(const char *name, int32_t bits)
{
    if (bits != 0 && bits != 1 && bits != 2 && bits != 4 && bits != 8)
        return lik_fail(LIK_EINVAL, "%s is %d, must be 0, 1, 2, 4 or 8", name, bits);
    return LIK_OK;
}

/* What all compressed tokens share. */
int lik_check_codec(const char *name, const struct lik_codec *c, int64_t dim)
{
    int64_t stride = c->centroid_stride ? c->centroid_stride : dim, bytes;
    if (c->struct_size != sizeof *c)
        return lik_fail(LIK_EINVAL, "%s.struct_size is %zu, must be %zu", name, c->struct_size, sizeof *c);
    for (size_t i = 0; i < sizeof c->reserved / sizeof *c->reserved; i++)
        if (c->reserved[i])
            return lik_fail(LIK_EUNSUPPORTED, "%s.reserved[%zu] is set, must be zero", name, i);
    char field[64];
    snprintf(field, sizeof field, "%s.bits", name);
    if (lik_check_bits(field, c->bits))
        return LIK_EINVAL;
    if (c->bit_order != LIK_BITS_LOW_FIRST && c->bit_order != LIK_BITS_COLBERT)
        return lik_fail(LIK_EINVAL,
                        "%s.bit_order is %d, must be LIK_BITS_LOW_FIRST (0) or LIK_BITS_COLBERT (1)", name,
                        c->bit_order);
    if (!lik_dtype_is_float(c->centroids_dtype))
        return lik_fail(LIK_EINVAL, "%s.centroids_dtype is %d (%s), must be f32, f16 or bf16", name,
                        c->centroids_dtype, lik_dtype_name(c->centroids_dtype));
    if (c->centroid_count < 0 || c->centroid_count > INT32_MAX)
        return lik_fail(LIK_EINVAL, "%s.centroid_count is %lld, must be 0 to %d", name,
                        (long long)c->centroid_count, INT32_MAX);
    if (stride < dim || lik_mul_i64(lik_max_i64(c->centroid_count, 1), stride, &bytes) ||
        lik_mul_i64(bytes, 4, &bytes))
        return lik_fail(LIK_EINVAL,
                        "%s.centroid_stride is %lld, must be at least dim, which is %lld, and %lld of it "
                        "within 2^63 bytes",
                        name, (long long)stride, (long long)dim, (long long)c->centroid_count);
    if (c->centroid_count > 0 && !c->centroids)
        return lik_fail(LIK_EINVAL, "%s.centroids is NULL, there are %lld", name,
                        (long long)c->centroid_count);
    if (c->bits && !lik_dtype_is_float(c->weights_dtype))
        return lik_fail(LIK_EINVAL, "%s.weights_dtype is %d (%s), must be f32, f16 or bf16", name,
                        c->weights_dtype, lik_dtype_name(c->weights_dtype));
    if (c->bits && !c->weights)
        return lik_fail(LIK_EINVAL, "%s.weights is NULL, %d bits have %d", name, c->bits, 1 << c->bits);
    if (lik_check_aligned(name, ".centroids", c->centroids, lik_dtype_bytes(c->centroids_dtype)))
        return LIK_EINVAL;
    return c->bits ? lik_check_aligned(name, ".weights", c->weights, lik_dtype_bytes(c->weights_dtype))
                   : LIK_OK;
}

static int check_one_hot(const char *name, const struct lik_tokens *x)
{
    const char *set = x->data ? "data" : x->codec ? "codec" : x->scale ? "scale" : NULL;
    if (x->dtype != LIK_F32)
        return lik_fail(LIK_EINVAL, "%s.dtype is %d (%s), with LIK_ONE_HOT it must be f32", name, x->dtype,
                        lik_dtype_name(x->dtype));
    if (set)
        return lik_fail(LIK_EINVAL, "%s.%s is set, with LIK_ONE_HOT it must be NULL", name, set);
    if (x->normalize)
        return lik_fail(LIK_EINVAL, "%s.normalize is %d, with LIK_ONE_HOT it must be 0", name, x->normalize);
    return LIK_OK;
}

static int check_compressed(const char *name, const struct lik_tokens *x)
{
    const struct lik_codec *c = x->codec;
    if (!c)
        return lik_fail(LIK_EINVAL, "%s.codec is NULL, %s.storage is LIK_RESIDUAL", name, name);
    if (!lik_dtype_is_float(x->dtype))
        return lik_fail(LIK_EINVAL, "%s.dtype is %d (%s), with LIK_RESIDUAL it must be f32, f16 or bf16",
                        name, x->dtype, lik_dtype_name(x->dtype));
    if (x->dim_stride != 1 && c->bits)
        return lik_fail(LIK_EINVAL, "%s.dim_stride is %lld, with LIK_RESIDUAL it must be 1", name,
                        (long long)x->dim_stride);
    char field[64];
    snprintf(field, sizeof field, "%s.codec", name);
    return lik_check_codec(field, c, x->dim);
}

/* What goes with the storage. */
static int check_storage(const char *name, const struct lik_tokens *x)
{
    if (x->storage == LIK_DENSE) {
        if (x->codec || x->codes || x->codes_dtype)
            return lik_fail(LIK_EINVAL, "%s.%s is set, %s.storage is LIK_DENSE", name,
                            x->codec   ? "codec"
                            : x->codes ? "codes"
                                       : "codes_dtype",
                            name);
        return LIK_OK;
    }
    if (x->codes_dtype != LIK_I16 && x->codes_dtype != LIK_I32 && x->codes_dtype != LIK_I64)
        return lik_fail(LIK_EINVAL, "%s.codes_dtype is %d (%s), must be i16, i32 or i64", name,
                        x->codes_dtype, lik_dtype_name(x->codes_dtype));
    return x->storage == LIK_ONE_HOT ? check_one_hot(name, x) : check_compressed(name, x);
}

/* Are `n` codes that lie together, from entry `at` on, all within 0 ... last? A difference that
 * is below zero shows in its highest bit, so that no code takes a branch: one pass over 16 MB
 * comes before a score that takes 10 ms. */
static int codes_within(const struct lik_tokens *x, int64_t at, int64_t n, int64_t last)
{
    uint64_t below = 0;
    uint32_t below_32 = 0;
    switch (x->codes_dtype) {
    case LIK_I16:
        for (int64_t t = 0; last < UINT16_MAX && t < n; t++)
            below_32 |= (uint32_t)last - ((const uint16_t *)x->codes)[at + t];
        return !(below_32 >> 31);
    case LIK_I32:
        for (int64_t t = 0; t < n; t++) {
            uint32_t code = ((const uint32_t *)x->codes)[at + t];
            below_32 |= code | ((uint32_t)last - code);
        }
        return !(below_32 >> 31);
    default:
        for (int64_t t = 0; t < n; t++) {
            uint64_t code = ((const uint64_t *)x->codes)[at + t];
            below |= code | ((uint64_t)last - code);
        }
        return !(below >> 63);
    }
}

/* Codes of kept tokens. */
int lik_check_codes(const char *name, const struct lik_tokens *x)
{
    const int64_t count = lik_code_count(x);
    for (int64_t i = 0; i < x->count; i++) {
        int64_t length = lik_tokens_length(x, i);
        if (length == 0)
            continue;
        int64_t base = lik_tokens_base(x, &x->codes_strides, i);
        const uint8_t *mask = x->mask ? x->mask + lik_tokens_base(x, &x->mask_strides, i) : NULL;
        if (!mask && x->codes_strides.token == 1 && codes_within(x, base, length, count - 1))
            continue;
        for (int64_t t = 0; t < length; t++) {
            int64_t code = mask && !mask[t * x->mask_strides.token]
                               ? 0
                               : lik_code_at(x, base + t * x->codes_strides.token);
            if ((uint64_t)code >= (uint64_t)count && !(mask && !mask[t * x->mask_strides.token]))
                return lik_fail(LIK_EINVAL,
                                "%s.codes of sequence %lld, token %lld is %lld, must be 0 to %lld", name,
                                (long long)i, (long long)t, (long long)code, (long long)(count - 1));
        }
    }
    return LIK_OK;
}

int lik_check_tokens(const struct lik_context *ctx, const char *name, struct lik_tokens *x, int64_t dim_max)
{
    if (x->struct_size != sizeof *x)
        return lik_fail(LIK_EINVAL, "%s.struct_size is %zu, must be %zu", name, x->struct_size, sizeof *x);
    if (x->storage < LIK_DENSE || x->storage > LIK_ONE_HOT)
        return lik_fail(LIK_EINVAL,
                        "%s.storage is %d, must be LIK_DENSE (0), LIK_RESIDUAL (1) or LIK_ONE_HOT (2)", name,
                        x->storage);
    if (x->storage == LIK_DENSE && (x->dtype < LIK_F32 || x->dtype > LIK_I8))
        return lik_fail(LIK_EINVAL, "%s.dtype is %d (%s), must be f32, f16, bf16, e4m3, e5m2 or i8", name,
                        x->dtype, lik_dtype_name(x->dtype));
    const int halves = x->storage == LIK_RESIDUAL;
    if (x->scale_dtype && x->scale_dtype != LIK_F32 && !(halves && x->scale_dtype == LIK_F16))
        return lik_fail(LIK_EINVAL, "%s.scale_dtype is %d (%s), must be f32%s", name, x->scale_dtype,
                        lik_dtype_name(x->scale_dtype), halves ? " or f16" : "");
    if (x->count < 0)
        return lik_fail(LIK_EINVAL, "%s.count is %lld, must not be negative", name, (long long)x->count);
    if (x->len_max < 0)
        return lik_fail(LIK_EINVAL, "%s.len_max is %lld, must not be negative", name, (long long)x->len_max);
    if (x->len_max > INT32_MAX)
        return lik_fail(LIK_EINVAL, "%s.len_max is %lld, must be at most %d", name, (long long)x->len_max,
                        INT32_MAX);
    if (x->dim < 1 || x->dim > dim_max)
        return lik_fail(LIK_EINVAL, "%s.dim is %lld, must be 1 to %lld", name, (long long)x->dim,
                        (long long)dim_max);
    if (check_storage(name, x) || check_layout(ctx, name, x) || check_arrays(name, x))
        return LIK_EINVAL;
    return x->storage != LIK_DENSE && ctx->backend->host_memory ? lik_check_codes(name, x) : LIK_OK;
}
