/* The scan's kernels of documents that are their centroids. */
#include "cuda/scan/group.cuh"

scan_kernel lik_cuda_scan_kernel_0(int dtype, int way)
{
    return scan_kernel_of<0>(dtype, way);
}

scan_kernel lik_cuda_group_kernel_0(int dtype, int rows, int norms, int argmax)
{
    return group_kernel_of<0>(dtype, rows, norms, argmax);
}
