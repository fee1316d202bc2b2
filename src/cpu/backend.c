/* The CPU backend: which level runs.
 *
 * Levels are whole kernel tables, ordered from the baseline up; a level is usable when it is
 * built in and the processor and the operating system have what it needs. "cpu" takes the
 * highest usable one not above $LIK_CPU, "cpu:LEVEL" that one or fails. Only files named after
 * a level contain its instructions. */
#include "cpu/driver.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int has_baseline(void)
{
    return 1;
}

#if defined(__x86_64__)
static int has_avx2(void)
{
    __builtin_cpu_init(); /* checks the operating system's saved state, too */
    unsigned a, b, c, d;  /* clang 14 does not know "f16c" */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

#define LEVEL(name, usable) {&lik_kernels_##name, usable},
static const struct level {
    const struct lik_cpu_kernels *kernels;
    int (*usable)(void);
} levels[] = {LIK_CPU_LEVELS(LEVEL)};

enum { LEVELS = sizeof levels / sizeof *levels };

static int find_level(const char *name, const char *argument)
{
#define LEVEL_NAME(name, usable) ", " #name
    static const char names[] = "" LIK_CPU_LEVELS(LEVEL_NAME);
    for (int i = 0; i < LEVELS; i++)
        if (!strcmp(levels[i].kernels->level, name))
            return i;
    return lik_fail(LIK_EINVAL, "%s names the CPU level \"%.24s\", this build has %s", argument, name,
                    names + 2);
}

static int cpu_open(struct lik_context *ctx, const char *level)
{
    int highest = LEVELS - 1;
    const char *cap = getenv("LIK_CPU");
    if (level || (cap && *cap)) {
        highest = level ? find_level(level, "device") : find_level(cap, "LIK_CPU");
        if (highest < 0)
            return highest;
    }
    if (level && !levels[highest].usable())
        return lik_fail(LIK_EDEVICE, "device is \"cpu:%s\", this processor does not have %s", level, level);
    while (!levels[highest].usable())
        highest--;
    ctx->kernels = levels[highest].kernels;
    snprintf(ctx->name, sizeof ctx->name, "cpu:%s", levels[highest].kernels->level);
    return LIK_OK;
}

const struct lik_backend lik_backend_cpu = {
    .name = "cpu",
    .host_memory = 1,
    .storages = 1u << LIK_DENSE | 1u << LIK_RESIDUAL | 1u << LIK_ONE_HOT,
    .open = cpu_open,
    .score = lik_cpu_score,
    .topk = lik_cpu_topk,
    .grad = lik_cpu_grad,
    .decode = lik_cpu_decode,
    .encode = lik_cpu_encode,
    .train = lik_cpu_train,
};
