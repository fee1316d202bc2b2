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


def _floats(fw: Framework, dtype: str, H: Any, W: Any) -> int:
    """What is made of a token, in floats: its projection, and itself if that is of another
    dtype.
    """
    floats = int(W.shape[0]) if dtype == "float32" else int(W.shape[0] + 1) // 2
    return floats if fw.dtype_name(H) == dtype else max(floats, int(W.shape[1]))


def _all_tokens(fw: Framework, dtype: str, H: Any, W: Any, b: Any, mask: Any) -> Any:
    """All documents at once, with torch's own history. What lies in a dropped token must not
    meet the zeros of its gradient.
    """
    if mask is not None and fw.wants_grad(W):
        H = fw.where(mask[..., None], H, 0)
    with fw.exact(H):
        if dtype == "float32":
            H, W, b = fw.cast(H, dtype), fw.cast(W, dtype), None if b is None else fw.cast(b, dtype)
        return fw.linear(H, W, b)


class _Projected:
    """Documents H W^T + b, projected a block at a time: in the dtype that the operands share,
    if it is one of 16 bits and they lie on a GPU, with sums in f32; else in f32.
    """

    def __init__(self, fw: Framework, dtype: str, H: Any, W: Any, b: Any, mask: Any) -> None:
        self.fw, self.dtype, self.mask = fw, dtype, mask
        self.H, self.W, self.b = detached((H, W, b))
        self.own_W = fw.cast(self.W, dtype)
        self.own_b = None if b is None else fw.cast(self.b, dtype)
        self.count, self.longest = int(H.shape[0]), int(H.shape[1])

    def spans(self) -> Iterator[tuple[int, int]]:
        return blocks.even_spans(self.count, self.longest, _floats(self.fw, self.dtype, self.H, self.W))

    def hidden(self, start: int, end: int) -> Any:
        return self.fw.cast(self.H[start:end], self.dtype)

    def tokens(self, start: int, end: int) -> Tokens:
        with self.fw.exact(self.own_W):
            tokens = self.fw.linear(self.hidden(start, end), self.own_W, self.own_b)
        return Tokens(tokens, None if self.mask is None else self.mask[start:end])

    def gradients(self, want: Any) -> list[Any]:
        """Room for the gradient of H, in its dtype; those of W and b are sums over blocks."""
        import torch

        return [
            torch.empty_like(self.H, memory_format=torch.contiguous_format) if want[0] else None,
            None,
            None,
        ]

    def accumulate(self, sums: list[Any], want: Any, start: int, end: int, grad: Any) -> None:
        import torch

        from ._engine.torch_blocks import added

        flat = grad.flatten(0, 1)
        with self.fw.exact(self.own_W):
            if want[0]:
                rows = sums[0][start:end]
                if rows.dtype is flat.dtype:
                    torch.mm(flat, self.own_W, out=rows.flatten(0, 1))
                else:
                    rows.copy_((flat @ self.own_W).view_as(rows))
            if want[1]:
                hidden = self.hidden(start, end)
                if self.mask is not None:  # what lies in a dropped token must not meet its zeros
                    hidden = torch.where(self.mask[start:end, :, None], hidden, 0)
                sums[1] = added(sums[1], flat.T @ hidden.flatten(0, 1))
            if want[2] and self.b is not None:
                # torch's sum of a tall matrix takes longer than all of its products
                wide = flat.dtype is torch.float32
                sums[2] = added(sums[2], flat.sum(0) if wide else (flat.new_ones(1, len(flat)) @ flat)[0])

    def finished(self, sums: list[Any], want: Any) -> list[Any]:
        import torch

        found = [sums[0]]
        for x, total, wanted in ((self.W, sums[1], want[1]), (self.b, sums[2], want[2])):
            if not wanted or x is None:
                found.append(None)
            else:
                found.append(torch.zeros_like(x) if total is None else total.to(x.dtype))
        return found


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
        without tokens score 0 and get zero gradients. Infinities as in :func:`maxsim`. On a GPU
        Q, H_d, W and b of one dtype of 16 bits are projected in it, with sums in f32, as
        ``torch.nn.functional.linear`` does; otherwise in f32.

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
    dtype = fw.projection_dtype(Q, H_d, W, b)
    all_floats = H_d.shape[0] * H_d.shape[1] * _floats(fw, dtype, H_d, W)
    if fw.tracing(q.data, H_d) or all_floats <= blocks.BLOCK_FLOATS:
        tokens = Tokens(_all_tokens(fw, dtype, H_d, W, b, d_mask), d_mask)
        scores, argmax = score(base._replace(d=tokens), return_argmax)
        argmax = None if argmax is None else fw.cast(argmax, "int32")
    else:
        source = _Projected(fw, dtype, H_d, W, b, d_mask)
        scores, argmax = blocks.score(fw, base, source, (H_d, W, b), return_argmax)
    if one:
        scores, argmax = scores[0], None if argmax is None else argmax[0]
    return (scores, argmax) if return_argmax else scores


__all__ = ["maxsim_from_hidden"]
