/* The Hopper loop's kernels for documents decoded to f16, whose factors were taken before. */
#include "cuda/sm90/loop.cuh"
#include "cuda/sm90/stage_decoded.cuh"

const void *lik_cuda_sm90_kernel_decoded_f16(int argmax)
{
    return sm90_kernel_of<struct stage_decoded<LIK_F16>>(argmax);
}
