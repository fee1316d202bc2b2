#!/usr/bin/env python3
"""The codec beside its peers: k-means against faiss and fastkmeans on the same tokens and
cores, encoding as a share of the FMA peak measured in the same run, decoding in GB/s. Peers are
development tools of bench/requirements.txt.

    python bench/codec.py [--threads N] [--tokens N] [--centroids N] [--out FILE.json]
    python bench/codec.py --device cuda --tokens 1000000 --centroids 16384 --encoded 4000000

Every k-means sees as many tokens, drawn around directions of their own so that centroids
matter; quality is the mean squared residual of tokens that none has seen, against unit
centroids, by exact search. Times are given by the clock and in seconds of the processors, which
other programs on the machine disturb less; shares of the peak are of the latter. Needs
build/release/liblik.so and build/bench/libpeak.so (make bench).

With --device cuda the package is timed on tokens in device memory, by the clock and to the end
of the work, beside fastkmeans on the same tokens in device memory (without its copies from the
host; f16, its default there) and the same k-means in plain torch; encoding beside plain torch,
and as a share of torch's 4096^3 bf16 product in the same run. Needs the package with the CUDA
backend."""

import argparse
import json
import platform
import time
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
from liblik import F16, F32, HIGHEST, MEDIUM, Library, Peak, packed_tokens

from bench import LIBRARY, PEAK

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
    centers = np.random.default_rng(7).standard_normal((directions, DIM)).astype(np.float32)
    which = np.minimum((directions * rng.random(count) ** 2).astype(np.int64), directions - 1)
    x = centers[which] + 0.7 * rng.standard_normal((count, DIM)).astype(np.float32)
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


# ---- CUDA ----


def seconds_on_gpu(call):
    import torch

    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def draw_on_gpu(count, directions, seed):
    """As draw, in device memory."""
    import torch

    centers = np.random.default_rng(7).standard_normal((directions, DIM)).astype(np.float32)
    centers, rng = torch.from_numpy(centers).cuda(), torch.Generator("cuda").manual_seed(seed)
    which = (
        (directions * torch.rand(count, device="cuda", generator=rng) ** 2).long().clamp_(max=directions - 1)
    )
    x = 0.7 * torch.randn(count, DIM, device="cuda", generator=rng)
    return torch.nn.functional.normalize(x.add_(centers[which]), dim=-1)


def products_peak():
    """Flop a second of torch's 4096^3 bf16 product."""
    import torch

    a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    seconds = [seconds_on_gpu(lambda: [a @ a for _ in range(20)]) / 20 for _ in range(5)]
    return 2 * 4096**3 / min(seconds)


def torch_kmeans(x, count):
    """The same k-means in plain torch: bf16 products a chunk at a time, sums by index_add_."""
    import torch

    half = x.to(torch.bfloat16)
    centroids = torch.nn.functional.normalize(x[torch.randperm(len(x), device="cuda")[:count]], dim=-1)
    for _ in range(ITERATIONS):
        table = centroids.to(torch.bfloat16).T.contiguous()
        codes = torch.cat([(part @ table).argmax(1) for part in half.split(1 << 16)])
        sums = torch.zeros_like(centroids).index_add_(0, codes, x)
        empty = sums.square().sum(1) == 0
        sums[empty] = x[torch.randint(len(x), (int(empty.sum()),), device="cuda")]
        centroids = torch.nn.functional.normalize(sums, dim=-1)
    return centroids


def torch_encode(x, codec):
    """The same codes and buckets in plain torch, packed; products in the tokens' dtype."""
    import torch

    table, centroids = codec.centroids.to(x.dtype).T.contiguous(), codec.centroids.float()
    codes, residuals = [], []
    for part in x.split(1 << 16):
        codes.append((part @ table).argmax(1))
        buckets = torch.bucketize(part.float() - centroids[codes[-1]], codec.cutoffs).to(torch.uint8)
        residuals.append(buckets[:, ::2] | buckets[:, 1::2] << 4)
    return torch.cat(codes), torch.cat(residuals)


