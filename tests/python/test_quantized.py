"""Tokens as 8-bit numbers: the extension's one pass against the definition in torch."""

from __future__ import annotations

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import torch
from late_interaction_kernels import maxsim
from late_interaction_kernels.fp8 import (
    dequantize_fp8_per_token,
    quantize_fp8_per_tensor,
    quantize_fp8_per_token,
)
from late_interaction_kernels.int8 import dequantize_int8_per_token, quantize_int8_per_token

KINDS = {"int8": (127.0, 1e-12), "float8_e4m3fn": (448.0, 1e-6), "float8_e5m2": (57344.0, 1e-6)}
VIEWS = {
    "contiguous": lambda x: x,
    "sliced": lambda x: x[::2, 1:],
    "part of the dim": lambda x: x[..., 3:17],
    "every other element": lambda x: x[..., ::2],
    "transposed": lambda x: x.transpose(0, 1),
    "expanded": lambda x: x[:1].expand(4, -1, -1),
    "four axes": lambda x: x.reshape(3, 2, *x.shape[1:])[:, :1],
    "five axes": lambda x: x.reshape(3, 2, 1, *x.shape[1:]),
    "two axes": lambda x: x[0],
    "one axis": lambda x: x[0, 0],
    "backward": lambda x: x.flip(0)[:, :5],
}


def quantize(x, kind, **more):
    if kind == "int8":
        return quantize_int8_per_token(x, **more)
    return quantize_fp8_per_token(x, kind, **more)


def wanted(x, kind):
    most, least = KINDS[kind]
    wide = x.float()
    scale = wide.abs().amax(-1).clamp_min(least) / most
    v = (wide / scale[..., None]).clamp(-most, most)
    return (v.round().to(torch.int8) if kind == "int8" else v.to(getattr(torch, kind))), scale


def bits(x):
    return x.view(torch.uint8) if isinstance(x, torch.Tensor) else torch.from_numpy(x.view(np.uint8))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_of_the_definition(kind, dtype, view):
    x = torch.randn(6, 40, 36) * torch.logspace(-6, 3, 40)[:, None]
    x[0, 0], x[1, 2, 3] = 0, -0.0
    x = VIEWS[view](x.to(dtype))
    values, scale = quantize(x, kind)
    want, want_scale = wanted(x, kind)
    assert torch.equal(bits(values.contiguous()), bits(want.contiguous())) and torch.equal(scale, want_scale)
    if dtype is torch.bfloat16:
        lent = x.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    else:
        lent = x.numpy()
    values, scale = quantize(lent, kind)
    assert str(values.dtype) == kind and values.shape == tuple(x.shape)
    assert torch.equal(bits(values), bits(want.contiguous())) and np.array_equal(scale, want_scale.numpy())


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
def test_every_rounding_of_float8(kind):
    """All floats of a step and their halves: ties to even, subnormal numbers, both signs."""
    most, _ = KINDS[kind]
    codes = torch.arange(256, dtype=torch.uint8).view(getattr(torch, kind)).float()
    codes = codes[codes.isfinite()].sort().values
    near = torch.cat([codes, (codes[1:] + codes[:-1]) / 2])
    near = torch.cat(
        [near, near.nextafter(torch.tensor(torch.inf)), near.nextafter(-torch.tensor(torch.inf))]
    )
    near = near.clamp(-most, most)
    x = torch.cat([near, torch.tensor([most])])[None]
    values, scale = quantize_fp8_per_token(x, kind)
    assert scale.item() == 1 and torch.equal(bits(values), bits(x.to(getattr(torch, kind))))


@pytest.mark.parametrize("kind", KINDS)
def test_normalized_tokens_have_it_in_their_scale(kind):
    x = torch.randn(3, 50, 64) * torch.logspace(-15, 15, 50)[:, None]
    x[0, 0] = 0
    values, scale = quantize(x, kind, normalize=True)
    assert torch.equal(bits(values), bits(quantize(x, kind)[0]))
    undo = dequantize_int8_per_token if kind == "int8" else dequantize_fp8_per_token
    unit = torch.nn.functional.normalize(x.double(), dim=-1).float()
    step = {"int8": 1 / 100, "float8_e4m3fn": 1 / 14, "float8_e5m2": 1 / 7}[kind]
    kept = x.abs().amax(-1) > 1e-6 if kind != "int8" else x.abs().amax(-1) > 1e-11
    assert (undo(values, scale) - unit)[kept].abs().max() < step
    traced = torch.compile(lambda y: quantize(y, kind, normalize=True), backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(traced[1][kept], scale[kept], rtol=1e-5, atol=0)


def test_the_pair_of_unit_vectors_is_scored_without_norms():
    Q, D = torch.nn.functional.normalize(torch.randn(2, 5, 64), dim=-1), torch.randn(7, 9, 64)
    pair = quantize_int8_per_token(D, normalize=True)
    got = maxsim(Q, pair, storage="int8")
    torch.testing.assert_close(got, maxsim(Q, D, normalize=True), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite(kind):
    x = torch.randn(4, 16)
    x[0, 3], x[1, 4], x[2, 5] = torch.nan, torch.inf, -torch.inf
    values, scale = quantize(x, kind)
    want, want_scale = wanted(x, kind)
    assert torch.equal(bits(values[3]), bits(want[3])) and torch.equal(scale[1:], want_scale[1:])
    assert scale[0].isnan() and (kind == "int8" or torch.equal(values.float().isnan(), want.float().isnan()))


@pytest.mark.parametrize("dtype", [None, "float8_e5m2"])
def test_one_scale_for_all(dtype):
    x = torch.randn(30, 70, 40, dtype=torch.float16)
    values, scale = quantize_fp8_per_tensor(x, dtype)
    most = KINDS[dtype or "float8_e4m3fn"][0]
    assert scale.shape == () and scale == x.float().abs().max() / most
    assert torch.equal(bits(values), bits((x.float() / scale).to(values.dtype)))


def test_nothing_is_copied():
    """The peak of memory is the results', not the tokens' in f32."""
    code = """
import resource, numpy as np, threading
from late_interaction_kernels.int8 import quantize_int8_per_token as quantize
X = np.full((3000, 128, 128), 0.5, np.float16)
quantize(X[:2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
quantize(X)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 70_000  # KiB: 47 MiB of values, 1.5 of scales, the blocks


def test_empty():
    assert quantize_int8_per_token(torch.ones(3, 0, 8))[1].shape == (3, 0)
    assert quantize_int8_per_token(np.ones((3, 2, 0), "f4"))[1].shape == (3, 2)
    assert quantize_fp8_per_tensor(torch.ones(0, 4))[1].item() == 1


@pytest.mark.parametrize("made", [torch.tensor, np.array])
def test_one_number(made):
    values, scale = quantize_fp8_per_tensor(made(-2.0))
    assert values.shape == scale.shape == () and float(values) * float(scale) == pytest.approx(-2)
