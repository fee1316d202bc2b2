/* Tokens as 8-bit numbers with scales: one pass over them, two where one scale is all tokens'.
 * Slots take blocks of rows from a counter; rows that are stored as the f32 that counts are
 * read where they lie, others through one row of a slot's scratch. */
#include "cpu/assign.h"

#include "shared/quantize.h"

#include <stdio.h>
#include <string.h>

#define BLOCK_ELEMENTS 32768 /* of the rows of a block: far more work than taking it */

struct quantize_job {
    const struct lik_quantize *op;
    struct lik_tokens x; /* op->x, not normalized: the values are the same */
    struct lik_cpu_reader reader;
    int in_place;
    int64_t block;      /* rows */
    int find;           /* only the largest is wanted */
    float scale;        /* of all tokens; 0: one a token */
    atomic_int largest; /* bits of the largest |element| of all */
    atomic_llong next;  /* row */
    char *scratch;
    size_t slot_bytes;
};

/* Bits of the largest |element|: as integers they are in the order of the numbers, NaN last. */
static int32_t largest_of(const float *x, int64_t n)
{
    int32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t bits = lik_float_bits(x[i]) & INT32_MAX;
        most = bits > most ? bits : most;
    }
    return most;
}

#define ROW(name, convert)                                                                       \
    static inline void name(uint8_t *values, const float *x, int64_t n, float scale, float most) \
    {                                                                                            \
        for (int64_t i = 0; i < n; i++) {                                                        \
            float v = x[i] / scale;                                                              \
            v = v > most ? most : v;                                                             \
            values[i] = convert(v < -most ? -most : v);                                          \
        }                                                                                        \
    }
ROW(row_i8, lik_as_i8)
ROW(row_e4m3, lik_as_e4m3)
ROW(row_e5m2, lik_as_e5m2)

static void quantize_row(int32_t dtype, uint8_t *values, const float *x, int64_t n, float scale)
{
    float most = lik_quantize_most(dtype);
    switch (dtype) {
    case LIK_I8: row_i8(values, x, n, scale, most); return;
    case LIK_E4M3: row_e4m3(values, x, n, scale, most); return;
    default: row_e5m2(values, x, n, scale, most); return;
    }
}

/* A row that holds NaN or an infinity: NaN stays one, as i8 it is 0. */
static void quantize_odd_row(int32_t dtype, uint8_t *values, const float *x, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++) {
        if (isnan(x[i] / scale))
            values[i] = dtype == LIK_I8 ? 0 : 0x7f;
        else
            quantize_row(dtype, values + i, x + i, 1, scale);
    }
}

/* |x / scale|, whose squares neither overflow nor vanish. */
static float length_of(const float *x, int64_t n, float scale)
{
    float sums[LIK_QUANTIZE_SUMS] = {0};
    int64_t i = 0;
    for (; i + LIK_QUANTIZE_SUMS <= n; i += LIK_QUANTIZE_SUMS)
        for (int k = 0; k < LIK_QUANTIZE_SUMS; k++) {
            float v = x[i + k] / scale;
            sums[k] += v * v;
        }
    for (int k = 0; i < n; i++, k++) {
        float v = x[i] / scale;
        sums[k] += v * v;
    }
    for (int left = LIK_QUANTIZE_SUMS / 2; left > 0; left /= 2)
        for (int k = 0; k < left; k++)
            sums[k] = sums[2 * k] + sums[2 * k + 1];
    return sqrtf(sums[0]);
}

