/* The scan's kernels of 2 bits an element whose products are of integers. */
#include "cuda/scan/group_i8.cuh"

scan_kernel lik_cuda_group_i8_kernel_2(int rows, int norms, int argmax)
{
    return group_i8_kernel_of<2>(rows, norms, argmax);
}
