"""maxsim and maxsim_pairs: values, winners and gradients against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Expected
from hypothesis import given
from hypothesis import strategies as st
from late_interaction_kernels import maxsim, maxsim_pairs, maxsim_varlen, reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def arrange(x, how):
    """The same values with other strides."""
    if how == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if how == "spread":
        wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if how == "slice":
        wide = torch.full((x.shape[0], 3, *x.shape[1:]), 7.0, dtype=x.dtype)
        wide[:, 1] = x
        return wide[:, 1]
    return x


@st.composite
def problems(draw):
    n = lambda low, high: draw(st.integers(low, high))
    torch.manual_seed(n(0, 10**6))
    queries, documents, length_q, length_d = n(0, 4), n(0, 5), n(0, 40), n(0, 70)
    dim = draw(st.sampled_from([1, 3, 8, 16, 33, 48, 64, 96, 128, 130]))
    candidates = draw(st.booleans())
    q = torch.randn(queries, length_q, dim).to(draw(st.sampled_from(DTYPES)))
    shape = (queries, documents, length_d, dim) if candidates else (documents, length_d, dim)
    d = torch.randn(shape).to(draw(st.sampled_from(DTYPES)))
    strides = st.sampled_from(["plain", "transposed", "spread", "slice"])
    q_mask = torch.rand(q.shape[:-1]) > 0.3 if draw(st.booleans()) else None
    d_mask = torch.rand(d.shape[:-1]) > draw(st.sampled_from([0.3, 0.97])) if draw(st.booleans()) else None
    weights = torch.randn(q.shape[:-1]) if draw(st.booleans()) else None
    normalize = draw(st.booleans())
    return arrange(q, draw(strides)), arrange(d, draw(strides)), q_mask, d_mask, weights, normalize


def winners_gradient(q, d, argmax, g, weights, q_mask, normalize):
    """Gradients that these winners give, in float64: (q, d, weights)."""
    q64, d64 = q.detach().double().requires_grad_(), d.detach().double().requires_grad_()
    w64 = torch.ones(q.shape[:-1], dtype=torch.float64) if weights is None else weights.detach().double()
    w64.requires_grad_()
    qn, dn = q64, d64
    if normalize:
        qn, dn = (torch.nn.functional.normalize(x, dim=-1, eps=1e-12) for x in (q64, d64))
    d4 = dn if dn.dim() == 4 else dn[None].expand(q.shape[0], *dn.shape)
    won = argmax.long()
    if d4.shape[-2] == 0:
        zero = (q64.sum() + d64.sum() + w64.sum()) * 0
        return torch.autograd.grad(zero, [q64, d64, w64])
    index = won.clamp_min(0)[..., None].expand(*won.shape, q.shape[-1])
    best = (qn[:, None] * d4.gather(2, index)).sum(-1) * (won >= 0)
    factor = w64 if q_mask is None else w64 * q_mask
    return torch.autograd.grad(((best * factor[:, None]).sum(-1) * g.double()).sum(), [q64, d64, w64])


@given(problems())
def test_scores_winners_and_gradients(problem):
    q, d, q_mask, d_mask, weights, normalize = problem
    expected = Expected(q, d, q_mask, d_mask, weights, normalize)
    kwargs = {"normalize": normalize, "q_weights": weights}
    scores, argmax = maxsim(q, d, q_mask, d_mask, return_argmax=True, **kwargs)
    expected.check(scores, argmax)
    assert argmax.dtype == torch.int32 and argmax.shape == (*scores.shape, q.shape[1])
    assert torch.equal(maxsim(q, d, q_mask, d_mask, **kwargs), scores)

    q, d = q.detach().requires_grad_(), d.detach().requires_grad_()
    weights = None if weights is None else weights.requires_grad_()
    kwargs["q_weights"] = weights
    trained = maxsim(q, d, q_mask, d_mask, **kwargs)
    assert torch.equal(trained, scores), "with and without a gradient the scores are the same bits"
    g = torch.randn_like(trained)
    inputs = [q, d] if weights is None else [q, d, weights]
    grads = torch.autograd.grad(trained, inputs, g)
    wanted = winners_gradient(q, d, argmax, g, weights, q_mask, normalize)
    for x, got, want in zip(inputs, grads, wanted, strict=False):
        assert got.dtype == x.dtype and got.shape == x.shape
        ulp = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[x.dtype]
        scale = float(want.abs().max()) if want.numel() else 0.0
        if normalize and x is not weights and x.numel():  # a projection: what cancels is as large as g / |x|
            scale += float(g.abs().sum() / x.detach().double().norm(dim=-1).clamp_min(1e-3).min())
        torch.testing.assert_close(got.double(), want, rtol=ulp, atol=ulp * scale + 1e-6)


@given(problems())
def test_numpy_gives_the_same_bits(problem):
    q, d, q_mask, d_mask, weights, normalize = problem
    to_numpy = lambda x: None if x is None else x.numpy()
    q, d = (x.float() if x.dtype == torch.bfloat16 else x for x in (q, d))
    got = maxsim(*map(to_numpy, (q, d, q_mask, d_mask)), normalize=normalize, q_weights=to_numpy(weights))
    assert isinstance(got, np.ndarray) and got.dtype == np.float32
    want = maxsim(q, d, q_mask, d_mask, normalize=normalize, q_weights=weights)
    assert np.array_equal(got, want.numpy())


@given(problems())
def test_pairs_are_the_diagonal(problem):
    q, d, q_mask, d_mask, weights, normalize = problem
    n = min(q.shape[0], d.shape[0])
    d, d_mask = (
        (
            x if x is None or x.dim() < d.dim() - (x is d_mask) else x[:, 0] if x.shape[1] else None
            for x in (d, d_mask)
        )
        if d.dim() == 4
        else (d, d_mask)
    )
    if d is None:
        return
    cut = lambda x: None if x is None else x[:n]
    pairs = maxsim_pairs(q[:n], d[:n], cut(q_mask), cut(d_mask), normalize=normalize, q_weights=cut(weights))
    grid = maxsim(q[:n], d[:n], cut(q_mask), cut(d_mask), normalize=normalize, q_weights=cut(weights))
    assert torch.equal(pairs, grid.diagonal())


def test_ranks():
    q, d, d4 = torch.randn(3, 5, 16), torch.randn(4, 7, 16), torch.randn(3, 2, 7, 16)
    grid = maxsim(q, d)
    assert torch.equal(maxsim(q[0], d), grid[0]) and maxsim(q[0], d).shape == (4,)
    assert torch.equal(maxsim(q, d[1]), grid[:, 1]) and maxsim(q, d[1]).shape == (3,)
    assert torch.equal(maxsim(q[0], d[1]), grid[0, 1]) and maxsim(q[0], d[1]).shape == ()
    assert maxsim(q, d4).shape == (3, 2)
    scores, argmax = maxsim(
        q[0], d[1], torch.ones(5, dtype=torch.bool), torch.ones(7, dtype=torch.bool), return_argmax=True
    )
    assert scores.shape == () and argmax.shape == (5,)
    w = torch.rand(5, requires_grad=True)
    maxsim(q[0], d, q_weights=w).sum().backward()
    torch.testing.assert_close(w.grad, torch.einsum("sc,jtc->jst", q[0], d).amax(-1).sum(0))
    for x in (q, d):
        leaf = x[0].clone().requires_grad_()
        maxsim(leaf, d).sum().backward()
        assert leaf.grad.shape == leaf.shape


@pytest.mark.parametrize(
    "shape_q, shape_d, want",
    [
        ((0, 3, 8), (2, 4, 8), (0, 2)),
        ((2, 3, 8), (0, 4, 8), (2, 0)),
        ((2, 0, 8), (3, 4, 8), (2, 3)),
        ((2, 3, 8), (3, 0, 8), (2, 3)),
        ((2, 3, 0), (3, 4, 0), (2, 3)),
        ((0, 3, 8), (0, 5, 4, 8), (0, 5)),
        ((2, 3, 8), (2, 0, 4, 8), (2, 0)),
        ((2, 3, 8), (2, 5, 0, 8), (2, 5)),
        ((2, 3, 0), (2, 5, 1, 0), (2, 5)),
    ],
)
def test_empty_axes_score_zero_and_get_zero_gradients(shape_q, shape_d, want):
    """KD with no query raised ZeroDivisionError in the existing package."""
    q, d = torch.randn(shape_q, requires_grad=True), torch.randn(shape_d, requires_grad=True)
    scores = maxsim(q, d)
    assert scores.shape == want and not scores.any()
    scores.sum().backward()
    assert q.grad.shape == q.shape and d.grad.shape == d.shape and not q.grad.any() and not d.grad.any()
    assert maxsim(q.detach().numpy(), d.detach().numpy()).shape == want


def test_no_pairs():
    q = torch.randn(0, 3, 8, requires_grad=True)
    scores = maxsim_pairs(q, q)
    assert scores.shape == (0,)
    scores.sum().backward()


def test_masked_documents_and_queries_are_zero_and_poison_nothing():
    q, d = torch.randn(2, 3, 8, requires_grad=True), torch.randn(3, 4, 8)
    d[1] = torch.nan
    q_mask, d_mask = torch.ones(2, 3, dtype=torch.bool), torch.ones(3, 4, dtype=torch.bool)
    d_mask[1], q_mask[1] = False, False
    d.requires_grad_()
    scores = maxsim(q, d, q_mask, d_mask)
    assert not scores[:, 1].any() and not scores[1].any() and bool(scores[0, 0] != 0)
    scores.sum().backward()
    assert not d.grad[1].any() and not q.grad[1].any() and bool(torch.isfinite(q.grad).all())


def test_excluded_tokens_do_not_count_as_zero():
    q, d = torch.ones(1, 1, 4), -torch.ones(1, 2, 4)
    assert maxsim(q, d, None, torch.tensor([[True, False]])).item() == -4.0


def test_nan_among_kept_tokens_reaches_the_score():
    q, d = torch.randn(2, 3, 8), torch.randn(3, 4, 8)
    d[1, 2] = torch.nan
    scores = maxsim(q, d)
    assert bool(scores[:, 1].isnan().all()) and not scores[:, [0, 2]].isnan().any()


def test_ties_go_to_the_lowest_token():
    q = torch.randn(1, 3, 8)
    d = torch.randn(1, 1, 8).repeat(1, 5, 1).requires_grad_()
    scores, argmax = maxsim(q, d, return_argmax=True)
    assert not argmax.any()
    scores.sum().backward()
    assert bool(d.grad[0, 0].any()) and not d.grad[0, 1:].any()


def test_normalize_as_torch_does_for_tiny_vectors():
    """The existing package clamps the norm at 1e-6, torch at 1e-12."""
    q, d = torch.randn(1, 3, 16) * 1e-8, torch.randn(2, 4, 16) * 1e-9
    Expected(q, d, normalize=True).check(maxsim(q, d, normalize=True))
    assert not maxsim(torch.zeros(1, 2, 8), d[..., :8], normalize=True).any()


def test_half_precision_gradient_of_normalization_is_finite():
    """Zero rows and values beyond the half range's square gave inf or 0."""
    q = torch.randn(1, 3, 16).half()
    q[0, 1] = 0
    d = (torch.randn(2, 4, 16) * 3e4).clamp(-6e4, 6e4).half()
    q.requires_grad_()
    d.requires_grad_()
    maxsim(q, d, normalize=True).sum().backward()
    assert (
        bool(torch.isfinite(q.grad).all()) and bool(torch.isfinite(d.grad).all()) and bool(q.grad[0, 0].any())
    )


