"""The definitions, in plain torch: slow, readable, differentiable wherever values are floating
point, to any order.

float16 and bfloat16 are computed in float32, float64 stays. Tests compare everything else with
these.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import linear
from torch.nn.functional import normalize as unit

from ._engine import torch_arrays
from ._engine.checks import check_range, sequence_lengths

NEG_INF = float("-inf")


def _wide(x: Any) -> Any:
    return x if x.dtype == torch.float64 else x.float()


def maxsim_reference(
    Q: Any, D: Any, q_mask: Any = None, d_mask: Any = None, *, normalize: bool = False, q_weights: Any = None
) -> Any:
    """Scores of ``[Nq, Lq, d]`` x ``[Nd, Ld, d]`` -> ``[Nq, Nd]``; x ``[Nq, K, Ld, d]`` ->
    ``[Nq, K]``; 2-D drops its axis.

    Masks are bool or 0/1 of the tokens' shape; a 1-D mask is broadcast.

    Example:
        >>> import torch
        >>> from late_interaction_kernels.reference import maxsim_reference
        >>> maxsim_reference(torch.eye(2)[None], torch.eye(3, 2)[None])
        tensor([[2.]])
    """
    q, d = _wide(Q), _wide(D)
    q, d = q.to(torch.promote_types(q.dtype, d.dtype)), d.to(torch.promote_types(q.dtype, d.dtype))
    if normalize:
        q, d = unit(q, dim=-1, eps=1e-12), unit(d, dim=-1, eps=1e-12)
    one_query, one_document = q.dim() == 2, d.dim() == 2
    q = q[None] if one_query else q
    d = d[None] if one_document else d
    similarity = torch.einsum("qsd,qktd->qkst", q, d) if d.dim() == 4 else torch.einsum("qsd,ktd->qkst", q, d)
    kept = torch.ones(d.shape[:-1], dtype=torch.bool, device=d.device)
    if d_mask is not None:
        kept = kept & (d_mask != 0)
    kept = kept[:, :, None, :] if d.dim() == 4 else kept[None, :, None, :]
    scores = _best(similarity, kept)
    factor = torch.ones(q.shape[:-1], dtype=scores.dtype, device=q.device)
    if q_weights is not None:
        factor = factor * q_weights.to(scores.dtype)
    if q_mask is not None:
        factor = torch.where((q_mask != 0).expand_as(factor), factor, 0)
    scores = (scores * factor[:, None]).sum(-1)
    scores = scores[0] if one_query else scores
    return scores[..., 0] if one_document else scores


def _best(similarity: Any, kept: Any) -> Any:
    """Maximum over the last axis of what is kept; 0 where nothing is."""
    if similarity.shape[-1] == 0:
        return similarity.new_zeros(similarity.shape[:-1])
    best = similarity.masked_fill(~kept, NEG_INF).max(dim=-1).values
    return torch.where(kept.any(-1).expand_as(best), best, 0)


def _sequences(packed: Any, offsets: Any) -> list[Any]:
    ends = offsets.tolist()
    for i, (a, b) in enumerate(pairwise([0, *ends, packed.shape[0]])):
        if b < a:
            at = min(i, len(ends) - 1)
            raise ValueError(
                f"offsets must ascend within the {packed.shape[0]} tokens: entry {at} is {ends[at]}"
            )
    return [packed[a:b] for a, b in pairwise(ends)]


def maxsim_reference_varlen(
    Q: Any, D: Any, cu_seqlens_q: Any, cu_seqlens_d: Any, *, normalize: bool = False, q_weights: Any = None
) -> Any:
    """Packed tokens Q ``[total_q, d]`` and D ``[total_d, d]``, every query against every
    document: ``[Nq, Nd]``.

    Offsets are integers ``[N + 1]``, weights ``[total_q]``.

    Example:
        >>> import torch
        >>> from late_interaction_kernels.reference import maxsim_reference_varlen
        >>> offsets_q, offsets_d = torch.tensor([0, 3]), torch.tensor([0, 1, 3])
        >>> maxsim_reference_varlen(torch.eye(3), torch.eye(3), offsets_q, offsets_d)
        tensor([[1., 2.]])
    """
    rows, columns = cu_seqlens_q.shape[0] - 1, cu_seqlens_d.shape[0] - 1
    i = torch.arange(rows).repeat_interleave(columns)
    j = torch.arange(columns).repeat(rows)
    scores = maxsim_reference_scatter(
        Q, D, cu_seqlens_q, cu_seqlens_d, i, j, normalize=normalize, q_weights=q_weights
    )
    return scores.reshape(rows, columns)


def maxsim_reference_scatter(
    Q_packed: Any,
    D_packed: Any,
    cu_seqlens_q: Any,
    cu_seqlens_d: Any,
    pair_q_idx: Any,
    pair_d_idx: Any,
    *,
    normalize: bool = False,
    q_weights: Any = None,
) -> Any:
    """Packed tokens, query ``pair_q_idx[n]`` against document ``pair_d_idx[n]``, one pair at a
    time: ``[pairs]``.

    What ``score_pairs.score_pairs_packed`` computes. Pair indices are 1-D integers of equal
    length, pairs may repeat; the rest is as in :func:`maxsim_reference_varlen`.

    Raises:
        ValueError: lists of unequal length.
        IndexError: a query or document that is not there.

    Example:
        >>> import torch
        >>> from late_interaction_kernels.reference import maxsim_reference_scatter
        >>> tokens, offsets = torch.eye(3), torch.tensor([0, 1, 3])
        >>> pairs = torch.tensor([1, 0]), torch.tensor([1, 1])
        >>> maxsim_reference_scatter(tokens, tokens, offsets, offsets, *pairs)
        tensor([2., 0.])
    """
    queries, documents = _sequences(Q_packed, cu_seqlens_q), _sequences(D_packed, cu_seqlens_d)
    weights = [None] * len(queries) if q_weights is None else _sequences(q_weights, cu_seqlens_q)
    scores: list[Any] = []
    for i, j in zip(pair_q_idx.tolist(), pair_d_idx.tolist(), strict=True):
        if not (0 <= i < len(queries) and 0 <= j < len(documents)):
            raise IndexError(
                f"pair {len(scores)} is query {i} of {len(queries)} and document {j} of {len(documents)}"
            )
        scores.append(maxsim_reference(queries[i], documents[j], normalize=normalize, q_weights=weights[i]))
    return torch.stack(scores) if scores else _wide(Q_packed).new_zeros(0)


def maxsim_padded_reference(
    queries: Any, documents: Any, query_lengths: Any, doc_lengths: Any, *, q_weights: Any = None
) -> Any:
    """``[B, Lq, d]`` x ``[B, C, Ld, d]`` with lengths -> ``[B, C]``.

    Example:
        >>> import torch
        >>> from late_interaction_kernels.reference import maxsim_padded_reference
        >>> Q, D = torch.ones(1, 3, 4), torch.ones(1, 2, 5, 4)
        >>> maxsim_padded_reference(Q, D, torch.tensor([2]), torch.tensor([[5, 0]]))
        tensor([[8., 0.]])
    """
    masks, broken = [], []
    for name, lengths, x in (
        ("query_lengths", query_lengths, queries),
        ("doc_lengths", doc_lengths, documents),
    ):
        shape, extent = tuple(x.shape[:-2]), x.shape[-2]
        _, mask, wrong = sequence_lengths(torch_arrays, name, lengths, shape, extent, queries, "queries")
        masks.append(mask)
        broken.append(wrong)
    scores = maxsim_reference(queries, documents, *masks, q_weights=q_weights)
    scores = torch_arrays.nan_where(None if broken[0] is None else broken[0][:, None], scores)
    return torch_arrays.nan_where(broken[1], scores)


def _indices(codes: Any, kept: Any, centroids: int) -> tuple[Any, Any]:
    """(codes as indices, which of the kept ones are outside and have become 0): refused where
    they may be looked at.
    """
    if torch_arrays.readable(codes) and torch_arrays.readable(kept):
        check_range(torch_arrays, "codes", codes, 0, centroids - 1, kept, codes[kept])
    inside = kept & (codes >= 0) & (codes < centroids)
    return torch.where(inside, codes, 0).long(), kept & ~inside


def plaid_approx_score_reference(
    query_centroid_scores: Any, codes: Any, doc_lengths: Any, *, q_weights: Any = None
) -> Any:
    """``[C, Lq]`` scores, codes ``[B, Ld]``, lengths ``[B]`` -> ``[B]``.

    Example:
        >>> import torch
        >>> from late_interaction_kernels.reference import plaid_approx_score_reference
        >>> scores = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> plaid_approx_score_reference(scores, torch.tensor([[0, 1]]), torch.tensor([2]))
        tensor([3.])
    """
    about = (codes.shape[0],), codes.shape[1], codes, "codes"
    _, kept, broken = sequence_lengths(torch_arrays, "doc_lengths", doc_lengths, *about)
    similarity = _wide(query_centroid_scores)[_indices(codes, kept, query_centroid_scores.shape[0])[0]].mT
    best = _best(similarity, kept[:, None, :])
    return torch_arrays.nan_where(broken, (best if q_weights is None else best * q_weights).sum(-1))


def unpack_residuals_reference(residuals: Any, nbits: int, d: int, *, bit_order: str = "low-first") -> Any:
    """Bucket numbers int32 ``[..., d]`` of packed bytes ``[..., ceil(d * nbits / 8)]``.

    ``"low-first"``: feature f is bits f * nbits upward, least significant first. ``"colbert"``:
    the bytes of ColBERT and fast-plaid indexes: each number's bits least significant first,
    packed into bytes from the top.

    Example:
        >>> import torch
        >>> from late_interaction_kernels.reference import unpack_residuals_reference
        >>> byte = torch.tensor([0b11100100], dtype=torch.uint8)
        >>> unpack_residuals_reference(byte, 2, 4)
        tensor([0, 1, 2, 3], dtype=torch.int32)
        >>> unpack_residuals_reference(byte, 2, 4, bit_order="colbert")
        tensor([3, 1, 2, 0], dtype=torch.int32)
    """
    bits = (residuals[..., None].int() >> torch.arange(8, device=residuals.device)) & 1
    if bit_order == "colbert":
        bits = bits.flip(-1)
    bits = bits.flatten(-2)[..., : d * nbits].unflatten(-1, (d, nbits))
    return (bits << torch.arange(nbits, device=residuals.device)).sum(-1).int()


def maxsim_residual_reference(
    Q: Any,
    codes: Any,
    residuals: Any,
    doc_lengths: Any,
    centroids: Any,
    bucket_weights: Any,
    nbits: int,
    *,
    normalize: bool = True,
    bit_order: str = "low-first",
    q_weights: Any = None,
) -> Any:
    """Decode everything, then score: codes ``[Nd, Ld]``, residuals ``[Nd, Ld, bytes]`` ->
    ``[Nq, Nd]`` or ``[Nd]``.

    Example:
        >>> import torch
        >>> from late_interaction_kernels.reference import maxsim_residual_reference
        >>> codes, residuals = torch.tensor([[0, 1]]), torch.zeros(1, 2, 1, dtype=torch.uint8)
        >>> x = torch.eye(2, 4)
        >>> codec = x, torch.zeros(4), 2
        >>> maxsim_residual_reference(x, codes, residuals, torch.tensor([2]), *codec)
        tensor([2.])
    """
    buckets = unpack_residuals_reference(residuals, nbits, centroids.shape[1], bit_order=bit_order)
    about = (codes.shape[0],), codes.shape[1], codes, "codes"
    _, kept, broken = sequence_lengths(torch_arrays, "doc_lengths", doc_lengths, *about)
    indices, outside = _indices(codes, kept, centroids.shape[0])
    tokens = _wide(centroids)[indices] + _wide(bucket_weights)[buckets.long()]
    tokens = tokens.masked_fill(outside[..., None], torch.nan)
    scores = maxsim_reference(Q, tokens, None, kept, normalize=normalize, q_weights=q_weights)
    return torch_arrays.nan_where(broken, scores)


def maxsim_from_hidden_reference(
    Q: Any,
    H_d: Any,
    W: Any,
    b: Any = None,
    d_mask: Any = None,
    *,
    normalize: bool = True,
    q_weights: Any = None,
) -> Any:
    """Project the hidden states, normalize the result, score: ``[Nq, Nd]`` or ``[Nd]``.

    Example:
        >>> import torch
        >>> from late_interaction_kernels.reference import maxsim_from_hidden_reference
        >>> maxsim_from_hidden_reference(torch.eye(2), torch.eye(2, 4)[None], torch.eye(2, 4))
        tensor([2.])
    """
    tokens = linear(_wide(H_d), _wide(W), None if b is None else _wide(b))
    if normalize:
        tokens = unit(tokens, dim=-1, eps=1e-12)
    return maxsim_reference(Q, tokens, None, d_mask, q_weights=q_weights)


__all__ = [
    "NEG_INF",
    "maxsim_from_hidden_reference",
    "maxsim_padded_reference",
    "maxsim_reference",
    "maxsim_reference_scatter",
    "maxsim_reference_varlen",
    "maxsim_residual_reference",
    "plaid_approx_score_reference",
    "unpack_residuals_reference",
]
