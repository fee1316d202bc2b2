/* The front door: check, plan, call the backend. */
#include "core/check.h"
#include "core/guards.h"

#include <string.h>

/* The plan goes to a struct of our own first: on an error the caller's stays as it was. */
static int finish_plan(int status, const struct lik_plan *own, struct lik_plan *plan)
{
    if (status)
        return status;
    size_t size = plan->struct_size;
    *plan = *own;
    plan->struct_size = size;
    return lik_succeed();
}

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

static int check_workspace(const struct lik_exec *exec, size_t needed)
{
    if (needed == 0)
        return LIK_OK;
    if (!exec->workspace || exec->workspace_bytes < needed)
        return lik_fail(LIK_EWORKSPACE, "exec.workspace has %zu bytes, the plan needs %zu",
                        exec->workspace ? exec->workspace_bytes : 0, needed);
    if ((uintptr_t)exec->workspace % 64)
        return lik_fail(LIK_EINVAL, "exec.workspace is %p, must be aligned to 64 bytes", exec->workspace);
    return LIK_OK;
}

/* The status of a run that had this one, its workspace looked at. */
static int run_guarded(const struct lik_context *ctx, const struct lik_exec *exec, int status)
{
    int guards = lik_guards_check(ctx, exec); /* also takes the guards away */
    return status ? status : guards;
}

/* One plan and one run function per verb; they differ in the struct alone. */
#define LIK_OPERATION(verb)                                                                 \
    int lik_##verb##_plan(const struct lik_context *ctx, const struct lik_##verb *op,       \
                          const struct lik_exec *exec, struct lik_plan *plan)               \
    {                                                                                       \
        struct lik_##verb checked;                                                          \
        struct lik_exec how;                                                                \
        struct lik_plan own = {.struct_size = sizeof own};                                  \
        int status = lik_check_##verb(ctx, op, LIK_CHECK_PLAN, &checked);                   \
        if (!status)                                                                        \
            status = lik_check_exec(exec, &how);                                            \
        if (!status)                                                                        \
            status = check_plan(plan);                                                      \
        if (!status)                                                                        \
            status = ctx->backend->verb##_plan(ctx, &checked, &how, &own);                  \
        return finish_plan(status, &own, plan);                                             \
    }                                                                                       \
                                                                                            \
    int lik_##verb##_run(const struct lik_context *ctx, const struct lik_##verb *op,        \
                         const struct lik_exec *exec)                                       \
    {                                                                                       \
        struct lik_##verb checked;                                                          \
        struct lik_exec how;                                                                \
        struct lik_plan own = {0}; /* the name of the variant is not wanted */              \
        int status = lik_check_##verb(ctx, op, LIK_CHECK_RUN, &checked);                    \
        if (!status)                                                                        \
            status = lik_check_exec(exec, &how);                                            \
        if (!status)                                                                        \
            status = ctx->backend->verb##_plan(ctx, &checked, &how, &own);                  \
        if (!status)                                                                        \
            status = check_workspace(&how, own.workspace_bytes);                            \
        if (!status)                                                                        \
            status = lik_guards_paint(ctx, &how);                                           \
        if (!status)                                                                        \
            status = run_guarded(ctx, &how, ctx->backend->verb##_run(ctx, &checked, &how)); \
        return status ? status : lik_succeed();                                             \
    }

LIK_OPERATION(score)
LIK_OPERATION(topk)
LIK_OPERATION(grad)
