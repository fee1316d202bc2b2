"""The backward pass alone: gradients from an argmax that the forward pass wrote. Tensors of torch only.

There is one way to compute the gradient here, exact, deterministic and without atomics; ``unified`` and ``lowmem`` are
two names of it.
"""

from __future__ import annotations

from typing import Any

from .._problem import CANDIDATES, Problem, check_rank, check_shape, framework, token_mask


def _problem(grad_scores: Any, Q: Any, D: Any, argmax: Any, q_mask: Any, kd_layout: bool) -> tuple[Problem, Any, Any]:
    import torch

    from .. import _torch

    framework(Q=Q, D=D, grad_scores=grad_scores, argmax=argmax, q_mask=q_mask)
    if not isinstance(Q, torch.Tensor):
        raise TypeError(f"Q must be a torch.Tensor, got {type(Q).__name__}")
    check_rank("Q", Q, (3,), "[Nq, Lq, d]")
    check_rank("D", D, (3,), "[Nd, Ld, d], candidates flattened")
    queries, documents = Q.shape[0], D.shape[0]
    if kd_layout and (queries == 0 or documents % queries):
        raise ValueError(f"D.shape[0] is {documents}, must be a multiple of Q.shape[0], which is {queries}")
    columns = documents // queries if kd_layout else documents
    check_shape("grad_scores", grad_scores, (queries, columns), "the scores")
    check_shape("argmax", argmax, (queries * columns, Q.shape[1]), "one row a score")
    if argmax.dtype not in (torch.int16, torch.int32):
        raise TypeError(f"argmax has dtype {argmax.dtype}, must be torch.int32 or torch.int16")
    for name, x in (("D", D), ("argmax", argmax), ("grad_scores", grad_scores)):
        if x.device != Q.device:
            raise ValueError(f"{name} is on {x.device}, Q is on {Q.device}: they must be on the same device")
    if argmax.numel() and argmax.device.type == "cpu":
        low, high = (int(v) for v in argmax.aminmax())
        if low < -1 or high >= D.shape[1]:
            raise ValueError(f"argmax holds {low if low < -1 else high}, must be -1 to {D.shape[1] - 1}")
    for name, x in (("Q", Q), ("D", D)):
        if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise TypeError(f"{name} has dtype {x.dtype}, must be torch.float32, torch.float16 or torch.bfloat16")
    q_mask = token_mask(_torch, "q_mask", q_mask, tuple(Q.shape[:-1]), Q, "Q")
    if kd_layout:
        shaped = (
            D.view(queries, columns, *D.shape[1:]) if D.is_contiguous() else D.reshape(queries, columns, *D.shape[1:])
        )
        return Problem(Q, shaped, q_mask, pairing=CANDIDATES), grad_scores, argmax.contiguous()
    return Problem(Q, D, q_mask), grad_scores, argmax.contiguous()


def maxsim_backward_unified(
    grad_scores: Any, Q: Any, D: Any, argmax: Any, q_mask: Any = None, *, kd_layout: bool = False
) -> tuple[Any, Any]:
    """(grad_Q, grad_D) of ``[Nq, Lq, d]`` and ``[Nd, Ld, d]`` in their dtypes, from the argmax int32 ``[Nq * Nd, Lq]``.

    With ``kd_layout`` D is ``[Nq * K, Ld, d]`` and grad_scores ``[Nq, K]``. An argmax of -1 contributes nothing.

    Raises:
        ValueError: shapes, devices, argmax entries outside the documents.
        TypeError: dtypes.
    """
    import torch

    from .. import _torch

    problem, grad_scores, argmax = _problem(grad_scores, Q, D, argmax, q_mask, kd_layout)
    with torch.no_grad():
        grad_q, grad_d, _ = _torch.run_grad(problem, grad_scores, argmax, True, True, False)
    return grad_q, grad_d.reshape(D.shape)


def maxsim_backward_lowmem(
    grad_scores: Any, Q: Any, D: Any, argmax: Any, q_mask: Any = None, *, kd_layout: bool = False
) -> tuple[Any, Any]:
    """The same as :func:`maxsim_backward_unified`."""
    return maxsim_backward_unified(grad_scores, Q, D, argmax, q_mask, kd_layout=kd_layout)


def maxsim_backward_unified_reference(
    grad_scores: Any, Q: Any, D: Any, argmax: Any, q_mask: Any = None
) -> tuple[Any, Any]:
    """The same gradients in plain torch operations, to compare with; -1 in the argmax contributes nothing."""
    import torch

    from .. import _fallback

    problem, grad_scores, argmax = _problem(grad_scores, Q, D, argmax, q_mask, False)
    grad_q, grad_d = torch.empty_like(Q).contiguous(), torch.empty_like(D).contiguous()
    _fallback.grad(problem, grad_scores, argmax, grad_q, grad_d, None)
    return grad_q, grad_d


__all__ = ["maxsim_backward_lowmem", "maxsim_backward_unified", "maxsim_backward_unified_reference"]
