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
    [CODES] = "codes",
    [CENTROIDS] = "centroids",
    [BUCKET_WEIGHTS] = "bucket_weights",
    [PAIRING] = "pairing",
    [NORMALIZE] = "normalize",
    [PRECISION] = "precision",
    [LEN_Q] = "len_q",
    [LEN_D] = "len_d",
    [NBITS] = "nbits",
    [BIT_ORDER] = "bit_order",
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

/* The tokens' axes: those of the codes, or of the tokens but for the last one. */
struct axes {
    int n;
    const int64_t *shape;
};

static struct axes axes_of(const struct problem *p, int side)
{
    const struct view *x = &p->in[side], *codes = &p->in[CODES];
    if (side == D && codes->present)
        return (struct axes){codes->ndim, codes->shape};
    return (struct axes){x->ndim - 1, x->shape};
}

/* A per-token array: `inner` more axes than the tokens have. */
static int check_per_token(struct axes tokens, const struct view *v, int inner, const char *name)
{
    if (v->ndim != tokens.n + inner)
        return refuse("%s has %lld dimensions, must have %lld", name, v->ndim, tokens.n + inner);
    for (int i = 0; i < tokens.n; i++)
        if (v->shape[i] != tokens.shape[i])
            return refuse("%s has the wrong shape: %lld entries where the tokens have %lld", name,
                          v->shape[i], tokens.shape[i]);
    return 0;
}

static int check_dtype(const struct view *v, const char *name, int32_t want, const char *said)
{
    if (v->dtype == want)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s must be %s", name, said);
    return -1;
}

static int fill_offsets(struct lik_tokens *t, struct axes tokens, const struct view *offsets,
                        const char *name, int64_t len_max)
{
    if (tokens.n != 1)
        return refuse("packed tokens of %s have %lld dimensions, must have %lld", name, tokens.n + 1, 2);
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
    t->total = tokens.shape[0];
    t->len_max = len_max;
    return 0;
}

static int is_float(const struct view *v)
{
    return v->dtype == LIK_F32 || v->dtype == LIK_F16 || v->dtype == LIK_BF16;
}

/* What p->codec says of the arrays; bits and bit_order are there. */
static int fill_codec(struct problem *p)
{
    const struct view *centroids = &p->in[CENTROIDS], *weights = &p->in[BUCKET_WEIGHTS];
    struct lik_codec *codec = &p->codec;
    if (centroids->ndim != 2 || !is_float(centroids) ||
        (centroids->shape[1] > 1 && centroids->strides[1] != 1 && view_count(centroids) > 0) ||
        (centroids->shape[0] > 1 && centroids->strides[0] < centroids->shape[1])) {
        PyErr_SetString(PyExc_ValueError, "centroids must be rows of float32, float16 or bfloat16");
        return -1;
    }
    codec->struct_size = sizeof *codec;
    codec->centroids = centroids->data;
    codec->centroids_dtype = centroids->dtype;
    codec->centroid_count = centroids->shape[0];
    codec->centroid_stride = centroids->shape[0] > 1 ? centroids->strides[0] : 0;
    if (!weights->present)
        return 0;
    if (weights->ndim != 1 || !is_float(weights) || !view_is_contiguous(weights) || codec->bits < 0 ||
        codec->bits > 8 || weights->shape[0] != (int64_t)1 << codec->bits) {
        PyErr_Format(PyExc_ValueError,
                     "bucket_weights must be one contiguous row of 2^nbits floats, nbits is %d", codec->bits);
        return -1;
    }
    codec->weights = weights->data;
    codec->weights_dtype = weights->dtype;
    return 0;
}

/* Tokens that have codes: compressed ones, decoded to `dtype`, or without centroids elements of
 * the query tokens. */
