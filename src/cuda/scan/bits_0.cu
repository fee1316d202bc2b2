/* The scan's kernels of documents that are their centroids. */
#include "cuda/scan/scan.cuh"

scan_kernel lik_cuda_scan_kernel_0(int dtype, int way)
{
    return scan_kernel_of<0>(dtype, way);
}
