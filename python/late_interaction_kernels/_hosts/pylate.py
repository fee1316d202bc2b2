"""PyLate on these kernels: :func:`patch_pylate` and :func:`unpatch_pylate`.

PyLate from 1.5.1 on calls the package itself for CUDA and MPS tensors; there the patch lets CPU
tensors in as well. Older versions get their three scoring functions replaced, wherever they
have been captured: modules, default arguments of the losses, losses that exist already. Scores
differ from PyLate's own in one point: masked document tokens are left out of the maximum
instead of counting as 0.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

from .. import _hosts, autograd, varlen

# The oldest versions lack the last.
_NAMES = ("colbert_scores", "colbert_kd_scores", "colbert_scores_pairwise")
# Losses that import a function by name, up to 1.4 and from 1.5 on.
_CAPTURED = {
    "pylate.losses.contrastive": "colbert_scores",
    "pylate.losses.cached_contrastive": "colbert_scores",
    "pylate.losses.distillation": "colbert_kd_scores",
}

# The host's own functions while the patch is on; empty otherwise.
_ORIGINAL: dict[str, Any] = {}
# The same, kept after unpatch: somebody may still hold a patched function.
_SAVED: dict[str, Any] = {}


def _tensor(x: Any) -> Any:
    return importlib.import_module("pylate.utils.tensor").convert_to_tensor(x)


def _as_bool(mask: Any) -> Any:
    if mask is None:
        return None
    mask = _tensor(mask)
    return mask if str(mask.dtype) == "torch.bool" else mask != 0


def _score(
    name: str,
    queries: Any,
    documents: Any,
    queries_mask: Any,
    documents_mask: Any,
    fits: Callable[[Any, Any], bool],
) -> Any:
    """By our function for this kind of scores where the patch is on and the embeddings fit it,
    else by the host's.
    """
    if _ORIGINAL:
        pairs = name == "colbert_scores_pairwise"  # whose lists of unequal lengths are the host's
        q, d = (queries, documents) if pairs else (_tensor(queries), _tensor(documents))
        if _hosts.dispatchable(q, d) and fits(q, d):
            function = autograd.maxsim_pairs if pairs else autograd.maxsim
            return function(q, d, _as_bool(queries_mask), _as_bool(documents_mask))
    # Masks go along only where there are any: not every version's functions know the names.
    masks = {"queries_mask": queries_mask, "documents_mask": documents_mask}
    return _SAVED[name](queries, documents, **{k: v for k, v in masks.items() if v is not None})


def patched_colbert_scores(
    queries_embeddings: Any,
    documents_embeddings: Any,
    queries_mask: Any = None,
    documents_mask: Any = None,
    *,
    mask: Any = None,
) -> Any:
    """Every query against every document: ``[Nq, Nd]``. ``mask`` is an older name of
    ``documents_mask``.
    """
    embeddings = queries_embeddings, documents_embeddings
    documents_mask = mask if documents_mask is None else documents_mask
    return _score(
        "colbert_scores", *embeddings, queries_mask, documents_mask, lambda q, d: q.dim() == d.dim() == 3
    )


def patched_colbert_kd_scores(
    queries_embeddings: Any,
    documents_embeddings: Any,
    queries_mask: Any = None,
    documents_mask: Any = None,
    *,
    mask: Any = None,
) -> Any:
    """Each query against its own candidates ``[Nq, K, Ld, d]``: ``[Nq, K]``."""
    if _ORIGINAL and _tensor(documents_embeddings).dim() != 4:
        shape = tuple(_tensor(documents_embeddings).shape)
        raise ValueError(f"documents_embeddings must have shape [Nq, K, Ld, d], got {shape}")
    embeddings = queries_embeddings, documents_embeddings
    documents_mask = mask if documents_mask is None else documents_mask
    return _score("colbert_kd_scores", *embeddings, queries_mask, documents_mask, lambda q, d: q.dim() == 3)


def patched_colbert_scores_pairwise(
    queries_embeddings: Any,
    documents_embeddings: Any,
    queries_mask: Any = None,
    documents_mask: Any = None,
    *,
    mask: Any = None,
) -> Any:
    """Query i against document i: ``[B]``. Lists of unequal lengths go to PyLate's own loop."""
    embeddings = queries_embeddings, documents_embeddings
    documents_mask = mask if documents_mask is None else documents_mask
    return _score("colbert_scores_pairwise", *embeddings, queries_mask, documents_mask, _are_pairs)


