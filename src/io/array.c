/* Element types and single elements of arrays in files; see array.h. */
#include "io/array.h"

#include "base/dtype.h"
#include "base/size.h"

#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *name;
    int8_t bytes;
    int32_t dtype;
} types[] = {
    [LIK_ARRAY_F64] = {"float64", 8, 0},
    [LIK_ARRAY_F32] = {"float32", 4, LIK_F32},
    [LIK_ARRAY_F16] = {"float16", 2, LIK_F16},
    [LIK_ARRAY_BF16] = {"bfloat16", 2, LIK_BF16},
    [LIK_ARRAY_E4M3] = {"float8_e4m3", 1, LIK_E4M3},
    [LIK_ARRAY_E5M2] = {"float8_e5m2", 1, LIK_E5M2},
    [LIK_ARRAY_I64] = {"int64", 8, 0},
    [LIK_ARRAY_I32] = {"int32", 4, 0},
    [LIK_ARRAY_I16] = {"int16", 2, 0},
    [LIK_ARRAY_I8] = {"int8", 1, LIK_I8},
    [LIK_ARRAY_U64] = {"uint64", 8, 0},
    [LIK_ARRAY_U32] = {"uint32", 4, 0},
    [LIK_ARRAY_U16] = {"uint16", 2, 0},
    [LIK_ARRAY_U8] = {"uint8", 1, 0},
    [LIK_ARRAY_BOOL] = {"bool", 1, 0},
};

const char *lik_array_type_name(int type)
{
    return types[type].name;
}

int64_t lik_array_type_bytes(int type)
{
    return types[type].bytes;
}

int32_t lik_array_type_dtype(int type)
{
    return types[type].dtype;
}

const char *lik_array_shape_text(const struct lik_array *array, char *text)
{
    int at = 0;
    text[0] = 0;
    for (int i = 0; i < array->rank; i++)
        at += snprintf(text + at, (size_t)(160 - at), "%s%lld", i ? " x " : "", (long long)array->shape[i]);
    return array->rank ? text : "a single number";
}

int lik_array_measure(struct lik_array *array, const char *path, struct lik_io_error *error)
{
    array->elements = 1;
    for (int i = 0; i < array->rank; i++)
        if (lik_mul_i64(array->elements, array->shape[i] ? array->shape[i] : 1, &array->elements))
            goto out_large;
    if (lik_mul_i64(array->elements, types[array->type].bytes, &array->bytes))
        goto out_large;
    for (int i = 0; i < array->rank; i++)
        if (!array->shape[i])
            array->elements = array->bytes = 0;
    return 0;
out_large:;
    char text[160];
    return lik_io_fail(error, LIK_IO_UNREADABLE, "%s: a shape of %s does not fit into 2^63 bytes", path,
                       lik_array_shape_text(array, text));
}

int lik_array_integer(const struct lik_array *array, int64_t i, int64_t *out)
{
    const uint8_t *at = array->data + i * types[array->type].bytes;
    uint64_t raw = 0;
    memcpy(&raw, at, (size_t)types[array->type].bytes);
    switch (array->type) {
    case LIK_ARRAY_I64: *out = (int64_t)raw; return 0;
    case LIK_ARRAY_I32: *out = (int32_t)(uint32_t)raw; return 0;
    case LIK_ARRAY_I16: *out = (int16_t)(uint16_t)raw; return 0;
    case LIK_ARRAY_I8: *out = (int8_t)(uint8_t)raw; return 0;
    case LIK_ARRAY_U64:
    case LIK_ARRAY_U32:
    case LIK_ARRAY_U16:
    case LIK_ARRAY_U8:
        if (raw > INT64_MAX)
            return -1;
        *out = (int64_t)raw;
        return 0;
    default: return -1;
    }
}

double lik_array_number(const struct lik_array *array, int64_t i)
{
    const uint8_t *at = array->data + i * types[array->type].bytes;
    union {
        double f64;
        float f32;
        uint16_t u16;
        uint8_t u8;
    } raw = {0};
    int64_t integer;
    switch (array->type) {
    case LIK_ARRAY_F64: memcpy(&raw.f64, at, 8); return raw.f64;
    case LIK_ARRAY_F32: memcpy(&raw.f32, at, 4); return (double)raw.f32;
    case LIK_ARRAY_F16: memcpy(&raw.u16, at, 2); return (double)lik_f16_to_f32(raw.u16);
    case LIK_ARRAY_BF16: memcpy(&raw.u16, at, 2); return (double)lik_bf16_to_f32(raw.u16);
    case LIK_ARRAY_E4M3: return (double)lik_e4m3_to_f32(*at);
    case LIK_ARRAY_E5M2: return (double)lik_e5m2_to_f32(*at);
    case LIK_ARRAY_BOOL: return *at != 0;
    default: return lik_array_integer(array, i, &integer) ? 0x1p63 : (double)integer;
    }
}

int lik_array_integers(const struct lik_array *array, const char *path, int64_t **out,
                       struct lik_io_error *error)
{
    char text[160];
    const char *comma = array->name ? ", " : "", *name = array->name ? array->name : "";
    if (array->rank != 1 || array->type < LIK_ARRAY_I64 || array->type > LIK_ARRAY_U8)
        return lik_io_fail(error, LIK_IO_INCOMPATIBLE,
                           "%s%s%s: a one-dimensional array of integers is needed, this is %s %s", path,
                           comma, name, lik_array_shape_text(array, text), lik_array_type_name(array->type));
    *out = calloc((size_t)array->elements + 1, sizeof **out);
    if (!*out)
        return lik_io_no_memory(error, path, "its integers", array->elements * 8);
    for (int64_t i = 0; i < array->elements; i++)
        if (lik_array_integer(array, i, *out + i) || (*out)[i] < 0) {
            free(*out);
            *out = NULL;
            return lik_io_fail(error, LIK_IO_UNREADABLE, "%s%s%s: entry %lld is negative or beyond 2^63",
                               path, comma, name, (long long)i);
        }
    return 0;
}
