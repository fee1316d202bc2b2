"""MaxSim for Apple GPUs, under the names that PyLate and colpali-engine import.

On MPS tensors both functions go to the Metal kernels, a compiled reference or torch operations
in bounded memory (see docs/apple.md); on CPU tensors they are
:func:`late_interaction_kernels.maxsim`, so that code written for a Mac runs anywhere.
"""

from __future__ import annotations

from . import metal as metal
from .compile_dispatch import maxsim_inference_mps, maxsim_mps

__all__ = ["maxsim_inference_mps", "maxsim_mps"]
