#!/usr/bin/env python3
"""The codec beside its peers: k-means against faiss and fastkmeans on the same tokens and
cores, encoding as a share of the FMA peak measured in the same run, decoding in GB/s. Peers are
development tools of bench/requirements.txt.

    python bench/codec.py [--threads N] [--tokens N] [--centroids N] [--out FILE.json]

Every k-means sees as many tokens, drawn around directions of their own so that centroids
matter; quality is the mean squared residual of tokens that none has seen, against unit
centroids, by exact search. Times are given by the clock and in seconds of the processors, which
other programs on the machine disturb less; shares of the peak are of the latter. Needs
build/release/liblik.so and build/bench/libpeak.so (make bench)."""

import argparse
import json
import platform
import time
from datetime import date
from pathlib import Path

import numpy as np
from liblik import F16, F32, HIGHEST, MEDIUM, Library, Peak, packed_tokens

ROOT = Path(__file__).resolve().parent.parent
DIM, BITS, ITERATIONS, HELD_OUT = 128, 4, 4, 20000


def seconds_of(call):
    """(by the clock, of all processors)"""
    start, used = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - used


def peak_of(peak, threads):
    """Flop a second of a processor."""
    rates = []
    seconds, used = seconds_of(lambda: rates.append(peak.fma(threads, 0.3)))
    return rates[0] * seconds / used


def draw(count, directions, seed):
    """Unit tokens around `directions` that the fewer have the more tokens, as words do."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((directions, DIM)).astype(np.float32)
    which = np.minimum((directions * rng.random(count) ** 2).astype(np.int64), directions - 1)
    x = centres[which] + 0.7 * rng.standard_normal((count, DIM)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def residual_of(library, centroids, tokens):
    """Mean squared residual of these tokens, the nearest of the centroids' directions taken."""
    units = np.ascontiguousarray(centroids / np.linalg.norm(centroids, axis=1, keepdims=True))
    zeros = np.zeros(2, np.float32)
    call, _, codes, _, _ = library.encode(one_sequence(tokens), units, zeros[:1], zeros, 1)
    call()
    return float(((tokens - units[codes]) ** 2).sum(1).mean())


def one_sequence(tokens):
    return packed_tokens(tokens, F32, np.array([0, len(tokens)]))


def kmeans_rows(library, train, unseen, arguments):
    import faiss
    import torch
    from fastkmeans import FastKMeans

    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    count = arguments.centroids
    # a twentieth is held out of ours: it gets as many more, so that k-means sees the same
    more = np.concatenate([train, draw(-(-len(train) // 19), arguments.directions, 3)])

    def ours(precision):
        def run():
            call, centroids, _, _, found = library.train(
                one_sequence(more), count, BITS, ITERATIONS, 42, precision
            )
            seconds = seconds_of(call)
            return seconds, centroids, f"{call.variant}, {found.points} points, {found.reseeded} reseeded"

        return run

    def by_faiss(spherical):
        def run():
            peer = faiss.Kmeans(DIM, count, niter=ITERATIONS, seed=123, spherical=spherical)
            return seconds_of(lambda: peer.train(train)), peer.centroids, f"faiss {faiss.__version__}"

        return run

    def by_fastkmeans():
        peer = FastKMeans(d=DIM, k=count, niter=ITERATIONS, tol=1e-8, gpu=False, seed=42)
        return seconds_of(lambda: peer.train(train)), np.asarray(peer.centroids), "fastkmeans 0.5.0"

    runs = {
        "lik, f32": ours(HIGHEST),
        "lik, LIK_MEDIUM": ours(MEDIUM),
        "faiss": by_faiss(False),
        "faiss, spherical": by_faiss(True),
        "fastkmeans": by_fastkmeans,
    }
    rows = {}
    for repeat in range(arguments.repeats):
        for name, run in runs.items():
            seconds, centroids, what = run()
            row = rows.setdefault(name, {"what": what, "seconds": []})
            row["seconds"].append(seconds)
            if repeat == 0:
                row["mean_squared_residual"] = residual_of(library, centroids, unseen)
    for name, row in rows.items():
        row["best_seconds"], row["best_processor_seconds"] = map(min, zip(*row["seconds"], strict=True))
        print(
            f"k-means  {name:18} {row['best_seconds']:8.2f} s, {row['best_processor_seconds']:8.2f} s of the "
            f"processors, residual {row['mean_squared_residual']:.5f}"
        )
    return rows


def encode_rows(library, peak, tokens, arguments):
    call, centroids, cutoffs, weights, _ = library.train(
        one_sequence(tokens), arguments.centroids, BITS, 1, 42, MEDIUM
    )
    call()
    encode, codec, codes, residuals, inv_norms = library.encode(
        one_sequence(tokens), centroids, cutoffs, weights, BITS
    )
    flop = 2.0 * len(tokens) * arguments.centroids * DIM
    best, limit = 0.0, 0.0
    for _ in range(3 * arguments.repeats):
        before = peak_of(peak, arguments.threads)
        rate = flop / seconds_of(encode)[1]
        best, limit = max(best, rate), max(limit, before, peak_of(peak, arguments.threads))
    row = {"tokens": len(tokens), "gflops": best / 1e9, "peak_gflops": limit / 1e9, "share": best / limit}
    print(f"encode   {row['gflops']:.1f} of {row['peak_gflops']:.1f} Gflop/s a processor, {row['share']:.3f}")
    rows = {"encode": row}
    for dtype, name in ((F32, "f32"), (F16, "f16")):
        decode, out = library.decode(codec, codes, residuals, inv_norms, DIM, dtype)
        decode()
        seconds = min(seconds_of(decode)[0] for _ in range(10 * arguments.repeats))
        rows[f"decode {name}"] = {
            "written_gb_s": out.nbytes / seconds / 1e9,
            "million_tokens_s": len(tokens) / seconds / 1e6,
        }
        print(f"decode   {name}: {out.nbytes / seconds / 1e9:.2f} GB/s written")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=400_000, help="of k-means")
    parser.add_argument("--encoded", type=int, default=200_000)
    parser.add_argument("--centroids", type=int, default=8192)
    parser.add_argument("--directions", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--library", type=Path, default=ROOT / "build/release/liblik.so")
    parser.add_argument("--out", type=Path, default=ROOT / f"bench/results/codec-{date.today()}.json")
    arguments = parser.parse_args()
    library = Library(arguments.library, "cpu", arguments.threads)
    peak = Peak(ROOT / "build/bench/libpeak.so")
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    result = {
        "date": str(date.today()),
        "machine": names[0].split(":")[1].strip() if names else platform.processor(),
        "build": library.build_info(),
        "threads": arguments.threads,
        "tokens": arguments.tokens,
        "centroids": arguments.centroids,
        "dim": DIM,
        "bits": BITS,
        "iterations": ITERATIONS,
    }
    train = draw(arguments.tokens, arguments.directions, 1)
    unseen = draw(HELD_OUT, arguments.directions, 2)
    result["kmeans"] = kmeans_rows(library, train, unseen, arguments)
    del train
    result |= encode_rows(library, peak, draw(arguments.encoded, arguments.directions, 4), arguments)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(arguments.out)


if __name__ == "__main__":
    main()
