/* _native: the C library's operations for Python, one call each.
 *
 * score(), topk() and grad() take a problem as its 16 fields in the order of `enum field` (the
 * Python side's Problem tuple) followed by the arrays to write. maxsim() and best() are the
 * short way for the commonest calls: they read the fields as the user gave them, allocate the
 * results, and answer None for whatever is not plain (tracing, wrong shapes or values, other
 * dtypes); the Python side then takes the long way, which also words the errors. */
#include "codec.h"
#include "run.h"

#include <string.h>

enum field {
    Q,
    D,
    Q_MASK,
    D_MASK,
    Q_WEIGHTS,
    Q_SCALE,
    D_SCALE,
    Q_OFFSETS,
    D_OFFSETS,
    LIST_Q,
    LIST_D,
    TENSORS,
    PAIRING = TENSORS,
    NORMALIZE,
    PRECISION,
    LEN_Q,
    LEN_D,
    FIELDS
};

static const char *const field_names[FIELDS] = {
    "q",         "d",      "q_mask", "d_mask",  "q_weights", "q_scale",   "d_scale", "q_offsets",
    "d_offsets", "list_q", "list_d", "pairing", "normalize", "precision", "len_q",   "len_d",
};

#define OUTPUTS_MAX 4

struct problem {
    struct view in[TENSORS];
    struct view out[OUTPUTS_MAX];
    struct lik_score op;
    int32_t device;
    double work;
};

/* What the Python side registered, for the life of the process. */
static struct {
    PyObject *tensor, *parameter; /* types */
    /* callables: is_grad_enabled, functorch active, dispatch modes */
    PyObject *grad_enabled, *transformed, *modes;
    PyObject *precision; /* callable: lik_precision that the user has set */
    PyObject *traced;    /* callable: is torch.jit.trace at work? */
    /* the module whose _current_level is -1 without dual numbers */
    PyObject *forward_ad;
    PyObject *requires_grad, *current_level; /* names of attributes */
    /* apply of the autograd.Function that gives scores their history */
    PyObject *train;
    PyObject *array, *array_empty, *array_dtype; /* numpy.ndarray, numpy.empty, numpy.float32 */
} known;

static void problem_release(struct problem *p)
{
    for (int i = 0; i < TENSORS; i++)
        view_release(&p->in[i]);
    for (int i = 0; i < OUTPUTS_MAX; i++)
        view_release(&p->out[i]);
}

static int refuse(const char *format, const char *name, long long got, long long want)
{
    PyErr_Format(PyExc_ValueError, format, name, got, want);
    return -1;
}

/* Strides of a view whose last `used` axes are [.. sequence, token]. */
static struct lik_strides strides_of(const struct view *v, int axes)
{
    struct lik_strides s = {0};
    if (axes >= 1)
        s.token = v->strides[axes - 1];
    if (axes >= 2)
        s.sequence = v->strides[axes - 2];
    if (axes >= 3)
        s.group = v->strides[axes - 3];
    return s;
}

/* A per-token array: the operand's shape without its last axis. */
static int check_per_token(const struct view *x, const struct view *v, const char *name)
{
    if (v->ndim != x->ndim - 1)
        return refuse("%s has %lld dimensions, must have %lld", name, v->ndim, x->ndim - 1);
    for (int i = 0; i < v->ndim; i++)
        if (v->shape[i] != x->shape[i])
            return refuse("%s has the wrong shape: %lld entries where the tokens have %lld", name,
                          v->shape[i], x->shape[i]);
    return 0;
}

static int check_dtype(const struct view *v, const char *name, int32_t want, const char *said)
{
    if (v->dtype == want)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s must be %s", name, said);
    return -1;
}

static int fill_offsets(struct lik_tokens *t, const struct view *x, const struct view *offsets,
                        const char *name, int64_t len_max)
{
    if (x->ndim != 2)
        return refuse("packed tokens of %s have %lld dimensions, must have %lld", name, x->ndim, 2);
    if (offsets->ndim != 1 || offsets->shape[0] < 1 || !view_is_contiguous(offsets)) {
        PyErr_Format(PyExc_ValueError, "%s must be one contiguous row of at least one offset", name);
        return -1;
    }
    if (offsets->dtype != LIK_I32 && offsets->dtype != LIK_I64) {
        PyErr_Format(PyExc_TypeError, "%s must be int32 or int64", name);
        return -1;
    }
    t->offsets = offsets->data;
    t->offsets_dtype = offsets->dtype;
    t->count = offsets->shape[0] - 1;
    t->total = x->shape[0];
    t->len_max = len_max;
    return 0;
}

