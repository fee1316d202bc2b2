"""MaxSim of padded tensors, with gradients: :func:`maxsim` and :func:`maxsim_pairs`.

score(q, d) = sum over query tokens s of  w[s] * max over document tokens t of  <q[s], d[t]>
"""

from __future__ import annotations

import warnings
from typing import Any, Literal, overload

from ._engine.checks import compiling, framework, padded
from ._engine.environment import flag
from ._engine.kinds import Array, Storage
from ._engine.short import padded as short_way
from ._engine.verbs import score

BackwardMethod = Literal["auto", "unified", "lowmem"]
_BACKWARDS = (None, "auto", "unified", "lowmem")

# The norms are looked at once a process. The existing package's flag has had both names, and
# its tests reset them.
_NORM_CHECKED = False
_WARNED_UNNORMALIZED = False


def check_backward(backward: str | None) -> None:
    """The names are kept; the gradient is computed in one way, exact and deterministic,
    whichever is given.
    """
    if backward not in _BACKWARDS:
        raise ValueError(f'backward must be None, "auto", "unified" or "lowmem", got {backward!r}')


def _maybe_warn_unnormalized(Q: Any) -> None:
    """Once a process: warn when the queries are visibly not unit vectors and normalize is off.
    The first that have values are looked at, with a wait on CUDA; none while a graph is
    captured, a trace taken or torch.func at work.
    """
    global _NORM_CHECKED, _WARNED_UNNORMALIZED
    if compiling() or (
        _NORM_CHECKED and _WARNED_UNNORMALIZED
    ):  # in this order: a compiled graph guards on flags
        return
    fw = framework(Q=Q)
    if not fw.may_wait(Q):
        return
    _NORM_CHECKED = _WARNED_UNNORMALIZED = True
    if flag("LIK_SUPPRESS_NORM_WARN"):
        return
    length = max(min(int(Q.shape[-2]), 64), 1)
    rows = (Q if len(Q.shape) == 2 else Q[: -(-64 // length)])[..., :64, :]  # what is reshaped is copied
    rows = rows.reshape(-1, Q.shape[-1])[:64]
    if 0 in tuple(rows.shape):
        return
    squares = fw.cast(rows.detach() if hasattr(rows, "detach") else rows, "float32") ** 2
    norms = sorted(s**0.5 for s in squares.sum(-1).tolist())
    median = norms[len(norms) // 2]
    if not 0.9 <= median <= 1.1:
        warnings.warn(
            f"late-interaction-kernels: the query tokens have a median L2 norm of {median:.3g}; MaxSim is "
            "usually taken of unit vectors. Pass normalize=True to normalize on the fly, or set "
            "LIK_SUPPRESS_NORM_WARN=1 if this is intended.",
            UserWarning,
            stacklevel=3,
        )


@overload
def maxsim(
    Q: Array,
    D: Array | tuple[Array, Array],
    q_mask: Array | None = None,
    d_mask: Array | None = None,
    *,
    normalize: bool = False,
    backward: str | None = None,
    q_weights: Array | None = None,
    storage: Storage | None = None,
    return_argmax: Literal[False] = False,
) -> Array: ...


@overload
def maxsim(
    Q: Array,
    D: Array | tuple[Array, Array],
    q_mask: Array | None = None,
    d_mask: Array | None = None,
    *,
    normalize: bool = False,
    backward: str | None = None,
    q_weights: Array | None = None,
    storage: Storage | None = None,
    return_argmax: Literal[True],
) -> tuple[Array, Array]: ...


def maxsim(
    Q: Any,
    D: Any,
    q_mask: Any = None,
    d_mask: Any = None,
    *,
    normalize: bool = False,
    backward: str | None = None,
    q_weights: Any = None,
    storage: str | None = None,
    return_argmax: bool = False,
) -> Any:
    """Score every query against every document, or against its own candidates.

    Args:
        Q: query tokens ``[Nq, Lq, d]`` or ``[Lq, d]``; float32, float16, bfloat16 (float64
            counts as float32).
        D: document tokens ``[Nd, Ld, d]``, ``[Ld, d]``, or candidates ``[Nq, K, Ld, d]``; its
            dtype may differ from Q's. With ``storage="int8"`` also the pair that
            ``quantize_int8_per_token`` returns, with ``storage="fp8"`` that of
            ``quantize_fp8_per_token``.
        q_mask: bool (or integers 0 and 1) of Q's shape without d, True = token counts. Any
            pattern.
        d_mask: likewise for D. Dropped document tokens take no part in the maximum.
        normalize: take every token as x / max(|x|, 1e-12).
        backward: accepted for compatibility: None, "auto", "unified", "lowmem".
        q_weights: float, Q's shape without d: factor of each query token's maximum.
            Differentiable.
        storage: None, or "int8" or "fp8": documents as 8-bit integers or floats with a scale
            per token (gradients reach Q only).
        return_argmax: also return which document token matched.

    Returns:
        float32 scores ``[Nq, Nd]`` (``[Nq, K]`` for candidates; a 2-D argument drops its axis).
        A document or query without tokens that count scores 0. With ``return_argmax`` the pair
        (scores, int32 ``[*scores.shape, Lq]``): the index of the winning document token, the
        lowest of equals, -1 where there is none. An infinity among float32 tokens makes NaN on
        CUDA, where CPUs go by IEEE arithmetic.

    Raises:
        ValueError: ranks, shapes, devices or values that do not fit; the message names the
        argument.
        TypeError: integer embeddings, masks that are neither bool nor integer, mixed
        frameworks, numpy.ma arrays.

    Gradients flow to Q, D and q_weights, each in its tensor's dtype; only winning tokens
    receive any.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels import maxsim
        >>> Q = np.eye(2, 4, dtype=np.float32)[None]
        >>> D = np.eye(3, 4, dtype=np.float32)[None]
        >>> maxsim(Q, D).tolist()
        [[2.0]]
    """
    if (
        not compiling()
        and ((_NORM_CHECKED and _WARNED_UNNORMALIZED) or normalize or getattr(D, "ndim", 0) == 4)
        and storage is None
        and not return_argmax
        and backward is None
    ):
        scores = short_way(Q, D, q_mask, d_mask, q_weights, False, normalize)
        if scores is not None:
            return scores
    check_backward(backward)
    fw, problem, shape = padded(
        Q, D, q_mask, d_mask, normalize=normalize, q_weights=q_weights, storage=storage
    )
    if not normalize and len(problem.d.data.shape) == 3:
        _maybe_warn_unnormalized(problem.q.data)
    scores, argmax = score(problem, return_argmax)
    if tuple(scores.shape) != shape:
        scores = scores.reshape(shape)
    if not return_argmax:
        return scores
    return scores, fw.cast(argmax, "int32").reshape((*shape, argmax.shape[-1]))


@overload
def maxsim_pairs(
    Q: Array,
    D: Array | tuple[Array, Array],
    q_mask: Array | None = None,
    d_mask: Array | None = None,
    *,
    normalize: bool = False,
    backward: str | None = None,
    q_weights: Array | None = None,
    storage: Storage | None = None,
    return_argmax: Literal[False] = False,
) -> Array: ...


@overload
def maxsim_pairs(
    Q: Array,
    D: Array | tuple[Array, Array],
    q_mask: Array | None = None,
    d_mask: Array | None = None,
    *,
    normalize: bool = False,
    backward: str | None = None,
    q_weights: Array | None = None,
    storage: Storage | None = None,
    return_argmax: Literal[True],
) -> tuple[Array, Array]: ...


def maxsim_pairs(
    Q: Any,
    D: Any,
    q_mask: Any = None,
    d_mask: Any = None,
    *,
    normalize: bool = False,
    backward: str | None = None,
    q_weights: Any = None,
    storage: str | None = None,
    return_argmax: bool = False,
) -> Any:
    """Score query i against document i: Q ``[B, Lq, d]``, D ``[B, Ld, d]`` -> float32 ``[B]``.

    The other arguments, dtypes, errors and gradients are those of :func:`maxsim`; masks are
    ``[B, Lq]`` and ``[B, Ld]``, the argmax ``[B, Lq]``.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels import maxsim_pairs
        >>> Q = np.ones((3, 2, 4), np.float32)
        >>> maxsim_pairs(Q, Q).tolist()
        [8.0, 8.0, 8.0]
    """
    if storage is None and not return_argmax and backward is None:
        scores = short_way(Q, D, q_mask, d_mask, q_weights, True, normalize)
        if scores is not None:
            return scores
    check_backward(backward)
    fw, problem, _ = padded(
        Q, D, q_mask, d_mask, normalize=normalize, q_weights=q_weights, storage=storage, pairs=True
    )
    scores, argmax = score(problem, return_argmax)
    return (scores, fw.cast(argmax, "int32")) if return_argmax else scores


__all__ = ["maxsim", "maxsim_pairs"]
