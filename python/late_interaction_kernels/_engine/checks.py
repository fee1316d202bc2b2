"""What users pass, checked and made a :class:`Problem`: the wrong argument is named before
anything is computed.

``fw`` is the module that knows the arrays' kind: ``numpy_arrays`` or ``torch_arrays``.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from . import native
from .problem import (
    ALL,
    CANDIDATES,
    NORMALIZE,
    PAIRS,
    BoundError,
    Problem,
    Tokens,
    batched,
    detached,
)

FLOATS = ("float32", "float16", "bfloat16")
FLOATS8 = ("float8_e4m3fn", "float8_e5m2")


class Framework(Protocol):
    """What a module for one kind of array offers."""

    def dtype_name(self, x: Any) -> str: ...
    def is_bool(self, x: Any) -> bool: ...
    def is_integer(self, x: Any) -> bool: ...
    def cast(self, x: Any, dtype: str) -> Any: ...
    def contiguous(self, x: Any) -> Any: ...
    def zero_or_one(self, x: Any) -> bool: ...
    def device(self, x: Any) -> Any: ...
    def on_host(self, x: Any) -> bool: ...
    def in_reach(self, x: Any) -> bool: ...
    def has_values(self, x: Any) -> bool: ...
    def readable(self, x: Any) -> bool: ...
    def out_of_sight(self, x: Any) -> bool: ...
    def may_wait(self, x: Any) -> bool: ...
    def first(self, condition: Any) -> tuple[int, ...]: ...
    def widen_empty(self, x: Any) -> Any: ...
    def settle(self, x: Any) -> Any: ...
    def adjacent(self, x: Any) -> Any: ...
    def largest(self, x: Any) -> int: ...
    def extremes(self, x: Any) -> tuple[int, int]: ...
    def offset_extremes(self, x: Any) -> tuple[int, int, int, int]: ...
    def as_kind(self, x: Any, kind: str) -> Any: ...
    def lend(self, x: Any) -> Any: ...
    def lent(self, fields: tuple[Any, ...], arrays: int) -> Any: ...
    def wants_grad(self, *arrays: Any) -> bool: ...
    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any: ...
    def arange(self, n: int, like: Any) -> Any: ...
    def precision(self, choice: int) -> int: ...
    def kth_largest(self, x: Any, k: int) -> Any: ...
    def where_true(self, condition: Any) -> tuple[Any, Any]: ...
    def searched(self, ascending: Any, values: Any) -> Any: ...
    def where(self, condition: Any, x: Any, y: Any) -> Any: ...
    def clamp(self, x: Any, low: int, high: int) -> Any: ...
    def stacked(self, parts: Any) -> Any: ...
    def nan_where(self, broken: Any, scores: Any) -> Any: ...
    def tracing(self, *arrays: Any) -> bool: ...
    def linear(self, x: Any, weight: Any, bias: Any) -> Any: ...
    def projection_dtype(self, *arrays: Any) -> str: ...
    def exact(self, like: Any) -> AbstractContextManager[Any]: ...
    def scalar(self, value: Any, like: Any) -> Any: ...
    def ones(self, shape: tuple[int, ...], like: Any) -> Any: ...
    def largest_in_row(self, x: Any) -> Any: ...
    def offsets_of(self, lengths: Any) -> Any: ...
    def joined(self, parts: Any) -> Any: ...
    def integers(self, values: list[int], like: Any) -> Any: ...
    def in_bytes(self, x: Any) -> memoryview: ...
    def mapped(self, path: str) -> Callable[[str, tuple[int, ...], int, int], Any]: ...


_OPTIONAL = ("q_mask", "d_mask", "q_weights", "b", "mask")


def framework(**arrays: Any) -> Framework:
    """The framework all arguments belong to; masks, weights and biases may be None. TypeError
    names the one that fits nowhere.
    """
    torch: Any = sys.modules.get("torch")
    numpy = sys.modules.get("numpy")
    all_torch, odd = torch is not None, ""
    for name, x in arrays.items():
        if x is None:
            if name not in _OPTIONAL:
                raise TypeError(f"{name} must be a torch.Tensor or a numpy.ndarray, got None")
        elif not all_torch or not isinstance(x, torch.Tensor):
            all_torch = False
        elif not odd and (x.layout != torch.strided or x.is_nested):
            odd = name
    if all_torch:
        from late_interaction_kernels._engine import torch_arrays

        if odd:
            raise TypeError(f"{odd} must be a dense tensor, got a sparse or nested one")
        return torch_arrays
    found = ""
    first = ""
    for name, x in arrays.items():
        if x is None:
            continue
        if torch is not None and isinstance(x, torch.Tensor):
            kind = "torch"
        elif numpy is not None and isinstance(x, numpy.ndarray):
            kind = "numpy"
            if type(x) not in (numpy.ndarray, numpy.memmap):
                _refuse_subclass(name, x, isinstance(x, numpy.ma.MaskedArray))
        else:
            raise TypeError(
                f"{name} must be a torch.Tensor or a numpy.ndarray, got {type(x).__name__}{_way_out(name, x)}"
            )
        if found and kind != found:
            raise TypeError(f"{name} is of {kind}, but {first} is of {found}: pass one kind of array")
        found, first = kind, first or name
    if found == "torch":
        from late_interaction_kernels._engine import torch_arrays

        return torch_arrays
    from late_interaction_kernels._engine import numpy_arrays

    return numpy_arrays


def _way_out(name: str, x: Any) -> str:
    """What to do with a list: an error ends with it."""
    if not isinstance(x, list | tuple):
        return ""
    if name.startswith("cu_seqlens"):
        return f". Make it one: numpy.array({name}) or torch.tensor({name})"
    if name[0] in "QD" and len(x) and hasattr(x[0], "shape"):
        return f". late_interaction_kernels.pack({name[0]}) makes tokens and offsets of a list"
    return ""


def compiling() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_dynamo_compiling()


def _refuse_subclass(name: str, x: Any, masked: bool) -> None:
    """Subclasses of numpy.ndarray compute in ways of their own: nothing is guessed."""
    if masked:
        mask = {"Q": "q_mask", "D": "d_mask", "H": "d_mask", "tokens": "mask"}.get(name)
        hint = f", and the tokens that count as {mask}" if mask else ""
        raise TypeError(
            f"{name} is a {type(x).__name__}, whose mask would be ignored: pass {name}.data{hint}"
        )
    raise TypeError(
        f"{name} is a {type(x).__name__}, must be a plain numpy.ndarray: pass numpy.asarray({name})"
    )


def whole_number(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """value as an int from ``least`` to ``most``: anything with __index__ but bool. A trace's
    symbol stays one.
    """
    torch = sys.modules.get("torch")
    number: int = value
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt) if torch else int):
        try:
            if isinstance(value, bool):
                raise TypeError
            number = operator.index(value)
        except TypeError:
            raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be at most {most}, got {number}")
    return number


def shape_text(shape: Any) -> str:
    return "(" + ", ".join(str(int(n)) for n in shape) + ("," if len(shape) == 1 else "") + ")"


def is_packed(cu_seqlens_q: Any, cu_seqlens_d: Any, max_seqlen_q: Any, max_seqlen_d: Any) -> bool:
    """Is a side packed? A bound without offsets, which nothing would look at, is refused."""
    for x, offsets, bound in (("q", cu_seqlens_q, max_seqlen_q), ("d", cu_seqlens_d, max_seqlen_d)):
        if bound is not None and offsets is None:
            raise ValueError(f"max_seqlen_{x} is {bound}, must be None without cu_seqlens_{x}")
    return cu_seqlens_q is not None or cu_seqlens_d is not None


def check_rank(name: str, x: Any, ranks: tuple[int, ...], form: str) -> None:
    if len(x.shape) not in ranks:
        raise ValueError(f"{name} must have shape {form}, got {shape_text(x.shape)}")


def check_axes(name: str, x: Any) -> None:
    if not len(x.shape):
        raise ValueError(f"{name} must have shape [..., d], got ()")


def check_shape(name: str, x: Any, want: tuple[int, ...], why: str) -> None:
    if tuple(x.shape) != tuple(want):
        raise ValueError(
            f"{name} must have shape {shape_text(want)}, got {shape_text(x.shape)}: {name} must be {why}"
        )


def check_device(fw: Framework, name: str, x: Any, like: Any, like_name: str) -> None:
    if fw.device(x) != fw.device(like):
        raise ValueError(
            f"{name} is on {fw.device(x)}, {like_name} is on {fw.device(like)}: they must be on the same "
            "device"
        )


def check_float(fw: Framework, name: str, x: Any) -> None:
    if fw.dtype_name(x) not in (*FLOATS, "float64"):
        raise TypeError(f"{name} has dtype {fw.dtype_name(x)}, must be one of {', '.join(FLOATS)}, float64")


def embeddings(fw: Framework, name: str, x: Any) -> Any:
    """Token vectors in a dtype the library stores; float64 becomes float32, integers and
    complex are refused.
    """
    check_float(fw, name, x)
    return fw.cast(x, "float32") if fw.dtype_name(x) == "float64" else fw.settle(x)


def token_mask(fw: Framework, name: str, mask: Any, shape: tuple[int, ...], like: Any, like_name: str) -> Any:
    """A bool mask of exactly this shape; integers are taken if they are all 0 or 1."""
    if mask is None:
        return None
    check_shape(name, mask, shape, f"shaped like {like_name} without its last axis")
    check_device(fw, name, mask, like, like_name)
    if fw.is_bool(mask):
        return mask
    if not fw.is_integer(mask):
        hint = ". Weights per query token go into q_weights" if name.startswith("q") else ""
        raise TypeError(
            f"{name} has dtype {fw.dtype_name(mask)}, must be bool or an integer dtype of 0 and 1{hint}"
        )
    if not fw.zero_or_one(mask):
        at = fw.first((mask != 0) & (mask != 1))
        raise ValueError(
            f"{name} of dtype {fw.dtype_name(mask)} must hold only 0 and 1, {entry(name, at)} is "
            f"{int(mask[at])}"
        )
    return fw.cast(mask, "bool")


def token_weights(fw: Framework, weights: Any, shape: tuple[int, ...], like: Any, like_name: str) -> Any:
    if weights is None:
        return None
    check_shape("q_weights", weights, shape, f"shaped like {like_name} without its last axis")
    check_device(fw, "q_weights", weights, like, like_name)
    check_float(fw, "q_weights", weights)
    return fw.cast(weights, "float32")


def packed_offsets(
    fw: Framework, name: str, offsets: Any, total: int, tokens: str, like: Any
) -> tuple[Any, int | None]:
    """Offsets [N + 1]: integers, ascending, from >= 0 to <= total. Checked where they may be
    read, and there with the length of the longest sequence."""
    check_rank(name, offsets, (1,), "[N + 1]")
    if not fw.is_integer(offsets):
        raise TypeError(f"{name} has dtype {fw.dtype_name(offsets)}, must be an integer dtype")
    if offsets.shape[0] < 1:
        raise ValueError(f"{name} must hold at least one offset, got {shape_text(offsets.shape)}")
    check_device(fw, name, offsets, like, tokens)
    offsets = fw.contiguous(whole(fw, offsets))
    if not fw.readable(offsets):
        return offsets, None
    low, high, shortest, most = fw.offset_extremes(offsets)
    if low >= 0 and shortest >= 0 and high <= total:
        return offsets, most
    if low < 0:
        at = fw.first(offsets < 0)
        said = f"must be ascending and not negative: {entry(name, at)} is {int(offsets[at])}"
    elif shortest < 0:
        (i,) = fw.first(offsets[1:] < offsets[:-1])
        said = (
            f"must be ascending and not negative: {name}[{i + 1}] is {int(offsets[i + 1])}, "
            f"{name}[{i}] is {int(offsets[i])}"
        )
    else:
        at = fw.first(offsets > total)
        said = f"ends at {high}, {tokens} has {total} tokens: {entry(name, at)} is {int(offsets[at])}"
    if low >= 0 and int(offsets.sum()) == total:
        said += (
            f". It looks like lengths, not offsets: their sum is {total}. Offsets begin with 0 and go on "
            "with the sums; late_interaction_kernels.pack(list) makes tokens and offsets of a list"
        )
    raise ValueError(f"{name} {said}")


def longest(
    fw: Framework, name: str, offsets: tuple[Any, int | None], bound_name: str, bound: int | None
) -> int:
    """The longest sequence of what ``packed_offsets`` returned, or the caller's bound if it
    holds.
    """
    values, known = offsets
    if bound is not None:
        bound = whole_number(bound_name, bound, 0)
        if known is None:
            return bound
    elif known is None and (compiling() or not fw.has_values(values)):
        raise ValueError(
            f"{bound_name} is needed: {name} is compiled, traced, fake or wrapped by torch.func, and its "
            f"longest sequence cannot be looked at. Pass {bound_name}"
        )
    most = max(fw.offset_extremes(values)[3], 0) if known is None else known
    if bound is not None and bound < most:
        raise BoundError(
            f"{bound_name} is {bound}, which is smaller than the longest sequence of {name}, {most} tokens"
        )
    return most


def entry(name: str, at: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, at))}]"


def check_range(
    fw: Framework, name: str, x: Any, low: int, high: int, kept: Any = None, looked: Any = None
) -> None:
    """Integers must lie in low ... high, ``looked = x[kept]`` of them if given; the first that
    does not is named.
    """
    looked = x if looked is None else looked
    if not all(looked.shape):
        return
    least, most = fw.extremes(looked)
    if least < low or most > high:
        outside = (x < low) | (x > high)
        at = fw.first(outside if kept is None else outside & kept)
        raise BoundError(f"{entry(name, at)} is {int(x[at])}, must be {low} to {high}")


def sequence_lengths(
    fw: Framework,
    name: str,
    lengths: Any,
    shape: tuple[int, ...],
    extent: int,
    like: Any,
    like_name: str,
    *,
    look: bool = False,
) -> tuple[Any, Any, Any]:
    """(lengths in 0 ... extent, bool [*shape, extent]: the tokens that count, bool ``shape``:
    the sequences whose length was out of that range, which score NaN). Where lengths may be
    read, or must with ``look``, such lengths are refused, and the last is None.
    """
    check_shape(name, lengths, shape, "one length a sequence")
    if not fw.is_integer(lengths):
        raise TypeError(f"{name} has dtype {fw.dtype_name(lengths)}, must be an integer dtype")
    check_device(fw, name, lengths, like, like_name)
    if look and not fw.has_values(lengths):
        raise ValueError(
            f"{name} is traced, fake or wrapped by torch.func: its values cannot be looked at here"
        )
    lengths, broken = whole(fw, lengths), None
    if look or fw.readable(lengths):
        check_range(fw, name, lengths, 0, extent)
    else:
        inside = fw.clamp(lengths, 0, extent)
        lengths, broken = inside, inside != lengths
    return lengths, fw.arange(extent, like) < lengths[..., None], broken


def whole(fw: Framework, numbers: Any) -> Any:
    """Integers as int32 or int64, in which everything can be compared."""
    return numbers if fw.dtype_name(numbers) in ("int32", "int64") else fw.cast(numbers, "int64")


STORAGES = {"int8": ("int8",), "fp8": FLOATS8}  # dtypes of the values, the one made of floats first


def check_pair(fw: Framework, values: Any, scale: Any, names: tuple[str, str], storage: str) -> None:
    """A pair as ``quantize_int8_per_token`` or ``quantize_fp8_per_token`` returns it."""
    kinds = STORAGES[storage]
    if fw.dtype_name(values) not in kinds:
        raise TypeError(f"{names[0]} has dtype {fw.dtype_name(values)}, must be {' or '.join(kinds)}")
    check_shape(names[1], scale, tuple(values.shape[:-1]), f"shaped like {names[0]} without its last axis")
    check_device(fw, names[1], scale, values, names[0])
    check_float(fw, names[1], scale)


LARGEST = {"int8": 127.0, "float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}
_LEAST = {"int8": 1e-12, "float8_e4m3fn": 1e-6, "float8_e5m2": 1e-6}  # of a token's largest element


def quantized(
    fw: Framework, x: Any, kind: str, normalize: bool = False, one: bool = False
) -> tuple[Any, Any]:
    """(values of x's shape, f32 scales) of float tokens: a scale each, or one of all. By the
    extension where the library computes; elsewhere, and in a trace, by operations of the
    framework.
    """
    x, empty = detached(x), 0 in tuple(x.shape)
    if fw.in_reach(x) and not empty and not fw.tracing(x):
        values, scales = native.quantize(fw, fw.settle(x), kind, normalize, one)
        return fw.as_kind(values, kind), scales
    wide, most = fw.cast(x, "float32"), LARGEST[kind]
    by = fw.ones((), wide) * most  # on CUDA torch multiplies by the reciprocal of a number
    if one:
        scale = fw.scalar(1.0, wide) if empty else abs(wide).max().clip(_LEAST[kind]) / by
        return fw.cast((wide / scale).clip(-most, most), kind), scale
    if empty:
        tiny = _LEAST[kind] / most if kind == "int8" else 1.0
        return fw.cast(wide, kind), fw.ones(tuple(x.shape[:-1]), wide) * tiny
    scale = fw.largest_in_row(abs(wide)).clip(_LEAST[kind]) / by
    v = (wide / scale[..., None]).clip(-most, most)
    values = fw.cast(v.round() if kind == "int8" else v, kind)
    if normalize:
        length = (v * v).sum(-1) ** 0.5
        scale = scale / (length * scale).clip(1e-12)
    return values, scale


def stored(fw: Framework, D: Any, storage: str | None, name: str = "D") -> tuple[Any, Any]:
    """Document tokens and their scales: (D, None), or tokens of 8 bits for a ``storage``."""
    if storage is None:
        return embeddings(fw, name, D), None
    if storage not in STORAGES:
        raise ValueError(f'storage must be None, "int8" or "fp8", got {storage!r}')
    if isinstance(D, tuple):
        if len(D) != 2:
            raise ValueError(
                f"{name} must be (values, scales) as quantize_{storage}_per_token returns, got {len(D)} items"
            )
        values, scale = D
        framework(**{f"{name}[0]": values, f"{name}[1]": scale})
        check_pair(fw, values, scale, (f"{name}[0]", f"{name}[1]"), storage)
        return values, fw.cast(scale, "float32")
    if fw.wants_grad(D):
        raise ValueError(
            f'{name} requires a gradient, which storage="{storage}" has only for Q; detach {name} first'
        )
    return quantized(fw, embeddings(fw, name, D), STORAGES[storage][0])


def first_of(name: str, D: Any, storage: str | None) -> Any:
    """The tokens of a document argument that may be a (values, scales) pair."""
    if isinstance(D, tuple) and (hasattr(D, "codec") or hasattr(D, "errors")):
        raise TypeError(f"{name} is a {type(D).__name__}, which retrieve and maxsim_topk alone take")
    if isinstance(D, tuple) and storage is None:
        raise TypeError(f'{name} is a tuple, which needs storage="int8" or "fp8"')
    return D[0] if isinstance(D, tuple) and D else D


def padded(
    Q: Any,
    D: Any,
    q_mask: Any,
    d_mask: Any,
    *,
    normalize: bool,
    q_weights: Any = None,
    storage: str | None = None,
    pairs: bool = False,
    keep_f64: bool = False,
) -> tuple[Framework, Problem, tuple[int, ...]]:
    """The problem of padded tensors, and the shape its scores have for the caller: 2-D
    arguments lose their axis.
    """
    tokens = first_of("D", D, storage)
    fw = framework(Q=Q, D=tokens, q_mask=q_mask, d_mask=d_mask, q_weights=q_weights)
    if pairs:
        check_rank("Q", Q, (3,), "[B, L, d]")
        check_rank("D", tokens, (3,), "[B, L, d]")
    else:
        check_rank("Q", Q, (2, 3), "[Nq, Lq, d] or [Lq, d]")
        check_rank("D", tokens, (2, 3, 4), "[Nd, Ld, d], [Ld, d] or [Nq, K, Ld, d]")
        if len(tokens.shape) == 4 and len(Q.shape) != 3:
            raise ValueError(
                f"Q must have shape [Nq, Lq, d] when D is [Nq, K, Ld, d], got {shape_text(Q.shape)}: a 4-D D "
                "needs Q to be 3-D"
            )

    def operands() -> tuple[Any, Any, Any, Any]:
        if keep_f64 and storage is None and fw.dtype_name(Q) == fw.dtype_name(tokens) == "float64":
            return Q, None, D, None
        return embeddings(fw, "Q", Q), None, *stored(fw, D, storage)

    choices = NORMALIZE if normalize else 0, pairs
    return fw, *assembled(fw, Q, tokens, q_mask, d_mask, q_weights, operands, *choices)


def assembled(
    fw: Framework,
    Q: Any,
    D: Any,
    q_mask: Any,
    d_mask: Any,
    q_weights: Any,
    operands: Callable[[], tuple[Any, Any, Any, Any]],
    normalize: int = 0,
    pairs: bool = False,
) -> tuple[Problem, tuple[int, ...]]:
    """The problem of padded tokens of good ranks, and the shape of its scores for the caller.
    ``operands`` gives what is stored of Q, its scales, and the same of D, once all else has
    been checked."""
    if Q.shape[-1] != D.shape[-1]:
        raise ValueError(
            f"Q and D must have the same dim: Q.shape[-1] is {int(Q.shape[-1])}, D.shape[-1] is "
            f"{int(D.shape[-1])}"
        )
    if (pairs or len(D.shape) == 4) and Q.shape[0] != D.shape[0]:
        raise ValueError(
            f"Q and D must have the same batch: Q.shape[0] is {int(Q.shape[0])}, D.shape[0] is "
            f"{int(D.shape[0])}; needs {'Q.shape[0] == D.shape[0]' if pairs else 'D.shape[0] == Q.shape[0]'}"
        )
    check_device(fw, "D", D, Q, "Q")
    q_mask = token_mask(fw, "q_mask", q_mask, tuple(Q.shape[:-1]), Q, "Q")
    d_mask = token_mask(fw, "d_mask", d_mask, tuple(D.shape[:-1]), D, "D")
    weights = token_weights(fw, q_weights, tuple(Q.shape[:-1]), Q, "Q")
    q_data, q_scale, d_data, d_scale = operands()
    q, d = Tokens(q_data, q_mask, weights, q_scale), Tokens(d_data, d_mask, None, d_scale)
    if q_data.shape[-1] == 0:
        q, d = widened(fw, q, d)
    out: tuple[int, ...] = ()
    if len(Q.shape) == 3:
        out += (Q.shape[0],)
    else:
        q = batched(q)
    if len(D.shape) == 2:
        d = batched(d)
    elif not pairs:
        out += (D.shape[1] if len(D.shape) == 4 else D.shape[0],)
    pairing = PAIRS if pairs else CANDIDATES if len(D.shape) == 4 else ALL
    return Problem(q, d, None, None, pairing, normalize), out


def widened(fw: Framework, q: Tokens, d: Tokens) -> tuple[Tokens, Tokens]:
    """Tokens of no elements as tokens of one zero: the library wants at least one."""
    return q._replace(data=fw.widen_empty(q.data)), d._replace(data=fw.widen_empty(d.data))


def packed(
    Q: Any,
    D: Any,
    cu_seqlens_q: Any,
    cu_seqlens_d: Any,
    max_seqlen_q: int | None,
    max_seqlen_d: int | None,
    *,
    normalize: bool,
    q_mask: Any = None,
    d_mask: Any = None,
    q_weights: Any = None,
    storage: str | None = None,
    names: tuple[str, str] = ("Q_packed", "D_packed"),
) -> tuple[Framework, Problem]:
    """The problem of packed tokens, every query against every document. A side without offsets
    is padded; one query may then be without an axis of its own, which its scores have.
    """
    tokens = first_of(names[1], D, storage)
    offsets = {"cu_seqlens_q": cu_seqlens_q, "cu_seqlens_d": cu_seqlens_d}
    given = {name: x for name, x in offsets.items() if x is not None}
    operands = {names[0]: Q, names[1]: tokens}
    fw = framework(**operands, **given, q_mask=q_mask, d_mask=d_mask, q_weights=q_weights)
    forms = ((2, 3), "[Nq, Lq, d] or [Lq, d]"), ((3,), "[Nd, Ld, d]")
    for (name, x), cu, (ranks, form) in zip(operands.items(), offsets.values(), forms, strict=True):
        check_rank(name, x, *(((2,), "[total, d]") if cu is not None else (ranks, form)))
    if Q.shape[-1] != tokens.shape[-1]:
        dims = [f"{name}.shape[{len(x.shape) - 1}] is {int(x.shape[-1])}" for name, x in operands.items()]
        raise ValueError(f"{names[0]} and {names[1]} must have the same dim: {', '.join(dims)}")
    check_device(fw, names[1], tokens, Q, names[0])
    found: list[tuple[Any, int]] = []
    bounds = ("max_seqlen_q", max_seqlen_q), ("max_seqlen_d", max_seqlen_d)
    for (name, x), (cu_name, cu), bound in zip(operands.items(), offsets.items(), bounds, strict=True):
        known = None if cu is None else packed_offsets(fw, cu_name, cu, x.shape[0], name, x)
        found.append((None, 0) if known is None else (known[0], longest(fw, cu_name, known, *bound)))
    about = tuple(Q.shape[:-1]), Q, names[0]
    weights = token_weights(fw, q_weights, *about)
    q_mask = token_mask(fw, "q_mask", q_mask, *about)
    d_mask = token_mask(fw, "d_mask", d_mask, tuple(tokens.shape[:-1]), tokens, names[1])
    q = Tokens(embeddings(fw, names[0], Q), q_mask, weights, None, *found[0])
    values, scale = stored(fw, D, storage, names[1])
    d = Tokens(values, d_mask, None, scale, *found[1])
    if Q.shape[-1] == 0:
        q, d = widened(fw, q, d)
    if len(Q.shape) == 2 and cu_seqlens_q is None:
        q = batched(q)
    return fw, Problem(q, d, normalize=NORMALIZE if normalize else 0)
