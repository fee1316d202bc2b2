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
    from . import backward as backward
    from . import colpali_compat as colpali_compat
    from . import files as files
    from . import forward as forward
    from . import fp8 as fp8
    from . import fused_head as fused_head
    from . import int8 as int8
    from . import mps as mps
    from . import plaid as plaid
    from . import pylate_compat as pylate_compat
    from . import reference as reference
    from . import score_pairs as score_pairs
    from . import sentence_transformers_compat as sentence_transformers_compat
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
    "show_config",
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
    "exact",
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


if not TYPE_CHECKING:  # checkers have the imports above

    def __getattr__(name: str) -> Any:
        if name not in _MODULES and name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        module = importlib.import_module(f".{_LATER.get(name, name)}", __name__)
        return getattr(module, name) if name in _LATER else module


def __dir__() -> list[str]:
    """What is meant for users, with what is imported when it is asked for."""
    public = {name for name in globals() if name[:2] == "__" or name in __all__}
    return sorted({*public, *__all__, *_MODULES, *_LATER, "autograd", "padded", "topk", "varlen"})


def show_config() -> None:
    """Print which build this is and what it runs on: version, compiler, backends, instruction
    set, threads, the command, the frameworks.

    Example:
        >>> import late_interaction_kernels as lik
        >>> lik.show_config()  # doctest: +ELLIPSIS
        late-interaction-kernels ...
    """
    import os
    import sys

    from . import _command

    version, build, cpu, threads = _native.info()
    rows = {"library": build, "processor": cpu, "threads": str(threads)}
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    for module in (numpy, torch):
        if module is not None:
            rows[module.__name__] = str(module.__version__)
    if torch is not None and torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            why = _native.device_error(i)
            rows[f"cuda:{i}"] = torch.cuda.get_device_name(i) + (f", not used: {why}" if why else "")
    rows["command"] = _command.PATH if os.path.exists(_command.PATH) else "not in this build"
    rows["package"] = os.path.dirname(os.path.abspath(__file__))
    print(f"late-interaction-kernels {version}")
    for name, value in rows.items():
        print(f"  {name:10} {value}")
