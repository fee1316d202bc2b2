"""The k best documents of each query, without the full score matrix."""

from __future__ import annotations

from typing import Any, Literal, overload

from ._engine import compressed, verbs
from ._engine.checks import (
    Framework,
    check_rank,
    first_of,
    framework,
    is_packed,
    packed,
    padded,
    shape_text,
    whole_number,
)
from ._engine.compressed import CompressedTokens, Documents, worded
from ._engine.kinds import Array, Storage
from ._engine.problem import LIST, Problem, detached, score_shape, sliced
from ._engine.short import topk as short_way
from .exact import TwoCopies, best, checked

SCRATCH = 64 << 20  # bytes: a call that takes no more has nothing for a chunk to bound


@overload
def maxsim_topk(
    Q: Array,
    D: Array | tuple[Array, Array] | CompressedTokens | TwoCopies,
    k: int,
    q_mask: Array | None = None,
    d_mask: Array | None = None,
    *,
    normalize: bool = False,
    chunk_size: int | None = None,
    largest: bool = True,
    sorted: bool = True,
    q_weights: Array | None = None,
    storage: Storage | None = None,
    exact: bool = False,
    return_argmax: Literal[False] = False,
    cu_seqlens_q: Array | None = None,
    cu_seqlens_d: Array | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
) -> tuple[Array, Array]: ...


@overload
def maxsim_topk(
    Q: Array,
    D: Array | tuple[Array, Array] | CompressedTokens | TwoCopies,
    k: int,
    q_mask: Array | None = None,
    d_mask: Array | None = None,
    *,
    normalize: bool = False,
    chunk_size: int | None = None,
    largest: bool = True,
    sorted: bool = True,
    q_weights: Array | None = None,
    storage: Storage | None = None,
    exact: bool = False,
    return_argmax: Literal[True],
    cu_seqlens_q: Array | None = None,
    cu_seqlens_d: Array | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
) -> tuple[Array, Array, Array]: ...


@overload
def maxsim_topk(
    Q: Array,
    D: Array | tuple[Array, Array] | CompressedTokens,
    k: int,
    q_mask: Array | None = None,
    d_mask: Array | None = None,
    *,
    normalize: bool = False,
    chunk_size: int | None = None,
    largest: bool = True,
    sorted: bool = True,
    q_weights: Array | None = None,
    storage: Storage | None = None,
    return_argmax: bool,
    cu_seqlens_q: Array | None = None,
    cu_seqlens_d: Array | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
) -> tuple[Array, Array] | tuple[Array, Array, Array]: ...


