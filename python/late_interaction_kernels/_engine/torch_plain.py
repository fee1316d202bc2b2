"""The operation in plain torch, for devices and dtypes the library does not serve: exact,
differentiable, bounded.

Work goes in blocks whose similarity tile stays below BLOCK elements, so that the similarity
matrix of the whole call never exists. Sums are f32, or f64 for float64 tokens. ``score`` and
``grad`` take what the C functions take.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

from . import torch_arrays
from .problem import (
    ALL,
    CANDIDATES,
    LIST,
    NORMALIZE_D,
    NORMALIZE_Q,
    Problem,
    Tokens,
    axes,
    either,
    length,
    score_shape,
    sliced,
)

BLOCK = 1 << 24
EPS = 1e-12

_T = TypeVar("_T")


def _plainly(function: Callable[..., _T]) -> Callable[..., _T]:
    """``function(problem, ...)`` outside autograd and autocast."""

    @wraps(function)
    def call(p: Problem, *rest: Any) -> _T:
        with torch.no_grad(), torch_arrays.exact(p.q.data):
            return function(p, *rest)

    return call


class _Side:
    """The tokens of one side: sequences by number, as padded f32 rows with a mask.

    Packed sequences whose offsets are out of order or out of the tokens, or that are longer
    than was said, are ``broken``: read as empty, their scores NaN. Nothing in device memory
    becomes an index unchecked.
    """

    def __init__(self, tokens: Tokens, normalize: int, decoded_to: Any = None) -> None:
        self.codec: Any
        self.data, self.mask, self.weights, self.scale, self.offsets, _, self.codes, self.codec = tokens
        self.decoded_to, self.normalize = decoded_to, bool(normalize)
        self.axes, self.length = axes(tokens), int(length(tokens))
        like = self.data if self.codes is None else self.codes
        self.device = like.device
        self.wide = torch.float64 if like.dtype == torch.float64 else torch.float32
        self.grouped = len(self.axes) == 3
        self.broken = None
        if self.offsets is not None:
            self.count = self.offsets.shape[0] - 1
            start, end = self.offsets[:-1].to(torch.int64), self.offsets[1:].to(torch.int64)
            longest = (end - start).clamp_min(0) > self.length
            self.broken = (start < 0) | (end < start) | (end > self.axes[0]) | longest
            self.start = torch.where(self.broken, 0, start)
            self.lengths = torch.where(self.broken, 0, end - start)
        else:
            self.count = self.axes[0] * (self.axes[1] if self.grouped else 1)
        if self.codec is not None:
            self.find_wrong_codes()

    def find_wrong_codes(self) -> None:
        """Sequences with a code that is none become broken, such codes 0."""
        codes, count = self.codes.to(torch.int64), self.codec.centroids.shape[0]
        outside = (codes < 0) | (codes >= count)
        self.codes = torch.where(outside, 0, codes)
        outside = outside if self.mask is None else outside & self.mask
        if self.offsets is None:
            wrong = outside.flatten(0, -2).any(dim=-1)
        else:
            before = torch.nn.functional.pad(outside.cumsum(0), (1, 0))
            wrong = before[self.start + self.lengths] != before[self.start]
        self.broken = either(self.broken, wrong)

    def rows(self, ids: Any) -> Any:
        """Rows of the flat token array [count * length] or [total] that these sequences are:
        [n, length].
        """
        t = torch.arange(self.length, device=self.device)
        if self.offsets is None:
            return ids[:, None] * self.length + t
        return (self.start[ids][:, None] + t).clamp_max(max(self.axes[0] - 1, 0))

    def kept(self, ids: Any) -> Any:
        """bool [n, length]: tokens that count."""
        if self.offsets is not None:
            kept = torch.arange(self.length, device=self.device) < self.lengths[ids][:, None]
        else:
            kept = torch.ones((ids.shape[0], self.length), dtype=torch.bool, device=self.device)
        kept = kept if self.broken is None else kept & ~self.broken[ids][:, None]
        return kept if self.mask is None else kept & self.take(self.mask, ids)

    def take(self, x: Any, ids: Any) -> Any:
        """The entries of a per-token array, or the tokens themselves, of these sequences."""
        if self.offsets is not None:
            return x[self.rows(ids)] if x.shape[0] else x.new_zeros((ids.shape[0], self.length, *x.shape[1:]))
        if self.grouped:
            group = max(x.shape[1], 1)
            return x[ids // group, ids % group]
        return x[ids]

    def stored(self, ids: Any) -> Any:
        """[n, length, d] in f32 (or f64), scales applied, not normalized."""
        x = (self.take(self.data, ids) if self.codec is None else self.decoded(ids)).to(self.wide)
        if self.scale is not None:
            scale = self.scale.to(self.wide)
            x = x * (scale if scale.dim() == 0 else self.take(scale, ids)[..., None])
        return x

    def decoded(self, ids: Any) -> Any:
        """[n, length, d] of compressed tokens, in the dtype that they are decoded to."""
        centroids, weights, nbits, bit_order, _ = self.codec
        if centroids.shape[0] == 0:
            return centroids.new_zeros((ids.shape[0], self.length, centroids.shape[1]))
        x = centroids.to(self.decoded_to)[self.take(self.codes, ids)]
        if nbits == 0:
            return x
        table = weights.to(self.decoded_to)[_byte_buckets(nbits, bit_order, self.device)]
        return x + table[self.take(self.data, ids).long()].flatten(-2)[..., : centroids.shape[1]]

    def vectors(self, ids: Any) -> Any:
        """[n, length, d]; of tokens that name elements their numbers [n, length]."""
        if self.codes is not None and self.codec is None:
            return self.take(self.codes, ids).long()
        x = self.stored(ids)
        return torch.nn.functional.normalize(x, dim=-1, eps=EPS) if self.normalize else x

    def factors(self, ids: Any) -> Any:
        """[n, length]: weight of each query token's maximum; 0 where it is dropped."""
        kept = self.kept(ids)
        weights = self.take(self.weights, ids).to(self.wide) if self.weights is not None else 1.0
        return torch.where(kept, weights, 0).to(self.wide)


