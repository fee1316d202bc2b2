"""One scenario of test_extension.py, under the faults' library: a call into the package, its
n-th allocation failing.

`own`: only what the extension itself asks for fails (its workspace, its pool and threads).
`all`: everything that is asked for during the call, NumPy's and the interpreter's objects too
(PYTHONMALLOC=malloc). Each call must raise MemoryError and leave the arrays it was to write
alone, or give the bits of an undisturbed one; the next call must be right. Prints {"runs": ..,
"wrong": [..]} as JSON.
"""

import ctypes
import errno
import faulthandler
import json
import os
import sys
import threading

sys.modules["torch"] = None  # the extension without torch
faulthandler.enable()

import late_interaction_kernels as lik  # noqa: E402
import numpy as np  # noqa: E402
from late_interaction_kernels import _native, plaid  # noqa: E402
from late_interaction_kernels._engine import numpy_arrays  # noqa: E402, F401

faults = ctypes.CDLL(os.environ["LD_PRELOAD"])
faults.inject_hits.restype = faults.inject_last.restype = ctypes.c_long
faults.inject_only.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
call = ctypes.PyDLL(os.environ["LD_PRELOAD"]).inject_call
call.restype = ctypes.py_object
call.argtypes = [
    ctypes.py_object,
    ctypes.py_object,
    ctypes.c_char_p,
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_int,
]

rng = np.random.default_rng(5)
Q, D = rng.standard_normal((3, 5, 24)).astype("f4"), rng.standard_normal((7, 11, 24)).astype("f4")
LARGE = rng.standard_normal((8, 32, 64)).astype("f4"), rng.standard_normal((64, 64, 64)).astype("f4")
ARGMAX = np.empty((3, 7, 5), np.int16)
EMPTY = np.empty((0, 1), "f4"), np.empty((0, 1), "i8")
BYTES = np.arange(77).reshape(7, 11) % 4, np.arange(462).reshape(7, 11, 6).astype("u1")
CENTROIDS = rng.standard_normal((4, 24)).astype("f4")
OFFSETS_Q, OFFSETS_D = np.array([0, 2, 15]), np.array([0, 30, 30, 77])


def fields(q, d, pairing=0):
    return (q, d, *(None,) * 12, pairing, *(0,) * 6)


_native.score(*fields(Q, D), np.empty((3, 7), "f4"), ARGMAX)

# name: what makes the arguments, and which of them are written.
SCENARIOS = {
    "score": (
        lambda: (*fields(Q, D), np.full((3, 7), 9, "f4"), np.full((3, 7, 5), 9, "i2")),
        _native.score, (21, 22),
    ),
    "score-i8": (
        lambda: (*fields(Q, (D * 40).astype("i1")), np.full((3, 7), 9, "f4"), None), _native.score, (21,),
    ),
    "topk": (
        lambda: (*fields(Q, D), 4, 0, 0, np.full((3, 4), 9, "f4"), np.full((3, 4), 9)),
        _native.topk, (24, 25),
    ),
    "grad": (
        lambda: (*fields(Q, D), np.ones((3, 7), "f4"), ARGMAX, np.full(Q.shape, 9, "f4"),
                 np.full(D.shape, 9, "f4"), None, False),
        _native.grad, (23, 24),
    ),
    "merge_topk": (
        lambda: (np.ones((2, 3, 4), "f4"), np.arange(24).reshape(2, 3, 4), 5, 0, np.full((3, 5), 9, "f4"),
                 np.full((3, 5), 9)),
        _native.merge_topk, (4, 5),
    ),
    "compressed": (
        lambda: (Q, *BYTES, np.arange(7) + 5, CENTROIDS, np.arange(4).astype("f4"), 2),
        plaid.maxsim_residual, (),
    ),
    "extremes": (lambda: (np.arange(9),), _native.extremes, ()),
    "info": (lambda: (), lambda: _native.info()[:3], ()),
    "short": (lambda: (*fields(Q, D)[:15], 0, -1, None, None, 0, 0, False), _native.maxsim, ()),
    "threads": (lambda: (*fields(*LARGE), np.full((8, 64), 9, "f4"), None), _native.score, (21,)),
    "maxsim": (lambda: (Q, D), lik.maxsim, ()),
    "maxsim_pairs": (lambda: (Q, D[:3]), lik.maxsim_pairs, ()),
    "maxsim_varlen": (
        lambda: (Q.reshape(15, 24), D.reshape(77, 24), OFFSETS_Q, OFFSETS_D), lik.maxsim_varlen, (),
    ),
    "retrieve": (lambda: (Q, D, 3), lik.retrieve, ()),
}  # fmt: skip


