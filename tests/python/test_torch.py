"""How the functions live in torch: tracing, transforms, autocast, threads, forks, devices."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from late_interaction_kernels import (
    MaxSimScorer,
    _native,
    _scorer,
    autograd,
    maxsim,
    maxsim_padded,
    maxsim_pairs,
    maxsim_varlen,
    plaid,
    reference,
    retrieve,
    score_pairs,
    topk,
    varlen,
)
from late_interaction_kernels._engine import torch_ops, torch_plain
from late_interaction_kernels.backward import (
    maxsim_backward_lowmem,
    maxsim_backward_unified,
    maxsim_backward_unified_reference,
)
from late_interaction_kernels.forward import maxsim_forward
from late_interaction_kernels.fp8 import maxsim_inference_fp8, quantize_fp8_per_token
from late_interaction_kernels.fused_head import maxsim_from_hidden
from late_interaction_kernels.score_pairs import score_pairs_packed
from torch.library import opcheck


def tokens(grad=True):
    q, d = torch.randn(3, 5, 16, requires_grad=grad), torch.randn(4, 7, 16, requires_grad=grad)
    q_mask, d_mask = torch.rand(3, 5) > 0.3, torch.rand(4, 7) > 0.3
    return q, d, q_mask, d_mask


def packed_problem(grad=True):
    q, d = torch.randn(9, 16, requires_grad=grad), torch.randn(11, 16, requires_grad=grad)
    offsets = torch.tensor([0, 3, 9]), torch.tensor([0, 4, 4, 11], dtype=torch.int32)
    return (q, d, *(None,) * 5, *offsets, *(None,) * 5, 0, 0, -1, 6, 7, 0, 0)


@pytest.mark.parametrize("want_argmax", [True, False])
@pytest.mark.parametrize("kind", ["all", "weights", "candidates", "packed", "list", "compressed"])
def test_opcheck(kind, want_argmax):
    q, d, q_mask, d_mask = tokens()
    none = (None,) * 9
    codes, residuals = torch.randint(0, 7, (4, 5)), torch.randint(0, 256, (4, 5, 8), dtype=torch.uint8)
    compressed = (q, residuals, q_mask, None, None, *none[:6], codes, torch.randn(7, 16), torch.randn(16))
    problem = {
        "all": (q, d, q_mask, d_mask, None, *none, 0, 3, -1, 0, 0, 0, 0),
        "weights": (
            q,
            d,
            q_mask,
            d_mask,
            torch.rand(3, 5, requires_grad=True),
            *none,
            *[0] * 2,
            -1,
            *[0] * 4,
        ),
        "candidates": (q, torch.randn(3, 2, 7, 16, requires_grad=True), *none, *none[:3], 1, 0, -1, *[0] * 4),
        "packed": packed_problem(),
        "list": (
            *packed_problem()[:9],
            torch.tensor([1, 0]),
            torch.tensor([2, 2]),
            *none[:3],
            3,
            0,
            -1,
            6,
            7,
            0,
            0,
        ),
        "compressed": (*compressed, 0, 3, -1, 0, 0, 4, 1),
    }[kind]
    op = torch.ops.late_interaction_kernels.score.default
    assert set(opcheck(op, (*problem, want_argmax)).values()) == {"SUCCESS"}
    scores, argmax = op(*problem, True)
    plain = [x.detach() if isinstance(x, torch.Tensor) else x for x in problem]
    dense = problem[1].is_floating_point()
    args = (*plain, torch.randn_like(scores), argmax, True, dense, problem[4] is not None)
    opcheck(torch.ops.late_interaction_kernels.grad.default, args)


@pytest.mark.parametrize("normalize", [True, False])
def test_compile_fullgraph(normalize):
    q, d, q_mask, d_mask = tokens()

    def step(q, d):
        return maxsim(q, d, q_mask, d_mask, normalize=normalize) * 2.0

    compiled = torch.compile(step, fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(q, d), step(q, d))
    got, want = compiled(q, d), step(q, d)
    assert torch.equal(got, want)
    for a, b in zip(
        torch.autograd.grad(got.sum(), [q, d]), torch.autograd.grad(want.sum(), [q, d]), strict=True
    ):
        assert torch.equal(a, b)


def test_compile_other_functions_fullgraph():
    q, d, *_ = tokens(False)
    pairs = torch.compile(maxsim_pairs, fullgraph=True, backend="aot_eager")
    assert torch.equal(pairs(q, d[:3]), maxsim_pairs(q, d[:3]))
    qp, dp, cu_q, cu_d = *packed_problem(False)[:2], *packed_problem(False)[7:9]
    varlen = torch.compile(
        lambda q, d: maxsim_varlen(q, d, cu_q, cu_d, 6, 7), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(varlen(qp, dp), maxsim_varlen(qp, dp, cu_q, cu_d))
    H, W = torch.randn(4, 7, 12, requires_grad=True), torch.randn(16, 12)
    head = torch.compile(lambda q, H: maxsim_from_hidden(q, H, W), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(head(q, H), maxsim_from_hidden(q, H, W))


def traceable():
    """Every function that gives scores, of the query tokens [2, 3, 8] and their weights
    alone.
    """
    d, d4, dp = torch.randn(4, 5, 8), torch.randn(2, 6, 5, 8), torch.randn(9, 8)
    offsets = torch.tensor([0, 2, 6]), torch.tensor([0, 4, 9])
    codes, residuals = torch.randint(0, 7, (4, 5)), torch.randint(0, 256, (4, 5, 2), dtype=torch.uint8)
    codec, lengths = (torch.randn(7, 8), torch.randn(4), 2), torch.tensor([5, 0, 3, 2])
    packed_codes = codes.flatten(), residuals.flatten(0, 1), torch.tensor([0, 5, 5, 20])
    H, W, bounds = torch.randn(4, 5, 6), torch.randn(8, 6), {"max_seqlen_q": 4, "max_seqlen_d": 5}
    pairs = torch.tensor([0, 1]), torch.tensor([1, 1])
    d8, scale = quantize_fp8_per_token(d)
    return {
        "maxsim": lambda q, w: maxsim(q, d, q_weights=w, return_argmax=True),
        "int8": lambda q, w: maxsim(q, d, q_weights=w, storage="int8"),
        "candidates": lambda q, w: maxsim(q, d4, q_weights=w, normalize=True),
        "pairs": lambda q, w: maxsim_pairs(q, d[:2], q_weights=w, return_argmax=True),
        "varlen": lambda q, w: maxsim_varlen(q.flatten(0, 1), dp, *offsets, **bounds, q_weights=w.flatten()),
        "list": lambda q, w: score_pairs_packed(
            q.flatten(0, 1), dp, *offsets, *pairs, **bounds, q_weights=w.flatten(), return_argmax=True
        ),
        "padded": lambda q, w: maxsim_padded(q, d4, torch.tensor([3, 1]), torch.full((2, 6), 4), q_weights=w),
        "forward": lambda q, w: maxsim_forward(q, d, save_argmax=True, q_weights=w),
        "retrieve": lambda q, w: retrieve(q, d, 2, q_weights=w, return_argmax=True),
        "retrieve in chunks": lambda q, w: retrieve(q, d, 3, q_weights=w, chunk=1),
        "residual": lambda q, w: plaid.maxsim_residual(q, codes, residuals, lengths, *codec, q_weights=w),
        "residual varlen": lambda q, w: plaid.maxsim_residual_varlen(
            q, *packed_codes, *codec, max_seqlen_d=15, q_weights=w, return_argmax=True
        ),
        "approx": lambda q, w: plaid.plaid_approx_score(
            (codec[0][:, None] * q[0]).sum(-1), codes, lengths, q_weights=w[0]
        ),
        "head": lambda q, w: maxsim_from_hidden(q, H, W, q_weights=w, return_argmax=True),
        "fp8": lambda q, w: maxsim_inference_fp8(
            d8[:2, :3], d8, scale_Q=scale[:2, :3], scale_D=scale, q_weights=w
        ),
        "scorer": lambda q, w: MaxSimScorer()(q, d, q_weights=w),
    }


def parts(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("name", traceable())
def test_every_function_is_traced_whole(name):
    from torch._subclasses.fake_tensor import FakeTensorMode

    function = traceable()[name]
    q, w = torch.randn(2, 3, 8), torch.rand(2, 3)
    want = parts(function(q, w))
    torch._dynamo.reset()
    for got, exact in zip(parts(torch.compile(function, fullgraph=True, backend="aot_eager")(q, w)), want):
        torch.testing.assert_close(got, exact)
    for got, exact in zip(parts(torch.func.vmap(function)(torch.stack([q, q]), torch.stack([w, w]))), want):
        torch.testing.assert_close(got[1], exact)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for got, exact in zip(parts(function(mode.from_tensor(q), mode.from_tensor(w))), want):
            assert got.shape == exact.shape and got.dtype == exact.dtype
    leaves = q.clone().requires_grad_(), w.clone().requires_grad_()
    scores = parts(function(*leaves))[0]
    gradients = torch.func.grad(lambda q, w: parts(function(q, w))[0].sum(), (0, 1))(q, w)
    if scores.requires_grad:
        eager = torch.autograd.grad(scores.sum(), leaves, allow_unused=True, materialize_grads=True)
        torch.testing.assert_close(gradients, eager)
    else:
        assert name in ("forward", "retrieve", "retrieve in chunks") and not any(g.any() for g in gradients)


def test_dynamic_shapes_do_not_recompile_forever():
    compiled = torch.compile(maxsim, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (3, 4, 6, 9):
        q, d = torch.randn(n, 5, 16), torch.randn(n + 1, 2 * n, 16)
        assert torch.equal(compiled(q, d), maxsim(q, d))


def test_topk_is_an_operator():
    q, d, q_mask, d_mask = tokens(False)
    problem = (q, d, q_mask, d_mask, None, *(None,) * 9, 0, 3, -1, 0, 0, 0, 0)
    op = torch.ops.late_interaction_kernels.topk.default
    assert set(opcheck(op, (*problem, 2, 0, False)).values()) == {"SUCCESS"}


def test_export():
    class Score(torch.nn.Module):
        def forward(self, q, d):
            return maxsim(q, d, normalize=True)

    q, d, *_ = tokens(False)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(Score(), (q, d), dynamic_shapes={"q": None, "d": {0: batch}})
    more = torch.randn(9, 7, 16)
    assert torch.equal(program.module()(q, more), maxsim(q, more, normalize=True))


@pytest.mark.parametrize("name", ["retrieve", "residual", "approx", "head", "varlen"])
def test_the_number_of_documents_is_exported_as_a_symbol(name):
    q, codec = torch.randn(2, 3, 8), (torch.randn(7, 8), torch.randn(4), 2)
    W, table = torch.randn(8, 6), torch.randn(7, 3)

    def documents(n):
        codes, residuals = torch.randint(0, 7, (n, 5)), torch.randint(0, 256, (n, 5, 2), dtype=torch.uint8)
        return {
            "retrieve": (torch.randn(n, 5, 8),),
            "residual": (codes, residuals, torch.randint(0, 6, (n,))),
            "approx": (codes, torch.randint(0, 6, (n,))),
            "head": (torch.randn(n, 5, 6),),
            "varlen": (torch.arange(n),),
        }[name]

    tokens = torch.randn(90, 8)
    function = {
        "retrieve": lambda d: retrieve(q, d, 2),
        "residual": lambda *d: plaid.maxsim_residual(q, *d, *codec),
        "approx": lambda *d: plaid.plaid_approx_score(table, *d),
        "head": lambda H: maxsim_from_hidden(q, H, W),
        "varlen": lambda ends: maxsim_varlen(tokens, tokens, torch.tensor([0, 4]), ends, 4, 1),
    }[name]

    class Score(torch.nn.Module):
        def forward(self, *d):
            return function(*d)

    few, many = documents(9), documents(40)
    batch = torch.export.Dim("batch", min=3, max=64)
    program = torch.export.export(Score(), few, dynamic_shapes={"d": tuple({0: batch} for _ in few)})
    for got, want in zip(parts(program.module()(*many)), parts(function(*many))):
        torch.testing.assert_close(got, want)


def test_fake_and_meta_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        scores = maxsim(torch.randn(3, 5, 16), torch.randn(4, 7, 16))
        assert scores.shape == (3, 4) and scores.dtype == torch.float32
    assert maxsim(torch.empty(3, 5, 16, device="meta"), torch.empty(4, 7, 16, device="meta")).shape == (3, 4)


def test_transforms():
    q, d, *_ = tokens(False)
    leaf = q.clone().requires_grad_()
    maxsim(leaf, d).sum().backward()
    assert torch.equal(torch.func.grad(lambda x: maxsim(x, d).sum())(q), leaf.grad)
    stacked = torch.stack([q, 2 * q])
    assert torch.equal(
        torch.func.vmap(lambda x: maxsim(x, d))(stacked), torch.stack([maxsim(q, d), maxsim(2 * q, d)])
    )
    jacobian = torch.func.jacrev(lambda x: maxsim(x, d))(q)
    torch.testing.assert_close(jacobian.sum((0, 1)), leaf.grad)
    per_sample = torch.func.vmap(torch.func.grad(lambda x: maxsim(x, d).sum()))(stacked)
    torch.testing.assert_close(per_sample, torch.stack([leaf.grad, leaf.grad]))
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(lambda x: maxsim(x, d), (q,), (q,))
    from torch.autograd import forward_ad

    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
        maxsim(forward_ad.make_dual(q, q), d)


@pytest.mark.parametrize("normalize", [True, False])
def test_double_backward_is_refused_never_dropped(normalize):
    """With normalize the existing package returned a wrong second derivative."""
    q, d, *_ = tokens()
    (grad,) = torch.autograd.grad(maxsim(q, d, normalize=normalize).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        ((grad**2).sum() + (q**2).sum()).backward()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.func.grad(lambda x: torch.func.grad(lambda y: maxsim(y, d.detach()).sum())(x).sum())(q.detach())
    H, W = torch.randn(4, 7, 12), torch.randn(16, 12, requires_grad=True)
    (grad,) = torch.autograd.grad(maxsim_from_hidden(q.detach(), H, W).sum(), W, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


def test_scores_may_be_edited_in_place_before_backward():
    q, d, *_ = tokens()
    scores = maxsim(q, d)
    scores[scores > 0] *= 0.5
    scores.sum().backward()
    other = q.detach().requires_grad_()
    plain = maxsim(other, d.detach())
    (plain * torch.where(plain > 0, 0.5, 1.0)).sum().backward()
    torch.testing.assert_close(q.grad, other.grad)
    assert scores.view(-1).shape == (12,) and not maxsim(q.detach(), d.detach())._is_view()


def test_inputs_edited_before_backward_are_noticed():
    q, d, *_ = tokens()
    scaled = d * 1.0
    scores = maxsim(q, scaled)
    scaled.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        scores.sum().backward()


def test_argmax_is_kept_only_when_a_gradient_can_flow(monkeypatch):
    """It was saved under no_grad too."""
    wanted = []
    run = torch_ops.run_score
    monkeypatch.setattr(torch_ops, "run_score", lambda p, want: wanted.append(want) or run(p, want))
    monkeypatch.setattr(_native, "maxsim", lambda *a: None)
    q, d, *_ = tokens()
    with torch.no_grad():
        maxsim(q, d)
    maxsim(q.detach(), d.detach())
    with torch.inference_mode():
        maxsim(q, d)
    assert wanted == [False] * 3
    maxsim(q, d.detach())
    assert wanted[3:] == [True]


def test_the_short_way_waits_for_no_check_of_norms(monkeypatch):
    """Normalized and candidate scores are never checked: a process that computes nothing else
    took the long way.
    """
    monkeypatch.setattr(autograd, "_NORM_CHECKED", False)
    monkeypatch.setattr(autograd, "padded", None)
    q, d, *_ = tokens()
    maxsim(q, d, normalize=True).sum().backward()
    maxsim(q.detach(), torch.randn(3, 2, 7, 16))


def test_the_short_way_serves_the_commonest_calls(monkeypatch):
    """Both ways give the same bits; what is not plain is left to the long way, whose errors the
    user sees.
    """
    q, d, q_mask, d_mask = (x.detach() for x in tokens())
    weights, flat_q, flat_d = torch.rand(q.shape[:2]), q.flatten(0, 1), d.flatten(0, 1)
    cu_q, cu_d = (torch.arange(x.shape[0] + 1, dtype=torch.int32) * x.shape[1] for x in (q, d))
    index = torch.tensor([1, 0, 1]), torch.tensor([2, 0, 1])
    packed = flat_q, flat_d, cu_q, cu_d
    calls = [
        lambda: maxsim(q, d, q_mask, d_mask, q_weights=weights),
        lambda: maxsim(q[0], d, normalize=True),
        lambda: maxsim_pairs(q, d[: q.shape[0]], q_weights=weights),
        lambda: maxsim_varlen(*packed),
        lambda: maxsim_varlen(
            *packed, q.shape[1], d.shape[1] + 3, q_weights=weights.flatten(), normalize=True
        ),
        lambda: score_pairs_packed(*packed, *index),
        lambda: MaxSimScorer()(q, d, q_mask, d_mask),
        lambda: MaxSimScorer().score(q[0], d[0]),
        lambda: torch.cat([x.double() for x in retrieve(q, d, 2, q_mask, d_mask)]),
        lambda: torch.cat([x.double() for x in retrieve(q[0], d, 99, largest=False)]),
    ]
    with monkeypatch.context() as only_long:
        for name in ("maxsim", "best"):
            only_long.setattr(_native, name, lambda *a: None)
        want = [call() for call in calls]
    with monkeypatch.context() as only_short:
        for module in (autograd, _scorer, topk):
            only_short.setattr(module, "padded", None)
        only_short.setattr(varlen, "packed", None)
        only_short.setattr(score_pairs, "packed", None)
        for call, scores in zip(calls, want):
            got = call()
            assert got.shape == scores.shape and torch.equal(got, scores)
    for bad, match in (
        (lambda: maxsim_varlen(flat_q, flat_d, cu_q, cu_d + 1), "cu_seqlens_d ends at"),
        (lambda: maxsim_varlen(flat_q, flat_d, cu_q, cu_d.flip(0)), "ascending"),
        (lambda: maxsim_varlen(*packed, 1), "max_seqlen_q is 1"),
        (lambda: maxsim_varlen(*packed, -1), "max_seqlen_q must be at least 0"),
        (
            lambda: score_pairs_packed(*packed, index[0] - 2, index[1]),
            r"pair_q_idx\[0\] is -1, must be 0 to 2",
        ),
        (
            lambda: score_pairs_packed(*packed, index[0], index[1] + 99),
            r"pair_d_idx\[0\] is 101, must be 0 to",
        ),
        (lambda: retrieve(q, d[0], 1), "D must have shape"),
    ):
        with pytest.raises(ValueError, match=match):
            bad()


def test_gradient_only_where_it_is_wanted():
    q, d, *_ = tokens()
    maxsim(q, d.detach()).sum().backward()
    assert q.grad is not None and d.grad is None
    with torch.no_grad():
        assert not maxsim(q, d).requires_grad


def test_autocast_scores_are_f32():
    q, d, *_ = tokens()
    plain = maxsim(q, d)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = maxsim(q, d)
        half = maxsim(q.bfloat16(), d.bfloat16())
    assert scores.dtype == half.dtype == torch.float32 and torch.equal(scores, plain)
    scores.sum().backward()


@pytest.mark.parametrize("name", traceable())
def test_autocast_changes_no_bit(name):
    function, q, w = traceable()[name], torch.randn(2, 3, 8), torch.rand(2, 3)
    want = parts(function(q, w))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for got, exact in zip(parts(function(q, w)), want):
            assert torch.equal(got, exact)


def test_tensors_without_the_exchange_api():
    """As before torch 2.10: tensors are lent by their addresses. PLAID's tokens could not be
    decoded there.
    """
    code = """
