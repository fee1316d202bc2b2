"""MaxSimScorer: a torch module where torch is installed, a plain object for NumPy arrays where
it is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from ._engine.checks import check_shape, framework, is_packed, packed, padded, whole_number
from ._engine.compressed import CompressedTokens
from ._engine.kinds import Array, Storage
from ._engine.problem import detached
from ._engine.short import padded as short_way
from ._engine.verbs import score
from .autograd import BackwardMethod, check_backward
from .topk import maxsim_topk

if TYPE_CHECKING:
    from torch.nn import Module as _Base
else:
    try:
        from torch.nn import Module as _Base
    except ImportError:
        _Base = object


class MaxSimScorer(_Base):
    """MaxSim with its options bound. No parameters.

    Args:
        normalize: take every token as x / max(|x|, 1e-12) (default).
        backward: accepted for compatibility: "auto", "unified", "lowmem", None.
        mask_pad_token: token id that ``forward_with_ids`` masks.

    Example:
        >>> import torch
        >>> from late_interaction_kernels import MaxSimScorer
        >>> scorer = MaxSimScorer()
        >>> scorer(torch.ones(2, 3, 8), torch.ones(4, 5, 8)).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        *,
        normalize: bool = True,
        backward: BackwardMethod | None = "auto",
        mask_pad_token: int | None = None,
    ) -> None:
        super().__init__()
        check_backward(backward)
        self.normalize = normalize
        self.backward = backward
        self.mask_pad_token = mask_pad_token

    def forward(
        self,
        Q: Array,
        D: Array | tuple[Array, Array],
        q_mask: Array | None = None,
        d_mask: Array | None = None,
        *,
        q_weights: Array | None = None,
        storage: Storage | None = None,
        cu_seqlens_q: Array | None = None,
        cu_seqlens_d: Array | None = None,
        max_seqlen_q: int | None = None,
        max_seqlen_d: int | None = None,
    ) -> Array:
        """Scores as :func:`maxsim` gives them, infinities included; differentiable. float64 CPU
        tensors are scored in float64 where they are padded.

        Where a side has offsets it is packed, ``[total, d]``, as :func:`pack` makes it of a
        list; masks and weights are then ``[total]``. The bounds are those of
        :func:`maxsim_varlen`.
        """
        if is_packed(cu_seqlens_q, cu_seqlens_d, max_seqlen_q, max_seqlen_d):
            about: dict[str, Any] = {
                "q_mask": q_mask,
                "d_mask": d_mask,
                "q_weights": q_weights,
                "storage": storage,
            }
            offsets = cu_seqlens_q, cu_seqlens_d, max_seqlen_q, max_seqlen_d
            _, problem = packed(Q, D, *offsets, normalize=self.normalize, names=("Q", "D"), **about)
            scores: Array = score(problem)[0]
            return scores[0] if len(Q.shape) == 2 and cu_seqlens_q is None else scores
        if storage is None:
            scores = short_way(Q, D, q_mask, d_mask, q_weights, False, self.normalize)
            if scores is not None:
                return scores
        _, problem, shape = padded(
            Q,
            D,
            q_mask,
            d_mask,
            normalize=self.normalize,
            q_weights=q_weights,
            storage=storage,
            keep_f64=True,
        )
        scores = score(problem)[0]
        return scores if tuple(scores.shape) == shape else scores.reshape(shape)

    def score(
        self,
        Q: Array,
        D: Array | tuple[Array, Array],
        q_mask: Array | None = None,
        d_mask: Array | None = None,
        *,
        q_weights: Array | None = None,
        storage: Storage | None = None,
        cu_seqlens_q: Array | None = None,
        cu_seqlens_d: Array | None = None,
        max_seqlen_q: int | None = None,
        max_seqlen_d: int | None = None,
    ) -> Array:
        """The same scores outside autograd."""
        if storage is None and cu_seqlens_q is None and cu_seqlens_d is None:
            scores: Array = short_way(
                Q, D, q_mask, d_mask, q_weights, False, self.normalize, differentiable=False
            )
            if scores is not None:
                return scores
        result: Array = self.forward(
            detached(Q),
            detached(D),
            q_mask,
            d_mask,
            q_weights=detached(q_weights),
            storage=storage,
            cu_seqlens_q=cu_seqlens_q,
            cu_seqlens_d=cu_seqlens_d,
            max_seqlen_q=max_seqlen_q,
            max_seqlen_d=max_seqlen_d,
        )
        return result

    @overload
    def retrieve(
        self,
        Q: Array,
        D: Array | tuple[Array, Array] | CompressedTokens,
        top_k: int,
        q_mask: Array | None = None,
        d_mask: Array | None = None,
        *,
        chunk: int | None = None,
        q_weights: Array | None = None,
        return_argmax: Literal[False] = False,
        **packing: Any,
    ) -> tuple[Array, Array]: ...

    @overload
    def retrieve(
        self,
        Q: Array,
        D: Array | tuple[Array, Array] | CompressedTokens,
        top_k: int,
        q_mask: Array | None = None,
        d_mask: Array | None = None,
        *,
        chunk: int | None = None,
        q_weights: Array | None = None,
        return_argmax: Literal[True],
        **packing: Any,
    ) -> tuple[Array, Array, Array]: ...

    @overload
    def retrieve(
        self,
        Q: Array,
        D: Array | tuple[Array, Array] | CompressedTokens,
        top_k: int,
        q_mask: Array | None = None,
        d_mask: Array | None = None,
        *,
        chunk: int | None = None,
        q_weights: Array | None = None,
        return_argmax: bool,
        **packing: Any,
    ) -> tuple[Array, Array] | tuple[Array, Array, Array]: ...

    def retrieve(
        self,
        Q: Any,
        D: Any,
        top_k: int,
        q_mask: Any = None,
        d_mask: Any = None,
        *,
        chunk: int | None = None,
        q_weights: Any = None,
        **packing: Any,
    ) -> Any:
        """The top_k best documents: see :func:`late_interaction_kernels.retrieve`, whose other
        options ``packing`` are.
        """
        chunk_size = None if chunk is None else whole_number("chunk", chunk)
        about: dict[str, Any] = {
            "normalize": self.normalize,
            "chunk_size": chunk_size,
            "q_weights": q_weights,
        }
        return maxsim_topk(Q, D, whole_number("top_k", top_k), q_mask, d_mask, **about, **packing)

    def forward_with_ids(
        self,
        Q: Array,
        D: Array,
        q_ids: Array,
        d_ids: Array,
        *,
        q_weights: Array | None = None,
        **packing: Any,
    ) -> Array:
        """Scores with masks made from token ids of the tokens' shapes: a token counts where its
        id is not ``mask_pad_token``; ``packing`` as in :meth:`forward`.
        """
        if self.mask_pad_token is None:
            raise ValueError("forward_with_ids needs mask_pad_token, which was not given to MaxSimScorer")
        fw = framework(Q=Q, D=D, q_ids=q_ids, d_ids=d_ids)
        for name, ids, x, of in (("q_ids", q_ids, Q, "Q"), ("d_ids", d_ids, D, "D")):
            check_shape(name, ids, tuple(x.shape[:-1]), f"shaped like {of} without its last axis")
            if not fw.is_integer(ids):
                raise TypeError(f"{name} has dtype {fw.dtype_name(ids)}, must be an integer dtype")
        pad = self.mask_pad_token
        scores: Array = self.forward(Q, D, q_ids != pad, d_ids != pad, q_weights=q_weights, **packing)
        return scores

    def extra_repr(self) -> str:
        return f"normalize={self.normalize}, backward={self.backward!r}, mask_pad_token={self.mask_pad_token}"

    if TYPE_CHECKING:
        __call__ = forward
    elif _Base is object:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.forward(*args, **kwargs)

        def __repr__(self) -> str:
            return f"MaxSimScorer({self.extra_repr()})"


__all__ = ["MaxSimScorer"]
