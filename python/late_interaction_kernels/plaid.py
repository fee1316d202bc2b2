"""Compressed tokens: a centroid number and a few bits of residual per dimension, as PLAID indexes store them.

Bit order. Two layouts of the residual bytes exist. ``bit_order="upstream"``, the default, is what the existing package
reads: feature f is bits f * nbits upward of its byte, least significant first. ``bit_order="colbert"`` is what the
files of ColBERT, fast-plaid and next-plaid hold: each number's bits least significant first, packed from the top of
the byte. Real indexes need "colbert"; read with the wrong order they score like noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import _blocks, _native
from ._problem import (
    NORMALIZE,
    Framework,
    Problem,
    check_device,
    check_rank,
    check_shape,
    embeddings,
    framework,
    longest,
    packed_offsets,
    shape_text,
    token_mask,
    token_weights,
)

_BIT_ORDERS = ("upstream", "colbert")


def _byte_table(bucket_weights: list[float], nbits: int, bit_order: str) -> list[list[float]]:
    """[256][8 / nbits]: what each byte adds to the features it holds."""
    ones = (1 << nbits) - 1
    rows = []
    for byte in range(256):
        row = []
        for j in range(8 // nbits):
            if bit_order == "upstream":
                bucket = byte >> (j * nbits) & ones
            else:
                group = byte >> (8 - (j + 1) * nbits) & ones
                bucket = int(f"{group:0{nbits}b}"[::-1], 2)
            row.append(bucket_weights[bucket])
        rows.append(row)
    return rows


class _Residuals:
    """Packed compressed documents as a source of vectors."""

    def __init__(
        self, fw: Framework, codes: Any, residuals: Any, offsets: Any, len_d: int, centroids: Any, table: Any
    ) -> None:
        self.fw, self.codes, self.residuals, self.offsets = fw, codes, residuals, offsets
        self.centroids, self.table = centroids, table
        self.count = int(offsets.shape[0]) - 1
        self.longest = len_d
        self.ends = [int(e) for e in offsets.tolist()]

    def spans(self) -> Iterator[tuple[int, int]]:
        budget = max(_blocks.BLOCK_FLOATS // max(int(self.centroids.shape[1]), 1), 1)
        start = 0
        for i in range(1, self.count + 1):
            if i == self.count or self.ends[i + 1] - self.ends[start] > budget:
                yield start, i
                start = i

    def fields(self, start: int, end: int) -> dict[str, Any]:
        a, b = self.ends[start], self.ends[end]
        tokens = self.fw.empty((b - a, int(self.centroids.shape[1])), "float32", self.codes)
        self.decode(a, b, tokens)
        return {"d": tokens, "d_offsets": self.offsets[start : end + 1] - a, "len_d": self.longest}

    def decode(self, a: int, b: int, out: Any) -> None:
        codes, residuals = self.codes[a:b], self.residuals[a:b]
        if self.fw.on_host(codes):
            _native.decode_residuals(codes, residuals, self.centroids, self.table, out)
            return
        import torch

        dim = int(self.centroids.shape[1])
        torch.add(self.centroids[codes.long()], self.table[residuals.long()].flatten(1)[:, :dim], out=out)

    def gradients(self, want: Any) -> list[Any]:
        return []

    def finished(self, sums: list[Any]) -> list[Any]:
        return []


def _checked_codec(
    fw: Framework, Q: Any, residuals: Any, centroids: Any, bucket_weights: Any, nbits: int, bit_order: str
) -> tuple[Any, Any, Any]:
    """(queries [Nq, Lq, d], f32 centroids, byte table)."""
    if nbits not in (2, 4, 8):
        raise ValueError(f"nbits must be 2, 4 or 8, got {nbits!r}")
    if bit_order not in _BIT_ORDERS:
        raise ValueError(f'bit_order must be "upstream" or "colbert", got {bit_order!r}')
    check_rank("Q", Q, (2, 3), "[Nq, Lq, d] or [Lq, d]")
    check_rank("centroids", centroids, (2,), "[C, d]")
    dim = int(Q.shape[-1])
    if centroids.shape[1] != dim:
        raise ValueError(
            f"Q and centroids must have the same dim: Q.shape[-1] is {dim}, centroids.shape[1] is "
            f"{int(centroids.shape[1])}"
        )
    check_shape("bucket_weights", bucket_weights, (1 << nbits,), "2 ** nbits")
    wide = (dim * nbits + 7) // 8
    if fw.dtype_name(residuals) != "uint8":
        raise TypeError(f"residuals has dtype {fw.dtype_name(residuals)}, must be uint8")
    if residuals.shape[-1] != wide:
        raise ValueError(
            f"residuals must have {wide} bytes a token (d = {dim}, nbits = {nbits}), "
            f"got shape {shape_text(residuals.shape)}"
        )
    for name, x in (("centroids", centroids), ("bucket_weights", bucket_weights), ("residuals", residuals)):
        check_device(fw, name, x, Q, "Q")
    q = embeddings(fw, "Q", Q)
    weights = [float(w) for w in fw.cast(bucket_weights, "float32").tolist()]
    table = fw.from_rows(_byte_table(weights, nbits, bit_order), Q)
    centroids = centroids.detach() if hasattr(centroids, "detach") else centroids
    return q if len(q.shape) == 3 else q[None], fw.contiguous(fw.cast(centroids, "float32")), table


def _check_codes(fw: Framework, codes: Any, centroids: int, like: Any) -> Any:
    if not fw.is_integer(codes):
        raise TypeError(f"codes has dtype {fw.dtype_name(codes)}, must be an integer dtype")
    check_device(fw, "codes", codes, like, "Q")
    if fw.on_host(codes) and all(codes.shape):
        low, high = fw.extremes(codes)
        if low < 0 or high >= centroids:
            raise ValueError(f"codes holds {low if low < 0 else high}, must be 0 to {centroids - 1}")
    return codes if fw.dtype_name(codes) in ("int32", "int64") else fw.cast(codes, "int64")


def _score(
    fw: Framework,
    Q: Any,
    q: Any,
    source: _Residuals,
    normalize: bool,
    q_mask: Any,
    q_weights: Any,
    return_argmax: bool,
) -> Any:
    q_mask = token_mask(fw, "q_mask", q_mask, tuple(Q.shape[:-1]), Q, "Q")
    weights = token_weights(fw, q_weights, tuple(Q.shape[:-1]), Q, "Q")
    if len(Q.shape) == 2:
        q_mask, weights = (None if x is None else x[None] for x in (q_mask, weights))
    base = Problem(q, None, q_mask, None, weights, normalize=NORMALIZE if normalize else 0)
    argmax = None
    if fw.wants_grad(q, weights) and not return_argmax:
        from . import _blocks_torch

        scores = _blocks_torch.score(base, source, ())
    else:
        scores, winners = _blocks.score(fw, detached(base), source, return_argmax)
        argmax = _blocks.join_argmax(fw, base, source, winners) if return_argmax else None
        if return_argmax and fw.wants_grad(q, weights):
            from . import _blocks_torch

            scores = _blocks_torch.score(base, source, ())
    if len(Q.shape) == 2:
        scores, argmax = scores[0], None if argmax is None else argmax[0]
    return (scores, argmax) if return_argmax else scores


def detached(problem: Problem) -> Problem:
    return Problem._make(x.detach() if hasattr(x, "detach") else x for x in problem)


def maxsim_residual_reference(*args: Any, **kwargs: Any) -> Any:
    """:func:`late_interaction_kernels.reference.maxsim_residual_reference`, which needs torch."""
    from . import reference

    return reference.maxsim_residual_reference(*args, **kwargs)


def plaid_approx_score_reference(*args: Any, **kwargs: Any) -> Any:
    """:func:`late_interaction_kernels.reference.plaid_approx_score_reference`, which needs torch."""
    from . import reference

    return reference.plaid_approx_score_reference(*args, **kwargs)


def maxsim_residual(
    Q: Any,
    codes: Any,
    residuals: Any,
    doc_lengths: Any,
    centroids: Any,
    bucket_weights: Any,
    nbits: int,
    *,
    normalize: bool = True,
    bit_order: str = "upstream",
    q_mask: Any = None,
    q_weights: Any = None,
    return_argmax: bool = False,
) -> Any:
    """Score queries against compressed documents, padded.

    Args:
        Q: ``[Nq, Lq, d]``, or ``[Lq, d]`` for a result ``[Nd]``.
        codes: integer centroid numbers ``[Nd, max_Ld]``.
        residuals: uint8 ``[Nd, max_Ld, ceil(d * nbits / 8)]``.
        doc_lengths: integers ``[Nd]``, 0 to max_Ld.
        centroids: float ``[C, d]``.
        bucket_weights: float ``[2 ** nbits]``; a token is centroids[code] + bucket_weights[bucket] in each dimension.
        nbits: 2, 4 or 8.
        normalize: normalize query tokens and decoded tokens (norm clamped at 1e-12).
        bit_order: "upstream" or "colbert", see the module.
        q_mask, q_weights, return_argmax: as in :func:`maxsim`.

    Returns:
        float32 ``[Nq, Nd]``; empty documents score 0. Gradients flow to Q and q_weights.

    Raises:
        ValueError: shapes, nbits, lengths beyond max_Ld, codes outside the centroids.
        TypeError: dtypes.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.plaid import maxsim_residual
        >>> maxsim_residual(np.eye(2, 4, dtype="f4"), np.array([[0, 1]]), np.zeros((1, 2, 1), "u1"), np.array([2]),
        ...                 np.eye(2, 4, dtype="f4"), np.zeros(4, "f4"), 2).tolist()
        [2.0]
    """
    fw = framework(
        Q=Q,
        codes=codes,
        residuals=residuals,
        doc_lengths=doc_lengths,
        centroids=centroids,
        bucket_weights=bucket_weights,
    )
    check_rank("codes", codes, (2,), "[Nd, max_Ld]")
    check_rank("residuals", residuals, (3,), "[Nd, max_Ld, bytes]")
    check_shape("residuals", residuals, (*codes.shape, residuals.shape[2]), "the shape of codes and the bytes")
    q, table_centroids, table = _checked_codec(fw, Q, residuals, centroids, bucket_weights, nbits, bit_order)
    kept = _length_mask(fw, codes, doc_lengths, Q)
    codes = _check_codes(fw, codes, int(centroids.shape[0]), Q)
    offsets = fw.cast(fw.offsets_of(doc_lengths), "int64")
    source = _Residuals(
        fw,
        fw.contiguous(codes[kept]),
        fw.contiguous(residuals[kept]),
        offsets,
        fw.largest(doc_lengths),
        table_centroids,
        table,
    )
    return _score(fw, Q, q, source, normalize, q_mask, q_weights, return_argmax)


def _length_mask(fw: Framework, codes: Any, doc_lengths: Any, like: Any) -> Any:
    """bool [Nd, max_Ld]: real tokens."""
    check_shape("doc_lengths", doc_lengths, (codes.shape[0],), "one length a document")
    if not fw.is_integer(doc_lengths):
        raise TypeError(f"doc_lengths has dtype {fw.dtype_name(doc_lengths)}, must be an integer dtype")
    check_device(fw, "doc_lengths", doc_lengths, like, "codes")
    if doc_lengths.shape[0]:
        low, high = fw.extremes(doc_lengths)
        if low < 0 or high > codes.shape[1]:
            raise ValueError(f"doc_lengths holds {low if low < 0 else high}, must be 0 to {int(codes.shape[1])}")
    return fw.arange(codes.shape[1], codes) < doc_lengths[:, None]


def maxsim_residual_varlen(
    Q: Any,
    codes_flat: Any,
    residuals_flat: Any,
    cu_seqlens_d: Any,
    centroids: Any,
    bucket_weights: Any,
    nbits: int,
    *,
    max_seqlen_d: int | None = None,
    normalize: bool = True,
    bit_order: str = "upstream",
    q_mask: Any = None,
    q_weights: Any = None,
    return_argmax: bool = False,
) -> Any:
    """:func:`maxsim_residual` of packed documents: codes ``[T]``, residuals ``[T, bytes]``, offsets ``[Nd + 1]``.

    ``max_seqlen_d`` is an upper bound of the lengths, found if None. Returns ``[Nq, Nd]``, ``[Nd]`` for a 2-D Q.
    Gradients flow to Q and q_weights.

    Raises:
        ValueError: shapes, offsets, nbits, a bound that is too small, codes outside the centroids.
        TypeError: dtypes.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.plaid import maxsim_residual_varlen
        >>> maxsim_residual_varlen(np.eye(2, 4, dtype="f4"), np.array([0, 1]), np.zeros((2, 1), "u1"), np.array([0, 2]),
        ...                        np.eye(2, 4, dtype="f4"), np.zeros(4, "f4"), 2, bit_order="colbert").tolist()
        [2.0]
    """
    fw = framework(
        Q=Q,
        codes_flat=codes_flat,
        residuals_flat=residuals_flat,
        cu_seqlens_d=cu_seqlens_d,
        centroids=centroids,
        bucket_weights=bucket_weights,
    )
    check_rank("codes_flat", codes_flat, (1,), "[T]")
    check_rank("residuals_flat", residuals_flat, (2,), "[T, bytes]")
    total = codes_flat.shape[0]
    if residuals_flat.shape[0] != total:
        raise ValueError(f"residuals_flat has {int(residuals_flat.shape[0])} tokens, codes_flat has {int(total)}")
    q, table_centroids, table = _checked_codec(fw, Q, residuals_flat, centroids, bucket_weights, nbits, bit_order)
    codes = _check_codes(fw, codes_flat, int(centroids.shape[0]), Q)
    offsets = packed_offsets(fw, "cu_seqlens_d", cu_seqlens_d, total, "codes_flat", Q)
    len_d = longest(fw, "cu_seqlens_d", offsets, "max_seqlen_d", max_seqlen_d)
    source = _Residuals(fw, fw.contiguous(codes), fw.contiguous(residuals_flat), offsets, len_d, table_centroids, table)
    return _score(fw, Q, q, source, normalize, q_mask, q_weights, return_argmax)


def plaid_approx_score(
    query_centroid_scores: Any, codes: Any, doc_lengths: Any, *, q_mask: Any = None, q_weights: Any = None
) -> Any:
    """PLAID's approximate stage: a token counts as its centroid.

    Args:
        query_centroid_scores: float ``[C, Lq]``, the products of centroids and query tokens, or ``[Nq, C, Lq]``.
        codes: integers ``[B, max_Ld]``, 0 to C - 1 in the real tokens.
        doc_lengths: integers ``[B]``, 0 to max_Ld.
        q_mask: bool ``[Lq]`` or ``[Nq, Lq]``: query tokens that count.
        q_weights: float of that shape.

    Returns:
        float32 ``[B]`` or ``[Nq, B]``: the sum over query tokens of the best score among the document's codes; empty
        documents score 0.

    Raises:
        ValueError: shapes, lengths beyond max_Ld, codes outside the centroids.
        TypeError: dtypes.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.plaid import plaid_approx_score
        >>> plaid_approx_score(np.array([[1.0, 0.0], [0.0, 2.0]], "f4"), np.array([[0, 1]]), np.array([2])).tolist()
        [3.0]
    """
    fw = framework(query_centroid_scores=query_centroid_scores, codes=codes, doc_lengths=doc_lengths)
    check_rank("query_centroid_scores", query_centroid_scores, (2, 3), "[C, Lq] or [Nq, C, Lq]")
    check_rank("codes", codes, (2,), "[B, max_Ld]")
    scores = fw.cast(embeddings(fw, "query_centroid_scores", query_centroid_scores), "float32")
    scores = scores.detach() if hasattr(scores, "detach") else scores
    check_device(fw, "codes", codes, scores, "query_centroid_scores")
    per_token = (*scores.shape[:-2], scores.shape[-1])
    q_mask = token_mask(fw, "q_mask", q_mask, per_token, scores, "query_centroid_scores without its centroids")
    weights = token_weights(fw, q_weights, per_token, scores, "query_centroid_scores without its centroids")
    kept = _length_mask(fw, codes, doc_lengths, codes)
    if not fw.is_integer(codes):
        raise TypeError(f"codes has dtype {fw.dtype_name(codes)}, must be an integer dtype")
    real = codes[kept]
    if fw.on_host(codes):
        _check_codes(fw, real, int(scores.shape[-2]), codes)
    batch = scores if len(scores.shape) == 3 else scores[None]
    weights = weights if weights is None or len(weights.shape) == 2 else weights[None]
    q_mask = q_mask if q_mask is None or len(q_mask.shape) == 2 else q_mask[None]
    out = fw.empty((batch.shape[0], codes.shape[0]), "float32", scores)
    step = max(_blocks.BLOCK_FLOATS // max(int(codes.shape[1]) * int(batch.shape[2]), 1), 1)
    for i in range(batch.shape[0]):
        for a in range(0, codes.shape[0], step):
            best = fw.best_of_codes(batch[i], codes[a : a + step], kept[a : a + step])
            if weights is not None:
                best = best * weights[i]
            if q_mask is not None:
                best = fw.where(q_mask[i], best, 0.0)
            out[i, a : a + step] = best.sum(-1)
    return out if len(scores.shape) == 3 else out[0]


__all__ = [
    "maxsim_residual",
    "maxsim_residual_reference",
    "maxsim_residual_varlen",
    "plaid_approx_score",
    "plaid_approx_score_reference",
]
