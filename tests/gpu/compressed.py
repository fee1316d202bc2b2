"""Checks of compressed documents: against f64 and, bit by bit, against the tokens that they
decode to; codes out of range; the promises about batches, layouts and runs."""

import ctypes
import random
import time

import torch
from harness import fail, grad_problem, problem, score
from problems import DTYPES, Guarded, Operand, lik

CODES = {torch.int16: lik.I16, torch.int32: lik.I32, torch.int64: lik.I64}


def buckets(residuals, bits, colbert, dim):
    """The bucket numbers [..., dim] of bytes [..., n]."""
    per = 8 // bits
    shifts = [8 - bits - f * bits if colbert else f * bits for f in range(per)]
    numbers = torch.stack([(residuals >> s) & ((1 << bits) - 1) for s in shifts], -1)
    if colbert:
        numbers = sum(((numbers >> b) & 1) << (bits - 1 - b) for b in range(bits))
    return numbers.flatten(-2)[..., :dim].long()


class Compressed:
    """Documents [count, length] of random codes and residual bytes, and what they decode to."""

    def __init__(
        self,
        g,
        count,
        length,
        dim,
        dtype,
        bits=2,
        colbert=False,
        tables="f32",
        codes=torch.int32,
        centroids=300,
        normalize=False,
        scale=None,
        masked=False,
    ):
        def rand(*shape):
            return torch.randn(shape, generator=g, device="cuda")

        self.dim, self.dtype, self.count, self.length = dim, dtype, count, length
        torch_dtype, tables_dtype = DTYPES[dtype][1], DTYPES[tables][1]
        self.centroids = torch.nn.functional.normalize(rand(centroids, dim), dim=1).to(tables_dtype)
        self.weights = (rand(1 << bits) / 4 / dim**0.5).to(tables_dtype)
        self.codes = torch.randint(0, centroids, (count, length), generator=g, device="cuda").to(codes)
        self.residuals = torch.randint(
            0, 256, (count, length, (dim * bits + 7) // 8), generator=g, device="cuda", dtype=torch.uint8
        )
        self.mask = (
            (torch.rand(count, length, generator=g, device="cuda") < 0.7).to(torch.uint8) if masked else None
        )
        self.decode = lambda i: self.decoded(i, bits, colbert, torch_dtype)
        self.codec = lik.Codec(
            struct_size=ctypes.sizeof(lik.Codec),
            bits=bits,
            bit_order=int(colbert),
            centroids=self.centroids.data_ptr(),
            centroid_count=centroids,
            centroids_dtype=DTYPES[tables][0],
            weights_dtype=DTYPES[tables][0],
            weights=self.weights.data_ptr() if bits else None,
        )
        d = lik.Tokens(
            struct_size=ctypes.sizeof(lik.Tokens),
            storage=lik.RESIDUAL,
            dtype=DTYPES[dtype][0],
            count=count,
            len_max=length,
            dim=dim,
            dim_stride=1,
            normalize=int(normalize),
            data=self.residuals.data_ptr(),
            codes=self.codes.data_ptr(),
            codes_dtype=CODES[codes],
            codec=ctypes.addressof(self.codec),
        )
        row = self.residuals.shape[2]
        d.strides, d.codes_strides = lik.Strides(0, length * row, row), lik.Strides(0, length, 1)
        self.scale = None
        if scale is not None:
            norms = torch.stack([self.decode(i).float().norm(dim=1) for i in range(count)])
            self.scale = (1 / norms.clamp_min(1e-12)).to(scale)
            d.scale, d.scale_strides = self.scale.data_ptr(), lik.Strides(0, length, 1)
            d.scale_dtype = lik.F16 if scale == torch.float16 else lik.F32
        if masked:
            d.mask, d.mask_strides = self.mask.data_ptr(), lik.Strides(0, length, 1)
        self.struct, self.normalize = d, normalize

    def decoded(self, i, bits, colbert, dtype):
        """Tokens of document i as stored ones of the dtype would be."""
        x = self.centroids[
            self.codes[i].long() & 0xFFFF if self.codes.dtype == torch.int16 else self.codes[i]
        ]
        x = x.to(dtype)
        if bits:
            weights = self.weights.to(dtype)[buckets(self.residuals[i].int(), bits, colbert, self.dim)]
            x = (x.float() + weights.float()).to(dtype)
        return x

    def factor(self, i):
        """f64 tokens of document i as they count."""
        x = self.decode(i).double()
        if self.scale is not None:
            x = x * self.scale[i].double()[:, None]
        return x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) if self.normalize else x

    def packed(self):
        """The same struct with offsets."""
        d = lik.Tokens.from_buffer_copy(self.struct)
        self.offsets = torch.arange(self.count + 1, dtype=torch.int64, device="cuda") * self.length
        d.offsets, d.offsets_dtype, d.total = self.offsets.data_ptr(), lik.I64, self.count * self.length
        return d