import pytest, sys, torch
if hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
    del torch.Tensor.__dlpack_c_exchange_api__
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""
    tests = [str(Path(__file__).with_name(f"test_{name}.py")) for name in ("codecs", "packed", "retrieve")]
    done = subprocess.run([sys.executable, "-c", code, *tests], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


def test_negated_views_are_resolved():
    x = torch.randn(3, 5, 16, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    d = torch.randn(4, 7, 16)
    assert torch.equal(maxsim(x, d), maxsim(x.resolve_neg().clone(), d))


def test_parameters_and_subclasses():
    class Tagged(torch.Tensor):
        pass

    q, d, *_ = tokens(False)
    assert torch.equal(maxsim(torch.nn.Parameter(q), d).detach(), maxsim(q, d))
    assert torch.equal(maxsim(q.as_subclass(Tagged), d).as_subclass(torch.Tensor), maxsim(q, d))


def test_default_dtype_and_device_do_not_matter():
    q, d, *_ = tokens(False)
    want = maxsim(q, d)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(maxsim(q, d), want)
        assert torch.equal(maxsim(q.clone().requires_grad_(), d).detach(), want)
    finally:
        torch.set_default_dtype(torch.float32)


def test_backward_functions():
    q, d = torch.randn(3, 5, 16), torch.randn(6, 7, 16)
    q_mask = torch.rand(3, 5) > 0.3
    scores, argmax = maxsim_forward(q, d, q_mask, save_argmax=True)
    assert argmax.shape == (18, 5) and argmax.dtype == torch.int32 and maxsim_forward(q, d)[1] is None
    g = torch.randn_like(scores)
    got = maxsim_backward_unified(g, q, d, argmax, q_mask)
    torch.testing.assert_close(got, maxsim_backward_unified_reference(g, q, d, argmax, q_mask))
    torch.testing.assert_close(got, maxsim_backward_lowmem(g, q, d, argmax, q_mask))
    leaves = q.clone().requires_grad_(), d.clone().requires_grad_()
    torch.testing.assert_close(got, torch.autograd.grad(maxsim(*leaves, q_mask), leaves, g))
    w = torch.rand(3, 5)
    weighted = maxsim_backward_unified(g, q.double(), d, argmax, q_mask, q_weights=w)
    torch.testing.assert_close(
        weighted,
        torch.autograd.grad(maxsim(*leaves, q_mask, q_weights=w), leaves, g),
        check_dtype=False,
    )
    assert weighted[0].dtype == torch.float64 and weighted[1].dtype == torch.float32
    torch.testing.assert_close(
        weighted[1], maxsim_backward_unified_reference(g, q, d, argmax, q_mask, q_weights=w)[1]
    )

    d4 = d.view(3, 2, 7, 16)
    leaves = q.clone().requires_grad_(), d4.clone().requires_grad_()
    scores, argmax = maxsim(*leaves, return_argmax=True)
    g = torch.randn_like(scores)
    got = maxsim_backward_unified(g, q, d, argmax.reshape(6, 5), kd_layout=True)
    want = torch.autograd.grad(scores, leaves, g)
    torch.testing.assert_close(got, (want[0], want[1].view(6, 7, 16)))
    none = torch.zeros(0, 2), q[:0], d[:0], argmax.reshape(6, 5)[:0].int()
    assert [tuple(x.shape) for x in maxsim_backward_unified(*none, kd_layout=True)] == [
        (0, 5, 16),
        (0, 7, 16),
    ]
    with pytest.raises(ValueError, match=r"argmax\[0, 0\] is 7, must be -1 to 6"):
        maxsim_backward_unified(g, q, d, torch.full((6, 5), 7, dtype=torch.int32), kd_layout=True)
    with pytest.raises(ValueError, match="argmax must have shape"):
        maxsim_backward_unified(torch.randn(3, 6), q, d, argmax.reshape(6, 5))


@pytest.fixture
def without_library(monkeypatch):
    """Every device served by torch operations, as CUDA tensors are in a build without CUDA."""
    monkeypatch.setattr(torch_ops, "served", lambda p: False)
    for short_way in ("maxsim", "best"):
        monkeypatch.setattr(_native, short_way, lambda *a: None)


def test_torch_operations_under_autocast(without_library):
    q, d, *_ = tokens()
    want = maxsim(q, d)
    grads = torch.autograd.grad(want.sum(), [q, d])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = maxsim(q, d)
        assert torch.equal(got, want)
        for a, b in zip(torch.autograd.grad(got.sum(), [q, d]), grads):
            assert torch.equal(a, b)
        assert torch.equal(retrieve(q, d, 4, normalize=False)[0], want.topk(4).values)


@pytest.mark.parametrize("block", [1 << 24, 200])
@pytest.mark.parametrize("normalize", [True, False])
def test_torch_operations_give_the_same_results(without_library, monkeypatch, block, normalize):
    monkeypatch.setattr(torch_plain, "BLOCK", block)
    q, d, q_mask, d_mask = tokens()
    d_mask[1] = False
    w = torch.rand(3, 5, requires_grad=True)
    for documents, mask in (
        (d, d_mask),
        (torch.randn(3, 2, 7, 16, requires_grad=True), torch.rand(3, 2, 7) > 0.3),
    ):
        got, argmax = maxsim(q, documents, q_mask, mask, normalize=normalize, q_weights=w, return_argmax=True)
        want = reference.maxsim_reference(q, documents, q_mask, mask, normalize=normalize, q_weights=w)
        torch.testing.assert_close(got, want)
        assert argmax.shape == (*got.shape, 5)
        leaves, g = [q, documents, w], torch.randn_like(got)
        grads = zip(torch.autograd.grad(got, leaves, g), torch.autograd.grad(want, leaves, g), strict=True)
        for a, b in grads:
            torch.testing.assert_close(a, b)
    qp, dp, cu_q, cu_d = *packed_problem()[:2], *packed_problem()[7:9]
    got, want = maxsim_varlen(qp, dp, cu_q, cu_d), reference.maxsim_reference_varlen(qp, dp, cu_q, cu_d)
    torch.testing.assert_close(got, want)
    for a, b in zip(
        torch.autograd.grad(got.sum(), [qp, dp]), torch.autograd.grad(want.sum(), [qp, dp]), strict=True
    ):
        torch.testing.assert_close(a, b)
    listed = score_pairs_packed(qp, dp, cu_q, cu_d, torch.tensor([1, 0, 1]), torch.tensor([2, 0, 1]))
    torch.testing.assert_close(listed, want[[1, 0, 1], [2, 0, 1]])


def test_topk_by_torch_operations(without_library):
    from late_interaction_kernels.topk import maxsim_topk

    q, d = torch.randn(3, 5, 16), torch.randn(3, 7, 16).repeat(4, 1, 1)
    d[5, 0] = torch.nan
    for k, largest in ((1, True), (12, True), (5, False)):
        values, ids = maxsim_topk(q, d, k, largest=largest)
        scores = maxsim(q, d)
        key = -scores if largest else scores
        order = torch.where(key.isnan(), torch.inf, key).argsort(dim=1, stable=True)[:, :k]
        assert torch.equal(ids, order)
        torch.testing.assert_close(values, scores.gather(1, ids), equal_nan=True)


def test_cuda_without_a_backend_says_so_once(monkeypatch):
    class Device:
        type, index = "cuda", 0

    class Fake:
        dtype, device, is_cpu = torch.float32, Device(), False

    monkeypatch.setattr(torch_ops, "_said", set())
    monkeypatch.setattr(_native, "has_device", lambda index: False)
    with pytest.warns(RuntimeWarning, match="no CUDA backend"):
        assert not torch_ops.served(Fake())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not torch_ops.served(Fake())


def test_a_backend_that_does_not_do_it_is_replaced(monkeypatch):
    """A host may pass anything: what the library answers with LIK_EUNSUPPORTED is computed by
    torch operations.
    """
    q, d, q_mask, d_mask = tokens()
    want = maxsim(q, d, q_mask, d_mask)
    wanted = torch.autograd.grad(want.sum(), [q, d])

    def refuse(*args):
        raise NotImplementedError("not in this build")

    for name in ("forward", "backward", "score", "grad", "topk"):
        monkeypatch.setattr(_native, name, refuse)
    got = maxsim(q, d, q_mask, d_mask)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got.sum(), [q, d]), wanted)
    assert torch.equal(retrieve(q, d, 2, normalize=False)[1], maxsim(q, d).topk(2).indices)