def _are_pairs(q: Any, d: Any) -> bool:
    return bool(q.dim() == d.dim() == 3 and q.shape[0] == d.shape[0])


def _takes(query: Any, document: Any) -> bool:
    """Would PyLate let our functions score tensors like these?"""
    if not _hosts.dispatchable(query, document):
        return False
    if "_lik_device" not in _ORIGINAL:
        return True
    gate, scores = sys.modules["pylate.scores._lik_backend"], sys.modules["pylate.scores.colbert"]
    backend = scores._resolve_backend(None)
    try:
        if scores._try_flash(backend, query, document) or not _gate_try_lik(backend, query, document):
            return False
        return _gate_lik_device(query, document) == "cuda"
    except gate.LIKUnsupported:
        return False


def _rerank_scores(query: Any, documents: list[Any], device: Any) -> Any:
    """The scores of one query's documents, packed; None where PyLate's own loop must do it.

    PyLate pads with zeros and without a mask, so that a zero counts where every similarity is
    negative: a document shorter than the longest gets one, and the scores keep their bits.
    """
    fits = [x.dim() == 2 and x.dtype == query.dtype and x.device == documents[0].device for x in documents]
    if query.dim() != 2 or not documents or not all(fits):
        return None
    longest = max(x.shape[0] for x in documents)
    if longest == 0 or any(x.shape[1] != query.shape[1] for x in documents):
        return None
    zero = documents[0].new_zeros((1, query.shape[1]))
    parts, ends = [], [0]
    for x in documents:
        short = x.shape[0] < longest
        parts += [x, zero] if short else [x]
        ends.append(ends[-1] + x.shape[0] + short)
    if device is not None:
        query = query.to(device)
    if not _takes(query, zero.to(query.device)):
        return None
    torch = sys.modules["torch"]
    tokens, offsets = torch.cat(parts).to(query.device), torch.tensor(ends).to(query.device)
    cu_q = torch.tensor([0, query.shape[0]]).to(query.device)
    with torch.no_grad():
        return varlen.maxsim_varlen(query, tokens, cu_q, offsets, query.shape[0], longest)[0]


def patched_rerank(
    documents_ids: Any, queries_embeddings: Any, documents_embeddings: Any, device: Any = None
) -> Any:
    """The documents of each query, best first, as PyLate's ``rerank`` gives them; they are
    packed, not padded.
    """
    rank = sys.modules["pylate.rank.rank"]
    queries, documents = map(rank.reshape_embeddings, (queries_embeddings, documents_embeddings))
    results = []
    for query, ids, candidates in zip(queries, documents_ids, documents, strict=False):
        scores = None
        if _ORIGINAL and not _hosts.disabled():
            scores = _rerank_scores(_tensor(query), [_tensor(x) for x in candidates], device)
        if scores is None:
            results += _SAVED["rerank"]([ids], [query], [candidates], device)
            continue
        best, order = scores.sort(descending=True)
        found = zip(best.tolist(), order.tolist(), strict=True)
        results.append([rank.RerankResult(id=ids[i], score=score) for score, i in found])
    return results


def _gate_lik_device(query: Any, doc: Any) -> str:
    """PyLate's check of a call; CPU tensors take the route of CUDA's, which serves every
    layout.
    """
    if _ORIGINAL and query.device.type == doc.device.type == "cpu" and _hosts.dispatchable(query, doc):
        if query.numel() == 0 or doc.numel() == 0:
            raise sys.modules["pylate.scores._lik_backend"].LIKUnsupported("empty input tensor")
        return "cuda"
    return str(_SAVED["_lik_device"](query, doc))


def _gate_try_lik(backend: str, *tensors: Any) -> bool:
    """PyLate's decision whether to ask this package at all."""
    if _ORIGINAL and backend in ("auto", "lik") and _hosts.dispatchable(*tensors):
        if all(t.device.type == "cpu" for t in tensors):
            return True
    return bool(_SAVED["_try_lik"](backend, *tensors))


