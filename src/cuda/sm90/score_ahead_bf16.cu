/* The Hopper loop's kernels for bf16 documents each of which meets other query rows. */
#include "cuda/sm90/loop.cuh"
#include "cuda/sm90/stage_stored.cuh"

const void *lik_cuda_sm90_kernel_ahead_bf16(int argmax)
{
    return sm90_ahead_kernel_of<struct stage_stored<LIK_BF16>>(argmax);
}
