#!/usr/bin/env python3
"""The CUDA table: this library, upstream late-interaction-kernels and flash-maxsim on one GPU, interleaved in one run.

    python3 bench/gpu.py --lib build/cuda/liblik.so [--only text,train] [--rounds 7] [--peers none] [--package DIR]
                         [--out FILE.json]

Every answer is checked against f32 products first. "kernel" is GPU time of one call, from replays of a CUDA graph of
many calls over rotating inputs that together exceed the L2 cache; "host" is the time to enqueue one call eagerly, for
ours through ctypes, and with --package (the folder where the Python package is installed) through that as well. "limit"
is the larger of bytes / the best read bandwidth and flops / the rate of torch's 4096^3 bf16 product, both measured in
this run. "peak" is what a call allocates beyond its inputs."""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
import liblik as lik


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
    normalize: bool = False
    topk: int = 0
    argmax: bool = False
    train: bool = False
    candidates: int = 0  # documents a query; nd is nq times that
    target_x: float = 0  # at most so many times the limit
    target_ms: float = 0


CASES = [
    Case("text-short", 1, 1000, 32, 300, target_x=1.2),
    Case("text-long", 1, 1000, 32, 1024, target_x=1.05),
    Case("colpali", 1, 1000, 128, 1024, target_x=1.08),
    Case("corpus-10k", 1, 10000, 32, 300, target_x=1.03),
    Case("large-d-1024", 1, 500, 32, 300, 1024, target_x=1.08),
    Case("edge-d48-big", 1, 4000, 32, 2048, 48, target_x=1.03),
    Case("colpali-in-batch", 128, 128, 32, 1030, target_ms=0.175),
    Case("train-batch", 32, 32, 32, 300, target_ms=0.009),
    Case("train-batch-128", 128, 128, 32, 300, target_ms=0.058),
    Case("train-batch-256", 256, 256, 32, 300),
    Case("train-batch-256-argmax", 256, 256, 32, 300, argmax=True),
    Case("short-docs", 512, 512, 32, 180),
    Case("long-queries-768", 64, 64, 768, 512, target_ms=0.56),
    Case("long-queries-1024", 32, 32, 1024, 1024, target_ms=0.375),
    Case("long-queries-768-argmax", 64, 64, 768, 512, argmax=True),
    Case("packed-64", 64, 64, 32, 312, packed=True, target_ms=0.030),
    Case("packed-10k", 1, 10000, 32, 300, packed=True, target_x=1.08),
    Case("normalize-10k", 1, 10000, 32, 300, normalize=True, target_x=1.05),
    Case("topk-100k", 8, 100000, 32, 128, topk=100, target_ms=1.6),
    Case("f16-train-128", 128, 128, 32, 300, dtype=torch.float16),
    Case("f32-corpus", 1, 2000, 32, 300, dtype=torch.float32),
    Case("f32-train-128", 128, 128, 32, 300, dtype=torch.float32),
    Case("train-step-256", 256, 256, 32, 300, train=True, target_ms=0.75),
    Case("train-step-colpali", 128, 128, 32, 1030, train=True, target_ms=0.45),
    Case("train-step-1030", 64, 64, 1030, 1030, train=True, target_ms=3.0),
    Case("train-step-8192", 32, 32, 128, 8192, train=True, target_ms=0.55),
    Case("train-candidates", 256, 4096, 32, 1030, train=True, candidates=16, target_ms=0.85),
]
CODES = {torch.float32: lik.F32, torch.float16: lik.F16, torch.bfloat16: lik.BF16}


class Inputs:
    """One set of operands of a case; sets differ in their data alone."""

    def __init__(self, case, seed):
        g = torch.Generator(device="cuda").manual_seed(seed)
        self.case = case
        self.q = self.unit(g, (case.nq, case.lq, case.dim))
        if case.packed:
            lengths = torch.randint(20, 2 * case.ld - 19, (case.nd,), generator=g, device="cuda")
            self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64, device="cuda"), lengths.cumsum(0)])
            self.longest, self.total = int(lengths.max()), int(self.offsets[-1])
            self.d = self.unit(g, (self.total, case.dim))
        else:
            self.longest, self.total = case.ld, case.nd * case.ld
            self.d = self.unit(g, (case.nd, case.ld, case.dim))
        columns = case.candidates or case.nd
        self.grad = torch.randn(case.nq, columns, generator=g, device="cuda")

    def unit(self, g, shape):
        out = torch.empty(shape, dtype=self.case.dtype, device="cuda")
        for rows in out.view(-1, shape[-1]).split(1 << 20):
            x = torch.randn(rows.shape, generator=g, device="cuda")
            rows.copy_(x / x.norm(dim=-1, keepdim=True) * (3.0 if self.case.normalize else 1.0))
        return out

    def bytes(self):
        return (self.q.numel() + self.d.numel()) * self.q.element_size()

    def document(self, j):
        return self.d[self.offsets[j] : self.offsets[j + 1]] if self.case.packed else self.d[j]

    def expected(self, queries, documents):
        """Scores in f32 products (TF32 off) of some queries and documents."""
        out = torch.empty(len(queries), len(documents), device="cuda")
        for b, j in enumerate(documents):
            d = self.document(j).float()
            for a, i in enumerate(queries):
                q = self.q[i].float()
                if self.case.normalize:
                    q, d = torch.nn.functional.normalize(q, dim=-1), torch.nn.functional.normalize(d, dim=-1)
                out[a, b] = (q @ d.T).amax(1).sum()
        return out


