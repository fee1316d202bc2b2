/* The Hopper loop's kernels for documents of f16. */
#include "cuda/sm90/loop.cuh"
#include "cuda/sm90/stage_stored.cuh"

const void *lik_cuda_sm90_kernel_f16(int argmax, int two_bands)
{
    return sm90_kernel_of<struct stage_stored<LIK_F16>>(argmax, two_bands);
}
