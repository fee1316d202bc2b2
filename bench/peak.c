/* The limits of this machine, measured in the run they are quoted in: multiply-adds a second in
 * registers alone, and bytes read a second from a buffer of a given size. And a loop that
 * repeats a library call, so that calls of a few microseconds are timed without the caller's
 * language.
 *
 * Each function has an AVX2 form, taken when the processor has it, and a generic form in the
 * compiler's own vectors. The accumulators start from different values that the compiler cannot
 * see: from equal ones it kept a single accumulator and the loop reported half as much again as
 * the processor can do. Threads start together behind a barrier, each with its own registers
 * and its own buffer; the time is from the first start to the last end. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__) || defined(__i386__)
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

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
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

/* One thread's share. `bytes` 0: the FMA loop; else reads of a buffer of that size. */
struct job {
    pthread_barrier_t *barrier;
    size_t bytes;
    double seconds; /* at least this long */
    double done;    /* operations or bytes */
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
            job->done += fma_rounds(20000);
        }
        job->end = now();
    }
    sink_bits = bits;
    free(data);
    return NULL;
}

/* Runs the job on `threads` threads, this one among them. Returns operations or bytes a second,
 * or -1. */
static double measure(int threads, size_t bytes, double seconds)
{
    struct job jobs[THREADS_MAX];
    pthread_t ids[THREADS_MAX];
    pthread_barrier_t barrier;
    if (threads < 1 || threads > THREADS_MAX || pthread_barrier_init(&barrier, NULL, (unsigned)threads))
        return -1;
    for (int i = 0; i < threads; i++)
        jobs[i] = (struct job){.barrier = &barrier, .bytes = bytes, .seconds = seconds};
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
    return measure(threads, 0, seconds);
}

/* Bytes read a second, each thread over and over from a buffer of `bytes` (rounded up to 128)
 * of its own. */
double peak_read(int threads, int64_t bytes, double seconds)
{
    return bytes < 1 ? -1 : measure(threads, ((size_t)bytes + 127) / 128 * 128, seconds);
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
