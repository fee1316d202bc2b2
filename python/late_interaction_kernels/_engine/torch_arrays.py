"""torch tensors: what ``checks`` asks of an array, and whether a tensor is plain memory that
the library may be given.

A torch from 2.10 on lends its tensors to the extension through DLPack's exchange API; an older
one by their addresses.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch.autograd import forward_ad

from .. import _native
from . import environment
from .problem import FOLLOW, HIGH, HIGHEST, MEDIUM

PLAIN = (torch.Tensor, torch.nn.Parameter)
EXCHANGE = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
_PRECISIONS = {"high": HIGH, "medium": MEDIUM}
_INTEGERS = (
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)
_KEYS = torch._C._TorchDispatchModeKey
_TRACERS = (_KEYS.FAKE, _KEYS.PROXY, _KEYS.FUNCTIONAL)

# Dtypes with the library's codes: enum lik_dtype in lik.h, enum view_dtype in native/view.h.
_CODES = {
    torch.float32: 1,
    torch.float16: 2,
    torch.bfloat16: 3,
    torch.float8_e4m3fn: 4,
    torch.float8_e5m2: 5,
    torch.int8: 6,
    torch.int16: 7,
    torch.int32: 8,
    torch.int64: 9,
    torch.bool: 64,
    torch.uint8: 65,
    torch.uint16: 68,
}


# ---- is it plain memory? ----

# Bits of way(): enum way in native/short.c.
TRANSFORMED, DISPATCHED = 1, 2


def way(*tensors: Any) -> int:
    """What is between these tensors (None is none) and plain memory, 0 if nothing is.
    DISPATCHED: a trace, a mode, a subclass, a tensor without memory, all of which take an
    operator. TRANSFORMED: torch.func or dual numbers, whose Function knows what to do or says
    that it does not.
    """
    return DISPATCHED if torch.compiler.is_compiling() else _native.way(*tensors)


def tracing(*tensors: Any) -> bool:
    return way(*tensors) != 0


def has_values(x: Any) -> bool:
    """Can they be asked for: is it neither traced, fake nor wrapped by torch.func? Dynamo
    breaks its graph where it must. Modes that only watch (counting operations, checkpointing)
    take nothing away.
    """
    if torch.compiler.is_compiling():
        return True
    if x.is_meta or torch._C._is_tracing() or torch._C._functorch.is_functorch_wrapped_tensor(x):
        return False
    if torch._C._len_torch_dispatch_stack() and any(torch._C._get_dispatch_mode(key) for key in _TRACERS):
        return False
    fake = sys.modules.get("torch._subclasses.fake_tensor")
    return fake is None or not isinstance(x, fake.FakeTensor)


def on_host(x: Any) -> bool:
    """Is it plain memory of the host?"""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    return type(x) in PLAIN and has_values(x)


def in_reach(x: Any) -> bool:
    """Is it plain memory that the library computes with, the host's or a device's?"""
    if on_host(x) or torch.compiler.is_compiling() or x.device.type != "cuda":
        return on_host(x)
    here = torch.version.hip is None and _native.has_device(x.device.index)
    return here and type(x) in PLAIN and has_values(x)


def readable(x: Any) -> bool:
    """May its values be looked at: on the host without waiting, under LIK_CHECK=1 on every
    device.
    """
    return on_host(x) or (not torch.compiler.is_compiling() and environment.checking() and has_values(x))


def out_of_sight(x: Any) -> bool:
    """Does it lie on the host, where the library refuses what is out of range, and cannot be
    looked at before?
    """
    return x.device.type != "cuda" and not readable(x)


def may_wait(x: Any) -> bool:
    """May one call look at values wherever they are? Never while a graph is captured."""
    return not tracing(x) and not (x.is_cuda and torch.cuda.is_current_stream_capturing())


# ---- lending ----


def lend(x: Any) -> Any:
    """What the extension reads: the tensor itself, or its address where torch has no exchange
    API.
    """
    if x is None or EXCHANGE:
        return x
    x = plain(x)
    return described(x, x.data_ptr(), -1 if x.device.type == "cpu" else x.device.index)


def described(x: Any, address: int, device: int) -> Any:
    """A tensor by its address: see native/view.h."""
    return (address, _CODES.get(x.dtype, 67), device, tuple(x.shape), x.stride(), x)


def lent(fields: tuple[Any, ...], arrays: int) -> Any:
    """The fields of a problem, the first of them arrays."""
    return fields if EXCHANGE else (*map(lend, fields[:arrays]), *fields[arrays:])


def plain(x: Any) -> Any:
    """The same values in memory: a sign change that torch has put off is made, zeros get their
    memory.
    """
    x = x.detach().resolve_neg()
    return torch.zeros(x.shape, dtype=x.dtype, device=x.device) if x._is_zerotensor() else x


def _stream(index: int) -> int:
    return int(torch.cuda.current_stream(index).cuda_stream)


def _precision() -> int:
    return _PRECISIONS.get(torch.get_float32_matmul_precision(), HIGHEST)


def _workspace(index: int, size: int) -> tuple[Any, int]:
    memory = torch.empty(size, dtype=torch.uint8, device=torch.device("cuda", index))
    return memory, memory.data_ptr()


_native.register_torch(
    torch.Tensor,
    torch.nn.Parameter,
    torch.is_grad_enabled,
    torch._C._are_functorch_transforms_active,
    torch._C._len_torch_dispatch_stack,
    torch._C._is_tracing,
    forward_ad,
    getattr(torch._C, "_cuda_getCurrentRawStream", _stream),
    _workspace,
    _precision,
    torch.Tensor.is_neg,
    plain,
)


# ---- what checks asks ----


def dtype_name(x: Any) -> str:
    return str(x.dtype)[6:]


def is_bool(x: Any) -> bool:
    return bool(x.dtype == torch.bool)


def is_integer(x: Any) -> bool:
    return x.dtype in _INTEGERS


def cast(x: Any, dtype: str) -> Any:
    return x.to(getattr(torch, dtype))


def contiguous(x: Any) -> Any:
    return x.contiguous()


def zero_or_one(x: Any) -> bool:
    """Only where its values may be read: elsewhere any non-zero counts as True."""
    return not readable(x) or bool(((x == 0) | (x == 1)).all())


def device(x: Any) -> Any:
    return x.device


def first(condition: Any) -> tuple[int, ...]:
    """Where the first True stands."""
    return tuple(condition.nonzero()[0].tolist())


def clamp(x: Any, low: int, high: int) -> Any:
    return x.clamp(low, high)


def stacked(parts: Any) -> Any:
    return torch.stack(parts)


def widen_empty(x: Any) -> Any:
    return torch.nn.functional.pad(x, (0, 1))


def settle(x: Any) -> Any:
    return x


def adjacent(x: Any) -> Any:
    """With the entries of the last axis side by side: in a trace whatever they are then."""
    return x if x.stride(-1) == 1 and not tracing(x) else x.contiguous()


def largest(x: Any) -> int:
    return int(x.max()) if x.numel() else 0


def _read_extremes(x: Any) -> tuple[int, int, int, int] | None:
    """By the extension, which reads plain memory."""
    return _native.extremes(lend(x)) if on_host(x) else None


def extremes(x: Any) -> tuple[int, int]:
    found = _read_extremes(x)
    if found is not None:
        return found[:2]
    low, high = x.aminmax()
    return int(low), int(high)


def offset_extremes(x: Any) -> tuple[int, int, int, int]:
    found = _read_extremes(x)
    if found is not None:
        return found
    steps = x[1:] - x[:-1] if x.shape[0] > 1 else x - x
    low, high, shortest, longest = torch.stack([*x.aminmax(), *steps.aminmax()]).tolist()  # one wait
    return low, high, shortest, longest


def empty(shape: tuple[int, ...], dtype: str, like: Any) -> Any:
    return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)


def arange(n: int, like: Any) -> Any:
    return torch.arange(n, device=like.device)


def precision(choice: int) -> int:
    """What products are taken in: ``choice``, or what torch is set to."""
    return _precision() if choice == FOLLOW else choice


def kth_largest(x: Any, k: int) -> Any:
    """Of each row, [rows, 1]; NaN is below all."""
    x = torch.nan_to_num(x, -torch.inf, torch.inf, -torch.inf)
    return torch.topk(x, k, dim=-1).values[:, -1:]


def where_true(condition: Any) -> tuple[Any, Any]:
    """(rows, columns) of a matrix's true entries, row by row. Waits for their number."""
    rows, columns = condition.nonzero(as_tuple=True)
    return rows.contiguous(), columns.contiguous()