static int fill_coded(struct problem *p, struct lik_tokens *t, struct axes tokens, int32_t dtype)
{
    const struct view *x = &p->in[D], *codes = &p->in[CODES];
    if (tokens.n < 1 || tokens.n > 3)
        return refuse("%s has %lld dimensions, must have %lld to 3", field_names[CODES], tokens.n, 1);
    if (codes->dtype != LIK_I16 && codes->dtype != VIEW_U16 && codes->dtype != LIK_I32 &&
        codes->dtype != LIK_I64) {
        PyErr_SetString(PyExc_TypeError, "codes must be int16, uint16, int32 or int64");
        return -1;
    }
    t->codes = codes->data;
    t->codes_dtype = codes->dtype == VIEW_U16 ? LIK_I16 : codes->dtype;
    t->codes_strides = strides_of(codes, codes->ndim);
    if (!p->in[CENTROIDS].present) {
        t->storage = LIK_ONE_HOT;
        t->dtype = LIK_F32;
        t->dim = p->op.q.dim;
        return 0;
    }
    t->storage = LIK_RESIDUAL;
    t->codec = &p->codec;
    t->dtype = dtype;
    t->dim = p->in[CENTROIDS].shape[1];
    t->dim_stride = 1;
    if (!x->present)
        return 0;
    int64_t bytes = (t->dim * p->codec.bits + 7) / 8;
    if (check_per_token(tokens, x, 1, field_names[D]) ||
        check_dtype(x, field_names[D], VIEW_U8, "uint8, the residuals of codes"))
        return -1;
    if (x->shape[tokens.n] != bytes)
        return refuse("%s has %lld bytes a token, must have %lld", field_names[D], x->shape[tokens.n], bytes);
    if (bytes > 1 && x->strides[tokens.n] != 1 && view_count(x) > 0)
        return refuse("%s has bytes of a token %lld apart, must be %lld", field_names[D],
                      x->strides[tokens.n], 1);
    t->data = x->data;
    t->strides = strides_of(x, tokens.n);
    return 0;
}

/* Tokens of numbers, as they lie. */
static int fill_dense(const struct problem *p, struct lik_tokens *t, int side)
{
    const struct view *x = &p->in[side];
    const char *name = field_names[side];
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
    return 0;
}

/* The arrays beside the tokens, each where it is present. */
static int fill_beside(const struct problem *p, struct lik_tokens *t, int side, struct axes tokens)
{
    const struct view *mask = &p->in[Q_MASK + side], *scale = &p->in[Q_SCALE + side];
    const struct view *weights = side == Q ? &p->in[Q_WEIGHTS] : NULL;
    if (mask->present) {
        if (check_per_token(tokens, mask, 0, field_names[Q_MASK + side]) ||
            check_dtype(mask, field_names[Q_MASK + side], VIEW_BOOL, "bool"))
            return -1;
        t->mask = mask->data;
        t->mask_strides = strides_of(mask, mask->ndim);
    }
    if (scale->present) {
        const char *name = field_names[Q_SCALE + side];
        int may_be_half = t->storage == LIK_RESIDUAL && scale->dtype == LIK_F16;
        if ((scale->ndim > 0 && check_per_token(tokens, scale, 0, name)) ||
            (!may_be_half && check_dtype(scale, name, LIK_F32, "float32")))
            return -1;
        t->scale = scale->data;
        t->scale_dtype = scale->dtype;
        t->scale_strides = strides_of(scale, scale->ndim);
    }
    if (weights && weights->present) {
        if (check_per_token(tokens, weights, 0, "q_weights") ||
            check_dtype(weights, "q_weights", LIK_F32, "float32"))
            return -1;
        t->weights = weights->data;
        t->weights_strides = strides_of(weights, weights->ndim);
    }
    return 0;
}

