/* The Hopper loop's kernels for documents of 8 bits, widened to f16. */
#include "cuda/sm90/loop.cuh"
#include "cuda/sm90/stage_widened.cuh"

const void *lik_cuda_sm90_kernel_widened_f16(int argmax)
{
    return sm90_kernel_of<struct stage_widened<LIK_F16>>(argmax);
}
