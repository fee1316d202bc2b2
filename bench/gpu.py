#!/usr/bin/env python3
"""The CUDA table: this library, upstream late-interaction-kernels and flash-maxsim on one GPU,
interleaved in one run.

    python3 bench/gpu.py --lib build/cuda/liblik.so [--only NAME ..] [--peers all|none|NAME ..]
                         [--rounds 7] [--budget 60] [--seconds 500] [--package DIR]
                         [--out FILE.json | --merge FILE.json]

NAME is a case's name, or a part of some. The peers come from PYTHONPATH. Upstream tunes itself
at the first call of a query length (and type), flash-maxsim too, then both compile for a new
shape: a peer whose first call of a case takes longer than --budget seconds is left out of that
case, with a note; what it compiled stays in Triton's cache. FILE is written after every case.
--merge keeps the cases of FILE that this run does not measure, so that a table may take several
calls; the same happens by itself when a runner leaves the device unusable, without that runner
in that case.

Every answer is checked against f32 products first, and the peers' gradients against ours.
"kernel" is GPU time of one call, from replays of a CUDA graph of many calls over rotating
inputs that together exceed the L2 cache; "host" is the time to enqueue one call eagerly, for
ours through ctypes, and with --package (the folder where the Python package is installed)
through that as well. "limit" is the larger of bytes / the best read bandwidth and flops / the
rate of torch's 4096^3 bf16 product, both measured in this run. "peak" is what a call takes
beyond its inputs: results, saved argmax, gradients and workspace."""

import argparse
import contextlib
import ctypes
import gc
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
import liblik as lik
from gpu_cases import CASES, Inputs, limit_of, work_of

# Upstream looks at the norms of the queries in every call unless told not to, and the host
# waits for them.
os.environ.setdefault("LIK_SUPPRESS_NORM_WARN", "1")
os.environ.setdefault("LIK_BENCH_START", str(time.time()))


CODES = {torch.float32: lik.F32, torch.float16: lik.F16, torch.bfloat16: lik.BF16}
CODES |= {torch.float8_e4m3fn: lik.E4M3, torch.float8_e5m2: lik.E5M2, torch.int8: lik.I8}


