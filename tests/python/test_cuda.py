"""CUDA tensors through the package, with whatever serves them: the library's backend or torch
operations.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from entries import entries, every_argument, parts
from late_interaction_kernels import (
    _native,
    autograd,
    maxsim,
    maxsim_pairs,
    maxsim_varlen,
    plaid,
    reference,
    retrieve,
)
from late_interaction_kernels._engine import blocks as block_by_block
from late_interaction_kernels._engine import torch_ops, verbs
from late_interaction_kernels._engine.problem import fields, problem_of
from late_interaction_kernels.fp8 import maxsim_inference_fp8, quantize_fp8_per_token
from late_interaction_kernels.fused_head import maxsim_from_hidden
from late_interaction_kernels.score_pairs import score_pairs_packed
from test_devices import WRONG, put
from test_engine import gradients_of, training_problem, whole_numbers

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
        for a, b in zip(
            torch.autograd.grad(got, leaves, g), torch.autograd.grad(want, leaves, g), strict=True
        ):
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
    cu_q, cu_d = (
        torch.tensor([0, 32, 90], device="cuda"),
        torch.tensor([0, 100, 100, 300], device="cuda").int(),
    )
    got, want = maxsim_varlen(q, d, cu_q, cu_d), reference.maxsim_reference_varlen(q, d, cu_q, cu_d)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    for a, b in zip(
        torch.autograd.grad(got.sum(), [q, d]), torch.autograd.grad(want.sum(), [q, d]), strict=True
    ):
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
    torch.testing.assert_close(
        maxsim_inference_fp8(q8, d8, scale_Q=sq, scale_D=sd), want, rtol=1e-2, atol=1e-2
    )
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_projected_a_block_at_a_time(dtype, monkeypatch):
    """As all at once, in the operands' dtype, with gradients, in a graph; what lies in dropped
    tokens is never met.
    """
    q = unit(3, 32, 128, dtype=dtype)
    # Whole numbers, so that no order of a product's sums shows.
    H, W, b = (torch.randint(-2, 3, s, device="cuda").to(dtype) for s in ((6, 40, 48), (128, 48), (128,)))
    mask = torch.rand(6, 40, device="cuda") > 0.3
    H[~mask] = torch.nan
    mask[2] = False
    leaves, g = [x.clone().requires_grad_() for x in (q, H, W, b)], torch.randn(3, 6, device="cuda")
    found = []
    for floats in (block_by_block.BLOCK_FLOATS, 7000):
        monkeypatch.setattr(block_by_block, "BLOCK_FLOATS", floats)
        scores = maxsim_from_hidden(*leaves, mask)
        assert torch.equal(maxsim_from_hidden(q, H, W, b, mask), scores)
        found.append([scores, *torch.autograd.grad(scores, leaves, g)])
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = maxsim_from_hidden(q, H, W, b, mask)
        graph.replay()
        assert torch.equal(captured, scores)
    kept = torch.where(mask[..., None], H, 0).float()
    want = reference.maxsim_from_hidden_reference(q.float(), kept, W.float(), b.float(), mask)
    exact = 1e-4 if dtype is torch.float32 else 3e-2
    assert torch.equal(found[0][0], found[1][0])
    for x, y in zip(*found, strict=True):
        torch.testing.assert_close(x, y, rtol=exact, atol=exact * float(y.detach().abs().max()))
    torch.testing.assert_close(found[0][0], want, rtol=exact, atol=exact)


@needs_backend
def test_a_chunk_costs_nothing_and_bounds_what_is_large():
    q, d = unit(8, 32, 128, dtype=torch.bfloat16), unit(20000, 64, 128, dtype=torch.bfloat16)

    def peak(**chunk):
        retrieve(q, d, 100, **chunk)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out = retrieve(q, d, 100, **chunk)
        return out, torch.cuda.max_memory_allocated() - before

    whole, most = peak()
    chunked, least = peak(chunk=512)
    assert least <= most and all(torch.equal(a, b) for a, b in zip(whole, chunked, strict=True))
    q = unit(3000, 8, 64, dtype=torch.bfloat16)
    d = unit(20000, 8, 64, dtype=torch.bfloat16)
    whole, most = peak()
    chunked, least = peak(chunk=512)
    assert least < most / 2 and all(torch.equal(a, b) for a, b in zip(whole, chunked, strict=True))


def trained(**tensors):
    leaves = {name: x.clone().requires_grad_() for name, x in tensors.items()}
    return torch.autograd.grad(maxsim(**leaves).sum(), list(leaves.values()))


@pytest.mark.parametrize("index", range(max(torch.cuda.device_count(), 1)))
def test_first_call_of_fresh_threads(index):
    """What a server's worker does: its first CUDA call is one of ours, eight at once."""
    half = {"Q": unit(4, 32, 128, dtype=torch.bfloat16), "D": unit(6, 50, 128, dtype=torch.bfloat16)}
    calls = {**entries(), "half": (maxsim, half), "trained": (trained, half)}
    for name, (function, tensors) in calls.items():
        tensors = {key: x.cuda(index) for key, x in tensors.items()}
        want, got = parts(function(**tensors)), [None] * 8
        torch.cuda.synchronize(index)

        def work(n, function=function, tensors=tensors, got=got):
            try:
                got[n] = parts(function(**tensors))
            except Exception as error:
                got[n] = error

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        torch.cuda.synchronize(index)
        for result in got:
            assert not isinstance(result, Exception), f"{name}: {result!r}"
            for a, b in zip(result, want, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0)


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
    """A kernel that begins early must not write before those before it have: the second call's
    scores may lie where the first call's did, and are done sooner."""
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


