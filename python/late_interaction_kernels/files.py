"""Token vectors in files: :func:`save` and :func:`load`.

The files are the ``lik`` command's own (docs/formats.md), a ``.safetensors`` file of one
collection: what Python saves the shell and C read, and the other way round. Loading maps the
file: a collection may be larger than memory.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ._engine.checks import (
    FLOATS,
    FLOATS8,
    Framework,
    check_float,
    check_rank,
    check_shape,
    framework,
    packed_offsets,
    shape_text,
    token_mask,
)
from ._engine.compressed import CompressedTokens, checked_codec, checked_codes, checked_residuals
from ._engine.problem import BIT_ORDERS, Codec
from .packing import pack

_TYPES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
    "uint16": "U16",
    "int32": "I32",
    "int64": "I64",
}
_NAMES = {code: name for name, code in _TYPES.items()} | {"F64": "float64", "I16": "int16"}
_BYTES = {
    "float64": 8,
    "int64": 8,
    "float32": 4,
    "int32": 4,
    "float16": 2,
    "bfloat16": 2,
    "uint16": 2,
    "int16": 2,
}
_VECTORS = ("embeddings", "vectors", "tokens")
_HEADER_MAX = 100 << 20
_CONTROLS = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0))))  # an id holds none


def path_text(path: Any) -> str:
    """As a string."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"path must be a str, bytes or os.PathLike, got {type(path).__name__}")
    return os.fsdecode(path)


class Saved(NamedTuple):
    """What :func:`load` found; arrays that the file does not have are None."""

    tokens: Any  # [N, L, d], packed [total, d], or CompressedTokens
    offsets: Any = None  # int64 [N + 1] of packed tokens
    mask: Any = None  # bool, the tokens' shape without d
    scale: Any = None  # float32: of int8 and fp8 tokens
    weights: Any = None  # float32: of query tokens
    ids: list[str] | None = None
    texts: list[dict[str, Any]] | None = None  # members "id", "text", "tokens" of each sequence
    normalize: bool | None = None  # of compressed tokens: whether they count as unit vectors

    def documents(self) -> dict[str, Any]:
        """The arguments of :func:`retrieve` that these are: ``retrieve(Q, top_k=10,
        **saved.documents())``. fp8 tokens are :func:`fp8.maxsim_inference_fp8`'s D and scale_D.

        Raises:
            ValueError: packed fp8 tokens, which that function does not take; scaled float ones.
        """
        if isinstance(self.tokens, CompressedTokens):
            return {"D": self.tokens, "normalize": bool(self.normalize)}
        kind = str(self.tokens.dtype).split(".")[-1]
        if kind in FLOATS8:
            if self.offsets is not None:
                raise ValueError(
                    "tokens are packed fp8 tokens, and maxsim_inference_fp8 takes padded ones: save them "
                    "padded with a mask, or as int8"
                )
            found: dict[str, Any] = {"D": self.tokens, "scale_D": self.scale, "d_mask": self.mask}
            return {k: x for k, x in found.items() if x is not None}
        found = {"D": self.tokens, "d_mask": self.mask, "cu_seqlens_d": self.offsets}
        if kind == "int8":
            if self.scale is None:
                raise ValueError("scale is None, and int8 tokens need one")
            each = self.scale  # one of all tokens is one a token too
            if not len(each.shape):
                each = framework(tokens=self.tokens).ones(tuple(self.tokens.shape[:-1]), each) * each
            found |= {"D": (self.tokens, each), "storage": "int8"}
        elif self.scale is not None:
            raise ValueError(f"scale is of {kind} tokens, for which retrieve takes none: multiply them")
        return {k: x for k, x in found.items() if x is not None}


