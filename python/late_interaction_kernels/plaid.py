"""Compressed tokens: a centroid number and a few bits of residual per dimension, as PLAID
indexes store them.

Bit order. Two layouts of the residual bytes exist. ``bit_order="upstream"``, the default, is
what the existing package reads: feature f is bits f * nbits upward of its byte, least
significant first. ``bit_order="colbert"`` is what the files of ColBERT, fast-plaid and
next-plaid hold: each number's bits least significant first, packed from the top of the byte.
Real indexes need "colbert"; read with the wrong order they score like noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ._engine import blocks, native
from ._engine.checks import (
    Framework,
    check_device,
    check_float,
    check_range,
    check_rank,
    check_shape,
    embeddings,
    framework,
    longest,
    packed_offsets,
    sequence_lengths,
    shape_text,
    token_mask,
    token_weights,
    whole,
    whole_number,
)
from ._engine.problem import NORMALIZE, Problem, Tokens, batched, detached, either
from ._engine.verbs import score

if TYPE_CHECKING:
    from .reference import maxsim_residual_reference as maxsim_residual_reference
    from .reference import plaid_approx_score_reference as plaid_approx_score_reference

_BIT_ORDERS = ("upstream", "colbert")


def _byte_buckets(nbits: int, bit_order: str) -> list[list[int]]:
    """[256][8 / nbits]: the bucket numbers that each byte holds."""
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
            row.append(bucket)
        rows.append(row)
    return rows


_BUCKETS = {(nbits, order): _byte_buckets(nbits, order) for nbits in (2, 4, 8) for order in _BIT_ORDERS}


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
        budget = max(blocks.BLOCK_FLOATS // max(int(self.centroids.shape[1]), 1), 1)
        start = 0
        for i in range(1, self.count + 1):
            if i == self.count or self.ends[i + 1] - self.ends[start] > budget:
                yield start, i
                start = i

    def tokens(self, start: int, end: int) -> Tokens:
        a, b = self.ends[start], self.ends[end]
        tokens = self.decode(self.codes[a:b], self.residuals[a:b])
        return Tokens(tokens, offsets=self.offsets[start : end + 1] - a, longest=self.longest)

    def decode(self, codes: Any, residuals: Any) -> Any:
        if not self.fw.on_host(codes):
            return self.fw.decode_residuals(codes, residuals, self.centroids, self.table)
        return native.decode_residuals(self.fw, codes, residuals, self.centroids, self.table)

    def gradients(self, want: Any) -> list[Any]:
        return []

    def finished(self, sums: list[Any]) -> list[Any]:
        return []


class _Layout(NamedTuple):
    """Where the documents' tokens are: a mask [Nd, max_Ld] with the lengths of the documents,
    or offsets with the length of the longest one. ``broken``, bool [Nd] or None: the documents
    of which that could not be believed.
    """

    kept: Any = None
    lengths: Any = None
    offsets: Any = None
    longest: int = 0
    broken: Any = None
    ordered: bool = True  # the offsets have been looked at


def _checked_codec(
    fw: Framework,
    Q: Any,
    name: str,
    residuals: Any,
    centroids: Any,
    bucket_weights: Any,
    nbits: int,
    bit_order: str,
) -> tuple[Any, Any, Any]:
    """(queries, f32 centroids, byte table [256, 8 / nbits]: what each byte adds to its
    features).
    """
    nbits = whole_number("nbits", nbits)
    if nbits not in (2, 4, 8):
        raise ValueError(f"nbits must be 2, 4 or 8, got {nbits!r}")
    if bit_order not in _BIT_ORDERS:
        raise ValueError(f'bit_order must be "upstream" or "colbert", got {bit_order!r}')
    check_rank("Q", Q, (2, 3), "[Nq, Lq, d] or [Lq, d]")
    check_rank("centroids", centroids, (2,), "[C, d]")
    dim = Q.shape[-1]
    if centroids.shape[1] != dim:
        raise ValueError(
            f"Q and centroids must have the same dim: Q.shape[-1] is {int(dim)}, centroids.shape[1] is "
            f"{int(centroids.shape[1])}"
        )
    check_shape("bucket_weights", bucket_weights, (1 << nbits,), "one weight a bucket, of 2 ** nbits")
    wide = (dim * nbits + 7) // 8
    if fw.dtype_name(residuals) != "uint8":
        raise TypeError(f"{name} has dtype {fw.dtype_name(residuals)}, must be uint8")
    if residuals.shape[-1] != wide:
        raise ValueError(
            f"{name} must have {wide} bytes a token (d = {int(dim)}, nbits = {nbits}), "
            f"got shape {shape_text(residuals.shape)}"
        )
    for table_name, x in (("centroids", centroids), ("bucket_weights", bucket_weights)):
        check_float(fw, table_name, x)
        check_device(fw, table_name, x, Q, "Q")
    check_device(fw, name, residuals, Q, "Q")
    q = embeddings(fw, "Q", Q)
    centroids, bucket_weights = (fw.cast(detached(x), "float32") for x in (centroids, bucket_weights))
    table = fw.contiguous(bucket_weights[fw.from_rows(_BUCKETS[nbits, bit_order], Q)])
    return q, fw.contiguous(centroids), table


def _code_numbers(fw: Framework, name: str, codes: Any, like: Any, like_name: str) -> Any:
    if not fw.is_integer(codes):
        raise TypeError(f"{name} has dtype {fw.dtype_name(codes)}, must be an integer dtype")
    check_device(fw, name, codes, like, like_name)
    return whole(fw, codes)


def _score(
    fw: Framework,
    Q: Any,
    names: tuple[str, str],
    codes: Any,
    residuals: Any,
    layout: Callable[[], _Layout],
    centroids: Any,
    bucket_weights: Any,
    nbits: int,
    bit_order: str,
    normalize: bool,
    q_mask: Any,
    q_weights: Any,
    return_argmax: bool,
) -> Any:
    """Both layouts' scores, of arguments whose ranks are right."""
    q, rows, table = _checked_codec(fw, Q, names[1], residuals, centroids, bucket_weights, nbits, bit_order)
    codes = _code_numbers(fw, names[0], codes, Q, "Q")
    kept, lengths, offsets, len_d, broken, ordered = layout()
    real, total = (codes if kept is None else None), codes.shape[0]
    if fw.readable(codes) and (kept is None or fw.readable(kept)):
        real = codes if kept is None else codes[kept]
        check_range(fw, names[0], codes, 0, centroids.shape[0] - 1, kept, real)
    else:
        outside = (codes < 0) | (codes >= centroids.shape[0])
        codes = fw.where(outside, 0, codes)
        if kept is not None:
            wrong = (outside & kept).any(-1)
        else:
            real = codes
            before, ends = fw.offsets_of(fw.cast(outside, "int32")), fw.clamp(offsets, 0, total)
            wrong = before[ends[1:]] != before[ends[:-1]]
        broken = either(broken, wrong)
    source: _Residuals | Tokens
    if fw.tracing(q, codes, residuals, lengths if offsets is None else offsets, rows):
        codes = codes if kept is None else fw.where(kept, codes, 0)
        source = Tokens(fw.decode_residuals(codes, residuals, rows, table), kept, None, None, offsets, len_d)
    else:
        if kept is not None:
            real, residuals = codes[kept] if real is None else real, residuals[kept]
            offsets, len_d = fw.offsets_of(lengths), fw.largest(lengths)
        elif not ordered:
            offsets, disordered = _ordered(fw, offsets, total, len_d)
            broken = either(broken, disordered)
        source = _Residuals(fw, fw.contiguous(real), fw.contiguous(residuals), offsets, len_d, rows, table)
    q_mask = token_mask(fw, "q_mask", q_mask, tuple(Q.shape[:-1]), Q, "Q")
    queries = Tokens(q, q_mask, token_weights(fw, q_weights, tuple(Q.shape[:-1]), Q, "Q"))
    queries = queries if len(Q.shape) == 3 else batched(queries)
    base = Problem(queries, Tokens(None), normalize=NORMALIZE if normalize else 0)
    if isinstance(source, Tokens):
        scores, argmax = score(base._replace(d=source), return_argmax)
        argmax = None if argmax is None else fw.cast(argmax, "int32")
    else:
        scores, argmax = blocks.score(fw, base, source, (), return_argmax)
    scores = fw.nan_where(broken, scores)
    if len(Q.shape) == 2:
        scores, argmax = scores[0], None if argmax is None else argmax[0]
    return (scores, argmax) if return_argmax else scores


