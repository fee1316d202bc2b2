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
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#include <windows.h>
#endif
#endif

/* What `usable` of a level says. */
enum usable {
    LACKING,
    REFUSED, /* by the operating system */
    BY_NAME, /* would be slower than the level below: taken when asked for */
    USABLE,
};

static enum usable has_baseline(void)
{
    return USABLE;
}

#if defined(__x86_64__)
enum { AVX = 6, AVX512 = 0xe6 }; /* registers that the operating system saves for every thread */

/* A bit of what the processor says of itself. Not by the compiler's own function, which wants a
 * table that not every compiler's library has. */
static int has_bit(unsigned leaf, unsigned part, char name, int bit)
{
    unsigned r[4]; /* eax to edx */
    return __get_cpuid_count(leaf, part, r, r + 1, r + 2, r + 3) && r[name - 'a'] >> bit & 1;
}

static int saves(unsigned registers)
{
    unsigned low, high;
    if (!has_bit(1, 0, 'c', 27)) /* may it be asked? */
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & registers) == registers;
}

static enum usable has_avx2(void)
{
    const int fma = has_bit(1, 0, 'c', 12), f16c = has_bit(1, 0, 'c', 29), avx2 = has_bit(7, 0, 'b', 5);
    return saves(AVX) && fma && f16c && avx2 ? USABLE : LACKING;
}

static enum usable has_avxvnni(void)
{
    return has_avx2() && has_bit(7, 1, 'a', 4) ? USABLE : LACKING;
}

static enum usable has_avx512(void)
{
    return has_avx2() && saves(AVX512) && has_bit(7, 0, 'b', 16) && has_bit(7, 0, 'b', 17) &&
                   has_bit(7, 0, 'b', 30) && has_bit(7, 0, 'b', 31)
               ? USABLE
               : LACKING;
}

static enum usable has_avx512vnni(void)
{
    return has_avx512() && has_bit(7, 0, 'c', 11) ? USABLE : LACKING;
}

/* Intel's processors take two to four times as long for the instruction as for a multiply-add
 * (docs/experiments.md), so that converting to f32 is faster. */
static enum usable has_avx512bf16(void)
{
    unsigned a, b, c, d;
    if (!has_avx512vnni() || !has_bit(7, 1, 'a', 5))
        return LACKING;
    return __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx ? BY_NAME : USABLE;
}

/* Tiles are state that Linux saves for those who asked for it: a process asks once, and its
 * threads and children have it. Where the answer is no, so is ours. */
static enum usable has_amx(void)
{
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d, tiles_bf16_i8 = 1u << 24 | 1u << 22 | 1u << 25;
    if (!has_avx512vnni() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & tiles_bf16_i8) != tiles_bf16_i8)
        return LACKING;
    static atomic_int answer; /* 0: not asked */
    int known = atomic_load_explicit(&answer, memory_order_relaxed);
    if (known == 0) {
        known = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) ? -1 : 1;
        atomic_store_explicit(&answer, known, memory_order_relaxed);
    }
    return known > 0 ? USABLE : REFUSED;
#else
    return LACKING;
#endif
}
#endif

#if defined(__aarch64__)
/* Does the operating system say that the processor has a feature? By its bit in AT_HWCAP (0 ...
 * 63) or AT_HWCAP2 (64 ...), Apple's name, or Windows' number of it. */
static int has_feature(int hwcap, const char *apple, unsigned windows)
{
    (void)hwcap;
    (void)apple;
    (void)windows;
#if defined(__linux__)
    return (int)(getauxval(hwcap < 64 ? AT_HWCAP : AT_HWCAP2) >> hwcap % 64 & 1);
#elif defined(__APPLE__)
    int has = 0;
    size_t size = sizeof has;
    return !sysctlbyname(apple, &has, &size, NULL, 0) && has;
#elif defined(_WIN32)
    return IsProcessorFeaturePresent(windows);
#else
    return 0;
#endif
}

static enum usable has_neondot(void)
{
    return has_feature(20, "hw.optional.arm.FEAT_DotProd", 43) ? USABLE : LACKING;
}

static enum usable has_neoni8mm(void)
{
    return has_neondot() && has_feature(64 + 13, "hw.optional.arm.FEAT_I8MM", 66) ? USABLE : LACKING;
}

static enum usable has_neonbf16(void)
{
    return has_neoni8mm() && has_feature(64 + 14, "hw.optional.arm.FEAT_BF16", 68) ? USABLE : LACKING;
}
#endif

#define LEVEL(name, usable) {&lik_kernels_##name, usable},
static const struct level {
    const struct lik_cpu_kernels *kernels;
    enum usable (*usable)(void);
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

/* The level that "cpu" takes if `cap` is the highest one allowed, asked for by name if
 * `named`. */
static int best_level(int cap, int named)
{
    if (named && levels[cap].usable() == BY_NAME)
        return cap;
    while (levels[cap].usable() != USABLE)
        cap--;
    return cap;
}

static int cpu_open(struct lik_context *ctx, const char *level)
{
    int at = LEVELS - 1;
    const char *cap = getenv("LIK_CPU");
    const int named = level || (cap && *cap);
    if (named) {
        at = level ? find_level(level, "device") : find_level(cap, "LIK_CPU");
        if (at < 0)
            return at;
    }
    enum usable usable = levels[at].usable();
    if (level && usable < BY_NAME)
        return lik_fail(LIK_EDEVICE, "device is \"cpu:%s\", %s %s", level,
                        usable == LACKING ? "this processor does not have"
                                          : "the operating system does not let this process use",
                        level);
    at = best_level(at, named);
    ctx->kernels = levels[at].kernels;
    snprintf(ctx->name, sizeof ctx->name, "cpu:%s", levels[at].kernels->level);
    return LIK_OK;
}

const char *lik_cpu_level(int32_t n, const char **why)
{
    if (n < 0 || n >= LEVELS)
        return NULL;
    const char *cap = getenv("LIK_CPU");
    int highest = cap && *cap ? find_level(cap, "LIK_CPU") : LEVELS - 1;
    if (why) {
        switch (levels[n].usable()) {
        case LACKING: *why = "not on this processor"; break;
        case REFUSED: *why = "not allowed by the operating system"; break;
        case BY_NAME: *why = "here, by name alone: slower than the level below"; break;
        default: *why = n > highest ? "here, above LIK_CPU" : "here"; break;
        }
        if (highest >= 0 && n == best_level(highest, cap && *cap))
            *why = "here, taken";
    }
    return levels[n].kernels->level;
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
    .quantize = lik_cpu_quantize,
};
