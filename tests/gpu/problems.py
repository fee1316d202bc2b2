"""Problems for the CUDA backend: random ragged queries and documents, laid out in every way
lik.h allows, and what torch says of them in f64.

A problem is first a list of queries and documents (tensors [length, dim] in the stored dtype,
with masks, scales, weights), then a `Score` struct over device buffers that stand between guard
bands. The expectation is computed from the lists, so a layout cannot agree with itself by
mistake."""

import ctypes
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
import liblik as lik

GUARD = 4096
DTYPES = {
    "f32": (lik.F32, torch.float32),
    "f16": (lik.F16, torch.float16),
    "bf16": (lik.BF16, torch.bfloat16),
    "e4m3": (lik.E4M3, torch.float8_e4m3fn),
    "e5m2": (lik.E5M2, torch.float8_e5m2),
    "i8": (lik.I8, torch.int8),
}
NAN = float("nan")


class Guarded:
    """`count` elements of `dtype` on the GPU, with guard bands on both sides; `fill` is a
    byte.
    """

    def __init__(self, count, dtype, fill=0xA5, align=256, skew=0):
        size = torch.empty((), dtype=dtype).element_size()
        self.bytes = torch.full(
            (count * size + 2 * GUARD + align + skew,), 0x5A, dtype=torch.uint8, device="cuda"
        )
        start = GUARD + (-(self.bytes.data_ptr() + GUARD)) % align + skew
        self.start, self.size = start, count * size
        self.bytes[start : start + self.size] = fill
        self.data = self.bytes[start : start + self.size].view(dtype)

    def ptr(self):
        return self.bytes.data_ptr() + self.start

    def intact(self):
        end = self.start + self.size
        return bool((self.bytes[: self.start] == 0x5A).all()) and bool((self.bytes[end:] == 0x5A).all())


def tokens(generator, n, dim, kind, dtype):
    """n stored tokens; "ints" are small integers, whose scores are exact in every dtype."""
    torch_dtype = DTYPES[dtype][1]
    if dtype == "i8":
        return torch.randint(
            -127 if kind != "ints" else -3,
            128 if kind != "ints" else 4,
            (n, dim),
            generator=generator,
            device="cuda",
        ).to(torch.int8)
    if kind == "ints":
        x = torch.randint(-3, 4, (n, dim), generator=generator, device="cuda").float()
    else:
        x = torch.randn(n, dim, generator=generator, device="cuda")
        x = x / x.norm(dim=1, keepdim=True).clamp_min(1e-6)
        if dtype in ("e4m3", "e5m2"):
            x = x * 8
    return x.to(torch_dtype)


