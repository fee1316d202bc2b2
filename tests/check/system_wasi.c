/* See system.h, and what the suite otherwise takes from io/system.h. WebAssembly has neither
 * pages that fault, nor threads, nor processes: what is written beside a buffer is found, what
 * is read there is not; tasks run one after another. */
#ifdef __wasi__
#include "check.h"
#include "system.h"

#include "io/system.h"

#include <time.h>
#include <unistd.h>

size_t page_bytes(void)
{
    return 4096;
}

void *pages_map(size_t bytes)
{
    void *pages = bytes > (size_t)1 << 30 ? NULL : aligned_alloc(4096, bytes);
    return pages ? memset(pages, 0, bytes) : NULL;
}

int pages_protect(void *at, size_t bytes, enum access access)
{
    (void)at, (void)bytes, (void)access;
    return 0;
}

void pages_unmap(void *at, size_t bytes)
{
    (void)bytes;
    free(at);
}

void threads_run(int64_t count, void (*body)(void *arg), void *all, size_t step)
{
    for (int64_t i = 0; i < count; i++)
        body((char *)all + (size_t)i * step);
}

int fork_run(int (*body)(void *arg), void *arg)
{
    (void)body, (void)arg;
    return 0;
}

void environment_set(const char *name, const char *value)
{
    if (value ? setenv(name, value, 1) : unsetenv(name))
        exit(2);
}

int amx_is_allowed(void)
{
    return 0;
}

void faults_catch(void (*print_fault)(void))
{
    (void)print_fault;
}

double lik_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int64_t lik_file_write(int fd, const void *from, int64_t bytes)
{
    return write(fd, from, (size_t)bytes);
}

/* The library has no pool here: the suite's runs as many tasks as there are, last first. */
struct lik_pool {
    int32_t threads;
};

int lik_pool_create(int32_t threads, struct lik_pool **out)
{
    *out = malloc(sizeof **out);
    if (!*out)
        exit(2);
    (*out)->threads = threads;
    return LIK_OK;
}

void lik_pool_destroy(struct lik_pool *pool)
{
    free(pool);
}

int32_t lik_pool_threads(const struct lik_pool *pool)
{
    return pool ? pool->threads : 1;
}

void lik_pool_parallel_for(void *opaque, int64_t n, void (*task)(void *arg, int64_t i), void *arg)
{
    (void)opaque;
    while (n-- > 0)
        task(arg, n);
}
#endif
