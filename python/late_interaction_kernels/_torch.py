"""torch tensors: three ways through one operation.

* Eager inference runs the library on the tensors where they lie.
* Eager training is an ``autograd.Function`` that keeps the inputs and the argmax, never the scores: editing the
  returned scores in place before backward is legal.
* Traced, compiled, exported, faked and subclassed tensors go through ``torch.ops.late_interaction_kernels``, which has
  fake kernels and autograd.

What the library cannot reach (a CUDA tensor in a build without CUDA, Apple GPUs, float64) is computed with torch
operations by ``_fallback``, with the same results, in bounded memory.
"""

from __future__ import annotations

import sys
import warnings
from functools import partial
from typing import Any

import torch
from torch.autograd import forward_ad

from . import _environment, _fallback, _native
from ._problem import HIGH, HIGHEST, MEDIUM, Problem, document_length, query_length, score_shape

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_EXCHANGE = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
_PRECISIONS = {"high": HIGH, "medium": MEDIUM}


def _stream(index: int) -> int:
    return int(torch.cuda.current_stream(index).cuda_stream)


def _precision() -> int:
    return _PRECISIONS.get(torch.get_float32_matmul_precision(), HIGHEST)


def _workspace(index: int, size: int) -> tuple[Any, int]:
    memory = torch.empty(size, dtype=torch.uint8, device=torch.device("cuda", index))
    return memory, memory.data_ptr()


# ---- what _problem asks of a framework ----


def dtype_name(x: Any) -> str:
    return str(x.dtype)[6:]


def is_bool(x: Any) -> bool:
    return bool(x.dtype == torch.bool)


_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64)


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


_KEYS = torch._C._TorchDispatchModeKey
_TRACERS = (_KEYS.FAKE, _KEYS.PROXY, _KEYS.FUNCTIONAL)


def has_values(x: Any) -> bool:
    """Can they be asked for: is it neither traced, fake nor wrapped by torch.func? Dynamo breaks its graph where it
    must. Modes that only watch (counting operations, checkpointing) take nothing away.
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
    return type(x) in _PLAIN and has_values(x)


def readable(x: Any) -> bool:
    """May its values be looked at: on the host without waiting, under LIK_CHECK=1 on every device."""
    return on_host(x) or (not torch.compiler.is_compiling() and _environment.checking() and has_values(x))


def may_wait(x: Any) -> bool:
    """May one call look at values wherever they are? Never while a graph is captured."""
    if torch.compiler.is_compiling() or _transformed() or _must_dispatch(x):
        return False
    return not (x.is_cuda and torch.cuda.is_current_stream_capturing())


def first(condition: Any) -> tuple[int, ...]:
    """Where the first True stands."""
    return tuple(condition.nonzero()[0].tolist())


def clamp(x: Any, low: int, high: int) -> Any:
    return x.clamp(low, high)


def joined(parts: list[Any], like: Any) -> Any:
    """One row of f32 of several."""
    return torch.cat(parts) if parts else like.new_empty(0, dtype=torch.float32)


def running_max(x: Any) -> Any:
    return x.cummax(0).values


def widen_empty(x: Any) -> Any:
    return torch.nn.functional.pad(x, (0, 1))


def settle(x: Any) -> Any:
    return x


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
    return like.new_empty(shape, dtype=getattr(torch, dtype))


def arange(n: int, like: Any) -> Any:
    return torch.arange(n, device=like.device)


def from_rows(rows: list[list[int]], like: Any) -> Any:
    return torch.tensor(rows, device=like.device)


def where(condition: Any, x: Any, y: Any) -> Any:
    return torch.where(condition, x, y)


def nan_where(broken: Any, scores: Any) -> Any:
    """NaN for what has been found broken where it lies; None for nothing."""
    return scores if broken is None else scores.masked_fill(broken, torch.nan)


def best_of_codes(scores: Any, codes: Any, kept: Any) -> Any:
    """[C, Lq] scores, [B, L] codes -> [B, Lq], the best score among each row's kept codes, 0 if it has none. A code
    outside counts as 0, which no index of the device's can be.
    """
    if codes.shape[1] == 0 or scores.shape[0] == 0:
        return scores.new_zeros((codes.shape[0], scores.shape[1]))
    inside = kept & (codes >= 0) & (codes < scores.shape[0])
    gathered = scores[torch.where(inside, codes, 0).long()].masked_fill_(~kept[..., None], -torch.inf)
    return torch.where(kept.any(dim=1)[:, None], gathered.amax(dim=1), 0)


def tracing(*arrays: Any) -> bool:
    return torch.compiler.is_compiling() or _must_dispatch(*arrays) or _transformed()


def decode_residuals(codes: Any, residuals: Any, centroids: Any, table: Any) -> Any:
    """Vectors [..., d] of codes [...] within the centroids and residuals [..., bytes], for traces and for CUDA."""
    added = table[residuals.long()].flatten(-2)[..., : centroids.shape[1]]
    return centroids[codes.long()] + added if centroids.shape[0] else added


def exact(like: Any) -> Any:
    """Products in the operands' own dtype: autocast would round the vectors that the library is about to score."""
    return _fallback.without_autocast(like)


