/* Problems in memory: operands in every layout, filled, decoded; and what they should give.
 *
 * The expected scores come from the decoded vectors in f64. Their tolerance follows
 * docs/numerics.md: with u = 2^-24,
 *
 *     sum over s of |w[s]| * |q[s]| * max|d[t]| * u *
 *         (4 sqrt(dim) * (1 + half a norm each) + 4 sqrt(len) + 8)
 *
 * plus dim smallest denormals a product, plus, times the documents' 1-norm, one more where the
 * query is scaled or normalized, and half a step where it is rounded to integers. */
#include "check.h"

#include "base/dtype.h"

static const int64_t dims[] = {1, 3, 7, 8, 15, 16, 17, 31, 40, 48, 56, 64, 72, 96, 127, 128, 129, 320, 768};
static const int32_t dtypes[] = {LIK_F32, LIK_F16, LIK_BF16, LIK_E4M3, LIK_E5M2, LIK_I8};

static const char *const layout_names[] = {"contiguous", "gaps",    "spread",   "transposed", "reversed",
                                           "broadcast",  "grouped", "packed32", "packed64",   "packed-gaps"};
static const char *const mask_names[] = {
    "", " mask:all", " mask:prefix", " mask:random", " mask:alternate", " mask:shared", " mask:none-kept"};
static const char *const scale_names[] = {"", " scale:tensor", " scale:token"};
static const char *const value_names[] = {"normal", "integers", "ties",   "denormals", "nan", "inf",
                                          "zeros",  "large",    "skewed", "huge",      "tiny"};

struct spec spec_plain(int64_t q_len, int64_t d_len, int64_t dim, uint64_t seed)
{
    struct spec spec = {.dim = dim, .per_query = 1, .argmax_dtype = LIK_I32, .seed = seed};
    spec.q = (struct side_spec){.dtype = LIK_F32, .count = 1, .len = q_len};
    spec.d = (struct side_spec){.dtype = LIK_F32, .count = 1, .len = d_len};
    return spec;
}

static void random_side(struct side_spec *side, struct rng *rng)
{
    static const enum values common[] = {NORMAL, NORMAL, NORMAL, INTEGERS, SKEWED, LARGE};
    side->dtype = RNG_PICK(rng, dtypes);
    side->layout = rng_below(rng, 3) ? CONTIGUOUS : (enum layout)rng_below(rng, LAYOUTS);
    side->mask = rng_below(rng, 2) ? UNMASKED : (enum mask)rng_below(rng, MASKS);
    side->scale = rng_below(rng, 2) ? UNSCALED : (enum scale)rng_below(rng, SCALES);
    side->normalize = rng_below(rng, 4) == 0;
    side->values = rng_below(rng, 2) ? RNG_PICK(rng, common) : (enum values)rng_below(rng, VALUES);
}

struct spec spec_random(struct rng *rng, int64_t work)
{
    static const int64_t counts[] = {0, 1, 1, 1, 2, 3, 5, 9},
                         q_lens[] = {0, 1, 2, 3, 5, 8, 12, 20, 24, 32, 33, 40, 64, 100},
                         d_lens[] = {0, 1, 2, 3, 4, 7, 13, 32, 33, 65, 130, 300};
    struct spec spec = {.seed = rng_next(rng)};
    random_side(&spec.q, rng);
    random_side(&spec.d, rng);
    if (spec.seed % 4 == 0)
        compressed_random(&spec.d, spec.seed);
    if (spec.seed % 8 == 1)
        one_hot_random(&spec);
    spec.dim = RNG_PICK(rng, dims);
    spec.pairing = (int32_t)rng_below(rng, 4);
    spec.precision = (int32_t)rng_below(rng, 3);
    spec.argmax_dtype = RNG_PICK(rng, ((const int32_t[]){0, LIK_I16, LIK_I32}));
    spec.weights = rng_below(rng, 3) == 0;
    spec.placement = rng_below(rng, 2) ? AT_BEGIN : AT_END;
    spec.scores_gap = spec.pairing > LIK_CANDIDATES || rng_below(rng, 4) ? 0 : rng_below(rng, 4);
    spec.per_query = rng_below(rng, 4);
    if (spec.d.compressed && rng_below(rng, 2))
        compressed_even(&spec);
    spec.list_count = rng_below(rng, 12);
    spec.q.len = RNG_PICK(rng, q_lens);
    spec.d.len = RNG_PICK(rng, d_lens);
    spec.q.count = RNG_PICK(rng, counts);
    spec.d.count = RNG_PICK(rng, counts);
    /* where elements are split into several bf16, infinities become NaN: see
     * docs/numerics.md */
    if (totals.gpu) {
        spec.q.values = spec.q.values == WITH_INF ? NORMAL : spec.q.values;
        spec.d.values = spec.d.values == WITH_INF ? NORMAL : spec.d.values;
    }
    if (spec.pairing == LIK_CANDIDATES)
        spec.d.count = spec.q.count * spec.per_query;
    if (spec.pairing == LIK_PAIRS)
        spec.d.count = spec.q.count;
    if (spec.q.count == 0 || spec.d.count == 0)
        spec.list_count = 0;
    while (spec.q.len * spec.d.len * spec.dim * (spec.q.count + 1) * (spec.d.count + 1) > 4 * work) {
        if (spec.dim > 33 && !spec.d.codes_together && rng_below(rng, 2))
            spec.dim /= 2;
        else if (spec.d.len > spec.q.len)
            spec.d.len /= 2;
        else
            spec.q.len /= 2;
    }
    return spec;
}