def extension_range():
    """Where the extension's code lies."""
    with open("/proc/self/maps") as maps:
        lines = [line.split() for line in maps if "_native.abi3.so" in line]
    bounds = [int(b, 16) for line in lines for b in line[0].split("-")]
    return min(bounds), max(bounds)


def same(a, b):
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return (
        isinstance(b, np.ndarray) and np.array_equal(a, b) if isinstance(a, np.ndarray) else a is b or a == b
    )


def in_thread(function):
    """In a thread of its own, which has no workspace yet."""
    result = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join()
    return result[0]


class Scenario:
    def __init__(self, name):
        self.make, self.function, self.written = SCENARIOS[name]
        self.native = type(self.function) is type(_native.score)
        self.threads, self.most_threads = 2, 32
        self.runs, self.wrong = 0, []
        self.expected = self.plain()

    def plain(self):
        args = self.make()
        return self.function(*args), [args[i].copy() for i in self.written]

    def attempt(self, kind, n, how, code):
        """One call with a fault: (met it, calls of the kind)."""
        args = self.make()
        before = [args[i].copy() for i in self.written]
        name = f"{kind} {n} {('once', 'ever')[how]}"
        # A pool that is too small is made anew, and stays to the end of the process: not for
        # hundreds of attempts.
        self.threads = min(self.threads + 1, self.most_threads)
        os.environ["LIK_THREADS"] = str(self.threads)

        def armed():
            # glibc ends the process if it has no memory for the thread's lik_last_error: it is
            # touched before.
            _native.merge_topk(np.empty((0, 0, 0), "f4"), np.empty((0, 0, 0), "i8"), 1, 0, *EMPTY)
            try:
                return call(self.function, args, kind.encode(), n, how, code), None
            except BaseException as error:
                return None, error

        result, error = in_thread(armed)
        hits, seen = faults.inject_hits(), faults.inject_last()
        after = [args[i] for i in self.written]
        long_way = result is None and self.function is _native.maxsim  # which is tried next
        if error is None and not (same(self.expected[0], result) and same(self.expected[1], after)):
            if not long_way:
                self.wrong.append(f"{name}: wrong result")
        elif isinstance(error, SystemError) and not self.native:
            pass  # NumPy's functions may return without an array and without an exception
        elif error is not None and not isinstance(error, MemoryError):
            self.wrong.append(f"{name}: {error!r}")
        elif error is not None and not same(after, before):
            self.wrong.append(f"{name}: MemoryError, but the outputs were written")
        if not same(self.expected, in_thread(self.plain)):
            self.wrong.append(f"{name}: the next call is wrong")
        self.runs += hits > 0
        return hits > 0, seen

    def all_of(self, kind, code, most, ways):
        for how in ways:
            n, step = 1, 1
            while True:
                met, seen = self.attempt(kind, n, how, code)
                if not met or (kind == "thread" and n == 5):
                    break
                step = max(step, -(-seen // most) if n > 4 else 1)
                n += step


def main():
    name, mode, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
    scenario = Scenario(name)
    if mode == "own":
        faults.inject_only(*extension_range())
    # Python ends the process itself when it finds no memory for its own exceptions, again and
    # again.
    ways = (0, 1) if scenario.native or mode == "own" else (0,)
    scenario.all_of("memory", errno.ENOMEM, most, ways)
    if mode == "own":
        scenario.all_of("thread", errno.EAGAIN, most, (0, 1))
    print(json.dumps({"runs": scenario.runs, "wrong": scenario.wrong}))


if __name__ == "__main__":
    main()
