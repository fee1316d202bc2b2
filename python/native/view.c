#include "view.h"

#include <string.h>

struct lazy view_lazy;

/* The parts of DLPack 1.x that are read here, laid out as its specification says. */
struct dl_tensor {
    void *data;
    struct {
        int32_t type, id;
    } device;
    int32_t ndim;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
};

struct dl_managed {
    uint32_t major, minor;
    void *context;
    void (*deleter)(struct dl_managed *self);
    uint64_t flags;
    struct dl_tensor tensor;
};

struct dl_exchange {
    uint32_t major, minor;
    struct dl_exchange *previous;
    int (*allocate)(struct dl_tensor *prototype, struct dl_managed **out, void *context,
                    void (*fail)(void *context, const char *kind, const char *message));
    int (*managed_from_object)(void *object, struct dl_managed **out);
    int (*managed_to_object)(struct dl_managed *managed, void **out);
    int (*tensor_from_object)(void *object, struct dl_tensor *out);
    int (*current_stream)(void);
};

enum { DL_CPU = 1, DL_CUDA = 2, DL_CUDA_HOST = 3, DL_CUDA_MANAGED = 13 };
enum { DL_INT = 0, DL_UINT = 1, DL_FLOAT = 2, DL_BFLOAT = 4, DL_BOOL = 6, DL_E4M3FN = 10, DL_E5M2 = 12 };

static int32_t dtype_from_dlpack(int code, int bits, int lanes)
{
    if (lanes != 1)
        return VIEW_OTHER;
    switch (code) {
    case DL_FLOAT: return bits == 32 ? LIK_F32 : bits == 16 ? LIK_F16 : bits == 64 ? VIEW_F64 : VIEW_OTHER;
    case DL_BFLOAT: return bits == 16 ? (int32_t)LIK_BF16 : (int32_t)VIEW_OTHER;
    case DL_BOOL: return bits == 8 ? VIEW_BOOL : VIEW_OTHER;
    case DL_UINT: return bits == 8 ? VIEW_U8 : bits == 16 ? VIEW_U16 : VIEW_OTHER;
    case DL_INT: return bits == 8 ? LIK_I8 : bits == 16 ? LIK_I16 : bits == 32 ? LIK_I32 : LIK_I64;
    case DL_E4M3FN: return LIK_E4M3;
    case DL_E5M2: return LIK_E5M2;
    default: return VIEW_OTHER;
    }
}

/* A struct-module format of one element; '@', '=' and '<' may stand before it (this code runs
 * on little-endian hosts). */
static int32_t dtype_from_format(const char *format, Py_ssize_t itemsize)
{
    if (!format)
        return VIEW_U8;
    if (*format == '@' || *format == '=' || *format == '<')
        format++;
    if (!format[0] || format[1])
        return VIEW_OTHER;
    switch (*format) {
    case 'f': return LIK_F32;
    case 'e': return LIK_F16;
    case 'd': return VIEW_F64;
    case '?': return VIEW_BOOL;
    case 'B': return VIEW_U8;
    case 'H': return VIEW_U16;
    case 'b':
    case 'h':
    case 'i':
    case 'l':
    case 'q': return itemsize == 1 ? LIK_I8 : itemsize == 2 ? LIK_I16 : itemsize == 4 ? LIK_I32 : LIK_I64;
    default: return VIEW_OTHER;
    }
}

/* Errors are worded anew where an object is of the wrong kind, but not one that says nothing
 * about the object. */
static int is_memory_error(void)
{
    return PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_MemoryError);
}

/* The exchange table of a type, NULL if it has none; -1 with an exception. Types live as long
 * as their modules: a few are remembered, with a reference. */
