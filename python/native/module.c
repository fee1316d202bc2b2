/* _native: the C library's operations for Python, one call each. What a function takes is said
 * where it stands: verbs.c, short.c, codec.c, metal.c. */
#include "entries.h"

#include "run.h"
#include "threads.h"

struct known known;

/* register_torch(tensor, parameter, grad_enabled, transformed, modes, traced, forward_ad,
 * stream, workspace, precision, is_neg, plain) */
static PyObject *native_register_torch(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[12];
    if (!PyArg_ParseTuple(args, "OOOOOOOOOOOO", &o[0], &o[1], &o[2], &o[3], &o[4], &o[5], &o[6], &o[7], &o[8],
                          &o[9], &o[10], &o[11]))
        return NULL;
    for (int i = 0; i < 12; i++)
        Py_INCREF(o[i]); /* for the life of the process */
    known.tensor = o[0];
    known.parameter = o[1];
    known.grad_enabled = o[2];
    known.transformed = o[3];
    known.modes = o[4];
    known.traced = o[5];
    known.forward_ad = o[6];
    lender.type = (PyTypeObject *)o[0];
    lender.stream = o[7];
    lender.workspace = o[8];
    known.precision = o[9];
    view_lazy.is_neg = o[10];
    view_lazy.plain = o[11];
    known.requires_grad = PyUnicode_InternFromString("requires_grad");
    known.current_level = PyUnicode_InternFromString("_current_level");
    known.is_meta = PyUnicode_InternFromString("is_meta");
    if (!known.requires_grad || !known.current_level || !known.is_meta)
        return NULL;
    run_find_torch_pool();
    Py_RETURN_NONE;
}

/* register_train(apply): from here on the short way serves tensors of torch. */
static PyObject *native_register_train(PyObject *self, PyObject *train)
{
    (void)self;
    known.train = Py_NewRef(train);
    Py_RETURN_NONE;
}

/* register_numpy(ndarray, empty, float32) */
static PyObject *native_register_numpy(PyObject *self, PyObject *args)
{
    (void)self;
    if (!PyArg_ParseTuple(args, "OOO", &known.array, &known.array_empty, &known.array_dtype))
        return NULL;
    Py_INCREF(known.array);
    Py_INCREF(known.array_empty);
    Py_INCREF(known.array_dtype);
    Py_RETURN_NONE;
}

/* extremes(x) -> (lowest, highest, least step, largest step) as view_extremes finds them, or
 * None. */
static PyObject *native_extremes(PyObject *self, PyObject *object)
{
    (void)self;
    struct view v = {0};
    struct extremes e;
    if (view_read(&v, object, "x", 0))
        return NULL;
    int usable = v.present && view_extremes(&v, &e);
    view_release(&v);
    if (!usable)
        Py_RETURN_NONE;
    return Py_BuildValue("(LLLL)", (long long)e.low, (long long)e.high, (long long)e.least_step,
                         (long long)e.most_step);
}

/* has_device(index): can this build and machine run on it? */
static PyObject *native_has_device(PyObject *self, PyObject *index)
{
    (void)self;
    long device = PyLong_AsLong(index);
    if (PyErr_Occurred())
        return NULL;
    int there = run_context((int32_t)device) != NULL;
    PyErr_Clear();
    return PyBool_FromLong(there);
}

/* device_error(index) -> why not, or None */
static PyObject *native_device_error(PyObject *self, PyObject *index)
{
    (void)self;
    long device = PyLong_AsLong(index);
    if (PyErr_Occurred())
        return NULL;
    if (run_context((int32_t)device))
        Py_RETURN_NONE;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *text = value ? PyObject_Str(value) : PyUnicode_FromString("");
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return text;
}

/* info() -> (version, build line, name of the CPU context, CPU threads) */
static PyObject *native_info(PyObject *self, PyObject *none)
{
    (void)self;
    (void)none;
    const struct lik_context *ctx = run_context(-1);
    int32_t threads = ctx ? run_threads() : -1;
    if (threads < 0)
        return NULL;
    return Py_BuildValue("(sssi)", lik_version(), lik_build_info(), lik_context_name(ctx), (int)threads);
}

#define FAST(name) {#name, (PyCFunction)(void (*)(void))native_##name, METH_FASTCALL, NULL}

static PyMethodDef methods[] = {
    FAST(maxsim),
    FAST(maxsim_backward),
    FAST(best),
    FAST(score),
    FAST(topk),
    FAST(topk_scratch),
    FAST(forward),
    FAST(backward),
    FAST(grad),
    FAST(merge_topk),
    FAST(decode),
    FAST(encode),
    FAST(train),
    FAST(quantize),
    FAST(way),
    {"register_torch", native_register_torch, METH_VARARGS, NULL},
    {"register_train", native_register_train, METH_O, NULL},
    {"register_numpy", native_register_numpy, METH_VARARGS, NULL},
    {"extremes", native_extremes, METH_O, NULL},
    {"has_device", native_has_device, METH_O, NULL},
    {"device_error", native_device_error, METH_O, NULL},
    {"register_metal", native_register_metal, METH_O, NULL},
    {"metal_device", native_metal_device, METH_NOARGS, NULL},
    {"info", native_info, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_native",  .m_doc = "The C library behind late_interaction_kernels.",
    .m_size = -1,          .m_methods = methods,
};

PyMODINIT_FUNC PyInit__native(void)
{
    if (!run_context(-1)) { /* an ImportError, whatever was wrong: hosts catch nothing else */
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyErr_Format(PyExc_ImportError, "late_interaction_kernels cannot run here: %S",
                     value ? value : Py_None);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(trace);
        return NULL;
    }
    PyObject *module = PyModule_Create(&definition), *fields = PyTuple_New(FIELDS);
    for (int i = 0; fields && i < FIELDS; i++) {
        PyObject *name = PyUnicode_FromString(field_names[i] ? field_names[i] : "");
        if (!name || PyTuple_SetItem(fields, i, name))
            Py_CLEAR(fields);
    }
    if (module && (!fields || PyModule_AddObjectRef(module, "FIELDS", fields)))
        Py_CLEAR(module);
    Py_XDECREF(fields);
    return module;
}
