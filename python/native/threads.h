/* The threads of CPU calls: torch's pool where torch is in the process, our own elsewhere. */
#ifndef LIK_PYTHON_THREADS_H
#define LIK_PYTHON_THREADS_H

#include "view.h"

/* Finds torch's intra-op pool in the process (torch >= 2.10); without it our own pool
 * serves. */
void run_find_torch_pool(void);

/* Threads a CPU call of this size may use: torch's number if its pool is borrowed, else the
 * processors this process may run on; at most LIK_THREADS. -1 with a Python exception. */
int32_t run_threads(void);

/* Threads and pool of a call. Holds the GIL. 0, or -1 with a Python exception. */
int fill_exec(struct lik_exec *exec, int32_t threads);

/* Runs task(arg, i) for i in 0 ... n - 1 on the CPU threads, without the GIL. 0, or -1 with a
 * Python exception. */
int run_parallel(int64_t n, void (*task)(void *arg, int64_t i), void *arg);

#endif
