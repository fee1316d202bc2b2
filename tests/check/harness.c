/* Failures, random numbers, guarded memory and the list of devices under check. */
#include "check.h"

#include "cpu/levels.h"
#ifdef LIK_CHECK_METAL
#include "../metal/backend.h"
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif
#include <unistd.h>

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

static struct sigaction before_fault[2];

static void on_fault(int number)
{
    static const char text[] = "\nCRASHED in ";
    ssize_t ignored = write(1, text, sizeof text - 1);
    ignored += write(1, description, strlen(description));
    ignored += write(1, "\n", 1);
    (void)ignored;
    /* returning repeats the access, now with this handler */
    sigaction(number, &before_fault[number == SIGBUS], NULL);
}

void check_catch_faults(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_fault;
    sigaction(SIGSEGV, &action, &before_fault[0]);
    sigaction(SIGBUS, &action, &before_fault[1]);
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
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inner = (bytes + align + totals.slack + page - 1) / page * page;
    struct buffer b = {.bytes = bytes, .map_bytes = inner + 2 * page};
    size_t slack = totals.slack / align * align;
    b.map = mmap(NULL, b.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b.map == MAP_FAILED || mprotect(b.map, page, PROT_NONE) ||
        mprotect(b.map + page + inner, page, PROT_NONE)) {
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
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (mprotect(b->map + page, b->map_bytes - 2 * page, PROT_READ))
        exit(2);
}

void buffer_check(const struct buffer *b, const char *name)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
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
        munmap(b->map, b->map_bytes);
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

/* AMX with Linux's leave. */
static int has_amx(void)
{
#if defined(__x86_64__) && defined(__linux__)
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 13) == 13 &&
           !syscall(SYS_arch_prctl, 0x1023, 18);
#else
    return 0;
#endif
}

static int processor_has(const char *level)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (!strcmp(level, "avx2"))
        return avx2;
    if (!strcmp(level, "avxvnni"))
        return avx2 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
    if (!strcmp(level, "avx512"))
        return avx512;
    if (!strcmp(level, "avx512vnni"))
        return avx512 && __builtin_cpu_supports("avx512vnni");
    if (!strcmp(level, "avx512bf16"))
        return avx512 && __builtin_cpu_supports("avx512vnni") && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
               (a >> 5 & 1);
    if (!strcmp(level, "amx"))
        return avx512 && has_amx();
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