/* Normalized tokens whose squares leave the range of f32: problem `number` of 64. */
struct spec spec_far(int64_t number)
{
    static const int64_t widths[] = {1, 7, 40, 128, 129, 320};
    static const enum layout layouts[] = {CONTIGUOUS, SPREAD, PACKED_I32, GAPS};
    struct spec spec =
        spec_plain(1 + number % 5, 1 + number % 33, widths[number % 6], (uint64_t)number + 500);
    struct side_spec *sides[] = {&spec.q, &spec.d};
    spec.weights = 1;
    for (int i = 0; i < 2; i++) {
        struct side_spec *side = sides[i];
        int which = (int)(number >> (2 * i) & 3);
        side->count = 2;
        side->dtype = number >> (4 + i) & 1 ? LIK_BF16 : LIK_F32;
        side->layout = layouts[(number + i) % 4];
        side->normalize = 1;
        side->values = which == 0 ? NORMAL : which == 1 ? SQUARES_OVERFLOW : SQUARES_UNDERFLOW;
        side->scale = which == 3 || (which && number % 3 == 0) ? PER_TOKEN : UNSCALED;
    }
    return spec;
}

struct spec spec_many(int64_t number)
{
    static const int64_t widths[] = {128, 16, 64, 112, 128, 48, 96, 120};
    static const int32_t stored[] = {LIK_E4M3, LIK_I8, LIK_E5M2},
                         queries[] = {LIK_E4M3, LIK_I8, LIK_BF16, LIK_F16, LIK_E5M2};
    static const enum layout layouts[] = {CONTIGUOUS, PACKED_I32, CONTIGUOUS, PACKED_GAPS, GROUPED};
    static const enum values values[] = {NORMAL, TIES, NORMAL, INTEGERS, WITH_NAN};
    struct rng rng = {.state = 70000 + (uint64_t)number};
    struct spec spec = spec_plain(1 + rng_below(&rng, number % 3 ? 32 : 16), 1 + rng_below(&rng, 70),
                                  widths[number % 8], (uint64_t)number);
    spec.pairing = number % 4 == 3 ? LIK_LIST : number % 8 == 6 ? LIK_CANDIDATES : LIK_ALL;
    spec.q.count = spec.pairing == LIK_ALL ? 1 + (spec.q.len <= 16) : 3;
    spec.per_query = 410;
    spec.list_count = 1500;
    spec.d.count = spec.pairing == LIK_LIST ? 200 : spec.pairing == LIK_CANDIDATES ? 3 * 410 : 1200;
    spec.d.dtype = stored[number % 3];
    spec.q.dtype = queries[number % 5];
    spec.d.layout = layouts[number / 2 % 5];
    spec.d.mask = number % 2 ? (enum mask)rng_below(&rng, MASKS) : UNMASKED;
    spec.q.mask = number % 7 == 6 ? RANDOM : UNMASKED;
    spec.d.scale = (enum scale)rng_below(&rng, SCALES);
    spec.q.scale = (enum scale)rng_below(&rng, SCALES);
    spec.q.normalize = spec.q.scale == UNSCALED && number % 2;
    spec.d.values = values[number / 3 % 5];
    spec.q.values = values[number / 5 % 5];
    spec.argmax_dtype = number % 3 == 1 ? 0 : number % 3 ? LIK_I32 : LIK_I16;
    spec.weights = (int)(number % 2);
    spec.placement = number % 4 < 2 ? AT_BEGIN : AT_END;
    return spec;
}

