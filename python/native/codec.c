/* PLAID tokens to vectors: x = centroid[code] + what the residual bytes say.
 *
 * A byte holds 8 / nbits features, so one lookup of 256 rows gives them all at once; the bit
 * order is a property of that table and costs nothing here. */
#include "entries.h"
#include "threads.h"

#include <string.h>

#define BLOCK 64 /* tokens a task */

struct decode {
    const void *codes;
    int codes_are_i64;
    const uint8_t *residuals;
    const float *centroids, *table;
    float *out;
    int64_t n, bytes, dim, per_byte;
};

static int64_t code_at(const struct decode *job, int64_t i)
{
    return job->codes_are_i64 ? ((const int64_t *)job->codes)[i] : ((const int32_t *)job->codes)[i];
}

/* `per_byte` is a constant at every call, so that the inner loop is straight vector code. */
static inline void decode_with(const struct decode *job, int64_t i, int64_t per_byte)
{
    const uint8_t *residual = job->residuals + i * job->bytes;
    const float *centroid = job->centroids + code_at(job, i) * job->dim;
    float *out = job->out + i * job->dim;
    int64_t whole = job->dim / per_byte;
    for (int64_t b = 0; b < whole; b++)
        for (int64_t j = 0; j < per_byte; j++)
            out[b * per_byte + j] = centroid[b * per_byte + j] + job->table[residual[b] * per_byte + j];
    for (int64_t f = whole * per_byte; f < job->dim; f++)
        out[f] = centroid[f] + job->table[residual[whole] * per_byte + f % per_byte];
}

static void decode_token(const struct decode *job, int64_t i)
{
    switch (job->per_byte) {
    case 1: decode_with(job, i, 1); break;
    case 2: decode_with(job, i, 2); break;
    case 4: decode_with(job, i, 4); break;
    default: decode_with(job, i, job->per_byte); break;
    }
}

static void decode_block(void *arg, int64_t block)
{
    const struct decode *job = arg;
    int64_t end = (block + 1) * BLOCK < job->n ? (block + 1) * BLOCK : job->n;
    for (int64_t i = block * BLOCK; i < end; i++)
        decode_token(job, i);
}

static int check_codes(const struct decode *job, int64_t centroids)
{
    for (int64_t i = 0; i < job->n; i++) {
        int64_t code = code_at(job, i);
        if (code < 0 || code >= centroids) {
            PyErr_Format(PyExc_ValueError, "codes hold %lld, must be 0 to %lld", (long long)code,
                         (long long)(centroids - 1));
            return -1;
        }
    }
    return 0;
}

static int check_shapes(const struct view *v)
{
    static const char *const names[] = {"codes", "residuals", "centroids", "table", "out"};
    static const int ndims[] = {1, 2, 2, 2, 2};
    static const int32_t dtypes[] = {0, VIEW_U8, LIK_F32, LIK_F32, LIK_F32};
    for (int i = 0; i < 5; i++)
        if (v[i].ndim != ndims[i] || !view_is_contiguous(&v[i]) || v[i].device != -1 ||
            (dtypes[i] && v[i].dtype != dtypes[i])) {
            PyErr_Format(PyExc_ValueError, "%s has the wrong rank, dtype or layout", names[i]);
            return -1;
        }
    if ((v[0].dtype != LIK_I32 && v[0].dtype != LIK_I64) || v[1].shape[0] != v[0].shape[0] ||
        v[3].shape[0] != 256 || v[4].shape[0] != v[0].shape[0] || v[4].shape[1] != v[2].shape[1] ||
        v[1].shape[1] * v[3].shape[1] < v[2].shape[1]) {
        PyErr_SetString(PyExc_ValueError, "codes, residuals, centroids, table and out do not fit together");
        return -1;
    }
    return 0;
}

/* decode_residuals(codes, residuals, centroids, table, out): compressed tokens to f32 vectors.
 *
 * codes [n] int32 or int64, residuals [n, bytes] uint8, centroids [K, dim] f32, table [256,
 * per_byte] f32 (what each residual byte adds to its per_byte features, in whichever bit order
 * the caller built it), out [n, dim] f32, all contiguous and on the CPU. Codes outside 0 ... K
 * - 1 are a ValueError. */
PyObject *native_decode_residuals(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    if (n != 5) {
        PyErr_Format(PyExc_TypeError, "decode_residuals() takes 5 arguments, got %zd", n);
        return NULL;
    }
    struct view v[5];
    memset(v, 0, sizeof v);
    PyObject *objects[] = {args[0], args[1], args[2], args[3], args[4]};
    int failed = 0;
    for (int i = 0; i < 5 && !failed; i++)
        failed = view_read(&v[i], objects[i], "argument of decode_residuals()", i == 4);
    if (!failed)
        failed = check_shapes(v);
    struct decode job = {
        .codes = v[0].data,
        .codes_are_i64 = v[0].dtype == LIK_I64,
        .residuals = v[1].data,
        .centroids = v[2].data,
        .table = v[3].data,
        .out = v[4].data,
        .n = v[0].shape[0],
        .bytes = v[1].shape[1],
        .dim = v[2].shape[1],
        .per_byte = v[3].shape[1],
    };
    if (!failed)
        failed = check_codes(&job, v[2].shape[0]);
    if (!failed)
        failed = run_parallel((job.n + BLOCK - 1) / BLOCK, decode_block, &job);
    for (int i = 0; i < 5; i++)
        view_release(&v[i]);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}
