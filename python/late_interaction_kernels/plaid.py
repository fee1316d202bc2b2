"""Compressed tokens: a centroid number and a few bits of residual per dimension, as PLAID
indexes store them (Santhanam et al. 2022, after the residual compression of ColBERTv2).

Bit order. Two layouts of the residual bytes exist, by the same words in files and in the
command. ``bit_order="low-first"``, the default, is
what the existing package reads: feature f is bits f * nbits upward of its byte, least
significant first. ``bit_order="colbert"`` is what the files of ColBERT, fast-plaid and
next-plaid hold: each number's bits least significant first, packed from the top of the byte.
Real indexes need "colbert"; read with the wrong order they score like noise.
"""

from __future__ import annotations

from functools import partial
from math import isqrt, prod
from typing import TYPE_CHECKING, Any

from ._engine import compressed, native
from ._engine.checks import (
    FLOATS,
    Framework,
    check_axes,
    check_device,
    check_float,
    check_rank,
    check_shape,
    embeddings,
    framework,
    sequence_lengths,
    token_mask,
    token_weights,
    whole,
    whole_number,
)
from ._engine.compressed import (
    CompressedTokens,
    check_bit_order,
    check_codec_kind,
    check_codes,
    checked_bits,
    checked_codec,
    checked_codes,
    checked_residuals,
    documents,
    worded,
)
from ._engine.problem import HIGH, HIGHEST, MEDIUM, Codec, Problem, Tokens, batched, detached
from ._engine.verbs import score

if TYPE_CHECKING:
    from .reference import maxsim_residual_reference as maxsim_residual_reference
    from .reference import plaid_approx_score_reference as plaid_approx_score_reference

_PACKED = {"codes": "codes_flat", "residuals": "residuals_flat"}
_PRECISIONS = {"highest": HIGHEST, "high": HIGH, "medium": MEDIUM}


def _name(name: str) -> str:
    return name


def _packed_name(name: str) -> str:
    return _PACKED.get(name, name)


def _score(
    name: Any,
    Q: Any,
    D: CompressedTokens,
    normalize: bool,
    q_mask: Any,
    q_weights: Any,
    return_argmax: bool,
) -> Any:
    """Both layouts' scores; ``name`` tells what the caller calls an argument."""
    arrays = {name(key): x for key, x in D.arrays().items()}
    fw = framework(Q=Q, **arrays, q_mask=q_mask, q_weights=q_weights)
    check_rank("Q", Q, (2, 3), "[Nq, Lq, d] or [Lq, d]")
    found = documents(fw, name, D, Q, normalize)
    problem = compressed.problem(fw, Q, q_mask, q_weights, found, normalize)
    with worded(found.look):
        scores, argmax = score(problem, return_argmax)
    scores = fw.nan_where(found.broken, scores)
    argmax = None if argmax is None else fw.cast(argmax, "int32")
    if len(Q.shape) == 2:
        scores, argmax = scores[0], None if argmax is None else argmax[0]
    return (scores, argmax) if return_argmax else scores


