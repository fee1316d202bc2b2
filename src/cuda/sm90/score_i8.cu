/* The Hopper loop's kernels for i8 tokens of queries and documents, multiplied as they are. */
#include "cuda/sm90/loop.cuh"
#include "cuda/sm90/stage_i8.cuh"

const void *lik_cuda_sm90_kernel_i8(int argmax, int two_bands)
{
    return sm90_kernel_of<struct stage_i8>(argmax, two_bands);
}