def linear(x: Any, weight: Any, bias: Any, mask: Any) -> Any:
    """The projection as one differentiable expression, for traces."""
    if mask is not None:
        x = torch.where(mask[..., None], x, 0)
    with exact(x):
        return torch.nn.functional.linear(x.float(), weight.float(), None if bias is None else bias.float())


def scalar(value: Any, like: Any) -> Any:
    return torch.as_tensor(value, dtype=torch.float32, device=like.device)


def ones(shape: tuple[int, ...], like: Any) -> Any:
    return torch.ones(shape, dtype=torch.float32, device=like.device)


def largest_in_row(x: Any) -> Any:
    return x.amax(dim=-1)


def offsets_of(lengths: Any) -> Any:
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def wants_grad(*arrays: Any) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in arrays)


def quantize_int8(x: Any) -> tuple[Any, Any]:
    wide = x.detach().float()
    if wide.shape[-1] == 0:
        return wide.to(torch.int8), wide.new_full(wide.shape[:-1], 1e-12 / 127)
    scale = wide.abs().amax(dim=-1).clamp_min(1e-12) / 127
    return (wide / scale.unsqueeze(-1)).clamp(-127, 127).round().to(torch.int8), scale


# ---- running ----


def _must_dispatch(*tensors: Any) -> bool:
    """Is anything between these tensors and plain memory: a subclass, a tracing mode, no memory at all?"""
    if torch._C._len_torch_dispatch_stack() > 0 or torch._C._is_tracing():
        return True
    return any(x is not None and (type(x) not in _PLAIN or x.is_meta) for x in tensors)


def _transformed() -> bool:
    """Inside torch.func, or with dual numbers: the Function knows what to do or says that it does not."""
    level: int = forward_ad._current_level
    return bool(torch._C._are_functorch_transforms_active()) or level >= 0


def _settled(p: Problem) -> Problem:
    """With the precision the user has set, where it makes a difference: float32 on CUDA, and int8 documents."""
    if p.precision >= 0:
        return p
    matters = p.d.dtype is torch.int8 or (not p.q.is_cpu and torch.float32 in (p.q.dtype, p.d.dtype))
    return p._replace(precision=_precision()) if matters else p


_said: set[str] = set()


def _native_serves(p: Problem) -> bool:
    if p.q.dtype is torch.float64:
        return False
    if p.q.is_cpu:
        return True
    where = p.q.device
    # A torch for AMD's GPUs calls them cuda as well.
    if where.type == "cuda" and torch.version.hip is None and _native.has_device(where.index):
        return True
    if where.type == "cuda" and "cuda" not in _said:
        _said.add("cuda")
        reason = _native.device_error(where.index) if torch.version.hip is None else "it is one of AMD's"
        warnings.warn(
            f"late-interaction-kernels: this build has no CUDA backend for this device ({reason}); CUDA tensors are "
            "scored with torch operations",
            RuntimeWarning,
            stacklevel=2,
        )
    return False


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
}


