"""The Metal kernels by themselves, whatever ``maxsim_mps`` would choose.

Emulated, never run on Apple hardware: ``lik selftest --device metal`` tells whether they
compute on a machine what they should.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._engine.checks import framework, padded
from .._engine.problem import NORMALIZE, Problem, detached
from ..backward.unified import backward_problem


class MaxSimFwdCtx(NamedTuple):
    """What :func:`maxsim_train_metal` hands to :func:`maxsim_backward_metal`: its operands,
    candidates as ``[Nq * K, Ld, d]``.
    """

    Q: Any
    D: Any
    q_mask_i8: Any  # int8, or None
    kd_layout: bool


def is_available() -> bool:
    """Has this build Metal kernels, and torch an Apple GPU to run them on?

    Example:
        >>> from late_interaction_kernels.mps.metal import is_available
        >>> is_available() in (True, False)
        True
    """
    try:
        from .._engine import torch_metal
    except ImportError:
        return False
    return torch_metal.is_available()


def supports(Q: Any, D: Any) -> bool:
    """Would the existing package's Metal kernels take these tensors: one half dtype, d a
    multiple of 8 up to 128? Those of this package take mixtures, float32 and any d as well.

    Example:
        >>> import torch
        >>> from late_interaction_kernels.mps.metal import supports
        >>> Q, D = torch.ones(2, 8), torch.ones(3, 8)
        >>> supports(Q.half(), D.half()), supports(Q, D)
        (True, False)
    """
    dtype = str(getattr(Q, "dtype", ""))
    return (
        dtype in ("torch.float16", "torch.bfloat16")
        and str(getattr(D, "dtype", "")) == dtype
        and len(Q.shape) in (2, 3)
        and (len(D.shape) in (2, 3) or (len(D.shape) == 4 and len(Q.shape) == 3 and D.shape[0] == Q.shape[0]))
        and bool(Q.shape[-1] == D.shape[-1])
        and 0 < Q.shape[-1] <= 128
        and Q.shape[-1] % 8 == 0
    )


def _need_metal(name: str) -> Any:
    """The module of the kernels; RuntimeError where there are none."""
    if not is_available():
        raise RuntimeError(
            f"{name} requires Metal kernels in this build, and a torch with an Apple GPU and "
            "torch.mps.compile_shader; late_interaction_kernels.maxsim takes tensors of every device"
        )
    from .._engine import torch_metal

    return torch_metal


def _check(Q: Any, D: Any, metal: Any) -> None:
    framework(Q=Q, D=D)
    if len(D.shape) == 4 and len(Q.shape) != 3:
        raise ValueError(f"Q must be [Nq, Lq, d] in the KD layout (4-D D), got Q of shape {tuple(Q.shape)}")
    if len(Q.shape) not in (2, 3):
        raise ValueError(f"Q.dim() must be 2 or 3, got Q of shape {tuple(Q.shape)}")
    for name, x in (("Q", Q), ("D", D)):
        if x.device.type != metal.DEVICE:
            raise ValueError(f"{name} is on {x.device}, must be on an Apple GPU")


def _score(metal: Any, problem: Problem, want_argmax: bool, name: str) -> tuple[Any, Any]:
    try:
        scores, argmax = metal.score(problem, want_argmax)
    except NotImplementedError as refusal:
        raise RuntimeError(f"{name}: {refusal}") from refusal
    return scores, argmax


def maxsim_inference_metal(
    Q: Any, D: Any, q_mask: Any = None, d_mask: Any = None, *, normalize: bool = False
) -> Any:
    """:func:`late_interaction_kernels.maxsim` by the Metal kernels, outside autograd.

    Raises:
        RuntimeError: no Metal kernels here, or none that take this.
        ValueError: shapes, masks and devices that do not fit.
    """
    metal = _need_metal("maxsim_inference_metal")
    _check(Q, D, metal)
    _, problem, shape = padded(detached(Q), detached(D), q_mask, d_mask, normalize=normalize)
    return _score(metal, problem, False, "maxsim_inference_metal")[0].reshape(shape)


def maxsim_train_metal(
    Q: Any, D: Any, q_mask: Any = None, d_mask: Any = None, *, normalize: bool = False
) -> tuple[Any, Any, MaxSimFwdCtx]:
    """(scores, argmax int32 ``[Nq * Nd, Lq]`` with -1 for none, what the backward pass needs)
    of 3-D Q and 3-D or 4-D D: :func:`maxsim_inference_metal` with its argmax.

    Raises:
        RuntimeError: no Metal kernels here, or none that take this.
        ValueError: shapes, masks and devices that do not fit.
    """
    metal = _need_metal("maxsim_train_metal")
    _check(Q, D, metal)
    if len(Q.shape) != 3 or len(D.shape) not in (3, 4):
        raise ValueError(
            f"Q must be [Nq, Lq, d] and D [Nd, Ld, d] or [Nq, K, Ld, d], got {tuple(Q.shape)} and "
            f"{tuple(D.shape)}"
        )
    fw, problem, _ = padded(detached(Q), detached(D), q_mask, d_mask, normalize=normalize)
    scores, argmax = _score(metal, problem, True, "maxsim_train_metal")
    argmax = fw.cast(argmax, "int32").reshape(scores.shape[0] * scores.shape[1], argmax.shape[-1])
    queries, documents = problem.q.data, problem.d.data
    flat = documents.reshape(-1, *documents.shape[-2:])
    mask = None if problem.q.mask is None else fw.cast(problem.q.mask, "int8")
    return scores, argmax, MaxSimFwdCtx(queries, flat, mask, len(D.shape) == 4)


def maxsim_backward_metal(
    grad_scores: Any,
    Q: Any,
    D: Any,
    argmax: Any,
    q_mask: Any = None,
    *,
    kd_layout: bool | None = None,
    normalize: bool = False,
) -> tuple[Any, Any]:
    """(grad_Q, grad_D) in their tensors' dtypes and shapes, from the argmax of
    :func:`maxsim_train_metal`. Exact and the same at every run.

    D is ``[Nd, Ld, d]``, ``[Nq, K, Ld, d]``, or with ``kd_layout`` ``[Nq * K, Ld, d]``. With
    ``normalize`` Q and D are the tokens as they were given, not normalized.

    Raises:
        RuntimeError: no Metal kernels here, or none that take this.
        ValueError: shapes and devices that do not fit.
    """
    metal = _need_metal("maxsim_backward_metal")
    import torch

    if len(D.shape) == 4 and kd_layout is False:
        raise ValueError("D is 4-D, which is the KD layout, but kd_layout is False")
    _check(Q, D if len(D.shape) != 4 else D.flatten(0, 1), metal)
    flat = D.flatten(0, 1) if len(D.shape) == 4 else D
    candidates = bool(kd_layout) or len(D.shape) == 4
    problem, grad_scores, argmax = backward_problem(grad_scores, Q, flat, argmax, q_mask, candidates, None)
    problem = problem._replace(normalize=NORMALIZE if normalize else 0)
    grad_q, grad_d = (
        torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (problem.q.data, problem.d.data)
    )
    try:
        metal.grad(problem, grad_scores.float().contiguous(), argmax, (grad_q, grad_d, None), False)
    except NotImplementedError as refusal:
        raise RuntimeError(f"maxsim_backward_metal: {refusal}") from refusal
    return grad_q.reshape(Q.shape), grad_d.reshape(D.shape)


__all__ = [
    "MaxSimFwdCtx",
    "is_available",
    "maxsim_backward_metal",
    "maxsim_inference_metal",
    "maxsim_train_metal",
    "supports",
]
