"""The forward pass alone, with its argmax."""

from __future__ import annotations

from typing import Any

from ._engine.checks import check_rank, framework, padded
from ._engine.problem import detached
from ._engine.verbs import score


def maxsim_forward(
    Q: Any,
    D: Any,
    q_mask: Any = None,
    d_mask: Any = None,
    *,
    save_argmax: bool = False,
    normalize: bool = False,
    q_weights: Any = None,
) -> tuple[Any, Any]:
    """Scores ``[Nq, Nd]`` of ``[Nq, Lq, d]`` x ``[Nd, Ld, d]``, and the argmax int32 ``[Nq *
    Nd, Lq]`` or None.

    Never differentiable. The argmax is -1 where a query token is dropped or a document keeps no
    token. Dtypes, masks, weights and errors are those of :func:`maxsim`.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.forward import maxsim_forward
        >>> x = np.eye(2, dtype="f4")[None]
        >>> scores, argmax = maxsim_forward(x, x, save_argmax=True)
        >>> argmax.tolist()
        [[0, 1]]
    """
    framework(Q=Q, D=D)
    check_rank("Q", Q, (3,), "[Nq, Lq, d]")
    check_rank("D", D, (3,), "[Nd, Ld, d]")
    fw, problem, _ = padded(
        detached(Q), detached(D), q_mask, d_mask, normalize=normalize, q_weights=detached(q_weights)
    )
    scores, argmax = score(problem, save_argmax)
    if not save_argmax:
        return scores, None
    return scores, fw.cast(argmax, "int32").reshape((scores.shape[0] * scores.shape[1], argmax.shape[-1]))


__all__ = ["maxsim_forward"]
