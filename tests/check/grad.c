/* Winners as in score.c. Gradients of every device against the gather formula, taken in f64
 * from the device's winners, and that formula against finite differences of their products.
 * Then bitwise equality across threads, and accumulation.
 *
 * With v the vector a token counts as (scale * x, or x / |x|) and G what v receives, x receives
 * scale * G, or (G - <G, v> v) * scale / |x|. An element is a sum of `meetings` products: its
 * tolerance is
 *
 *     u * (meetings + 4 sqrt(dim) + 16) * (sum of |terms| + |v[k]| * sum of |g| |other|) / |x|,
 *     u = 2^-24
 *
 * plus half a unit in the last place of the operand's dtype. */
#include "check.h"

#include "base/dtype.h"

/* One operand's expected gradient, row i * len + t. */
struct expected {
    double *value, *bound; /* [rows, dim] */
    double *reach;         /* [rows]: sum of |g| |other| */
    int64_t *meetings;     /* [rows] */
};

struct grad_case {
    struct problem *p;
    struct lik_grad op;
    struct buffer grad_scores, grad_q, grad_d, grad_weights;
    struct expected q, d;
    double *weight_value, *weight_bound; /* [q.count, q.len] */
};

static int64_t row_in_gradient(const struct lik_tokens *x, int64_t i, int64_t t)
{
    if (!x->offsets)
        return i * x->len_max + t;
    return (x->offsets_dtype == LIK_I32 ? ((const int32_t *)x->offsets)[i]
                                        : ((const int64_t *)x->offsets)[i]) +
           t;
}

static int64_t rows_of(const struct lik_tokens *x)
{
    return x->offsets ? x->total : x->count * x->len_max;
}

static double grad_score(const struct grad_case *c, int64_t n)
{
    const struct lik_score *op = &c->p->op;
    int64_t columns = op->pairing == LIK_ALL          ? op->d.count
                      : op->pairing == LIK_CANDIDATES ? op->per_query
                                                      : 1;
    int64_t stride = c->op.grad_scores_stride ? c->op.grad_scores_stride : columns;
    return (double)c->op.grad_scores[n / columns * stride + n % columns];
}

static struct expected expected_make(const struct decoded *x, int64_t count)
{
    size_t rows = (size_t)(count * x->len) + 1;
    struct expected e;
    e.value = calloc(rows * (size_t)x->dim, sizeof(double));
    e.bound = calloc(rows * (size_t)x->dim, sizeof(double));
    e.reach = calloc(rows, sizeof(double));
    e.meetings = calloc(rows, sizeof(int64_t));
    return e;
}

static void expected_free(struct expected *e)
{
    free(e->value);
    free(e->bound);
    free(e->reach);
    free(e->meetings);
}

static void gather(struct expected *e, int64_t row, const struct decoded *other, int64_t other_row, double g)
{
    const double *vector = other->vector + other_row * other->dim;
    for (int64_t k = 0; k < other->dim; k++) {
        e->value[row * other->dim + k] += g * vector[k];
        e->bound[row * other->dim + k] += fabs(g * vector[k]);
    }
    e->reach[row] += fabs(g) * other->norm[other_row];
    e->meetings[row]++;
}

/* From the gradient of the vectors to that of the stored elements, with its tolerance. */
static void finish(struct expected *e, const struct lik_tokens *x, const struct decoded *own)
{
    for (int64_t row = 0; row < x->count * own->len; row++) {
        double *value = e->value + row * own->dim, *bound = e->bound + row * own->dim, along = 0;
        const double *vector = own->vector + row * own->dim;
        for (int64_t k = 0; k < own->dim; k++)
            along += value[k] * vector[k];
        double relative = UNIT_ROUNDOFF * ((double)e->meetings[row] + 4 * sqrt((double)own->dim) + 16);
        for (int64_t k = 0; k < own->dim && e->meetings[row]; k++) {
            if (own->clamped[row]) { /* no direction, no gradient */
                value[k] = bound[k] = 0;
                continue;
            }
            if (x->normalize) {
                bound[k] += fabs(vector[k]) * e->reach[row];
                value[k] -= along * vector[k];
            }
            value[k] *= own->clamped[row] ? 0 : own->factor[row]; /* without a direction: no gradient */
            bound[k] = own->clamped[row] ? 0
                                         : bound[k] * fabs(own->factor[row]) * relative +
                                               0x1p-149 * (double)e->meetings[row];
        }
    }
}

