/* How the mma.sync loop (cuda/mma), which takes anything on any GPU, will run. */
#include "cuda/plan/plan.h"

#include "base/size.h"
#include "shared/tokens.h"

/* Planes that hold an operand of this dtype. */
static int planes_of(int dtype, int precision)
{
    switch (dtype) {
    case LIK_F32: return lik_f32_planes(precision);
    case LIK_F16: return 2;
    default: return 1;
    }
}

void lik_cuda_mma_products(const struct gpu_limits *gpu, const struct lik_score *op, struct mma_plan *plan)
{
    const int q = op->q.dtype, d = op->d.dtype;
    /* the scan has one precision of f32, and its bits are to be met */
    const int scanned = gpu->hopper && op->d.storage == LIK_RESIDUAL && q == LIK_F32 && d == LIK_F32;
    const int precision = scanned ? LIK_HIGHEST : op->precision,
              f16 = q == LIK_F16 && d == LIK_F16 && !op->q.scale;
    *plan = (struct mma_plan){.q_planes = 1, .d_planes = 1, .orders = 1};
    if (gpu->arch < 80)
        plan->products = f16 ? MMA_F16_SM75 : MMA_F32;
    else
        plan->products = f16 ? MMA_F16 : MMA_BF16;
    plan->q_raw = plan->d_raw = f16;
    if (plan->products != MMA_BF16)
        return;
    plan->q_planes = planes_of(q, precision);
    plan->d_planes = planes_of(d, precision);
    plan->orders = plan->q_planes + plan->d_planes - 1;
    if (plan->orders > 2 && (q == LIK_F32 || d == LIK_F32))
        plan->orders = precision == LIK_HIGHEST ? 3 : 2;
    plan->q_raw = q == LIK_BF16 && !op->q.scale;
    plan->d_raw = d == LIK_BF16;
}

static int takes(const struct gpu_limits *gpu, const struct lik_score *op)
{
    (void)gpu, (void)op;
    return 1;
}

static int plan(const struct gpu_limits *gpu, const struct lik_score *op, struct score_plan *plan)
{
    struct mma_plan *p = &plan->mma;
    int status = lik_cuda_tile_rows(op, lik_cuda_strips(op) <= 2 ? 2 : 8, &plan->tiling);
    if (status)
        return status;
    int64_t blocks = 8 * (int64_t)gpu->processors, tiles = plan->tiling.tiles, columns = plan->columns;
    int64_t runs = lik_min_i64((blocks + tiles - 1) / tiles, columns);
    p->documents_per_run = (columns + runs - 1) / runs;
    p->runs = (columns + p->documents_per_run - 1) / p->documents_per_run;
    plan->factor_count = op->d.normalize ? lik_tokens_rows(&op->d) : 0;
    return LIK_OK;
}

static void name(const struct score_plan *plan, const struct lik_score *op, char *text, size_t size)
{
    static const char *const products[] = {"mma_bf16", "mma_f16", "mma_f16_sm75", "f32"};
    size_t n =
        lik_cuda_add_text(text, size, 0, "score_%s_%s_d%lld_%s", lik_dtype_name(op->q.dtype),
                          lik_dtype_name(op->d.dtype), (long long)op->d.dim, products[plan->mma.products]);
    if (op->d.storage == LIK_RESIDUAL)
        lik_cuda_add_text(text, size, n, "_%dbits", op->d.codec->bits);
}

static size_t print(const struct score_plan *plan, char *text, size_t size, size_t n)
{
    const struct mma_plan *p = &plan->mma;
    return lik_cuda_add_text(text, size, n, "planes %d x %d in %d orders%s%s; %lld runs of %lld documents",
                             p->q_planes, p->d_planes, p->orders, p->q_raw ? ", q as it is" : "",
                             p->d_raw ? ", d as it is" : "", (long long)p->runs,
                             (long long)p->documents_per_run);
}

const struct score_planner lik_cuda_plans_mma = {takes, plan, name, print};
