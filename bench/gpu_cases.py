"""What bench/gpu.py measures: the cases, their operands and answers, and what the hardware
allows at best.
"""

from dataclasses import dataclass

import torch


@dataclass
class Case:
    name: str
    nq: int
    nd: int
    lq: int
    ld: int
    dim: int = 128
    dtype: torch.dtype = torch.bfloat16
    packed: bool = False  # document lengths from 20 to 2 ld - 20
    masked: bool = False  # documents of ld / 2 to ld tokens, a tenth of them dropped
    normalize: bool = False
    topk: int = 0
    argmax: bool = False
    train: bool = False
    gradient_alone: bool = False  # of `train`: the forward pass was before
    candidates: int = 0  # documents a query; nd is nq times that
    precision: int = 0  # of f32 and compressed documents: LIK_HIGHEST, LIK_HIGH, LIK_MEDIUM
    bits: int = 0  # of an element of compressed documents, of 8,192 centroids; 0: dense
    stored_norms: bool = False  # of those: with inverse norms instead of `normalize`
    # Products of `dim` centroids and the query tokens are given, documents are codes; how the
    # table lies: "[C, Lq]" or "[Lq, C]"
    table: str = ""
    scaled: str = ""  # of 8-bit elements: a scale a "token", or one a "tensor"
    q_dtype: torch.dtype | None = None  # of the queries, where another than the documents'
    listed: int = 0  # so many pairs of the query and random documents
    target_x: float = 0  # at most so many times the limit
    target_ms: float = 0
    target_vs_upstream: float = 0  # at least so many times as fast


