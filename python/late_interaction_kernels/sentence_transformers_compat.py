"""sentence-transformers 6 on these kernels: see ``_hosts.sentence_transformers``."""

from __future__ import annotations

from ._hosts.sentence_transformers import (
    patch_sentence_transformers,
    patched_maxsim_score_documents,
    patched_maxsim_score_pairs,
    unpatch_sentence_transformers,
)

__all__ = [
    "patch_sentence_transformers",
    "patched_maxsim_score_documents",
    "patched_maxsim_score_pairs",
    "unpatch_sentence_transformers",
]
