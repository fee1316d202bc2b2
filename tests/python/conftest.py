"""Shared pieces: exact expectations in float64, and the tolerances that follow from float32
sums.
"""

from __future__ import annotations

import os

os.environ.setdefault("LIK_SUPPRESS_NORM_WARN", "1")

import pytest
import torch
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Expected:
    """MaxSim in float64 with every intermediate, of [Nq, Lq, d] x [Nd, Ld, d] or [Nq, K, Ld,
    d].
    """

    def __init__(self, q, d, q_mask=None, d_mask=None, weights=None, normalize=False):
        q, d = q.detach().double(), d.detach().double()
        if normalize:
            q, d = (torch.nn.functional.normalize(x, dim=-1, eps=1e-12) for x in (q, d))
        d4 = d if d.dim() == 4 else d[None].expand(q.shape[0], *d.shape)
        self.similarity = torch.einsum("qsc,qktc->qkst", q, d4)
        kept = torch.ones(d4.shape[:3], dtype=torch.bool)
        if d_mask is not None:
            kept = kept & (d_mask if d_mask.dim() == 3 else d_mask[None])
        self.kept = kept[:, :, None, :].expand(self.similarity.shape)
        factor = torch.ones(q.shape[:2], dtype=torch.float64)
        if weights is not None:
            factor = factor * weights.detach().double()
        if q_mask is not None:
            factor = factor * q_mask
        self.factor = factor[:, None]
        self.masked = self.similarity.masked_fill(~self.kept, -torch.inf)
        any_kept = self.kept.any(-1)
        best = (
            self.masked.amax(-1)
            if self.masked.shape[-1]
            else torch.zeros(any_kept.shape, dtype=torch.float64)
        )
        self.best = torch.where(any_kept, best, 0)
        self.scores = (self.best * self.factor).sum(-1)
        # |error| of a f32 sum of products, with room for the order: gamma(d) * sum |q||d|,
        # gamma(Lq) * sum |max|
        reach = torch.einsum("qsc,qktc->qkst", q.abs(), d4.abs())
        worst = reach.amax(-1) if reach.shape[-1] else torch.zeros(any_kept.shape, dtype=torch.float64)
        self.token_tolerance = (q.shape[-1] + 8) * 2.0**-23 * (worst + 1e-30)
        self.tolerance = (
            (self.token_tolerance + (q.shape[1] + 2) * 2.0**-23 * self.best.abs()) * self.factor.abs()
        ).sum(-1)

    def check(self, scores, argmax=None):
        assert scores.dtype == torch.float32 and scores.is_contiguous()
        assert tuple(scores.shape) == tuple(self.scores.shape)
        error = (scores.detach().double() - self.scores).abs()
        assert bool((error <= self.tolerance + 1e-30).all()), float((error - self.tolerance).max())
        if argmax is not None:
            won = argmax.long()
            has = self.kept.any(-1) & (self.factor.expand(won.shape) != 0)
            got = (
                self.masked.gather(-1, won.clamp_min(0)[..., None])[..., 0]
                if self.masked.shape[-1]
                else self.best
            )
            near = (self.best - got) <= 2 * self.token_tolerance
            assert bool((near | ~has).all())
            assert bool((won[~self.kept.any(-1)] == -1).all())


@pytest.fixture
def expected():
    return Expected


@pytest.fixture
def run():
    """A Python process of its own: run(code, VARIABLE=value)."""
    import subprocess
    import sys

    def call(code, **env):
        environment = {**os.environ, **env}
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
        )

    return call
