/* The limits of this machine, measured in the run they are quoted in: multiply-adds a second in
 * registers alone, and bytes read a second from a buffer of a given size. And a loop that
 * repeats a library call, so that calls of a few microseconds are timed without the caller's
 * language.
 *
 * Multiply-adds have an AVX2 form, taken when the processor has it, one for aarch64, and a
 * generic one in the compiler's own vectors. The accumulators start from different values that
 * the compiler cannot see: from equal ones it kept a single accumulator and the loop reported
 * half as much again as the processor can do. Beside them stands what single instructions can
 * do, peak_of. Threads start together, each with its own registers and its own buffer; the time
 * is from the first start to the last end.
 *
 * With -DPEAK_MAIN a program that runs every instruction the processor has and checks how many
 * products it takes (aarch64, for emulators): exit status 1 if one is counted wrongly. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#include <immintrin.h>
#define HAVE_AVX2_FORM 1
#else
#define HAVE_AVX2_FORM 0
#endif
#if defined(__aarch64__)
#define HAVE_NEON_FORM 1
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#else
#define HAVE_NEON_FORM 0
#endif
#define HAVE_KINDS (HAVE_AVX2_FORM || HAVE_NEON_FORM) /* instructions by name */

enum { ACCUMULATORS = 12, THREADS_MAX = 256 };

typedef float vec4 __attribute__((vector_size(16)));
typedef uint64_t bits2 __attribute__((vector_size(16)));

