"""Compressed documents as users pass them, checked and made :class:`Tokens`.

Codes and bytes go to the library as they lie. What it looks at on the host it refuses in its
own words, which are then put into the caller's; what cannot be looked at (device memory, a
trace) makes the scores it belongs to NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from .checks import (
    Framework,
    check_axes,
    check_device,
    check_float,
    check_range,
    check_rank,
    check_shape,
    embeddings,
    longest,
    packed_offsets,
    sequence_lengths,
    shape_text,
    token_mask,
    token_weights,
    whole,
    whole_number,
)
from .problem import (
    BIT_ORDERS,
    NORMALIZE,
    NORMALIZE_Q,
    Codec,
    Problem,
    Tokens,
    batched,
    detached,
    either,
)

BITS = (0, 1, 2, 4, 8)


class CompressedTokens(NamedTuple):
    """Documents of compressed tokens, padded or packed, for the functions that take them where
    they take ``D``: everything that belongs to them is in one value, so that none of it can be
    forgotten or met by the codec of another collection.

    Args:
        codes: integer centroid numbers ``[Nd, max_Ld]``, or packed ``[T]``.
        residuals: uint8 ``[Nd, max_Ld, bytes]`` or ``[T, bytes]``; None with 0 bits.
        codec: the :class:`Codec` that they were encoded with.
        doc_lengths: integers ``[Nd]`` of padded documents, 0 to max_Ld; None for all of it.
        cu_seqlens_d: offsets ``[Nd + 1]`` of packed documents.
        max_seqlen_d: an upper bound of packed documents' lengths, found if None.
        inv_norms: float16 or float32, shaped like codes: what a token is multiplied by where
            tokens are normalized; None to take the norms on the fly.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.plaid import Codec, CompressedTokens
        >>> from late_interaction_kernels.topk import maxsim_topk
        >>> codec = Codec(np.eye(4, dtype="f4"), None, 0)
        >>> offsets = np.array([0, 2, 3])
        >>> D = CompressedTokens(np.array([0, 2, 3]), None, codec, cu_seqlens_d=offsets)
        >>> maxsim_topk(codec.centroids[2:3], D, 1)[1].tolist()
        [0]
    """

    codes: Any
    residuals: Any
    codec: Codec
    doc_lengths: Any = None
    cu_seqlens_d: Any = None
    max_seqlen_d: int | None = None
    inv_norms: Any = None

    def arrays(self) -> dict[str, Any]:
        """Those that there are, by their names, which none of them is without."""
        check_codec_kind(self.codec)
        found = {
            "codes": self.codes,
            "residuals": self.residuals,
            "doc_lengths": self.doc_lengths,
            "cu_seqlens_d": self.cu_seqlens_d,
            "centroids": self.codec.centroids,
            "bucket_weights": self.codec.weights,
            "inv_norms": self.inv_norms,
        }
        needed = {"codes", "centroids"} | ({"residuals", "bucket_weights"} if self.codec.nbits else set())
        return {name: x for name, x in found.items() if x is not None or name in needed}


class Documents(NamedTuple):
    """What ``documents`` found."""

    tokens: Tokens
    broken: Any  # bool [Nd], the documents whose scores are NaN; None for none
    look: Callable[[], None] | None  # names the code that the library has refused


def check_codec_kind(codec: Any) -> None:
    if not isinstance(codec, Codec):
        raise TypeError(f"codec must be a Codec, got {type(codec).__name__}")


def checked_bits(name: str, nbits: int) -> int:
    nbits = whole_number(name, nbits, 0)
    if nbits not in BITS:
        raise ValueError(f"{name} must be 0, 1, 2, 4 or 8, got {nbits!r}")
    return nbits


def check_bit_order(name: str, bit_order: str) -> None:
    if bit_order not in BIT_ORDERS:
        raise ValueError(f'{name} must be "low-first" or "colbert", got {bit_order!r}')


def checked_codec(
    fw: Framework, name: Callable[[str], str], codec: Codec, like: Any, like_name: str
) -> Codec:
    """The codec as the library takes it, without history. ``like`` has the elements of tokens
    for its last axis.
    """
    centroids, weights, nbits, bit_order, cutoffs = codec
    nbits = checked_bits(name("nbits"), nbits)
    check_bit_order(name("bit_order"), bit_order)
    check_rank(name("centroids"), centroids, (2,), "[C, d]")
    dim = like.shape[-1]
    if centroids.shape[1] != dim:
        raise ValueError(
            f"{like_name} and {name('centroids')} must have the same dim: {like_name}.shape[-1] is "
            f"{int(dim)}, {name('centroids')}.shape[1] is {int(centroids.shape[1])}"
        )
    tables = [centroids]
    if nbits:
        check_shape(name("bucket_weights"), weights, (1 << nbits,), "one weight a bucket, of 2 ** nbits")
        tables.append(weights)
    elif weights is not None:
        raise ValueError(f"{name('bucket_weights')} must be None with nbits = 0, got an array")
    for table, x in zip(("centroids", "bucket_weights"), tables, strict=False):
        check_float(fw, name(table), x)
        check_device(fw, name(table), x, like, like_name)
    tables = [fw.contiguous(embeddings(fw, "", detached(x))) for x in tables]
    return Codec(tables[0], tables[1] if nbits else None, nbits, bit_order, cutoffs)


def checked_residuals(
    fw: Framework,
    name: Callable[[str], str],
    residuals: Any,
    codes: Any,
    codec: Codec,
    like: Any,
    like_name: str,
) -> Any:
    nbits, dim, called = codec.nbits, codec.centroids.shape[1], name("residuals")
    if nbits == 0:
        if residuals is not None:
            raise ValueError(f"{called} must be None with nbits = 0, got an array")
        return None
    if fw.dtype_name(residuals) != "uint8":
        raise TypeError(f"{called} has dtype {fw.dtype_name(residuals)}, must be uint8")
    wide = (dim * nbits + 7) // 8
    check_axes(called, residuals)
    if residuals.shape[-1] != wide:
        raise ValueError(
            f"{called} must have {int(wide)} bytes a token (d = {int(dim)}, nbits = {nbits}), "
            f"got shape {shape_text(residuals.shape)}"
        )
    check_shape(
        called, residuals, (*codes.shape, wide), f"shaped like {name('codes')}, with the bytes behind"
    )
    check_device(fw, called, residuals, like, like_name)
    return fw.adjacent(residuals)


def checked_codes(fw: Framework, called: str, codes: Any, count: int, like: Any, like_name: str) -> Any:
    """Of a dtype that the library reads: of int16 it takes the bits, which is the number where
    all of the centroids have one that is not negative.
    """
    if not fw.is_integer(codes):
        raise TypeError(f"{called} has dtype {fw.dtype_name(codes)}, must be an integer dtype")
    check_device(fw, called, codes, like, like_name)
    kind = fw.dtype_name(codes)
    if kind == "uint16" or (kind == "int16" and bool(count <= 1 << 15)):
        return fw.settle(codes)
    return fw.settle(whole(fw, codes))


def _checked_norms(fw: Framework, called: str, inv_norms: Any, codes: Any, normalize: bool) -> Any:
    if inv_norms is None:
        return None
    check_shape(called, inv_norms, tuple(codes.shape), "one a token")
    check_float(fw, called, inv_norms)
    check_device(fw, called, inv_norms, codes, "codes")
    if not normalize:
        return None
    inv_norms = detached(inv_norms)
    return fw.settle(inv_norms) if fw.dtype_name(inv_norms) == "float16" else fw.cast(inv_norms, "float32")


def check_codes(fw: Framework, name: str, codes: Any, count: int, kept: Any, offsets: Any) -> None:
    """Those that count must be 0 ... count - 1; the first that is not is named."""
    if offsets is not None:
        at = fw.arange(codes.shape[0], codes)
        kept = (at >= offsets[0]) & (at < offsets[-1])
    numbers = whole(fw, codes)
    check_range(fw, name, numbers, 0, count - 1, kept, numbers if kept is None else numbers[kept])


def documents(
    fw: Framework, name: Callable[[str], str], x: CompressedTokens, Q: Any, normalize: bool
) -> Documents:
    """``name`` tells what the caller calls an argument."""
    codec = checked_codec(fw, name, x.codec, Q, "Q")
    packed = x.cu_seqlens_d is not None
    if packed and x.doc_lengths is not None:
        raise ValueError(
            f"{name('doc_lengths')} and {name('cu_seqlens_d')} are both given: tokens are padded or packed"
        )
    called, count = name("codes"), codec.centroids.shape[0]
    check_rank(called, x.codes, (1,) if packed else (2,), "[T]" if packed else "[Nd, max_Ld]")
    codes = checked_codes(fw, called, x.codes, count, Q, "Q")
    residuals = checked_residuals(fw, name, x.residuals, codes, codec, Q, "Q")
    scale = _checked_norms(fw, name("inv_norms"), x.inv_norms, codes, normalize)
    kept = offsets = broken = None
    most = 0
    if packed:
        found = packed_offsets(fw, name("cu_seqlens_d"), x.cu_seqlens_d, codes.shape[0], called, Q)
        most = longest(fw, name("cu_seqlens_d"), found, name("max_seqlen_d"), x.max_seqlen_d)
        offsets = found[0]
    elif x.doc_lengths is not None:
        about = (codes.shape[0],), codes.shape[1], codes, called
        _, kept, broken = sequence_lengths(fw, name("doc_lengths"), x.doc_lengths, *about)

    says = [a for a in (codes, kept, offsets) if a is not None]  # which codes count, and what they are
    look = partial(check_codes, fw, called, codes, count, kept, offsets)
    on_host = all(map(fw.on_host, says))
    if not on_host and all(map(fw.readable, says)):
        look()
    elif any(map(fw.out_of_sight, says)):
        codes, wrong = _put_right(fw, codes, count, kept, offsets)
        broken = either(broken, wrong)
        if count == 0:
            codec = codec._replace(centroids=fw.ones((1, codec.centroids.shape[1]), codec.centroids))
    tokens = Tokens(residuals, kept, None, scale, offsets, most, codes, codec)
    return Documents(tokens, broken, look if on_host else None)


def _put_right(fw: Framework, codes: Any, count: int, kept: Any, offsets: Any) -> tuple[Any, Any]:
    """A trace on the host: (codes that the library takes there, and bool [Nd], the documents
    that had others). Offsets it refuses itself, as those of dense tokens.
    """
    codes = whole(fw, codes)
    outside = (codes < 0) | (codes >= count)
    codes = fw.where(outside, 0, codes)
    if offsets is None:
        return codes, (outside if kept is None else outside & kept).any(-1)
    before = fw.offsets_of(fw.cast(outside, "int32"))[fw.clamp(offsets, 0, codes.shape[0])]
    return codes, before[1:] != before[:-1]


@contextmanager
def worded(look: Callable[[], None] | None) -> Iterator[None]:
    """Around a call of the library: a code that it refuses is named as the caller knows it."""
    try:
        yield
    except ValueError:
        if look is not None:
            look()
        raise


def problem(fw: Framework, Q: Any, q_mask: Any, q_weights: Any, found: Documents, normalize: bool) -> Problem:
    """Of queries [Nq, Lq, d], or [Lq, d] as a batch of one."""
    shape = tuple(Q.shape[:-1])
    queries = Tokens(
        embeddings(fw, "Q", Q),
        token_mask(fw, "q_mask", q_mask, shape, Q, "Q"),
        token_weights(fw, q_weights, shape, Q, "Q"),
    )
    queries = queries if len(shape) == 2 else batched(queries)
    unit = NORMALIZE if found.tokens.scale is None else NORMALIZE_Q
    return Problem(queries, found.tokens, normalize=unit if normalize else 0)
