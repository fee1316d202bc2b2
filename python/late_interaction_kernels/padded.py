"""Padded batches with lengths: scored as they are, or packed for :func:`score_pairs_packed`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, overload

from ._engine.checks import (
    Framework,
    check_device,
    check_float,
    check_rank,
    embeddings,
    entry,
    framework,
    sequence_lengths,
    shape_text,
    token_weights,
    widened,
)
from ._engine.kinds import Array
from ._engine.problem import CANDIDATES, NORMALIZE, Problem, Tokens, either
from ._engine.short import padded as short_way
from ._engine.verbs import score


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


class _Batch(NamedTuple):
    """What ``sequence_lengths`` gives for [B] queries and [B, C] documents."""

    fw: Framework
    query_lengths: Any
    q_mask: Any
    broken_q: Any
    doc_lengths: Any
    d_mask: Any
    broken_d: Any


def _checked(
    queries: Any,
    documents: Any,
    query_lengths: Any,
    doc_lengths: Any,
    *,
    look: bool,
    validate: bool,
    q_weights: Any = None,
) -> _Batch:
    """``look``: at the lengths, whatever waiting that takes."""
    lengths = {"query_lengths": query_lengths, "doc_lengths": doc_lengths}
    fw = framework(queries=queries, documents=documents, **lengths, q_weights=q_weights)
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
    found: list[Any] = []
    for (name, given), x in zip(lengths.items(), (queries, documents), strict=True):
        found += sequence_lengths(
            fw, name, given, tuple(x.shape[:-2]), x.shape[-2], queries, "queries", look=look
        )
        if validate and all(given.shape) and fw.extremes(found[-3])[0] == 0:
            zero = entry(name, fw.first(found[-3] == 0))
            raise ValueError(f"{name} must all be > 0 with validate=True: {zero} is 0")
    return _Batch(fw, *found)


def pack_padded(
    queries: Any, documents: Any, query_lengths: Any, doc_lengths: Any, *, validate: bool = False
) -> PackedBatch:
    """Drop the padding of a batch: queries ``[B, Lq, d]``, documents ``[B, C, Ld, d]``, lengths
    ``[B]`` and ``[B, C]``.

    Pairs are row by row: query i with its documents i*C ... i*C + C - 1. Differentiable.
    Offsets and pair indices are int32. ``validate=True`` also refuses empty sequences. The
    lengths are looked at, on a device with a wait.

    Raises:
        ValueError: shapes, negative lengths, lengths beyond the padded extent, lengths without
        values (traced).

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.padded import pack_padded
        >>> Q, D = np.ones((1, 3, 4), "f4"), np.ones((1, 2, 5, 4), "f4")
        >>> batch = pack_padded(Q, D, np.array([2]), np.array([[5, 1]]))
        >>> batch.cu_seqlens_d.tolist(), batch.Q_packed.shape
        ([0, 5, 6], (2, 4))
    """
    fw, query_lengths, q_mask, _, doc_lengths, d_mask, _ = _checked(
        queries, documents, query_lengths, doc_lengths, look=True, validate=validate
    )
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


@overload
def maxsim_padded(
    queries: Array,
    documents: Array,
    query_lengths: Array,
    doc_lengths: Array,
    *,
    validate: bool = False,
    normalize: bool = False,
    q_weights: Array | None = None,
    return_argmax: Literal[False] = False,
) -> Array: ...


@overload
def maxsim_padded(
    queries: Array,
    documents: Array,
    query_lengths: Array,
    doc_lengths: Array,
    *,
    validate: bool = False,
    normalize: bool = False,
    q_weights: Array | None = None,
    return_argmax: Literal[True],
) -> tuple[Array, Array]: ...


@overload
def maxsim_padded(
    queries: Array,
    documents: Array,
    query_lengths: Array,
    doc_lengths: Array,
    *,
    validate: bool = False,
    normalize: bool = False,
    q_weights: Array | None = None,
    return_argmax: bool,
) -> Array | tuple[Array, Array]: ...


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
    """Score each query against its own C documents, lengths instead of masks: float32 ``[B,
    C]``.

    queries ``[B, Lq, d]``, documents ``[B, C, Ld, d]``, query_lengths ``[B]``, doc_lengths
    ``[B, C]``; empty sequences score 0. Differentiable. ``q_weights`` is ``[B, Lq]``;
    ``return_argmax`` adds the winners, int32 ``[B, C, Lq]``. Infinities as in :func:`maxsim`.

    Raises:
        ValueError: shapes, negative lengths, lengths beyond the padded extent; with
        ``validate`` also zero lengths. Lengths in device memory are not looked at, unless with
        ``validate`` or ``LIK_CHECK=1``: such scores are NaN.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels import maxsim_padded
        >>> Q, D = np.ones((1, 3, 4), "f4"), np.ones((1, 2, 5, 4), "f4")
        >>> maxsim_padded(Q, D, np.array([2]), np.array([[5, 0]])).tolist()
        [[8.0, 0.0]]
    """
    fw, _, q_mask, broken_q, _, d_mask, broken_d = _checked(
        queries, documents, query_lengths, doc_lengths, look=validate, validate=validate, q_weights=q_weights
    )
    broken = either(None if broken_q is None else broken_q[:, None], broken_d)
    if not return_argmax:
        scores = short_way(queries, documents, q_mask, d_mask, q_weights, False, normalize)
        if scores is not None:
            return fw.nan_where(broken, scores)
    weights = token_weights(fw, q_weights, tuple(queries.shape[:-1]), queries, "queries")
    q = Tokens(embeddings(fw, "queries", queries), q_mask, weights)
    d = Tokens(embeddings(fw, "documents", documents), d_mask)
    if queries.shape[-1] == 0:
        q, d = widened(fw, q, d)
    problem = Problem(q, d, pairing=CANDIDATES, normalize=NORMALIZE if normalize else 0)
    scores, argmax = score(problem, return_argmax)
    scores = fw.nan_where(broken, scores)
    return (scores, fw.cast(argmax, "int32")) if return_argmax else scores


__all__ = ["PackedBatch", "maxsim_padded", "pack_padded"]
