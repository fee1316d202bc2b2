/* Gradients. */
#include "cuda/kernels.cuh"

int lik_cuda_grad_plan(const struct lik_gpu *, const struct lik_grad *, struct lik_plan *)
{
    return lik_fail(LIK_EUNSUPPORTED, "the CUDA backend of this build takes no gradients");
}

int lik_cuda_grad_run(const struct lik_gpu *, const struct lik_grad *, char *, cudaStream_t)
{
    return lik_fail(LIK_EUNSUPPORTED, "the CUDA backend of this build takes no gradients");
}
