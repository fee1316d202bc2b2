"""MaxSim of packed tokens: no padding, offsets instead."""

from __future__ import annotations

from typing import Any, Literal, overload

from ._engine.checks import packed
from ._engine.kinds import Array, Storage
from ._engine.short import packed as short_way
from ._engine.verbs import score


@overload
def maxsim_varlen(
    Q_packed: Array,
    D_packed: Array | tuple[Array, Array],
    cu_seqlens_q: Array,
    cu_seqlens_d: Array,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
    *,
    normalize: bool = False,
    q_weights: Array | None = None,
    storage: Storage | None = None,
    return_argmax: Literal[False] = False,
) -> Array: ...


@overload
def maxsim_varlen(
    Q_packed: Array,
    D_packed: Array | tuple[Array, Array],
    cu_seqlens_q: Array,
    cu_seqlens_d: Array,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
    *,
    normalize: bool = False,
    q_weights: Array | None = None,
    storage: Storage | None = None,
    return_argmax: Literal[True],
) -> tuple[Array, Array]: ...


@overload
def maxsim_varlen(
    Q_packed: Array,
    D_packed: Array | tuple[Array, Array],
    cu_seqlens_q: Array,
    cu_seqlens_d: Array,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
    *,
    normalize: bool = False,
    q_weights: Array | None = None,
    storage: Storage | None = None,
    return_argmax: bool,
) -> Array | tuple[Array, Array]: ...


def maxsim_varlen(
    Q_packed: Any,
    D_packed: Any,
    cu_seqlens_q: Any,
    cu_seqlens_d: Any,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
    *,
    normalize: bool = False,
    q_weights: Any = None,
    storage: str | None = None,
    return_argmax: bool = False,
) -> Any:
    """Score every packed query against every packed document.

    Args:
        Q_packed: query tokens one after another, ``[total_q, d]``.
        D_packed: document tokens, ``[total_d, d]`` (with a ``storage`` also a (values, scales)
            pair).
        cu_seqlens_q: integer offsets ``[Nq + 1]``: query i is rows ``cu_seqlens_q[i]`` to
            ``cu_seqlens_q[i + 1]``.
        cu_seqlens_d: likewise ``[Nd + 1]``.
        max_seqlen_q: upper bound of the query lengths; saves CUDA callers a wait for the
            device. Found if None.
        max_seqlen_d: likewise for the documents.
        normalize: take every token as x / max(|x|, 1e-12).
        q_weights: ``[total_q]``, factor of each query token's maximum. Differentiable.
        storage: None, "int8" or "fp8", as in :func:`maxsim`.
        return_argmax: also return the index within its document of each winner, int32 ``[Nq,
            Nd, longest query]``.

    Returns:
        float32 ``[Nq, Nd]``. Empty sequences score 0. Gradients flow to Q_packed, D_packed and
        q_weights; rows outside every sequence get zeros. Infinities as in :func:`maxsim`.

    Raises:
        ValueError: shapes, decreasing or overrunning offsets, bounds smaller than the longest
        sequence. In device memory offsets are not looked at, unless with ``LIK_CHECK=1``: the
        scores of such a sequence are NaN.
        TypeError: dtypes that do not fit.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels import maxsim_varlen
        >>> tokens = np.eye(3, dtype=np.float32)
        >>> maxsim_varlen(tokens, tokens, np.array([0, 3]), np.array([0, 1, 3])).tolist()
        [[1.0, 2.0]]
    """
    if storage is None and not return_argmax:
        scores = short_way(
            Q_packed, D_packed, cu_seqlens_q, cu_seqlens_d, max_seqlen_q, max_seqlen_d, q_weights, normalize
        )
        if scores is not None:
            return scores
    fw, problem = packed(
        Q_packed,
        D_packed,
        cu_seqlens_q,
        cu_seqlens_d,
        max_seqlen_q,
        max_seqlen_d,
        normalize=normalize,
        q_weights=q_weights,
        storage=storage,
    )
    scores, argmax = score(problem, return_argmax)
    return (scores, fw.cast(argmax, "int32")) if return_argmax else scores


__all__ = ["maxsim_varlen"]
