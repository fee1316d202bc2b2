#!/usr/bin/env python3
"""Measures liblik on this machine's processor beside its peers, and holds the figures against
the targets.

For each number of threads a fresh process (thread pools of the peers can only be set before
they start) takes the cases one after the other: it makes the data, checks every candidate
against f64 NumPy, drops and names those that are wrong, and times the rest in interleaved
rounds. The FMA peak is measured before and after every timing, with as many threads, and a
share of the peak is useful operations per second over the larger of the two readings around it:
on a shared machine the peak moves. The best share holds the fastest timing against the highest
peak reading of the whole process.

Other programs can still ruin a round: a peak reading that had to wait for the processor makes a
share too high, a peer that waited makes a ratio too high. So a round counts only if its threads
hardly waited to run (the scheduler's own figures) and the peak beside it was near the highest;
more rounds are taken until enough count. A candidate without enough of them is shown as
disturbed, and no target is judged on it.

    bench/run.sh [--quick] [--cases text,train] [--peers numpy,torch | --no-peers]
                 [--threads 1,2] [-o FILE.json]
"""

import argparse
import datetime
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What run.sh builds; CMake names a library as the system has it.
LIBRARY = ROOT / "build/release" / ("liblik.dylib" if sys.platform == "darwin" else "liblik.so")
PEAK = ROOT / "build/bench/libpeak.so"
PEAK_SECONDS = 0.006  # one reading of the FMA peak
WINDOW_SECONDS = 0.02  # a timing repeats short calls for at least this long
WAIT_MAX = 0.05  # a timing counts if its threads waited at most this part of the time for a processor
OCCUPANCY_MIN = 0.95  # a peak reading counts if its threads ran at least this part of the time
PEAK_MIN = 0.85  # and if it reached this part of the highest reading that counted
ROUNDS_FACTOR = 3  # rounds are taken until enough count, at most this many times as many
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