static void expect(struct grad_case *c)
{
    struct problem *p = c->p;
    c->q = expected_make(&p->q, p->op.q.count);
    c->d = expected_make(&p->d, p->op.d.count);
    c->weight_value = calloc((size_t)(p->op.q.count * p->q.len) + 1, sizeof(double));
    c->weight_bound = calloc((size_t)(p->op.q.count * p->q.len) + 1, sizeof(double));
    for (int64_t n = 0; n < p->scores; n++) {
        int64_t i, j;
        double g = grad_score(c, n);
        problem_pair(p, n, &i, &j);
        for (int64_t s = 0; s < p->q.len; s++) {
            int64_t t = problem_argmax(p, n, s), row_q = i * p->q.len + s, row_d = j * p->d.len + t;
            if (t < 0)
                continue;
            gather(&c->q, row_q, &p->d, row_d, g * p->weights[row_q]);
            gather(&c->d, row_d, &p->q, row_q, g * p->weights[row_q]);
            c->weight_value[row_q] += g * problem_product(p, i, s, j, t);
            c->weight_bound[row_q] += fabs(g) * p->q.norm[row_q] * p->d.norm[row_d];
        }
    }
    for (int64_t row = 0; row < p->op.q.count * p->q.len; row++)
        c->weight_bound[row] = c->weight_bound[row] * UNIT_ROUNDOFF *
                                   ((double)c->q.meetings[row] + 12 * sqrt((double)p->q.dim) + 16) +
                               0x1p-140;
    finish(&c->q, &p->op.q, &p->q);
    finish(&c->d, &p->op.d, &p->d);
}

/* Rounds a tolerance up by half a unit in the last place of `dtype` at `value`. */
static double rounded(double bound, double value, int32_t dtype)
{
    double half_ulp = dtype == LIK_F16 ? 0x1p-11 : dtype == LIK_BF16 ? 0x1p-8 : 0x1p-24;
    double smallest = dtype == LIK_F16 ? 0x1p-25 : dtype == LIK_BF16 ? 0x1p-134 : 0x1p-149;
    return bound + half_ulp * (fabs(value) + bound) + smallest;
}

/* Compares a whole gradient; `before`, if given, is what the buffer held and the gradient was
 * added to. */
static void compare(const char *name, const struct lik_tokens *x, const struct decoded *own,
                    const struct expected *e, const void *got, const float *before)
{
    char *met = calloc((size_t)rows_of(x) + 1, 1);
    for (int64_t i = 0; i < x->count; i++)
        for (int64_t t = 0; t < problem_length(x, i); t++) {
            int64_t row = i * own->len + t, at = row_in_gradient(x, i, t) * x->dim;
            met[at / x->dim] = e->meetings[row] > 0;
            for (int64_t k = 0; k < x->dim && e->meetings[row]; k++) {
                double want = e->value[row * x->dim + k] + (before ? (double)before[at + k] : 0);
                double bound = e->bound[row * x->dim + k] + (before ? fabs(want) * 2 * UNIT_ROUNDOFF : 0);
                double value = (double)lik_load_f32(got, x->dtype, at + k);
                if (x->dtype == LIK_F16 && fabs(want) + bound > 65400) /* may overflow */
                    check(isinf(value) ? fabs(want) + bound > 65519 &&
                                             (value > 0 ? want + bound > 0 : want - bound < 0)
                                       : fabs(value - want) <= rounded(bound, want, x->dtype),
                          "%s[%lld] is %g, expected %g", name, (long long)(at + k), value, want);
                else
                    check_close(name, at + k, value, want, rounded(bound, want, x->dtype));
            }
        }
    for (int64_t row = 0; row < rows_of(x); row++)
        for (int64_t k = 0; k < x->dim && !met[row]; k++) {
            float value = lik_load_f32(got, x->dtype, row * x->dim + k),
                  want = before ? before[row * x->dim + k] : 0;
            check(value == want, "%s of row %lld, which won nothing, is %g, expected %g", name,
                  (long long)row, (double)value, (double)want);
        }
    free(met);
}