static int describe_side(const struct side_spec *side, int64_t dim, char *text, size_t size)
{
    char compressed[120] = "";
    if (side->compressed)
        snprintf(compressed, sizeof compressed, " compressed %d bits%s, centroids %s, weights %s, codes %s",
                 side->bits, side->colbert ? " colbert" : "", lik_dtype_name(side->centroids_dtype),
                 lik_dtype_name(side->weights_dtype), lik_dtype_name(side->codes_dtype));
    if (side->one_hot)
        snprintf(compressed, sizeof compressed, " one-hot, codes %s", lik_dtype_name(side->codes_dtype));
    return snprintf(text, size, "%s [%lld, %lld, %lld]%s %s%s%s%s %s", lik_dtype_name(side->dtype),
                    (long long)side->count, (long long)side->len, (long long)dim, compressed,
                    layout_names[side->layout], mask_names[side->mask], scale_names[side->scale],
                    side->normalize ? " normalized" : "", value_names[side->values]);
}

void spec_describe(const struct spec *spec, char *text, size_t size)
{
    static const char *const pairings[] = {"all", "candidates", "pairs", "list"};
    char q[300], d[300];
    describe_side(&spec->q, spec->dim, q, sizeof q);
    describe_side(&spec->d, spec->dim, d, sizeof d);
    snprintf(text, size, "q %s; d %s; %s precision %d%s%s %s", q, d, pairings[spec->pairing], spec->precision,
             spec->weights ? " weights" : "", spec->argmax_dtype ? " argmax" : "",
             spec->placement == AT_BEGIN ? "begin" : "end");
}

static int draw_kept(struct rng *rng, enum mask mask, int64_t t, int64_t prefix)
{
    switch (mask) {
    case KEEP_ALL: return 1;
    case PREFIX: return t < prefix;
    case ALTERNATE: return t % 2 == 0;
    case KEEP_NONE: return 0;
    default: return rng_below(rng, 3) != 0;
    }
}

static void make_mask(struct problem *p, struct lik_tokens *x, const struct side_spec *side, struct rng *rng)
{
    static const uint8_t nonzero[] = {1, 2, 0x80, 0xff};
    if (side->mask == UNMASKED)
        return;
    x->mask_strides = problem_strides(rng, x);
    if (side->mask == SHARED)
        x->mask_strides.sequence = x->mask_strides.group = 0;
    uint8_t *mask = problem_reserve(p, x, x->mask_strides, 1, 0, 1, 0);
    for (int64_t i = 0; i < x->count; i++) {
        int64_t length = problem_length(x, i), prefix = length ? rng_below(rng, length + 1) : 0;
        for (int64_t t = 0; t < length; t++)
            mask[problem_place(x, x->mask_strides, i, t)] =
                draw_kept(rng, side->mask, t, prefix) ? RNG_PICK(rng, nonzero) : 0;
    }
    x->mask = mask;
}

static void make_scale(struct problem *p, struct lik_tokens *x, const struct side_spec *side, struct rng *rng)
{
    if (side->scale == UNSCALED)
        return;
    if (side->scale == PER_TOKEN)
        x->scale_strides = problem_strides(rng, x);
    x->scale_dtype = side->compressed && side->scale_f16 ? LIK_F16 : 0;
    void *scale = problem_reserve(p, x, x->scale_strides, 1, 0, x->scale_dtype ? 2 : sizeof(float), 0xff);
    int exact = side->values == INTEGERS || side->values == TIES;
    double unit = side->values == SQUARES_UNDERFLOW ? 1e20 : 1;
    for (int64_t i = 0; i < x->count; i++)
        for (int64_t t = 0; t < problem_length(x, i); t++)
            lik_store_f32(scale, x->scale_dtype ? LIK_F16 : LIK_F32, problem_place(x, x->scale_strides, i, t),
                          exact ? 0.5f
                                : (float)((0.5 + rng_unit(rng)) / 40 * (rng_below(rng, 8) ? 1 : -1) * unit));
    x->scale = scale;
}