class Ours:
    name = "ours"

    def __init__(self, library, inputs):
        self.library, case = library, inputs.case
        self.inputs, self.case = inputs, case
        columns = case.candidates or case.nd
        op = lik.Score(
            struct_size=ctypes.sizeof(lik.Score),
            pairing=lik.CANDIDATES if case.candidates else lik.ALL,
            per_query=case.candidates,
        )
        op.q = self.tokens(inputs.q, case)
        op.d = self.tokens(inputs.d, case)
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
            self.add(
                "grad",
                lik.Grad(
                    struct_size=ctypes.sizeof(lik.Grad),
                    score=op,
                    grad_scores=inputs.grad.data_ptr(),
                    grad_q=self.grad_q.data_ptr(),
                    grad_d=self.grad_d.data_ptr(),
                ),
            )

    @staticmethod
    def tokens(x, case):
        t = lik.Tokens(
            struct_size=ctypes.sizeof(lik.Tokens),
            dtype=CODES[case.dtype],
            dim=case.dim,
            data=x.data_ptr(),
            dim_stride=1,
            normalize=int(case.normalize),
        )
        if x.dim() == 3:
            t.count, t.len_max = x.shape[0], x.shape[1]
        t.strides = lik.Strides(0, x.shape[-2] * case.dim, case.dim)
        return t

    def add(self, kind, op):
        plan = lik.Plan(struct_size=ctypes.sizeof(lik.Plan))
        c = self.library.c
        self.library.check(
            getattr(c, f"lik_{kind}_plan")(self.library.context, ctypes.byref(op), None, ctypes.byref(plan))
        )
        workspace = torch.empty(plan.workspace_bytes, dtype=torch.uint8, device="cuda")
        self.keep.append(workspace)
        how = lik.Exec(
            struct_size=ctypes.sizeof(lik.Exec), workspace=workspace.data_ptr(), workspace_bytes=plan.workspace_bytes
        )
        self.calls.append((getattr(c, f"lik_{kind}_run"), ctypes.byref(op), how, ctypes.byref(how), op))
        self.variant = plan.variant.decode()

    def __call__(self):
        stream = torch.cuda.current_stream().cuda_stream
        for run, op, how, how_ref, _ in self.calls:
            how.stream = stream
            status = run(self.library.context, op, how_ref)
            if status:
                self.library.check(status)
        return (self.values, self.ids) if self.case.topk else self.scores


class Upstream:
    name = "upstream"

    def __init__(self, inputs):
        import late_interaction_kernels as up

        case, self.inputs, self.case, self.up = inputs.case, inputs, inputs.case, up
        if case.packed:
            self.cu_q = torch.arange(case.nq + 1, dtype=torch.int32, device="cuda") * case.lq
            self.cu_d = inputs.offsets.int()
            self.q = inputs.q.view(-1, case.dim)
        if case.train:
            self.q = inputs.q.clone().requires_grad_()
            self.d = inputs.d.clone().requires_grad_()

    def __call__(self):
        case, up, x = self.case, self.up, self.inputs
        if case.topk:
            return up.retrieve(x.q, x.d, top_k=case.topk, normalize=False)
        if case.packed:
            return up.maxsim_varlen(self.q, x.d, self.cu_q, self.cu_d, case.lq, x.longest)
        if case.train:
            d = self.d.view(case.nq, case.candidates, case.ld, case.dim) if case.candidates else self.d
            scores = up.maxsim(self.q, d)
            self.q.grad = self.d.grad = None
            scores.backward(x.grad)
            return scores
        with torch.no_grad():
            return up.maxsim(x.q, x.d, normalize=case.normalize)


