/* The verbs: score, topk and grad write into arrays that they are given, forward and backward
 * allocate tensors of torch. Each takes a problem as its FIELDS fields, then what else it
 * needs. */
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

/* score(*problem, scores, argmax or None) */
PyObject *native_score(PyObject *self, PyObject *const *args, Py_ssize_t n)
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
PyObject *native_topk(PyObject *self, PyObject *const *args, Py_ssize_t n)
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
PyObject *native_topk_scratch(PyObject *self, PyObject *const *args, Py_ssize_t n)
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

/* What a backward pass reads: the gradient of the scores into p->out[0], and the argmax that
 * `writer` gave. */
static int winners_read(struct problem *p, PyObject *const *args, struct view *argmax, const char *writer)
{
    int64_t scores = problem_scores(p);
    if (result_read(p, 0, args[0], "grad_scores", LIK_F32, scores, 0) ||
        view_read(argmax, args[1], "argmax", 0))
        return -1;
    if (p->out[0].present && argmax->present && view_is_contiguous(argmax) && argmax->device == p->device &&
        view_count(argmax) == scores * p->op.q.len_max)
        return 0;
    PyErr_Format(PyExc_ValueError, "argmax must be the contiguous one that %s() wrote for this problem",
                 writer);
    return -1;
}

/* The backward pass into p->out[1 ... 3]. */
static int run_backward(struct problem *p, const struct view *argmax, int accumulate)
{
    struct lik_grad op = {.struct_size = sizeof op, .accumulate = accumulate};
    p->op.argmax = argmax->data;
    p->op.argmax_dtype = argmax->dtype;
    op.score = p->op;
    op.grad_scores = p->out[0].data;
    op.grad_q = p->out[1].data;
    op.grad_d = p->out[2].data;
    op.grad_weights = p->out[3].data;
    return run_operation(RUN_GRAD, &op, p->device, grad_work(p));
}

/* grad(*problem, grad_scores, argmax, grad_q or None, grad_d or None, grad_weights or None,
 * accumulate) */
PyObject *native_grad(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    struct view argmax = {0};
    if (expect_arguments("grad", n, FIELDS + 6) || problem_read(&p, args))
        return NULL;
    int failed =
        winners_read(&p, args + FIELDS, &argmax, "score") ||
        output_read(&p, 1, args[FIELDS + 2], "grad_q", p.op.q.dtype, operand_rows(&p.op.q) * p.op.q.dim) ||
        output_read(&p, 2, args[FIELDS + 3], "grad_d", p.op.d.dtype, operand_rows(&p.op.d) * p.op.d.dim) ||
        output_read(&p, 3, args[FIELDS + 4], "grad_weights", LIK_F32, operand_rows(&p.op.q)) ||
        run_backward(&p, &argmax, args[FIELDS + 5] == Py_True);
    view_release(&argmax);
    return finish(&p, failed);
}

PyObject *run_forward(struct problem *p)
{
    int64_t shape[3];
    int axes = problem_axes(p, shape);
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
PyObject *native_forward(PyObject *self, PyObject *const *args, Py_ssize_t n)
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
PyObject *native_backward(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    struct problem p;
    struct view argmax = {0};
    PyObject *grads[3] = {NULL, NULL, NULL}, *result = NULL;
    if (expect_arguments("backward", n, FIELDS + 5) || problem_read(&p, args))
        return NULL;
    if (winners_read(&p, args + FIELDS, &argmax, "forward"))
        goto out_release;
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
    if (!run_backward(&p, &argmax, 0))
        result = PyTuple_Pack(3, grads[0], grads[1], grads[2]);
out_release:
    for (int i = 0; i < 3; i++)
        Py_XDECREF(grads[i]);
    view_release(&argmax);
    problem_release(&p);
    return result;
}

/* merge_topk(values_in [parts, n, k_in], ids_in, k, smallest, values [n, k], ids): CPU only. */
PyObject *native_merge_topk(PyObject *self, PyObject *const *args, Py_ssize_t n)
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
