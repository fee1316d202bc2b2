"""The k best documents of each query, without the full score matrix."""

from __future__ import annotations

from typing import Any

from ._engine import verbs
from ._engine.checks import Framework, check_rank, first_of, framework, padded, whole_number
from ._engine.problem import LIST, Problem, detached, sliced
from ._engine.short import topk as short_way

SCRATCH = 64 << 20  # bytes: a call that takes no more has nothing for a chunk to bound


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
    return_argmax: bool = False,
) -> Any:
    """The ``min(k, Nd)`` best documents of each query, best first, ties by lower index, NaN
    last.

    Args:
        Q: ``[Nq, Lq, d]``, or ``[Lq, d]`` for results without the query axis.
        D: ``[Nd, Ld, d]``; with ``storage="int8"`` also a (values, scales) pair.
        k: how many, at least 1.
        q_mask, d_mask, normalize, q_weights, storage: as in :func:`maxsim`.
        chunk_size: score that many documents at a time where the call would take more than 64
            MiB of scratch, which it does for thousands of queries or a large k on a GPU.
            Results do not depend on it.
        largest: False for the lowest scores, ascending.
        sorted: results are always sorted.
        return_argmax: also return which document token matched, int32 ``[Nq, k, Lq]``.

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
    if chunk_size is None and storage is None and not return_argmax:
        found = short_way(Q, D, q_mask, d_mask, q_weights, normalize, k, not largest)
        if found is not None:
            return found
    tokens = first_of("D", D, storage)
    framework(Q=Q, D=tokens)
    check_rank("D", tokens, (3,), "[Nd, Ld, d]")
    fw, problem, shape = padded(
        detached(Q),
        detached(D),
        q_mask,
        d_mask,
        normalize=normalize,
        q_weights=detached(q_weights),
        storage=storage,
    )
    queries, documents = problem.q.data.shape[0], problem.d.data.shape[0]
    k = min(k, documents)
    if k == 0 or chunk_size is None or chunk_size >= documents or verbs.topk_scratch(problem, k) <= SCRATCH:
        values, ids = verbs.topk(problem, max(k, 1), 0, not largest)
    else:
        values, ids = by_chunks(fw, problem, k, chunk_size, not largest)
    values, ids = values[:, :k], ids[:, :k]
    result = (values, ids) if len(shape) == 2 else (values[0], ids[0])
    if not return_argmax:
        return result
    list_q = fw.arange(queries * k, problem.q.data) // max(k, 1)
    listed = problem._replace(list_q=list_q, list_d=fw.contiguous(ids.reshape(-1)), pairing=LIST)
    argmax = fw.cast(verbs.score(listed, True)[1], "int32")
    return (*result, argmax.reshape((*result[0].shape, argmax.shape[-1])))


def by_chunks(fw: Framework, problem: Problem, k: int, chunk_size: int, smallest: bool) -> tuple[Any, Any]:
    """The k best, of chunk_size documents at a time: no more than two sets of k are held."""
    documents = problem.d.data.shape[0]
    best: tuple[Any, Any] | None = None
    for a in range(0, documents, chunk_size):
        part = verbs.topk(
            problem._replace(d=sliced(problem.d, a, min(a + chunk_size, documents))), k, a, smallest
        )
        if best is not None:
            values, ids = map(fw.stacked, zip(best, part, strict=True))
            part = verbs.merge_topk(values, ids, k, smallest)
        best = part
    assert best is not None
    return best


__all__ = ["maxsim_topk"]
