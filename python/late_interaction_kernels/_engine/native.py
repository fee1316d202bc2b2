"""The calls of the extension, for arrays of either kind: ``fw`` is the module that knows how
they are lent.

What this build does not do on these arrays raises NotImplementedError.
"""

from __future__ import annotations

from typing import Any

from .. import _native
from .problem import ARRAY_COUNT, Problem, argmax_dtype, fields, length, score_shape


def score(fw: Any, p: Problem, want_argmax: bool) -> tuple[Any, Any]:
    """Scores, and the argmax or None."""
    shape, like = score_shape(p), p.q.data
    scores = fw.empty(shape, "float32", like)
    argmax = fw.empty((*shape, length(p.q)), argmax_dtype(p), like) if want_argmax else None
    _native.score(*fw.lent(fields(p), ARRAY_COUNT), fw.lend(scores), fw.lend(argmax))
    return scores, argmax


def topk(fw: Any, p: Problem, k: int, id_base: int, smallest: bool) -> tuple[Any, Any]:
    shape = score_shape(p)[0], k
    values, ids = fw.empty(shape, "float32", p.q.data), fw.empty(shape, "int64", p.q.data)
    _native.topk(*fw.lent(fields(p), ARRAY_COUNT), k, id_base, smallest, fw.lend(values), fw.lend(ids))
    return values, ids


def topk_scratch(fw: Any, p: Problem, k: int) -> int:
    """Bytes of workspace that topk takes."""
    return _native.topk_scratch(*fw.lent(fields(p), ARRAY_COUNT), k)


def merge_topk(fw: Any, values: Any, ids: Any, k: int, smallest: bool) -> tuple[Any, Any]:
    """Of arrays on the CPU: see ``verbs.merge_topk``."""
    shape = values.shape[1], k
    best = fw.empty(shape, "float32", values), fw.empty(shape, "int64", values)
    _native.merge_topk(fw.lend(values), fw.lend(ids), k, smallest, *map(fw.lend, best))
    return best


def grad(
    fw: Any, p: Problem, grad_scores: Any, argmax: Any, into: tuple[Any, Any, Any], accumulate: bool = False
) -> None:
    """Writes the gradients of q, d and q_weights into three arrays, None for what is not
    wanted, or adds to them.
    """
    given = map(fw.lend, (grad_scores, argmax, *into))
    _native.grad(*fw.lent(fields(p), ARRAY_COUNT), *given, accumulate)


def decode_residuals(fw: Any, codes: Any, residuals: Any, centroids: Any, table: Any) -> Any:
    """f32 vectors [n, d] of codes [n] and residuals [n, bytes] on the CPU."""
    out = fw.empty((int(codes.shape[0]), int(centroids.shape[1])), "float32", codes)
    _native.decode_residuals(*map(fw.lend, (codes, residuals, centroids, table, out)))
    return out
