#!/usr/bin/env python3
"""The quantizers beside the same thing in torch, eager and compiled: milliseconds, and GB/s of
what is read and written once. Needs the package and torch.

    python bench/quantize.py [--device cuda] [--tokens N] [--dim N] [--rounds N]

Every round times all forms one after another; medians and the best are given. On CUDA the times
are the device's, between events around a few calls.
"""

import argparse
import os
import statistics
import time
import warnings
from functools import partial

os.environ.setdefault("LIK_SUPPRESS_NORM_WARN", "1")

import torch
from late_interaction_kernels.fp8 import quantize_fp8_per_token
from late_interaction_kernels.int8 import quantize_int8_per_token

CALLS = 5  # on CUDA, between two events


def by_torch(x, kind, normalize):
    wide, most = x.float(), 127.0 if kind is torch.int8 else torch.finfo(kind).max
    scale = wide.abs().amax(-1).clamp_min(1e-12 if kind is torch.int8 else 1e-6) / most
    v = (wide / scale[..., None]).clamp(-most, most)
    values = v.round().to(kind) if kind is torch.int8 else v.to(kind)
    if normalize:
        scale = scale / (v.square().sum(-1).sqrt() * scale).clamp_min(1e-12)
    return values, scale


def by_package(x, kind, normalize):
    if kind is torch.int8:
        return quantize_int8_per_token(x, normalize=normalize)
    return quantize_fp8_per_token(x, kind, normalize=normalize)


def milliseconds(call, device):
    if device == "cpu":
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1e3
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(2_000_000)  # so that the host's part of the calls is over when they begin
    start.record()
    for _ in range(CALLS):
        call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / CALLS


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compiled", action="store_true", help="torch.compile's form of it, too")
    arguments = parser.parse_args()
    device = arguments.device
    tokens = arguments.tokens or (5_000_000 if device == "cuda" else 640_000)
    print(torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads")
    print(f"{tokens:,} tokens of {arguments.dim} elements, {arguments.rounds} rounds")
    warnings.simplefilter("ignore")
    forms = {"package": by_package, "torch": by_torch}
    if arguments.compiled:
        forms["torch.compile"] = torch.compile(by_torch, dynamic=False)
    for dtype in (torch.float32, torch.float16):
        x = torch.randn(tokens, arguments.dim, device=device).to(dtype)
        size = x.numel() * (x.element_size() + 1) + tokens * 4
        for kind in (torch.int8, torch.float8_e4m3fn, torch.float8_e5m2):
            for normalize in (False, True):
                found = {name: [] for name in forms}
                for n in range(arguments.rounds + 1):
                    for name, form in forms.items():
                        ms = milliseconds(partial(form, x, kind, normalize), device)
                        found[name] += [ms] if n else []
                what = f"{dtype} to {kind}{', unit' if normalize else ''}".replace("torch.", "")
                texts = [
                    f"{name} {statistics.median(ms):.3f} ms ({min(ms):.3f}), {size / min(ms) / 1e6:.0f} GB/s"
                    for name, ms in found.items()
                ]
                print(f"{what:32}", "; ".join(texts), flush=True)


if __name__ == "__main__":
    main()
