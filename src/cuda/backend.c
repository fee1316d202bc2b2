/* The CUDA backend's door: one hook an operation, each of which plans once, and either says
 * what it planned or takes its workspace and runs. Every operation only enqueues. */
#include "cuda/gpu.h"

/* A run's workspace, with its GPU made current. */
static int begin(const struct lik_context *ctx, struct lik_exec *exec, const struct lik_layout *layout,
                 char **workspace, int *before)
{
    int status = lik_workspace_take(ctx, exec, layout, workspace);
    return status ? status : lik_cuda_enter(ctx->device, before);
}

static int score(const struct lik_context *ctx, const struct lik_score *op, struct lik_exec *exec,
                 struct lik_plan *plan)
{
    const struct lik_gpu *gpu = ctx->kernels;
    struct lik_layout layout = {0};
    struct score_plan p;
    char *workspace;
    int before, status = lik_cuda_plan_score(&gpu->limits, op, &layout, &p);
    if (!status && plan) {
        lik_cuda_name_score(&p, op, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    if (status || (status = begin(ctx, exec, &layout, &workspace, &before)) != LIK_OK)
        return status;
    status = lik_cuda_score_run(gpu, op, &p, workspace, exec->stream);
    lik_cuda_leave(before);
    return status;
}

static int topk(const struct lik_context *ctx, const struct lik_topk *op, struct lik_exec *exec,
                struct lik_plan *plan)
{
    const struct lik_gpu *gpu = ctx->kernels;
    struct lik_layout layout = {0};
    struct topk_plan p;
    char *workspace;
    int before, status = lik_cuda_plan_topk(&gpu->limits, op, &layout, &p);
    if (!status && plan) {
        lik_cuda_name_topk(&p, op, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    if (status || (status = begin(ctx, exec, &layout, &workspace, &before)) != LIK_OK)
        return status;
    status = lik_cuda_topk_run(gpu, op, &p, workspace, exec->stream);
    lik_cuda_leave(before);
    return status;
}

static int grad(const struct lik_context *ctx, const struct lik_grad *op, struct lik_exec *exec,
                struct lik_plan *plan)
{
    const struct lik_gpu *gpu = ctx->kernels;
    struct lik_layout layout = {0};
    struct grad_plan p;
    char *workspace;
    int before, status = lik_cuda_plan_grad(&gpu->limits, op, &layout, &p);
    if (!status && plan) {
        lik_cuda_name_grad(&p, op, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    if (status || (status = begin(ctx, exec, &layout, &workspace, &before)) != LIK_OK)
        return status;
    status = lik_cuda_grad_run(gpu, op, &p, workspace, exec->stream);
    lik_cuda_leave(before);
    return status;
}

static int decode(const struct lik_context *ctx, const struct lik_decode *op, struct lik_exec *exec,
                  struct lik_plan *plan)
{
    struct lik_layout layout = {0}; /* of nothing */
    int before, status;
    if (plan) {
        lik_cuda_name_decode(op, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    if ((status = lik_cuda_enter(ctx->device, &before)) != LIK_OK)
        return status;
    status = lik_cuda_decode_run(op, exec->stream);
    lik_cuda_leave(before);
    return status;
}

static int encode(const struct lik_context *ctx, const struct lik_encode *op, struct lik_exec *exec,
                  struct lik_plan *plan)
{
    const struct lik_gpu *gpu = ctx->kernels;
    struct lik_layout layout = {0};
    struct encode_plan p;
    char *workspace;
    int before, status = lik_cuda_plan_encode(&gpu->limits, op, &layout, &p);
    if (!status && plan) {
        lik_cuda_name_encode(&p, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    if (status || (status = begin(ctx, exec, &layout, &workspace, &before)) != LIK_OK)
        return status;
    status = lik_cuda_encode_run(gpu, op, &p, workspace, exec->stream);
    lik_cuda_leave(before);
    return status;
}

static int train(const struct lik_context *ctx, const struct lik_train *op, struct lik_exec *exec,
                 struct lik_plan *plan)
{
    const struct lik_gpu *gpu = ctx->kernels;
    struct lik_layout layout = {0};
    struct train_plan p;
    char *workspace;
    int before, status = lik_cuda_plan_train(&gpu->limits, op, &layout, &p);
    if (!status && plan) {
        lik_cuda_name_train(&p, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    if (status || (status = begin(ctx, exec, &layout, &workspace, &before)) != LIK_OK)
        return status;
    status = lik_cuda_train_run(gpu, op, &p, workspace, exec->stream);
    lik_cuda_leave(before);
    return status;
}

static int quantize(const struct lik_context *ctx, const struct lik_quantize *op, struct lik_exec *exec,
                    struct lik_plan *plan)
{
    struct lik_layout layout = {0}; /* of nothing */
    int before, status;
    if (plan) {
        lik_cuda_name_quantize(op, plan->variant, sizeof plan->variant);
        return lik_workspace_plan(ctx, &layout, plan);
    }
    if ((status = lik_cuda_enter(ctx->device, &before)) != LIK_OK)
        return status;
    status = lik_cuda_quantize_run(op, exec->stream);
    lik_cuda_leave(before);
    return status;
}

const struct lik_backend lik_backend_cuda = {
    .name = "cuda",
    .storages = 1u << LIK_DENSE | 1u << LIK_RESIDUAL | 1u << LIK_ONE_HOT,
    .open = lik_cuda_open,
    .score = score,
    .topk = topk,
    .grad = grad,
    .decode = decode,
    .encode = encode,
    .train = train,
    .quantize = quantize,
    .memory_alloc = lik_cuda_memory_alloc,
    .memory_free = lik_cuda_memory_free,
    .memory_copy = lik_cuda_memory_copy,
    .memory_info = lik_cuda_memory_info,
    .stream_create = lik_cuda_stream_create,
    .stream_synchronize = lik_cuda_stream_synchronize,
    .stream_destroy = lik_cuda_stream_destroy,
};
