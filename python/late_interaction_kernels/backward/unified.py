"""Gradients from an argmax that the forward pass wrote: :func:`maxsim_backward_unified` and its
definition.
"""

from __future__ import annotations

from typing import Any

from .._engine.checks import (
    check_float,
    check_range,
    check_rank,
    check_shape,
    embeddings,
    framework,
    token_mask,
    token_weights,
)
from .._engine.problem import ALL, CANDIDATES, Problem, Tokens, detached


def backward_problem(
    grad_scores: Any, Q: Any, D: Any, argmax: Any, q_mask: Any, kd_layout: bool, q_weights: Any
) -> tuple[Problem, Any, Any]:
    import torch

    from .._engine import torch_arrays

    framework(Q=Q, D=D, grad_scores=grad_scores, argmax=argmax, q_mask=q_mask, q_weights=q_weights)
    if not isinstance(Q, torch.Tensor):
        raise TypeError(f"Q must be a torch.Tensor, got {type(Q).__name__}")
    check_rank("Q", Q, (3,), "[Nq, Lq, d]")
    check_rank("D", D, (3,), "[Nd, Ld, d], candidates flattened")
    check_rank("grad_scores", grad_scores, (2,), "[Nq, K]" if kd_layout else "[Nq, Nd]")
    queries, columns = Q.shape[0], grad_scores.shape[1] if kd_layout else D.shape[0]
    check_shape(
        "D",
        D,
        (queries * columns if kd_layout else columns, D.shape[1], Q.shape[2]),
        "as long as the scores, as wide as Q",
    )
    check_shape("grad_scores", grad_scores, (queries, columns), "shaped like the scores")
    check_shape("argmax", argmax, (queries * columns, Q.shape[1]), "one row a score")
    check_float(torch_arrays, "grad_scores", grad_scores)
    if argmax.dtype not in (torch.int16, torch.int32):
        raise TypeError(f"argmax has dtype {argmax.dtype}, must be torch.int32 or torch.int16")
    for name, x in (("D", D), ("argmax", argmax), ("grad_scores", grad_scores)):
        if x.device != Q.device:
            raise ValueError(f"{name} is on {x.device}, Q is on {Q.device}: they must be on the same device")
    if torch_arrays.readable(argmax):
        check_range(torch_arrays, "argmax", argmax, -1, D.shape[1] - 1)
    q, d = embeddings(torch_arrays, "Q", Q.detach()), embeddings(torch_arrays, "D", D.detach())
    q_mask = token_mask(torch_arrays, "q_mask", q_mask, tuple(Q.shape[:-1]), Q, "Q")
    weights = token_weights(torch_arrays, q_weights, tuple(Q.shape[:-1]), Q, "Q")
    d = d.reshape(queries, columns, *d.shape[1:]) if kd_layout else d
    problem = Problem(
        Tokens(q, q_mask, detached(weights)), Tokens(d), pairing=CANDIDATES if kd_layout else ALL
    )
    return problem, grad_scores.detach(), argmax.contiguous()


def maxsim_backward_unified(
    grad_scores: Any,
    Q: Any,
    D: Any,
    argmax: Any,
    q_mask: Any = None,
    *,
    kd_layout: bool = False,
    q_weights: Any = None,
) -> tuple[Any, Any]:
    """(grad_Q, grad_D) of ``[Nq, Lq, d]`` and ``[Nd, Ld, d]`` in their dtypes, from the argmax
    int32 ``[Nq * Nd, Lq]``.

    With ``kd_layout`` D is ``[Nq * K, Ld, d]`` and grad_scores ``[Nq, K]``. An argmax of -1
    contributes nothing. ``q_mask`` and ``q_weights`` are those of the forward pass.

    Raises:
        ValueError: shapes, devices, argmax entries outside the documents (in device memory they
        contribute nothing).
        TypeError: dtypes.

    Example:
        >>> import torch
        >>> from late_interaction_kernels.backward import maxsim_backward_unified
        >>> from late_interaction_kernels.forward import maxsim_forward
        >>> x = torch.eye(2)[None]
        >>> scores, argmax = maxsim_forward(x, x, save_argmax=True)
        >>> maxsim_backward_unified(torch.ones(1, 1), x, 2 * x, argmax)[0]
        tensor([[[2., 0.],
                 [0., 2.]]])
    """
    import torch

    from .._engine import torch_ops

    problem, grad_scores, argmax = backward_problem(grad_scores, Q, D, argmax, q_mask, kd_layout, q_weights)
    with torch.no_grad():
        grad_q, grad_d, _ = torch_ops.gradients(problem, grad_scores, argmax, True, True, False)
    return grad_q.to(Q.dtype), grad_d.reshape(D.shape).to(D.dtype)


def maxsim_backward_unified_reference(
    grad_scores: Any, Q: Any, D: Any, argmax: Any, q_mask: Any = None, *, q_weights: Any = None
) -> tuple[Any, Any]:
    """What :func:`maxsim_backward_unified` gives, in plain torch operations, to compare
    with.
    """
    import torch

    from .._engine import torch_plain

    problem, grad_scores, argmax = backward_problem(grad_scores, Q, D, argmax, q_mask, False, q_weights)
    grad_q, grad_d = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (Q, D))
    torch_plain.grad(problem, grad_scores, argmax, (grad_q, grad_d, None))
    return grad_q, grad_d


__all__ = ["maxsim_backward_unified", "maxsim_backward_unified_reference"]