/* The operand of one side, Q or D; compressed tokens are decoded to `dtype`. */
static int fill_tokens(struct problem *p, struct lik_tokens *t, int side, int64_t len_max, int32_t dtype)
{
    const struct view *offsets = &p->in[Q_OFFSETS + side];
    struct axes tokens = axes_of(p, side);
    int coded = side == D && p->in[CODES].present;
    t->struct_size = sizeof *t;
    if (coded ? fill_coded(p, t, tokens, dtype) : fill_dense(p, t, side))
        return -1;
    if (offsets->present) {
        if (fill_offsets(t, tokens, offsets, field_names[Q_OFFSETS + side], len_max))
            return -1;
    } else {
        t->len_max = tokens.shape[tokens.n - 1];
        t->count = tokens.n == 1 ? 1 : tokens.n == 2 ? tokens.shape[0] : tokens.shape[0] * tokens.shape[1];
        t->group_size = tokens.n == 3 ? tokens.shape[1] : 0;
    }
    return fill_beside(p, t, side, tokens);
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

/* Everything present must be on one device, that of the first array there is. */
static int check_devices(struct problem *p)
{
    int first = -1;
    for (int i = 0; i < TENSORS; i++) {
        if (!p->in[i].present)
            continue;
        first = first < 0 ? i : first;
        p->device = p->in[first].device;
        if (p->in[i].device != p->device) {
            PyErr_Format(PyExc_ValueError, "%s is on device %d, %s is on device %d (-1 is the CPU)",
                         field_names[i], p->in[i].device, field_names[first], p->device);
            return -1;
        }
    }
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

/* The precision to take: the user of torch has set one for f32 on CUDA, for i8 documents and
 * for compressed ones that f32 queries meet. */
static int choose_precision(const struct problem *p, PyObject *q, int64_t asked, int32_t *precision)
{
    const struct lik_tokens *d = &p->op.d;
    int f32 = p->op.q.dtype == LIK_F32 || d->dtype == LIK_F32, on_device = p->device >= 0;
    int follows =
        asked == FOLLOW && (d->dtype == LIK_I8 || (f32 && (on_device || d->storage == LIK_RESIDUAL)));
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
    if (check_devices(p) || (p->in[CENTROIDS].present && fill_codec(p)) ||
        fill_tokens(p, &op->q, Q, len_q, 0) || fill_tokens(p, &op->d, D, len_d, op->q.dtype) ||
        choose_precision(p, q, precision, &op->precision))
        return -1;
    op->pairing = (int32_t)pairing;
    op->q.normalize = (normalize & 1) != 0;
    op->d.normalize = (normalize & 2) != 0;
    if (pairing == LIK_CANDIDATES) {
        struct axes documents = axes_of(p, D);
        if (documents.n != 3 || documents.shape[0] != op->q.count)
            return refuse("%s has %lld query groups, q has %lld queries", "d", documents.shape[0],
                          op->q.count);
        op->per_query = documents.shape[1];
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

/* The views of the first FIELDS arguments, and the choices. 0, or -1 with an exception. */
static int fields_read(struct problem *p, PyObject *const *args, int64_t *numbers)
{
    memset(p, 0, sizeof *p);
    for (int i = 0; i < TENSORS; i++)
        if (view_read(&p->in[i], args[i], field_names[i], 0))
            return -1;
    for (int i = PAIRING; i < FIELDS; i++) {
        numbers[i] = PyLong_AsLongLong(args[i]);
        if (PyErr_Occurred())
            return -1;
    }
    p->codec.bits = (int32_t)numbers[NBITS];
    p->codec.bit_order = (int32_t)numbers[BIT_ORDER];
    return 0;
}

int problem_read(struct problem *p, PyObject *const *args)
{
    int64_t numbers[FIELDS];
    if (fields_read(p, args, numbers) || problem_fill(p, args[Q], numbers[PAIRING], numbers[NORMALIZE],
                                                      numbers[PRECISION], numbers[LEN_Q], numbers[LEN_D])) {
        problem_release(p);
        return -1;
    }
    return 0;
}

int documents_read(struct problem *p, PyObject *const *args, int32_t dtype)
{
    int64_t numbers[FIELDS];
    if (fields_read(p, args, numbers) || check_devices(p) || (p->in[CENTROIDS].present && fill_codec(p)) ||
        fill_tokens(p, &p->op.d, D, numbers[LEN_D], dtype)) {
        problem_release(p);
        return -1;
    }
    p->op.d.normalize = (numbers[NORMALIZE] & 2) != 0;
    p->op.precision = numbers[PRECISION] == FOLLOW ? LIK_HIGHEST : (int32_t)numbers[PRECISION];
    return 0;
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
                     dtype == VIEW_U8 ? "u8"
                     : dtype          ? lik_dtype_name(dtype)
                                      : "i16 or i32");
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
