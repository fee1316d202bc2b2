"""The library on a GPU, and what its results are held against: outputs and workspaces between
guard bands, f64 within a bound. Used by the checks of check.py."""

import ctypes
import sys

import torch
from problems import DTYPES, Guarded, expected, lik

PAIRINGS = {"all": lik.ALL, "candidates": lik.CANDIDATES, "pairs": lik.PAIRS, "list": lik.LIST}


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
        self.c.check(
            getattr(self.c.c, f"lik_{kind}_run")(self.c.context, ctypes.byref(op), ctypes.byref(how))
        )

    def launch(self, kind, op):
        """Plans and enqueues; returns (plan, the workspace, which must live until the stream is
        done).
        """
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
    fail(
        out.intact() and workspace.intact() and (at is None or at.intact()),
        f"{describe}: wrote past a buffer",
    )
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
    """Relative to the sum of |q| |d|. f32 accumulation loses about dim * 2^-24 and the tensor
    cores' truncation.
    """
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
            bool((index[q.lengths[i] :] == -1).all()),
            f"{describe}: argmax[{row}, {column}] past the query's end",
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
    plan, workspace = device.launch(
        "grad", grad_problem(op, grad_scores, *(g.ptr() for g in out), accumulate)
    )
    torch.cuda.synchronize()
    intact = out[0].intact() and out[1].intact() and workspace.intact()
    fail(intact, f"gradient [{plan.variant.decode()}]: wrote past a buffer")
    return [
        g.data.view(x.count, x.len_max, x.dim).clone() for g, x in zip(out, (q, d))
    ], plan.variant.decode()
