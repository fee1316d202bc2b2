/* Faults on demand, for Linux and glibc: a library to be preloaded (or linked first) that lets
 * the n-th call of a kind fail, once or from then on, or ends the process before or after it as
 * kill -9 does.
 *
 * LIK_INJECT="KIND N once|ever ACTION" arms it for a whole process, and inject_arm for a part
 * of one. ACTION is an errno, `short` (half of the bytes of a read or write), `before` or
 * `after` (SIGKILL). LIK_INJECT_LOG names a file that gets `hit` when the call was met; with
 * LIK_INJECT=count it gets the calls of each kind when the process ends. */
#define _GNU_SOURCE
#include "inject.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* `system` counts every call of the kinds behind it, in their order: what a kill can come
 * between. */
#define PATHS(X)      X(open) X(rename) X(stat) X(unlink) X(link) X(chmod)
#define FILES(X)      X(read) X(write) X(fsync) X(mmap) X(ftruncate) X(close) X(lock)
#define KINDS(X)      X(memory) X(thread) X(system) PATHS(X) FILES(X)
#define AS_ENUM(name) KIND_##name,
#define AS_TEXT(name) #name,
enum kind { KINDS(AS_ENUM) KIND_COUNT };
static const char *const names[] = {KINDS(AS_TEXT)};

enum { SHORT = -1, BEFORE = -2, AFTER = -3 }; /* actions that are no errno */

static atomic_long calls[KIND_COUNT], hits, live;
static long last;                /* calls that inject_call saw */
static _Thread_local int inside; /* this thread is in inject_call */
static struct {
    int kind; /* -1: nothing is armed */
    long n;
    int ever, action;
    const char *low, *high; /* only calls from code in this range count; NULL: all */
    int one_thread;         /* only calls of threads that are in inject_call count */
    int counts;             /* LIK_INJECT=count */
} armed = {.kind = -1};

static void log_text(const char *text)
{
    const char *path = getenv("LIK_INJECT_LOG");
    long fd = path ? syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0666) : -1;
    if (fd >= 0) {
        syscall(SYS_write, fd, text, strlen(text));
        syscall(SYS_close, fd);
    }
}

static void end(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

/* Counts a call; returns the errno it is to fail with, SHORT, AFTER, or 0. */
static int met(enum kind kind, const void *caller)
{
    if (armed.kind < 0 || (armed.one_thread && !inside) ||
        (armed.low && ((const char *)caller < armed.low || (const char *)caller >= armed.high)))
        return 0;
    long n = atomic_fetch_add(&calls[kind], 1) + 1;
    if (kind > KIND_system) {
        long all = atomic_fetch_add(&calls[KIND_system], 1) + 1;
        n = armed.kind == KIND_system ? all : n;
    }
    if ((armed.kind != (int)kind && !(armed.kind == KIND_system && kind > KIND_system)) ||
        (armed.ever ? n < armed.n : n != armed.n))
        return 0;
    if (!atomic_fetch_add(&hits, 1))
        log_text("hit\n");
    if (armed.action == BEFORE)
        end();
    return armed.action;
}

void inject_arm(const char *kind, long n, int ever, int action)
{
    for (int i = 0; i < KIND_COUNT; i++)
        atomic_store(&calls[i], 0);
    atomic_store(&hits, 0);
    armed.n = n;
    armed.ever = ever;
    armed.action = action;
    for (int i = 0; i < KIND_COUNT; i++)
        if (!strcmp(names[i], kind))
            armed.kind = i;
}

long inject_disarm(void)
{
    long seen = armed.kind < 0 ? 0 : atomic_load(&calls[armed.kind]);
    armed.kind = -1;
    return seen;
}

long inject_hits(void)
{
    return atomic_load(&hits);
}

long inject_live(void)
{
    return atomic_load(&live);
}

void inject_only(const void *low, const void *high)
{
    armed.low = low;
    armed.high = high;
}

void *inject_call(void *callable, void *args, const char *kind, long n, int ever, int action)
{
    void *(*call)(void *, void *, void *);
    *(void **)&call = dlsym(RTLD_DEFAULT, "PyObject_Call");
    armed.one_thread = inside = 1;
    inject_arm(kind, n, ever, action);
    void *result = call(callable, args, NULL);
    last = inject_disarm();
    inside = 0;
    return result;
}

long inject_last(void)
{
    return last;
}

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("LIK_INJECT");
    char kind[16], how[8], action[8];
    long n;
    if (!text)
        return;
    armed.counts = !strcmp(text, "count");
    if (armed.counts)
        inject_arm("memory", 0, 0, 0);
    else if (sscanf(text, "%15s %ld %7s %7s", kind, &n, how, action) == 4)
        inject_arm(kind, n, !strcmp(how, "ever"),
                   !strcmp(action, "short")    ? SHORT
                   : !strcmp(action, "before") ? BEFORE
                   : !strcmp(action, "after")  ? AFTER
                                               : atoi(action));
}

__attribute__((destructor)) static void tell(void)
{
    char line[64];
    for (int i = 0; armed.counts && i < KIND_COUNT; i++) {
        snprintf(line, sizeof line, "%s %ld\n", names[i], atomic_load(&calls[i]));
        log_text(line);
    }
}

