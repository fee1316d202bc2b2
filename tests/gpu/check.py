"""Checks the CUDA backend against f64 on random awkward problems, and its promises bit by bit.

    python3 tests/gpu/check.py --lib build/liblik.so [--cases 400] [--seconds 120] [--seed 1]
                               [--only NAME]

Every output and workspace stands between guard bands and is poisoned before each run. Exits
non-zero on the first ten failures. LIK_CUDA_ARCH=80 or 75 in the environment checks the paths
of older GPUs on the same machine."""

import argparse
import os
import sys
import time

import torch
from compressed import check_compressed
from harness import Device, fail
from operations import check_grad, check_refused, check_streams, check_threads, check_topk
from scores import (
    check_batches,
    check_large,
    check_masks,
    check_pairs,
    check_random,
    check_slices,
    check_special,
    check_widths,
)

CHECKS = {
    "special": check_special,
    "random": check_random,
    "batches": check_batches,
    "masks": check_masks,
    "widths": check_widths,
    "pairs": check_pairs,
    "topk": check_topk,
    "grad": check_grad,
    "streams": check_streams,
    "slices": check_slices,
    "threads": check_threads,
    "refused": check_refused,
    "compressed": check_compressed,
    "large": check_large,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lib", required=True)
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    device = Device(args.lib)
    print(
        device.c.name(),
        torch.cuda.get_device_name(),
        "LIK_CUDA_ARCH",
        os.environ.get("LIK_CUDA_ARCH", "unset"),
        flush=True,
    )
    for name, check in CHECKS.items():
        if not args.only or name in args.only.split(","):
            start = time.time()
            check(device, args)
            print(f"  {name}: {time.time() - start:.1f} s", flush=True)
    print("failures:", fail.count)
    sys.exit(1 if fail.count else 0)


if __name__ == "__main__":
    main()
