#include "threads.h"

#include "system.h"

#include <stdatomic.h>
#include <stdlib.h>

#define THREADS_MAX 4096 /* of LIK_THREADS, as for the command */

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
        fork_watch(note_fork);
    /* POSIX lets a data pointer from dlsym be read as a function pointer through its
     * address. */
    *(void **)&torch_get_num_threads = torch_symbol("torch_get_num_threads");
    if (torch_get_num_threads)
        *(void **)&torch_parallel_for = torch_symbol("torch_parallel_for");
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

/* A pool that became too small is left to the end of the process: another thread may be using
 * it. */
int fill_exec(struct lik_exec *exec, int32_t threads)
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