HALF, WIDE, BF16 = torch.float16, torch.float32, torch.bfloat16
E4M3, E5M2, INT8 = torch.float8_e4m3fn, torch.float8_e5m2, torch.int8
CASES = [
    Case("text-short", 1, 1000, 32, 300, target_x=1.2),
    Case("text-long", 1, 1000, 32, 1024, target_x=1.05),
    Case("colpali", 1, 1000, 128, 1024, target_x=1.08),
    Case("corpus-10k", 1, 10000, 32, 300, target_x=1.03),
    Case("large-d-1024", 1, 500, 32, 300, 1024, target_x=1.08),
    Case("edge-d48-big", 1, 4000, 32, 2048, 48, target_x=1.03),
    Case("short-docs-d128", 1, 10000, 32, 180),
    Case("short-docs-d96", 1, 10000, 32, 180, 96),
    Case("colpali-in-batch", 128, 128, 32, 1030, target_ms=0.175),
    Case("train-batch", 32, 32, 32, 300, target_ms=0.009),
    Case("train-batch-128", 128, 128, 32, 300, target_ms=0.058),
    Case("train-batch-256", 256, 256, 32, 300),
    Case("train-batch-256-argmax", 256, 256, 32, 300, argmax=True),
    Case("train-batch-256-d96", 256, 256, 32, 300, 96),
    Case("train-batch-256-d64", 256, 256, 32, 300, 64),
    Case("train-batch-256-d48", 256, 256, 32, 300, 48),
    Case("short-docs", 512, 512, 32, 180),
    Case("long-queries-768", 64, 64, 768, 512, target_ms=0.56),
    Case("long-queries-1024", 32, 32, 1024, 1024, target_ms=0.375),
    Case("long-queries-768-argmax", 64, 64, 768, 512, argmax=True),
    Case("packed-64", 64, 64, 32, 312, packed=True, target_ms=0.030),
    Case("packed-10k", 1, 10000, 32, 300, packed=True, target_x=1.08),
    Case("masked-10k", 1, 10000, 32, 300, masked=True),
    Case("masked-128", 128, 128, 32, 300, masked=True),
    Case("normalize-10k", 1, 10000, 32, 300, normalize=True, target_x=1.05),
    Case("normalize-256", 256, 256, 32, 300, normalize=True),
    Case("topk-25k", 1, 25000, 32, 160, topk=10, target_ms=0.256),
    Case("topk-25k-8", 8, 25000, 32, 160, topk=10, target_ms=0.413),
    Case("topk-25k-256", 256, 25000, 32, 160, topk=10, target_ms=13.25),
    Case("topk-100k", 8, 100000, 32, 128, topk=100, target_ms=1.6),
    Case("f16-train-128", 128, 128, 32, 300, dtype=torch.float16),
    Case("f32-corpus", 1, 2000, 32, 300, dtype=torch.float32),
    Case("f32-train-128", 128, 128, 32, 300, dtype=torch.float32),
    Case("f32-corpus-high", 1, 2000, 32, 300, dtype=torch.float32, precision=1),
    Case("f32-train-128-high", 128, 128, 32, 300, dtype=torch.float32, precision=1),
    Case("train-step-256", 256, 256, 32, 300, train=True, target_ms=0.75),
    Case("masked-train-step-256", 256, 256, 32, 300, masked=True, train=True),
    Case("f32-train-step-256", 256, 256, 32, 300, dtype=torch.float32, train=True),
    Case("train-step-colpali", 128, 128, 32, 1030, train=True, target_ms=0.45),
    Case("train-step-1030", 64, 64, 1030, 1030, train=True, target_ms=3.0),
    Case("train-step-8192", 32, 32, 128, 8192, train=True, target_ms=0.55),
    Case("train-candidates", 256, 4096, 32, 1030, train=True, candidates=16, target_ms=0.85),
    # A tile of PyLate's CachedContrastive, and upstream's long documents: the shapes and the
    # type of its benchmarks/pylate/bench_cached_maxsim.py and
    # benchmarks/kernels/bench_longdoc.py.
    Case("pylate-tile-2048", 32, 32, 128, 2048, dtype=HALF, train=True, target_vs_upstream=2),
    Case("pylate-tile-4096", 32, 32, 128, 4096, dtype=HALF, train=True, target_vs_upstream=2),
    Case("pylate-tile-8192", 32, 32, 128, 8192, dtype=HALF, train=True, target_vs_upstream=2),
    Case("longdoc-train-2048", 8, 16, 32, 2048, dtype=HALF, train=True),
    Case("longdoc-train-4096", 8, 16, 32, 4096, dtype=HALF, train=True),
    Case("longdoc-bigbatch-4096", 16, 32, 32, 4096, dtype=HALF, train=True),
    Case("longdoc-rerank-4096", 1, 64, 32, 4096, dtype=HALF, train=True),
    Case("longdoc-train-8192", 8, 16, 32, 8192, dtype=HALF, train=True),
    Case("longdoc-bigbatch-8192", 16, 32, 32, 8192, dtype=HALF, train=True),
    Case("longdoc-rerank-8192", 1, 256, 32, 8192, dtype=HALF, train=True),
    Case("longdoc-huge-16384", 1, 32, 32, 16384, dtype=HALF, train=True),
    # Short documents, and a document a query.
    *(
        Case(f"passages-{nq}-{ld}", nq, 20000, 32, ld, target_x=x)
        for nq in (1, 16, 256)
        for ld, x in ((24, 2.4), (48, 1.8), (70, 1.5), (100, 1.35))
    ),
    *(Case(f"packed-passages-{nq}", nq, 20000, 32, 48, packed=True) for nq in (1, 16)),
    *(Case(f"masked-passages-{nq}", nq, 20000, 32, 70, masked=True) for nq in (1, 16)),
    Case("pairs", 5000, 5000, 32, 180, candidates=1, target_ms=0.073),
    # 8-bit elements.
    Case("fp8-8192", 1, 8192, 32, 256, dtype=E4M3, scaled="tensor", target_x=1.06),
    Case("fp8-8192-token", 1, 8192, 32, 256, dtype=E4M3, scaled="token", target_x=1.06),
    Case("fp8-2048", 1, 2048, 32, 512, dtype=E4M3, scaled="token", target_x=1.12),
    Case("fp8-1024", 1, 1024, 32, 128, dtype=E4M3, scaled="token", target_x=2),
    Case("fp8-4q", 4, 4096, 32, 256, dtype=E4M3, scaled="token", target_x=1.6),
    Case("fp8-e5m2-8192", 1, 8192, 32, 256, dtype=E5M2, scaled="token", target_x=1.06),
    Case("fp8-256", 256, 256, 32, 300, dtype=E4M3, scaled="token"),
    Case("fp8-256-tensor", 256, 256, 32, 300, dtype=E4M3, scaled="tensor"),
    Case("fp8-512", 512, 512, 32, 180, dtype=E4M3, scaled="token"),
    Case("fp8-packed", 1, 10000, 32, 300, dtype=E4M3, scaled="token", packed=True),
    Case("fp8-masked", 1, 10000, 32, 300, dtype=E4M3, scaled="token", masked=True),
    Case("int8-8192", 1, 8192, 32, 256, dtype=INT8, scaled="token", target_x=1.06),
    Case("int8-2048", 1, 2048, 32, 512, dtype=INT8, scaled="token", target_x=1.12),
    Case("int8-4q", 4, 4096, 32, 256, dtype=INT8, scaled="token", target_x=1.6),
    Case("int8-256", 256, 256, 32, 300, dtype=INT8, scaled="token"),
    Case("int8-256-tensor", 256, 256, 32, 300, dtype=INT8, scaled="tensor"),
    Case("int8-512", 512, 512, 32, 180, dtype=INT8, scaled="token"),
    Case("int8-256-argmax", 256, 256, 32, 300, dtype=INT8, scaled="token", argmax=True),
    Case("int8-bf16-8192", 1, 8192, 32, 256, dtype=INT8, q_dtype=BF16, scaled="token", target_x=1.06),
    Case("int8-bf16-4q", 4, 4096, 32, 256, dtype=INT8, q_dtype=BF16, scaled="token", target_x=1.6),
    Case("int8-bf16-256", 256, 256, 32, 300, dtype=INT8, q_dtype=BF16, scaled="token"),
    # Compressed documents (PLAID); norms on the fly but where they are stored.
    Case("plaid-A", 1, 10000, 32, 300, bits=2, normalize=True, target_ms=0.14),
    Case("plaid-A-stored", 1, 10000, 32, 300, bits=2, stored_norms=True, target_ms=0.14),
    Case("plaid-D", 1, 25000, 32, 160, bits=2, normalize=True, target_ms=0.18),
    Case("plaid-B", 1, 10000, 32, 512, bits=4, normalize=True, target_ms=0.25),
    Case("plaid-B-stored", 1, 10000, 32, 512, bits=4, stored_norms=True, target_ms=0.25),
    Case("plaid-rerank", 1, 40000, 32, 300, bits=2, normalize=True, listed=4096),
    Case("plaid-row", 1, 4096, 32, 300, bits=2, normalize=True),
    Case("plaid-packed", 1, 10000, 32, 300, bits=2, normalize=True, packed=True),
    Case("plaid-8-A", 8, 10000, 32, 300, bits=2, normalize=True, target_ms=0.38),
    Case("plaid-8-B", 8, 10000, 32, 512, bits=4, normalize=True, target_ms=0.65),
    # Of integers, where LIK_MEDIUM allows them.
    Case("plaid-A-i8", 1, 10000, 32, 300, bits=2, normalize=True, precision=2, target_ms=0.08),
    Case("plaid-A-stored-i8", 1, 10000, 32, 300, bits=2, stored_norms=True, precision=2, target_ms=0.065),
    Case("plaid-D-i8", 1, 25000, 32, 160, bits=2, normalize=True, precision=2, target_ms=0.1),
    Case("plaid-D-stored-i8", 1, 25000, 32, 160, bits=2, stored_norms=True, precision=2, target_ms=0.085),
    Case("plaid-B-i8", 1, 10000, 32, 512, bits=4, normalize=True, precision=2, target_ms=0.165),
    Case("plaid-B-stored-i8", 1, 10000, 32, 512, bits=4, stored_norms=True, precision=2, target_ms=0.15),
    Case("plaid-8-A-i8", 8, 10000, 32, 300, bits=2, normalize=True, precision=2, target_ms=0.26),
    Case("plaid-8-B-i8", 8, 10000, 32, 512, bits=4, normalize=True, precision=2, target_ms=0.44),
    Case("plaid-64-i8", 64, 10000, 32, 300, bits=2, normalize=True, precision=2),
    Case("plaid-16-argmax-i8", 16, 10000, 32, 300, bits=2, normalize=True, argmax=True, precision=2),
    Case("plaid-A-argmax", 1, 10000, 32, 300, bits=2, normalize=True, argmax=True),
    Case("plaid-16", 16, 10000, 32, 300, bits=2, normalize=True),
    Case("plaid-16-argmax", 16, 10000, 32, 300, bits=2, normalize=True, argmax=True),
    Case("plaid-64", 64, 10000, 32, 300, bits=2, normalize=True),
    Case("plaid-256", 256, 10000, 32, 300, bits=2, normalize=True),
    Case("plaid-f32-A", 1, 10000, 32, 300, dtype=WIDE, bits=2, normalize=True, target_ms=0.45),
    Case("plaid-f32-D", 1, 25000, 32, 160, dtype=WIDE, bits=2, normalize=True, target_ms=0.5),
    Case("plaid-f32-B", 1, 10000, 32, 512, dtype=WIDE, bits=4, normalize=True, target_ms=0.8),
    Case("plaid-grad", 16, 10000, 32, 300, bits=2, normalize=True, train=True, gradient_alone=True),
    Case("plaid-grad-1", 1, 10000, 32, 300, bits=2, normalize=True, train=True, gradient_alone=True),
    Case("plaid-approx", 1, 25000, 32, 160, 8192, WIDE, table="[C, Lq]", target_ms=0.06),
    Case("plaid-approx-32k", 1, 25000, 32, 160, 32768, WIDE, table="[C, Lq]", target_ms=0.06),
    Case("plaid-approx-view", 1, 25000, 32, 160, 8192, WIDE, table="[Lq, C]", target_ms=0.07),
    # As many tokens stored densely, for what many queries cost beside their products.
    Case("dense-64", 64, 10000, 32, 300),
    Case("dense-256", 256, 10000, 32, 300),
]


