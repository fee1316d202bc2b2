/* What the CUDA files of this room call of each other: launching, and one launch function a
 * kernel family. Every function returns a lik_status. */
#ifndef LIK_CUDA_KERNELS_CUH
#define LIK_CUDA_KERNELS_CUH

extern "C" {
#include "cuda/gpu.h"
}

#include <cuda.h>
#include <cuda_runtime.h>
#include <stdint.h>

struct score_args;
struct grad_args;
struct lik_tokens;

/* LIK_OK, or LIK_EDEVICE with a message that says what failed. */
int lik_cuda_status(cudaError_t error, const char *what);

/* The status of the launch just made. */
int lik_cuda_launched(const char *kernel);

/* Launches a kernel, which takes the one argument `args` and calls wait_for_kernels_before: on
 * Hopper, before those ahead of it in the stream have ended. */
int lik_cuda_launch_early(const struct lik_gpu *gpu, const void *kernel, const char *name, unsigned blocks,
                          unsigned threads, size_t shared_bytes, cudaStream_t stream, void *args);

/* The paths that score: what readies their kernels for a GPU, and what launches them. */
int lik_cuda_look_up_prepare(struct lik_gpu *gpu);
int lik_cuda_look_up_launch(const struct lik_gpu *gpu, const struct score_args *a,
                            const struct score_plan *plan, char *workspace, cudaStream_t stream);
int lik_cuda_bytes_prepare(struct lik_gpu *gpu);
int lik_cuda_bytes_launch(const struct lik_gpu *gpu, const struct score_args *a,
                          const struct score_plan *plan, char *workspace, cudaStream_t stream);
int lik_cuda_widened_prepare(struct lik_gpu *gpu);
int lik_cuda_widened_launch(const struct lik_gpu *gpu, const struct score_args *a,
                            const struct score_plan *plan, char *workspace, cudaStream_t stream);
int lik_cuda_sm90_prepare(struct lik_gpu *gpu);
int lik_cuda_sm90_launch(const struct lik_gpu *gpu, const struct score_args *a, const struct score_plan *plan,
                         char *workspace, cudaStream_t stream);
/* A tensor map of documents, (dim, token, sequence, group), 128 bytes of a token wide; its box
 * is so many elements, tokens and sequences. */
int lik_cuda_sm90_map(const struct lik_gpu *gpu, const struct lik_tokens *d, int elements, int rows,
                      int sequences, CUtensorMap *map);
int lik_cuda_decoded_prepare(struct lik_gpu *gpu);
int lik_cuda_decoded_launch(const struct lik_gpu *gpu, const struct score_args *a,
                            const struct score_plan *plan, char *workspace, cudaStream_t stream);
int lik_cuda_scan_prepare(struct lik_gpu *gpu);
int lik_cuda_scan_launch(const struct lik_gpu *gpu, const struct score_args *a, const struct score_plan *plan,
                         char *workspace, cudaStream_t stream);
int lik_cuda_mma_prepare(struct lik_gpu *gpu);
int lik_cuda_mma_launch(const struct lik_gpu *gpu, const struct score_args *a, const struct score_plan *plan,
                        char *workspace, cudaStream_t stream);
int lik_cuda_mma_prepare_compressed(const struct lik_gpu *gpu);
int lik_cuda_mma_launch_compressed(const struct lik_gpu *gpu, const struct score_args *a,
                                   const struct score_plan *plan, cudaStream_t stream);

/* score.cu */
unsigned lik_cuda_blocks(int64_t threads); /* of 256 threads; kernels stride over what is left */
int lik_cuda_unit_factors(const struct lik_tokens *x, int vector, float *out, int64_t rows,
                          cudaStream_t stream);
int lik_cuda_add_partials(const struct score_args *a, cudaStream_t stream);
int lik_cuda_score_chunk(const struct lik_gpu *gpu, const struct score_args *score,
                         const struct score_plan *plan, const struct lik_tokens *d, int64_t first,
                         cudaStream_t stream);
int lik_cuda_score_prepare(struct lik_gpu *gpu);

/* scan/launch.cu: the centroids of x as the scan reads them */
int lik_cuda_lay_out_centroids(const struct lik_tokens *x, void *out, cudaStream_t stream);

/* grad/ */
int lik_cuda_grad_prepare(const struct lik_gpu *gpu);
int lik_cuda_grad_compressed(const struct grad_args *a, const struct grad_plan *plan, char *workspace,
                             cudaStream_t stream);

#endif
