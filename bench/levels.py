#!/usr/bin/env python3
"""The levels of this processor in turn, over the cases of bench/cases.py and some of their own,
each held against what the instructions it multiplies with can do in registers alone, and
against the bytes it reads.

    bench/run.sh levels [--cases text,train] [--levels avx2,amx] [--threads 1]
                        [--rounds 9] [--no-peers] [-o FILE]

A case's rounds take every level, and torch's product and maximum, once; a figure is a median
over rounds, and a level's ratio to the level below it the median of the rounds' own. Scores are
checked against f64 first. A share is useful operations a second over the highest reading of
that instruction's peak taken between the rounds, "bytes" document bytes a second over the
reading of a read loop of as many bytes. With one thread times are the processor's, so that what
waits for it does not count.
"""

import argparse
import dataclasses
import json
import math
import statistics
import sys
import time
from pathlib import Path

import cases
import liblik
import numpy as np
import report

import bench

WINDOW_SECONDS = 0.02
PEAK_SECONDS = 0.004


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--library", type=Path, default=bench.LIBRARY)
    parser.add_argument("--peak", type=Path, default=bench.PEAK)
    parser.add_argument("--levels", help="only these, comma-separated (default: all but the baseline)")
    parser.add_argument("--cases", default="", help="only those whose names begin like one of these")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-peers", action="store_true", help="without torch")
    parser.add_argument("-o", "--output", type=Path, help="JSON file")
    return parser.parse_args()


def more_cases():
    """Those of the benchmark, and in each dtype those that levels differ in."""
    text = {case.storage: case for case in cases.CASES if case.name.startswith("text-")}
    yield from cases.CASES
    for storage in ("bf16", "i8"):
        like = {"storage": storage, "targets": (), "precision": text[storage].precision}
        yield dataclasses.replace(
            text[storage],
            name=f"cache-{storage}",
            nd=20,
            title=f"1 x 32 against 20 x 300, {storage}",
            **{"targets": ()},
        )
        for name in ("query-8", "query-20", "query-64", "d48", "short-7", "short-1", "in-batch", "corpus"):
            case = next(c for c in cases.CASES if c.name == name)
            yield dataclasses.replace(
                case, name=f"{name}-{storage}", title=f"{case.title}, {storage}", **like
            )


def peak_names(variant, level):
    """Which instructions a variant multiplies with, the best first."""
    if level.startswith("neon"):
        if "_dot_" in variant:
            return ["bf16 matrix"]
        kind = {"neon": "long", "neondot": "dot"}.get(level, "matrix")
        numbers = [name for name in ("i8", "i16") if f"_q{7 if name == 'i8' else 16}_" in variant]
        return [f"{name} {kind}" for name in numbers] or ["fma 128"]
    if level == "amx" and "_dot_" in variant:
        return ["amx bf16"]
    if level == "amx" and ("_q7_" in variant or "_q16_" in variant):
        return ["amx i8"]
    if "_dot_" in variant:
        return ["bf16 dot"]
    if level == "avxvnni" and "_q7_" in variant:
        return ["i8 dot 256"]
    if "_q7_" in variant and level in ("avx512vnni", "avx512bf16"):
        return ["i8 dot"]
    if "_q16_" in variant and level in ("avx512vnni", "avx512bf16"):
        return ["i16 dot"]
    return ["fma 512" if level not in ("avx2", "avxvnni") else "fma 256"]


def torch_call(data):
    """torch's product and maximum, in the case's own dtype, as a user would write it."""
    import torch

    case = data.case
    if case.storage == "i8" or case.bits or case.packed() or case.kind in ("train", "topk"):
        return None

    def tensor(x):
        return (
            torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
            if case.storage == "bf16"
            else torch.from_numpy(x)
        )

    q, d = tensor(data.q), tensor(data.d)

    def run():
        products = q.reshape(-1, case.dim) @ d.reshape(-1, case.dim).T
        return products.view(case.nq, case.lq, case.nd, case.ld).amax(3).float().sum(1)

    return run


def our_call(library, data):
    """(a call, its scores, its variant)"""
    case = data.case
    if case.kind == "train":
        grad_scores = np.random.default_rng(8).standard_normal((case.nq, case.nd)).astype(np.float32)
        argmax = np.empty((case.nq * case.nd, case.lq), np.int16)
        forward, scores = library.score(*bench.tokens_of(data), argmax=argmax)
        backward, _, _ = library.grad(forward, grad_scores)

        def step():
            forward()
            backward()

        return step, scores, forward.variant
    if case.kind == "topk":
        call, _, _ = library.topk(*bench.tokens_of(data), 10)
        return call, None, call.variant
    call, scores = library.score(*bench.tokens_of(data), precision=case.precision)
    return call, scores, call.variant


