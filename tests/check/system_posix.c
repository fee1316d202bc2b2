/* See system.h. */
#if !defined(_WIN32) && !defined(__wasi__)
#include "check.h"
#include "system.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif
#include <sys/wait.h>
#include <unistd.h>

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

#if defined(__SANITIZE_THREAD__)
#define HAS_FORK 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HAS_FORK 0
#endif
#endif
#ifndef HAS_FORK
#define HAS_FORK 1
#endif

size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

void *pages_map(size_t bytes)
{
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return map == MAP_FAILED ? NULL : map;
}

int pages_protect(void *at, size_t bytes, enum access access)
{
    return mprotect(at, bytes, access == PAGES_READ ? PROT_READ : PROT_NONE);
}

void pages_unmap(void *at, size_t bytes)
{
    munmap(at, bytes);
}

struct spawned {
    void (*body)(void *arg);
    void *arg;
};

static void *spawned_main(void *opaque)
{
    struct spawned *s = opaque;
    s->body(s->arg);
    return NULL;
}

void threads_run(int64_t count, void (*body)(void *arg), void *all, size_t step)
{
    enum { MOST = 16 };
    pthread_t threads[MOST];
    struct spawned each[MOST];
    if (count > MOST)
        exit(2);
    for (int64_t i = 0; i < count; i++) {
        each[i] = (struct spawned){body, (char *)all + (size_t)i * step};
        if (pthread_create(&threads[i], NULL, spawned_main, &each[i]))
            exit(2);
    }
    for (int64_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

int fork_run(int (*body)(void *arg), void *arg)
{
    if (!HAS_FORK)
        return 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        _exit(body(arg));
    }
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void environment_set(const char *name, const char *value)
{
    if (value ? setenv(name, value, 1) : unsetenv(name))
        exit(2);
}

int amx_is_allowed(void)
{
#if defined(__linux__) && defined(SYS_arch_prctl)
    return !syscall(SYS_arch_prctl, 0x1023, 18);
#else
    return 0;
#endif
}

static struct sigaction before_fault[2];
static void (*printer)(void);

static void on_fault(int number)
{
    printer();
    /* returning repeats the access, now with this handler */
    sigaction(number, &before_fault[number == SIGBUS], NULL);
}

void faults_catch(void (*print_fault)(void))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_fault;
    printer = print_fault;
    sigaction(SIGSEGV, &action, &before_fault[0]);
    sigaction(SIGBUS, &action, &before_fault[1]);
}
#endif
