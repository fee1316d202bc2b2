#!/usr/bin/env python3
"""What documents of 8 bits cost and give: time of `retrieve` of documents in 16 bits, in int8,
in fp8, and exactly from either copy (`exact=True`); recall@10 and @100 against 16 bits; the
share of pairs that the exact call scores in full. The exact results must be those of 16 bits
bit by bit, or the run fails.

    python bench/exact.py [--device cuda] [--collections demo,clustered] [--out FILE.json]

The demo's documents are real, packed and of any length, and come from int8, so that int8 loses
nearly nothing there; the clustered ones are drawn: unit
tokens around directions of their document's topic, so that thousands of documents lie close
together. Calls are interleaved, times are medians. Needs the package (make bench)."""

import argparse
import json
import platform
import statistics
import time
from datetime import date
from pathlib import Path

import torch
from late_interaction_kernels import exact, fp8, int8, retrieve
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent


def clustered(count, tokens, dim, seed, device, topics=2000, part=1000):
    """[count, tokens, dim]: a topic's directions, and noise of 0.7 of their length."""
    g = torch.Generator(device).manual_seed(seed)
    centers = torch.randn(topics, 8, dim, generator=torch.Generator().manual_seed(7)).to(device)
    for a in range(0, count, part):
        n = min(part, count - a)
        topic = torch.randint(topics, (n, 1), generator=g, device=device)
        which = torch.randint(8, (n, tokens), generator=g, device=device)
        x = centers[topic, which] + 0.7 * torch.randn(n, tokens, dim, generator=g, device=device)
        yield torch.nn.functional.normalize(x, dim=-1)


def demo(device, dtype):
    """(queries, documents, offsets of either)"""
    found = []
    for name in ("queries", "documents"):
        x = load_file(str(ROOT / "demo" / f"{name}.safetensors"))
        tokens = x["embeddings"].float() * x["scales"][:, None]
        offsets = torch.nn.functional.pad(x["lengths"].cumsum(0), (1, 0))
        found.append((tokens.to(device, dtype), offsets.to(device)))
    (queries, cu_q), (documents, cu_d) = found
    return queries, documents, {"cu_seqlens_q": cu_q}, cu_d


def drawn(device, dtype, arguments):
    parts = [x.to(device, dtype) for x in clustered(arguments.documents, arguments.tokens, 128, 0, device)]
    queries = torch.cat(list(clustered(arguments.queries, 32, 128, 1, device))).to(device, dtype)
    return queries, torch.cat(parts), {}, None


def seconds_of(call, device):
    if device == "cpu":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def recall(found, wanted):
    hits = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), wanted.tolist(), strict=True))
    return hits / wanted.numel()


def rows_of(name, queries, documents, packing, offsets, arguments):
    """A row for each way, of one collection."""
    about = {**packing, "cu_seqlens_d": offsets}
    makers = {"int8": int8.quantize_int8_per_token, "fp8": fp8.quantize_fp8_per_token}
    unit = torch.nn.functional.normalize(queries.float(), dim=-1).to(queries.dtype)
    ways = {"16 bits": lambda k: retrieve(queries, documents, k, **about)}
    shares, kept = {}, {}
    for storage, quantize in makers.items():
        pair = quantize(documents, normalize=True)
        kept[storage] = exact.two_copies(documents, storage, cu_seqlens_d=offsets)
        ways[storage] = lambda k, s=storage, p=pair: retrieve(unit, p, k, storage=s, normalize=False, **about)
        ways[f"exact, {storage}"] = lambda k, s=storage: retrieve(
            queries, kept[s], k, storage=s, exact=True, **packing
        )
    wanted = {k: ways["16 bits"](k) for k in (10, 100)}
    rows = {way: {"collection": name, "way": way} for way in ways}
    for way, call in ways.items():
        for k, want in wanted.items():
            shares[way] = []
            with watched(shares[way]):
                got = call(k)
            rows[way][f"recall@{k}"] = round(recall(got[1], want[1]), 5)
            if way.startswith("exact"):
                pairs = want[0].shape[0] * count(documents, offsets)
                rows[way][f"in full, k {k}"] = round(sum(shares[way]) / pairs, 6) if shares[way] else 1.0
                assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), (name, way, k)
    taken = {way: [] for way in ways}
    for _ in range(arguments.rounds):
        for way, call in ways.items():
            taken[way].append(seconds_of(lambda c=call: c(arguments.k), arguments.device))
    for way, row in rows.items():
        row["ms"] = round(statistics.median(taken[way]) * 1e3, 4)
        row["of 16 bits"] = round(row["ms"] / rows["16 bits"]["ms"], 3) if way != "16 bits" else 1.0
        yield row


def count(documents, offsets):
    return len(documents) if offsets is None else len(offsets) - 1


class watched:
    """While it lasts, the number of candidates of every exact call is appended to a list."""

    def __init__(self, into):
        self.into, self.candidates = into, exact.candidates

    def __enter__(self):
        def look(*arguments):
            found = self.candidates(*arguments)
            self.into.append(len(found[0]))
            return found

        exact.candidates = look

    def __exit__(self, *_):
        exact.candidates = self.candidates


def processor():
    """Its name and the threads of a call."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.machine()])[0]}, {torch.get_num_threads()} threads"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--collections", default="demo,clustered")
    parser.add_argument("--documents", type=int, default=20000, help="of the clustered collection")
    parser.add_argument("--tokens", type=int, default=32, help="of each of them")
    parser.add_argument("--queries", type=int, default=8, help="of 32 tokens, for them")
    parser.add_argument("--k", type=int, default=10, help="of the calls that are timed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", help="JSON file")
    arguments = parser.parse_args()
    dtype = torch.float16 if arguments.device == "cpu" else torch.bfloat16
    machine = processor() if arguments.device == "cpu" else torch.cuda.get_device_name()
    rows = []
    for name in arguments.collections.split(","):
        given = demo(arguments.device, dtype) if name == "demo" else drawn(arguments.device, dtype, arguments)
        for row in rows_of(name, *given, arguments):
            rows.append(row)
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    if arguments.out:
        about = {"date": str(date.today()), "machine": machine, "dtype": str(dtype), **vars(arguments)}
        del about["out"]
        Path(arguments.out).write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
