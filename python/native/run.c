#include "run.h"
#include "system.h"
#include "threads.h"

#include <stdio.h>
#include <stdlib.h>

#define DEVICES          64
#define WORK_FOR_THREADS 4e6         /* multiply-adds below which waking threads costs more than it saves */
#define WORKSPACE_KEPT   (64u << 20) /* a thread keeps its workspace up to this size between calls */

struct lender lender;
int (*run_metal)(enum run_verb verb, const void *op);

int run_raise(int status)
{
    PyObject *type = status == LIK_EINVAL         ? PyExc_ValueError
                     : status == LIK_EUNSUPPORTED ? PyExc_NotImplementedError
                     : status == LIK_ENOMEM       ? PyExc_MemoryError
                                                  : PyExc_RuntimeError;
    PyErr_SetString(type, lik_last_error());
    return -1;
}

const struct lik_context *run_context(int32_t device)
{
    static struct lik_context *contexts[DEVICES + 1];
    if (device < -1 || device >= DEVICES) {
        PyErr_Format(PyExc_ValueError, "device index is %d, must be below %d", device, DEVICES);
        return NULL;
    }
    if (contexts[device + 1])
        return contexts[device + 1];
    char name[16] = "cpu";
    if (device >= 0)
        snprintf(name, sizeof name, "cuda:%d", device);
    int status = lik_context_create(name, &contexts[device + 1]);
    if (status)
        run_raise(status);
    return contexts[device + 1];
}

/* Workspace of the calling thread: grows, is reused, and goes with the thread. */
struct scratch {
    const struct lik_context *ctx; /* whose memory it is */
    void *memory;
    size_t bytes;
};

static void scratch_free(void *opaque)
{
    struct scratch *scratch = opaque;
    lik_memory_free(scratch->ctx, scratch->memory);
    free(scratch);
}

/* The calling thread's, or NULL without memory. */
static struct scratch *scratch_of_thread(const struct lik_context *ctx)
{
    struct scratch *scratch = own_get();
    if (!scratch) {
        scratch = calloc(1, sizeof *scratch);
        if (!scratch || own_set(scratch, scratch_free)) {
            free(scratch);
            return NULL;
        }
        scratch->ctx = ctx;
    }
    return scratch;
}

static void scratch_resize(struct scratch *scratch, size_t bytes)
{
    lik_memory_free(scratch->ctx, scratch->memory);
    scratch->memory = NULL;
    scratch->bytes = (bytes + 4095) & ~(size_t)4095;
    /* which says how it went where a failed run has said why: nothing is asked for nothing */
    if (bytes && lik_memory_alloc(scratch->ctx, scratch->bytes, &scratch->memory))
        scratch->bytes = 0;
}

static int plan_of(enum run_verb verb, const struct lik_context *ctx, const void *op,
                   const struct lik_exec *exec, struct lik_plan *plan)
{
    switch (verb) {
    case RUN_SCORE: return lik_score_plan(ctx, op, exec, plan);
    case RUN_TOPK: return lik_topk_plan(ctx, op, exec, plan);
    case RUN_GRAD: return lik_grad_plan(ctx, op, exec, plan);
    case RUN_DECODE: return lik_decode_plan(ctx, op, exec, plan);
    case RUN_ENCODE: return lik_encode_plan(ctx, op, exec, plan);
    case RUN_TRAIN: return lik_train_plan(ctx, op, exec, plan);
    default: return lik_quantize_plan(ctx, op, exec, plan);
    }
}

static int run_of(enum run_verb verb, const struct lik_context *ctx, const void *op,
                  const struct lik_exec *exec)
{
    switch (verb) {
    case RUN_SCORE: return lik_score_run(ctx, op, exec);
    case RUN_TOPK: return lik_topk_run(ctx, op, exec);
    case RUN_GRAD: return lik_grad_run(ctx, op, exec);
    case RUN_DECODE: return lik_decode_run(ctx, op, exec);
    case RUN_ENCODE: return lik_encode_run(ctx, op, exec);
    case RUN_TRAIN: return lik_train_run(ctx, op, exec);
    default: return lik_quantize_run(ctx, op, exec);
    }
}