class Operand:
    """Sequences with their masks, scales and weights, and a lik Tokens struct over a layout of
    them.
    """

    def __init__(
        self,
        generator,
        count,
        len_max,
        dim,
        dtype,
        kind="unit",
        layout="padded",
        mask=None,
        normalize=False,
        scale=False,
        weights=False,
        lengths=None,
        group=0,
    ):
        self.dim, self.dtype, self.len_max, self.count = dim, dtype, len_max, count
        self.normalize, self.keep = normalize, []
        packed = layout.startswith("packed")
        if lengths is None:
            lengths = [len_max] * count
            if packed and count:
                lengths = torch.randint(0, len_max + 1, (count,), generator=generator, device="cuda").tolist()
                lengths[0] = len_max
        self.lengths = lengths
        self.rows = [tokens(generator, n, dim, kind, dtype) for n in lengths]

        def random(n):
            return torch.rand(n, generator=generator, device="cuda")

        self.masks = [None] * count
        if mask == "tail":
            self.masks = [torch.arange(n, device="cuda") < int(random(1) * (n + 1)) for n in lengths]
        elif mask == "holes":
            self.masks = [random(n) < 0.7 for n in lengths]
        self.scales = [
            (random(n) * 2 - 0.5 if kind != "ints" else (random(n) * 2).ceil()) if scale else None
            for n in lengths
        ]
        self.weights = [
            ((random(n) * 2 - 0.5) if kind != "ints" else (random(n) * 3).floor()) if weights else None
            for n in lengths
        ]
        self.struct = self.lay_out(layout, group)

    def factor(self, i):
        """f64 tokens of sequence i as they count, [length, dim]."""
        x = self.rows[i].to(torch.float64)
        if self.scales[i] is not None:
            x = x * self.scales[i].double()[:, None]
        if self.normalize:
            x = x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return x

    # Long because every layout is a few lines of the same arithmetic.
    def lay_out(self, layout, group):
        lik_dtype, torch_dtype = DTYPES[self.dtype]
        x = lik.Tokens(
            struct_size=ctypes.sizeof(lik.Tokens),
            dtype=lik_dtype,
            count=self.count,
            len_max=self.len_max,
            dim=self.dim,
            normalize=int(self.normalize),
        )
        dim, n, size = self.dim, self.len_max, torch.empty((), dtype=torch_dtype).element_size()
        apart = 16 if size == 1 else 8  # elements: whole steps of 16 bytes
        raw = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[size]
        if layout.startswith("packed"):
            total = sum(self.lengths) + (5 if layout.endswith("gap") else 0)
            step = dim + (apart if layout.endswith("gap") else 0)
            wide = torch.int64 if layout.startswith("packed64") else torch.int32
            offsets = torch.tensor([0, *self.lengths], dtype=torch.int64).cumsum(0) + (
                2 if layout.endswith("gap") else 0
            )
            self.offsets = offsets.to(wide).cuda()
            x.total, x.offsets, x.offsets_dtype = (
                total,
                self.offsets.data_ptr(),
                lik.I64 if wide == torch.int64 else lik.I32,
            )
            x.strides, x.dim_stride = lik.Strides(0, 0, step), 1
            per_token = [(int(offsets[i]) + t) for i in range(self.count) for t in range(self.lengths[i])]
            slots, small = total, lik.Strides(0, 0, 1)
            count_elements = total * step
            places = torch.tensor(per_token, dtype=torch.int64, device="cuda")
            element_places = places * step
        else:
            dim_step = 2 if layout == "dim_stride" else 1
            token = dim * dim_step + (apart if layout == "wide" else 3 if layout == "odd" else 0)
            sequence = token * n + (16 if layout == "wide" else 0)
            members = group or max(self.count, 1)
            gap = 64 if group and layout == "wide" else 0
            if layout == "transposed":  # tokens outermost
                token, sequence = dim * self.count, dim
            x.strides = lik.Strides(sequence * members + gap if group else 0, sequence, token)
            x.dim_stride, x.group_size = dim_step, group
            i = torch.arange(self.count, device="cuda")
            t = torch.arange(n, device="cuda")
            bases = (i // members) * x.strides.group + (i % members) * sequence if group else i * sequence
            element_places = (bases[:, None] + t[None, :] * token).reshape(-1)
            small = lik.Strides(n * members if group else 0, n, 1)
            places = (i[:, None] * n + t[None, :]).reshape(-1)
            slots = self.count * n
            count_elements = int(element_places.max()) + dim * dim_step if slots else 0
        skew = size if layout == "odd" else 0
        data = Guarded(count_elements, raw, fill=0xFF, skew=skew)  # every float dtype reads 0xff... as NaN
        rows = (
            torch.cat(self.rows)
            if self.count and sum(self.lengths)
            else torch.empty(0, dim, dtype=torch_dtype, device="cuda")
        )
        if len(rows):
            at = element_places[:, None] + torch.arange(dim, device="cuda") * x.dim_stride
            data.data[at] = rows.contiguous().view(raw)
        x.data = data.ptr()
        self.data, self.keep = data, [data]
        for name, lists, dtype in (
            ("mask", self.masks, torch.uint8),
            ("scale", self.scales, torch.float32),
            ("weights", self.weights, torch.float32),
        ):
            if not self.count or lists[0] is None:
                continue
            buffer = Guarded(slots, dtype, fill=0xFF)
            values = torch.cat(lists)
            if len(values):
                buffer.data[places] = values.to(dtype)
            setattr(x, name, buffer.ptr())
            setattr(x, name + "_strides", small)
            self.keep.append(buffer)
        if self.masks and self.masks[0] is not None and len(rows):
            dropped = ~torch.cat(self.masks)  # what is dropped must not be used
            at = element_places[dropped][:, None] + torch.arange(dim, device="cuda") * x.dim_stride
            data.data[at] = -1
        return x


def pairs_of(pairing, q, d, per_query, list_q, list_d):
    """(row, column, query, document) of every score."""
    if pairing == lik.ALL:
        return [(i, j, i, j) for i in range(q.count) for j in range(d.count)]
    if pairing == lik.CANDIDATES:
        return [(i, j, i, i * per_query + j) for i in range(q.count) for j in range(per_query)]
    if pairing == lik.PAIRS:
        return [(i, 0, i, i) for i in range(q.count)]
    return [(n, 0, i, j) for n, (i, j) in enumerate(zip(list_q, list_d))]


def expected(q, d, pairs):
    """Per score: (score, its error unit, products [Lq, Ld] or None) in f64; None where nothing
    is kept.
    """
    qs, ds = [q.factor(i) for i in range(q.count)], [d.factor(j) for j in range(d.count)]
    out = []
    for _, _, i, j in pairs:
        q_kept = (
            torch.ones(q.lengths[i], dtype=torch.bool, device="cuda") if q.masks[i] is None else q.masks[i]
        )
        d_kept = (
            torch.ones(d.lengths[j], dtype=torch.bool, device="cuda") if d.masks[j] is None else d.masks[j]
        )
        if not bool(q_kept.any()) or not bool(d_kept.any()):
            out.append((0.0, 0.0, None, q_kept, d_kept))
            continue
        x, y = qs[i].nan_to_num(0) * q_kept[:, None], ds[j]
        y = torch.where(d_kept[:, None], y, torch.zeros_like(y))
        x = torch.where(q_kept[:, None], qs[i], torch.zeros_like(x))
        products = x @ y.T
        products[:, ~d_kept] = -float("inf")
        unit = (x.abs() @ y.abs().T).amax(1)
        w = (
            torch.ones(q.lengths[i], device="cuda", dtype=torch.float64)
            if q.weights[i] is None
            else q.weights[i].double()
        )
        best = products.amax(1)
        score = (torch.where(q_kept, best, torch.zeros_like(best)) * w * q_kept).sum()
        out.append((float(score), float((unit * w.abs() * q_kept).sum()), products, q_kept, d_kept))
    return out