static void make_weights(struct problem *p, struct rng *rng)
{
    struct lik_tokens *q = &p->op.q;
    int64_t len = q->len_max;
    p->weights = malloc(sizeof(double) * (size_t)(q->count * len + 1));
    float *weights = NULL;
    if (p->spec.weights) {
        q->weights_strides = problem_strides(rng, q);
        weights = (float *)(void *)problem_reserve(p, q, q->weights_strides, 1, 0, sizeof(float), 0xff);
    }
    int exact = p->spec.q.values == INTEGERS || p->spec.q.values == TIES;
    for (int64_t i = 0; i < q->count; i++)
        for (int64_t s = 0; s < len; s++)
            p->weights[i * len + s] = 1;
    for (int64_t i = 0; weights && i < q->count; i++)
        for (int64_t s = 0; s < problem_length(q, i); s++)
            weights[problem_place(q, q->weights_strides, i, s)] =
                exact ? (float)rng_below(rng, 3) : (float)(rng_normal(rng) * (rng_below(rng, 6) != 0));
    for (int64_t i = 0; weights && i < q->count; i++) /* afterwards: entries may overlap */
        for (int64_t s = 0; s < problem_length(q, i); s++)
            p->weights[i * len + s] = (double)weights[problem_place(q, q->weights_strides, i, s)];
    q->weights = weights;
}

/* Offsets with empty sequences here and there, rows before the first and after the last. */
static void make_offsets(struct problem *p, struct lik_tokens *x, enum layout layout, struct rng *rng)
{
    x->offsets_dtype = layout == PACKED_I32 ? LIK_I32 : LIK_I64;
    size_t size = lik_dtype_bytes(x->offsets_dtype);
    struct buffer *b = &p->inputs[p->input_count++];
    *b = buffer_make((size_t)(x->count + 1) * size, p->spec.placement, size);
    int64_t at = rng_below(rng, 3);
    for (int64_t i = 0; i <= x->count; i++) {
        if (layout == PACKED_I32)
            ((int32_t *)(void *)b->data)[i] = (int32_t)at;
        else
            ((int64_t *)(void *)b->data)[i] = at;
        if (i < x->count && rng_below(rng, 6))
            at += rng_below(rng, 3) ? x->len_max : rng_below(rng, x->len_max + 1);
    }
    x->offsets = b->data;
    x->total = at + rng_below(rng, 3);
}

/* `dim`: what a token takes of the data, elements or bytes. */
static void make_strides(struct problem *p, struct lik_tokens *x, int64_t dim, enum layout layout, int apart,
                         struct rng *rng)
{
    int64_t len = x->len_max;
    x->dim_stride = 1;
    x->strides = (struct lik_strides){.sequence = len * dim, .token = dim};
    switch (layout) {
    case GAPS:
        x->strides.token = dim + 1 + rng_below(rng, 9);
        x->strides.sequence = len * x->strides.token + rng_below(rng, 20);
        break;
    case SPREAD:
        x->dim_stride = 2 + rng_below(rng, 2);
        x->strides.token = dim * x->dim_stride;
        x->strides.sequence = len * x->strides.token;
        break;
    case TRANSPOSED:
        x->dim_stride = len > 0 ? len : 1;
        x->strides.token = 1;
        break;
    case REVERSED:
        x->strides = (struct lik_strides){.sequence = -len * dim, .token = -dim};
        x->dim_stride = rng_below(rng, 2) ? 1 : -1;
        break;
    case BROADCAST: x->strides.sequence = 0; break;
    case GROUPED:
        x->group_size = 1 + rng_below(rng, x->count > 0 ? x->count : 3);
        while (x->count % x->group_size)
            x->group_size--;
        x->strides.group = x->group_size * len * dim + rng_below(rng, 30);
        break;
    case PACKED_I32:
    case PACKED_I64: make_offsets(p, x, layout, rng); break;
    case PACKED_GAPS:
        make_offsets(p, x, layout, rng);
        x->strides.token = dim + rng_below(rng, 9);
        if (rng_below(rng, 4) == 0 && apart) {
            x->dim_stride = 2;
            x->strides.token = 2 * dim;
        }
        break;
    default: break;
    }
}