/* The operand of views x (tokens), mask, scale, weights, offsets; side = Q or D. */
static int fill_tokens(struct problem *p, struct lik_tokens *t, int side, int64_t len_max)
{
    const struct view *x = &p->in[side], *mask = &p->in[Q_MASK + side], *scale = &p->in[Q_SCALE + side];
    const struct view *offsets = &p->in[Q_OFFSETS + side], *weights = side == Q ? &p->in[Q_WEIGHTS] : NULL;
    const char *name = field_names[side];
    t->struct_size = sizeof *t;
    if (!x->present || x->ndim < 2 || (side == Q && x->ndim > 3))
        return refuse("%s has %lld dimensions, must have at least %lld", name, x->ndim, 2);
    if (x->dtype > LIK_I8) {
        PyErr_Format(PyExc_TypeError,
                     "%s must be float32, float16, bfloat16, float8_e4m3fn, float8_e5m2 or int8", name);
        return -1;
    }
    t->dtype = x->dtype;
    t->data = x->data;
    t->dim = x->shape[x->ndim - 1];
    t->dim_stride = t->dim == 1 ? 1 : x->strides[x->ndim - 1];
    t->strides = strides_of(x, x->ndim - 1);
    if (offsets->present) {
        if (fill_offsets(t, x, offsets, field_names[Q_OFFSETS + side], len_max))
            return -1;
    } else {
        t->len_max = x->shape[x->ndim - 2];
        t->count = x->ndim == 2 ? 1 : x->ndim == 3 ? x->shape[0] : x->shape[0] * x->shape[1];
        t->group_size = x->ndim == 4 ? x->shape[1] : 0;
    }
    if (mask->present) {
        if (check_per_token(x, mask, field_names[Q_MASK + side]) ||
            check_dtype(mask, field_names[Q_MASK + side], VIEW_BOOL, "bool"))
            return -1;
        t->mask = mask->data;
        t->mask_strides = strides_of(mask, mask->ndim);
    }
    if (scale->present) {
        if ((scale->ndim > 0 && check_per_token(x, scale, field_names[Q_SCALE + side])) ||
            check_dtype(scale, field_names[Q_SCALE + side], LIK_F32, "float32"))
            return -1;
        t->scale = scale->data;
        t->scale_strides = strides_of(scale, scale->ndim);
    }
    if (weights && weights->present) {
        if (check_per_token(x, weights, "q_weights") || check_dtype(weights, "q_weights", LIK_F32, "float32"))
            return -1;
        t->weights = weights->data;
        t->weights_strides = strides_of(weights, weights->ndim);
    }
    return 0;
}

static int fill_list(struct problem *p)
{
    const struct view *lq = &p->in[LIST_Q], *ld = &p->in[LIST_D];
    for (int i = LIST_Q; i <= LIST_D; i++) {
        const struct view *v = &p->in[i];
        if (!v->present || v->ndim != 1 || !view_is_contiguous(v) || v->dtype != LIK_I64) {
            PyErr_Format(PyExc_ValueError, "%s must be one contiguous row of int64", field_names[i]);
            return -1;
        }
    }
    if (lq->shape[0] != ld->shape[0])
        return refuse("%s has %lld entries, list_q has %lld", "list_d", ld->shape[0], lq->shape[0]);
    p->op.list_q = lq->data;
    p->op.list_d = ld->data;
    p->op.list_count = lq->shape[0];
    return 0;
}

/* Everything present must be on one device. */
static int check_devices(struct problem *p)
{
    p->device = p->in[Q].device;
    for (int i = 0; i < TENSORS; i++)
        if (p->in[i].present && p->in[i].device != p->device)
            return refuse("%s is on device %lld, q is on device %lld (-1 is the CPU)", field_names[i],
                          p->in[i].device, p->device);
    return 0;
}

/* The operation from the views in p->in. normalize: 1 = queries, 2 = documents, 3 = both. */
static int problem_fill(struct problem *p, int32_t pairing, int64_t normalize, int32_t precision,
                        int64_t len_q, int64_t len_d)
{
    struct lik_score *op = &p->op;
    memset(op, 0, sizeof *op);
    op->struct_size = sizeof *op;
    if (check_devices(p) || fill_tokens(p, &op->q, Q, len_q) || fill_tokens(p, &op->d, D, len_d))
        return -1;
    op->pairing = pairing;
    op->precision = precision < 0 ? LIK_HIGHEST : precision;
    op->q.normalize = (normalize & 1) != 0;
    op->d.normalize = (normalize & 2) != 0;
    if (pairing == LIK_CANDIDATES) {
        if (p->in[D].ndim != 4 || p->in[D].shape[0] != op->q.count)
            return refuse("%s has %lld query groups, q has %lld queries", "d", p->in[D].shape[0],
                          op->q.count);
        op->per_query = p->in[D].shape[1];
    }
    if (pairing == LIK_LIST && fill_list(p))
        return -1;
    double scores = pairing == LIK_ALL    ? (double)op->q.count * (double)op->d.count
                    : pairing == LIK_LIST ? (double)op->list_count
                                          : (double)op->d.count;
    p->work = scores * (double)op->q.len_max * (double)op->d.len_max * (double)op->q.dim;
    return 0;
}

/* Scores the problem writes. */
static int64_t problem_scores(const struct problem *p)
{
    switch (p->op.pairing) {
    case LIK_ALL: return p->op.q.count * p->op.d.count;
    case LIK_LIST: return p->op.list_count;
    case LIK_PAIRS: return p->op.q.count;
    default: return p->op.d.count;
    }
}

