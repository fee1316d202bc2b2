/* What the suite itself needs of an operating system: system_posix.c, system_windows.c,
 * system_wasi.c. */
#ifndef LIK_CHECK_SYSTEM_H
#define LIK_CHECK_SYSTEM_H

#include <stddef.h>
#include <stdint.h>

enum access { PAGES_NONE, PAGES_READ };

size_t page_bytes(void);
/* Whole pages of zeros, without memory behind them until they are touched. NULL: there are
 * none. */
void *pages_map(size_t bytes);
int pages_protect(void *at, size_t bytes, enum access access);
void pages_unmap(void *at, size_t bytes);

/* body(all + i * step) for every i < count, each on a thread of its own, at the same time. */
void threads_run(int64_t count, void (*body)(void *arg), void *all, size_t step);

/* check(arg) in a forked child that is ended after 20 seconds: its result, or -1 if it crashed.
 * 0 where there is no fork, or a sanitizer does not know it. */
int fork_run(int (*body)(void *arg), void *arg);

void environment_set(const char *name, const char *value); /* NULL: not set */
/* May this process use the tiles of AMX? */
int amx_is_allowed(void);
/* After a fault print_fault() is called, and then whoever had faults before has this one. */
void faults_catch(void (*print_fault)(void));

#endif