static void compare_weights(const struct grad_case *c, const float *before)
{
    const struct lik_tokens *q = &c->p->op.q;
    for (int64_t i = 0; i < q->count; i++)
        for (int64_t s = 0; s < problem_length(q, i); s++) {
            int64_t row = i * c->p->q.len + s, at = row_in_gradient(q, i, s);
            double want = c->weight_value[row] + (before ? (double)before[at] : 0);
            check_close("grad_weights", at, (double)c->op.grad_weights[at], want,
                        rounded(c->weight_bound[row] + fabs(want) * 2 * UNIT_ROUNDOFF, want, LIK_F32));
        }
}

static void run(struct grad_case *c, const struct lik_context *ctx, const struct lik_exec *exec)
{
    check_ok(run_grad(ctx, &c->op, exec), "lik_grad_run");
    if (c->op.grad_q)
        buffer_check(&c->grad_q, "grad_q");
    if (c->op.grad_d)
        buffer_check(&c->grad_d, "grad_d");
    if (c->op.grad_weights)
        buffer_check(&c->grad_weights, "grad_weights");
}

static void poison(struct grad_case *c)
{
    memset(c->grad_q.data, 0xcb, c->grad_q.bytes);
    memset(c->grad_d.data, 0xcb, c->grad_d.bytes);
    memset(c->grad_weights.data, 0xcb, c->grad_weights.bytes);
}

static void compare_all(struct grad_case *c, float *const before[3])
{
    if (c->op.grad_q)
        compare("grad_q", &c->p->op.q, &c->p->q, &c->q, c->op.grad_q, before ? before[0] : NULL);
    if (c->op.grad_d)
        compare("grad_d", &c->p->op.d, &c->p->d, &c->d, c->op.grad_d, before ? before[1] : NULL);
    if (c->op.grad_weights)
        compare_weights(c, before ? before[2] : NULL);
}

/* Fills the buffers with small numbers, runs with `accumulate`, and expects the sum. */
static void check_accumulate(struct grad_case *c, const struct lik_context *ctx, struct rng *rng)
{
    struct buffer *buffers[] = {&c->grad_q, &c->grad_d, &c->grad_weights};
    int32_t dtypes[] = {c->p->op.q.dtype, c->p->op.d.dtype, LIK_F32};
    float *before[3];
    for (int b = 0; b < 3; b++) {
        int64_t n = (int64_t)(buffers[b]->bytes / lik_dtype_bytes(dtypes[b]));
        before[b] = malloc((size_t)(n + 1) * sizeof(float));
        for (int64_t at = 0; at < n && dtypes[b] <= LIK_BF16; at++) {
            lik_store_f32(buffers[b]->data, dtypes[b], at, (float)rng_normal(rng));
            before[b][at] = lik_load_f32(buffers[b]->data, dtypes[b], at);
        }
    }
    c->op.accumulate = 1;
    run(c, ctx, NULL);
    c->op.accumulate = 0;
    compare_all(c, before);
    for (int b = 0; b < 3; b++)
        free(before[b]);
}

static void backwards(void *pool, int64_t n, void (*task)(void *arg, int64_t i), void *arg)
{
    (void)pool;
    for (int64_t i = n - 1; i >= 0; i--)
        task(arg, i);
}

