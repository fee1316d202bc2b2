#!/usr/bin/env python3
"""What the Python functions cost beside the C calls they make: the cases of cases.py from C,
from torch, from NumPy.

One process; the three take turns, and what is printed is the median over the rounds of Python's
time over C's in the same round, after the results have been compared. Run it with the package
and torch installed and the library built:

    python bench/through_python.py [--library build/release/liblik.so] [--threads 1]
                                   [--cases text,train] [--rounds 15]
"""

import argparse
import statistics
import time
from pathlib import Path

import liblik
import ml_dtypes
import numpy as np
import torch
from cases import CASES, Data
from late_interaction_kernels import maxsim, maxsim_varlen
from late_interaction_kernels.topk import maxsim_topk

from bench import LIBRARY, tokens_of

WINDOW_SECONDS = 0.05  # a timing repeats short calls for at least this long


def arrays_of(data):
    """(q, d) as NumPy arrays of the dtypes users have; i8 documents as (values, scales)."""
    q, d = data.q, data.d
    if data.case.storage == "bf16":
        q, d = q.view(ml_dtypes.bfloat16), d.view(ml_dtypes.bfloat16)
    return q, d if data.scale is None else (d, data.scale)


def tensors_of(data):
    def tensor(x):
        return (
            torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
            if x.dtype == np.uint16
            else torch.from_numpy(x)
        )

    d = tensor(data.d)
    return tensor(data.q), d if data.scale is None else (d, tensor(data.scale))


def scorer(data, q, d, offsets_of):
    """A function of no arguments that scores q against d the way a user would."""
    case = data.case
    if case.kind == "topk":
        return lambda: maxsim_topk(q, d, 10)[0]
    if case.packed():
        q, cu_q = q.reshape(-1, case.dim), offsets_of(np.arange(case.nq + 1) * case.lq)
        cu_d = offsets_of(data.offsets)
        return lambda: maxsim_varlen(q, d, cu_q, cu_d)
    storage = "int8" if case.storage == "i8" else None
    return lambda: maxsim(q, d, storage=storage)


def trainer(q, d, grad_scores):
    q, d, g = q.requires_grad_(), d.requires_grad_(), torch.from_numpy(grad_scores)

    def step():
        q.grad = d.grad = None
        scores = maxsim(q, d)
        scores.backward(g)
        return scores.detach()

    return step


def candidates_of(data, library):
    """{name: function of no arguments that returns scores}, C first."""
    case = data.case
    if case.kind == "train":
        argmax = np.empty((case.nq * case.nd, case.lq), np.int16)
        grad_scores = np.random.default_rng(1).standard_normal((case.nq, case.nd), dtype=np.float32)
        forward, scores = library.score(*tokens_of(data), argmax=argmax)
        backward = library.grad(forward, grad_scores)[0]
        return {
            "C": lambda: (forward(), backward(), scores)[2],
            "torch": trainer(*tensors_of(data), grad_scores),
        }
    if case.kind == "topk":
        call, values, _ = library.topk(*tokens_of(data), 10)
    else:
        call, values = library.score(*tokens_of(data), precision=case.precision)
    found = {"C": lambda: (call(), values)[1], "torch": scorer(data, *tensors_of(data), torch.from_numpy)}
    if case.precision == liblik.HIGHEST:  # only torch has a switch for the others
        found["NumPy"] = scorer(data, *arrays_of(data), np.asarray)
    return found


def seconds(function, calls):
    begin = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - begin) / calls


def measure(case, library, rounds):
    data = Data(case)
    torch.set_float32_matmul_precision("highest" if case.precision == liblik.HIGHEST else "medium")
    found = candidates_of(data, library)
    want = np.array(found["C"]())
    for name, function in found.items():
        got = np.asarray(function())
        assert np.abs(got - want).max() <= data.tolerance(), f"{case.name}: {name} disagrees with C"
    calls = max(1, int(WINDOW_SECONDS / seconds(found["C"], 1)))
    times = {name: [] for name in found}
    for _ in range(rounds):
        for name, function in found.items():
            times[name].append(seconds(function, calls))
    ratios = {
        name: statistics.median(t / c for t, c in zip(times[name], times["C"], strict=True))
        for name in found
        if name != "C"
    }
    return statistics.median(times["C"]), ratios


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--library", type=Path, default=LIBRARY)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cases", help="only the cases whose names begin like one of these, comma-separated")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    library = liblik.Library(args.library, threads=args.threads)
    print(f"{library.name()}, {args.threads} threads; times over C's, medians of {args.rounds} rounds")
    print(f"{'case':12s} {'C, ms':>9s} {'torch':>7s} {'NumPy':>7s}")
    for case in CASES:
        if args.cases and not case.name.startswith(tuple(args.cases.split(","))):
            continue
        ms, ratios = measure(case, library, args.rounds)
        columns = (f"{ratios[name]:7.3f}" if name in ratios else f"{'-':>7s}" for name in ("torch", "NumPy"))
        print(f"{case.name:12s} {ms * 1e3:9.3f}", *columns, flush=True)


if __name__ == "__main__":
    main()