def with_documents(q, struct, **more):
    op = problem(q, q, **more)
    op.d = struct
    return op


def rounding(q, d, precision):
    """What a score may be off by where tokens are met as integers, relative to q's |q|: bounds
    of docs/numerics.md, for any document.
    """
    if precision != lik.MEDIUM:
        return 0.0
    dtype = DTYPES[d.dtype][1]
    size = d.centroids.to(dtype).float().abs().amax(1) + (
        d.weights.to(dtype).float().abs().max() if d.codec.bits else 0
    )
    narrow = {"f32": 0.0, "f16": 2.0**-10, "bf16": 2.0**-7}[d.dtype]
    unit = size * (1 / 126 + narrow)
    off = torch.zeros(q.count, d.count, dtype=torch.float64, device="cuda")
    rows = torch.stack([q.factor(i) for i in range(q.count)])
    for j in range(d.count):
        raw = d.decode(j).double()
        scale = 1.0 if d.scale is None else d.scale[j].double()
        scale = 1 / raw.norm(dim=1) if d.normalize else scale
        u = (unit[d.codes[j].long()].double() * scale).max()
        step = (
            rows.abs().amax(2)
            / 254
            * (raw * (scale[:, None] if d.normalize or d.scale is not None else 1)).abs().sum(1).max()
        )
        off[:, j] = (step + u * (rows.abs().sum(2) + (d.normalize and d.dim**0.5) * rows.norm(dim=2))).sum(1)
    return off


def expected(q, d, documents):
    """f64 scores [nq, documents] and the largest |q| |x| of each."""
    rows = torch.stack([q.factor(i) for i in range(q.count)])
    out, unit = [], []
    for j in documents:
        x = d.factor(j)
        products = torch.einsum("qsd,td->qst", rows, x)
        if d.mask is not None:
            products[:, :, d.mask[j] == 0] = -float("inf")
        best = products.amax(2)
        best = torch.where(best == -float("inf"), torch.zeros_like(best), best)
        out.append(best.sum(1))
        unit.append((rows.norm(dim=2).sum(1)) * x.norm(dim=1).max())
    return torch.stack(out, 1), torch.stack(unit, 1)


def one(device, name, q, d, documents, precision=lik.HIGHEST):
    """Scores and argmax of all pairs; against f64."""
    op = with_documents(q, d.struct, precision=precision)
    got, at, variant = score(device, op, torch.int32, describe=name)
    want, unit = expected(q, d, documents)
    bound = unit * (2e-6 + d.dim * 2e-8 + 2e-7 * d.dim**0.5)
    if "_i8_" in variant:
        bound = bound + rounding(q, d, precision)[:, documents]
    off = (got[:, documents].double() - want).abs()
    fail(
        bool((off <= bound).all()),
        f"{name} [{variant}]: off by {float((off / bound.clamp_min(1e-30)).max()):.2f} of its bound "
        f"{got[0, documents[0]]} {want[0, 0]}",
    )
    bare, _, _ = score(device, op, describe=name)
    fail(torch.equal(bare, got), f"{name} [{variant}]: without the argmax, another score")
    return got, at, variant


def check_dense(device, name, q, d, got, at):
    """The tokens that they decode to, stored: the same bits."""
    rows = torch.stack([d.decode(i) for i in range(d.count)]).contiguous()
    dense = lik.Tokens.from_buffer_copy(q.struct)
    dense.count, dense.len_max, dense.dtype, dense.data = (
        d.count,
        d.length,
        DTYPES[d.dtype][0],
        rows.data_ptr(),
    )
    dense.strides, dense.normalize, dense.dim_stride = lik.Strides(0, d.length * d.dim, d.dim), 0, 1
    dense.mask = d.struct.mask
    dense.mask_strides = d.struct.mask_strides
    other, at2, variant = score(device, with_documents(q, dense), torch.int32)
    fail(
        torch.equal(other, got) and torch.equal(at2, at),
        f"{name}: decoded and stored [{variant}] differ: {(other - got).abs().max():.2e}, "
        f"{int((other != got).sum())} of {got.numel()}",
    )


