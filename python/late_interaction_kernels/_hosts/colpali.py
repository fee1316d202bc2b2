"""colpali-engine on these kernels: :func:`patch_colpali_engine` and
:func:`unpatch_colpali_engine`.

colpali-engine from 0.3.17 on calls the package itself for CUDA and MPS tensors; there the patch
lets CPU tensors in as well.

Older versions write MaxSim as ``torch.einsum(...)``, a maximum over document tokens and a sum,
inside losses that changed from version to version. The patch keeps every line of those losses:
it runs them with an ``einsum`` that recognizes the MaxSim products and answers with an
unevaluated product. If a maximum and a sum follow, our kernels compute them; if anything else
follows (the smooth maximum), the product is evaluated as the host wrote it.

The ``patched_`` functions call one method of the host so, whether the patch is on or not.
"""

from __future__ import annotations

import importlib
import threading
import warnings
from collections.abc import Callable
from typing import Any

from .. import _hosts, autograd

_PROCESSING = "colpali_engine.utils.processing_utils"
_LOSS = "colpali_engine.loss.late_interaction_losses"
_LOSSES = (
    "ColbertLoss",
    "ColbertPairwiseCELoss",
    "ColbertSigmoidLoss",
    "ColbertNegativeCELoss",
    "ColbertPairwiseNegativeCELoss",
)

# What was replaced while the patch is on: (owner, name) -> the attribute as it stood there;
# empty otherwise.
_ORIGINAL: dict[tuple[Any, str], Any] = {}
_SAVED: dict[str, Any] = {}
_lock = threading.RLock()  # held while the patch is put on or off, and by a call that has it on for itself

# The products of the hosts' losses -> the pairing they mean. The query tokens' axis comes
# before the documents' in the result.
_PRODUCTS = {
    "bnd,csd->bcns": "all",
    "bnd,bsd->bns": "pairs",
    "bnd,bld->bnl": "pairs",
    "bnd,blsd->blns": "candidates",
    "bnd,bsld->bsnl": "candidates",
}


class _Product:
    """A similarity tensor that nobody has looked at yet."""

    def __init__(self, equation: str, query: Any, document: Any) -> None:
        self._equation, self._query, self._document = equation, query, document

    def _tensor(self) -> Any:
        import torch

        return torch.einsum(self._equation, self._query, self._document)

    def amax(self, dim: int) -> Any:
        return (
            _Maximum(self, dim)
            if dim in (-1, 2 if _PRODUCTS[self._equation] == "pairs" else 3)
            else self._tensor().amax(dim)
        )

    def max(self, dim: int) -> Any:
        best = self.amax(dim)
        return _Best(best, self, dim) if isinstance(best, _Maximum) else self._tensor().max(dim)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensor(), name)

    def __truediv__(self, other: Any) -> Any:
        return self._tensor() / other

    def __mul__(self, other: Any) -> Any:
        return self._tensor() * other

    def __add__(self, other: Any) -> Any:
        return self._tensor() + other


class _Best:
    """What ``max(dim)`` of a product returns: (values, indices), the indices only if somebody
    asks.
    """

    def __init__(self, values: _Maximum, product: _Product, dim: int) -> None:
        self.values, self._product, self._dim = values, product, dim

    @property
    def indices(self) -> Any:
        return self._product._tensor().max(self._dim).indices

    def __getitem__(self, i: int) -> Any:
        return self.values if i == 0 else self.indices


class _Maximum:
    """The maxima of a product over document tokens, [..., query tokens], not computed yet."""

    def __init__(self, product: _Product, dim: int) -> None:
        self._product, self._dim = product, dim

    def sum(self, dim: int) -> Any:
        pairing = _PRODUCTS[self._product._equation]
        if dim not in (-1, 1 if pairing == "pairs" else 2):
            return self._tensor().sum(dim)
        query, document = self._product._query, self._product._document
        return (autograd.maxsim_pairs if pairing == "pairs" else autograd.maxsim)(query, document)

    def _tensor(self) -> Any:
        return self._product._tensor().amax(self._dim)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensor(), name)


