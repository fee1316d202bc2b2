/* The arrays of an operand in one list, over which checks, slices, copies and bindings loop.
 *
 * An entry is what belongs to one token: `inner` elements of an array, `inner_stride` apart. A
 * new array of struct lik_tokens is one more line in lik_operand_fields and in
 * lik_operand_element_bytes. The offsets are not in
 * the list: they say where the sequences begin in all the others. */
#ifndef LIK_SHARED_OPERAND_H
#define LIK_SHARED_OPERAND_H

#include "base/size.h"
#include "shared/residual.h"

#include <string.h>

struct lik_operand_field {
    const char *name, *strides_name; /* of the fields of struct lik_tokens */
    size_t at, strides;              /* where they stand in it */
};

#define LIK_OPERAND_FIELD(field, strides_field) \
    {#field, #strides_field, offsetof(struct lik_tokens, field), offsetof(struct lik_tokens, strides_field)}

enum lik_operand_number { LIK_DATA, LIK_MASK, LIK_SCALE, LIK_WEIGHTS, LIK_CODES, LIK_OPERAND_ARRAYS };

static const struct lik_operand_field lik_operand_fields[LIK_OPERAND_ARRAYS] = {
    LIK_OPERAND_FIELD(data, strides),        LIK_OPERAND_FIELD(mask, mask_strides),
    LIK_OPERAND_FIELD(scale, scale_strides), LIK_OPERAND_FIELD(weights, weights_strides),
    LIK_OPERAND_FIELD(codes, codes_strides),
};

struct lik_operand_array {
    const char *name, *strides_name;
    const void *at; /* NULL: the operand has none */
    struct lik_strides strides;
    int64_t element_bytes;
    int64_t inner, inner_stride;
};

/* Bytes of an element of array n. */
static inline int64_t lik_operand_element_bytes(const struct lik_tokens *x, int n)
{
    switch (n) {
    case LIK_DATA: return x->storage == LIK_RESIDUAL ? 1 : (int64_t)lik_dtype_bytes(x->dtype);
    case LIK_MASK: return 1;
    case LIK_SCALE: return x->scale_dtype == LIK_F16 ? 2 : 4;
    case LIK_WEIGHTS: return 4;
    default: return (int64_t)lik_dtype_bytes(x->codes_dtype);
    }
}

/* Array n of an operand. */
static inline struct lik_operand_array lik_array_of(const struct lik_tokens *x, int n)
{
    const struct lik_operand_field *field = &lik_operand_fields[n];
    struct lik_operand_array array = {field->name, field->strides_name, NULL, {0, 0, 0}, 0, 1, 0};
    memcpy(&array.at, (const char *)x + field->at, sizeof array.at);
    memcpy(&array.strides, (const char *)x + field->strides, sizeof array.strides);
    array.element_bytes = lik_operand_element_bytes(x, n);
    if (n == LIK_DATA) {
        array.inner = x->storage == LIK_RESIDUAL ? lik_residual_bytes(x->dim, x->codec->bits) : x->dim;
        array.inner_stride = x->dim_stride;
    }
    return array;
}

/* Puts array n of an operand somewhere else. */
static inline void lik_operand_move(struct lik_tokens *x, int n, const void *at)
{
    memcpy((char *)x + lik_operand_fields[n].at, &at, sizeof at);
}

/* Is there one entry for all tokens? */
static inline int lik_operand_array_is_constant(const struct lik_operand_array *array)
{
    return !array->strides.group && !array->strides.sequence && !array->strides.token;
}

/* How many entries an array's axes have: groups, sequences of a group, tokens, elements; 1, 1,
 * all rows and elements of a packed one. */
static inline void lik_operand_extents(const struct lik_tokens *x, const struct lik_operand_array *array,
                                       int64_t extents[4])
{
    extents[0] = !x->offsets && x->group_size > 0 ? x->count / x->group_size : 1;
    extents[1] = x->offsets ? 1 : x->group_size > 0 ? x->group_size : x->count;
    extents[2] = x->offsets ? x->total : x->len_max;
    extents[3] = array->inner;
}

/* The bytes that the entries of an array of x take: *low to *high - 1 from its address on; 0
 * and 0 where there are none. */
static inline void lik_operand_reach(const struct lik_tokens *x, const struct lik_operand_array *array,
                                     int64_t *low, int64_t *high)
{
    const int64_t steps[4] = {array->strides.group, array->strides.sequence, array->strides.token,
                              array->inner_stride};
    int64_t extents[4];
    lik_operand_extents(x, array, extents);
    *low = *high = 0;
    if (!extents[0] || !extents[1] || !extents[2] || !extents[3])
        return;
    *high = 1;
    for (int i = 0; i < 4; i++)
        *(steps[i] < 0 ? low : high) += (extents[i] - 1) * steps[i];
    *low *= array->element_bytes;
    *high *= array->element_bytes;
}

/* Sequences first ... first + count - 1 of x, which it has: whole groups, or some of one group.
 * Non-zero where that would be neither, or the addresses leave the range of 64 bits. */
static inline int lik_operand_slice(const struct lik_tokens *x, int64_t first, int64_t count,
                                    struct lik_tokens *out)
{
    *out = *x;
    out->count = count;
    int64_t group = 0, member = first, before;
    if (x->offsets) {
        if (lik_mul_i64(first, (int64_t)lik_dtype_bytes(x->offsets_dtype), &before))
            return 1;
        out->offsets = (const char *)x->offsets + before;
        return 0;
    }
    if (x->group_size > 0) {
        group = first / x->group_size;
        member = first % x->group_size;
        if (member || count % x->group_size) {
            if (count > x->group_size - member)
                return 1;
            out->group_size = 0;
        }
    }
    if (count == 0 || x->len_max == 0) /* no entries: the strides may be anything */
        return 0;
    for (int n = 0; n < LIK_OPERAND_ARRAYS; n++) {
        struct lik_operand_array array = lik_array_of(x, n);
        int64_t by_group, by_member, by;
        if (!array.at)
            continue;
        if (lik_mul_i64(group, array.strides.group, &by_group) ||
            lik_mul_i64(member, array.strides.sequence, &by_member) ||
            lik_add_i64(by_group, by_member, &by) || lik_mul_i64(by, array.element_bytes, &by))
            return 1;
        lik_operand_move(out, n, (const char *)array.at + by);
    }
    return 0;
}

#endif