def test_f32_is_f32():
    """The existing package rounds f32 to f16: large values overflow, small differences
    vanish.
    """
    q, d = torch.full((1, 1, 2), 1e5), torch.tensor([[[1.0, 1e-4]]])
    assert maxsim(q, d).item() == pytest.approx(1e5 * 1.0001, rel=1e-6)


def test_f64_is_accepted_and_gradients_come_back_in_f64():
    q, d = (
        torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True),
        torch.randn(3, 4, 8, dtype=torch.float64),
    )
    scores = maxsim(q, d)
    assert scores.dtype == torch.float32
    scores.sum().backward()
    assert q.grad.dtype == torch.float64


def test_stride_zero_and_reversed_views():
    q, d = torch.randn(1, 5, 16), torch.randn(4, 7, 16)
    wide = q.expand(6, 5, 16)
    assert torch.equal(maxsim(wide, d), maxsim(wide.contiguous(), d))
    mask = torch.tensor([[True] * 3 + [False] * 4]).expand(4, 7)
    assert torch.equal(maxsim(q, d, None, mask), maxsim(q, d[:, :3]))
    n = d.numpy()
    assert np.array_equal(maxsim(q.numpy(), n[::-1]), maxsim(q.numpy(), n)[:, ::-1])
    leaf = q.clone().requires_grad_()
    maxsim(leaf.expand(6, 5, 16), d).sum().backward()
    other = q.clone().requires_grad_()
    maxsim(other, d).sum().backward()
    torch.testing.assert_close(leaf.grad, 6 * other.grad)