static int exchange_of(PyTypeObject *type, struct dl_exchange **out)
{
    static struct {
        PyTypeObject *type;
        struct dl_exchange *table;
    } known[8];
    static int used;
    for (int i = 0; i < used; i++)
        if (known[i].type == type) {
            *out = known[i].table;
            return 0;
        }
    struct dl_exchange *table = NULL;
    PyObject *capsule = PyObject_GetAttrString((PyObject *)type, "__dlpack_c_exchange_api__");
    if (!capsule && is_memory_error())
        return -1;
    if (capsule && PyCapsule_IsValid(capsule, "dlpack_exchange_api"))
        table = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    Py_XDECREF(capsule);
    PyErr_Clear();
    while (table && table->major != 1)
        table = table->previous;
    if (table && !table->tensor_from_object)
        table = NULL;
    if (used < (int)(sizeof known / sizeof *known)) {
        Py_INCREF((PyObject *)type);
        known[used].type = type;
        known[used++].table = table;
    }
    *out = table;
    return 0;
}

static void raise_allocation(void *context, const char *kind, const char *message)
{
    (void)context;
    (void)kind;
    PyErr_SetString(PyExc_MemoryError, message);
}

/* What DLPack calls the dtypes that results and workspaces have. */
static void dlpack_dtype(int32_t dtype, struct dl_tensor *t)
{
    static const uint8_t codes[] = {[LIK_F32] = DL_FLOAT, [LIK_F16] = DL_FLOAT, [LIK_BF16] = DL_BFLOAT,
                                    [LIK_I16] = DL_INT,   [LIK_I32] = DL_INT,   [LIK_I64] = DL_INT};
    t->dtype.code = codes[dtype];
    t->dtype.bits = (uint8_t)(8 * lik_dtype_bytes(dtype));
    t->dtype.lanes = 1;
}

/* A new contiguous tensor of the type's framework; NULL with an exception, or without if it
 * does not lend memory. */
static struct dl_managed *allocate(struct dl_exchange *table, int32_t device, int32_t dtype, int ndim,
                                   int64_t *shape)
{
    struct dl_tensor prototype = {.ndim = ndim, .shape = shape};
    struct dl_managed *managed;
    prototype.device.type = device < 0 ? DL_CPU : DL_CUDA;
    prototype.device.id = device < 0 ? 0 : device;
    dlpack_dtype(dtype, &prototype);
    return table && table->allocate && !table->allocate(&prototype, &managed, NULL, raise_allocation)
               ? managed
               : NULL;
}

static void *data_of(const struct dl_tensor *t)
{
    return t->data ? (char *)t->data + t->byte_offset : NULL;
}

PyObject *view_allocate(PyTypeObject *type, int32_t device, int32_t dtype, int ndim, const int64_t *shape,
                        struct view *view)
{
    struct dl_exchange *table;
    void *object;
    if (exchange_of(type, &table))
        return NULL;
    memset(view, 0, offsetof(struct view, buffer));
    memcpy(view->shape, shape, (size_t)ndim * sizeof *shape);
    struct dl_managed *managed = allocate(table, device, dtype, ndim, view->shape);
    if (!managed)
        return NULL;
    view->data = data_of(&managed->tensor);
    if (table->managed_to_object(managed, &object)) {
        view_return_memory(managed);
        return NULL;
    }
    view->present = 1;
    view->dtype = dtype;
    view->device = device;
    view->ndim = ndim;
    return object;
}

void *view_borrow_memory(PyTypeObject *type, int32_t device, size_t bytes, struct dl_managed **owner)
{
    int64_t floats = (int64_t)((bytes + 3) / 4);
    struct dl_exchange *table;
    *owner = NULL;
    if (exchange_of(type, &table))
        return NULL;
    *owner = allocate(table, device, LIK_F32, 1, &floats);
    return *owner ? data_of(&(*owner)->tensor) : NULL;
}

void view_return_memory(struct dl_managed *owner)
{
    if (owner)
        owner->deleter(owner);
}