def save(
    path: str | os.PathLike[str],
    documents: Any,
    *,
    offsets: Any = None,
    mask: Any = None,
    scale: Any = None,
    weights: Any = None,
    ids: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    token_texts: Sequence[Sequence[str]] | None = None,
    normalize: bool = True,
) -> None:
    """Write token vectors, complete or not at all, as the ``lik`` command reads them.

    Args:
        path: the file, by its name a ``.safetensors``; an existing one is replaced.
        documents: a list of ``[L_i, d]``; padded ``[N, L, d]`` with a mask or without; packed
            ``[total, d]`` with ``offsets``; the (values, scales) pair of an int8 or fp8
            quantizer; or :class:`plaid.CompressedTokens`, whose codec needs its cutoffs.
            Queries too.
        offsets: integers ``[N + 1]``, from 0 to total, where tokens are packed.
        mask: bool of the tokens' shape without d, True = token counts.
        scale: instead of a pair: one element, or one a token.
        weights: float, one a token: factors of query tokens.
        ids, texts: N names, N texts. A file of them is not needed then.
        token_texts: for each of the N its tokens' texts: what heat maps are labeled with.
        normalize: of compressed tokens: they count as unit vectors.

    Raises:
        ValueError: shapes, counts or offsets that do not fit; nothing is written.
        TypeError: dtypes that the format does not have.

    Example:
        >>> import numpy as np, tempfile, late_interaction_kernels as lik
        >>> path = tempfile.mkdtemp() + "/docs.safetensors"
        >>> lik.save(path, [np.eye(2, 4, dtype="f4"), np.ones((1, 4), "f4")], ids=["a", "b"])
        >>> saved = lik.load(path)
        >>> saved.ids, saved.offsets.tolist()
        (['a', 'b'], [0, 2, 3])
        >>> lik.retrieve(np.ones((1, 4), "f4"), top_k=1, **saved.documents())[1].tolist()
        [1]
    """
    metadata: dict[str, str] = {}
    where = path_text(path)
    if isinstance(documents, CompressedTokens):
        given = {"offsets": offsets, "scale": scale, "weights": weights}
        for name, x in given.items():
            if x is not None:
                raise ValueError(f"{name} must be None where documents is CompressedTokens")
        fw, tensors, lengths = _compressed(documents, mask)
        codec = documents.codec
        metadata = {
            "format": "lik-compressed",
            "version": "1",
            "nbits": str(codec.nbits),
            "bit_order": codec.bit_order,
            "dim": str(int(codec.centroids.shape[1])),
            "normalize": "true" if normalize else "false",
        }
    else:
        fw, tensors, lengths = _dense(documents, offsets, mask, scale, weights)
    lines = _lines(lengths, ids, texts, token_texts)
    if lines:
        tensors["documents"] = lines
    _write(where, fw, tensors, metadata)


def _dense(
    documents: Any, offsets: Any, mask: Any, scale: Any, weights: Any
) -> tuple[Framework, dict[str, Any], list[int]]:
    if isinstance(documents, list):
        if offsets is not None:
            raise ValueError("offsets must be None where documents is a list: it has them")
        documents, offsets = pack(documents)
    elif isinstance(documents, tuple):
        if hasattr(documents, "errors"):
            raise ValueError(
                f"documents is {type(documents).__name__}: save its documents, or the pair (values, scales)"
            )
        if len(documents) != 2 or scale is not None:
            raise ValueError("documents must be an array or one (values, scales) pair, without a scale then")
        documents, scale = documents
    if documents is None:
        raise TypeError("documents must be a list, an array, a pair or CompressedTokens, got None")
    arrays = {"documents": documents, "offsets": offsets, "scale": scale, "weights": weights, "mask": mask}
    fw = framework(**{k: x for k, x in arrays.items() if x is not None})
    kind = fw.dtype_name(documents)
    if kind not in (*FLOATS, *FLOATS8, "int8", "float64"):
        raise TypeError(f"documents has dtype {kind}, must be one of {', '.join((*FLOATS, *FLOATS8))}, int8")
    packed = offsets is not None
    check_rank("documents", documents, (2,) if packed else (3,), "[total, d]" if packed else "[N, L, d]")
    if documents.shape[-1] < 1:
        raise ValueError(f"documents must have at least 1 dimension, got {shape_text(documents.shape)}")
    tensors = {"embeddings": fw.cast(documents, "float32") if kind == "float64" else documents}
    about = tuple(documents.shape[:-1])
    lengths = None
    if packed:
        packed_offsets(fw, "offsets", offsets, documents.shape[0], "documents", offsets)
        ends = offsets.tolist()
        if ends[0] != 0 or ends[-1] != documents.shape[0]:
            raise ValueError(
                f"offsets must go from 0 to {int(documents.shape[0])}, the tokens of documents, got "
                f"{ends[0]} to {ends[-1]}"
            )
        lengths = [b - a for a, b in pairwise(ends)]
        tensors["lengths"] = fw.integers(lengths, offsets)
    if scale is not None:
        check_float(fw, "scale", scale)
        one = 1 not in about and tuple(scale.shape) in ((), (1,))
        if not one:
            check_shape("scale", scale, about, "one a token, or one element")
        tensors["scale" if one else "scales"] = fw.cast(scale, "float32").reshape((1,) if one else about)
    elif kind == "int8":
        raise ValueError("scale is needed: documents is int8; pass the pair of quantize_int8_per_token")
    if weights is not None:
        check_shape("weights", weights, about, "one a token")
        check_float(fw, "weights", weights)
        tensors["weights"] = fw.cast(weights, "float32")
    if mask is not None:
        tensors["mask"] = token_mask(fw, "mask", mask, about, documents, "documents")
    if lengths is None:
        lengths = [int(about[1])] * int(about[0])
    return fw, tensors, lengths


