"""torch tensors: three ways through one operation.

* Eager inference runs the library on the tensors where they lie.
* Eager training is an ``autograd.Function`` that keeps the inputs and the argmax, never the
  scores: editing the returned scores in place before backward is legal.
* Traced, compiled, exported, faked and subclassed tensors go through
  ``torch.ops.late_interaction_kernels``, which has fake kernels and autograd.

Tensors on Apple GPUs go where ``torch_mps`` says. What the library cannot reach (a CUDA tensor
in a build without CUDA, float64) is computed with torch operations by ``torch_plain``, with the
same results, in bounded memory.

What passes through autograd and operators is flat: the fields of a problem, in the order of
``problem.fields``.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import torch

from .. import _native
from . import native, torch_arrays, torch_metal, torch_mps, torch_plain
from .problem import (
    ARRAY_COUNT,
    ARRAYS,
    CHOICES,
    FIELD_COUNT,
    Problem,
    argmax_dtype,
    fields,
    length,
    problem_of,
    score_shape,
)
from .torch_arrays import DISPATCHED, TRANSFORMED, tracing, way

_Q, _D, _WEIGHTS = map(ARRAYS.index, ("q", "d", "q_weights"))
_said: set[str] = set()


def served(x: Any) -> bool:
    """Does the library compute with tensors like these queries? Where it should and cannot, one
    warning says why.
    """
    if x.dtype is torch.float64:
        return False
    if x.is_cpu:
        return True
    where = x.device
    # A torch for AMD's GPUs calls them cuda as well.
    if where.type == "cuda" and torch.version.hip is None and _native.has_device(where.index):
        return True
    if where.type == "cuda" and "cuda" not in _said:
        _said.add("cuda")
        reason = _native.device_error(where.index) if torch.version.hip is None else "it is one of AMD's"
        warnings.warn(
            f"late-interaction-kernels: this build has no CUDA backend for this device ({reason}); CUDA "
            "tensors are scored with torch operations",
            RuntimeWarning,
            stacklevel=2,
        )
    return False


def on_mps(x: Any) -> bool:
    """Is it a tensor on an Apple GPU?"""
    return bool(x.device.type == torch_metal.DEVICE)


# ---- running ----


def run_score(p: Problem, want_argmax: bool) -> tuple[Any, Any]:
    """Scores, and the argmax or None."""
    q = p.q.data
    if served(q):
        try:
            if want_argmax and torch_arrays.EXCHANGE:
                return _native.forward(*fields(p))
            return native.score(torch_arrays, p, want_argmax)
        except NotImplementedError:  # this backend does not do it: torch does
            pass
    elif on_mps(q):
        found = torch_mps.score(p, want_argmax)
        if found is not None:
            return found
    shape = score_shape(p)
    scores = torch.empty(shape, dtype=_score_dtype(p), device=q.device)
    full = (*shape, length(p.q))
    argmax = torch.empty(full, dtype=_argmax_dtype(p), device=q.device) if want_argmax else None
    torch_plain.score(p, scores, argmax)
    return scores, argmax


def run_grad(*call: Any) -> tuple[Any, Any, Any]:
    """(*fields, grad_scores, argmax, want_q, want_d, want_weights) -> gradients of q, d and
    q_weights, each in its tensor's dtype and shape; None for what is not wanted. The precision
    has no part in them: no products are taken.
    """
    flat, (grad_scores, argmax, *want) = call[:FIELD_COUNT], call[FIELD_COUNT:]
    q, d = flat[_Q], flat[_D]
    if argmax.dim() == 1 and argmax.numel() == 0:
        argmax = run_score(problem_of(flat), True)[1]
    if q.dtype is not torch.float64 and grad_scores.dtype is not torch.float32:
        grad_scores = grad_scores.float()
    grad_scores = grad_scores.contiguous()
    if torch_arrays.EXCHANGE and served(q):
        try:
            return _native.backward(*flat, grad_scores, argmax, *want)
        except NotImplementedError:
            pass
    grads = (
        torch.empty(q.shape, dtype=q.dtype, device=q.device) if want[0] else None,
        torch.empty(d.shape, dtype=d.dtype, device=q.device) if want[1] else None,
        torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device) if want[2] else None,
    )
    grad(problem_of(flat), grad_scores, argmax, grads)
    return grads


def grad(
    p: Problem, grad_scores: Any, argmax: Any, into: tuple[Any, Any, Any], accumulate: bool = False
) -> None:
    """See ``verbs.grad``."""
    if served(p.q.data):
        try:
            return native.grad(torch_arrays, p, grad_scores, argmax, into, accumulate)
        except NotImplementedError:
            pass
    elif on_mps(p.q.data) and torch_mps.grad(p, grad_scores, argmax, into, accumulate):
        return None
    return torch_plain.grad(p, grad_scores, argmax, into, accumulate)


def run_topk(p: Problem, k: int, id_base: int, smallest: bool) -> tuple[Any, Any]:
    if served(p.q.data):
        try:
            return native.topk(torch_arrays, p, k, id_base, smallest)
        except NotImplementedError:
            pass
    elif on_mps(p.q.data):
        found = torch_mps.topk(p, k, id_base, smallest)
        if found is not None:
            return found
    return torch_plain.topk(p, k, id_base, smallest)


def run_merge_topk(values: Any, ids: Any, k: int, smallest: bool) -> tuple[Any, Any]:
    if torch_arrays.on_host(values) and torch_arrays.on_host(ids):
        return native.merge_topk(torch_arrays, values.contiguous(), ids.contiguous(), k, smallest)
    return torch_plain.merge_topk(values, ids, k, smallest)


def _score_dtype(p: Problem) -> torch.dtype:
    return torch.float64 if p.q.data.dtype == torch.float64 else torch.float32


def _argmax_dtype(p: Problem) -> torch.dtype:
    return torch.int16 if argmax_dtype(p) == "int16" else torch.int32


# ---- operators ----


def _all_scores(*call: Any) -> tuple[Any, Any]:
    """run_score with an empty tensor where it has None: operators return tensors."""
    p, want_argmax = _called(call)
    scores, argmax = run_score(p, want_argmax)
    return scores, argmax if want_argmax else scores.new_empty(0, dtype=_argmax_dtype(p))


def _all_grads(*call: Any) -> tuple[Any, Any, Any]:
    """run_grad likewise."""
    q, d, weights = (torch.empty(0, device=call[_Q].device) if g is None else g for g in run_grad(*call))
    return q, d, weights


def _called(call: tuple[Any, ...]) -> tuple[Any, ...]:
    """An operator's arguments with the problem for its fields."""
    return (problem_of(call[:FIELD_COUNT]), *call[FIELD_COUNT:])


