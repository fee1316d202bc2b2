"""What is measured: the cases with their shapes and targets, their data, and the f64 truth that
checks everything.

A case is nq queries of lq tokens against nd documents of ld tokens (or of ld[0] to ld[1]
tokens, packed), all of dim elements, unit length, random. Its useful work is 2 * query tokens *
document tokens * dim operations: nothing is counted that padding or a second pass might add."""

import math
from dataclasses import dataclass, field

import numpy as np
from liblik import BF16, F16, F32, HIGHEST, I8, MEDIUM, codec_of

CENTROIDS = 8192  # of compressed documents

AT_MOST = ("fma time", "argmax", "f32 time")


@dataclass(frozen=True)
class Target:
    """A number to reach. `metric` is "share" or "best share" (of the FMA peak), "fma time"
    (multiple of the time the FMAs alone take), "argmax" (time over the forward's, as a
    fraction), "f32 time" (multiple of the time that the same documents take in f32), or "times
    <peer>", where the peer is a peer's name, "best" for the fastest exact one or "best torch"
    for the fastest of torch's forms. `threads` 0: any number."""

    metric: str
    value: float
    threads: int = 0

    def holds(self, got):
        return got <= self.value if self.metric in AT_MOST else got >= self.value

    def text(self):
        sign = "≤" if self.metric in AT_MOST else "≥"
        number = (
            f"{self.value:.0%}" if "share" in self.metric or self.metric == "argmax" else f"{self.value:g}x"
        )
        return f"{self.metric} {sign} {number}"


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    nq: int
    lq: int
    nd: int
    ld: int | tuple
    dim: int = 128
    storage: str = "f32"  # f32, f16, bf16, i8
    precision: int = HIGHEST
    bits: int = 0  # of compressed documents' residuals; their queries are f32
    stored_norms: bool = False  # of compressed documents; else they are normalized as they are read
    kind: str = "score"  # score, train, tiny, topk
    targets: tuple = ()
    threads: tuple = ()  # only these numbers of threads; () = all
    quick: bool = True

    def packed(self):
        return isinstance(self.ld, tuple)


def times(peer, value):
    return Target(f"times {peer}", value)


def share(value, best=None, two=None):
    """Share of the FMA peak: of the median (`two`: with two threads, else the same), and of the
    best on one thread.
    """
    targets = [Target("share", value, 1 if two else 0)]
    if best:
        targets.append(Target("best share", best, 1))
    if two:
        targets.append(Target("share", two, 2))
    return tuple(targets)


CASES = [
    Case("text-f32", "1 x 32 against 1000 x 300, f32", 1, 32, 1000, 300,
         targets=(*share(0.83, 0.88, 0.78), times("maxsim-cpu", 3), times("best", 2.5))),
    Case("text-f16", "the same in f16", 1, 32, 1000, 300, storage="f16",
         targets=(*share(0.83, 0.90), times("torch einsum", 14))),
    Case("text-bf16", "the same in bf16", 1, 32, 1000, 300, storage="bf16",
         targets=(*share(0.83, 0.90), times("torch einsum", 14))),
    Case("text-i8-q16", "the same in i8, 16-bit query", 1, 32, 1000, 300, storage="i8", targets=share(1.20)),
    Case("text-i8-q7", "the same in i8, 7-bit query", 1, 32, 1000, 300, storage="i8", precision=MEDIUM,
         targets=share(1.60)),
    Case("packed", "1 x 32 against 1000 packed documents of 20..512", 1, 32, 1000, (20, 512),
         targets=(*share(0.80), times("maxsim-cpu", 3.2))),
    Case("colpali-32", "1 x 32 against 100 x 1030", 1, 32, 100, 1030,
         targets=(*share(0.80), times("maxsim-cpu", 3))),
    Case("colpali-20", "1 x 20 against 100 x 1030", 1, 20, 100, 1030, targets=share(0.75)),
    Case("d48", "1 x 32 against 1000 x 300, d 48", 1, 32, 1000, 300, dim=48,
         targets=(times("maxsim-cpu", 5),)),
    Case("d96", "1 x 32 against 1000 x 300, d 96", 1, 32, 1000, 300, dim=96,
         targets=(times("maxsim-cpu", 3.7),)),
    Case("corpus", "1 x 32 against 20,000 x 128, beyond every cache", 1, 32, 20000, 128, quick=False,
         targets=(*share(0.83), times("maxsim-cpu", 3.2))),
    Case("in-batch", "64 x 32 against 64 x 300", 64, 32, 64, 300),
    Case("train", "32 x 32 against 32 x 180, forward + backward", 32, 32, 32, 180, kind="train",
         targets=(times("torch einsum", 4.5), times("best torch", 3.5), Target("argmax", 0.03))),
    Case("tiny", "1 x 32 against 2 x 32", 1, 32, 2, 32, kind="tiny",
         targets=(Target("fma time", 1.4),), threads=(1,)),
    Case("short-7", "1 x 32 against 10,000 x 7", 1, 32, 10000, 7, targets=share(0.75)),
    Case("short-1", "1 x 32 against 70,000 x 1", 1, 32, 70000, 1, targets=share(0.60), quick=False),
    Case("query-8", "1 x 8 against 1000 x 300", 1, 8, 1000, 300),
    Case("query-20", "1 x 20 against 1000 x 300", 1, 20, 1000, 300),
    Case("query-64", "1 x 64 against 1000 x 300", 1, 64, 1000, 300, quick=False),
    Case("4-bits", "1 x 32 against 1000 x 300 of 4 bits, 8-bit products", 1, 32, 1000, 300, bits=4,
         precision=MEDIUM, targets=(Target("f32 time", 0.82, 1),)),
    Case("4-bits-norms", "the same, inverse norms stored", 1, 32, 1000, 300, bits=4, stored_norms=True,
         precision=MEDIUM, targets=(Target("f32 time", 0.72, 1),)),
    Case("2-bits", "the same, 2 bits, 8-bit products", 1, 32, 1000, 300, bits=2, precision=MEDIUM,
         targets=(Target("f32 time", 0.76, 1),)),
    Case("1-bit", "the same, 1 bit, 8-bit products", 1, 32, 1000, 300, bits=1, precision=MEDIUM,
         targets=(Target("f32 time", 0.59, 1),)),
    Case("4-bits-f32", "the same, 4 bits, as accurate as f32", 1, 32, 1000, 300, bits=4,
         targets=(Target("f32 time", 1.25, 1),)),
    Case("top-10", "best 10 of 1000 x 300 for 4 x 32", 4, 32, 1000, 300, kind="topk"),
]  # fmt: skip

