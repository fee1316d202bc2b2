"""Compressed tokens, projected hidden states, 8-bit storage."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from late_interaction_kernels import _native, maxsim, plaid, reference
from late_interaction_kernels._engine import blocks as block_by_block
from late_interaction_kernels._engine import numpy_arrays, torch_arrays
from late_interaction_kernels.fp8 import (
    dequantize_fp8_per_tensor,
    dequantize_fp8_per_token,
    maxsim_inference_fp8,
    quantize_fp8_per_tensor,
    quantize_fp8_per_token,
)
from late_interaction_kernels.fused_head import maxsim_from_hidden
from late_interaction_kernels.int8 import dequantize_int8_per_token, quantize_int8_per_token

ORDERS = ["upstream", "colbert"]


@pytest.fixture(params=[1 << 23, 500], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(block_by_block, "BLOCK_FLOATS", request.param)


def compressed(nbits, dim=24):
    codes, lengths = torch.randint(0, 10, (5, 7)), torch.tensor([7, 3, 0, 5, 1])
    residuals = torch.randint(0, 256, (5, 7, (dim * nbits + 7) // 8), dtype=torch.uint8)
    return codes, residuals, lengths, torch.randn(10, dim), torch.randn(2**nbits) * 0.3


def numpied(*arrays):
    return [a.detach().numpy() if isinstance(a, torch.Tensor) else a for a in arrays]


@pytest.mark.parametrize("nbits", [2, 4, 8])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("normalize", [True, False])
def test_residual(blocks, nbits, order, normalize):
    codes, residuals, lengths, centroids, weights = compressed(nbits)
    q = torch.randn(3, 4, 24, requires_grad=True)
    w = torch.rand(3, 4, requires_grad=True)
    args = (codes, residuals, lengths, centroids, weights, nbits)
    kwargs = {"normalize": normalize, "bit_order": order}
    got = plaid.maxsim_residual(q, *args, q_weights=w, **kwargs)
    want = reference.maxsim_residual_reference(q, *args, q_weights=w, **kwargs)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)
    g = torch.randn_like(got)
    for a, b in zip(torch.autograd.grad(got, [q, w], g), torch.autograd.grad(want, [q, w], g), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    plain = plaid.maxsim_residual(q.detach(), *args, q_weights=w.detach(), **kwargs)
    assert torch.equal(plain, got)
    assert np.array_equal(
        plaid.maxsim_residual(*numpied(q, *args), q_weights=w.detach().numpy(), **kwargs), plain.numpy()
    )
    assert plaid.maxsim_residual(q[0].detach(), *args, **kwargs).shape == (5,)

    kept = torch.arange(7) < lengths[:, None]
    cu = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
    flat = plaid.maxsim_residual_varlen(
        q, codes[kept], residuals[kept], cu, centroids, weights, nbits, q_weights=w, **kwargs
    )
    assert torch.equal(flat, got)
    assert torch.autograd.grad(flat.sum(), q)[0].shape == q.shape  # the existing package dropped it silently
    argmax = plaid.maxsim_residual(q.detach(), *args, return_argmax=True, **kwargs)[1]
    assert (
        argmax.shape == (3, 5, 4)
        and bool((argmax[:, 2] == -1).all())
        and bool((argmax < lengths[:, None]).all())
    )


def test_bytes_of_real_indexes():
    """ColBERT's golden bytes: buckets 0, 1, 2, ... mod 2^nbits."""
    golden = {2: [39] * 8, 4: [8, 76, 42, 110, 25, 93, 59, 127], 8: [0, 128, 64, 192, 32, 160, 96, 224]}
    for nbits, first in golden.items():
        dim = 8 * 8 // nbits
        buckets = torch.arange(dim) % 2**nbits
        packed = torch.tensor([first], dtype=torch.uint8)
        assert torch.equal(
            reference.unpack_residuals_reference(packed, nbits, dim, bit_order="colbert")[0].long(), buckets
        )
        bits = (buckets[:, None] >> torch.arange(nbits)) & 1
        assert np.array_equal(
            np.packbits(bits.numpy().astype(np.uint8).reshape(-1)), np.array(first, dtype=np.uint8)
        )
        weights = torch.randn(2**nbits)
        got = plaid.maxsim_residual(
            torch.eye(dim),
            torch.zeros(1, 1, dtype=torch.long),
            packed[None],
            torch.tensor([1]),
            torch.zeros(1, dim),
            weights,
            nbits,
            normalize=False,
            bit_order="colbert",
            return_argmax=False,
        )
        torch.testing.assert_close(got[0], weights[buckets].sum())


def test_decoders_agree():
    """The extension, NumPy and torch decode alike."""
    codes, residuals, centroids = (
        torch.randint(0, 10, (9,)),
        torch.randint(0, 256, (9, 6), dtype=torch.uint8),
        torch.randn(10, 24),
    )
    args = codes, residuals, centroids, torch.randn(256, 4)
    out = torch.empty(9, 24)
    _native.decode_residuals(*map(torch_arrays.lend, (*args, out)))
    assert torch.equal(torch_arrays.decode_residuals(*args), out)
    assert np.array_equal(numpy_arrays.decode_residuals(*numpied(*args)), out.numpy())


