"""Checks of scores and of the argmax: random awkward problems, and promises bit by bit."""

import copy
import ctypes
import os
import random
import time

import torch
from harness import PAIRINGS, compare, fail, problem, score, tolerance
from problems import DTYPES, Operand, lik, pairs_of

NAN = float("nan")
BYTES = ("e4m3", "e5m2", "i8")
DIMS = [
    1,
    3,
    8,
    16,
    24,
    48,
    56,
    64,
    65,
    72,
    96,
    100,
    104,
    128,
    128,
    128,
    192,
    256,
    320,
    512,
    768,
    1024,
    1032,
    2048,
]
LQ = [0, 1, 2, 15, 16, 17, 31, 32, 32, 33, 48, 64, 65, 100, 128, 129, 260, 300]
LD = [0, 1, 2, 7, 8, 9, 15, 16, 24, 31, 64, 100, 127, 128, 129, 180, 255, 256, 300, 520]


# Long because one draw after the other decides the next: the order is what a seed means.
def random_case(device, seed, native):
    """One random problem; with `native`, one that the Hopper loop takes."""
    r = random.Random(seed)
    g = torch.Generator(device="cuda").manual_seed(seed)
    dtype = r.choice(list(DTYPES))
    step = 16 if dtype in BYTES else 8
    dim = r.choice([x for x in DIMS if not native or (x % step == 0 and x <= 1024)])
    q_len, d_len = r.choice(LQ), r.choice(LD)
    kind = r.choice(["unit", "ints"])
    q_dtype = dtype
    if dtype in BYTES or not native:
        q_dtype = r.choice([dtype, *(x for x in DTYPES if not native or x != "f32")])
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
    d_layout, q_layout = (
        r.choice(layouts),
        r.choice(["padded", "packed", "wide", "odd", "dim_stride", "transposed"]),
    )
    scale = (not native or (dtype in BYTES and not normalize)) and r.random() < 0.5
    group = (
        per_query if pairing == "candidates" and r.random() < 0.5 and d_layout in ("padded", "wide") else 0
    )
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
        g,
        nd,
        d_len,
        dim,
        dtype,
        kind,
        d_layout,
        r.choice([None, None, "tail", "holes"]),
        normalize,
        scale,
        group=group,
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
        f"mask {q.masks[0] is not None}/{d.masks[:1] != [None]} group {group} argmax {argmax} precision "
        f"{precision}"
    )
    got, at, variant = score(
        device, op, argmax, r.choice([0, 3]) if pairing in ("all", "candidates") else 0, describe
    )
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