class Flash:
    name = "flash-maxsim"

    def __init__(self, inputs):
        import flash_maxsim as flash

        case = inputs.case
        if case.packed or case.topk or case.normalize or case.candidates or case.argmax:
            raise NotImplementedError
        self.inputs, self.case = inputs, case
        if case.train:
            from flash_maxsim.flash_maxsim_batched_train import flash_maxsim_batched_train as train

            self.q, self.d, self.train = inputs.q.clone().requires_grad_(), inputs.d.clone().requires_grad_(), train
        elif case.nq == 1:
            q = inputs.q[0]
            self.call = lambda: flash.flash_maxsim(q, inputs.d)[None]
        else:
            self.call = lambda: flash.flash_maxsim_batched(inputs.q, inputs.d)

    def __call__(self):
        if self.case.train:
            scores = self.train(self.q, self.d)
            self.q.grad = self.d.grad = None
            scores.backward(self.inputs.grad)
            return scores
        with torch.no_grad():
            return self.call()


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
    """Milliseconds of the host to enqueue one of `calls` calls in a row; the median of some rows of them."""
    times = []
    for _ in range(7):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) * 1e3 / calls)
    return statistics.median(times)


def package_hosts(names):
    """Milliseconds to enqueue each case's call through the Python package, and the bytes it allocates at most; in a
    process of its own, for the package and upstream have one import name."""
    import late_interaction_kernels as package

    times = {}
    for case in CASES:
        if case.name not in names:
            continue
        x = Inputs(case, 1)
        q, d = x.q.requires_grad_(case.train), x.d.requires_grad_(case.train)
        documents = d.view(case.nq, case.candidates, case.ld, case.dim) if case.candidates else d
        offsets = torch.arange(case.nq + 1, device="cuda") * case.lq if case.packed else None

        def call(case=case, x=x, q=q, documents=documents, offsets=offsets):
            if case.topk:
                return package.retrieve(q, documents, top_k=case.topk, normalize=False)
            if case.packed:
                tokens = q.view(-1, case.dim)
                return package.maxsim_varlen(tokens, documents, offsets, x.offsets, case.lq, x.longest)
            scores = package.maxsim(q, documents, normalize=case.normalize)
            if case.train:
                q.grad = x.d.grad = None
                scores.backward(x.grad)
            return scores

        call()
        torch.cuda.synchronize()
        q.grad = x.d.grad = None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        times[case.name] = host_time(call), torch.cuda.max_memory_allocated() - before
    return times


def ask_package(folder, rows):
    """package_hosts of another process, into the rows."""
    names = ",".join(row["case"] for row in rows)
    command = [sys.executable, __file__, "--lib", "", "--package-hosts", names]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True)
    if done.returncode:
        print(f"the package's host times failed: {done.stderr[-800:]}", flush=True)
        return
    for name, (milliseconds, peak) in json.loads(done.stdout.splitlines()[-1]).items():
        row = next(row for row in rows if row["case"] == name)
        row["python_host_ms"], row["python_peak_bytes"] = milliseconds, peak
        print(f"{name:24s} a call from Python: host {milliseconds:.4f} ms, peak {peak / 1e6:.1f} MB", flush=True)


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


def limit_of(inputs, bandwidth, rate):
    case = inputs.case
    pairs_tokens = case.nq * case.lq * (case.candidates * case.ld if case.candidates else inputs.total)
    flops = 2.0 * pairs_tokens * case.dim * (2 if case.dtype == torch.float32 else 1)
    times = inputs.bytes() / bandwidth, flops / rate
    if case.train:  # the forward, then each gradient gathers or scatters one row a query token and document through L2
        documents = case.candidates or case.nd
        gather = 2 * case.nq * case.lq * documents * case.dim * 2 / 5.5e9
        return max(times) + gather + inputs.bytes() / bandwidth
    return max(times)


def work_of(inputs):
    """What a case is, and its operations and bytes, for tables and the roofline."""
    case = inputs.case
    documents = case.candidates or case.nd
    flops = 2.0 * case.nq * case.lq * (documents * case.ld if case.candidates else inputs.total) * case.dim
    dtype = str(case.dtype)[6:]
    length = f"about {case.ld}" if case.packed else case.ld
    shape = f"{case.nq} x {case.lq} against {case.nd} x {length}, d {case.dim}, {dtype}"
    return {"shape": shape, "flops": flops, "bytes": inputs.bytes(), "train": case.train}


