/* What the pass of few query rows over documents of 8 bits (cuda/bytes.cu) takes, and how it
 * will run. */
#include "cuda/plan/plan.h"

#include "shared/tokens.h"

#define BLOCKS_BUSY 3 /* documents a block: with fewer, the Hopper loop, whose blocks share none, is ahead */

static int takes(const struct gpu_limits *gpu, const struct lik_score *op)
{
    const struct lik_tokens *d = &op->d;
    const int64_t scores = lik_score_rows(op) * lik_score_columns(op);
    return lik_cuda_plans_sm90.takes(gpu, op) && lik_dtype_bytes(d->dtype) == 1 && !d->normalize &&
           d->dim % 16 == 0 && d->dim <= BYTES_DIM && lik_cuda_strips(op) <= 2 &&
           scores >= BLOCKS_BUSY * (int64_t)gpu->processors && scores < INT32_MAX / 2;
}

static int plan(const struct gpu_limits *gpu, const struct lik_score *op, struct score_plan *plan)
{
    struct bytes_plan *p = &plan->bytes;
    int status = lik_cuda_tile_rows(op, 2, &plan->tiling);
    if (status)
        return status;
    p->blocks = gpu->processors;
    p->shared_bytes = BYTES_WARPS * (BYTES_STAGES * BYTES_TOKENS * (128 + 4) + 8 * BYTES_DIM * 2) + 1024;
    p->scaled = op->d.scale && !lik_cuda_one_scale(&op->d);
    return LIK_OK;
}

static void name(const struct score_plan *plan, const struct lik_score *op, char *text, size_t size)
{
    (void)plan;
    lik_cuda_add_text(text, size, 0, "score_%s_d%lld_bytes", lik_dtype_name(op->d.dtype),
                      (long long)op->d.dim);
}

static size_t print(const struct score_plan *plan, char *text, size_t size, size_t n)
{
    const struct bytes_plan *p = &plan->bytes;
    return lik_cuda_add_text(text, size, n, "%d blocks of %d warps, %d stages, %d bytes%s", p->blocks,
                             BYTES_WARPS, BYTES_STAGES, p->shared_bytes, p->scaled ? ", scaled" : "");
}

const struct score_planner lik_cuda_plans_bytes = {takes, plan, name, print};