# Long because every layout of one problem is compared with the whole.
def check_batches(device, args):
    """The bits of a score depend on its query and document alone: any batch, padded or packed,
    100 runs.
    """
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
        ("e4m3", 128, False, lik.HIGHEST),
        ("e5m2", 96, False, lik.HIGHEST),
        ("e4m3", 48, True, lik.HIGHEST),
        ("i8", 128, True, lik.HIGHEST),
        ("i8", 320, False, lik.HIGHEST),
    ):
        scale = dtype in BYTES and not normalize
        for q_len, d_len, nq, nd in (
            (32, 300, 20, 40),
            (300, 180, 3, 30),
            (20, 1030, 9, 20),
            (32, 300, 40, 60),  # so many that documents of 8 bits are widened beforehand
            (400, 220, 1, 2400),  # more than are widened at once, and few are left
            (48, 64, 7, 50),
            (5, 9, 40, 90),
            (32, 130, 1, 4000),  # more tiles a block than there are heads
            (17, 300, 1, 3000),
        ):
            g = torch.Generator(device="cuda").manual_seed(7)
            q, d = (
                Operand(g, n, m, dim, dtype, normalize=normalize, scale=scale)
                for n, m in ((nq, q_len), (nd, d_len))
            )
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
                size = 4 if dtype == "f32" else 1 if dtype in BYTES else 2
                part.q.data, part.q.count = q1.data + i * q_len * dim * size, 1
                part.d.data, part.d.count = d1.data + j * d_len * dim * size, 1
                if scale:
                    part.q.scale, part.d.scale = q1.scale + i * q_len * 4, d1.scale + j * d_len * 4
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
            # Some of them, as they lie.
            packed.d.offsets, packed.d.count = offsets.data_ptr() + 8 * (nd // 3), nd // 2
            other, _, _ = score(device, packed)
            fail(
                torch.equal(other, whole[:, nd // 3 : nd // 3 + nd // 2]),
                f"{name}: a slice of the packed differs",
            )
            rows = d.data.data.view(torch.uint8 if dtype in BYTES else DTYPES[dtype][1]).view(-1, dim)
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


# Long because each layout of one problem is compared with the one before it.
def check_masks(device, args):
    """Documents with dropped tokens have the bits and the winners of the same documents packed
    without them, whatever their lengths, and however far apart the mask's bytes lie."""
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
        ("i8", 128, 1, 32, 1500, 300, "holes", False),
        ("i8", 64, 8, 32, 900, 24, "holes", False),
        ("i8", 128, 3, 32, 70, 1025, "tail", True),
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
        fail(
            torch.equal(got, again) and torch.equal(at, at2),
            f"{name}: another stride of the mask, another result",
        )
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
        fail(
            torch.equal(got, other) and torch.equal(at, at3), f"{name}: packed with the mask, another result"
        )
        if nd > 1000:  # offsets out of order, where blocks look among them for their documents
            swapped, changed = (
                offsets.clone(),
                torch.randint(1, nd - 1, (40,), generator=g, device="cuda").unique(),
            )
            swapped[changed] = offsets[changed.flip(0)]
            packed.d.offsets = swapped.data_ptr()
            other, _, _ = score(device, packed)
            lengths, steady = swapped.diff(), (swapped == offsets)[1:] & (swapped == offsets)[:-1]
            fail(
                torch.equal(other[:, steady], got[:, steady]),
                f"{name}: offsets out of order change other documents",
            )
            bad = (lengths < 0) | (lengths > d_len)
            fail(
                bool((other.isnan() == bad).all()),
                f"{name}: offsets out of order: NaN where they are not, or none",
            )
        # Of a document's kept tokens, in order.
        places = kept.int().sort(dim=1, stable=True, descending=True)[1]
        want = places[None].expand(nq, -1, -1).gather(2, at2.long().clamp_min(0)).where(at2 >= 0, at2.long())
        fail(torch.equal(at.long(), want), f"{name}: packed without the dropped tokens, other winners")
        if dtype in ("f16", "bf16") and not normalize:
            torch_dtype = DTYPES[dtype][1]
            data = d.data.data.view(torch_dtype).view(nd, d_len, dim)
            data[kept] = -float("inf")
            q.data.data.view(torch_dtype)[:] = 1
            _, at, _ = score(device, problem(q, d), torch.int16)
            first = places[:, 0].where(kept.any(1), -1)
            fail(
                bool((at == first[None, :, None]).all()), f"{name}: the first kept token of products of -inf"
            )
    print("masks: done", flush=True)


def check_widths(device, args):
    """Documents of every number of blocks, two of three beside one of NaN: the scores of f64,
    and the same bits and winners padded, packed and from one query. Where a tile is multiplied
    wider than it is, zeros follow (padded), which would win if all products are negative, or
    what the ring held before (packed), often a NaN."""
    for dtype, dim, normalize in (
        ("bf16", 128, False),
        ("bf16", 48, False),
        ("f16", 96, True),
        ("f32", 128, False),
        ("f32", 40, True),
    ):
        short = (17, 24, 31, 48, 64, 70, 100, 113, 128) if (dtype, dim) == ("bf16", 128) else ()
        for d_len in (1, 9, 97, 129, 177, 180, 289, 300, 305, 1030, *short):
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


def compare_pairs(device, count, dtype, dim):
    """check_pairs for so many queries."""
    for q_len, d_len, columns in (
        (32, 180, 1),
        (5, 30, 3),
        (64, 300, 1),
        (100, 64, 4),
        (128, 1030, 1),
        (17, 129, 2),
    ):
        g = torch.Generator(device="cuda").manual_seed(d_len)
        q, d = (Operand(g, n, m, dim, dtype) for n, m in ((count, q_len), (count * columns, d_len)))
        scores, at, _ = score(device, problem(q, d), torch.int16)
        i = torch.arange(count, device="cuda")
        scores, at = scores.view(count, count, columns)[i, i], at.view(count, count, columns, q_len)[i, i]
        pairing = (lik.PAIRS, 0) if columns == 1 else (lik.CANDIDATES, columns)
        got, at2, variant = score(device, problem(q, d, *pairing), torch.int16)
        alone, _, _ = score(device, problem(q, d, *pairing))
        fail(
            torch.equal(scores, got) and torch.equal(at, at2) and torch.equal(scores, alone),
            f"pairs {dtype} {dim} {q_len} {d_len} x {columns} [{variant}]: not the matrix's",
        )


def check_pairs(device, args):
    """A document or a few for each query, whose rows are copied ahead: the bits and winners of
    the matrix of all, which other kernels make.
    """
    for count in (300, 40):  # more than there are blocks, and fewer
        for dtype, dim in (("bf16", 128), ("f16", 96), ("bf16", 40)):
            compare_pairs(device, count, dtype, dim)
    print("pairs: done", flush=True)


def special_values(device, g, dtype):
    """NaN, ties and infinities."""
    q, d = Operand(g, 4, 33, 128, dtype), Operand(g, 11, 140, 128, dtype)
    data = d.data.data.view(DTYPES[dtype][1]).view(11, 140, 128)
    data[3, 77, 5] = NAN
    data[3, 120, 9] = NAN
    data[5, 0, 0] = NAN
    data[6, 139, 127] = NAN
    op = problem(q, d)
    got, at, variant = score(device, op, torch.int32)
    bad = [3, 5, 6]
    fail(
        bool(got[:, bad].isnan().all()) and int(got.isnan().sum()) == 12,
        f"special {variant}: NaN tokens: {got}",
    )
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


def negative_products(device, g, dtype):
    """All products below zero: the largest, then a NaN at every token in turn."""
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
        f"special {variant}: a NaN among negative products: "
        f"{(at != tokens[None, :, None]).nonzero()[:4].tolist()}",
    )


def out_of_range(device, g, dtype):
    """Offsets and list entries out of range: never read, the scores concerned are NaN."""
    q, d = Operand(g, 4, 33, 128, dtype), Operand(g, 11, 140, 128, dtype)
    total = 11 * 140
    offsets = torch.arange(12, dtype=torch.int64, device="cuda") * 140
    offsets[4] = total + 1000
    offsets[8] = -5
    op = problem(q, d)
    op.d.offsets, op.d.offsets_dtype, op.d.total = offsets.data_ptr(), lik.I64, total
    got, at, variant = score(device, op, torch.int32)
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


def norms_out_of_range(device, g, dtype):
    """Normalized tokens whose squares leave the range of f32, or come near its ends."""
    for power in {"f32": (83, -33), "bf16": (50, -33), "f16": (10,)}[dtype]:
        q, d = (Operand(g, n, m, 96, dtype, normalize=True) for n, m in ((4, 33), (11, 140)))
        d.data.data.view(DTYPES[dtype][1]).mul_(2.0**power)
        got, at, variant = score(device, problem(q, d), torch.int16)
        pairs = pairs_of(lik.ALL, q, d, 0, [], [])
        compare(f"special {variant}: norms of 2^{power}", q, d, pairs, got, at, lik.HIGHEST, False)


def check_special(device, args):
    """NaN, infinities, ties, and what is out of range on the device."""
    for dtype in ("bf16", "f16", "f32"):
        g = torch.Generator(device="cuda").manual_seed(3)
        special_values(device, g, dtype)
        negative_products(device, g, dtype)
        out_of_range(device, g, dtype)
        norms_out_of_range(device, g, dtype)
    print("special: done", flush=True)


def check_slices(device, args):
    """The bits of a score do not depend on where a slice of a view begins, nor on how much of
    it is taken: tokens in padded rows and sequences, from any first element."""
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
        d = lik.Tokens(
            struct_size=ctypes.sizeof(lik.Tokens), dtype=DTYPES[dtype][0], count=n, len_max=length, dim=dim
        )
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