/* The bytes of all gradients, with any number of threads and any order of tasks. */
static void check_threads(struct grad_case *c, const struct lik_context *ctx)
{
    size_t sizes[] = {c->grad_q.bytes, c->grad_d.bytes, c->grad_weights.bytes};
    unsigned char *const data[] = {c->grad_q.data, c->grad_d.data, c->grad_weights.data};
    unsigned char *saved[3];
    poison(c);
    run(c, ctx, NULL);
    for (int b = 0; b < 3; b++) {
        saved[b] = malloc(sizes[b] + 1);
        memcpy(saved[b], data[b], sizes[b]);
    }
    for (int threads = 1; threads <= 8; threads++) {
        struct lik_pool *pool = NULL;
        struct lik_exec exec = {.struct_size = sizeof exec, .threads = threads, .parallel_for = backwards};
        if (threads % 2 && check_ok(lik_pool_create(threads, &pool), "lik_pool_create")) {
            exec.parallel_for = lik_pool_parallel_for;
            exec.pool = pool;
        }
        poison(c);
        run(c, ctx, &exec);
        for (int b = 0; b < 3; b++)
            check(!memcmp(saved[b], data[b], sizes[b]), "with %d threads %s differs", threads,
                  b == 0   ? "grad_q"
                  : b == 1 ? "grad_d"
                           : "grad_weights");
        lik_pool_destroy(pool);
    }
    for (int b = 0; b < 3; b++)
        free(saved[b]);
}

/* ---- finite differences ---- */

/* The loss, sum over the scores of g * score, with element k of one token's stored vector moved
 * by h. The winners are the device's: where precision is low, another product may be larger by
 * a little. */
static double loss(const struct grad_case *c, struct decoded *x, const struct lik_tokens *of, int64_t row,
                   int64_t k, double h)
{
    struct problem *p = c->p;
    double *raw = x->raw + row * x->dim, *vector = x->vector + row * x->dim, squares = 0, total = 0;
    double kept_raw = raw[k], kept_factor = x->factor[row];
    raw[k] += h;
    for (int64_t a = 0; a < x->dim; a++)
        squares += raw[a] * raw[a];
    /* none is clamped here */
    double factor = of->normalize ? copysign(1 / sqrt(squares), kept_factor) : kept_factor;
    for (int64_t a = 0; a < x->dim; a++)
        vector[a] = factor * raw[a];
    for (int64_t n = 0; n < p->scores; n++) {
        int64_t i, j;
        problem_pair(p, n, &i, &j);
        for (int64_t s = 0; s < p->q.len; s++) {
            int64_t won = problem_argmax(p, n, s);
            if (won >= 0)
                total += grad_score(c, n) * p->weights[i * p->q.len + s] * problem_product(p, i, s, j, won);
        }
    }
    raw[k] = kept_raw;
    for (int64_t a = 0; a < x->dim; a++)
        vector[a] = kept_factor * raw[a];
    return total;
}

static void difference(struct grad_case *c, const char *name, struct decoded *x, const struct lik_tokens *of,
                       const struct expected *e, const void *gradient, struct rng *rng)
{
    if (!gradient || of->count == 0 || x->len == 0)
        return;
    for (int probe = 0; probe < 6; probe++) {
        int64_t i = rng_below(rng, of->count), length = problem_length(of, i);
        if (length == 0)
            continue;
        int64_t t = rng_below(rng, length), k = rng_below(rng, x->dim), row = i * x->len + t;
        if (!x->kept[row])
            continue;
        double h = 1e-5 * (x->norm[row] / fabs(x->factor[row])), scale = 0;
        double want = (loss(c, x, of, row, k, h) - loss(c, x, of, row, k, -h)) / (2 * h);
        int64_t at = row_in_gradient(of, i, t) * x->dim;
        for (int64_t a = 0; a < x->dim; a++)
            scale = fmax(scale, fabs((double)lik_load_f32(gradient, of->dtype, at + a)));
        double share = of->dtype == LIK_F32 ? 1e-5 : 0x1p-8;
        double tolerance = share * fmax(scale, fabs(want)) + e->bound[row * x->dim + k] + 1e-6;
        check(fabs((double)lik_load_f32(gradient, of->dtype, at + k) - want) <= tolerance,
              "%s of sequence %lld, token %lld, element %lld is %.9g, the finite difference %.9g", name,
              (long long)i, (long long)t, (long long)k, (double)lik_load_f32(gradient, of->dtype, at + k),
              want);
    }
}