class Ours:
    name = "ours"

    def __init__(self, library, inputs):
        self.library, case = library, inputs.case
        self.inputs, self.case, self.note = inputs, case, ""
        columns = case.candidates or case.nd
        op = lik.Score(
            struct_size=ctypes.sizeof(lik.Score),
            pairing=lik.CANDIDATES if case.candidates else lik.ALL,
            per_query=case.candidates,
            precision=case.precision,
        )
        op.q = self.tokens(inputs.q, case, inputs.q_scale)
        if case.table:
            op.q, op.d = self.looked_up(inputs, case)
        elif case.bits:
            op.d = self.compressed(inputs, case)
        else:
            op.d = self.tokens(inputs.d, case, inputs.d_scale)
        if case.listed:
            op.pairing, op.list_count, columns = lik.LIST, case.listed, case.listed
            op.list_q, op.list_d = inputs.list_q.data_ptr(), inputs.list_d.data_ptr()
        if case.masked:
            op.d.mask, op.d.mask_strides = inputs.mask.data_ptr(), lik.Strides(0, case.ld, 1)
        if case.packed:
            op.d.offsets, op.d.offsets_dtype = inputs.offsets.data_ptr(), lik.I64
            op.d.count, op.d.len_max, op.d.total = case.nd, inputs.longest, inputs.total
        self.how = lik.Exec(struct_size=ctypes.sizeof(lik.Exec))
        self.calls, self.keep = [], []
        if case.topk:
            self.values = torch.empty(case.nq, case.topk, device="cuda")
            self.ids = torch.empty(case.nq, case.topk, dtype=torch.int64, device="cuda")
            top = lik.TopK(
                struct_size=ctypes.sizeof(lik.TopK),
                score=op,
                k=case.topk,
                values=self.values.data_ptr(),
                ids=self.ids.data_ptr(),
            )
            self.add("topk", top)
            return
        self.scores = torch.empty(case.nq, columns, device="cuda")
        op.scores = self.scores.data_ptr()
        if case.argmax or case.train:
            self.argmax = torch.empty(case.nq, columns, case.lq, dtype=torch.int16, device="cuda")
            op.argmax, op.argmax_dtype = self.argmax.data_ptr(), lik.I16
        self.add("score", op)
        if case.train:
            self.grad_q, self.grad_d = torch.empty_like(inputs.q), torch.empty_like(inputs.d)
            if case.gradient_alone:
                self()
                self.calls.clear()
            self.add(
                "grad",
                lik.Grad(
                    struct_size=ctypes.sizeof(lik.Grad),
                    score=op,
                    grad_scores=inputs.grad.data_ptr(),
                    grad_q=self.grad_q.data_ptr(),
                    grad_d=None if case.bits else self.grad_d.data_ptr(),
                ),
            )

    @staticmethod
    def tokens(x, case, scale=None):
        t = lik.Tokens(
            struct_size=ctypes.sizeof(lik.Tokens),
            dtype=CODES[case.dtype if case.bits else x.dtype],
            dim=case.dim,
            data=x.data_ptr(),
            dim_stride=1,
            normalize=int(case.normalize),
        )
        if x.dim() == 3:
            t.count, t.len_max = x.shape[0], x.shape[1]
        t.strides = lik.Strides(0, x.shape[-2] * case.dim, case.dim)
        if scale is not None:
            t.scale = scale.data_ptr()
            t.scale_strides = lik.Strides(0, x.shape[-2], 1) if scale.dim() else lik.Strides(0, 0, 0)
        return t

    def compressed(self, x, case):
        t = self.tokens(x.d, case)
        t.storage, t.codes, t.codes_dtype = lik.RESIDUAL, x.codes.data_ptr(), lik.I32
        t.strides = lik.Strides(0, case.ld * x.d.shape[-1], x.d.shape[-1])
        t.codes_strides = lik.Strides(0, case.ld, 1)
        if x.norms is not None:
            t.scale, t.scale_strides = x.norms.data_ptr(), lik.Strides(0, case.ld, 1)
        self.codec = lik.Codec(
            struct_size=ctypes.sizeof(lik.Codec),
            bits=case.bits,
            centroids=x.centroids.data_ptr(),
            centroid_count=len(x.centroids),
            centroids_dtype=CODES[case.dtype],
            weights_dtype=CODES[case.dtype],
            weights=x.weights.data_ptr(),
        )
        t.codec = ctypes.addressof(self.codec)
        return t

    @staticmethod
    def looked_up(x, case):
        q, d = (lik.Tokens(struct_size=ctypes.sizeof(lik.Tokens), dtype=lik.F32, dim=case.dim) for _ in "qd")
        by_element = case.table == "[C, Lq]"
        q.count, q.len_max, q.data = case.nq, case.lq, x.q.data_ptr()
        q.dim_stride = case.lq if by_element else 1
        q.strides = lik.Strides(0, case.lq * case.dim, 1 if by_element else case.dim)
        d.storage, d.count, d.len_max = lik.ONE_HOT, case.nd, case.ld
        d.codes, d.codes_dtype, d.codes_strides = x.d.data_ptr(), lik.I32, lik.Strides(0, case.ld, 1)
        return q, d

    def add(self, kind, op):
        plan = lik.Plan(struct_size=ctypes.sizeof(lik.Plan))
        c = self.library.c
        self.library.check(
            getattr(c, f"lik_{kind}_plan")(self.library.context, ctypes.byref(op), None, ctypes.byref(plan))
        )
        workspace = torch.empty(plan.workspace_bytes, dtype=torch.uint8, device="cuda")
        self.keep.append(workspace)
        how = lik.Exec(
            struct_size=ctypes.sizeof(lik.Exec),
            workspace=workspace.data_ptr(),
            workspace_bytes=plan.workspace_bytes,
        )
        self.calls.append((getattr(c, f"lik_{kind}_run"), ctypes.byref(op), how, ctypes.byref(how), op))
        self.variant = plan.variant.decode()

    def grads(self):
        return self.grad_q, self.grad_d

    def peak_bytes(self):
        """All that is not an input; it was allocated before."""
        own = [x for x in vars(self).values() if isinstance(x, torch.Tensor)]
        return sum(x.numel() * x.element_size() for x in (*own, *self.keep))

    def __call__(self):
        stream = torch.cuda.current_stream().cuda_stream
        for run, op, how, how_ref, _ in self.calls:
            how.stream = stream
            status = run(self.library.context, op, how_ref)
            if status:
                self.library.check(status)
        return (self.values, self.ids) if self.case.topk else self.scores


