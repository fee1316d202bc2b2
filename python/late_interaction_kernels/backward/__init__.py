"""The backward pass alone: gradients from an argmax that the forward pass wrote. Tensors of
torch only.

There is one way to compute the gradient here, exact, deterministic and without atomics;
``unified`` and ``lowmem`` are two names of it.
"""

from __future__ import annotations

from .lowmem import maxsim_backward_lowmem
from .unified import maxsim_backward_unified, maxsim_backward_unified_reference

__all__ = ["maxsim_backward_lowmem", "maxsim_backward_unified", "maxsim_backward_unified_reference"]
