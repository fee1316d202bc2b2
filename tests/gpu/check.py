"""Checks the CUDA backend against f64 on random awkward problems, and its promises bit by bit.

    python3 tests/gpu/check.py --lib build/liblik.so [--cases 400] [--seconds 120] [--seed 1] [--only NAME]

Every output and workspace stands between guard bands and is poisoned before each run. Exits non-zero on the first ten
failures. LIK_CUDA_ARCH=80 or 75 in the environment checks the paths of older GPUs on the same machine."""

import argparse
import copy
import ctypes
import os
import random
import sys
import threading
import time

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from problems import DTYPES, Guarded, Operand, expected, lik, pairs_of

NAN = float("nan")


class Device:
    """The library with a context on a GPU."""

    def __init__(self, path, name="cuda:0"):
        self.c = lik.Library(path, name)

    def plan(self, kind, op):
        """(plan, workspace, lik_exec) of an operation."""
        plan = lik.Plan(struct_size=ctypes.sizeof(lik.Plan))
        how = lik.Exec(struct_size=ctypes.sizeof(lik.Exec))
        self.c.check(
            getattr(self.c.c, f"lik_{kind}_plan")(
                self.c.context, ctypes.byref(op), ctypes.byref(how), ctypes.byref(plan)
            )
        )
        workspace = Guarded(plan.workspace_bytes, torch.uint8, fill=0xFF)
        how.workspace, how.workspace_bytes = workspace.ptr(), plan.workspace_bytes
        return plan, workspace, how

    def run(self, kind, op, how):
        """Enqueues on torch's current stream."""
        how.stream = torch.cuda.current_stream().cuda_stream
        self.c.check(getattr(self.c.c, f"lik_{kind}_run")(self.c.context, ctypes.byref(op), ctypes.byref(how)))

    def launch(self, kind, op):
        """Plans and enqueues; returns (plan, the workspace, which must live until the stream is done)."""
        plan, workspace, how = self.plan(kind, op)
        torch.cuda.synchronize()
        self.run(kind, op, how)
        return plan, workspace


class Failures:
    def __init__(self):
        self.count = 0

    def __call__(self, ok, text):
        if not ok:
            self.count += 1
            print("FAIL", text, flush=True)
            if self.count >= 10:
                sys.exit(1)
        return ok


fail = Failures()


def problem(q, d, pairing=lik.ALL, per_query=0, lists=None, precision=lik.HIGHEST):
    op = lik.Score(
        struct_size=ctypes.sizeof(lik.Score),
        q=q.struct,
        d=d.struct,
        pairing=pairing,
        precision=precision,
        per_query=per_query,
    )
    if lists is not None:
        op.list_q, op.list_d, op.list_count = lists[0].data_ptr(), lists[1].data_ptr(), len(lists[0])
    return op


def shape_of(op):
    rows = op.list_count if op.pairing == lik.LIST else op.q.count
    columns = {lik.ALL: op.d.count, lik.CANDIDATES: op.per_query}.get(op.pairing, 1)
    return rows, columns


def score(device, op, argmax=None, stride=0, describe=""):
    """Scores [rows, columns] and the argmax [rows, columns, Lq] (or None)."""
    rows, columns = shape_of(op)
    step = columns + stride
    out = Guarded(rows * step, torch.float32)
    before = out.data.clone()
    op.scores, op.scores_stride = out.ptr(), step if stride else 0
    at = None
    if argmax:
        at = Guarded(rows * columns * op.q.len_max, argmax)
        op.argmax, op.argmax_dtype = at.ptr(), lik.I16 if argmax == torch.int16 else lik.I32
    else:
        op.argmax = None
    plan, workspace = device.launch("score", op)
    torch.cuda.synchronize()
    fail(out.intact() and workspace.intact() and (at is None or at.intact()), f"{describe}: wrote past a buffer")
    if stride and rows:
        fail(
            torch.equal(
                out.data.view(rows, step)[:, columns:].view(torch.int32),
                before.view(rows, step)[:, columns:].view(torch.int32),
            ),
            f"{describe}: wrote between rows",
        )
    result = out.data.view(rows, step)[:, :columns].clone()
    return result, at.data.view(rows, columns, -1).clone() if at is not None else None, plan.variant.decode()


def tolerance(q, d, precision):
    """Relative to the sum of |q| |d|. f32 accumulation loses about dim * 2^-24 and the tensor cores' truncation."""
    base = 2e-6 + q.dim * 2e-8
    if "f32" in (q.dtype, d.dtype):
        base += {lik.HIGHEST: 0, lik.HIGH: 2**-14, lik.MEDIUM: 2**-7}[precision]
    return base


def compare(describe, q, d, pairs, got, at, precision, exact):
    unit = tolerance(q, d, precision)
    want = expected(q, d, pairs)
    for (row, column, i, j), (value, scale, products, q_kept, d_kept) in zip(pairs, want):
        ours = float(got[row, column])
        bound = 0 if exact else unit * scale + 1e-30
        if value != value:
            ok = ours != ours
        else:
            ok = abs(ours - value) <= bound
        if not fail(ok, f"{describe}: score[{row}, {column}] is {ours!r}, f64 says {value!r} +- {bound:.2e}"):
            return
        if at is None:
            continue
        index = at[row, column].long()
        inside = index[: q.lengths[i]]
        if not fail(
            bool((index[q.lengths[i] :] == -1).all()), f"{describe}: argmax[{row}, {column}] past the query's end"
        ):
            return
        if products is None:
            fail(bool((inside == -1).all()), f"{describe}: argmax[{row}, {column}] of nothing is not -1")
            continue
        if not fail(
            bool((inside[~q_kept] == -1).all())
            and bool((inside[q_kept] >= 0).all())
            and bool((inside < d.lengths[j]).all()),
            f"{describe}: argmax[{row}, {column}] out of range: {inside.tolist()}",
        ):
            return
        best = products.amax(1)
        picked = products.gather(1, inside.clamp_min(0)[:, None])[:, 0]
        if exact:
            first = (products == best[:, None]).int().argmax(1)
            ok = torch.equal(inside[q_kept], first[q_kept])
        else:
            ok = bool(
                (
                    (best - picked)[q_kept]
                    <= 2
                    * unit
                    * (
                        q.factor(i).abs()
                        @ torch.where(d_kept[:, None], d.factor(j), torch.zeros_like(d.factor(j))).abs().T
                    ).amax(1)[q_kept]
                    + 1e-30
                ).all()
            )
        if not fail(ok, f"{describe}: argmax[{row}, {column}] is {inside.tolist()[:40]}"):
            return


