/* Failures, random numbers, guarded memory and the list of devices under check. */
#include "check.h"
#include "system.h"

#include "cpu/levels.h"
#include "io/system.h"
#ifdef LIK_CHECK_METAL
#include "../metal/backend.h"
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <stdarg.h>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#define CANARY            0xa5
#define PRINTED_FAILURES  40 /* in all */
#define PRINTED_OF_A_CASE 2

struct check_totals totals = {.only = -1};
static char description[1024];
static int printed, printed_of_case;

void check_describe(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(description, sizeof description, format, args);
    va_end(args);
    printed_of_case = 0;
}

int check(int holds, const char *format, ...)
{
    totals.checks++;
    if (holds)
        return 1;
    totals.failures++;
    if (printed < PRINTED_FAILURES && printed_of_case < PRINTED_OF_A_CASE) {
        va_list args;
        va_start(args, format);
        printed++;
        printed_of_case++;
        printf("FAILED %s\n    ", description);
        vprintf(format, args);
        printf("\n");
        fflush(stdout);
        va_end(args);
    }
    if (totals.stop)
        exit(1);
    return 0;
}

int check_ok(int status, const char *call)
{
    return check(status == LIK_OK, "%s returned %s: %s", call, lik_status_name(status), lik_last_error());
}

int check_close(const char *what, int64_t at, double got, double want, double tolerance)
{
    if (isnan(want) || isnan(got))
        return check(isnan(want) && isnan(got), "%s[%lld] is %.9g, expected %.9g", what, (long long)at, got,
                     want);
    if (isinf(want) || isinf(got))
        return check(got == want, "%s[%lld] is %.9g, expected %.9g", what, (long long)at, got, want);
    double error = fabs(got - want);
    if (error > totals.worst * tolerance && tolerance > 0)
        totals.worst = error / tolerance;
    return check(error <= tolerance, "%s[%lld] is %.9g, expected %.9g: off by %.3g, tolerance %.3g", what,
                 (long long)at, got, want, error, tolerance);
}

int check_wanted(int64_t number, int64_t thin)
{
    int wanted = totals.only >= 0 ? number == totals.only : !totals.quick || number % thin == 0;
    totals.cases += wanted;
    return wanted;
}

static void print_fault(void)
{
    lik_file_write(LIK_STDOUT, "\nCRASHED in ", 12);
    lik_file_write(LIK_STDOUT, description, (int64_t)strlen(description));
    lik_file_write(LIK_STDOUT, "\n", 1);
}

void check_catch_faults(void)
{
    faults_catch(print_fault);
}

uint64_t rng_next(struct rng *rng)
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int64_t rng_below(struct rng *rng, int64_t n)
{
    return (int64_t)(rng_next(rng) % (uint64_t)n);
}

double rng_unit(struct rng *rng)
{
    return (double)(rng_next(rng) >> 11) * 0x1p-53;
}

double rng_normal(struct rng *rng)
{
    double sum = 0; /* the sum of 12 uniform numbers is normal enough, and bounded */
    for (int i = 0; i < 12; i++)
        sum += rng_unit(rng);
    return sum - 6;
}

struct buffer buffer_make(size_t bytes, enum placement placement, size_t align)
{
    size_t page = page_bytes();
    size_t inner = (bytes + align + totals.slack + page - 1) / page * page;
    struct buffer b = {.bytes = bytes, .map_bytes = inner + 2 * page};
    size_t slack = totals.slack / align * align;
    b.map = pages_map(b.map_bytes);
    if (!b.map || pages_protect(b.map, page, PAGES_NONE) ||
        pages_protect(b.map + page + inner, page, PAGES_NONE)) {
        printf("no memory for a buffer of %zu bytes\n", bytes);
        exit(2);
    }
    memset(b.map + page, CANARY, inner);
    b.data = placement == AT_BEGIN ? b.map + page : b.map + page + inner - bytes - slack;
    b.data -= (uintptr_t)b.data % align;
    return b;
}

void buffer_lock(struct buffer *b)
{
    size_t page = page_bytes();
    if (pages_protect(b->map + page, b->map_bytes - 2 * page, PAGES_READ))
        exit(2);
}

void buffer_check(const struct buffer *b, const char *name)
{
    size_t page = page_bytes();
    const unsigned char *begin = b->map + page, *end = b->map + b->map_bytes - page;
    int64_t touched = 0;
    for (const unsigned char *at = begin; at < b->data; at++)
        touched += *at != CANARY;
    for (const unsigned char *at = b->data + b->bytes; at < end; at++)
        touched += *at != CANARY;
    check(touched == 0, "%lld bytes next to %s were written", (long long)touched, name);
}

void buffer_free(struct buffer *b)
{
    if (b->map)
        pages_unmap(b->map, b->map_bytes);
    memset(b, 0, sizeof *b);
}

