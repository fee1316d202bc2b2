/* The scan's kernels of 4 bits an element. */
#include "cuda/scan/group.cuh"

scan_kernel lik_cuda_scan_kernel_4(int dtype, int way)
{
    return scan_kernel_of<4>(dtype, way);
}

scan_kernel lik_cuda_group_kernel_4(int dtype, int rows, int norms, int argmax)
{
    return group_kernel_of<4>(dtype, rows, norms, argmax);
}