/* CUDA: the stream torch is on. */
static int borrow_stream(struct lik_exec *exec, int32_t device)
{
    if (!lender.stream) {
        PyErr_SetString(PyExc_RuntimeError,
                        "CUDA tensors need torch, which is not registered in this process");
        return -1;
    }
    PyObject *handle = PyObject_CallFunction(lender.stream, "i", device);
    if (!handle)
        return -1;
    exec->stream = PyLong_AsVoidPtr(handle);
    Py_DECREF(handle);
    return PyErr_Occurred() ? -1 : 0;
}

/* Memory of torch's caching allocator, which may be reused as soon as the work is queued; lent
 * while the call runs without the GIL. */
struct loan {
    PyThreadState *state;
    struct dl_managed *managed;
    PyObject *pair;
    int32_t device;
};

/* lik_exec's get_workspace on CUDA: NULL with a Python exception. */
static void *borrow_workspace(void *lent, size_t bytes)
{
    struct loan *loan = lent;
    PyEval_RestoreThread(loan->state);
    void *memory = view_borrow_memory(lender.type, loan->device, bytes, &loan->managed);
    if (!loan->managed && !PyErr_Occurred()) {
        loan->pair = PyObject_CallFunction(lender.workspace, "in", loan->device, (Py_ssize_t)bytes);
        memory = loan->pair ? PyLong_AsVoidPtr(PyTuple_GetItem(loan->pair, 1)) : NULL;
    }
    int failed = PyErr_Occurred() != NULL;
    loan->state = PyEval_SaveThread();
    return failed ? NULL : memory;
}

static int run_cuda(enum run_verb verb, const struct lik_context *ctx, const void *op, int32_t device)
{
    struct loan loan = {.device = device};
    struct lik_exec exec = {.struct_size = sizeof exec, .get_workspace = borrow_workspace, .lender = &loan};
    if (borrow_stream(&exec, device))
        return -1;
    loan.state = PyEval_SaveThread();
    int status = run_of(verb, ctx, op, &exec);
    PyEval_RestoreThread(loan.state);
    view_return_memory(loan.managed);
    Py_XDECREF(loan.pair);
    if (PyErr_Occurred()) /* the lender's own tells more than that there was no workspace */
        return -1;
    return status ? run_raise(status) : 0;
}

/* lik_exec's get_workspace on a CPU: the calling thread's, grown. */
static void *grow_scratch(void *lent, size_t bytes)
{
    struct scratch *scratch = lent;
    scratch_resize(scratch, bytes);
    return scratch->memory;
}

static int run_cpu(enum run_verb verb, const struct lik_context *ctx, const void *op, struct lik_exec *exec,
                   struct scratch *scratch)
{
    exec->workspace = scratch->memory;
    exec->workspace_bytes = scratch->bytes;
    exec->get_workspace = grow_scratch;
    exec->lender = scratch;
    int status = run_of(verb, ctx, op, exec);
    if (scratch->bytes > WORKSPACE_KEPT)
        scratch_resize(scratch, 0);
    return status;
}

int run_workspace_bytes(enum run_verb verb, const void *op, int32_t device, size_t *bytes)
{
    const struct lik_context *ctx = run_context(device);
    struct lik_plan plan = {.struct_size = sizeof plan};
    int status = ctx ? plan_of(verb, ctx, op, NULL, &plan) : LIK_EDEVICE;
    *bytes = plan.workspace_bytes;
    return !ctx ? -1 : status ? run_raise(status) : 0;
}

int run_operation(enum run_verb verb, const void *op, int32_t device, double work)
{
    if (device == RUN_METAL && run_metal)
        return run_metal(verb, op);
    const struct lik_context *ctx = run_context(device);
    if (!ctx)
        return -1;
    if (device >= 0)
        return run_cuda(verb, ctx, op, device);
    struct lik_exec exec = {0};
    if (fill_exec(&exec, work > WORK_FOR_THREADS ? run_threads() : 1))
        return -1;
    struct scratch *scratch = scratch_of_thread(ctx);
    if (!scratch) {
        PyErr_NoMemory();
        return -1;
    }
    PyThreadState *state = PyEval_SaveThread();
    int status = run_cpu(verb, ctx, op, &exec, scratch);
    PyEval_RestoreThread(state);
    if (status == LIK_ENOMEM) {
        PyErr_NoMemory();
        return -1;
    }
    return status ? run_raise(status) : 0;
}
