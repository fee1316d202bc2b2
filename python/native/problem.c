#include "problem.h"

#include <string.h>

const char *const field_names[FIELDS] = {
    [Q] = "q",
    [D] = "d",
    [Q_MASK] = "q_mask",
    [D_MASK] = "d_mask",
    [Q_WEIGHTS] = "q_weights",
    [Q_SCALE] = "q_scale",
    [D_SCALE] = "d_scale",
    [Q_OFFSETS] = "q_offsets",
    [D_OFFSETS] = "d_offsets",
    [LIST_Q] = "list_q",
    [LIST_D] = "list_d",
    [PAIRING] = "pairing",
    [NORMALIZE] = "normalize",
    [PRECISION] = "precision",
    [LEN_Q] = "len_q",
    [LEN_D] = "len_d",
};

void problem_release(struct problem *p)
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

/* Does this object stand for a tensor of torch: one itself, or its address with the tensor for
 * its owner? */
static int is_tensor(PyObject *object)
{
    if (PyTuple_Check(object))
        object = PyTuple_Size(object) == 6 ? PyTuple_GetItem(object, 5) : object;
    int is = known.tensor ? PyObject_IsInstance(object, known.tensor) : 0;
    if (is < 0)
        PyErr_Clear();
    return is > 0;
}

/* The precision to take: the user of torch has set one for f32 on CUDA and for i8 documents. */
static int choose_precision(const struct problem *p, PyObject *q, int64_t asked, int32_t *precision)
{
    int f32 = p->in[Q].dtype == LIK_F32 || p->in[D].dtype == LIK_F32;
    int follows = asked == FOLLOW && (p->in[D].dtype == LIK_I8 || (p->in[Q].device >= 0 && f32));
    *precision = asked == FOLLOW ? LIK_HIGHEST : (int32_t)asked;
    if (!follows || !is_tensor(q))
        return 0;
    PyObject *value = PyObject_CallNoArgs(known.precision);
    *precision = value ? (int32_t)PyLong_AsLong(value) : LIK_HIGHEST;
    Py_XDECREF(value);
    return PyErr_Occurred() ? -1 : 0;
}

int problem_fill(struct problem *p, PyObject *q, int64_t pairing, int64_t normalize, int64_t precision,
                 int64_t len_q, int64_t len_d)
{
    struct lik_score *op = &p->op;
    memset(op, 0, sizeof *op);
    op->struct_size = sizeof *op;
    if (check_devices(p) || fill_tokens(p, &op->q, Q, len_q) || fill_tokens(p, &op->d, D, len_d) ||
        choose_precision(p, q, precision, &op->precision))
        return -1;
    op->pairing = (int32_t)pairing;
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

int64_t problem_scores(const struct problem *p)
{
    switch (p->op.pairing) {
    case LIK_ALL: return p->op.q.count * p->op.d.count;
    case LIK_LIST: return p->op.list_count;
    case LIK_PAIRS: return p->op.q.count;
    default: return p->op.d.count;
    }
}

int problem_read(struct problem *p, PyObject *const *args)
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
    if (problem_fill(p, args[Q], numbers[PAIRING], numbers[NORMALIZE], numbers[PRECISION], numbers[LEN_Q],
                     numbers[LEN_D]))
        goto out_release;
    return 0;
out_release:
    problem_release(p);
    return -1;
}

int result_read(struct problem *p, int slot, PyObject *object, const char *name, int32_t dtype, int64_t count,
                int writable)
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

int output_read(struct problem *p, int slot, PyObject *object, const char *name, int32_t dtype, int64_t count)
{
    return result_read(p, slot, object, name, dtype, count, 1);
}

int expect_arguments(const char *name, Py_ssize_t got, int want)
{
    if (got == want)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes %d arguments, got %zd", name, want, got);
    return -1;
}

PyObject *output_new(struct problem *p, int slot, int32_t dtype, int ndim, const int64_t *shape)
{
    PyObject *made =
        view_allocate((PyTypeObject *)known.tensor, p->device, dtype, ndim, shape, &p->out[slot]);
    if (!made && !PyErr_Occurred())
        PyErr_SetString(PyExc_NotImplementedError, "this torch has no exchange API");
    return made;
}

int problem_axes(const struct problem *p, int64_t *shape)
{
    const struct lik_score *op = &p->op;
    shape[0] = op->pairing == LIK_LIST ? op->list_count : op->q.count;
    shape[1] = op->pairing == LIK_ALL ? op->d.count : op->per_query;
    return op->pairing == LIK_ALL || op->pairing == LIK_CANDIDATES ? 2 : 1;
}
