"""CUDA tensors through the package, with whatever serves them: the library's backend or torch operations."""

from __future__ import annotations

import time

import pytest
import torch
from late_interaction_kernels import _native, maxsim, maxsim_pairs, maxsim_varlen, plaid, reference, retrieve
from late_interaction_kernels.fp8 import maxsim_inference_fp8, quantize_fp8_per_token
from late_interaction_kernels.fused_head import maxsim_from_hidden
from late_interaction_kernels.score_pairs import score_pairs_packed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
needs_backend = pytest.mark.skipif(not _native.has_device(0), reason="needs the CUDA backend")


def unit(*shape, dtype=torch.float32):
    return torch.nn.functional.normalize(torch.randn(*shape, device="cuda"), dim=-1).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("normalize", [False, True])
def test_scores_and_gradients(dtype, normalize):
    q, d, d4 = unit(3, 32, 128, dtype=dtype), unit(5, 70, 128, dtype=dtype), unit(3, 2, 40, 128, dtype=dtype)
    q_mask = torch.rand(3, 32, device="cuda") > 0.2
    w = torch.rand(3, 32, device="cuda", requires_grad=True)
    for documents in (d, d4):
        d_mask = torch.rand(documents.shape[:-1], device="cuda") > 0.3
        leaves = q.clone().requires_grad_(), documents.clone().requires_grad_(), w
        got = maxsim(*leaves[:2], q_mask, d_mask, normalize=normalize, q_weights=w)
        want = reference.maxsim_reference(*leaves[:2], q_mask, d_mask, normalize=normalize, q_weights=w)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
        plain = maxsim(q, documents, q_mask, d_mask, normalize=normalize, q_weights=w.detach())
        assert torch.equal(plain, got) and got.dtype == torch.float32 and got.is_contiguous()
        g = torch.randn_like(got)
        for a, b in zip(torch.autograd.grad(got, leaves, g), torch.autograd.grad(want, leaves, g), strict=True):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=3e-2, atol=3e-2 if dtype != torch.float32 else 1e-3)


def test_short_way_equals_long_way():
    q, d = unit(4, 32, 128, dtype=torch.bfloat16), unit(50, 64, 128, dtype=torch.bfloat16)
    first = maxsim(q, d)
    assert torch.equal(maxsim(q, d), first)
    assert torch.equal(maxsim(q, d, q_weights=torch.ones(4, 32, device="cuda")), first)
    assert torch.equal(maxsim_pairs(q, d[:4]), first[:, :4].diagonal())


def test_packed_and_lists():
    q, d = unit(90, 64).requires_grad_(), unit(300, 64).requires_grad_()
    cu_q, cu_d = torch.tensor([0, 32, 90], device="cuda"), torch.tensor([0, 100, 100, 300], device="cuda").int()
    got, want = maxsim_varlen(q, d, cu_q, cu_d), reference.maxsim_reference_varlen(q, d, cu_q, cu_d)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    for a, b in zip(torch.autograd.grad(got.sum(), [q, d]), torch.autograd.grad(want.sum(), [q, d]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    pairs = torch.tensor([1, 0, 1], device="cuda"), torch.tensor([2, 0, 1], device="cuda")
    torch.testing.assert_close(score_pairs_packed(q, d, cu_q, cu_d, *pairs), got[pairs])


def test_topk():
    q, d = unit(3, 32, 128, dtype=torch.float16), unit(500, 40, 128, dtype=torch.float16)
    values, ids = retrieve(q, d, 7, normalize=False)
    best = maxsim(q, d).topk(7)
    torch.testing.assert_close(values, best.values)
    assert torch.equal(ids, best.indices)
    assert torch.equal(retrieve(q, d, 7, normalize=False, chunk=64)[1], ids)


def test_other_storages():
    q, d = unit(3, 32, 128), unit(6, 40, 128)
    (q8, sq), (d8, sd) = quantize_fp8_per_token(q), quantize_fp8_per_token(d)
    want = reference.maxsim_reference(q8.float() * sq[..., None], d8.float() * sd[..., None])
    torch.testing.assert_close(maxsim_inference_fp8(q8, d8, scale_Q=sq, scale_D=sd), want, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(maxsim(q, d, storage="int8"), maxsim(q, d), rtol=2e-2, atol=2e-1)
    codes = torch.randint(0, 10, (4, 7), device="cuda")
    residuals = torch.randint(0, 256, (4, 7, 32), device="cuda", dtype=torch.uint8)
    args = (codes, residuals, torch.tensor([7, 0, 3, 5], device="cuda"), unit(10, 128), unit(4)[:4] * 0.1, 2)
    leaf = q.clone().requires_grad_()
    got, want = plaid.maxsim_residual(leaf, *args), plaid.maxsim_residual_reference(q, *args)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
    got.sum().backward()
    H, W = torch.randn(4, 20, 48, device="cuda"), torch.randn(128, 48, device="cuda", requires_grad=True)
    got, want = maxsim_from_hidden(q, H, W), reference.maxsim_from_hidden_reference(q, H, W)
    torch.testing.assert_close(got, want, rtol=1e-2, atol=1e-2)
    got.sum().backward()


@needs_backend
def test_streams_and_graphs():
    q, d = unit(3, 32, 128, dtype=torch.bfloat16), unit(50, 40, 128, dtype=torch.bfloat16)
    want = maxsim(q, d)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = maxsim(q, d)
    stream.synchronize()
    assert torch.equal(got, want)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = maxsim(q, d)
    captured.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, want)


@needs_backend
def test_kernels_of_one_graph_wait_for_each_other():
    """A kernel that begins early must not write before those before it have: the second call's scores may lie where the
    first call's did, and are done sooner."""
    q = unit(8, 32, 128, dtype=torch.bfloat16)
    long, short = unit(400, 300, 128, dtype=torch.bfloat16), unit(400, 8, 128, dtype=torch.bfloat16)
    want = maxsim(q, short), *retrieve(q, long, 9, normalize=False, chunk=70)

    def run():
        maxsim(q, long)
        return maxsim(q, short), *retrieve(q, long, 9, normalize=False, chunk=70)

    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = run()
    for _ in range(20):
        for x in got:
            x.zero_()
        graph.replay()
        torch.cuda.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_compiled():
    q, d = unit(3, 32, 128).requires_grad_(), unit(5, 40, 128)
    compiled = torch.compile(lambda a, b: maxsim(a, b) * 2, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q, d), maxsim(q, d) * 2)
    compiled(q, d).sum().backward()


def test_mixed_devices_are_refused():
    with pytest.raises(ValueError, match="D is on cpu, Q is on cuda"):
        maxsim(unit(1, 2, 8), unit(1, 2, 8).cpu())


def test_host_time(capsys):
    q, d = unit(1, 32, 128, dtype=torch.bfloat16), unit(8, 32, 128, dtype=torch.bfloat16)
    leaf = q.clone().requires_grad_()
    times = {}
    for name, call in {
        "inference": lambda: maxsim(q, d),
        "training": lambda: maxsim(leaf, d).sum().backward(),
        "torch.add": lambda: torch.add(q, q),
    }.items():
        best = 1.0
        for _ in range(20):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(50):
                call()
            best = min(best, (time.perf_counter() - start) / 50)
        times[name] = best
    with capsys.disabled():
        print({name: f"{seconds * 1e6:.1f} us" for name, seconds in times.items()})
    assert times["inference"] < 1e-3
