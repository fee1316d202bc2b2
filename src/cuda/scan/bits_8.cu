/* The scan's kernels of 8 bits an element. */
#include "cuda/scan/scan.cuh"

scan_kernel lik_cuda_scan_kernel_8(int dtype, int way)
{
    return scan_kernel_of<8>(dtype, way);
}
