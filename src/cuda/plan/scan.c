/* What the scan of compressed documents (cuda/scan) takes, and how it will run. */
#include "cuda/plan/plan.h"

#include "shared/operand.h"

/* Bytes that a copy may take: all rows, and the tokens in them, begin at multiples of it. */
static int64_t copy_bytes(const struct lik_tokens *d)
{
    const struct lik_strides *s = &d->strides;
    int64_t all = lik_residual_bytes(d->dim, d->codec->bits) | (int64_t)(uintptr_t)d->data | s->token;
    if (!d->offsets)
        all |= s->sequence | (d->group_size > 0 ? s->group : 0);
    return all % 16 == 0 ? 16 : all % 8 == 0 ? 8 : all % 4 == 0 ? 4 : 1;
}

static int takes(const struct gpu_limits *gpu, const struct lik_score *op)
{
    const struct lik_tokens *q = &op->q, *d = &op->d;
    return gpu->hopper && d->storage == LIK_RESIDUAL && q->dtype == d->dtype && d->dtype != LIK_F32 &&
           !q->scale && !(d->scale && d->normalize) && d->dim % 32 == 0 && d->dim <= SCAN_DIM && d->dim > 0 &&
           copy_bytes(d) >= 4 && d->count <= INT32_MAX &&
           lik_score_rows(op) * lik_score_columns(op) < INT32_MAX / 2 / lik_max_i64(q->len_max, 1);
}

static int plan(const struct gpu_limits *gpu, const struct lik_score *op, struct score_plan *plan)
{
    const struct lik_tokens *d = &op->d;
    struct scan_plan *p = &plan->scan;
    int status = lik_cuda_tile_rows(op, 2, &plan->tiling);
    if (status)
        return status;
    int64_t items = plan->tiling.tiles * plan->columns;
    int32_t row = (int32_t)lik_residual_bytes(d->dim, d->codec->bits);
    p->blocks = (int32_t)lik_min_i64((items + SCAN_WARPS - 1) / SCAN_WARPS, gpu->processors);
    p->copy_bytes = (int32_t)copy_bytes(d);
    p->ring_row = (row + 15) / 16 * 16;
    if (p->ring_row % 32 == 0)
        p->ring_row += 16;
    int32_t table = d->codec->bits == 0 ? 0 : (d->codec->bits == 1 ? 16 : 256) * 128;
    p->shared_bytes = table + SCAN_WARPS * SCAN_STAGES * SCAN_TOKENS * p->ring_row;
    plan->centroid_bytes = (d->codec->centroid_count + 1) * d->dim * 2;
    return LIK_OK;
}

static void name(const struct score_plan *plan, const struct lik_score *op, char *text, size_t size)
{
    (void)plan;
    lik_cuda_add_text(text, size, 0, "score_%s_d%lld_scan_%dbits", lik_dtype_name(op->d.dtype),
                      (long long)op->d.dim, op->d.codec->bits);
}

static size_t print(const struct score_plan *plan, char *text, size_t size, size_t n)
{
    const struct scan_plan *p = &plan->scan;
    return lik_cuda_add_text(text, size, n,
                             "%d blocks of %d warps, %d bytes; copies of %d to rows of %d; %lld bytes of "
                             "centroids",
                             p->blocks, SCAN_WARPS, p->shared_bytes, p->copy_bytes, p->ring_row,
                             (long long)plan->centroid_bytes);
}

const struct score_planner lik_cuda_plans_scan = {takes, plan, name, print};
