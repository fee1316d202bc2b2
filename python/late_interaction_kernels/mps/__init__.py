"""MaxSim for Apple GPUs, under the names that PyLate and colpali-engine import.

On MPS tensors both functions compute with torch operations in bounded memory; on CPU tensors they are
:func:`late_interaction_kernels.maxsim`, so that code written for a Mac runs anywhere.
"""

from __future__ import annotations

from typing import Any

from ..autograd import maxsim
from ..topk import fw_detach
from . import compile_dispatch, metal


def maxsim_mps(
    Q: Any, D: Any, q_mask: Any = None, d_mask: Any = None, *, normalize: bool = True, q_weights: Any = None
) -> Any:
    """:func:`late_interaction_kernels.maxsim` with ``normalize=True`` as its default; differentiable.

    Q ``[Nq, Lq, d]`` or ``[Lq, d]``, D ``[Nd, Ld, d]``, ``[Ld, d]`` or ``[Nq, K, Ld, d]`` -> float32 scores. Dtypes,
    masks and errors are those of ``maxsim``.

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
    return maxsim(fw_detach(Q), fw_detach(D), q_mask, d_mask, normalize=normalize, q_weights=fw_detach(q_weights))


__all__ = ["compile_dispatch", "maxsim_inference_mps", "maxsim_mps", "metal"]
