/* The scan's kernels of f32 tokens. */
#include "cuda/scan/group_f32.cuh"

scan_kernel lik_cuda_group_kernel_f32(int bits, int unit, int argmax)
{
#define LIK_F32_OF(bits)                                                         \
    {                                                                            \
        {scan_group_f32<bits, false, false>, scan_group_f32<bits, false, true>}, \
        {                                                                        \
            scan_group_f32<bits, true, false>, scan_group_f32<bits, true, true>  \
        }                                                                        \
    }
    static const scan_kernel kernels[4][2][2] = {LIK_F32_OF(0), LIK_F32_OF(1), LIK_F32_OF(2), LIK_F32_OF(4)};
#undef LIK_F32_OF
    return kernels[bits == 4 ? 3 : bits][unit][argmax];
}
