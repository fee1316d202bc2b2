"""The functions of ``mps``. Which of the Metal kernels, a compiled reference and plain torch
operations computes is chosen where all of this package's functions do, in
``_engine/torch_mps.py``.
"""

from __future__ import annotations

from typing import Any

from .._engine.problem import detached
from ..autograd import maxsim


def maxsim_mps(
    Q: Any, D: Any, q_mask: Any = None, d_mask: Any = None, *, normalize: bool = True, q_weights: Any = None
) -> Any:
    """:func:`late_interaction_kernels.maxsim` with ``normalize=True`` as its default;
    differentiable.

    Q ``[Nq, Lq, d]`` or ``[Lq, d]``, D ``[Nd, Ld, d]``, ``[Ld, d]`` or ``[Nq, K, Ld, d]`` ->
    float32 scores. Dtypes, masks and errors are those of ``maxsim``.

    Example:
        >>> import torch
        >>> from late_interaction_kernels.mps import maxsim_mps
        >>> maxsim_mps(2 * torch.eye(2)[None], torch.eye(2)[None])
        tensor([[2.]])
    """
    return maxsim(Q, D, q_mask, d_mask, normalize=normalize, q_weights=q_weights)


def maxsim_inference_mps(
    Q: Any, D: Any, q_mask: Any = None, d_mask: Any = None, *, normalize: bool = True, q_weights: Any = None
) -> Any:
    """:func:`maxsim_mps` outside autograd.

    Example:
        >>> import torch
        >>> from late_interaction_kernels.mps import maxsim_inference_mps
        >>> maxsim_inference_mps(torch.eye(2, requires_grad=True), torch.eye(2))
        tensor(2.)
    """
    return maxsim(
        detached(Q), detached(D), q_mask, d_mask, normalize=normalize, q_weights=detached(q_weights)
    )


def __getattr__(name: str) -> Any:
    """``_compiled_cache``: the references that torch.compile made; hosts' tests look at it."""
    if name == "_compiled_cache":
        from .._engine.torch_mps import compiled_cache

        return compiled_cache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["maxsim_inference_mps", "maxsim_mps"]
