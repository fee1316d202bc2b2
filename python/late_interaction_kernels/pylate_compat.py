"""PyLate on these kernels: see ``_hosts.pylate``."""

from __future__ import annotations

from ._hosts.pylate import _ORIGINAL as _ORIGINAL  # tests of the existing package look at it
from ._hosts.pylate import (
    patch_pylate,
    patched_colbert_kd_scores,
    patched_colbert_scores,
    patched_colbert_scores_pairwise,
    unpatch_pylate,
)

__all__ = [
    "patch_pylate",
    "patched_colbert_kd_scores",
    "patched_colbert_scores",
    "patched_colbert_scores_pairwise",
    "unpatch_pylate",
]
