"""A thin ctypes binding of include/lik/lik.h for the benchmark: its structs, and problems made
from NumPy arrays.

It exists so that the benchmark measures the C library and nothing else; applications use the
Python package. Arrays given to a problem are kept alive by it. bf16 arrays are uint16 arrays
that hold the upper halves of f32."""

import ctypes
import itertools
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p

import numpy as np

F32, F16, BF16, E4M3, E5M2, I8, I16, I32, I64 = range(1, 10)
DENSE, RESIDUAL, ONE_HOT = range(3)
ALL, CANDIDATES, PAIRS, LIST = range(4)
HIGHEST, HIGH, MEDIUM = range(3)


class Strides(Structure):
    _fields_ = [("group", c_int64), ("sequence", c_int64), ("token", c_int64)]


class Codec(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("bits", c_int32),
        ("bit_order", c_int32),
        ("centroids", c_void_p),
        ("centroid_count", c_int64),
        ("centroid_stride", c_int64),
        ("centroids_dtype", c_int32),
        ("weights_dtype", c_int32),
        ("weights", c_void_p),
        ("reserved", c_void_p * 4),
    ]


class Tokens(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("storage", c_int32),
        ("dtype", c_int32),
        ("count", c_int64),
        ("len_max", c_int64),
        ("dim", c_int64),
        ("total", c_int64),
        ("data", c_void_p),
        ("strides", Strides),
        ("dim_stride", c_int64),
        ("group_size", c_int64),
        ("offsets", c_void_p),
        ("offsets_dtype", c_int32),
        ("normalize", c_int32),
        ("mask", c_void_p),
        ("mask_strides", Strides),
        ("scale", c_void_p),
        ("scale_strides", Strides),
        ("weights", c_void_p),
        ("weights_strides", Strides),
        ("codec", c_void_p),
        ("codes", c_void_p),
        ("codes_strides", Strides),
        ("codes_dtype", c_int32),
        ("scale_dtype", c_int32),
    ]


class Score(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("q", Tokens),
        ("d", Tokens),
        ("pairing", c_int32),
        ("precision", c_int32),
        ("per_query", c_int64),
        ("list_q", c_void_p),
        ("list_d", c_void_p),
        ("list_count", c_int64),
        ("scores", c_void_p),
        ("scores_stride", c_int64),
        ("argmax", c_void_p),
        ("argmax_dtype", c_int32),
        ("reserved_i32", c_int32),
        ("reserved", c_void_p * 3),
    ]


class TopK(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("score", Score),
        ("k", c_int64),
        ("id_base", c_int64),
        ("smallest", c_int32),
        ("values", c_void_p),
        ("ids", c_void_p),
    ]


class Grad(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("score", Score),
        ("grad_scores", c_void_p),
        ("grad_scores_stride", c_int64),
        ("grad_q", c_void_p),
        ("grad_d", c_void_p),
        ("grad_weights", c_void_p),
        ("accumulate", c_int32),
    ]


class Decode(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("x", Tokens),
        ("out_dtype", c_int32),
        ("out", c_void_p),
    ]


class Encode(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("x", Tokens),
        ("codec", c_void_p),
        ("cutoffs", c_void_p),
        ("precision", c_int32),
        ("codes_dtype", c_int32),
        ("codes", c_void_p),
        ("residuals", c_void_p),
        ("inv_norms", c_void_p),
        ("inv_norms_dtype", c_int32),
    ]


class TrainFound(Structure):
    _fields_ = [
        ("points", c_int64),
        ("held_out", c_int64),
        ("reseeded", c_int64),
        ("mean_squared_residual", ctypes.c_double),
    ]


class Train(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("x", Tokens),
        ("centroid_count", c_int64),
        ("points_per_centroid", c_int64),
        ("iterations", c_int32),
        ("bits", c_int32),
        ("seed", ctypes.c_uint64),
        ("precision", c_int32),
        ("centroids", c_void_p),
        ("cutoffs", c_void_p),
        ("weights", c_void_p),
        ("found", c_void_p),
    ]


class Exec(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("stream", c_void_p),
        ("workspace", c_void_p),
        ("workspace_bytes", c_size_t),
        ("threads", c_int32),
        ("parallel_for", c_void_p),
        ("pool", c_void_p),
    ]