DTYPES = {"f32": F32, "f16": F16, "bf16": BF16, "i8": I8}


def bf16_of(x):
    """f32 rounded to bf16, as uint16."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def f32_of(x, storage):
    """Stored values as f32 (i8 without its scales); f32 itself is not copied."""
    if storage == "bf16":
        return (x.astype(np.uint32) << 16).view(np.float32)
    return x.astype(np.float32, copy=False)


def unit_rows(rng, count, dim):
    rows = np.empty((count, dim), np.float32)
    for begin in range(0, count, 65536):
        block = rng.standard_normal((min(65536, count - begin), dim), dtype=np.float32)
        rows[begin : begin + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return rows


@dataclass
class Data:
    """A case's arrays. q [nq, lq, dim]; d [nd, ld, dim], or [total, dim] with offsets; in the
    case's storage, but for i8, whose queries are f32 and whose documents have a scale a token.
    Compressed documents: d uint8 [tokens, bytes], codes int32 [tokens], and their codec; scale
    has their inverse norms, where those are stored.
    """

    case: Case
    q: np.ndarray = field(init=False)
    d: np.ndarray = field(init=False)
    scale: np.ndarray | None = None
    offsets: np.ndarray = field(init=False)
    codes: np.ndarray | None = None
    codec: tuple | None = None

    def __post_init__(self):
        case, rng = self.case, np.random.default_rng(7)
        low, high = case.ld if case.packed() else (case.ld, case.ld)
        lengths = rng.integers(low, high + 1, case.nd)
        self.offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int64)
        if case.bits:
            self.compress(rng)
            return
        q, d = unit_rows(rng, case.nq * case.lq, case.dim), unit_rows(rng, int(self.offsets[-1]), case.dim)
        if case.storage == "i8":
            scale = (np.abs(d).max(1) / 127).astype(np.float32)
            d = np.rint(d / scale[:, None]).astype(np.int8)
            self.scale = scale if case.packed() else scale.reshape(case.nd, case.ld)
        elif case.storage == "f16":
            q, d = q.astype(np.float16), d.astype(np.float16)
        elif case.storage == "bf16":
            q, d = bf16_of(q), bf16_of(d)
        self.q = q.reshape(case.nq, case.lq, case.dim)
        self.d = d if case.packed() else d.reshape(case.nd, case.ld, case.dim)

    def compress(self, rng):
        """Random codes and residuals; of a token's length the residual has about a half."""
        case, tokens = self.case, int(self.offsets[-1])
        self.q = unit_rows(rng, case.nq * case.lq, case.dim).reshape(case.nq, case.lq, case.dim)
        weights = np.sort(rng.standard_normal(1 << case.bits)).astype(np.float32) / (2 * math.sqrt(case.dim))
        self.codec = codec_of(unit_rows(rng, CENTROIDS, case.dim), weights, case.bits)
        self.codes = rng.integers(0, CENTROIDS, tokens, np.int32)
        self.d = rng.integers(0, 256, (tokens, case.dim * case.bits // 8), np.uint8)
        if case.stored_norms:
            self.scale = (1 / np.linalg.norm(self.decoded(0, None), axis=1)).astype(np.float32)

    def decoded(self, begin, end):
        """Rows begin ... end - 1 as they are stored, not yet of unit length. In ColBERT's order
        a byte's first bucket is in its highest bits, each bucket's bits the other way round.
        """
        bits, (centroids, weights) = self.case.bits, self.codec[1]
        shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
        fields = self.d[begin:end, :, None] >> shifts & (1 << bits) - 1
        reversed_bits = [int(f"{n:0{bits}b}"[::-1], 2) for n in range(1 << bits)]
        weight = weights[reversed_bits][fields].reshape(-1, self.case.dim)
        return centroids[self.codes[begin:end]] + weight

    def flops(self):
        return 2.0 * self.case.nq * self.case.lq * float(self.offsets[-1]) * self.case.dim

    def q_f32(self):
        return self.q if self.case.storage == "i8" or self.case.bits else f32_of(self.q, self.case.storage)

    def rows_f32(self, begin, end):
        """Document rows begin ... end - 1 of all rows, as the f32 values they stand for."""
        if self.case.bits:
            rows = self.decoded(begin, end)
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)
        rows = f32_of(self.d.reshape(-1, self.case.dim)[begin:end], self.case.storage)
        return rows if self.scale is None else rows * self.scale.reshape(-1)[begin:end, None]

    def truth(self, with_argmax=False):
        """Scores [nq, nd] in f64, or (scores, argmax [nq, nd, lq])."""
        case, q = self.case, self.q_f32().reshape(-1, self.case.dim).astype(np.float64)
        scores = np.empty((case.nq, case.nd))
        argmax = np.empty((case.nq, case.nd, case.lq), np.int64) if with_argmax else None
        step = max(1, 32768 // max(1, int(np.diff(self.offsets).max())))
        for j in range(0, case.nd, step):
            ends = self.offsets[j : j + step + 1]
            similarity = q @ self.rows_f32(ends[0], ends[-1]).astype(np.float64).T
            best = np.maximum.reduceat(similarity, ends[:-1] - ends[0], axis=1)
            scores[:, j : j + step] = best.reshape(case.nq, case.lq, -1).sum(1)
            if with_argmax:
                shaped = similarity.reshape(case.nq, case.lq, len(ends) - 1, case.ld)
                argmax[:, j : j + step] = shaped.argmax(3).transpose(0, 2, 1)
        return (scores, argmax) if with_argmax else scores

    def tolerance(self):
        """The most a correct score may be off: each dot product by dim roundings, the sum by
        lq, all terms at most 1 in size. For i8 documents also the query's rounding to integers,
        whose errors are as good as independent: six standard deviations of their sum, and one
        deviation a query token, because a maximum prefers errors that raise it."""
        case = self.case
        bound = case.lq * (case.dim + case.lq) * 2.0**-24
        if case.bits:  # of norms and, with 8-bit products, of tokens as well
            bound = 2 * bound if case.precision == HIGHEST else 6e-3 * case.lq * 0.25
        if case.storage == "i8":
            steps = 63 if case.precision == MEDIUM else 32639
            # Of a product with a unit document row.
            deviations = np.abs(self.q).max(2) / steps / math.sqrt(12)
            bound += (6 * np.sqrt((deviations**2).sum(1)) + deviations.sum(1)).max()
        return float(bound)


def gradients(data, argmax, grad_scores):
    """The f64 gradients (of q, of d) of a padded case from its argmax [nq, nd, lq] and
    grad_scores [nq, nd].
    """
    case, q, d = data.case, data.q_f32().astype(np.float64), data.rows_f32(0, None).astype(np.float64)
    d = d.reshape(case.nd, case.ld, case.dim)
    grad_q, grad_d = np.zeros_like(q), np.zeros_like(d)
    for i in range(case.nq):
        for j in range(case.nd):
            grad_q[i] += grad_scores[i, j] * d[j, argmax[i, j]]
            np.add.at(grad_d[j], argmax[i, j], grad_scores[i, j] * q[i])
    return grad_q, grad_d