_ARGUMENTS = ", ".join(
    [f"Tensor{'' if name == 'q' else '?'} {name}" for name in ARRAYS]
    + [f"{'SymInt' if name.startswith('len') else 'int'} {name}" for name in CHOICES]
)
_library = torch.library.Library("late_interaction_kernels", "DEF")
_library.define(f"score({_ARGUMENTS}, bool want_argmax) -> (Tensor, Tensor)")
_library.define(f"topk({_ARGUMENTS}, SymInt k, SymInt id_base, bool smallest) -> (Tensor, Tensor)")
_library.define("merge_topk(Tensor values, Tensor ids, SymInt k, bool smallest) -> (Tensor, Tensor)")
_library.define(
    f"grad({_ARGUMENTS}, Tensor grad_scores, Tensor argmax, bool want_q, bool want_d, bool want_weights)"
    " -> (Tensor, Tensor, Tensor)"
)
_library.impl("score", _all_scores, "CompositeExplicitAutograd")
_library.impl("topk", lambda *call: run_topk(*_called(call)), "CompositeExplicitAutograd")
_library.impl("grad", _all_grads, "CompositeExplicitAutograd")
_library.impl("merge_topk", run_merge_topk, "CompositeExplicitAutograd")


def _score_fake(*call: Any) -> tuple[Any, Any]:
    p, want_argmax = _called(call)
    shape = score_shape(p)
    full = (*shape, length(p.q)) if want_argmax else (0,)
    new = p.q.data.new_empty
    return new(shape, dtype=_score_dtype(p)), new(full, dtype=_argmax_dtype(p))


def _grad_fake(*call: Any) -> tuple[Any, Any, Any]:
    p, _, _, want_q, want_d, want_weights = _called(call)
    q, d = p.q.data, p.d.data
    none = q.new_empty(0, dtype=torch.float32)
    return (
        q.new_empty(q.shape) if want_q else none,
        d.new_empty(d.shape) if want_d else none.clone(),
        q.new_empty(q.shape[:-1], dtype=torch.float32) if want_weights else none.clone(),
    )


def _topk_fake(*call: Any) -> tuple[Any, Any]:
    p, k, *_ = _called(call)
    shape, new = (score_shape(p)[0], k), p.q.data.new_empty
    return new(shape, dtype=torch.float32), new(shape, dtype=torch.int64)


def _merge_topk_fake(values: Any, ids: Any, k: int, smallest: bool) -> tuple[Any, Any]:
    shape = values.shape[1], k
    return values.new_empty(shape), ids.new_empty(shape)


