/* The Hopper loop's kernels for documents of 8 bits, widened to bf16. */
#include "cuda/sm90/loop.cuh"
#include "cuda/sm90/stage_widened.cuh"

const void *lik_cuda_sm90_kernel_widened_bf16(int argmax)
{
    return sm90_kernel_of<struct stage_widened<LIK_BF16>>(argmax);
}