# Long because of its docstring.
def maxsim_topk(
    Q: Any,
    D: Any,
    k: int,
    q_mask: Any = None,
    d_mask: Any = None,
    *,
    normalize: bool = False,
    chunk_size: int | None = None,
    largest: bool = True,
    sorted: bool = True,
    q_weights: Any = None,
    storage: str | None = None,
    exact: bool = False,
    return_argmax: bool = False,
    cu_seqlens_q: Any = None,
    cu_seqlens_d: Any = None,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
) -> Any:
    """The ``min(k, Nd)`` best documents of each query, best first, ties by lower index, NaN
    last.

    Args:
        Q: ``[Nq, Lq, d]``, or ``[Lq, d]`` for results without the query axis.
        D: ``[Nd, Ld, d]``; with a ``storage`` also a (values, scales) pair. Or
            :class:`plaid.CompressedTokens`, whose scores are those of
            :func:`plaid.maxsim_residual`, bit by bit; they have lengths or offsets of their
            own, so that d_mask must be None. Or, with ``exact``, :class:`exact.TwoCopies`.
        k: how many, at least 1.
        q_mask, d_mask, normalize, q_weights, storage: as in :func:`maxsim`.
        chunk_size: score that many documents at a time where the call would take more than 64
            MiB of scratch, which it does for thousands of queries or a large k on a GPU.
            Results do not depend on it.
        largest: False for the lowest scores, ascending.
        sorted: results are always sorted.
        exact: D is what :func:`exact.two_copies` made: nearly all documents are ruled out by
            their 8 bits, the rest scored in full. Scores and indices are those of
            ``D.documents``, bit by bit. On a GPU and in a trace all are scored in full, which
            is faster there.
        return_argmax: also return which document token matched, int32 ``[Nq, k, Lq]``.
        cu_seqlens_q: integer offsets ``[Nq + 1]`` where Q is packed, ``[total_q, d]``; then its
            mask and weights are ``[total_q]``.
        cu_seqlens_d: likewise ``[Nd + 1]`` of packed documents ``[total_d, d]``, their scales
            and mask ``[total_d]``. :func:`pack` makes both of a list. Each side is padded or
            packed for itself, with the same scores.
        max_seqlen_q, max_seqlen_d: as in :func:`maxsim_varlen`.

    Returns:
        (scores float32 ``[Nq, k]``, indices int64 ``[Nq, k]``), and the argmax if wanted. Never
        differentiable. Infinities as in :func:`maxsim`: on CUDA a document with one among its
        float32 tokens comes last, as NaN does.

    Raises:
        ValueError: k or chunk_size below 1, and what :func:`maxsim` refuses.
        TypeError: k or chunk_size that is no integer.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.topk import maxsim_topk
        >>> D = np.eye(4, dtype=np.float32)[:, None]
        >>> maxsim_topk(D[2], D, 1)[1].tolist()
        [2]
    """
    k = whole_number("k", k)
    chunk_size = None if chunk_size is None else whole_number("chunk_size", chunk_size)
    copies = _copies(D, exact, storage, normalize, cu_seqlens_d, max_seqlen_d)
    if copies is not None:
        D, storage, cu_seqlens_d = copies.documents, None, copies.cu_seqlens_d
        max_seqlen_d = None if cu_seqlens_d is None else copies.max_seqlen_d
        fw = framework(Q=Q, D=D)
        if not fw.on_host(Q) or not fw.on_host(D):
            copies = None  # a trace; or a GPU, where choosing takes longer than 8 bits save
    in_rows = is_packed(cu_seqlens_q, cu_seqlens_d, max_seqlen_q, max_seqlen_d)
    if copies is None and chunk_size is None and storage is None and not return_argmax and not in_rows:
        found = short_way(Q, D, q_mask, d_mask, q_weights, normalize, k, not largest)
        if found is not None:
            return found
    if isinstance(D, CompressedTokens):
        if in_rows:
            raise ValueError("cu_seqlens_q and cu_seqlens_d must be None where D is CompressedTokens")
        fw, problem, found = _compressed(Q, D, q_mask, d_mask, q_weights, normalize, storage)
    else:
        packing = (cu_seqlens_q, cu_seqlens_d, max_seqlen_q, max_seqlen_d) if in_rows else None
        about = {"q_mask": q_mask, "d_mask": d_mask, "normalize": normalize, "storage": storage}
        fw, problem, found = _dense(Q, D, packing, q_weights, about)
    queries, documents = score_shape(problem)
    k = min(k, documents)
    with worded(found.look):
        if copies is None:
            values, ids = _best(fw, problem, k, chunk_size, not largest, found.broken)
        else:
            values, ids = best(fw, problem, copies, k, not largest)
    values, ids = values[:, :k], ids[:, :k]
    result = (values[0], ids[0]) if len(Q.shape) == 2 and cu_seqlens_q is None else (values, ids)
    if not return_argmax:
        return result
    list_q = fw.arange(queries * k, problem.q.data) // max(k, 1)
    listed = problem._replace(list_q=list_q, list_d=fw.contiguous(ids.reshape(-1)), pairing=LIST)
    argmax = fw.cast(verbs.score(listed, True)[1], "int32")
    return (*result, argmax.reshape((*result[0].shape, argmax.shape[-1])))


def _copies(
    D: Any, exact: bool, storage: str | None, normalize: bool, cu_seqlens_d: Any, max_seqlen_d: Any
) -> TwoCopies | None:
    if not isinstance(D, TwoCopies):
        if exact:
            raise ValueError(f"exact needs D as exact.two_copies makes it, got {type(D).__name__}")
        return None
    if not exact:
        raise ValueError(
            "D is TwoCopies, which exact=True takes; D.documents is the full copy, (D.values, D.scales) "
            f'with storage="{D.storage}" the one in 8 bits'
        )
    for name, value in (("cu_seqlens_d", cu_seqlens_d), ("max_seqlen_d", max_seqlen_d)):
        if value is not None:
            raise ValueError(f"{name} must be None where D is TwoCopies, which has its own")
    checked(D, storage, normalize)
    return D