def on_cuda(tensors):
    return {name: x.cuda() for name, x in tensors.items()}


@pytest.fixture(params=["library", "torch"])
def served_by(request, monkeypatch):
    if request.param == "library" and not _native.has_device(0):
        pytest.skip("needs the CUDA backend")
    if request.param == "torch":
        monkeypatch.setattr(torch_ops, "served", lambda p: False)
        for short_way in ("maxsim", "best"):
            monkeypatch.setattr(_native, short_way, lambda *a: None)
    return request.param


@pytest.mark.parametrize("name, argument, change, where, error", WRONG)
def test_out_of_range_is_nan(served_by, name, argument, change, where, error):
    """Never an assertion on the device, after which nothing works: NaN for what is wrong, the
    rest keeps its bits.
    """
    function, tensors = entries()[name]
    right, wrong = on_cuda(tensors), on_cuda({**tensors, argument: change(tensors[argument])})
    want, got = (parts(function(**x))[0].cpu() for x in (right, wrong))
    bad = torch.zeros(want.shape, dtype=torch.bool)
    if where is not None:
        bad[where] = True
    assert torch.equal(got.isnan(), bad)
    torch.testing.assert_close(got[~bad], want[~bad], rtol=0, atol=0)
    first = next(iter(tensors))
    if name != "approx":
        leaf = wrong[first].clone().requires_grad_()
        scores = parts(function(**{**wrong, first: leaf}))[0]
        (gradient,) = torch.autograd.grad(torch.where(bad.cuda(), 0, scores).sum(), leaf)
        assert gradient.isfinite().all()
    assert torch.ones(1, device="cuda").item() == 1  # the context lives


def test_codes_out_of_range_in_the_other_functions(served_by):
    function, tensors = entries()["approx"]
    codes = put(put(tensors["codes"], (0, 1), -1), (2, 0), 7)
    first = put(put(tensors["codes"], (0, 1), 0), (2, 0), 0)
    got, want = (function(**on_cuda({**tensors, "codes": x})) for x in (codes, first))
    assert torch.equal(got, want)
    _, residual = entries()["residual"]
    residual = on_cuda(
        {k: residual[k] for k in ("Q", "codes", "residuals", "doc_lengths", "centroids", "bucket_weights")}
    )
    residual["codes"] = put(residual["codes"], (0, 4), 99)
    assert reference.maxsim_residual_reference(**residual, nbits=2).isnan()[:, 0].all()
    table = torch.randn(7, 3, device="cuda")
    reference.plaid_approx_score_reference(table, residual["codes"], residual["doc_lengths"]).sum().item()
    compiled = torch.compile(
        lambda **x: plaid.maxsim_residual(**x, nbits=2), fullgraph=True, backend="aot_eager"
    )
    assert compiled(**residual).isnan()[:, 0].all()


def test_looked_at_under_the_check():
    """LIK_CHECK=1 waits, looks, and says what a CPU says."""
    code = """
import re
from entries import entries
from test_devices import WRONG
for name, argument, change, where, error in WRONG:
    if error:
        function, tensors = entries()[name]
        try:
            function(**{k: x.cuda() for k, x in {**tensors, argument: change(tensors[argument])}.items()})
            print("nothing said:", name, argument)
        except ValueError as e:
            if not re.search(error, str(e)):
                print(name, argument, e)
print("done")
"""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "LIK_CHECK": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.stdout == "done\n", done.stdout + done.stderr


@pytest.mark.parametrize("name, argument", every_argument())
def test_lazily_negative(served_by, name, argument):
    function, tensors = entries()[name]
    tensors = on_cuda(tensors)
    if tensors[argument].dtype.itemsize == 1:
        pytest.skip("no sign to put off")
    lazy = torch._neg_view(-tensors[argument])
    for a, b in zip(parts(function(**{**tensors, argument: lazy})), parts(function(**tensors)), strict=True):
        if b is not None:
            torch.testing.assert_close(a.float(), b.float())