def arguments():
    parser = argparse.ArgumentParser(description="Measures liblik and its peers on this machine's processor.")
    parser.add_argument("--library", type=Path, default=LIBRARY, help="the shared library")
    parser.add_argument("--peak", type=Path, default=PEAK, help="built of bench/peak.c")
    parser.add_argument(
        "--upstream", type=Path, help="folder into which late-interaction-kernels was installed"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cpu:avx2, cpu:generic (default: cpu)")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, comma-separated (default: 1,2)")
    parser.add_argument("--cases", help="only the cases whose names begin like one of these, comma-separated")
    parser.add_argument("--peers", help="only the peers whose names begin like one of these, comma-separated")
    parser.add_argument("--no-peers", action="store_true", help="only this library")
    parser.add_argument("--rounds", type=int, help="rounds a case (default: 9; 3 with --quick)")
    parser.add_argument(
        "--quick", action="store_true", help="3 rounds and no large cases; writes no file unless -o is given"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument(
        "-o", "--output", type=Path, help="JSON file; the plot goes beside it (default: bench/results/)"
    )
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        args.threads = [int(n) for n in args.threads.split(",")]
    except ValueError:
        parser.error(f"--threads is {args.threads!r}, wanted numbers separated by commas")
    if min(args.threads) < 1:
        parser.error(f"--threads has {min(args.threads)}, the least is 1")
    args.rounds = args.rounds or (3 if args.quick else 9)
    for path in (args.library, args.peak):
        if not path.exists():
            parser.error(f"{path} does not exist: bench/run.sh builds it")
    return args


def seconds_waited():
    """How long this process's living threads have been ready to run without a processor,
    summed; 0 where the system does not say."""
    waited = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            waited += int(path.read_text().split()[1])
        except (OSError, IndexError):
            continue  # the thread has just ended
    return waited * 1e-9


class FmaPeak:
    """Readings of the FMA peak with `threads` threads, and which of them can be trusted."""

    def __init__(self, peak, threads):
        self.peak, self.threads = peak, threads
        self.readings, self.trusted = [], []
        for _ in range(20):
            self.read()

    def read(self):
        """Takes a reading: (operations a second, whether its threads ran all the time)."""
        wall, cpu = time.perf_counter(), time.process_time()
        rate = self.peak.fma(self.threads, PEAK_SECONDS)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        undisturbed = cpu >= OCCUPANCY_MIN * wall * self.threads
        self.readings.append(rate)
        if undisturbed:
            self.trusted.append(rate)
        return rate, undisturbed

    def highest(self):
        return max(self.trusted or self.readings)


class Timed:
    """One candidate of a case: `run` is called to check it, `timer(n)` gives the seconds of a
    call over n calls.
    """

    def __init__(self, run, timer=None):
        self.run = run
        self.timer = timer or self.loop
        self.calls = 1
        self.seconds, self.peaks, self.quiet = [], [], []

    def loop(self, n):
        begin = time.perf_counter()
        for _ in range(n):
            self.run()
        return (time.perf_counter() - begin) / n

    def settle(self):
        """Warms up and finds how many calls fill a window."""
        seconds = self.timer(1)
        self.calls = max(1, math.ceil(WINDOW_SECONDS / max(min(seconds, self.timer(1)), 1e-7)))

    def measure(self, fma):
        before = fma.read()
        waited, wall = seconds_waited(), time.perf_counter()
        self.seconds.append(self.timer(self.calls))
        wall, waited = time.perf_counter() - wall, seconds_waited() - waited
        rate, undisturbed = max(before, fma.read())
        self.peaks.append(rate)
        self.quiet.append(undisturbed and waited <= WAIT_MAX * wall * fma.threads)

    def counted(self, highest_peak):
        """Which rounds count."""
        return [q and p >= PEAK_MIN * highest_peak for q, p in zip(self.quiet, self.peaks, strict=True)]

    def result(self, flops, highest_peak, enough):
        """Figures of the rounds that count; of all of them, marked as disturbed, if fewer than
        `enough` do.
        """
        counted = self.counted(highest_peak)
        disturbed = sum(counted) < enough
        rounds = [
            (s, flops / s / p)
            for s, p, c in zip(self.seconds, self.peaks, counted, strict=True)
            if c or disturbed
        ]
        return {
            "disturbed": disturbed,
            "seconds_median": statistics.median(s for s, _ in rounds),
            "seconds_best": min(self.seconds),
            "share_median": statistics.median(share for _, share in rounds),
            "share_best": flops / min(self.seconds) / highest_peak,
            "seconds": self.seconds,
            "peaks": self.peaks,
            "counted": counted,
        }


def error_of(got, truth):
    """The largest difference of two arrays, or infinity when the shapes differ or a value is
    not a number.
    """
    import numpy as np

    got = np.asarray(got, np.float64)
    if got.shape != truth.shape or not np.isfinite(got).all():
        return math.inf
    return float(np.abs(got - truth).max(initial=0))


def tokens_of(data):
    """(q, d) of a case as the library takes them."""
    import liblik
    from cases import DTYPES

    dtype = DTYPES[data.case.storage]
    if data.case.bits:
        q = liblik.padded_tokens(data.q, liblik.F32)
        return q, liblik.compressed_tokens(data.case.nd, data.codec, data.codes, data.d, data.scale)
    q = liblik.padded_tokens(data.q, liblik.F32 if data.case.storage == "i8" else dtype)
    if data.case.packed():
        return q, liblik.packed_tokens(data.d, dtype, data.offsets)
    return q, liblik.padded_tokens(data.d, dtype, data.scale)


def our_score(library, peak, data):
    """A forward case: (variant, {name: Timed}, check), where check() returns (error,
    tolerance).
    """
    call, scores = library.score(*tokens_of(data), precision=data.case.precision)
    timer = (lambda n: peak.repeat(call, n)) if data.case.kind == "tiny" else None
    timed = {"lik": Timed(call, timer)}
    if data.case.bits:
        timed["f32"] = Timed(in_f32(library, data))

    def check():
        call()
        return error_of(scores, data.truth()), data.tolerance()

    return call.variant, timed, check


def in_f32(library, data):
    """The call of the same documents, decoded beforehand."""
    import liblik

    case = data.case
    rows = data.rows_f32(0, None).reshape(case.nd, case.ld, case.dim)
    return library.score(liblik.padded_tokens(data.q, liblik.F32), liblik.padded_tokens(rows, liblik.F32))[0]


def our_topk(library, peak, data):
    """A top-k case. The check: each value is the score of its id, no id comes twice, and the
    values are the k best.
    """
    import numpy as np

    call, values, ids = library.topk(*tokens_of(data), 10)

    def check():
        call()
        truth = data.truth()
        if (
            ids.min() < 0
            or ids.max() >= data.case.nd
            or any(len(set(row)) < len(row) for row in ids.tolist())
        ):
            return math.inf, data.tolerance()
        named = error_of(values, np.take_along_axis(truth, ids, 1))
        return max(named, error_of(values, -np.sort(-truth, axis=1)[:, : ids.shape[1]])), data.tolerance()

    return call.variant, {"lik": Timed(call)}, check


def our_training(library, peak, data, truth, grad_scores):
    """A training case: the step, and beside it the forward alone with and without argmax."""
    import numpy as np

    case = data.case
    q, d = tokens_of(data)
    argmax = np.empty((case.nq * case.nd, case.lq), np.int16)
    plain, _ = library.score(q, d)
    forward, scores = library.score(q, d, argmax=argmax)
    backward, grad_q, grad_d = library.grad(forward, grad_scores)

    def step():
        forward()
        backward()

    def check():
        step()
        return training_error((scores, grad_q, grad_d), truth), data.tolerance()

    timed = {
        "lik": Timed(step),
        "forward": Timed(plain),
        "forward with argmax": Timed(forward),
        "backward": Timed(backward),
    }
    return f"{forward.variant} + {backward.variant}", timed, check


def training_error(got, truth):
    """The largest error of scores and gradients. The gradients' is divided by how many scores
    add up in them, so that one tolerance serves all: each term is at most as large as a
    similarity."""
    counts = (1, truth[0].shape[1], truth[0].shape[0])
    return max(error_of(g, t) / n for g, t, n in zip(got, truth, counts, strict=True))


def take_rounds(timed, fma, rounds):
    """Times the candidates in turn, `rounds` times and on until as many rounds count for each,
    within ROUNDS_FACTOR.
    """
    for number in range(ROUNDS_FACTOR * rounds):
        for candidate in timed.values():
            candidate.measure(fma)
        if number + 1 >= rounds and all(sum(t.counted(fma.highest())) >= rounds for t in timed.values()):
            break


def median_ratio(over, under, enough):
    """Median of over's seconds over under's, of the rounds that count for both; None if fewer
    than `enough` do.
    """
    columns = (over["seconds"], under["seconds"], over["counted"], under["counted"])
    ratios = [a / b for a, b, counted_a, counted_b in zip(*columns, strict=True) if counted_a and counted_b]
    return statistics.median(ratios) if len(ratios) >= enough else None


def run_case(case, library, peak, fma, args):
    """Checks and times one case. Returns its row for the JSON, without the figures that need
    the highest peak, and the candidates: (row, {name: Timed})."""
    import cases
    import numpy as np
    import peers

    data = cases.Data(case)
    truth, grad_scores = None, None
    if case.kind == "train":
        grad_scores = np.random.default_rng(8).standard_normal((case.nq, case.nd)).astype(np.float32)
        scores, argmax = data.truth(with_argmax=True)
        truth = (scores, *cases.gradients(data, argmax, grad_scores))
        variant, timed, check = our_training(library, peak, data, truth, grad_scores)
    else:
        variant, timed, check = (our_topk if case.kind == "topk" else our_score)(library, peak, data)
    error, tolerance = check()
    row = {"case": case.name, "title": case.title, "threads": fma.threads, "flops": data.flops(),
           "variant": variant, "error": error, "tolerance": tolerance,
           "dropped": {}, "notes": {}}  # fmt: skip
    if not error <= tolerance:
        return row, {}
    only = [] if args.no_peers else args.peers.split(",") if args.peers else None
    found = peers.peers_of(data, grad_scores, only) if only != [] else {}
    if found and truth is None:
        truth = data.truth()
    for name, peer in found.items():
        got = peer.run()
        error = training_error(got, truth) if case.kind == "train" else error_of(got, truth)
        if error <= peer.tolerance:
            timed[name] = Timed(peer.run)
        else:
            of = error / np.abs(truth[0] if case.kind == "train" else truth).mean()
            row["dropped"][name] = (
                f"wrong by {error:.3g} ({of:.1%} of the mean score), allowed {peer.tolerance:.3g}"
            )
        if peer.note:
            row["notes"][name] = peer.note
    for candidate in timed.values():
        candidate.settle()
    take_rounds(timed, fma, args.rounds)
    return row, timed


def metric_of(row, metric, enough):
    """The row's value of a target's metric, or None when it was not measured or too few rounds
    count.
    """
    ours, candidates = row["lik"], row["candidates"]
    if ours["disturbed"]:
        return None
    if metric == "share":
        return ours["share_median"]
    if metric == "best share":
        return ours["share_best"]
    if metric == "fma time":
        return 1 / ours["share_median"]
    if metric == "argmax":
        ratio = median_ratio(candidates["forward with argmax"], candidates["forward"], enough)
        return None if ratio is None else ratio - 1
    if metric == "f32 time":
        return median_ratio(ours, candidates["f32"], enough)
    peer = metric.removeprefix("times ")
    if peer.startswith("best"):
        family = peer.removeprefix("best").strip()
        names = [name for name in row["peers"] if name.startswith(family)]
        peer = min(names, key=lambda name: candidates[name]["seconds_median"], default=None)
    return row["peers"].get(peer, {}).get("times_median")


def finish_row(row, case, timed, highest_peak, enough):
    """Adds results, ratios and targets to a row. `peers` leaves out ours ("lik", "f32",
    parts of the training step).
    """
    ours = {"lik", "f32", "forward", "forward with argmax", "backward"}
    row["candidates"] = {name: t.result(row["flops"], highest_peak, enough) for name, t in timed.items()}
    row["lik"] = row["candidates"]["lik"]
    row["peers"] = {}
    for name, result in row["candidates"].items():
        if name not in ours:
            row["peers"][name] = {
                "times_median": median_ratio(result, row["lik"], enough),
                "times_best": result["seconds_best"] / row["lik"]["seconds_best"],
            }
    row["targets"] = []
    for target in case.targets:
        if target.threads in (0, row["threads"]):
            got = metric_of(row, target.metric, enough)
            row["targets"].append({
                "metric": target.metric,
                "text": target.text(),
                "value": target.value,
                "got": got,
                "met": None if got is None else bool(target.holds(got)),
            })  # fmt: skip


def worker(args):
    """Measures all cases with args.threads[0] threads and writes {"peaks", "bandwidth", "rows"}
    to args.worker.
    """
    threads = args.threads[0]
    if args.upstream:
        sys.path.insert(0, str(args.upstream))
    import cases
    import liblik

    if not args.no_peers:
        import torch

        torch.set_num_threads(threads)
    peak, library = liblik.Peak(args.peak), liblik.Library(args.library, args.device, threads)
    sizes = {"L1": 16 << 10, "L2": 256 << 10, "L3": 8 << 20, "DRAM": 512 << 20}
    bandwidth = {name: [peak.read(threads, size, 0.05) for _ in range(5)] for name, size in sizes.items()}
    wanted = args.cases.split(",") if args.cases else None
    finished, fma, enough = [], FmaPeak(peak, threads), (args.rounds + 1) // 2
    for case in cases.CASES:
        if (case.threads and threads not in case.threads) or (args.quick and not case.quick and not wanted):
            continue
        if wanted and not any(case.name.startswith(start) for start in wanted):
            continue
        begin = time.perf_counter()
        row, timed = run_case(case, library, peak, fma, args)
        finished.append((row, case, timed))
        what = "done" if timed else f"WRONG: off by {row['error']:.3g}, allowed {row['tolerance']:.3g}"
        print(
            f"{threads} thread{'s' * (threads > 1)}  {case.name:12} {what}, "
            f"{time.perf_counter() - begin:.1f} s",
            file=sys.stderr,
        )
    for row, case, timed in finished:
        if timed:
            finish_row(row, case, timed, fma.highest(), enough)
    result = {
        "threads": threads,
        "fma_median": statistics.median(fma.trusted or fma.readings),
        "fma_best": fma.highest(),
        "fma_trusted": len(fma.trusted) / len(fma.readings),
        "bandwidth": {
            name: {"median": statistics.median(v), "best": max(v)} for name, v in bandwidth.items()
        },
        "rows": [row for row, _, _ in finished],
        "device": library.name(),
        "version": library.version(),
        "build": library.build_info(),
        "peak_level": peak.level(),
    }
    args.worker.write_text(json.dumps(result))


def machine():
    """What the results were measured on, and of which commit."""
    info = {
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    fields = {}
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
    info["cpu"] = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields:
        info["cpu"] += (
            f" (family {fields['cpu family']} model {fields['model']} stepping {fields['stepping']})"
        )
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "src", "include"], capture_output=True, text=True
    )
    info["commit"] = commit.stdout.strip() + ("+changes" if changed.stdout.strip() else "")
    info["date"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    return info


def versions():
    """Versions of the installed peers."""
    from importlib import metadata

    found = {}
    for name in ("torch", "numpy", "maxsim-cpu", "numkong", "late-interaction-kernels"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def main():
    args = arguments()
    if args.worker:
        worker(args)
        return 0
    import report

    if args.upstream:
        sys.path.insert(0, str(args.upstream))
    results = {
        "machine": machine(),
        "quick": args.quick,
        "rounds": args.rounds,
        "peers": versions(),
        "runs": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for threads in args.threads:
            path = Path(folder) / f"{threads}.json"
            command = [
                sys.executable,
                __file__,
                *sys.argv[1:],
                "--threads",
                str(threads),
                "--worker",
                str(path),
            ]
            environment = os.environ | {name: str(threads) for name in THREAD_VARIABLES}
            subprocess.run(command, env=environment, check=True)
            results["runs"].append(json.loads(path.read_text()))
    report.print_tables(results)
    output = args.output
    if output is None and not args.quick and not args.cases:
        output = ROOT / "bench" / "results" / f"{report.file_stem(results['machine'])}.json"
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report.rounded(results), indent=1) + "\n", encoding="utf-8")
        report.plot(results, output.with_suffix(".svg"))
        print(f"wrote {output} and {output.with_suffix('.svg')}")
    rows = [row for run in results["runs"] for row in run["rows"]]
    if not rows:
        print(f"no case begins with {args.cases!r}", file=sys.stderr)
        return 2
    wrong = [row for row in rows if "lik" not in row]
    missed = [t for row in rows for t in row.get("targets", []) if t["met"] is False]
    return 1 if wrong or (args.strict and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
