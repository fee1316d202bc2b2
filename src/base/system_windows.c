/* Threads and memory of Windows; see system.h. */
#ifdef _WIN32
#include "base/system.h"

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <malloc.h>
#include <process.h>
#include <windows.h>

_Static_assert(sizeof(SRWLOCK) == sizeof(struct lik_lock), "a lock is an SRWLOCK");
_Static_assert(sizeof(CONDITION_VARIABLE) == sizeof(struct lik_event), "an event is a CONDITION_VARIABLE");

static SRWLOCK *srw(struct lik_lock *lock)
{
    return (SRWLOCK *)(void *)lock;
}

static CONDITION_VARIABLE *condition(struct lik_event *event)
{
    return (CONDITION_VARIABLE *)(void *)event;
}

void lik_lock_init(struct lik_lock *lock)
{
    InitializeSRWLock(srw(lock));
}

void lik_lock_destroy(struct lik_lock *lock)
{
    (void)lock;
}

void lik_lock_take(struct lik_lock *lock)
{
    AcquireSRWLockExclusive(srw(lock));
}

int lik_lock_try(struct lik_lock *lock)
{
    return !TryAcquireSRWLockExclusive(srw(lock));
}

void lik_lock_leave(struct lik_lock *lock)
{
    ReleaseSRWLockExclusive(srw(lock));
}

void lik_event_init(struct lik_event *event)
{
    InitializeConditionVariable(condition(event));
}

void lik_event_destroy(struct lik_event *event)
{
    (void)event;
}

void lik_event_wait(struct lik_event *event, struct lik_lock *lock)
{
    SleepConditionVariableSRW(condition(event), srw(lock), INFINITE, 0);
}

void lik_event_wake_one(struct lik_event *event)
{
    WakeConditionVariable(condition(event));
}

void lik_event_wake_all(struct lik_event *event)
{
    WakeAllConditionVariable(condition(event));
}

static unsigned __stdcall thread_main(void *arg)
{
    struct lik_thread *thread = arg;
    thread->body(thread->arg);
    return 0;
}

int32_t lik_threads_start(struct lik_thread *threads, int32_t count, void (*body)(void *arg), void *arg)
{
    int32_t started = 0;
    for (; started < count; started++) {
        struct lik_thread *thread = &threads[started];
        thread->body = body;
        thread->arg = arg;
        thread->handle = (void *)_beginthreadex(NULL, 0, thread_main, thread, 0, NULL);
        if (!thread->handle)
            break;
    }
    return started;
}

void lik_threads_join(struct lik_thread *threads, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        WaitForSingleObject(threads[i].handle, INFINITE);
        CloseHandle(threads[i].handle);
    }
}

int64_t lik_process_number(void)
{
    return 0; /* there is no fork */
}

void *lik_aligned_alloc(size_t align, size_t bytes)
{
    return _aligned_malloc(bytes ? bytes : 1, align);
}

void lik_aligned_free(void *memory)
{
    _aligned_free(memory);
}
#endif