def lend(x: Any) -> Any:
    """What the extension reads: the tensor itself, or its address where torch has no exchange API."""
    if x is None or _EXCHANGE:
        return x
    x = _plain(x)
    index = -1 if x.device.type == "cpu" else x.device.index
    return (x.data_ptr(), _CODES.get(x.dtype, 67), index, tuple(x.shape), x.stride(), x)


def _plain(x: Any) -> Any:
    """The same values in memory: a sign change that torch has put off is made, and zeros get their memory."""
    x = x.detach().resolve_neg()
    return torch.zeros(x.shape, dtype=x.dtype, device=x.device) if x._is_zerotensor() else x


def _lend_all(p: Problem) -> Any:
    return p if _EXCHANGE else [*map(lend, p[:11]), *p[11:]]


def argmax_dtype(p: Problem) -> torch.dtype:
    return torch.int16 if document_length(p) <= 32767 else torch.int32


def run_score(p: Problem, want_argmax: bool) -> tuple[Any, Any]:
    """Scores, and the argmax or an empty tensor in its place."""
    p = _settled(p)
    served = _native_serves(p)
    if served and want_argmax and _EXCHANGE:
        try:
            return _native.forward(*p)
        except NotImplementedError:  # this backend does not do it: torch does
            served = False
    shape = score_shape(p)
    where = p.q.device
    dtype = torch.float64 if p.q.dtype == torch.float64 else torch.float32
    scores = torch.empty(shape, dtype=dtype, device=where)
    full = (*shape, query_length(p)) if want_argmax else (0,)
    argmax = torch.empty(full, dtype=argmax_dtype(p), device=where)
    if served:
        try:
            _native.score(*_lend_all(p), lend(scores), lend(argmax) if want_argmax else None)
            return scores, argmax
        except NotImplementedError:
            pass
    _fallback.score(p, scores, argmax if want_argmax else None)
    return scores, argmax


def run_grad(
    p: Problem, grad_scores: Any, argmax: Any, want_q: bool, want_d: bool, want_weights: bool
) -> tuple[Any, Any, Any]:
    """Gradients of q, d and q_weights, each in its tensor's dtype and shape; None for what is not wanted. The precision
    has no part in them: no products are taken."""
    if argmax.dim() == 1 and argmax.numel() == 0:
        argmax = run_score(p, True)[1]
    if p.q.dtype is not torch.float64 and grad_scores.dtype is not torch.float32:
        grad_scores = grad_scores.float()
    grad_scores = grad_scores.contiguous()
    served = _native_serves(p)
    if served and _EXCHANGE:
        try:
            return _native.backward(*p, grad_scores, argmax, want_q, want_d, want_weights)
        except NotImplementedError:  # this backend does not do it: torch does
            served = False
    where = p.q.device
    grads = (
        torch.empty(p.q.shape, dtype=p.q.dtype, device=where) if want_q else None,
        torch.empty(p.d.shape, dtype=p.d.dtype, device=where) if want_d else None,
        torch.empty(p.q.shape[:-1], dtype=torch.float32, device=where) if want_weights else None,
    )
    if served:
        try:
            _native.grad(*_lend_all(p), lend(grad_scores), lend(argmax), *map(lend, grads))
            return grads
        except NotImplementedError:
            pass
    _fallback.grad(p, grad_scores, argmax, *grads)
    return grads


def _all_grads(p: Problem, *rest: Any) -> tuple[Any, Any, Any]:
    """run_grad with an empty tensor where it has None: operators return tensors."""
    q, d, weights = (torch.empty(0, device=p.q.device) if g is None else g for g in run_grad(p, *rest))
    return q, d, weights


