/* What the library needs of an operating system: threads, and memory at an alignment. One file
 * a system, system_posix.c, system_windows.c and system_wasi.c, which has no threads. */
#ifndef LIK_BASE_SYSTEM_H
#define LIK_BASE_SYSTEM_H

#include <stddef.h>
#include <stdint.h>
#ifndef __wasi__
#ifndef _WIN32
#include <pthread.h>
#endif

struct lik_lock {
#ifdef _WIN32
    void *word; /* an SRWLOCK */
#else
    pthread_mutex_t mutex;
#endif
};

/* What threads wait for under a lock. */
struct lik_event {
#ifdef _WIN32
    void *word; /* a CONDITION_VARIABLE */
#else
    pthread_cond_t condition;
#endif
};

struct lik_thread {
    void (*body)(void *arg);
    void *arg;
#ifdef _WIN32
    void *handle;
#else
    pthread_t id;
#endif
};

void lik_lock_init(struct lik_lock *lock);
void lik_lock_destroy(struct lik_lock *lock);
void lik_lock_take(struct lik_lock *lock);
int lik_lock_try(struct lik_lock *lock); /* 0: taken */
void lik_lock_leave(struct lik_lock *lock);

void lik_event_init(struct lik_event *event);
void lik_event_destroy(struct lik_event *event);
void lik_event_wait(struct lik_event *event, struct lik_lock *lock); /* may return without cause */
void lik_event_wake_one(struct lik_event *event);
void lik_event_wake_all(struct lik_event *event);

/* Starts up to `count` threads that run body(arg), and returns how many there are. They hold
 * the process's signals back: those are for threads of the caller, which may do so too. What a
 * thread does to itself (a bad access, a mapped file cut short) still arrives. */
int32_t lik_threads_start(struct lik_thread *threads, int32_t count, void (*body)(void *arg), void *arg);
void lik_threads_join(struct lik_thread *threads, int32_t count);

/* Changes in the child of a fork, where there is such a thing. */
int64_t lik_process_number(void);
#endif

/* `align` is a power of two; NULL without memory. */
void *lik_aligned_alloc(size_t align, size_t bytes);
void lik_aligned_free(void *memory);

#endif