/* ---- cases ---- */

static struct grad_case *grad_case_make(const struct spec *spec, struct rng *rng)
{
    struct grad_case *c = calloc(1, sizeof *c);
    struct problem *p = c->p = problem_make(spec);
    int64_t columns = p->op.pairing == LIK_ALL          ? p->op.d.count
                      : p->op.pairing == LIK_CANDIDATES ? p->op.per_query
                                                        : 1;
    int64_t gap = spec->pairing > LIK_CANDIDATES || rng_below(rng, 3) ? 0 : rng_below(rng, 4),
            rows = columns ? p->scores / columns : 0;
    int64_t entries = rows ? (rows - 1) * (columns + gap) + columns : 0;
    enum placement placement = spec->placement;
    c->grad_scores = buffer_make((size_t)entries * sizeof(float), placement, sizeof(float));
    float *g = (float *)(void *)c->grad_scores.data;
    memset(g, 0xff, c->grad_scores.bytes);
    for (int64_t n = 0; n < p->scores; n++)
        g[n / columns * (columns + gap) + n % columns] = (float)rng_normal(rng);
    buffer_lock(&c->grad_scores);
    c->op = (struct lik_grad){.struct_size = sizeof c->op, .score = p->op, .grad_scores = g};
    c->op.grad_scores_stride = gap ? columns + gap : 0;
    size_t size_q = lik_dtype_bytes(p->op.q.dtype), size_d = lik_dtype_bytes(p->op.d.dtype);
    c->grad_q = buffer_make((size_t)(rows_of(&p->op.q) * p->op.q.dim) * size_q, placement, size_q);
    c->grad_d = buffer_make((size_t)(rows_of(&p->op.d) * p->op.d.dim) * size_d, placement, size_d);
    c->grad_weights = buffer_make((size_t)rows_of(&p->op.q) * sizeof(float), placement, sizeof(float));
    int wanted = (int)rng_below(rng, 8) ? 7 : (int)rng_below(rng, 8); /* mostly all of them */
    c->op.grad_q = p->op.q.dtype <= LIK_BF16 && (wanted & 1) ? c->grad_q.data : NULL;
    c->op.grad_d =
        p->op.d.storage == LIK_DENSE && p->op.d.dtype <= LIK_BF16 && (wanted & 2) ? c->grad_d.data : NULL;
    c->op.grad_weights = p->op.q.weights && (wanted & 4) ? (float *)(void *)c->grad_weights.data : NULL;
    return c;
}

static void grad_case_free(struct grad_case *c)
{
    buffer_free(&c->grad_scores);
    buffer_free(&c->grad_q);
    buffer_free(&c->grad_d);
    buffer_free(&c->grad_weights);
    problem_free(c->p);
    free(c);
}

static void check_variant(const struct grad_case *c, const struct device *device)
{
    struct lik_plan plan = {.struct_size = sizeof plan};
    if (!check_ok(lik_grad_plan(device->ctx, &c->op, NULL, &plan), "lik_grad_plan"))
        return;
    size_t length = strlen(plan.variant), tail = strlen(device->level);
    check(!strncmp(plan.variant, "grad_", 5) && length > tail &&
              (totals.gpu ? strstr(plan.variant, "_cuda_") != NULL
                          : !strcmp(plan.variant + length - tail, device->level)),
          "the variant is \"%s\"", plan.variant);
}