def __getattr__(name: str) -> Any:
    """The references need torch, so they are imported when they are asked for."""
    if name in ("maxsim_residual_reference", "plaid_approx_score_reference"):
        from . import reference

        return getattr(reference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def maxsim_residual(
    Q: Any,
    codes: Any,
    residuals: Any,
    doc_lengths: Any,
    centroids: Any,
    bucket_weights: Any,
    nbits: int,
    *,
    normalize: bool = True,
    bit_order: str = "low-first",
    inv_norms: Any = None,
    q_mask: Any = None,
    q_weights: Any = None,
    return_argmax: bool = False,
) -> Any:
    """Score queries against compressed documents, padded.

    Args:
        Q: ``[Nq, Lq, d]``, or ``[Lq, d]`` for a result ``[Nd]``. Its dtype is that of the
            decoded tokens: float32 sums centroid and weight in float32, float16 and bfloat16
            round both, and their sum.
        codes: integer centroid numbers ``[Nd, max_Ld]``; int16, uint16, int32 and int64 are
            read where they lie.
        residuals: uint8 ``[Nd, max_Ld, ceil(d * nbits / 8)]``; None with 0 bits.
        doc_lengths: integers ``[Nd]``, 0 to max_Ld.
        centroids: float ``[C, d]``.
        bucket_weights: float ``[2 ** nbits]``; a token is centroids[code] +
            bucket_weights[bucket] in each dimension. None with 0 bits.
        nbits: 1, 2, 4 or 8; 0 for tokens that are their centroids.
        normalize: normalize query tokens and decoded tokens (norm clamped at 1e-12).
        bit_order: "low-first" or "colbert", see the module.
        inv_norms: float16 or float32 ``[Nd, max_Ld]``: with ``normalize`` decoded tokens are
            multiplied by these, and no norms are taken; :func:`encode` gives them.
        q_mask, q_weights, return_argmax: as in :func:`maxsim`.

    Returns:
        float32 ``[Nq, Nd]``; empty documents score 0. Gradients flow to Q and q_weights.
        Infinities as in :func:`maxsim`.

    Raises:
        ValueError: shapes, nbits, lengths beyond max_Ld, codes outside the centroids. Codes and
        lengths in device memory are not looked at, unless with ``LIK_CHECK=1``: the scores of
        such a document are NaN.
        TypeError: dtypes.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.plaid import maxsim_residual
        >>> codes, residuals = np.array([[0, 1]]), np.zeros((1, 2, 1), "u1")
        >>> Q = centroids = np.eye(2, 4, dtype="f4")
        >>> codec = centroids, np.zeros(4, "f4"), 2
        >>> maxsim_residual(Q, codes, residuals, np.array([2]), *codec).tolist()
        [2.0]
    """
    if doc_lengths is None:
        raise TypeError("doc_lengths must be a torch.Tensor or a numpy.ndarray, got None")
    codec = Codec(centroids, bucket_weights, nbits, bit_order)
    D = CompressedTokens(codes, residuals, codec, doc_lengths=doc_lengths, inv_norms=inv_norms)
    return _score(_name, Q, D, normalize, q_mask, q_weights, return_argmax)


def maxsim_residual_varlen(
    Q: Any,
    codes_flat: Any,
    residuals_flat: Any,
    cu_seqlens_d: Any,
    centroids: Any,
    bucket_weights: Any,
    nbits: int,
    *,
    max_seqlen_d: int | None = None,
    normalize: bool = True,
    bit_order: str = "low-first",
    inv_norms: Any = None,
    q_mask: Any = None,
    q_weights: Any = None,
    return_argmax: bool = False,
) -> Any:
    """:func:`maxsim_residual` of packed documents: codes ``[T]``, residuals ``[T, bytes]``,
    inv_norms ``[T]``, offsets ``[Nd + 1]``.

    ``max_seqlen_d`` is an upper bound of the lengths, found if None. Returns ``[Nq, Nd]``,
    ``[Nd]`` for a 2-D Q. Gradients flow to Q and q_weights.

    Raises:
        ValueError: shapes, offsets, nbits, a bound that is too small, codes outside the
        centroids. In device memory as for :func:`maxsim_residual`.
        TypeError: dtypes.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.plaid import maxsim_residual_varlen
        >>> codes, residuals = np.array([0, 1]), np.zeros((2, 1), "u1")
        >>> Q = centroids = np.eye(2, 4, dtype="f4")
        >>> codec = centroids, np.zeros(4, "f4"), 2
        >>> maxsim_residual_varlen(Q, codes, residuals, np.array([0, 2]), *codec).tolist()
        [2.0]
    """
    if cu_seqlens_d is None:
        raise TypeError("cu_seqlens_d must be a torch.Tensor or a numpy.ndarray, got None")
    codec = Codec(centroids, bucket_weights, nbits, bit_order)
    D = CompressedTokens(codes_flat, residuals_flat, codec, None, cu_seqlens_d, max_seqlen_d, inv_norms)
    return _score(_packed_name, Q, D, normalize, q_mask, q_weights, return_argmax)


def plaid_approx_score(
    query_centroid_scores: Any, codes: Any, doc_lengths: Any, *, q_mask: Any = None, q_weights: Any = None
) -> Any:
    """PLAID's approximate stage: a token counts as its centroid.

    Args:
        query_centroid_scores: float ``[C, Lq]``, the products of centroids and query tokens, or
            ``[Nq, C, Lq]``.
        codes: integers ``[B, max_Ld]``, 0 to C - 1 in the real tokens.
        doc_lengths: integers ``[B]``, 0 to max_Ld.
        q_mask: bool ``[Lq]`` or ``[Nq, Lq]``: query tokens that count.
        q_weights: float of that shape.

    Returns:
        float32 ``[B]`` or ``[Nq, B]``: the sum over query tokens of the best score among the
        document's codes; empty documents score 0.

    Raises:
        ValueError: shapes, lengths beyond max_Ld, codes outside the centroids. In device memory
        neither is looked at, unless with ``LIK_CHECK=1``: there a code outside, negative or
        not, counts as centroid 0, as in the existing package, and the score of a document with
        such a length is NaN.
        TypeError: dtypes.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.plaid import plaid_approx_score
        >>> scores = np.array([[1.0, 0.0], [0.0, 2.0]], "f4")
        >>> plaid_approx_score(scores, np.array([[0, 1]]), np.array([2])).tolist()
        [3.0]
    """
    fw = framework(
        query_centroid_scores=query_centroid_scores,
        codes=codes,
        doc_lengths=doc_lengths,
        q_mask=q_mask,
        q_weights=q_weights,
    )
    check_rank("query_centroid_scores", query_centroid_scores, (2, 3), "[C, Lq] or [Nq, C, Lq]")
    check_rank("codes", codes, (2,), "[B, max_Ld]")
    table_name = "query_centroid_scores"
    table = detached(fw.cast(embeddings(fw, table_name, query_centroid_scores), "float32"))
    count = table.shape[-2]
    codes = checked_codes(fw, "codes", codes, count, table, table_name)
    per_token, like = (*table.shape[:-2], table.shape[-1]), f"{table_name}.swapaxes(-1, -2)"
    q_mask = token_mask(fw, "q_mask", q_mask, per_token, table, like)
    weights = token_weights(fw, q_weights, per_token, table, like)
    about = (codes.shape[0],), codes.shape[1], codes, "codes"
    _, kept, broken = sequence_lengths(fw, "doc_lengths", doc_lengths, *about)
    look = partial(check_codes, fw, "codes", codes, count, kept, None)
    on_host = fw.on_host(codes) and fw.on_host(kept)
    if fw.readable(codes) and fw.readable(kept) and (count == 0 or not on_host):
        look()
    if not on_host:
        numbers = whole(fw, codes)
        codes = fw.where((numbers < 0) | (numbers >= count), 0, numbers)
    # A query token's elements are its products with the centroids.
    queries = Tokens(table.swapaxes(-1, -2), q_mask, weights)
    queries = queries if count else queries._replace(data=fw.widen_empty(queries.data))
    queries = queries if len(table.shape) == 3 else batched(queries)
    with worded(look if on_host else None):
        out, _ = score(Problem(queries, Tokens(None, kept, codes=codes)))
    out = fw.nan_where(broken, out)
    return out if len(table.shape) == 3 else out[0]


def _check_plain(fw: Framework, name: str, *arrays: Any) -> None:
    if fw.tracing(*arrays):
        raise ValueError(
            f"{name} are traced, fake, wrapped by torch.func or of a subclass: a codec needs their values"
        )


def _rows(fw: Framework, x: Any, mask: Any) -> Tokens:
    """Tokens [..., d] of any number of axes, to be met one by one."""
    check_axes("tokens", x)
    mask = token_mask(fw, "mask", mask, tuple(x.shape[:-1]), x, "tokens")
    _check_plain(fw, "tokens", x, mask)
    x = detached(embeddings(fw, "tokens", x))
    flat = x.reshape(1, prod(x.shape[:-1]), x.shape[-1]) if len(x.shape) != 3 else x
    return Tokens(flat, None if mask is None else mask.reshape(flat.shape[:-1]))


def _precision(name: str) -> int:
    if not isinstance(name, str) or name not in _PRECISIONS:
        raise ValueError(f'precision must be "highest", "high" or "medium", got {name!r}')
    return _PRECISIONS[name]


# Long because of its docstring.
def train_codec(
    tokens: Any,
    nbits: int = 4,
    *,
    n_centroids: int | None = None,
    mask: Any = None,
    normalize: bool = False,
    bit_order: str = "low-first",
    seed: int = 42,
    iterations: int = 4,
    points_per_centroid: int = 256,
    precision: str = "highest",
) -> Codec:
    """A codec from a sample of tokens: centroids by spherical k-means, buckets by quantiles of
    what then remains, as ColBERTv2 trains them (Santhanam et al. 2022).

    Args:
        tokens: float ``[..., d]``, of unit length as models give them: some per cent of a
            collection are enough.
        nbits: bits an element: 1, 2, 4 or 8; 0 for a codec of centroids alone.
        n_centroids: how many; None for 16 times the square root of the tokens, rounded down to
            a power of two, as ColBERT has it of the tokens of a collection, and at most half as
            many as there are tokens.
        mask: bool or integers 0 and 1, ``tokens.shape[:-1]``: tokens that count.
        normalize: normalize the tokens first.
        bit_order: what :func:`encode` will write: "low-first" or "colbert", see the module.
        seed: of the shuffle that chooses the first centroids and what k-means sees.
        iterations: of k-means.
        points_per_centroid: k-means sees so many tokens for a centroid at most.
        precision: "highest", "high" or "medium": how accurate products are that choose a
            token's centroid in k-means, as ``torch.set_float32_matmul_precision`` says it.

    Returns:
        :class:`Codec`: centroids float32 ``[C, d]`` of unit length, weights float32
        ``[2 ** nbits]``, nbits, bit_order, and cutoffs float32 ``[2 ** nbits - 1]``; neither
        weights nor cutoffs with 0 bits. The same for any number of threads.

    Tokens without a direction, shorter than 1e-12 or not finite, take no part. Where there are
    fewer others than centroids, several centroids begin from the same ones; where there is no
    other token, centroids, weights and cutoffs are 0, and nothing fails: whether there is one
    shows only when all have been read.

    Raises:
        ValueError: shapes, nbits, more centroids than tokens.
        TypeError: dtypes.
        NotImplementedError: tokens on a device whose backend does not train.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.plaid import decode, encode, train_codec
        >>> tokens = np.random.default_rng(0).standard_normal((500, 16), "f4")
        >>> tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        >>> codec = train_codec(tokens, 4, n_centroids=32)
        >>> codec.centroids.shape, codec.weights.shape, codec.cutoffs.shape
        ((32, 16), (16,), (15,))
        >>> codes, residuals = encode(tokens, codec)
        >>> bool(abs(decode(codes, residuals, codec) - tokens).mean() < 0.02)
        True
    """
    fw = framework(tokens=tokens, mask=mask)
    nbits = checked_bits("nbits", nbits)
    check_bit_order("bit_order", bit_order)
    rows = _rows(fw, tokens, mask)
    n_tokens = int(rows.data.shape[0] * rows.data.shape[1]) if rows.mask is None else int(rows.mask.sum())
    if n_tokens == 0:
        raise ValueError("tokens are none that count: a codec needs at least one")
    if n_centroids is None:
        # as many as tokens would leave no residual to make buckets of
        n_centroids = max(min(1 << (isqrt(256 * n_tokens).bit_length() - 1), n_tokens // 2), 1)
    n_centroids = whole_number("n_centroids", n_centroids)
    if n_centroids > n_tokens:
        raise ValueError(f"n_centroids is {n_centroids}, there are {n_tokens} tokens that count")
    centroids, cutoffs, weights = native.train(
        fw,
        rows,
        normalize,
        n_centroids,
        nbits,
        whole_number("points_per_centroid", points_per_centroid, 1, (1 << 63) - 1),
        whole_number("iterations", iterations, 1, (1 << 31) - 1),
        whole_number("seed", seed, 0, (1 << 64) - 1),
        _precision(precision),
    )
    return Codec(centroids, weights, nbits, bit_order, cutoffs)


def _codec_name(name: str) -> str:
    if name in ("codes", "residuals"):
        return name
    return "codec." + {"bucket_weights": "weights"}.get(name, name)


def encode(
    tokens: Any,
    codec: Codec,
    *,
    mask: Any = None,
    normalize: bool = False,
    codes_dtype: str = "int32",
    inv_norms_dtype: str | None = None,
    precision: str = "highest",
) -> Any:
    """Tokens to centroid numbers and bytes of residual.

    A token's code is the lowest centroid with the largest product; each element of what then
    remains goes into the bucket whose number is that of the cutoffs below it.

    Args:
        tokens: float ``[..., d]``.
        codec: from :func:`train_codec`, or of arrays, the cutoffs included.
        mask: bool or integers 0 and 1, ``tokens.shape[:-1]``: the others' codes and bytes
            are 0.
        normalize: normalize the tokens first.
        codes_dtype: "int32", "int64", or "uint16" with at most 65536 centroids.
        inv_norms_dtype: "float32" or "float16": also return 1 / max(norm of the decoded token,
            1e-12), which the scoring functions take as inv_norms.
        precision: of the products that choose the centroid, as for :func:`train_codec`.

    Returns:
        (codes ``tokens.shape[:-1]``, residuals uint8 ``[..., ceil(d * nbits / 8)]``, which are
        None with 0 bits), and the inverse norms if wanted.

    Raises:
        ValueError: shapes, a codec without cutoffs, codes_dtype, inv_norms_dtype.
        TypeError: dtypes.
        NotImplementedError: tokens on a device whose backend does not encode.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.plaid import Codec, encode
        >>> cutoffs, weights = np.array([0.0], "f4"), np.array([-0.25, 0.25], "f4")
        >>> codec = Codec(np.eye(2, 8, dtype="f4"), weights, 1, cutoffs=cutoffs)
        >>> encode(np.eye(2, 8, dtype="f4") + 0.1, codec)
        (array([0, 1], dtype=int32), array([[255],
               [255]], dtype=uint8))
    """
    check_codec_kind(codec)
    arrays = {"tokens": tokens, "codec.centroids": codec.centroids}
    if codec.nbits:
        arrays |= {"codec.weights": codec.weights}
        if codec.cutoffs is None:
            raise ValueError("codec.cutoffs is None: encoding needs the cutoffs between the buckets")
        arrays |= {"codec.cutoffs": codec.cutoffs}
    fw = framework(**arrays, mask=mask)
    rows = _rows(fw, tokens, mask)
    codec = checked_codec(fw, _codec_name, codec, tokens, "tokens")
    if codec.nbits:
        check_shape(
            "codec.cutoffs", codec.cutoffs, ((1 << codec.nbits) - 1,), "what divides 2 ** nbits buckets"
        )
        check_float(fw, "codec.cutoffs", codec.cutoffs)
        check_device(fw, "codec.cutoffs", codec.cutoffs, tokens, "tokens")
        codec = codec._replace(cutoffs=fw.contiguous(fw.cast(detached(codec.cutoffs), "float32")))
    if codes_dtype not in ("uint16", "int32", "int64"):
        raise ValueError(f'codes_dtype must be "uint16", "int32" or "int64", got {codes_dtype!r}')
    if codes_dtype == "uint16" and codec.centroids.shape[0] > 1 << 16:
        raise ValueError(f'codes_dtype is "uint16", codec.centroids are {int(codec.centroids.shape[0])}')
    if inv_norms_dtype not in (None, "float16", "float32"):
        raise ValueError(f'inv_norms_dtype must be None, "float16" or "float32", got {inv_norms_dtype!r}')
    found = native.encode(
        fw, rows._replace(codec=codec), normalize, codes_dtype, inv_norms_dtype, _precision(precision)
    )
    shape = tuple(tokens.shape[:-1])
    codes, residuals, norms = (None if x is None else x.reshape((*shape, *x.shape[2:])) for x in found)
    return (codes, residuals) if norms is None else (codes, residuals, norms)


def decode(
    codes: Any,
    residuals: Any,
    codec: Codec,
    *,
    dtype: str = "float32",
    normalize: bool = False,
) -> Any:
    """The vectors of compressed tokens.

    Args:
        codes: integer centroid numbers ``[...]``.
        residuals: uint8 ``[..., ceil(d * nbits / 8)]``; None with 0 bits.
        codec: from :func:`train_codec`, or of arrays: ``Codec(centroids, weights, nbits)``.
        dtype: "float32", "float16" or "bfloat16": of the result, and of the sums of centroid
            and weight, as the scoring functions decode for queries of that dtype.
        normalize: normalize the result (norm clamped at 1e-12).

    Returns:
        ``[..., d]`` in that dtype.

    Raises:
        ValueError: shapes, codes outside the centroids.
        TypeError: dtypes.
        NotImplementedError: arrays on a device whose backend does not decode.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels.plaid import Codec, decode
        >>> codec = Codec(np.eye(2, 8, dtype="f4"), np.array([-0.5, 0.5], "f4"), 1)
        >>> decode(np.array([1]), np.array([[3]], "u1"), codec).tolist()
        [[0.5, 1.5, -0.5, -0.5, -0.5, -0.5, -0.5, -0.5]]
    """
    arrays = CompressedTokens(codes, residuals, codec).arrays()
    fw = framework(**{_codec_name(key): x for key, x in arrays.items()})
    if dtype not in FLOATS:
        raise ValueError(f"dtype must be one of {', '.join(FLOATS)}, got {dtype!r}")
    codec = checked_codec(fw, _codec_name, codec, codec.centroids, "codec.centroids")
    count, dim = codec.centroids.shape
    codes = checked_codes(fw, "codes", codes, count, codec.centroids, "codec.centroids")
    residuals = checked_residuals(
        fw, _codec_name, residuals, codes, codec, codec.centroids, "codec.centroids"
    )
    _check_plain(fw, "codes", codes, residuals, codec.centroids)
    flat = codes.reshape(-1)
    tokens = Tokens(
        None if residuals is None else residuals.reshape(flat.shape[0], residuals.shape[-1]), codes=flat
    )
    with worded(partial(check_codes, fw, "codes", codes, count, None, None) if fw.on_host(codes) else None):
        out = native.decode(fw, tokens._replace(codec=codec), normalize, dtype)
    return out.reshape((*codes.shape, dim))


__all__ = [
    "Codec",
    "CompressedTokens",
    "decode",
    "encode",
    "maxsim_residual",
    "maxsim_residual_reference",
    "maxsim_residual_varlen",
    "plaid_approx_score",
    "plaid_approx_score_reference",
    "train_codec",
]
