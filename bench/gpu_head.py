#!/usr/bin/env python3
"""maxsim_from_hidden on a GPU: this package, the unfused form of the same (torch's linear and
this package's maxsim, which normalizes), and the existing package, interleaved by shape.

    python3 bench/gpu_head.py --package DIR [--peer DIR] [--only NAME ..] [--rounds 7]

DIR is a folder with the package, or the existing one, which have one import name and so run in
a process each. Every answer is compared with f64 products. "graph" is GPU time of one call,
from replays of a CUDA graph; "eager" what a call takes in a row of them, the host's time
included; "peak" what it allocates beyond its inputs."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

CASES = {  # queries, documents, query tokens, document tokens, d_model, d_out
    "head-128x1024": (16, 128, 32, 1024, 768, 128),
    "head-512x2048": (16, 512, 32, 2048, 768, 128),
    "head-32x1024": (16, 32, 32, 1024, 768, 128),
    "head-16x300": (16, 16, 32, 300, 768, 128),
    "head-64q-1024x180": (64, 1024, 32, 180, 768, 128),
    "head-1q-1000x300-d1536": (1, 1000, 32, 300, 1536, 128),
}


def forms(peer):
    """name -> call(Q, H, W, b, mask)."""
    import torch
    from late_interaction_kernels.fused_head import maxsim_from_hidden

    if peer:
        return {"upstream": maxsim_from_hidden}
    from late_interaction_kernels import maxsim

    def unfused(Q, H, W, b, mask):
        D = torch.nn.functional.linear(H, W, b)
        return maxsim(Q, torch.nn.functional.normalize(D, dim=-1), d_mask=mask)

    return {"ours": maxsim_from_hidden, "unfused": unfused}


def milliseconds(call, rounds, seconds=0.3):
    import torch

    def row(n):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(n):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / n

    n = max(1, min(50, int(seconds * 1e3 / rounds / max(row(3), 0.01))))
    return statistics.median(row(n) for _ in range(rounds))


def measure(name, rounds, peer, seconds):
    import torch

    nq, nd, lq, ld, d_model, d_out = CASES[name]
    g = torch.Generator(device="cuda").manual_seed(1)

    def random(*shape):
        return torch.randn(*shape, generator=g, device="cuda", dtype=torch.float32).to(torch.bfloat16)

    Q = torch.nn.functional.normalize(random(nq, lq, d_out).float(), dim=-1).bfloat16()
    H, W, b = random(nd, ld, d_model), (random(d_out, d_model) / d_model**0.5), random(d_out) / 10
    grad = torch.randn(nq, nd, generator=g, device="cuda")
    leaves = [x.detach().clone().requires_grad_() for x in (Q, H, W, b)]
    document = torch.nn.functional.normalize(H[-1].double() @ W.double().T + b.double(), dim=-1)
    want = (Q.double() @ document.T).amax(-1).sum(-1)
    grads = {}
    for form, call in forms(peer).items():

        def infer(call=call):
            with torch.no_grad():
                return call(Q, H, W, b, None)

        def train(call=call):
            for x in leaves:
                x.grad = None
            scores = call(*leaves, None)
            scores.backward(grad)
            return scores

        record = {"case": name, "form": form, "error": float((infer()[:, -1] - want).abs().max()) / lq}
        for kind, step in (("infer", infer), ("train", train)):
            begun = time.perf_counter()
            step()
            torch.cuda.synchronize()
            record[f"{kind}_first_s"] = time.perf_counter() - begun
            for x in leaves:
                x.grad = None
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step()
            torch.cuda.synchronize()
            record[f"{kind}_peak_MB"] = (torch.cuda.max_memory_allocated() - before) / 1e6
            record[f"{kind}_eager_ms"] = milliseconds(step, rounds, seconds)
        grads[form] = [x.grad.float() for x in leaves]
        begun = time.perf_counter()
        for _ in range(10):
            infer()
        record["infer_host_ms"] = (time.perf_counter() - begun) * 100
        torch.cuda.synchronize()
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                infer()
            record["infer_graph_ms"] = milliseconds(graph.replay, rounds, seconds)
        except Exception as problem:
            record["uncaptured"] = str(problem)[:80]
        graph = None
        torch.cuda.empty_cache()
        print(json.dumps(record), flush=True)
    if "unfused" in grads:
        apart = [float((a - b).norm() / b.norm()) for a, b in zip(grads["ours"], grads["unfused"])]
        print(json.dumps({"case": name, "gradients of Q, H, W, b apart": apart}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--package")
    parser.add_argument("--peer")
    parser.add_argument("--only", nargs="+", default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a measurement")
    parser.add_argument("--run", choices=["ours", "peer"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        for name in args.only:
            measure(name, args.rounds, args.run == "peer", args.seconds)
        return
    for run, folder in (("ours", args.package), ("peer", args.peer)):
        if folder:
            command = [sys.executable, __file__, "--run", run, "--rounds", str(args.rounds)]
            command += ["--seconds", str(args.seconds), "--only", *args.only]
            subprocess.run(command, env={**os.environ, "PYTHONPATH": folder}, check=False)


if __name__ == "__main__":
    main()