DIMS = [1, 3, 8, 16, 24, 48, 56, 64, 65, 72, 96, 100, 104, 128, 128, 128, 192, 256, 320, 512, 768, 1024, 1032, 2048]
LQ = [0, 1, 2, 15, 16, 17, 31, 32, 32, 33, 48, 64, 65, 100, 128, 129, 260, 300]
LD = [0, 1, 2, 7, 8, 9, 15, 16, 24, 31, 64, 100, 127, 128, 129, 180, 255, 256, 300, 520]
PAIRINGS = {"all": lik.ALL, "candidates": lik.CANDIDATES, "pairs": lik.PAIRS, "list": lik.LIST}


def random_case(device, seed, native):
    """One random problem; with `native`, one that the Hopper loop takes."""
    r = random.Random(seed)
    g = torch.Generator(device="cuda").manual_seed(seed)
    dim = r.choice([x for x in DIMS if not native or (x % 8 == 0 and x <= 1024)])
    q_len, d_len = r.choice(LQ), r.choice(LD)
    kind = r.choice(["unit", "ints"])
    dtype = r.choice(["bf16", "f16", "f32"]) if native else r.choice(list(DTYPES))
    q_dtype = dtype if native or r.random() < 0.5 else r.choice(list(DTYPES))
    pairing = r.choice(["all", "all", "candidates", "pairs", "list"])
    budget = max(1, 60000 // max(1, q_len * d_len)) if q_len * d_len else 40
    count = max(1, min(int(budget**0.5) * 2, 24))
    nq = r.randint(1, count)
    per_query = r.randint(1, max(1, min(12, budget // nq)))
    nd = {
        "all": r.randint(0 if r.random() < 0.05 else 1, min(80, max(1, 2 * budget // nq))),
        "candidates": nq * per_query,
        "pairs": nq,
        "list": r.randint(1, 12),
    }[pairing]
    normalize = kind != "ints" and r.random() < 0.25
    layouts = ["padded", "padded", "packed", "packed64-gap", "wide"] + (
        [] if native else ["odd", "dim_stride", "transposed"]
    )
    d_layout, q_layout = r.choice(layouts), r.choice(["padded", "packed", "wide", "odd", "dim_stride", "transposed"])
    scale = not native and r.random() < 0.25
    group = per_query if pairing == "candidates" and r.random() < 0.5 and d_layout in ("padded", "wide") else 0
    q = Operand(
        g,
        nq,
        q_len,
        dim,
        q_dtype,
        kind,
        q_layout,
        r.choice([None, None, "tail", "holes"]),
        normalize,
        scale and r.random() < 0.5,
        r.random() < 0.3,
    )
    d = Operand(
        g, nd, d_len, dim, dtype, kind, d_layout, r.choice([None, None, "tail", "holes"]), normalize, scale, group=group
    )
    lists = None
    if pairing == "list":
        n = r.randint(1, 20)
        lists = (
            torch.randint(0, nq, (n,), generator=g, device="cuda"),
            torch.randint(0, nd, (n,), generator=g, device="cuda"),
        )
    precision = r.choice([lik.HIGHEST, lik.HIGHEST, lik.HIGH, lik.MEDIUM])
    op = problem(q, d, PAIRINGS[pairing], per_query, lists, precision)
    argmax = r.choice([None, torch.int16, torch.int32])
    describe = (
        f"seed {seed}{' native' if native else ''}: {pairing} q {nq}x{q_len} {q_dtype} {q_layout} "
        f"d {nd}x{d_len} {dtype} {d_layout} dim {dim} {kind} "
        f"{'normalized ' if normalize else ''}{'scaled ' if scale else ''}"
        f"mask {q.masks[0] is not None}/{d.masks[:1] != [None]} group {group} argmax {argmax} precision {precision}"
    )
    got, at, variant = score(device, op, argmax, r.choice([0, 3]) if pairing in ("all", "candidates") else 0, describe)
    describe += f" [{variant}]"
    pairs = pairs_of(
        PAIRINGS[pairing], q, d, per_query, *(x.tolist() for x in lists or (torch.empty(0), torch.empty(0)))
    )
    compare(describe, q, d, pairs, got, at, precision, kind == "ints")
    if argmax:
        again, _, _ = score(device, op, None, 0, describe)
        fail(
            torch.equal(got.view(torch.int32), again.view(torch.int32)),
            f"{describe}: argmax changes the scores",
        )


def check_random(device, args):
    start, done = time.time(), 0
    while done < args.cases and time.time() - start < args.seconds:
        random_case(device, args.seed * 100003 + done, done % 2 == 0)
        done += 1
    print(f"random: {done} cases", flush=True)


def check_batches(device, args):
    """The bits of a score depend on its query and document alone: any batch, padded or packed, 100 runs."""
    for dtype, dim, normalize, precision in (
        ("bf16", 128, False, lik.HIGHEST),
        ("f16", 96, False, lik.HIGHEST),
        ("bf16", 48, False, lik.HIGHEST),
        ("f32", 128, False, lik.HIGHEST),
        ("f32", 384, False, lik.HIGHEST),
        ("f32", 448, False, lik.HIGHEST),
        ("bf16", 320, False, lik.HIGHEST),
        ("bf16", 128, True, lik.HIGHEST),
        ("bf16", 48, True, lik.HIGHEST),
        ("f16", 320, True, lik.HIGHEST),
        ("f32", 96, True, lik.HIGH),
        ("f32", 200, False, lik.MEDIUM),
        ("f32", 200, True, lik.MEDIUM),
    ):
        for q_len, d_len, nq, nd in (
            (32, 300, 20, 40),
            (300, 180, 3, 30),
            (20, 1030, 9, 20),
            (48, 64, 7, 50),
            (5, 9, 40, 90),
            (32, 130, 1, 4000),  # more tiles a block than there are heads
            (17, 300, 1, 3000),
        ):
            g = torch.Generator(device="cuda").manual_seed(7)
            q, d = (Operand(g, n, m, dim, dtype, normalize=normalize) for n, m in ((nq, q_len), (nd, d_len)))
            op = problem(q, d, precision=precision)
            whole, at, variant = score(device, op, torch.int32)
            name = f"batches {dtype} {dim} {nq}x{q_len} {nd}x{d_len} precision {precision} [{variant}]"
            for _ in range(100):
                again, at2, _ = score(device, op, torch.int32)
                if not fail(torch.equal(whole, again) and torch.equal(at, at2), f"{name}: two runs differ"):
                    break
            for i, j in ((0, 0), (nq - 1, nd - 1), (nq // 2, nd // 3)):
                q1, d1 = op.q, op.d
                part = problem(q, d, precision=precision)
                size = 4 if dtype == "f32" else 2
                part.q.data, part.q.count = q1.data + i * q_len * dim * size, 1
                part.d.data, part.d.count = d1.data + j * d_len * dim * size, 1
                alone, at1, small = score(device, part, torch.int32)
                fail(
                    bool(alone[0, 0] == whole[i, j]) and torch.equal(at1[0, 0], at[i, j]),
                    f"{name}: alone ({small}) {float(alone[0, 0])!r}, in the batch {float(whole[i, j])!r}",
                )
            packed = problem(q, d, precision=precision)
            offsets = torch.arange(nd + 1, dtype=torch.int64, device="cuda") * d_len
            packed.d.offsets, packed.d.offsets_dtype, packed.d.total = offsets.data_ptr(), lik.I64, nd * d_len
            other, _, _ = score(device, packed)
            fail(torch.equal(other, whole), f"{name}: packed and padded differ")
            packed.d.offsets, packed.d.count = offsets.data_ptr() + 8 * (nd // 3), nd // 2  # some of them, as they lie
            other, _, _ = score(device, packed)
            fail(torch.equal(other, whole[:, nd // 3 : nd // 3 + nd // 2]), f"{name}: a slice of the packed differs")
            rows = d.data.data.view(DTYPES[dtype][1]).view(-1, dim)
            apart = torch.nn.functional.pad(rows, (0, 1))  # too odd for the copy engine
            odd = problem(q, d, precision=precision)
            odd.d.data, odd.d.strides = apart.data_ptr(), lik.Strides(0, d_len * (dim + 1), dim + 1)
            other, at3, kernel = score(device, odd, torch.int32)
            same = torch.equal(other, whole) and torch.equal(at3, at)
            if dtype == "f32" and precision != lik.MEDIUM:
                same = float((other - whole).abs().max()) <= 1e-4 * float(whole.abs().max())
            fail(same and "_sm90_" not in kernel, f"{name}: tokens far apart [{kernel}] differ")
            lists = (torch.arange(nq, device="cuda").repeat(2), torch.arange(2 * nq, device="cuda") % nd)
            listed, _, _ = score(device, problem(q, d, lik.LIST, 0, lists, precision))
            fail(torch.equal(listed[:, 0], whole[lists[0], lists[1]]), f"{name}: a list and all pairs differ")
    print("batches: done", flush=True)


def check_masks(device, args):
    """Documents with dropped tokens have the bits and the winners of the same documents packed without them, whatever
    their lengths, and however far apart the mask's bytes lie."""
    for dtype, dim, nq, q_len, nd, d_len, mask, normalize in (
        ("bf16", 128, 1, 32, 1500, 300, "holes", False),
        ("bf16", 128, 1, 32, 3000, 90, "tail", False),  # several a tile
        ("bf16", 64, 8, 32, 900, 24, "holes", False),
        ("f16", 96, 20, 33, 50, 2500, "holes", False),  # masks longer than a warp holds at once
        ("f16", 128, 3, 32, 70, 1025, "tail", False),
        ("f32", 128, 5, 32, 60, 1100, "holes", False),
        ("f32", 40, 30, 17, 200, 129, "tail", False),
        ("bf16", 320, 5, 20, 100, 1030, "holes", False),
        ("bf16", 128, 40, 32, 300, 128, "holes", True),
        ("f32", 96, 2, 32, 300, 200, "holes", True),
    ):
        g = torch.Generator(device="cuda").manual_seed(21)
        q = Operand(g, nq, q_len, dim, dtype, normalize=normalize)
        d = Operand(g, nd, d_len, dim, dtype, mask=mask, normalize=normalize)
        kept = torch.stack(d.masks)
        kept[nd // 2] = False
        kept[0, : d_len // 2] = False
        kept[1] = True
        kept[1, d_len * 2 // 3] = False
        d.masks = list(kept)
        d.struct = d.lay_out("padded", 0)
        op = problem(q, d)
        got, at, variant = score(device, op, torch.int16)
        name = f"masks {mask} {dtype} {dim} {nq}x{q_len} {nd}x{d_len} [{variant}]"
        alone, _, _ = score(device, op)
        fail(torch.equal(got, alone), f"{name}: without the argmax, another score")
        twice = torch.zeros(nd, d_len, 2, dtype=torch.uint8, device="cuda")
        twice[:, :, 0] = kept
        op.d.mask, op.d.mask_strides = twice.data_ptr(), lik.Strides(0, 2 * d_len, 2)
        again, at2, _ = score(device, op, torch.int16)
        fail(torch.equal(got, again) and torch.equal(at, at2), f"{name}: another stride of the mask, another result")
        rows = torch.cat(d.rows)[kept.view(-1)]
        offsets = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.sum(1).cumsum(0)])
        packed = problem(q, d)
        packed.d.mask, packed.d.data, packed.d.strides = None, rows.data_ptr(), lik.Strides(0, 0, dim)
        packed.d.offsets, packed.d.offsets_dtype, packed.d.total = offsets.data_ptr(), lik.I64, len(rows)
        other, at2, _ = score(device, packed, torch.int16)
        fail(torch.equal(got, other), f"{name}: packed without the dropped tokens, another score")
        same = copy.copy(d)
        same.struct = same.lay_out("packed", 0)
        other, at3, _ = score(device, problem(q, same), torch.int16)
        fail(torch.equal(got, other) and torch.equal(at, at3), f"{name}: packed with the mask, another result")
        if nd > 1000:  # offsets out of order, where blocks look among them for their documents
            swapped, changed = offsets.clone(), torch.randint(1, nd - 1, (40,), generator=g, device="cuda").unique()
            swapped[changed] = offsets[changed.flip(0)]
            packed.d.offsets = swapped.data_ptr()
            other, _, _ = score(device, packed)
            lengths, steady = swapped.diff(), (swapped == offsets)[1:] & (swapped == offsets)[:-1]
            fail(torch.equal(other[:, steady], got[:, steady]), f"{name}: offsets out of order change other documents")
            bad = (lengths < 0) | (lengths > d_len)
            fail(bool((other.isnan() == bad).all()), f"{name}: offsets out of order: NaN where they are not, or none")
        places = kept.int().sort(dim=1, stable=True, descending=True)[1]  # of a document's kept tokens, in order
        want = places[None].expand(nq, -1, -1).gather(2, at2.long().clamp_min(0)).where(at2 >= 0, at2.long())
        fail(torch.equal(at.long(), want), f"{name}: packed without the dropped tokens, other winners")
        if dtype != "f32" and not normalize:
            torch_dtype = DTYPES[dtype][1]
            data = d.data.data.view(torch_dtype).view(nd, d_len, dim)
            data[kept] = -float("inf")
            q.data.data.view(torch_dtype)[:] = 1
            _, at, _ = score(device, problem(q, d), torch.int16)
            first = places[:, 0].where(kept.any(1), -1)
            fail(bool((at == first[None, :, None]).all()), f"{name}: the first kept token of products of -inf")
    print("masks: done", flush=True)


def check_widths(device, args):
    """Documents of every number of blocks, two of three beside one of NaN: the scores of f64, and the same bits and
    winners padded, packed and from one query. Where a tile is multiplied wider than it is, zeros follow (padded), which
    would win if all products are negative, or what the ring held before (packed), often a NaN."""
    for dtype, dim, normalize in (
        ("bf16", 128, False),
        ("bf16", 48, False),
        ("f16", 96, True),
        ("f32", 128, False),
        ("f32", 40, True),
    ):
        for d_len in (1, 9, 97, 129, 177, 180, 289, 300, 305, 1030):
            g = torch.Generator(device="cuda").manual_seed(d_len)
            count = 660  # five a block, and enough for two bands
            q = Operand(g, 8, 32, dim, dtype, normalize=normalize)
            d = Operand(g, count, d_len, dim, dtype, normalize=normalize)
            if d_len % 2 == 0:
                q.rows, d.rows = [x.abs() for x in q.rows], [-x.abs() for x in d.rows]
                q.struct = q.lay_out("padded", 0)
            clean = torch.arange(count, device="cuda") % 3 != 1
            for rows in d.rows[1::3]:
                rows.fill_(NAN)
            d.struct = d.lay_out("padded", 0)
            got, at, variant = score(device, problem(q, d), torch.int16)
            name = f"widths {dtype} {dim} {d_len} [{variant}]"
            q_rows, d_rows = (torch.stack([x.factor(i) for i in range(x.count)]) for x in (q, d))
            want = torch.einsum("qsd,ntd->qnst", q_rows, d_rows[clean]).amax(3).sum(2)
            scale = q_rows.norm(dim=2).sum(1).max() * d_rows[clean].norm(dim=2).max()
            far = (got[:, clean].double() - want).abs().max()
            fail(bool(far <= tolerance(q, d, lik.HIGHEST) * scale), f"{name}: {far:.2e} from f64")
            fail(bool(got[:, ~clean].isnan().all()), f"{name}: NaN is lost")
            alone, _, _ = score(device, problem(q, d))
            fail(torch.equal(got[:, clean], alone[:, clean]), f"{name}: without the argmax, another score")
            for layout, queries in (("padded", 1), ("packed", 8), ("packed", 1)):
                other = copy.copy(d)
                other.struct = other.lay_out(layout, 0)
                op = problem(q, other)
                op.q.count = queries
                bare, _, _ = score(device, op)
                scores, at2, _ = score(device, op, torch.int16)
                fail(
                    torch.equal(got[:queries, clean], bare[:, clean])
                    and torch.equal(got[:queries, clean], scores[:, clean])
                    and torch.equal(at[:queries, clean], at2[:, clean]),
                    f"{name}: {layout}, {queries} queries: another result",
                )
    print("widths: done", flush=True)


def check_special(device, args):
    """NaN, infinities, ties, and what is out of range on the device."""
    for dtype in ("bf16", "f16", "f32"):
        g = torch.Generator(device="cuda").manual_seed(3)
        q, d = Operand(g, 4, 33, 128, dtype), Operand(g, 11, 140, 128, dtype)
        data = d.data.data.view(DTYPES[dtype][1]).view(11, 140, 128)
        data[3, 77, 5] = NAN
        data[3, 120, 9] = NAN
        data[5, 0, 0] = NAN
        data[6, 139, 127] = NAN
        op = problem(q, d)
        got, at, variant = score(device, op, torch.int32)
        bad = [3, 5, 6]
        fail(bool(got[:, bad].isnan().all()) and int(got.isnan().sum()) == 12, f"special {variant}: NaN tokens: {got}")
        fail(
            bool((at[:, 3] == 77).all()) and bool((at[:, 5] == 0).all()) and bool((at[:, 6] == 139).all()),
            f"special {variant}: the argmax is not the first NaN: {at[:, 3, :4]} {at[:, 5, :4]} {at[:, 6, :4]}",
        )
        data[3], data[5], data[6] = 1, 1, 1
        got, at, _ = score(device, op, torch.int16)
        fail(bool((at[:, [3, 5, 6]] == 0).all()), f"special {variant}: ties do not go to the lowest token")
        if dtype != "f32":
            data[3] = -float("inf")
            q.data.data.view(DTYPES[dtype][1])[:] = 1
            got, at, _ = score(device, op, torch.int16)
            fail(
                bool((got[:, 3] == -float("inf")).all()) and bool((at[:, 3] == 0).all()),
                f"special {variant}: products of -inf: {got[:, 3]} {at[:, 3, :3]}",
            )
        # all products below zero: the largest, then a NaN at every token in turn
        q, d = Operand(g, 4, 33, 128, dtype), Operand(g, 140, 140, 128, dtype)
        for x, sign in ((q, 1), (d, -1)):
            x.data.data.view(DTYPES[dtype][1]).abs_().mul_(sign)
        data, tokens = d.data.data.view(DTYPES[dtype][1]).view(140, 140, 128), torch.arange(140, device="cuda")
        op = problem(q, d)
        got, at, variant = score(device, op, torch.int16)
        products = torch.einsum(
            "qsd,ntd->qnst", q.data.data.view(DTYPES[dtype][1]).view(4, 33, 128).double(), data.double()
        )
        chosen = products.gather(3, at.long()[..., None])[..., 0]
        fail(
            bool((chosen >= products.amax(3) - 1e-5 * products.abs().amax()).all()),
            f"special {variant}: the argmax of negative products",
        )
        data[tokens, tokens, 5] = NAN
        got, at, variant = score(device, op, torch.int16)
        fail(
            bool(got.isnan().all()) and bool((at == tokens[None, :, None]).all()),
            f"special {variant}: a NaN among negative products: {(at != tokens[None, :, None]).nonzero()[:4].tolist()}",
        )
        q, d = Operand(g, 4, 33, 128, dtype), Operand(g, 11, 140, 128, dtype)
        # out of range: never read, the scores concerned are NaN
        total = 11 * 140
        offsets = torch.arange(12, dtype=torch.int64, device="cuda") * 140
        offsets[4] = total + 1000
        offsets[8] = -5
        op = problem(q, d)
        op.d.offsets, op.d.offsets_dtype, op.d.total = offsets.data_ptr(), lik.I64, total
        got, at, _ = score(device, op, torch.int32)
        bad = got.isnan().any(0).nonzero()[:, 0].tolist()
        fail(
            bad == [3, 4, 7, 8] and bool(got[:, bad].isnan().all()) and bool((at[:, bad] == -1).all()),
            f"special {variant}: offsets out of range give NaN in documents {bad}",
        )
        lists = (torch.tensor([0, 99, 1, 2, -1], device="cuda"), torch.tensor([0, 1, 11, 2, 3], device="cuda"))
        got, at, _ = score(device, problem(q, d, lik.LIST, 0, lists), torch.int32)
        fail(
            got[:, 0].isnan().tolist() == [False, True, True, False, True] and bool((at[1] == -1).all()),
            f"special {variant}: list entries out of range: {got[:, 0].tolist()}",
        )
        q_offsets = torch.tensor([0, 33, 20, 99, 132], dtype=torch.int64, device="cuda")
        op = problem(q, d)
        op.q.offsets, op.q.offsets_dtype, op.q.total = q_offsets.data_ptr(), lik.I64, 132
        got, at, _ = score(device, op, torch.int32)
        fail(
            got.isnan().any(1).tolist() == [False, True, True, False] and bool(got[1:3].isnan().all()),
            f"special {variant}: query offsets out of range: {got[:, 0].tolist()}",
        )
        # normalized tokens whose squares leave the range of f32, or come near its ends
        for power in {"f32": (83, -33), "bf16": (50, -33), "f16": (10,)}[dtype]:
            q, d = (Operand(g, n, m, 96, dtype, normalize=True) for n, m in ((4, 33), (11, 140)))
            d.data.data.view(DTYPES[dtype][1]).mul_(2.0**power)
            got, at, variant = score(device, problem(q, d), torch.int16)
            pairs = pairs_of(lik.ALL, q, d, 0, [], [])
            compare(f"special {variant}: norms of 2^{power}", q, d, pairs, got, at, lik.HIGHEST, False)
    print("special: done", flush=True)


def check_topk(device, args):
    for dtype, nq, nd, k, smallest, pairing in (
        ("bf16", 3, 50, 10, 0, "all"),
        ("bf16", 8, 9000, 100, 0, "all"),
        ("f32", 2, 700, 5, 1, "all"),
        ("bf16", 5, 40, 64, 0, "all"),
        ("f16", 4, 6000, 3000, 0, "all"),
        ("bf16", 6, 30, 7, 0, "candidates"),
        ("bf16", 1100, 17000, 20, 0, "all"),
        ("bf16", 3, 9000, 50, 0, "packed"),
    ):
        g = torch.Generator(device="cuda").manual_seed(5)
        per = nd if pairing == "candidates" else 0
        q = Operand(g, nq, 8, 64, dtype, "ints")
        d = Operand(g, nq * nd if per else nd, 6, 64, dtype, "ints")
        if nd > 20 and dtype != "i8":
            d.data.data.view(DTYPES[dtype][1]).view(-1, 6, 64)[11] = NAN
        op = problem(q, d, PAIRINGS.get(pairing, lik.ALL), per)
        if pairing == "packed":
            offsets = torch.arange(nd + 1, device="cuda") * 6
            op.d.offsets, op.d.offsets_dtype, op.d.total = offsets.data_ptr(), lik.I64, nd * 6
        whole, _, _ = score(device, op)
        values, ids = Guarded(nq * k, torch.float32), Guarded(nq * k, torch.int64)
        top = lik.TopK(
            struct_size=ctypes.sizeof(lik.TopK),
            score=op,
            k=k,
            id_base=1000,
            smallest=smallest,
            values=values.ptr(),
            ids=ids.ptr(),
        )
        plan, workspace = device.launch("topk", top)
        torch.cuda.synchronize()
        key = whole.double().nan_to_num(float("inf") if smallest else -float("inf"))
        order = key.sort(dim=1, descending=not smallest, stable=True)[1][:, :k]
        n = order.shape[1]
        name = f"topk {dtype} {nq}x{nd} k {k} [{plan.variant.decode()}]"
        fail(values.intact() and ids.intact() and workspace.intact(), f"{name}: wrote past a buffer")
        got_ids, got = ids.data.view(nq, k), values.data.view(nq, k)
        fail(
            torch.equal(got_ids[:, :n], order + 1000),
            f"{name}: ids {got_ids[0, :8].tolist()} want {(order[0, :8] + 1000).tolist()}",
        )
        fail(torch.equal(got[:, :n].nan_to_num(7e7), whole.gather(1, order).nan_to_num(7e7)), f"{name}: values")
        fail(bool((got_ids[:, n:] == -1).all()) and bool(got[:, n:].isnan().all()), f"{name}: filler")
    print("topk: done", flush=True)


def grad_problem(op, grad_scores, grad_q, grad_d, accumulate=0):
    """The gradients of a forward, which has its argmax, at these addresses."""
    return lik.Grad(
        struct_size=ctypes.sizeof(lik.Grad),
        score=op,
        grad_scores=grad_scores.data_ptr(),
        grad_q=grad_q,
        grad_d=grad_d,
        accumulate=accumulate,
    )


def gradients(device, op, q, d, grad_scores, at, accumulate=0):
    """(grad_q, grad_d) of a forward whose argmax is `at`; buffers between guard bands."""
    op.argmax, op.argmax_dtype = at.data_ptr(), lik.I16 if at.dtype == torch.int16 else lik.I32
    out = [Guarded(x.count * x.len_max * x.dim, DTYPES[x.dtype][1]) for x in (q, d)]
    plan, workspace = device.launch("grad", grad_problem(op, grad_scores, *(g.ptr() for g in out), accumulate))
    torch.cuda.synchronize()
    intact = out[0].intact() and out[1].intact() and workspace.intact()
    fail(intact, f"gradient [{plan.variant.decode()}]: wrote past a buffer")
    return [g.data.view(x.count, x.len_max, x.dim).clone() for g, x in zip(out, (q, d))], plan.variant.decode()


def check_grad(device, args):
    """Gradients of problems too large for the C suite against autograd in f64 at the same argmax; 100 runs alike."""
    for dtype, nq, nd, q_len, d_len, dim, per_query, kind in (
        ("bf16", 64, 64, 32, 300, 128, 0, "unit"),
        ("bf16", 256, 16, 32, 300, 128, 0, "unit"),  # 27 winners a token, some more than 32, some less
        ("bf16", 256, 300, 16, 100, 128, 0, "unit"),  # several tokens a warp, of 40 winners
        ("f16", 200, 280, 16, 120, 24, 0, "ints"),  # some of hundreds, most of few
        ("f32", 900, 150, 16, 90, 40, 0, "ints"),  # several windows of a block's entries, of several tokens a warp
        ("bf16", 40, 6, 300, 520, 128, 0, "unit"),  # more entries a document than a window holds, fewer a block
        ("f16", 600, 2, 99, 3, 128, 0, "normalized"),  # twenty thousand a token, many windows
        ("f16", 300, 5, 32, 1030, 128, 0, "normalized"),
        ("f32", 70, 4, 130, 64, 320, 0, "normalized"),  # rows of several slices, more entries than a window
        ("bf16", 3, 12, 17, 300, 1024, 4, "normalized"),
        ("f16", 5, 15, 33, 100, 64, 3, "unit"),
        ("f32", 9, 11, 20, 70, 36, 0, "unit"),
        ("bf16", 2, 3, 5, 9, 4096, 0, "normalized"),
        ("f16", 32, 9, 128, 3000, 128, 0, "unit"),  # less than two entries a token
        ("bf16", 50, 7, 40, 3, 128, 0, "unit"),  # hundreds a token
        *(
            (("bf16", "f32")[n % 2], 7, 21, n, 37, 96, 3, "normalized" if n == 64 else "unit")
            for n in (1, 32, 64, 65, 128, 129)
        ),  # few a document
    ):
        normalize = kind == "normalized"
        kind = "ints" if kind == "ints" else "unit"
        g = torch.Generator(device="cuda").manual_seed(11)
        q, d = (Operand(g, n, m, dim, dtype, kind, normalize=normalize) for n, m in ((nq, q_len), (nd, d_len)))
        op = problem(q, d, lik.CANDIDATES if per_query else lik.ALL, per_query)
        _, at, _ = score(device, op, torch.int16)
        columns = per_query or nd
        grad_scores = torch.randn(nq, columns, generator=g, device="cuda")
        (grad_q, grad_d), variant = gradients(device, op, q, d, grad_scores, at)
        name = f"grad {dtype} {nq}x{q_len} {nd}x{d_len} dim {dim} {'normalized ' if normalize else ''}[{variant}]"
        x, y = (torch.stack(o.rows).double().requires_grad_() for o in (q, d))
        u, v = (torch.nn.functional.normalize(t, dim=-1) if normalize else t for t in (x, y))
        total = 0
        for j in range(columns):
            documents = v.view(nq, per_query, d_len, dim)[:, j] if per_query else v[j].expand(nq, -1, -1)
            won = documents.gather(1, at[:, j].long()[..., None].expand(-1, -1, dim))
            total = total + (grad_scores[:, j].double() * (u * won).sum((1, 2))).sum()
        total.backward()
        eps = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}[dtype]
        for what, got, want in (("grad_q", grad_q, x.grad), ("grad_d", grad_d, y.grad)):
            error = (got.double() - want).abs()
            bound = eps * want.abs() + 1e-5 * want.norm(dim=-1, keepdim=True) + (6e-8 if dtype == "f16" else 0)
            fail(
                bool((error <= bound).all()),
                f"{name}: {what} off by {float((error - bound).max()):.2e} beyond its bound",
            )
        for _ in range(100 if dim <= 128 else 5):
            again, _ = gradients(device, op, q, d, grad_scores, at)
            if not fail(torch.equal(again[0], grad_q) and torch.equal(again[1], grad_d), f"{name}: two runs differ"):
                break
    print("grad: done", flush=True)


def check_streams(device, args):
    """Graph capture and replay, two streams at once, nothing on the default stream."""
    g = torch.Generator(device="cuda").manual_seed(9)
    for dtype, dim, q_len in (("bf16", 128, 32), ("bf16", 128, 300), ("f32", 40, 20)):
        q, d = (
            Operand(g, 8, q_len, dim, dtype, normalize=True),
            Operand(g, 200, 90, dim, dtype, "unit", "packed", normalize=True),
        )
        op = problem(q, d)
        want, _, variant = score(device, op)
        out = [Guarded(8 * 200, torch.float32) for _ in range(2)]
        streams = [torch.cuda.Stream(), torch.cuda.Stream()]
        plans = [device.plan("score", op) for _ in range(40)]
        torch.cuda.synchronize()
        for n, (_, _, how) in enumerate(plans):
            op.scores = out[n % 2].ptr()
            with torch.cuda.stream(streams[n % 2]):
                device.run("score", op, how)
        torch.cuda.synchronize()
        for s in range(2):
            fail(torch.equal(out[s].data.view(8, 200), want), f"streams {variant}: stream {s} differs")
        out[0].data.fill_(0)
        graph = torch.cuda.CUDAGraph()
        op.scores = out[0].ptr()
        with torch.cuda.graph(graph):
            device.run("score", op, plans[0][2])
        torch.cuda.synchronize()
        fail(bool((out[0].data == 0).all()), f"graph {variant}: capture ran something")
        graph.replay()
        torch.cuda.synchronize()
        fail(torch.equal(out[0].data.view(8, 200), want), f"graph {variant}: the replay differs")
        # a whole step, beside other work: each kernel may begin while the one before it ends
        d = Operand(g, 50, 140, dim, dtype, normalize=True)
        op = problem(q, d)
        _, at, variant = score(device, op, torch.int16)
        grad_scores = torch.randn(8, 50, generator=g, device="cuda")
        want = gradients(device, op, q, d, grad_scores, at)[0]
        scores, again = torch.empty(8, 50, device="cuda"), torch.empty_like(at)
        op.scores, op.argmax = scores.data_ptr(), again.data_ptr()
        got = [torch.empty_like(x) for x in want]
        grad = grad_problem(op, grad_scores, *(x.data_ptr() for x in got))
        steps = [("score", op, device.plan("score", op)), ("grad", grad, device.plan("grad", grad))]
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(3):
                again.fill_(-1)
                for x in got:
                    x.fill_(NAN)
                for kind, operation, (_, _, how) in steps:
                    device.run(kind, operation, how)
        for _ in range(5):
            graph.replay()
            torch.cuda.synchronize()
            same = torch.equal(again, at) and all(torch.equal(x, y) for x, y in zip(got, want))
            if not fail(same, f"graph {variant}: a replayed step differs"):
                break
    print("streams: done", flush=True)


def check_slices(device, args):
    """The bits of a score do not depend on where a slice of a view begins, nor on how much of it is taken: tokens in
    padded rows and sequences, from any first element."""
    r = random.Random(args.seed)
    kernels = set()
    for case in range(60 if args.seconds < 60 else 200):
        dtype = r.choice(["f32", "f32", "f32", "bf16"])
        size, torch_dtype = (4, torch.float32) if dtype == "f32" else (2, torch.bfloat16)
        dim, length, n = r.choice([5, 64, 65, 128, 130]), r.choice([1, 1, 2, 9, 40]), r.choice([2, 5, 33])
        unit = 16 // size
        token = dim + r.choice([0, 1, 3, -dim % unit])
        sequence = token * length + r.choice([0, 0, 1, 2, -token * length % unit])
        first, normalize = r.choice([0, 0, 1, unit]), r.random() < 0.3
        g = torch.Generator(device="cuda").manual_seed(1000 * args.seed + case)
        memory = torch.randn(first + n * sequence + token, generator=g, device="cuda").to(torch_dtype)
        q = Operand(g, 3, 7, dim, dtype, normalize=normalize)
        d = lik.Tokens(struct_size=ctypes.sizeof(lik.Tokens), dtype=DTYPES[dtype][0], count=n, len_max=length, dim=dim)
        d.data, d.dim_stride, d.normalize = memory.data_ptr() + first * size, 1, int(normalize)
        d.strides = lik.Strides(0, sequence, token)
        op = lik.Score(struct_size=ctypes.sizeof(lik.Score), q=q.struct, d=d)
        op.precision = r.choice([lik.HIGHEST, lik.HIGH])
        whole, at, variant = score(device, op, torch.int32)
        kernels.add("_sm90_" in variant)
        for a, b in [(i, i + 1) for i in range(n)] + [sorted(r.sample(range(n + 1), 2)) for _ in range(4)]:
            op.d.data, op.d.count = memory.data_ptr() + (first + a * sequence) * size, b - a
            part, at2, other = score(device, op, torch.int32)
            if not fail(
                torch.equal(part, whole[:, a:b]) and torch.equal(at2, at[:, a:b]),
                f"slices {dtype} dim {dim} {n}x{length} strides {sequence}, {token} from {first}: {a} to {b} "
                f"[{other}] differ from the whole [{variant}]",
            ):
                return
    hopper = torch.cuda.get_device_capability() == (9, 0) and not os.environ.get("LIK_CUDA_ARCH")
    fail(kernels == ({True, False} if hopper else {False}), f"slices: kernels {kernels} were met")
    print("slices: done", flush=True)


def fresh(name, function, *arguments):
    """Calls a function of the library as the first CUDA call of a thread, whose own current device stays as it was.
    Waits for the GPU and returns the status."""
    out = []

    def body():
        try:
            out.append(function(*arguments))
            out.append(torch.cuda.current_device())
        except Exception as error:
            out.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    torch.cuda.synchronize()
    fail(out[1:] == [0], f"threads: {name} in a fresh thread: {out!r}")
    return out[0]


def fresh_operations(index, gpu, dtype, normalize):
    """Score, top-k and gradients in fresh threads; the scores are those of this thread."""
    g = torch.Generator(device="cuda").manual_seed(5)
    q, d = (Operand(g, n, length, 128, dtype, normalize=normalize) for n, length in ((4, 32), (50, 64)))
    op = problem(q, d)
    scores, want = torch.empty(2, 4, 50, device="cuda")
    at = torch.empty(4, 50, 32, device="cuda", dtype=torch.int32)
    op.scores, op.argmax, op.argmax_dtype = scores.data_ptr(), at.data_ptr(), lik.I32
    values, ids = torch.empty(4, 5, device="cuda"), torch.empty(4, 5, device="cuda", dtype=torch.int64)
    best = lik.TopK(struct_size=ctypes.sizeof(lik.TopK), score=op, k=5, values=values.data_ptr(), ids=ids.data_ptr())
    operations = {"score": op, "topk": best}
    if dtype != "i8":
        grads = [torch.empty(4, 32, 128, device="cuda"), torch.empty(50, 64, 128, device="cuda")]
        weights = torch.ones(4, 50, device="cuda")
        operations["grad"] = grad_problem(op, weights, *(x.data_ptr() for x in grads))
    for kind, operation in operations.items():
        _, workspace, how = gpu.plan(kind, operation)
        how.stream = torch.cuda.current_stream().cuda_stream
        torch.cuda.synchronize()
        name = f"{kind} of {dtype} on cuda:{index}"
        run = getattr(gpu.c.c, f"lik_{kind}_run")
        for _ in range(3):
            status = fresh(name, run, gpu.c.context, ctypes.byref(operation), ctypes.byref(how))
            fail(status == 0, f"threads: {name} returned {status}")
        fail(workspace.intact(), f"threads: {name} wrote past its workspace")
    op.scores, op.argmax = want.data_ptr(), None
    gpu.launch("score", op)
    torch.cuda.synchronize()
    fail(torch.equal(scores, want), f"threads: scores of {dtype} on cuda:{index} differ")


def fresh_memory(index, gpu):
    """Memory and streams in fresh threads."""
    memory, stream = ctypes.c_void_p(), ctypes.c_void_p()
    back, there = ctypes.create_string_buffer(1000), ctypes.create_string_buffer(bytes(range(250)) * 4, 1000)
    free, total, size = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_size_t(1000)

    def call(name, *arguments):
        status = fresh(f"{name} on cuda:{index}", getattr(gpu.c.c, name), gpu.c.context, *arguments)
        fail("free" in name or "destroy" in name or status == 0, f"threads: {name} on cuda:{index} returned {status}")

    call("lik_memory_alloc", size, ctypes.byref(memory))
    call("lik_memory_copy", memory, there, size)
    call("lik_memory_copy", back, memory, size)
    call("lik_memory_info", ctypes.byref(free), ctypes.byref(total))
    call("lik_memory_free", memory)
    call("lik_stream_create", ctypes.byref(stream))
    call("lik_stream_synchronize", stream)
    call("lik_stream_destroy", stream)
    fail(back.raw == there.raw and total.value >> 30, f"threads: memory of cuda:{index}")


def check_threads(device, args):
    """Each function of the library as the first CUDA call of a fresh thread, on every GPU."""
    for index in range(torch.cuda.device_count()):
        gpu = fresh(f"lik_context_create on cuda:{index}", Device, args.lib, f"cuda:{index}")
        with torch.cuda.device(index):
            for dtype, normalize in (("bf16", False), ("f32", True), ("i8", False)):
                fresh_operations(index, gpu, dtype, normalize)
        fresh_memory(index, gpu)
    print(f"threads: done on {torch.cuda.device_count()} GPUs", flush=True)


def check_refused(device, args):
    """With LIK_CHECK=1 what lies on the device is looked at, and refused by name; a GPU that is not there always is."""

    def refused(text, action):
        try:
            action()
        except lik.LikError as error:
            fail(text in str(error), f"refused: {error}, expected {text!r}")
        else:
            fail(False, f"refused: nothing was, expected {text!r}")

    count = torch.cuda.device_count()
    refused(f"this machine has {count} GPU", lambda: lik.Library(args.lib, f"cuda:{count}"))
    if os.environ.get("LIK_CHECK") != "1":
        return
    g = torch.Generator(device="cuda").manual_seed(3)
    q, d = Operand(g, 3, 8, 64, "bf16"), Operand(g, 5, 20, 64, "bf16")
    lists = torch.tensor([0, 2], device="cuda"), torch.tensor([1, 5], device="cuda")
    refused("list_d[1] is 5, must be 0 to 4", lambda: score(device, problem(q, d, lik.LIST, 0, lists)))
    op = problem(q, d)
    for values, text in (
        ([0, 20, 10, 60, 80, 100], "d.offsets[2] is 10, less than the one before, which is 20"),
        ([0, 20, 40, 60, 80, 101], "d.offsets[5] is 101, must be 0 to d.total, which is 100"),
        ([0, 20, 60, 60, 80, 100], "d.len_max is 20, sequence 1 has 40 tokens"),
    ):
        offsets = torch.tensor(values, device="cuda")
        op.d.offsets, op.d.offsets_dtype, op.d.total = offsets.data_ptr(), lik.I64, 100
        refused(text, lambda: score(device, op))
    print("refused: done", flush=True)


def check_large(device, args):
    """More than 2^31 elements in an operand: the last documents are right."""
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        print("large: skipped, less than 12 GiB free", flush=True)
        return
    count, length, dim = 140000, 128, 128
    d = torch.randn(count, length, dim, dtype=torch.bfloat16, device="cuda")
    q = torch.randn(2, 32, dim, dtype=torch.bfloat16, device="cuda")
    op = lik.Score(struct_size=ctypes.sizeof(lik.Score), pairing=lik.ALL)
    for name, x in (("q", q), ("d", d)):
        t = lik.Tokens(
            struct_size=ctypes.sizeof(lik.Tokens),
            dtype=lik.BF16,
            count=x.shape[0],
            len_max=x.shape[1],
            dim=dim,
            data=x.data_ptr(),
            dim_stride=1,
        )
        t.strides = lik.Strides(0, x.shape[1] * dim, dim)
        setattr(op, name, t)
    for packed in (False, True):
        if packed:
            offsets = torch.arange(count + 1, dtype=torch.int64, device="cuda") * length
            op.d.offsets, op.d.offsets_dtype, op.d.total = offsets.data_ptr(), lik.I64, count * length
        got, _, variant = score(device, op)
        want = torch.einsum("qsd,ntd->qnst", q.double(), d[-300:].double()).amax(3).sum(2)
        fail(
            bool(((got[:, -300:] - want).abs() < 1e-2).all()),
            f"large [{variant}] packed {packed}: {got[:, -3:]} {want[:, -3:]}",
        )
    print("large: done", flush=True)


CHECKS = {
    "special": check_special,
    "random": check_random,
    "batches": check_batches,
    "masks": check_masks,
    "widths": check_widths,
    "topk": check_topk,
    "grad": check_grad,
    "streams": check_streams,
    "slices": check_slices,
    "threads": check_threads,
    "refused": check_refused,
    "large": check_large,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lib", required=True)
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    device = Device(args.lib)
    print(
        device.c.name(),
        torch.cuda.get_device_name(),
        "LIK_CUDA_ARCH",
        os.environ.get("LIK_CUDA_ARCH", "unset"),
        flush=True,
    )
    for name, check in CHECKS.items():
        if not args.only or name in args.only.split(","):
            start = time.time()
            check(device, args)
            print(f"  {name}: {time.time() - start:.1f} s", flush=True)
    print("failures:", fail.count)
    sys.exit(1 if fail.count else 0)


if __name__ == "__main__":
    main()
