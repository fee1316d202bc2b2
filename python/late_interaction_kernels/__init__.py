"""late-interaction-kernels: exact fused late-interaction scoring (MaxSim) in C, for NumPy and
torch.

Start with :func:`maxsim` (padded tensors), :func:`maxsim_varlen` (packed tokens),
:func:`pack` (a list of unequal arrays), :func:`retrieve` (top-k). docs/python.md tells which
function fits which data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _native
from .autograd import maxsim, maxsim_pairs
from .packing import pack, unpack
from .padded import maxsim_padded
from .retrieve import retrieve
from .varlen import maxsim_varlen

if TYPE_CHECKING:
    from . import reference as reference
    from ._explain import explain as explain
    from ._scorer import MaxSimScorer as MaxSimScorer
    from .colpali_compat import patch_colpali_engine as patch_colpali_engine
    from .colpali_compat import unpatch_colpali_engine as unpatch_colpali_engine
    from .files import load as load
    from .files import save as save
    from .pylate_compat import patch_pylate as patch_pylate
    from .pylate_compat import unpatch_pylate as unpatch_pylate
    from .sentence_transformers_compat import patch_sentence_transformers as patch_sentence_transformers
    from .sentence_transformers_compat import unpatch_sentence_transformers as unpatch_sentence_transformers

__version__ = _native.info()[0]

_HAS_TRITON = False  # the existing package's flag; nothing here needs Triton

__all__ = [
    "MaxSimScorer",
    "__version__",
    "explain",
    "load",
    "maxsim",
    "maxsim_padded",
    "maxsim_pairs",
    "maxsim_varlen",
    "pack",
    "patch_colpali_engine",
    "patch_pylate",
    "patch_sentence_transformers",
    "reference",
    "retrieve",
    "save",
    "unpack",
    "unpatch_colpali_engine",
    "unpatch_pylate",
    "unpatch_sentence_transformers",
]


# What is imported when it is asked for: submodules, so that `import late_interaction_kernels as
# lik; lik.plaid` works, and names with the submodule that has them.
_MODULES = (
    "backward",
    "colpali_compat",
    "forward",
    "files",
    "fp8",
    "fused_head",
    "int8",
    "mps",
    "plaid",
    "pylate_compat",
    "reference",
    "score_pairs",
    "sentence_transformers_compat",
)
_LATER = {
    "explain": "_explain",
    "load": "files",
    "save": "files",
    "MaxSimScorer": "_scorer",
    "patch_colpali_engine": "colpali_compat",
    "patch_pylate": "pylate_compat",
    "patch_sentence_transformers": "sentence_transformers_compat",
    "unpatch_colpali_engine": "colpali_compat",
    "unpatch_pylate": "pylate_compat",
    "unpatch_sentence_transformers": "sentence_transformers_compat",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES and name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f".{_LATER.get(name, name)}", __name__)
    return getattr(module, name) if name in _LATER else module


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_LATER})
