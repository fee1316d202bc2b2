"""sentence-transformers 6 on these kernels: see ``_hosts.sentence_transformers``."""

from __future__ import annotations

from ._hosts.sentence_transformers import (
    patch_sentence_transformers,
    unpatch_sentence_transformers,
)

__all__ = [
    "patch_sentence_transformers",
    "unpatch_sentence_transformers",
]