def _compressed(D: CompressedTokens, mask: Any) -> tuple[Framework, dict[str, Any], list[int]]:
    named = {f"documents.{k}": x for k, x in D.arrays().items()}
    fw = framework(**named, mask=mask)
    name = "documents.{}".format
    codec = checked_codec(fw, name, D.codec, D.codec.centroids, "documents")
    if not codec.nbits or D.codec.cutoffs is None:
        raise ValueError(
            "documents.codec.cutoffs is needed, and nbits of 1, 2, 4 or 8: the file has them. "
            f"nbits is {codec.nbits}, cutoffs {'None' if D.codec.cutoffs is None else 'given'}"
        )
    count = int(codec.centroids.shape[0])
    codes = checked_codes(fw, name("codes"), D.codes, count, D.codes, name("codes"))
    residuals = checked_residuals(fw, name, D.residuals, codes, codec, codes, name("codes"))
    kept = None if mask is None else token_mask(fw, "mask", mask, tuple(codes.shape), codes, "documents")
    flat = {"residuals": residuals, "codes": fw.cast(codes, "int64"), "inv_norms": D.inv_norms, "mask": kept}
    if D.cu_seqlens_d is not None:
        packed_offsets(fw, name("cu_seqlens_d"), D.cu_seqlens_d, codes.shape[0], name("codes"), codes)
        ends = D.cu_seqlens_d.tolist()
        lengths = [b - a for a, b in pairwise(ends)]
        flat = {k: None if x is None else x[ends[0] : ends[-1]] for k, x in flat.items()}
    else:
        longest, n = int(codes.shape[1]), int(codes.shape[0])
        lengths = [longest] * n if D.doc_lengths is None else [int(x) for x in D.doc_lengths.tolist()]
        if len(lengths) != n or any(not 0 <= x <= longest for x in lengths):
            raise ValueError(f"{name('doc_lengths')} must be {n} lengths of 0 to {longest}")
        inside = fw.arange(longest, codes) < fw.integers(lengths, codes)[:, None]
        flat = {k: None if x is None else x[inside] for k, x in flat.items()}
    codes = flat["codes"]
    if all(codes.shape) and (int(codes.min()) < 0 or int(codes.max()) >= count):
        raise ValueError(
            f"{name('codes')} must be 0 to {count - 1}, got {int(codes.min())} to {int(codes.max())}"
        )
    tensors = {
        "lengths": fw.integers(lengths, codes),
        "centroids": codec.centroids,
        "bucket_weights": fw.cast(codec.weights, "float32"),
        "bucket_cutoffs": fw.cast(D.codec.cutoffs, "float32"),
        "residuals": flat["residuals"],
        "codes": fw.cast(codes, "uint16" if count <= 1 << 16 else "int32"),
        "inv_norms": flat["inv_norms"],
        "mask": flat["mask"],
    }
    return fw, {k: x for k, x in tensors.items() if x is not None}, lengths