def test_arrays_of_any_byte_order_and_alignment(tmp_path):
    q, d = (
        np.random.default_rng(0).standard_normal((2, 3, 8), dtype=np.float32),
        np.ones((4, 5, 8), np.float32),
    )
    w, want = np.full((2, 3), 0.5, np.float32), maxsim(q, d)
    unaligned = np.frombuffer(b"?" + q.tobytes(), np.uint8)[1:].view(np.float32).reshape(q.shape)
    records = np.zeros(q.shape, [("x", np.float32), ("y", np.int16)])
    records["x"] = q
    np.save(tmp_path / "q.npy", q)
    for other in (q.astype(">f4"), unaligned, records["x"], np.load(tmp_path / "q.npy", mmap_mode="r")):
        assert np.array_equal(maxsim(other, d), want)
    halves = maxsim(q, d, q_weights=w)
    assert np.array_equal(maxsim(q, d, q_weights=w.astype(">f4")), halves)
    offsets, flat = np.array([0, 3, 6]), (q.reshape(6, 8), d.reshape(20, 8))
    packed = maxsim_varlen(*flat, offsets, np.array([0, 20]))
    for order in (">i4", ">i8", "<i2"):
        assert np.array_equal(maxsim_varlen(*flat, offsets.astype(order), np.array([0, 20], order)), packed)


