/* The scan's kernels of 2 bits an element. */
#include "cuda/scan/scan.cuh"

scan_kernel lik_cuda_scan_kernel_2(int dtype, int way)
{
    return scan_kernel_of<2>(dtype, way);
}
