/* What every launch needs: its status in words, and the kernels that begin early. */
#include "cuda/kernels.cuh"

int lik_cuda_status(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return LIK_OK;
    return lik_fail(error == cudaErrorMemoryAllocation ? LIK_ENOMEM : LIK_EDEVICE, "%s: %s (%s)", what,
                    cudaGetErrorString(error), cudaGetErrorName(error));
}

int lik_cuda_launched(const char *kernel)
{
    return lik_cuda_status(cudaGetLastError(), kernel);
}

int lik_cuda_launch_early(const struct lik_gpu *gpu, const void *kernel, const char *name, unsigned blocks,
                          unsigned threads, size_t shared_bytes, cudaStream_t stream, void *args)
{
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t how = {};
    how.gridDim = blocks;
    how.blockDim = threads;
    how.dynamicSmemBytes = shared_bytes;
    how.stream = stream;
    how.attrs = &early;
    how.numAttrs = gpu->limits.hopper ? 1 : 0;
    cudaLaunchKernelExC(&how, kernel, &args);
    return lik_cuda_launched(name); /* takes a failure off the runtime, too */
}
