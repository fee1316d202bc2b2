"""High-level retrieval: :func:`retrieve` and :class:`MaxSimScorer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from ._engine.checks import whole_number
from ._engine.compressed import CompressedTokens
from ._engine.kinds import Array, Storage
from .autograd import BackwardMethod as BackwardMethod
from .exact import TwoCopies
from .topk import maxsim_topk

if TYPE_CHECKING:
    from ._scorer import MaxSimScorer as MaxSimScorer


@overload
def retrieve(
    Q: Array,
    D: Array | tuple[Array, Array] | CompressedTokens | TwoCopies,
    top_k: int,
    q_mask: Array | None = None,
    d_mask: Array | None = None,
    *,
    normalize: bool = True,
    chunk: int | None = None,
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
def retrieve(
    Q: Array,
    D: Array | tuple[Array, Array] | CompressedTokens | TwoCopies,
    top_k: int,
    q_mask: Array | None = None,
    d_mask: Array | None = None,
    *,
    normalize: bool = True,
    chunk: int | None = None,
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
def retrieve(
    Q: Array,
    D: Array | tuple[Array, Array] | CompressedTokens,
    top_k: int,
    q_mask: Array | None = None,
    d_mask: Array | None = None,
    *,
    normalize: bool = True,
    chunk: int | None = None,
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


def retrieve(
    Q: Any,
    D: Any,
    top_k: int,
    q_mask: Any = None,
    d_mask: Any = None,
    *,
    normalize: bool = True,
    chunk: int | None = None,
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
    """The ``min(top_k, Nd)`` best documents of each query: (scores float32, indices int64),
    ``[Nq, k]``.

    As :func:`late_interaction_kernels.topk.maxsim_topk`, but tokens are normalized unless
    ``normalize=False``. Q ``[Nq, Lq, d]`` or ``[Lq, d]`` (results ``[k]``), D ``[Nd, Ld, d]``,
    or packed ``[total_d, d]`` with ``cu_seqlens_d``, as :func:`pack` makes both of a list.
    With ``exact`` D is what :func:`exact.two_copies` made: the same results, on a CPU in less
    than half of the time. Never differentiable. Infinities as there.

    :func:`maxsim` does not normalize unless it is told to. Tokens that are unit vectors already
    gain nothing from it: ``normalize=False`` saves their norms, a fifth to two fifths of the
    time on a CPU.

    Raises:
        ValueError: top_k or chunk below 1, and what :func:`maxsim` refuses.
        TypeError: top_k or chunk that is no integer.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels import retrieve
        >>> D = np.eye(4, dtype=np.float32)[:, None]
        >>> scores, indices = retrieve(D[2], D, top_k=2)
        >>> indices.tolist(), scores.tolist()
        ([2, 0], [1.0, 0.0])
    """
    about: dict[str, Any] = {
        "normalize": normalize,
        "chunk_size": None if chunk is None else whole_number("chunk", chunk),
        "largest": largest,
        "sorted": sorted,
        "q_weights": q_weights,
        "storage": storage,
        "exact": exact,
        "return_argmax": return_argmax,
        "cu_seqlens_q": cu_seqlens_q,
        "cu_seqlens_d": cu_seqlens_d,
        "max_seqlen_q": max_seqlen_q,
        "max_seqlen_d": max_seqlen_d,
    }
    return maxsim_topk(Q, D, whole_number("top_k", top_k), q_mask, d_mask, **about)


def __getattr__(name: str) -> Any:
    if name == "MaxSimScorer":
        from ._scorer import MaxSimScorer

        return MaxSimScorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["MaxSimScorer", "retrieve"]