def kmeans_on_gpu(arguments):
    import torch
    from fastkmeans.kmeans import HAS_TRITON, _kmeans_torch_double_chunked
    from late_interaction_kernels import plaid

    count = arguments.centroids
    train = draw_on_gpu(arguments.tokens, arguments.directions, 1)
    more = torch.cat([train, draw_on_gpu(-(-len(train) // 19), arguments.directions, 3)])
    unseen = draw_on_gpu(HELD_OUT, arguments.directions, 2)
    norms, tokens = train.square().sum(1), {"f32": more, "bf16": more.to(torch.bfloat16)}

    def ours(dtype, precision):
        about = {"n_centroids": count, "iterations": ITERATIONS, "precision": precision}
        return lambda: plaid.train_codec(tokens[dtype], BITS, **about).centroids

    def by_fastkmeans():
        about = {"k": count, "device": train.device, "max_iters": ITERATIONS, "use_triton": HAS_TRITON}
        about |= {"chunk_size_data": 51200, "chunk_size_centroids": 10240}
        return _kmeans_torch_double_chunked(train, norms, **about)[0].cuda()

    def residual(centroids):
        units = torch.nn.functional.normalize(centroids.float(), dim=-1)
        return float((unseen - units[(unseen @ units.T).argmax(1)]).square().sum(1).mean())

    runs = {f"lik, f32 tokens, {name}": ours("f32", name) for name in ("highest", "high", "medium")}
    runs |= {"lik, bf16 tokens, medium": ours("bf16", "medium"), "fastkmeans": by_fastkmeans}
    runs |= {"torch, bf16 products": lambda: torch_kmeans(train, count)}
    rows = {name: {"seconds": [], "mean_squared_residual": residual(run())} for name, run in runs.items()}
    for _ in range(arguments.repeats):
        for name, run in runs.items():
            rows[name]["seconds"].append(seconds_on_gpu(run))
    for name, row in rows.items():
        row["median_seconds"] = float(np.median(row["seconds"]))
        print(
            f"k-means  {name:26} {row['median_seconds']:8.4f} s, residual {row['mean_squared_residual']:.5f}"
        )
    return rows


def encode_on_gpu(arguments):
    import torch
    from late_interaction_kernels import plaid

    tokens = draw_on_gpu(arguments.encoded, arguments.directions, 4)
    codec = plaid.train_codec(tokens, BITS, n_centroids=arguments.centroids, iterations=1, precision="medium")
    runs, half = {}, codec._replace(centroids=codec.centroids.half())
    for dtype, given, precision in (
        (torch.float32, codec, "highest"),
        (torch.float32, codec, "medium"),
        (torch.float16, half, "highest"),
    ):
        x = tokens.to(dtype)
        name = str(dtype).removeprefix("torch.")
        runs[f"encode {name}, {precision}"] = lambda x=x, c=given, p=precision: plaid.encode(
            x, c, precision=p
        )
    runs["encode torch, float16"] = partial(torch_encode, x, half)
    found = plaid.encode(tokens, codec)
    for dtype in ("float32", "bfloat16"):
        runs[f"decode {dtype}"] = partial(plaid.decode, *found, codec, dtype=dtype)
    peak = products_peak()
    rows = {"peak": {"tflops": peak / 1e12}}
    for name, run in runs.items():
        run()
        rows[name] = {"seconds": []}
    for _ in range(arguments.repeats):
        for name, run in runs.items():
            rows[name]["seconds"].append(seconds_on_gpu(run))
    for name, row in list(rows.items())[1:]:
        row["median_seconds"] = float(np.median(row["seconds"]))
        tail = ""
        if name.startswith("encode"):
            row["share"] = 2 * len(tokens) * arguments.centroids * DIM / row["median_seconds"] / peak
            tail = f", {row['share']:.3f} of the products' peak, {peak / 1e12:.0f} TFLOP/s"
        print(f"{name:28} {row['median_seconds']:8.4f} s{tail}")
    return rows


def main_on_gpu(arguments):
    import torch

    result = {"date": str(date.today()), "machine": torch.cuda.get_device_name(), "torch": torch.__version__}
    names = ("tokens", "encoded", "centroids", "directions")
    result |= {name: getattr(arguments, name) for name in names}
    result |= {"dim": DIM, "bits": BITS, "iterations": ITERATIONS}
    result["kmeans"] = kmeans_on_gpu(arguments)
    result["codec"] = encode_on_gpu(arguments)
    return result


def write(arguments, result):
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(arguments.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=400_000, help="of k-means")
    parser.add_argument("--encoded", type=int, default=200_000)
    parser.add_argument("--centroids", type=int, default=8192)
    parser.add_argument("--directions", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--library", type=Path, default=LIBRARY)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    kind = "codec-gpu" if arguments.device == "cuda" else "codec"
    arguments.out = arguments.out or ROOT / f"bench/results/{kind}-{date.today()}.json"
    if arguments.device == "cuda":
        return write(arguments, main_on_gpu(arguments))
    library = Library(arguments.library, "cpu", arguments.threads)
    peak = Peak(PEAK)
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
    write(arguments, result)


if __name__ == "__main__":
    main()
