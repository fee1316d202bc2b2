"""Two builds of the library, in turn, over the cases of bench/cases.py or (--device cuda:N) of bench/gpu.py.

    python bench/compare.py OLD/liblik.so NEW/liblik.so [--device cpu] [--threads 1,2] [--rounds 31] [-o FILE]

A row's figure is the median over rounds of new's time over old's in the same round, so that what disturbs the machine
disturbs both. Outputs are compared bit for bit. On a GPU the calls are replayed from graphs, and the host's time of an
eager call is compared beside them. Exits with 1 if outputs differ or a row is slower by more than --tolerance.
"""

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path

WINDOW_SECONDS = 0.02
GPU_WINDOW_MS = 15


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--device", default="cpu", help="cpu, cpu:LEVEL or cuda:N (default: cpu)")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, comma-separated (default: 1,2)")
    parser.add_argument("--cases", default="", help="only the cases whose names begin like one of these")
    parser.add_argument("--rounds", type=int, help="rounds a case (default: 31; 9 on a GPU)")
    parser.add_argument("--tolerance", type=float, default=0.02, help="of a row's ratio (default: 0.02)")
    parser.add_argument("-o", "--output", type=Path, help="JSON file")
    return parser.parse_args()


def ratio_of(old, new, seconds_of, rounds):
    """(seconds of old, median ratio), the two taken in turn and each first every second time."""
    taken = {"old": [], "new": []}
    pair = [("old", old), ("new", new)]
    for number in range(rounds):
        for name, call in pair if number % 2 else reversed(pair):
            taken[name].append(seconds_of(call))
    ratios = [b / a for a, b in zip(taken["old"], taken["new"], strict=True)]
    return statistics.median(taken["old"]), statistics.median(ratios)


def same_bits(old, new):
    import numpy as np

    return all(np.array_equal(a.view(np.uint8), b.view(np.uint8)) for a, b in zip(old, new, strict=True))


def cpu_call(library, data):
    """(a call of the case, its outputs)."""
    import numpy as np
    from bench import tokens_of

    case = data.case
    if case.kind == "topk":
        call, values, ids = library.topk(*tokens_of(data), 10)
        return call, (values, ids)
    if case.kind != "train":
        call, scores = library.score(*tokens_of(data), precision=case.precision)
        return call, (scores,)
    grad_scores = np.random.default_rng(8).standard_normal((case.nq, case.nd)).astype(np.float32)
    argmax = np.empty((case.nq * case.nd, case.lq), np.int16)
    forward, scores = library.score(*tokens_of(data), argmax=argmax)
    backward, grad_q, grad_d = library.grad(forward, grad_scores)

    def step():
        forward()
        backward()

    return step, (scores, argmax, grad_q, grad_d)


def loop(call, n):
    begin = time.perf_counter()
    for _ in range(n):
        call()
    return (time.perf_counter() - begin) / n


def on_cpu(args, wanted):
    import cases
    import liblik

    for case in filter(wanted, cases.CASES):
        data = cases.Data(case)
        for threads in sorted(set(case.threads or ()) & set(args.threads) if case.threads else args.threads):
            made = [cpu_call(liblik.Library(path, args.device, threads), data) for path in (args.old, args.new)]
            (old, old_outputs), (new, new_outputs) = made
            old(), new()
            n = max(1, math.ceil(WINDOW_SECONDS / max(loop(old, 1), 1e-7)))
            seconds, ratio = ratio_of(old, new, lambda call, n=n: loop(call, n), args.rounds or 31)
            yield {"case": case.name, "threads": threads, "old_seconds": seconds, "ratio": ratio,
                   "same": same_bits(old_outputs, new_outputs)}  # fmt: skip


def on_gpu(args, wanted):
    import gc

    import gpu
    import liblik
    import torch

    old, new = liblik.Library(args.old, args.device), liblik.Library(args.new, args.device)
    for case in filter(wanted, gpu.CASES):
        copies = max(1, min(4, int(200e6 // gpu.Inputs(case, 0).bytes())))
        inputs = [gpu.Inputs(case, seed) for seed in range(copies)]
        a, b = [gpu.Ours(old, i) for i in inputs], [gpu.Ours(new, i) for i in inputs]
        gpu.timed(gpu.graph_of(a, 2), 2)
        n = max(4, min(200, int(GPU_WINDOW_MS / max(gpu.timed(gpu.graph_of(a, 4), 4), 1e-3))))
        graphs = gpu.graph_of(a, n), gpu.graph_of(b, n)
        ms, ratio = ratio_of(*graphs, lambda graph, n=n: gpu.timed(graph, n), args.rounds or 9)
        host_ms, host_ratio = ratio_of(a[0], b[0], gpu.host_time, 5)
        outputs = [x[0]() for x in (a, b)]
        if case.train:
            outputs = [(*(o if isinstance(o, tuple) else (o,)), *x[0].grads()) for o, x in zip(outputs, (a, b))]
        torch.cuda.synchronize()
        flat = [o if isinstance(o, tuple) else (o,) for o in outputs]
        yield {"case": case.name, "threads": 0, "old_seconds": ms / 1e3, "ratio": ratio, "host_seconds": host_ms / 1e3,
               "host_ratio": host_ratio, "variants": [a[0].variant, b[0].variant],
               "same": all(torch.equal(x, y) for x, y in zip(*flat, strict=True))}  # fmt: skip
        del a, b, graphs, inputs, outputs, flat
        gc.collect()
        torch.cuda.empty_cache()


def main():
    args = arguments()
    args.threads = [int(n) for n in args.threads.split(",")]
    names = tuple(name for name in args.cases.split(",") if name)
    run = on_gpu if args.device.startswith("cuda") else on_cpu
    rows = []
    for row in run(args, lambda case: not names or case.name.startswith(names)):
        rows.append(row)
        host = f"  host {row['host_seconds'] * 1e6:6.1f} us {row['host_ratio']:6.3f}" if "host_ratio" in row else ""
        print(f"{row['case']:26} {row['threads']} {row['old_seconds'] * 1e3:9.4f} ms {row['ratio']:6.3f}{host}  "
              f"{'same' if row['same'] else 'DIFFERENT'}", flush=True)  # fmt: skip
    if not rows:
        sys.exit("no such case")
    if args.output:
        args.output.write_text(json.dumps({"device": args.device, "rows": rows}, indent=1) + "\n")
    ratios = [row["ratio"] for row in rows]
    print(f"new over old: {min(ratios):.3f} to {max(ratios):.3f}, median {statistics.median(ratios):.3f}")
    sys.exit(not all(row["same"] for row in rows) or max(ratios) > 1 + args.tolerance)


if __name__ == "__main__":
    main()
