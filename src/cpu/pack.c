/* Packing queries into panels: tokens become lanes, dropped tokens vanish, scale and
 * normalization are applied.
 *
 * For f32 arithmetic element (k, lane) of a panel is packed[k * stride + lane], lanes of a
 * part of a vector as often as it takes to fill one. For integer arithmetic a token x is
 * rounded to round(x * a), with `a` as large as |.| <= limit and, so that a sum of products
 * with i8 stays exact in i32, 128 * sum|.| < 2^31 allow; the lane's weight takes the factor
 * 1 / a, which is positive, so that it may be applied to the maximum. i8 queries keep their
 * own integers, and bf16 queries that meet bf16 documents their own bits. Elements lie in
 * groups (2 or 4 for one 32-bit broadcast of a document row): packed[(k / group * stride +
 * lane) * group + k % group]. */
#include "cpu/stream.h"

#include "base/dtype.h"

#include <math.h>
#include <string.h>

/* Of 16 bits, the largest that is two signed bytes; of 7, what AVX2's pairwise sums hold. */
enum { LIMIT_I16 = 127 * 256 + 127, LIMIT_I7 = 63 };

/* The largest magnitude of a token's bits, which have the order of what they mean; of a NaN
 * they are above infinity's. */
static int32_t largest_bits(const float *token, int64_t dim)
{
    int32_t most = 0;
    for (int64_t k = 0; k < dim; k++) {
        int32_t magnitude = (int32_t)(lik_bits_of_f32(token[k]) & 0x7fffffff);
        most = magnitude > most ? magnitude : most;
    }
    return most;
}

/* Rounds a token, times the sign of its factor, to integers of at most `limit`; returns
 * |factor| / a. A token that is not finite has no integers: NaN. */
static float quantize(const float *token, int64_t dim, float factor, int limit, int32_t *out)
{
    const float most = lik_f32_of_bits((uint32_t)largest_bits(token, dim)), left = 16777215.0f - (float)dim;
    float a = most > 0 ? (float)limit / most : 0, total = 2 * (float)dim * most;
    /* a chain of sums: only where this bound on it does not tell that it changes nothing */
    if (!(total * fabsf(factor) <= 3.4e38f) || !(2.01f * (float)dim * (float)limit <= left)) {
        total = 0;
        for (int64_t k = 0; k < dim; k++)
            total += fabsf(token[k]);
        if (!(total * fabsf(factor) <= 3.4e38f)) {
            memset(out, 0, (size_t)dim * sizeof *out);
            return NAN;
        }
        if (most > 0 && left / total < a)
            a = left / total;
    }
    if (a > 3.4e38f || !(a > 0)) { /* nothing but zeros and denormals */
        memset(out, 0, (size_t)dim * sizeof *out);
        return 0;
    }
    /* above 2^23 a float's last bit is 1: adding as much rounds, several elements at a time */
    const float signed_a = factor < 0 ? -a : a, shift = 3 << 22;
    for (int64_t k = 0; k < dim; k++)
        out[k] = (int32_t)(lik_bits_of_f32(token[k] * signed_a + shift) - lik_bits_of_f32(shift));
    return fabsf(factor) / a;
}

/* The same of a bf16 token, which stays what it is but for its sign and a power of two that
 * brings its largest element to about 1, so that products leave the range of f32 no sooner than
 * those of the token times its factor. */
static float narrow(const float *token, int64_t dim, float factor, int32_t *out)
{
    const int32_t most = largest_bits(token, dim);
    int exponent = 0;
    if (most < 0x7f800000)
        frexpf(lik_f32_of_bits((uint32_t)most), &exponent);
    /* one alone may be too large for a float; a factor of 0 makes all products equal */
    const float half = ldexpf(1, -exponent / 2), rest = ldexpf(1, -exponent + exponent / 2);
    const float sign = factor < 0 ? -half : factor == 0 ? 0 : half;
    for (int64_t k = 0; k < dim; k++)
        out[k] = (int32_t)(lik_bits_of_f32(token[k] * sign * rest) >> 16);
    return fabsf(factor) / half / rest;
}

struct panel {
    const struct lik_cpu_geometry *geometry;
    int64_t first_lane, offset; /* offset: lanes stored before it, times depth = elements before it */
    int64_t lanes, stride;      /* query tokens, and the lanes their row occupies */
    int64_t vector;             /* lanes of one; in neighboring ones tokens that are packed several times, */
    int neighbors;              /* or else in each part of it */
};

/* Where a query token stands in a panel: `copies` times, `step` lanes apart. */
struct place {
    int64_t lane, copies, step;
};

static struct place place_of(const struct panel *panel, int64_t lane)
{
    const int64_t vector = panel->vector, part = panel->lanes % vector;
    const int64_t whole = panel->lanes - part, copies = part ? vector / part : 1;
    if (lane < whole)
        return (struct place){lane, 1, 1};
    if (panel->neighbors)
        return (struct place){whole + (lane - whole) * copies, copies, 1};
    return (struct place){lane, copies, part};
}