def _lines(lengths: list[int], ids: Any, texts: Any, token_texts: Any) -> bytes:
    """JSON lines of what there is to say of each sequence."""
    count = len(lengths)
    given = {"id": ids, "text": texts, "tokens": token_texts}
    given = {member: x for member, x in given.items() if x is not None}
    names = {"id": "ids", "text": "texts", "tokens": "token_texts"}
    for member, x in given.items():
        if isinstance(x, (str, bytes)) or not hasattr(x, "__len__"):
            raise TypeError(
                f"{names[member]} must be a list with an entry for each of {count} sequences, got one "
                f"{type(x).__name__}"
            )
        if len(x) != count:
            raise ValueError(f"{names[member]} has {len(x)} entries, there are {count} sequences")
    seen: dict[str, int] = {}
    for i, name in enumerate(map(str, () if ids is None else ids)):
        if seen.setdefault(name, i) != i:
            raise ValueError(f"ids must differ, ids[{seen[name]}] and ids[{i}] are both {name!r}")
    for i, name in enumerate(map(str, () if ids is None else ids)):
        if not name or len(name.encode()) > 1000 or name[0] == "\ufeff" or _CONTROLS & set(name):
            raise ValueError(
                f"ids[{i}] is {name!r}, must be 1 to 1000 bytes without control characters or a byte order "
                "mark"
            )
    if token_texts is not None:
        for i, (some, length) in enumerate(zip(token_texts, lengths, strict=True)):
            if isinstance(some, (str, bytes)) or not hasattr(some, "__len__"):
                raise TypeError(
                    f"token_texts[{i}] must be a list of {length} texts, one a token, got one "
                    f"{type(some).__name__}"
                )
            if len(some) != length:
                raise ValueError(f"token_texts[{i}] has {len(some)} tokens, the sequence has {length}")
    lines = []
    for i in range(count if given else 0):
        line = {
            member: list(map(str, x[i])) if member == "tokens" else str(x[i]) for member, x in given.items()
        }
        if any("\0" in "".join(value) for value in line.values()):
            raise ValueError(f"texts and token_texts must not hold NUL, those of sequence {i} do")
        lines.append(json.dumps(line, ensure_ascii=False))
    return "".join(line + "\n" for line in lines).encode()


