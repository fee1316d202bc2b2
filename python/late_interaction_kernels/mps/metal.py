"""The names of the Metal kernels. This build has none: they say so, and ``maxsim_mps`` uses
torch operations.
"""

from __future__ import annotations

from typing import Any, NoReturn


def is_available() -> bool:
    """Does this build have Metal kernels for this machine?

    Example:
        >>> from late_interaction_kernels.mps.metal import is_available
        >>> is_available()
        False
    """
    return False


def supports(Q: Any, D: Any) -> bool:
    """Could the Metal kernels score these tensors? The envelope: one half dtype, d a multiple
    of 8 up to 128.

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


def _refuse(name: str) -> NoReturn:
    raise RuntimeError(
        f"{name} requires Metal kernels, which this build does not have; use late_interaction_kernels.maxsim"
    )


def maxsim_inference_metal(
    Q: Any, D: Any, q_mask: Any = None, d_mask: Any = None, *, normalize: bool = False
) -> NoReturn:
    """RuntimeError: no Metal kernels here; :func:`late_interaction_kernels.maxsim` takes MPS
    tensors.
    """
    _refuse("maxsim_inference_metal")


def maxsim_train_metal(
    Q: Any, D: Any, q_mask: Any = None, d_mask: Any = None, *, normalize: bool = False
) -> NoReturn:
    """RuntimeError: no Metal kernels here; :func:`late_interaction_kernels.maxsim` takes MPS
    tensors.
    """
    _refuse("maxsim_train_metal")


def maxsim_backward_metal(
    grad_scores: Any,
    Q: Any,
    D: Any,
    argmax: Any,
    q_mask: Any = None,
    *,
    kd_layout: bool | None = None,
    normalize: bool = False,
) -> NoReturn:
    """RuntimeError: no Metal kernels here; :func:`late_interaction_kernels.maxsim` takes MPS
    tensors.
    """
    _refuse("maxsim_backward_metal")


__all__ = [
    "is_available",
    "maxsim_backward_metal",
    "maxsim_inference_metal",
    "maxsim_train_metal",
    "supports",
]