def test_eight_threads_at_once():
    problems = []
    for i in range(8):
        torch.manual_seed(i)
        q, d = torch.randn(4, 32, 128, requires_grad=True), torch.randn(60 + i, 50, 128)
        scores = maxsim(q, d)
        (grad,) = torch.autograd.grad(scores.sum(), q)
        problems.append((q, d, scores.detach(), grad))
    wrong = []

    def work(i):
        q, d, scores, grad = problems[i]
        for _ in range(10):
            got = maxsim(q, d)
            (g,) = torch.autograd.grad(got.sum(), q)
            if not torch.equal(got.detach(), scores) or not torch.equal(g, grad):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_the_number_of_threads_changes_no_bit():
    q, d = torch.randn(3, 32, 128), torch.randn(300, 60, 128)
    before = torch.get_num_threads()
    seen = set()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            seen.add(maxsim(q, d).numpy().tobytes())
        os.environ["LIK_THREADS"] = "1"
        seen.add(maxsim(q, d).numpy().tobytes())
    finally:
        os.environ.pop("LIK_THREADS", None)
        torch.set_num_threads(before)
    assert len(seen) == 1


@pytest.mark.parametrize("framework", ["torch", "numpy"])
def test_fork_after_use(framework):
    code = f"""
import os, sys
import numpy as np
if {framework == "torch"}:
    import torch
from late_interaction_kernels import maxsim
q, d = np.ones((2, 32, 128), np.float32), np.random.rand(300, 60, 128).astype(np.float32)
if {framework == "torch"}:
    q, d = torch.from_numpy(q), torch.from_numpy(d)
want = maxsim(q, d)
child = os.fork()
if child == 0:
    os._exit(0 if bool((maxsim(q, d) == want).all()) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    env = {**os.environ, "OMP_NUM_THREADS": "4", "LIK_THREADS": "4"}
    assert subprocess.run([sys.executable, "-c", code], timeout=120, env=env).returncode == 0


FIRST = {
    "maxsim": "lik.maxsim(q, d, normalize=True)",
    "candidates": "lik.maxsim(q, d.view(2, 2, 5, 8))",
    "maxsim_pairs": "lik.maxsim_pairs(q, d[:2])",
    "retrieve": "lik.retrieve(q, d, 2)[0]",
    "scorer": "lik.MaxSimScorer()(q, d)",
    "varlen": "lik.maxsim_varlen(q[0], d[0], torch.tensor([0, 3]), torch.tensor([0, 5]), 3, 5)",
}


@pytest.mark.parametrize("name", FIRST)
def test_compiled_as_the_first_call_of_a_process(name):
    """What the trace itself imports may not change what the graph guards on."""
    code = f"""