static void decode(const struct lik_tokens *x, struct decoded *out)
{
    int64_t rows = x->count * x->len_max, dim = x->dim;
    *out = (struct decoded){.len = x->len_max, .dim = dim};
    if (x->storage == LIK_ONE_HOT)
        out->code = calloc((size_t)rows + 1, sizeof *out->code);
    out->kept = calloc((size_t)rows + 1, 1);
    out->clamped = calloc((size_t)rows + 1, 1);
    double **arrays[] = {&out->factor, &out->norm, &out->l1, &out->largest, &out->rounding};
    for (int64_t a = 0; a < COUNT(arrays); a++)
        *arrays[a] = calloc((size_t)rows + 1, sizeof(double));
    out->raw = calloc((size_t)(rows * dim) + 1, sizeof(double));
    out->vector = calloc((size_t)(rows * dim) + 1, sizeof(double));
    for (int64_t i = 0; i < x->count; i++)
        for (int64_t t = 0; t < problem_length(x, i); t++) {
            int64_t row = i * x->len_max + t;
            /* one-hot tokens have strides that count for nothing: any */
            int64_t place = x->storage == LIK_ONE_HOT ? 0 : problem_place(x, x->strides, i, t);
            out->kept[row] = !x->mask || x->mask[problem_place(x, x->mask_strides, i, t)];
            if (!out->kept[row])
                continue;
            if (out->code)
                out->code[row] = compressed_code(x, i, t);
            double *raw = out->raw + row * dim, *vector = out->vector + row * dim, squares = 0;
            for (int64_t k = 0; k < dim; k++) {
                raw[k] = out->code ? k == out->code[row]
                         : x->storage == LIK_RESIDUAL
                             ? compressed_element(x, i, t, k)
                             : (double)lik_load_f32(x->data, x->dtype, place + k * x->dim_stride);
                squares += raw[k] * raw[k];
            }
            double factor = 1;
            if (x->scale)
                factor = (double)lik_load_f32(x->scale, x->scale_dtype ? x->scale_dtype : LIK_F32,
                                              problem_place(x, x->scale_strides, i, t));
            if (x->normalize) {
                double norm = fabs(factor) * sqrt(squares);
                out->clamped[row] = norm < 1e-12;
                factor /= norm < 1e-12 ? 1e-12 : norm;
            }
            out->factor[row] = factor;
            out->norm[row] = fabs(factor) * sqrt(squares);
            for (int64_t k = 0; k < dim; k++) {
                vector[k] = factor * raw[k];
                out->l1[row] += fabs(vector[k]);
                out->largest[row] = fmax(out->largest[row], fabs(vector[k]));
            }
            if (x->storage == LIK_RESIDUAL)
                out->rounding[row] = fabs(factor) * compressed_rounding(x, i, t, raw);
        }
}

static void make_side(struct problem *p, struct lik_tokens *x, const struct side_spec *side, struct rng *rng)
{
    *x = (struct lik_tokens){.struct_size = sizeof *x, .storage = LIK_DENSE, .dtype = side->dtype};
    x->count = side->count;
    x->len_max = side->len;
    x->dim = p->spec.dim;
    x->normalize = side->normalize;
    make_strides(p, x, side->compressed ? compressed_bytes(side, x->dim) : x->dim, side->layout,
                 !side->compressed, rng);
    make_mask(p, x, side, rng);
    if (side->one_hot) {
        one_hot_make(p, x, side, rng);
        return;
    }
    make_scale(p, x, side, rng);
    if (side->compressed) {
        compressed_make(p, x, side, rng);
        return;
    }
    unsigned char *data = problem_reserve(p, x, x->strides, x->dim, x->dim_stride, lik_dtype_bytes(x->dtype),
                                          x->dtype == LIK_I8 ? 0x7f : 0xff);
    for (int64_t i = 0; i < x->count; i++)
        for (int64_t t = 0; t < problem_length(x, i); t++)
            if (!x->mask || x->mask[problem_place(x, x->mask_strides, i, t)])
                problem_fill(rng, side, x, data, problem_place(x, x->strides, i, t));
    x->data = data;
}

/* ---- what it should give ---- */

void problem_pair(const struct problem *p, int64_t n, int64_t *i, int64_t *j)
{
    const struct lik_score *op = &p->op;
    switch (op->pairing) {
    case LIK_ALL:
        *i = n / op->d.count;
        *j = n % op->d.count;
        break;
    case LIK_CANDIDATES:
        *i = n / op->per_query;
        *j = n;
        break;
    case LIK_PAIRS: *i = *j = n; break;
    default:
        *i = op->list_q[n];
        *j = op->list_d[n];
        break;
    }
}

