/* The scan's kernels of 8 bits an element. */
#include "cuda/scan/group.cuh"

scan_kernel lik_cuda_scan_kernel_8(int dtype, int way)
{
    return scan_kernel_of<8>(dtype, way);
}

scan_kernel lik_cuda_group_kernel_8(int dtype, int rows, int norms)
{
    return group_kernel_of<8>(dtype, rows, norms);
}