/* Factor, summand, and where the accumulators start. */
static volatile float fma_values[2 + ACCUMULATORS] = {0.5f, 1.0f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
static volatile float sink;
static volatile uint64_t sink_bits;

static clockid_t time_of = CLOCK_MONOTONIC;

/* Times are the calling thread's processor's from now on (1), or the wall's. */
void peak_processor_time(int processor)
{
    time_of = processor ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(time_of, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int has_avx2(void)
{
#if HAVE_AVX2_FORM
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

/* Which form runs: "avx2", "neon" or "generic". */
const char *peak_level(void)
{
    return has_avx2() ? "avx2" : HAVE_NEON_FORM ? "neon" : "generic";
}

/* `n` rounds of 12 independent multiply-adds on 4 lanes. Returns the floating-point operations
 * done. */
static double fma_generic(int64_t n)
{
    vec4 acc[ACCUMULATORS], zero = {0, 0, 0, 0}, x = zero + fma_values[0], y = zero + fma_values[1];
    for (int i = 0; i < ACCUMULATORS; i++)
        acc[i] = zero + fma_values[2 + i];
    for (int64_t round = 0; round < n; round++)
        for (int i = 0; i < ACCUMULATORS; i++)
            acc[i] = acc[i] * x + y;
    for (int i = 1; i < ACCUMULATORS; i++)
        acc[0] += acc[i];
    sink = acc[0][0];
    return (double)n * ACCUMULATORS * 4 * 2;
}

static uint64_t read_generic(const unsigned char *data, size_t bytes)
{
    bits2 a = {0, 0}, b = a, c = a, d = a, words[4];
    for (size_t i = 0; i < bytes; i += 64) {
        memcpy(words, data + i, 64);
        a ^= words[0];
        b ^= words[1];
        c ^= words[2];
        d ^= words[3];
    }
    a ^= b ^ c ^ d;
    return a[0] ^ a[1];
}

#if HAVE_AVX2_FORM
__attribute__((target("avx2,fma"))) static double fma_avx2(int64_t n)
{
    const volatile float *v = fma_values + 2;
    __m256 x = _mm256_set1_ps(fma_values[0]), y = _mm256_set1_ps(fma_values[1]);
    __m256 a0 = _mm256_set1_ps(v[0]), a1 = _mm256_set1_ps(v[1]), a2 = _mm256_set1_ps(v[2]),
           a3 = _mm256_set1_ps(v[3]);
    __m256 a4 = _mm256_set1_ps(v[4]), a5 = _mm256_set1_ps(v[5]), a6 = _mm256_set1_ps(v[6]),
           a7 = _mm256_set1_ps(v[7]);
    __m256 a8 = _mm256_set1_ps(v[8]), a9 = _mm256_set1_ps(v[9]), a10 = _mm256_set1_ps(v[10]),
           a11 = _mm256_set1_ps(v[11]);
    for (int64_t round = 0; round < n; round++) {
        a0 = _mm256_fmadd_ps(a0, x, y);
        a1 = _mm256_fmadd_ps(a1, x, y);
        a2 = _mm256_fmadd_ps(a2, x, y);
        a3 = _mm256_fmadd_ps(a3, x, y);
        a4 = _mm256_fmadd_ps(a4, x, y);
        a5 = _mm256_fmadd_ps(a5, x, y);
        a6 = _mm256_fmadd_ps(a6, x, y);
        a7 = _mm256_fmadd_ps(a7, x, y);
        a8 = _mm256_fmadd_ps(a8, x, y);
        a9 = _mm256_fmadd_ps(a9, x, y);
        a10 = _mm256_fmadd_ps(a10, x, y);
        a11 = _mm256_fmadd_ps(a11, x, y);
    }
    a0 = _mm256_add_ps(_mm256_add_ps(_mm256_add_ps(a0, a1), _mm256_add_ps(a2, a3)),
                       _mm256_add_ps(_mm256_add_ps(a4, a5), _mm256_add_ps(a6, a7)));
    a0 = _mm256_add_ps(a0, _mm256_add_ps(_mm256_add_ps(a8, a9), _mm256_add_ps(a10, a11)));
    sink = _mm256_cvtss_f32(a0);
    return (double)n * ACCUMULATORS * 8 * 2;
}

__attribute__((target("avx2"))) static uint64_t read_avx2(const unsigned char *data, size_t bytes)
{
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (size_t i = 0; i < bytes; i += 128) {
        const __m256i *p = (const __m256i *)(const void *)(data + i);
        a = _mm256_xor_si256(a, _mm256_load_si256(p));
        b = _mm256_xor_si256(b, _mm256_load_si256(p + 1));
        c = _mm256_xor_si256(c, _mm256_load_si256(p + 2));
        d = _mm256_xor_si256(d, _mm256_load_si256(p + 3));
    }
    a = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
    return (uint64_t)_mm256_extract_epi64(a, 0) ^ (uint64_t)_mm256_extract_epi64(a, 1) ^
           (uint64_t)_mm256_extract_epi64(a, 2) ^ (uint64_t)_mm256_extract_epi64(a, 3);
}
#endif

/* ---- what one instruction can do, by name ---- */

struct kind {
    const char *name;
    int (*usable)(void);
    double (*rounds)(int64_t n); /* operations done */
};

#if HAVE_AVX2_FORM
/* 12 of an instruction, on registers of their own, n times; all read register 12. They hold
 * zeros: whatever was in them may be denormal. */
#define TWELVE(before, after)                                                                   \
    before "0" after before "1" after before "2" after before "3" after before "4" after before \
           "5" after before "6" after before "7" after before "8" after before "9" after before \
           "10" after before "11" after
#define REPEATED(name, instruction, r, operations)                                                       \
    static double name(int64_t n)                                                                        \
    {                                                                                                    \
        int64_t i = n;                                                                                   \
        __asm__ volatile("vzeroall\n1:\n\t" TWELVE(instruction " %%" r "12, %%" r "12, %%" r,            \
                                                   "\n\t") "dec %0\n\tjnz 1b\n\tvzeroupper"              \
                         : "+r"(i)                                                                       \
                         :                                                                               \
                         : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
                           "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                \
        return (double)n * ACCUMULATORS * (operations);                                                  \
    }
REPEATED(fma_256, "vfmadd231ps", "ymm", 8 * 2)
REPEATED(fma_512, "vfmadd231ps", "zmm", 16 * 2)
REPEATED(dot_bf16, "vdpbf16ps", "zmm", 16 * 4)
REPEATED(dot_i8, "vpdpbusd", "zmm", 16 * 8)
REPEATED(dot_i16, "vpdpwssd", "zmm", 16 * 4)
REPEATED(dot_i8_256, "%{vex%} vpdpbusd", "ymm", 8 * 8)

/* Four tiles take turns. They hold zeros: what a tile holds does not count. */
#define TILES(name, instruction, operations)                                       \
    static double name(int64_t n)                                                  \
    {                                                                              \
        struct {                                                                   \
            uint8_t palette, start, none[14];                                      \
            uint16_t row_bytes[16];                                                \
            uint8_t rows[16];                                                      \
        } shapes = {.palette = 1};                                                 \
        for (int i = 0; i < 8; i++)                                                \
            shapes.row_bytes[i] = 64, shapes.rows[i] = 16;                         \
        __asm__ volatile("ldtilecfg %0" ::"m"(shapes));                            \
        for (int64_t i = n; i > 0; i--)                                            \
            __asm__ volatile(instruction " %%tmm7, %%tmm6, %%tmm0\n\t" instruction \
                                         " %%tmm7, %%tmm6, %%tmm1\n\t" instruction \
                                         " %%tmm7, %%tmm6, %%tmm2\n\t" instruction \
                                         " %%tmm7, %%tmm6, %%tmm3" ::);            \
        __asm__ volatile("tilerelease");                                           \
        return (double)n * 4 * (operations);                                       \
    }
TILES(amx_bf16, "tdpbf16ps", 16 * 16 * 64)
TILES(amx_i8, "tdpbssd", 16 * 16 * 128)

static int has_512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
}

/* A bit of leaf 7, subleaf 0 or 1. */
static int has_bit(unsigned subleaf, int reg, int bit)
{
    unsigned r[4] = {0};
    return __get_cpuid_count(7, subleaf, &r[0], &r[1], &r[2], &r[3]) && r[reg] >> bit & 1;
}

static int has_vnni(void)
{
    return has_512() && has_bit(0, 2, 11);
}

static int has_bf16(void)
{
    return has_512() && has_bit(1, 0, 5);
}

static int has_avx_vnni(void)
{
    return has_avx2() && has_bit(1, 0, 4);
}

/* Linux gives the tiles to who asks for them. */
static int has_amx(int bit)
{
#if defined(__linux__)
    return has_512() && has_bit(0, 3, 24) && has_bit(0, 3, bit) &&
           !syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18);
#else
    (void)bit;
    return 0;
#endif
}

static int has_amx_bf16(void)
{
    return has_amx(22);
}

static int has_amx_i8(void)
{
    return has_amx(25);
}

static const struct kind kinds[] = {
    {"fma 256", has_avx2, fma_256},       {"fma 512", has_512, fma_512},
    {"bf16 dot", has_bf16, dot_bf16},     {"i8 dot", has_vnni, dot_i8},
    {"i16 dot", has_vnni, dot_i16},       {"i8 dot 256", has_avx_vnni, dot_i8_256},
    {"amx bf16", has_amx_bf16, amx_bf16}, {"amx i8", has_amx_i8, amx_i8}};
#endif

#if HAVE_NEON_FORM
/* 24 of an instruction, on registers of their own, n times: four pipes with a latency of 4 ask
 * for 16. All multiply v30, whose elements are ones, so that the sums of a register say how
 * many products an instruction takes. */
#define EIGHT(i, a, b, c, d, e, f, g, h, rest)                                                  \
    i " v" #a rest i " v" #b rest i " v" #c rest i " v" #d rest i " v" #e rest i " v" #f rest i \
      " v" #g rest i " v" #h rest
#define ALL(i, rest)                       \
    EIGHT(i, 0, 1, 2, 3, 4, 5, 6, 7, rest) \
    EIGHT(i, 8, 9, 10, 11, 12, 13, 14, 15, rest) EIGHT(i, 16, 17, 18, 19, 20, 21, 22, 23, rest)
#define REPEATED(name, with, ones, instruction, operands, operations)                                        \
    __attribute__((target("arch=armv8.2-a" with))) static double name(int64_t n)                             \
    {                                                                                                        \
        int64_t i = n;                                                                                       \
        __asm__ volatile(ones "\n\t" ALL("movi", ".4s, #0\n\t") "1:\n\t" ALL(                                \
                             instruction, operands "\n\t") "subs %0, %0, #1\n\tb.ne 1b\n\tstr q23, [%1]"     \
                         : "+r"(i)                                                                           \
                         : "r"(last_sums)                                                                    \
                         : "cc", "memory", "w9", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", \
                           "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20",      \
                           "v21", "v22", "v23", "v30");                                                      \
        return (double)n * 24 * (operations);                                                                \
    }
static _Thread_local char last_sums[16];

REPEATED(fma_128, "", "fmov v30.4s, #1.0", "fmla", ".4s, v30.4s, v30.4s", 4 * 2)
REPEATED(long_i16, "", "movi v30.8h, #1", "smlal", ".4s, v30.4h, v30.4h", 4 * 2)
REPEATED(long_i8, "", "movi v30.16b, #1", "smlal", ".8h, v30.8b, v30.8b", 8 * 2)
REPEATED(dot_i8, "+dotprod", "movi v30.16b, #1", "sdot", ".4s, v30.16b, v30.16b", 16 * 2)
REPEATED(matrix_i8, "+i8mm", "movi v30.16b, #1", "smmla", ".4s, v30.16b, v30.16b", 32 * 2)
REPEATED(matrix_bf16, "+bf16", "mov w9, #0x3f80\n\tdup v30.8h, w9", "bfmmla", ".4s, v30.8h, v30.8h", 16 * 2)

/* An i16 meets an i8 as two bytes of its own: half as many products. */
static double dot_i16(int64_t n)
{
    return dot_i8(n) / 2;
}

static double matrix_i16(int64_t n)
{
    return matrix_i8(n) / 2;
}

static int has_neon(void)
{
    return 1;
}

/* By its bit in AT_HWCAP (0 ... 63) or AT_HWCAP2 (64 ...), and Apple's name. */
static int has_feature(int hwcap, const char *apple)
{
    (void)hwcap, (void)apple;
#if defined(__linux__)
    return (int)(getauxval(hwcap < 64 ? AT_HWCAP : AT_HWCAP2) >> hwcap % 64 & 1);
#elif defined(__APPLE__)
    int has = 0;
    size_t size = sizeof has;
    return !sysctlbyname(apple, &has, &size, NULL, 0) && has;
#else
    return 0;
#endif
}

static int has_dot(void)
{
    return has_feature(20, "hw.optional.arm.FEAT_DotProd");
}

static int has_i8mm(void)
{
    return has_feature(64 + 13, "hw.optional.arm.FEAT_I8MM");
}

static int has_bf16(void)
{
    return has_feature(64 + 14, "hw.optional.arm.FEAT_BF16");
}

static const struct kind kinds[] = {
    {"fma 128", has_neon, fma_128},     {"i16 long", has_neon, long_i16},
    {"i8 long", has_neon, long_i8},     {"i16 dot", has_dot, dot_i16},
    {"i8 dot", has_dot, dot_i8},        {"i16 matrix", has_i8mm, matrix_i16},
    {"i8 matrix", has_i8mm, matrix_i8}, {"bf16 matrix", has_bf16, matrix_bf16},
};
#endif
#if HAVE_KINDS
enum { KINDS = sizeof kinds / sizeof *kinds };
#endif

static double fma_rounds(int64_t n)
{
#if HAVE_AVX2_FORM
    if (has_avx2())
        return fma_avx2(n);
#elif HAVE_NEON_FORM
    return fma_128(n);
#endif
    return fma_generic(n);
}

static uint64_t read_once(const unsigned char *data, size_t bytes)
{
#if HAVE_AVX2_FORM
    if (has_avx2())
        return read_avx2(data, bytes);
#endif
    return read_generic(data, bytes);
}

/* One thread's share. `bytes` 0: the multiplying loop; else reads of a buffer of that size. */
struct job {
    atomic_int *missing; /* threads that are not ready: all start when none is */
    size_t bytes;
    double (*rounds)(int64_t n); /* operations done */
    double seconds;              /* at least this long */
    double done;                 /* operations or bytes */
    double begin, end;
    int failed;
};

static void *work(void *arg)
{
    struct job *job = arg;
    unsigned char *data = NULL;
    uint64_t bits = 0;
    if (job->bytes) {
        data = aligned_alloc(128, job->bytes);
        job->failed = data == NULL;
        if (data) {
            memset(data, 1, job->bytes);
            bits = read_once(data, job->bytes);
        }
    }
    atomic_fetch_sub(job->missing, 1);
    while (atomic_load(job->missing) > 0)
        sched_yield();
    job->begin = job->end = now();
    while (!job->failed && job->end - job->begin < job->seconds) {
        if (data) {
            size_t passes = ((size_t)1 << 20) / job->bytes + 1;
            for (size_t i = 0; i < passes; i++) {
                __asm__ volatile("" ::: "memory"); /* else one pass would do for all */
                bits ^= read_once(data, job->bytes) + i;
            }
            job->done += (double)job->bytes * (double)passes;
        } else {
            job->done += job->rounds(20000);
        }
        job->end = now();
    }
    sink_bits = bits;
    free(data);
    return NULL;
}

/* Runs the job on `threads` threads, this one among them. Returns operations or bytes a second,
 * or -1. */
static double measure(int threads, size_t bytes, double (*rounds)(int64_t), double seconds)
{
    struct job jobs[THREADS_MAX];
    pthread_t ids[THREADS_MAX];
    atomic_int missing = threads;
    if (threads < 1 || threads > THREADS_MAX)
        return -1;
    for (int i = 0; i < threads; i++)
        jobs[i] = (struct job){.missing = &missing, .bytes = bytes, .rounds = rounds, .seconds = seconds};
    for (int i = 1; i < threads; i++)
        if (pthread_create(&ids[i], NULL, work, &jobs[i]))
            abort(); /* the others wait for it: nothing sensible is left to do */
    work(&jobs[0]);
    double done = 0, begin = jobs[0].begin, end = jobs[0].end;
    int failed = jobs[0].failed;
    for (int i = 1; i < threads; i++)
        pthread_join(ids[i], NULL);
    for (int i = 0; i < threads; i++) {
        done += jobs[i].done;
        begin = jobs[i].begin < begin ? jobs[i].begin : begin;
        end = jobs[i].end > end ? jobs[i].end : end;
        failed |= jobs[i].failed;
    }
    return failed || end <= begin ? -1 : done / (end - begin);
}

/* Floating-point operations a second of a register-only multiply-add loop on `threads` threads,
 * over about `seconds`. */
double peak_fma(int threads, double seconds)
{
    return measure(threads, 0, fma_rounds, seconds);
}

/* The name of the n-th instruction that peak_of knows; NULL past the last. */
const char *peak_name(int n)
{
#if HAVE_KINDS
    return n >= 0 && n < KINDS ? kinds[n].name : NULL;
#else
    (void)n;
    return NULL;
#endif
}

/* Operations a second that an instruction can do, of the dtype that it multiplies (two a
 * product); 0 if this processor lacks it. */
double peak_of(const char *name, int threads, double seconds)
{
#if HAVE_KINDS
    for (int i = 0; i < KINDS; i++)
        if (!strcmp(kinds[i].name, name))
            return kinds[i].usable() ? measure(threads, 0, kinds[i].rounds, seconds) : 0;
#else
    (void)name, (void)threads, (void)seconds;
#endif
    return 0;
}

/* Bytes read a second, each thread over and over from a buffer of `bytes` (rounded up to 128)
 * of its own. */
double peak_read(int threads, int64_t bytes, double seconds)
{
    return bytes < 1 ? -1 : measure(threads, ((size_t)bytes + 127) / 128 * 128, NULL, seconds);
}

/* Calls run(context, problem, exec) `times` times. Returns seconds a call, or -1 as soon as a
 * call fails. */
double peak_repeat(int (*run)(const void *context, const void *problem, const void *exec),
                   const void *context, const void *problem, const void *exec, int64_t times)
{
    double begin = now();
    for (int64_t i = 0; i < times; i++)
        if (run(context, problem, exec))
            return -1;
    return times > 0 ? (now() - begin) / (double)times : -1;
}

#if defined(PEAK_MAIN) && HAVE_NEON_FORM
#include <stdio.h>

/* Products in the sums of a register of ones: f32, i16, or i32. */
static double products_in(const char *name)
{
    double sum = 0;
    float f[4];
    int32_t i[4];
    int16_t h[8];
    memcpy(f, last_sums, sizeof f);
    memcpy(i, last_sums, sizeof i);
    memcpy(h, last_sums, sizeof h);
    for (int n = 0; n < 8; n++)
        if (!strcmp(name, "i8 long"))
            sum += h[n];
        else if (n < 4)
            sum += *name == 'i' ? i[n] : (double)f[n];
    /* an i16 by an i8 is two products of bytes */
    return !strcmp(name, "i16 dot") || !strcmp(name, "i16 matrix") ? sum / 2 : sum;
}

int main(void)
{
    const int64_t n = 1000;
    unsigned char data[256];
    uint64_t bits = 0;
    for (int i = 0; i < 256; i++)
        data[i] = (unsigned char)(i * i * 7);
    for (int i = 0; i < 256; i++)
        bits ^= (uint64_t)data[i] << i % 8 * 8;
    int wrong = read_once(data, 256) != bits;
    for (int i = 0; i < KINDS; i++) {
        if (!kinds[i].usable()) {
            printf("%s: this processor lacks it\n", kinds[i].name);
            continue;
        }
        double products = kinds[i].rounds(n) / 24 / 2;
        wrong += products != products_in(kinds[i].name);
        printf("%s: %.0f products an instruction, %.0f found\n", kinds[i].name, products / n,
               products_in(kinds[i].name) / n);
    }
    wrong += measure(2, 0, fma_rounds, 0.001) <= 0;
    printf("%d wrong\n", wrong);
    return wrong ? 1 : 0;
}
#endif
