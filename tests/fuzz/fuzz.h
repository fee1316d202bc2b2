/* What the fuzz targets share: files in memory, and ends of the program that come back. */
#ifndef LIK_FUZZ_H
#define LIK_FUZZ_H

#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* A file in memory that can be opened by name; the data are read from /proc/self/fd. The caller
 * closes *fd. */
static inline void fuzz_file(const uint8_t *data, size_t size, char path[64], int *fd)
{
    *fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (*fd < 0 || (size && write(*fd, data, size) != (ssize_t)size))
        abort();
    snprintf(path, 64, "/proc/self/fd/%d", *fd);
}

#ifdef LIK_FUZZ_EXIT /* the target's flags are -Wl,--wrap=exit */
void __real_exit(int code) __attribute__((noreturn));
void __wrap_exit(int code) __attribute__((noreturn));

static jmp_buf fuzz_back;
static int fuzz_runs, fuzz_code;

void __wrap_exit(int code)
{
    fuzz_code = code;
    if (fuzz_runs)
        longjmp(fuzz_back, 1);
    __real_exit(code);
}

/* Calls `function`, which may end the program; returns the exit code, 0 if it does not. */
static inline int fuzz_call(void (*function)(void *arg), void *arg)
{
    fuzz_runs = 1;
    fuzz_code = 0;
    if (!setjmp(fuzz_back))
        function(arg);
    fuzz_runs = 0;
    return fuzz_code;
}
#endif

#endif
