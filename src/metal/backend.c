/* The Metal backend's door: one hook an operation, each of which plans once, and either says
 * what it planned or takes its workspace and runs. Operands lie in the memory of the process,
 * which Apple's GPUs share; an operation is done when it returns. */
#include "metal/run.h"

#include "base/size.h"
#include "shared/tokens.h"

#include <stdio.h>
#include <string.h>

/* Cache lines at both ends of the workspace that kernels do not write: somebody else's bytes
 * may lie in them. */
#define EDGE 128

static void begin_layout(struct lik_layout *layout)
{
    lik_layout_take(layout, 1, EDGE, 1);
}

static void end_layout(struct lik_layout *layout)
{
    if (layout->bytes == EDGE) /* nothing between the edges */
        *layout = (struct lik_layout){0};
    else
        lik_layout_take(layout, 1, EDGE, 1);
}

/* What kernels read of a problem. */
static void read_problem(struct lik_metal_run *run, const struct lik_score *op)
{
    lik_metal_reads_tokens(run, &op->q);
    lik_metal_reads_tokens(run, &op->d);
    if (op->pairing == LIK_LIST) {
        lik_metal_reads(run, op->list_q, op->list_count * 8);
        lik_metal_reads(run, op->list_d, op->list_count * 8);
    }
}

static int64_t argmax_bytes(const struct lik_score *op)
{
    return lik_score_rows(op) * lik_score_columns(op) * op->q.len_max *
           (int64_t)lik_dtype_bytes(op->argmax_dtype);
}

/* Workspace of a run, told to it; the run has begun. */
static int take(const struct lik_context *ctx, struct lik_exec *exec, const struct lik_layout *layout,
                struct lik_metal_run *run, char **workspace)
{
    int status = lik_workspace_take(ctx, exec, layout, workspace);
    if (!status)
        lik_metal_scratch(run, *workspace, layout->bytes);
    return status;
}

/* The same on "metal:queue". */
static int take_theirs(const struct lik_context *ctx, struct lik_exec *exec, const struct lik_layout *layout,
                       char **workspace)
{
    if (!exec->stream)
        return lik_fail(LIK_EINVAL, "exec.stream is NULL, must be a struct lik_metal_queue");
    return lik_workspace_take(ctx, exec, layout, workspace);
}