def test_residual_with_nothing():
    q = torch.randn(2, 3, 8, requires_grad=True)
    none = (
        torch.zeros(0, dtype=torch.long),
        torch.zeros(0, 2, dtype=torch.uint8),
        torch.zeros(1, dtype=torch.int32),
    )
    scores = plaid.maxsim_residual_varlen(q, *none, torch.randn(4, 8), torch.randn(4), 2)
    assert scores.shape == (2, 0)
    assert plaid.maxsim_residual_varlen(q[0], *none, torch.randn(4, 8), torch.randn(4), 2).shape == (0,)
    empty = plaid.maxsim_residual(
        q,
        torch.zeros(2, 0, dtype=torch.long),
        torch.zeros(2, 0, 2, dtype=torch.uint8),
        torch.tensor([0, 0]),
        torch.randn(4, 8),
        torch.randn(4),
        2,
    )
    assert empty.shape == (2, 2) and not empty.any()
    empty.sum().backward()  # an empty document raised when Q required a gradient
    assert not q.grad.any()


def test_approx():
    scores, codes, lengths = (
        torch.randn(10, 5),
        torch.randint(0, 10, (6, 7)),
        torch.tensor([7, 0, 3, 1, 2, 7]),
    )
    want = reference.plaid_approx_score_reference(scores, codes, lengths)
    torch.testing.assert_close(plaid.plaid_approx_score(scores, codes, lengths), want)
    assert np.allclose(plaid.plaid_approx_score(*numpied(scores, codes, lengths)), want.numpy(), atol=1e-5)
    both = plaid.plaid_approx_score(torch.stack([scores, 2 * scores]), codes, lengths)
    torch.testing.assert_close(both, torch.stack([want, 2 * want]))
    mask, w = torch.rand(5) > 0.5, torch.rand(5)
    masked = plaid.plaid_approx_score(scores, codes, lengths, q_mask=mask, q_weights=w)
    torch.testing.assert_close(
        masked, plaid.plaid_approx_score(scores * w * mask, codes, lengths), rtol=1e-5, atol=1e-5
    )
    assert plaid.plaid_approx_score(scores, codes[:0], lengths[:0]).shape == (0,)
    assert not plaid.plaid_approx_score(torch.zeros(10, 0), codes, lengths).any()
    # what lies behind a document's end may be anything
    codes[1:, 6] = torch.where(lengths[1:] < 7, 99, codes[1:, 6])
    torch.testing.assert_close(plaid.plaid_approx_score(scores, codes, lengths), want)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"nbits": 1}, "nbits must be 2, 4 or 8"),
        ({"nbits": 3}, "nbits must be"),
        ({"bit_order": "big"}, "bit_order must be"),
        ({"doc_lengths": torch.tensor([8, 3, 0, 5, 1])}, r"doc_lengths\[0(, 0)?\] is 8"),
        ({"doc_lengths": torch.tensor([-1, 3, 0, 5, 1])}, r"doc_lengths\[0(, 0)?\] is -1"),
        ({"doc_lengths": torch.tensor([1, 3])}, "doc_lengths must have shape"),
        ({"codes": torch.full((5, 7), 10)}, r"codes\[0, 0\] is 10, must be 0 to 9"),
        ({"codes": torch.full((5, 7), -1)}, r"codes\[0, 0\] is -1"),
        ({"codes": torch.zeros(5, 7)}, "codes has dtype float32"),
        ({"residuals": torch.zeros(5, 7, 5, dtype=torch.uint8)}, "residuals must have 6 bytes"),
        ({"residuals": torch.zeros(5, 6, 6, dtype=torch.uint8)}, "residuals must have shape"),
        ({"residuals": torch.zeros(5, 7, 6)}, "residuals has dtype float32"),
        ({"centroids": torch.zeros(10, 8)}, "Q and centroids must have the same dim"),
        ({"centroids": torch.zeros(10, 24, dtype=torch.int32)}, "centroids has dtype int32"),
        ({"bucket_weights": torch.zeros(16)}, "bucket_weights must have shape"),
        ({"bucket_weights": torch.zeros(4, dtype=torch.int32)}, "bucket_weights has dtype int32"),
        ({"nbits": 2.0}, "nbits must be an integer, got float"),
        ({"q_mask": np.ones((2, 3), bool)}, "q_mask is of numpy, but Q is of torch"),
        ({"q_weights": [1.0]}, "q_weights must be a torch.Tensor"),
    ],
)
def test_residual_refuses(change, match):
    names = ("codes", "residuals", "doc_lengths", "centroids", "bucket_weights")
    arguments = {
        "Q": torch.randn(2, 3, 24),
        **dict(zip(names, compressed(2), strict=True)),
        "nbits": 2,
        **change,
    }
    with pytest.raises((ValueError, TypeError), match=match):
        plaid.maxsim_residual(**arguments)


def test_codes_behind_a_documents_end_may_be_anything():
    codes, residuals, lengths, *rest = compressed(2)
    q = torch.randn(2, 3, 24)
    want = plaid.maxsim_residual(q, codes, residuals, lengths, *rest, 2)
    padding = torch.arange(7) >= lengths[:, None]
    for filler in (-1, 99):
        padded = torch.where(padding, filler, codes)
        assert torch.equal(plaid.maxsim_residual(q, padded, residuals, lengths, *rest, 2), want)
        traced = torch.func.vmap(plaid.maxsim_residual, (0, *(None,) * 6))
        torch.testing.assert_close(traced(q[None], padded, residuals, lengths, *rest, 2)[0], want)


@pytest.mark.parametrize(
    "offsets, match",
    [
        ([0, 9], "cu_seqlens_d ends at 9"),
        ([3, 2], "ascending"),
        ([-1, 2], "ascending and not negative"),
        ([], "at least one"),
    ],
)
def test_residual_varlen_refuses(offsets, match):
    with pytest.raises(ValueError, match=match):
        plaid.maxsim_residual_varlen(
            torch.randn(2, 3, 8),
            torch.zeros(5, dtype=torch.long),
            torch.zeros(5, 2, dtype=torch.uint8),
            torch.tensor(offsets, dtype=torch.int64),
            torch.randn(4, 8),
            torch.randn(4),
            2,
        )


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
