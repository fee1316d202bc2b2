/* The front door: check, then plan or run by the backend's hook. */
#include "core/check.h"
#include "core/workspace.h"

static int check_plan(const struct lik_plan *plan)
{
    if (!plan)
        return lik_fail(LIK_EINVAL, "plan is NULL");
    if (plan->struct_size < sizeof *plan || plan->struct_size > sizeof *plan + 4096)
        return lik_fail(LIK_EINVAL,
                        "plan.struct_size is %zu, must be at least %zu, the size this library knows",
                        plan->struct_size, sizeof *plan);
    return LIK_OK;
}

static int begin_plan(const struct lik_exec *exec, struct lik_exec *how, const struct lik_plan *plan)
{
    int status = lik_check_exec(exec, how);
    return status ? status : check_plan(plan);
}

/* The plan went to a struct of our own first: on an error the caller's stays as it was. */
static int finish_plan(int status, const struct lik_plan *own, struct lik_plan *plan)
{
    if (status)
        return status;
    size_t size = plan->struct_size;
    *plan = *own;
    plan->struct_size = size;
    return lik_succeed();
}

static int begin_score_run(const struct lik_context *ctx, const struct lik_score *op,
                           const struct lik_exec *exec, struct lik_exec *how, struct lik_layout *outer)
{
    int status = lik_check_exec(exec, how);
    if (!status && ctx->check)
        status = lik_check_device_score(ctx, op, how);
    if (!status)
        lik_guards_begin(outer);
    return status;
}

static int begin_codec_run(const struct lik_context *ctx, const struct lik_tokens *x,
                           const struct lik_exec *exec, struct lik_exec *how, struct lik_layout *outer)
{
    int status = lik_check_exec(exec, how);
    if (!status && ctx->check)
        status = lik_check_device_tokens(ctx, "x", x, how);
    if (!status)
        lik_guards_begin(outer);
    return status;
}

static int has_verb(const struct lik_context *ctx, int has, const char *verb)
{
    return has ? LIK_OK : lik_fail(LIK_EUNSUPPORTED, "%s does not %s", ctx->name, verb);
}

/* The status of a run that had this one, its workspace looked at. */
static int finish_run(const struct lik_context *ctx, const struct lik_exec *how,
                      const struct lik_layout *outer, int status)
{
    int guards = lik_guards_check(ctx, how, outer); /* also takes the guards away */
    if (!status && ctx->check)
        status = ctx->backend->stream_synchronize(ctx, how->stream);
    status = status ? status : guards;
    return status ? status : lik_succeed();
}

int lik_score_plan(const struct lik_context *ctx, const struct lik_score *op, const struct lik_exec *exec,
                   struct lik_plan *plan)
{
    struct lik_score checked;
    struct lik_exec how;
    struct lik_plan own = {.struct_size = sizeof own};
    int status = lik_check_score(ctx, op, LIK_CHECK_PLAN, &checked);
    if (!status)
        status = begin_plan(exec, &how, plan);
    if (!status)
        status = ctx->backend->score(ctx, &checked, &how, &own);
    return finish_plan(status, &own, plan);
}

int lik_score_run(const struct lik_context *ctx, const struct lik_score *op, const struct lik_exec *exec)
{
    struct lik_score checked;
    struct lik_exec how;
    struct lik_layout outer;
    int status = lik_check_score(ctx, op, LIK_CHECK_RUN, &checked);
    if (!status)
        status = begin_score_run(ctx, &checked, exec, &how, &outer);
    if (!status)
        status = finish_run(ctx, &how, &outer, ctx->backend->score(ctx, &checked, &how, NULL));
    return status;
}

int lik_topk_plan(const struct lik_context *ctx, const struct lik_topk *op, const struct lik_exec *exec,
                  struct lik_plan *plan)
{
    struct lik_topk checked;
    struct lik_exec how;
    struct lik_plan own = {.struct_size = sizeof own};
    int status = lik_check_topk(ctx, op, LIK_CHECK_PLAN, &checked);
    if (!status)
        status = begin_plan(exec, &how, plan);
    if (!status)
        status = ctx->backend->topk(ctx, &checked, &how, &own);
    return finish_plan(status, &own, plan);
}

int lik_topk_run(const struct lik_context *ctx, const struct lik_topk *op, const struct lik_exec *exec)
{
    struct lik_topk checked;
    struct lik_exec how;
    struct lik_layout outer;
    int status = lik_check_topk(ctx, op, LIK_CHECK_RUN, &checked);
    if (!status)
        status = begin_score_run(ctx, &checked.score, exec, &how, &outer);
    if (!status)
        status = finish_run(ctx, &how, &outer, ctx->backend->topk(ctx, &checked, &how, NULL));
    return status;
}

int lik_grad_plan(const struct lik_context *ctx, const struct lik_grad *op, const struct lik_exec *exec,
                  struct lik_plan *plan)
{
    struct lik_grad checked;
    struct lik_exec how;
    struct lik_plan own = {.struct_size = sizeof own};
    int status = lik_check_grad(ctx, op, LIK_CHECK_PLAN, &checked);
    if (!status)
        status = begin_plan(exec, &how, plan);
    if (!status)
        status = ctx->backend->grad(ctx, &checked, &how, &own);
    return finish_plan(status, &own, plan);
}

