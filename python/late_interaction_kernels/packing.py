"""Lists of sequences of unequal lengths as packed tokens with offsets: :func:`pack` and
:func:`unpack`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from ._engine.checks import compiling, framework, packed_offsets, shape_text
from ._engine.kinds import Array


def pack(sequences: Sequence[Array]) -> tuple[Array, Array]:
    """(tokens ``[total, d]``, offsets int64 ``[N + 1]``) of N arrays ``[L_i, d]``, in one copy.

    What :func:`maxsim_varlen` takes as D_packed and cu_seqlens_d, :func:`retrieve` and
    :class:`MaxSimScorer` as D and cu_seqlens_d, queries likewise. Arrays ``[L_i]``, masks,
    scales or weights, are packed in the same way. Lengths may be 0. Gradients flow to tensors.

    Raises:
        ValueError: no arrays; shapes that differ in more than their first axis, devices.
        TypeError: arrays of unequal kinds or dtypes; one array in the place of a list.

    Example:
        >>> import numpy as np
        >>> import late_interaction_kernels as lik
        >>> documents = [np.eye(2, 4, dtype="f4"), np.ones((1, 4), "f4")]
        >>> tokens, offsets = lik.pack(documents)
        >>> tokens.shape, offsets.tolist()
        ((3, 4), [0, 2, 3])
        >>> scores, ids = lik.retrieve(documents[0], tokens, 1, cu_seqlens_d=offsets)
        >>> ids.tolist()
        [0]
    """
    if hasattr(sequences, "shape"):
        raise TypeError(
            f"sequences must be a list of arrays [L_i, d], got one {type(sequences).__name__} of shape "
            f"{shape_text(sequences.shape)}"
        )
    if isinstance(sequences, (str, bytes, Mapping)) or not isinstance(sequences, Iterable):
        raise TypeError(f"sequences must be a list of arrays [L_i, d], got {type(sequences).__name__}")
    sequences = list(sequences)
    if not sequences:
        raise ValueError("sequences holds 0 arrays, must hold at least 1: nothing tells dim and dtype")
    first = sequences[0]
    fw = framework(**{f"sequences[{i}]": x for i, x in enumerate(sequences)})
    if len(first.shape) not in (1, 2):
        raise ValueError(f"sequences[0] must have shape [L_i, d] or [L_i], got {shape_text(first.shape)}")
    for i, x in enumerate(sequences):
        if x.shape[1:] != first.shape[1:] or not len(x.shape):
            raise ValueError(
                f"sequences must have shape [L_i, d] with one d, or [L_i]: sequences[0] is "
                f"{shape_text(first.shape)}, sequences[{i}] is {shape_text(x.shape)}"
            )
        if x.dtype != first.dtype:
            raise TypeError(
                f"sequences must have one dtype: sequences[0] is {fw.dtype_name(first)}, "
                f"sequences[{i}] is {fw.dtype_name(x)}"
            )
        if fw.device(x) != fw.device(first):
            raise ValueError(
                f"sequences must be on one device: sequences[0] is on {fw.device(first)}, "
                f"sequences[{i}] is on {fw.device(x)}"
            )
    offsets = [0]
    for x in sequences:
        offsets.append(offsets[-1] + int(x.shape[0]))
    return fw.joined(sequences), fw.integers(offsets, first)


def unpack(tokens: Array, offsets: Array) -> list[Array]:
    """The N arrays ``[L_i, d]`` (or ``[L_i]``) that ``pack`` made these of: views, no copies.

    The offsets are looked at, on a device with a wait.

    Raises:
        ValueError: offsets that are not ascending, or beyond the tokens.

    Example:
        >>> import numpy as np
        >>> from late_interaction_kernels import pack, unpack
        >>> [x.tolist() for x in unpack(*pack([np.array([1, 2]), np.array([3])]))]
        [[1, 2], [3]]
    """
    fw = framework(tokens=tokens, offsets=offsets)
    if not len(tokens.shape):
        raise ValueError("tokens must have shape [total, ...], got ()")
    if compiling() or not fw.has_values(offsets):
        raise ValueError(
            "offsets are compiled, traced, fake or wrapped by torch.func: their values are needed here"
        )
    found, _ = packed_offsets(fw, "offsets", offsets, tokens.shape[0], "tokens", tokens)
    ends = found.tolist()
    if any(b < a for a, b in pairwise(ends)) or ends[0] < 0 or ends[-1] > tokens.shape[0]:
        raise ValueError(
            f"offsets must be ascending, from at least 0 to at most {int(tokens.shape[0])}, got {ends}"
        )
    return [tokens[a:b] for a, b in pairwise(ends)]


__all__ = ["pack", "unpack"]
