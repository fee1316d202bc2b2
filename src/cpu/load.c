/* The loaders: one a way in which tokens are stored. See stream.h. */
#include "cpu/stream.h"

#include <string.h>

static int takes_f32(const struct lik_score *op)
{
    return lik_cpu_in_place(&op->d);
}

static int takes_f16(const struct lik_score *op)
{
    return op->d.dtype == LIK_F16 && lik_cpu_lies_together(&op->d) && !op->d.normalize;
}

static int takes_bf16(const struct lik_score *op)
{
    return op->d.dtype == LIK_BF16 && lik_cpu_lies_together(&op->d) && !op->d.normalize;
}

/* 8-bit documents whose query LIK_MEDIUM allows to round to 7 bits. */
static int takes_i8_q7_apart(const struct lik_score *op)
{
    return op->d.dtype == LIK_I8 && op->precision == LIK_MEDIUM && op->q.dtype != LIK_I8;
}

static int takes_i8_q7(const struct lik_score *op)
{
    return takes_i8_q7_apart(op) && lik_cpu_lies_together(&op->d);
}

static int takes_i8_q16_apart(const struct lik_score *op)
{
    return op->d.dtype == LIK_I8;
}

static int takes_i8_q16(const struct lik_score *op)
{
    return takes_i8_q16_apart(op) && lik_cpu_lies_together(&op->d);
}

static int takes_any(const struct lik_score *op)
{
    (void)op;
    return 1;
}

/* Elements of i8 that do not lie together, copied. */
static void gather_i8(const struct lik_cpu_job *job, int64_t j, int64_t from, int64_t to,
                      struct lik_cpu_stream *stream, struct lik_cpu_slot *slot)
{
    const struct lik_tokens *d = &job->op->d;
    const int8_t *data = (const int8_t *)d->data + lik_tokens_base(d, &d->strides, j);
    for (int64_t r = from; r < to; r++) {
        const int8_t *token = data + stream->index[r] * d->strides.token;
        int8_t *row = slot->gathered + r * d->dim;
        for (int64_t k = 0; k < d->dim; k++)
            row[k] = token[k * d->dim_stride];
        stream->rows[r] = row;
    }
}

/* Any dense token as f32: 8-bit floats, strided elements, narrow dtypes to normalize. */
static void load_f32(const struct lik_cpu_job *job, int64_t j, int64_t from, int64_t to,
                     struct lik_cpu_stream *stream, struct lik_cpu_slot *slot)
{
    for (int64_t r = from; r < to; r++) {
        float *row = slot->widened + r * job->plan.widened_stride;
        lik_cpu_load_token(job->kernels, &job->op->d, j, stream->index[r], row);
        stream->rows[r] = row;
    }
}

#define KERNELS(name) offsetof(struct lik_cpu_kernels, name)

static const struct lik_cpu_loader loaders[] = {
    {"", takes_f32, 1, 4, LIK_ROWS_READ, KERNELS(f32), 0, NULL},
    {"", takes_f16, 1, 2, LIK_ROWS_WIDENED, KERNELS(f16), 0, NULL},
    {"", takes_bf16, 1, 2, LIK_ROWS_WIDENED, KERNELS(bf16), 0, NULL},
    {"_q7", takes_i8_q7, 4, 1, LIK_ROWS_RING, KERNELS(i8_q7), 0, NULL},
    {"_q7", takes_i8_q7_apart, 4, 1, LIK_ROWS_RING, KERNELS(i8_q7), 1, gather_i8},
    {"_q16", takes_i8_q16, 2, 1, LIK_ROWS_RING, KERNELS(i8_q16), 0, NULL},
    {"_q16", takes_i8_q16_apart, 2, 1, LIK_ROWS_RING, KERNELS(i8_q16), 1, gather_i8},
    {"_gather", takes_any, 1, 4, LIK_ROWS_LOADED, KERNELS(f32), 0, load_f32},
};

const struct lik_cpu_loader *lik_cpu_find_loader(const struct lik_score *op)
{
    const struct lik_cpu_loader *loader = loaders;
    while (!loader->takes(op))
        loader++;
    return loader;
}
