/* Tensors on Apple GPUs: the library plans, torch runs what it planned on its own queue.
 *
 * Their memory cannot be addressed from here. The Python side hands views whose addresses only
 * it can resolve, on the device RUN_METAL; an operation on them becomes a list of dispatches
 * with such addresses, and a registered callable carries them out. */
#include "entries.h"
#include "run.h"

#ifdef LIK_WITH_METAL
#include "metal/plan.h"

extern const char lik_metal_source[];

#define WORKSPACE ((uintptr_t)1 << 62) /* where the workspace begins, in addresses of nothing */

static PyObject *carry_out; /* callable: (dispatches, bytes of workspace) */

/* What becomes a call of `carry_out`. */
struct record {
    PyObject *dispatches;
    size_t workspace_bytes;
};

static void *lend_nothing(void *to, size_t bytes)
{
    struct record *record = to;
    record->workspace_bytes = bytes;
    return (void *)WORKSPACE;
}

/* A tuple of n integers, from the 64-bit words at `words`. */
static PyObject *integers(const int64_t *words, Py_ssize_t n)
{
    PyObject *tuple = PyTuple_New(n);
    for (Py_ssize_t i = 0; tuple && i < n; i++) {
        PyObject *word = PyLong_FromLongLong(words[i]);
        if (!word || PyTuple_SetItem(tuple, i, word))
            Py_CLEAR(tuple);
    }
    return tuple;
}

/* (kernel, threadgroups, arguments, addresses by buffer, 0 = none) */
static int record_dispatch(void *host, const struct lik_metal_dispatch *dispatch)
{
    struct record *record = host;
    const struct lik_metal_kernel *kernel = &lik_metal_kernels[dispatch->kernel];
    int64_t addresses[LIK_METAL_BUFFERS] = {0};
    Py_ssize_t used = 1;
    for (int n = 1; n < LIK_METAL_BUFFERS; n++)
        if (kernel->buffers >> n & 1) {
            addresses[n] = (int64_t)(intptr_t)dispatch->buffers[n];
            used = n + 1;
        }
    PyObject *args = integers(dispatch->args, kernel->args_bytes / 8), *at = integers(addresses, used);
    PyObject *entry = args && at
                          ? Py_BuildValue("(sLOO)", kernel->name, (long long)dispatch->threadgroups, args, at)
                          : NULL;
    int failed = !entry || PyList_Append(record->dispatches, entry);
    Py_XDECREF(args);
    Py_XDECREF(at);
    Py_XDECREF(entry);
    return failed ? LIK_ENOMEM : LIK_OK; /* with a Python exception */
}

static const struct lik_context *queue_context(void)
{
    static struct lik_context *context;
    int status = context ? LIK_OK : lik_context_create("metal:queue", &context);
    if (status)
        run_raise(status);
    return context;
}

static int plan(enum run_verb verb, const void *op, struct record *record)
{
    const struct lik_context *ctx = queue_context();
    struct lik_metal_queue queue = {record_dispatch, record};
    struct lik_exec exec = {
        .struct_size = sizeof exec, .stream = &queue, .get_workspace = lend_nothing, .lender = record};
    if (!ctx)
        return -1;
    int status = verb == RUN_SCORE  ? lik_score_run(ctx, op, &exec)
                 : verb == RUN_TOPK ? lik_topk_run(ctx, op, &exec)
                 : verb == RUN_GRAD ? lik_grad_run(ctx, op, &exec)
                                    : LIK_EUNSUPPORTED;
    if (PyErr_Occurred())
        return -1;
    return status ? run_raise(status) : 0;
}

static int run(enum run_verb verb, const void *op)
{
    struct record record = {.dispatches = PyList_New(0)};
    PyObject *done = NULL;
    if (record.dispatches && !plan(verb, op, &record))
        done = PyObject_CallFunction(carry_out, "On", record.dispatches, (Py_ssize_t)record.workspace_bytes);
    Py_XDECREF(record.dispatches);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* register_metal(carry_out) -> (the kernels' source, threads of a threadgroup, where the
 * workspace's addresses begin) */
PyObject *native_register_metal(PyObject *self, PyObject *callable)
{
    (void)self;
    PyObject *before = carry_out;
    carry_out = Py_NewRef(callable);
    Py_XDECREF(before);
    run_metal = run;
    return Py_BuildValue("(siK)", lik_metal_source, LIK_METAL_THREADS, (unsigned long long)WORKSPACE);
}

#else

/* register_metal(carry_out) -> None: there are no kernels */
PyObject *native_register_metal(PyObject *self, PyObject *callable)
{
    (void)self, (void)callable;
    Py_RETURN_NONE;
}

#endif

/* metal_device() -> (name, hardware) of the first Metal device; RuntimeError says why there is
 * none */
PyObject *native_metal_device(PyObject *self, PyObject *none)
{
    struct lik_context *context;
    (void)self, (void)none;
    int status = lik_context_create("metal", &context);
    if (status) {
        PyErr_SetString(PyExc_RuntimeError, lik_last_error());
        return NULL;
    }
    PyObject *names = Py_BuildValue("(ss)", lik_context_name(context), lik_context_hardware(context));
    lik_context_destroy(context);
    return names;
}
