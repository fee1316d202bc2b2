/* Arrays of generated problems: where entries stand, how they are filled. */
#include "check.h"

#include "base/dtype.h"

/* ---- addressing, written anew: the checks must not trust src/shared/tokens.h ---- */

static int64_t offset_at(const struct lik_tokens *x, int64_t i)
{
    return x->offsets_dtype == LIK_I32 ? ((const int32_t *)x->offsets)[i] : ((const int64_t *)x->offsets)[i];
}

int64_t problem_length(const struct lik_tokens *x, int64_t i)
{
    return x->offsets ? offset_at(x, i + 1) - offset_at(x, i) : x->len_max;
}

int64_t problem_place(const struct lik_tokens *x, struct lik_strides strides, int64_t i, int64_t t)
{
    if (x->offsets)
        return (offset_at(x, i) + t) * strides.token;
    if (x->group_size)
        return i / x->group_size * strides.group + i % x->group_size * strides.sequence + t * strides.token;
    return i * strides.sequence + t * strides.token;
}

int64_t problem_row(const struct lik_tokens *x, int64_t i, int64_t t)
{
    return (x->offsets ? offset_at(x, i) : i * x->len_max) + t;
}

/* Reserves an array of `size`-byte entries for these strides; returns where entry (0, 0, 0)
 * stands. */
unsigned char *problem_reserve(struct problem *p, const struct lik_tokens *x, struct lik_strides strides,
                               int64_t inner, int64_t inner_stride, size_t size, int fill)
{
    int64_t groups = x->group_size ? x->count / x->group_size : 1,
            members = x->group_size ? x->group_size : x->count;
    int64_t extents[4] = {groups, members, x->len_max, inner};
    int64_t steps[4] = {strides.group, strides.sequence, strides.token, inner_stride}, low = 0, high = 1;
    if (x->offsets) {
        extents[0] = extents[1] = 1;
        extents[2] = x->total;
    }
    for (int i = 0; i < 4; i++) {
        if (extents[i] == 0)
            low = high = 0;
        else if (steps[i] < 0)
            low += (extents[i] - 1) * steps[i];
        else
            high += (extents[i] - 1) * steps[i];
        if (extents[i] == 0)
            break;
    }
    struct buffer *b = &p->inputs[p->input_count++];
    *b = buffer_make((size_t)(high - low) * size, p->spec.placement, size);
    memset(b->data, fill, b->bytes);
    return b->data - low * (int64_t)size;
}

/* ---- filling ---- */

static uint8_t encode_8bit(int32_t dtype, double value)
{
    uint8_t best = 0;
    double distance = INFINITY;
    for (int code = 0; code < 256; code++) {
        uint8_t byte = (uint8_t)code;
        double decoded = (double)lik_load_f32(&byte, dtype, 0);
        if (fabs(decoded - value) < distance) {
            distance = fabs(decoded - value);
            best = byte;
        }
    }
    return best;
}

/* Encoding by search is slow: each dtype gets a table over a grid of values. */
static uint8_t encode_fp8(int32_t dtype, double value)
{
    enum { GRID = 4096 };
    static uint8_t table[2][GRID + 1];
    static int ready[2];
    int which = dtype == LIK_E5M2;
    if (!ready[which]) {
        for (int i = 0; i <= GRID; i++)
            table[which][i] = encode_8bit(dtype, (double)(i - GRID / 2) / 256.0);
        ready[which] = 1;
    }
    double at = value * 256.0 + GRID / 2;
    return table[which][at<0 ? 0 : at>(double) GRID ? GRID : (int)at];
}

static void store(void *data, int32_t dtype, int64_t at, double value)
{
    if (dtype <= LIK_BF16) {
        lik_store_f32(data, dtype, at, (float)value);
    } else if (dtype == LIK_I8) {
        ((int8_t *)data)[at] = (int8_t)(value > 127 ? 127 : value < -128 ? -128 : lrint(value));
    } else if (isnan(value) || isinf(value)) { /* e4m3 has no infinity */
        ((uint8_t *)data)[at] = isnan(value) || dtype == LIK_E4M3 ? 0x7f : value > 0 ? 0x7c : 0xfc;
    } else {
        ((uint8_t *)data)[at] = encode_fp8(dtype, value);
    }
}

/* One element of a token. Integers stay so small that every f32 sum of products is exact. */
static double draw(struct rng *rng, const struct side_spec *side, int64_t dim)
{
    double unit = side->dtype == LIK_I8 ? 40 : side->dtype > LIK_BF16 ? 1 : 1 / sqrt((double)dim);
    switch (side->values) {
    case INTEGERS:
    case TIES: return (double)(rng_below(rng, 7) - 3);
    case DENORMALS: {
        double tiny = side->dtype == LIK_F16    ? 0x1p-20
                      : side->dtype <= LIK_BF16 ? 0x1p-135
                      : side->dtype == LIK_I8   ? 1
                                                : 0x1p-9;
        return rng_normal(rng) * tiny;
    }
    case ZEROS: return rng_below(rng, 2) ? 0.0 : -0.0;
    case LARGE:
        return rng_normal(rng) * (side->dtype == LIK_I8    ? 127
                                  : side->dtype == LIK_F16 ? 1e4
                                  : side->dtype > LIK_BF16 ? 4
                                                           : 1e12);
    case SQUARES_OVERFLOW: return rng_normal(rng) * (rng_below(rng, 3) ? 1e30 : 1e18);
    case SQUARES_UNDERFLOW: return rng_normal(rng) * (rng_below(rng, 3) ? 1e-24 : 1e-21);
    case SKEWED: return rng_normal(rng) * unit * (rng_below(rng, 8) ? 0.01 : 1) + unit / 4;
    default: return rng_normal(rng) * unit;
    }
}

void problem_fill(struct rng *rng, const struct side_spec *side, const struct lik_tokens *x, void *data,
                  int64_t place)
{
    /* A tied token is one of three, made from a generator of its own. */
    struct rng repeated = {.state = (uint64_t)rng_below(rng, 3) * 77};
    struct rng *from = side->values == TIES ? &repeated : rng;
    for (int64_t k = 0; k < x->dim; k++)
        store(data, x->dtype, place + k * x->dim_stride, draw(from, side, x->dim));
    if ((side->values == WITH_NAN || side->values == WITH_INF) && x->dtype != LIK_I8 &&
        rng_below(rng, 8) == 0) {
        double value = side->values == WITH_NAN ? (double)NAN : rng_below(rng, 2) ? INFINITY : -INFINITY;
        store(data, x->dtype, place + rng_below(rng, x->dim) * x->dim_stride, value);
    }
}

/* Strides of a per-token array: plain, spread, shared by all sequences, or backwards. */
struct lik_strides problem_strides(struct rng *rng, const struct lik_tokens *x)
{
    int64_t step = 1 + rng_below(rng, 2), sign = rng_below(rng, 4) ? 1 : -1;
    struct lik_strides strides = {.sequence = x->len_max * step * sign + rng_below(rng, 2),
                                  .token = step * sign};
    if (x->group_size)
        strides.group = strides.sequence * x->group_size + rng_below(rng, 3);
    return strides;
}
