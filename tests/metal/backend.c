/* The emulator as a backend, "metal": the plans of src/metal, its kernels run by the emulator,
 * on host memory. The check suite runs on it as on any device. */
#include "backend.h"

#include "core/backend.h"
#include "emulator.h"
#include "metal/plan.h"

#include <stdlib.h>
#include <string.h>

int64_t emulated_schedule = -1;
static uint64_t runs;

/* Memory for a run, which gets a schedule of its own. */
static int begin(const struct lik_context *ctx, struct lik_exec *exec, const struct lik_layout *layout,
                 char **workspace)
{
    emulator_schedule = emulated_schedule >= 0 ? (uint64_t)emulated_schedule : runs++;
    return lik_workspace_take(ctx, exec, layout, workspace);
}

static const struct lik_metal_queue queue = {emulator_dispatch, NULL};

static int emulated_score(const struct lik_context *ctx, const struct lik_score *op, struct lik_exec *exec,
                          struct lik_plan *plan)
{
    struct lik_layout layout = {0};
    struct lik_metal_score_plan p;
    char *workspace;
    int status = lik_metal_plan_score(op, &layout, &p);
    if (!status && plan) {
        lik_metal_name_score(op, &p, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    if (!status)
        status = begin(ctx, exec, &layout, &workspace);
    return status ? status : lik_metal_run_score(op, &p, workspace, &queue);
}

static int emulated_topk(const struct lik_context *ctx, const struct lik_topk *op, struct lik_exec *exec,
                         struct lik_plan *plan)
{
    struct lik_layout layout = {0};
    struct lik_metal_topk_plan p;
    char *workspace;
    int status = lik_metal_plan_topk(op, &layout, &p);
    if (!status && plan) {
        lik_metal_name_topk(op, &p, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    if (!status)
        status = begin(ctx, exec, &layout, &workspace);
    return status ? status : lik_metal_run_topk(op, &p, workspace, &queue);
}

static int emulated_grad(const struct lik_context *ctx, const struct lik_grad *op, struct lik_exec *exec,
                         struct lik_plan *plan)
{
    struct lik_layout layout = {0};
    struct lik_metal_grad_plan p;
    char *workspace;
    int status = lik_metal_plan_grad(op, &layout, &p);
    if (!status && plan) {
        lik_metal_name_grad(op, &p, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    if (!status)
        status = begin(ctx, exec, &layout, &workspace);
    return status ? status : lik_metal_run_grad(op, &p, workspace, &queue);
}

static const struct lik_backend emulated = {
    .name = "metal",
    .host_memory = 1,
    .storages = 1u << LIK_DENSE | 1u << LIK_RESIDUAL | 1u << LIK_ONE_HOT,
    .score = emulated_score,
    .topk = emulated_topk,
    .grad = emulated_grad,
};

int emulated_context(struct lik_context **out)
{
    struct lik_context *ctx = *out = calloc(1, sizeof *ctx); /* lik_context_destroy frees it */
    if (!ctx)
        return LIK_ENOMEM;
    ctx->backend = &emulated;
    strcpy(ctx->name, "metal");
    return LIK_OK;
}
