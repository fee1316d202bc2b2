/* The short way: the commonest calls as the user made them, for which all is well. Whatever is
 * not plain (tracing, wrong shapes or values, other dtypes) is answered with None; the Python
 * side then takes the long way, which also words the errors. */
#include "entries.h"
#include "problem.h"
#include "run.h"

#include <string.h>

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

static int is_meta(PyObject *tensor)
{
    PyObject *value = PyObject_GetAttr(tensor, known.is_meta);
    int truth = value ? PyObject_IsTrue(value) : 1;
    Py_XDECREF(value);
    PyErr_Clear();
    return truth != 0;
}

/* Do the first n arguments belong to these types, where they are not None? */
static int all_of(PyObject *const *args, Py_ssize_t n, PyObject *type, PyObject *or_type)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *own = (PyObject *)Py_TYPE(args[i]);
        if (args[i] != Py_None && own != type && own != or_type)
            return 0;
    }
    return 1;
}

/* What may be between a tensor and plain memory, besides itself: bits, as torch_arrays.way has
 * them. */
enum way { TRANSFORMED = 1, DISPATCHED = 2 };

static int way_now(void)
{
    int dispatched = says(known.modes) || says(known.traced);
    return (dispatched ? DISPATCHED : 0) | (says(known.transformed) || has_dual_numbers() ? TRANSFORMED : 0);
}

/* way(*tensors or None) -> bits of enum way */
PyObject *native_way(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    int way = all_of(args, n, known.tensor, known.parameter) ? 0 : DISPATCHED;
    for (Py_ssize_t i = 0; i < n && !way; i++)
        if (args[i] != Py_None && is_meta(args[i]))
            way = DISPATCHED;
    return PyLong_FromLong(way | way_now());
}

enum framework { NOT_PLAIN, PLAIN_TORCH, PLAIN_NUMPY };

/* Which framework do all arguments plainly belong to: torch with nothing between, NumPy, or
 * none of ours. */
static enum framework plain_framework(PyObject *const *args)
{
    if (args[Q] == Py_None || args[D] == Py_None)
        return NOT_PLAIN;
    if (known.array && all_of(args, TENSORS, known.array, known.array))
        return PLAIN_NUMPY;
    int plain = known.train && all_of(args, TENSORS, known.tensor, known.parameter) && !way_now();
    return plain ? PLAIN_TORCH : NOT_PLAIN;
}

static int wants_gradients(PyObject *const *args)
{
    return (requires_grad(args[Q]) || requires_grad(args[D]) ||
            (args[Q_WEIGHTS] != Py_None && requires_grad(args[Q_WEIGHTS]))) &&
           says(known.grad_enabled);
}