_TENSORS = (
    "Tensor q, Tensor d, Tensor? q_mask, Tensor? d_mask, Tensor? q_weights, Tensor? q_scale, Tensor? d_scale, "
    "Tensor? q_offsets, Tensor? d_offsets, Tensor? list_q, Tensor? list_d, "
)
_CHOICES = "int pairing, int normalize, int precision, SymInt len_q, SymInt len_d, "
_library = torch.library.Library("late_interaction_kernels", "DEF")
_library.define(f"score({_TENSORS}{_CHOICES}bool want_argmax) -> (Tensor, Tensor)")
_library.define(f"topk({_TENSORS}{_CHOICES}SymInt k, SymInt id_base, bool smallest) -> (Tensor, Tensor)")
_library.define(
    f"grad({_TENSORS}{_CHOICES}Tensor grad_scores, Tensor argmax, bool want_q, bool want_d, bool want_weights)"
    " -> (Tensor, Tensor, Tensor)"
)
_library.impl("score", lambda *a: run_score(Problem(*a[:16]), a[16]), "CompositeExplicitAutograd")
_library.impl("topk", lambda *a: run_topk(Problem(*a[:16]), *a[16:]), "CompositeExplicitAutograd")
_library.impl("grad", lambda *a: _all_grads(Problem(*a[:16]), *a[16:]), "CompositeExplicitAutograd")


def _score_fake(*a: Any) -> tuple[Any, Any]:
    p = Problem(*a[:16])
    shape = score_shape(p)
    dtype = torch.float64 if p.q.dtype == torch.float64 else torch.float32
    full = (*shape, query_length(p)) if a[16] else (0,)
    return p.q.new_empty(shape, dtype=dtype), p.q.new_empty(full, dtype=_fake_argmax_dtype(p))


def _fake_argmax_dtype(p: Problem) -> torch.dtype:
    """A length that is only a symbol guards on its size class, which is what the real kernel decides by."""
    return torch.int16 if bool(document_length(p) <= 32767) else torch.int32


def _grad_fake(*a: Any) -> tuple[Any, Any, Any]:
    p = Problem(*a[:16])
    _, _, want_q, want_d, want_weights = a[16:]
    none = p.q.new_empty(0, dtype=torch.float32)
    return (
        p.q.new_empty(p.q.shape) if want_q else none,
        p.d.new_empty(p.d.shape) if want_d else none.clone(),
        p.q.new_empty(p.q.shape[:-1], dtype=torch.float32) if want_weights else none.clone(),
    )


def _topk_fake(*a: Any) -> tuple[Any, Any]:
    p, k = Problem(*a[:16]), a[16]
    shape = (score_shape(p)[0], k)
    return p.q.new_empty(shape, dtype=torch.float32), p.q.new_empty(shape, dtype=torch.int64)


torch.library.register_fake("late_interaction_kernels::score", _score_fake, lib=_library)
torch.library.register_fake("late_interaction_kernels::topk", _topk_fake, lib=_library)
torch.library.register_fake("late_interaction_kernels::grad", _grad_fake, lib=_library)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, Any]) -> None:
    """Keep the inputs and the argmax. The scores are not kept: callers may edit them."""
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:11], output[1])
    ctx.choices = inputs[11:16]


def _backward(ctx: Any, grad_scores: Any, _: Any = None) -> tuple[Any, ...]:
    if grad_scores is None:
        return (None,) * 17
    *tensors, argmax = ctx.saved_tensors
    p = Problem(*tensors, *ctx.choices)
    want = (ctx.needs_input_grad[0], ctx.needs_input_grad[1], p.q_weights is not None and ctx.needs_input_grad[4])
    if _transformed():
        grads = apply(_Grad, *p, grad_scores, argmax, *want)
    else:
        grads = torch.ops.late_interaction_kernels.grad(*p, grad_scores, argmax, *want)
    q, d, weights = (g if wanted else None for g, wanted in zip(grads, want, strict=True))
    return (q, d, None, None, weights, *(None,) * 12)


