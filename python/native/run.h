/* How an operation runs from Python: contexts by device, threads, workspace, the GIL. */
#ifndef LIK_PYTHON_RUN_H
#define LIK_PYTHON_RUN_H

#include "view.h"

/* What torch lends, set once by the Python side when torch is in the process (module.c
 * registers it). */
struct lender {
    PyTypeObject *type; /* torch.Tensor: its exchange API lends workspace */
    PyObject *stream;   /* callable: device index -> raw stream handle as int */
    /* callable: (device index, bytes) -> (owner, pointer), for a torch without exchange API */
    PyObject *workspace;
};
extern struct lender lender;

/* Finds torch's intra-op pool in the process (torch >= 2.10); without it our own pool
 * serves. */
void run_find_torch_pool(void);

/* The context of a device (-1 = CPU, n = cuda:n), made at first use. NULL with a Python
 * exception. */
const struct lik_context *run_context(int32_t device);

/* Threads a CPU call of this size may use: torch's number if its pool is borrowed, else the
 * processors this process may run on; at most LIK_THREADS. -1 with a Python exception. */
int32_t run_threads(void);

enum run_verb { RUN_SCORE, RUN_TOPK, RUN_GRAD };

/* Releases the GIL, runs, with workspace of the thread's or of torch's. `work` = multiply-adds,
 * decides whether threads are worth waking. 0, or -1 with a Python exception. */
int run_operation(enum run_verb verb, const void *op, int32_t device, double work);

/* Workspace that run_operation would take on this device by one thread. 0, or -1 with a Python
 * exception. */
int run_workspace_bytes(enum run_verb verb, const void *op, int32_t device, size_t *bytes);

/* Runs task(arg, i) for i in 0 ... n - 1 on the CPU threads, without the GIL. 0, or -1 with a
 * Python exception. */
int run_parallel(int64_t n, void (*task)(void *arg, int64_t i), void *arg);

/* The Python exception of a failed lik_* call; always -1. */
int run_raise(int status);

#endif