static int score(const struct lik_context *ctx, const struct lik_score *op, struct lik_exec *exec,
                 struct lik_plan *plan)
{
    struct lik_layout layout = {0};
    struct lik_metal_score_plan p;
    struct lik_metal_run run;
    const struct lik_metal_queue queue = {lik_metal_encode, &run};
    char *workspace;
    begin_layout(&layout);
    int status = lik_metal_plan_score(op, &layout, &p);
    end_layout(&layout);
    if (!status && plan) {
        lik_metal_name_score(op, &p, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    if (status)
        return status;
    if (!ctx->kernels) {
        status = take_theirs(ctx, exec, &layout, &workspace);
        return status ? status : lik_metal_run_score(op, &p, workspace, exec->stream);
    }
    if ((status = lik_metal_begin(&run, ctx)) != LIK_OK)
        return status;
    status = take(ctx, exec, &layout, &run, &workspace);
    if (!status) {
        int64_t row_bytes = lik_score_columns(op) * 4;
        read_problem(&run, op);
        lik_metal_writes(&run, op->scores, lik_score_rows(op), row_bytes, op->scores_stride * 4, 0);
        lik_metal_writes(&run, op->argmax, 1, argmax_bytes(op), 0, 0);
        status = lik_metal_run_score(op, &p, workspace, &queue);
    }
    return lik_metal_end(&run, status);
}

static int topk(const struct lik_context *ctx, const struct lik_topk *op, struct lik_exec *exec,
                struct lik_plan *plan)
{
    struct lik_layout layout = {0};
    struct lik_metal_topk_plan p;
    struct lik_metal_run run;
    const struct lik_metal_queue queue = {lik_metal_encode, &run};
    char *workspace;
    begin_layout(&layout);
    int status = lik_metal_plan_topk(op, &layout, &p);
    end_layout(&layout);
    if (!status && plan) {
        lik_metal_name_topk(op, &p, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    if (status)
        return status;
    if (!ctx->kernels) {
        status = take_theirs(ctx, exec, &layout, &workspace);
        return status ? status : lik_metal_run_topk(op, &p, workspace, exec->stream);
    }
    if ((status = lik_metal_begin(&run, ctx)) != LIK_OK)
        return status;
    status = take(ctx, exec, &layout, &run, &workspace);
    if (!status) {
        int64_t entries = op->score.q.count * op->k;
        read_problem(&run, &op->score);
        lik_metal_writes(&run, op->values, 1, entries * 4, 0, 0);
        lik_metal_writes(&run, op->ids, 1, entries * 8, 0, 0);
        status = lik_metal_run_topk(op, &p, workspace, &queue);
    }
    return lik_metal_end(&run, status);
}

static int grad(const struct lik_context *ctx, const struct lik_grad *op, struct lik_exec *exec,
                struct lik_plan *plan)
{
    const struct lik_tokens *q = &op->score.q, *d = &op->score.d;
    struct lik_layout layout = {0};
    struct lik_metal_grad_plan p;
    struct lik_metal_run run;
    const struct lik_metal_queue queue = {lik_metal_encode, &run};
    char *workspace;
    begin_layout(&layout);
    int status = lik_metal_plan_grad(op, &layout, &p);
    end_layout(&layout);
    if (!status && plan) {
        lik_metal_name_grad(op, &p, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    if (status)
        return status;
    if (!ctx->kernels) {
        status = take_theirs(ctx, exec, &layout, &workspace);
        return status ? status : lik_metal_run_grad(op, &p, workspace, exec->stream);
    }
    if ((status = lik_metal_begin(&run, ctx)) != LIK_OK)
        return status;
    status = take(ctx, exec, &layout, &run, &workspace);
    if (!status) {
        int64_t rows = lik_score_rows(&op->score), columns = lik_score_columns(&op->score);
        read_problem(&run, &op->score);
        lik_metal_reads(&run, op->grad_scores,
                        rows && columns ? ((rows - 1) * op->grad_scores_stride + columns) * 4 : 0);
        lik_metal_reads(&run, op->score.argmax, argmax_bytes(&op->score));
        const int64_t q_bytes = lik_tokens_rows(q) * q->dim * (int64_t)lik_dtype_bytes(q->dtype),
                      d_bytes = lik_tokens_rows(d) * d->dim * (int64_t)lik_dtype_bytes(d->dtype);
        lik_metal_writes(&run, op->grad_q, 1, q_bytes, 0, op->accumulate);
        lik_metal_writes(&run, op->grad_d, 1, d_bytes, 0, op->accumulate);
        lik_metal_writes(&run, op->grad_weights, 1, lik_tokens_rows(q) * 4, 0, op->accumulate);
        status = lik_metal_run_grad(op, &p, workspace, &queue);
    }
    return lik_metal_end(&run, status);
}

/* ---- somebody else's queue ---- */

static int no_memory(const struct lik_context *ctx)
{
    return lik_fail(LIK_EUNSUPPORTED, "%s has neither memory nor streams: those are its host's", ctx->name);
}

static int no_alloc(const struct lik_context *ctx, size_t bytes, void **out)
{
    (void)bytes, (void)out;
    return no_memory(ctx);
}

static void no_free(const struct lik_context *ctx, void *memory)
{
    (void)ctx, (void)memory;
}

static int no_copy(const struct lik_context *ctx, void *to, const void *from, size_t bytes)
{
    (void)to, (void)from, (void)bytes;
    return no_memory(ctx);
}

static int no_info(const struct lik_context *ctx, size_t *free_bytes, size_t *total_bytes)
{
    (void)free_bytes, (void)total_bytes;
    return no_memory(ctx);
}

static int no_stream(const struct lik_context *ctx, void **out)
{
    (void)out;
    return no_memory(ctx);
}

static int no_wait(const struct lik_context *ctx, void *stream)
{
    (void)stream;
    return no_memory(ctx);
}

/* "metal:queue": for hosts with command buffers of their own, such as torch. Operands are
 * addresses that mean something to the host alone, exec.stream is its struct lik_metal_queue,
 * and a run hands it the dispatches. */
static const struct lik_backend to_a_queue = {
    .name = "metal",
    .storages = 1u << LIK_DENSE | 1u << LIK_RESIDUAL | 1u << LIK_ONE_HOT,
    .score = score,
    .topk = topk,
    .grad = grad,
    .memory_alloc = no_alloc,
    .memory_free = no_free,
    .memory_copy = no_copy,
    .memory_info = no_info,
    .stream_create = no_stream,
    .stream_synchronize = no_wait,
    .stream_destroy = no_free,
};

static int open_metal(struct lik_context *ctx, const char *level)
{
    if (!level || strcmp(level, "queue"))
        return lik_metal_open(ctx, level);
    ctx->backend = &to_a_queue;
    ctx->check = 0; /* nothing can be looked at */
    snprintf(ctx->name, sizeof ctx->name, "metal:queue");
    return LIK_OK;
}

const struct lik_backend lik_backend_metal = {
    .name = "metal",
    .host_memory = 1,
    .storages = 1u << LIK_DENSE | 1u << LIK_RESIDUAL | 1u << LIK_ONE_HOT,
    .open = open_metal,
    .score = score,
    .topk = topk,
    .grad = grad,
};
