/* The scan's kernels of 1 bit an element. */
#include "cuda/scan/group.cuh"

scan_kernel lik_cuda_scan_kernel_1(int dtype, int way)
{
    return scan_kernel_of<1>(dtype, way);
}

scan_kernel lik_cuda_group_kernel_1(int dtype, int rows, int norms, int argmax)
{
    return group_kernel_of<1>(dtype, rows, norms, argmax);
}
