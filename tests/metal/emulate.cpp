/* Kernels for the mock, by the emulator: one at a time, as it has one set of lanes. */
#include "emulate.h"

#include "emulator.h"
#include "kernels.h"

#include <cstring>
#include <mutex>

static int number_of(const char *kernel)
{
    for (int i = 0; i < LIK_METAL_KERNELS; i++)
        if (!strcmp(lik_metal_kernels[i].name, kernel))
            return i;
    return -1;
}

int emulate_has(const char *kernel)
{
    return number_of(kernel) >= 0;
}

long emulate_runs(int number)
{
    return long(emulator_runs[number]);
}

const char *emulate_name(int number)
{
    return number < LIK_METAL_KERNELS ? lik_metal_kernels[number].name : nullptr;
}

const char *emulate(const char *kernel, const struct emulate_argument *arguments, int count,
                    const size_t groups[3], const size_t threads[3])
{
    static std::mutex one;
    std::lock_guard<std::mutex> lock(one);
    const int number = number_of(kernel);
    const struct lik_metal_kernel &about = lik_metal_kernels[number];
    struct lik_metal_dispatch dispatch = {};
    if (threads[0] != LIK_METAL_THREADS || threads[1] != 1 || threads[2] != 1 || groups[1] != 1 || groups[2] != 1)
        return "a threadgroup, or the grid, has another shape than the kernels count on";
    if (arguments[LIK_AT_ARGS].bytes != size_t(about.args_bytes))
        return "the arguments have another size than the kernel's";
    for (int n = 0; n < count && n < LIK_METAL_BUFFERS; n++) {
        const bool declared = about.buffers >> n & 1;
        if (declared && !arguments[n].memory)
            return "a buffer that the kernel declares is not bound";
        if (declared)
            dispatch.buffers[n] = arguments[n].memory;
    }
    dispatch.kernel = static_cast<enum lik_metal_kernel_number>(number);
    dispatch.threadgroups = int64_t(groups[0]);
    dispatch.args = arguments[LIK_AT_ARGS].memory;
    emulator_dispatch(nullptr, &dispatch);
    return nullptr;
}