double problem_product(const struct problem *p, int64_t i, int64_t s, int64_t j, int64_t t)
{
    const double *a = p->q.vector + (i * p->q.len + s) * p->q.dim,
                 *b = p->d.vector + (j * p->d.len + t) * p->d.dim;
    if (p->d.code)
        return a[p->d.code[j * p->d.len + t]];
    double sum[4] = {0};
    int64_t k = 0;
    for (; k + 4 <= p->q.dim; k += 4)
        for (int lane = 0; lane < 4; lane++)
            sum[lane] += a[k + lane] * b[k + lane];
    for (; k < p->q.dim; k++)
        sum[0] += a[k] * b[k];
    return sum[0] + sum[1] + (sum[2] + sum[3]);
}

int problem_quantized(const struct problem *p)
{
    return (p->op.d.dtype == LIK_I8 || problem_rounded(p)) && p->op.q.dtype != LIK_I8 && !totals.gpu;
}

int problem_rounded(const struct problem *p)
{
    return p->op.d.storage == LIK_RESIDUAL && p->op.precision == LIK_MEDIUM;
}

double problem_product_tolerance(const struct problem *p, int64_t i, int64_t s, int64_t j)
{
    int64_t row = i * p->q.len + s, dim = p->q.dim;
    if (p->d.code)
        return 0;
    double norm = 0, l1 = 0, factor = 0, rounding = 0;
    for (int64_t t = 0; t < p->d.len; t++) {
        int64_t other = j * p->d.len + t;
        if (!p->d.kept[other] || isinf(p->d.norm[other])) /* an infinite product is exact */
            continue;
        norm = fmax(norm, p->d.norm[other]);
        l1 = fmax(l1, p->d.l1[other]);
        factor = fmax(factor, fabs(p->d.factor[other]));
        rounding = fmax(rounding, p->d.rounding[other]);
    }
    double halves = 2 + (p->op.q.normalize != 0) + (p->op.d.normalize != 0);
    double tolerance = p->q.norm[row] * norm * UNIT_ROUNDOFF * (2 * sqrt((double)dim) * halves + 8);
    tolerance += (double)dim * 0x1p-149 * fmax(fabs(p->q.factor[row]), 1) * fmax(factor, 1);
    if (p->q.factor[row] != 1) /* a query's elements are rounded once it is scaled */
        tolerance += 0x1p-149 * l1;
    /* levels that multiply pairs of bf16 may take for zero what is below the normal range */
    const double below_normal = (double)dim * 0x1p-126 * (p->q.norm[row] + norm + 1) *
                                fmax(fabs(p->q.factor[row]), 1) * fmax(factor, 1);
    if (p->op.q.dtype == LIK_BF16 && p->op.d.dtype == LIK_BF16)
        tolerance += below_normal;
    if (totals.gpu) { /* tensor cores truncate their sums; f32 is cut to what the precision allows */
        static const double cut[] = {0, 0x1p-14, 0x1p-7};
        int wide = p->op.q.dtype == LIK_F32 || p->op.d.dtype == LIK_F32;
        tolerance += p->q.norm[row] * norm * (2e-6 + 2e-8 * (double)dim + (wide ? cut[p->op.precision] : 0));
        tolerance += below_normal;
    }
    if (totals.gpu && problem_rounded(p) && p->op.d.codec->bits <= 4) /* where they are scanned */
        tolerance += 0.5 * 1.001 * p->q.largest[row] / 127 * l1;
    if (problem_quantized(p)) {
        double step = fmax(p->q.largest[row] / 32639, p->q.l1[row] * 128 / 0x1p31);
        if (p->op.precision == LIK_MEDIUM && (p->op.d.dtype == LIK_I8 || p->op.d.codec->bits <= 4))
            step = p->q.largest[row] / 63;
        tolerance += 0.5 * 1.001 * step * l1; /* the step itself is an f32 */
        /* too small for a step: may count as zero */
        if (p->q.largest[row] < 0x1p-100 * fabs(p->q.factor[row]))
            tolerance += p->q.largest[row] * l1;
    }
    if (problem_rounded(p)) { /* what is too small for a unit counts as zero; norms are of what is rounded */
        rounding = 1.001 * (rounding + 0x1p-100 * fmax(factor, 1));
        tolerance += rounding * p->q.l1[row];
        if (p->op.d.normalize)
            tolerance += rounding * sqrt((double)dim) * p->q.norm[row];
    }
    return tolerance;
}

