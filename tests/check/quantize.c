/* Quantization: operands of generated problems, in every storage and layout, against the 8-bit
 * numbers nearest to what they hold; the same bytes for any number of threads; wrong
 * arguments; and the division of the CUDA kernels against the processor's. */
#include "check.h"

#include "base/dtype.h"

static const int32_t value_dtypes[] = {LIK_I8, LIK_E4M3, LIK_E5M2};

static int64_t rows_of(const struct lik_tokens *x)
{
    return x->offsets ? x->total : x->count * x->len_max;
}

static double most_of(int32_t dtype)
{
    return dtype == LIK_I8 ? 127 : dtype == LIK_E4M3 ? 448 : 57344;
}

static float scale_of(int32_t dtype, float largest)
{
    float least = dtype == LIK_I8 ? 1e-12F : 1e-6F;
    return (isnan(largest) || largest > least ? largest : least) / (float)most_of(dtype);
}

/* ---- what is expected ---- */

/* The tokens as they count without normalization, in f32, and how long they are. */
struct expected {
    int64_t rows, dim;
    unsigned char *kept; /* [rows] */
    float *element;      /* [rows, dim] */
    float *largest;      /* [rows]; NaN if there is one */
    double *length;      /* [rows] */
    float all;           /* the largest of all */
};

static struct expected expect_of(const struct lik_tokens *x, const struct decoded *decoded)
{
    struct expected e = {.rows = rows_of(x), .dim = x->dim};
    size_t rows = (size_t)e.rows, dim = (size_t)e.dim;
    e.kept = calloc(rows + 1, 1);
    e.element = calloc(rows * dim + 1, sizeof *e.element);
    e.largest = calloc(rows + 1, sizeof *e.largest);
    e.length = calloc(rows + 1, sizeof *e.length);
    for (int64_t i = 0; i < x->count; i++)
        for (int64_t t = 0; t < problem_length(x, i); t++) {
            int64_t token = i * decoded->len + t, row = problem_row(x, i, t);
            double squares = 0, scale = 1;
            if (!decoded->kept[token])
                continue;
            if (x->scale)
                scale = (double)lik_load_f32(x->scale, x->scale_dtype == LIK_F16 ? LIK_F16 : LIK_F32,
                                             problem_place(x, x->scale_strides, i, t));
            e.kept[row] = 1;
            for (int64_t k = 0; k < e.dim; k++) {
                float own = (float)(scale * decoded->raw[token * e.dim + k]);
                e.element[row * e.dim + k] = own;
                squares += (double)own * (double)own;
                e.largest[row] =
                    isnan(own) || isnan(e.largest[row]) ? NAN : fmaxf(fabsf(own), e.largest[row]);
            }
            e.length[row] = sqrt(squares);
            e.all = isnan(e.largest[row]) || isnan(e.all) ? NAN : fmaxf(e.largest[row], e.all);
        }
    return e;
}

static void expected_free(struct expected *e)
{
    free(e->kept);
    free(e->element);
    free(e->largest);
    free(e->length);
}

/* The finite numbers of a dtype that are not negative, ascending; their codes ascend, too. */
static int numbers_of(int32_t dtype, float number[128])
{
    int count = 0;
    for (int code = 0; code < 128; code++) {
        const uint8_t bytes[4] = {(uint8_t)code};
        float x = lik_load_f32(bytes, dtype, 0);
        if (isfinite(x))
            number[count++] = x;
    }
    return count;
}

/* The code of the number nearest to v, of two the even one. */
static uint8_t nearest(float v, int32_t dtype, const float *number, int count)
{
    if (isnan(v))
        return dtype == LIK_I8 ? 0 : 0x7f;
    double size = fabs((double)v);
    int low = 0, high = count - 1;
    while (high - low > 1) {
        int mid = (low + high) / 2;
        *((double)number[mid] <= size ? &low : &high) = mid;
    }
    double below = size - (double)number[low], above = (double)number[high] - size;
    int code = below < above || (below == above && !(low & 1)) ? low : high;
    if (dtype == LIK_I8)
        return (uint8_t)(signbit(v) ? -code : code);
    return (uint8_t)(code | (signbit(v) ? 0x80 : 0));
}

static void expect_scale(const struct lik_quantize *op, const struct expected *e, int64_t row)
{
    float want = scale_of(op->values_dtype, op->one_scale ? e->all : e->largest[row]), got = op->scales[row];
    if (!op->one_scale && !e->kept[row])
        want = 0;
    else if (op->x.normalize && isfinite(want))
        want = (float)((double)want / fmax(e->length[row], 1e-12));
    else if (!isfinite(want)) { /* whatever its bits */
        check(!isfinite(got), "scale %lld is %g, not finite is right", (long long)row, (double)got);
        return;
    }
    double apart = op->x.normalize ? UNIT_ROUNDOFF * (10 + 2 * sqrt((double)e->dim)) * fabs((double)want) : 0;
    check_close("scale", row, (double)got, (double)want, apart);
}

