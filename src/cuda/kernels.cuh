/* What the files of this room call of each other: the GPU's properties and one launch function
 * a kernel family. Every function returns a lik_status; plans lay the workspace out and name
 * the variant, backend.cu counts the bytes. */
#ifndef LIK_CUDA_KERNELS_CUH
#define LIK_CUDA_KERNELS_CUH

extern "C" {
#include "core/backend.h"
#include "cuda/plan/plan.h"
}

#include <cuda.h>
#include <cuda_runtime.h>
#include <stdint.h>

struct score_args;

/* One GPU. */
struct lik_gpu {
    int device;
    struct gpu_limits limits;
    int check; /* LIK_CHECK=1: synchronize and check what lies on the device */
    CUresult (*encode)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                       const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                       CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
};

/* LIK_OK, or LIK_EDEVICE with a message that says what failed. */
int lik_cuda_status(cudaError_t error, const char *what);

/* The status of the launch just made. */
int lik_cuda_launched(const char *kernel);

/* Launches a kernel, which takes the one argument `args` and calls wait_for_kernels_before: on
 * Hopper, before those ahead of it in the stream have ended. */
int lik_cuda_launch_early(const struct lik_gpu *gpu, const void *kernel, const char *name, unsigned blocks,
                          unsigned threads, size_t shared_bytes, cudaStream_t stream, void *args);

/* mma/score_mma.cu */
int lik_score_mma_prepare(struct lik_gpu *gpu);
int lik_score_mma_launch(const struct lik_gpu *gpu, const struct score_args *a, const struct score_plan *plan,
                         cudaStream_t stream);

/* sm90/launch.cu */
int lik_score_sm90_prepare(struct lik_gpu *gpu);
int lik_score_sm90_launch(const struct lik_gpu *gpu, const struct score_args *a,
                          const struct score_plan *plan, cudaStream_t stream);

/* score.cu */
unsigned lik_cuda_blocks(int64_t threads); /* of 256 threads; kernels stride over what is left */
int lik_cuda_unit_factors(const struct lik_tokens *x, int vector, float *out, int64_t rows,
                          cudaStream_t stream);
int lik_cuda_score_prepare(struct lik_gpu *gpu);
int lik_cuda_score_plan(const struct lik_gpu *gpu, const struct lik_score *op, struct lik_layout *layout,
                        struct lik_plan *plan);
int lik_cuda_score_run(const struct lik_gpu *gpu, const struct lik_score *op, char *workspace,
                       cudaStream_t stream);

/* topk.cu */
int lik_cuda_topk_plan(const struct lik_gpu *gpu, const struct lik_topk *op, struct lik_layout *layout,
                       struct lik_plan *plan);
int lik_cuda_topk_run(const struct lik_gpu *gpu, const struct lik_topk *op, char *workspace,
                      cudaStream_t stream);

/* grad/grad.cu */
int lik_grad_prepare(const struct lik_gpu *gpu);
int lik_cuda_grad_plan(const struct lik_gpu *gpu, const struct lik_grad *op, struct lik_layout *layout,
                       struct lik_plan *plan);
int lik_cuda_grad_run(const struct lik_gpu *gpu, const struct lik_grad *op, char *workspace,
                      cudaStream_t stream);

#endif