def _write(path: str, fw: Framework, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    """Largest elements first, so that every tensor begins aligned without a gap."""
    parts = []
    for name, x in tensors.items():
        if isinstance(x, bytes):
            parts.append((1, name, "U8", [len(x)], memoryview(x)))
        else:
            kind = fw.dtype_name(x)
            if kind not in _TYPES:
                raise TypeError(f"{name} has dtype {kind}, which the format does not have")
            parts.append((_BYTES.get(kind, 1), name, _TYPES[kind], [int(n) for n in x.shape], fw.in_bytes(x)))
    parts.sort(key=lambda part: -part[0])
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for _, name, kind, shape, data in parts:
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    folder, base = os.path.split(os.path.realpath(path))
    if os.path.exists(path) and not os.path.isfile(path):  # a device would be replaced
        raise ValueError(f"path must be a file's, {path} is none")
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "path is in a folder that is not there", path)
    handle, temporary = tempfile.mkstemp(prefix=f".lik-{base[:100]}-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for *_, data in parts:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        there = os.path.exists(path)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, os.stat(path).st_mode & 0o777 if there else 0o666 & ~umask)
        os.replace(temporary, os.path.join(folder, base))
    except BaseException:
        os.unlink(temporary)
        raise


def load(path: str | os.PathLike[str], framework: str = "numpy") -> Saved:
    """Map a ``.safetensors`` file of token vectors: what :func:`save`, ``lik compress`` or
    others wrote, as docs/formats.md has it.

    What is small is read at once and checked: the header, texts, lengths or offsets, and a mask
    where tokens are compressed or have lengths as well. Vectors, codes, residuals and scales
    stay in the file until they are used; dropped tokens of a compressed collection are taken
    out, which copies the others.

    Args:
        path: the file, which must stay as it is while its arrays live.
        framework: "numpy" or "torch": what the arrays are. NumPy's are read-only; what is
            written into a tensor stays in memory.

    Raises:
        ValueError: a file that is none, cut short, or without token vectors.

    Example: see :func:`save`.
    """
    if framework not in ("numpy", "torch"):
        raise ValueError(f'framework must be "numpy" or "torch", got {framework!r}')
    path = path_text(path)
    header, begin, size = _header(path)
    metadata = header.pop("__metadata__")
    fw = _module(framework)
    make = fw.mapped(path)
    found = {}
    for name, entry in header.items():
        kind, shape, start, end = _entry(path, name, entry, size - begin)
        if kind in _NAMES:
            found[name] = make(_NAMES[kind], shape, begin + start, end - start)
    texts = _texts(path, fw, found.get("documents"))
    if metadata.get("format") == "lik-compressed":
        return _load_compressed(path, fw, found, metadata, texts)
    tokens = next((found[name] for name in _VECTORS if name in found), None)
    if tokens is None:
        raise ValueError(f"{path} has no tensor {', '.join(_VECTORS)}; it has {', '.join(header) or 'none'}")
    if len(tokens.shape) not in (2, 3):
        raise ValueError(f"{path} has vectors {shape_text(tokens.shape)}, not [N, L, d] or [total, d]")
    offsets = _offsets(path, fw, found)
    if len(tokens.shape) == 2 and offsets is None:
        raise ValueError(f"{path} has vectors {shape_text(tokens.shape)} and neither lengths nor offsets")
    mask = found.get("mask")
    about = tuple(tokens.shape[:-1])
    mask = None if mask is None else _shaped(path, "mask", fw.cast(mask, "bool"), about)
    if offsets is not None and len(about) == 1:
        _check_offsets(path, offsets, about[0])
    elif offsets is not None:
        lengths = offsets[1:] - offsets[:-1]
        if tuple(lengths.shape) != about[:1] or any(not 0 <= n <= about[1] for n in lengths.tolist()):
            raise ValueError(f"{path} must have {about[0]} lengths of 0 to {about[1]}")
        inside = fw.arange(tokens.shape[1], lengths) < lengths[:, None]
        mask, offsets = inside if mask is None else mask & inside, None
    scale = found.get("scales", found.get("scale"))
    if scale is not None:
        each = "scales" in found and len(scale.shape)
        scale = _shaped(path, "scales" if each else "scale", scale, about if each else ())
    return Saved(tokens, offsets, mask, scale, found.get("weights"), _ids(texts), texts)


def _shaped(path: str, name: str, x: Any, shape: tuple[int, ...]) -> Any:
    """x, whose axes of one element count for nothing, in that shape."""
    if [n for n in x.shape if n != 1] != [n for n in shape if n != 1]:
        raise ValueError(f"{path}: tensor '{name}' is {shape_text(x.shape)}, must be {shape_text(shape)}")
    return x.reshape(shape)


def _check_offsets(path: str, offsets: Any, total: int) -> None:
    ends = offsets.tolist()
    if not ends or ends[0] < 0 or ends[-1] > total or any(b < a for a, b in pairwise(ends)):
        raise ValueError(f"{path} has lengths or offsets that do not fit its {total} tokens")


def _load_compressed(
    path: str, fw: Framework, found: dict[str, Any], metadata: dict[str, str], texts: Any
) -> Saved:
    if metadata.get("version") != "1":
        raise ValueError(
            f"{path} holds compressed tokens of version {metadata.get('version')}, 1 can be read"
        )
    for name in ("centroids", "bucket_weights", "bucket_cutoffs", "residuals", "codes"):
        if name not in found:
            raise ValueError(f"{path} holds compressed tokens and no tensor '{name}'")
    if metadata.get("nbits") not in ("1", "2", "4", "8") or metadata.get("bit_order") not in BIT_ORDERS:
        raise ValueError(
            f"{path} holds compressed tokens of {metadata.get('nbits')} bits in the order "
            f"{metadata.get('bit_order')}, which cannot be read"
        )
    codec = Codec(
        found["centroids"],
        found["bucket_weights"],
        int(metadata["nbits"]),
        metadata["bit_order"],
        found["bucket_cutoffs"],
    )
    offsets = _offsets(path, fw, found)
    if offsets is None:
        raise ValueError(f"{path} holds compressed tokens and neither lengths nor offsets")
    _check_offsets(path, offsets, int(found["codes"].shape[0]) if len(found["codes"].shape) else 0)
    codes, residuals, norms = (found.get(name) for name in ("codes", "residuals", "inv_norms"))
    mask = found.get("mask")
    if mask is not None and not bool(mask.all()):  # compressed tokens have no mask here: the others, copied
        kept = fw.cast(mask, "bool")
        before = fw.offsets_of(fw.cast(kept, "int64"))
        offsets = before[offsets]
        codes, residuals, norms = (None if x is None else x[kept] for x in (codes, residuals, norms))
    tokens = CompressedTokens(codes, residuals, codec, cu_seqlens_d=offsets, inv_norms=norms)
    return Saved(tokens, offsets, None, None, None, _ids(texts), texts, metadata.get("normalize") == "true")


def _header(path: str) -> tuple[dict[str, Any], int, int]:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise ValueError(
                f"{path} is no .safetensors file: it has {size} bytes, the length of its header alone 8"
            )
        length = struct.unpack("<Q", start)[0]
        if not 2 <= length <= min(size - 8, _HEADER_MAX):
            raise ValueError(
                f"{path} is no .safetensors file: its header would have {length} of {size} bytes"
            )
        try:
            header = json.loads(file.read(length))
            if not isinstance(header, dict) or not isinstance(header.setdefault("__metadata__", {}), dict):
                raise ValueError
        except (ValueError, RecursionError):
            raise ValueError(f"{path} is no .safetensors file: its header is not JSON") from None
    return header, 8 + length, size


def _entry(path: str, name: str, entry: Any, size: int) -> tuple[str, tuple[int, ...], int, int]:
    try:
        kind, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if type(kind) is not str or any(type(n) is not int for n in (*shape, start, end)):
            raise TypeError
        elements = 1
        for n in shape:
            elements *= n
        bad = min((*shape, start, end - start, size - end)) < 0
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"{path}: tensor '{name}' has no dtype, shape and data_offsets") from None
    if bad:
        raise ValueError(
            f"{path}: tensor '{name}' is bytes {start} to {end}, the file has {size}: it is cut short"
        )
    if kind in _NAMES and elements * _BYTES.get(_NAMES[kind], 1) != end - start:
        raise ValueError(
            f"{path}: tensor '{name}' is {kind} {shape_text(shape)}, and has {end - start} bytes"
        )
    return kind, shape, start, end


