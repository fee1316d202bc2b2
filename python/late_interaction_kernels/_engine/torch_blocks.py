"""Gradients through documents that are made block by block (see ``blocks``)."""

from __future__ import annotations

from typing import Any

import torch

from . import torch_ops
from .problem import Problem, fields


class _Score(torch.autograd.Function):
    """apply(q, q_weights, base, source, results, *parameters): gives scores that are computed
    already, with the argmax of each block, their history. The parameters are what the source
    makes documents from.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Any, q_weights: Any, base: Problem, source: Any, results: Any, *parameters: Any
    ) -> Any:
        scores, winners = results
        ctx.save_for_backward(q, q_weights, base.q.mask, *parameters, *winners)
        ctx.parameters = len(parameters)
        ctx.base, ctx.source = base, source
        ctx.set_materialize_grads(False)
        return scores

    @staticmethod
    def backward(ctx: Any, grad_scores: Any) -> tuple[Any, ...]:
        if grad_scores is None:
            return (None,) * (5 + int(ctx.parameters))
        q, q_weights, q_mask, *rest = ctx.saved_tensors
        winners = rest[ctx.parameters :]
        base = ctx.base
        want_q, want_weights = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        want_parameters = ctx.needs_input_grad[5:]
        with torch.no_grad():
            queries = base.q._replace(data=q.float(), weights=q_weights, mask=q_mask)
            sum_q = torch.zeros(q.shape, dtype=torch.float32, device=q.device) if want_q else None
            sum_w = torch.zeros(q.shape[:-1], dtype=torch.float32, device=q.device) if want_weights else None
            sums = ctx.source.gradients(want_parameters)
            for (a, b), argmax in zip(ctx.source.spans(), winners, strict=True):
                problem = base._replace(q=queries, d=ctx.source.tokens(a, b))
                want = (want_q, any(want_parameters), want_weights)
                gq, gd, gw = torch_ops.run_grad(*fields(problem), grad_scores[:, a:b], argmax, *want)
                if sum_q is not None:
                    sum_q += gq
                if sum_w is not None:
                    sum_w += gw
                if any(want_parameters):
                    ctx.source.accumulate(sums, a, b, gd)
            grads: tuple[Any, ...] = (
                None if sum_q is None else sum_q.to(q.dtype),
                sum_w,
                *ctx.source.finished(sums),
            )
        if torch.is_grad_enabled():
            sources = (*ctx.saved_tensors[:2], *rest[: ctx.parameters], grad_scores)
            grads = tuple(None if g is None else torch_ops.apply(torch_ops.Once, g, *sources) for g in grads)
        return (*grads[:2], None, None, None, *grads[2:])


def with_history(base: Problem, source: Any, results: Any, parameters: tuple[Any, ...]) -> Any:
    """The scores [Nq, Nd] of results (scores, argmax of each block), differentiable."""
    return torch_ops.apply(_Score, base.q.data, base.q.weights, base, source, results, *parameters)