def test_jit_trace():
    q, d = unit(2, 3, 8), unit(4, 5, 8)
    traced = torch.jit.trace(maxsim, (q, d), check_trace=False)
    assert torch.equal(traced(d, q), maxsim(d, q))


def test_the_norms_are_looked_at_once_and_not_while_a_graph_is_captured(monkeypatch):
    monkeypatch.delenv("LIK_SUPPRESS_NORM_WARN", raising=False)
    q, d = 10 * unit(2, 3, 8), unit(4, 5, 8)
    maxsim(q, d)
    monkeypatch.setattr(autograd, "_NORM_CHECKED", False)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        maxsim(q, d)
    assert not autograd._NORM_CHECKED
    with pytest.warns(UserWarning, match="normalize=True"):
        maxsim(q, d)
    assert autograd._NORM_CHECKED


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


@pytest.fixture
def no_waiting():
    """An operation that waits for the device is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("smallest", [True, False])
@pytest.mark.parametrize(
    "parts, queries, k_in, k", [(3, 7, 50, 20), (2, 1, 5, 16), (1, 4, 9, 9), (0, 2, 3, 4)]
)
def test_merged_results_have_the_bits_of_the_cpu(no_waiting, parts, queries, k_in, k, smallest):
    values = torch.randint(-3, 4, (parts, queries, k_in)) / 4
    values[values == 0.25], values[values == 0.5] = torch.nan, -torch.inf
    values = torch.where(torch.rand(values.shape) < 0.1, -0.0, values).float()
    ids = torch.randperm(values.numel()).view(values.shape)
    ids[torch.rand(ids.shape) < 0.2] = -3
    device = values.pin_memory().cuda(non_blocking=True), ids.pin_memory().cuda(non_blocking=True)
    found = verbs.merge_topk(*device, k, smallest)
    torch.cuda.set_sync_debug_mode("default")
    for got, want in zip(found, verbs.merge_topk(values, ids, k, smallest)):
        assert torch.equal(got.cpu().view(torch.int32), want.view(torch.int32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["padded", "packed", "normalized"])
def test_gradients_are_added(served_by, kind, dtype):
    problem = training_problem(kind, dtype)
    problem = problem_of([x.cuda() if isinstance(x, torch.Tensor) else x for x in fields(problem)])
    scores, argmax = verbs.score(problem, True)
    grad_scores = whole_numbers(scores.shape).cuda()
    alone = gradients_of(problem)
    verbs.grad(problem, grad_scores, argmax, alone)
    before = tuple(whole_numbers(x.shape, x.dtype).cuda() for x in alone)
    total = tuple(x.clone() for x in before)
    verbs.grad(problem, grad_scores, argmax, total, accumulate=True)
    for got, there, more in zip(total, before, alone):
        if kind == "normalized":  # the sum is rounded once
            torch.testing.assert_close(
                got, there + more, rtol=0.01 if dtype != torch.float32 else 1e-5, atol=1e-2
            )
        else:
            assert torch.equal(got, there + more)


@needs_backend
@pytest.mark.parametrize("count", [1, 40, 4095, 4097, 25000, 70000])
def test_selection(count):
    """The k best of scores that differ in their last bits alone, not at all, or by 60 powers of
    ten, of any order: what a stable sort of them gives."""
    g = torch.Generator("cuda").manual_seed(count)
    normal = torch.randn(count, generator=g, device="cuda")
    kinds = {
        "normal": normal,
        "equal": normal * 0 + 1.5,
        "two": (normal > 0).float(),
        "zeros": torch.where(normal > 0, 0.0, -0.0),
        "near": 1 + torch.randint(0, 99, (count,), generator=g, device="cuda") * 2.0**-23,
        "far": normal * 10.0 ** torch.randint(-30, 30, (count,), generator=g, device="cuda"),
        "nan": torch.where(normal > 0.5, torch.nan, normal),
        "ascending": torch.arange(count, device="cuda").float(),
        "descending": -torch.arange(count, device="cuda").float(),
    }
    D = torch.zeros(count, 1, 8, device="cuda")
    Q = torch.zeros(2, 1, 8, device="cuda")
    Q[0, 0, 3], Q[1, 0, 3] = 1, -1
    for name, values in kinds.items():
        D[:, 0, 3] = values
        scores = maxsim(Q, D)
        for k in (1, 10, 100, 1000, 2048, 2049, 5000):
            for largest in (True, False):
                got, ids = retrieve(Q, D, k, normalize=False, largest=largest)
                key = torch.where(scores.isnan(), torch.inf, -scores if largest else scores).double()
                key = torch.where(scores.isnan(), 2e300, key + 0.0)
                order = key.sort(dim=-1, stable=True).indices[:, : min(k, count)]
                assert torch.equal(ids, order), (name, k, largest)
                torch.testing.assert_close(got, scores.gather(1, order), rtol=0, atol=0, equal_nan=True)
