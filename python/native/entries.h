/* The functions of the extension that module.c lists; each is described where it stands. */
#ifndef LIK_PYTHON_ENTRIES_H
#define LIK_PYTHON_ENTRIES_H

#include "problem.h"

#define ENTRY(name) PyObject *native_##name(PyObject *self, PyObject *const *args, Py_ssize_t n)

/* verbs.c */
ENTRY(score);
ENTRY(topk);
ENTRY(topk_scratch);
ENTRY(grad);
ENTRY(forward);
ENTRY(backward);
ENTRY(merge_topk);

/* short.c */
ENTRY(maxsim);
ENTRY(maxsim_backward);
ENTRY(best);
ENTRY(way);

/* codec.c */
ENTRY(decode);
ENTRY(encode);
ENTRY(train);
ENTRY(quantize);

/* metal.c */
PyObject *native_register_metal(PyObject *self, PyObject *carry_out);
PyObject *native_metal_device(PyObject *self, PyObject *none);

/* The forward pass of a training step: (scores, argmax), new tensors of torch; NULL with an
 * exception. */
PyObject *run_forward(struct problem *p);

#endif