static void expect_values(const struct lik_quantize *op, const struct expected *e, const float *number,
                          int count)
{
    for (int64_t row = 0; row < (op->one_scale ? 1 : e->rows); row++)
        expect_scale(op, e, row);
    for (int64_t row = 0; row < e->rows; row++) {
        float scale = scale_of(op->values_dtype, op->one_scale ? e->all : e->largest[row]);
        for (int64_t k = 0; k < e->dim; k++) {
            float v = e->element[row * e->dim + k] / scale;
            uint8_t got = ((const uint8_t *)op->values)[row * e->dim + k];
            uint8_t want = e->kept[row] ? nearest(v, op->values_dtype, number, count) : 0;
            if (got == want)
                totals.checks++;
            else
                check(0, "row %lld, element %lld, %.9g of the scale, is 0x%02x, must be 0x%02x",
                      (long long)row, (long long)k, (double)v, got, want);
        }
    }
}

/* ---- operands ---- */

static void quantize_operand(const struct problem *p, const struct lik_tokens *operand,
                             const struct decoded *decoded, struct rng *rng)
{
    struct lik_quantize op = {
        .struct_size = sizeof op, .x = *operand, .values_dtype = RNG_PICK(rng, value_dtypes)};
    op.x.weights = NULL;
    op.one_scale = !op.x.normalize && rng_below(rng, 3) == 0;
    struct expected e = expect_of(&op.x, decoded);
    size_t bytes = (size_t)(e.rows * e.dim), scales = (op.one_scale ? 1 : (size_t)e.rows) * sizeof(float);
    float number[128];
    int count = numbers_of(op.values_dtype, number);
    for (int64_t d = 0; d < device_count; d++) {
        unsigned char *first = malloc(bytes + scales + 1);
        for (int threads = 1; threads <= (totals.gpu ? 1 : 3) && devices[d].ctx; threads += 2) {
            struct buffer values = buffer_make(bytes, p->spec.placement, 1);
            struct buffer factors = buffer_make(scales, p->spec.placement, sizeof(float));
            struct lik_exec exec = exec_of(threads);
            memset(values.data, 0xcb, bytes);
            memset(factors.data, 0xcb, scales);
            op.values = values.data;
            op.scales = (float *)(void *)factors.data;
            if (check_ok(run_quantize(devices[d].ctx, &op, &exec), devices[d].name) && threads == 1)
                expect_values(&op, &e, number, count);
            if (threads == 1) {
                memcpy(first, values.data, bytes);
                memcpy(first + bytes, factors.data, scales);
            }
            check(!memcmp(first, values.data, bytes) && !memcmp(first + bytes, factors.data, scales),
                  "%d threads give other bytes", threads);
            buffer_check(&values, "the values");
            buffer_check(&factors, "the scales");
            buffer_free(&values);
            buffer_free(&factors);
        }
        free(first);
    }
    expected_free(&e);
}

static void check_operands(void)
{
    struct rng rng = {.state = 78};
    for (int64_t n = 0; n < 1200; n++) {
        struct spec spec = spec_random(&rng, 20000);
        if (n % 3 == 1) /* a lane of the CUDA kernels has up to eight runs of eight elements */
            spec.dim = (1 + rng_below(&rng, 70)) * 8;
        if (!check_wanted(n, 12))
            continue;
        char text[600];
        spec_describe(&spec, text, sizeof text);
        check_describe("quantize: operands of case %lld: %s", (long long)n, text);
        struct problem *p = problem_make(&spec);
        struct rng own = {.state = spec.seed};
        if (p->op.d.storage != LIK_ONE_HOT)
            quantize_operand(p, &p->op.d, &p->d, &own);
        quantize_operand(p, &p->op.q, &p->q, &own);
        problem_free(p);
    }
}

/* All floats at which two numbers part, their neighbors, and the numbers themselves. */
static void check_every_rounding(void)
{
    for (int64_t n = 0; n < COUNT(value_dtypes); n++) {
        float number[128], x[8 * 128] = {0}, scale;
        uint8_t values[8 * 128];
        int32_t dtype = value_dtypes[n];
        int count = numbers_of(dtype, number), dim = 0;
        for (int i = 0; i + 1 < count; i++) {
            float between = (number[i] + number[i + 1]) / 2;
            float near[4] = {number[i], between, nextafterf(between, INFINITY), nextafterf(between, 0)};
            for (int k = 0; k < 4; k++, dim++)
                x[dim] = dim % 3 ? near[k] : -near[k];
        }
        x[dim++] = number[count - 1];
        struct lik_quantize op = {
            .struct_size = sizeof op, .values_dtype = dtype, .values = values, .scales = &scale};
        for (int64_t d = 0; d < device_count; d++) {
            op.x = lik_tokens_padded(x, LIK_F32, 1, 1, dim);
            check_describe("quantize: every rounding to %s on %s", lik_dtype_name(dtype), devices[d].name);
            if (!devices[d].ctx || !check_ok(run_quantize(devices[d].ctx, &op, NULL), "lik_quantize_run"))
                continue;
            check(scale == 1, "the scale is %g", (double)scale);
            for (int k = 0; k < dim; k++)
                check(values[k] == nearest(x[k], dtype, number, count), "%.9g is 0x%02x", (double)x[k],
                      values[k]);
        }
    }
}