import torch, late_interaction_kernels as lik
q, d = torch.rand(2, 3, 8), torch.rand(4, 5, 8)
compiled = torch.compile(lambda: {FIRST[name]}, backend="eager")()
assert torch.equal(compiled, {FIRST[name]})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_an_eager_call_compiles_nothing_again():
    code = """
import torch, late_interaction_kernels as lik
from torch._dynamo.testing import CompileCounter
q, d, frames = torch.rand(2, 3, 8), torch.rand(4, 5, 8), CompileCounter()
compiled = torch.compile(lambda q, d: lik.maxsim(q, d), backend=frames, fullgraph=True)
compiled(q, d)
lik.maxsim(q, d)
compiled(q, d)
print(frames.frame_count)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "1\n", done.stdout + done.stderr


def test_numbers_that_are_symbols():
    """A bound or a k that is a size of the example stays one in the trace."""
    from torch.fx.experimental.proxy_tensor import make_fx

    traced = make_fx(lambda q, d: retrieve(q, d, d.shape[0]), tracing_mode="symbolic")
    q, d = torch.rand(2, 3, 8), torch.rand(4, 5, 8)
    more = torch.rand(9, 5, 8)
    values, ids = traced(q, d)(q, more)
    assert torch.equal(values, retrieve(q, more, 9)[0]) and torch.equal(ids, retrieve(q, more, 9)[1])

    def packed(q, d, cu_q, cu_d):
        return maxsim_varlen(q, d, cu_q, cu_d, q.shape[0], d.shape[0])

    compiled = torch.compile(packed, fullgraph=True, dynamic=True, backend="eager")
    for n in (7, 12):
        arguments = (
            torch.rand(n, 8),
            torch.rand(2 * n, 8),
            torch.tensor([0, 3, n]),
            torch.tensor([0, n, 2 * n]),
        )
        assert torch.equal(compiled(*arguments), packed(*arguments))


def test_wrong_codes_under_transforms():
    """Where values cannot be seen, a code out of range is NaN, never another centroid's
    token.
    """
    q, codes, centroids = torch.rand(2, 3, 8), torch.tensor([[0, -1, 1]]), torch.rand(3, 8)

    def scores(q):
        residuals, lengths = torch.zeros(1, 3, 2, dtype=torch.uint8), torch.tensor([3])
        return plaid.maxsim_residual(q, codes, residuals, lengths, centroids, torch.zeros(4), 2)

    with pytest.raises(ValueError, match=r"codes\[0, 1\] is -1, must be 0 to 2"):
        scores(q)
    with pytest.raises(ValueError, match=r"codes\[0, 1\] is -1, must be 0 to 2"):
        torch.func.vmap(scores)(q[None])


def test_gradients_beside_dropped_nan():
    q, d = torch.rand(2, 3, 8, dtype=torch.float64), torch.rand(4, 5, 8, dtype=torch.float64)
    mask = torch.ones(4, 5, dtype=torch.bool)
    d[1, 2], mask[1, 2] = torch.nan, False
    q.requires_grad_(), d.requires_grad_()
    MaxSimScorer()(q, d, None, mask).sum().backward()
    assert q.grad.isfinite().all() and d.grad.isfinite().all() and (d.grad[1, 2] == 0).all()