def gradients(p: Problem, *rest: Any) -> tuple[Any, Any, Any]:
    """``run_grad`` wherever the tensors are: an operator in traces, a Function under torch.func."""
    want = rest[2:]
    if torch.compiler.is_compiling() or _must_dispatch(*p[:11], *rest[:2]):
        grads = torch.ops.late_interaction_kernels.grad(*p, *rest)
    elif _transformed():
        grads = apply(_Grad, *p, *rest)
    else:
        return run_grad(p, *rest)
    q, d, weights = (g if wanted else None for g, wanted in zip(grads, want, strict=True))
    return q, d, weights


def _no_second_derivative(ctx: Any, *grads: Any) -> Any:
    raise RuntimeError(
        "late-interaction-kernels: MaxSim has no second derivative here; compute the scores with "
        "late_interaction_kernels.reference for double backward"
    )


def apply(function: Any, *arguments: Any) -> Any:
    """``function.apply`` of an autograd.Function, which torch leaves untyped."""
    return function.apply(*arguments)


class Once(torch.autograd.Function):
    """A gradient as it is, tied to everything it was computed from: differentiating it again is refused, never
    dropped.
    """

    @staticmethod
    def forward(ctx: Any, gradient: Any, *sources: Any) -> Any:
        return gradient.view_as(gradient)

    backward = staticmethod(_no_second_derivative)


torch.library.register_autograd("late_interaction_kernels::score", _backward, setup_context=_setup, lib=_library)
torch.library.register_autograd("late_interaction_kernels::grad", _no_second_derivative, lib=_library)


_NINE = (None,) * 9


class _Train(torch.autograd.Function):
    """Eager training: apply(q, d, q_weights, problem, (scores, argmax), want_argmax) gives scores that are computed
    already their history. Only what can have a gradient passes through autograd; a Function with setup_context would
    spend 40 us on binding its arguments."""

    @staticmethod
    def forward(ctx: Any, q: Any, d: Any, q_weights: Any, problem: Any, results: Any, want_argmax: bool) -> Any:
        scores, argmax = results
        ctx.set_materialize_grads(False)
        others = [x for x in problem[2:11] if x is not None]
        ctx.save_for_backward(argmax, q, d, *others)
        ctx.choices = problem[11:]
        ctx.present = [x is not None for x in problem[2:11]] if others else None
        if not want_argmax:
            return scores
        ctx.mark_non_differentiable(argmax)
        return results

    @staticmethod
    def backward(ctx: Any, grad_scores: Any, _: Any = None) -> tuple[Any, ...]:
        if grad_scores is None:
            return (None,) * 6
        argmax, q, d, *rest = ctx.saved_tensors
        kept = iter(rest)
        others = _NINE if ctx.present is None else [next(kept) if there else None for there in ctx.present]
        p = Problem(q, d, *others, *ctx.choices)
        want = ctx.needs_input_grad[:3]
        if _transformed():
            grads = apply(_Grad, *p, grad_scores, argmax, *want)
        elif type(grad_scores) not in _PLAIN or torch._C._len_torch_dispatch_stack() > 0:
            grads = torch.ops.late_interaction_kernels.grad(*p, grad_scores, argmax, *want)
        elif torch.is_grad_enabled():
            with torch.no_grad():
                grads = run_grad(p, grad_scores, argmax, *want)
            grads = tuple(None if g is None else apply(Once, g, q, d, p.q_weights, grad_scores) for g in grads)
        else:
            return (*run_grad(p, grad_scores, argmax, *want), None, None, None)
        return (*(g if wanted else None for g, wanted in zip(grads, want, strict=True)), None, None, None)


class _Score(torch.autograd.Function):
    """Under torch.func: apply(*problem, want_argmax) -> (scores, argmax)."""

    @staticmethod
    def forward(*a: Any) -> tuple[Any, Any]:
        return run_score(Problem(*a[:16]), a[16])

    setup_context = staticmethod(_setup)
    backward = staticmethod(_backward)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *a: Any) -> Any:
        return _one_by_one(_Score.apply, info, in_dims, a)


