/* Norms that f32 nearly loses. */
#include "cpu/driver.h"

/* With the elements scaled by a power of two. */
float lik_cpu_norm_again(const struct lik_cpu_kernels *kernels, const float *x, int64_t n, float squares)
{
    float largest = 0;
    int exponent;
    for (int64_t k = 0; k < n; k++)
        largest = fmaxf(largest, fabsf(x[k]));
    if (isnan(squares) || isinf(largest) || largest == 0)
        return sqrtf(squares);
    frexpf(largest, &exponent);
    float scale = ldexpf(1.0f, exponent > 120 ? -120 : exponent < -120 ? 120 : -exponent);
    return sqrtf(kernels->sum_squares_of(scale, x, n)) / scale;
}
