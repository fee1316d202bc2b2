/* How the kernels of score_mma.cu, which take anything on any GPU, will run. */
#include "cuda/plan/plan.h"

#include "base/size.h"

/* Planes that hold an operand of this dtype. */
static int planes_of(int dtype, int precision)
{
    switch (dtype) {
    case LIK_F32: return lik_f32_planes(precision);
    case LIK_F16: return 2;
    default: return 1;
    }
}

void mma_plan_products(const struct gpu_limits *gpu, const struct lik_score *op, struct mma_plan *plan)
{
    const int q = op->q.dtype, d = op->d.dtype, f16 = q == LIK_F16 && d == LIK_F16 && !op->q.scale;
    *plan = (struct mma_plan){.q_planes = 1, .d_planes = 1, .orders = 1};
    if (gpu->arch < 80)
        plan->products = f16 ? MMA_F16_SM75 : MMA_F32;
    else
        plan->products = f16 ? MMA_F16 : MMA_BF16;
    plan->q_raw = plan->d_raw = f16;
    if (plan->products != MMA_BF16)
        return;
    plan->q_planes = planes_of(q, op->precision);
    plan->d_planes = planes_of(d, op->precision);
    plan->orders = plan->q_planes + plan->d_planes - 1;
    if (plan->orders > 2 && (q == LIK_F32 || d == LIK_F32))
        plan->orders = op->precision == LIK_HIGHEST ? 3 : 2;
    plan->q_raw = q == LIK_BF16 && !op->q.scale;
    plan->d_raw = d == LIK_BF16;
}

void mma_plan_runs(const struct gpu_limits *gpu, int64_t columns, const struct row_tiling *tiling,
                   struct mma_plan *plan)
{
    int64_t blocks = 8 * (int64_t)gpu->processors, runs = (blocks + tiling->tiles - 1) / tiling->tiles;
    runs = lik_min_i64(runs, columns);
    plan->run_documents = (columns + runs - 1) / runs;
    plan->runs = (columns + plan->run_documents - 1) / plan->run_documents;
}
