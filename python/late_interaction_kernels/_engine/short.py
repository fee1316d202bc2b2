"""The way of the commonest calls: the extension takes the arguments as the user gave them,
allocates the results, and answers None wherever all is not well or not plain, which the long
way then looks at and words the errors of.
"""

from __future__ import annotations

from typing import Any

from .. import _native
from .checks import compiling
from .problem import ALL, FOLLOW, LIST, NORMALIZE, PAIRS

# The calls below are the fields of a problem (problem.ARRAYS, problem.CHOICES), pairing ALL for
# candidates as well, and None for a length that nobody has given. Compressed tokens go the long
# way.


def padded(
    Q: Any,
    D: Any,
    q_mask: Any,
    d_mask: Any,
    q_weights: Any,
    pairs: bool,
    normalize: bool,
    differentiable: bool = True,
) -> Any:
    """The scores of padded tensors."""
    if compiling():
        return None
    pairing, unit = PAIRS if pairs else ALL, NORMALIZE if normalize else 0
    # fmt: off
    return _native.maxsim(
        Q, D, q_mask, d_mask, q_weights, None, None, None, None, None, None, None, None, None,
        pairing, unit, FOLLOW, None, None, 0, 0, differentiable,
    )
    # fmt: on


def packed(
    Q: Any,
    D: Any,
    cu_seqlens_q: Any,
    cu_seqlens_d: Any,
    max_seqlen_q: int | None,
    max_seqlen_d: int | None,
    q_weights: Any,
    normalize: bool,
    pairs: tuple[Any, Any] | None = None,
) -> Any:
    """The scores of packed tokens."""
    if compiling() or cu_seqlens_q is None or cu_seqlens_d is None:
        return None
    operands = Q, D, None, None, q_weights, None, None, cu_seqlens_q, cu_seqlens_d, *(pairs or (None, None))
    choices = LIST if pairs else ALL, NORMALIZE if normalize else 0, FOLLOW, max_seqlen_q, max_seqlen_d
    return _native.maxsim(*operands, None, None, None, *choices, 0, 0, True)


def topk(
    Q: Any, D: Any, q_mask: Any, d_mask: Any, q_weights: Any, normalize: bool, k: int, smallest: bool
) -> Any:
    """(values, ids) of tensors of torch."""
    if compiling():
        return None
    # fmt: off
    return _native.best(
        Q, D, q_mask, d_mask, q_weights, None, None, None, None, None, None, None, None, None,
        ALL, NORMALIZE if normalize else 0, FOLLOW, None, None, 0, 0, k, smallest,
    )
    # fmt: on