class _Grad(torch.autograd.Function):
    """Under torch.func: apply(*problem, grad_scores, argmax, want_q, want_d, want_weights) -> gradients."""

    @staticmethod
    def forward(*a: Any) -> tuple[Any, Any, Any]:
        return _all_grads(Problem(*a[:16]), *a[16:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    backward = staticmethod(_no_second_derivative)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *a: Any) -> Any:
        return _one_by_one(_Grad.apply, info, in_dims, a)


def _one_by_one(function: Any, info: Any, in_dims: tuple[int | None, ...], a: tuple[Any, ...]) -> Any:
    """vmap as one call after another: batching belongs into the pairing of a call, not around it."""
    results = [
        function(*(x if dim is None else x.select(dim, i) for x, dim in zip(a, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    outputs = tuple(torch.stack(r) for r in zip(*results, strict=True))
    return outputs, (0,) * len(outputs)


@partial(torch.library.register_vmap, "late_interaction_kernels::topk", lib=_library)
def _topk_vmap(info: Any, in_dims: tuple[int | None, ...], *a: Any) -> Any:
    return _one_by_one(torch.ops.late_interaction_kernels.topk, info, in_dims, a)


# Function.apply less its preparations for torch.func, which _Train never meets.
_train: Any = super(torch.autograd.Function, _Train).apply

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
    _train,
    torch.Tensor.is_neg,
    _plain,
)


def score(problem: Problem, want_argmax: bool = False) -> tuple[Any, Any]:
    """Scores with gradients where they are wanted, and the argmax or None."""
    q, d, weights = problem.q, problem.d, problem.q_weights
    needs_grad = torch.is_grad_enabled() and (
        q.requires_grad or d.requires_grad or (weights is not None and weights.requires_grad)
    )
    if torch.compiler.is_compiling() or _must_dispatch(*problem[:11]):
        scores, argmax = torch.ops.late_interaction_kernels.score(*problem, want_argmax or needs_grad)
    elif _transformed():
        scores, argmax = apply(_Score, *problem, True)
    elif needs_grad:
        scores, argmax = _train(q, d, weights, problem, run_score(problem, True), True)
    else:
        scores, argmax = run_score(problem, want_argmax)
    return scores, argmax if want_argmax else None


@torch.no_grad()
def topk(problem: Problem, k: int, id_base: int, smallest: bool) -> tuple[Any, Any]:
    """The k best of each query; never differentiable, never the full score matrix."""
    problem = Problem._make(x.detach() if isinstance(x, torch.Tensor) else x for x in problem)
    if tracing(problem.q, problem.d):
        values, ids = torch.ops.late_interaction_kernels.topk(*problem, k, id_base, smallest)
        return values, ids
    return run_topk(problem, k, id_base, smallest)


def run_topk(problem: Problem, k: int, id_base: int, smallest: bool) -> tuple[Any, Any]:
    rows = score_shape(problem)[0]
    where = problem.q.device
    problem = _settled(problem)
    if not _native_serves(problem):
        return _fallback.topk(problem, k, id_base, smallest)
    values = torch.empty((rows, k), dtype=torch.float32, device=where)
    ids = torch.empty((rows, k), dtype=torch.int64, device=where)
    try:
        _native.topk(*_lend_all(problem), k, id_base, int(smallest), lend(values), lend(ids))
    except NotImplementedError:  # this backend does not do it: torch does
        return _fallback.topk(problem, k, id_base, smallest)
    return values, ids


def topk_scratch(problem: Problem, k: int) -> int:
    """Bytes of scratch on a GPU that topk takes; 0 elsewhere, where documents do not add to it."""
    if not problem.q.is_cuda or tracing(problem.q, problem.d) or not _native_serves(problem):
        return 0
    return _native.topk_scratch(*_lend_all(_settled(problem)), k)


def merge(values: list[Any], ids: list[Any], k: int, smallest: bool) -> tuple[Any, Any]:
    return _fallback.merge(values, ids, k, smallest)
