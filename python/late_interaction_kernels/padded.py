"""Padded batches with lengths: scored as they are, or packed for :func:`score_pairs_packed`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from ._problem import (
    CANDIDATES,
    BoundError,
    Framework,
    Problem,
    check_device,
    check_float,
    check_rank,
    check_shape,
    embeddings,
    framework,
    shape_text,
    token_weights,
)
from .autograd import short_way


@dataclass(frozen=True)
class PackedBatch:
    """What ``pack_padded`` returns; iterates in the order of its fields."""

    Q_packed: Any
    cu_seqlens_q: Any
    D_packed: Any
    cu_seqlens_d: Any
    pair_q_idx: Any
    pair_d_idx: Any
    max_seqlen_q: int
    max_seqlen_d: int

    def __iter__(self) -> Iterator[Any]:
        return iter([getattr(self, f.name) for f in fields(self)])


def _lengths(
    fw: Framework, name: str, lengths: Any, shape: tuple[int, ...], extent: int, like: Any, validate: bool
) -> Any:
    check_shape(name, lengths, shape, "one length a sequence")
    if not fw.is_integer(lengths):
        raise TypeError(f"{name} has dtype {fw.dtype_name(lengths)}, must be an integer dtype")
    check_device(fw, name, lengths, like, "queries")
    if all(lengths.shape) and (validate or fw.on_host(lengths)):
        low, high = fw.extremes(lengths)
        if low < 0 or high > extent:
            raise BoundError(f"{name} holds {low if low < 0 else high}, must be 0 to {extent}")
        if validate and low == 0:
            raise ValueError(f"{name} holds 0, which validate=True refuses")
    return lengths


def _checked(
    queries: Any, documents: Any, query_lengths: Any, doc_lengths: Any, validate: bool
) -> tuple[Framework, Any, Any]:
    """The framework, and bool masks [B, Lq] and [B, C, Ld] of the tokens that count."""
    fw = framework(queries=queries, documents=documents, query_lengths=query_lengths, doc_lengths=doc_lengths)
    check_rank("queries", queries, (3,), "[B, Lq, d]")
    check_rank("documents", documents, (4,), "[B, C, Ld, d]")
    check_float(fw, "queries", queries)
    check_float(fw, "documents", documents)
    if queries.shape[0] != documents.shape[0] or queries.shape[-1] != documents.shape[-1]:
        raise ValueError(
            f"queries and documents must have the same batch and dim, got {shape_text(queries.shape)} and "
            f"{shape_text(documents.shape)}"
        )
    check_device(fw, "documents", documents, queries, "queries")
    batch, candidates, extent = documents.shape[0], documents.shape[1], documents.shape[2]
    length = queries.shape[1]
    query_lengths = _lengths(fw, "query_lengths", query_lengths, (batch,), length, queries, validate)
    doc_lengths = _lengths(fw, "doc_lengths", doc_lengths, (batch, candidates), extent, queries, validate)
    return fw, fw.arange(length, queries) < query_lengths[:, None], fw.arange(extent, queries) < doc_lengths[..., None]


def pack_padded(
    queries: Any, documents: Any, query_lengths: Any, doc_lengths: Any, *, validate: bool = False
) -> PackedBatch:
    """Drop the padding of a batch: queries ``[B, Lq, d]``, documents ``[B, C, Ld, d]``, lengths ``[B]`` and ``[B, C]``.

    Pairs are row by row: query i with its documents i*C ... i*C + C - 1. Differentiable. Offsets and pair indices are
    int32. ``validate=True`` also refuses empty sequences.

    Raises:
        ValueError: shapes, negative lengths, lengths beyond the padded extent.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.padded import pack_padded
        >>> Q, D = np.ones((1, 3, 4), "f4"), np.ones((1, 2, 5, 4), "f4")
        >>> batch = pack_padded(Q, D, np.array([2]), np.array([[5, 1]]))
        >>> batch.cu_seqlens_d.tolist(), batch.Q_packed.shape
        ([0, 5, 6], (2, 4))
    """
    fw, q_mask, d_mask = _checked(queries, documents, query_lengths, doc_lengths, validate)
    batch, candidates = d_mask.shape[0], d_mask.shape[1]
    pairs = fw.arange(batch * candidates, queries)
    cu_q = fw.cast(fw.offsets_of(query_lengths), "int32")
    cu_d = fw.cast(fw.offsets_of(doc_lengths.reshape(-1)), "int32")
    return PackedBatch(
        queries[q_mask],
        cu_q,
        documents[d_mask],
        cu_d,
        fw.cast(pairs // max(candidates, 1), "int32"),
        fw.cast(pairs, "int32"),
        fw.largest(query_lengths),
        fw.largest(doc_lengths),
    )


def maxsim_padded(
    queries: Any,
    documents: Any,
    query_lengths: Any,
    doc_lengths: Any,
    *,
    validate: bool = False,
    normalize: bool = False,
    q_weights: Any = None,
    return_argmax: bool = False,
) -> Any:
    """Score each query against its own C documents, lengths instead of masks: float32 ``[B, C]``.

    queries ``[B, Lq, d]``, documents ``[B, C, Ld, d]``, query_lengths ``[B]``, doc_lengths ``[B, C]``; empty sequences
    score 0. Differentiable. ``q_weights`` is ``[B, Lq]``; ``return_argmax`` adds the winners, int32 ``[B, C, Lq]``.

    Raises:
        ValueError: shapes, negative lengths, lengths beyond the padded extent; with ``validate`` also zero lengths.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels import maxsim_padded
        >>> Q, D = np.ones((1, 3, 4), "f4"), np.ones((1, 2, 5, 4), "f4")
        >>> maxsim_padded(Q, D, np.array([2]), np.array([[5, 0]])).tolist()
        [[8.0, 0.0]]
    """
    fw, q_mask, d_mask = _checked(queries, documents, query_lengths, doc_lengths, validate)
    if not return_argmax:
        scores = short_way(queries, documents, q_mask, d_mask, q_weights, False, normalize)
        if scores is not None:
            return scores
    weights = token_weights(fw, q_weights, tuple(queries.shape[:-1]), queries, "queries")
    q, d = embeddings(fw, "queries", queries), embeddings(fw, "documents", documents)
    if q.shape[-1] == 0:
        q, d = fw.widen_empty(q), fw.widen_empty(d)
    problem = Problem(q, d, q_mask, d_mask, weights, pairing=CANDIDATES, normalize=3 if normalize else 0)
    scores, argmax = fw.score(problem, return_argmax)
    return (scores, fw.cast(argmax, "int32")) if return_argmax else scores


__all__ = ["PackedBatch", "maxsim_padded", "pack_padded"]