/* Lanes first ... first + count - 1 of a panel, at most one vector. */
static void store_f32(const struct lik_cpu_kernels *kernels, float *packed, const struct panel *panel,
                      int64_t first, int64_t count, const float *const *rows, const float *factors,
                      int64_t dim)
{
    const int64_t stride = panel->stride, vector = panel->geometry->vector_lanes;
    if (count == vector) {
        kernels->pack(packed + panel->offset * dim + first, stride, rows, factors, dim);
        return;
    }
    for (int64_t l = 0; l < count; l++) {
        const struct place place = place_of(panel, first + l);
        float *at = packed + panel->offset * dim + place.lane;
        for (int64_t k = 0; k < dim; k++)
            for (int64_t c = 0; c < place.copies; c++)
                at[k * stride + c * place.step] = rows[l][k] * factors[l];
    }
}

/* Elements of 4 / group bytes each, the first in the lowest byte, to words, in place. */
static inline __attribute__((always_inline)) void make_words(uint32_t *words, int64_t dim, const int group)
{
    const int bits = 32 / group;
    const uint32_t mask = group == 1 ? UINT32_MAX : (1u << bits) - 1;
    const int64_t whole = dim - dim % group;
    for (int64_t k = 0; k < whole; k += group) {
        uint32_t word = 0;
        for (int i = 0; i < group; i++)
            word |= (words[k + i] & mask) << i * bits;
        words[k / group] = word;
    }
    if (whole == dim)
        return;
    uint32_t word = 0;
    for (int64_t i = 0; i < dim % group; i++)
        word |= (words[whole + i] & mask) << i * bits;
    words[whole / group] = word;
}

/* Word n of a token to its place in the panel that begins at `at`. */
static inline void store_word(uint32_t *at, const struct panel *panel, struct place place, int64_t n,
                              uint32_t word)
{
    if (panel->geometry->word_pairs) {
        at[(n / 2 * panel->stride + place.lane) * 2 + n % 2] = word;
        return;
    }
    for (int64_t c = 0; c < place.copies; c++)
        at[n * panel->stride + place.lane + c * place.step] = word;
}

/* The integers (or bf16) of a token, which are used up, to its lane. `lane` counts from the
 * panel's first. */
static void store_integers(void *packed, const struct panel *panel, int64_t lane, int32_t *token, int64_t dim,
                           int64_t depth, const struct lik_cpu_loader *loader)
{
    const struct place place = place_of(panel, lane);
    const int split = panel->geometry->splits_i16 && loader->query_group == 2 && !loader->bf16;
    const int64_t group = split ? 4 : loader->query_group;
    uint32_t *at = (uint32_t *)packed + panel->offset * depth / loader->query_group;
    uint32_t *words = (uint32_t *)token;
    if (split) { /* the low bytes, after the high ones, which are one more where those are negative */
        uint32_t *low = at + panel->stride * depth / group;
        for (int64_t k = 0; k < dim; k += group) {
            uint32_t word = 0;
            for (int64_t i = 0; i < group && k + i < dim; i++)
                word |= (words[k + i] & 255) << i * 8;
            store_word(low, panel, place, k / group, word);
        }
        for (int64_t k = 0; k < dim; k++)
            words[k] = (words[k] + 128) >> 8;
    }
    if (group == 2)
        make_words(words, dim, 2);
    else
        make_words(words, dim, 4);
    for (int64_t n = 0; n < lik_divide_up(dim, group); n++)
        store_word(at, panel, place, n, words[n]);
}

/* Numbers the kept tokens of the block's queries. */
static void number_lanes(const struct lik_score *op, struct lik_cpu_block *block)
{
    const struct lik_tokens *q = &op->q;
    int64_t lane = 0;
    block->query_lane[0] = 0;
    for (int64_t n = 0; n < block->queries; n++) {
        int64_t i = lik_score_query(op, block->row + n), length = lik_tokens_length(q, i);
        const uint8_t *mask = q->mask && length ? q->mask + lik_tokens_base(q, &q->mask_strides, i) : NULL;
        const float *weights =
            q->weights && length ? q->weights + lik_tokens_base(q, &q->weights_strides, i) : NULL;
        for (int64_t t = 0; t < length; t++) {
            if (mask && !mask[t * q->mask_strides.token])
                continue;
            block->lane_weight[lane] = weights ? weights[t * q->weights_strides.token] : 1.0f;
            block->lane_start[lane] = -INFINITY;
            block->lane_token[lane++] = (int32_t)t;
        }
        block->query_lane[n + 1] = lane;
    }
    block->lanes = lane;
}

/* Begins the panel that holds `lane`, the first after the panel before; zeros what its tokens
 * will not fill. */
