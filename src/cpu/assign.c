/* Blocks of tokens to their centroids. See assign.h. */
#include "cpu/assign.h"

#include "base/dtype.h"

#define BLOCK_BYTES (256 << 10) /* of f32 rows: packed they stay in L2, as the plan's do */

int lik_cpu_assign_plan(struct lik_cpu_assign *assign, const struct lik_cpu_kernels *kernels,
                        const struct lik_tokens *centroids, int32_t precision, int64_t tokens,
                        int32_t threads, struct lik_layout *slot)
{
    int64_t panel = kernels->geometry.panel_lanes, dim = centroids->dim;
    int64_t share = lik_divide_up(lik_max_i64(tokens, 1), 4 * threads); /* so that each thread gets several */
    int64_t block = lik_min_i64(BLOCK_BYTES / (4 * dim), share);
    *assign = (struct lik_cpu_assign){.kernels = kernels, .exec = {.struct_size = sizeof assign->exec}};
    assign->block = lik_max_i64(lik_divide_up(block, panel), 1) * panel;
    struct lik_tokens *q = &assign->op.q;
    assign->op.struct_size = sizeof assign->op;
    *q = (struct lik_tokens){.struct_size = sizeof *q, .dtype = LIK_F32, .scale_dtype = LIK_F32};
    q->count = 1;
    q->len_max = assign->block;
    q->dim = dim;
    q->dim_stride = 1;
    q->strides.token = dim;
    assign->op.d = *centroids;
    assign->op.precision = precision;
    assign->op.scores_stride = 1;
    assign->op.argmax_dtype = LIK_I32;
    assign->op.argmax = assign; /* planned for one; each slot has its own */
    assign->exec.threads = 1;
    assign->base = (size_t)lik_round_up(slot->bytes, 64);
    int status = lik_cpu_plan_score(kernels, &assign->op, &assign->exec, &assign->plan, slot);
    assign->rows = lik_layout_take(slot, assign->block * dim, 4, 64);
    assign->winners = lik_layout_take(slot, assign->block, 4, 64);
    assign->scores = lik_layout_take(slot, 1, 4, 64);
    return status;
}

float *lik_cpu_assign_rows(const struct lik_cpu_assign *assign, char *scratch)
{
    return (float *)(void *)(scratch + assign->rows);
}

const int32_t *lik_cpu_assign_run(const struct lik_cpu_assign *assign, int64_t count, char *scratch)
{
    struct lik_score op = assign->op;
    struct lik_cpu_job job = {
        .kernels = assign->kernels, .op = &op, .exec = &assign->exec, .plan = assign->plan};
    op.q.data = scratch + assign->rows;
    op.q.len_max = count;
    op.argmax = scratch + assign->winners;
    op.scores = (float *)(void *)(scratch + assign->scores);
    if (count > 0)
        lik_cpu_run(&job, scratch + assign->base);
    return op.argmax;
}

int lik_cpu_walk_next(struct lik_cpu_rows_walk *walk, int64_t *i, int64_t *t)
{
    int64_t row = walk->row++;
    if (row >= walk->end) {
        walk->i = lik_tokens_sequence(walk->x, row);
        if (walk->i < 0)
            return 0;
        walk->begin = lik_tokens_row(walk->x, walk->i);
        walk->end = walk->begin + lik_tokens_length(walk->x, walk->i);
    }
    *i = walk->i;
    *t = row - walk->begin;
    return lik_token_kept(walk->x, *i, *t);
}

void lik_cpu_load_vector(const struct lik_cpu_reader *reader, int64_t i, int64_t t, float *dst)
{
    const struct lik_tokens *x = reader->x;
    lik_cpu_load_token(reader, i, t, dst);
    if (!x->scale && !x->normalize)
        return;
    float scale = 1.0f;
    if (x->scale)
        scale = lik_load_f32(x->scale, x->scale_dtype,
                             lik_tokens_base(x, &x->scale_strides, i) + t * x->scale_strides.token);
    float factor = lik_cpu_token_factor(reader->kernels, x, scale, dst);
    for (int64_t k = 0; k < x->dim; k++)
        dst[k] *= factor;
}
