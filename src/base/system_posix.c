/* Threads and memory of POSIX systems; see system.h. */
#if !defined(_WIN32) && !defined(__wasi__)
#include "base/system.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

/* What a thread is given: some C libraries (musl) have 128 KB, which a kernel of the widest
 * panels and a caller's scheduler together might come near to. */
#define STACK_BYTES ((size_t)1 << 20)

void lik_lock_init(struct lik_lock *lock)
{
    pthread_mutex_init(&lock->mutex, NULL);
}

void lik_lock_destroy(struct lik_lock *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

void lik_lock_take(struct lik_lock *lock)
{
    pthread_mutex_lock(&lock->mutex);
}

int lik_lock_try(struct lik_lock *lock)
{
    return pthread_mutex_trylock(&lock->mutex);
}

void lik_lock_leave(struct lik_lock *lock)
{
    pthread_mutex_unlock(&lock->mutex);
}

void lik_event_init(struct lik_event *event)
{
    pthread_cond_init(&event->condition, NULL);
}

void lik_event_destroy(struct lik_event *event)
{
    pthread_cond_destroy(&event->condition);
}

void lik_event_wait(struct lik_event *event, struct lik_lock *lock)
{
    pthread_cond_wait(&event->condition, &lock->mutex);
}

void lik_event_wake_one(struct lik_event *event)
{
    pthread_cond_signal(&event->condition);
}

void lik_event_wake_all(struct lik_event *event)
{
    pthread_cond_broadcast(&event->condition);
}

static void *thread_main(void *arg)
{
    struct lik_thread *thread = arg;
    thread->body(thread->arg);
    return NULL;
}

int32_t lik_threads_start(struct lik_thread *threads, int32_t count, void (*body)(void *arg), void *arg)
{
    static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF};
    sigset_t blocked, before;
    pthread_attr_t attributes, *chosen = NULL;
    size_t stack = 0;
    int32_t started = 0;
    if (!pthread_attr_init(&attributes)) {
        chosen = &attributes;
        if (!pthread_attr_getstacksize(chosen, &stack) && stack < STACK_BYTES)
            pthread_attr_setstacksize(chosen, STACK_BYTES);
    }
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&blocked, own[i]);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    for (; started < count; started++) {
        struct lik_thread *thread = &threads[started];
        thread->body = body;
        thread->arg = arg;
        if (pthread_create(&thread->id, chosen, thread_main, thread))
            break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (chosen)
        pthread_attr_destroy(chosen);
    return started;
}

void lik_threads_join(struct lik_thread *threads, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        pthread_join(threads[i].id, NULL);
}

int64_t lik_process_number(void)
{
    return getpid();
}

void *lik_aligned_alloc(size_t align, size_t bytes)
{
    size_t whole = (bytes + align - 1) & ~(align - 1); /* aligned_alloc takes multiples alone */
    return whole < bytes ? NULL : aligned_alloc(align, whole);
}

void lik_aligned_free(void *memory)
{
    free(memory);
}
#endif