def _fits(equation: str, *operands: Any) -> bool:
    """Are these two tensors of the ranks and sizes of the equation? Others are einsum's to
    broadcast, or to refuse.
    """
    import torch

    terms = equation.split("->")[0].split(",")
    sizes: dict[str, int] = {}
    return len(operands) == 2 and all(
        isinstance(x, torch.Tensor)
        and x.dim() == len(term)
        and all(sizes.setdefault(axis, size) == size for axis, size in zip(term, x.shape, strict=True))
        for term, x in zip(terms, operands, strict=True)
    )


class _Torch:
    """The torch module as the patched functions see it."""

    def __getattr__(self, name: str) -> Any:
        import torch

        return getattr(torch, name)

    def einsum(self, equation: str, *operands: Any) -> Any:
        import torch

        if (
            equation in _PRODUCTS
            and _ORIGINAL
            and _fits(equation, *operands)
            and _hosts.dispatchable(*operands)
        ):
            return _Product(equation, *operands)
        return torch.einsum(equation, *operands)


def _replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> bool:
    """Replace owner's own attribute by wrap(function), as a staticmethod if it is one."""
    held = vars(owner).get(name)
    if held is None:
        return False
    made = wrap(getattr(held, "__func__", held))
    _ORIGINAL[owner, name] = held
    setattr(owner, name, staticmethod(made) if isinstance(held, staticmethod) else made)
    return True


def _gate_lik_device(query: Any, doc: Any) -> str:
    """The host's check of a call; CPU tensors take the route of CUDA's, which serves every
    layout.
    """
    if _ORIGINAL and query.device.type == doc.device.type == "cpu" and _hosts.dispatchable(query, doc):
        return "cuda"
    return str(_SAVED["_lik_device"](query, doc))


def _gate_ranks(function: Any) -> Any:
    """The host's in-batch scores for tensors of the ranks that its torch code takes: maxsim
    takes more, and would answer what the host refuses."""

    def maxsim_inbatch_lik(query: Any, doc: Any) -> Any:
        if _ORIGINAL and not query.dim() == doc.dim() == 3:
            backend = importlib.import_module("colpali_engine.utils._lik_backend")
            raise backend.LIKUnsupportedError(
                f"in-batch scores take [B, L, d] and [B, L, d], got {tuple(query.shape)} and "
                f"{tuple(doc.shape)}"
            )
        return function(query, doc)

    return maxsim_inbatch_lik


def _see_our_torch(function: Any) -> Any:
    return _hosts.with_globals(function, torch=_Torch())


def _with_patch(module: str, owner: str, method: str, *arguments: Any) -> Any:
    """The host's own method with the patch on: put on for this call where it is not."""
    bound = getattr(importlib.import_module(module), owner)
    if _ORIGINAL:
        return getattr(bound, method)(*arguments)
    with _lock:
        patch_colpali_engine()
        try:
            return getattr(bound, method)(*arguments)
        finally:
            unpatch_colpali_engine()


def _loss(name: str, self: Any, *embeddings: Any, offset: int) -> Any:
    """One loss; the oldest versions have no offset."""
    return _with_patch(_LOSS, name, "forward", self, *embeddings, *((offset,) if offset else ()))


def patched_score_multi_vector(qs: Any, ps: Any, batch_size: int = 128, device: Any = None) -> Any:
    """``BaseVisualRetrieverProcessor.score_multi_vector`` under :func:`patch_colpali_engine`:
    float32 ``[Nq, Nd]``.

    Queries and pages are lists of ``[L, d]`` tensors or one ``[N, L, d]`` tensor; errors are
    the host's.
    """
    return _with_patch(
        _PROCESSING, "BaseVisualRetrieverProcessor", "score_multi_vector", qs, ps, batch_size, device
    )


def patched_colbert_loss_forward(
    self: Any, query_embeddings: Any, doc_embeddings: Any, offset: int = 0
) -> Any:
    """``ColbertLoss.forward`` under :func:`patch_colpali_engine`: queries ``[B, Lq, d]``,
    documents ``[C, Ld, d]``.
    """
    return _loss("ColbertLoss", self, query_embeddings, doc_embeddings, offset=offset)