def test_integer_masks_of_zero_and_one():
    q, d = torch.randn(2, 3, 8), torch.randn(3, 4, 8)
    mask = torch.rand(3, 4) > 0.5
    mask[:, 0] = True
    for dtype in (torch.int64, torch.int32, torch.uint8, torch.int8):
        assert torch.equal(maxsim(q, d, None, mask.to(dtype)), maxsim(q, d, None, mask))


def test_q_weights_fold_into_the_query():
    q, d, w = torch.randn(2, 3, 8), torch.randn(3, 4, 8), torch.rand(2, 3)
    torch.testing.assert_close(maxsim(q, d, q_weights=w), maxsim(q * w[..., None], d))
    torch.testing.assert_close(maxsim(q, d, q_weights=-w), reference.maxsim_reference(q, d, q_weights=-w))


def test_every_backward_name_is_the_same_gradient():
    d = torch.randn(3, 4, 8)
    grads = []
    for name in (None, "auto", "unified", "lowmem"):
        q = torch.ones(2, 3, 8).requires_grad_()
        maxsim(q, d, backward=name).sum().backward()
        grads.append(q.grad)
    assert all(torch.equal(g, grads[0]) for g in grads)


def test_norm_warning_once_a_process(monkeypatch):
    from late_interaction_kernels import autograd

    monkeypatch.delenv("LIK_SUPPRESS_NORM_WARN", raising=False)
    monkeypatch.setattr(autograd, "_NORM_CHECKED", False)
    q, d = torch.randn(2, 3, 64), torch.randn(2, 3, 64)
    with pytest.warns(UserWarning, match=r"late-interaction-kernels.*normalize=True"):
        maxsim(q, d)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maxsim(q, d)
