"""Projected hidden states, 8-bit storage."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from late_interaction_kernels import maxsim, reference
from late_interaction_kernels._engine import blocks as block_by_block
from late_interaction_kernels.fp8 import (
    dequantize_fp8_per_tensor,
    dequantize_fp8_per_token,
    maxsim_inference_fp8,
    quantize_fp8_per_tensor,
    quantize_fp8_per_token,
)
from late_interaction_kernels.fused_head import maxsim_from_hidden
from late_interaction_kernels.int8 import dequantize_int8_per_token, quantize_int8_per_token


@pytest.fixture(params=[1 << 23, 500], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(block_by_block, "BLOCK_FLOATS", request.param)


def numpied(*arrays):
    return [a.detach().numpy() if isinstance(a, torch.Tensor) else a for a in arrays]


@pytest.mark.parametrize("normalize", [True, False])
def test_fused_head(blocks, normalize):
    q, H = torch.randn(3, 4, 16, requires_grad=True), torch.randn(5, 7, 24, requires_grad=True)
    W, b = torch.randn(16, 24, requires_grad=True), torch.randn(16, requires_grad=True)
    mask, w = torch.rand(5, 7) > 0.4, torch.rand(3, 4, requires_grad=True)
    mask[2] = False
    got = maxsim_from_hidden(q, H, W, b, mask, normalize, q_weights=w)
    want = reference.maxsim_from_hidden_reference(q, H, W, b, mask, normalize=normalize, q_weights=w)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(maxsim_from_hidden(q, H, W, b, mask, normalize, q_weights=w), got)
    leaves, g = [q, H, W, b, w], torch.randn_like(got)
    for x, y in zip(torch.autograd.grad(got, leaves, g), torch.autograd.grad(want, leaves, g), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-3)
    arrays = numpied(q, H, W, b, mask)
    assert np.allclose(
        maxsim_from_hidden(*arrays, normalize, q_weights=w.detach().numpy()), got.detach().numpy(), atol=1e-3
    )
    assert maxsim_from_hidden(q[0], H, W).shape == (5,)
    assert maxsim_from_hidden(q, H, W, return_argmax=True)[1].shape == (3, 5, 4)


def test_fused_head_keeps_masked_rows_out_of_the_gradients():
    """A fully masked document leaked into the gradients; what lies in masked rows must not
    matter.
    """
    q, W = torch.randn(2, 3, 8, requires_grad=True), torch.randn(8, 12, requires_grad=True)
    H = torch.randn(3, 4, 12)
    H[1] = torch.nan
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[1] = False
    H.requires_grad_()
    scores = maxsim_from_hidden(q, H, W, None, mask)
    assert not scores[:, 1].any()
    scores.sum().backward()
    assert bool(torch.isfinite(W.grad).all()) and bool(torch.isfinite(q.grad).all()) and not H.grad[1].any()


def test_fused_head_gradients_come_in_each_dtype():
    q, H = torch.randn(2, 3, 8, requires_grad=True), torch.randn(3, 4, 12).bfloat16().requires_grad_()
    W = torch.randn(8, 12).half().requires_grad_()
    maxsim_from_hidden(q, H, W).sum().backward()
    assert (q.grad.dtype, H.grad.dtype, W.grad.dtype) == (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"W": torch.randn(8, 11)}, "W must have shape"),
        ({"b": torch.randn(7)}, "b must have shape"),
        ({"H_d": torch.randn(4, 12)}, "H_d must have shape"),
        ({"Q": torch.randn(3)}, "Q must have shape"),
        ({"d_mask": torch.ones(3, 5, dtype=torch.bool)}, "d_mask must have shape"),
        ({"d_mask": torch.ones(3, 4)}, "d_mask has dtype float32"),
        ({"H_d": torch.ones(3, 4, 12, dtype=torch.int32)}, "H_d has dtype int32"),
    ],
)
def test_fused_head_refuses(change, match):
    arguments = {"Q": torch.randn(2, 3, 8), "H_d": torch.randn(3, 4, 12), "W": torch.randn(8, 12), **change}
    with pytest.raises((ValueError, TypeError), match=match):
        maxsim_from_hidden(**arguments)


@pytest.mark.parametrize("name, largest", [("float8_e4m3fn", 448.0), ("float8_e5m2", 57344.0)])
@pytest.mark.parametrize("kind", ["tensor", "token"])
def test_fp8(name, largest, kind):
    quantize, restore = {
        "tensor": (quantize_fp8_per_tensor, dequantize_fp8_per_tensor),
        "token": (quantize_fp8_per_token, dequantize_fp8_per_token),
    }[kind]
    q, d = torch.randn(3, 5, 32) * 3, torch.randn(4, 7, 32)
    d[1, 2] = 0
    dtype = getattr(torch, name)
    (Q8, sq), (D8, sd) = quantize(q, dtype), quantize(d, dtype)
    assert (
        Q8.dtype == dtype and sq.shape == (() if kind == "tensor" else (3, 5)) and sq.dtype == torch.float32
    )
    torch.testing.assert_close(sq.max(), q.abs().max() / largest)
    mask = torch.rand(4, 7) > 0.3
    got = maxsim_inference_fp8(Q8, D8, scale_Q=sq, scale_D=sd, d_mask=mask)
    torch.testing.assert_close(got, reference.maxsim_reference(restore(Q8, sq), restore(D8, sd), None, mask))
    torch.testing.assert_close(got, reference.maxsim_reference(q, d, None, mask), rtol=0.1, atol=8.0)
    (Qn, sqn), (Dn, sdn) = quantize(q.numpy(), getattr(ml_dtypes, name)), quantize(d.numpy(), name)
    assert np.array_equal(Qn.view(np.uint8), Q8.view(torch.uint8).numpy())
    assert np.array_equal(
        maxsim_inference_fp8(Qn, Dn, scale_Q=sqn, scale_D=sdn, d_mask=mask.numpy()), got.numpy()
    )


def test_fp8_scales():
    Q8, s = quantize_fp8_per_tensor(torch.randn(1, 8))
    D8, t = quantize_fp8_per_token(torch.randn(2, 3, 8))
    one = maxsim_inference_fp8(Q8, D8, scale_Q=s, scale_D=t)
    for scale in (
        s.reshape(1),
        float(s),
        s.reshape(1, 1),
    ):  # [1] with a 2-D Q was read as per token, past its end
        assert torch.equal(maxsim_inference_fp8(Q8, D8, scale_Q=scale, scale_D=t), one)
    wide8, wide_s = quantize_fp8_per_tensor(torch.randn(5, 8))
    assert maxsim_inference_fp8(wide8, D8, scale_Q=wide_s.reshape(1), scale_D=t).shape == (2,)
    with pytest.raises(ValueError, match="scale_D must hold one element or have shape"):
        maxsim_inference_fp8(Q8, D8, scale_Q=s, scale_D=t[:, :2])
    with pytest.raises(TypeError, match="Q has dtype float32"):
        maxsim_inference_fp8(torch.randn(1, 8), D8, scale_Q=s, scale_D=t)
    with pytest.raises(ValueError, match="dtype must be float8"):
        quantize_fp8_per_tensor(torch.randn(2, 8), torch.float16)
    empty, scale = quantize_fp8_per_tensor(torch.zeros(0, 8))
    assert scale.item() == 1.0 and empty.shape == (0, 8)


def test_8_bit_refuses():
    Q8, s = quantize_fp8_per_token(torch.randn(2, 3, 8))
    values, scale = quantize_int8_per_token(torch.randn(2, 3, 8))
    with pytest.raises(TypeError, match="scale_Q has dtype bool"):
        maxsim_inference_fp8(Q8, Q8, scale_Q=s > 0, scale_D=s)
    with pytest.raises(TypeError, match="X_fp8 has dtype float32"):
        dequantize_fp8_per_token(Q8.float(), s)
    with pytest.raises(ValueError, match=r"scale must have shape \(2, 3\)"):
        dequantize_fp8_per_token(Q8, s[:1])
    with pytest.raises(ValueError, match=r"scale must have shape \(\)"):
        dequantize_fp8_per_tensor(Q8, s)
    with pytest.raises(ValueError, match=r"scale must have shape \(2, 3\)"):
        dequantize_int8_per_token(values, scale[:1])
    with pytest.raises(TypeError, match="values has dtype float32"):
        dequantize_int8_per_token(values.float(), scale)
    none = Q8[..., :0]
    assert not maxsim_inference_fp8(none, none, scale_Q=1.0, scale_D=1.0).any()


@pytest.mark.parametrize("framework", ["torch", "numpy"])
def test_int8(framework):
    q, d = torch.randn(3, 5, 96), torch.randn(4, 7, 96) * torch.rand(4, 7, 1) * 10
    values, scale = quantize_int8_per_token(d)
    assert values.dtype == torch.int8 and scale.shape == (4, 7)
    assert bool(((dequantize_int8_per_token(values, scale) - d).abs() <= scale[..., None] / 2 * 1.001).all())
    want = reference.maxsim_reference(q.double(), dequantize_int8_per_token(values, scale).double())
    a, b = (q, d) if framework == "torch" else (q.numpy(), d.numpy())
    got = torch.as_tensor(maxsim(a, b, storage="int8"))
    torch.testing.assert_close(got.double(), want, rtol=1e-3, atol=1e-2)
    pair = quantize_int8_per_token(b)
    assert torch.equal(torch.as_tensor(maxsim(a, pair, storage="int8")), got)


def test_int8_gradient_reaches_the_query_alone():
    q, d = torch.randn(3, 5, 32, requires_grad=True), torch.randn(4, 7, 32)
    pair = quantize_int8_per_token(d)
    maxsim(q, pair, storage="int8").sum().backward()
    other = q.detach().clone().requires_grad_()
    reference.maxsim_reference(other, dequantize_int8_per_token(*pair)).sum().backward()
    torch.testing.assert_close(q.grad, other.grad, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="D requires a gradient"):
        maxsim(q, d.requires_grad_(), storage="int8")
    with pytest.raises(ValueError, match="storage must be"):
        maxsim(q, d, storage="int4")