def patched_colbert_pairwise_ce_forward(
    self: Any, query_embeddings: Any, doc_embeddings: Any, offset: int = 0
) -> Any:
    """``ColbertPairwiseCELoss.forward`` under :func:`patch_colpali_engine`."""
    return _loss("ColbertPairwiseCELoss", self, query_embeddings, doc_embeddings, offset=offset)


def patched_colbert_sigmoid_forward(
    self: Any, query_embeddings: Any, doc_embeddings: Any, offset: int = 0
) -> Any:
    """``ColbertSigmoidLoss.forward`` under :func:`patch_colpali_engine`."""
    return _loss("ColbertSigmoidLoss", self, query_embeddings, doc_embeddings, offset=offset)


def patched_colbert_negative_ce_forward(
    self: Any, query_embeddings: Any, doc_embeddings: Any, neg_doc_embeddings: Any, offset: int = 0
) -> Any:
    """``ColbertNegativeCELoss.forward`` under :func:`patch_colpali_engine`: negatives ``[B, K,
    Ld, d]``.
    """
    return _loss(
        "ColbertNegativeCELoss", self, query_embeddings, doc_embeddings, neg_doc_embeddings, offset=offset
    )


def patched_colbert_pairwise_negative_ce_forward(
    self: Any, query_embeddings: Any, doc_embeddings: Any, neg_doc_embeddings: Any, offset: int = 0
) -> Any:
    """``ColbertPairwiseNegativeCELoss.forward`` under :func:`patch_colpali_engine`."""
    embeddings = query_embeddings, doc_embeddings, neg_doc_embeddings
    return _loss("ColbertPairwiseNegativeCELoss", self, *embeddings, offset=offset)


def patch_colpali_engine() -> None:
    """Let colpali-engine score with these kernels, on the CPU too. Safe to call twice.

    From 0.3.17 on this opens its own dispatch for CPU tensors and changes nothing else. Before,
    it reaches ``BaseVisualRetrieverProcessor.score_multi_vector`` and the ``forward`` of the
    Colbert losses of that version. ``LIK_DISABLE=1`` switches the effect off call by call.

    Raises:
        ImportError: colpali-engine is not installed, or nothing in it could be reached.

    Example:
        >>> from late_interaction_kernels import patch_colpali_engine
        >>> patch_colpali_engine()  # doctest: +SKIP
    """
    with _lock:
        if not _ORIGINAL:
            _patch()


def _patch() -> None:
    importlib.import_module("colpali_engine")
    backend = _hosts.module("colpali_engine.utils._lik_backend")
    if backend is not None:
        _SAVED["_lik_device"] = backend._lik_device
        _replace(backend, "_lik_device", lambda function: _gate_lik_device)
        _replace(backend, "maxsim_inbatch_lik", _gate_ranks)
        return
    missing = []
    owner = getattr(_hosts.module(_PROCESSING), "BaseVisualRetrieverProcessor", None)
    if owner is None or not _replace(owner, "score_multi_vector", _see_our_torch):
        missing.append("BaseVisualRetrieverProcessor.score_multi_vector")
    losses = _hosts.module(_LOSS)
    for name in _LOSSES:
        loss = getattr(losses, name, None)
        if loss is None:
            if name != "ColbertSigmoidLoss":  # it came with 0.3.13
                missing.append(name)
        elif not _replace(loss, "forward", _see_our_torch):
            missing.append(f"{name}.forward")
    if not _ORIGINAL:
        raise ImportError("colpali_engine has nothing that could be patched: " + ", ".join(missing))
    if missing:
        warnings.warn(
            f"late-interaction-kernels: colpali_engine has no {', '.join(missing)}: it was refactored, and "
            "they are not patched",
            RuntimeWarning,
            stacklevel=3,
        )


def unpatch_colpali_engine() -> None:
    """Undo :func:`patch_colpali_engine` exactly. Nothing happens if it is not in effect."""
    with _lock:
        for (owner, name), held in _ORIGINAL.items():
            setattr(owner, name, held)
        _ORIGINAL.clear()
