/* A problem as Python hands it over, and the lik_score it becomes. */
#ifndef LIK_PYTHON_PROBLEM_H
#define LIK_PYTHON_PROBLEM_H

#include "known.h"

/* The fields of a problem in the order of the arguments: problem.ARRAYS and problem.CHOICES of
 * the Python side, which a test compares with this. */
enum field {
    Q,
    D,
    Q_MASK,
    D_MASK,
    Q_WEIGHTS,
    Q_SCALE,
    D_SCALE,
    Q_OFFSETS,
    D_OFFSETS,
    LIST_Q,
    LIST_D,
    CODES,
    CENTROIDS,
    BUCKET_WEIGHTS,
    TENSORS,
    PAIRING = TENSORS,
    NORMALIZE,
    PRECISION,
    LEN_Q,
    LEN_D,
    NBITS,
    BIT_ORDER,
    FIELDS
};
extern const char *const field_names[FIELDS];

#define FOLLOW      (-1) /* a precision: the one that torch's user has set, where it makes a difference */
#define OUTPUTS_MAX 4

struct problem {
    struct view in[TENSORS];
    struct view out[OUTPUTS_MAX];
    struct lik_score op;
    struct lik_codec codec; /* of op.d, where there are centroids */
    int32_t device;
    double work; /* multiply-adds */
};

/* The first FIELDS arguments into p. 0, or -1 with an exception, and p holds nothing. */
int problem_read(struct problem *p, PyObject *const *args);

/* The documents alone of the first FIELDS arguments into p->op.d, and p->codec; q is None.
 * Compressed tokens are decoded to dtype. 0, or -1 with an exception, and p holds nothing. */
int documents_read(struct problem *p, PyObject *const *args, int32_t dtype);

/* The operation from the views in p->in. normalize: 1 = queries, 2 = documents, 3 = both. q is
 * the object whose view is p->in[Q]. 0, or -1 with an exception. */
int problem_fill(struct problem *p, PyObject *q, int64_t pairing, int64_t normalize, int64_t precision,
                 int64_t len_q, int64_t len_d);
void problem_release(struct problem *p);

int64_t problem_scores(const struct problem *p); /* scores it writes */

/* The shape of the scores; returns the number of axes. */
int problem_axes(const struct problem *p, int64_t *shape);

/* An array of results into p->out[slot]: contiguous, of `count` elements and this dtype (0 =
 * any), on the problem's device. None gives an absent view. 0, or -1 with an exception. */
int result_read(struct problem *p, int slot, PyObject *object, const char *name, int32_t dtype, int64_t count,
                int writable);
int output_read(struct problem *p, int slot, PyObject *object, const char *name, int32_t dtype,
                int64_t count); /* one to write */

/* Like output_read, but a new tensor. NULL with an exception. */
PyObject *output_new(struct problem *p, int slot, int32_t dtype, int ndim, const int64_t *shape);

/* 0, or -1 with a TypeError. */
int expect_arguments(const char *name, Py_ssize_t got, int want);

#endif