static void expect_score(struct problem *p, int64_t n)
{
    int64_t i, j, len = p->q.len;
    double score = 0, tolerance = 0;
    problem_pair(p, n, &i, &j);
    for (int64_t s = 0; s < len; s++) {
        double best = 0;
        int32_t winner = -1;
        for (int64_t t = 0; t < p->d.len && p->q.kept[i * len + s]; t++) {
            if (!p->d.kept[j * p->d.len + t])
                continue;
            double product = problem_product(p, i, s, j, t);
            if (winner < 0 || product > best || (isnan(product) && !isnan(best))) {
                best = product;
                winner = (int32_t)t;
            }
        }
        p->maxima[n * len + s] = best;
        p->winner[n * len + s] = winner;
        if (winner < 0)
            continue;
        double weight = p->weights[i * len + s];
        score += weight * best;
        tolerance += fabs(weight) * (problem_product_tolerance(p, i, s, j) +
                                     fabs(best) * UNIT_ROUNDOFF * 4 * sqrt((double)len));
    }
    p->expected[n] = score;
    p->tolerance[n] = tolerance + 0x1p-149 * (double)(len + 1);
}

static void make_pairing(struct problem *p, struct rng *rng)
{
    struct lik_score *op = &p->op;
    op->pairing = p->spec.pairing;
    op->per_query = p->spec.per_query;
    switch (op->pairing) {
    case LIK_ALL: p->scores = op->q.count * op->d.count; break;
    case LIK_CANDIDATES: p->scores = op->q.count * op->per_query; break;
    case LIK_PAIRS: p->scores = op->q.count; break;
    default: {
        p->scores = op->list_count = p->spec.list_count;
        int64_t *lists[2], counts[2] = {op->q.count, op->d.count};
        for (int side = 0; side < 2; side++) {
            struct buffer *b = &p->inputs[p->input_count++];
            *b = buffer_make((size_t)op->list_count * sizeof(int64_t), p->spec.placement, sizeof(int64_t));
            lists[side] = (int64_t *)(void *)b->data;
            for (int64_t n = 0; n < op->list_count; n++)
                lists[side][n] = rng_below(rng, counts[side]);
        }
        op->list_q = lists[0];
        op->list_d = lists[1];
    }
    }
}

static void make_outputs(struct problem *p)
{
    struct lik_score *op = &p->op;
    int64_t columns = op->pairing == LIK_ALL          ? op->d.count
                      : op->pairing == LIK_CANDIDATES ? op->per_query
                                                      : 1;
    int64_t rows = columns ? p->scores / columns : 0;
    op->scores_stride = p->spec.scores_gap ? columns + p->spec.scores_gap : 0;
    int64_t entries = rows > 0 ? (rows - 1) * (columns + p->spec.scores_gap) + columns : 0;
    p->out_scores = buffer_make((size_t)entries * sizeof(float), p->spec.placement, sizeof(float));
    op->scores = (float *)(void *)p->out_scores.data;
    if (!p->spec.argmax_dtype)
        return;
    size_t size = lik_dtype_bytes(p->spec.argmax_dtype);
    op->argmax_dtype = p->spec.argmax_dtype;
    p->out_argmax = buffer_make((size_t)(p->scores * op->q.len_max) * size, p->spec.placement, size);
    op->argmax = p->out_argmax.data;
}

struct problem *problem_make(const struct spec *spec)
{
    struct problem *p = calloc(1, sizeof *p);
    struct rng rng = {.state = spec->seed};
    p->spec = *spec;
    p->op = (struct lik_score){.struct_size = sizeof p->op, .precision = spec->precision};
    make_side(p, &p->op.q, &spec->q, &rng);
    make_side(p, &p->op.d, &spec->d, &rng);
    make_weights(p, &rng);
    make_pairing(p, &rng);
    make_outputs(p);
    for (int i = 0; i < p->input_count; i++)
        buffer_lock(&p->inputs[i]);
    decode(&p->op.q, &p->q);
    decode(&p->op.d, &p->d);
    size_t scores = (size_t)p->scores, tokens = scores * (size_t)p->q.len;
    p->expected = malloc((scores + 1) * sizeof(double));
    p->tolerance = malloc((scores + 1) * sizeof(double));
    p->maxima = malloc((tokens + 1) * sizeof(double));
    p->winner = malloc((tokens + 1) * sizeof(int32_t));
    for (int64_t n = 0; n < p->scores; n++)
        expect_score(p, n);
    return p;
}