class Inputs:
    """One set of operands of a case; sets differ in their data alone."""

    def __init__(self, case, seed):
        g = torch.Generator(device="cuda").manual_seed(seed)
        self.case = case
        self.q, self.q_scale = self.operand(g, (case.nq, case.lq, case.dim), case.q_dtype or case.dtype)
        if case.table:
            self.q = self.q.mT.contiguous() if case.table == "[C, Lq]" else self.q
            codes = torch.randint(0, case.dim, (case.nd, case.ld), generator=g, device="cuda")
            self.d, self.longest, self.total = codes.int(), case.ld, case.nd * case.ld
        elif case.packed:
            lengths = torch.randint(20, 2 * case.ld - 19, (case.nd,), generator=g, device="cuda")
            self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64, device="cuda"), lengths.cumsum(0)])
            self.longest, self.total = int(lengths.max()), int(self.offsets[-1])
            shape = (self.total,)
        else:
            self.longest, self.total = case.ld, case.nd * case.ld
            shape = case.nd, case.ld
        self.d_scale = None
        if case.bits:
            self.d = self.compressed(g, shape)
        elif not case.table:
            self.d, self.d_scale = self.operand(g, (*shape, case.dim), case.dtype)
        self.mask = None
        if case.masked:
            lengths = torch.randint(case.ld // 2, case.ld + 1, (case.nd, 1), generator=g, device="cuda")
            kept = torch.rand(case.nd, case.ld, generator=g, device="cuda") < 0.9
            self.mask = kept & (torch.arange(case.ld, device="cuda") < lengths)
            self.total = int(self.mask.sum())
        if case.listed:
            self.list_d = torch.randint(0, case.nd, (case.listed,), generator=g, device="cuda")
            self.list_q = torch.zeros_like(self.list_d)
            self.total = case.listed * case.ld
        columns = case.candidates or case.nd
        self.grad = torch.randn(case.nq, columns, generator=g, device="cuda")

    def operand(self, g, shape, dtype):
        """Unit vectors, and the scales that 8-bit ones have."""
        if dtype.itemsize > 1:
            return self.unit(g, shape, dtype), None
        out = torch.empty(shape, dtype=dtype, device="cuda")
        scale = torch.empty(shape[:-1], device="cuda")
        most = 127.0 if dtype == INT8 else torch.finfo(dtype).max
        whole = 1.0 / most if self.case.scaled == "tensor" else None
        for rows, scales in zip(out.view(-1, shape[-1]).split(1 << 20), scale.view(-1).split(1 << 20)):
            x = torch.nn.functional.normalize(torch.randn(rows.shape, generator=g, device="cuda"), dim=-1)
            scales.copy_(x.abs().amax(-1) / most if whole is None else whole)
            x /= scales[:, None]
            rows.copy_(x.round() if dtype == INT8 else x)
        return out, scale if whole is None else torch.tensor(whole, device="cuda")

    def unit(self, g, shape, dtype=None):
        out = torch.empty(shape, dtype=dtype or self.case.dtype, device="cuda")
        for rows in out.view(-1, shape[-1]).split(1 << 20):
            x = torch.randn(rows.shape, generator=g, device="cuda")
            rows.copy_(x / x.norm(dim=-1, keepdim=True) * (3.0 if self.case.normalize else 1.0))
        return out

    def compressed(self, g, shape):
        """Residual bytes of documents, beside whose codes and tables they become tokens."""
        case = self.case
        self.codes = torch.randint(0, 8192, shape, generator=g, device="cuda", dtype=torch.int32)
        self.centroids = self.unit(g, (8192, case.dim))
        self.weights = (torch.randn(1 << case.bits, generator=g, device="cuda") / 30).to(case.dtype)
        bytes = (*shape, case.dim * case.bits // 8)
        d = torch.randint(0, 256, bytes, generator=g, device="cuda", dtype=torch.uint8)
        self.norms = None
        if case.stored_norms:
            self.norms = torch.empty(shape, device="cuda")
            rows = self.codes.view(-1).split(1 << 18), d.view(-1, d.shape[-1]).split(1 << 18)
            for out, codes, residuals in zip(self.norms.view(-1).split(1 << 18), *rows):
                out.copy_(1 / self.decoded(codes, residuals).norm(dim=-1))
        return d

    def decoded(self, codes, residuals):
        """Tokens in f32, before they are normalized."""
        bits = self.case.bits
        shifts = torch.arange(0, 8, bits, device="cuda")
        buckets = (residuals[..., None].int() >> shifts & ((1 << bits) - 1)).flatten(-2)
        return (self.centroids[codes] + self.weights[buckets]).float()

    def bytes(self):
        case = self.case
        if case.table:
            return self.q.numel() * 4 + self.total * 4
        token = case.dim * case.bits // 8 + 4 + 4 * case.stored_norms
        token = token if case.bits else case.dim * self.d.element_size() + 4 * (case.scaled == "token")
        return self.q.numel() * self.q.element_size() + self.total * token

    def document(self, j):
        if self.case.bits:
            at = slice(int(self.offsets[j]), int(self.offsets[j + 1])) if self.case.packed else j
            x = self.decoded(self.codes[at], self.d[at])
            return torch.nn.functional.normalize(x, dim=-1) if self.case.stored_norms else x
        at = slice(self.offsets[j], self.offsets[j + 1]) if self.case.packed else j
        x, scale = self.d[at], self.d_scale
        if scale is not None:
            x = x.float() * (scale[at][..., None] if scale.dim() else scale)
        return x if self.mask is None else x[self.mask[j]]

    def expected(self, queries, documents):
        """Scores in f32 products (TF32 off) of some queries and documents."""
        out = torch.empty(len(queries), len(documents), device="cuda")
        if self.case.table:
            tables = self.q if self.case.table == "[C, Lq]" else self.q.mT
            of = [[tables[i][self.d[j].long()].amax(0).sum() for j in documents] for i in queries]
            return torch.tensor(of, device="cuda")
        for b, j in enumerate(documents):
            d = self.document(j).float()
            for a, i in enumerate(queries):
                q, scale = self.q[i].float(), self.q_scale
                if scale is not None:
                    q = q * (scale[i][..., None] if scale.dim() else scale)
                if self.case.normalize:
                    q, d = torch.nn.functional.normalize(q, dim=-1), torch.nn.functional.normalize(d, dim=-1)
                out[a, b] = (q @ d.T).amax(1).sum()
        return out


# What one product of f32 costs at the least, in bf16 products: six (or three of TF32) at full
# precision; two, for one of TF32, at "high", where ours takes three; one at "medium".
FLOPS_OF_F32 = 6, 2, 1


def limit_of(inputs, bandwidth, rate):
    case = inputs.case
    if case.table:
        return inputs.bytes() / bandwidth
    if case.gradient_alone:  # against compressed documents: centroids through L2, the rest is read once
        return inputs.bytes() / bandwidth + 2.0 * case.nq * case.lq * case.nd * case.dim / 5.5e9
    if case.listed:
        return max(inputs.bytes() / bandwidth, 2.0 * case.lq * inputs.total * case.dim / rate)
    pairs_tokens = case.nq * case.lq * (case.candidates * case.ld if case.candidates else inputs.total)
    flops = (
        2.0 * pairs_tokens * case.dim * (FLOPS_OF_F32[case.precision] if case.dtype == torch.float32 else 1)
    )
    if (case.dtype.itemsize == 1 and case.q_dtype is None) or (case.bits and case.precision == 2):
        flops /= 2  # products of 8 bits
    times = inputs.bytes() / bandwidth, flops / rate
    if (
        case.train
    ):  # the forward, then each gradient gathers or scatters one row a query token and document through L2
        documents = case.candidates or case.nd
        gather = 2 * case.nq * case.lq * documents * case.dim * inputs.q.element_size() / 5.5e9
        written = (inputs.q.numel() + inputs.d.numel()) * inputs.q.element_size()  # of dropped tokens too
        return max(times) + gather + written / bandwidth
    return max(times)


def work_of(inputs):
    """What a case is, and its operations and bytes, for tables and the roofline."""
    case = inputs.case
    documents = case.candidates or case.nd
    dtype = str(case.dtype)[6:]
    if case.table:
        shape = (
            f"{case.nq} x {case.lq}, scores of {case.dim} centroids, against {case.nd} x {case.ld}, {dtype}"
        )
        looked_up = float(case.nq * case.lq * inputs.total)
        return {"shape": shape, "flops": looked_up, "bytes": inputs.bytes(), "train": False}
    flops = 2.0 * case.nq * case.lq * (documents * case.ld if case.candidates else inputs.total) * case.dim
    if case.gradient_alone:
        flops, dtype = 2.0 * case.nq * case.lq * documents * case.dim, f"{dtype}, the gradient alone"
    if case.bits:
        dtype += f", {case.bits} bits"
    length = f"about {case.ld}" if case.packed else f"{case.ld}, a third dropped" if case.masked else case.ld
    shape = f"{case.nq} x {case.lq} against {case.nd} x {length}, d {case.dim}, {dtype}"
    return {"shape": shape, "flops": flops, "bytes": inputs.bytes(), "train": case.train}
