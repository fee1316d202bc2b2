"""Training on a GPU: gradients against f64, the same bits every time, and what frameworks do
around a step.
"""

from __future__ import annotations

import pytest
import torch
from late_interaction_kernels import _native, maxsim, maxsim_pairs, maxsim_varlen, reference
from late_interaction_kernels.padded import maxsim_padded
from late_interaction_kernels.score_pairs import score_pairs_packed

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif(not _native.has_device(0), reason="needs the CUDA backend"),
]


def unit(*shape, dtype=torch.float32):
    return torch.nn.functional.normalize(torch.randn(*shape, device="cuda"), dim=-1).to(dtype)


def leaves(nq=6, lq=32, nd=9, ld=100, dim=128, dtype=torch.bfloat16):
    return unit(nq, lq, dim, dtype=dtype).requires_grad_(), unit(nd, ld, dim, dtype=dtype).requires_grad_()


def close(got, want, dtype):
    tolerance = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    tiny = 6e-8 if dtype == torch.float16 else 0  # its smallest number
    atol = tolerance * float(want.abs().max()) + tiny
    torch.testing.assert_close(got.double(), want.double(), rtol=tolerance, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("normalize", [False, True])
def test_layouts(dtype, normalize):
    """All layouts are one computation: pairs, packed, lists and padded batches against the
    padded cross product.
    """
    q, d = leaves(dtype=dtype)
    g = torch.randn(6, 9, device="cuda")
    maxsim(q, d, normalize=normalize).backward(g)
    x, y = q.detach().double().requires_grad_(), d.detach().double().requires_grad_()
    reference.maxsim_reference(x, y, normalize=normalize).backward(g.double())
    close(q.grad, x.grad, dtype)
    close(d.grad, y.grad, dtype)
    if normalize:
        return
    cu_q, cu_d = (torch.arange(n + 1, device="cuda") * length for n, length in ((6, 32), (9, 100)))
    flat = [t.detach().reshape(-1, 128).requires_grad_() for t in (q, d)]
    maxsim_varlen(*flat, cu_q, cu_d).backward(g)
    assert torch.equal(flat[0].grad.view_as(q), q.grad) and torch.equal(flat[1].grad.view_as(d), d.grad)
    pairs = [t.detach()[:6].requires_grad_() for t in (q, d)]
    maxsim_pairs(*pairs).backward(g.diagonal().contiguous())
    lists = [t.detach().reshape(-1, 128).requires_grad_() for t in (q, d)]
    index = torch.arange(6, device="cuda")
    score_pairs_packed(*lists, cu_q, cu_d, index, index).backward(g.diagonal().contiguous())
    assert torch.equal(lists[0].grad.view_as(q), pairs[0].grad)
    assert torch.equal(lists[1].grad.view_as(d)[:6], pairs[1].grad) and not lists[1].grad.view_as(d)[6:].any()
    padded = [t.detach().requires_grad_() for t in (q, d[None].expand(6, -1, -1, -1))]
    lengths = torch.full((6,), 32, device="cuda"), torch.full((6, 9), 100, device="cuda")
    scores = maxsim_padded(*padded, *lengths)
    scores.backward(g)
    close(padded[0].grad, x.grad, dtype)


def test_same_bits():
    q, d = leaves(40, 32, 50, 300)
    g = torch.randn(40, 50, device="cuda")
    first = torch.autograd.grad(maxsim(q, d), [q, d], g)
    for _ in range(100):
        again = torch.autograd.grad(maxsim(q, d), [q, d], g)
        assert torch.equal(again[0], first[0]) and torch.equal(again[1], first[1])
    for backward in ("auto", "unified", "lowmem"):
        again = torch.autograd.grad(maxsim(q, d, backward=backward), [q, d], g)
        assert torch.equal(again[0], first[0]) and torch.equal(again[1], first[1])


def test_only_what_is_needed():
    """Frozen operands cost no memory for their gradients; dropped tokens and documents get
    exact zeros.
    """
    q, d = leaves(8, 32, 300, 200)
    frozen = d.detach()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    maxsim(q, frozen).sum().backward()
    assert torch.cuda.max_memory_allocated() - before < frozen.numel()  # half of what its gradient would take
    d_mask = torch.rand(300, 200, device="cuda") > 0.5
    d_mask[3] = False
    q_mask = torch.rand(8, 32, device="cuda") > 0.2
    grad_q, grad_d = torch.autograd.grad(maxsim(q, d, q_mask, d_mask).sum(), [q, d])
    assert not grad_d[~d_mask].any() and not grad_q[~q_mask].any() and grad_d[d_mask].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_extreme_norms(dtype):
    """Zero tokens and huge norms give finite gradients."""
    q, d = leaves(3, 5, 4, 20, 64, dtype)
    with torch.no_grad():
        q[0, 0], d[1, 3], d[2] = 0, 0, d[2] * 6e4
    grads = torch.autograd.grad(maxsim(q, d, normalize=True).sum(), [q, d])
    x, y = q.detach().double().requires_grad_(), d.detach().double().requires_grad_()
    want = torch.autograd.grad(reference.maxsim_reference(x, y, normalize=True).sum(), [x, y])
    assert all(bool(g.isfinite().all()) for g in grads)
    close(grads[0][1:], want[0][1:], dtype)  # a zero token has no direction: torch divides by its clamp
    close(grads[1][2], want[1][2], dtype)


def test_graph_of_a_step():
    q, d = leaves(8, 32, 16, 80)
    g = torch.randn(8, 16, device="cuda")
    want = torch.autograd.grad(maxsim(q, d), [q, d], g)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.autograd.grad(maxsim(q, d), [q, d], g)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = torch.autograd.grad(maxsim(q, d), [q, d], g)
    for x in got:
        x.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])


def test_checkpoint_and_autocast():
    q, d = leaves(dtype=torch.float32)
    want = torch.autograd.grad(maxsim(q, d).sum(), [q, d])
    got = torch.autograd.grad(
        torch.utils.checkpoint.checkpoint(lambda a, b: maxsim(a, b).sum(), q, d, use_reentrant=False), [q, d]
    )
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
    with torch.autocast("cuda", dtype=torch.bfloat16):
        scores = maxsim(q, d)
    assert scores.dtype == torch.float32


def test_compiled_loss():
    q, d = leaves(8, 32, 8, 80)
    labels = torch.arange(8, device="cuda")

    def loss(a, b):
        return torch.nn.functional.cross_entropy(maxsim(a, b) / 0.5, labels)

    want = torch.autograd.grad(loss(q, d), [q, d])
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(q, d), [q, d])
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])


def test_opcheck():
    q, d = leaves(2, 4, 3, 9, 16)
    rest = (*[None] * 12, 0, 0, -1, 0, 0, 0, 0)
    torch.library.opcheck(torch.ops.late_interaction_kernels.score, (q, d, *rest, True))


def test_in_place_edit_before_backward():
    q, d = leaves()
    want = torch.autograd.grad(maxsim(q, d).sum() * 2, [q, d])
    scores = maxsim(q, d)
    scores *= 2
    got = torch.autograd.grad(scores.sum(), [q, d])
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
