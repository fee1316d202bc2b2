/* Tokens as 8-bit numbers with a scale: one pass over the tokens, on the CPU's threads, with no
 * copy but a block of rows a thread. Rows are read as f32 where they lie, or decoded into the
 * block by the library. */
#include "entries.h"
#include "run.h"
#include "threads.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_FLOATS 8192 /* of a block: 32 KiB */

enum kind { TO_I8, TO_E4M3, TO_E5M2 };
static const float most_of[] = {127.0F, 448.0F, 57344.0F};
static const float least_of[] = {1e-12F, 1e-6F, 1e-6F}; /* of a token's largest element */

struct job {
    const struct lik_context *ctx;
    struct lik_tokens x; /* padded, not normalized */
    int64_t rows, block; /* rows a task takes */
    enum kind kind;
    int normalize;
    float scale;     /* of all tokens; 0: one a token, found here */
    uint8_t *values; /* NULL: only the largest is wanted */
    float *scales;
    atomic_int largest; /* bits of the largest |element| of all */
    atomic_int status;
};

static int32_t bits_of(float x)
{
    int32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static float float_of(int32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* Bits of the largest |element|: as integers they are in the order of the numbers, NaN last. */
static int32_t largest_of(const float *x, int64_t n)
{
    int32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t bits = bits_of(x[i]) & INT32_MAX;
        most = bits > most ? bits : most;
    }
    return most;
}

/* To the nearest, ties to even: adding 1.5 * 2^23 leaves the integer in the lowest bits. */
static uint8_t as_i8(float v)
{
    return (uint8_t)bits_of(v + 12582912.0F);
}

/* To the nearest, ties to even; |v| is at most the largest number. `shift` are the bits of the
 * mantissa that go, `lowest` the smallest normal number, `magic` a number whose last bit is the
 * smallest subnormal one, `rebias` the difference of the exponents' biases, in place. */
static inline uint8_t as_float8(float v, int shift, float lowest, float magic, int32_t rebias)
{
    int32_t bits = bits_of(v), magnitude = bits & INT32_MAX;
    int32_t rounded = magnitude + (1 << (shift - 1)) - 1 + ((magnitude >> shift) & 1);
    int32_t normal = (rounded >> shift) - rebias;
    int32_t subnormal = bits_of(float_of(magnitude) + magic) - bits_of(magic);
    int32_t code = float_of(magnitude) < lowest ? subnormal : normal;
    return (uint8_t)(code | (int32_t)((uint32_t)bits >> 24 & 0x80));
}

static uint8_t as_e4m3(float v)
{
    return as_float8(v, 20, 0x1p-6F, 0x1p14F, (127 - 7) << 3);
}

static uint8_t as_e5m2(float v)
{
    return as_float8(v, 21, 0x1p-14F, 0x1p7F, (127 - 15) << 2);
}

#define ROW(name, convert)                                                                \
    static void name(uint8_t *values, const float *x, int64_t n, float scale, float most) \
    {                                                                                     \
        for (int64_t i = 0; i < n; i++) {                                                 \
            float v = x[i] / scale;                                                       \
            v = v > most ? most : v;                                                      \
            values[i] = convert(v < -most ? -most : v);                                   \
        }                                                                                 \
    }
ROW(row_i8, as_i8)
ROW(row_e4m3, as_e4m3)
ROW(row_e5m2, as_e5m2)

/* A row that holds NaN or an infinity: NaN stays one, as int8 it is 0. */
static void row_odd(enum kind kind, uint8_t *values, const float *x, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] / scale;
        if (v != v)
            values[i] = kind == TO_I8 ? 0 : 0x7f;
        else
            (kind == TO_I8     ? row_i8
             : kind == TO_E4M3 ? row_e4m3
                               : row_e5m2)(values + i, x + i, 1, scale, most_of[kind]);
    }
}

/* The length of x / scale, whose squares neither overflow nor vanish. */
static float length_of(const float *x, int64_t n, float scale)
{
    float sums[8] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) {
            float v = x[i + k] / scale;
            sums[k] += v * v;
        }
    for (; i < n; i++) {
        float v = x[i] / scale;
        sums[0] += v * v;
    }
    for (int k = 0; k < 8; k++)
        sum += sums[k];
    return sqrtf(sum);
}

static void take_row(struct job *job, const float *x, int64_t row)
{
    int64_t dim = job->x.dim;
    int32_t most = job->scale == 0 ? largest_of(x, dim) : 0;
    if (!job->values) {
        int32_t seen = atomic_load_explicit(&job->largest, memory_order_relaxed);
        while (most > seen && !atomic_compare_exchange_weak(&job->largest, &seen, most))
            ;
        return;
    }
    float largest = float_of(most), scale = job->scale;
    if (scale == 0) {
        float least = least_of[job->kind];
        scale = (largest < least ? least : largest) / most_of[job->kind];
    }
    uint8_t *values = job->values + row * dim;
    if (most >= 0x7f800000 || !isfinite(scale))
        row_odd(job->kind, values, x, dim, scale);
    else
        (job->kind == TO_I8     ? row_i8
         : job->kind == TO_E4M3 ? row_e4m3
                                : row_e5m2)(values, x, dim, scale, most_of[job->kind]);
    if (!job->scales)
        return;
    if (job->normalize) {
        float length = length_of(x, dim, scale); /* of the token: length * scale */
        scale = length * scale < 1e-12F ? scale / 1e-12F : 1 / length;
    }
    job->scales[row] = scale;
}

