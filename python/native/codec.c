/* What makes and reads other storages: compressed tokens are decoded, encoded, a codec is
 * trained, and tokens are quantized to 8-bit numbers. Each takes a problem's fields, whose q is
 * None and whose documents are the tokens, then what else it needs. */
#include "entries.h"
#include "problem.h"
#include "run.h"

static PyObject *finish(struct problem *p, int failed)
{
    problem_release(p);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static int64_t rows_of(const struct lik_tokens *t)
{
    return t->offsets ? t->total : t->count * t->len_max;
}

/* decode(*fields, out): out is f32, f16 or bf16 [..., d]; to its dtype tokens are decoded. */
PyObject *native_decode(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    struct view out = {0};
    if (expect_arguments("decode", n, FIELDS + 1) || view_read(&out, args[FIELDS], "out", 1))
        return NULL;
    int32_t dtype = out.dtype;
    view_release(&out);
    if (documents_read(&p, args, dtype))
        return NULL;
    int64_t count = rows_of(&p.op.d) * p.op.d.dim;
    int failed = output_read(&p, 0, args[FIELDS], "out", dtype, count);
    if (!failed) {
        struct lik_decode op = {
            .struct_size = sizeof op, .x = p.op.d, .out_dtype = dtype, .out = p.out[0].data};
        failed = run_operation(RUN_DECODE, &op, p.device, (double)count);
    }
    return finish(&p, failed);
}

/* encode(*fields, cutoffs or None, codes, residuals or None, inv_norms or None): the fields
 * have the codec, but no codes. */
PyObject *native_encode(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    if (expect_arguments("encode", n, FIELDS + 4) || documents_read(&p, args, LIK_F32))
        return NULL;
    int64_t rows = rows_of(&p.op.d), dim = p.op.d.dim;
    int failed =
        result_read(&p, 0, args[FIELDS], "cutoffs", LIK_F32, ((int64_t)1 << p.codec.bits) - 1, 0) ||
        output_read(&p, 1, args[FIELDS + 1], "codes", 0, rows) ||
        output_read(&p, 2, args[FIELDS + 2], "residuals", VIEW_U8, rows * ((dim * p.codec.bits + 7) / 8)) ||
        output_read(&p, 3, args[FIELDS + 3], "inv_norms", 0, rows);
    if (!failed) {
        struct lik_encode op = {
            .struct_size = sizeof op,
            .x = p.op.d,
            .codec = &p.codec,
            .cutoffs = p.out[0].data,
            .precision = p.op.precision,
            .codes_dtype = p.out[1].dtype == VIEW_U16 ? LIK_I16 : p.out[1].dtype,
            .codes = p.out[1].data,
            .residuals = p.out[2].data,
            .inv_norms = p.out[3].data,
            .inv_norms_dtype = p.out[3].dtype,
        };
        failed = run_operation(RUN_ENCODE, &op, p.device,
                               (double)rows * (double)p.codec.centroid_count * (double)dim);
    }
    return finish(&p, failed);
}

/* train(*fields, points_per_centroid, iterations, bits, seed, centroids, cutoffs or None,
 * weights or None): 0 points or iterations are a default. */
PyObject *native_train(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    if (expect_arguments("train", n, FIELDS + 7))
        return NULL;
    struct lik_train op = {.struct_size = sizeof op};
    op.points_per_centroid = PyLong_AsLongLong(args[FIELDS]);
    op.iterations = (int32_t)PyLong_AsLong(args[FIELDS + 1]);
    op.bits = (int32_t)PyLong_AsLong(args[FIELDS + 2]);
    op.seed = PyLong_AsUnsignedLongLong(args[FIELDS + 3]);
    if (PyErr_Occurred() || documents_read(&p, args, LIK_F32))
        return NULL;
    int64_t buckets = (int64_t)1 << (op.bits < 0 || op.bits > 8 ? 0 : op.bits);
    int failed = view_read(&p.out[0], args[FIELDS + 4], "centroids", 1);
    if (!failed && (p.out[0].ndim != 2 || p.out[0].shape[1] != p.op.d.dim || p.out[0].dtype != LIK_F32 ||
                    !view_is_contiguous(&p.out[0]) || p.out[0].device != p.device)) {
        PyErr_SetString(PyExc_ValueError, "centroids must be contiguous float32 [centroids, d] on the device "
                                          "of the tokens");
        failed = -1;
    }
    if (!failed)
        failed = output_read(&p, 1, args[FIELDS + 5], "cutoffs", LIK_F32, buckets - 1) ||
                 output_read(&p, 2, args[FIELDS + 6], "weights", LIK_F32, buckets);
    if (!failed) {
        op.x = p.op.d;
        op.centroid_count = p.out[0].shape[0];
        op.precision = p.op.precision;
        op.centroids = p.out[0].data;
        op.cutoffs = p.out[1].data;
        op.weights = p.out[2].data;
        failed = run_operation(RUN_TRAIN, &op, p.device,
                               (double)rows_of(&op.x) * (double)op.centroid_count * (double)op.x.dim);
    }
    return finish(&p, failed);
}

/* quantize(*fields, kind, one, values, scales): values are i8 (kind 0), e4m3 (1) or e5m2 (2)
 * [..., d], given as any bytes; scales f32, one a token, or if `one` the one of all. */
PyObject *native_quantize(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    static const int32_t dtypes[] = {LIK_I8, LIK_E4M3, LIK_E5M2};
    struct problem p;
    if (expect_arguments("quantize", n, FIELDS + 4))
        return NULL;
    long kind = PyLong_AsLong(args[FIELDS]);
    int one = args[FIELDS + 1] == Py_True;
    if (PyErr_Occurred() || kind < 0 || kind > 2 || documents_read(&p, args, LIK_F32))
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "kind is %ld, must be 0 to 2", kind);
    int64_t rows = rows_of(&p.op.d), count = rows * p.op.d.dim;
    int failed = output_read(&p, 0, args[FIELDS + 2], "values", 0, count) ||
                 output_read(&p, 1, args[FIELDS + 3], "scales", LIK_F32, one ? 1 : rows);
    if (!failed) {
        struct lik_quantize op = {.struct_size = sizeof op,
                                  .x = p.op.d,
                                  .values_dtype = dtypes[kind],
                                  .one_scale = one,
                                  .values = p.out[0].data,
                                  .scales = p.out[1].data};
        failed = run_operation(RUN_QUANTIZE, &op, p.device, (double)count * 16);
    }
    return finish(&p, failed);
}
