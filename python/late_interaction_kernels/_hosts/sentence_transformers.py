"""sentence-transformers 6 on these kernels: :func:`patch_sentence_transformers` and its
undoing.

All MaxSim of a MultiVectorEncoder (``similarity``, evaluators, the multi-vector losses) goes
through two functions of ``sentence_transformers.util.similarity`` that score one padded chunk
each. The patch replaces those two.
"""

from __future__ import annotations

import importlib
from typing import Any

from .. import _hosts, autograd

_MODULE = "sentence_transformers.util.similarity"
_NAMES = ("_maxsim_score_documents", "_maxsim_score_pairs")

_ORIGINAL: dict[str, Any] = {}
_SAVED: dict[str, Any] = {}


def _query_side(mask: Any) -> dict[str, Any]:
    """The host multiplies by its query mask: bool drops tokens, anything else are weights."""
    if mask is None:
        return {}
    if str(mask.dtype) == "torch.bool":
        return {"q_mask": mask}
    return {"q_weights": mask.float()}


def _score(name: str, a: Any, b: Any, a_mask: Any, b_mask: Any) -> Any:
    if not _ORIGINAL or not _hosts.dispatchable(a, b) or not a.dim() == b.dim() == 3 or b.shape[1] == 0:
        return _SAVED[name](a, b, a_mask, b_mask)
    kept = None if b_mask is None else b_mask.bool()
    function = autograd.maxsim if name == _NAMES[0] else autograd.maxsim_pairs
    scores = function(a, b, d_mask=kept, **_query_side(a_mask))
    if kept is None:
        return scores
    return importlib.import_module(_MODULE)._fill_empty_document_scores(scores, ~kept.any(dim=-1))


def patched_maxsim_score_documents(a: Any, b: Any, a_mask: Any, b_mask: Any) -> Any:
    """One chunk of documents against all queries: float32 ``[Na, Nb]``."""
    return _score(_NAMES[0], a, b, a_mask, b_mask)


def patched_maxsim_score_pairs(a: Any, b: Any, a_mask: Any, b_mask: Any) -> Any:
    """One chunk of aligned pairs: float32 ``[N]``."""
    return _score(_NAMES[1], a, b, a_mask, b_mask)


def patch_sentence_transformers() -> None:
    """Let MultiVectorEncoder and its losses score with these kernels. Safe to call twice.

    Documents without tokens keep the host's score of -1e9. ``LIK_DISABLE=1`` switches the
    effect off call by call.

    Raises:
        ImportError: sentence-transformers 6 or later is not installed.

    Example:
        >>> from late_interaction_kernels import patch_sentence_transformers
        >>> patch_sentence_transformers()  # doctest: +SKIP
    """
    if _ORIGINAL:
        return
    module = importlib.import_module(_MODULE)
    missing = [name for name in (*_NAMES, "_fill_empty_document_scores") if not hasattr(module, name)]
    if missing:
        raise ImportError(
            f"{_MODULE} has no {', '.join(missing)}: patch_sentence_transformers needs sentence-transformers "
            "6"
        )
    _ORIGINAL.update({name: getattr(module, name) for name in _NAMES})
    _SAVED.update(_ORIGINAL)
    patched = (patched_maxsim_score_documents, patched_maxsim_score_pairs)
    _hosts.swap(
        "sentence_transformers", [(_ORIGINAL[name], new) for name, new in zip(_NAMES, patched, strict=True)]
    )


def unpatch_sentence_transformers() -> None:
    """Undo :func:`patch_sentence_transformers` exactly. Nothing happens if it is not in
    effect.
    """
    if not _ORIGINAL:
        return
    patched = (patched_maxsim_score_documents, patched_maxsim_score_pairs)
    _hosts.swap(
        "sentence_transformers", [(new, _ORIGINAL[name]) for name, new in zip(_NAMES, patched, strict=True)]
    )
    _ORIGINAL.clear()