static void check_case(int64_t number, const struct spec *spec)
{
    char text[700];
    struct rng rng = {.state = spec->seed + 2};
    struct grad_case *c = grad_case_make(spec, &rng);
    spec_describe(spec, text, sizeof text);
    for (int64_t i = 0; i < device_count; i++) {
        if (!devices[i].ctx)
            continue;
        check_describe("grad, case %lld on %s: %s", (long long)number, devices[i].name, text);
        check_variant(c, &devices[i]);
        check_ok(problem_run(c->p, devices[i].ctx, NULL), "lik_score_run");
        for (int64_t n = 0; n < c->p->scores; n++)
            for (int64_t s = 0; s < c->p->op.q.len_max; s++)
                check_winner(c->p, n, s);
        expect(c);
        poison(c);
        run(c, devices[i].ctx, NULL);
        compare_all(c, NULL);
        int smooth = spec->q.values == NORMAL && spec->d.values == NORMAL && !problem_quantized(c->p) &&
                     !problem_rounded(c->p);
        if (smooth && spec->q.layout != BROADCAST && spec->d.layout != BROADCAST) {
            difference(c, "grad_q", &c->p->q, &c->p->op.q, &c->q, c->op.grad_q, &rng);
            difference(c, "grad_d", &c->p->d, &c->p->op.d, &c->d, c->op.grad_d, &rng);
        }
        check_accumulate(c, devices[i].ctx, &rng);
        if (number % 8 == 0)
            check_threads(c, devices[i].ctx);
        expected_free(&c->q);
        expected_free(&c->d);
        free(c->weight_value);
        free(c->weight_bound);
    }
    grad_case_free(c);
}

void check_grad(void)
{
    static const int32_t floats[] = {LIK_F32, LIK_F16, LIK_BF16};
    static const enum values values[] = {NORMAL, NORMAL, NORMAL, INTEGERS, TIES, ZEROS, SKEWED, WITH_NAN};
    struct rng rng = {.state = 60};
    for (int64_t number = 0; number < 1500; number++) {
        struct spec spec = spec_random(&rng, number % 16 ? 10000 : 200000);
        spec.argmax_dtype = spec.argmax_dtype ? spec.argmax_dtype : LIK_I32;
        spec.q.dtype = rng_below(&rng, 8) ? RNG_PICK(&rng, floats) : spec.q.dtype;
        spec.d.dtype = rng_below(&rng, 8) ? RNG_PICK(&rng, floats) : spec.d.dtype;
        spec.q.values = RNG_PICK(&rng, values);
        spec.d.values = RNG_PICK(&rng, values);
        spec.d.one_hot = 0; /* has none */
        if (check_wanted(number, 61))
            check_case(number, &spec);
    }
    for (int64_t number = 2000; number < 2008; number++) { /* large enough to be split */
        struct spec spec = spec_plain(33, 61, number % 2 ? 96 : 129, (uint64_t)number);
        spec.q.count = 7;
        spec.d.count = 9;
        spec.q.dtype = floats[number % 3];
        spec.d.dtype = floats[number / 2 % 3];
        spec.q.normalize = spec.d.normalize = number >= 2004;
        spec.weights = 1;
        if (check_wanted(number, 4))
            check_case(number, &spec);
    }
    /* about 30 winners a document token, some more, some less */
    for (int64_t number = 2008; number < 2017; number++) {
        static const int64_t dims[] = {64, 128, 200};
        struct spec spec = spec_plain(33, 21, dims[number % 3], (uint64_t)number);
        spec.q.count = 20;
        spec.d.count = 3;
        spec.q.dtype = spec.d.dtype = floats[number / 3 % 3];
        if (check_wanted(number, 4))
            check_case(number, &spec);
    }
    /* compressed documents, whose queries have scores enough for several parts */
    for (int64_t number = 2017; number < 2032; number++) {
        struct spec spec = spec_plain(5, 3, number % 5 == 4 ? 300 : 21 + number % 3 * 43, (uint64_t)number);
        spec.q.count = 2;
        spec.d.count = 700;
        spec.d.normalize = (int)(number % 2);
        compressed_random(&spec.d, spec.seed);
        spec.weights = 1;
        if (number % 4 == 3) {
            spec.pairing = LIK_LIST;
            spec.list_count = 1100;
        }
        if (check_wanted(number, 4))
            check_case(number, &spec);
    }
    for (int64_t number = 0; number < 64 && !totals.gpu; number++) {
        struct spec spec = spec_far(number);
        if (check_wanted(3000 + number, 5))
            check_case(3000 + number, &spec);
    }
}