class Peer:
    """What the peers have in common; training keeps its gradients as torch does."""

    note = variant = ""

    def __init__(self, inputs):
        self.inputs, self.case = inputs, inputs.case
        if self.case.bits or self.case.table:
            raise NotImplementedError
        if self.case.train:
            self.q, self.d = inputs.q.clone().requires_grad_(), inputs.d.clone().requires_grad_()

    def documents(self):
        case = self.case
        return self.d.view(case.nq, case.candidates, case.ld, case.dim) if case.candidates else self.d

    def grads(self):
        return self.q.grad, self.d.grad

    def forget(self):
        if self.case.train:
            self.q.grad = self.d.grad = None

    def __call__(self):
        if self.case.train:
            self.forget()
            scores = self.train()
            scores.backward(self.inputs.grad)
            return scores
        with torch.no_grad():
            return self.score()

    def peak_bytes(self):
        self.forget()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before


class Upstream(Peer):
    name = "upstream"

    def __init__(self, inputs):
        import late_interaction_kernels as up
        from late_interaction_kernels.forward import maxsim_forward

        super().__init__(inputs)
        case, self.up, self.forward = self.case, up, maxsim_forward
        if case.scaled:
            from late_interaction_kernels.fp8 import maxsim_inference_fp8

            self.fp8 = maxsim_inference_fp8
            if case.packed or case.q_dtype or case.dtype == torch.int8:
                raise NotImplementedError
        if case.dtype == torch.float32:
            self.note = "f16 products"
        if case.packed:
            self.cu_q = torch.arange(case.nq + 1, dtype=torch.int32, device="cuda") * case.lq
            self.cu_d = inputs.offsets.int()

    def train(self):
        return self.up.maxsim(self.q, self.documents(), d_mask=self.inputs.mask)

    def score(self):
        case, up, x = self.case, self.up, self.inputs
        if case.scaled:
            return self.fp8(x.q, x.d, scale_Q=x.q_scale, scale_D=x.d_scale, d_mask=x.mask)
        if case.topk:
            return up.retrieve(x.q, x.d, top_k=case.topk, normalize=False)
        if case.packed:
            return up.maxsim_varlen(x.q.view(-1, case.dim), x.d, self.cu_q, self.cu_d, case.lq, x.longest)
        if case.argmax:
            return self.forward(x.q, x.d, save_argmax=True)[0]
        return up.maxsim(x.q, x.d, d_mask=x.mask, normalize=case.normalize)


class Flash(Peer):
    name = "flash-maxsim"

    def __init__(self, inputs):
        import flash_maxsim as flash

        case = inputs.case
        if (
            case.topk
            or case.normalize
            or case.argmax
            or case.masked
            or case.scaled
            or (case.packed and case.nq > 1)
        ):
            raise NotImplementedError  # top-k is approximate, the others are not there
        if case.train and case.lq > 256:
            raise RuntimeError(
                "its loop over query tokens is unrolled: 16 configurations, 10 to 40 s each to compile"
            )
        super().__init__(inputs)
        self.flash = flash
        if case.dtype == torch.float32:
            self.note = "TF32 products"
        if case.packed:
            self.note = "copies the documents to f16"
            self.cu_d = inputs.offsets.int()

    def train(self):
        return self.flash.flash_maxsim_batched_train(
            self.q, self.documents(), shared_docs=not self.case.candidates
        )

    def score(self):
        x, flash = self.inputs, self.flash
        if self.case.packed:
            return flash.flash_maxsim_packed(x.q[0], x.d, self.cu_d, x.longest)[None]
        if self.case.nq == 1:
            return flash.flash_maxsim(x.q[0], x.d)[None]
        return flash.flash_maxsim_batched(x.q, x.d)


def graph_of(calls, repeats):
    """A graph of `repeats` calls, one after another over the sets."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for i in range(repeats):
            calls[i % len(calls)]()
    return graph


def timed(graph, repeats):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / repeats


def event_time(calls, repeats):
    """Without a graph, for what cannot be captured."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for i in range(repeats):
        calls[i % len(calls)]()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / repeats


def host_time(call, calls=20):
    """Milliseconds of the host to enqueue one of `calls` calls in a row; the median of some
    rows of them.
    """
    times = []
    for _ in range(7):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) * 1e3 / calls)
    return statistics.median(times)


class Nothing(torch.autograd.Function):
    """Results that are allocated and no more: what torch takes for any step of training."""

    @staticmethod
    def forward(ctx, q, d, shape):
        ctx.save_for_backward(q, d)
        return torch.empty(shape, device=q.device)

    @staticmethod
    def backward(ctx, grad):
        return *(torch.empty_like(x) for x in ctx.saved_tensors), None