#define CALLER __builtin_return_address(0)

/* ---- memory ---- */

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static void *counted(void *memory)
{
    if (memory)
        atomic_fetch_add(&live, 1);
    return memory;
}

/* Non-zero: there is to be no memory. */
static int refused(const void *caller)
{
    int action = met(KIND_memory, caller);
    if (action > 0)
        errno = action;
    return action > 0;
}

void *malloc(size_t bytes)
{
    return refused(CALLER) ? NULL : counted(__libc_malloc(bytes));
}

void *calloc(size_t count, size_t bytes)
{
    return refused(CALLER) ? NULL : counted(__libc_calloc(count, bytes));
}

void *realloc(void *memory, size_t bytes)
{
    if (refused(CALLER))
        return NULL;
    void *moved = __libc_realloc(memory, bytes);
    if (!memory)
        return counted(moved);
    if (!moved && !bytes)
        atomic_fetch_sub(&live, 1);
    return moved;
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return refused(CALLER) ? NULL : counted(__libc_memalign(alignment, bytes));
}

int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    void *memory = refused(CALLER) ? NULL : counted(__libc_memalign(alignment, bytes));
    if (!memory)
        return ENOMEM;
    *out = memory;
    return 0;
}

void free(void *memory)
{
    if (memory)
        atomic_fetch_sub(&live, 1);
    __libc_free(memory);
}

/* ---- threads and system calls ---- */

#define REAL(name, type, parameters) \
    static type(*real) parameters;   \
    if (!real)                       \
        *(void **)&real = dlsym(RTLD_NEXT, name);

#define WRAP(kind, type, name, parameters, arguments) \
    type name parameters                              \
    {                                                 \
        REAL(#name, type, parameters)                 \
        int action = met(KIND_##kind, CALLER);        \
        if (action > 0) {                             \
            errno = action;                           \
            return (type) - 1;                        \
        }                                             \
        type result = real arguments;                 \
        int saved = errno;                            \
        if (action == AFTER)                          \
            end();                                    \
        errno = saved;                                \
        return result;                                \
    }

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg)
{
    REAL("pthread_create", int, (pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))
    int action = met(KIND_thread, CALLER);
    return action > 0 ? action : real(thread, attributes, start, arg);
}

static int open_as(int folder, const char *path, int flags, unsigned mode, const void *caller)
{
    int action = met(KIND_open, caller);
    if (action > 0) {
        errno = action;
        return -1;
    }
    int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
    if (action == AFTER)
        end();
    return fd;
}

static unsigned mode_of(int flags, va_list args)
{
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(args, unsigned) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    unsigned mode = mode_of(flags, args);
    va_end(args);
    return open_as(AT_FDCWD, path, flags, mode, CALLER);
}

int openat(int folder, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    unsigned mode = mode_of(flags, args);
    va_end(args);
    return open_as(folder, path, flags, mode, CALLER);
}

/* At least one byte, so that a short transfer is no end of file. */
static size_t shortened(size_t bytes)
{
    return bytes > 1 ? bytes / 2 : bytes;
}

ssize_t read(int fd, void *to, size_t bytes)
{
    int action = met(KIND_read, CALLER);
    if (action > 0) {
        errno = action;
        return -1;
    }
    ssize_t done = syscall(SYS_read, fd, to, action == SHORT ? shortened(bytes) : bytes);
    if (action == AFTER)
        end();
    return done;
}

ssize_t write(int fd, const void *from, size_t bytes)
{
    int action = met(KIND_write, CALLER);
    if (action > 0) {
        errno = action;
        return -1;
    }
    ssize_t done = syscall(SYS_write, fd, from, action == SHORT ? shortened(bytes) : bytes);
    if (action == AFTER)
        end();
    return done;
}

WRAP(read, ssize_t, pread, (int fd, void *to, size_t bytes, off_t at), (fd, to, bytes, at))
WRAP(write, ssize_t, pwrite, (int fd, const void *from, size_t bytes, off_t at), (fd, from, bytes, at))
WRAP(fsync, int, fsync, (int fd), (fd))
WRAP(rename, int, rename, (const char *from, const char *to), (from, to))
WRAP(mmap, void *, mmap, (void *at, size_t bytes, int access, int flags, int fd, off_t from),
     (at, bytes, access, flags, fd, from))
WRAP(ftruncate, int, ftruncate, (int fd, off_t size), (fd, size))
WRAP(stat, int, stat, (const char *restrict path, struct stat *restrict info), (path, info))
WRAP(stat, int, lstat, (const char *restrict path, struct stat *restrict info), (path, info))
WRAP(stat, int, fstat, (int fd, struct stat *info), (fd, info))
WRAP(close, int, close, (int fd), (fd))
WRAP(unlink, int, unlink, (const char *path), (path))
WRAP(lock, int, flock, (int fd, int operation), (fd, operation))
WRAP(chmod, int, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(chmod, int, fchown, (int fd, uid_t owner, gid_t group), (fd, owner, group))
WRAP(link, int, link, (const char *from, const char *to), (from, to))
WRAP(link, ssize_t, readlink, (const char *restrict path, char *restrict to, size_t bytes), (path, to, bytes))
