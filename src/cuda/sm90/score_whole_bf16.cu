/* The Hopper loop's kernels for short bf16 documents. */
#include "cuda/sm90/loop.cuh"
#include "cuda/sm90/stage_stored.cuh"

const void *lik_cuda_sm90_kernel_whole_bf16(int two_bands)
{
    return sm90_whole_kernel_of<struct stage_stored<LIK_BF16>>(two_bands);
}
