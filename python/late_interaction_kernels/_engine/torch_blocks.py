"""Gradients through documents that are made block by block (see ``blocks``)."""

from __future__ import annotations

from typing import Any

import torch

from . import torch_ops
from .problem import Problem, fields


def added(total: Any, part: Any) -> Any:
    """A sum over blocks: in f32, unless there is but one."""
    return part if total is None else total.float() + part


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
        base, source = ctx.base, ctx.source
        want_q, want_weights = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        want_parameters = ctx.needs_input_grad[5:]
        want = (want_q, any(want_parameters), want_weights)
        sum_q = sum_w = None
        with torch.no_grad():
            queries = base.q._replace(data=q.float(), weights=q_weights, mask=q_mask)
            sums = source.gradients(want_parameters)
            for (a, b), argmax in zip(source.spans(), winners, strict=True):
                problem = base._replace(q=queries, d=source.tokens(a, b))
                gq, gd, gw = torch_ops.run_grad(*fields(problem), grad_scores[:, a:b], argmax, *want)
                del problem  # the vectors, before more is made of their gradients
                if want_q:
                    sum_q = added(sum_q, gq)
                if want_weights:
                    sum_w = added(sum_w, gw)
                if any(want_parameters):
                    source.accumulate(sums, want_parameters, a, b, gd)
                del gd
            if want_q:
                sum_q = torch.zeros_like(q) if sum_q is None else sum_q.to(q.dtype)
            if want_weights and sum_w is None:
                sum_w = torch.zeros(q.shape[:-1], dtype=torch.float32, device=q.device)
            grads: tuple[Any, ...] = (sum_q, sum_w, *source.finished(sums, want_parameters))
        if torch.is_grad_enabled():
            sources = (*ctx.saved_tensors[:2], *rest[: ctx.parameters], grad_scores)
            grads = tuple(None if g is None else torch_ops.apply(torch_ops.Once, g, *sources) for g in grads)
        return (*grads[:2], None, None, None, *grads[2:])


def with_history(base: Problem, source: Any, results: Any, parameters: tuple[Any, ...]) -> Any:
    """The scores [Nq, Nd] of results (scores, argmax of each block), differentiable."""
    return torch_ops.apply(_Score, base.q.data, base.q.weights, base, source, results, *parameters)
