"""What a call costs besides its kernel, beside torch.add: python tests/python/overhead.py

The kernel is timed through _native.score into a ready array: reading its three arguments is in
that figure. A step of training stands beside one whose Function allocates the same results and
no more; what it takes over that is kernels and what this package adds. (On a GPU,
bench/gpu.py has both figures.)
"""

from __future__ import annotations

import timeit

import numpy as np
import torch
from late_interaction_kernels import _native, maxsim


def microseconds(function, number=3000, repeat=21):
    return min(timeit.repeat(function, number=number, repeat=repeat)) / number * 1e6


def main():
    torch.set_num_threads(1)
    q, d = torch.nn.functional.normalize(torch.randn(1, 8, 32), dim=-1), torch.randn(2, 8, 32)
    maxsim(q, d)
    a, b, out = q.numpy(), d.numpy(), torch.empty(1, 2)
    rest = (*[None] * 12, *[0] * 7, out, None)
    tiny = torch.nn.functional.normalize(torch.randn(4, 4, 16), dim=-1)
    leaf_q, leaf_d, g = tiny[:2].clone().requires_grad_(), tiny[2:].clone().requires_grad_(), torch.ones(2, 2)
    x = torch.randn(1, 2, requires_grad=True)

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, d):
            ctx.save_for_backward(q, d)
            return torch.empty(2, 2)

        @staticmethod
        def backward(ctx, grad):
            return tuple(torch.empty_like(saved) for saved in ctx.saved_tensors)

    def train(scored):
        leaf_q.grad = leaf_d.grad = None
        scored(leaf_q, leaf_d).backward(g)

    def train_add():
        torch.add(x, x).backward(torch.ones(1, 2))

    steps = [
        (microseconds(lambda: train(maxsim), 500, 1), microseconds(lambda: train(Nothing.apply), 500, 1))
        for _ in range(41)
    ]
    step, nothing = map(min, zip(*steps, strict=True))
    rows = {
        "torch.add": microseconds(lambda: torch.add(q, q)),
        "kernel with its arguments read": microseconds(lambda: _native.score(q, d, *rest)),
        "maxsim, torch": microseconds(lambda: maxsim(q, d)),
        "maxsim, NumPy": microseconds(lambda: maxsim(a, b)),
        "np.add": microseconds(lambda: np.add(a, a)),
        "maxsim forward + backward": step,
        "a Function that only allocates": nothing,
        "what maxsim adds, kernels included": step - nothing,
        "torch.add forward + backward": microseconds(train_add, 500),
    }
    for name, value in rows.items():
        print(f"{name:34s} {value:8.2f} us")


if __name__ == "__main__":
    main()