/* The CUDA kernels divide by a correctly rounded reciprocal and refine once: that may part from
 * the processor's quotient nowhere where two 8-bit numbers do. Those are at odd multiples of a
 * half up to 127.5, and at powers of two times some of these. (All 2^23 scales hold; here are
 * some.) */
static void check_division(void)
{
    check_describe("quantize: division by the reciprocal");
    for (int n = 1; n <= 255; n += 2)
        for (uint32_t s = 0; s < 1u << 23; s += totals.quick ? 65521 : 4093) {
            float scale = lik_f32_of_bits(0x3f800000u | s), at = (float)n * 0.5F, reciprocal = 1 / scale;
            for (int d = -2; d <= 2; d++) {
                float x = lik_f32_of_bits(lik_bits_of_f32(at * scale) + (uint32_t)d), want = x / scale;
                float q = x * reciprocal;
                q = fmaf(fmaf(-q, scale, x), reciprocal, q);
                check((q < at) == (want < at) && (q == at) == (want == at), "%.9g / %.9g is %.9g, not %.9g",
                      (double)x, (double)scale, (double)q, (double)want);
            }
        }
}

/* ---- wrong arguments ---- */

static struct {
    uint8_t values[30 * 8];
    float scales[30];
} made;

static struct lik_quantize good_call(void)
{
    static float x[30 * 8];
    memset(&made, 0xcb, sizeof made);
    struct lik_quantize op = {.struct_size = sizeof op, .values_dtype = LIK_I8};
    op.x = lik_tokens_padded(x, LIK_F32, 6, 5, 8);
    op.values = made.values;
    op.scales = made.scales;
    return op;
}

static void refused(const char *what, const struct lik_quantize *op, int run_only, const char *a,
                    const char *b)
{
    for (int64_t d = 0; d < device_count; d++)
        for (int run = run_only; run < 2 && devices[d].ctx; run++) {
            struct lik_plan plan = {.struct_size = sizeof plan}, same = plan;
            unsigned char before[sizeof made];
            memcpy(before, &made, sizeof made);
            check_describe("quantize: %s, %s on %s", what, run ? "run" : "plan", devices[d].name);
            int got = run ? lik_quantize_run(devices[d].ctx, op, NULL)
                          : lik_quantize_plan(devices[d].ctx, op, NULL, &plan);
            check(got == LIK_EINVAL, "the status is %s", lik_status_name(got));
            check(strstr(lik_last_error(), a) && strstr(lik_last_error(), b),
                  "the message \"%s\" lacks \"%s\" or \"%s\"", lik_last_error(), a, b);
            check(!memcmp(before, &made, sizeof made) && !memcmp(&plan, &same, sizeof plan),
                  "something was written");
        }
}

#define INVALID(change, run_only, a, b)        \
    do {                                       \
        struct lik_quantize op = good_call();  \
        change;                                \
        refused(#change, &op, run_only, a, b); \
    } while (0)

static void check_refusals(void)
{
    static char odd[8];
    void *crooked = odd + 1;
    struct lik_quantize good = good_call();
    check(lik_quantize_run(NULL, &good, NULL) == LIK_EINVAL && strstr(lik_last_error(), "ctx"),
          "no context is taken");
    INVALID(op.struct_size = 3, 0, "quantize.struct_size is 3", "at least");
    INVALID(op.x.dim = 0, 0, "x.dim is 0", "1 to");
    INVALID(op.x.weights = made.scales, 0, "x.weights", "set");
    INVALID(op.values_dtype = LIK_F16, 0, "values_dtype is 2 (f16)", "i8, e4m3 or e5m2");
    INVALID((op.one_scale = 1, op.x.normalize = 1), 0, "one_scale is 1", "x.normalize 1");
    INVALID(op.values = NULL, 1, "values is NULL", "240");
    INVALID(op.scales = NULL, 1, "scales is NULL", "30");
    INVALID((op.one_scale = 1, op.scales = NULL), 1, "scales is NULL", "1 entries");
    INVALID(op.scales = crooked, 0, "scales is", "4 bytes");
}

void check_quantize(void)
{
    check_division();
    check_every_rounding();
    check_operands();
    if (!totals.gpu) /* what is refused lies in host memory */
        check_refusals();
}
