/* The limits of this machine, measured in the run they are quoted in: multiply-adds a second in
 * registers alone, and bytes read a second from a buffer of a given size. And a loop that
 * repeats a library call, so that calls of a few microseconds are timed without the caller's
 * language.
 *
 * Each function has an AVX2 form, taken when the processor has it, and a generic form in the
 * compiler's own vectors. The accumulators start from different values that the compiler cannot
 * see: from equal ones it kept a single accumulator and the loop reported half as much again as
 * the processor can do. Beside them stands what single instructions can do, peak_of. Threads
 * start together behind a barrier, each with its own registers and its own buffer; the time is
 * from the first start to the last end. */
#include <pthread.h>
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

enum { ACCUMULATORS = 12, THREADS_MAX = 256 };

typedef float vec4 __attribute__((vector_size(16)));

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

/* Which form runs: "avx2" or "generic". */
const char *peak_level(void)
{
    return has_avx2() ? "avx2" : "generic";
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
    uint64_t a = 0, b = 0, c = 0, d = 0, words[4];
    for (size_t i = 0; i < bytes; i += 32) {
        memcpy(words, data + i, 32);
        a ^= words[0];
        b ^= words[1];
        c ^= words[2];
        d ^= words[3];
    }
    return a ^ b ^ c ^ d;
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

static const struct kind {
    const char *name;
    int (*usable)(void);
    double (*rounds)(int64_t n); /* operations done */
} kinds[] = {{"fma 256", has_avx2, fma_256},       {"fma 512", has_512, fma_512},
             {"bf16 dot", has_bf16, dot_bf16},     {"i8 dot", has_vnni, dot_i8},
             {"i16 dot", has_vnni, dot_i16},       {"i8 dot 256", has_avx_vnni, dot_i8_256},
             {"amx bf16", has_amx_bf16, amx_bf16}, {"amx i8", has_amx_i8, amx_i8}};
enum { KINDS = sizeof kinds / sizeof *kinds };
#endif

static double fma_rounds(int64_t n)
{
#if HAVE_AVX2_FORM
    if (has_avx2())
        return fma_avx2(n);
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
    pthread_barrier_t *barrier;
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
    pthread_barrier_wait(job->barrier);
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
    pthread_barrier_t barrier;
    if (threads < 1 || threads > THREADS_MAX || pthread_barrier_init(&barrier, NULL, (unsigned)threads))
        return -1;
    for (int i = 0; i < threads; i++)
        jobs[i] = (struct job){.barrier = &barrier, .bytes = bytes, .rounds = rounds, .seconds = seconds};
    for (int i = 1; i < threads; i++)
        if (pthread_create(&ids[i], NULL, work, &jobs[i]))
            abort(); /* the others wait at the barrier: nothing sensible is left to do */
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
    pthread_barrier_destroy(&barrier);
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
#if HAVE_AVX2_FORM
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
#if HAVE_AVX2_FORM
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
