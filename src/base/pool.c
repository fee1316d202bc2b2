/* A small explicit thread pool behind lik_pool_*.
 *
 * One job at a time: the caller publishes (task, arg, n), wakes the workers, works itself, and
 * waits until every worker that joined has left. Indices are handed out by one atomic counter.
 * A caller that finds the pool busy (another thread's job, or a task calling back into the
 * pool) runs its job alone, so nothing ever waits for somebody else's work. Workers do not
 * survive fork(): the child recognizes the parent's pool by its process id and runs jobs
 * alone. */
#include "base/error.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

struct lik_pool {
    int32_t threads;
    pid_t owner;
    pthread_t *workers;
    int32_t worker_count;
    pthread_mutex_t busy; /* held for the length of a job */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake, idle;
    uint64_t generation;
    int32_t inside; /* workers on the current job */
    int stop;
    void (*task)(void *, int64_t);
    void *arg;
    int64_t n;
    atomic_llong next;
};

static void work(struct lik_pool *pool, void (*task)(void *, int64_t), void *arg, int64_t n)
{
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (i >= n)
            return;
        task(arg, i);
    }
}

static void *worker_main(void *arg)
{
    struct lik_pool *pool = arg;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->stop && pool->generation == seen)
            pthread_cond_wait(&pool->wake, &pool->lock);
        if (pool->stop)
            break;
        seen = pool->generation;
        if (!pool->task) /* the job ended before this worker woke */
            continue;
        pool->inside++;
        void (*task)(void *, int64_t) = pool->task;
        void *task_arg = pool->arg;
        int64_t n = pool->n;
        pthread_mutex_unlock(&pool->lock);
        work(pool, task, task_arg, n);
        pthread_mutex_lock(&pool->lock);
        if (--pool->inside == 0)
            pthread_cond_signal(&pool->idle);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Starts the workers, with the process's signals blocked: those are for threads of the caller,
 * which may hold them back for a while. What a thread does to itself (a bad access, a mapped
 * file cut short) still arrives. */
static int start_workers(struct lik_pool *pool)
{
    static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF};
    sigset_t blocked, before;
    int failed = 0;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&blocked, own[i]);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    while (pool->worker_count < pool->threads - 1 && !failed) {
        failed = pthread_create(&pool->workers[pool->worker_count], NULL, worker_main, pool);
        pool->worker_count += !failed;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

int lik_pool_create(int32_t threads, struct lik_pool **out)
{
    if (!out)
        return lik_fail(LIK_EINVAL, "out is NULL");
    *out = NULL;
    if (threads < 1 || threads > 4096)
        return lik_fail(LIK_EINVAL, "threads is %d, must be 1 to 4096", threads);
    struct lik_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return lik_fail(LIK_ENOMEM, "no memory for a thread pool");
    pool->workers = calloc((size_t)threads, sizeof *pool->workers);
    if (!pool->workers) {
        free(pool);
        return lik_fail(LIK_ENOMEM, "no memory for a pool of %d threads", threads);
    }
    pool->threads = threads;
    pool->owner = getpid();
    pthread_mutex_init(&pool->busy, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->idle, NULL);
    if (start_workers(pool)) {
        int32_t started = pool->worker_count;
        lik_pool_destroy(pool);
        return lik_fail(LIK_ENOMEM, "no memory, or no threads: could start %d of %d", started + 1, threads);
    }
    *out = pool;
    return lik_succeed();
}

void lik_pool_destroy(struct lik_pool *pool)
{
    if (!pool)
        return;
    if (pool->owner == getpid()) {
        pthread_mutex_lock(&pool->lock);
        pool->stop = 1;
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
        for (int32_t i = 0; i < pool->worker_count; i++)
            pthread_join(pool->workers[i], NULL);
        pthread_cond_destroy(&pool->idle);
        pthread_cond_destroy(&pool->wake);
        pthread_mutex_destroy(&pool->lock);
        pthread_mutex_destroy(&pool->busy);
    }
    free(pool->workers);
    free(pool);
}

int32_t lik_pool_threads(const struct lik_pool *pool)
{
    return pool ? pool->threads : 1;
}

void lik_pool_parallel_for(void *opaque, int64_t n, void (*task)(void *arg, int64_t i), void *arg)
{
    struct lik_pool *pool = opaque;
    if (n <= 1 || !pool || pool->worker_count == 0 || pool->owner != getpid() ||
        pthread_mutex_trylock(&pool->busy)) {
        for (int64_t i = 0; i < n; i++)
            task(arg, i);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->task = task;
    pool->arg = arg;
    pool->n = n;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->generation++;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    work(pool, task, arg, n);
    pthread_mutex_lock(&pool->lock);
    pool->task = NULL;
    while (pool->inside > 0)
        pthread_cond_wait(&pool->idle, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    pthread_mutex_unlock(&pool->busy);
}