def _byte_buckets(nbits: int, bit_order: str, device: Any) -> Any:
    """int64 [256, 8 / nbits]: the bucket numbers that each byte holds."""
    byte = torch.arange(256, device=device)[:, None]
    bits = byte >> torch.arange(8, device=device) & 1
    bits = (bits.flip(-1) if bit_order == "colbert" else bits).unflatten(-1, (-1, nbits))
    return (bits << torch.arange(nbits, device=device)).sum(-1)


def _sides(p: Problem) -> tuple[_Side, _Side]:
    q = _Side(p.q, p.normalize & NORMALIZE_Q)
    return q, _Side(p.d, p.normalize & NORMALIZE_D, p.q.data.dtype)


def _best(q: Any, d: Any, kept: Any) -> tuple[Any, Any]:
    """q [..., Lq, dim] x d [..., Ld, dim], kept [..., 1, Ld] -> the maximum and its index,
    [..., Lq]; 0 and -1 if none. Of one query d may be numbers [n, Ld] of elements to look up.
    """
    if kept.shape[-1] == 0:
        shape = (*torch.broadcast_shapes(q.shape[:-2], kept.shape[:-2]), q.shape[-2])
        return q.new_zeros(shape), torch.full(shape, -1, device=q.device)
    similarity = q @ d.mT if d.is_floating_point() else q[0][:, d].movedim(0, 1)
    values, index = similarity.masked_fill(~kept, -torch.inf).max(dim=-1)
    any_kept = kept.any(dim=-1).expand_as(values)
    return torch.where(any_kept, values, 0), torch.where(any_kept, index, -1)


def _pair_ids(p: Problem, q: _Side, d: _Side, start: int, end: int) -> tuple[Any, Any, Any]:
    """(queries, documents, broken or None) of the scores start ... end - 1; an index that the
    list has wrong is 0.
    """
    n = torch.arange(start, end, device=p.q.data.device)
    ids, broken = (n, n), []
    if p.pairing == LIST:
        listed = p.list_q[start:end], p.list_d[start:end]
        broken = [(x < 0) | (x >= side.count) for x, side in zip(listed, (q, d), strict=True)]
        ids = torch.where(broken[0], 0, listed[0]), torch.where(broken[1], 0, listed[1])
    elif p.pairing == CANDIDATES:
        ids = n // max(axes(p.d)[1], 1), n
    elif p.pairing == ALL:
        ids = n // d.count, n % d.count
    broken += [side.broken[x] for x, side in zip(ids, (q, d), strict=True) if side.broken is not None]
    return *ids, torch.stack(broken).any(dim=0) if broken else None


def _spans(n: int, step: int) -> Any:
    step = max(step, 1)
    return ((i, min(i + step, n)) for i in range(0, n, step))