def __getattr__(name: str) -> Any:
    """The references need torch, so they are imported when they are asked for."""
    if name in ("maxsim_residual_reference", "plaid_approx_score_reference"):
        from . import reference

        return getattr(reference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
        bucket_weights: float ``[2 ** nbits]``; a token is centroids[code] +
            bucket_weights[bucket] in each dimension.
        nbits: 2, 4 or 8.
        normalize: normalize query tokens and decoded tokens (norm clamped at 1e-12).
        bit_order: "upstream" or "colbert", see the module.
        q_mask, q_weights, return_argmax: as in :func:`maxsim`.

    Returns:
        float32 ``[Nq, Nd]``; empty documents score 0. Gradients flow to Q and q_weights.
        Infinities as in :func:`maxsim`.

    Raises:
        ValueError: shapes, nbits, lengths beyond max_Ld, codes outside the centroids. Codes and
        lengths in device memory are not looked at, unless with ``LIK_CHECK=1``: the scores of
        such a document are NaN.
        TypeError: dtypes.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.plaid import maxsim_residual
        >>> codes, residuals = np.array([[0, 1]]), np.zeros((1, 2, 1), "u1")
        >>> Q = centroids = np.eye(2, 4, dtype="f4")
        >>> codec = centroids, np.zeros(4, "f4"), 2
        >>> maxsim_residual(Q, codes, residuals, np.array([2]), *codec).tolist()
        [2.0]
    """
    fw = framework(
        Q=Q,
        codes=codes,
        residuals=residuals,
        doc_lengths=doc_lengths,
        centroids=centroids,
        bucket_weights=bucket_weights,
        q_mask=q_mask,
        q_weights=q_weights,
    )
    check_rank("codes", codes, (2,), "[Nd, max_Ld]")
    check_rank("residuals", residuals, (3,), "[Nd, max_Ld, bytes]")
    check_shape(
        "residuals", residuals, (*codes.shape, residuals.shape[2]), "shaped like codes, with the bytes behind"
    )

    def layout() -> _Layout:
        about = (codes.shape[0],), codes.shape[1], codes, "codes"
        lengths, kept, broken = sequence_lengths(fw, "doc_lengths", doc_lengths, *about)
        return _Layout(kept, lengths, broken=broken)

    codec = centroids, bucket_weights, nbits, bit_order
    names = "codes", "residuals"
    return _score(fw, Q, names, codes, residuals, layout, *codec, normalize, q_mask, q_weights, return_argmax)


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
    """:func:`maxsim_residual` of packed documents: codes ``[T]``, residuals ``[T, bytes]``,
    offsets ``[Nd + 1]``.

    ``max_seqlen_d`` is an upper bound of the lengths, found if None. Returns ``[Nq, Nd]``,
    ``[Nd]`` for a 2-D Q. Gradients flow to Q and q_weights.

    Raises:
        ValueError: shapes, offsets, nbits, a bound that is too small, codes outside the
        centroids. In device memory as for :func:`maxsim_residual`.
        TypeError: dtypes.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.plaid import maxsim_residual_varlen
        >>> codes, residuals = np.array([0, 1]), np.zeros((2, 1), "u1")
        >>> Q = centroids = np.eye(2, 4, dtype="f4")
        >>> codec = centroids, np.zeros(4, "f4"), 2
        >>> maxsim_residual_varlen(Q, codes, residuals, np.array([0, 2]), *codec).tolist()
        [2.0]
    """
    fw = framework(
        Q=Q,
        codes_flat=codes_flat,
        residuals_flat=residuals_flat,
        cu_seqlens_d=cu_seqlens_d,
        centroids=centroids,
        bucket_weights=bucket_weights,
        q_mask=q_mask,
        q_weights=q_weights,
    )
    check_rank("codes_flat", codes_flat, (1,), "[T]")
    check_rank("residuals_flat", residuals_flat, (2,), "[T, bytes]")
    total = codes_flat.shape[0]
    if residuals_flat.shape[0] != total:
        raise ValueError(
            f"residuals_flat has {int(residuals_flat.shape[0])} tokens, codes_flat has {int(total)}"
        )

    def layout() -> _Layout:
        looked = packed_offsets(fw, "cu_seqlens_d", cu_seqlens_d, total, "codes_flat", Q)
        len_d = longest(fw, "cu_seqlens_d", looked, "max_seqlen_d", max_seqlen_d)
        return _Layout(offsets=looked[0], longest=len_d, ordered=looked[1] is not None)

    codec = centroids, bucket_weights, nbits, bit_order
    names = "codes_flat", "residuals_flat"
    return _score(
        fw, Q, names, codes_flat, residuals_flat, layout, *codec, normalize, q_mask, q_weights, return_argmax
    )


def _ordered(fw: Framework, offsets: Any, total: int, longest: int) -> tuple[Any, Any]:
    """Offsets that ascend within 0 ... total, and bool [Nd]: the documents that had others, or
    were too long.
    """
    ordered = fw.running_max(fw.clamp(offsets, 0, total))
    moved = ordered != offsets
    return ordered, moved[1:] | moved[:-1] | (ordered[1:] - ordered[:-1] > longest)


def plaid_approx_score(
    query_centroid_scores: Any, codes: Any, doc_lengths: Any, *, q_mask: Any = None, q_weights: Any = None
) -> Any:
    """PLAID's approximate stage: a token counts as its centroid.

    Args:
        query_centroid_scores: float ``[C, Lq]``, the products of centroids and query tokens, or
            ``[Nq, C, Lq]``.
        codes: integers ``[B, max_Ld]``, 0 to C - 1 in the real tokens.
        doc_lengths: integers ``[B]``, 0 to max_Ld.
        q_mask: bool ``[Lq]`` or ``[Nq, Lq]``: query tokens that count.
        q_weights: float of that shape.

    Returns:
        float32 ``[B]`` or ``[Nq, B]``: the sum over query tokens of the best score among the
        document's codes; empty documents score 0.

    Raises:
        ValueError: shapes, lengths beyond max_Ld, codes outside the centroids. In device memory
        neither is looked at, unless with ``LIK_CHECK=1``: there a code outside, negative or
        not, counts as centroid 0, as in the existing package, and the score of a document with
        such a length is NaN.
        TypeError: dtypes.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.plaid import plaid_approx_score
        >>> scores = np.array([[1.0, 0.0], [0.0, 2.0]], "f4")
        >>> plaid_approx_score(scores, np.array([[0, 1]]), np.array([2])).tolist()
        [3.0]
    """
    fw = framework(
        query_centroid_scores=query_centroid_scores,
        codes=codes,
        doc_lengths=doc_lengths,
        q_mask=q_mask,
        q_weights=q_weights,
    )
    check_rank("query_centroid_scores", query_centroid_scores, (2, 3), "[C, Lq] or [Nq, C, Lq]")
    check_rank("codes", codes, (2,), "[B, max_Ld]")
    scores = detached(fw.cast(embeddings(fw, "query_centroid_scores", query_centroid_scores), "float32"))
    codes = _code_numbers(fw, "codes", codes, scores, "query_centroid_scores")
    per_token = (*scores.shape[:-2], scores.shape[-1])
    q_mask = token_mask(
        fw, "q_mask", q_mask, per_token, scores, "query_centroid_scores without its centroids"
    )
    weights = token_weights(fw, q_weights, per_token, scores, "query_centroid_scores without its centroids")
    about = (codes.shape[0],), codes.shape[1], codes, "codes"
    _, kept, broken = sequence_lengths(fw, "doc_lengths", doc_lengths, *about)
    if fw.readable(codes) and fw.readable(kept):
        check_range(fw, "codes", codes, 0, scores.shape[-2] - 1, kept, codes[kept])
    batch = scores if len(scores.shape) == 3 else scores[None]
    weights = weights if weights is None or len(weights.shape) == 2 else weights[None]
    q_mask = q_mask if q_mask is None or len(q_mask.shape) == 2 else q_mask[None]
    found = []
    count, length = codes.shape
    spans = (
        [(0, count)] if fw.tracing(scores, codes) else list(blocks.even_spans(count, length, batch.shape[2]))
    )
    for i in range(batch.shape[0]):
        for a, b in spans:
            best = fw.best_of_codes(batch[i], codes[a:b], kept[a:b])
            if weights is not None:
                best = best * weights[i]
            if q_mask is not None:
                best = fw.where(q_mask[i], best, 0.0)
            found.append(best.sum(-1))
    out = fw.joined(found, scores).reshape(batch.shape[0], count)
    out = fw.nan_where(broken, out)
    return out if len(scores.shape) == 3 else out[0]


__all__ = [
    "maxsim_residual",
    "maxsim_residual_reference",
    "maxsim_residual_varlen",
    "plaid_approx_score",
    "plaid_approx_score_reference",
]
