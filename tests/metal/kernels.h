/* The kernels of src/metal, compiled as C++, by the names of their entry points. */
#ifndef LIK_TESTS_METAL_KERNELS_H
#define LIK_TESTS_METAL_KERNELS_H

extern "C" {
#include "metal/plan.h"
}

struct emulated_kernel {
    const char *name;
    void (*run)(void *const *buffers, uint32_t group, uint32_t simd, uint32_t lane);
};

/* Ends the process if there is none of this name, or the buffers that it declares are not those
 * of its entry in lik_metal_kernels. */
const struct emulated_kernel *emulated_kernel_of(const char *name);

#endif