def random_case(device, seed, precision=lik.HIGHEST):
    r = random.Random(seed)
    g = torch.Generator(device="cuda").manual_seed(seed)
    dtype = r.choice(["bf16", "bf16", "f16", "f32"])
    dim = r.choice([16, 32, 48, 64, 96, 128, 128, 128, 128, 256, 320, 20, 100])
    bits = r.choice([0, 1, 2, 2, 4, 4, 8])
    dim = 128 if precision == lik.MEDIUM else dim
    nq, q_len = r.choice([1, 1, 2, 5, 20]), r.choice([1, 8, 16, 31, 32, 32, 33, 48, 64, 100])
    nd, d_len = r.choice([1, 7, 40, 200]), r.choice([1, 5, 15, 16, 17, 31, 100, 160, 300])
    scale = r.choice([None, None, torch.float32, torch.float16])
    normalize = scale is None and r.random() < 0.5
    masked = r.random() < 0.3
    colbert, tables = r.random() < 0.5, r.choice(["f32", "f16", "bf16"])
    codes = r.choice(list(CODES))
    q = Operand(g, nq, q_len, dim, dtype, normalize=normalize)
    d = Compressed(
        g, nd, d_len, dim, dtype, bits, colbert, tables, codes, r.choice([5, 300]), normalize, scale, masked
    )
    name = (
        f"compressed seed {seed}: {dtype} {nq}x{q_len} {nd}x{d_len} dim {dim} {bits} bits"
        f"{' colbert' if colbert else ''} {tables} {codes}{' normalized' if normalize else ''}"
        f"{' scaled' if scale else ''}{' masked' if masked else ''}"
    )
    documents = sorted({0, nd // 2, nd - 1})
    got, at, variant = one(device, name, q, d, documents, precision)
    name += f" [{variant}]"
    if "_i8_" in variant:
        pass
    elif dtype != "f32" and not normalize and scale is None:
        check_dense(device, name, q, d, got, at)
    packed = with_documents(q, d.packed(), precision=precision)
    other, at2, _ = score(device, packed, torch.int16)
    fail(torch.equal(other, got) and torch.equal(at2.int(), at), f"{name}: packed and padded differ")
    packed.d.offsets, packed.d.count = d.offsets.data_ptr() + 8 * (nd // 3), nd - nd // 3
    other, _, _ = score(device, packed)
    fail(torch.equal(other, got[:, nd // 3 :]), f"{name}: a slice differs")
    lists = (
        torch.randint(0, nq, (40,), generator=g, device="cuda"),
        torch.randint(0, nd, (40,), generator=g, device="cuda"),
    )
    op = with_documents(q, d.struct, pairing=lik.LIST, lists=lists, precision=precision)
    listed, at2, other = score(device, op, torch.int32)
    same = torch.equal(listed[:, 0], got[lists[0], lists[1]]) and torch.equal(
        at2[:, 0], at[lists[0], lists[1]]
    )
    if ("_i8_" in variant) == ("_i8_" in other):  # a list of several queries is not met as integers
        fail(same, f"{name}: a list and all pairs differ")
    alone = with_documents(q, d.struct, precision=precision)
    alone.q.count = 1
    other, _, small = score(device, alone)
    fail(torch.equal(other, got[:1]), f"{name}: one query [{small}] differs from {nq}")
    if masked:
        return
    # codes out of range
    bad = torch.randint(0, nd, (3,), generator=g, device="cuda").unique()
    d.codes[bad, d_len - 1] = -1 if codes != torch.int16 else 30000
    other, at2, _ = score(device, with_documents(q, d.struct, precision=precision), torch.int32)
    good = torch.ones(nd, dtype=torch.bool, device="cuda")
    good[bad] = False
    fail(
        bool(other[:, bad].isnan().all())
        and torch.equal(other[:, good], got[:, good])
        and bool((at2[:, bad] == d_len - 1).all()),
        f"{name}: codes out of range: {other[:, bad].flatten()[:6].tolist()}",
    )


def check_compressed(device, args):
    start, done = time.time(), 0
    while done < args.cases and time.time() - start < args.seconds / 2:
        random_case(device, args.seed * 100003 + done, lik.MEDIUM if done % 4 == 3 else lik.HIGHEST)
        done += 1
    print(f"compressed: {done} random cases", flush=True)
    for bits, nq, nd, d_len, normalize, precision in (
        (2, 1, 3000, 300, True, lik.HIGHEST),
        (4, 3, 900, 180, False, lik.HIGHEST),
        (2, 20, 300, 77, True, lik.HIGHEST),
        (2, 13, 2400, 220, False, lik.HIGHEST),  # more than are decoded at once, and few are left
        (2, 1, 3000, 300, True, lik.MEDIUM),
        (4, 9, 900, 180, True, lik.MEDIUM),
    ):
        g = torch.Generator(device="cuda").manual_seed(5)
        q = Operand(g, nq, 32, 128, "bf16", normalize=normalize)
        d = Compressed(g, nd, d_len, 128, "bf16", bits, normalize=normalize, centroids=8192)
        name = f"compressed {nq}x32 {nd}x{d_len} {bits} bits"
        got, at, variant = one(device, name, q, d, [0, nd // 2, nd - 1], precision)
        for _ in range(100):
            again, at2, _ = score(device, with_documents(q, d.struct, precision=precision), torch.int32)
            if not fail(
                torch.equal(got, again) and torch.equal(at, at2), f"{name} [{variant}]: two runs differ"
            ):
                break
        compressed_streams(device, name, q, d, got, precision)
    compressed_large(device)
    compressed_gradients(device)
    print("compressed: done", flush=True)


def gradient(device, q, documents, queries, grad_scores):
    """(grad_q, argmax, variant) of the first of the queries."""
    op = with_documents(q, documents)
    op.q.count = queries
    _, at, _ = score(device, op, torch.int16)
    op.argmax, op.argmax_dtype = at.data_ptr(), lik.I16
    out = Guarded(queries * q.len_max * q.dim, DTYPES[q.dtype][1])
    plan, workspace = device.launch("grad", grad_problem(op, grad_scores, out.ptr(), None))
    torch.cuda.synchronize()
    fail(out.intact() and workspace.intact(), "compressed gradient: wrote past a buffer")
    return out.data.view(queries, q.len_max, q.dim).clone(), at.long(), plan.variant.decode()


def compressed_gradients(device):
    """Gradients of queries with many scores against f64 at the same argmax; the same bits in
    100 runs, packed, and of one query alone.
    """
    for dtype, bits, nq, q_len, nd, d_len, dim, normalize, tables, scale in (
        ("bf16", 2, 3, 32, 3000, 40, 128, True, "bf16", None),
        ("bf16", 2, 2, 32, 5000, 20, 128, False, "bf16", None),
        ("f16", 4, 3, 17, 700, 33, 96, True, "f16", None),
        ("f16", 1, 2, 5, 400, 50, 64, False, "f32", torch.float16),
        ("f32", 8, 2, 9, 600, 20, 40, True, "f16", None),
        ("bf16", 4, 2, 9, 600, 20, 100, True, "bf16", None),
        ("f32", 2, 1, 33, 900, 30, 320, True, "f32", None),
        ("bf16", 0, 4, 32, 300, 30, 48, True, "bf16", None),
    ):
        g = torch.Generator(device="cuda").manual_seed(13)
        q = Operand(g, nq, q_len, dim, dtype)
        d = Compressed(g, nd, d_len, dim, dtype, bits, bits == 4, tables, normalize=normalize, scale=scale)
        grad_scores = torch.randn(nq, nd, generator=g, device="cuda")
        got, at, variant = gradient(device, q, d.struct, nq, grad_scores)
        name = f"compressed grad {dtype} {nq}x{q_len} {nd}x{d_len} dim {dim} {bits} bits [{variant}]"
        want = torch.zeros(nq, q_len, dim, dtype=torch.float64, device="cuda")
        for j in range(nd):
            want += grad_scores[:, j, None, None].double() * d.factor(j)[at[:, j]]
        eps = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}[dtype]
        bound = eps * want.abs() + 1e-5 * want.norm(dim=-1, keepdim=True) + (6e-8 if dtype == "f16" else 0)
        error = (got.double() - want).abs()
        fail(
            bool((error <= bound).all()),
            f"{name}: off by {float((error - bound).max()):.2e} beyond its bound",
        )
        fail(
            torch.equal(gradient(device, q, d.packed(), nq, grad_scores)[0], got),
            f"{name}: packed and padded differ",
        )
        fail(
            torch.equal(gradient(device, q, d.struct, 1, grad_scores)[0], got[:1]),
            f"{name}: one query alone differs",
        )
        for _ in range(100):
            if not fail(
                torch.equal(gradient(device, q, d.struct, nq, grad_scores)[0], got),
                f"{name}: two runs differ",
            ):
                break


def compressed_streams(device, name, q, d, want, precision):
    """Graph capture and replay; nothing on the default stream."""
    op = with_documents(q, d.struct, precision=precision)
    out = torch.zeros(want.shape, device="cuda")
    op.scores = out.data_ptr()
    _, workspace, how = device.plan("score", op)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        device.run("score", op, how)
    torch.cuda.synchronize()
    fail(bool((out == 0).all()), f"{name}: capture ran something")
    graph.replay()
    torch.cuda.synchronize()
    fail(torch.equal(out, want) and workspace.intact(), f"{name}: the replay differs")


def compressed_large(device):
    """More than 2^31 bytes of residuals: the last documents are right."""
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        return
    g = torch.Generator(device="cuda").manual_seed(5)
    q = Operand(g, 1, 32, 128, "bf16", normalize=True)
    d = Compressed(g, 280000, 128, 128, "bf16", 4, normalize=True, centroids=8192)
    for struct in (d.struct, d.packed()):
        got, _, variant = score(device, with_documents(q, struct))
        documents = list(range(d.count - 20, d.count))
        want, _ = expected(q, d, documents)
        fail(bool(((got[:, documents] - want).abs() < 1e-3).all()), f"compressed, large [{variant}]")