/* The first FIELDS arguments into p. On failure p holds nothing. */
static int problem_read(struct problem *p, PyObject *const *args)
{
    memset(p, 0, sizeof *p);
    for (int i = 0; i < TENSORS; i++)
        if (view_read(&p->in[i], args[i], field_names[i], 0))
            goto out_release;
    int64_t numbers[FIELDS];
    for (int i = PAIRING; i < FIELDS; i++) {
        numbers[i] = PyLong_AsLongLong(args[i]);
        if (PyErr_Occurred())
            goto out_release;
    }
    if (problem_fill(p, (int32_t)numbers[PAIRING], numbers[NORMALIZE], (int32_t)numbers[PRECISION],
                     numbers[LEN_Q], numbers[LEN_D]))
        goto out_release;
    return 0;
out_release:
    problem_release(p);
    return -1;
}

/* An array of results: contiguous, of `count` elements and this dtype (0 = any), on the
 * problem's device. */
static int result_read(struct problem *p, int slot, PyObject *object, const char *name, int32_t dtype,
                       int64_t count, int writable)
{
    struct view *v = &p->out[slot];
    if (view_read(v, object, name, writable))
        return -1;
    if (!v->present)
        return 0;
    if (v->device != p->device || !view_is_contiguous(v) || (dtype && v->dtype != dtype)) {
        PyErr_Format(PyExc_ValueError, "%s must be contiguous, on the device of q and of dtype %s", name,
                     dtype ? lik_dtype_name(dtype) : "i16 or i32");
        return -1;
    }
    if (view_count(v) != count)
        return refuse("%s has %lld elements, must have %lld", name, view_count(v), count);
    return 0;
}

/* One to write. */
static int output_read(struct problem *p, int slot, PyObject *object, const char *name, int32_t dtype,
                       int64_t count)
{
    return result_read(p, slot, object, name, dtype, count, 1);
}

static int expect_arguments(const char *name, Py_ssize_t got, int want)
{
    if (got == want)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes %d arguments, got %zd", name, want, got);
    return -1;
}

