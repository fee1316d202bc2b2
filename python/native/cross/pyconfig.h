/* What a Python's own pyconfig.h says of its platform, as far as the limited API asks, by the
 * compiler's words: for builds for another platform than that of the Python at hand. */
#ifndef LIK_PYTHON_PYCONFIG_H
#define LIK_PYTHON_PYCONFIG_H

#define SIZEOF_INT       __SIZEOF_INT__
#define SIZEOF_LONG      __SIZEOF_LONG__
#define SIZEOF_LONG_LONG __SIZEOF_LONG_LONG__
#define SIZEOF_SIZE_T    __SIZEOF_SIZE_T__
#define SIZEOF_VOID_P    __SIZEOF_POINTER__
#define SIZEOF_WCHAR_T   __SIZEOF_WCHAR_T__
#define SIZEOF_PID_T     4

#define HAVE_STDDEF_H    1
#define HAVE_SYS_STAT_H  1
#define HAVE_SYS_TYPES_H 1
#define HAVE_WCHAR_H     1
#define WITH_THREAD      1

#ifdef _WIN32
#define MS_WINDOWS        1
#define MS_WIN32          1
#define MS_WIN64          1
#define HAVE_DECLSPEC_DLL 1
#define Py_ENABLE_SHARED  1 /* Python is python3.dll */
typedef __INTPTR_TYPE__ Py_ssize_t;
#define HAVE_PY_SSIZE_T 1
#define PY_SSIZE_T_MAX  __INTPTR_MAX__
#else
#define HAVE_SSIZE_T      1
#define HAVE_SYS_TIME_H   1
#define HAVE_SYS_SELECT_H 1
#define HAVE_FORK         1
#endif

#endif
