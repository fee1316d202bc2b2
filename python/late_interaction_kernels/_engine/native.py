"""The calls of the extension, for arrays of either kind: ``fw`` is the module that knows how
they are lent.

What this build does not do on these arrays raises NotImplementedError.
"""

from __future__ import annotations

from typing import Any

from .. import _native
from .problem import (
    ARRAY_COUNT,
    NORMALIZE_D,
    Problem,
    Tokens,
    argmax_dtype,
    axes,
    fields,
    length,
    score_shape,
)


def score(fw: Any, p: Problem, want_argmax: bool) -> tuple[Any, Any]:
    """Scores, and the argmax or None."""
    shape, like = score_shape(p), p.q.data
    scores = fw.empty(shape, "float32", like)
    argmax = fw.empty((*shape, length(p.q)), argmax_dtype(p), like) if want_argmax else None
    _native.score(*fw.lent(fields(p), ARRAY_COUNT), fw.lend(scores), fw.lend(argmax))
    return scores, argmax


def topk(fw: Any, p: Problem, k: int, id_base: int, smallest: bool) -> tuple[Any, Any]:
    shape = score_shape(p)[0], k
    values, ids = fw.empty(shape, "float32", p.q.data), fw.empty(shape, "int64", p.q.data)
    _native.topk(*fw.lent(fields(p), ARRAY_COUNT), k, id_base, smallest, fw.lend(values), fw.lend(ids))
    return values, ids


def topk_scratch(fw: Any, p: Problem, k: int) -> int:
    """Bytes of workspace that topk takes."""
    return _native.topk_scratch(*fw.lent(fields(p), ARRAY_COUNT), k)


def merge_topk(fw: Any, values: Any, ids: Any, k: int, smallest: bool) -> tuple[Any, Any]:
    """Of arrays on the CPU: see ``verbs.merge_topk``."""
    shape = values.shape[1], k
    best = fw.empty(shape, "float32", values), fw.empty(shape, "int64", values)
    _native.merge_topk(fw.lend(values), fw.lend(ids), k, smallest, *map(fw.lend, best))
    return best


def grad(
    fw: Any, p: Problem, grad_scores: Any, argmax: Any, into: tuple[Any, Any, Any], accumulate: bool = False
) -> None:
    """Writes the gradients of q, d and q_weights into three arrays, None for what is not
    wanted, or adds to them.
    """
    given = map(fw.lend, (grad_scores, argmax, *into))
    _native.grad(*fw.lent(fields(p), ARRAY_COUNT), *given, accumulate)


def decode(fw: Any, tokens: Tokens, normalize: bool, dtype: str) -> Any:
    """Compressed tokens as rows of floats."""
    assert tokens.codec is not None
    p = Problem(Tokens(None), tokens, normalize=NORMALIZE_D if normalize else 0)
    out = fw.empty((*axes(tokens), tokens.codec.centroids.shape[1]), dtype, tokens.codes)
    _native.decode(*fw.lent(fields(p), ARRAY_COUNT), fw.lend(out))
    return out


def encode(
    fw: Any, tokens: Tokens, normalize: bool, codes_dtype: str, norms_dtype: str | None, precision: int
) -> tuple[Any, Any, Any]:
    """(codes, residuals or None with 0 bits, inverse norms or None) of dense tokens that have
    the codec.
    """
    codec = tokens.codec
    assert codec is not None
    p = Problem(Tokens(None), tokens, normalize=NORMALIZE_D if normalize else 0, precision=precision)
    shape, like = axes(tokens), tokens.data
    wide = (like.shape[-1] * codec.nbits + 7) // 8
    codes = fw.empty(shape, codes_dtype, like)
    residuals = fw.empty((*shape, wide), "uint8", like) if codec.nbits else None
    norms = None if norms_dtype is None else fw.empty(shape, norms_dtype, like)
    cutoffs = codec.cutoffs if codec.nbits else None
    _native.encode(*fw.lent(fields(p), ARRAY_COUNT), *map(fw.lend, (cutoffs, codes, residuals, norms)))
    return codes, residuals, norms


def train(
    fw: Any,
    tokens: Tokens,
    normalize: bool,
    centroids: int,
    nbits: int,
    points: int,
    iterations: int,
    seed: int,
    precision: int,
) -> tuple[Any, Any, Any]:
    """(centroids, cutoffs, weights) of dense tokens, the last two None with 0 bits."""
    p = Problem(Tokens(None), tokens, normalize=NORMALIZE_D if normalize else 0, precision=precision)
    like = tokens.data
    found = (
        fw.empty((centroids, like.shape[-1]), "float32", like),
        fw.empty(((1 << nbits) - 1,), "float32", like) if nbits else None,
        fw.empty((1 << nbits,), "float32", like) if nbits else None,
    )
    _native.train(*fw.lent(fields(p), ARRAY_COUNT), points, iterations, nbits, seed, *map(fw.lend, found))
    return found


KINDS = {"int8": 0, "float8_e4m3fn": 1, "float8_e5m2": 2}


def quantize(fw: Any, x: Any, kind: str, normalize: bool, one: bool) -> tuple[Any, Any]:
    """(bytes of x's shape, f32 scales) of dense tokens: a scale each, or one of all."""
    axes = tuple(x.shape)
    if len(axes) < 2 or len(axes) > 4:
        x = x.reshape((-1, axes[-1] if axes else 1))
    values = fw.empty(tuple(x.shape), "int8" if kind == "int8" else "uint8", x)
    scales = fw.empty(() if one else tuple(x.shape[:-1]), "float32", x)
    p = Problem(Tokens(None), Tokens(x), normalize=NORMALIZE_D if normalize else 0)
    given = KINDS[kind], one, fw.lend(values), fw.lend(scales)
    _native.quantize(*fw.lent(fields(p), ARRAY_COUNT), *given)
    return values.reshape(axes), scales.reshape(() if one else axes[:-1])
