"""colpali-engine on these kernels: see ``_hosts.colpali``."""

from __future__ import annotations

from ._hosts.colpali import _ORIGINAL as _ORIGINAL  # tests of the existing package look at it
from ._hosts.colpali import (
    patch_colpali_engine,
    patched_colbert_loss_forward,
    patched_colbert_negative_ce_forward,
    patched_colbert_pairwise_ce_forward,
    patched_colbert_pairwise_negative_ce_forward,
    patched_colbert_sigmoid_forward,
    patched_score_multi_vector,
    unpatch_colpali_engine,
)

__all__ = [
    "patch_colpali_engine",
    "patched_colbert_loss_forward",
    "patched_colbert_negative_ce_forward",
    "patched_colbert_pairwise_ce_forward",
    "patched_colbert_pairwise_negative_ce_forward",
    "patched_colbert_sigmoid_forward",
    "patched_score_multi_vector",
    "unpatch_colpali_engine",
]
