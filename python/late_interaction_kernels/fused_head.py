"""Scoring hidden states through a projection, without ever holding all projected documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ._engine import blocks
from ._engine.checks import (
    Framework,
    check_device,
    check_rank,
    check_shape,
    embeddings,
    framework,
    token_mask,
    token_weights,
)
from ._engine.problem import NORMALIZE_D, Problem, Tokens, batched, detached
from ._engine.verbs import score


class _Projected:
    """Documents H W^T + b, projected in f32 a block at a time; dropped tokens count as zero
    vectors.
    """

    def __init__(self, fw: Framework, H: Any, W: Any, b: Any, mask: Any) -> None:
        self.fw, self.mask = fw, mask
        self.H, self.W, self.b = detached((H, W, b))
        self.wide_W = fw.cast(self.W, "float32")
        self.wide_b = None if b is None else fw.cast(self.b, "float32")
        self.count, self.longest = int(H.shape[0]), int(H.shape[1])

    def spans(self) -> Iterator[tuple[int, int]]:
        return blocks.even_spans(self.count, self.longest, max(int(self.W.shape[0]), int(self.W.shape[1])))

    def hidden(self, start: int, end: int) -> Any:
        """f32 [n, Ld, d_model], zero where the mask drops a token: what lies there must not
        reach a product.
        """
        block = self.fw.cast(self.H[start:end], "float32")
        return block if self.mask is None else self.fw.where(self.mask[start:end][..., None], block, 0.0)

    def tokens(self, start: int, end: int) -> Tokens:
        with self.fw.exact(self.wide_W):
            tokens = self.hidden(start, end) @ self.wide_W.T
        if self.wide_b is not None:
            tokens = tokens + self.wide_b
        return Tokens(tokens, None if self.mask is None else self.mask[start:end])

    def gradients(self, want: Any) -> list[Any]:
        """Room for the gradients of (H, W, b): H in its dtype, sums of W and b in f32."""
        import torch

        H, W, b = want
        return [
            torch.empty(self.H.shape, dtype=self.H.dtype, device=self.H.device) if H else None,
            torch.zeros_like(self.wide_W) if W else None,
            torch.zeros_like(self.wide_b) if b and self.wide_b is not None else None,
        ]

    def accumulate(self, sums: list[Any], start: int, end: int, grad: Any) -> None:
        grad_H, grad_W, grad_b = sums
        flat = grad.flatten(0, 1)
        with self.fw.exact(self.wide_W):
            if grad_H is not None:
                grad_H[start:end] = grad @ self.wide_W
            if grad_W is not None:
                grad_W.addmm_(flat.T, self.hidden(start, end).flatten(0, 1))
            if grad_b is not None:
                grad_b += flat.sum(0)

    def finished(self, sums: list[Any]) -> list[Any]:
        grad_H, grad_W, grad_b = sums
        return [
            grad_H,
            None if grad_W is None else grad_W.to(self.W.dtype),
            None if grad_b is None else grad_b.to(self.b.dtype),
        ]


def maxsim_from_hidden(
    Q: Any,
    H_d: Any,
    W: Any,
    b: Any = None,
    d_mask: Any = None,
    normalize: bool = True,
    *,
    q_mask: Any = None,
    q_weights: Any = None,
    return_argmax: bool = False,
) -> Any:
    """Scores of queries against documents ``H_d @ W.T + b``.

    Args:
        Q: query tokens ``[Nq, Lq, d_out]``, or ``[Lq, d_out]`` for a result ``[Nd]``; neither
            projected nor normalized.
        H_d: hidden states ``[Nd, Ld, d_model]``.
        W: ``[d_out, d_model]``.
        b: ``[d_out]`` or None.
        d_mask: ``[Nd, Ld]``, bool or integers 0 and 1: tokens that count.
        normalize: normalize the projected tokens (norm clamped at 1e-12).
        q_mask, q_weights, return_argmax: as in :func:`maxsim`.

    Returns:
        float32 ``[Nq, Nd]``. Gradients flow to Q, H_d, W, b and q_weights, each in its dtype;
        memory stays at one block of projected documents, in the backward pass too. Documents
        without tokens score 0 and get zero gradients. Infinities as in :func:`maxsim`.

    Raises:
        ValueError: shapes and devices.
        TypeError: dtypes.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.fused_head import maxsim_from_hidden
        >>> Q, H, W = np.eye(2, 3, dtype="f4"), np.ones((1, 4, 5), "f4"), np.ones((3, 5), "f4")
        >>> round(float(maxsim_from_hidden(Q, H, W)[0]), 3)
        1.155
    """
    fw = framework(Q=Q, H_d=H_d, W=W, b=b, d_mask=d_mask, q_mask=q_mask, q_weights=q_weights)
    check_rank("Q", Q, (2, 3), "[Nq, Lq, d_out] or [Lq, d_out]")
    check_rank("H_d", H_d, (3,), "[Nd, Ld, d_model]")
    check_rank("W", W, (2,), "[d_out, d_model]")
    check_shape("W", W, (Q.shape[-1], H_d.shape[-1]), "[Q.shape[-1], H_d.shape[-1]]")
    if b is not None:
        check_shape("b", b, (Q.shape[-1],), "[Q.shape[-1]]")
    tensors = {"H_d": H_d, "W": W, "b": b}
    for name, x in tensors.items():
        if x is not None:
            check_device(fw, name, x, Q, "Q")
    d_mask = token_mask(fw, "d_mask", d_mask, tuple(H_d.shape[:-1]), H_d, "H_d")
    q_mask = token_mask(fw, "q_mask", q_mask, tuple(Q.shape[:-1]), Q, "Q")
    weights = token_weights(fw, q_weights, tuple(Q.shape[:-1]), Q, "Q")
    q = Tokens(embeddings(fw, "Q", Q), q_mask, weights)
    H_d, W = embeddings(fw, "H_d", H_d), embeddings(fw, "W", W)
    b = None if b is None else embeddings(fw, "b", b)
    one = len(Q.shape) == 2
    base = Problem(batched(q) if one else q, Tokens(None), normalize=NORMALIZE_D if normalize else 0)
    if fw.tracing(q.data, H_d):
        tokens = fw.linear(H_d, W, b, d_mask)
        scores, argmax = score(base._replace(d=Tokens(tokens, d_mask)), return_argmax)
        argmax = None if argmax is None else fw.cast(argmax, "int32")
    else:
        source = _Projected(fw, H_d, W, b, d_mask)
        scores, argmax = blocks.score(fw, base, source, (H_d, W, b), return_argmax)
    if one:
        scores, argmax = scores[0], None if argmax is None else argmax[0]
    return (scores, argmax) if return_argmax else scores


__all__ = ["maxsim_from_hidden"]
