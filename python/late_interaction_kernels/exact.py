"""Exact top-k that reads 8 bits an element: documents in two copies, of which the small one
rules out nearly all of them.

Every document is scored in 8 bits, with a bound of how far that may be from its score in full.
Where even the bound leaves it below the k-th best, it is out; the few that remain are scored
from the full copy. Indices and scores are those of the full copy alone, bit by bit: the proof
is in docs/numerics.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ._engine.checks import (
    STORAGES,
    Framework,
    check_device,
    check_pair,
    check_rank,
    check_shape,
    embeddings,
    framework,
    longest,
    packed_offsets,
    quantized,
)
from ._engine.problem import (
    HIGH,
    HIGHEST,
    LIST,
    MEDIUM,
    NORMALIZE_Q,
    Problem,
    Tokens,
    detached,
    length,
    score_shape,
    sliced,
)
from ._engine.verbs import merge_topk, score, topk

BLOCK = 1 << 24  # elements looked at together while the copies are made, and scores in a top-k
WORTH = 0.25  # with more candidates than this share of all pairs, all are scored in full
UNIT = 2.0**-24  # unit roundoff of float32
TINY = 2.0**-50  # of unit vectors: what elements that count as zero may amount to
FAR = 1e15  # norms above this are not relied on: sums of their squares may overflow somewhere


class TwoCopies(NamedTuple):
    """Documents in full and in 8 bits, as :func:`two_copies` makes them."""

    documents: Any  # float [Nd, Ld, d], or [total_d, d] with offsets
    values: Any  # int8 or float8_e4m3fn, likewise
    scales: Any  # float32, likewise without d
    errors: Any  # float32 [Nd]: the longest |x - value * scale| of a document's tokens x
    norms: Any  # float32 [Nd]: the longest |x| or |value * scale|
    normalize: bool  # tokens x are those of documents, normalized
    storage: str  # "int8" or "fp8"
    cu_seqlens_d: Any = None  # int32 or int64 [Nd + 1]
    max_seqlen_d: int = 0  # with offsets: tokens of the longest document


def two_copies(
    D: Any,
    storage: str = "int8",
    *,
    normalize: bool = True,
    cu_seqlens_d: Any = None,
    max_seqlen_d: int | None = None,
) -> TwoCopies:
    """What ``retrieve(Q, two_copies(D), k, exact=True)`` takes: D, its tokens in 8 bits, and
    how far the two are apart. To be made once for a collection.

    Args:
        D: float ``[Nd, Ld, d]``, or packed ``[total_d, d]``. It is kept as it is, not copied.
        storage: "int8", nearer to D, or "fp8" (e4m3); both with a scale a token.
        normalize: as it will be in :func:`retrieve`; the norms are then folded into the scales.
        cu_seqlens_d, max_seqlen_d: offsets of packed documents, as in :func:`retrieve`.

    Returns:
        :class:`TwoCopies`: a byte an element, 4 a token and 8 a document besides D.

    Raises:
        ValueError: another storage, shapes, offsets.
        TypeError: tokens that are not floating point.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels import retrieve
        >>> from late_interaction_kernels.exact import two_copies
        >>> D = np.eye(4, dtype=np.float32)[:, None]
        >>> retrieve(D[2], two_copies(D), 1, exact=True)[1].tolist()
        [2]
    """
    if not isinstance(storage, str) or storage not in STORAGES:
        raise ValueError(f'storage must be "int8" or "fp8", got {storage!r}')
    fw = framework(D=D) if cu_seqlens_d is None else framework(D=D, cu_seqlens_d=cu_seqlens_d)
    check_rank("D", D, (3,) if cu_seqlens_d is None else (2,), "[Nd, Ld, d], or [total_d, d] with offsets")
    if max_seqlen_d is not None and cu_seqlens_d is None:
        raise ValueError(f"max_seqlen_d is {max_seqlen_d}, must be None without cu_seqlens_d")
    offsets, most = None, 0
    if cu_seqlens_d is not None:
        known = packed_offsets(fw, "cu_seqlens_d", cu_seqlens_d, D.shape[0], "D", D)
        offsets, most = known[0], longest(fw, "cu_seqlens_d", known, "max_seqlen_d", max_seqlen_d)
    D = detached(embeddings(fw, "D", D))
    values, scales = quantized(fw, D, STORAGES[storage][0], normalize)
    errors, norms = _apart(fw, D, values, scales, normalize)
    errors, norms = (_longest(fw, x, offsets, most) for x in (errors, norms))
    return TwoCopies(D, values, scales, errors, norms, normalize, storage, offsets, most)


def _apart(fw: Framework, D: Any, values: Any, scales: Any, normalize: bool) -> tuple[Any, Any]:
    """Of each token an upper bound of |x - value * scale| and of |x| and |value * scale|, in
    blocks. What float32 loses here is added to it.
    """
    d = D.shape[-1]
    rows = max(BLOCK // max(d * (D.shape[1] if len(D.shape) == 3 else 1), 1), 1)
    slack, least = (d + 16) * UNIT, d**0.5 * 2.0**-62
    parts: list[tuple[Any, Any]] = []
    for a in range(0, max(D.shape[0], 1), rows):
        x, y = (fw.cast(part[a : a + rows], "float32") for part in (D, values))
        norm = _norm(x)
        if normalize:
            x = x / norm.clip(1e-12)[..., None]
        y = y * scales[a : a + rows][..., None]
        error = _norm(x - y)
        reach = _norm(x) + error  # of both
        error = error * (1 + 2 * slack) + 2 * slack * reach + least
        if normalize:  # compared so that a NaN is far too
            error = fw.where(norm <= FAR, error, float("inf"))
        parts.append((error, reach * (1 + 2 * slack) + least))
    return fw.joined([e for e, _ in parts]), fw.joined([n for _, n in parts])


def _norm(x: Any) -> Any:
    return (x * x).sum(-1) ** 0.5


def _longest(fw: Framework, lengths: Any, offsets: Any, most: int) -> Any:
    """Of one number a token the largest of each document: the score of tokens of one element
    for a query of one token, 1. So it is in every layout; a document without tokens has 0.
    """
    d = Tokens(lengths[..., None], None, None, None, offsets, most)
    largest = score(Problem(Tokens(fw.ones((1, 1, 1), lengths)), d, precision=HIGHEST))[0]
    return largest[0] * (1 + 2.0**-20)


def checked(D: TwoCopies, storage: str | None, normalize: bool) -> None:
    """The parts of what a user may have put together, and the choices of a call that takes
    them.
    """
    parts = {f"D.{name}": getattr(D, name) for name in ("documents", "values", "scales", "errors", "norms")}
    fw = framework(**parts)
    if D.cu_seqlens_d is not None:
        framework(**{"D.documents": D.documents, "D.cu_seqlens_d": D.cu_seqlens_d})
        check_rank("D.cu_seqlens_d", D.cu_seqlens_d, (1,), "[Nd + 1]")
    check_rank("D.documents", D.documents, (3,) if D.cu_seqlens_d is None else (2,), "[Nd, Ld, d] or packed")
    check_shape("D.values", D.values, tuple(D.documents.shape), "shaped like D.documents")
    count = D.documents.shape[0] if D.cu_seqlens_d is None else D.cu_seqlens_d.shape[0] - 1
    if D.storage not in STORAGES:
        raise ValueError(f'D.storage must be "int8" or "fp8", got {D.storage!r}')
    check_pair(fw, D.values, D.scales, ("D.values", "D.scales"), D.storage)
    for name in ("errors", "norms"):
        x = getattr(D, name)
        check_shape(f"D.{name}", x, (count,), "one a document")
        if fw.dtype_name(x) != "float32":
            raise TypeError(f"D.{name} has dtype {fw.dtype_name(x)}, must be float32")
    for name, x in parts.items():
        check_device(fw, name, x, D.documents, "D.documents")
    if storage not in (None, D.storage):
        raise ValueError(f"storage is {storage!r}, but D was made with storage={D.storage!r}")
    if bool(normalize) != bool(D.normalize):
        raise ValueError(f"normalize is {normalize}, but D was made with normalize={D.normalize}")


def best(fw: Framework, problem: Problem, D: TwoCopies, k: int, smallest: bool) -> tuple[Any, Any]:
    """verbs.topk(problem, k, 0, smallest), the same bits; ``problem`` is that of the full copy,
    on the host.
    """
    queries, documents = score_shape(problem)
    if k == 0 or k >= documents or queries == 0 or D.values.shape[-1] == 0:
        return topk(problem, max(k, 1), 0, smallest)
    step = max(BLOCK // documents, 1)
    parts = [
        _some(fw, problem._replace(q=sliced(problem.q, a, min(a + step, queries))), D, k, smallest)
        for a in range(0, queries, step)
    ]
    return parts[0] if len(parts) == 1 else tuple(map(fw.joined, zip(*parts, strict=True)))


def _some(fw: Framework, problem: Problem, D: TwoCopies, k: int, smallest: bool) -> tuple[Any, Any]:
    queries, documents = score_shape(problem)
    rows, columns = candidates(fw, problem, D, k, smallest)
    if rows.shape[0] > WORTH * queries * documents:
        return topk(problem, k, 0, smallest)
    scores = score(problem._replace(list_q=rows, list_d=columns, pairing=LIST))[0]
    if queries == 1:
        return merge_topk(scores[None, None], columns[None, None], k, smallest)
    begin = fw.searched(rows, fw.arange(queries + 1, rows))
    most = fw.largest(begin[1:] - begin[:-1])
    at = fw.arange(rows.shape[0], rows) - begin[rows]
    values = fw.ones((queries, most), scores) * float("nan")
    ids = fw.arange(queries, rows)[:, None] * 0 + fw.arange(most, rows) * 0 - 1
    values[rows, at], ids[rows, at] = scores, columns
    return merge_topk(values[None], ids[None], k, smallest)


def candidates(fw: Framework, problem: Problem, D: TwoCopies, k: int, smallest: bool) -> tuple[Any, Any]:
    """(queries, documents) int64, by query and then by document: every pair that may be among
    the k best. A document is out where its score in 8 bits is below the k-th best by more than
    both may be off.
    """
    small = problem.d._replace(data=D.values, scale=fw.cast(D.scales, "float32"))
    normalize = NORMALIZE_Q if D.normalize else 0
    scores = score(problem._replace(d=small, normalize=normalize, precision=HIGHEST))[0]
    off = _off(fw, problem, D)
    if smallest:
        scores = -scores
    return fw.where_true(~(scores + off < fw.kth_largest(scores - off, k)))


def _off(fw: Framework, problem: Problem, D: TwoCopies) -> Any:
    """How far a score in 8 bits may be from the score in full, both as they are computed: f32
    [queries or 1, documents]. Where the bound overflows or meets a NaN it is no number, and
    nothing is ruled out. The terms are those of docs/numerics.md, "Exact top-k from 8 bits".
    """
    q, dim, tokens = problem.q, D.values.shape[-1], length(problem.q)
    # Two products, each off by its share of |q| |x|; two sums of maxima.
    share = 2 * (4 * dim + 64) * UNIT + 2 * (tokens + 4) * UNIT
    if D.storage == "int8":  # a query rounded to 16-bit integers
        share += dim**0.5 / 65278 + dim * 2.0**-25
    share += {HIGHEST: 0.0, HIGH: 2.0**-13, MEDIUM: 2.0**-6}[fw.precision(problem.precision)]
    wider = 1 + (tokens + 32) * 2.0**-23  # than what is rounded here
    each = D.errors * ((1 + share) * wider) + (D.norms * (share * wider) + dim * TINY)
    plain = q.mask is None and q.weights is None and q.offsets is None
    if D.normalize and plain:
        return each * tokens  # no sum of maxima can overflow
    wide = fw.cast(q.data, "float32")
    norms = fw.ones(tuple(wide.shape[:-1]), wide) if D.normalize else _norm(wide) * (1 + dim * UNIT)
    weights = None if q.weights is None else abs(q.weights)
    lengths = q._replace(data=(norms + dim * TINY)[..., None], weights=weights)
    one = Tokens(fw.ones((1, 1, 1), wide))
    reach = score(Problem(lengths, one, precision=HIGHEST))[0]
    # Where a sum, or a query's factor, may overflow an infinity ties with others: none is out.
    return fw.where(reach * (D.norms + 1) < 2.0**120, reach * each, float("inf"))


__all__ = ["TwoCopies", "two_copies"]