class Plan(Structure):
    _fields_ = [("struct_size", c_size_t), ("workspace_bytes", c_size_t), ("variant", c_char * 64)]


class LikError(RuntimeError):
    """A call of the library failed; the text is the library's own."""


def address(array):
    return array.ctypes.data if array is not None else None


def aligned_bytes(size, alignment=64):
    """A uint8 array of `size` bytes that starts at a multiple of `alignment`."""
    raw = np.empty(size + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + size]


def padded_tokens(data, dtype, scale=None):
    """Tokens over a contiguous [count, len, dim] array, `scale` f32 [count, len]. Returns
    (struct, arrays to keep).
    """
    count, length, dim = data.shape
    x = Tokens(
        struct_size=ctypes.sizeof(Tokens),
        dtype=dtype,
        count=count,
        len_max=length,
        dim=dim,
        data=address(data),
    )
    x.strides = Strides(0, length * dim, dim)
    x.dim_stride = 1
    if scale is not None:
        x.scale, x.scale_strides = address(scale), Strides(0, length, 1)
    return x, (data, scale)


def packed_tokens(data, dtype, offsets):
    """Tokens over contiguous rows [total, dim] with int64 `offsets` [count + 1]."""
    total, dim = data.shape
    x = Tokens(
        struct_size=ctypes.sizeof(Tokens), dtype=dtype, count=len(offsets) - 1, dim=dim, data=address(data)
    )
    x.len_max, x.total = int(np.diff(offsets).max(initial=0)), total
    x.strides, x.dim_stride = Strides(0, 0, dim), 1
    x.offsets, x.offsets_dtype = address(offsets), I64
    return x, (data, offsets)


def levels(path):
    """The CPU levels that can run here, from the baseline up."""
    c, why, found = ctypes.CDLL(str(path)), c_char_p(), []
    c.lik_cpu_level.argtypes, c.lik_cpu_level.restype = [c_int32, POINTER(c_char_p)], c_char_p
    for n in itertools.count():
        name = c.lik_cpu_level(n, byref(why))
        if name is None:
            return found
        if why.value.startswith(b"here"):
            found.append(name.decode())


def compressed_tokens(count, codec, codes, residuals, inv_norms=None):
    """f32 tokens over contiguous `codes` int32 [count * len] and residual bytes [count * len,
    bytes] of a Codec (struct, arrays to keep, dim): normalized, or by the inverse norms given.
    """
    struct, keep, dim = codec
    x = Tokens(struct_size=ctypes.sizeof(Tokens), storage=RESIDUAL, dtype=F32, count=count, dim=dim)
    x.len_max, x.dim_stride = len(codes) // count, 1
    x.data, x.codec = address(residuals), ctypes.addressof(struct)
    x.strides = Strides(0, x.len_max * residuals.shape[1], residuals.shape[1])
    x.codes, x.codes_dtype, x.codes_strides = address(codes), I32, Strides(0, x.len_max, 1)
    x.normalize = inv_norms is None
    if inv_norms is not None:
        x.scale, x.scale_strides = address(inv_norms), Strides(0, x.len_max, 1)
    return x, (struct, *keep, codes, residuals, inv_norms)


def codec_of(centroids, weights, bits, bit_order=1):
    """A Codec of f32 tables (struct, arrays to keep, dim); bit_order 1 is ColBERT's."""
    codec = Codec(struct_size=ctypes.sizeof(Codec), bits=bits, bit_order=bit_order)
    codec.centroids, codec.centroid_count = address(centroids), len(centroids)
    codec.centroids_dtype = codec.weights_dtype = F32
    codec.weights = address(weights)
    return codec, (centroids, weights), centroids.shape[1]