@_plainly
def score(p: Problem, scores: Any, argmax: Any) -> None:
    q, d = _sides(p)
    if scores.numel() == 0:
        return
    tile = max(d.length, 1)
    if p.pairing != ALL:
        flat = scores.view(-1)
        flat_argmax = None if argmax is None else argmax.view(flat.shape[0], q.length)
        if not q.count or not d.count:  # a list of nothing that there is
            _write_broken(True, flat, flat_argmax)
            return
        for a, b in _spans(
            flat.shape[0], BLOCK // (max(q.length, 1) * tile + (q.length + tile) * q.data.shape[-1])
        ):
            ids_q, ids_d, broken = _pair_ids(p, q, d, a, b)
            vectors, documents, kept = q.vectors(ids_q), d.vectors(ids_d), d.kept(ids_d)[:, None]
            part = None if flat_argmax is None else flat_argmax[a:b]
            _write(q, ids_q, *_by_query_tokens(vectors, documents, kept), flat[a:b], part)
            _write_broken(broken, flat[a:b], part)
        return
    device = p.q.data.device
    for a, b in _spans(d.count, BLOCK // (tile * max(q.length, 1, p.q.data.shape[-1]))):
        ids_d = torch.arange(a, b, device=device)
        documents, kept = d.vectors(ids_d), d.kept(ids_d)[:, None]
        for i in range(q.count):
            ids_q = torch.full((b - a,), i, device=device)
            best = _by_query_tokens(q.vectors(ids_q[:1]), documents, kept)
            _write(q, ids_q, *best, scores[i, a:b], None if argmax is None else argmax[i, a:b])
    for side, columns in ((q, False), (d, True)):
        if side.broken is not None:
            scores.masked_fill_(side.broken if columns else side.broken[:, None], torch.nan)


def _by_query_tokens(q: Any, d: Any, kept: Any) -> tuple[Any, Any]:
    """_best, in slices of query tokens when one document is longer than a block allows."""
    step = max(BLOCK // max(d.shape[0] * d.shape[1], 1), 1)
    if q.shape[1] <= step:
        return _best(q, d, kept)
    parts = [_best(q[:, a:b], d, kept) for a, b in _spans(q.shape[1], step)]
    return torch.cat([v for v, _ in parts], dim=-1), torch.cat([i for _, i in parts], dim=-1)


def _write_broken(broken: Any, scores: Any, argmax: Any) -> None:
    if broken is None:
        return
    broken = torch.as_tensor(broken, device=scores.device)
    scores.masked_fill_(broken, torch.nan)
    if argmax is not None:
        argmax.masked_fill_(broken[..., None], -1)


def _write(q: _Side, ids_q: Any, values: Any, index: Any, scores: Any, argmax: Any) -> None:
    kept = q.kept(ids_q)
    factors = q.factors(ids_q)
    scores.copy_(torch.where(kept, values * factors, 0).sum(dim=-1))
    if argmax is not None:
        argmax.copy_(torch.where(kept, index, -1))


def _through_normalization(tokens: _Side, gradient: Any) -> Any:
    """Gradient of the stored tokens from that of the normalized ones, both flat [rows, dim] in
    f32.
    """
    x = tokens.data.reshape(gradient.shape).to(gradient.dtype)
    # What got none may hold anything, NaN too.
    x = torch.where((gradient != 0).any(dim=-1, keepdim=True), x, 0)
    norm = x.norm(dim=-1, keepdim=True).clamp_min(EPS)
    unit = x / norm
    inside = (norm > EPS).to(gradient.dtype)
    return (gradient - inside * unit * (gradient * unit).sum(dim=-1, keepdim=True)) / norm


@_plainly
def grad(
    p: Problem, grad_scores: Any, argmax: Any, into: tuple[Any, Any, Any], accumulate: bool = False
) -> None:
    """Writes the gradients of q, d and q_weights into three tensors, None for what is not
    wanted, or adds to them: the sum is rounded once."""
    grad_q, grad_d, grad_weights = into
    q, d = _sides(p)
    dim = p.q.data.shape[-1]
    buffers: list[Any] = []
    for tokens, out in ((q, grad_q), (d, grad_d)):
        rows = tokens.axes[0] if tokens.offsets is not None else tokens.count * tokens.length
        buffers.append(
            None if out is None else torch.zeros((rows, dim), dtype=tokens.wide, device=p.q.data.device)
        )
    sum_q, sum_d = buffers
    sum_w = None if grad_weights is None else (grad_weights if accumulate else grad_weights.zero_()).view(-1)
    n = grad_scores.numel()
    flat, winners = grad_scores.reshape(-1), argmax.reshape(n, q.length)
    there = q.length and d.length and q.count and d.count
    for a, b in _spans(n if there else 0, BLOCK // max((q.length + d.length) * dim, 1)):
        ids_q, ids_d, broken = _pair_ids(p, q, d, a, b)
        won = winners[a:b].to(torch.int64)
        valid = (won >= 0) & (won < d.length)
        valid = valid if broken is None else valid & ~broken[:, None]
        at = torch.where(valid, won, 0)
        g = torch.where(valid, flat[a:b, None].to(q.wide), 0)  # what is not valid may hold anything, NaN too
        weighted = g * q.factors(ids_q)
        query, document, rows_q = q.vectors(ids_q), d.vectors(ids_d), q.rows(ids_q)
        if document.dim() == 2:  # the products are elements of the query
            numbers = torch.where(valid, document.gather(1, at), 0)
            query, document = query.gather(2, numbers[..., None]), torch.ones_like(g)[..., None]
        else:
            document = document.gather(1, at[..., None].expand(-1, -1, dim))
        query, document = (torch.where(valid[..., None], x, 0) for x in (query, document))
        if sum_q is not None:
            sum_q.index_add_(
                0, rows_q.flatten(), (weighted[..., None] * document).flatten(0, 1).to(sum_q.dtype)
            )
        if sum_w is not None:
            sum_w.index_add_(
                0, rows_q.flatten(), (g * (query * document).sum(dim=-1)).flatten().to(sum_w.dtype)
            )
        if sum_d is not None:
            rows_d = d.rows(ids_d).gather(1, at)
            sum_d.index_add_(0, rows_d.flatten(), (weighted[..., None] * query).flatten(0, 1).to(sum_d.dtype))
    for tokens, total, out in ((q, sum_q, grad_q), (d, sum_d, grad_d)):
        if out is not None:
            total = (_through_normalization(tokens, total) if tokens.normalize else total).view(out.shape)
            out.copy_(total + out if accumulate else total)


@_plainly
def topk(p: Problem, k: int, id_base: int, smallest: bool) -> tuple[Any, Any]:
    """Blocks of documents, their scores merged into the k best so far."""
    rows, columns = score_shape(p)
    where = p.q.data.device
    step = max(min(BLOCK // max(rows, 1), 65536), 1)
    values = torch.empty((rows, 0), dtype=torch.float32, device=where)
    ids = torch.empty((rows, 0), dtype=torch.int64, device=where)
    for a, b in _spans(columns, step if p.pairing == ALL else columns):
        found = torch.empty((rows, b - a), dtype=torch.float32, device=where)
        score(p if b - a == columns else p._replace(d=sliced(p.d, a, b)), found, None)
        numbers = torch.arange(a, b, device=where).expand(rows, -1) + id_base
        values, ids = _best_of(
            torch.cat([values, found], dim=1), torch.cat([ids, numbers], dim=1), k, smallest
        )
    return (values, ids) if columns else _best_of(values, ids, k, smallest)


def merge_topk(values: Any, ids: Any, k: int, smallest: bool) -> tuple[Any, Any]:
    """See ``verbs.merge_topk``: [parts, queries, k_in] -> [queries, k], without a wait."""
    return _best_of(values.movedim(0, 1).flatten(1), ids.movedim(0, 1).flatten(1), k, smallest)


def _best_of(values: Any, ids: Any, k: int, smallest: bool) -> tuple[Any, Any]:
    """Exactly k of the columns: best first, ties by lower id, NaN last; places for which there
    is no entry with an id hold NaN and -1. The keys are integers, so that every device sorts
    alike.
    """
    by_id = torch.where(ids < 0, torch.iinfo(torch.int64).max, ids).argsort(dim=1, stable=True)
    values, ids = values.gather(1, by_id), ids.gather(1, by_id)
    bits = torch.where(values == 0, 0, values).view(torch.int32)  # both zeros are equal
    ascending = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
    key = torch.where(values.isnan(), 1 << 33, ascending if smallest else -ascending)
    order = torch.where(ids < 0, 1 << 34, key).argsort(dim=1, stable=True)[:, :k]
    values, ids = values.gather(1, order), ids.gather(1, order)
    values, ids = values.masked_fill(ids < 0, torch.nan), ids.clamp_min(-1)
    missing = k - values.shape[1]
    if missing > 0:
        values = torch.nn.functional.pad(values, (0, missing), value=torch.nan)
        ids = torch.nn.functional.pad(ids, (0, missing), value=-1)
    return values, ids
