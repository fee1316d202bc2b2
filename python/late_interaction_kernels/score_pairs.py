"""Scores of an explicit list of (query, document) pairs over packed tokens."""

from __future__ import annotations

from typing import Any, Literal, overload

from ._engine.checks import Framework, check_device, check_range, check_rank, framework, packed
from ._engine.kinds import Array, Storage
from ._engine.problem import LIST
from ._engine.short import packed as short_way
from ._engine.verbs import score


def pair_index(fw: Framework, name: str, index: Any, count: int, like: Any) -> Any:
    """One side of a pair list: 1-D integers in 0 ... count - 1, as contiguous int64."""
    check_rank(name, index, (1,), "[pairs]")
    if not fw.is_integer(index):
        raise TypeError(f"{name} has dtype {fw.dtype_name(index)}, must be an integer dtype")
    check_device(fw, name, index, like, "Q_packed")
    index = fw.contiguous(fw.cast(index, "int64"))
    if fw.readable(index):
        check_range(fw, name, index, 0, count - 1)
    return index


@overload
def score_pairs_packed(
    Q_packed: Array,
    D_packed: Array | tuple[Array, Array],
    cu_seqlens_q: Array,
    cu_seqlens_d: Array,
    pair_q_idx: Array,
    pair_d_idx: Array,
    *,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
    normalize: bool = False,
    q_weights: Array | None = None,
    storage: Storage | None = None,
    return_argmax: Literal[False] = False,
) -> Array: ...


@overload
def score_pairs_packed(
    Q_packed: Array,
    D_packed: Array | tuple[Array, Array],
    cu_seqlens_q: Array,
    cu_seqlens_d: Array,
    pair_q_idx: Array,
    pair_d_idx: Array,
    *,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
    normalize: bool = False,
    q_weights: Array | None = None,
    storage: Storage | None = None,
    return_argmax: Literal[True],
) -> tuple[Array, Array]: ...


@overload
def score_pairs_packed(
    Q_packed: Array,
    D_packed: Array | tuple[Array, Array],
    cu_seqlens_q: Array,
    cu_seqlens_d: Array,
    pair_q_idx: Array,
    pair_d_idx: Array,
    *,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
    normalize: bool = False,
    q_weights: Array | None = None,
    storage: Storage | None = None,
    return_argmax: bool,
) -> Array | tuple[Array, Array]: ...


def score_pairs_packed(
    Q_packed: Any,
    D_packed: Any,
    cu_seqlens_q: Any,
    cu_seqlens_d: Any,
    pair_q_idx: Any,
    pair_d_idx: Any,
    *,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
    normalize: bool = False,
    q_weights: Any = None,
    storage: str | None = None,
    return_argmax: bool = False,
) -> Any:
    """Score query ``pair_q_idx[n]`` against document ``pair_d_idx[n]`` for every n: float32
    ``[pairs]``.

    Pair indices are 1-D integers of equal length; pairs may repeat. The tokens and the other
    arguments are those of :func:`maxsim_varlen`; gradients flow to both sides, summed over
    repeats, bit for bit the same every time.

    Raises:
        ValueError: shapes, offsets, or indices outside the sequences. In device memory these
        are not looked at, unless with ``LIK_CHECK=1``: such a pair scores NaN.
        TypeError: dtypes that do not fit.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.score_pairs import score_pairs_packed
        >>> tokens, offsets = np.eye(3, dtype=np.float32), np.array([0, 1, 3])
        >>> pairs = np.array([1, 0]), np.array([1, 1])
        >>> score_pairs_packed(tokens, tokens, offsets, offsets, *pairs).tolist()
        [2.0, 0.0]
    """
    if storage is None and not return_argmax:
        pairs, bounds = (pair_q_idx, pair_d_idx), (max_seqlen_q, max_seqlen_d)
        scores = short_way(
            Q_packed, D_packed, cu_seqlens_q, cu_seqlens_d, *bounds, q_weights, normalize, pairs
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
    framework(Q_packed=Q_packed, pair_q_idx=pair_q_idx, pair_d_idx=pair_d_idx)
    list_q = pair_index(fw, "pair_q_idx", pair_q_idx, problem.q.offsets.shape[0] - 1, problem.q.data)
    list_d = pair_index(fw, "pair_d_idx", pair_d_idx, problem.d.offsets.shape[0] - 1, problem.q.data)
    if list_q.shape[0] != list_d.shape[0]:
        raise ValueError(
            f"pair_q_idx and pair_d_idx must have the same length, "
            f"got {int(list_q.shape[0])} and {int(list_d.shape[0])}"
        )
    scores, argmax = score(problem._replace(list_q=list_q, list_d=list_d, pairing=LIST), return_argmax)
    return (scores, fw.cast(argmax, "int32")) if return_argmax else scores


__all__ = ["score_pairs_packed"]