/* A row of integers that can be looked at must lie in low ... high. */
static int values_within(const struct view *v, int64_t low, int64_t high)
{
    struct extremes e;
    return v->device >= 0 || view_count(v) == 0 || (view_extremes(v, &e) && e.low >= low && e.high <= high);
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
    if (!view_extremes(offsets, &e) || e.low < 0 || e.least_step < 0 || e.high > x->shape[0] ||
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
    if (p->in[CODES].present || q->ndim < 2 || d->ndim < 2 || q->dtype > LIK_BF16 || d->dtype > LIK_BF16 ||
        (!packed && (offsets[0].present || offsets[1].present)) ||
        (packed && (q->ndim != 2 || d->ndim != 2)) ||
        ((candidates || pairing == LIK_PAIRS) && q->ndim != 3) || (pairing == LIK_PAIRS && d->ndim != 3))
        return 0;
    for (int i = 0; i < 2; i++)
        if (!short_length(&offsets[i], i ? d : q, args[LEN_Q + i], &lengths[i]))
            return 0;
    if (problem_fill(p, args[Q], candidates ? LIK_CANDIDATES : pairing, normalize, FOLLOW, lengths[0],
                     lengths[1]))
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
    int axes = problem_axes(p, shape);
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

/* What the backward pass needs of the problem besides the argmax, as torch_ops.kept_of says it:
 * the arrays there are, and before the choices the bits of those arrays. 0, or -1 with an
 * exception. */
static int keep(const struct problem *p, PyObject *const *args, PyObject **kept, PyObject **rest)
{
    int64_t present = 0;
    const int64_t choices[] = {p->op.pairing,
                               p->op.q.normalize + 2 * p->op.d.normalize,
                               p->op.precision,
                               p->op.q.offsets ? p->op.q.len_max : 0,
                               p->op.d.offsets ? p->op.d.len_max : 0,
                               0,
                               0};
    PyObject *arrays[TENSORS];
    Py_ssize_t count = 0;
    for (int i = 0; i < TENSORS; i++)
        if (args[i] != Py_None) {
            arrays[count++] = args[i];
            present |= (int64_t)1 << i;
        }
    *kept = PyTuple_New(count);
    *rest = PyTuple_New(1 + FIELDS - TENSORS);
    for (Py_ssize_t i = 0; *kept && i < count; i++)
        PyTuple_SetItem(*kept, i, Py_NewRef(arrays[i]));
    for (int i = 0; *rest && i < 1 + FIELDS - TENSORS; i++) {
        PyObject *number = PyLong_FromLongLong(i ? choices[i - 1] : present);
        if (!number || PyTuple_SetItem(*rest, i, number))
            Py_CLEAR(*rest);
    }
    return *kept && *rest ? 0 : -1;
}

/* maxsim(*fields, differentiable) -> scores, with their history where gradients are wanted. The
 * fields are as the user gave them: pairing 0 for candidates too, len_q and len_d None where
 * there is no bound. None: take the long way. */
PyObject *native_maxsim(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    PyObject *scores = NULL, *results = NULL, *kept = NULL, *rest = NULL;
    int trains = 0;
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
        trains = results && !keep(&p, args, &kept, &rest);
        goto out_release;
    }
    scores = allocate_scores(&p, framework);
    p.op.scores = p.out[0].data;
    if (scores && run_operation(RUN_SCORE, &p.op, p.device, p.work))
        Py_CLEAR(scores);
out_release:
    PyErr_Clear();
    problem_release(&p);
    if (trains) /* what hooks of autograd raise here is meant for the caller */
        scores = PyObject_CallFunctionObjArgs(known.train, args[Q], args[D], args[Q_WEIGHTS], kept, rest,
                                              results, Py_False, NULL);
    else if (!scores)
        scores = Py_NewRef(Py_None);
    Py_XDECREF(kept);
    Py_XDECREF(rest);
    Py_XDECREF(results);
    return scores;
}

/* Are the arguments of maxsim_backward what eager training gives, plainly, with no second
 * derivative wanted? */
static int plain_backward(PyObject *const *args)
{
    if (!known.train || !PyTuple_Check(args[0]) || !PyTuple_Check(args[1]) || !PyTuple_Check(args[2]) ||
        PyTuple_Size(args[1]) != 1 + FIELDS - TENSORS || PyTuple_Size(args[2]) < 3 ||
        !all_of(args + 3, 1, known.tensor, known.parameter))
        return 0;
    for (Py_ssize_t i = 0; i < PyTuple_Size(args[0]); i++) {
        PyObject *one = PyTuple_GetItem(args[0], i);
        if (!all_of(&one, 1, known.tensor, known.parameter))
            return 0;
    }
    return !way_now() && !says(known.grad_enabled);
}

/* The gradient of the scores as a contiguous one, a new reference; that of a sum repeats one
 * number. NULL where it is not plain. */
static PyObject *contiguous(PyObject *gradient)
{
    struct view v = {0};
    int failed = view_read(&v, gradient, "grad_scores", 0), is = !failed && view_is_contiguous(&v);
    view_release(&v);
    if (failed || is)
        return is ? Py_NewRef(gradient) : NULL;
    PyObject *method = PyObject_GetAttrString(gradient, "contiguous");
    PyObject *made = method ? PyObject_CallNoArgs(method) : NULL;
    Py_XDECREF(method);
    return made;
}

/* maxsim_backward(saved, rest, needs, grad_scores) -> what backward of the Function that
 * register_train was given answers: gradients of q, d and q_weights, None for what is not
 * wanted and for its other four arguments. saved are the argmax and the arrays, rest as keep()
 * made them. None: take the long way. */
PyObject *native_maxsim_backward(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    PyObject *call[FIELDS + 5], *gradient = NULL, *grads = NULL, *result = NULL;
    if (expect_arguments("maxsim_backward", n, 4))
        return NULL;
    if (!plain_backward(args))
        Py_RETURN_NONE;
    Py_ssize_t kept = PyTuple_Size(args[0]), next = 1;
    long long present = PyLong_AsLongLong(PyTuple_GetItem(args[1], 0));
    for (int i = 0; i < TENSORS; i++)
        call[i] = present >> i & 1 && next < kept ? PyTuple_GetItem(args[0], next++) : Py_None;
    for (int i = TENSORS; i < FIELDS; i++)
        call[i] = PyTuple_GetItem(args[1], 1 + i - TENSORS);
    gradient = next == kept ? contiguous(args[3]) : NULL;
    call[FIELDS] = gradient;
    call[FIELDS + 1] = PyTuple_GetItem(args[0], 0);
    for (int i = 0; i < 3; i++)
        call[FIELDS + 2 + i] = PyTuple_GetItem(args[2], i);
    if (gradient)
        grads = native_backward(self, call, FIELDS + 5);
    if (grads)
        result = PyTuple_Pack(7, PyTuple_GetItem(grads, 0), PyTuple_GetItem(grads, 1),
                              PyTuple_GetItem(grads, 2), Py_None, Py_None, Py_None, Py_None);
    Py_XDECREF(gradient);
    Py_XDECREF(grads);
    PyErr_Clear();
    return result ? result : Py_NewRef(Py_None);
}

/* best(*fields, k, smallest) -> (values, ids) of the best min(k, documents) of each query, new
 * torch tensors; None: take the long way. */
PyObject *native_best(PyObject *self, PyObject *const *args, Py_ssize_t n)
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
