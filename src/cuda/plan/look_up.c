/* How products are looked up (cuda/look_up.cu): documents of LIK_ONE_HOT, on any GPU. */
#include "cuda/plan/plan.h"

#include "base/size.h"
#include "shared/tokens.h"

#include <stdio.h>

#define QUAD_BYTES     16           /* of an element; two more are for tokens that have none */
#define TOKENS_MOST    (1 << 30)    /* of a document */
#define PRODUCTS_LEAST 2e7          /* some 15 us where they lie: an estimate, to be measured */
#define MAXIMA_MOST    (32ll << 20) /* 128 MB of workspace: a million documents and 32 query tokens */

static int takes(const struct gpu_limits *gpu, const struct lik_score *op)
{
    (void)gpu;
    return op->d.storage == LIK_ONE_HOT;
}

/* Are quads worth it? A block brings a quad's elements in the time of a few look-ups each; the
 * second kernel takes a few microseconds. Elements that do not lie together cost a warp 32
 * bytes each where they lie, not 4. */
static int wants_quads(const struct gpu_limits *gpu, const struct lik_score *op)
{
    double tokens = op->d.offsets ? (double)op->d.total : (double)op->d.count * (double)op->d.len_max;
    double products = tokens * (double)op->q.count * (double)op->q.len_max;
    int apart = op->q.strides.token != 1 && op->q.len_max > 1;
    int64_t steps[] = {op->d.codes_strides.token, op->d.mask ? op->d.mask_strides.token : 0};
    for (int i = 0; i < 2; i++)
        if (steps[i] > INT32_MAX || steps[i] < INT32_MIN) /* they are multiplied as 32 bits */
            return 0;
    int fits = op->d.len_max <= TOKENS_MOST && (size_t)op->q.dim + 2 <= gpu->shared_bytes / QUAD_BYTES;
    return op->pairing == LIK_ALL && fits && tokens >= (apart ? 1 : 4) * (double)op->q.dim &&
           products * (apart ? 8 : 1) >= PRODUCTS_LEAST;
}

static int plan(const struct gpu_limits *gpu, const struct lik_score *op, struct score_plan *plan)
{
    struct look_up_plan *p = &plan->look_up;
    int strips = (int)((op->q.len_max + LIK_STRIP_ROWS - 1) / LIK_STRIP_ROWS);
    int status = lik_cuda_tile_rows(op, strips, &plan->tiling); /* a query is a row tile */
    if (status)
        return status;
    p->near_rows = op->q.dim_stride >= 0 && op->q.dim_stride < 1ll << 30;
    int64_t quads = (op->q.len_max + 3) / 4, items, maxima;
    if (!wants_quads(gpu, op) || lik_mul_i64(op->q.count, quads, &items) || items > INT32_MAX / 2 ||
        lik_mul_i64(plan->scores, strips * LIK_STRIP_ROWS, &maxima) || maxima > MAXIMA_MOST)
        return LIK_OK;
    int64_t runs = lik_min_i64(lik_max_i64(gpu->processors / items, 1), plan->columns);
    p->documents_per_run = (plan->columns + runs - 1) / runs;
    p->runs = (int32_t)((plan->columns + p->documents_per_run - 1) / p->documents_per_run);
    p->quads = (int32_t)quads;
    p->quad_bytes = (int32_t)(op->q.dim + 2) * QUAD_BYTES;
    p->quad_blocks = (int32_t)(items * p->runs);
    plan->maxima_count = maxima;
    return LIK_OK;
}

static void name(const struct score_plan *plan, const struct lik_score *op, char *text, size_t size)
{
    snprintf(text, size, "score_%s_one_hot_d%lld_look_up%s", lik_dtype_name(op->d.dtype),
             (long long)op->d.dim, plan->look_up.quad_blocks ? "_quads" : "");
}

static size_t print(const struct score_plan *plan, char *text, size_t size, size_t n)
{
    const struct look_up_plan *p = &plan->look_up;
    if (p->quad_blocks)
        return lik_cuda_add_text(
            text, size, n, "%d quads a query of %d bytes, %d runs of %lld documents each, %d blocks",
            p->quads, p->quad_bytes, p->runs, (long long)p->documents_per_run, p->quad_blocks);
    return lik_cuda_add_text(text, size, n, "%lld pairs%s", (long long)plan->scores,
                             p->near_rows ? ", near rows" : "");
}

const struct score_planner lik_cuda_plans_look_up = {takes, plan, name, print};