def _offsets(path: str, fw: Framework, found: dict[str, Any]) -> Any:
    if "offsets" in found:
        return fw.cast(found["offsets"], "int64")
    lengths = found.get("lengths", found.get("doclens"))
    return None if lengths is None else fw.cast(fw.offsets_of(fw.cast(lengths, "int64")), "int64")


def _texts(path: str, fw: Framework, documents: Any) -> list[dict[str, Any]] | None:
    if documents is None or fw.dtype_name(documents) != "uint8":
        return None
    texts = []
    try:
        for line in bytes(fw.in_bytes(documents)).decode().split("\n"):
            if line:
                texts.append(json.loads(line))
                if not isinstance(texts[-1], dict):
                    raise ValueError("a line is no object")
    except (ValueError, RecursionError) as fault:
        raise ValueError(f"{path}: tensor 'documents' must hold JSON lines: {fault}") from None
    return texts


def _ids(texts: list[dict[str, Any]] | None) -> list[str] | None:
    ids = [line.get("id", line.get("_id")) for line in texts or ()]
    return [str(x) for x in ids] if ids and None not in ids else None


def _module(name: str) -> Framework:
    if name == "torch":
        from ._engine import torch_arrays

        return torch_arrays
    from ._engine import numpy_arrays

    return numpy_arrays


__all__ = ["Saved", "load", "save"]
