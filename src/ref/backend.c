/* The oracle as a backend: device "ref", no levels, no workspace. */
#include "base/layout.h"
#include "ref/ref.h"

#include <stdio.h>

static int ref_open(struct lik_context *ctx, const char *level)
{
    if (level)
        return lik_fail(LIK_EINVAL, "device is \"ref:%.24s\", \"ref\" has no levels", level);
    snprintf(ctx->name, sizeof ctx->name, "ref");
    return LIK_OK;
}

static int plan_as(struct lik_plan *plan, const char *variant)
{
    lik_layout_planned(&(struct lik_layout){0});
    plan->workspace_bytes = 0;
    snprintf(plan->variant, sizeof plan->variant, "%s", variant);
    return LIK_OK;
}

static int ref_score_plan(const struct lik_context *ctx, const struct lik_score *op,
                          const struct lik_exec *exec, struct lik_plan *plan)
{
    (void)ctx;
    (void)op;
    (void)exec;
    return plan_as(plan, "score_ref");
}

static int ref_topk_plan(const struct lik_context *ctx, const struct lik_topk *op,
                         const struct lik_exec *exec, struct lik_plan *plan)
{
    (void)ctx;
    (void)op;
    (void)exec;
    return plan_as(plan, "topk_ref");
}

static int ref_grad_plan(const struct lik_context *ctx, const struct lik_grad *op,
                         const struct lik_exec *exec, struct lik_plan *plan)
{
    (void)ctx;
    (void)op;
    (void)exec;
    return plan_as(plan, "grad_ref");
}

const struct lik_backend lik_backend_ref = {
    .name = "ref",
    .host_memory = 1,
    .open = ref_open,
    .score_plan = ref_score_plan,
    .score_run = lik_ref_score_run,
    .topk_plan = ref_topk_plan,
    .topk_run = lik_ref_topk_run,
    .grad_plan = ref_grad_plan,
    .grad_run = lik_ref_grad_run,
};