def package_host(case, package):
    """Of a case's call through the Python package: milliseconds to enqueue it, the bytes it
    allocates at most, and milliseconds of the same step with Nothing in its place (None if
    nothing is trained)."""
    torch.set_float32_matmul_precision(("highest", "high", "medium")[case.precision])
    x = Inputs(case, 1)
    q, d = x.q.requires_grad_(case.train), x.d.requires_grad_(case.train)
    documents = d.view(case.nq, case.candidates, case.ld, case.dim) if case.candidates else d
    offsets = torch.arange(case.nq + 1, device="cuda") * case.lq if case.packed else None

    def call():
        if case.topk:
            return package.retrieve(q, documents, top_k=case.topk, normalize=False)
        if case.packed:
            return package.maxsim_varlen(
                q.view(-1, case.dim), documents, offsets, x.offsets, case.lq, x.longest
            )
        scores = package.maxsim(q, documents, d_mask=x.mask, normalize=case.normalize)
        if case.train:
            backward(scores)
        return scores

    def backward(scores):
        q.grad = x.d.grad = None
        scores.backward(x.grad)

    call()
    torch.cuda.synchronize()
    q.grad = x.d.grad = None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    nothing = host_time(lambda: backward(Nothing.apply(q, documents, x.grad.shape))) if case.train else None
    return host_time(call), peak, nothing


def package_hosts(names):
    """package_host of each case, one line of JSON each; in a process of its own, for the
    package and upstream have one import name."""
    import late_interaction_kernels as package

    for case in CASES:
        if case.name in names:
            with reported(f"{case.name}: the package"):
                print(json.dumps([case.name, *package_host(case, package)]), flush=True)
            torch.cuda.empty_cache()


def ask_package(folder, rows, seconds):
    """package_hosts of another process, into the rows."""
    command = [sys.executable, __file__, "--lib", "", "--package-hosts", *(row["case"] for row in rows)]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": folder},
            stdout=subprocess.PIPE,
            text=True,
            timeout=seconds,
        )
        lines = done.stdout.splitlines()
    except subprocess.TimeoutExpired as slow:
        print(f"the package's host times took longer than {seconds:.0f} s", flush=True)
        text = slow.stdout or b""
        lines = (text if isinstance(text, str) else text.decode()).splitlines()
    for line in lines:
        if not (line.startswith("[") and line.endswith("]")):
            print(line, flush=True)
            continue
        name, milliseconds, peak, nothing = json.loads(line)
        row = next(row for row in rows if row["case"] == name)
        row |= {"python_host_ms": milliseconds, "python_peak_bytes": peak}
        text = f"{name:24s} a call from Python: host {milliseconds:.4f} ms, peak {peak / 1e6:.1f} MB"
        if nothing:
            row["nothing_host_ms"] = nothing
            text += f"; autograd alone {nothing:.4f} ms"
        print(text, flush=True)


@contextlib.contextmanager
def reported(what):
    """An error is told, and not more."""
    try:
        yield
    except Exception as problem:
        print(f"{what}: {type(problem).__name__}: {str(problem)[:200]}", flush=True)


