#!/usr/bin/env python3
"""The largest in-batch training step that fits a GPU: ours, plain torch and upstream.

    python3 bench/ceiling.py --package DIR [--peers DIR] [--only ours torch upstream]
                             [--step-seconds 5] [--seconds 150] [--out FILE.json]

A step is forward and backward of the cross entropy of the scores of B queries of 32 tokens
against B documents of 1030 (d 128, bf16), all of them leaves that require a gradient. B is
doubled until a step fails, then bisected to 6%. A step that takes longer than --step-seconds
ends the search: what fits is then estimated from the peaks of the last two steps, which are a B
+ b B^2. A step counts as failed, too, if three of its scores are not what torch says, the
inputs change or the last document gets no gradient (upstream's 32-bit offsets overflow at large
B).

DIR are folders for PYTHONPATH: the package's and upstream's import name is the same, so that
each way runs in a process of its own, which is started anew if a step kills it. --seconds is
the most that one way takes. The result goes under "ceiling" into FILE, which may be one of
bench/gpu.py's."""

import argparse
import gc
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, normalize

LQ, LD, DIM = 32, 1030, 128
START, CLOSE = 128, 1.06

# ---- the process that tries ----


def torch_maxsim(q, d):
    return torch.einsum("qsd,ntd->qnst", q, d).amax(-1).sum(-1)


def leaf(count, length, device):
    """Unit tokens, made without large temporaries."""
    x = torch.empty(count, length, DIM, dtype=torch.bfloat16, device=device)
    for rows in x.split(256):
        rows.copy_(normalize(torch.randn(rows.shape, device=device), dim=-1))
    return x.requires_grad_()


def fingerprint(x):
    return int(x.detach().view(torch.int16).sum(dtype=torch.int64))