def check(case, inputs, result):
    queries = sorted({0, case.nq // 2, case.nq - 1})
    if case.topk:
        values, ids = result
        want = inputs.expected([0], ids[0, :5].tolist())[0]
        return float((values[0, :5] - want).abs().max()) / case.lq
    if case.candidates:
        documents = [0, case.candidates - 1]
        want = torch.stack([inputs.expected([i], [i * case.candidates + j for j in documents])[0] for i in queries])
    else:
        documents = sorted({0, case.nd // 3, case.nd - 1})
        want = inputs.expected(queries, documents)
    got = result.detach()[queries][:, documents].float()
    return float((got - want).abs().max()) / case.lq


def measure(case, library, peers, rounds, bandwidth, rate):
    first = Inputs(case, 1)
    sets = [first] + [Inputs(case, 2 + i) for i in range(min(7, int(2.5e8 // first.bytes())))]
    limit = limit_of(first, bandwidth, rate)
    row = {"case": case.name, "limit_ms": limit, "sets": len(sets), "runners": {}, **work_of(first)}
    row["target_ms"] = case.target_ms or case.target_x * limit
    runners = {}
    for make in [lambda x: Ours(library, x)] + ([Upstream, Flash] if peers else []):
        try:
            calls = [make(x) for x in sets]
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            error = check(case, first, calls[0]())
            torch.cuda.synchronize()
            record = {"error": error, "kernel_ms": [], "variant": getattr(calls[0], "variant", "")}
            if not error < 2e-3:
                raise ValueError(f"wrong by {error:.2e} a query token")
            repeats = max(2, min(64, int(4 / max(limit, 0.01))))
            try:
                graph = graph_of(calls, repeats)
            except Exception as problem:  # what cannot be captured is timed eagerly
                if calls[0].name == "ours":
                    raise
                torch.cuda.synchronize()
                graph, record["uncaptured"] = None, str(problem)[:80]
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            calls[0]()
            torch.cuda.synchronize()
            record["peak_bytes"] = torch.cuda.max_memory_allocated() - before
            record["host_ms"] = host_time(calls[0])
            runners[calls[0].name] = (graph, calls, repeats, record)
            row["runners"][calls[0].name] = record
        except NotImplementedError:
            continue
        except Exception as problem:
            name = getattr(make, "name", "ours")
            print(f"  {case.name}: {name}: {type(problem).__name__}: {str(problem)[:160]}", flush=True)
            torch.cuda.synchronize()
    for _ in range(rounds):
        for graph, calls, repeats, record in runners.values():
            record["kernel_ms"].append(timed(graph, repeats) if graph else event_time(calls, min(repeats, 8)))
    text = f"{case.name:24s} limit {limit:8.4f}"
    for name, (_, _, _, record) in runners.items():
        record["median_ms"] = statistics.median(record["kernel_ms"])
        text += f" | {name} {record['median_ms']:8.4f} host {record['host_ms']:.3f}"
        if name == "ours":
            text += f" ({record['median_ms'] / limit:5.2f} x) {record['variant']} err {record['error']:.1e}"
    print(text, flush=True)
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lib", required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", default="all", help="cases that the peers run too, or all, or none")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--package", help="folder where the Python package is installed")
    parser.add_argument("--package-hosts", help=argparse.SUPPRESS)
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.package_hosts:
        print(json.dumps(package_hosts(args.package_hosts.split(","))))
        return
    library = lik.Library(args.lib, "cuda:0")
    bandwidth, rate = ceilings()
    print(
        f"{torch.cuda.get_device_name()}: reads {bandwidth / 1e9:.2f} TB/s, torch 4096^3 bf16 {rate / 1e9:.0f} TFLOP/s",
        flush=True,
    )
    result = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "lik": library.build_info(),
        "date": time.strftime("%Y-%m-%d"),
        "read_TB_s": bandwidth / 1e9,
        "bf16_TFLOP_s": rate / 1e9,
        "rows": [],
    }
    start = time.time()
    for case in CASES:
        if args.only and not any(part in case.name for part in args.only.split(",")):
            continue
        if time.time() - start > args.seconds:
            print("out of time before", case.name)
            break
        peers = args.peers == "all" or any(part in case.name for part in args.peers.split(","))
        result["rows"].append(measure(case, library, peers, args.rounds, bandwidth, rate))
        torch.cuda.empty_cache()
        if args.out:
            Path(args.out).write_text(json.dumps(result, indent=1))
    if args.package:
        ask_package(args.package, result["rows"])
        if args.out:
            Path(args.out).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