torch.library.register_fake("late_interaction_kernels::score", _score_fake, lib=_library)
torch.library.register_fake("late_interaction_kernels::topk", _topk_fake, lib=_library)
torch.library.register_fake("late_interaction_kernels::merge_topk", _merge_topk_fake, lib=_library)
torch.library.register_fake("late_interaction_kernels::grad", _grad_fake, lib=_library)


# ---- gradients ----


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, Any]) -> None:
    """Keep the inputs and the argmax. The scores are not kept: callers may edit them."""
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:ARRAY_COUNT], output[1])
    ctx.choices = inputs[ARRAY_COUNT:FIELD_COUNT]


def _backward(ctx: Any, grad_scores: Any, _: Any = None) -> tuple[Any, ...]:
    results = [None] * (FIELD_COUNT + 1)
    if grad_scores is None:
        return tuple(results)
    *tensors, argmax = ctx.saved_tensors
    needs = ctx.needs_input_grad
    want = needs[_Q], needs[_D], tensors[_WEIGHTS] is not None and needs[_WEIGHTS]
    call = (*tensors, *ctx.choices, grad_scores, argmax, *want)
    transformed = way() & TRANSFORMED
    grads = apply(_Grad, *call) if transformed else torch.ops.late_interaction_kernels.grad(*call)
    for at, wanted, gradient in zip((_Q, _D, _WEIGHTS), want, grads, strict=True):
        results[at] = gradient if wanted else None
    return tuple(results)


def gradients(p: Problem, grad_scores: Any, argmax: Any, *want: bool) -> tuple[Any, Any, Any]:
    """``run_grad`` wherever the tensors are: an operator in traces, a Function under
    torch.func.
    """
    flat = fields(p)
    between = way(*flat[:ARRAY_COUNT], grad_scores, argmax)
    if not between:
        return run_grad(*flat, grad_scores, argmax, *want)
    if between & DISPATCHED:
        grads = torch.ops.late_interaction_kernels.grad(*flat, grad_scores, argmax, *want)
    else:
        grads = apply(_Grad, *flat, grad_scores, argmax, *want)
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
    """A gradient as it is, tied to everything it was computed from: differentiating it again is
    refused, never dropped.
    """

    @staticmethod
    def forward(ctx: Any, gradient: Any, *sources: Any) -> Any:
        return gradient.view_as(gradient)

    backward = staticmethod(_no_second_derivative)


torch.library.register_autograd(
    "late_interaction_kernels::score", _backward, setup_context=_setup, lib=_library
)
torch.library.register_autograd("late_interaction_kernels::grad", _no_second_derivative, lib=_library)


class _Train(torch.autograd.Function):
    """Eager training: apply(q, d, q_weights, *kept_of(fields), (scores, argmax), want_argmax)
    gives scores that are computed already their history. Only what can have a gradient passes
    through autograd; a Function with setup_context would spend 40 us on binding its arguments.

    What stands here is all that Python itself does in a plain step: ``_native`` has the rest,
    forward and backward."""

    @staticmethod
    def forward(
        ctx: Any, q: Any, d: Any, q_weights: Any, kept: Any, rest: Any, results: Any, want_argmax: bool
    ) -> Any:
        scores, argmax = results
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(argmax, *kept)
        ctx.rest = rest
        if not want_argmax:
            return scores
        ctx.mark_non_differentiable(argmax)
        return results

    @staticmethod
    def backward(ctx: Any, grad_scores: Any, _: Any = None) -> tuple[Any, ...]:
        if grad_scores is None:
            return (None,) * 7
        saved, needs = ctx.saved_tensors, ctx.needs_input_grad
        if not torch.compiler.is_compiling():
            grads = _native.maxsim_backward(saved, ctx.rest, needs, grad_scores)
            if grads is not None:
                return grads
        return (*_train_backward(saved, ctx.rest, needs[:3], grad_scores), None, None, None, None)


def kept_of(flat: tuple[Any, ...]) -> tuple[Any, Any]:
    """Of the fields of a problem what its backward pass needs besides the argmax: the arrays
    there are, and before the choices a number whose bits say which arrays those are. The short
    way has them from ``keep`` in native/short.c.
    """
    arrays = flat[:ARRAY_COUNT]
    present = sum(1 << i for i, x in enumerate(arrays) if x is not None)
    return tuple(x for x in arrays if x is not None), (present, *flat[ARRAY_COUNT:])


def _train_backward(saved: Any, rest: Any, want: tuple[bool, ...], grad_scores: Any) -> Any:
    """_Train's gradients of q, d and q_weights where the short way does not go."""
    argmax, *kept = saved
    present, *choices = rest
    left = iter(kept)
    arrays = [next(left) if present >> i & 1 else None for i in range(ARRAY_COUNT)]
    call = (*arrays, *choices, grad_scores, argmax, *want)
    between = way(grad_scores)
    if between & TRANSFORMED:
        grads = apply(_Grad, *call)
    elif between:
        grads = torch.ops.late_interaction_kernels.grad(*call)
    elif torch.is_grad_enabled():
        with torch.no_grad():
            grads = run_grad(*call)
        sources = arrays[_Q], arrays[_D], arrays[_WEIGHTS], grad_scores
        grads = tuple(None if g is None else apply(Once, g, *sources) for g in grads)
    else:
        return run_grad(*call)
    return tuple(g if wanted else None for g, wanted in zip(grads, want, strict=True))


