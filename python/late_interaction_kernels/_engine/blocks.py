"""Documents whose vectors are made on the fly: a block of them at a time is made, scored, and
forgotten.

A :class:`Source` says how: hidden states are projected (``fused_head``). No more than
BLOCK_FLOATS floats of vectors exist at once. The backward pass makes each block again and asks
the library for the gradients of its vectors, which the source passes on to what they were made
from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from . import verbs
from .checks import Framework
from .problem import Problem, Tokens, detached

BLOCK_FLOATS = 1 << 24


class Source(Protocol):
    count: int  # documents
    longest: int  # tokens of the longest

    def spans(self) -> Iterator[tuple[int, int]]:
        """Ranges of documents that make one block each, ascending and without gaps."""

    def tokens(self, start: int, end: int) -> Tokens:
        """Documents start ... end - 1, made."""


def even_spans(count: int, tokens: int, dim: int) -> Iterator[tuple[int, int]]:
    """Blocks of documents that are all ``tokens`` long."""
    step = max(BLOCK_FLOATS // max(tokens * dim, 1), 1)
    return ((a, min(a + step, count)) for a in range(0, count, step))


def score(
    fw: Framework, base: Problem, source: Source, parameters: tuple[Any, ...], want_argmax: bool
) -> tuple[Any, Any]:
    """Scores [Nq, Nd], and one int32 argmax [Nq, Nd, Lq] or None. ``base`` holds the queries
    and the choices, the parameters are what the source makes documents from, which gradients
    flow to."""
    history = fw.wants_grad(base.q.data, base.q.weights, *parameters)
    q, plain = base.q.data, detached(base)
    scores = fw.empty((q.shape[0], source.count), "float32", q)
    joined = fw.empty((*scores.shape, q.shape[1]), "int32", q) if want_argmax else None
    winners = []
    for a, b in source.spans():
        documents = source.tokens(a, b)
        scores[:, a:b], argmax = verbs.score(plain._replace(d=documents), want_argmax or history)
        del documents  # before the next ones are made
        if joined is not None:
            joined[:, a:b] = argmax
        if history:
            winners.append(argmax)
    if history:
        from . import torch_blocks

        scores = torch_blocks.with_history(base, source, (scores, winners), parameters)
    return scores, joined
