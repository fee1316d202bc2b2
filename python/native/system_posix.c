/* See system.h. */
#ifndef _WIN32
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "system.h"

#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

static pthread_key_t key;
static int key_state; /* 0: not made yet, 1: made, -1: there was none left */

void *own_get(void)
{
    return key_state > 0 ? pthread_getspecific(key) : NULL;
}

int own_set(void *value, void (*end)(void *value))
{
    if (!key_state)
        key_state = pthread_key_create(&key, end) ? -1 : 1;
    return key_state > 0 && !pthread_setspecific(key, value) ? 0 : -1;
}

void fork_watch(void (*in_child)(void))
{
    pthread_atfork(NULL, NULL, in_child);
}

void *torch_symbol(const char *name)
{
    void *handle = dlopen("libtorch_cpu.so", RTLD_NOLOAD | RTLD_NOW);
    if (!handle)
        handle = dlopen("libtorch_cpu.dylib", RTLD_NOLOAD | RTLD_NOW);
    return handle ? dlsym(handle, name) : NULL;
}

int32_t processors(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (int32_t)n;
}
#endif