int lik_grad_run(const struct lik_context *ctx, const struct lik_grad *op, const struct lik_exec *exec)
{
    struct lik_grad checked;
    struct lik_exec how;
    struct lik_layout outer;
    int status = lik_check_grad(ctx, op, LIK_CHECK_RUN, &checked);
    if (!status)
        status = begin_score_run(ctx, &checked.score, exec, &how, &outer);
    if (!status)
        status = finish_run(ctx, &how, &outer, ctx->backend->grad(ctx, &checked, &how, NULL));
    return status;
}

int lik_decode_plan(const struct lik_context *ctx, const struct lik_decode *op, const struct lik_exec *exec,
                    struct lik_plan *plan)
{
    struct lik_decode checked;
    struct lik_exec how;
    struct lik_plan own = {.struct_size = sizeof own};
    int status = lik_check_decode(ctx, op, LIK_CHECK_PLAN, &checked);
    if (!status)
        status = has_verb(ctx, ctx->backend->decode != NULL, "decode");
    if (!status)
        status = begin_plan(exec, &how, plan);
    if (!status)
        status = ctx->backend->decode(ctx, &checked, &how, &own);
    return finish_plan(status, &own, plan);
}

int lik_decode_run(const struct lik_context *ctx, const struct lik_decode *op, const struct lik_exec *exec)
{
    struct lik_decode checked;
    struct lik_exec how;
    struct lik_layout outer;
    int status = lik_check_decode(ctx, op, LIK_CHECK_RUN, &checked);
    if (!status)
        status = has_verb(ctx, ctx->backend->decode != NULL, "decode");
    if (!status)
        status = begin_codec_run(ctx, &checked.x, exec, &how, &outer);
    if (!status)
        status = finish_run(ctx, &how, &outer, ctx->backend->decode(ctx, &checked, &how, NULL));
    return status;
}

int lik_encode_plan(const struct lik_context *ctx, const struct lik_encode *op, const struct lik_exec *exec,
                    struct lik_plan *plan)
{
    struct lik_encode checked;
    struct lik_exec how;
    struct lik_plan own = {.struct_size = sizeof own};
    int status = lik_check_encode(ctx, op, LIK_CHECK_PLAN, &checked);
    if (!status)
        status = has_verb(ctx, ctx->backend->encode != NULL, "encode");
    if (!status)
        status = begin_plan(exec, &how, plan);
    if (!status)
        status = ctx->backend->encode(ctx, &checked, &how, &own);
    return finish_plan(status, &own, plan);
}

int lik_encode_run(const struct lik_context *ctx, const struct lik_encode *op, const struct lik_exec *exec)
{
    struct lik_encode checked;
    struct lik_exec how;
    struct lik_layout outer;
    int status = lik_check_encode(ctx, op, LIK_CHECK_RUN, &checked);
    if (!status)
        status = has_verb(ctx, ctx->backend->encode != NULL, "encode");
    if (!status)
        status = begin_codec_run(ctx, &checked.x, exec, &how, &outer);
    if (!status)
        status = finish_run(ctx, &how, &outer, ctx->backend->encode(ctx, &checked, &how, NULL));
    return status;
}

int lik_train_plan(const struct lik_context *ctx, const struct lik_train *op, const struct lik_exec *exec,
                   struct lik_plan *plan)
{
    struct lik_train checked;
    struct lik_exec how;
    struct lik_plan own = {.struct_size = sizeof own};
    int status = lik_check_train(ctx, op, LIK_CHECK_PLAN, &checked);
    if (!status)
        status = has_verb(ctx, ctx->backend->train != NULL, "train");
    if (!status)
        status = begin_plan(exec, &how, plan);
    if (!status)
        status = ctx->backend->train(ctx, &checked, &how, &own);
    return finish_plan(status, &own, plan);
}

int lik_train_run(const struct lik_context *ctx, const struct lik_train *op, const struct lik_exec *exec)
{
    struct lik_train checked;
    struct lik_exec how;
    struct lik_layout outer;
    int status = lik_check_train(ctx, op, LIK_CHECK_RUN, &checked);
    if (!status)
        status = has_verb(ctx, ctx->backend->train != NULL, "train");
    if (!status)
        status = begin_codec_run(ctx, &checked.x, exec, &how, &outer);
    if (!status)
        status = finish_run(ctx, &how, &outer, ctx->backend->train(ctx, &checked, &how, NULL));
    return status;
}

int lik_quantize_plan(const struct lik_context *ctx, const struct lik_quantize *op,
                      const struct lik_exec *exec, struct lik_plan *plan)
{
    struct lik_quantize checked;
    struct lik_exec how;
    struct lik_plan own = {.struct_size = sizeof own};
    int status = lik_check_quantize(ctx, op, LIK_CHECK_PLAN, &checked);
    if (!status)
        status = has_verb(ctx, ctx->backend->quantize != NULL, "quantize");
    if (!status)
        status = begin_plan(exec, &how, plan);
    if (!status)
        status = ctx->backend->quantize(ctx, &checked, &how, &own);
    return finish_plan(status, &own, plan);
}

int lik_quantize_run(const struct lik_context *ctx, const struct lik_quantize *op,
                     const struct lik_exec *exec)
{
    struct lik_quantize checked;
    struct lik_exec how;
    struct lik_layout outer;
    int status = lik_check_quantize(ctx, op, LIK_CHECK_RUN, &checked);
    if (!status)
        status = has_verb(ctx, ctx->backend->quantize != NULL, "quantize");
    if (!status)
        status = begin_codec_run(ctx, &checked.x, exec, &how, &outer);
    if (!status)
        status = finish_run(ctx, &how, &outer, ctx->backend->quantize(ctx, &checked, &how, NULL));
    return status;
}
