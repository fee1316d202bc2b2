/* The scan's kernels of 1 bit an element. */
#include "cuda/scan/scan.cuh"

scan_kernel lik_cuda_scan_kernel_1(int dtype, int way)
{
    return scan_kernel_of<1>(dtype, way);
}
