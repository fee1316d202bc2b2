#ifndef LIK_PYTHON_CODEC_H
#define LIK_PYTHON_CODEC_H

#include "view.h"

/* decode_residuals(codes, residuals, centroids, table, out): compressed tokens to f32 vectors.
 *
 * codes [n] int32 or int64, residuals [n, bytes] uint8, centroids [K, dim] f32, table [256,
 * per_byte] f32 (what each residual byte adds to its per_byte features, in whichever bit order
 * the caller built it), out [n, dim] f32, all contiguous and on the CPU. Codes outside 0 ... K
 * - 1 are a ValueError. */
PyObject *codec_decode_residuals(PyObject *self, PyObject *const *args, Py_ssize_t n);

#endif
