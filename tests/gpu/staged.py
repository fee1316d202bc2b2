"""Checks that `lik` overlaps the copies of a mapped file to the GPU with scoring, and that the
pieces do not show.

    python3 tests/gpu/staged.py --lik build/cuda/lik [--device cuda:0] [--gb 4]
                                [--piece 67108864] [--seconds 60] [--folder DIR]
                                [--out FILE.json]

Makes --gb of f16 documents, 512 tokens of 128 dimensions each, and scores them by the command
in small pieces (LIK_STAGED=--piece), in pieces of its own choice and in no pieces: whole calls,
copied and then scored. Scores, those of listed pairs and of a run must agree bit for bit, and
some of them with f32 products. From the times: scoring for one query is nothing but copies;
what whole calls take beyond that is scoring; "overlapped" is the share of the shorter of the
two that pieces hide. Next to it, what a plain read and copy of the file reaches. The figures go
under "staged" into FILE, which may be one of bench/gpu.py's. Exits non-zero if scores differ.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

TOKENS, DIM, LQ = 512, 128, 32
WHOLE = 1 << 50


def unit(count, length, device):
    x = torch.randn(count, length, DIM, device=device)
    return torch.nn.functional.normalize(x, dim=-1).half().cpu().numpy()


def make(folder, documents, queries, device):
    """d.npy, q.npy, and one.npy, the first query alone."""
    np.save(folder / "q.npy", unit(queries, LQ, device))
    np.save(folder / "one.npy", np.load(folder / "q.npy")[:1])
    with open(folder / "d.npy", "wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (documents, TOKENS, DIM)}
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, documents, 1024):
            file.write(unit(min(1024, documents - first), TOKENS, device))


class Runs:
    """Runs of the command within the time."""

    def __init__(self, args, folder):
        self.args, self.folder, self.end = args, folder, time.monotonic() + args.seconds

    def __call__(self, *words, piece=None):
        """(standard output, seconds of copies and scoring, seconds of the command)"""
        environment = {**os.environ, "LIK_STAGED": str(piece)} if piece else dict(os.environ)
        command = [self.args.lik, *map(str, words), "--device", self.args.device, "-v"]
        start = time.monotonic()
        done = subprocess.run(
            command,
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=max(self.end - start, 1),
        )
        took = time.monotonic() - start
        if done.returncode:
            sys.exit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr[-600:]}")
        found = re.search(r"score ([0-9.]+) ms", done.stderr)
        return done.stdout, float(found[1]) * 1e-3 if found else float("nan"), took

    def matrix(self, queries, piece):
        _, seconds, took = self("score", queries, "d.npy", "--all", "-o", "out.npy", piece=piece)
        return np.load(self.folder / "out.npy"), seconds, took


def same(a, b):
    return a.shape == b.shape and np.array_equal(a.view(np.int32), b.view(np.int32))


def plain(path, device):
    """Bytes a second of the file, in the page cache, to the device: from the mapping, and read
    into pinned memory.
    """
    data = torch.from_numpy(np.memmap(path, np.uint8, "c", 128))
    piece, rates = 1 << 26, {}
    to = torch.empty(piece, dtype=torch.uint8, device=device)
    pinned = torch.empty(piece, dtype=torch.uint8, pin_memory=device != "cpu")

    def mapped():
        for part in data.split(piece):
            to[: len(part)].copy_(part)

    def read():
        with open(path, "rb", buffering=0) as file:
            while n := file.readinto(pinned.numpy()):
                to[:n].copy_(pinned[:n])

    for name, copy in (("mapped", mapped), ("read", read)):
        best = float("inf")
        for _ in range(2):
            start = time.perf_counter()
            copy()
            if device != "cpu":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
        rates[name] = len(data) / best
    return rates


def check(runs, args, documents):
    """The list of what differs, and the figures."""
    wrong, figures = [], {}
    runs.matrix("one.npy", args.piece)  # the driver wakes up, the file is in the page cache
    _, copying, _ = runs.matrix("one.npy", args.piece)
    want, whole, _ = runs.matrix("q.npy", WHOLE)
    for name, piece in (("pieces", args.piece), ("default", None)):
        got, seconds, took = min((runs.matrix("q.npy", piece) for _ in range(2)), key=lambda run: run[1])
        figures[name] = {"score_s": seconds, "command_s": took}
        if not same(got, want):
            wrong.append(f"scores of {name} differ from those of whole calls")
    d, q = np.load(runs.folder / "d.npy", "r"), np.load(runs.folder / "q.npy")
    for i, j in ((0, 0), (len(q) // 2, documents // 3), (len(q) - 1, documents - 1)):
        exact = (q[i].astype(np.float32) @ d[j].astype(np.float32).T).max(1).sum()
        if not abs(exact - want[i, j]) < 1e-4 * LQ:
            wrong.append(f"query {i}, document {j}: {want[i, j]}, must be {exact}")
    rng = np.random.default_rng(1)
    pairs = {i: rng.choice(documents, min(256, documents), replace=False) for i in range(min(16, len(q)))}
    (runs.folder / "run").write_text("".join(f"{i} Q0 {j} 1 1 t\n" for i, js in pairs.items() for j in js))
    (runs.folder / "pairs").write_text("".join(f"{i} {j}\n" for i, js in pairs.items() for j in js))
    expected = np.concatenate([want[i, js] for i, js in pairs.items()])
    runs("score", "q.npy", "d.npy", "--pairs", "pairs", "-o", "pairs.npy", piece=args.piece)
    if not same(np.load(runs.folder / "pairs.npy"), expected):
        wrong.append("scores of pairs differ")
    text, *_ = runs("rerank", "q.npy", "d.npy", "run", piece=args.piece)
    rows = [line.split("\t") for line in text.splitlines()]
    found = np.array([float(row[3]) for row in rows], np.float32)
    if len(rows) != len(expected) or not same(
        found, want[[int(r[0]) for r in rows], [int(r[1]) for r in rows]]
    ):
        wrong.append("scores of the run differ")
    pieces, kernels = figures["pieces"]["score_s"], max(whole - copying, 1e-9)
    hidden = (copying + kernels - pieces) / min(copying, kernels)
    figures |= {"copies_s": copying, "whole_s": whole, "kernels_s": kernels, "overlapped": hidden}
    return wrong, figures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lik", required=True, type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--gb", type=float, default=4)
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--piece", type=int, default=1 << 26)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--folder", help="where the files are made")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    documents, device = max(int(args.gb * 1e9 / (TOKENS * DIM * 2)), 3), args.device.split(":")[0]
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        runs = Runs(args, Path(folder))
        make(runs.folder, documents, args.queries, device)
        size = documents * TOKENS * DIM * 2
        print(
            f"{documents} documents, {size * 1e-9:.2f} GB, {args.seconds - runs.end + time.monotonic():.1f} "
            "s to make"
        )
        rates = plain(runs.folder / "d.npy", device)
        try:
            wrong, figures = check(runs, args, documents)
        except subprocess.TimeoutExpired:
            sys.exit(f"not done within {args.seconds:.0f} s")
    gpu = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    figures |= {"gpu": gpu, "bytes": size, "queries": args.queries, "piece": args.piece}
    figures["plain_GB_s"] = {name: rate * 1e-9 for name, rate in rates.items()}
    for name in ("copies_s", "whole_s"):
        print(f"{name[:-2]:8s} {figures[name]:.3f} s, {size / figures[name] * 1e-9:.2f} GB/s")
    for name in ("pieces", "default"):
        seconds, took = figures[name]["score_s"], figures[name]["command_s"]
        print(f"{name:8s} {seconds:.3f} s, {size / seconds * 1e-9:.2f} GB/s (the whole command {took:.2f} s)")
    print("plain    " + ", ".join(f"{name} {rate * 1e-9:.2f} GB/s" for name, rate in rates.items()))
    print(
        f"scoring alone {figures['kernels_s']:.3f} s; overlapped: {figures['overlapped']:.0%} of the shorter"
    )
    if args.out:
        content = json.loads(args.out.read_text()) if args.out.exists() else {}
        args.out.write_text(json.dumps({**content, "staged": figures}, indent=1))
    for text in wrong:
        print("FAIL", text)
    print("scores differ" if wrong else "all scores are the same, bit for bit")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
