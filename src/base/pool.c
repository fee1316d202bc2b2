/* A small explicit thread pool behind lik_pool_*.
 *
 * One job at a time: the caller publishes (task, arg, n), wakes the workers, works itself, and
 * waits until every worker that joined has left. Indices are handed out by one atomic counter.
 * A caller that finds the pool busy (another thread's job, or a task calling back into the
 * pool) runs its job alone, so nothing ever waits for somebody else's work. Workers do not
 * survive fork(): the child recognizes the parent's pool by its process id and runs jobs
 * alone.
 *
 * WebAssembly has no threads that a library could start, and so no pool. */
#ifndef __wasi__
#include "base/error.h"
#include "base/system.h"

#include <stdatomic.h>
#include <stdlib.h>

struct lik_pool {
    int32_t threads;
    int64_t owner; /* lik_process_number of who made it */
    struct lik_thread *workers;
    int32_t worker_count;
    struct lik_lock busy; /* held for the length of a job */
    struct lik_lock lock; /* guards what follows */
    struct lik_event wake, idle;
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

static void worker_main(void *arg)
{
    struct lik_pool *pool = arg;
    uint64_t seen = 0;
    lik_lock_take(&pool->lock);
    for (;;) {
        while (!pool->stop && pool->generation == seen)
            lik_event_wait(&pool->wake, &pool->lock);
        if (pool->stop)
            break;
        seen = pool->generation;
        if (!pool->task) /* the job ended before this worker woke */
            continue;
        pool->inside++;
        void (*task)(void *, int64_t) = pool->task;
        void *task_arg = pool->arg;
        int64_t n = pool->n;
        lik_lock_leave(&pool->lock);
        work(pool, task, task_arg, n);
        lik_lock_take(&pool->lock);
        if (--pool->inside == 0)
            lik_event_wake_one(&pool->idle);
    }
    lik_lock_leave(&pool->lock);
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
    pool->owner = lik_process_number();
    lik_lock_init(&pool->busy);
    lik_lock_init(&pool->lock);
    lik_event_init(&pool->wake);
    lik_event_init(&pool->idle);
    int32_t started = pool->worker_count = lik_threads_start(pool->workers, threads - 1, worker_main, pool);
    if (started < threads - 1) {
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
    if (pool->owner == lik_process_number()) {
        lik_lock_take(&pool->lock);
        pool->stop = 1;
        lik_event_wake_all(&pool->wake);
        lik_lock_leave(&pool->lock);
        lik_threads_join(pool->workers, pool->worker_count);
        lik_event_destroy(&pool->idle);
        lik_event_destroy(&pool->wake);
        lik_lock_destroy(&pool->lock);
        lik_lock_destroy(&pool->busy);
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
    if (n <= 1 || !pool || pool->worker_count == 0 || pool->owner != lik_process_number() ||
        lik_lock_try(&pool->busy)) {
        for (int64_t i = 0; i < n; i++)
            task(arg, i);
        return;
    }
    lik_lock_take(&pool->lock);
    pool->task = task;
    pool->arg = arg;
    pool->n = n;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->generation++;
    lik_event_wake_all(&pool->wake);
    lik_lock_leave(&pool->lock);
    work(pool, task, arg, n);
    lik_lock_take(&pool->lock);
    pool->task = NULL;
    while (pool->inside > 0)
        lik_event_wait(&pool->idle, &pool->lock);
    lik_lock_leave(&pool->lock);
    lik_lock_leave(&pool->busy);
}
#endif
