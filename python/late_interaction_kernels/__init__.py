"""late-interaction-kernels: exact fused late-interaction scoring (MaxSim) in C, for NumPy and torch.

Start with :func:`maxsim` (padded tensors), :func:`maxsim_varlen` (packed tokens), :func:`retrieve` (top-k).
docs/python.md tells which function fits which data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _native
from .autograd import maxsim, maxsim_pairs
from .colpali_compat import patch_colpali_engine, unpatch_colpali_engine
from .padded import maxsim_padded
from .pylate_compat import patch_pylate, unpatch_pylate
from .retrieve import retrieve
from .sentence_transformers_compat import patch_sentence_transformers, unpatch_sentence_transformers
from .varlen import maxsim_varlen

if TYPE_CHECKING:
    from . import reference as reference
    from ._scorer import MaxSimScorer as MaxSimScorer

__version__ = _native.info()[0]

_HAS_TRITON = False  # the existing package's flag; nothing here needs Triton

__all__ = [
    "MaxSimScorer",
    "__version__",
    "maxsim",
    "maxsim_padded",
    "maxsim_pairs",
    "maxsim_varlen",
    "patch_colpali_engine",
    "patch_pylate",
    "patch_sentence_transformers",
    "reference",
    "retrieve",
    "unpatch_colpali_engine",
    "unpatch_pylate",
    "unpatch_sentence_transformers",
]


# Submodules that are imported when they are asked for: `import late_interaction_kernels as lik; lik.plaid` works.
_MODULES = (
    "backward",
    "forward",
    "fp8",
    "fused_head",
    "int8",
    "mps",
    "plaid",
    "reference",
    "score_pairs",
)


def __getattr__(name: str) -> Any:
    """What is not needed at once is imported when it is asked for; the scorer and the references need torch."""
    if name == "MaxSimScorer":
        from ._scorer import MaxSimScorer

        return MaxSimScorer
    if name in _MODULES:
        import importlib

        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
