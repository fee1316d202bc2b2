/* The Hopper loop's kernels for documents decoded to bf16, whose factors were taken before. */
#include "cuda/sm90/loop.cuh"
#include "cuda/sm90/stage_decoded.cuh"

const void *lik_cuda_sm90_kernel_decoded_bf16(int argmax)
{
    return sm90_kernel_of<struct stage_decoded<LIK_BF16>>(argmax);
}