def _name(name: str) -> str:
    inside = {"centroids": "codec.centroids", "bucket_weights": "codec.weights", "nbits": "codec.nbits"}
    return "D." + ({**inside, "bit_order": "codec.bit_order"}.get(name, name))


def _compressed(
    Q: Any, D: CompressedTokens, q_mask: Any, d_mask: Any, q_weights: Any, normalize: bool, storage: Any
) -> tuple[Framework, Problem, Documents]:
    for name, value in (("d_mask", d_mask), ("storage", storage)):
        if value is not None:
            raise ValueError(f"{name} must be None where D is CompressedTokens, got {type(value).__name__}")
    fw = framework(
        Q=Q, **{_name(key): x for key, x in D.arrays().items()}, q_mask=q_mask, q_weights=q_weights
    )
    check_rank("Q", Q, (2, 3), "[Nq, Lq, d] or [Lq, d]")
    Q, q_weights = detached((Q, q_weights))
    found = compressed.documents(fw, _name, D, Q, normalize)
    return fw, compressed.problem(fw, Q, q_mask, q_weights, found, normalize), found


def _dense(
    Q: Any, D: Any, packing: tuple[Any, ...] | None, q_weights: Any, about: dict[str, Any]
) -> tuple[Framework, Problem, Documents]:
    tokens = first_of("D", D, about["storage"])
    framework(Q=Q, D=tokens)
    Q, D, q_weights = detached((Q, D, q_weights))
    if packing is not None:
        fw, problem = packed(Q, D, *packing, q_weights=q_weights, names=("Q", "D"), **about)
    elif len(tokens.shape) == 2:
        raise ValueError(
            f"D must have shape [Nd, Ld, d], got {shape_text(tokens.shape)}: packed documents need "
            "cu_seqlens_d"
        )
    else:
        check_rank("D", tokens, (3,), "[Nd, Ld, d]")
        fw, problem, _ = padded(Q, D, q_weights=q_weights, **about)
    return fw, problem, Documents(problem.d, None, None)


def _best(
    fw: Framework, problem: Problem, k: int, chunk_size: int | None, smallest: bool, broken: Any
) -> tuple[Any, Any]:
    """The k best, in chunks where they bound something."""
    queries, documents = score_shape(problem)
    if k and broken is not None:
        if fw.tracing(problem.q.data, problem.d.codes, broken):
            return _sound(fw, problem, k, 0, smallest, broken)
        return by_chunks(fw, problem, k, max(SCRATCH // (16 * max(queries, 1)), k), smallest, broken)
    if k == 0 or chunk_size is None or chunk_size >= documents or verbs.topk_scratch(problem, k) <= SCRATCH:
        return verbs.topk(problem, max(k, 1), 0, smallest)
    return by_chunks(fw, problem, k, chunk_size, smallest)


def by_chunks(
    fw: Framework, problem: Problem, k: int, chunk_size: int, smallest: bool, broken: Any = None
) -> tuple[Any, Any]:
    """The k best, of chunk_size documents at a time: no more than two sets of k are held. The
    scores of documents that are broken become NaN."""
    documents = score_shape(problem)[1]
    best: tuple[Any, Any] | None = None
    for a in range(0, documents, chunk_size):
        b = min(a + chunk_size, documents)
        chunk = problem._replace(d=sliced(problem.d, a, b))
        part = (
            verbs.topk(chunk, k, a, smallest)
            if broken is None
            else _sound(fw, chunk, k, a, smallest, broken[a:b])
        )
        if best is not None:
            values, ids = map(fw.stacked, zip(best, part, strict=True))
            part = verbs.merge_topk(values, ids, k, smallest)
        best = part
    assert best is not None
    return best


def _sound(
    fw: Framework, problem: Problem, k: int, id_base: int, smallest: bool, broken: Any
) -> tuple[Any, Any]:
    """verbs.topk where the scores must be seen: those of broken documents are NaN."""
    scores = fw.nan_where(broken, verbs.score(problem)[0])
    rows, columns = (fw.arange(n, scores) for n in scores.shape)
    ids = rows[:, None] * 0 + columns + id_base
    return verbs.merge_topk(scores[None], ids[None], k, smallest)


__all__ = ["maxsim_topk"]