static void begin_panel(const struct lik_cpu_plan *plan, struct lik_cpu_block *block, struct panel *panel,
                        int64_t lane, int64_t depth, int ragged)
{
    int shape = lik_panel_shape(plan->geometry, plan->rows, block->lanes - lane);
    panel->offset += panel->stride;
    panel->first_lane = lane;
    panel->lanes = lik_panel_lanes(plan->geometry, shape);
    const int f32 = lik_cpu_is_f32(plan->loader);
    panel->stride = lik_panel_stride(plan->geometry, shape, f32);
    panel->vector = lik_panel_vector(plan->geometry, shape, f32);
    panel->neighbors = plan->geometry->makes_tiles && panel->vector == plan->geometry->vector_lanes;
    block->panels++;
    size_t bytes = 4 / (size_t)plan->loader->query_group;
    if (ragged || block->lanes - lane < panel->lanes)
        memset((char *)block->packed + (size_t)(panel->offset * depth) * bytes, 0,
               (size_t)(panel->stride * depth) * bytes);
}

/* The integers (or bf16) of the token become lane `lane`, its weight takes their unit. */
static void pack_integers(const struct lik_tokens *q, const struct lik_cpu_loader *loader,
                          const struct panel *panel, int64_t lane, const float *token, float factor,
                          int64_t depth, struct lik_cpu_slot *slot)
{
    struct lik_cpu_block *block = &slot->block;
    const int group = loader->query_group;
    float unit;
    if (loader->bf16) {
        unit = narrow(token, q->dim, factor, slot->integers);
    } else if (q->dtype == LIK_I8 && group == 2) {
        for (int64_t k = 0; k < q->dim; k++)
            slot->integers[k] = (int32_t)(factor < 0 ? -token[k] : token[k]);
        unit = fabsf(factor);
    } else {
        unit = quantize(token, q->dim, factor, group == 2 ? LIMIT_I16 : LIMIT_I7, slot->integers);
    }
    block->lane_weight[lane] *= unit;
    if (isnan(unit))
        block->lane_start[lane] = NAN;
    int32_t sum = 0;
    for (int64_t k = 0; group == 4 && k < q->dim; k++)
        sum += slot->integers[k];
    block->lane_bias[lane] = -128 * sum;
    store_integers(block->packed, panel, lane - panel->first_lane, slot->integers, q->dim, depth, loader);
}

void lik_cpu_pack(const struct lik_cpu_kernels *kernels, const struct lik_score *op,
                  const struct lik_cpu_plan *plan, int64_t row, int64_t queries, struct lik_cpu_slot *slot)
{
    const struct lik_tokens *q = &op->q;
    struct lik_cpu_block *block = &slot->block;
    const int group = plan->loader->query_group;
    const int64_t vector = plan->geometry->vector_lanes;
    const int in_place = lik_cpu_in_place(q);
    int64_t waiting = 0;
    const float *rows[LIK_VECTOR_LANES_MAX];
    float factors[LIK_VECTOR_LANES_MAX];
    block->row = row;
    block->queries = queries;
    block->panels = 0;
    number_lanes(op, block);
    block->weighted = q->weights || group > 1;
    if (group == 0)
        return;
    const int64_t depth = plan->depth;
    struct panel panel = {.geometry = plan->geometry};
    for (int64_t n = 0; n < queries; n++) {
        int64_t i = lik_score_query(op, row + n), base = lik_tokens_base(q, &q->strides, i);
        int64_t scale_base = q->scale ? lik_tokens_base(q, &q->scale_strides, i) : 0;
        for (int64_t lane = block->query_lane[n]; lane < block->query_lane[n + 1]; lane++) {
            int64_t t = block->lane_token[lane], at = base + t * q->strides.token;
            if (lane == panel.first_lane + panel.lanes)
                begin_panel(plan, block, &panel, lane, depth, depth > q->dim);
            float *own = slot->token + waiting * q->dim;
            if (!in_place)
                lik_cpu_load_token(&slot->queries, i, t, own);
            const float *token = in_place ? (const float *)q->data + at : own;
            float factor = lik_cpu_token_factor(
                kernels, q, q->scale ? q->scale[scale_base + t * q->scale_strides.token] : 1.0f, token);
            if (group > 1) {
                pack_integers(q, plan->loader, &panel, lane, token, factor, depth, slot);
                continue;
            }
            rows[waiting] = token;
            factors[waiting++] = factor;
            int64_t within = lane + 1 - panel.first_lane;
            if (within % vector == 0 || within == panel.lanes || lane + 1 == block->lanes) {
                store_f32(kernels, block->packed, &panel, within - waiting, waiting, rows, factors, q->dim);
                waiting = 0;
            }
        }
    }
    for (int64_t lane = block->lanes; group > 1 && lane < lik_round_up(block->lanes, vector); lane++)
        block->lane_bias[lane] = 0;
}
