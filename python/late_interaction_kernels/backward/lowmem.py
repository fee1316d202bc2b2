"""The other name of the backward pass: see ``backward``."""

from __future__ import annotations

from typing import Any

from .unified import maxsim_backward_unified


def maxsim_backward_lowmem(
    grad_scores: Any,
    Q: Any,
    D: Any,
    argmax: Any,
    q_mask: Any = None,
    *,
    kd_layout: bool = False,
    q_weights: Any = None,
) -> tuple[Any, Any]:
    """The same as :func:`maxsim_backward_unified`: arguments, errors, and every bit of (grad_Q,
    grad_D).
    """
    return maxsim_backward_unified(
        grad_scores, Q, D, argmax, q_mask, kd_layout=kd_layout, q_weights=q_weights
    )


__all__ = ["maxsim_backward_lowmem"]
