/* The mma.sync loop's kernels for dense documents, and its launches. */
#include "cuda/mma/loop.cuh"

int lik_cuda_mma_launch(const struct lik_gpu *gpu, const struct score_args *score,
                        const struct score_plan *plan, char *, cudaStream_t stream)
{
    if (score->op.d.storage == LIK_RESIDUAL)
        return lik_cuda_mma_launch_compressed(gpu, score, plan, stream);
    struct mma_args a = {};
    a.score = *score;
    return launch_plan(&a, gpu, &plan->mma, stream);
}

int lik_cuda_mma_prepare(struct lik_gpu *gpu)
{
    int status = lik_cuda_mma_prepare_compressed(gpu);
    return status ? status : prepare<struct mma_args>(gpu);
}
