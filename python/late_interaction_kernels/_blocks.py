"""Documents whose vectors are made on the fly: a block of them at a time is made, scored, and forgotten.

A :class:`Source` says how: compressed tokens are decoded (``plaid``), hidden states projected (``fused_head``). No more
than BLOCK_FLOATS floats of vectors exist at once. The backward pass makes each block again and asks the library for the
gradients of its vectors, which the source passes on to what they were made from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from ._problem import Framework, Problem

BLOCK_FLOATS = 1 << 23


class Source(Protocol):
    count: int  # documents
    longest: int  # tokens of the longest

    def spans(self) -> Iterator[tuple[int, int]]:
        """Ranges of documents that make one block each, ascending and without gaps."""

    def fields(self, start: int, end: int) -> dict[str, Any]:
        """The fields of Problem that describe documents start ... end - 1: d and its mask or offsets."""


def even_spans(count: int, tokens: int, dim: int) -> Iterator[tuple[int, int]]:
    """Blocks of documents that are all ``tokens`` long."""
    step = max(BLOCK_FLOATS // max(tokens * dim, 1), 1)
    return ((a, min(a + step, count)) for a in range(0, count, step))


def score(fw: Framework, base: Problem, source: Source, want_argmax: bool) -> tuple[Any, list[Any]]:
    """Scores [Nq, Nd], and the argmax of every block. ``base`` holds the queries and the choices."""
    queries = base.q.shape[0]
    scores = fw.empty((queries, source.count), "float32", base.q)
    winners: list[Any] = []
    for a, b in source.spans():
        part, argmax = fw.score(base._replace(**source.fields(a, b)), want_argmax)
        scores[:, a:b] = part
        winners.append(argmax)
    return scores, winners


def join_argmax(fw: Framework, base: Problem, source: Source, winners: list[Any]) -> Any:
    """One int32 argmax [Nq, Nd, Lq]."""
    joined = fw.empty((base.q.shape[0], source.count, base.q.shape[1]), "int32", base.q)
    for (a, b), argmax in zip(source.spans(), winners, strict=True):
        joined[:, a:b] = fw.cast(argmax, "int32")
    return joined
