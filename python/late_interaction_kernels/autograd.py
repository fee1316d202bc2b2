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

# The norms have been looked at. The existing package's flag has had both names, and its tests
# reset them.
_NORM_CHECKED = False
_WARNED_UNNORMALIZED = False
# Calls since then, and the one that looks again: where nothing has to be waited for the second,
# the fourth, the eighth and so on.
_calls = 0
_next_look = 0
_LAST_LOOK = 1024


def check_backward(backward: str | None) -> None:
    """The names are kept; the gradient is computed in one way, exact and deterministic,
    whichever is given.
    """
    if backward not in _BACKWARDS:
        raise ValueError(f'backward must be None, "auto", "unified" or "lowmem", got {backward!r}')


def _counted() -> bool:
    """Counts a call that does not normalize. Is it one that need not look at norms?"""
    global _NORM_CHECKED, _calls
    if _NORM_CHECKED and _WARNED_UNNORMALIZED:
        _calls += 1
        if _calls != _next_look:
            return True
        _NORM_CHECKED = False
    return False


def _median_norm(fw: Any, x: Any) -> float | None:
    """Of 64 tokens spread over all of ``[N, L, d]``, those of zeros apart: they are padding."""
    sequences, length = int(x.shape[0]), int(x.shape[1])
    rows = range(0, sequences * length, max(sequences * length // 64, 1))
    if not rows or not int(x.shape[2]):
        return None
    some = x.detach() if hasattr(x, "detach") else x
    some = some[[row // length for row in rows], [row % length for row in rows]]
    squares = (fw.cast(some, "float32") ** 2).sum(-1).tolist()
    norms = sorted(square**0.5 for square in squares if square > 0)
    return norms[len(norms) // 2] if norms else None


def _maybe_warn_unnormalized(Q: Any, D: Any = None) -> None:
    """Warn, once a process, when tokens are visibly not unit vectors and normalize is off. The
    first that have values are looked at, with a wait on CUDA, and some of later calls on CPUs;
    none while a graph is captured, a trace taken or torch.func at work.
    """
    global _NORM_CHECKED, _WARNED_UNNORMALIZED, _calls, _next_look
    if compiling() or (
        _NORM_CHECKED and _WARNED_UNNORMALIZED
    ):  # in this order: a compiled graph guards on flags
        return
    tokens = {"query": Q} if D is None else {"query": Q, "document": D}
    fw = framework(**tokens)
    if not all(map(fw.may_wait, tokens.values())):
        return
    again = _calls if _calls == _next_look else 0
    _NORM_CHECKED = _WARNED_UNNORMALIZED = True
    _calls = max(again, 1)
    _next_look = 2 * _calls if all(map(fw.on_host, tokens.values())) and _calls < _LAST_LOOK else 0
    if flag("LIK_SUPPRESS_NORM_WARN"):
        _next_look = 0
        return
    for name, x in tokens.items():
        median = _median_norm(fw, x if len(x.shape) == 3 else x[None])
        if median is not None and not 0.9 <= median <= 1.1:
            _next_look = 0
            warnings.warn(
                f"late-interaction-kernels: the {name} tokens have a median L2 norm of {median:.3g}; MaxSim "
                "is usually taken of unit vectors. Pass normalize=True to normalize on the fly, or set "
                "LIK_SUPPRESS_NORM_WARN=1 if this is intended.",
                UserWarning,
                stacklevel=3,
            )
            return


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
    return_argmax: bool,
) -> Array | tuple[Array, Array]: ...


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
        and (normalize or getattr(D, "ndim", 0) == 4 or _counted())
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
        _maybe_warn_unnormalized(problem.q.data, problem.d.data if storage is None else None)
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
    return_argmax: bool,
) -> Array | tuple[Array, Array]: ...


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