def searched(ascending: Any, values: Any) -> Any:
    return torch.searchsorted(ascending, values)


def where(condition: Any, x: Any, y: Any) -> Any:
    return torch.where(condition, x, y)


def nan_where(broken: Any, scores: Any) -> Any:
    """NaN for what has been found broken where it lies; None for nothing."""
    return scores if broken is None else scores.masked_fill(broken, torch.nan)


def exact(like: Any) -> Any:
    """Products in the operands' own dtype: autocast would round the vectors that the library is
    about to score.
    """
    kind = like.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def linear(x: Any, weight: Any, bias: Any) -> Any:
    return torch.nn.functional.linear(x, weight, bias)


def projection_dtype(*arrays: Any) -> str:
    """What documents are projected in (None is no array)."""
    found = {x.dtype for x in arrays if x is not None}
    one = found.pop() if len(found) == 1 and arrays[0].is_cuda else torch.float32
    return str(one)[6:] if one in (torch.float16, torch.bfloat16) else "float32"


def scalar(value: Any, like: Any) -> Any:
    return torch.as_tensor(value, dtype=torch.float32, device=like.device)


def ones(shape: tuple[int, ...], like: Any) -> Any:
    return torch.ones(shape, dtype=torch.float32, device=like.device)


def largest_in_row(x: Any) -> Any:
    return x.amax(dim=-1)