class Library:
    """liblik loaded from `path`, with a context on `device` and a pool of `threads` threads
    (none for one thread).
    """

    def __init__(self, path, device="cpu", threads=1):
        self.c = ctypes.CDLL(str(path))
        for name in ("lik_last_error", "lik_version", "lik_build_info", "lik_context_name"):
            getattr(self.c, name).restype = c_char_p
        self.c.lik_context_name.argtypes = [c_void_p]
        self.c.lik_context_create.argtypes = [c_char_p, POINTER(c_void_p)]
        self.c.lik_pool_create.argtypes = [c_int32, POINTER(c_void_p)]
        for kind in ("score", "topk", "grad", "decode", "encode", "train"):
            getattr(self.c, f"lik_{kind}_plan").argtypes = [c_void_p] * 4
            getattr(self.c, f"lik_{kind}_run").argtypes = [c_void_p] * 3
        self.context, self.pool, self.threads = c_void_p(), c_void_p(), threads
        self.check(self.c.lik_context_create(device.encode(), byref(self.context)))
        if threads > 1:
            self.check(self.c.lik_pool_create(threads, byref(self.pool)))

    def check(self, status):
        if status:
            raise LikError(f"{status}: {self.c.lik_last_error().decode()}")

    def name(self):
        return self.c.lik_context_name(self.context).decode()

    def build_info(self):
        return self.c.lik_build_info().decode()

    def version(self):
        return self.c.lik_version().decode()

    def prepare(self, kind, problem, keep):
        """A Call of lik_<kind>_run, planned, with its workspace. `keep` are arrays the problem
        points into.
        """
        exec_ = Exec(struct_size=ctypes.sizeof(Exec), threads=self.threads)
        if self.pool:
            exec_.parallel_for = ctypes.cast(self.c.lik_pool_parallel_for, c_void_p)
            exec_.pool = self.pool
        plan = Plan(struct_size=ctypes.sizeof(Plan))
        self.check(
            getattr(self.c, f"lik_{kind}_plan")(self.context, byref(problem), byref(exec_), byref(plan))
        )
        workspace = aligned_bytes(plan.workspace_bytes)
        exec_.workspace, exec_.workspace_bytes = address(workspace), plan.workspace_bytes
        return Call(self, getattr(self.c, f"lik_{kind}_run"), problem, exec_, plan, (*keep, workspace))

    def score(self, q, d, precision=HIGHEST, argmax=None):
        """All-pairs scores of the operands (struct, keep). `argmax`: None, or an int16/int32
        array to fill. Returns (call, scores f32 [q.count, d.count])."""
        scores = np.full((q[0].count, d[0].count), np.nan, np.float32)
        op = Score(struct_size=ctypes.sizeof(Score), q=q[0], d=d[0], pairing=ALL, precision=precision)
        op.scores = address(scores)
        if argmax is not None:
            op.argmax, op.argmax_dtype = address(argmax), I16 if argmax.dtype == np.int16 else I32
        return self.prepare("score", op, (*q[1], *d[1], scores, argmax)), scores

    def topk(self, q, d, k):
        """The k best documents of each query. Returns (call, values f32 [q.count, k], ids int64
        [q.count, k]).
        """
        values, ids = np.empty((q[0].count, k), np.float32), np.empty((q[0].count, k), np.int64)
        op = TopK(struct_size=ctypes.sizeof(TopK), k=k, values=address(values), ids=address(ids))
        op.score = Score(struct_size=ctypes.sizeof(Score), q=q[0], d=d[0], pairing=ALL)
        return self.prepare("topk", op, (*q[1], *d[1], values, ids)), values, ids

    def grad(self, score_call, grad_scores):
        """The gradients of a padded f32 problem whose argmax `score_call` writes. Returns
        (call, grad_q, grad_d).
        """
        q, d = score_call.problem.q, score_call.problem.d
        grad_q = np.empty((q.count, q.len_max, q.dim), np.float32)
        grad_d = np.empty((d.count, d.len_max, d.dim), np.float32)
        op = Grad(struct_size=ctypes.sizeof(Grad), score=score_call.problem)
        op.grad_scores, op.grad_q, op.grad_d = address(grad_scores), address(grad_q), address(grad_d)
        return self.prepare("grad", op, (*score_call.keep, grad_scores, grad_q, grad_d)), grad_q, grad_d

    def train(self, x, centroid_count, bits, iterations=4, seed=42, precision=HIGHEST):
        """A codec of these tokens (struct, keep). Returns (call, centroids f32 [centroid_count,
        dim], cutoffs f32, weights f32, found).
        """
        centroids = np.full((centroid_count, x[0].dim), np.nan, np.float32)
        cutoffs, weights = np.empty(2**bits - 1, np.float32), np.empty(2**bits, np.float32)
        found = TrainFound()
        op = Train(struct_size=ctypes.sizeof(Train), x=x[0], centroid_count=centroid_count, bits=bits)
        op.iterations, op.seed, op.precision = iterations, seed, precision
        op.centroids, op.cutoffs, op.weights = address(centroids), address(cutoffs), address(weights)
        op.found = ctypes.addressof(found)
        call = self.prepare("train", op, (*x[1], centroids, cutoffs, weights, found))
        return call, centroids, cutoffs, weights, found

    def encode(self, x, centroids, cutoffs, weights, bits):
        """The tokens' codes and residuals, in ColBERT's order. Returns (call, codec, codes
        int32 [rows], residuals uint8 [rows, bytes], inverse norms f32 [rows]).
        """
        rows, dim = x[0].total or x[0].count * x[0].len_max, x[0].dim
        codec, _, _ = codec_of(centroids, weights, bits)
        codes, inv_norms = np.empty(rows, np.int32), np.empty(rows, np.float32)
        residuals = np.empty((rows, (dim * bits + 7) // 8), np.uint8)
        op = Encode(struct_size=ctypes.sizeof(Encode), x=x[0], codec=ctypes.addressof(codec))
        op.cutoffs, op.codes_dtype, op.codes = address(cutoffs), I32, address(codes)
        op.residuals, op.inv_norms = address(residuals), address(inv_norms)
        keep = (*x[1], codec, centroids, cutoffs, weights, codes, residuals, inv_norms)
        return self.prepare("encode", op, keep), codec, codes, residuals, inv_norms

    def decode(self, codec, codes, residuals, inv_norms, dim, dtype=F32):
        """Rows of tokens. Returns (call, f32 [rows, dim], or f16)."""
        x, keep = compressed_tokens(1, (codec, (), dim), codes, residuals, inv_norms)
        x.dtype = dtype
        out = np.empty((len(codes), dim), np.float32 if dtype == F32 else np.float16)
        op = Decode(struct_size=ctypes.sizeof(Decode), x=x, out_dtype=dtype, out=address(out))
        return self.prepare("decode", op, (*keep, out)), out


class Call:
    """A planned call; calling it runs it."""

    def __init__(self, library, run, problem, exec_, plan, keep):
        self.library, self.function, self.problem, self.exec, self.keep = library, run, problem, exec_, keep
        self.variant = plan.variant.decode()
        self.workspace_bytes = plan.workspace_bytes
        self.arguments = (library.context, byref(problem), byref(exec_))

    def __call__(self):
        self.library.check(self.function(*self.arguments))


class Peak:
    """The machine's limits, from the shared object built of peak.c."""

    def __init__(self, path):
        self.c = ctypes.CDLL(str(path))
        self.c.peak_level.restype = c_char_p
        self.c.peak_fma.argtypes, self.c.peak_fma.restype = [c_int, ctypes.c_double], ctypes.c_double
        self.c.peak_name.argtypes, self.c.peak_name.restype = [c_int], c_char_p
        self.c.peak_of.argtypes = [c_char_p, c_int, ctypes.c_double]
        self.c.peak_of.restype = ctypes.c_double
        self.c.peak_read.argtypes = [c_int, c_int64, ctypes.c_double]
        self.c.peak_read.restype = ctypes.c_double
        self.c.peak_repeat.argtypes = [c_void_p] * 4 + [c_int64]
        self.c.peak_repeat.restype = ctypes.c_double

    def level(self):
        return self.c.peak_level().decode()

    def fma(self, threads, seconds):
        """Floating-point operations a second of a register-only multiply-add loop."""
        return self.measured(self.c.peak_fma(threads, seconds))

    def of(self, threads, seconds):
        """Operations a second of each multiplying instruction that the processor has:
        {name: rate}.
        """
        numbers = itertools.count()
        names = iter(lambda: self.c.peak_name(next(numbers)), None)
        rates = {name.decode(): self.measured(self.c.peak_of(name, threads, seconds)) for name in names}
        return {name: rate for name, rate in rates.items() if rate}

    def read(self, threads, size, seconds):
        """Bytes a second read from a buffer of `size` bytes a thread."""
        return self.measured(self.c.peak_read(threads, size, seconds))

    def repeat(self, call, times):
        """Seconds a call of `call` (a Call), repeated `times` times in C."""
        function = ctypes.cast(call.function, c_void_p)
        return self.measured(self.c.peak_repeat(function, call.library.context, *call.arguments[1:], times))

    @staticmethod
    def measured(value):
        if value < 0:
            raise RuntimeError("a measurement failed: out of memory, or the measured call returned an error")
        return value