static PyObject *finish(struct problem *p, int failed)
{
    problem_release(p);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

/* score(*problem, scores, argmax or None) */
static PyObject *native_score(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    if (expect_arguments("score", n, FIELDS + 2) || problem_read(&p, args))
        return NULL;
    int64_t scores = problem_scores(&p);
    int failed = output_read(&p, 0, args[FIELDS], "scores", LIK_F32, scores) ||
                 output_read(&p, 1, args[FIELDS + 1], "argmax", 0, scores * p.op.q.len_max);
    if (!failed) {
        p.op.scores = p.out[0].data;
        p.op.argmax = p.out[1].data;
        p.op.argmax_dtype = p.out[1].dtype;
        failed = run_operation(RUN_SCORE, &p.op, p.device, p.work);
    }
    return finish(&p, failed);
}

/* topk(*problem, k, id_base, smallest, values, ids) */
static PyObject *native_topk(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    if (expect_arguments("topk", n, FIELDS + 5))
        return NULL;
    struct lik_topk op = {.struct_size = sizeof op};
    op.k = PyLong_AsLongLong(args[FIELDS]);
    op.id_base = PyLong_AsLongLong(args[FIELDS + 1]);
    op.smallest = (int32_t)PyLong_AsLong(args[FIELDS + 2]);
    if (PyErr_Occurred() || problem_read(&p, args))
        return NULL;
    int64_t entries = p.op.q.count * op.k;
    int failed = output_read(&p, 0, args[FIELDS + 3], "values", LIK_F32, entries) ||
                 output_read(&p, 1, args[FIELDS + 4], "ids", LIK_I64, entries);
    if (!failed) {
        op.score = p.op;
        op.values = p.out[0].data;
        op.ids = p.out[1].data;
        failed = run_operation(RUN_TOPK, &op, p.device, p.work);
    }
    return finish(&p, failed);
}

/* topk_scratch(*problem, k) -> bytes of workspace that topk() takes. */
static PyObject *native_topk_scratch(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    if (expect_arguments("topk_scratch", n, FIELDS + 1))
        return NULL;
    struct lik_topk op = {.struct_size = sizeof op};
    op.k = PyLong_AsLongLong(args[FIELDS]);
    if (PyErr_Occurred() || problem_read(&p, args))
        return NULL;
    op.score = p.op;
    size_t bytes = 0;
    int failed = run_workspace_bytes(RUN_TOPK, &op, p.device, &bytes);
    problem_release(&p);
    return failed ? NULL : PyLong_FromSize_t(bytes);
}

/* Multiply-adds of a backward pass: two rows for every winner. */
static double grad_work(const struct problem *p)
{
    return p->op.d.len_max ? 2 * p->work / (double)p->op.d.len_max : 0;
}

static int64_t operand_rows(const struct lik_tokens *t)
{
    return t->offsets ? t->total : t->count * t->len_max;
}

/* grad(*problem, grad_scores, argmax, grad_q or None, grad_d or None, grad_weights or None) */
static PyObject *native_grad(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    struct view argmax = {0};
    if (expect_arguments("grad", n, FIELDS + 5) || problem_read(&p, args))
        return NULL;
    int64_t scores = problem_scores(&p);
    int failed =
        result_read(&p, 0, args[FIELDS], "grad_scores", LIK_F32, scores, 0) ||
        output_read(&p, 1, args[FIELDS + 2], "grad_q", p.op.q.dtype, operand_rows(&p.op.q) * p.op.q.dim) ||
        output_read(&p, 2, args[FIELDS + 3], "grad_d", p.op.d.dtype, operand_rows(&p.op.d) * p.op.d.dim) ||
        output_read(&p, 3, args[FIELDS + 4], "grad_weights", LIK_F32, operand_rows(&p.op.q)) ||
        view_read(&argmax, args[FIELDS + 1], "argmax", 0);
    if (!failed && (!argmax.present || !view_is_contiguous(&argmax) || argmax.device != p.device ||
                    view_count(&argmax) != scores * p.op.q.len_max)) {
        PyErr_SetString(PyExc_ValueError,
                        "argmax must be the contiguous one that score() wrote for this problem");
        failed = -1;
    }
    if (!failed) {
        struct lik_grad op = {.struct_size = sizeof op};
        p.op.argmax = argmax.data;
        p.op.argmax_dtype = argmax.dtype;
        op.score = p.op;
        op.grad_scores = p.out[0].data;
        op.grad_q = p.out[1].data;
        op.grad_d = p.out[2].data;
        op.grad_weights = p.out[3].data;
        failed = run_operation(RUN_GRAD, &op, p.device, grad_work(&p));
    }
    view_release(&argmax);
    return finish(&p, failed);
}

/* Like output_read, but a new tensor. NULL with an exception. */
static PyObject *output_new(struct problem *p, int slot, int32_t dtype, int ndim, const int64_t *shape)
{
    PyObject *made =
        view_allocate((PyTypeObject *)known.tensor, p->device, dtype, ndim, shape, &p->out[slot]);
    if (!made && !PyErr_Occurred())
        PyErr_SetString(PyExc_NotImplementedError, "this torch has no exchange API");
    return made;
}

/* The shape of the scores; returns the number of axes. */
static int score_axes(const struct problem *p, int64_t *shape)
{
    const struct lik_score *op = &p->op;
    shape[0] = op->pairing == LIK_LIST ? op->list_count : op->q.count;
    shape[1] = op->pairing == LIK_ALL ? op->d.count : op->per_query;
    return op->pairing == LIK_ALL || op->pairing == LIK_CANDIDATES ? 2 : 1;
}

/* The forward pass of a training step: (scores, argmax), new torch tensors. */
static PyObject *run_forward(struct problem *p)
{
    int64_t shape[3];
    int axes = score_axes(p, shape);
    PyObject *argmax = NULL, *result = NULL, *scores = output_new(p, 0, LIK_F32, axes, shape);
    shape[axes] = p->op.q.len_max;
    p->op.argmax_dtype = p->op.d.len_max <= INT16_MAX ? LIK_I16 : LIK_I32;
    if (scores)
        argmax = output_new(p, 1, p->op.argmax_dtype, axes + 1, shape);
    p->op.scores = p->out[0].data;
    p->op.argmax = p->out[1].data;
    if (argmax && !run_operation(RUN_SCORE, &p->op, p->device, p->work))
        result = PyTuple_Pack(2, scores, argmax);
    Py_XDECREF(scores);
    Py_XDECREF(argmax);
    return result;
}

/* forward(*problem) -> (scores, argmax) */
static PyObject *native_forward(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    if (expect_arguments("forward", n, FIELDS) || problem_read(&p, args))
        return NULL;
    PyObject *results = run_forward(&p);
    problem_release(&p);
    return results;
}

/* backward(*problem, grad_scores, argmax, want_q, want_d, want_weights) -> (grad_q, grad_d,
 * grad_weights), new torch tensors, None for what is not wanted. */
static PyObject *native_backward(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    struct view argmax = {0};
    PyObject *grads[3] = {NULL, NULL, NULL}, *result = NULL;
    if (expect_arguments("backward", n, FIELDS + 5) || problem_read(&p, args))
        return NULL;
    struct lik_grad op = {.struct_size = sizeof op};
    int64_t scores = problem_scores(&p);
    if (result_read(&p, 0, args[FIELDS], "grad_scores", LIK_F32, scores, 0) ||
        view_read(&argmax, args[FIELDS + 1], "argmax", 0))
        goto out_release;
    if (!p.out[0].present || !argmax.present || !view_is_contiguous(&argmax) || argmax.device != p.device ||
        view_count(&argmax) != scores * p.op.q.len_max) {
        PyErr_SetString(PyExc_ValueError,
                        "argmax must be the contiguous one that forward() wrote for this problem");
        goto out_release;
    }
    for (int i = 0; i < 3; i++) {
        const struct view *like = &p.in[i == 1 ? D : Q];
        if (args[FIELDS + 2 + i] == Py_True)
            grads[i] =
                output_new(&p, 1 + i, i == 2 ? LIK_F32 : like->dtype, like->ndim - (i == 2), like->shape);
        else
            grads[i] = Py_NewRef(Py_None);
        if (!grads[i])
            goto out_release;
    }
    p.op.argmax = argmax.data;
    p.op.argmax_dtype = argmax.dtype;
    op.score = p.op;
    op.grad_scores = p.out[0].data;
    op.grad_q = p.out[1].data;
    op.grad_d = p.out[2].data;
    op.grad_weights = p.out[3].data;
    if (!run_operation(RUN_GRAD, &op, p.device, grad_work(&p)))
        result = PyTuple_Pack(3, grads[0], grads[1], grads[2]);
out_release:
    for (int i = 0; i < 3; i++)
        Py_XDECREF(grads[i]);
    view_release(&argmax);
    problem_release(&p);
    return result;
}

/* merge_topk(values_in [parts, n, k_in], ids_in, k, smallest, values [n, k], ids): CPU only. */
static PyObject *native_merge_topk(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    if (expect_arguments("merge_topk", n, 6))
        return NULL;
    struct view v[4] = {0};
    static const char *const names[] = {"values_in", "ids_in", "values", "ids"};
    PyObject *objects[] = {args[0], args[1], args[4], args[5]};
    int64_t k = PyLong_AsLongLong(args[2]);
    int32_t smallest = (int32_t)PyLong_AsLong(args[3]);
    int failed = PyErr_Occurred() != NULL;
    for (int i = 0; i < 4 && !failed; i++) {
        failed = view_read(&v[i], objects[i], names[i], i >= 2);
        if (!failed && (!view_is_contiguous(&v[i]) || v[i].device != -1 || v[i].ndim != (i < 2 ? 3 : 2) ||
                        v[i].dtype != (i % 2 ? LIK_I64 : LIK_F32))) {
            PyErr_Format(PyExc_ValueError, "%s must be a contiguous %s array on the CPU", names[i],
                         i % 2 ? "int64" : "float32");
            failed = -1;
        }
    }
    if (!failed && (view_count(&v[0]) != view_count(&v[1]) || v[2].shape[0] != v[0].shape[1] ||
                    v[2].shape[1] != k || view_count(&v[2]) != view_count(&v[3]))) {
        PyErr_SetString(PyExc_ValueError, "values_in and ids_in, values and ids must agree in shape");
        failed = -1;
    }
    if (!failed) {
        int status = lik_merge_topk(v[0].shape[0], v[0].shape[1], v[0].shape[2], v[0].data, v[1].data, k,
                                    smallest, v[2].data, v[3].data);
        failed = status ? run_raise(status) : 0;
    }
    for (int i = 0; i < 4; i++)
        view_release(&v[i]);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

struct extremes {
    int64_t low, high, least_step, most_step;
};

/* Of a contiguous int32 or int64 array on the CPU, a step being the difference of two entries
 * in a row (0 if there is one entry); 0 for anything else, and for an empty array. */
static int extremes_of(const struct view *v, struct extremes *e)
{
    int64_t count = view_count(v), low = INT64_MAX, high = INT64_MIN, least = INT64_MAX, most = INT64_MIN;
    if (count == 0 || v->device != -1 || (v->dtype != LIK_I32 && v->dtype != LIK_I64) ||
        !view_is_contiguous(v))
        return 0;
    Py_BEGIN_ALLOW_THREADS;
    for (int64_t i = 0, before = 0; i < count; i++) {
        int64_t x = v->dtype == LIK_I32 ? ((const int32_t *)v->data)[i] : ((const int64_t *)v->data)[i], step;
        low = x < low ? x : low;
        high = x > high ? x : high;
        if (i > 0) {
            if (__builtin_sub_overflow(x, before, &step))
                step = x < before ? INT64_MIN : INT64_MAX;
            least = step < least ? step : least;
            most = step > most ? step : most;
        }
        before = x;
    }
    Py_END_ALLOW_THREADS;
    if (count == 1)
        least = most = 0;
    *e = (struct extremes){low, high, least, most};
    return 1;
}

/* ---- the short way ---- */

/* register_torch(tensor, parameter, grad_enabled, transformed, modes, traced, forward_ad,
 * stream, workspace, precision, train, is_neg, plain) */
static PyObject *native_register_torch(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[13];
    if (!PyArg_ParseTuple(args, "OOOOOOOOOOOOO", &o[0], &o[1], &o[2], &o[3], &o[4], &o[5], &o[6], &o[7],
                          &o[8], &o[9], &o[10], &o[11], &o[12]))
        return NULL;
    for (int i = 0; i < 13; i++)
        Py_INCREF(o[i]); /* for the life of the process */
    known.tensor = o[0];
    known.parameter = o[1];
    known.grad_enabled = o[2];
    known.transformed = o[3];
    known.modes = o[4];
    known.traced = o[5];
    known.forward_ad = o[6];
    lender.type = (PyTypeObject *)o[0];
    lender.stream = o[7];
    lender.workspace = o[8];
    known.precision = o[9];
    known.train = o[10];
    view_lazy.is_neg = o[11];
    view_lazy.plain = o[12];
    known.requires_grad = PyUnicode_InternFromString("requires_grad");
    known.current_level = PyUnicode_InternFromString("_current_level");
    if (!known.requires_grad || !known.current_level)
        return NULL;
    run_find_torch_pool();
    Py_RETURN_NONE;
}

/* register_numpy(ndarray, empty, float32) */
static PyObject *native_register_numpy(PyObject *self, PyObject *args)
{
    (void)self;
    if (!PyArg_ParseTuple(args, "OOO", &known.array, &known.array_empty, &known.array_dtype))
        return NULL;
    Py_INCREF(known.array);
    Py_INCREF(known.array_empty);
    Py_INCREF(known.array_dtype);
    Py_RETURN_NONE;
}

/* Truth of callable(); errors count as true, which leads to the long way. */
static int says(PyObject *callable)
{
    PyObject *answer = PyObject_CallNoArgs(callable);
    int truth = answer ? PyObject_IsTrue(answer) : 1;
    Py_XDECREF(answer);
    PyErr_Clear();
    return truth != 0;
}

static int requires_grad(PyObject *tensor)
{
    PyObject *value = PyObject_GetAttr(tensor, known.requires_grad);
    int truth = value ? PyObject_IsTrue(value) : 1;
    Py_XDECREF(value);
    PyErr_Clear();
    return truth != 0;
}

static int has_dual_numbers(void)
{
    PyObject *level = PyObject_GetAttr(known.forward_ad, known.current_level);
    long value = level ? PyLong_AsLong(level) : 0;
    Py_XDECREF(level);
    PyErr_Clear();
    return value >= 0;
}

/* Do the first TENSORS arguments belong to these types, where they are not None? */
static int all_of(PyObject *const *args, PyObject *type, PyObject *or_type)
{
    for (int i = 0; i < TENSORS; i++) {
        PyObject *own = (PyObject *)Py_TYPE(args[i]);
        if (args[i] != Py_None && own != type && own != or_type)
            return 0;
    }
    return args[Q] != Py_None && args[D] != Py_None;
}

enum framework { NOT_PLAIN, PLAIN_TORCH, PLAIN_NUMPY };

/* Which framework do all arguments plainly belong to: torch without tracing and torch.func,
 * NumPy, or none of ours. */
static enum framework plain_framework(PyObject *const *args)
{
    if (known.array && all_of(args, known.array, known.array))
        return PLAIN_NUMPY;
    int plain = known.tensor && all_of(args, known.tensor, known.parameter) && !says(known.transformed) &&
                !says(known.modes) && !says(known.traced) && !has_dual_numbers();
    return plain ? PLAIN_TORCH : NOT_PLAIN;
}

static int wants_gradients(PyObject *const *args)
{
    return (requires_grad(args[Q]) || requires_grad(args[D]) ||
            (args[Q_WEIGHTS] != Py_None && requires_grad(args[Q_WEIGHTS]))) &&
           says(known.grad_enabled);
}

/* The precision the user has set, where it makes a difference: f32 on CUDA. */
static int precision_set(const struct problem *p, int32_t *precision)
{
    *precision = LIK_HIGHEST;
    if (p->in[Q].device < 0 || (p->in[Q].dtype != LIK_F32 && p->in[D].dtype != LIK_F32))
        return 0;
    PyObject *value = PyObject_CallNoArgs(known.precision);
    *precision = value ? (int32_t)PyLong_AsLong(value) : LIK_HIGHEST;
    Py_XDECREF(value);
    return PyErr_Occurred() ? -1 : 0;
}

/* A row of integers that can be looked at must lie in low ... high. */
static int values_within(const struct view *v, int64_t low, int64_t high)
{
    struct extremes e;
    return v->device >= 0 || view_count(v) == 0 || (extremes_of(v, &e) && e.low >= low && e.high <= high);
}

/* The longest sequence: found where the offsets can be looked at, and must be; the caller's
 * bound elsewhere. */
static int short_length(const struct view *offsets, const struct view *x, PyObject *bound, int64_t *length)
{
    *length = -1;
    if (!offsets->present)
        return 1;
    if (bound != Py_None) {
        if (!PyLong_CheckExact(bound) || (*length = PyLong_AsLongLong(bound)) < 0)
            return 0;
    }
    if (offsets->device >= 0)
        return *length >= 0;
    struct extremes e;
    if (!extremes_of(offsets, &e) || e.low < 0 || e.least_step < 0 || e.high > x->shape[0] ||
        (bound != Py_None && *length < e.most_step))
        return 0;
    *length = e.most_step;
    return 1;
}

/* The problem of the fields as the user gave them, for which all is well; 0 if the long way
 * must be taken, with an exception or without. p is to be released in any case. */
static int short_problem(struct problem *p, PyObject *const *args)
{
    memset(p, 0, sizeof *p);
    for (int i = 0; i < TENSORS; i++)
        if (view_read(&p->in[i], args[i], field_names[i], 0))
            return 0;
    const struct view *q = &p->in[Q], *d = &p->in[D], *offsets = &p->in[Q_OFFSETS];
    int64_t pairing = PyLong_AsLongLong(args[PAIRING]), normalize = PyLong_AsLongLong(args[NORMALIZE]),
            lengths[2];
    int packed = offsets[0].present && offsets[1].present, candidates = pairing == LIK_ALL && d->ndim == 4;
    if (q->ndim < 2 || d->ndim < 2 || q->dtype > LIK_BF16 || d->dtype > LIK_BF16 ||
        (!packed && (offsets[0].present || offsets[1].present)) ||
        (packed && (q->ndim != 2 || d->ndim != 2)) ||
        ((candidates || pairing == LIK_PAIRS) && q->ndim != 3) || (pairing == LIK_PAIRS && d->ndim != 3))
        return 0;
    for (int i = 0; i < 2; i++)
        if (!short_length(&offsets[i], i ? d : q, args[LEN_Q + i], &lengths[i]))
            return 0;
    int32_t precision;
    if (precision_set(p, &precision) || problem_fill(p, candidates ? LIK_CANDIDATES : (int32_t)pairing,
                                                     normalize, precision, lengths[0], lengths[1]))
        return 0;
    if (pairing == LIK_LIST && (!values_within(&p->in[LIST_Q], 0, p->op.q.count - 1) ||
                                !values_within(&p->in[LIST_D], 0, p->op.d.count - 1)))
        return 0;
    return p->op.q.dim == p->op.d.dim && p->op.q.dim >= 1;
}

/* A fresh f32 array for the scores of p, read into p->out[0]. Padded operands of two axes have
 * no axis there. */
static PyObject *allocate_scores(struct problem *p, enum framework framework)
{
    int64_t shape[2] = {0};
    int axes = score_axes(p, shape);
    if (p->op.pairing == LIK_ALL) {
        if (p->in[D].ndim == 2 && !p->op.d.offsets)
            axes--;
        if (p->in[Q].ndim == 2 && !p->op.q.offsets) {
            axes--;
            shape[0] = shape[1];
        }
    }
    if (framework == PLAIN_TORCH)
        return output_new(p, 0, LIK_F32, axes, shape);
    PyObject *tuple = axes == 0   ? PyTuple_New(0)
                      : axes == 1 ? Py_BuildValue("(L)", (long long)shape[0])
                                  : Py_BuildValue("(LL)", (long long)shape[0], (long long)shape[1]);
    PyObject *scores =
        tuple ? PyObject_CallFunctionObjArgs(known.array_empty, tuple, known.array_dtype, NULL) : NULL;
    Py_XDECREF(tuple);
    if (scores && output_read(p, 0, scores, "scores", LIK_F32, problem_scores(p))) {
        Py_DECREF(scores);
        return NULL;
    }
    return scores;
}

/* The problem as the Python side has it. */
static PyObject *fields_of(const struct problem *p, PyObject *const *args)
{
    const int64_t numbers[] = {p->op.pairing, p->op.q.normalize + 2 * p->op.d.normalize, p->op.precision,
                               p->op.q.offsets ? p->op.q.len_max : 0, p->op.d.offsets ? p->op.d.len_max : 0};
    PyObject *fields = PyTuple_New(FIELDS);
    for (int i = 0; fields && i < FIELDS; i++) {
        PyObject *field = i < TENSORS ? Py_NewRef(args[i]) : PyLong_FromLongLong(numbers[i - TENSORS]);
        if (!field || PyTuple_SetItem(fields, i, field))
            Py_CLEAR(fields);
    }
    return fields;
}

/* maxsim(*fields, differentiable) -> scores, with their history where gradients are wanted. The
 * fields are as the user gave them: pairing 0 for candidates too, len_q and len_d None where
 * there is no bound. None: take the long way. */
static PyObject *native_maxsim(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    PyObject *scores = NULL, *results = NULL, *fields = NULL;
    if (expect_arguments("maxsim", n, FIELDS + 1))
        return NULL;
    enum framework framework = plain_framework(args);
    if (framework == NOT_PLAIN)
        Py_RETURN_NONE;
    if (!short_problem(&p, args))
        goto out_release;
    if (framework == PLAIN_TORCH && args[FIELDS] == Py_True && wants_gradients(args)) {
        if (p.op.q.offsets || (p.in[Q].ndim == 3 && p.in[D].ndim > 2))
            results = run_forward(&p);
        fields = results ? fields_of(&p, args) : NULL;
        goto out_release;
    }
    scores = allocate_scores(&p, framework);
    p.op.scores = p.out[0].data;
    if (scores && run_operation(RUN_SCORE, &p.op, p.device, p.work))
        Py_CLEAR(scores);
out_release:
    PyErr_Clear();
    problem_release(&p);
    if (fields) /* what hooks of autograd raise here is meant for the caller */
        scores = PyObject_CallFunctionObjArgs(known.train, args[Q], args[D], args[Q_WEIGHTS], fields, results,
                                              Py_False, NULL);
    else if (!scores)
        scores = Py_NewRef(Py_None);
    Py_XDECREF(fields);
    Py_XDECREF(results);
    return scores;
}

/* best(*fields, k, smallest) -> (values, ids) of the best min(k, documents) of each query, new
 * torch tensors; None: take the long way. */
static PyObject *native_best(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    PyObject *values = NULL, *ids = NULL, *result = NULL;
    if (expect_arguments("best", n, FIELDS + 2))
        return NULL;
    if (plain_framework(args) != PLAIN_TORCH)
        Py_RETURN_NONE;
    struct lik_topk op = {.struct_size = sizeof op};
    if (!short_problem(&p, args) || p.in[D].ndim != 3)
        goto out_release;
    op.k = PyLong_AsLongLong(args[FIELDS]);
    op.k = op.k < p.op.d.count ? op.k : p.op.d.count;
    op.smallest = args[FIELDS + 1] == Py_True;
    int64_t shape[2] = {p.op.q.count, op.k}, *from = p.in[Q].ndim == 3 ? shape : shape + 1;
    int axes = p.in[Q].ndim - 1;
    if (op.k < 1)
        goto out_release;
    values = output_new(&p, 0, LIK_F32, axes, from);
    ids = values ? output_new(&p, 1, LIK_I64, axes, from) : NULL;
    if (!ids)
        goto out_release;
    op.score = p.op;
    op.values = p.out[0].data;
    op.ids = p.out[1].data;
    if (!run_operation(RUN_TOPK, &op, p.device, p.work))
        result = PyTuple_Pack(2, values, ids);
out_release:
    PyErr_Clear();
    Py_XDECREF(values);
    Py_XDECREF(ids);
    problem_release(&p);
    return result ? result : Py_NewRef(Py_None);
}

/* extremes(x) -> (lowest, highest, least step, largest step) as extremes_of finds them, or
 * None. */
static PyObject *native_extremes(PyObject *self, PyObject *object)
{
    (void)self;
    struct view v = {0};
    struct extremes e;
    if (view_read(&v, object, "x", 0))
        return NULL;
    int usable = v.present && extremes_of(&v, &e);
    view_release(&v);
    if (!usable)
        Py_RETURN_NONE;
    return Py_BuildValue("(LLLL)", (long long)e.low, (long long)e.high, (long long)e.least_step,
                         (long long)e.most_step);
}

/* has_device(index): can this build and machine run on it? */
static PyObject *native_has_device(PyObject *self, PyObject *index)
{
    (void)self;
    long device = PyLong_AsLong(index);
    if (PyErr_Occurred())
        return NULL;
    int there = run_context((int32_t)device) != NULL;
    PyErr_Clear();
    return PyBool_FromLong(there);
}

/* device_error(index) -> why not, or None */
static PyObject *native_device_error(PyObject *self, PyObject *index)
{
    (void)self;
    long device = PyLong_AsLong(index);
    if (PyErr_Occurred())
        return NULL;
    if (run_context((int32_t)device))
        Py_RETURN_NONE;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *text = value ? PyObject_Str(value) : PyUnicode_FromString("");
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return text;
}

/* info() -> (version, build line, name of the CPU context, CPU threads) */
static PyObject *native_info(PyObject *self, PyObject *none)
{
    (void)self;
    (void)none;
    const struct lik_context *ctx = run_context(-1);
    int32_t threads = ctx ? run_threads() : -1;
    if (threads < 0)
        return NULL;
    return Py_BuildValue("(sssi)", lik_version(), lik_build_info(), lik_context_name(ctx), (int)threads);
}

#define FAST(name) {#name, (PyCFunction)(void (*)(void))native_##name, METH_FASTCALL, NULL}

static PyMethodDef methods[] = {
    FAST(maxsim),
    FAST(best),
    FAST(score),
    FAST(topk),
    FAST(topk_scratch),
    FAST(forward),
    FAST(backward),
    FAST(grad),
    FAST(merge_topk),
    {"decode_residuals", (PyCFunction)(void (*)(void))codec_decode_residuals, METH_FASTCALL, NULL},
    {"register_torch", native_register_torch, METH_VARARGS, NULL},
    {"register_numpy", native_register_numpy, METH_VARARGS, NULL},
    {"extremes", native_extremes, METH_O, NULL},
    {"has_device", native_has_device, METH_O, NULL},
    {"device_error", native_device_error, METH_O, NULL},
    {"info", native_info, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_native",  .m_doc = "The C library behind late_interaction_kernels.",
    .m_size = -1,          .m_methods = methods,
};

PyMODINIT_FUNC PyInit__native(void)
{
    if (!run_context(-1)) { /* an ImportError, whatever was wrong: hosts catch nothing else */
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyErr_Format(PyExc_ImportError, "late_interaction_kernels cannot run here: %S",
                     value ? value : Py_None);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(trace);
        return NULL;
    }
    return PyModule_Create(&definition);
}
