#include "run.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

#define DEVICES          64
#define THREADS_MAX      4096        /* of LIK_THREADS, as for the command */
#define WORK_FOR_THREADS 4e6         /* multiply-adds below which waking threads costs more than it saves */
#define WORKSPACE_KEPT   (64u << 20) /* a thread keeps its workspace up to this size between calls */

struct lender lender;

static int (*torch_parallel_for)(int64_t, int64_t, int64_t, void (*)(int64_t, int64_t, void *), void *);
static int (*torch_get_num_threads)(uint32_t *);
static struct lik_pool *own_pool;
static atomic_int forked; /* thread pools of the parent do not exist in the child: run alone */

static void note_fork(void)
{
    atomic_store(&forked, 1);
}

void run_find_torch_pool(void)
{
    static int registered;
    if (!registered++)
        pthread_atfork(NULL, NULL, note_fork);
    void *handle = dlopen("libtorch_cpu.so", RTLD_NOLOAD | RTLD_NOW);
    if (!handle)
        handle = dlopen("libtorch_cpu.dylib", RTLD_NOLOAD | RTLD_NOW);
    if (!handle)
        return;
    /* POSIX lets a data pointer from dlsym be read as a function pointer through its
     * address. */
    *(void **)&torch_get_num_threads = dlsym(handle, "torch_get_num_threads");
    if (torch_get_num_threads)
        *(void **)&torch_parallel_for = dlsym(handle, "torch_parallel_for");
}

static int32_t processors(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (int32_t)n;
}

/* LIK_THREADS, or 0. Read at every call so that it can be changed; the caller holds the GIL, as
 * os.environ's writers do. A value that says nothing gets one warning; -1 where that is an
 * exception. */
static int32_t threads_asked(void)
{
    static int warned;
    const char *text = getenv("LIK_THREADS");
    if (!text || !*text)
        return 0;
    char *end;
    long n = strtol(text, &end, 10);
    if (*end == 0 && n >= 1 && n <= THREADS_MAX)
        return (int32_t)n;
    static const char warning[] =
        "late-interaction-kernels: LIK_THREADS is '%.40s', must be a whole number from 1 to "
        "%d; it is ignored";
    if (!warned && PyErr_WarnFormat(PyExc_RuntimeWarning, 1, warning, text, THREADS_MAX))
        return -1;
    warned = 1;
    return 0;
}

int32_t run_threads(void)
{
    int32_t asked = threads_asked();
    if (asked < 0)
        return -1;
    if (atomic_load_explicit(&forked, memory_order_relaxed))
        return 1;
    if (torch_parallel_for) {
        uint32_t n = 1;
        if (torch_get_num_threads(&n) || n < 1)
            n = 1;
        return asked && asked < (int32_t)n ? asked : (int32_t)n;
    }
    return asked ? asked : processors();
}

/* One job: `members` threads draw task numbers from one counter, so that uneven tasks balance
 * and a pool that is larger than asked for is not used in full. */
struct job {
    void (*task)(void *arg, int64_t i);
    void *arg;
    int64_t n;
    atomic_llong next;
};

static void job_member(struct job *job)
{
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
        if (i >= job->n)
            return;
        job->task(job->arg, i);
    }
}

static void torch_member(int64_t begin, int64_t end, void *job)
{
    (void)begin;
    (void)end;
    job_member(job);
}

static void pool_member(void *job, int64_t i)
{
    (void)i;
    job_member(job);
}

/* lik_exec's parallel_for; `pool` carries the number of members. */
static void parallel_for(void *pool, int64_t n, void (*task)(void *arg, int64_t i), void *arg)
{
    struct job job = {.task = task, .arg = arg, .n = n};
    int64_t members = (intptr_t)pool < n ? (intptr_t)pool : n;
    atomic_init(&job.next, 0);
    if (members > 1 && torch_parallel_for)
        torch_parallel_for(0, members, 1, torch_member, &job);
    else if (members > 1)
        lik_pool_parallel_for(own_pool, members, pool_member, &job);
    job_member(&job); /* what is left: everything when there is one member, nothing otherwise */
}