static void free_decoded(struct decoded *x)
{
    free(x->kept);
    free(x->clamped);
    free(x->raw);
    free(x->vector);
    free(x->factor);
    free(x->norm);
    free(x->l1);
    free(x->largest);
    free(x->rounding);
    free(x->code);
}

void problem_free(struct problem *p)
{
    for (int i = 0; i < p->input_count; i++)
        buffer_free(&p->inputs[i]);
    buffer_free(&p->out_scores);
    buffer_free(&p->out_argmax);
    free_decoded(&p->q);
    free_decoded(&p->d);
    free(p->weights);
    free(p->expected);
    free(p->tolerance);
    free(p->maxima);
    free(p->winner);
    free(p);
}

float problem_score(const struct problem *p, int64_t n)
{
    int64_t columns = p->op.pairing == LIK_ALL          ? p->op.d.count
                      : p->op.pairing == LIK_CANDIDATES ? p->op.per_query
                                                        : 1;
    return p->op.scores[n / columns * (columns + p->spec.scores_gap) + n % columns];
}

int64_t problem_argmax(const struct problem *p, int64_t n, int64_t s)
{
    int64_t at = n * p->op.q.len_max + s;
    return p->op.argmax_dtype == LIK_I16 ? ((const int16_t *)p->op.argmax)[at]
                                         : ((const int32_t *)p->op.argmax)[at];
}

void problem_poison(struct problem *p)
{
    memset(p->out_scores.data, 0xcb, p->out_scores.bytes);
    if (p->out_argmax.map)
        memset(p->out_argmax.data, 0xcb, p->out_argmax.bytes);
}

int problem_run(struct problem *p, const struct lik_context *ctx, const struct lik_exec *exec)
{
    problem_poison(p);
    int status = run_score(ctx, &p->op, exec);
    buffer_check(&p->out_scores, "scores");
    if (p->out_argmax.map)
        buffer_check(&p->out_argmax, "argmax");
    return status;
}

/* To MemorySanitizer, bytes that nobody wrote: what the library may not read before it does. */
#if defined(__clang__)
#if __has_feature(memory_sanitizer)
#include <sanitizer/msan_interface.h>
#define UNDEFINED(data, bytes) __msan_poison(data, bytes)
#endif
#endif
#ifndef UNDEFINED
#define UNDEFINED(data, bytes) (void)0
#endif

/* plan, allocate exactly that, run: the same for each verb; on_gpu: what does it there. */
#define RUN_VERB(verb, on_gpu)                                                                              \
    int run_##verb(const struct lik_context *ctx, const struct lik_##verb *op, const struct lik_exec *exec) \
    {                                                                                                       \
        if (totals.gpu)                                                                                     \
            return on_gpu;                                                                                  \
        struct lik_exec how = {.struct_size = sizeof how};                                                  \
        struct lik_plan plan = {.struct_size = sizeof plan};                                                \
        if (exec)                                                                                           \
            how = *exec;                                                                                    \
        int status = lik_##verb##_plan(ctx, op, &how, &plan);                                               \
        if (status)                                                                                         \
            return status;                                                                                  \
        struct buffer workspace = buffer_make(plan.workspace_bytes, AT_END, 64);                            \
        memset(workspace.data, 0xee, workspace.bytes);                                                      \
        UNDEFINED(workspace.data, workspace.bytes);                                                         \
        how.workspace = workspace.data;                                                                     \
        how.workspace_bytes = plan.workspace_bytes;                                                         \
        status = lik_##verb##_run(ctx, op, &how);                                                           \
        buffer_check(&workspace, "the workspace of " #verb);                                                \
        buffer_free(&workspace);                                                                            \
        return status;                                                                                      \
    }

RUN_VERB(score, gpu_run_score(ctx, op))
RUN_VERB(topk, gpu_run_topk(ctx, op))
RUN_VERB(grad, gpu_run_grad(ctx, op))
RUN_VERB(decode, gpu_run_decode(ctx, op))
RUN_VERB(encode, gpu_run_encode(ctx, op))
RUN_VERB(train, gpu_run_train(ctx, op))
RUN_VERB(quantize, gpu_run_quantize(ctx, op))
