/* The oracle as a backend: device "ref", no levels. */
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
    snprintf(plan->variant, sizeof plan->variant, "%s", variant);
    return LIK_OK; /* no workspace */
}

static int ref_score(const struct lik_context *ctx, const struct lik_score *op, struct lik_exec *exec,
                     struct lik_plan *plan)
{
    (void)ctx, (void)exec;
    return plan ? plan_as(plan, "score_ref") : lik_ref_score_run(op);
}

static int ref_topk(const struct lik_context *ctx, const struct lik_topk *op, struct lik_exec *exec,
                    struct lik_plan *plan)
{
    (void)ctx, (void)exec;
    return plan ? plan_as(plan, "topk_ref") : lik_ref_topk_run(op);
}

static int ref_grad(const struct lik_context *ctx, const struct lik_grad *op, struct lik_exec *exec,
                    struct lik_plan *plan)
{
    (void)ctx, (void)exec;
    return plan ? plan_as(plan, "grad_ref") : lik_ref_grad_run(op);
}

static int ref_decode(const struct lik_context *ctx, const struct lik_decode *op, struct lik_exec *exec,
                      struct lik_plan *plan)
{
    (void)ctx, (void)exec;
    return plan ? plan_as(plan, "decode_ref") : lik_ref_decode_run(op);
}

static int ref_encode(const struct lik_context *ctx, const struct lik_encode *op, struct lik_exec *exec,
                      struct lik_plan *plan)
{
    (void)ctx, (void)exec;
    return plan ? plan_as(plan, "encode_ref") : lik_ref_encode_run(op);
}

static int ref_quantize(const struct lik_context *ctx, const struct lik_quantize *op, struct lik_exec *exec,
                        struct lik_plan *plan)
{
    (void)ctx, (void)exec;
    return plan ? plan_as(plan, "quantize_ref") : lik_ref_quantize_run(op);
}

const struct lik_backend lik_backend_ref = {
    .name = "ref",
    .host_memory = 1,
    .storages = 1u << LIK_DENSE | 1u << LIK_RESIDUAL | 1u << LIK_ONE_HOT,
    .open = ref_open,
    .score = ref_score,
    .topk = ref_topk,
    .grad = ref_grad,
    .decode = ref_decode,
    .encode = ref_encode,
    .train = lik_ref_train,
    .quantize = ref_quantize,
};