/* Holds the GIL. -1 with an exception. A pool that became too small is left to the end of the
 * process:
 * another thread may be using it. */
static int fill_exec(struct lik_exec *exec, int32_t threads)
{
    exec->struct_size = sizeof *exec;
    exec->threads = 1;
    if (threads <= 1)
        return threads < 0 ? -1 : 0;
    if (!torch_parallel_for && lik_pool_threads(own_pool) < threads) {
        struct lik_pool *made;
        if (lik_pool_create(threads, &made))
            return 0;
        own_pool = made;
    }
    exec->parallel_for = parallel_for;
    exec->pool = (void *)(intptr_t)threads;
    exec->threads = threads;
    return 0;
}

int run_parallel(int64_t n, void (*task)(void *arg, int64_t i), void *arg)
{
    struct lik_exec exec = {0};
    if (fill_exec(&exec, n > 1 ? run_threads() : 1))
        return -1;
    PyThreadState *state = PyEval_SaveThread();
    if (exec.parallel_for)
        exec.parallel_for(exec.pool, n, task, arg);
    else
        for (int64_t i = 0; i < n; i++)
            task(arg, i);
    PyEval_RestoreThread(state);
    return 0;
}

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
    void *memory;
    size_t bytes;
};

static pthread_key_t scratch_key;
static int scratch_keyless; /* there was no key left for it */
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void scratch_free(void *opaque)
{
    struct scratch *scratch = opaque;
    free(scratch->memory);
    free(scratch);
}

static void scratch_init(void)
{
    scratch_keyless = pthread_key_create(&scratch_key, scratch_free);
}

/* The calling thread's, or NULL without memory. */
static struct scratch *scratch_of_thread(void)
{
    pthread_once(&scratch_once, scratch_init);
    if (scratch_keyless)
        return NULL;
    struct scratch *scratch = pthread_getspecific(scratch_key);
    if (!scratch) {
        scratch = calloc(1, sizeof *scratch);
        if (!scratch || pthread_setspecific(scratch_key, scratch)) {
            free(scratch);
            return NULL;
        }
    }
    return scratch;
}

static void scratch_resize(struct scratch *scratch, size_t bytes)
{
    free(scratch->memory);
    scratch->memory = NULL;
    scratch->bytes = (bytes + 4095) & ~(size_t)4095;
    if (bytes == 0 || posix_memalign(&scratch->memory, 64, scratch->bytes))
        scratch->bytes = 0;
}

static int plan_of(enum run_verb verb, const struct lik_context *ctx, const void *op,
                   const struct lik_exec *exec, struct lik_plan *plan)
{
    switch (verb) {
    case RUN_SCORE: return lik_score_plan(ctx, op, exec, plan);
    case RUN_TOPK: return lik_topk_plan(ctx, op, exec, plan);
    default: return lik_grad_plan(ctx, op, exec, plan);
    }
}

static int run_of(enum run_verb verb, const struct lik_context *ctx, const void *op,
                  const struct lik_exec *exec)
{
    switch (verb) {
    case RUN_SCORE: return lik_score_run(ctx, op, exec);
    case RUN_TOPK: return lik_topk_run(ctx, op, exec);
    default: return lik_grad_run(ctx, op, exec);
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

static int run_cpu(enum run_verb verb, const struct lik_context *ctx, const void *op, struct lik_exec *exec)
{
    struct scratch *scratch = scratch_of_thread();
    if (!scratch)
        return LIK_ENOMEM;
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
    const struct lik_context *ctx = run_context(device);
    if (!ctx)
        return -1;
    if (device >= 0)
        return run_cuda(verb, ctx, op, device);
    struct lik_exec exec = {0};
    if (fill_exec(&exec, work > WORK_FOR_THREADS ? run_threads() : 1))
        return -1;
    PyThreadState *state = PyEval_SaveThread();
    int status = run_cpu(verb, ctx, op, &exec);
    PyEval_RestoreThread(state);
    if (status == LIK_ENOMEM) {
        PyErr_NoMemory();
        return -1;
    }
    return status ? run_raise(status) : 0;
}