def ceilings():
    """(bytes a ms read, flops a ms of a bf16 product)."""
    x = torch.empty(1 << 30, dtype=torch.float32, device="cuda").normal_()
    out = torch.empty((), device="cuda")
    a, b = (torch.randn(4096, 4096, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    read, rate = [], []
    for _ in range(8):
        read.append(event_time([lambda: torch.sum(x, 0, out=out)], 3))
        rate.append(event_time([lambda: a @ b], 50))
    return x.numel() * 4 / min(read), 2 * 4096**3 / statistics.median(rate)


def check(case, inputs, result):
    queries = sorted({0, case.nq // 2, case.nq - 1})
    if case.topk:
        values, ids = result
        want = inputs.expected([0], ids[0, :5].tolist())[0]
        return float((values[0, :5] - want).abs().max()) / case.lq
    if case.listed:
        chosen = [0, case.listed // 3, case.listed - 1]
        want = inputs.expected([0], inputs.list_d[chosen].tolist())
        return float((result[:, chosen] - want).abs().max()) / case.lq
    if case.candidates:
        documents = [0, case.candidates - 1]
        want = torch.stack(
            [inputs.expected([i], [i * case.candidates + j for j in documents])[0] for i in queries]
        )
    else:
        documents = sorted({0, case.nd // 3, case.nd - 1})
        want = inputs.expected(queries, documents)
    got = result.detach()[queries][:, documents].float()
    return float((got - want).abs().max()) / case.lq


class OverBudget(BaseException):
    """Not an Exception: compilers catch those."""


@contextlib.contextmanager
def budget(seconds, stuck):
    """Ends what takes longer, as soon as Python runs again in this thread; if it does not for
    long, calls `stuck`.
    """

    def stop(*_):
        raise OverBudget

    before = signal.signal(signal.SIGALRM, stop)
    timer = threading.Timer(2 * seconds + 30, stuck)
    timer.daemon = True
    timer.start()
    signal.setitimer(signal.ITIMER_REAL, seconds, 5)  # again if the first is lost in a destructor
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        timer.cancel()


def restart(args, case, name):
    """This program anew from `case` on, without that runner in it: it left the device unusable,
    or does not return.
    """
    if not args.file:
        print("no --out, so that nothing can be kept: the end", flush=True)
        os._exit(1)
    print(f"  starts anew at {case.name} without {name}", flush=True)
    signal.setitimer(signal.ITIMER_REAL, 0)  # it would outlive this program
    more = ["--merge", args.file, "--start", case.name, "--without", f"{case.name}:{name}"]
    os.execv(sys.executable, [sys.executable, *sys.argv, *more])


def apart(grads, others):
    """The distance of two gradients over their length, the larger of the two operands'. Near
    ties of a maximum fall either way, so that single rows may differ."""
    pairs = [(a.float(), b.float()) for a, b in zip(grads, others)]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def prepare(make, name, sets, limit, ours, args):
    """A runner that answers rightly, warm: (record, calls, their graph or None, calls in a
    graph).
    """
    case, start = sets[0].case, time.perf_counter()
    bound = (
        budget(args.budget, lambda: restart(args, case, name)) if name != "ours" else contextlib.nullcontext()
    )
    with bound:
        calls = [make(x) for x in sets]
        error = check(case, sets[0], calls[0]())
        torch.cuda.synchronize()
    record = {"error": error, "kernel_ms": [], "variant": calls[0].variant, "note": calls[0].note}
    record["first_call_s"] = time.perf_counter() - start
    if not error < 2e-3:
        raise ValueError(f"wrong by {error:.2e} a query token")
    if case.train and ours:
        record["grads_apart"] = apart(calls[0].grads(), ours.grads())
        if not record["grads_apart"] < (0.05 if case.dtype == torch.float32 else 0.03):  # the peers round f32
            raise ValueError(f"gradients {record['grads_apart']:.2e} from ours")
    record["peak_bytes"] = calls[0].peak_bytes()
    repeats = max(2, min(64, int(4 / max(limit, 0.01))))
    graph = None
    try:
        graph = graph_of(calls, repeats)
    except Exception as problem:  # what cannot be captured is timed eagerly
        if name == "ours":
            raise
        torch.cuda.synchronize()
        record["uncaptured"] = str(problem)[:80]
    record["host_ms"] = host_time(calls[0])
    return record, calls, graph, repeats


def measure(case, makers, args, bandwidth, rate):
    start = time.perf_counter()
    first = Inputs(case, 1)
    sets = [first] + [Inputs(case, 2 + i) for i in range(min(7, int(2.5e8 // first.bytes())))]
    limit = limit_of(first, bandwidth, rate)
    row = {
        "case": case.name,
        "limit_ms": limit,
        "sets": len(sets),
        "runners": {},
        "left_out": {},
        **work_of(first),
    }
    row["target_ms"] = case.target_ms or case.target_x * limit
    row["target_vs_upstream"] = case.target_vs_upstream
    runners = {}

    def leave_out(name, why):
        runners.pop(name, None)
        row["runners"].pop(name, None)
        row["left_out"][name] = why
        print(f"  {case.name}: {name}: {why}", flush=True)
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            restart(args, case, name)

    for name, make in makers.items():
        if f"{case.name}:{name}" in args.without:
            row["left_out"][name] = "left the device unusable, or did not return"
            continue
        try:
            ours = runners["ours"][1][0] if "ours" in runners else None
            runners[name] = prepare(make, name, sets, limit, ours, args)
            row["runners"][name] = runners[name][0]
        except NotImplementedError:
            continue
        except OverBudget:
            leave_out(name, f"the first call took longer than {args.budget:.0f} s")
        except Exception as problem:
            leave_out(name, f"{type(problem).__name__}: {str(problem)[:160]}")
    for name in list(runners) * args.rounds:
        if name in runners:
            record, calls, graph, repeats = runners[name]
            try:
                record["kernel_ms"].append(
                    timed(graph, repeats) if graph else event_time(calls, min(repeats, 8))
                )
            except RuntimeError as problem:
                leave_out(name, str(problem)[:160])
    text = f"{case.name:24s} limit {limit:8.4f}"
    for name, (record, *_) in runners.items():
        record["median_ms"] = statistics.median(record["kernel_ms"])
        text += f" | {name} {record['median_ms']:8.4f} host {record['host_ms']:.3f}"
        if name == "ours":
            text += f" ({record['median_ms'] / limit:5.2f} x) {record['variant']} err {record['error']:.1e}"
        else:
            text += f" first {record['first_call_s']:.1f} s{' eager' if 'uncaptured' in record else ''}"
    row["seconds"] = time.perf_counter() - start
    print(f"{text} | {row['seconds']:.1f} s", flush=True)
    return row


def chosen(case, names):
    """Is it one of the names, or, where a name is nobody's, does it contain one?"""
    exact = {case.name for case in CASES}
    return any(name == case.name or (name not in exact and name in case.name) for name in names)


def split(words):
    return [name for word in words for name in word.split(",") if name]


def write(result, rows, path):
    """Rows in the order of the cases, whole or not at all."""
    if not path:
        return
    order = {case.name: i for i, case in enumerate(CASES)}
    result["rows"] = sorted(rows.values(), key=lambda row: order.get(row["case"], len(order)))
    beside = Path(f"{path}.new")
    beside.write_text(json.dumps(result, indent=1))
    beside.replace(path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lib", required=True)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="cases, or parts of their names"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--peers", nargs="+", default=["all"], help="cases that the peers run too, or all, or none"
    )
    parser.add_argument("--budget", type=float, default=60, help="seconds of a peer's first call of a case")
    parser.add_argument("--seconds", type=float, default=1e9, help="no case is begun after these")
    parser.add_argument("--package", help="folder where the Python package is installed")
    parser.add_argument("--package-hosts", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--out", help="a new file of results")
    parser.add_argument(
        "--merge", metavar="FILE", help="the file of results, which keeps what is not measured now"
    )
    parser.add_argument("--start", default=CASES[0].name, metavar="NAME", help="the case to begin with")
    parser.add_argument("--without", action="append", default=[], metavar="CASE:RUNNER", help="not this one")
    args = parser.parse_args()
    if args.package_hosts:
        package_hosts(args.package_hosts)
        return
    args.file, only, peers = args.merge or args.out, split(args.only), split(args.peers)
    library = lik.Library(args.lib, "cuda:0")
    bandwidth, rate = ceilings()
    gpu = torch.cuda.get_device_name()
    print(f"{gpu}: reads {bandwidth / 1e9:.2f} TB/s, torch 4096^3 bf16 {rate / 1e9:.0f} TFLOP/s", flush=True)
    result, rows = {}, {}
    if args.merge and Path(args.merge).exists():
        result = json.loads(Path(args.merge).read_text())
        rows = {row["case"]: {"gpu": result["gpu"], **row} for row in result.get("rows", [])}
    result |= {
        "gpu": gpu,
        "torch": torch.__version__,
        "lik": library.build_info(),
        "date": time.strftime("%Y-%m-%d"),
        "read_TB_s": bandwidth / 1e9,
        "bf16_TFLOP_s": rate / 1e9,
    }
    start, begun = float(os.environ["LIK_BENCH_START"]), False
    for case in CASES:
        begun = begun or case.name == args.start
        if not begun or (only and not chosen(case, only)):
            continue
        if time.time() - start > args.seconds:
            print("out of time before", case.name)
            break
        makers = {"ours": lambda x: Ours(library, x)}
        if peers == ["all"] or chosen(case, peers):
            makers |= {"upstream": Upstream, "flash-maxsim": Flash}
        with reported(case.name):
            rows[case.name] = {"gpu": gpu, **measure(case, makers, args, bandwidth, rate)}
        gc.collect()
        torch.cuda.empty_cache()
        write(result, rows, args.file)
    if args.package:
        asked = [row for row in rows.values() if row["gpu"] == gpu and "python_host_ms" not in row]
        ask_package(args.package, asked, 180)
        write(result, rows, args.file)


if __name__ == "__main__":
    main()
