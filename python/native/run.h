/* How an operation runs from Python: contexts by device, workspace, the GIL. */
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

/* The context of a device (-1 = CPU, n = cuda:n), made at first use. NULL with a Python
 * exception. */
const struct lik_context *run_context(int32_t device);

enum run_verb { RUN_SCORE, RUN_TOPK, RUN_GRAD, RUN_DECODE, RUN_ENCODE, RUN_TRAIN, RUN_QUANTIZE };

/* Releases the GIL, runs, with workspace of the thread's or of torch's. `work` = multiply-adds,
 * decides whether threads are worth waking. 0, or -1 with a Python exception. */
int run_operation(enum run_verb verb, const void *op, int32_t device, double work);

/* Workspace that run_operation would take on this device by one thread. 0, or -1 with a Python
 * exception. */
int run_workspace_bytes(enum run_verb verb, const void *op, int32_t device, size_t *bytes);

/* A view's device that is torch's Apple GPU, with addresses that only the Python side can
 * resolve. What runs there is set where that is registered (metal.c); NULL: nothing does. */
#define RUN_METAL (1 << 20)
extern int (*run_metal)(enum run_verb verb, const void *op);

/* The Python exception of a failed lik_* call; always -1. */
int run_raise(int status);

#endif
