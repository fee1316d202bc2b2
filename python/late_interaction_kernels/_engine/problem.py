"""One scoring problem, by names.

Every function of this package is the same operation with other choices: how tokens are stored,
how they are laid out, which query meets which document, what comes back. :class:`Problem` holds
the choices, :class:`Tokens` what there is of one operand. Nothing here knows NumPy, torch or
the extension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

ALL, CANDIDATES, PAIRS, LIST = range(4)
NORMALIZE_Q, NORMALIZE_D, NORMALIZE = 1, 2, 3
FOLLOW, HIGHEST, HIGH, MEDIUM = -1, 0, 1, 2  # FOLLOW: torch.get_float32_matmul_precision() when it runs


class BoundError(ValueError, RuntimeError):
    """A length beyond what was promised. A RuntimeError too: callers of the existing package
    catch that.
    """


BIT_ORDERS = ("low-first", "colbert")  # by enum lik_bit_order in lik.h


class Codec(NamedTuple):
    """What the compressed tokens of a collection have in common, as ``train_codec`` finds it
    or as arrays of an index: ``Codec(centroids, weights, nbits)``.

    Element k of a token is element k of its centroid plus the weight of the bucket that nbits
    bits of its residual name. The cutoffs between the buckets are what ``encode`` needs,
    decoding and scoring do not.
    """

    centroids: Any  # float [C, d]
    weights: Any  # float [2 ** nbits]; None with 0 bits
    nbits: int  # 0, 1, 2, 4 or 8
    bit_order: str = "low-first"  # or "colbert"
    cutoffs: Any = None  # float32 [2 ** nbits - 1], ascending


class Tokens(NamedTuple):
    """One operand: [N, L, d], documents also [Nq, K, L, d]; packed [total, d] where there are
    offsets.

    Documents with codes and a codec are compressed: their data are bytes of residual where d
    was, or None for tokens that are their centroids. With codes alone a token's product with a
    query token is the element of that number, which is looked up.
    """

    data: Any
    mask: Any = None  # bool, the tokens' shape without d
    weights: Any = None  # float32, likewise; queries alone
    scale: Any = None  # float32, of compressed tokens also float16; 0-d or likewise
    offsets: Any = None  # int32 or int64 [N + 1]
    longest: int = 0  # packed: tokens of the longest sequence
    codes: Any = None  # int16 as 0 to 65535, uint16, int32 or int64, likewise
    codec: Codec | None = None  # of the codes


# The arrays of an operand that have an entry for each token, or for all at once (a scale of no
# axes).
PER_TOKEN = ("data", "mask", "weights", "scale", "codes")


class Problem(NamedTuple):
    """Queries, documents, and the choices."""

    q: Tokens
    d: Tokens
    list_q: Any = None  # int64 [n]
    list_d: Any = None
    pairing: int = ALL
    normalize: int = 0  # NORMALIZE_Q, NORMALIZE_D or their sum
    precision: int = FOLLOW


# A problem as the extension (enum field in native/problem.h), the operators and autograd take
# it: one array after another, then the choices. tests/python/test_engine.py holds these lists,
# the two functions below and the enum to one another.
ARRAYS = (
    "q",
    "d",
    "q_mask",
    "d_mask",
    "q_weights",
    "q_scale",
    "d_scale",
    "q_offsets",
    "d_offsets",
    "list_q",
    "list_d",
    "codes",
    "centroids",
    "bucket_weights",
)
CHOICES = ("pairing", "normalize", "precision", "len_q", "len_d", "nbits", "bit_order")
ARRAY_COUNT, FIELD_COUNT = len(ARRAYS), len(ARRAYS) + len(CHOICES)


def fields(p: Problem) -> tuple[Any, ...]:
    q, d, list_q, list_d, pairing, normalize, precision = p
    arrays = q.data, d.data, q.mask, d.mask, q.weights, q.scale, d.scale, q.offsets, d.offsets, list_q, list_d
    choices = pairing, normalize, precision, q.longest, d.longest
    if d.codec is None:
        return (*arrays, d.codes, None, None, *choices, 0, 0)
    centroids, weights, nbits, bit_order, _ = d.codec
    return (*arrays, d.codes, centroids, weights, *choices, nbits, BIT_ORDERS.index(bit_order))


def problem_of(fields: Any) -> Problem:
    q, d, q_mask, d_mask, q_weights, q_scale, d_scale, q_offsets, d_offsets, list_q, list_d, *rest = fields
    codes, centroids, weights, pairing, normalize, precision, len_q, len_d, nbits, bit_order = rest
    codec = None if centroids is None else Codec(centroids, weights, nbits, BIT_ORDERS[bit_order])
    queries = Tokens(q, q_mask, q_weights, q_scale, q_offsets, len_q)
    documents = Tokens(d, d_mask, None, d_scale, d_offsets, len_d, codes, codec)
    return Problem(queries, documents, list_q, list_d, pairing, normalize, precision)


def per_token(tokens: Tokens, change: Callable[[Any], Any]) -> Tokens:
    """With each array that has the tokens' axes changed."""
    found = {name: getattr(tokens, name) for name in PER_TOKEN}
    return tokens._replace(**{name: change(x) for name, x in found.items() if x is not None and len(x.shape)})


def batched(tokens: Tokens) -> Tokens:
    """One sequence without an axis of its own as a batch of one."""
    return per_token(tokens, lambda x: x[None])


def sliced(tokens: Tokens, start: int, end: int) -> Tokens:
    """Sequences start ... end - 1."""
    if tokens.offsets is not None:
        return tokens._replace(offsets=tokens.offsets[start : end + 1])
    return per_token(tokens, lambda x: x[start:end])


def detached(x: Any) -> Any:
    """x without its history, and so every part of a problem or a pair; NumPy arrays and choices
    pass.
    """
    if isinstance(x, tuple):
        parts = map(detached, x)
        return type(x)._make(parts) if isinstance(x, Problem | Tokens | Codec) else tuple(parts)
    return x.detach() if hasattr(x, "detach") else x


def axes(tokens: Tokens) -> Any:
    """The tokens' shape without d."""
    return tokens.data.shape[:-1] if tokens.codes is None else tokens.codes.shape


def length(tokens: Tokens) -> Any:
    """Tokens of the longest sequence."""
    return axes(tokens)[-1] if tokens.offsets is None else tokens.longest


def argmax_dtype(p: Problem) -> str:
    """Where a length is a trace's symbol this guards on its size class, which is what the real
    call decides by.
    """
    return "int16" if bool(length(p.d) <= 32767) else "int32"


def score_shape(p: Problem) -> tuple[int, ...]:
    if p.pairing == LIST:
        return (p.list_q.shape[0],)
    queries = _sequences(p.q)
    if p.pairing == PAIRS:
        return (queries,)
    return (queries, axes(p.d)[1] if p.pairing == CANDIDATES else _sequences(p.d))


def _sequences(tokens: Tokens) -> Any:
    return axes(tokens)[0] if tokens.offsets is None else tokens.offsets.shape[0] - 1


def either(first: Any, second: Any) -> Any:
    """Where one of two conditions holds, each of which may be None for nowhere."""
    return second if first is None else first if second is None else first | second