def loop(call, n, clock):
    begin = clock()
    for _ in range(n):
        call()
    return (clock() - begin) / n


def run_case(case, libraries, peak, args):
    clock = time.thread_time if args.threads == 1 else time.perf_counter
    data = cases.Data(case)
    truth, calls, row = data.truth(), {}, {"case": case.name, "title": case.title, "levels": {}}
    for level, library in libraries.items():
        call, scores, variant = our_call(library, data)
        call()
        error = 0.0 if scores is None else bench.error_of(scores, truth)
        if not error <= data.tolerance() + (1e-4 if case.storage == "bf16" else 0):
            raise SystemExit(f"{case.name}, {level}: off by {error:.3g}, allowed {data.tolerance():.3g}")
        calls[level] = call
        row["levels"][level] = {"variant": variant, "error": error}
    if not args.no_peers and (peer := torch_call(data)):
        calls["torch"] = peer
        row["levels"]["torch"] = {"variant": "torch matmul + amax"}
    counts = {
        name: max(1, math.ceil(WINDOW_SECONDS / max(min(loop(c, 1, clock), loop(c, 1, clock)), 1e-7)))
        for name, c in calls.items()
    }
    seconds, peaks, reads = {name: [] for name in calls}, {}, []
    read_bytes = min(data.d.nbytes, 1 << 29)
    for _ in range(args.rounds):
        for name, rate in peak.of(args.threads, PEAK_SECONDS).items():
            peaks[name] = max(rate, peaks.get(name, 0))
        reads.append(peak.read(args.threads, max(read_bytes // args.threads, 4096), 0.02))
        for name, call in calls.items():
            seconds[name].append(loop(call, counts[name], clock))
    below = None
    row["peaks"], row["read"] = peaks, max(reads)
    for name, result in row["levels"].items():
        result["seconds"] = statistics.median(seconds[name])
        result["best"] = min(seconds[name])
        rate = data.flops() / result["seconds"]
        if name != "torch":
            result["peak"] = peak_names(result["variant"], name)[0]
            result["share"] = rate / peaks[result["peak"]]
            result["bytes"] = data.d.nbytes / result["seconds"] / row["read"]
            if below:
                result["below"] = statistics.median(
                    a / b for a, b in zip(seconds[below], seconds[name], strict=True)
                )
            below = name
        if "torch" in calls:
            result["torch"] = statistics.median(
                a / b for a, b in zip(seconds["torch"], seconds[name], strict=True)
            )
    return row


def line_of(r):
    share = f"{r['share']:6.1%} of {r['peak']:9}  {r['bytes']:6.1%} of the bytes" if "share" in r else ""
    below = f"{r['below']:5.2f} x below" if "below" in r else ""
    torch = f"{r['torch']:6.2f} x torch" if "torch" in r else ""
    times = f"{r['seconds'] * 1e3:9.3f} ms  best {r['best'] * 1e3:9.3f}"
    return f"{times}  {share:43}  {below:13}  {torch:14}  {r['variant']}"


def peaks_of(rows):
    return {name: max(row["peaks"][name] for row in rows) for name in rows[0]["peaks"]}


def save(args, rows):
    """What there is so far: a run that is cut short is not lost."""
    if args.output:
        result = {"machine": bench.machine(), "threads": args.threads, "rounds": args.rounds}
        result |= {"peaks": peaks_of(rows), "rows": rows}
        text = json.dumps(report.rounded(result), indent=1)
        args.output.write_text(text + "\n", encoding="utf-8")


def main():
    args = arguments()
    if not args.no_peers:
        import torch

        torch.set_num_threads(args.threads)
    peak = liblik.Peak(args.peak)
    peak.c.peak_processor_time(args.threads == 1)
    levels = args.levels.split(",") if args.levels else liblik.levels(args.library)[1:] or ["generic"]
    libraries = {level: liblik.Library(args.library, f"cpu:{level}", args.threads) for level in levels}
    wanted = tuple(name for name in args.cases.split(",") if name)
    rows = []
    for case in more_cases():
        if wanted and not case.name.startswith(wanted):
            continue
        if case.threads and args.threads not in case.threads:
            continue
        row = run_case(case, libraries, peak, args)
        rows.append(row)
        save(args, rows)
        print(f"{row['case']}: {row['title']}")
        for name, r in row["levels"].items():
            print(f"    {name:11} {line_of(r)}", flush=True)
    if not rows:
        sys.exit("no such case")
    peaks = peaks_of(rows)
    print("peaks, Gop/s: " + ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in peaks.items()))


if __name__ == "__main__":
    main()
