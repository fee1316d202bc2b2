"""NumPy arrays: what ``checks`` asks of an array, and how one is lent to the extension, where
it lies.

float32 and float16 are NumPy's own; bfloat16 and the 8-bit floats are ml_dtypes', recognized by
their names.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from .. import _native

_native.register_numpy(np.ndarray, np.empty, np.float32)

# Dtypes that the buffer protocol cannot describe, with the library's codes (enum lik_dtype in
# lik.h).
_CODES = {"bfloat16": 3, "float8_e4m3fn": 4, "float8_e5m2": 5}


class _Names(dict[Any, str]):
    """Names of dtypes, whatever their byte order: NumPy takes a microsecond to make one."""

    def __missing__(self, dtype: Any) -> str:
        self[dtype] = name = str(dtype.name)
        return name


_names = _Names()


def dtype_name(x: Any) -> str:
    return _names[x.dtype]


def is_bool(x: Any) -> bool:
    return bool(x.dtype == np.bool_)


def is_integer(x: Any) -> bool:
    return x.dtype.kind in "iu"


def _dtype(name: str) -> Any:
    if name not in _CODES:
        return name
    import ml_dtypes

    return getattr(ml_dtypes, name)


def cast(x: Any, dtype: str) -> Any:
    if _names[x.dtype] == dtype:
        return settle(x)
    return x.astype(_dtype(dtype))


def contiguous(x: Any) -> Any:
    return np.ascontiguousarray(settle(x))


def zero_or_one(x: Any) -> bool:
    return bool(((x == 0) | (x == 1)).all())


def device(x: Any) -> str:
    return "cpu"


def on_host(x: Any) -> bool:
    return True


has_values = readable = may_wait = in_reach = on_host


def out_of_sight(x: Any) -> bool:
    return False


def first(condition: Any) -> tuple[int, ...]:
    """Where the first True stands."""
    return tuple(int(i) for i in np.unravel_index(np.argmax(condition), condition.shape))


def clamp(x: Any, low: int, high: int) -> Any:
    return np.clip(x, low, high)


def stacked(parts: Any) -> Any:
    return np.stack(parts)


def widen_empty(x: Any) -> Any:
    return np.zeros((*x.shape[:-1], 1), x.dtype)


def settle(x: Any) -> Any:
    """A native-endian, aligned array whose strides are whole elements: x itself unless it is a
    rare one.
    """
    if not x.dtype.isnative or not x.flags.aligned or any(s % x.itemsize for s in x.strides):
        return np.array(x, dtype=x.dtype.newbyteorder("="), order="C")
    return x


def adjacent(x: Any) -> Any:
    """With the entries of the last axis side by side."""
    return x if x.shape[-1] < 2 or x.strides[-1] == x.itemsize else np.ascontiguousarray(x)


def largest(x: Any) -> int:
    return int(x.max()) if x.size else 0


def extremes(x: Any) -> tuple[int, int]:
    return int(x.min()), int(x.max())


def offset_extremes(x: Any) -> tuple[int, int, int, int]:
    found = _native.extremes(lend(x))
    if found is not None:
        return found
    steps = np.diff(x)
    return *extremes(x), *(extremes(steps) if len(steps) else (0, 0))


def wants_grad(*arrays: Any) -> bool:
    return False


def empty(shape: tuple[int, ...], dtype: str, like: Any) -> Any:
    return np.empty(shape, _dtype(dtype))


def arange(n: int, like: Any) -> Any:
    return np.arange(n)


def precision(choice: int) -> int:
    return max(choice, 0)


def kth_largest(x: Any, k: int) -> Any:
    """Of each row, [rows, 1]; NaN is below all."""
    x, at = np.where(np.isnan(x), -np.inf, x), x.shape[-1] - k
    return np.partition(x, at, axis=-1)[:, at : at + 1]


def where_true(condition: Any) -> tuple[Any, Any]:
    """(rows, columns) of a matrix's true entries, row by row."""
    rows, columns = np.nonzero(condition)
    return np.ascontiguousarray(rows), np.ascontiguousarray(columns)


def searched(ascending: Any, values: Any) -> Any:
    return np.searchsorted(ascending, values)


def where(condition: Any, x: Any, y: Any) -> Any:
    return np.where(condition, x, np.float32(y))


def nan_where(broken: Any, scores: Any) -> Any:
    return scores if broken is None else np.where(broken, np.float32(np.nan), scores)


def tracing(*arrays: Any) -> bool:
    return False


def exact(like: Any) -> AbstractContextManager[None]:
    return nullcontext()


def linear(x: Any, weight: Any, bias: Any) -> Any:
    return x @ weight.T if bias is None else x @ weight.T + bias


def projection_dtype(*arrays: Any) -> str:
    return "float32"


def scalar(value: Any, like: Any) -> Any:
    return np.asarray(value, np.float32)


def ones(shape: tuple[int, ...], like: Any) -> Any:
    return np.ones(shape, np.float32)


def largest_in_row(x: Any) -> Any:
    return x.max(axis=-1)


def offsets_of(lengths: Any) -> Any:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def joined(parts: Any) -> Any:
    return np.concatenate(parts)


def integers(values: list[int], like: Any) -> Any:
    return np.array(values, np.int64)


def in_bytes(x: Any) -> memoryview:
    """What the array holds, in little-endian order."""
    return memoryview(np.ascontiguousarray(settle(x)).reshape(-1).view(np.uint8)).cast("B")


def mapped(path: str) -> Callable[[str, tuple[int, ...], int, int], Any]:
    """(dtype, shape, where, bytes) -> an array that lies in the file, read-only."""
    data = np.memmap(path, np.uint8, "r")

    def make(dtype: str, shape: tuple[int, ...], at: int, size: int) -> Any:
        kind = np.dtype(_dtype(dtype))
        part = np.asarray(data[at : at + size])
        return (part if at % kind.itemsize == 0 else part.copy()).view(kind).reshape(shape)

    return make


def as_kind(x: Any, kind: str) -> Any:
    """Bytes as what they stand for."""
    return x.view(_dtype(kind))


def lend(x: Any) -> Any:
    code = None if x is None else _CODES.get(_names[x.dtype])
    if code is None:
        return x
    strides = tuple(s // x.itemsize for s in x.strides)
    return (x.__array_interface__["data"][0], code, -1, x.shape, strides, x)


def lent(fields: tuple[Any, ...], arrays: int) -> Any:
    """The fields of a problem, the first of them arrays."""
    return (*(x if x is None else lend(x) for x in fields[:arrays]), *fields[arrays:])