def step(score, n, device):
    """What a step of batch n took, or why it failed."""
    gpu = device == "cuda"
    q, d = leaf(n, LQ, device), leaf(n, LD, device)
    with torch.no_grad():
        places = [(0, n - 1), (n // 2, n // 3), (n - 1, n - 1)]
        want = [float((q[i].float() @ d[j].float().T).amax(1).sum()) for i, j in places]
    before = fingerprint(q), fingerprint(d)
    labels = torch.arange(n, device=device)
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    scores = score(q, d)
    got = [scores[i, j].detach() for i, j in places]
    cross_entropy(scores, labels).backward()
    if gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if gpu else 0
    wrong = max(abs(float(a) - b) for a, b in zip(got, want))
    result = {"batch": n, "seconds": seconds, "peak_bytes": peak, "error": wrong}
    if wrong > 0.01 * LQ:
        result["failed"] = f"scores are off by {wrong:.3g}"
    elif before != (fingerprint(q), fingerprint(d)):
        result["failed"] = "the inputs were overwritten"
    elif not (float(d.grad[-1].abs().sum()) > 0 and float(q.grad[-1].abs().sum()) > 0):
        result["failed"] = "the last rows have no gradient"
    return result


def try_step(score, n, device):
    """step(), with running out of memory as a failure; nothing of it is left afterwards."""
    problem = None
    try:
        return step(score, n, device)
    except (RuntimeError, MemoryError) as error:  # OutOfMemoryError is a RuntimeError
        problem = str(error)
        if "out of memory" not in problem.lower() and not isinstance(error, MemoryError):
            raise
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return {"batch": n, "failed": "out of memory"}


def serve(way, device):
    """Reads batches from standard input, answers each with a line of JSON."""
    score = torch_maxsim
    if way != "torch":
        import late_interaction_kernels as package

        if hasattr(package, "_native") != (way == "ours"):
            sys.exit(f"{package.__file__} is not {way}")
        score = package.maxsim
    free, total = torch.cuda.mem_get_info() if device == "cuda" else (0, 0)
    held = torch.cuda.memory_reserved() if device == "cuda" else 0
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(json.dumps({"gpu": name, "total_bytes": total, "usable_bytes": free + held}), flush=True)
    for line in sys.stdin:
        print(json.dumps(try_step(score, int(line), device)), flush=True)
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()


# ---- the process that asks ----


class Server:
    """A process of serve()."""

    def __init__(self, args, way):
        folder = {"ours": args.package, "upstream": args.peers}.get(way)
        environment = {**os.environ, "LIK_SUPPRESS_NORM_WARN": "1"}
        if folder:
            environment["PYTHONPATH"] = folder
        command = [sys.executable, __file__, "--serve", way, "--device", args.device]
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        self.lines = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                self.lines.put(line)
        self.lines.put("")

    def answer(self, seconds):
        """The next line, or why there is none."""
        try:
            line = self.lines.get(timeout=max(seconds, 1))
        except queue.Empty:
            return {"failed": "no answer in the time left", "dead": True}
        if line:
            return json.loads(line)
        self.errors.seek(0)
        last = self.errors.read().strip().splitlines()[-1:] or ["nothing"]
        return {"failed": f"the process died: {last[0][:200]}", "dead": True}

    def ask(self, batch, seconds):
        try:
            self.process.stdin.write(f"{batch}\n")
            self.process.stdin.flush()
        except OSError:
            pass  # answer() says why
        return {"batch": batch, **self.answer(seconds)}

    def close(self):
        self.process.kill()
        self.process.wait()
        self.errors.close()


def predicted(steps, usable):
    """The batch whose peak a B + b B^2, from the two largest steps, fills the memory."""
    (n, low), (m, high) = [(s["batch"], s["peak_bytes"]) for s in steps[-2:]]
    b = (high / m - low / n) / (m - n)
    a = low / n - b * n
    if b <= 0:
        return int(usable / a) if a > 0 else 0
    return int(((a * a + 4 * b * usable) ** 0.5 - a) / (2 * b))


def search(args, way):
    end = time.monotonic() + args.seconds
    server = Server(args, way)
    result = {**server.answer(end - time.monotonic()), "steps": []}
    low, high, batch = 0, None, START
    while "dead" not in result:
        step = server.ask(batch, end - time.monotonic())
        if step.get("seconds", 0) > args.step_seconds:  # a first call compiles and tunes
            step = server.ask(batch, end - time.monotonic())
        result["steps"].append(step)
        print(f"{way}: {json.dumps(step)}", flush=True)
        if "failed" in step:
            high, result["failed_at"], result["why"] = batch, batch, step["failed"]
        else:
            low = batch
            if step["seconds"] > args.step_seconds:
                result["stopped"] = f"a step took longer than {args.step_seconds:g} s"
        if time.monotonic() > end - 10:
            result.setdefault("stopped", f"the search took {args.seconds:.0f} s")
        batch = 2 * low if high is None else (low + high) // 2
        if "stopped" in result or batch < 1 or (high and high <= CLOSE * low):
            break
        if "dead" in step:
            server.close()
            server = Server(args, way)
            if "dead" in server.answer(end - time.monotonic()):
                break
    server.close()
    good = sorted((s for s in result["steps"] if "failed" not in s), key=lambda s: s["batch"])
    result["largest"] = low
    if "stopped" in result and len(good) > 1 and good[-1]["peak_bytes"]:
        result["predicted"] = predicted(good, result["usable_bytes"])
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--package", help="folder where the Python package is installed")
    parser.add_argument("--peers", help="folder with upstream")
    parser.add_argument("--only", nargs="+", default=["ours", "torch", "upstream"])
    parser.add_argument("--step-seconds", type=float, default=5)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.device)
        return
    found = {
        "shape": f"B x {LQ} against B x {LD}, d {DIM}, bfloat16",
        "date": time.strftime("%Y-%m-%d"),
        "ways": {},
    }
    for way in args.only:
        found["ways"][way] = result = search(args, way)
        more = {key: result[key] for key in ("failed_at", "why", "stopped", "predicted") if key in result}
        print(f"{way}: the largest batch is {result['largest']} {more or ''}", flush=True)
        if args.out:
            content = json.loads(args.out.read_text()) if args.out.exists() else {}
            old = content.get("ceiling", {}).get("ways", {})
            content["ceiling"] = {**found, "ways": {**old, **found["ways"]}}
            args.out.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
