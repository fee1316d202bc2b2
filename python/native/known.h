/* What the Python side registered, for the life of the process. */
#ifndef LIK_PYTHON_KNOWN_H
#define LIK_PYTHON_KNOWN_H

#include "view.h"

struct known {
    PyObject *tensor, *parameter; /* types */
    /* callables: is_grad_enabled, functorch active, dispatch modes */
    PyObject *grad_enabled, *transformed, *modes;
    PyObject *precision; /* callable: lik_precision that the user has set */
    PyObject *traced;    /* callable: is torch.jit.trace at work? */
    /* the module whose _current_level is -1 without dual numbers */
    PyObject *forward_ad;
    PyObject *requires_grad, *is_meta, *current_level; /* names of attributes */
    /* apply of the autograd.Function that gives scores their history; NULL until it is there */
    PyObject *train;
    PyObject *array, *array_empty, *array_dtype; /* numpy.ndarray, numpy.empty, numpy.float32 */
};
extern struct known known;

#endif