class _Score(torch.autograd.Function):
    """Under torch.func: apply(*fields, want_argmax) -> (scores, argmax)."""

    @staticmethod
    def forward(*call: Any) -> tuple[Any, Any]:
        return _all_scores(*call)

    setup_context = staticmethod(_setup)
    backward = staticmethod(_backward)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *call: Any) -> Any:
        return _one_by_one(_Score.apply, info, in_dims, call)


class _Grad(torch.autograd.Function):
    """Under torch.func: apply(*fields, grad_scores, argmax, want_q, want_d, want_weights) ->
    gradients.
    """

    @staticmethod
    def forward(*call: Any) -> tuple[Any, Any, Any]:
        return _all_grads(*call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    backward = staticmethod(_no_second_derivative)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *call: Any) -> Any:
        return _one_by_one(_Grad.apply, info, in_dims, call)


def _one_by_one(function: Any, info: Any, in_dims: tuple[int | None, ...], a: tuple[Any, ...]) -> Any:
    """vmap as one call after another: batching belongs into the pairing of a call, not around
    it.
    """
    results = [
        function(*(x if dim is None else x.select(dim, i) for x, dim in zip(a, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    outputs = tuple(torch.stack(r) for r in zip(*results, strict=True))
    return outputs, (0,) * len(outputs)


@partial(torch.library.register_vmap, "late_interaction_kernels::topk", lib=_library)
def _topk_vmap(info: Any, in_dims: tuple[int | None, ...], *a: Any) -> Any:
    return _one_by_one(torch.ops.late_interaction_kernels.topk, info, in_dims, a)


@partial(torch.library.register_vmap, "late_interaction_kernels::merge_topk", lib=_library)
def _merge_topk_vmap(info: Any, in_dims: tuple[int | None, ...], *a: Any) -> Any:
    return _one_by_one(torch.ops.late_interaction_kernels.merge_topk, info, in_dims, a)


# Function.apply less its preparations for torch.func, which _Train never meets.
_train: Any = super(torch.autograd.Function, _Train).apply

_native.register_train(_train)


# ---- the verbs ----


def score(p: Problem, want_argmax: bool = False) -> tuple[Any, Any]:
    """Scores with gradients where they are wanted, and the argmax or None."""
    q, d, weights = p.q.data, p.d.data, p.q.weights
    needs_grad = torch.is_grad_enabled() and (
        q.requires_grad
        or (d is not None and d.requires_grad)
        or (weights is not None and weights.requires_grad)
    )
    flat = fields(p)
    between = way(*flat[:ARRAY_COUNT])
    if between & DISPATCHED:
        scores, argmax = torch.ops.late_interaction_kernels.score(*flat, want_argmax or needs_grad)
    elif between:
        scores, argmax = apply(_Score, *flat, True)
    elif needs_grad:
        scores, argmax = _train(q, d, weights, *kept_of(flat), run_score(p, True), True)
    else:
        scores, argmax = run_score(p, want_argmax)
    return scores, argmax if want_argmax else None


@torch.no_grad()
def topk(p: Problem, k: int, id_base: int, smallest: bool) -> tuple[Any, Any]:
    """The k best of each query; never differentiable, never the full score matrix."""
    if not tracing(p.q.data, p.d.data, p.d.codes):
        return run_topk(p, k, id_base, smallest)
    flat = [x.detach() if isinstance(x, torch.Tensor) else x for x in fields(p)]
    values, ids = torch.ops.late_interaction_kernels.topk(*flat, k, id_base, smallest)
    return values, ids


def topk_scratch(p: Problem, k: int) -> int:
    """Bytes of scratch on a GPU that topk takes; 0 elsewhere, where documents do not add
    to it.
    """
    q = p.q.data
    if not q.is_cuda or tracing(q, p.d.data, p.d.codes) or not served(q):
        return 0
    return native.topk_scratch(torch_arrays, p, k)


def merge_topk(values: Any, ids: Any, k: int, smallest: bool) -> tuple[Any, Any]:
    """See ``verbs.merge_topk``."""
    if not tracing(values, ids):
        return run_merge_topk(values, ids, k, smallest)
    best, found = torch.ops.late_interaction_kernels.merge_topk(values, ids, k, smallest)
    return best, found