def _gate_ranks(name: str) -> Any:
    """PyLate's entry for one kind of scores, for tensors of the ranks that its torch code
    takes: maxsim takes more, and would answer what PyLate refuses. LIKUnsupported leaves others
    to that code, which says what is wrong."""

    def entry(queries_embeddings: Any, documents_embeddings: Any, *masks: Any, **named: Any) -> Any:
        q, d = queries_embeddings, documents_embeddings
        pairs = name == "colbert_scores_pairwise_lik"
        if _ORIGINAL and not (_are_pairs(q, d) if pairs else q.dim() == d.dim() == 3):
            raise sys.modules["pylate.scores._lik_backend"].LIKUnsupported(
                f"{name} takes [N, L, d] and [N, L, d], got {tuple(q.shape)} and {tuple(d.shape)}"
            )
        return _SAVED[name](q, d, *masks, **named)

    return entry


_PATCHED = {
    "colbert_scores": patched_colbert_scores,
    "colbert_kd_scores": patched_colbert_kd_scores,
    "colbert_scores_pairwise": patched_colbert_scores_pairwise,
    "rerank": patched_rerank,
}

# (module, name) -> what replaces it in a PyLate that has a gate.
_GATE = {
    ("pylate.scores._lik_backend", "_lik_device"): _gate_lik_device,
    ("pylate.scores.colbert", "_try_lik"): _gate_try_lik,
    ("pylate.scores._lik_backend", "colbert_scores_lik"): _gate_ranks("colbert_scores_lik"),
    ("pylate.scores._lik_backend", "colbert_scores_pairwise_lik"): _gate_ranks("colbert_scores_pairwise_lik"),
}


def _open_gate() -> None:
    for (module, name), replacement in _GATE.items():
        owner = importlib.import_module(module)
        _ORIGINAL[name] = _SAVED[name] = getattr(owner, name)
        setattr(owner, name, replacement)
    _ORIGINAL["rerank"] = _SAVED["rerank"] = importlib.import_module("pylate.rank.rank").rerank
    _hosts.swap("pylate", [(_SAVED["rerank"], patched_rerank)])


def _close_gate() -> None:
    for module, name in _GATE:
        setattr(importlib.import_module(module), name, _ORIGINAL[name])
    _hosts.swap("pylate", [(patched_rerank, _ORIGINAL["rerank"])])


def _lost_losses() -> list[str]:
    """Losses that should hold one of our functions and do not: from 1.5 on the contrastive ones
    look it up instead.
    """
    lookup = "pylate.scores.scores" not in sys.modules
    return [
        f"{module}.{name}"
        for module, name in _CAPTURED.items()
        if module in sys.modules
        and not hasattr(sys.modules[module], name)
        and not (lookup and "contrastive" in module)
    ]


def patch_pylate() -> None:
    """Let PyLate score with these kernels, on the CPU too. Safe to call twice.

    From PyLate 1.5.1 on this opens its own dispatch for CPU tensors, and packs what ``rerank``
    would pad. Before, it replaces ``rerank``, ``colbert_scores``, ``colbert_kd_scores`` and
    ``colbert_scores_pairwise`` in all of PyLate. ``LIK_DISABLE=1`` switches the effect off call
    by call.

    Raises:
        ImportError: PyLate is not installed.

    Example:
        >>> from late_interaction_kernels import patch_pylate
        >>> patch_pylate()  # doctest: +SKIP
    """
    if _ORIGINAL:
        return
    scores = importlib.import_module("pylate.scores")
    if _hosts.module("pylate.scores._lik_backend") is not None:
        _open_gate()
        return
    found = {name: getattr(scores, name) for name in _NAMES if hasattr(scores, name)}
    missing = [f"pylate.scores.{name}" for name in _NAMES[:2] if name not in found] + _lost_losses()
    if missing:
        warnings.warn(
            f"late-interaction-kernels: PyLate has no {', '.join(missing)}: it was refactored, and what took "
            "their place is not patched",
            RuntimeWarning,
            stacklevel=2,
        )
    rank = _hosts.module("pylate.rank.rank")
    if rank is not None and hasattr(rank, "rerank"):
        found["rerank"] = rank.rerank
    _ORIGINAL.update(found)
    _SAVED.update(found)
    _hosts.swap("pylate", [(original, _PATCHED[name]) for name, original in found.items()])


def unpatch_pylate() -> None:
    """Undo :func:`patch_pylate` exactly. Nothing happens if it is not in effect."""
    if not _ORIGINAL:
        return
    if "_lik_device" in _ORIGINAL:
        _close_gate()
    else:
        _hosts.swap("pylate", [(_PATCHED[name], original) for name, original in _ORIGINAL.items()])
    _ORIGINAL.clear()