static int read_dlpack(struct view *view, struct dl_exchange *table, PyObject *object, const char *name)
{
    struct dl_tensor t;
    if (table->tensor_from_object(object, &t))
        return -1;
    if (t.ndim > VIEW_NDIM_MAX) {
        PyErr_Format(PyExc_ValueError, "%s has %d dimensions, at most %d are expected", name, t.ndim,
                     VIEW_NDIM_MAX);
        return -1;
    }
    switch (t.device.type) {
    case DL_CPU:
    case DL_CUDA_HOST: view->device = -1; break;
    case DL_CUDA:
    case DL_CUDA_MANAGED: view->device = t.device.id; break;
    default:
        PyErr_Format(PyExc_ValueError, "%s is on a device of DLPack type %d, must be on the CPU or on CUDA",
                     name, t.device.type);
        return -1;
    }
    view->data = data_of(&t);
    view->dtype = dtype_from_dlpack(t.dtype.code, t.dtype.bits, t.dtype.lanes);
    view->ndim = t.ndim;
    int64_t stride = 1;
    for (int i = t.ndim - 1; i >= 0; i--) {
        view->shape[i] = t.shape[i];
        view->strides[i] = t.strides ? t.strides[i] : stride;
        stride *= t.shape[i];
    }
    return 0;
}

static int read_buffer(struct view *view, PyObject *object, const char *name, int writable)
{
    if (PyObject_GetBuffer(object, &view->buffer, writable ? PyBUF_RECORDS : PyBUF_RECORDS_RO)) {
        if (is_memory_error())
            return -1;
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "%s must be a tensor or an array that shares its memory, got %R", name,
                     (PyObject *)Py_TYPE(object));
        return -1;
    }
    view->has_buffer = 1;
    const Py_buffer *b = &view->buffer;
    if (b->ndim > VIEW_NDIM_MAX) {
        PyErr_Format(PyExc_ValueError, "%s has %d dimensions, at most %d are expected", name, b->ndim,
                     VIEW_NDIM_MAX);
        return -1;
    }
    view->data = b->buf;
    view->device = -1;
    view->dtype = dtype_from_format(b->format, b->itemsize);
    view->ndim = b->ndim;
    if (b->itemsize == 0) {
        PyErr_Format(PyExc_TypeError, "%s has elements of 0 bytes", name);
        return -1;
    }
    for (int i = 0; i < b->ndim; i++) {
        view->shape[i] = b->shape[i];
        if (b->strides[i] % b->itemsize && b->shape[i] > 1) {
            PyErr_Format(PyExc_ValueError,
                         "%s.strides[%d] is %zd bytes, no multiple of its %zd-byte elements", name, i,
                         b->strides[i], b->itemsize);
            return -1;
        }
        view->strides[i] = b->strides[i] / b->itemsize;
    }
    return 0;
}

/* Integers of a tuple item into out[0 ... n - 1]; returns n, or -1. */
static int read_extents(PyObject *tuple, int64_t *out)
{
    Py_ssize_t n = PyTuple_Size(tuple);
    if (n < 0 || n > VIEW_NDIM_MAX)
        return -1;
    for (Py_ssize_t i = 0; i < n; i++)
        out[i] = PyLong_AsLongLong(PyTuple_GetItem(tuple, i));
    return PyErr_Occurred() ? -1 : (int)n;
}

static int read_tuple(struct view *view, PyObject *object, const char *name)
{
    if (PyTuple_Size(object) != 6)
        goto out_malformed;
    view->data = PyLong_AsVoidPtr(PyTuple_GetItem(object, 0));
    view->dtype = (int32_t)PyLong_AsLong(PyTuple_GetItem(object, 1));
    view->device = (int32_t)PyLong_AsLong(PyTuple_GetItem(object, 2));
    view->ndim = read_extents(PyTuple_GetItem(object, 3), view->shape);
    if (PyErr_Occurred() || view->ndim < 0 ||
        read_extents(PyTuple_GetItem(object, 4), view->strides) != view->ndim)
        goto out_malformed;
    return 0;
out_malformed:
    if (is_memory_error())
        return -1;
    PyErr_Clear();
    PyErr_Format(PyExc_TypeError,
                 "%s must be (pointer, dtype, device, shape, strides, owner), at most %d dimensions", name,
                 VIEW_NDIM_MAX);
    return -1;
}