/* `count` rows from `row` on, which lie in one sequence. */
static int take_rows(struct job *job, float *block, int64_t row, int64_t count)
{
    const struct lik_tokens *x = &job->x;
    int64_t i = row / x->len_max, t = row % x->len_max;
    int64_t at = t * x->strides.token + (x->group_size ? (i / x->group_size) * x->strides.group +
                                                             (i % x->group_size) * x->strides.sequence
                                                       : i * x->strides.sequence);
    struct lik_tokens part = *x;
    part.count = 1;
    part.len_max = count;
    part.group_size = 0;
    part.data = (const char *)x->data + at * (int64_t)lik_dtype_bytes(x->dtype);
    if (x->dtype == LIK_F32 && x->dim_stride == 1) {
        for (int64_t r = 0; r < count; r++)
            take_row(job, (const float *)part.data + r * x->strides.token, row + r);
        return LIK_OK;
    }
    struct lik_decode op = {.struct_size = sizeof op, .x = part, .out_dtype = LIK_F32, .out = block};
    int status = lik_decode_run(job->ctx, &op, NULL);
    for (int64_t r = 0; r < count && !status; r++)
        take_row(job, block + r * x->dim, row + r);
    return status;
}

static void take_block(void *arg, int64_t n)
{
    struct job *job = arg;
    int64_t row = n * job->block, end = row + job->block < job->rows ? row + job->block : job->rows;
    int64_t most = BLOCK_FLOATS / job->x.dim > 0 ? BLOCK_FLOATS / job->x.dim : 1;
    float *block = malloc((size_t)(most * job->x.dim) * sizeof *block);
    int status = block ? LIK_OK : LIK_ENOMEM;
    while (row < end && !status) {
        int64_t left = job->x.len_max - row % job->x.len_max, count = most < left ? most : left;
        count = count < end - row ? count : end - row;
        status = take_rows(job, block, row, count);
        row += count;
    }
    if (status)
        atomic_store(&job->status, status);
    free(block);
}

/* Sequences that follow one another without a gap are one. */
static void join_sequences(struct lik_tokens *x)
{
    int64_t apart = x->len_max * x->strides.token;
    int together = x->count <= 1 || x->strides.sequence == apart;
    if (x->group_size && x->count > x->group_size)
        together = together && x->strides.group == x->group_size * x->strides.sequence;
    if (!together)
        return;
    x->len_max *= x->count;
    x->count = 1;
    x->group_size = 0;
}

/* quantize(*fields, kind, normalize, one, values, scales): the documents of the fields as int8
 * (kind 0), e4m3 (1) or e5m2 (2), one byte an element; scales f32, one a token, or if `one` the
 * one of all. */
PyObject *native_quantize(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    struct job job = {0};
    if (expect_arguments("quantize", n, FIELDS + 5))
        return NULL;
    long kind = PyLong_AsLong(args[FIELDS]);
    int one = args[FIELDS + 2] == Py_True;
    if (PyErr_Occurred() || kind < TO_I8 || kind > TO_E5M2 || documents_read(&p, args, LIK_F32))
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "kind is %ld, must be 0 to 2", kind);
    job.kind = (enum kind)kind;
    job.normalize = args[FIELDS + 1] == Py_True;
    job.ctx = run_context(-1);
    job.x = p.op.d;
    job.rows = job.x.count * job.x.len_max;
    int failed = !job.ctx || p.device >= 0 ||
                 output_read(&p, 0, args[FIELDS + 3], "values", 0, job.rows * job.x.dim) ||
                 output_read(&p, 1, args[FIELDS + 4], "scales", LIK_F32, one ? 1 : job.rows);
    if (failed && !PyErr_Occurred())
        PyErr_SetString(PyExc_NotImplementedError, "tokens are quantized in host memory alone");
    if (!failed && job.rows && job.x.dim) {
        join_sequences(&job.x);
        job.block = 4 * BLOCK_FLOATS / job.x.dim + 1;
        int64_t tasks = (job.rows + job.block - 1) / job.block;
        if (one) {
            failed = run_parallel(tasks, take_block, &job);
            float largest = float_of(atomic_load(&job.largest)), least = least_of[kind];
            job.scale = (largest < least ? least : largest) / most_of[kind];
            *(float *)p.out[1].data = job.scale;
        } else {
            job.scales = p.out[1].data;
        }
        job.values = p.out[0].data;
        failed = failed || run_parallel(tasks, take_block, &job);
        if (!failed && atomic_load(&job.status))
            failed = run_raise(atomic_load(&job.status));
    }
    problem_release(&p);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}