def offsets_of(lengths: Any) -> Any:
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def joined(parts: Any) -> Any:
    return torch.cat(parts)


def integers(values: list[int], like: Any) -> Any:
    return torch.tensor(values, dtype=torch.int64).to(like.device, non_blocking=True)


def in_bytes(x: Any) -> memoryview:
    """What the tensor holds, in little-endian order."""
    x = plain(x).cpu().contiguous()
    size = x.numel() * x.element_size()
    if not size:
        return memoryview(b"")
    held: Any = (ctypes.c_ubyte * size).from_address(x.data_ptr())
    held.owner = x  # lives as long as its memory is looked at
    return memoryview(held).cast("B")


def mapped(path: str) -> Callable[[str, tuple[int, ...], int, int], Any]:
    """(dtype, shape, where, bytes) -> a tensor that lies in the file; what is written into it
    stays in memory. Numbers of 16 bits without a sign are taken as int16, which has their bits.
    """
    data: Any = torch.UntypedStorage.from_file(path, shared=False, nbytes=os.path.getsize(path))
    whole = torch.empty(0, dtype=torch.uint8).set_(data)

    def make(dtype: str, shape: tuple[int, ...], at: int, size: int) -> Any:
        kind = getattr(torch, "int16" if dtype == "uint16" else dtype)
        part = whole[at : at + size]
        return (part if at % kind.itemsize == 0 else part.clone()).view(kind).reshape(shape)

    return make


def wants_grad(*arrays: Any) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in arrays)


def as_kind(x: Any, kind: str) -> Any:
    """Bytes as what they stand for."""
    return x.view(getattr(torch, kind))
