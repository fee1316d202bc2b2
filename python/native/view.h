/* Reading tensors: any array a caller hands over becomes a struct view, without a copy and
 * without its framework.
 *
 * Three ways in, tried in this order:
 *   1. a tuple (pointer, dtype code, device, shape, strides in elements, owner), device -1 =
 *      CPU, n = cuda:n. Made by the Python side for what the other two cannot say: NumPy's
 *      ml_dtypes, tensors of a torch without the exchange API;
 *   2. DLPack's C exchange API, found on the type and remembered per type: about 50 ns a
 *      tensor, no Python object made;
 *   3. the buffer protocol: NumPy arrays, memoryviews.
 * A view borrows; view_release() ends the borrowing (buffers and tensors made plain are given
 * back). */
#ifndef LIK_PYTHON_VIEW_H
#define LIK_PYTHON_VIEW_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "lik/lik.h"

#define VIEW_NDIM_MAX 4

/* dtypes that no operand has, but masks, codes and refused arrays do; numbered after enum
 * lik_dtype. */
enum view_dtype {
    VIEW_BOOL = 64,
    VIEW_U8,
    VIEW_F64,
    VIEW_OTHER,
    VIEW_U16,
};

struct view {
    int present; /* 0 for None: nothing else is set */
    void *data;
    int32_t dtype;  /* enum lik_dtype or view_dtype */
    int32_t device; /* -1 = CPU, n = cuda:n */
    int32_t ndim;
    int64_t shape[VIEW_NDIM_MAX], strides[VIEW_NDIM_MAX];
    PyObject *owner; /* of the memory, where the array itself had none that says its values */
    int has_buffer;
    Py_buffer buffer;
};

/* A torch tensor may be lazy: its memory holds the values before a sign change (the imaginary
 * part of a conjugate), or it is zeros without memory. What DLPack lends does not say so: every
 * tensor that is read is asked, here alone, and read from a copy if it is. Set once by the
 * Python side. */
struct lazy {
    PyObject *is_neg; /* torch.Tensor.is_neg */
    PyObject *plain;  /* callable: tensor -> the same values in memory of its own */
};
extern struct lazy view_lazy;

/* 0, or -1 with a Python exception that names `name`. None gives an absent view. */
int view_read(struct view *view, PyObject *object, const char *name, int writable);
void view_release(struct view *view);

/* A new contiguous tensor (f32, f16, bf16, i16, i32 or i64) of a framework that has the
 * exchange API, with its view; NULL if it has not, with an exception if it failed. About a
 * third of the time of calling the framework's own empty(). */
PyObject *view_allocate(PyTypeObject *type, int32_t device, int32_t dtype, int ndim, const int64_t *shape,
                        struct view *view);

/* Memory of the framework's allocator on its current stream, without a tensor around it: the
 * address, or NULL as above. The owner goes back once the work that uses the memory is
 * queued. */
struct dl_managed;
void *view_borrow_memory(PyTypeObject *type, int32_t device, size_t bytes, struct dl_managed **owner);
void view_return_memory(struct dl_managed *owner);

int64_t view_count(const struct view *view); /* elements */
int view_is_contiguous(const struct view *view);

/* Of a contiguous int32 or int64 array on the CPU, a step being the difference of two entries
 * in a row (0 if there is one entry). 0 for anything else, and for an empty array. */
struct extremes {
    int64_t low, high, least_step, most_step;
};
int view_extremes(const struct view *view, struct extremes *e);

#endif