#define LEVEL(name, usable) {"cpu:" #name, #name, NULL},
#ifdef LIK_CHECK_METAL /* the program of tests/metal: Metal's kernels, emulated */
struct device devices[] = {{"metal", "metal", NULL}};
#define lik_context_create(name, ctx) emulated_context(ctx)
#else
struct device devices[] = {{"ref", "ref", NULL}, LIK_CPU_LEVELS(LEVEL){"cuda:0", "cuda", NULL}};
#endif
const int64_t device_count = COUNT(devices);

/* A feature of aarch64, by its number in Linux's HWCAP and HWCAP2, or by Apple's name. */
static int has_feature(int number, const char *name)
{
#if defined(__aarch64__) && defined(__linux__)
    (void)name;
    return getauxval(number < 64 ? AT_HWCAP : AT_HWCAP2) >> number % 64 & 1;
#elif defined(__aarch64__) && defined(__APPLE__)
    int has = 0;
    size_t size = sizeof has;
    return number >= 0 && !sysctlbyname(name, &has, &size, NULL, 0) && has;
#else
    (void)name;
    return number < 0;
#endif
}

static int processor_has(const char *level)
{
    if (!strcmp(level, "neon"))
        return 1;
    if (!strcmp(level, "neondot"))
        return has_feature(20, "hw.optional.arm.FEAT_DotProd");
    if (!strcmp(level, "neoni8mm"))
        return has_feature(77, "hw.optional.arm.FEAT_I8MM");
    if (!strcmp(level, "neonbf16"))
        return has_feature(78, "hw.optional.arm.FEAT_BF16");
#if defined(__x86_64__)
    unsigned a, b, c, d, b7 = 0, c7 = 0, d7 = 0, a71 = 0;
    int avx2 = 0, avx512 = 0;
    if (__get_cpuid(1, &a, &b, &c, &d))
        avx2 = (c & bit_F16C) && (c & bit_FMA) && (c & bit_OSXSAVE);
    if (__get_cpuid_count(7, 0, &a, &b7, &c7, &d7))
        avx2 = avx2 && (b7 & bit_AVX2);
    if (__get_cpuid_count(7, 1, &a71, &b, &c, &d))
        avx512 =
            avx2 && (b7 & bit_AVX512F) && (b7 & bit_AVX512BW) && (b7 & bit_AVX512DQ) && (b7 & bit_AVX512VL);
    if (!strcmp(level, "avx2"))
        return avx2;
    if (!strcmp(level, "avxvnni"))
        return avx2 && (a71 >> 4 & 1);
    if (!strcmp(level, "avx512"))
        return avx512;
    if (!strcmp(level, "avx512vnni"))
        return avx512 && (c7 >> 11 & 1);
    if (!strcmp(level, "avx512bf16"))
        return avx512 && (c7 >> 11 & 1) && (a71 >> 5 & 1);
    if (!strcmp(level, "amx"))
        return avx512 && (d7 >> 22 & 13) == 13 && amx_is_allowed(); /* with the system's leave */
#endif
#if defined(__wasm__)
    if (!strcmp(level, "simd128")) /* else nothing of this file could be loaded */
        return 1;
#endif
    return !strcmp(level, "ref") || !strcmp(level, "generic") || !strcmp(level, "cuda") ||
           !strcmp(level, "metal");
}

enum { POOL = 8 };
static struct lik_pool *pool;

static void backwards(void *nothing, int64_t n, void (*task)(void *arg, int64_t i), void *arg)
{
    (void)nothing;
    for (int64_t i = n - 1; i >= 0; i--)
        task(arg, i);
}

struct lik_exec exec_of(int32_t threads)
{
    struct lik_exec exec = {.struct_size = sizeof exec, .threads = threads, .parallel_for = backwards};
    if (threads == POOL) {
        exec.parallel_for = lik_pool_parallel_for;
        exec.pool = pool;
    }
    return exec;
}

void devices_open(const char *only)
{
    check_describe("a pool");
    check_ok(lik_pool_create(POOL, &pool), "lik_pool_create");
    totals.gpu = only && !strncmp(only, "cuda:", 5);
    for (int64_t i = 0; i < device_count; i++) {
        struct device *device = &devices[i];
        if (!strcmp(device->level, "cuda") && !totals.gpu)
            continue; /* only by name, and alone */
        int status = lik_context_create(device->name, &device->ctx);
        check_describe("opening the device %s", device->name);
        if (processor_has(device->level)) {
            if (check_ok(status, "lik_context_create"))
                check(!strcmp(lik_context_name(device->ctx), device->name), "its name is \"%s\"",
                      lik_context_name(device->ctx));
        } else {
            check(status == LIK_EUNSUPPORTED || status == LIK_EDEVICE,
                  "this processor lacks it, the status is %s", lik_status_name(status));
            printf("%s: not on this processor, skipped\n", device->name);
            totals.skipped++;
        }
        if (only && strcmp(only, device->name)) {
            lik_context_destroy(device->ctx);
            device->ctx = NULL;
        }
    }
}

void devices_close(void)
{
    lik_pool_destroy(pool);
    for (int64_t i = 0; i < device_count; i++) {
        lik_context_destroy(devices[i].ctx);
        devices[i].ctx = NULL;
    }
}
