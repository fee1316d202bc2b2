/* What the files of this room call of each other: the GPU's properties and one launch function
 * a kernel family. Every function returns a lik_status; plans lay the workspace out and name
 * the variant, backend.cu counts the bytes. */
#ifndef LIK_CUDA_KERNELS_CUH
#define LIK_CUDA_KERNELS_CUH

extern "C" {
#include "base/layout.h"
#include "core/backend.h"
}

#include <cuda.h>
#include <cuda_runtime.h>
#include <stdint.h>

struct score_args;

/* The offset of a workspace's next region: all begin at multiples of 256 bytes. */
static inline size_t lik_cuda_take(struct lik_layout *layout, int64_t count, int64_t size)
{
    return lik_layout_take(layout, count, size, 256);
}

/* One GPU. `arch` is 10 major + minor, lowered by LIK_CUDA_ARCH: which kernels run. */
struct lik_gpu {
    int device, arch, processors;
    size_t shared_bytes;   /* most that a block may have */
    size_t resident_bytes; /* most that a block may have if two are to share a processor */
    int hopper;            /* this build and this GPU have wgmma, and the driver encodes tensor maps */
    CUresult (*encode)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                       const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                       CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
};

/* How many bf16 planes an f32 element is split into. */
static inline int lik_f32_planes(int precision)
{
    return precision == LIK_HIGHEST ? 3 : precision == LIK_HIGH ? 2 : 1;
}

/* LIK_OK, or LIK_EDEVICE with a message that says what failed. */
int lik_cuda_status(cudaError_t error, const char *what);

/* The status of the launch just made. */
int lik_cuda_launched(const char *kernel);

/* Launches a kernel, which takes the one argument `args` and calls wait_for_kernels_before: on
 * Hopper, before those ahead of it in the stream have ended. */
int lik_cuda_launch_early(const struct lik_gpu *gpu, const void *kernel, const char *name, unsigned blocks,
                          unsigned threads, size_t shared_bytes, cudaStream_t stream, void *args);

/* score_mma.cu */
int lik_score_mma_prepare(const struct lik_gpu *gpu);
int lik_score_mma_tile_blocks(int64_t blocks);
const char *lik_score_mma_name(const struct lik_gpu *gpu, const struct lik_score *op);
int lik_score_mma_launch(const struct lik_gpu *gpu, const struct score_args *a, cudaStream_t stream);

/* shape_sm90.cu */
struct sm90_shape {
    /* warpgroups that multiply `bands` x 64 query rows each */
    int bands, warpgroups;
    int blocks, piece, together, stages, slab_bytes; /* of the ring: struct sm90_args; so are the next */
    int slabs, row_slabs, planes, deep, uniform;
    size_t bytes; /* of shared memory */
};
int lik_score_sm90_takes(const struct lik_gpu *gpu, const struct lik_score *op);
struct sm90_shape lik_score_sm90_shape(const struct lik_gpu *gpu, const struct lik_score *op, int64_t blocks);

/* score_sm90.cu */
int lik_score_sm90_prepare(struct lik_gpu *gpu);
int lik_score_sm90_launch(const struct lik_gpu *gpu, const struct score_args *a, struct sm90_shape shape,
                          cudaStream_t stream);

/* score.cu */
int lik_cuda_vector_loads(const struct lik_tokens *x); /* may load_8 take the tokens of x in vectors? */
unsigned lik_cuda_blocks(int64_t threads);             /* of 256 threads; kernels stride over what is left */
int lik_cuda_unit_factors(const struct lik_tokens *x, int vector, float *out, int64_t rows,
                          cudaStream_t stream);
int lik_cuda_score_plan(const struct lik_gpu *gpu, const struct lik_score *op, struct lik_layout *layout,
                        struct lik_plan *plan);
int lik_cuda_score_run(const struct lik_gpu *gpu, const struct lik_score *op, char *workspace,
                       cudaStream_t stream);

/* topk.cu */
int lik_cuda_topk_plan(const struct lik_gpu *gpu, const struct lik_topk *op, struct lik_layout *layout,
                       struct lik_plan *plan);
int lik_cuda_topk_run(const struct lik_gpu *gpu, const struct lik_topk *op, char *workspace,
                      cudaStream_t stream);

/* grad.cu */
int lik_grad_prepare(const struct lik_gpu *gpu);
int lik_cuda_grad_plan(const struct lik_gpu *gpu, const struct lik_grad *op, struct lik_layout *layout,
                       struct lik_plan *plan);
int lik_cuda_grad_run(const struct lik_gpu *gpu, const struct lik_grad *op, char *workspace,
                      cudaStream_t stream);

#endif
