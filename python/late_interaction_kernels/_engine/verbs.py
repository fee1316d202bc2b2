"""What can be done with a problem, of whichever kind its arrays are.

The modules for one kind are imported when they are needed, by their whole names: a relative
import takes a microsecond more at every call.
"""

from __future__ import annotations

import sys
from typing import Any

from . import native
from .problem import Problem


def _is_torch(x: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def score(p: Problem, want_argmax: bool = False) -> tuple[Any, Any]:
    """Scores, and the argmax or None; differentiable where tensors of torch want it."""
    if _is_torch(p.q.data):
        from late_interaction_kernels._engine import torch_ops

        return torch_ops.score(p, want_argmax)
    from late_interaction_kernels._engine import numpy_arrays

    return native.score(numpy_arrays, p, want_argmax)


def topk(p: Problem, k: int, id_base: int, smallest: bool) -> tuple[Any, Any]:
    """(values f32, ids int64), [queries, k]: best first, ties by lower id, NaN last, then (NaN,
    -1).
    """
    if _is_torch(p.q.data):
        from late_interaction_kernels._engine import torch_ops

        return torch_ops.topk(p, k, id_base, smallest)
    from late_interaction_kernels._engine import numpy_arrays

    return native.topk(numpy_arrays, p, k, id_base, smallest)


def topk_scratch(p: Problem, k: int) -> int:
    """Bytes of scratch that a chunk of documents would bound: 0 on CPUs, where it grows with k
    alone.
    """
    if _is_torch(p.q.data):
        from late_interaction_kernels._engine import torch_ops

        return torch_ops.topk_scratch(p, k)
    return 0


def merge_topk(values: Any, ids: Any, k: int, smallest: bool) -> tuple[Any, Any]:
    """The k best of several results of topk, values f32 and ids int64 [parts, queries, k_in]:
    [queries, k] in the order and with the filler of topk. Entries whose id is negative are
    ignored; an id that is in two parts comes back twice. On a device nothing waits for it.
    """
    if _is_torch(values):
        from late_interaction_kernels._engine import torch_ops

        return torch_ops.merge_topk(values, ids, k, smallest)
    import numpy

    from late_interaction_kernels._engine import numpy_arrays

    values, ids = numpy.ascontiguousarray(values), numpy.ascontiguousarray(ids)
    return native.merge_topk(numpy_arrays, values, ids, k, smallest)


def grad(
    p: Problem, grad_scores: Any, argmax: Any, into: tuple[Any, Any, Any], *, accumulate: bool = False
) -> None:
    """Writes the gradients of q, d and q_weights into three contiguous arrays, None for what is
    not wanted, each of its tokens' dtype and shape; with ``accumulate`` adds them to what is
    there, rounding the sum once. grad_scores is contiguous f32, argmax what score gave.
    """
    if _is_torch(p.q.data):
        from late_interaction_kernels._engine import torch_ops

        return torch_ops.grad(p, grad_scores, argmax, into, accumulate)
    from late_interaction_kernels._engine import numpy_arrays

    return native.grad(numpy_arrays, p, grad_scores, argmax, into, accumulate)
