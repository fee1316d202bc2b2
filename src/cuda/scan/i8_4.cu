/* The scan's kernels of 4 bits an element whose products are of integers. */
#include "cuda/scan/group_i8.cuh"

scan_kernel lik_cuda_group_i8_kernel_4(int rows, int norms, int argmax)
{
    return group_i8_kernel_of<4>(rows, norms, argmax);
}