static int has_no_memory(const struct view *view)
{
    return !view->data && view_count(view) > 0;
}

/* 1, 0, or -1 with an exception. Bools and bytes have no sign. */
static int is_lazy(const struct view *view, PyObject *tensor)
{
    if (has_no_memory(view))
        return view_lazy.plain != NULL;
    if (!view_lazy.is_neg || view->dtype == VIEW_BOOL || view->dtype == VIEW_U8)
        return 0;
    PyObject *answer = PyObject_CallFunctionObjArgs(view_lazy.is_neg, tensor, NULL);
    int lazy = answer ? answer == Py_True : -1;
    Py_XDECREF(answer);
    return lazy;
}

static int read_tensor(struct view *view, struct dl_exchange *table, PyObject *tensor, const char *name,
                       int writable)
{
    if (read_dlpack(view, table, tensor, name))
        return -1;
    int lazy = writable ? 0 : is_lazy(view, tensor);
    if (lazy > 0) {
        view->owner = PyObject_CallFunctionObjArgs(view_lazy.plain, tensor, NULL);
        lazy = view->owner ? read_dlpack(view, table, view->owner, name) : -1;
    }
    if (!lazy && has_no_memory(view)) {
        PyErr_Format(PyExc_ValueError,
                     "%s has no memory to read: is it a fake tensor, or a wrapper of another?", name);
        lazy = -1;
    }
    if (lazy)
        view_release(view);
    return lazy;
}

int view_read(struct view *view, PyObject *object, const char *name, int writable)
{
    memset(view, 0, offsetof(struct view, buffer));
    if (object == Py_None)
        return 0;
    view->present = 1;
    if (PyTuple_Check(object))
        return read_tuple(view, object, name);
    struct dl_exchange *table;
    if (exchange_of(Py_TYPE(object), &table))
        return -1;
    if (table)
        return read_tensor(view, table, object, name, writable);
    return read_buffer(view, object, name, writable);
}

void view_release(struct view *view)
{
    if (view->has_buffer)
        PyBuffer_Release(&view->buffer);
    view->has_buffer = 0;
    Py_CLEAR(view->owner);
}

int64_t view_count(const struct view *view)
{
    int64_t n = 1;
    for (int i = 0; i < view->ndim; i++)
        n *= view->shape[i];
    return n;
}

int view_is_contiguous(const struct view *view)
{
    int64_t stride = 1;
    if (view_count(view) == 0)
        return 1;
    for (int i = view->ndim - 1; i >= 0; i--) {
        if (view->shape[i] != 1 && view->strides[i] != stride)
            return 0;
        stride *= view->shape[i];
    }
    return 1;
}

int view_extremes(const struct view *v, struct extremes *e)
{
    int64_t count = view_count(v), low = INT64_MAX, high = INT64_MIN, least = INT64_MAX, most = INT64_MIN;
    if (count == 0 || v->device != -1 || (v->dtype != LIK_I32 && v->dtype != LIK_I64) ||
        !view_is_contiguous(v))
        return 0;
    Py_BEGIN_ALLOW_THREADS;
    for (int64_t i = 0, before = 0; i < count; i++) {
        int64_t x = v->dtype == LIK_I32 ? ((const int32_t *)v->data)[i] : ((const int64_t *)v->data)[i], step;
        low = x < low ? x : low;
        high = x > high ? x : high;
        if (i > 0) {
            if (__builtin_sub_overflow(x, before, &step))
                step = x < before ? INT64_MIN : INT64_MAX;
            least = step < least ? step : least;
            most = step > most ? step : most;
        }
        before = x;
    }
    Py_END_ALLOW_THREADS;
    if (count == 1)
        least = most = 0;
    *e = (struct extremes){low, high, least, most};
    return 1;
}