static void take_row(struct quantize_job *job, const float *x, int64_t row)
{
    const struct lik_quantize *op = job->op;
    int64_t dim = op->x.dim;
    int32_t most = job->scale != 0 ? 0 : largest_of(x, dim);
    if (job->find) {
        int32_t seen = atomic_load_explicit(&job->largest, memory_order_relaxed);
        while (most > seen && !atomic_compare_exchange_weak(&job->largest, &seen, most))
            ;
        return;
    }
    uint8_t *values = (uint8_t *)op->values + row * dim;
    float scale = job->scale != 0 ? job->scale : lik_quantize_scale(op->values_dtype, lik_bits_float(most));
    if (isfinite(scale))
        quantize_row(op->values_dtype, values, x, dim, scale);
    else
        quantize_odd_row(op->values_dtype, values, x, dim, scale);
    if (op->one_scale)
        return;
    if (op->x.normalize) {
        float length = length_of(x, dim, scale); /* of the token: length * scale */
        scale = length * scale < (float)LIK_NORM_MIN ? scale / (float)LIK_NORM_MIN : 1 / length;
    }
    op->scales[row] = scale;
}

static const float *row_of(const struct quantize_job *job, int64_t i, int64_t t, float *scratch)
{
    const struct lik_tokens *x = &job->x;
    if (job->in_place)
        return (const float *)x->data + lik_tokens_base(x, &x->strides, i) + t * x->strides.token;
    lik_cpu_load_vector(&job->reader, i, t, scratch);
    return scratch;
}

static void take_none(const struct quantize_job *job, int64_t row)
{
    if (job->find)
        return;
    memset((char *)job->op->values + row * job->x.dim, 0, (size_t)job->x.dim);
    if (!job->op->one_scale)
        job->op->scales[row] = 0;
}

static void quantize_slot(void *arg, int64_t slot)
{
    struct quantize_job *job = arg;
    float *scratch = (float *)(void *)(job->scratch + (size_t)slot * job->slot_bytes);
    int64_t rows = lik_tokens_rows(&job->x), i, t;
    for (;;) {
        int64_t row = atomic_fetch_add_explicit(&job->next, job->block, memory_order_relaxed);
        if (row >= rows)
            return;
        struct lik_cpu_rows_walk walk = lik_cpu_walk(&job->x, row);
        for (int64_t end = lik_min_i64(row + job->block, rows); row < end; row++) {
            if (lik_cpu_walk_next(&walk, &i, &t))
                take_row(job, row_of(job, i, t, scratch), row);
            else
                take_none(job, row);
        }
    }
}

static void run(struct quantize_job *job, const struct lik_exec *exec)
{
    int64_t tasks = lik_divide_up(lik_tokens_rows(&job->x), job->block);
    atomic_store(&job->next, 0);
    exec->parallel_for(exec->pool, lik_min_i64(exec->threads, lik_max_i64(tasks, 1)), quantize_slot, job);
}

int lik_cpu_quantize(const struct lik_context *ctx, const struct lik_quantize *op, struct lik_exec *exec,
                     struct lik_plan *plan)
{
    struct quantize_job job = {.op = op, .x = op->x, .block = BLOCK_ELEMENTS / op->x.dim + 1};
    struct lik_layout layout = {0}, slot = {0};
    job.x.normalize = 0;
    job.in_place = lik_cpu_in_place(&job.x) && !job.x.scale;
    lik_cpu_reader_init(&job.reader, ctx->kernels, &job.x);
    lik_layout_take(&slot, job.in_place ? 0 : op->x.dim, 4, 64);
    lik_layout_repeat(&layout, &slot, exec->threads, 64, &job.slot_bytes);
    if (plan) {
        char suffix[8];
        snprintf(suffix, sizeof suffix, "_%s", lik_dtype_name(op->values_dtype));
        lik_cpu_name_tokens(ctx->kernels, "quantize", &op->x, suffix, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    int status = lik_workspace_take(ctx, exec, &layout, &job.scratch);
    if (status)
        return status;
    atomic_store(&job.largest, 0);
    if (op->one_scale) {
        job.find = 1;
        run(&job, exec);
        job.find = 0;
        job.scale = lik_quantize_scale(op->values_dtype, lik_bits_float(atomic_load(&job.largest)));
        op->scales[0] = job.scale;
    }
    run(&job, exec);
    return LIK_OK;
}
