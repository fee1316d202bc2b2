/* The Hopper loop's kernels for documents of f32. */
#include "cuda/sm90/loop.cuh"
#include "cuda/sm90/stage_planes.cuh"

const void *lik_cuda_sm90_kernel_f32(int argmax, int two_bands)
{
    return sm90_kernel_of<struct stage_planes>(argmax, two_bands);
}
